"""Who is the same person: enrolled, strangers, and as it was last time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_people import GUARDS, face, scanned

from mfmc_ray.identities.casting import name_of
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.ledger import Ledger
from mfmc_ray.people.sightings import RECOGNISED, UNKNOWN, Sighting, Sightings
from mfmc_ray.pipeline.persons import Person, Scanned, persons, scanned_faces
from mfmc_ray.pipeline.pseudonyms import Face, Pseudonym
from mfmc_ray.pipeline.recognise import NOBODY

KEY = b"k" * 32
SALTS = {"ada": b"a" * 16, "bob": b"b" * 16}


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return Calibration()


def found(ledger: Ledger, calibration: Calibration, before: list[Pseudonym] | None = None, **other: Any) -> tuple[Scanned, list[Person]]:
    faces = scanned_faces(ledger, GUARDS, 20.0)
    arguments = {"sightings": NOBODY, "salts": {}} | other
    return faces, persons(faces, before or [], key=KEY, calibration=calibration, **arguments)


def groups(scanned: Scanned, people: list[Person]) -> set[frozenset[Face]]:
    return {frozenset(scanned.faces[row] for row in one.rows) for one in people}


def seen(**images: str | None) -> Sightings:
    """Who is recognised as the first face of which image."""
    return Sightings({i: (Sighting(p, 0.9, 0.5, RECOGNISED if p else UNKNOWN),) for i, p in images.items()}, "seen")


def noted(people: list[Person], scanned: Scanned) -> list[Pseudonym]:
    """As `Assigner` notes people, each with an identity."""
    return [
        Pseudonym(one.name, one.enrolled, (f"mfmc-{k:012d}",), tuple(scanned.faces[r] for r in one.rows), ((),) * len(one.rows))
        for k, one in enumerate(people)
    ]


def test_strangers_are_told_apart_whatever_part_they_are_in(tmp_path: Path, calibration: Calibration) -> None:
    ledger = scanned(tmp_path, [("a1", [face(1, 1)]), ("b1", [face(2, 1)])], [("a2", [face(1, 2), face(2, 2)]), ("a1", [face(1, 1)])])
    faces, people = found(ledger, calibration)
    assert groups(faces, people) == {frozenset({("a1", 0), ("a2", 0)}), frozenset({("b1", 0), ("a2", 1)})}
    assert faces.places.tolist() == [[0, 0], [0, 1], [1, 0], [1, 0]]  # a duplicate's faces are there already
    assert not any(one.enrolled or one.before for one in people)
    assert len({one.name for one in people}) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"mesh_score": 0.1},
        {"pose": [70.0, 0.0, 0.0]},
        {"pose": [0.0, -50.0, 0.0]},
        {"box": [0.0, 0.0, 10.0, 10.0]},
        {"points": [0.0] * 10},
        {"embedding_dlib": np.zeros(128, np.float32)},
    ],
    ids=lambda other: "-".join(map(str, next(iter(other.items()))))[:20],
)
def test_what_is_covered_in_any_case_is_nobody(tmp_path: Path, calibration: Calibration, other: dict[str, Any]) -> None:
    _, people = found(scanned(tmp_path, [("a", [face(1, 1, **other), face(2, 1)])]), calibration)
    assert [one.rows.tolist() for one in people] == [[0]]


def test_small_children_are_told_apart_in_no_way(tmp_path: Path, calibration: Calibration) -> None:
    _, people = found(scanned(tmp_path, [(f"a{k}", [face(1, k, age=4.0)]) for k in range(3)]), calibration)
    assert len(people) == 3


def test_who_is_recognised_is_that_person_and_is_named_by_their_salt(tmp_path: Path, calibration: Calibration) -> None:
    """Also in photos that are unlike each other."""
    photos = [("a1", [face(1, 1)]), ("a2", [face(9, 2)]), ("b1", [face(2, 1)])]
    faces, people = found(scanned(tmp_path, photos), calibration, sightings=seen(a1="ada", a2="ada", b1=None), salts=SALTS)
    assert people[0].name == name_of(KEY, "person", SALTS["ada"])
    assert [one.enrolled for one in people] == [True, False]
    assert groups(faces, people) == {frozenset({("a1", 0), ("a2", 0)}), frozenset({("b1", 0)})}
    assert name_of(b"l" * 32, "person", SALTS["ada"]) != people[0].name


def test_two_people_of_last_time_are_never_made_one(tmp_path: Path, calibration: Calibration) -> None:
    photos = [("a1", [face(1, 1)]), ("a2", [face(1, 2)])]
    faces, people = found(scanned(tmp_path / "first", photos), calibration)
    (one,) = noted(people, faces)
    apart = [Pseudonym(name, False, (f"mfmc-{k:012d}",), (old,), ((),)) for k, (name, old) in enumerate(zip("xy", one.faces, strict=True))]
    ledger = scanned(tmp_path / "second", [*photos, ("a3", [face(1, 3)])])
    faces, people = found(ledger, calibration, apart)
    assert {one.name for one in people} == {"x", "y"}
    assert sorted(len(one.rows) for one in people) == [1, 2]
    assert {one.before for one in people} == set(apart)


def test_a_night_keeps_who_is_who(tmp_path: Path, calibration: Calibration) -> None:
    photos = [(f"{who}{k}", [face(who, k)]) for who in (1, 2, 3) for k in (1, 2)]
    faces, before = found(scanned(tmp_path / "first", photos), calibration)
    more = [photo for photo in photos if photo[0] != "11"] + [("13", [face(1, 3)]), ("41", [face(4, 1)])]
    again, after = found(scanned(tmp_path / "second", more), calibration, noted(before, faces))
    names = {again.faces[row][0]: one.name for one in after for row in one.rows}
    assert names["12"] == names["13"] == next(one.name for one in before if faces.faces[one.rows[0]][0] in ("11", "12"))
    assert len({names[image] for image in ("12", "21", "31", "41")}) == 4


def test_who_enrols_leaves_the_strangers_and_who_is_removed_joins_them(tmp_path: Path, calibration: Calibration) -> None:
    ledger = scanned(tmp_path, [("a1", [face(1, 1)]), ("a2", [face(1, 2)]), ("b1", [face(2, 1)])])
    faces, strangers = found(ledger, calibration)
    _, enrolled = found(ledger, calibration, noted(strangers, faces), sightings=seen(a1="ada"), salts=SALTS)
    assert [one.enrolled for one in enrolled] == [True, False]
    assert enrolled[0].rows.tolist() == [0, 1]  # the photo in which nobody was recognised is like the other one
    assert enrolled[0].before is None
    assert enrolled[1].before is not None
    _, removed = found(ledger, calibration, noted(enrolled, faces))
    assert not any(one.enrolled for one in removed)
    assert {len(one.rows) for one in removed} == {1, 2}
    assert next(one for one in removed if len(one.rows) == 2).before is None


def test_two_faces_of_an_image_are_two_people_whoever_says_what(tmp_path: Path, calibration: Calibration) -> None:
    ledger = scanned(tmp_path, [("a1", [face(1, 1), face(1, 2)]), ("a2", [face(1, 3)])])
    before = [Pseudonym(name_of(KEY, "person", SALTS["ada"]), True, ("mfmc-000000000001",), (("a1", 1), ("a2", 0)), ((), ()))]
    faces, people = found(ledger, calibration, before, sightings=seen(a1="ada"), salts=SALTS)
    for one in people:
        images = [faces.faces[row][0] for row in one.rows]
        assert len(images) == len(set(images))
    assert groups(faces, people) == {frozenset({("a1", 0), ("a2", 0)}), frozenset({("a1", 1)})}


def test_an_empty_collection_has_nobody(tmp_path: Path, calibration: Calibration) -> None:
    assert found(scanned(tmp_path, [("a", [])]), calibration)[1] == []
