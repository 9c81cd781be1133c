"""Who is one person among strangers: made-up people, then photos of real ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mfmc_ray.known.calibration import Calibration
from mfmc_ray.known.strangers import gather, joint, joint_threshold

NAMES = ("sface", "dlib")
F32 = NDArray[np.float32]


def unit(vectors: NDArray[np.float64]) -> F32:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def people(rng: np.random.Generator, photos: list[int], noise: float = 0.3) -> tuple[dict[str, F32], NDArray[np.int64]]:
    """Photos of people in random directions, those of one alike; and who is on each."""
    who = np.repeat(np.arange(len(photos)), photos)
    vectors = {}
    for name in NAMES:
        # dlib's strangers have cosines around 0.83: what all faces share is added
        shared = unit(rng.standard_normal(128)) * (2.2 if name == "dlib" else 0.3)
        own = unit(rng.standard_normal((len(photos), 128)))
        vectors[name] = unit(shared + own[who] + noise * unit(rng.standard_normal((len(who), 128))))
    return vectors, who


def same(labels: NDArray[np.int64], who: NDArray[np.int64]) -> bool:
    return bool(((labels[:, None] == labels) == (who[:, None] == who)).all())


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return Calibration()


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), photos=st.lists(st.integers(1, 4), min_size=1, max_size=12))
def test_people_are_told_apart_and_nobody_is_split(seed: int, photos: list[int]) -> None:
    vectors, who = people(np.random.default_rng(seed), photos)
    labels = gather(vectors, np.arange(len(who)), Calibration())
    assert same(labels, who)
    assert sorted(set(labels.tolist())) == list(range(len(photos)))
    assert labels[0] == 0


def test_two_faces_of_a_picture_are_two_people(calibration: Calibration) -> None:
    vectors, _ = people(np.random.default_rng(0), [4])
    labels = gather(vectors, np.array([0, 0, 1, 2]), calibration)
    assert labels[0] != labels[1]
    assert len(set(labels.tolist())) == 2


def test_who_is_in_a_group_stays_in_it(calibration: Calibration) -> None:
    """Groups that would be joined today, because a new photo is like both, are not."""
    vectors, _ = people(np.random.default_rng(1), [3, 3, 2])
    before = np.array([7, 7, -1, 3, -1, 5, -1, -1])  # the second person is in two groups
    labels = gather(vectors, np.arange(8), calibration, before)
    assert (labels[before >= 0] == before[before >= 0]).all()
    assert labels[2] == 7
    assert labels[4] in (3, 5)
    assert labels[6] == labels[7] == 8


def test_what_is_found_at_once_is_found_night_by_night(calibration: Calibration) -> None:
    vectors, who = people(np.random.default_rng(2), [5, 1, 4, 2, 3])
    order = np.random.default_rng(3).permutation(len(who))
    labels = np.full(0, -1, np.int64)
    for stop in (4, 5, 9, len(who)):
        some = order[:stop]
        before = np.concatenate([labels, np.full(stop - len(labels), -1)])
        labels = gather({name: v[some] for name, v in vectors.items()}, some, calibration, before)
    assert same(labels, who[order])


def test_strangers_form_no_chain(calibration: Calibration) -> None:
    """Each is just alike enough to the next one, the ends are not alike at all."""
    link = joint_threshold(NAMES, calibration, 0.01 / 100)
    chain = np.zeros((40, 128))
    chain[0, 0] = 1
    for k in range(1, 40):
        chain[k] = (link + 0.002) * chain[k - 1]
        chain[k, k] = np.sqrt(1 - (chain[k] ** 2).sum())
    labels = gather(dict.fromkeys(NAMES, unit(chain)), np.arange(40), calibration)
    assert 1 < np.bincount(labels).max() <= 4


def test_both_recognizers_together_are_one_cosine(calibration: Calibration) -> None:
    vectors, _ = people(np.random.default_rng(4), [2, 2])
    both = joint(vectors, calibration)
    np.testing.assert_allclose(np.linalg.norm(both, axis=1), 1, atol=1e-6)
    weights = np.linalg.lstsq(
        np.stack([(v @ v.T).reshape(-1) for v in vectors.values()], 1).astype(np.float64), (both @ both.T).reshape(-1), rcond=None
    )[0]
    np.testing.assert_allclose(weights.sum(), 1, atol=1e-4)
    rates = (1e-3, 1e-4, 1e-6)
    thresholds = [joint_threshold(NAMES, calibration, rate) for rate in rates]
    assert thresholds == sorted(thresholds)
    assert joint_threshold(("sface",), calibration, 1e-3) == pytest.approx(calibration.threshold_for("sface", 1e-3))


def test_nobody_is_nobody(calibration: Calibration) -> None:
    none = {name: np.zeros((0, 128), np.float32) for name in NAMES}
    assert gather(none, np.zeros(0, np.int64), calibration).tolist() == []
    one, _ = people(np.random.default_rng(5), [1])
    assert gather(one, np.zeros(1, np.int64), calibration).tolist() == [0]
