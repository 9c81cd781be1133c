"""Which photos are enrolled, and what is said of the others. The photos are made-up embeddings; `test_quality` looks at real ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from faces_like import SURE, anyone, like

from mfmc_ray.faces.faces import F32
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.people.enrol import Enrolment, enrol
from mfmc_ray.people.photos import PhotoFile
from mfmc_ray.people.quality import Look, RefusedError
from mfmc_ray.people.registry import Registry
from mfmc_ray.sources import Unit

ADA, BOB = anyone(1), anyone(2)


class Made(PhotoFile):
    """A photo whose bytes are its name, without what is in brackets."""

    def read(self) -> bytes:
        return self.name.partition(" (")[0].encode()


def looks(faces: Mapping[str, Mapping[str, F32] | str]) -> Callable[[bytes], Look]:
    """Looks at these: name → face, or why there is none."""

    def examine(data: bytes) -> Look:
        face = faces[data.decode()]
        if isinstance(face, str):
            raise RefusedError(face, f"said to be {face}")
        return Look(dict(face), 90.0, 0.5, 0.0)

    return examine


def tried(faces: Mapping[str, Any], owners: Mapping[str, str], registry: Registry | None = None) -> Enrolment:
    """What becomes of photos: name → face, name → person."""
    files = [Made(person, name, Unit("", "file", 0, "", name)) for name, person in owners.items()]
    return enrol(registry or Registry(Path("/nowhere")), files, looks(faces), Calibration())


def refused(done: Enrolment) -> dict[str, str]:
    return {one.name: one.reason for one in done.refused}


def test_good_photos_are_enrolled_and_bad_ones_named() -> None:
    faces = {"a1": like(ADA, SURE, 1), "a2": like(ADA, SURE, 2), "a3": "blurry", "b1": like(BOB, SURE, 3)}
    done = tried(faces, {"a1": "ada", "a2": "ada", "a3": "ada", "b1": "bob"})
    assert [(photo.person, photo.size) for photo in done.accepted] == [("ada", 90.0), ("ada", 90.0), ("bob", 90.0)]
    assert done.registry.people() == ("ada", "bob")
    assert [(one.person, one.name, one.reason, one.text) for one in done.refused] == [("ada", "a3", "blurry", "said to be blurry")]


def test_a_photo_of_somebody_else_among_a_persons_is_refused() -> None:
    faces = {"a1": like(ADA, SURE, 1), "a2": like(ADA, SURE, 2), "b1": like(BOB, SURE, 3)}
    assert refused(tried(faces, dict.fromkeys(faces, "ada"))) == {"b1": "unlike_own"}


def test_without_a_majority_nobody_is_enrolled() -> None:
    two = {"a1": like(ADA, SURE, 1), "b1": like(BOB, SURE, 3)}
    done = tried(two, dict.fromkeys(two, "ada"))
    assert refused(done) == {"a1": "unlike_own", "b1": "unlike_own"}
    assert done.registry.people() == ()
    four = two | {"a2": like(ADA, SURE, 2), "b2": like(BOB, SURE, 4)}
    assert set(refused(tried(four, dict.fromkeys(four, "ada"))).values()) == {"unlike_own"}


def test_further_photos_must_be_like_the_enrolled_ones() -> None:
    first = tried({"a1": like(ADA, SURE, 1)}, {"a1": "ada"}).registry
    faces = {"a1": like(ADA, SURE, 1), "a2": like(ADA, SURE, 2), "b1": like(BOB, SURE, 3), "b2": like(BOB, SURE, 4)}
    done = tried(faces, dict.fromkeys(faces, "ada"), first)
    assert refused(done) == {"b1": "unlike_own", "b2": "unlike_own"}
    assert done.unchanged == 1
    assert [photo.photo_id for photo in done.registry.photos].count(first.photos[0].photo_id) == 1
    assert len(done.registry.photos) == 2
    assert done.registry.salt("ada") == first.salt("ada")


def test_the_same_person_under_two_ids_is_refused() -> None:
    faces = {"a1": like(ADA, SURE, 1), "a2": like(ADA, SURE, 2), "x": like(ADA, SURE, 3)}
    done = tried(faces, {"a1": "ada", "a2": "ada", "x": "lovelace"})
    assert refused(done) == {"x": "like_other"}
    assert "'ada'" in done.refused[0].text
    again = tried({"x": like(ADA, SURE, 3)}, {"x": "lovelace"}, done.registry)
    assert refused(again) == {"x": "like_other"}


def test_a_photo_counts_once() -> None:
    again = like(ADA, {"sface": 0.97, "dlib": 0.995}, 5)
    done = tried({"a1": ADA, "a2": again}, {"a1": "ada", "a1 (copy)": "ada", "a2": "ada"})
    assert refused(done) == {"a1 (copy)": "duplicate", "a2": "duplicate"}
    assert len(done.registry.photos) == 1


def test_a_photo_of_two_people_by_name_is_the_firsts() -> None:
    done = tried({"a1": ADA}, {"a1": "ada", "a1 (bob)": "bob"})
    assert refused(done) == {"a1 (bob)": "like_other"}


@pytest.mark.parametrize(("person", "reason"), [("", "nobodys"), ("a:b", "bad_id"), ("../x", "bad_id")])
def test_photos_without_a_usable_id_are_refused(person: str, reason: str) -> None:
    done = tried({"a1": ADA, "b1": BOB}, {"a1": person, "b1": "bob"})
    assert refused(done) == {"a1": reason}
    assert done.registry.people() == ("bob",)
