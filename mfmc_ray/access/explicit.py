"""The access model `explicit`: a face stays only in an image that the person approved.

A table of consents says which person approves, or refuses, which image. A person stays in an image if a row of theirs allows it and none
denies it; no row of anybody else matters.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mfmc_ray.access.decide import NOTHING, Decision, Effects
from mfmc_ray.access.effects import About, PersonEffects
from mfmc_ray.access.tables import Cells, Layout, allow_of, image_of, load, names_of, person_of

LAYOUT = Layout("--consents", ("image", "person"), ("allow",))


class Consent(NamedTuple):
    """One row: whether a person approves an image, which is named by its id or path."""

    number: int
    image: str
    person: str
    allow: bool


@dataclass(frozen=True)
class Explicit:
    """The rows of a table of consents, a `PersonModel`.

    Attributes:
        rows: (image_id or path, person) → the rows.
        digest: sha-256, hex, over all rows.
    """

    rows: Mapping[tuple[str, str], tuple[Consent, ...]]
    digest: str = field(default="")

    def __post_init__(self) -> None:
        plain = json.dumps(sorted(row for rows in self.rows.values() for row in rows))
        object.__setattr__(self, "digest", hashlib.sha256(f"explicit 1 {plain}".encode()).hexdigest())

    @classmethod
    def load(cls, consents: str, storage_options: Mapping[str, Any] | None = None) -> Explicit:
        """The table in a CSV or Parquet file; arguments and errors as of `tables.load`."""
        return cls.of(load(consents, storage_options, LAYOUT, _row))

    @classmethod
    def of(cls, rows: Iterable[Consent]) -> Explicit:
        """The model that rows make."""
        found: dict[tuple[str, str], list[Consent]] = {}
        for row in rows:
            found.setdefault((row.image, row.person), []).append(row)
        return cls({key: tuple(some) for key, some in found.items()})

    def says(self, person: str, image_id: str, path: str) -> Decision:
        """Kept by "explicit:" and the number of the first row that allows it, if none denies it."""
        mine = sorted(row for name in names_of(image_id, path) for row in self.rows.get((name, person), ()))
        if not mine:
            return NOTHING
        denials = [row.number for row in mine if not row.allow]
        return Decision(False, denied=f"explicit:{denials[0]}") if denials else Decision(True, f"explicit:{mine[0].number}")

    def effects(self, seen: Callable[[str | None], Collection[str]]) -> list[Effects]:
        """The table's."""
        every = (row for rows in self.rows.values() for row in rows)
        return [PersonEffects("Consents", (About(row.number, row.person, row.image) for row in every), seen)]


def _row(number: int, cells: Cells) -> Consent:
    return Consent(number, image_of(cells), person_of(cells), allow_of(cells))
