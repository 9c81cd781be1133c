"""Who a face is: somebody for certain, or nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faces_like import SURE, anyone, like, photo_of, together
from hypothesis import given, settings
from hypothesis import strategies as st

from mfmc_ray.known.calibration import Calibration, CalibrationError
from mfmc_ray.people.match import CROWD, MARGIN, THRESHOLDS, Matcher, evidence, fit
from mfmc_ray.people.registry import Registry
from mfmc_ray.people.sightings import AMBIGUOUS, RECOGNISED, UNKNOWN, UNUSABLE, Sighting

CALIBRATION = Calibration()
NAMES = ("sface", "dlib")
ADA, BOB = anyone(1), anyone(2)
NOBODY = Path("/nobody")


def matcher(*people: tuple[str, Any], names: tuple[str, ...] = NAMES) -> Matcher:
    photos = [photo_of(person, vectors, i) for i, (person, vectors) in enumerate(people)]
    return Matcher(Registry(NOBODY).adding(photos), CALIBRATION, names)


def seen(who: Matcher, *faces: Any, size: float = 80.0) -> tuple[Sighting, ...]:
    n = len(faces)
    return who(together(*faces), np.full(n, size, np.float32), np.ones(n, bool))


def weighed(cosines: dict[str, float]) -> float:
    return sum(float(evidence(CALIBRATION.curve(name), np.array([cosines[name]]))[0]) for name in NAMES)


def cosines_of(total: float) -> dict[str, float]:
    """Cosines that are that much evidence together, and are in proportion."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        at = {"sface": 0.2 + 0.7 * middle, "dlib": 0.85 + 0.14 * middle}
        low, high = (middle, high) if weighed(at) < total else (low, middle)
    return at


def test_a_person_is_recognised_and_a_stranger_is_not() -> None:
    who = matcher(("ada", ADA), ("bob", BOB))
    mine, other = seen(who, like(ADA, SURE), anyone(3))
    assert (mine.person, mine.reason) == ("ada", RECOGNISED)
    assert mine.similarity == pytest.approx(0.75, abs=1e-5)
    assert mine.margin == pytest.approx(0.75 - float(like(ADA, SURE)["sface"] @ BOB["sface"]), abs=1e-5)
    assert (other.person, other.reason) == (None, UNKNOWN)


def test_evidence_is_the_calibrated_rate() -> None:
    curve = CALIBRATION.curve("sface")
    for cosine in (-0.2, 0.1, 0.363, 0.5, 0.64, 0.9):
        assert 10 ** -evidence(curve, np.array([cosine]))[0] == pytest.approx(curve.at(cosine).rate, rel=1e-9)


@pytest.mark.parametrize("photos", [1, 2, 3, 4])
def test_the_threshold_falls_with_photos(photos: int) -> None:
    who = matcher(*(("ada", ADA) for _ in range(photos)))
    least = THRESHOLDS[2][min(photos, 3) - 1]
    assert who.thresholds.tolist() == [least]
    assert seen(who, like(ADA, cosines_of(least + 0.01)))[0].reason == RECOGNISED
    assert seen(who, like(ADA, cosines_of(least - 0.01)))[0].reason == UNKNOWN


def test_in_a_crowd_the_threshold_rises() -> None:
    few, many = (matcher(*((f"p{i}", anyone(i)) for i in range(n))) for n in (CROWD, 10 * CROWD))
    assert many.thresholds[0] - few.thresholds[0] == pytest.approx(1.3)
    assert many.wrong(1000) == few.wrong(1000) == pytest.approx(0.1)
    assert matcher(("ada", ADA)).wrong(1000) == pytest.approx(1e-3)


def test_no_recognizer_may_speak_against_it() -> None:
    strange = {"sface": 0.9, "dlib": 0.86}
    assert weighed(strange) > THRESHOLDS[2][0]
    assert seen(matcher(("ada", ADA)), like(ADA, strange))[0].reason == UNKNOWN


def test_small_faces_need_more() -> None:
    who, face = matcher(("ada", ADA)), like(ADA, cosines_of(THRESHOLDS[2][0] + 0.5))
    assert seen(who, face, size=28.0)[0].reason == RECOGNISED
    assert seen(who, face, size=27.0)[0].reason == UNKNOWN


def test_look_alikes_are_nobody() -> None:
    twin = like(ADA, SURE, 1)
    who = matcher(("ada", ADA), ("bob", twin))
    both = {name: ADA[name] + twin[name] for name in NAMES}
    (one,) = seen(who, {name: v / np.linalg.norm(v) for name, v in both.items()})
    assert (one.person, one.reason) == (None, AMBIGUOUS)


def test_a_person_twice_in_an_image_is_nobody() -> None:
    who = matcher(("ada", ADA))
    assert [one.reason for one in seen(who, like(ADA, SURE, 1), like(ADA, SURE, 2))] == [AMBIGUOUS] * 2
    second = like(ADA, cosines_of(THRESHOLDS[2][0] + 0.1), 3)  # fainter, but somebody's all the same
    assert [one.reason for one in seen(who, like(ADA, SURE, 1), second)] == [AMBIGUOUS] * 2


def test_another_face_that_comes_near_makes_it_unclear() -> None:
    who = matcher(("ada", ADA))
    mine = cosines_of(THRESHOLDS[2][0] + 0.2)
    near, far = (like(ADA, cosines_of(THRESHOLDS[2][0] + 0.2 - MARGIN + off), 4) for off in (0.1, -0.1))
    assert [one.reason for one in seen(who, like(ADA, mine), near)] == [AMBIGUOUS, UNKNOWN]
    assert [one.reason for one in seen(who, like(ADA, mine), far)] == [RECOGNISED, UNKNOWN]


def test_what_has_no_embedding_is_nobody() -> None:
    who = matcher(("ada", ADA))
    vectors = together(ADA, {name: np.zeros(128, np.float32) for name in NAMES})
    usable = fit(vectors, np.full(2, 50, np.float32), np.ones(2, np.float32), 20.0)
    assert usable.tolist() == [True, False]
    assert [one.reason for one in who(vectors, np.full(2, 50, np.float32), usable)] == [RECOGNISED, UNUSABLE]
    assert fit(together(ADA, ADA, ADA), np.array([50, 19, 50], np.float32), np.array([1, 1, 0.2], np.float32), 20.0).tolist() == [1, 0, 0]


def test_nobody_enrolled() -> None:
    who = matcher()
    assert seen(who, ADA) == (Sighting(None, -1.0, 0.0, UNKNOWN),)
    assert not who.likely(together(ADA)).any()
    assert who.wrong(10**6) == 0


def test_one_recognizer_alone() -> None:
    who = matcher(("ada", ADA), names=("sface",))
    least = CALIBRATION.threshold_for("sface", 1e-6)
    for cosine, reason in ((least + 1e-4, RECOGNISED), (least - 1e-4, UNKNOWN)):
        assert seen(who, like(ADA, {"sface": cosine, "dlib": 0.0}))[0].reason == reason


def test_without_a_calibration_nobody_is_recognised() -> None:
    with pytest.raises(CalibrationError):
        Matcher(Registry(NOBODY).adding([photo_of("ada", ADA)]), Calibration({}), NAMES)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0.2, 0.9), st.floats(0.86, 0.99)), min_size=1, max_size=6), st.integers(0, 100))
def test_whoever_is_recognised_was_likely(faces: list[tuple[int, float, float]], seed: int) -> None:
    who = matcher(*((f"p{i % 4}", anyone(i)) for i in range(6)))
    some = [like(anyone(person), {"sface": s, "dlib": d}, seed + i) for i, (person, s, d) in enumerate(faces)]
    likely = who.likely(together(*some))
    for i, one in enumerate(seen(who, *some)):
        assert likely[i] or one.reason == UNKNOWN
        assert (one.person is not None) == (one.reason == RECOGNISED)
    # alone in its image a face is at least as clear
    for i, one in enumerate(seen(who, *some)):
        (alone,) = seen(who, some[i])
        assert one.person in (None, alone.person)
