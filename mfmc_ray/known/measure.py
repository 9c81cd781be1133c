"""Measures a recognizer's false-match rate: the cosines of impostor pairs → the curve that `calibration` reads.

The rate is the share of pairs at or above a cosine, down to the rate that `LEAST_PAIRS` pairs support. Beyond that it is extrapolated by
peaks over threshold with an exponential excess: a generalised Pareto tail of shape 0 (Coles, An Introduction to Statistical Modeling of
Extreme Values, 2001, ch. 4), whose scale is the mean excess, the maximum-likelihood estimate, over the cosine that `TAIL_SHARE` of the
pairs exceed. The shape is not fitted: cosines end at 1, so the true tail is no heavier than exponential (shape ≤ 0), and a shape fitted to
a few hundred dependent pairs tends to foretell too few matches.

Intervals are 95 %, percentiles of a bootstrap over people: the pairs of one person depend on each other, so people are drawn and not pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfmc_ray.known.search import F32, F64, I64

LEAST_PAIRS = 30
"""Pairs at or above a cosine that an empirical rate takes."""
TAIL_SHARE = 0.005
"""Of the pairs, to fit the tail."""
TAIL_RATES = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
"""Rates of the extrapolated points."""
ROUNDS = 1000
"""Of the bootstrap."""
STRICT_RATE = 1e-3
"""The false-match rate of a strict threshold that no vendor gives."""
VENDOR_THRESHOLDS = {"sface": (0.363, "OpenCV Zoo's verification threshold of SFace, cosine")}
MOST_FACES = 2000
"""Faces compared at most, two million pairs: 40 s of bootstrap and 0.3 GB. Of more a random sample is taken, people as a whole."""
CLOSEST = 10
"""Pairs that `Impostors.closest` names."""
TAIL_METHOD = (
    f"peaks over threshold: exponential excess (generalised Pareto, shape 0), by maximum likelihood on the most similar {TAIL_SHARE:.1%}"
)

_SHARES = np.unique(np.concatenate([1 - np.arange(0, 0.9, 0.1), np.geomspace(0.1, 1e-6, 61)]))[::-1]
_LEAST_EXCESSES = 10


class MeasureError(ValueError):
    """There are too few pairs, or they cannot be told apart; the message says how many."""


@dataclass(frozen=True)
class Impostors:
    """m pairs of faces of different people.

    Attributes:
        cosines: float64 (m,), falling.
        first: int64 (m,), whose the one face is: a row of `drawn`.
        second: int64 (m,), whose the other is; None if both belong to the same draw (two faces of one image).
        drawn: int64 (k,): people (or images) of the same number are drawn from one another by the bootstrap.
        sampled: what was left out, in words; None if nothing.
        closest: int64 (c, 2), rows of the vectors: the pairs with the highest cosines, of which wrong labels are the first; None if the
            pairs were given.
    """

    cosines: F64
    first: I64
    second: I64 | None
    drawn: I64
    sampled: str | None = None
    closest: I64 | None = None

    def __len__(self) -> int:
        return len(self.cosines)

    @property
    def people(self) -> int:
        """How many people (or images) the bootstrap draws from."""
        return len(self.drawn)

    @classmethod
    def among(cls, vectors: F32, people: ArrayLike, *, most: int = MOST_FACES, seed: int = 0) -> Self:
        """All pairs of faces of different people.

        Args:
            vectors: float32 (n, d), unit length.
            people: (n,), whose each is: strings or numbers.
            most: faces; of more, people are taken at random until there are so many.
            seed: of that sample.
        """
        names, person = np.unique(np.asarray(people), return_inverse=True)
        taken = _sample(person, most, np.random.default_rng(seed))
        names, person = np.unique(person[taken], return_inverse=True)
        a, b = np.triu_indices(len(taken), 1)
        different = person[a] != person[b]
        a, b = a[different], b[different]
        cosines = _products(vectors[taken], vectors[taken])[a, b]
        left_out = _left_out(len(taken), len(vectors), seed)
        return cls._falling(cosines, person[a], person[b], np.zeros(len(names), np.int64), left_out, (taken[a], taken[b]))

    @classmethod
    def between(cls, ours: F32, theirs: F32, people: ArrayLike, *, most: int = MOST_FACES, seed: int = 0) -> Self:
        """Every one of `ours`, each a person of its own who is none of them, with every one of `theirs`.

        Args:
            ours: float32 (q, d), unit length: fakes.
            theirs: float32 (n, d).
            people: (n,), whose each of `theirs` is.
            most: `most`² / 2 pairs are compared at most; of more faces a random sample, people as a whole.
            seed: of that sample.
        """
        rng = np.random.default_rng(seed)
        few = np.sort(rng.permutation(len(ours))[: max(most // 2, most * most // 2 // max(1, len(theirs)))])
        _, person = np.unique(np.asarray(people), return_inverse=True)
        many = _sample(person, most * most // 2 // max(1, len(few)), rng)
        names, person = np.unique(person[many], return_inverse=True)
        a, b = (rows.ravel() for rows in np.indices((len(few), len(many))))
        drawn = np.repeat([0, 1], [len(few), len(names)])
        left_out = _left_out(len(few) + len(many), len(ours) + len(theirs), seed)
        return cls._falling(_products(ours[few], theirs[many]).ravel(), a, len(few) + person[b], drawn, left_out, (few[a], many[b]))

    @classmethod
    def within(cls, cosines: F64, images: ArrayLike) -> Self:
        """Pairs that are given: each of two faces of one image, whose number is `images` (m,). Images are drawn, not people."""
        names, image = np.unique(np.asarray(images), return_inverse=True)
        return cls._falling(np.asarray(cosines, np.float64), image, None, np.zeros(len(names), np.int64), None)

    @classmethod
    def _falling(
        cls, cosines: F64, first: I64, second: I64 | None, drawn: I64, left_out: str | None, rows: tuple[I64, I64] | None = None
    ) -> Self:
        order = np.argsort(-cosines, kind="stable")
        closest = None if rows is None else np.stack([some[order[:CLOSEST]] for some in rows], 1)
        return cls(cosines[order], first[order], None if second is None else second[order], drawn, left_out, closest)

    def weights(self, times: I64) -> F64:
        """float64 (m,): how often each pair is there when each of `drawn` was drawn `times`."""
        ones = times[self.first].astype(np.float64)
        return ones if self.second is None else ones * times[self.second]


def calibrate(pairs: Impostors, *, rounds: int = ROUNDS) -> dict[str, Any]:
    """The curve of some pairs.

    Args:
        pairs: impostor pairs.
        rounds: of the bootstrap.

    Returns:
        what `Curve.from_json` reads besides names: `people`, `pairs`, `tail` and `points` of (cosine, rate, low, high, pairs with it).

    Raises:
        MeasureError: for fewer than 2000 pairs, which leave no tail to fit, or a tail of equal cosines.
    """
    cosines = pairs.cosines
    if len(cosines) * TAIL_SHARE < _LEAST_EXCESSES:
        raise MeasureError(f"{len(cosines):,} pairs are too few to measure a rate; {_LEAST_EXCESSES / TAIL_SHARE:,.0f} are the least")
    counts = np.unique(np.maximum(np.round(_SHARES * len(cosines)).astype(int), LEAST_PAIRS))[::-1]
    at = np.unique(cosines[counts - 1])  # the count-th highest
    at = at[np.append(True, np.diff(np.searchsorted(-cosines, -at, side="right")) < 0)]
    last, tail_from = float(at[-1]), len(at)
    start_rate = float((cosines >= last).mean())
    scale = tail_scale(cosines, np.ones(len(cosines)))
    if scale <= 0:
        raise MeasureError("the most similar pairs have the same cosine, so there is no tail to fit; are some faces there several times?")
    at = np.concatenate([at, [last + scale * np.log(start_rate / rate) for rate in TAIL_RATES if rate < start_rate]])

    drawn, rng = np.empty((rounds, len(at))), np.random.default_rng(0)
    groups = [np.flatnonzero(pairs.drawn == group) for group in np.unique(pairs.drawn)]
    for i in range(rounds):
        chosen = np.concatenate([group[rng.integers(len(group), size=len(group))] for group in groups])
        drawn[i] = rates(cosines, pairs.weights(np.bincount(chosen, minlength=pairs.people)), at, tail_from)
    low, high = np.nanpercentile(drawn, [2.5, 97.5], axis=0)
    estimate = rates(cosines, np.ones(len(cosines)), at, tail_from)
    above = np.searchsorted(-cosines, -at, side="right")
    points: list[list[float]] = []
    for t, e, lo, hi, n in zip(at, estimate, low, high, above, strict=True):
        point = [round(float(t), 5), *(float(f"{max(r, 1e-12):.4g}") for r in (e, lo, hi)), int(n)]
        if not points or (point[0] > points[-1][0] and point[1] < points[-1][1]):  # not where rounding made two of them one
            points.append(point)
    return {
        "people": pairs.people,
        "pairs": len(cosines),
        "tail": {"method": TAIL_METHOD, "start": round(last, 5), "scale": round(scale, 6)},
        "points": points,
    }


def rates(cosines: F64, weights: F64, at: F64, tail_from: int) -> F64:
    """The false-match rate at each cosine of `at`: the weighted share of pairs, and from `tail_from` on the tail; NaN without weights."""
    total = weights.sum()
    if total == 0:
        return np.full(len(at), np.nan)
    share = np.append(0, np.cumsum(weights)) / total
    result = share[np.searchsorted(-cosines, -at, side="right")]
    scale = max(tail_scale(cosines, weights), 1e-9)
    result[tail_from:] = result[tail_from - 1] * np.exp(-(at[tail_from:] - at[tail_from - 1]) / scale)
    return np.asarray(result)


def tail_scale(cosines: F64, weights: F64) -> float:
    """The mean excess over the cosine that `TAIL_SHARE` of the pairs exceed, 0 if none does; `cosines` fall."""
    k = int(np.searchsorted(np.cumsum(weights), TAIL_SHARE * weights.sum()))
    total = weights[:k].sum()
    return float((cosines[:k] - cosines[k]) @ weights[:k] / total) if total else 0.0


def strict_threshold(recognizer: str, points: list[list[float]], rounded: Literal["up", "down"]) -> tuple[float, str]:
    """The same-person cosine of a recognizer, and where it is from: its vendor's, or else that of `STRICT_RATE`, to three digits."""
    if recognizer in VENDOR_THRESHOLDS:
        return VENDOR_THRESHOLDS[recognizer]
    cosine = float(np.interp(-np.log(STRICT_RATE), [-np.log(p[1]) for p in points], [p[0] for p in points]))
    value = float((np.ceil if rounded == "up" else np.floor)(cosine * 1000) / 1000)
    return value, f"the cosine of a false-match rate of {STRICT_RATE:g} here, rounded {rounded}"


def genuine(vectors: F32, people: ArrayLike, strict: float, *, most: int = MOST_FACES) -> dict[str, Any]:
    """Pairs of photos of the same person: how many a threshold recognizes. Of more than `most` faces, a random sample of people."""
    _, person = np.unique(np.asarray(people), return_inverse=True)
    taken = _sample(person, most, np.random.default_rng(0))
    a, b = np.triu_indices(len(taken), 1)
    same = person[taken][a] == person[taken][b]
    cosines = _products(vectors[taken], vectors[taken])[a[same], b[same]]
    if not len(cosines):
        return {"pairs": 0}
    quantiles = {f"{q:g}": round(float(np.quantile(cosines, q)), 4) for q in (0.01, 0.05, 0.25, 0.5)}
    return {"pairs": len(cosines), "rate_at_strict_threshold": round(float((cosines >= strict).mean()), 4), "quantiles": quantiles}


def _sample(person: NDArray[Any], most: int, rng: np.random.Generator) -> I64:
    """The rows of people taken at random until there are `most` faces at most; ascending. One person at least."""
    if len(person) <= most:
        return np.arange(len(person))
    faces = np.bincount(person)
    order = rng.permutation(len(faces))
    chosen = order[: max(1, int(np.searchsorted(np.cumsum(faces[order]), most, side="right")))]
    return np.flatnonzero(np.isin(person, chosen))


def _left_out(taken: int, there: int, seed: int) -> str | None:
    return None if taken == there else f"a random sample of {taken:,} of {there:,} faces (seed {seed})"


def _products(ours: F32, theirs: F32) -> F64:
    return np.asarray(ours.astype(np.float64) @ theirs.astype(np.float64).T)
