"""Is it the same person? Cosines of pairs of faces, and what a threshold makes of them.

The threshold of a recognizer at a false-accept rate (FAR) is measured on pairs of originals of different people of this collection, not
taken from a paper; a pair is accepted if its cosine is above it. TAR: accepted pairs of one person. Pairs of one image are left out: what
they share may be the photo. Intervals draw people, and measure the threshold anew in each draw.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfmc_ray.evaluate.bootstrap import Bootstrap, nothing, short
from mfmc_ray.faces.faces import F32

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
Rows = NDArray[np.bool_]

RATES = {"1e-2": 1e-2, "1e-3": 1e-3}
"""False-accept rates: as they are called, and what they are."""
LEAST_PAIRS = 10
"""Accepted pairs of strangers that a threshold needs: at 1e-3 ten thousand pairs."""
MOST_FACES = 2000
"""Faces whose pairs are compared; of more, people are taken at random, each as a whole."""
_MOST_PAIRS = 1_000_000  # of strangers, for the areas under curves
_CURVE_ROUNDS, _BINS = 200, 4096
_FARS = [round(m * 10.0**e, 6) for e in (-4, -3, -2, -1) for m in (1, 2, 5)]  # of a drawn curve


@dataclass(frozen=True)
class Pairs:
    """m pairs of faces.

    Attributes:
        cosines: float64 (m,).
        first, second: int64 (m,): the two people, as `Bootstrap` numbers them.
        same: bool (m,): whether they are one.
    """

    cosines: F64
    first: I64
    second: I64
    same: Rows

    def __len__(self) -> int:
        return len(self.cosines)

    def weights(self, times: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 (m,): how often each pair is there when people were drawn `times`: a pair of one person as often as that person."""
        return np.where(self.same, times[self.first], times[self.first] * times[self.second])


def pairs(ours: F32, our_rows: I64, theirs: F32, their_rows: I64, person: I64, image: I64, drawn: I64) -> Pairs:
    """Each of ours with each of theirs, but for those of one image.

    Args:
        ours, theirs: float32 (n, d), unit length, of all faces; the same array: each pair once.
        our_rows, their_rows: int64, rising: which of them.
        person: int64 (n,), ≥ 0.
        image: int64 (n,).
        drawn: int64 (n,): `Bootstrap.person`.
    """
    cosines = ours[our_rows].astype(np.float64) @ theirs[their_rows].astype(np.float64).T
    wanted = image[our_rows, None] != image[their_rows][None]
    if ours is theirs:
        wanted &= our_rows[:, None] < their_rows[None]
    a, b = np.nonzero(wanted)
    i, j = our_rows[a], their_rows[b]
    return Pairs(cosines[a, b], drawn[i], drawn[j], np.asarray(person[i] == person[j]))


def sample(rows: I64, person: I64, most: int, seed: int) -> I64:
    """Rows of people taken at random until there are `most` faces; rising."""
    if len(rows) <= most:
        return rows
    people, index = np.unique(person[rows], return_inverse=True)
    counts, order = np.bincount(index), np.random.default_rng(seed).permutation(len(people))
    taken = order[: max(2, int(np.searchsorted(np.cumsum(counts[order]), most, side="right")))]
    return rows[np.isin(index, taken)]


def thresholds(originals: Pairs) -> dict[str, float | None]:
    """FAR's name → the cosine above which that share of strangers' pairs are; None where there are too few of them."""
    impostors = originals.cosines[~originals.same]
    return {name: float(np.quantile(impostors, 1 - rate)) if len(impostors) * rate >= LEAST_PAIRS else None for name, rate in RATES.items()}


def drawn_thresholds(originals: Pairs, boot: Bootstrap) -> dict[str, F64]:
    """FAR's name → float64 (rounds,): the threshold of each draw of people."""
    impostors = np.flatnonzero(~originals.same)
    falling = impostors[np.argsort(-originals.cosines[impostors], kind="stable")]
    counts = np.bincount(np.concatenate([originals.first[falling], originals.second[falling]]), minlength=boot.people)
    top = falling[: max(1, int(len(falling) * 4 * max(RATES.values())))]  # no draw reaches further, but by a miracle
    cosines = originals.cosines[top]
    found = {name: np.full(boot.rounds, np.nan) for name in RATES}
    mean_pairs = len(falling) / max(1.0, float(counts.sum()) ** 2)
    for i, times in enumerate(boot.times):
        above = np.cumsum(times[originals.first[top]] * times[originals.second[top]])
        total = mean_pairs * float(times @ counts) ** 2  # all pairs of the draw, but for those of one person with themselves
        for name, rate in RATES.items():
            at = int(np.searchsorted(above, rate * total))
            if len(cosines) and above[-1]:
                found[name][i] = cosines[min(at, len(cosines) - 1)]
    return found


def accepted(some: Pairs, threshold: float | None, drawn: F64, boot: Bootstrap) -> dict[str, Any]:
    """The share of pairs of one person above the threshold (TAR), with its interval."""
    genuine = np.flatnonzero(some.same)
    if threshold is None or not len(genuine):
        return nothing("too few pairs of strangers" if threshold is None else "no two photos of one person")
    order = genuine[np.argsort(some.cosines[genuine], kind="stable")]
    cosines, who = some.cosines[order], some.first[order]
    shares = np.full(boot.rounds, np.nan)
    for i, times in enumerate(boot.times):
        below = np.cumsum(times[who])
        if below[-1]:
            at = int(np.searchsorted(cosines, drawn[i], side="right"))
            shares[i] = 1 - (below[at - 1] / below[-1] if at else 0.0)
    return boot.share(float((cosines > threshold).mean()), shares, who, cosines > threshold)


def curve(some: Pairs, boot: Bootstrap, seed: int) -> dict[str, Any]:
    """`auc`, the chance that a pair of one person has a higher cosine than a pair of strangers, `eer`, the equal error rate, and `roc`.

    An anonymized face that tells nothing has 0.5 in both.
    """
    genuine, impostors = np.flatnonzero(some.same), np.flatnonzero(~some.same)
    if len(genuine) < LEAST_PAIRS or len(impostors) < LEAST_PAIRS:
        return {"auc": nothing("too few pairs"), "eer": nothing("too few pairs")}
    auc, eer = _exact(np.sort(some.cosines[genuine]), np.sort(some.cosines[impostors]))
    if len(impostors) > _MOST_PAIRS:
        impostors = np.sort(np.random.default_rng(seed).choice(impostors, _MOST_PAIRS, replace=False))
    low, high = float(some.cosines.min()), float(some.cosines.max())
    bins = np.minimum(((some.cosines - low) / max(high - low, 1e-9) * _BINS).astype(np.int64), _BINS - 1)
    drawn = np.full((2, min(_CURVE_ROUNDS, boot.rounds)), np.nan)
    for i in range(drawn.shape[1]):
        times = boot.times[i]
        same = np.bincount(bins[genuine], times[some.first[genuine]], _BINS)
        others = np.bincount(bins[impostors], times[some.first[impostors]] * times[some.second[impostors]], _BINS)
        if same.sum() and others.sum():
            drawn[:, i] = _binned(same / same.sum(), others / others.sum())
    n = len(genuine)
    return {"auc": boot.figure(auc, drawn[0], n), "eer": boot.figure(eer, drawn[1], n), "roc": roc(some)}


def roc(some: Pairs) -> dict[str, list[float]]:
    """For a drawing: `far`, shares of strangers' pairs, of which each has some pairs, and `tar` at the thresholds that these pairs give."""
    genuine, impostors = some.cosines[some.same], some.cosines[~some.same]
    far = np.array([*(rate for rate in _FARS if rate * len(impostors) >= 1), 1.0])
    limits = np.quantile(impostors, 1 - far)
    limits[-1] = -np.inf
    return {"far": far.tolist(), "tar": [short(float((genuine > limit).mean())) for limit in limits]}


def _exact(genuine: F64, impostors: F64) -> tuple[float, float]:
    below = np.searchsorted(impostors, genuine, side="left") + np.searchsorted(impostors, genuine, side="right")
    auc = float(below.mean()) / 2 / len(impostors)
    at = np.concatenate([genuine, impostors])
    missed = np.searchsorted(genuine, at, side="right") / len(genuine)
    false = 1 - np.searchsorted(impostors, at, side="right") / len(impostors)
    best = int(np.argmin(np.abs(missed - false)))
    return auc, float(missed[best] + false[best]) / 2


def _binned(same: F64, others: F64) -> tuple[float, float]:
    auc = float(same @ (np.cumsum(others) - others / 2))
    missed, false = np.cumsum(same), np.maximum(0.0, 1 - np.cumsum(others))  # sums may end a rounding above 1
    best = int(np.argmin(np.abs(missed - false)))
    return auc, float(missed[best] + false[best]) / 2
