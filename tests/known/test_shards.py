"""Shards give the answers of one index, bit for bit, wherever they begin."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hard_vectors import answers_alike, hard, unit
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mfmc_ray.known.search import ExactSearch
from mfmc_ray.known.shards import Shard, ShardedSearch, merged_top1

F32 = NDArray[np.float32]


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
    answers_alike(ShardedSearch(split(known, cuts)), known, queries)


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
