"""False-match rates and thresholds: the shipped curves against what they were measured on, and the arithmetic."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfmc_ray.faces.store import load_lock
from mfmc_ray.known.calibration import HIGHEST_RATE, LEAST_PASS, Calibration, CalibrationError, Curve, pass_probability
from mfmc_ray.known.measure import Impostors, calibrate, genuine

CALIBRATION = Calibration()
BOTH = ("sface", "dlib")
HELD_OUT = "openface"


def test_every_recognizer_ships_measured_with_the_locked_weights() -> None:
    locked = {model.name: model.sha256 for model in load_lock()}
    assert set(CALIBRATION.curves) == {*BOTH, HELD_OUT}
    assert CALIBRATION.curves[HELD_OUT].model_sha256 == locked["openface"]
    assert CALIBRATION.curves["sface"].model_sha256 == locked["sface"]
    assert CALIBRATION.curves["dlib"].model_sha256 == locked["dlib_resnet"]
    for curve in CALIBRATION.curves.values():
        assert (curve.people, curve.pairs) == (130, 130 * 129 // 2 * 16)
        assert "130 people" in curve.source


def test_strict_thresholds_are_not_above_the_stated_ones() -> None:
    """0.363 is the vendor's; MODELS measured 0.929 for dlib at a false-match rate of 1e-3."""
    assert CALIBRATION.strict_threshold("sface") == 0.363
    assert 0.9 < CALIBRATION.strict_threshold("dlib") <= 0.929
    for name in BOTH:
        rate = CALIBRATION.estimate(name, CALIBRATION.strict_threshold(name))
        assert 5e-4 < rate.rate < 2e-3
        assert rate.low < 1e-3 < rate.high
        assert not rate.extrapolated


@pytest.mark.parametrize("name", BOTH)
def test_rates_fall_and_lie_in_their_intervals(name: str) -> None:
    cosines = np.linspace(-1, 1, 2001)
    rates = [CALIBRATION.estimate(name, float(c)) for c in cosines]
    values = np.array([r.rate for r in rates])
    assert values[0] == 1
    assert (np.diff(values) <= 0).all()
    assert ((values > 0) & (values <= 1)).all()
    assert all(r.low <= r.rate <= r.high <= 1 for r in rates)
    flags = [r.extrapolated for r in rates]
    assert flags == sorted(flags)
    assert {r.rate >= 30 / CALIBRATION.curves[name].pairs * 0.99 for r in rates if not r.extrapolated} == {True}


@given(st.sampled_from(BOTH), st.floats(-6, -0.01))
def test_threshold_for_inverts_fmr(name: str, exponent: float) -> None:
    rate = 10**exponent
    assert CALIBRATION.fmr(name, CALIBRATION.threshold_for(name, rate)) == pytest.approx(rate, rel=1e-9)


def test_no_threshold_above_one() -> None:
    assert CALIBRATION.threshold_for("dlib", 1e-300) == 1


def test_pass_probability() -> None:
    assert pass_probability(0, 0.5) == 1
    assert pass_probability(3, 0.5) == pytest.approx(0.125)
    assert pass_probability(10**9, 1e-9) == pytest.approx(math.exp(-1), rel=1e-8)
    assert pass_probability(10**6, 1e-12) == pytest.approx(1 - 1e-6, abs=1e-12)
    assert (pass_probability(0, 1.0), pass_probability(5, 1.0)) == (1, 0)
    rng = np.random.default_rng(0)
    assert (rng.random((200_000, 30)) >= 0.05).all(axis=1).mean() == pytest.approx(pass_probability(30, 0.05), abs=0.005)
    for n, rate in ((-1, 0.1), (1, -0.1), (1, 1.1), (1, math.nan)):
        with pytest.raises(ValueError, match="n_known"):
            pass_probability(n, rate)


@pytest.mark.parametrize("name", BOTH)
def test_default_threshold_moves_only_as_far_as_it_must(name: str) -> None:
    strict = CALIBRATION.strict_threshold(name)
    highest = CALIBRATION.threshold_for(name, HIGHEST_RATE)
    strict_holds = math.floor(math.log(LEAST_PASS) / math.log1p(-CALIBRATION.fmr(name, strict)))
    most = math.floor(math.log(LEAST_PASS) / math.log1p(-HIGHEST_RATE))
    assert 1000 < strict_holds < 5000 < most
    for n in (0, 1, strict_holds):
        chosen = CALIBRATION.default_threshold(name, n)
        assert (chosen.value, chosen.warning, chosen.capacity_exceeded) == (strict, None, False)
        assert chosen.pass_probability >= LEAST_PASS
    for n in (strict_holds + 1, 20_000, most):
        chosen = CALIBRATION.default_threshold(name, n)
        assert strict < chosen.value <= highest
        assert chosen.pass_probability == pytest.approx(LEAST_PASS, rel=1e-6)
        assert not chosen.capacity_exceeded
        assert chosen.warning is not None
        assert f"{n:,} known faces" in chosen.warning
        assert f"original they keep {strict:.3f}" in chosen.warning
    for n in (most + 1, 10**6, 10**9):
        chosen = CALIBRATION.default_threshold(name, n)
        assert chosen.value == highest
        assert chosen.pass_probability < LEAST_PASS
        assert chosen.capacity_exceeded
        assert chosen.warning is not None
        assert chosen.warning.startswith("capacity exceeded")


@given(st.sampled_from(BOTH), st.integers(0, 10**7), st.integers(0, 10**7))
def test_default_threshold_never_falls_with_more_known_faces(name: str, a: int, b: int) -> None:
    few, many = sorted((a, b))
    assert CALIBRATION.default_threshold(name, few).value <= CALIBRATION.default_threshold(name, many).value


def test_unknown_recognizer_and_bad_numbers() -> None:
    for call in (
        lambda: CALIBRATION.fmr("arcface", 0.3),
        lambda: CALIBRATION.threshold_for("arcface", 1e-3),
        lambda: CALIBRATION.default_threshold("arcface", 10),
    ):
        with pytest.raises(CalibrationError, match=r"no calibration for the recognizer 'arcface' \(there is for: dlib, openface, sface\)"):
            call()
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="finite cosine"):
            CALIBRATION.fmr("sface", value)
    for rate in (0, -1, 1.01, math.nan):
        with pytest.raises(ValueError, match="false-match rate"):
            CALIBRATION.threshold_for("sface", rate)


@pytest.mark.parametrize(
    "points",
    [
        [[0.1, 1, 1, 1, 9]],
        [[0.2, 1, 1, 1, 9], [0.1, 0.1, 0.1, 0.1, 1]],
        [[0.1, 0.5, 0.5, 0.5, 9], [0.2, 0.6, 0.6, 0.6, 1]],
        [[0.1, 1, 1, 1, 9], [0.2, 0, 0, 0, 0]],
        [[0.1, 1, 1, 1, 9], [0.2, math.nan, 0, 0, 0]],
        [[0.1, 1], [0.2, 0.1]],
        None,
    ],
)
def test_a_broken_calibration_is_refused(points: list[list[float]] | None) -> None:
    plain = {"recognizer": "x", "model_sha256": "", "source": "", "created": "", "people": 1, "pairs": 9, "strict_threshold": 0.3}
    with pytest.raises(CalibrationError):
        Curve.from_json({**plain, "tail": {"start": 0.2}, "points": points})


@pytest.fixture
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("calibrate_thresholds", Path(__file__).parents[2] / "tools" / "calibrate_thresholds.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.models
def test_the_shipped_curve_is_what_the_people_give(shared_data: Path, tool: ModuleType) -> None:
    """A fifth of the people, embedded anew: their false-match rate at the strict threshold is near the stated one."""
    detector = tool.YuNet(min_score=0.6)
    folders = sorted((shared_data / "people").iterdir())[::5]
    photos = [(folder.name, *tool.middle_face(detector, path)) for folder in folders for path in sorted(folder.iterdir())]
    embedder = tool.SFaceEmbedder()
    vectors = np.concatenate([embedder.embed(image, points) for _, image, points in photos if points is not None])
    names = np.array([name for name, _, points in photos if points is not None])
    assert len(names) == 104
    plain = calibrate(Impostors.among(vectors, names), rounds=200)
    curve = Curve.from_json({**plain, "recognizer": "x", "model_sha256": "", "source": "", "created": "", "strict_threshold": 0.363})
    for cosine in (0.2, 0.3):
        here, shipped = curve.at(cosine), CALIBRATION.estimate("sface", cosine)
        assert here.low < shipped.high
        assert shipped.low < here.high
    assert genuine(vectors, names, 0.363)["rate_at_strict_threshold"] > 0.95
