"""What a number of known faces means for fakes: the chance that one passes, what a pool of them takes, and when thresholds must move."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mfmc_ray.known.calibration import HIGHEST_RATE, LEAST_PASS, Calibration, Threshold, pass_probability


@dataclass(frozen=True)
class Span:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Outlook:
    """One guard recognizer against N known faces.

    Attributes:
        recognizer: its name.
        threshold: the one a run would take, with its false-match rate.
        chance: that a random fake passes, 0–1; its interval is that of the false-match rate.
        moves_at: the number of known faces at which the threshold starts to rise: one fewer, and it is the strict one.
        exceeded_at: the number from which even the highest threshold lets fewer than `LEAST_PASS` of the fakes pass.
    """

    recognizer: str
    threshold: Threshold
    chance: Span
    moves_at: Span
    exceeded_at: float


@dataclass(frozen=True)
class Capacity:
    """All guard recognizers against N known faces.

    Attributes:
        faces: N.
        each: the recognizers' outlooks.
        independent: the chance that a random fake passes all of them if their errors have nothing to do with each other: the product.
        dependent: if a fake that passes the strictest passes all: the least of the chances. The truth lies between the two as long as
            what one recognizer finds similar is no less likely to be so for the next.
    """

    faces: int
    each: tuple[Outlook, ...]
    independent: Span
    dependent: Span

    @property
    def moves_at(self) -> float:
        """The number of known faces at which the first threshold starts to rise."""
        return min(one.moves_at.value for one in self.each)


def capacity(calibration: Calibration, recognizers: Sequence[str], faces: int, taken: Mapping[str, float] | None = None) -> Capacity:
    """What `faces` known faces mean for a run that is guarded by `recognizers`.

    The fakes are taken as strangers to the known faces, all comparisons as independent: see `pass_probability` for what that leaves out.

    Args:
        calibration: the curves.
        recognizers: of the guard.
        faces: N.
        taken: recognizer → the threshold that a run took; None: the default ones.

    Raises:
        ValueError: for a negative number of faces or no recognizer.
        CalibrationError: for a recognizer that was not calibrated.
    """
    if faces < 0 or not recognizers:
        raise ValueError(f"wanted a number of known faces and a recognizer, not {faces} and {list(recognizers)}")
    each = tuple(_outlook(calibration, name, faces, (taken or {}).get(name)) for name in recognizers)
    chances = [one.chance for one in each]
    product = Span(math.prod(c.value for c in chances), math.prod(c.low for c in chances), math.prod(c.high for c in chances))
    least = Span(min(c.value for c in chances), min(c.low for c in chances), min(c.high for c in chances))
    return Capacity(faces, each, product, least)


def most_known(rate: float, chance: float = LEAST_PASS) -> float:
    """The largest N at which a random fake still passes with this chance: (1 − rate)^N ≥ chance; infinite for a rate of 0.

    Raises:
        ValueError: for a rate outside 0–1 or a chance that is not above 0 and below 1.
    """
    if not 0 <= rate <= 1 or not 0 < chance < 1:
        raise ValueError(f"wanted a false-match rate in 0–1 and a chance above 0 and below 1, not {rate} and {chance}")
    if rate in (0, 1):
        return math.inf if rate == 0 else 0.0
    n = math.floor(math.log(chance) / math.log1p(-rate))
    # rounding may be off by one, and the thresholds are chosen by the probability itself
    return float(max(k for k in (n - 1, n, n + 1) if k <= 0 or pass_probability(k, rate) >= chance))


def attempts(chance: float) -> float:
    """Expected number of fakes until one passes: of a geometric distribution, 1 / chance; infinite if none does."""
    return math.inf if chance == 0 else 1 / chance


def seeds_for(pool: int, chance: float) -> float:
    """Expected number of fakes to offer until `pool` passed: of a negative binomial distribution, pool / chance."""
    return pool * attempts(chance)


def _outlook(calibration: Calibration, recognizer: str, faces: int, taken: float | None) -> Outlook:
    threshold = calibration.default_threshold(recognizer, faces)
    if taken is not None and abs(taken - threshold.value) > 1e-6:
        rate = calibration.estimate(recognizer, taken)
        threshold = Threshold(taken, rate, pass_probability(faces, rate.rate), None, False)
    rate = threshold.rate
    chance = Span(threshold.pass_probability, pass_probability(faces, rate.high), pass_probability(faces, rate.low))
    strict = calibration.estimate(recognizer, calibration.strict_threshold(recognizer))
    moves = Span(*(most_known(r) + 1 for r in (strict.rate, strict.high, strict.low)))
    exceeded = max(most_known(HIGHEST_RATE) + 1, moves.value)  # the strict threshold may be the highest
    return Outlook(recognizer, threshold, chance, moves, exceeded)
