"""The access model `rules`: what each person's rules say about an audience. A release is for one audience.

A rule is about a person, an audience and all images, one, or those of a pattern. In a release for an audience a person's face stays if
everybody in the audience is allowed by some rule of theirs that is about the image, and nobody in it is denied by any. Everyone is more
than anybody could list: only a rule about everyone allows everyone, and any rule that denies somebody denies everyone. To an audience of
nobody nothing is disclosed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from functools import cached_property
from typing import Any, NamedTuple

from mfmc_ray.access.decide import NOTHING, AccessError, Decision, Effects
from mfmc_ray.access.effects import About, PersonEffects
from mfmc_ray.access.groups import GROUP, VIEWER, Groups, Party, no_group
from mfmc_ray.access.tables import Cells, Layout, allow_of, image_of, last_name, load, names_of, person_of
from mfmc_ray.config import EVERYONE

EVERYBODY = Party(EVERYONE)
LAYOUT = Layout("--rules", ("person", "audience"), ("image", "allow"))
SHOWN = 10
"""A reason names so many rows; the audience may be covered by as many as it has members."""


class Rule(NamedTuple):
    """One row: whether a person lets an audience see them in all images (None), in one (its id or path), or in those whose path fits a
    pattern: * is any text, ? any character, / among them."""

    number: int
    person: str
    audience: Party
    image: str | None
    allow: bool


_WILD = frozenset("*?")


@dataclass(frozen=True)
class Rules:
    """The rules as far as one audience is concerned, a `PersonModel`.

    Attributes:
        rows: person → the rows, in the order of their numbers.
        audience: whom the release is for.
        groups: that rows and audience name.
        digest: sha-256, hex, over all of them.
    """

    rows: Mapping[str, tuple[Rule, ...]]
    audience: Party = EVERYBODY
    groups: Groups = field(default_factory=Groups)
    digest: str = field(default="")

    def __post_init__(self) -> None:
        rows = sorted(row for some in self.rows.values() for row in some)
        named = self.groups.plain(party.name for party in (self.audience, *(row.audience for row in rows)) if party.kind == GROUP)
        plain = json.dumps([rows, self.audience, named])
        object.__setattr__(self, "digest", hashlib.sha256(f"rules 1 {plain}".encode()).hexdigest())

    @classmethod
    def load(cls, rules: str, audience: Party, groups: Groups, storage_options: Mapping[str, Any] | None = None) -> Rules:
        """The table in a CSV or Parquet file; arguments and errors as of `tables.load`, and an error if it, or the audience, is of unknown
        groups."""
        rows = load(rules, storage_options, LAYOUT, _row)
        groups.check(last_name(rules), [row.audience for row in rows])
        if audience.kind == GROUP and audience.name not in groups.viewers:
            raise AccessError(f"--audience {audience}: {no_group(audience.name, groups.viewers)}")
        return cls.of(rows, audience, groups)

    @classmethod
    def of(cls, rows: Iterable[Rule], audience: Party = EVERYBODY, groups: Groups | None = None) -> Rules:
        """The model that rows make; all groups that they and the audience name are there."""
        found: dict[str, list[Rule]] = {}
        for row in rows:
            found.setdefault(row.person, []).append(row)
        return cls(
            {person: tuple(sorted(some, key=lambda row: row.number)) for person, some in found.items()}, audience, groups or Groups()
        )

    @cached_property
    def members(self) -> frozenset[str] | None:
        """Who is in the audience; None: everyone."""
        return self.groups.of_party(self.audience)

    def says(self, person: str, image_id: str, path: str) -> Decision:
        """Kept by "rules:" and the rows that together allow the whole audience, the fewest that are found, if none denies anybody in it."""
        names = names_of(image_id, path)
        mine = [row for row in self.rows.get(person, ()) if row.image is None or row.image in names or self._fits(row.image, path)]
        for row in mine:
            if not row.allow and (self.members is None or self._covered[row.audience]):
                return Decision(False, denied=f"rules:{row.number}")
        rows = self._covering([row for row in mine if row.allow])
        if not rows:
            return NOTHING
        more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
        return Decision(True, f"rules:{','.join(map(str, rows[:SHOWN]))}{more}")

    @cached_property
    def _covered(self) -> dict[Party, frozenset[str]]:
        """Who of an audience that is not everyone is in each party that rows name."""
        members = self.members or frozenset()
        parties = {row.audience for some in self.rows.values() for row in some}
        named = {party: self.groups.of_party(party) for party in parties}
        return {party: members if viewers is None else members & viewers for party, viewers in named.items()}

    @cached_property
    def _patterns(self) -> dict[str, re.Pattern[str]]:
        every = {row.image for some in self.rows.values() for row in some}
        return {image: _fitting(image) for image in every if image is not None and not _WILD.isdisjoint(image)}

    def _fits(self, image: str, path: str) -> bool:
        """Whether a path fits what a row names, which may be no pattern."""
        pattern = self._patterns.get(image)
        return pattern is not None and pattern.fullmatch(path) is not None

    def _covering(self, rows: list[Rule]) -> list[int]:
        """Numbers of rows whose audiences together are all of the release's; none if they are not."""
        if self.members is None:
            return [row.number for row in rows if row.audience.kind == EVERYONE][:1]
        covered = [(self._covered[row.audience], row.number) for row in rows]
        for viewers, number in covered:
            if self.members and len(viewers) == len(self.members):
                return [number]
        left, chosen = set(self.members), []
        while left:
            best, number = max(covered, key=lambda one: (len(one[0] & left), -one[1]), default=(frozenset[str](), 0))
            if not best & left:
                return []
            chosen.append(number)
            left -= best
        return sorted(chosen)

    def effects(self, seen: Callable[[str | None], Collection[str]]) -> list[Effects]:
        """The table's."""
        every = (row for some in self.rows.values() for row in some)
        return [PersonEffects("Rules", (_about(row) for row in every), seen)]


def _row(number: int, cells: Cells) -> Rule:
    image = cells.get("image")
    everywhere = image is None or (isinstance(image, str) and not image.strip())
    audience = Party.parse(cells["audience"], "audience", EVERYONE, GROUP, VIEWER)
    return Rule(number, person_of(cells), audience, None if everywhere else image_of(cells), allow_of(cells))


def _about(row: Rule) -> About:
    if row.image is None or _WILD.isdisjoint(row.image):
        return About(row.number, row.person, row.image)
    return About(row.number, row.person, pattern=_fitting(row.image).fullmatch)


def _fitting(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern.replace("[", "[[]")))  # brackets are part of a name
