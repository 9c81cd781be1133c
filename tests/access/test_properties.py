"""What holds of every access model, alone and with approvals and lists beside it, whatever the tables say."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import (
    ALL,
    AUDIENCES,
    GROUPS,
    KINDS,
    PARTIES,
    PATHS,
    PEOPLE,
    SOMEBODY,
    TABLES_OF,
    USERS,
    World,
    allows,
    made,
    must_be_kept,
    number_of,
    rows,
    viewers,
    worlds,
)

from mfmc_ray.access.groups import GROUP, VIEWER, Member, Party

MODELS = pytest.mark.parametrize("kind", KINDS)
BESIDE = ("always", "never", "approvals")
EXAMPLES = settings(deadline=None, max_examples=60)  # times vary on a busy machine
NEW = 1000  # numbers of further rows


@MODELS
@EXAMPLES
@given(data=st.data())
def test_what_is_kept_is_what_the_tables_say(kind: str, data: st.DataObject) -> None:
    """With it: no row that allows, no disclosure; a denial wins over everything."""
    world = data.draw(worlds(kind))
    assert world.kept() == must_be_kept(world)


@MODELS
@EXAMPLES
@given(data=st.data())
def test_without_a_grant_nothing_is_disclosed(kind: str, data: st.DataObject) -> None:
    world = data.draw(worlds(kind))
    for table in (*TABLES_OF[kind], *BESIDE):
        world = world.without(table, set(range(NEW)))
    assert not world.kept()


@MODELS
@EXAMPLES
@given(data=st.data())
def test_a_reason_names_rows_that_allow_it(kind: str, data: st.DataObject) -> None:
    """Alone, they do; and they are no person's name."""
    world = data.draw(worlds(kind))
    for (image, i), reason in world.reasons().items():
        if reason is None:
            continue
        assert re.fullmatch(r"(proxy:tags:\d+(,trust:\d+)?|explicit:\d+|rules:\d+(,\d+)*|always:\d+|approvals:\d+)", reason)
        alone = replace(world, tags=(), trust=(), consents=(), rules=(), always=(), never=(), approvals=())
        table, _, numbers = reason.partition(":")
        named = [int(n) for n in re.findall(r"\d+", numbers)]
        ones = {"tags": named[:1], "trust": named[1:]} if table == "proxy" else {"consents" if table == "explicit" else table: named}
        for name, some in ones.items():
            alone = alone.with_(name, *(row for row in getattr(world, name) if number_of(row) in some))
        assert (image, i) in alone.kept()


@MODELS
@EXAMPLES
@given(data=st.data())
def test_withdrawing_never_discloses_more(kind: str, data: st.DataObject) -> None:
    """Any rows that allow: consents, tags, trust, rules, approvals, the always list."""
    world = data.draw(worlds(kind))
    fewer = world
    for table in (*TABLES_OF[kind], "always", "approvals"):
        fewer = fewer.without(table, data.draw(st.sets(st.integers(1, 8))))
    assert fewer.kept() <= world.kept()


@MODELS
@EXAMPLES
@given(data=st.data())
def test_a_further_denial_never_discloses_more(kind: str, data: st.DataObject) -> None:
    world = data.draw(worlds(kind))
    table = data.draw(st.sampled_from([*TABLES_OF[kind], "never", "approvals"]))
    denials = data.draw(st.lists(rows(table, allowed=st.just(False)), min_size=1, max_size=3))
    denied = world.with_(table, *(made(table, NEW + n, row) for n, row in enumerate(denials)))
    assert denied.kept() <= world.kept()


@MODELS
@EXAMPLES
@given(data=st.data())
def test_a_person_on_the_never_list_is_kept_nowhere(kind: str, data: st.DataObject) -> None:
    world = data.draw(worlds(kind)).with_("never", (NEW, "ada"))
    assert not {(image, i) for image, i in world.kept() if world.seen[image][i] == "ada"}


@MODELS
@EXAMPLES
@given(data=st.data())
def test_a_stranger_changes_nobody_else_s_verdict(kind: str, data: st.DataObject) -> None:
    """A newcomer with faces, rows and memberships: nobody else's verdict, reason or version is another."""
    world = data.draw(worlds(kind))
    newcomer = st.just("zoe")
    more = world
    for table in (*TABLES_OF[kind], "always", "never"):
        new = data.draw(st.lists(rows(table, persons=newcomer), max_size=3))
        more = more.with_(table, *(made(table, NEW + n, row) for n, row in enumerate(new)))
    assert more.versions() == world.versions()
    assert more.reasons() == world.reasons()
    # and in the pictures, after who is there
    where = data.draw(st.sets(st.sampled_from(sorted(PATHS))))
    seen = {image: (*people, "zoe") if image in where else people for image, people in more.seen.items()}
    beside = replace(more, seen=seen).reasons()
    assert {key: beside[key] for key in world.reasons()} == world.reasons()


@MODELS
@EXAMPLES
@given(data=st.data())
def test_rows_about_somebody_change_the_version_of_their_images_only(kind: str, data: st.DataObject) -> None:
    world = data.draw(worlds(kind))
    for table in (*TABLES_OF[kind], "always", "never"):
        new = data.draw(st.lists(rows(table, persons=st.just("ada")), max_size=3))
        changed = world.with_(table, *(made(table, NEW + n, row) for n, row in enumerate(new)))
        before, after = world.versions(), changed.versions()
        assert all(before[image] == after[image] for image, people in world.seen.items() if "ada" not in people)


@MODELS
@EXAMPLES
@given(data=st.data())
def test_while_the_version_is_the_same_so_are_the_decisions(kind: str, data: st.DataObject) -> None:
    """Whatever is changed: rows that are gone or new, allow or deny, and who is recognised."""
    world = other = data.draw(worlds(kind))
    for table in data.draw(st.sets(st.sampled_from([*TABLES_OF[kind], *BESIDE]), max_size=2)):
        gone, new = data.draw(st.sets(st.integers(1, 8), max_size=3)), data.draw(st.lists(rows(table), max_size=2))
        left = tuple(row for row in getattr(other, table) if number_of(row) not in gone)
        other = replace(other, **{table: left}).with_(table, *(made(table, NEW + n, row) for n, row in enumerate(new)))
    if data.draw(st.booleans()):
        people = st.sampled_from([*PEOPLE, None])
        other = replace(other, seen={image: tuple(data.draw(people) for _ in some) for image, some in world.seen.items()})
    before, after, versions, theirs = world.reasons(), other.reasons(), world.versions(), other.versions()
    assert all(before[image, i] == after[image, i] for image, i in before if versions[image] == theirs[image])


# groups and audiences


@EXAMPLES
@given(data=st.data())
def test_who_leaves_a_trusted_group_discloses_no_more(data: st.DataObject) -> None:
    """If no row of trust denies a group: who leaves such a one is trusted again."""
    world = data.draw(worlds("proxy"))
    world = replace(world, trust=tuple(row for row in world.trust if row.allow or row.trusts.kind == VIEWER))
    assert _emptied(world, data.draw(st.sets(st.integers(1, 12)))).kept() <= world.kept()


@EXAMPLES
@given(data=st.data())
def test_who_leaves_an_allowed_group_sees_no_more(data: st.DataObject) -> None:
    """Each viewer, and everyone, if no rule denies a group. Of a release for a group whose members change see the next test."""
    world = data.draw(worlds("rules"))
    world = replace(world, rules=tuple(row for row in world.rules if row.allow or row.audience.kind != GROUP))
    fewer = _emptied(world, data.draw(st.sets(st.integers(1, 12))))
    for audience in (ALL, *(Party(VIEWER, viewer) for viewer in (*USERS, SOMEBODY))):
        assert replace(fewer, audience=audience).kept() <= replace(world, audience=audience).kept()


@EXAMPLES
@given(data=st.data())
def test_a_release_is_what_each_of_its_audience_may_see(data: st.DataObject) -> None:
    """So no more than any one of them, nor than all of them together; and with a member less, what the others may see."""
    world = data.draw(worlds("rules", alone=True))
    group = Party(GROUP, data.draw(st.sampled_from(GROUPS)))
    single = [replace(world, audience=Party(VIEWER, member)).kept() for member in sorted(viewers(world, group))]
    assert replace(world, audience=group).kept() == (set.intersection(*single) if single else set())


@EXAMPLES
@given(data=st.data())
def test_everyone_sees_no_more_than_anybody(data: st.DataObject) -> None:
    world = data.draw(worlds("rules"))
    release = replace(world, audience=ALL).kept()
    for viewer in (*USERS, SOMEBODY):
        assert release <= replace(world, audience=Party(VIEWER, viewer)).kept()


@EXAMPLES
@given(data=st.data())
def test_a_larger_audience_sees_no_more(data: st.DataObject) -> None:
    """Unless the smaller one is empty: to nobody nothing is disclosed."""
    world = data.draw(worlds("rules"))
    one, other = data.draw(PARTIES), data.draw(AUDIENCES)
    if viewers(world, one) and viewers(world, one) <= viewers(world, other):
        assert replace(world, audience=other).kept() <= replace(world, audience=one).kept()


@EXAMPLES
@given(data=st.data())
def test_an_empty_audience_sees_nothing(data: st.DataObject) -> None:
    world = data.draw(worlds("rules", alone=True))
    world = _emptied(world, {row.number for row in world.groups})
    assert not replace(world, audience=Party(GROUP, "outer")).kept()


@MODELS
def test_the_worlds_disclose_something(kind: str) -> None:
    """So that the properties are about something: there are kept faces, and some of them where something is denied."""
    found: list[tuple[bool, bool]] = []

    @settings(EXAMPLES, derandomize=True)  # a count of random ones would fail now and then
    @given(world=worlds(kind))
    def look(world: World) -> None:
        denials = [row for table in (*TABLES_OF[kind], *BESIDE) for row in getattr(world, table) if not allows(table, row)]
        found.append((bool(world.kept()), bool(denials)))

    look()
    assert sum(kept for kept, _ in found) >= len(found) // 10
    assert any(kept and denied for kept, denied in found)


def _emptied(world: World, gone: set[int]) -> World:
    """Without the members that these rows of groups name; the groups are still there."""
    return replace(world, groups=tuple(Member(n, g, None) if n in gone else Member(n, g, m) for n, g, m in world.groups))
