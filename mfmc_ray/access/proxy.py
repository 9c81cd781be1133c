"""The access model `proxy`: a face stays if somebody whom the person trusts tagged them in that image.

A table of tags says who tagged whom in which image, or wants a person not to be shown there; a table of trust says whose tags a person lets
count. Nobody trusts anybody until they say so; who tags under a person's own id is that person, and is trusted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mfmc_ray.access.decide import NOTHING, Decision, Effects
from mfmc_ray.access.effects import About, PersonEffects
from mfmc_ray.access.groups import GROUP, VIEWER, Groups, Party
from mfmc_ray.access.tables import Cells, Layout, allow_of, image_of, last_name, load, names_of, person_of

TAGS = Layout("--tags", ("image", "person", "by"), ("allow",))
TRUST = Layout("--trust", ("person", "trusts"), ("allow",))


class Tag(NamedTuple):
    """One row of tags: who tagged a person in an image, which is named by its id or path, or wants them not to be shown there."""

    number: int
    image: str
    person: str
    by: str
    allow: bool


class Trust(NamedTuple):
    """One row of trust: whose tags of them a person lets count, or does not."""

    number: int
    person: str
    trusts: Party
    allow: bool


@dataclass(frozen=True)
class Proxy:
    """The rows of both tables, a `PersonModel`.

    Attributes:
        tags: (image_id or path, person) → the rows.
        trust: person → the rows.
        groups: that rows of trust name.
        digest: sha-256, hex, over all of them.
    """

    tags: Mapping[tuple[str, str], tuple[Tag, ...]]
    trust: Mapping[str, tuple[Trust, ...]]
    groups: Groups = field(default_factory=Groups)
    digest: str = field(default="")

    def __post_init__(self) -> None:
        tags = sorted(row for rows in self.tags.values() for row in rows)
        trust = sorted(row for rows in self.trust.values() for row in rows)
        named = self.groups.plain(row.trusts.name for row in trust if row.trusts.kind == GROUP)
        plain = json.dumps([tags, trust, named])
        object.__setattr__(self, "digest", hashlib.sha256(f"proxy 1 {plain}".encode()).hexdigest())

    @classmethod
    def load(cls, tags: str, trust: str, groups: Groups, storage_options: Mapping[str, Any] | None = None) -> Proxy:
        """The tables in CSV or Parquet files; arguments and errors as of `tables.load`, and an error if trust names unknown groups."""
        tagged = load(tags, storage_options, TAGS, _tag)
        trusted = load(trust, storage_options, TRUST, _trust)
        groups.check(last_name(trust), [row.trusts for row in trusted])
        return cls.of(tagged, trusted, groups)

    @classmethod
    def of(cls, tags: Iterable[Tag], trust: Iterable[Trust], groups: Groups | None = None) -> Proxy:
        """The model that rows make; all groups that they name are there."""
        tagged: dict[tuple[str, str], list[Tag]] = {}
        for tag in tags:
            tagged.setdefault((tag.image, tag.person), []).append(tag)
        trusted: dict[str, list[Trust]] = {}
        for row in trust:
            trusted.setdefault(row.person, []).append(row)
        return cls(
            {key: tuple(some) for key, some in tagged.items()},
            {person: tuple(sorted(some)) for person, some in trusted.items()},
            groups or Groups(),
        )

    def says(self, person: str, image_id: str, path: str) -> Decision:
        """Kept by "proxy:tags:" and the first tag that counts, with ",trust:" and the row by which it does unless it is the person's own;
        if no row of tags denies it."""
        mine = sorted(row for name in names_of(image_id, path) for row in self.tags.get((name, person), ()))
        denials = [row.number for row in mine if not row.allow]
        if denials:
            return Decision(False, denied=f"proxy:tags:{denials[0]}")
        for tag in mine:
            why = self._trusted(person, tag.by)
            if why is not None:
                return Decision(True, f"proxy:tags:{tag.number}{why}")
        return NOTHING

    def _trusted(self, person: str, by: str) -> str | None:
        """Which row of trust lets a tag count, as ",trust:8"; "" if none is needed; None if it does not."""
        about = [row for row in self.trust.get(person, ()) if by in (self.groups.of_party(row.trusts) or ())]
        if not all(row.allow for row in about):
            return None
        if by == person:
            return ""
        return f",trust:{about[0].number}" if about else None

    def effects(self, seen: Callable[[str | None], Collection[str]]) -> list[Effects]:
        """Of both tables."""
        tags = (About(row.number, row.person, row.image) for rows in self.tags.values() for row in rows)
        trust = (About(row.number, row.person) for rows in self.trust.values() for row in rows)
        return [PersonEffects("Tags", tags, seen), PersonEffects("Trust", trust, seen)]


def _tag(number: int, cells: Cells) -> Tag:
    by = Party.parse(cells["by"], "by", VIEWER)
    return Tag(number, image_of(cells), person_of(cells), by.name, allow_of(cells))


def _trust(number: int, cells: Cells) -> Trust:
    return Trust(number, person_of(cells), Party.parse(cells["trusts"], "trusts", VIEWER, GROUP), allow_of(cells))
