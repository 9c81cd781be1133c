"""Small worlds for the properties of the access models: who is seen where, what tables say, and what must then be kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st

from mfmc_ray.access.approvals import Approvals
from mfmc_ray.access.approvals import Row as BoxRow
from mfmc_ray.access.combined import Combined
from mfmc_ray.access.decide import PersonModel
from mfmc_ray.access.explicit import Consent, Explicit
from mfmc_ray.access.groups import GROUP, VIEWER, Groups, Member, Party
from mfmc_ray.access.lists import PeopleList
from mfmc_ray.access.proxy import Proxy, Tag, Trust
from mfmc_ray.access.rules import Rule, Rules
from mfmc_ray.config import EVERYONE
from mfmc_ray.faces.faces import Faces
from mfmc_ray.people.sightings import RECOGNISED, UNKNOWN, Sighting, Sightings

PATHS = {"ab" * 32: "a/b.jpg", "cd" * 32: "c.jpg"}
PEOPLE = ("ada", "bea")  # few, so that rows meet
USERS = (*PEOPLE, "dan", "eve")
GROUPS = ("inner", "middle", "outer")
SOMEBODY = "somebody whom no table names"
ALL = Party(EVERYONE)
KINDS = ("none", "proxy", "explicit", "rules")


@dataclass(frozen=True)
class World:
    """What there is.

    Attributes:
        kind: the access model.
        seen: image_id → the person whom each face is recognised as, or None.
        tags, trust, consents, rules, groups: rows of tables.
        always, never: (number, person).
        approvals: (image_id or path, number, whether it allows, number of the face whose box it has).
        audience: of rules.
    """

    kind: str
    seen: dict[str, tuple[str | None, ...]]
    tags: tuple[Tag, ...] = ()
    trust: tuple[Trust, ...] = ()
    consents: tuple[Consent, ...] = ()
    rules: tuple[Rule, ...] = ()
    groups: tuple[Member, ...] = ()
    always: tuple[tuple[int, str], ...] = ()
    never: tuple[tuple[int, str], ...] = ()
    approvals: tuple[tuple[str, int, bool, int], ...] = ()
    audience: Party = ALL

    def with_(self, table: str, *rows: Any) -> World:
        """With further rows in a table."""
        return replace(self, **{table: getattr(self, table) + rows})

    def without(self, table: str, numbers: set[int]) -> World:
        """Without the rows of these numbers that allow something."""
        left = (row for row in getattr(self, table) if not (allows(table, row) and number_of(row) in numbers))
        return replace(self, **{table: tuple(left)})

    def model(self) -> Combined:
        """The access model, with the people recognised."""
        groups = Groups.of(self.groups)
        chosen: dict[str, list[PersonModel]] = {
            "none": [],
            "proxy": [Proxy.of(self.tags, self.trust, groups)],
            "explicit": [Explicit.of(self.consents)],
            "rules": [Rules.of(self.rules, self.audience, groups)],
        }
        lists = [PeopleList(kind, {p: n for n, p in reversed(getattr(self, kind))}) for kind in ("always", "never")]
        boxes: dict[str, tuple[BoxRow, ...]] = {}
        for image, number, allow, face in self.approvals:
            boxes[image] = (*boxes.get(image, ()), BoxRow(number, allow, box_of(face)))
        return Combined((*chosen[self.kind], *lists), Approvals(boxes) if self.approvals else None).bound(sightings(self.seen))

    def kept(self) -> set[tuple[str, int]]:
        """(image_id, face) of what the model keeps."""
        model, found = self.model(), set()
        for image, people in self.seen.items():
            for i, decision in enumerate(model.decide(image, PATHS[image], faces(len(people)))):
                assert decision.keep == (decision.reason is not None)
                assert not (decision.keep and decision.denied)
                found |= {(image, i)} if decision.keep else set()
        return found

    def reasons(self) -> dict[tuple[str, int], str | None]:
        """(image_id, face) → its reason."""
        model = self.model()
        return {
            (image, i): decision.reason
            for image, people in self.seen.items()
            for i, decision in enumerate(model.decide(image, PATHS[image], faces(len(people))))
        }

    def versions(self) -> dict[str, str]:
        """image_id → its version."""
        model = self.model()
        return {image: model.version(image, PATHS[image]) for image in self.seen}


def box_of(face: int) -> tuple[float, float, float, float]:
    return (100.0 * face, 0.0, 100.0 * face + 50, 50.0)


def faces(n: int) -> Faces:
    boxes = np.array([box_of(i) for i in range(n)], np.float32).reshape(n, 4)
    return Faces(boxes, np.zeros((n, 5, 2), np.float32), np.ones(n, np.float32), ("yunet",) * n)


def sightings(seen: dict[str, tuple[str | None, ...]]) -> Sightings:
    known, unknown = partial(Sighting, similarity=0.8, margin=0.3, reason=RECOGNISED), Sighting(None, 0.1, 0.3, UNKNOWN)
    return Sightings({image: tuple(known(p) if p else unknown for p in people) for image, people in seen.items()}, "digest")


def number_of(row: Any) -> int:
    return int(row[1] if isinstance(row[0], str) else row[0])


def allows(table: str, row: Any) -> bool:
    if table in ("always", "never"):
        return table == "always"
    return bool(row[2] if table == "approvals" else row.allow)


# what must be kept, said as docs/access.md says it


def viewers(world: World, party: Party) -> set[str]:
    """Who is in a party; of everyone all who are named anywhere, and somebody who is not."""
    if party.kind == EVERYONE:
        return {*USERS, SOMEBODY}
    if party.kind == VIEWER:
        return {party.name}
    found: set[str] = set()
    for row in world.groups:
        if row.group == party.name and row.member is not None:
            found |= viewers(world, row.member)
    return found


def must_be_kept(world: World) -> set[tuple[str, int]]:
    found = set()
    for image, people in world.seen.items():
        for i, person in enumerate(people):
            said = {allow for name, _, allow, face in world.approvals if name in (image, PATHS[image]) and face == i}
            if person is not None:
                said |= _said(world, person, {image, PATHS[image]}, PATHS[image])
            if said == {True}:
                found.add((image, i))
    return found


def _said(world: World, person: str, names: set[str], path: str) -> set[bool]:
    """Whether something allows, whether something denies."""
    said = {True for _, listed in world.always if listed == person} | {False for _, listed in world.never if listed == person}
    if world.kind == "explicit":
        said |= {row.allow for row in world.consents if row.person == person and row.image in names}
    if world.kind == "proxy":
        for tag in world.tags:
            if tag.person == person and tag.image in names:
                trust = {row.allow for row in world.trust if row.person == person and tag.by in viewers(world, row.trusts)}
                trusted = trust == {True} or (tag.by == person and False not in trust)
                said |= {False} if not tag.allow else {True} if trusted else set()
    if world.kind == "rules":
        mine = [r for r in world.rules if r.person == person and (r.image is None or r.image in names or fnmatchcase(path, r.image))]
        audience = viewers(world, world.audience)
        allowed = {viewer for r in mine if r.allow for viewer in viewers(world, r.audience)}
        denied = {viewer for r in mine if not r.allow for viewer in viewers(world, r.audience)}
        said |= {True} if audience and audience <= allowed else set()
        said |= {False} if audience & denied or (world.audience == ALL and any(not r.allow for r in mine)) else set()
    return said


# worlds

NAMES = st.sampled_from([*PATHS, *PATHS.values()])
PATTERNS = st.sampled_from([None, None, None, None, *PATHS, *PATHS.values(), "*", "a/*", "?.jpg", "*b*", "x*"])
PERSONS, VIEWERS = st.sampled_from(PEOPLE), st.sampled_from(USERS)
ALLOWED = st.sampled_from([True, True, False])
PARTIES = st.sampled_from([*(Party(VIEWER, user) for user in USERS), *(Party(GROUP, group) for group in GROUPS)])
WIDE = st.sampled_from([ALL, ALL, *(Party(GROUP, group) for group in GROUPS), Party(VIEWER, "dan")])
AUDIENCES = st.one_of(PARTIES, PARTIES, st.just(ALL))
RELEASES = st.sampled_from([*(Party(GROUP, group) for group in GROUPS), Party(VIEWER, "dan"), ALL])


def rows(table: str, persons: st.SearchStrategy[str] = PERSONS, allowed: st.SearchStrategy[bool] = ALLOWED) -> Any:
    """A row of a table, but for its number."""
    return {
        "tags": st.tuples(NAMES, persons, VIEWERS, allowed),
        "trust": st.tuples(persons, PARTIES, allowed),
        "consents": st.tuples(NAMES, persons, allowed),
        "rules": st.one_of(st.tuples(persons, AUDIENCES, PATTERNS, allowed), st.tuples(persons, WIDE, st.none(), allowed)),
        "always": st.tuples(persons),
        "never": st.tuples(persons),
        "approvals": st.tuples(NAMES, allowed, st.integers(0, 3)),
    }[table]


def made(table: str, number: int, row: Any) -> Any:
    """The row with its number."""
    kinds = {"tags": Tag, "trust": Trust, "consents": Consent, "rules": Rule}
    if table == "approvals":
        return (row[0], number, row[1], row[2])
    return kinds[table](number, *row) if table in kinds else (number, *row)


@st.composite
def memberships(draw: Any) -> tuple[Member, ...]:
    """Groups without a cycle: each may be in the ones after it. All are there."""
    members = [Member(n, group, None) for n, group in enumerate(GROUPS, 1)]
    for k, group in enumerate(GROUPS):
        inner = st.sampled_from([*(Party(VIEWER, user) for user in USERS), *(Party(GROUP, other) for other in GROUPS[:k])])
        drawn = draw(st.lists(inner, min_size=2, max_size=3, unique=True))
        members += [Member(len(members) + 1 + n, group, party) for n, party in enumerate(drawn)]
    return tuple(members)


TABLES_OF = {"none": (), "proxy": ("tags", "trust"), "explicit": ("consents",), "rules": ("rules",)}


@st.composite
def worlds(draw: Any, kind: str, *, alone: bool = False) -> World:
    """A world with an access model; alone: with nothing beside it."""
    seen = {image: tuple(draw(st.lists(st.one_of(PERSONS, PERSONS, st.none()), max_size=4))) for image in PATHS}
    tables = {}
    for table in (*TABLES_OF[kind], *(() if alone else ("always", "never", "approvals"))):
        own = table in TABLES_OF[kind]
        drawn = draw(st.lists(rows(table), min_size=2 * own, max_size=8 if own else 2))
        tables[table] = tuple(made(table, number, row) for number, row in enumerate(drawn, 1))
    return World(kind, seen, **tables, groups=draw(memberships()), audience=draw(RELEASES))
