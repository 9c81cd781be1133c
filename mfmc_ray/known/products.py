"""The float32 side of the search: scalar products in bulk, and which known faces they leave in question.

Everything here is approximate within a bound that its caller gives; whatever could be decided otherwise in exact arithmetic is handed to
`exact`, the caller's float64 cosine. A block of products is looked at while it is in the cache, and only the rows whose highest product
comes near enough are looked at twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

Block = tuple[int, F32, float]
"""The first row, the vectors (s, d) of it and the following rows, and the most by which their float32 products differ from the cosine."""
Exact = Callable[[I64, I64], F64]
"""The float64 cosines of pairs: numbers of queries (p,), rows (p,) → (p,)."""

BLOCK = 4096
"""Rows multiplied at a time: with `_QUERIES` queries the products stay in the cache, and BLAS's threads seldom wait for each other."""
_QUERIES = 512
_PAIRS = 1 << 20  # kept in question at a time


def in_place(known: F32, bound: float) -> Iterator[Block]:
    """The blocks of an array (n, d), which is not copied."""
    for first in range(0, len(known), BLOCK):
        yield first, known[first : first + BLOCK], bound


def nearest(queries: F32, blocks: Iterable[Block], exact: Exact, floor: F64 | None = None) -> tuple[F64, I64]:
    """The nearest row of each query in one pass over the blocks.

    A row stays in question as long as its product plus its bound reaches every other row's product less its bound; what is left of these
    is compared exactly.

    Args:
        queries: float32 (q, d).
        blocks: ascending, covering all rows once.
        exact: its errors must be covered by the bounds.
        floor: float64 (q,), exact cosines that some row is known to reach.

    Returns:
        float64 (q,), the highest exact cosine, −inf without a row; and int64 (q,), of equals the lowest row, −1 without a row.
    """
    best, row = np.full(len(queries), -np.inf), np.full(len(queries), -1, np.int64)
    reached = best.copy() if floor is None else floor.astype(np.float64)  # by some row, for certain
    open_pairs: list[tuple[I64, I64, F64]] = []
    waiting = 0

    def settle() -> None:
        who, rows, highest = (np.concatenate(parts) for parts in zip(*open_pairs, strict=True))
        still = np.flatnonzero(highest >= reached[who])
        who, rows = who[still], rows[still]
        cosine = exact(who, rows)
        order = np.lexsort((rows, -cosine, who))
        lead = order[np.flatnonzero(np.diff(who[order], prepend=-1))]  # each query's highest cosine, and of equals the lowest row
        better = lead[cosine[lead] > best[who[lead]]]  # rows settled before are lower
        best[who[better]], row[who[better]] = cosine[better], rows[better]
        np.maximum(reached, best, out=reached)
        open_pairs.clear()

    for first, bound, start, scores in _products(queries, blocks):
        highest = scores.max(axis=1).astype(np.float64)
        near = np.flatnonzero(highest >= reached[start : start + len(scores)] - bound)
        if len(near):
            some, who = scores[near], start + near
            reached[who] = np.maximum(reached[who], highest[near] - bound)
            i, j = _true(some >= _down(reached[who] - bound)[:, None])
            open_pairs.append((who[i], first + j, some[i, j].astype(np.float64) + bound))
            waiting += len(i)
            if waiting > _PAIRS:
                settle()
                waiting = 0
    if open_pairs:
        settle()
    return best, row


def within(queries: F32, blocks: Iterable[Block], least: float) -> Iterator[tuple[I64, I64]]:
    """Numbers of queries and rows, as pairs, block by block: every pair whose cosine may be `least` or more."""
    for first, bound, start, scores in _products(queries, blocks):
        near = np.flatnonzero(scores.max(axis=1) >= least - bound)
        if len(near):
            i, j = _true(scores[near] >= _down(np.float64(least - bound)))
            yield start + near[i], first + j


def _products(queries: F32, blocks: Iterable[Block]) -> Iterator[tuple[int, float, int, F32]]:
    """First row, bound, first query, and the products (queries, rows), which are overwritten by the next."""
    room = np.empty(min(len(queries), _QUERIES) * BLOCK, np.float32)
    for first, vectors, bound in blocks:
        for start in range(0, len(queries), _QUERIES):
            some = queries[start : start + _QUERIES]
            shape = (len(some), len(vectors))
            yield first, bound, start, np.matmul(some, vectors.T, out=room[: shape[0] * shape[1]].reshape(shape))


def _true(mask: NDArray[np.bool_]) -> tuple[I64, I64]:
    """`numpy.nonzero`, which takes several times as long for two dimensions as for one."""
    i, j = np.divmod(np.flatnonzero(mask), mask.shape[1])
    return i, j


def _down(value: F64 | np.float64) -> F32:
    """float32, not above the value."""
    return np.asarray(np.nextafter(np.asarray(value, np.float32), np.float32(-np.inf)))
