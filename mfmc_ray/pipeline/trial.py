"""Fakes on trial: a few are made as a run makes them, to see what the recognizers say of them and what they cost."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import pyarrow as pa

from mfmc_ray.config import FindConfig
from mfmc_ray.faces.faces import F32
from mfmc_ray.faces.pack import ALL_DIMENSIONS, files_of, load_pack
from mfmc_ray.faces.store import pull
from mfmc_ray.identities.catalogue import catalogued, seeds
from mfmc_ray.identities.model import load_model
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.known.certificate import Guard
from mfmc_ray.known.index import KnownFaces
from mfmc_ray.known.search import ExactSearch
from mfmc_ray.pipeline.check import OutputCheck
from mfmc_ray.pipeline.identities import IdentityStage
from mfmc_ray.pipeline.rows import matrix
from mfmc_ray.swap.render import MorphSwapper
from mfmc_ray.tables import embedding_column

_SEARCHED, _SEARCHES = 50_000, 16


@dataclass(frozen=True)
class Trial:
    """Fakes that were made.

    Attributes:
        vectors: recognizer → float32 (n, d): of their neutral renderings.
        cpu_seconds: of one, on all cores: rendering and every recognizer.
    """

    vectors: dict[str, F32]
    cpu_seconds: float


def make_fakes(recognizers: Sequence[str], count: int) -> Trial:
    """Renders and embeds fakes that nobody has selected: the seeds that runs offer once their catalogue is used up.

    Raises:
        ModelError: when a model file cannot be had.
        PackError: for a recognizer that the pack does not know.
    """
    pull(files_of([*FindConfig().detectors, *recognizers, "mesh", "attributes", "hands"]))
    dimensions = {name: ALL_DIMENSIONS[name] for name in recognizers}
    # against nobody every seed is admitted that gives an embedding at all
    guard = Guard(KnownFaces.empty(dimensions), dict.fromkeys(recognizers, 1.0), Calibration())
    stage = IdentityStage(OutputCheck(load_pack(FindConfig(), recognizers), guard), MorphSwapper(load_model()))
    offered = list(itertools.islice(seeds(), catalogued(), catalogued() + 1 + count))
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # as the workers
    try:
        stage(_table(offered[:1]))  # what is built at first use
        started = time.process_time()
        made = stage(_table(offered[1:]))
        seconds = time.process_time() - started
    finally:
        cv2.setNumThreads(threads)
    return Trial({name: matrix(made[embedding_column(name)], dim) for name, dim in dimensions.items()}, seconds / count)


def search_seconds(recognizers: Sequence[str]) -> float:
    """CPU seconds that one fake's exact search takes for each known face: 2·d flops a recognizer, at the speed that is measured here."""
    rng, total = np.random.default_rng(0), 0.0
    for name in recognizers:
        vectors = rng.standard_normal((_SEARCHED, ALL_DIMENSIONS[name]), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        search, queries = ExactSearch(vectors), vectors[:_SEARCHES].copy()
        search.top1(queries[:1])
        started = time.process_time()
        for i in range(_SEARCHES):  # one by one, as the stage asks
            search.top1(queries[i : i + 1])
        total += (time.process_time() - started) / _SEARCHES / _SEARCHED
    return total


def _table(some: Sequence[int]) -> pa.Table:
    return pa.table({"seed": pa.array(some, pa.int64())})
