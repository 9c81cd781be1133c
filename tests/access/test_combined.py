"""Settings that go together, and tables side by side."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from worlds import PATHS, faces, sightings

from mfmc_ray.access.approvals import Approvals
from mfmc_ray.access.combined import Combined, access_model
from mfmc_ray.access.decide import AccessError, Decision, ReplaceAll, decisions, merged
from mfmc_ray.config import ConfigError, load
from mfmc_ray.people.sightings import AMBIGUOUS, RECOGNISED, Sighting, Sightings

ID, OTHER = PATHS
TABLES = {
    "consents": f"image,person,allow\n{ID},ada,true\nc.jpg,bea,true\n",
    "tags": f"image,person,by\n{ID},ada,dan\n",
    "trust": "person,trusts\nada,group:friends\n",
    "rules": "person,audience\nada,group:friends\n",
    "groups": "group,member\nfriends,dan\n",
    "never": "person\nbea\n",
    "always": "person\ncyn\n",
    "approvals": f"image,x0,y0,x1,y1\n{ID},100,0,150,50\nc.jpg,0,0,50,50\n",
}


@pytest.fixture
def made(tmp_path: Path) -> Any:
    """Makes the model of some settings; tables named there are written."""
    for name, text in TABLES.items():
        (tmp_path / f"{name}.csv").write_text(text)

    def made(*tables: str, **settings: str) -> Any:
        given = {f"access__{name}": str(tmp_path / f"{name}.csv") for name in tables}
        return access_model(load(None, **given, **{f"access__{name}": value for name, value in settings.items()}))

    return made


@pytest.mark.parametrize(
    ("tables", "settings", "says"),
    [
        ((), {"model": "friends"}, "access.model .* wants none, proxy, explicit, rules, not 'friends'"),
        ((), {"model": "explicit", "people": "p"}, r"--access explicit wants --consents FILE \(access.consents\)"),
        (("trust",), {"model": "proxy", "people": "p"}, "--access proxy wants --tags FILE"),
        ((), {"model": "proxy", "people": "p"}, "wants --tags FILE .* and --trust FILE"),
        (("consents",), {"model": "explicit"}, "--access explicit wants --people FOLDER .*`mfmc people enroll`"),
        (("never",), {}, "--never wants --people FOLDER"),
        (("consents",), {}, "--consents .* is a table of --access explicit, but the model is none"),
        (("consents", "groups"), {"model": "explicit", "people": "p"}, "--groups .* is a table of --access proxy and rules"),
        (("consents", "rules"), {"model": "rules", "people": "p"}, "--consents .* is a table of --access explicit, but the model is rules"),
        (("consents",), {"model": "explicit", "people": "p", "audience": "friends"}, "--audience .* is for --access rules"),
        (("rules",), {"model": "rules", "people": "p", "audience": "viewer:"}, "access.audience: --audience 'viewer:': wanted"),
    ],
)
def test_settings_that_do_not_go_together(made: Any, tables: tuple[str, ...], settings: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        made(*tables, **settings)


def test_without_tables_about_people_it_is_what_it_was(made: Any, tmp_path: Path) -> None:
    assert isinstance(made(), ReplaceAll)
    assert isinstance(made(people="p"), ReplaceAll)
    plain = made("approvals", people="p")
    assert isinstance(plain, Approvals)
    assert plain.bound(sightings({ID: ("ada",)})) is plain
    (tmp_path / "approvals.csv").write_text("image,x0,y0,x1,y1\n")
    assert made("approvals").digest == Approvals({}).digest != ReplaceAll.digest  # nobody approved, which is said by a table


def test_each_model_with_lists_and_approvals(made: Any) -> None:
    people = sightings({ID: ("ada", "bea", "cyn", None), OTHER: ("bea", "ada")})
    beside = ("never", "always", "approvals")
    for model, mine, reason in (
        ("explicit", ("consents",), "explicit:1"),
        ("proxy", ("tags", "trust", "groups"), "proxy:tags:1,trust:1"),
        ("rules", ("rules", "groups"), "rules:1"),
    ):
        audience = {"audience": "friends"} if model == "rules" else {}
        access = made(*mine, *beside, model=model, people="p", **audience).bound(people)
        access = pickle.loads(pickle.dumps(access))  # as it travels to workers
        assert access.decide(ID, "a/b.jpg", faces(4)) == [
            Decision(True, reason),
            Decision(False, denied="never:1"),  # whatever the approvals say
            Decision(True, "always:1"),
            Decision(False),
        ]
        there = decisions(access, OTHER, "c.jpg", faces(2))
        assert [one.denied for one in there] == ["never:1", None]
        assert there[1].reason == ("rules:1" if model == "rules" else None)


def test_a_box_may_be_approved_whoever_it_is(made: Any) -> None:
    access = made("consents", "approvals", model="explicit", people="p").bound(sightings({}))
    assert [one.reason for one in access.decide(ID, "a/b.jpg", faces(2))] == [None, "approvals:1"]


def test_before_it_is_known_who_is_there_nobody_is_kept(made: Any) -> None:
    """Not by approvals either: the never list could not be asked."""
    access = made("never", "approvals", people="p")
    assert [one.keep for one in access.decide(ID, "a/b.jpg", faces(2))] == [False, False]
    assert access.version(ID, "a/b.jpg") == ""


def test_faces_that_do_not_fit_are_nobody_s(made: Any) -> None:
    access = made("consents", model="explicit", people="p").bound(sightings({ID: ("ada", None)}))
    with pytest.raises(AccessError, match="recognised among 2 faces, but there are 3"):
        decisions(access, ID, "a/b.jpg", faces(3))
    assert not any(one.keep for one in access.decide(OTHER, "a/b.jpg", faces(3)))


def test_ambiguous_is_nobody(made: Any) -> None:
    """Also beside somebody who is recognised."""
    access = made("consents", "always", model="explicit", people="p")
    unsure = [Sighting("ada", 0.9, 0.01, AMBIGUOUS), Sighting(None, 0.9, 0.01, AMBIGUOUS)]
    for sure, kept in ((Sighting("bea", 0.8, 0.4, RECOGNISED), 0), (Sighting("cyn", 0.8, 0.4, RECOGNISED), 1)):
        found = access.bound(Sightings({ID: (*unsure, sure)}, "digest")).decide(ID, "a/b.jpg", faces(3))
        assert [one.keep for one in found] == [False, False, bool(kept)]


def test_a_denial_wins_whatever_comes_first() -> None:
    yes, no, nothing = Decision(True, "a:1"), Decision(False, denied="b:2"), Decision(False)
    assert merged([yes, nothing, Decision(True, "c:3")]) == yes
    assert merged([yes, no]) == merged([no, yes]) == no
    assert merged([]) == merged([nothing, Decision(True)]) == nothing  # a reason must be named
    assert merged([Decision(True, "a:1", "b:2")]) == no


def test_versions_tell_approvals_and_people_apart(made: Any) -> None:
    seen = sightings({ID: ("ada", "bea")})
    alone, both = made("approvals"), made("approvals", "never", people="p").bound(seen)
    assert both.version("ee" * 32, "c.jpg") == alone.version("ee" * 32, "c.jpg") != ""  # nobody is recognised there
    assert both.version(ID, "a/b.jpg") != alone.version(ID, "a/b.jpg")
    assert made("never", people="p").bound(seen).version(ID, "a/b.jpg") == ""  # who is not kept is not denied either
    assert both.version(None, "unread.jpg") == ""


def test_the_digest_is_over_every_table(made: Any, tmp_path: Path) -> None:
    def digest() -> str:
        access = made("rules", "groups", "never", "always", "approvals", model="rules", audience="friends", people="p")
        assert isinstance(access, Combined)
        return access.digest

    found = {digest()}
    for name in ("rules", "groups", "never", "always", "approvals"):
        file, before = tmp_path / f"{name}.csv", TABLES[name]
        file.write_text(re.sub("dan|bea|cyn|ada", "eve", before).replace("150", "151"))
        found.add(digest())
        file.write_text(before)
    assert len(found) == 6
