"""One real cluster for all tests here: a head and a second node, each `ray start`, that take jobs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_nodes import RayNodes

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def cluster() -> Iterator[RayNodes]:
    """A head of one CPU and a node of two (`cluster.nodes[1]`). A test that kills a node starts another: `cluster.node()`.

    `cluster.address` is for `ray.init`, in a process that has `cluster.environment`; `cluster.jobs` is the URL for `ray job submit`.
    """
    nodes = RayNodes(dashboard=True, inherited={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    try:
        nodes.head()
        nodes.node()
        yield nodes
    finally:
        nodes.close()
