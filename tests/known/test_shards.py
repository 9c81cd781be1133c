"""Shards give the answers of one index, bit for bit, wherever they begin."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mfmc_ray.known.search import ExactSearch, rounding_bound
from mfmc_ray.known.shards import Shard, ShardedSearch, merged_top1

F32 = NDArray[np.float32]


def unit(vectors: NDArray[np.floating]) -> F32:
    wide = np.asarray(vectors, np.float64)
    return np.ascontiguousarray(wide / np.linalg.norm(wide, axis=-1, keepdims=True), np.float32)


def hard(seed: int, q: int, n: int, d: int) -> tuple[F32, F32]:
    """Queries and known faces: a third as near to a query as float32 can just not tell apart, a third copies of these, a third anywhere."""
    rng = np.random.default_rng(seed)
    queries = unit(rng.standard_normal((q, d)))
    near = queries[rng.integers(0, q, n)] + rounding_bound(d) * rng.standard_normal((n, d)) / np.sqrt(d)
    known = np.concatenate([unit(near), unit(near), unit(rng.standard_normal((n, d)))])
    return queries, np.ascontiguousarray(known[rng.permutation(3 * n)[: max(1, n)]])


def split(known: F32, cuts: list[int]) -> list[Shard]:
    bounds = [0, *sorted(min(cut, len(known)) for cut in cuts), len(known)]
    return [Shard(known[a:b], a) for a, b in itertools.pairwise(bounds)]


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 30),
    st.integers(1, 400),
    st.sampled_from([3, 128, 512]),
    st.lists(st.integers(0, 400), max_size=6),
)
@settings(max_examples=60, deadline=None)
def test_shards_answer_as_one_index(seed: int, q: int, n: int, d: int, cuts: list[int]) -> None:
    queries, known = hard(seed, q, n, d)
    whole, sharded = ExactSearch(known), ShardedSearch(split(known, cuts))
    assert (sharded.dim, len(sharded)) == (d, len(known))
    similarity, row = whole.top1(queries)
    got = sharded.top1(queries)
    np.testing.assert_array_equal(got[0].view(np.int32), similarity.view(np.int32))
    np.testing.assert_array_equal(got[1], row)
    for threshold in (0.3, float(similarity[0]), float(similarity[0]) + rounding_bound(d)):
        for a, b in zip(sharded.above(queries, threshold), whole.above(queries, threshold), strict=True):
            assert a.dtype == np.int64
            np.testing.assert_array_equal(a, b)


@given(st.integers(0, 2**32 - 1), st.permutations(range(5)))
@settings(max_examples=20, deadline=None)
def test_order_of_answers_is_nothing(seed: int, order: list[int]) -> None:
    queries, known = hard(seed, 8, 100, 128)
    answers = [shard.nearest(queries) for shard in split(known, [0, 20, 40, 80])]
    similarity, row = merged_top1([answers[k] for k in order])
    expected = ExactSearch(known).top1(queries)
    np.testing.assert_array_equal(similarity, expected[0])
    np.testing.assert_array_equal(row, expected[1])


def test_the_opposite_is_still_nearer_than_nobody() -> None:
    query = unit(np.ones((1, 4)))
    similarity, row = ShardedSearch([Shard(np.zeros((0, 4), np.float32), 0), Shard(-query, 0)]).top1(query)
    assert (similarity.tolist(), row.tolist()) == ([-1.0], [0])
    similarity, row = ShardedSearch([Shard(np.zeros((0, 4), np.float32), 0)]).top1(query)
    assert (similarity.tolist(), row.tolist()) == ([-1.0], [-1])


def test_no_row_is_missing_or_doubled() -> None:
    known = unit(np.random.default_rng(0).standard_normal((6, 8)))
    for shards in ([], [Shard(known, 1)], [Shard(known, 0), Shard(known, 7)], [Shard(known, 0), Shard(known, 5)]):
        with pytest.raises(ValueError, match="follow each other"):
            ShardedSearch(shards)
    with pytest.raises(ValueError, match="one dimension"):
        ShardedSearch([Shard(known, 0), Shard(unit(np.ones((1, 4))), 6)])
