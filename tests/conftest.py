"""What the tests share: where the data is, models at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# A test run shows failures, not progress; Ray's own bars would drown them.
os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")


@pytest.hookimpl(tryfirst=True)  # before the groups are read
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `-n 2 --dist loadgroup` one process runs whatever starts a Ray, one after the other, and the other one the rest."""
    for item in items:
        starts_ray = "e2e" in item.path.parts or item.get_closest_marker("ray")
        item.add_marker(pytest.mark.xdist_group("ray" if starts_ray else str(item.path)))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The test data that developers and CI have beside the checkout; a user's clone has none."""
    for folder in (os.environ.get("MFMC_TEST_DATA"), Path(__file__).parents[2] / "shared" / "data"):
        if folder and Path(folder).is_dir():
            return Path(folder)
    pytest.skip("the developers' test data is not here (set MFMC_TEST_DATA to its folder)")
