"""The float32 side of the search: scalar products in bulk, and which known faces they leave in question.

Everything here is approximate within a bound that its caller gives; whatever could be decided otherwise in exact arithmetic is handed to
`exact`, the caller's float64 cosine. A block of products is looked at while it is in the cache, and only the rows whose highest product
comes near enough are looked at twice.

With many threads each takes whole blocks, and BLAS, which would share out every single product, runs one thread in each of them: looking at
the products then takes its share of every core, not all of one while the others wait.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

Block = tuple[int, Callable[[], F32], float]
"""The first row, what gives the vectors (s, d) of it and the following rows, called once by the thread that multiplies them, and the most
by which their float32 products differ from the cosine."""
Exact = Callable[[I64, I64], F64]
"""The float64 cosines of pairs: numbers of queries (p,), rows (p,) → (p,)."""

BLOCK = 4096
"""Rows multiplied at a time: with `_QUERIES` queries the products stay in the cache."""
_QUERIES = 512
_PAIRS = 1 << 20  # kept in question at a time
_MANY = 4  # threads; with two, BLAS's own were as fast or faster (benchmarks/known_search.py --threads 2)
_SMALL = 1 << 29  # multiplications, about 15 ms
_MEMORY_BOUND = 32  # fewer queries take no less time


def in_place(known: F32, bound: float) -> Iterator[Block]:
    """The blocks of an array (n, d), which is not copied."""
    for first in range(0, len(known), BLOCK):
        yield first, partial(known.__getitem__, slice(first, first + BLOCK)), bound


def nearest(queries: F32, rows: int, blocks: Iterable[Block], exact: Exact, floor: F64 | None = None) -> tuple[F64, I64]:
    """The nearest row of each query in one pass over the blocks.

    A row stays in question as long as its product plus its bound reaches every other row's product less its bound; what is left of these
    is compared exactly.

    Args:
        queries: float32 (q, d).
        rows: how many there are.
        blocks: ascending, covering all rows once.
        exact: its errors must be covered by the bounds.
        floor: float64 (q,), exact cosines that some row is known to reach.

    Returns:
        float64 (q,), the highest exact cosine, −inf without a row; and int64 (q,), of equals the lowest row, −1 without a row.
    """
    reached = np.full(len(queries), -np.inf) if floor is None else floor.astype(np.float64)  # by some row, for certain
    count = threads(queries, rows)
    if count == 1:
        return _nearest(queries, blocks, exact, reached)
    # they share what was reached: should one overwrite another's, it is a little lower, and more is compared exactly
    shared = _Shared(blocks)
    with _blas().limit(limits=1, user_api="blas"), ThreadPoolExecutor(count) as pool:
        return merged([future.result() for future in [pool.submit(_nearest, queries, shared, exact, reached) for _ in range(count)]])


def merged(answers: Sequence[tuple[F64, I64]]) -> tuple[F64, I64]:
    """One answer of several searches among different rows, in any order: the highest cosine, and of equals the lowest row."""
    similarity, row = answers[0][0].copy(), answers[0][1].copy()
    for other, other_row in answers[1:]:
        equal = (other == similarity) & (other_row < row)
        better = (other_row >= 0) & ((row < 0) | (other > similarity) | equal)  # −1 stands for a search without faces
        similarity[better], row[better] = other[better], other_row[better]
    return similarity, row


def _nearest(queries: F32, blocks: Iterable[Block], exact: Exact, reached: F64) -> tuple[F64, I64]:
    """`nearest` among some ascending blocks, in one thread; `reached` rises."""
    best, row = np.full(len(queries), -np.inf), np.full(len(queries), -1, np.int64)
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


def within(queries: F32, rows: int, blocks: Iterable[Block], least: float) -> Iterator[tuple[I64, I64]]:
    """Numbers of queries and rows, as pairs, block by block: every pair whose cosine may be `least` or more."""
    count = threads(queries, rows)
    if count == 1:
        for block in blocks:
            yield from _within(queries, block, least)
        return
    waiting: deque[Future[list[tuple[I64, I64]]]] = deque()
    with _blas().limit(limits=1, user_api="blas"), ThreadPoolExecutor(count) as pool:
        for block in blocks:
            waiting.append(pool.submit(_within, queries, block, least))
            if len(waiting) > 2 * count:
                yield from waiting.popleft().result()
        for future in waiting:
            yield from future.result()


def _within(queries: F32, block: Block, least: float) -> list[tuple[I64, I64]]:
    """`within` one block."""
    found = []
    for first, bound, start, scores in _products(queries, [block]):
        near = np.flatnonzero(scores.max(axis=1) >= least - bound)
        if len(near):
            i, j = _true(scores[near] >= _down(np.float64(least - bound)))
            found.append((start + near[i], first + j))
    return found


def _products(queries: F32, blocks: Iterable[Block]) -> Iterator[tuple[int, float, int, F32]]:
    """First row, bound, first query, and the products (queries, rows), which are overwritten by the thread's next."""
    size = min(len(queries), _QUERIES) * BLOCK
    room: F32 = getattr(_room, "array", np.empty(0, np.float32))
    if len(room) < size:
        room = _room.array = np.empty(size, np.float32)
    for first, load, bound in blocks:
        vectors = load()
        for start in range(0, len(queries), _QUERIES):
            some = queries[start : start + _QUERIES]
            shape = (len(some), len(vectors))
            yield first, bound, start, np.matmul(some, vectors.T, out=room[: shape[0] * shape[1]].reshape(shape))


_room = threading.local()


class _Shared:
    """Blocks that several threads take from, each getting ascending ones."""

    def __init__(self, blocks: Iterable[Block]) -> None:
        self._blocks, self._lock = iter(blocks), threading.Lock()

    def __iter__(self) -> Iterator[Block]:
        return self

    def __next__(self) -> Block:
        with self._lock:
            return next(self._blocks)


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


def threads(queries: F32, rows: int) -> int:
    """How many threads of our own are worth while: as many as numpy's BLAS may use (OMP_NUM_THREADS, OPENBLAS_NUM_THREADS, `threadpoolctl`,
    or all cores); one, which BLAS then helps, if these are few or would hardly have started before all is done."""
    if rows * queries.shape[1] * max(len(queries), _MEMORY_BOUND) < _SMALL:
        return 1
    count = max((int(library["num_threads"]) for library in _blas().info()), default=1)
    return count if count >= _MANY else 1


def _true(mask: NDArray[np.bool_]) -> tuple[I64, I64]:
    """`numpy.nonzero`, which takes several times as long for two dimensions as for one."""
    i, j = np.divmod(np.flatnonzero(mask), mask.shape[1])
    return i, j


def _down(value: F64 | np.float64) -> F32:
    """float32, not above the value."""
    return np.asarray(np.nextafter(np.asarray(value, np.float32), np.float32(-np.inf)))
