"""A known-face index in shards: each searches its own rows, and the answers are merged to those of one index, bit for bit.

A cosine depends on its two vectors alone (`search.cosines`), and every shard compares its candidates by it in float64; so the highest of
the shards' highest is the highest of all, and of equals the lowest row of the whole index wins, wherever the shards begin.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from mfmc_ray.known.products import merged
from mfmc_ray.known.search import F32, F64, I64, ExactSearch


class Shard:
    """Consecutive rows of an index; rows are numbered as in the whole.

    Args:
        known: float32 (n, d), as for `ExactSearch`.
        start: the row of the index with which they begin.

    Raises:
        ValueError: as of `ExactSearch`.
    """

    def __init__(self, known: F32, start: int) -> None:
        self._search = ExactSearch(known)
        self.start = start

    @property
    def dim(self) -> int:
        """The dimension of the vectors."""
        return self._search.dim

    def __len__(self) -> int:
        return len(self._search)

    def nearest(self, queries: F32) -> tuple[F64, I64]:
        """float64 (q,), each query's highest cosine, and int64 (q,), its row in the index; −1 and −1 without known faces."""
        similarity, row = self._search.nearest(queries)
        return similarity, np.where(row < 0, row, row + self.start)

    def above(self, queries: F32, threshold: float) -> list[I64]:
        """As `ExactSearch.above`, with rows of the index."""
        return [rows + self.start for rows in self._search.above(queries, threshold)]


class ShardedSearch:
    """A `Search` among the rows of several shards.

    Args:
        shards: at least one; together they hold every row of the index once, in order.

    Raises:
        ValueError: when a row would be missing or doubled, or they have different dimensions.
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        starts = [0, *accumulate(len(shard) for shard in shards)]
        if not shards or [shard.start for shard in shards] != starts[:-1] or len({shard.dim for shard in shards}) != 1:
            raise ValueError(f"wanted shards of one dimension that follow each other, got rows {[(s.start, len(s)) for s in shards]}")
        self._shards = list(shards)
        self._len = starts[-1]

    @property
    def dim(self) -> int:
        """The dimension of the vectors."""
        return self._shards[0].dim

    def __len__(self) -> int:
        return self._len

    def top1(self, queries: F32) -> tuple[F32, I64]:
        """As `ExactSearch.top1` of all rows."""
        return merged_top1([shard.nearest(queries) for shard in self._shards])

    def above(self, queries: F32, threshold: float) -> list[I64]:
        """As `ExactSearch.above` of all rows."""
        return merged_above([shard.above(queries, threshold) for shard in self._shards])


def merged_top1(answers: Sequence[tuple[F64, I64]]) -> tuple[F32, I64]:
    """The nearest known face of all shards, from each shard's `Shard.nearest`, in any order.

    Returns:
        float32 (q,) and int64 (q,), as of `ExactSearch.top1`: the highest cosine, and of equals the lowest row.
    """
    similarity, row = merged(answers)
    return similarity.astype(np.float32), row


def merged_above(answers: Sequence[list[I64]]) -> list[I64]:
    """For each query the ascending rows of all shards, from each shard's `Shard.above`, in any order."""
    return [np.sort(np.concatenate(parts)) for parts in zip(*answers, strict=True)]
