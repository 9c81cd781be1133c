"""The estimator of false-match rates, held against distributions that are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mfmc_ray.known.calibration import Curve
from mfmc_ray.known.measure import LEAST_PAIRS, Impostors, MeasureError, calibrate, genuine, strict_threshold

F32 = NDArray[np.float32]


def people(seed: int, count: int, photos: int, dim: int, like: float) -> tuple[F32, NDArray[np.str_]]:
    """Random people; `like` is the share of a photo that is the person."""
    rng = np.random.default_rng(seed)
    base = np.repeat(rng.standard_normal((count, dim)), photos, axis=0)
    vectors = like * base + (1 - like) * rng.standard_normal(base.shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), np.repeat([f"p{i}" for i in range(count)], photos)


def strangers(cosine: float, dim: int) -> float:
    """The false-match rate of independent directions: ½·I(1 − c²; (d − 1)/2, ½)."""
    from scipy.special import betainc

    return float(0.5 * betainc((dim - 1) / 2, 0.5, 1 - cosine**2))


def curve(plain: dict[str, Any]) -> Curve:
    return Curve.from_json({**plain, "recognizer": "x", "model_sha256": "", "source": "", "created": "", "strict_threshold": 0.3})


def test_it_finds_a_known_distribution() -> None:
    plain = calibrate(Impostors.among(*people(0, 130, 4, 128, 0.0)), rounds=200)
    measured = curve(plain)
    for cosine in (0.05, 0.15, 0.25, 0.28):
        assert measured.at(cosine).rate == pytest.approx(strangers(cosine, 128), rel=0.15)
    # the tail of this law is lighter than exponential: the extrapolation may only overstate it
    for rate in (1e-5, 1e-6):
        cosine = measured.cosine(rate)
        assert measured.at(cosine).extrapolated
        assert strangers(cosine, 128) < rate
    assert "exponential excess" in plain["tail"]["method"]
    assert plain["tail"]["start"] == pytest.approx(measured.cosine(LEAST_PAIRS / plain["pairs"]), abs=1e-4)


def test_intervals_cover_the_truth_in_most_draws() -> None:
    """Of 40 samples, with people whose two photos are alike: 95 % intervals, and what is extrapolated errs upwards if at all."""
    covered, above, extrapolated = [], [], []
    for seed in range(40):
        measured = curve(calibrate(Impostors.among(*people(seed, 70, 2, 32, 0.6)), rounds=100))
        for cosine in (0.1, 0.3, 0.4, 0.45):
            rate = measured.at(cosine)
            covered.append(rate.low <= strangers(cosine, 32) <= rate.high)
        for cosine in (0.6, 0.65, 0.7):  # rates of 1.4e-4, 2.6e-5 and 3.6e-6; 9,660 pairs support 3e-3
            rate = measured.at(cosine)
            extrapolated.append(rate.extrapolated)
            above.append(strangers(cosine, 32) <= rate.high)
    assert np.mean(covered) > 0.9
    assert all(extrapolated)
    assert np.mean(above) > 0.9


def test_intervals_count_people_and_not_pairs() -> None:
    """Copies of a photo add pairs but no evidence: the interval must not shrink with them."""
    vectors, names = people(1, 130, 1, 16, 0.0)
    once = calibrate(Impostors.among(vectors, names), rounds=200)
    copied = calibrate(Impostors.among(np.repeat(vectors, 4, axis=0), np.repeat(names, 4)), rounds=200)
    assert copied["pairs"] == 16 * once["pairs"]
    for share in (0.2, 0.05):
        widths = []
        for plain in (once, copied):
            _, rate, low, high, _ = min(plain["points"], key=lambda p: abs(p[1] - share))
            assert low < rate < high
            widths.append((high - low) / rate)
        assert widths[1] == pytest.approx(widths[0], rel=0.35)


def test_pairs_of_one_person_do_not_count() -> None:
    vectors, names = people(2, 60, 4, 128, 0.8)
    plain = calibrate(Impostors.among(vectors, names), rounds=50)
    assert plain["pairs"] == 60 * 59 // 2 * 16
    assert plain["people"] == 60
    assert curve(plain).cosine(1e-3) < 0.5
    assert genuine(vectors, names, 0.5)["rate_at_strict_threshold"] > 0.99
    assert genuine(vectors, names, 0.5)["pairs"] == 60 * 6
    assert genuine(vectors[::4], names[::4], 0.5) == {"pairs": 0}


def test_fakes_against_known_faces() -> None:
    """A cross set: every fake with every known face, no two fakes; the interval counts the few people of either side."""
    fakes, known = people(3, 100, 1, 32, 0.0)[0], people(4, 50, 6, 32, 0.9)
    pairs = Impostors.between(fakes, *known)
    assert (len(pairs), pairs.people, pairs.sampled) == (100 * 300, 150, None)
    assert pairs.cosines == pytest.approx(np.sort((fakes.astype(np.float64) @ known[0].T.astype(np.float64)).ravel())[::-1])
    measured = curve(calibrate(pairs, rounds=200))
    at = measured.at(0.3)
    assert at.low < strangers(0.3, 32) < at.high
    fewer = curve(calibrate(Impostors.between(fakes, known[0][::6], known[1][::6]), rounds=200)).at(0.3)
    assert (fewer.high - fewer.low) / fewer.rate < 2 * (at.high - at.low) / at.rate  # six photos of one are hardly more than one


def test_pairs_within_images() -> None:
    """The bootstrap draws images: all pairs of an image come and go together."""
    rng = np.random.default_rng(5)
    vectors = people(5, 6000, 1, 32, 0.0)[0].reshape(3000, 2, 32).astype(np.float64)
    cosines = (vectors[:, 0] * vectors[:, 1]).sum(1)
    single = calibrate(Impostors.within(cosines, np.arange(3000)), rounds=200)
    assert single["people"] == single["pairs"] == 3000
    grouped = calibrate(Impostors.within(np.repeat(cosines, 4), np.repeat(np.arange(3000), 4)), rounds=200)
    for cosine in (0.1, 0.2):
        a, b = curve(single).at(cosine), curve(grouped).at(cosine)
        assert a.rate == pytest.approx(b.rate, rel=0.1)
        assert (b.high - b.low) == pytest.approx(a.high - a.low, rel=0.3)
    times = rng.integers(3, size=3000)
    pairs = Impostors.within(cosines, np.arange(3000))
    assert (pairs.weights(times) == times[np.argsort(-cosines, kind="stable")]).all()


def test_more_faces_than_can_be_compared_are_sampled_as_people() -> None:
    vectors, names = people(6, 100, 3, 16, 0.5)
    pairs = Impostors.among(vectors, names, most=90)
    assert pairs.people == 30
    assert len(pairs) == 30 * 29 // 2 * 9
    assert pairs.sampled == "a random sample of 90 of 300 faces (seed 0)"
    again, other = Impostors.among(vectors, names, most=90), Impostors.among(vectors, names, most=90, seed=1)
    assert (again.cosines == pairs.cosines).all()
    assert not np.array_equal(other.cosines, pairs.cosines)
    crossed = Impostors.between(vectors[:200], vectors, names, most=60)
    assert 60 * 60 // 4 < len(crossed) <= 60 * 60 // 2
    assert crossed.sampled is not None
    assert calibrate(pairs, rounds=20)["points"][3][1] == pytest.approx(0.7, abs=0.01)


def test_too_few_or_equal_pairs_are_refused() -> None:
    with pytest.raises(MeasureError, match="1,225 pairs are too few"):
        calibrate(Impostors.among(*people(7, 50, 1, 16, 0.0)))
    same = np.tile(np.eye(1, 16, dtype=np.float32), (80, 1))
    with pytest.raises(MeasureError, match="same cosine"):
        calibrate(Impostors.among(same, np.arange(80)))


def test_strict_thresholds() -> None:
    """The vendor's where there is one, else that of 1e-3 to three digits."""
    points = [[0.1, 1.0], [0.5004, 1e-3], [0.6, 1e-5]]
    assert strict_threshold("dlib", points, "up")[0] == 0.501
    assert strict_threshold("dlib", points, "down")[0] == 0.5
    assert "rounded up" in strict_threshold("dlib", points, "up")[1]
    assert strict_threshold("sface", points, "up")[0] == 0.363
