"""Capacity: what is foretold against fakes that are really made and searched, and where thresholds move."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mfmc_ray.known.calibration import HIGHEST_RATE, LEAST_PASS, Calibration, CalibrationError, Curve, pass_probability
from mfmc_ray.known.capacity import attempts, capacity, most_known, seeds_for
from mfmc_ray.known.certificate import Guard
from mfmc_ray.known.index import KnownFaces

F32 = NDArray[np.float32]
DIM = 24
BOTH = ("one", "two")


def cap(cosine: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """The false-match rate of independent directions in `DIM` dimensions: ½·I(1 − c²; (d − 1)/2, ½)."""
    from scipy.special import betainc

    c = np.asarray(cosine, np.float64)
    tail = 0.5 * betainc((DIM - 1) / 2, 0.5, 1 - c**2)
    return np.where(c >= 0, tail, 1 - tail)


def analytic(spread: float = 1.0) -> Calibration:
    """Curves that are the truth about random directions; their intervals a factor wide."""
    cosines = np.linspace(-0.9, 0.95, 2000)
    rates = cap(cosines)
    falling = np.append(True, np.diff(rates) < 0)
    cosines, rates = cosines[falling], rates[falling]
    three = np.stack([rates, np.maximum(rates / spread, 1e-300), np.minimum(rates * spread, 1)])
    strict = float(np.interp(-math.log(1e-3), -np.log(rates), cosines))
    return Calibration({name: Curve(name, "", "", "", 100, 10**6, strict, cosines, three, 0.9) for name in BOTH})


def directions(rng: np.random.Generator, n: int) -> F32:
    vectors = rng.standard_normal((n, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def passes(seed: int, n_known: int, fakes: int, recognizers: tuple[str, ...], *, alike: bool = False) -> NDArray[np.bool_]:
    """Which random fakes really pass a guard: bool (fakes,). `alike`: all recognizers see the same."""
    rng, calibration = np.random.default_rng(seed), analytic()
    known, made = {}, {}
    for i, name in enumerate(recognizers):
        fresh = i == 0 or not alike
        known[name] = directions(rng, n_known) if fresh else known[recognizers[0]]
        made[name] = directions(rng, fakes) if fresh else made[recognizers[0]]
    faces = KnownFaces(np.array([str(i).encode() for i in range(n_known)], np.bytes_), known, 0, "")
    thresholds = {name: calibration.default_threshold(name, n_known).value for name in recognizers}
    return np.array([verdict.passed for verdict in Guard(faces, thresholds, calibration).certify(made)])


@pytest.mark.parametrize("n_known", [300, 2000, 20_000])
def test_as_many_fakes_pass_as_foretold(n_known: int) -> None:
    """Thousands of fakes against known faces through the guard itself, at the strict threshold and at a raised one."""
    passed = np.concatenate([passes(seed, n_known, 1500, ("one",)) for seed in range(3)])
    foretold = capacity(analytic(), ["one"], n_known)
    (one,) = foretold.each
    p = one.chance.value
    assert (one.threshold.warning is None) == (n_known < one.moves_at.value)
    assert abs(passed.mean() - p) < 3 * math.sqrt(p * (1 - p) / len(passed))
    assert foretold.independent == foretold.dependent == one.chance

    # fakes until one passes: the gaps between those that do
    gaps = np.diff(np.flatnonzero(passed))
    assert abs(gaps.mean() - attempts(p)) < 3 * math.sqrt((1 - p) / p**2 / len(gaps))
    # as many as are offered for a pool of so many admit about so many
    pool = round(len(passed) * p * 0.8)
    offered = math.ceil(seeds_for(pool, p))
    assert abs(passed[:offered].sum() - pool) < 3 * math.sqrt(offered * p * (1 - p))


def test_two_recognizers_lie_between_the_two_bounds() -> None:
    """Errors that have nothing to do with each other: the product. The same errors: the least chance."""
    foretold = capacity(analytic(), BOTH, 1000)
    for alike, p in ((False, foretold.independent.value), (True, foretold.dependent.value)):
        passed = np.concatenate([passes(seed, 1000, 1500, BOTH, alike=alike) for seed in range(2)])
        assert abs(passed.mean() - p) < 3 * math.sqrt(p * (1 - p) / len(passed))
    assert foretold.independent.value < 0.5 * foretold.dependent.value


@pytest.mark.parametrize("calibration", [Calibration(), analytic(), analytic(3.0)])
def test_thresholds_move_exactly_where_it_says(calibration: Calibration) -> None:
    for name in calibration.curves:
        (one,) = capacity(calibration, [name], 10).each
        moves, exceeded = int(one.moves_at.value), int(one.exceeded_at)
        strict = calibration.strict_threshold(name)
        before, after = (calibration.default_threshold(name, n) for n in (moves - 1, moves))
        assert (before.value, before.warning) == (strict, None)
        assert before.pass_probability >= LEAST_PASS
        assert after.value > strict
        assert after.warning is not None
        before, after = (calibration.default_threshold(name, n) for n in (exceeded - 1, exceeded))
        assert not before.capacity_exceeded
        assert before.pass_probability >= LEAST_PASS * (1 - 1e-9)
        assert after.capacity_exceeded
        assert after.pass_probability < LEAST_PASS
        assert one.moves_at.low <= one.moves_at.value <= one.moves_at.high


def test_the_interval_is_that_of_the_rate() -> None:
    (one,) = capacity(analytic(2.0), ["one"], 1000).each
    rate = one.threshold.rate
    assert (rate.low * 2, rate.high / 2) == pytest.approx((rate.rate, rate.rate))
    assert one.chance.low == pytest.approx(math.exp(-1000 * rate.high), rel=0.01)
    assert one.chance.high == pytest.approx(math.exp(-1000 * rate.low), rel=0.01)
    both = capacity(analytic(2.0), BOTH, 1000)
    assert both.independent.low < one.chance.low < one.chance.value
    assert both.moves_at == one.moves_at.value


@given(st.floats(1e-9, 0.9), st.floats(0.01, 0.99))
def test_most_known_is_the_last_that_passes(rate: float, chance: float) -> None:
    n = int(most_known(rate, chance))
    assert pass_probability(n, rate) >= chance or n == 0
    assert pass_probability(n + 1, rate) < chance


def test_numbers_at_the_edge() -> None:
    assert most_known(0) == math.inf
    assert most_known(1) == 0
    assert most_known(HIGHEST_RATE) == pytest.approx(230_257, abs=1)
    assert (attempts(1), attempts(0.25), attempts(0)) == (1, 4, math.inf)
    assert (seeds_for(500, 0.25), seeds_for(500, 0)) == (2000, math.inf)
    nobody = capacity(Calibration(), ["sface", "dlib"], 0)
    assert nobody.independent.value == nobody.dependent.value == 1
    for call in (lambda: most_known(-0.1), lambda: most_known(0.1, 1.0), lambda: capacity(Calibration(), [], 10)):
        with pytest.raises(ValueError, match="wanted"):
            call()
    with pytest.raises(CalibrationError):
        capacity(Calibration(), ["arcface"], 10)
