"""Exact cosine search: the nearest known face of each query, and every known face that a query resembles.

FAISS multiplies in float32; a float32 scalar product is wrong by at most `rounding_bound`. Every known face that could be the nearest
within that bound is compared again in float64, so the result is the same whatever the batch, the threads, the BLAS or the shards:
the highest cosine, and among equal ones the lowest row.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

# FAISS leaves BLAS for batches of under 128,000 / d queries unless told otherwise, and is then 2–8 times slower.
faiss.cvar.distance_compute_blas_threshold = 1

MAX_DEVIATION = 1e-3
"""A vector whose length differs from 1 by more than this is no embedding."""
UNIT_ROUNDOFF = 2.0**-24  # float32, to nearest
_CHUNK = 1 << 22  # numbers held in float64 at a time


def rounding_bound(dim: int, deviation: float = 4 * UNIT_ROUNDOFF) -> float:
    """The most by which a float32 scalar product of two embeddings can differ from their cosine.

    Proof. Let x, y be the float32 vectors, p = x·y exactly, s what was computed, c = p / (|x||y|), and u = 2⁻²⁴.
    However the d products are summed (any order, blocks, fused or not), |s − p| ≤ γ_d Σ|x_i y_i| with γ_d = d u / (1 − d u)
    (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., §3.1), and Σ|x_i y_i| ≤ |x||y| (Cauchy–Schwarz) ≤ (1 + δ)² when
    both lengths are within δ of 1. Underflow, even flushed to zero, adds at most 2⁻¹²⁶ per operation. Also
    |p − c| = |c| ||x||y| − 1| ≤ (1 + δ)² − 1. The sum of the three is the bound.

    Args:
        dim: d, the dimension; 1 ≤ d < 2²⁴.
        deviation: δ. The default holds for vectors that were divided by their length in float32 or better.

    Returns:
        the bound, > 0; 8.1e-06 for d = 128 and 3.1e-05 for d = 512.

    Raises:
        ValueError: for a dimension out of range.
    """
    if not 1 <= dim < 1 << 24:
        raise ValueError(f"the dimension must be from 1 to 2**24 - 1, not {dim}")
    gamma = dim * UNIT_ROUNDOFF / (1 - dim * UNIT_ROUNDOFF)
    square = (1 + deviation) ** 2
    return gamma * square + (square - 1) + 2 * dim * 2.0**-126


def shown_below(similarity: F32 | F64, threshold: float, dim: int) -> NDArray[np.bool_]:
    """Whether each cosine is shown to be below the threshold: cosine + rounding bound < threshold. NaN never is.

    The margin is not needed for our own cosines, which are exact; with it, whoever repeats the search in plain float32 agrees.
    """
    return np.asarray(np.asarray(similarity, np.float64) + rounding_bound(dim) < threshold)


def usable(vectors: F32) -> NDArray[np.bool_]:
    """Which rows (n, d) are embeddings: finite and within `MAX_DEVIATION` of unit length."""
    return np.asarray(np.abs(_lengths(vectors) - 1) <= MAX_DEVIATION)  # False for NaN and inf


def cosines(a: F32, b: F32) -> F64:
    """float64 (n,): the cosine of each row of a (n, d) to the same row of b (n, d); NaN where one is zero or not finite.

    The products of float32 numbers are exact in float64 and are added one after the other, so the same two vectors give the same bits
    in any batch; the error is below 2e-13 for d ≤ 1024.
    """
    x, y = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        dot, xx, yy = (np.add.accumulate(p, axis=1)[:, -1] for p in (x * y, x * x, y * y))
        return np.asarray(np.clip(dot / np.sqrt(xx * yy), -1, 1))


class ExactSearch:
    """Exhaustive search among the same known faces, which are checked once and not copied.

    Args:
        known: float32 (n, d), C-contiguous, finite, each within `MAX_DEVIATION` of unit length. Not to be changed afterwards.

    Raises:
        ValueError: when `known` is not that; NaN in it would otherwise hide a person.
    """

    def __init__(self, known: F32) -> None:
        self.known = known
        self._deviation = _checked(known, "known faces")

    def top1(self, queries: F32) -> tuple[F32, I64]:
        """The most similar known face of each query.

        Args:
            queries: float32 (q, d), C-contiguous, finite, each within `MAX_DEVIATION` of unit length.

        Returns:
            similarity: float32 (q,), the cosine, −1…1. Without known faces −1, the lowest there is.
            row: int64 (q,), the row in `known`; of equally similar ones the lowest. Without known faces −1.

        Raises:
            ValueError: when the queries are not that.
            RuntimeError: if FAISS gives no neighbour; nothing is then known about the queries.
        """
        bound = self._bound(queries)
        q, n = len(queries), len(self.known)
        if q == 0 or n == 0:
            return np.full(q, -1, np.float32), np.full(q, -1, np.int64)
        scores, rows = faiss.knn(queries, self.known, min(2, n), faiss.METRIC_INNER_PRODUCT)
        if not (np.isfinite(scores).all() and (rows >= 0).all() and (rows < n).all()):
            raise RuntimeError("the search gave no nearest known face for some query; nothing may be approved on its account")
        row = np.array(rows[:, 0], np.int64)
        similarity = cosines(queries, self.known[row])
        if n > 1:
            # any row within two bounds of the best can be the nearest
            for i in np.flatnonzero(scores[:, 1] >= scores[:, 0].astype(np.float64) - 2 * bound):
                candidates = self._range(queries[i : i + 1], float(scores[i, 0]) - 2 * bound)[0]
                exact = self._cosines_to(queries[i], candidates)
                best = int(exact.argmax())  # the first of equals, and candidates ascend
                row[i], similarity[i] = candidates[best], exact[best]
        return similarity.astype(np.float32), row

    def above(self, queries: F32, threshold: float) -> list[I64]:
        """Every known face that a query is not shown to be dissimilar from.

        Args:
            queries: as for `top1`.
            threshold: a cosine.

        Returns:
            for each query the ascending rows, int64, whose cosine fails `shown_below(cosine, threshold, d)`. It is empty exactly when
            the query's `top1` similarity passes.

        Raises:
            ValueError: when the queries or the threshold cannot be used.
        """
        bound = self._bound(queries)
        if not np.isfinite(threshold):
            raise ValueError(f"the threshold must be a finite cosine, not {threshold}")
        if len(queries) == 0 or len(self.known) == 0:
            return [np.zeros(0, np.int64) for _ in queries]
        dim = self.known.shape[1]
        found = []
        for query, candidates in zip(queries, self._range(queries, threshold - rounding_bound(dim) - bound), strict=True):
            exact = self._cosines_to(query, candidates).astype(np.float32)
            found.append(candidates[~shown_below(exact, threshold, dim)])
        return found

    def _bound(self, queries: F32) -> float:
        """Checks the queries; the rounding bound for their and the known faces' lengths."""
        deviation = max(self._deviation, _checked(queries, "queries"))
        if queries.shape[1] != self.known.shape[1]:
            raise ValueError(f"queries have dimension {queries.shape[1]}, the known faces {self.known.shape[1]}")
        return rounding_bound(queries.shape[1], deviation)

    def _range(self, queries: F32, least: float) -> list[I64]:
        """For each query the ascending rows whose float32 scalar product is at least `least`."""
        radius = np.nextafter(np.float32(least), np.float32(-np.inf))  # FAISS wants more than the radius
        radius = np.nextafter(radius, np.float32(-np.inf))  # and `least` may have been rounded up
        result = faiss.RangeSearchResult(len(queries))
        q, x = faiss.swig_ptr(queries), faiss.swig_ptr(self.known)
        faiss.range_search_inner_product(q, x, self.known.shape[1], len(queries), len(self.known), float(radius), result)
        limits = faiss.rev_swig_ptr(result.lims, len(queries) + 1).astype(np.int64)
        labels = faiss.rev_swig_ptr(result.labels, int(limits[-1])).copy() if limits[-1] else np.zeros(0, np.int64)
        return [np.sort(labels[a:b]) for a, b in pairwise(limits)]

    def _cosines_to(self, query: F32, rows: I64) -> F64:
        step = max(1, _CHUNK // self.known.shape[1])
        parts = [cosines(query[None], self.known[rows[i : i + step]]) for i in range(0, len(rows), step)]
        return np.concatenate([np.zeros(0), *parts])


def top1(queries: F32, known: F32) -> tuple[F32, I64]:
    """`ExactSearch(known).top1(queries)`: checks `known` each time; keep an `ExactSearch` to search it often."""
    return ExactSearch(known).top1(queries)


def above(queries: F32, known: F32, threshold: float) -> list[I64]:
    """`ExactSearch(known).above(queries, threshold)`: checks `known` each time; keep an `ExactSearch` to search it often."""
    return ExactSearch(known).above(queries, threshold)


def _lengths(vectors: F32) -> F64:
    """float64 (n,): the Euclidean length of each row; NaN or inf if a component is."""
    step = max(1, _CHUNK // max(1, vectors.shape[1]))
    with np.errstate(over="ignore", invalid="ignore"):
        parts = [np.sqrt(np.square(vectors[i : i + step].astype(np.float64)).sum(axis=1)) for i in range(0, len(vectors), step)]
    return np.concatenate([np.zeros(0), *parts])


def _checked(vectors: Any, name: str) -> float:
    """The largest difference of a length from 1.

    Raises:
        ValueError: if these are not embeddings that FAISS can read in place.
    """
    if not isinstance(vectors, np.ndarray) or vectors.dtype != np.float32 or vectors.ndim != 2 or vectors.shape[1] == 0:
        got = f"{vectors.dtype} {vectors.shape}" if isinstance(vectors, np.ndarray) else type(vectors).__name__
        raise ValueError(f"the {name} must be a float32 array (n, d), not {got}")
    if not vectors.flags.c_contiguous:
        raise ValueError(f"the {name} must be C-contiguous; use numpy.ascontiguousarray")
    deviations = np.abs(_lengths(vectors) - 1)
    bad = np.flatnonzero(~(deviations <= MAX_DEVIATION))
    if len(bad):
        raise ValueError(f"row {bad[0]} of the {name} is not a finite vector of unit length ({len(bad)} such rows); normalise embeddings")
    return float(deviations.max(initial=0.0))
