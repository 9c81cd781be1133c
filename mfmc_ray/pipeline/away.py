"""Work on embeddings done on a node of the cluster, so that none go through the process that leads the run.

That process may be small, and on the head: a submitted job's is. On a Ray of its own it does the work itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import ray

from mfmc_ray.config import RayConfig
from mfmc_ray.faces import insight
from mfmc_ray.known.index import KnownFaces, KnownIndex, KnownIndexError
from mfmc_ray.known.search import F32
from mfmc_ray.pipeline.session import cluster_of

P = ParamSpec("P")
T = TypeVar("T")
RETRIES = 3
"""How often it is begun again after its node died."""


def call(config: RayConfig, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What a function returns, or raises, wherever it is run.

    Args:
        config: says whether there is a cluster.
        function: importable there; may be begun again when its node dies, so it must not mind what was done already.
        args, kwargs: its own; they are copied.

    Raises:
        PartError: its node died time and again.
    """
    if cluster_of(config) is None:
        return function(*args, **kwargs)
    # A bit of a CPU keeps it off a head that has none; a whole one might never be free, as services keep theirs for the run.
    task: Any = ray.remote(num_cpus=0.01, max_retries=RETRIES, scheduling_strategy="SPREAD")(_pinned)
    try:
        return ray.get(task.remote(insight.named(), function, *args, **kwargs))  # type: ignore[no-any-return]
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        from mfmc_ray.pipeline.parts import PartError  # with it comes Ray Data, which a node that runs the function does not need

        raise PartError(f"Ray failed: {str(error).splitlines()[0]}: run the same command again to resume") from error


def _pinned(weights: Mapping[str, str], function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What a function returns, with no other weights of InsightFace's than these."""
    insight.pin(weights)
    return function(*args, **kwargs)


def held(config: RayConfig, folder: Path, recognizers: Mapping[str, int], known: KnownFaces) -> KnownFaces:
    """The known faces as workers take them: on a cluster without vectors, which a worker gets when it looks at them first.

    They are read from the index once, by a task, and then copied from node to node; where all copies are lost they are read again.

    Args:
        config: says whether there is a cluster.
        folder: of the index; all nodes see it.
        recognizers: guard recognizer → dimension.
        known: the index as it was opened and checked.
    """
    if cluster_of(config) is None:
        return known
    # No CPU is set aside: workers that have them all may wait for this, when the copies are lost with a node.
    task: Any = ray.remote(num_cpus=0, max_retries=-1, scheduling_strategy="SPREAD")(_read)
    return replace(known, vectors=Elsewhere(list(recognizers), task.remote(folder, dict(recognizers), known.digest)))


class Elsewhere(Mapping[str, F32]):
    """recognizer → float32 (n, d), read-only, in the object store: fetched when one is asked for, and shared by the processes of a node.

    Raises, when one is asked for:
        KnownIndexError: the index is not what it was.
    """

    def __init__(self, names: list[str], vectors: Any) -> None:
        self._names, self._vectors = names, vectors

    def __getitem__(self, name: str) -> F32:
        try:
            found: dict[str, F32] = ray.get(self._vectors)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        return found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _read(folder: Path, recognizers: dict[str, int], digest: str) -> dict[str, F32]:
    index = KnownIndex.open(folder, recognizers)
    if index.digest != digest:
        raise KnownIndexError(f"{folder}: the known-face index has changed during the run; run again")
    return {name: np.ascontiguousarray(index.vectors(name)) for name in recognizers}
