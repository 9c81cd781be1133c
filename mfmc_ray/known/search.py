"""Exact cosine search: the nearest known face of each query, and every known face that a query resembles.

BLAS (or FAISS on a GPU) multiplies in float32; a float32 scalar product is wrong by at most `rounding_bound`. Every known face that could
be the nearest within that bound is compared again in float64, so the result is the same whatever the batch, the threads, the BLAS, the
device or the shards: the highest cosine, and among equal ones the lowest row.

Batches of 256 queries and more run at 0.9 and more of what plain float32 products reach, which are bound by the arithmetic units; a
smaller batch waits for memory, as its plain products do (`benchmarks/known_search.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mfmc_ray.known import gpu, products
from mfmc_ray.known.products import F32 as F32
from mfmc_ray.known.products import F64 as F64
from mfmc_ray.known.products import I64 as I64

MAX_DEVIATION = 1e-3
"""A vector whose length differs from 1 by more than this is no embedding."""
UNIT_ROUNDOFF = 2.0**-24  # float32, to nearest
EXACT_ERROR = 1e-12
"""The most by which `cosines` can be wrong, with room to spare."""
_CHUNK = 1 << 16  # numbers held in float64 at a time: what stays in a core's cache


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


class Search(Protocol):
    """Known faces of one recognizer, searched exhaustively: in this process, from compressed copies, or in shards. All answer alike."""

    @property
    def dim(self) -> int:
        """The dimension of the vectors."""
        ...

    def __len__(self) -> int:
        """The number of known faces."""
        ...

    def top1(self, queries: F32) -> tuple[F32, I64]:
        """See `ExactSearch.top1`."""
        ...

    def above(self, queries: F32, threshold: float) -> list[I64]:
        """See `ExactSearch.above`."""
        ...


class ExactSearch:
    """Exhaustive search among the same known faces, which are checked once and not copied.

    Args:
        known: float32 (n, d), C-contiguous, finite, each within `MAX_DEVIATION` of unit length; a `numpy.memmap` and a read-only array of
            Ray's object store will do, and are read where they are. Not to be changed afterwards.

    Raises:
        ValueError: when `known` is not that; NaN in it would otherwise hide a person.
    """

    def __init__(self, known: F32) -> None:
        self._deviation = checked(known, "known faces")
        self.known = known

    @property
    def dim(self) -> int:
        """The dimension of the vectors."""
        return int(self.known.shape[1])

    def __len__(self) -> int:
        return len(self.known)

    def top1(self, queries: F32) -> tuple[F32, I64]:
        """The most similar known face of each query.

        Args:
            queries: float32 (q, d), C-contiguous, finite, each within `MAX_DEVIATION` of unit length.

        Returns:
            similarity: float32 (q,), the cosine, −1…1. Without known faces −1, the lowest there is.
            row: int64 (q,), the row in `known`; of equally similar ones the lowest. Without known faces −1.

        Raises:
            ValueError: when the queries are not that.
            RuntimeError: the search failed; nothing is then known about the queries.
        """
        similarity, row = self.nearest(queries)
        return similarity.astype(np.float32), row

    def nearest(self, queries: F32) -> tuple[F64, I64]:
        """`top1` with the cosines in float64, as they are compared (with those of other shards, too)."""
        bound = self._bound(queries)
        if len(queries) == 0 or len(self) == 0:
            return np.full(len(queries), -1.0), np.full(len(queries), -1, np.int64)
        if not gpu.available():
            return found(*products.nearest(queries, len(self), self._blocks(bound), self._exact(queries)))
        scores, rows = gpu.neighbours(queries, self.known, min(2, len(self)))
        row = rows[:, 0].astype(np.int64)
        similarity = self._exact(queries)(np.arange(len(queries)), row)
        gpu.check(scores[:, 0], similarity, bound)
        rivals = np.flatnonzero(scores[:, -1] >= scores[:, 0].astype(np.float64) - 2 * bound) if len(self) > 1 else np.zeros(0, np.int64)
        if len(rivals):  # any row within two bounds of the best can be the nearest
            some = queries[rivals]
            similarity[rivals], row[rivals] = found(
                *products.nearest(some, len(self), self._blocks(bound), self._exact(some), floor=similarity[rivals])
            )
        return similarity, row

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
            RuntimeError: the search failed; nothing is then known about the queries.
        """
        bound = self._bound(queries)
        least = least_cosine(threshold, self.dim)
        if len(queries) == 0 or len(self) == 0:
            return [np.zeros(0, np.int64) for _ in queries]
        if not gpu.available():
            return similar(queries, self.known, products.within(queries, len(self), self._blocks(bound), least), threshold)
        return similar(queries, self.known, self._within_on_gpu(queries, bound, least), threshold)

    def _within_on_gpu(self, queries: F32, bound: float, least: float) -> Iterable[tuple[I64, I64]]:
        """As `products.within`: ever more neighbours, until the last is too far away to matter."""
        who, k = np.arange(len(queries)), 32
        while len(who) and k < gpu.MAX_NEIGHBOURS:
            k = min(2 * k, gpu.MAX_NEIGHBOURS, len(self))
            scores, rows = gpu.neighbours(np.ascontiguousarray(queries[who]), self.known, k)
            gpu.check(scores[:, 0], self._exact(queries)(who, rows[:, 0]), bound)
            near = scores >= least - bound
            done = ~near[:, -1] | (k == len(self))
            i, j = np.nonzero(near & done[:, None])
            yield who[i], rows[i, j].astype(np.int64)
            who = who[~done]
        if len(who):
            for i, row in products.within(np.ascontiguousarray(queries[who]), len(self), self._blocks(bound), least):
                yield who[i], row

    def _bound(self, queries: F32) -> float:
        """Checks the queries; the most by which a product differs from the cosine that is computed exactly."""
        return rounding_bound(self.dim, max(self._deviation, checked(queries, "queries", self.dim))) + EXACT_ERROR

    def _blocks(self, bound: float) -> Iterable[products.Block]:
        return products.in_place(self.known, bound)

    def _exact(self, queries: F32) -> products.Exact:
        return exact_among(queries, self.known)


def exact_among(queries: F32, known: F32) -> products.Exact:
    """The exact cosines of pairs of these, of which no more is held in float64 at a time than fits into the cache."""
    step = max(1, _CHUNK // known.shape[1])

    def exact(who: I64, rows: I64) -> F64:
        parts = [cosines(queries[who[i : i + step]], known[rows[i : i + step]]) for i in range(0, len(rows), step)]
        return np.concatenate([np.zeros(0), *parts])

    return exact


def found(similarity: F64, row: I64) -> tuple[F64, I64]:
    """The same, if there is a nearest row for each query.

    Raises:
        RuntimeError: there is none, which cannot be.
    """
    if (row < 0).any():
        raise RuntimeError("the search gave no nearest known face for some query; nothing may be approved on its account")
    return similarity, row


def least_cosine(threshold: float, dim: int) -> float:
    """A cosine below every one that is not shown to be below the threshold, whether or not it was rounded to float32.

    Raises:
        ValueError: for a threshold that is not finite.
    """
    if not np.isfinite(threshold):
        raise ValueError(f"the threshold must be a finite cosine, not {threshold}")
    return threshold - rounding_bound(dim) - 2 * UNIT_ROUNDOFF


def similar(queries: F32, known: F32, pairs: Iterable[tuple[I64, I64]], threshold: float) -> list[I64]:
    """For each query the ascending rows, of these pairs, that are not shown to be below the threshold.

    Args:
        queries: float32 (q, d).
        known: float32 (n, d).
        pairs: numbers of queries and rows, in any order, each pair once.
        threshold: a finite cosine.
    """
    exact = exact_among(queries, known)
    kept: list[tuple[I64, I64]] = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    for who, rows in pairs:
        high = ~shown_below(exact(who, rows).astype(np.float32), threshold, known.shape[1])
        kept.append((who[high], rows[high]))
    who, rows = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    order = np.lexsort((rows, who))
    return np.split(rows[order], np.searchsorted(who[order], np.arange(1, len(queries))))


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


def checked(vectors: Any, name: str, dim: int | None = None) -> float:
    """The largest difference of a length from 1.

    Args:
        vectors: what should be float32 (n, d).
        name: of them, for messages.
        dim: the dimension that they must have; None for any.

    Raises:
        ValueError: if these are not embeddings that can be read in place.
    """
    if not isinstance(vectors, np.ndarray) or vectors.dtype != np.float32 or vectors.ndim != 2 or vectors.shape[1] == 0:
        got = f"{vectors.dtype} {vectors.shape}" if isinstance(vectors, np.ndarray) else type(vectors).__name__
        raise ValueError(f"the {name} must be a float32 array (n, d), not {got}")
    if not vectors.flags.c_contiguous:
        raise ValueError(f"the {name} must be C-contiguous; use numpy.ascontiguousarray")
    if dim is not None and vectors.shape[1] != dim:
        raise ValueError(f"the {name} have dimension {vectors.shape[1]}, the known faces {dim}")
    deviations = np.abs(_lengths(vectors) - 1)
    bad = np.flatnonzero(~(deviations <= MAX_DEVIATION))
    if len(bad):
        raise ValueError(f"row {bad[0]} of the {name} is not a finite vector of unit length ({len(bad)} such rows); normalise embeddings")
    return float(deviations.max(initial=0.0))
