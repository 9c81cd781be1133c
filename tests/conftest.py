"""What the tests share: where the data is, models at hand."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

# A test run shows failures, not progress; Ray's own bars would drown them.
os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
# Hundreds of processes import mfmc_ray: without its bytecode on disk, as in containers, each would compile it anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Imports and thousands of tests are no garbage: they are not looked through, neither now nor while the tests run."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The test data that developers and CI have beside the checkout; a user's clone has none."""
    for folder in (os.environ.get("MFMC_TEST_DATA"), Path(__file__).parents[2] / "shared" / "data"):
        if folder and Path(folder).is_dir():
            return Path(folder)
    pytest.skip("the developers' test data is not here (set MFMC_TEST_DATA to its folder)")


WITH_RAY = re.compile(r"tests/(e2e|cluster|recipes)/|tests/pipeline/test_(evaluation|growth|parts|quarantine|search_actors|session)\.py")
"""Tests that start Ray, or take both cores otherwise: with `pytest -n 2` one process has them."""
APART = re.compile(
    r"tests/recipes/|tests/e2e/test_(faults|hygiene|known|person_fakes)\.py|tests/pipeline/test_(comparison|evaluation|search_actors)\.py"
    r"|tests/evaluate/(test_scenes|synth/test_synth_collection)\.py"
)
"""Those of them that hang least on time, and other files that take long for few tests, which would be begun last: the other process has
these, beside the rest, so that both end at about the same time."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n`: the tests with Ray stay together, in two groups, and otherwise those of a file."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if APART.match(nodeid):
                return "with another Ray"
            if WITH_RAY.match(nodeid):
                return "with Ray"
            return nodeid.split("::", 1)[0]

    return Scheduling(config, log)
