"""Rows of access tables that have no effect: what they are about is not there. That is said, and is no error."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from mfmc_ray.access.tables import names_of
from mfmc_ray.faces.faces import F32

SHOWN = 10
"""So many rows are named."""


class About(NamedTuple):
    """What a row is about.

    Attributes:
        number: of the row.
        person: who must be enrolled for it to have an effect.
        image: the image that it names, by id or path; None: all, or a pattern.
        pattern: is given a path, and returns None if the row is not about it; None if it has no pattern.
    """

    number: int
    person: str
    image: str | None = None
    pattern: Callable[[str], object] | None = None


class PersonEffects:
    """Of a table whose rows are about people.

    Args:
        title: how the table is called in sentences.
        rows: what they are about.
        seen: image_id → the people recognised in it.
    """

    def __init__(self, title: str, rows: Iterable[About], seen: Callable[[str | None], Collection[str]]) -> None:
        self._title, self._rows, self._seen = title, list(rows), seen
        self._by_image: dict[str, list[About]] = {}
        for row in self._rows:
            if row.image is not None:
                self._by_image.setdefault(row.image, []).append(row)
        self._pending = [row for row in self._rows if row.pattern is not None]
        self._met: set[int] = set()
        self._there = {row.number for row in self._rows if row.image is None and row.pattern is None}

    def see(self, image_id: str | None, path: str, boxes: Callable[[], F32]) -> None:
        """As of `Effects`."""
        for name in names_of(image_id, path):
            for row in self._by_image.get(name, ()):
                self._there.add(row.number)
                if row.person in self._seen(image_id):
                    self._met.add(row.number)
        if self._pending:
            found = {row.number for row in self._pending if row.pattern is not None and row.pattern(path) is not None}
            self._there |= found
            self._pending = [row for row in self._pending if row.number not in found]

    def lines(self, enrolled: Collection[str] | None) -> list[str]:
        """As of `Effects`."""
        strangers = {row.number for row in self._rows if enrolled is not None and row.person not in enrolled}
        named = {row.number for row in self._rows if row.image is not None}
        unmet = (named & self._there) - self._met - strangers
        return told(
            self._title,
            (strangers, "about people who are not enrolled: nobody is recognised as them"),
            ({row.number for row in self._rows} - self._there, "for images that are not in the collection"),
            (unmet, "about people who were not recognised in the image that they name"),
        )


def told(title: str, *groups: tuple[Collection[int], str]) -> list[str]:
    """Sentences about some rows of a table: their numbers, and what is said of them; none about no rows."""
    return [f"{title}: {_listed(sorted(numbers))} {words}." for numbers, words in groups if numbers]


def _listed(numbers: Sequence[int]) -> str:
    named = ", ".join(map(str, numbers[:SHOWN])) + (f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else "")
    return f"row {named} is" if len(numbers) == 1 else f"{len(numbers)} rows ({named}) are"
