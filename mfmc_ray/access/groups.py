"""Groups of people who look at images, and the parties that rules, trust and audiences name: everyone, a group, one viewer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import Any, NamedTuple

from mfmc_ray.access.decide import AccessError
from mfmc_ray.access.tables import Cells, Layout, last_name, load, name_of, refuse, wrong
from mfmc_ray.config import EVERYONE

GROUP, VIEWER = "group", "viewer"
LAYOUT = Layout("--groups", ("group", "member"))


class Party(NamedTuple):
    """Some viewers.

    Attributes:
        kind: `EVERYONE`, `GROUP` or `VIEWER`.
        name: of the group or viewer; "" for everyone.
    """

    kind: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else self.kind

    @classmethod
    def parse(cls, value: Any, what: str, *kinds: str) -> Party:
        """What a cell names: "everyone", "group:NAME" or "viewer:NAME".

        Args:
            value: of the cell.
            what: the column, for messages.
            kinds: those that may be named; if the first one is not `EVERYONE`, a name alone is of that kind.

        Raises:
            AccessError: it names nobody, or none of these kinds.
        """
        text = name_of(value, what)
        kind, colon, name = text.partition(":")
        forms = [EVERYONE if k == EVERYONE else f"{k}:NAME" for k in kinds]
        found = None
        if text.casefold() == EVERYONE:
            found = cls(EVERYONE)
        elif colon and kind in (GROUP, VIEWER) and name.strip():
            found = cls(kind, name.strip())
        elif not colon and kinds[0] != EVERYONE:
            found = cls(kinds[0], text)
        if found is None or found.kind not in kinds or (found.kind == GROUP and found.name.casefold() == EVERYONE):
            wanted = f"wanted {' or '.join(['a name', *forms] if kinds[0] != EVERYONE else forms)}"
            raise wrong(what, value, wanted + (", and nobody is called everyone" if EVERYONE not in kinds else ""))
        return found


class Member(NamedTuple):
    """One row of the table: a group, and who is in it; None: the row only says that there is the group."""

    number: int
    group: str
    member: Party | None


@dataclass(frozen=True)
class Groups:
    """Groups of viewers.

    Attributes:
        viewers: group → everybody who is in it, in a group in it, and so on.
    """

    viewers: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str, storage_options: Mapping[str, Any] | None = None) -> Groups:
        """The table in a CSV or Parquet file; arguments and errors as of `tables.load`, and of `of`."""
        return cls.of(load(path, storage_options, LAYOUT, _row), last_name(path))

    @classmethod
    def of(cls, rows: Iterable[Member], name: str = "groups") -> Groups:
        """The groups that rows make.

        Args:
            rows: of the table.
            name: of the table, for messages.

        Raises:
            AccessError: a group is in itself, or a row names one that there is not.
        """
        direct: dict[str, set[str]] = {}
        inner: dict[str, set[str]] = {}
        every = list(rows)
        for row in every:
            viewers, groups = direct.setdefault(row.group, set()), inner.setdefault(row.group, set())
            if row.member is not None:
                (groups if row.member.kind == GROUP else viewers).add(row.member.name)
        _refuse_unknown(name, [row.member for row in every], inner)
        try:
            order = list(TopologicalSorter(inner).static_order())
        except CycleError as error:
            raise _cycle(every, list(reversed(error.args[1])), name) from None
        found: dict[str, frozenset[str]] = {}
        for group in order:  # those in it come first
            found[group] = frozenset(direct[group]).union(*(found[other] for other in inner[group]))
        return cls(found)

    def of_party(self, party: Party) -> frozenset[str] | None:
        """Everybody whom a party names; None: everyone.

        Raises:
            KeyError: there is no such group.
        """
        if party.kind == EVERYONE:
            return None
        return self.viewers[party.name] if party.kind == GROUP else frozenset({party.name})

    def check(self, name: str, parties: Sequence[Party]) -> None:
        """Refuses a table that names groups which there are not.

        Args:
            name: of the table.
            parties: that its rows name, one a row, in order.

        Raises:
            AccessError: some row does.
        """
        _refuse_unknown(name, parties, self.viewers)

    def plain(self, names: Iterable[str]) -> str:
        """Who is in these groups, as text, for digests."""
        return json.dumps([[name, sorted(self.viewers[name])] for name in sorted(set(names))])


def no_group(group: str, there: Iterable[str]) -> AccessError:
    """What is wrong with naming a group that there is not."""
    known = sorted(there)
    some = ", ".join(known[:5]) + (", …" if len(known) > 5 else "")
    return AccessError(f"there is no group {group!r}; {f'there are: {some}' if known else '--groups FILE says who is in which'}")


def _refuse_unknown(name: str, parties: Sequence[Party | None], there: Mapping[str, object]) -> None:
    unknown = [
        AccessError(f"row {place}: {no_group(party.name, there)}")
        for place, party in enumerate(parties, 1)
        if party is not None and party.kind == GROUP and party.name not in there
    ]
    refuse(name, unknown)


def _cycle(rows: Sequence[Member], groups: Sequence[str], name: str) -> AccessError:
    """The error of a group that is in itself, with the rows that put it there."""
    links = [(outer, Party(GROUP, inner)) for outer, inner in pairwise(groups)]
    places = [next(place for place, row in enumerate(rows, 1) if (row.group, row.member) == link) for link in links]
    named = f"row {places[0]}" if len(places) == 1 else f"rows {', '.join(map(str, places))}"
    return AccessError(f"{name}: {named}: a group cannot be in itself: {' > '.join(groups)}; take one of these rows out")


def _row(number: int, cells: Cells) -> Member:
    group = Party.parse(cells["group"], "group", GROUP)
    text = cells["member"]
    if text is None or (isinstance(text, str) and not text.strip()):
        return Member(number, group.name, None)
    return Member(number, group.name, Party.parse(text, "member", VIEWER, GROUP))
