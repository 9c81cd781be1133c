"""Vectors on which a search in float32 alone goes wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfmc_ray.known.search import ExactSearch, rounding_bound

F32 = NDArray[np.float32]


def unit(vectors: NDArray[np.floating]) -> F32:
    wide = np.asarray(vectors, np.float64)
    return np.ascontiguousarray(wide / np.linalg.norm(wide, axis=-1, keepdims=True), np.float32)


def hard(seed: int, q: int, n: int, d: int, nearness: float = 0.99) -> tuple[F32, F32]:
    """Queries and known faces: about a fifth each rivals of a query that float32 can just not tell apart, copies of these, some with zeros
    and denormal numbers, rivals that int8 cannot tell apart, and any."""
    rng = np.random.default_rng(seed)
    queries = unit(rng.standard_normal((q, d)))
    noise = rng.standard_normal((2, n, d)) / np.sqrt(d)
    at = nearness * queries[rng.integers(0, q, n)] + np.sqrt(1 - nearness**2) * noise[0][0]
    near = unit(at + rounding_bound(d) * noise[1])
    sparse = unit(np.where(rng.random((n, d)) < 0.5, 1e-42, noise[0]) + (np.arange(d) == 0))
    known = np.concatenate([near, near, sparse, unit(at + 0.02 * noise[1]), unit(noise[1])])
    return queries, np.ascontiguousarray(known[rng.permutation(5 * n)[:n]])


def answers_alike(search: Any, known: F32, queries: F32) -> None:
    """The search gives the bits of `ExactSearch`, for the nearest and at thresholds on both sides of the highest cosine and of others."""
    whole = ExactSearch(known)
    assert (search.dim, len(search)) == (known.shape[1], len(known))
    similarity, row = whole.top1(queries)
    got = search.top1(queries)
    assert [a.dtype for a in got] == [np.float32, np.int64]
    np.testing.assert_array_equal(got[0].view(np.int32), similarity.view(np.int32))
    np.testing.assert_array_equal(got[1], row)
    bound = rounding_bound(known.shape[1])
    tops = [float(s) + k * bound for s in similarity[:2] for k in (-1, 0, 1, 1 + 1e-3, 1 + 1e-2)]
    for threshold in (-1.0, 0.3, *tops):
        for a, b in zip(search.above(queries, threshold), whole.above(queries, threshold), strict=True):
            assert a.dtype == np.int64
            np.testing.assert_array_equal(a, b)
