"""The known-face index in search actors, for one that is larger than a node's memory. Their answers are those of one index, bit for bit.

Every actor holds consecutive rows and reads them itself. One that dies is started again, wherever there is room, reads its rows again and
is asked again; whoever waits for its answer waits longer, and gets the same one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import ray

from mfmc_ray.known.index import KnownFaces, KnownIndexError, known_rows
from mfmc_ray.known.search import F32, F64, I64, Search, checked, least_cosine
from mfmc_ray.known.shards import Shard, merged_above, merged_top1

BATCH = 2048
"""Queries of one call: enough for the arithmetic units, and what is done again when an actor dies."""
START_SECONDS = 600.0
"""Until all shards have read their rows; on a cluster that grows, nodes may have to come first."""


class ShardError(RuntimeError):
    """The shards cannot be started; the message says what to do."""


class Shards:
    """The search actors of a run: started when they are needed first, removed by `close`.

    Args:
        folder: of the index; all nodes see it.
        recognizers: guard recognizer → dimension.
        count: of actors at most; 0 for none.
    """

    def __init__(self, folder: Path, recognizers: Mapping[str, int], count: int) -> None:
        self._folder, self._recognizers, self._count = folder, dict(recognizers), count
        self._digest: str | None = None
        self._actors: list[Any] = []

    def searches(self, known: KnownFaces) -> dict[str, Search] | None:
        """recognizer → the search among all known faces, which may be passed to other actors; None without shards.

        Args:
            known: the index as it was opened and checked; its vectors are not used, and may be absent.

        Raises:
            ShardError: the cluster has no room for them, or an actor cannot read its rows.
        """
        if not self._count:
            return None
        if self._digest != known.digest:
            self.close()
            self._start(known)
        return {name: RaySearch(name, dim, len(known), self._actors) for name, dim in self._recognizers.items()}

    def pids(self) -> list[int]:
        """The actors' processes."""
        return list(ray.get([actor.pid.remote() for actor in self._actors]))

    def close(self) -> None:
        """Removes the actors; searches that were handed out fail from now on."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors, self._digest = [], None

    def _start(self, known: KnownFaces) -> None:
        count = max(1, min(self._count, len(known)))
        bounds = [len(known) * k // count for k in range(count + 1)]
        row = 4 * sum(self._recognizers.values())
        for start, stop in pairwise(bounds):
            # No CPU is set aside: the workers, which have them all, wait while a shard searches.
            actor = ray.remote(_ShardActor).options(
                num_cpus=0, memory=row * (stop - start), scheduling_strategy="SPREAD", max_restarts=-1, max_task_retries=-1
            )
            self._actors.append(actor.remote(self._folder, self._recognizers, start, stop, known.digest))
        try:
            ray.get([actor.pid.remote() for actor in self._actors], timeout=START_SECONDS)
        except ray.exceptions.RayError as error:
            self.close()
            if isinstance(error, ray.exceptions.GetTimeoutError):
                need = f"{count} × {row * bounds[1] / 2**30:.1f} GiB"
                raise ShardError(
                    f"the cluster has no room for the known-face index ({need}): add nodes, or set guard.shards higher"
                ) from error
            raise ShardError(f"a shard of the known-face index cannot be read: {str(error).strip().splitlines()[-1]}") from error
        self._digest = known.digest


class RaySearch:
    """A `Search` in the actors of `Shards`, of one recognizer. It can be pickled, and used by any actor or task of the cluster."""

    def __init__(self, recognizer: str, dim: int, known: int, actors: list[Any]) -> None:
        self._recognizer, self._dim, self._known = recognizer, dim, known
        self._actors = list(actors)

    @property
    def dim(self) -> int:
        """The dimension of the vectors."""
        return self._dim

    def __len__(self) -> int:
        return self._known

    def top1(self, queries: F32) -> tuple[F32, I64]:
        """As `ExactSearch.top1` of the whole index.

        Raises:
            ValueError: when the queries are no embeddings.
            ray.exceptions.RayError: the shards are gone, or the cluster is; nothing is then known about the queries.
        """
        checked(queries, "queries", self._dim)
        answers = [merged_top1(parts) for parts in self._asked("nearest", queries)]
        return np.concatenate([a[0] for a in answers]), np.concatenate([a[1] for a in answers])

    def above(self, queries: F32, threshold: float) -> list[I64]:
        """As `ExactSearch.above` of the whole index.

        Raises:
            as of `top1`, and ValueError for a threshold that is not finite.
        """
        checked(queries, "queries", self._dim)
        least_cosine(threshold, self._dim)
        return [rows for parts in self._asked("above", queries, threshold) for rows in merged_above(parts)]

    def _asked(self, method: str, queries: F32, *more: float) -> list[list[Any]]:
        """The answers of all shards to each batch; the queries travel once to every node, and all batches are under way together."""
        batches = [ray.put(queries[i : i + BATCH]) for i in range(0, max(1, len(queries)), BATCH)]
        asked = [[getattr(actor, method).remote(self._recognizer, batch, *more) for actor in self._actors] for batch in batches]
        return [list(ray.get(answers)) for answers in asked]


class _ShardActor:
    """Holds rows `start` to `stop` of the index whose digest it is told, and of no other."""

    def __init__(self, folder: Path, recognizers: Mapping[str, int], start: int, stop: int, digest: str) -> None:
        rows = known_rows(folder, recognizers, start, stop)
        if rows.digest != digest or len(rows) != stop - start:  # when it starts again, too
            raise KnownIndexError(f"{folder}: the known-face index has changed during the run; run again")
        self._shards = {name: Shard(vectors, start) for name, vectors in rows.vectors.items()}

    def nearest(self, recognizer: str, queries: F32) -> tuple[F64, I64]:
        return self._shards[recognizer].nearest(queries)

    def above(self, recognizer: str, queries: F32, threshold: float) -> list[I64]:
        return self._shards[recognizer].above(queries, threshold)

    def pid(self) -> int:
        return os.getpid()
