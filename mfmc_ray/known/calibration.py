"""What a cosine threshold means: the false-match rate of strangers, measured per recognizer, and the thresholds that follow from it.

`data/<recognizer>.json` is made by `tools/calibrate_thresholds.py` from pairs of photos of different people, and `mfmc known calibrate`
makes the same from a run's own faces; both by `measure`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

LEAST_PASS = 0.1
"""The threshold rises with the index so that a random fake still passes with this probability."""
HIGHEST_RATE = 1e-5
"""The false-match rate of the highest threshold that is ever chosen."""


class CalibrationError(ValueError):
    """There is no calibration for a recognizer, or it cannot be read; the message says what to do."""


@dataclass(frozen=True)
class Rate:
    """A false-match rate, 0–1.

    Attributes:
        rate: the estimate.
        low, high: its 95 % interval.
        extrapolated: it lies beyond what the measured pairs support.
    """

    rate: float
    low: float
    high: float
    extrapolated: bool


@dataclass(frozen=True)
class Curve:
    """The false-match rate of one recognizer over the cosine.

    Attributes:
        recognizer: its name.
        model_sha256: of the weights that were measured, hex.
        source: which pairs, in words.
        created: ISO date.
        people, pairs: how many were measured.
        strict_threshold: the same-person cosine (false-match rate about 1e-3) that a face always keeps to its own original.
        cosines: float64 (k,), rising.
        rates: float64 (3, k): estimate, low and high end, falling; between the points the logarithm is linear.
        tail_start: cosine above which the rates are extrapolated.
    """

    recognizer: str
    model_sha256: str
    source: str
    created: str
    people: int
    pairs: int
    strict_threshold: float
    cosines: NDArray[np.float64]
    rates: NDArray[np.float64]
    tail_start: float

    def __post_init__(self) -> None:
        shape_fits = self.cosines.ndim == 1 and len(self.cosines) > 1 and self.rates.shape == (3, len(self.cosines))
        if not shape_fits or not (np.diff(self.cosines) > 0).all() or not ((self.rates > 0) & (self.rates <= 1)).all():
            raise CalibrationError(f"the calibration of {self.recognizer} wants rising cosines and rates in (0, 1]")
        if not (np.diff(self.rates[0]) < 0).all():
            raise CalibrationError(f"the calibration of {self.recognizer} wants falling rates")

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """What `tools/calibrate_thresholds.py` or `mfmc known calibrate` wrote.

        Raises:
            CalibrationError: if it is something else.
        """
        try:
            points = np.array(plain["points"], np.float64)
            return cls(
                recognizer=plain["recognizer"],
                model_sha256=plain["model_sha256"],
                source=plain["source"],
                created=plain["created"],
                people=int(plain["people"]),
                pairs=int(plain["pairs"]),
                strict_threshold=float(plain["strict_threshold"]),
                cosines=points[:, 0],
                rates=points[:, 1:4].T,
                tail_start=float(plain["tail"]["start"]),
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise CalibrationError(f"this is no calibration ({error!r}); make one with `mfmc known calibrate`") from error

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads, to the last digit."""
        names = ("recognizer", "model_sha256", "source", "created", "people", "pairs", "strict_threshold")
        points = [[float(v) for v in point] for point in np.vstack([self.cosines, self.rates]).T]
        return {**{name: getattr(self, name) for name in names}, "tail": {"start": self.tail_start}, "points": points}

    @property
    def digest(self) -> str:
        """sha-256, hex, over all that thresholds follow from: what names a curve in a manifest."""
        plain = self.to_json()
        decides = {name: plain[name] for name in ("recognizer", "model_sha256", "strict_threshold", "tail", "points")}
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def at(self, cosine: float) -> Rate:
        """The false-match rate at a threshold; 1 below the least cosine measured, and beyond the last point along the last slope."""
        if not math.isfinite(cosine):
            raise ValueError(f"a threshold must be a finite cosine, not {cosine}")
        rate, low, high = (math.exp(_interpolated(cosine, self.cosines, np.log(rates))) for rates in self.rates)
        return Rate(rate, min(low, rate), max(high, rate), cosine > self.tail_start)

    def cosine(self, rate: float) -> float:
        """The threshold at which the false-match rate is `rate`, in (0, 1]; at most 1, the highest cosine."""
        if not 0 < rate <= 1:
            raise ValueError(f"a false-match rate must be above 0 and at most 1, not {rate}")
        return min(1.0, _interpolated(-math.log(rate), -np.log(self.rates[0]), self.cosines))


@dataclass(frozen=True)
class Threshold:
    """A chosen threshold and what it means.

    Attributes:
        value: cosine.
        rate: the false-match rate at it.
        pass_probability: that a random fake passes against all known faces.
        warning: what its user must know; None if it is the strict threshold.
        capacity_exceeded: there are more known faces than the recognizer can tell apart.
    """

    value: float
    rate: Rate
    pass_probability: float
    warning: str | None
    capacity_exceeded: bool


class Calibration:
    """The curves of all calibrated recognizers.

    Args:
        curves: recognizer → curve. None: those that ship with the package.

    Raises:
        CalibrationError: when a shipped curve cannot be read.
    """

    def __init__(self, curves: Mapping[str, Curve] | None = None) -> None:
        self.curves = dict(_shipped() if curves is None else curves)

    @classmethod
    def load(cls, folder: str | Path | None, models: Mapping[str, str] | None = None) -> Self:
        """The curves of a folder; those that ship for recognizers that it has none of.

        Args:
            folder: holds `<recognizer>.json`, made by `mfmc known calibrate`; None: the shipped curves alone.
            models: recognizer → sha-256 of its weights, hex. Curves of these must have been measured with them.

        Raises:
            CalibrationError: when there is no curve in the folder, one cannot be read, or it is of other weights.
        """
        if folder is None:
            return cls()
        curves: dict[str, Curve] = {}
        for file in sorted(Path(folder).glob("*.json")):
            try:
                curve = Curve.from_json(json.loads(file.read_text()))
            except (OSError, ValueError) as error:
                raise CalibrationError(f"{file} cannot be used: {error}") from error
            if curve.recognizer != file.stem:
                raise CalibrationError(f"{file} is the curve of {curve.recognizer!r}; name it {curve.recognizer}.json, or take it out")
            if models and models.get(curve.recognizer, curve.model_sha256) != curve.model_sha256:
                raise CalibrationError(
                    f"{file} was measured with other weights of {curve.recognizer} than this version pins, so its rates are not theirs; "
                    "measure anew with `mfmc known calibrate`, or leave the setting out to use the shipped curves"
                )
            curves[curve.recognizer] = curve
        if not curves:
            raise CalibrationError(f"there is no curve (<recognizer>.json) in {folder}; make one with `mfmc known calibrate`")
        return cls({**_shipped(), **curves})

    def fmr(self, recognizer: str, threshold: float) -> float:
        """The false-match rate: how often two photos of different people have a cosine of at least `threshold`.

        It is an average over the people measured. Pairs of the same sex, age and origin match more often, so a fake that is matched to
        its original in these meets more matches than this among similar known faces.
        """
        return self.estimate(recognizer, threshold).rate

    def estimate(self, recognizer: str, threshold: float) -> Rate:
        """The false-match rate with its interval, and whether it is extrapolated."""
        return self.curve(recognizer).at(threshold)

    def threshold_for(self, recognizer: str, fmr: float) -> float:
        """The cosine at which the false-match rate is `fmr`."""
        return self.curve(recognizer).cosine(fmr)

    def strict_threshold(self, recognizer: str) -> float:
        """The same-person cosine, which a published face always stays below to its own original."""
        return self.curve(recognizer).strict_threshold

    def default_threshold(self, recognizer: str, n_known: int) -> Threshold:
        """The lowest useful threshold against `n_known` known faces.

        It is the strict threshold as long as a random fake passes with a probability of at least `LEAST_PASS`. With more known faces it
        rises to where the probability is just that, but not above the cosine of `HIGHEST_RATE`. **A threshold that rises weakens the
        promise**: published faces may then resemble some known stranger as much as one in `1 / rate` strangers does. It does not concern
        a face's own original, against which `Guard` keeps the strict threshold.

        Raises:
            CalibrationError: for a recognizer that was not calibrated.
        """
        strict = self.strict_threshold(recognizer)
        at_strict = self.estimate(recognizer, strict)
        passing = pass_probability(n_known, at_strict.rate)
        if passing >= LEAST_PASS:
            return Threshold(strict, at_strict, passing, None, False)
        needed = -math.expm1(math.log(LEAST_PASS) / n_known)
        exceeded = needed < HIGHEST_RATE
        value = max(strict, self.threshold_for(recognizer, max(needed, HIGHEST_RATE)))
        rate = self.estimate(recognizer, value)
        passing = pass_probability(n_known, rate.rate)
        warning = (
            f"against {n_known:,} known faces the {recognizer} threshold rose from {strict:.3f} to {value:.3f} (false-match rate "
            f"{rate.rate:.1e}{', extrapolated' if rate.extrapolated else ''}): faces may look more like some known stranger than "
            f"the strict threshold allows; against their own original they keep {strict:.3f}"
        )
        if exceeded:
            warning = (
                f"capacity exceeded: {recognizer} cannot tell {n_known:,} known faces apart. Even at the highest threshold allowed, "
                f"{value:.3f} (false-match rate {rate.rate:.1e}), a random fake passes with probability {passing:.2g}, so many faces will "
                "be redacted. Use a stronger recognizer or fewer known faces"
            )
        return Threshold(value, rate, passing, warning, exceeded)

    def curve(self, recognizer: str) -> Curve:
        """A recognizer's curve.

        Raises:
            CalibrationError: it was not calibrated.
        """
        if recognizer not in self.curves:
            raise CalibrationError(
                f"there is no calibration for the recognizer {recognizer!r} (there is for: {', '.join(sorted(self.curves))}); "
                "measure it with `mfmc known calibrate`"
            )
        return self.curves[recognizer]


def pass_probability(n_known: int, fmr: float) -> float:
    """(1 − FMR)^N: how likely a random fake is below the threshold to all N known faces.

    The N comparisons are taken as independent. Those of one face are not: some faces resemble many others. By Jensen's inequality the
    mean of (1 − p)^N over faces with different rates p is then higher, so this is a lower estimate.

    Raises:
        ValueError: for a negative N or a rate outside 0–1.
    """
    if n_known < 0 or not 0 <= fmr <= 1:
        raise ValueError(f"wanted n_known >= 0 and a false-match rate in 0–1, not {n_known} and {fmr}")
    if fmr == 1:
        return 1.0 if n_known == 0 else 0.0
    return math.exp(n_known * math.log1p(-fmr))


def _interpolated(x: float, xs: NDArray[np.float64], ys: NDArray[np.float64]) -> float:
    """y at x: piecewise linear, constant before the first point, along the last slope after the last."""
    if x > xs[-1]:
        slope = (ys[-1] - ys[-2]) / (xs[-1] - xs[-2])
        return float(ys[-1] + slope * (x - xs[-1]))
    return float(np.interp(x, xs, ys))


def _shipped() -> dict[str, Curve]:
    files = (file for file in resources.files("mfmc_ray.known").joinpath("data").iterdir() if file.name.endswith(".json"))
    curves = [Curve.from_json(json.loads(file.read_text())) for file in files]
    return {curve.recognizer: curve for curve in curves}
