"""95 % intervals by a bootstrap over people: faces of one person depend on each other, so people are drawn and not faces.

Percentiles of the figure over `rounds` draws. Where all of a share's faces say the same but for a handful of people, the draws say the
same too, and tell nothing; there Wilson's interval over people is taken if it is the wider one ("Probable inference, the law of succession,
and statistical inference", JASA 1927).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Rows = NDArray[np.bool_]

FEW = 5
"""People with other faces than the rest, below which a bootstrap of a share tells too little."""
LEAST_FACES = 8
"""Of a group, below which there are no figures of it."""
_Z = 1.959964  # of a 95 % interval
_DRAWN_NUMBERS = 1 << 26  # most draws × people that are held


class Bootstrap:
    """Draws of the people that n faces are of.

    Args:
        person: int64 (n,): who each is; −1: unknown, and each of these is taken for a person of their own.
        rounds: draws.
        seed: of the draws.
    """

    def __init__(self, person: ArrayLike, rounds: int = 1000, seed: int = 0) -> None:
        person = np.asarray(person, np.int64).copy()
        unknown = np.flatnonzero(person < 0)
        person[unknown] = person.max(initial=0) + 1 + np.arange(len(unknown))
        self.person: I64 = np.unique(person, return_inverse=True)[1].astype(np.int64)
        self.people = int(self.person.max(initial=-1)) + 1
        self.rounds = max(20, min(rounds, _DRAWN_NUMBERS // max(1, self.people)))
        self._seed = seed

    @cached_property
    def times(self) -> NDArray[np.float32]:
        """float32 (rounds, people): how often each is drawn."""
        rng, p = np.random.default_rng(self._seed), self.people
        drawn = rng.integers(p, size=(self.rounds, p)) if p else np.zeros((self.rounds, 0), np.int64)
        flat = (drawn + p * np.arange(self.rounds)[:, None]).ravel()
        return np.bincount(flat, minlength=self.rounds * p).reshape(self.rounds, p).astype(np.float32)

    def mean(self, values: ArrayLike, rows: Rows | None = None, *, share: bool | None = None) -> dict[str, Any]:
        """The mean of numbers of faces, all faces weighing the same; `n` is how many.

        Args:
            values: (n,), NaN where there is none; of a share 0 and 1 (or bool).
            rows: bool (n,): of these only.
            share: whether the numbers are those of a share; None: if all are 0 or 1, as those of a measure may happen to be.
        """
        numbers = np.asarray(values, np.float64)
        some = np.isfinite(numbers) if rows is None else np.isfinite(numbers) & rows
        if not some.any():
            return nothing("no such faces")
        person, numbers = self.person[some], numbers[some]
        sums = np.bincount(person, numbers, self.people).astype(np.float64)
        counts = np.bincount(person, minlength=self.people).astype(np.float64)
        drawn = self._over(sums, counts)
        is_share = bool(np.isin(numbers, (0, 1)).all()) if share is None else share
        return self._figure(float(numbers.mean()), drawn, len(numbers), (sums, counts) if is_share else None)

    def quantile(self, values: ArrayLike, q: float, rows: Rows | None = None) -> dict[str, Any]:
        """The same of a quantile: the draws reckon with each face as often as its person is drawn."""
        numbers = np.asarray(values, np.float64)
        some = np.flatnonzero(np.isfinite(numbers) if rows is None else np.isfinite(numbers) & rows)
        if not len(some):
            return nothing("no such faces")
        order = some[np.argsort(numbers[some], kind="stable")]
        drawn = np.full(self.rounds, np.nan)
        for i in range(self.rounds):  # one at a time: faces × rounds may not fit
            weights = np.cumsum(self.times[i, self.person[order]])
            if weights[-1]:
                drawn[i] = numbers[order[min(int(np.searchsorted(weights, q * weights[-1])), len(order) - 1)]]
        return self._figure(float(np.quantile(numbers[some], q)), drawn, len(some))

    def figure(self, value: float, drawn: F64, n: int) -> dict[str, Any]:
        """A figure whose draws were reckoned elsewhere, from `times`."""
        return self._figure(value, drawn, n)

    def share(self, value: float, drawn: F64, person: I64, hits: Rows) -> dict[str, Any]:
        """The same of a share: of m numbers whose people are `person` (m,), those that are `hits`."""
        sums = np.bincount(person, hits.astype(np.float64), self.people).astype(np.float64)
        return self._figure(value, drawn, len(hits), (sums, np.bincount(person, minlength=self.people).astype(np.float64)))

    def _over(self, sums: F64, counts: F64) -> F64:
        totals = self.times @ counts.astype(np.float32)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.times @ sums.astype(np.float32) / totals, np.float64)

    def _figure(self, value: float, drawn: F64, n: int, share: tuple[F64, F64] | None = None) -> dict[str, Any]:
        good = drawn[np.isfinite(drawn)]
        low, high = (float(q) for q in np.percentile(good, [2.5, 97.5])) if len(good) else (value, value)
        if share is not None:
            hits, counts = share
            if min(int((hits > 0).sum()), int((hits < counts).sum())) < FEW:
                widest = wilson(value, int((counts > 0).sum()))
                low, high = min(low, widest[0]), max(high, widest[1])
        return {"value": short(value), "low": short(min(low, value)), "high": short(max(high, value)), "n": n}


def nothing(why: str) -> dict[str, Any]:
    """A figure that could not be measured."""
    return {"value": None, "low": None, "high": None, "n": 0, "why": why}


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of n."""
    n = max(n, 1)
    spread = _Z / (1 + _Z * _Z / n) * math.sqrt(share * (1 - share) / n + _Z * _Z / (4 * n * n))
    middle = (share + _Z * _Z / (2 * n)) / (1 + _Z * _Z / n)
    return max(0.0, middle - spread), min(1.0, middle + spread)


def short(value: float) -> float:
    """Four digits: more are noise."""
    return float(f"{float(value):.4g}")


def by_group(
    groups: Mapping[str, Sequence[str]], measure: Callable[[Rows], dict[str, Any]], rows: Rows | None = None, least: int = LEAST_FACES
) -> dict[str, dict[str, Any]]:
    """ "sex" → "man" → what `measure` says of these faces; groups of fewer than `least` faces are left out.

    Args:
        groups: of `About.groups`.
        measure: bool (n,) → figures.
        rows: bool (n,): of these only.
        least: faces.
    """
    found: dict[str, dict[str, Any]] = {}
    for kind, labels in groups.items():
        each = np.array(labels, np.str_)
        for label in sorted(set(each.tolist()) - {""}):
            mine = np.asarray(each == label) if rows is None else np.asarray((each == label) & rows)
            if int(mine.sum()) >= least:
                found.setdefault(kind, {})[label] = measure(mine)
    return found
