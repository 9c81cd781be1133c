"""One real cluster for all tests here: a head and a second node, each `ray start`, that take jobs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ray_nodes import RayNodes

ROOT = Path(__file__).parents[2]
_open: list[RayNodes] = []


@pytest.fixture(scope="module")
def cluster() -> RayNodes:
    """A head of one CPU and a node of two (`cluster.nodes[1]`). A test that kills a node starts another: `cluster.node()`.

    `cluster.address` is for `ray.init`, in a process that has `cluster.environment`; `cluster.jobs` is the URL for `ray job submit`.
    """
    if not _open:
        nodes = RayNodes(dashboard=True, inherited={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
        try:
            nodes.head()
            nodes.node()
        except BaseException:
            nodes.close()
            raise
        _open.append(nodes)
    return _open[0]


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """After the last test here: Ray takes a fifth of a core though nobody asks it for anything."""
    if nextitem is None or not nextitem.path.is_relative_to(Path(__file__).parent):
        pytest_sessionfinish()


def pytest_sessionfinish() -> None:
    """Ends what is still there."""
    while _open:
        _open.pop().close()
