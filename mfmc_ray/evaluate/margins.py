"""How unlike: the dissimilarity margin, in cosines, between a face and the threshold at which it would be taken for somebody.

margin = threshold at FAR 1e-3 − cosine. Above 0 two faces are told apart, below 0 they are taken for one person.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfmc_ray.evaluate.bootstrap import Bootstrap, nothing
from mfmc_ray.faces.faces import F32

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
Rows = NDArray[np.bool_]

_CHUNK = 1 << 24  # cosines held at a time
_BIN = 0.05  # cosines, of a histogram


def highest(ours: F32, rows: I64, theirs: F32, others: I64, apart: tuple[I64, ...]) -> F64:
    """float64 (n,): of each of `rows` the highest cosine to any of `others`; NaN elsewhere, and where there is none.

    Args:
        ours, theirs: float32 (n, d), unit length; NaN where there is none.
        rows, others: int64: which of them.
        apart: int64 (n,) each: two faces are compared only if each of these says something else of them (−1 is like nothing).
    """
    found = np.full(len(ours), np.nan)
    others = others[np.isfinite(theirs[others]).all(1)]
    rows = rows[np.isfinite(ours[rows]).all(1)]
    step = max(1, _CHUNK // max(1, len(others)))
    for start in range(0, len(rows) if len(others) else 0, step):
        some = rows[start : start + step]
        cosines = (ours[some] @ theirs[others].T).astype(np.float64)
        for labels in apart:
            cosines[(labels[some, None] == labels[others][None]) & (labels[some, None] >= 0)] = -np.inf
        best = cosines.max(1)
        found[some] = np.where(np.isfinite(best), best, np.nan)
    return found


def margins(
    originals: F32, outputs: F32, shown: I64, person: I64, image: I64, worn: I64, threshold: float | None
) -> tuple[dict[str, F64], dict[str, F64]]:
    """Margins of each face, float64 (n,), NaN where there is none: of outputs, and of the originals for comparison.

    Args:
        originals, outputs: float32 (n, d), unit length; NaN where there is none.
        shown: int64: the replaced faces.
        person: int64 (n,); −1: unknown.
        image: int64 (n,).
        worn: int64 (n,): the fake identity; −1: none is stated.
        threshold: cosine.

    Returns:
        `to_original`; `to_known`: to the nearest other original of the collection, whoever it is; `among_fakes`: to the nearest other fake
        that is to be another identity; `to_any_fake`: to the nearest other fake. And of originals `to_others`: to the nearest face of
        somebody else; `among_photos`: to the nearest other face of anybody.
    """
    if threshold is None:
        return {}, {}
    every, itself = np.arange(len(person)), np.arange(len(person))
    own = np.full(len(person), np.nan)
    own[shown] = (outputs[shown].astype(np.float64) * originals[shown]).sum(1)
    of_outputs = {
        "to_original": own,
        "to_known": highest(outputs, shown, originals, every, (itself,)),
        "among_fakes": highest(outputs, shown, outputs, shown, (itself, worn)),
        "to_any_fake": highest(outputs, shown, outputs, shown, (itself,)),
    }
    of_originals = {
        "to_others": highest(originals, every[person >= 0], originals, every[person >= 0], (image, person)),
        "among_photos": highest(originals, shown, originals, shown, (itself,)),
    }
    return {k: threshold - v for k, v in of_outputs.items()}, {k: threshold - v for k, v in of_originals.items()}


def summary(values: F64, boot: Bootstrap, rows: Rows | None = None) -> dict[str, Any]:
    """Mean, median and 5th percentile of margins, the share below 0, which are matches, and a histogram."""
    if not np.isfinite(values if rows is None else values[rows]).any():
        return {"mean": nothing("no such faces"), "matches": nothing("no such faces")}
    below = np.where(np.isfinite(values), values < 0, np.nan).astype(np.float64)
    return {
        "mean": boot.mean(values, rows),
        "median": boot.quantile(values, 0.5, rows),
        "p05": boot.quantile(values, 0.05, rows),
        "matches": boot.mean(below, rows),
        "histogram": histogram(values if rows is None else values[rows]),
    }


def histogram(values: F64) -> dict[str, Any]:
    """How many values there are from `start` in steps of `width`; NaN is left out."""
    bins = np.floor(values[np.isfinite(values)] / _BIN).astype(np.int64)
    first = int(bins.min())
    return {"start": round(first * _BIN, 2), "width": _BIN, "counts": np.bincount(bins - first).tolist()}
