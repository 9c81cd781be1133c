"""What the tests share: where the data is, models at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# A test run shows failures, not progress; Ray's own bars would drown them.
os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The test data that developers and CI have beside the checkout; a user's clone has none."""
    for folder in (os.environ.get("MFMC_TEST_DATA"), Path(__file__).parents[2] / "shared" / "data"):
        if folder and Path(folder).is_dir():
            return Path(folder)
    pytest.skip("the developers' test data is not here (set MFMC_TEST_DATA to its folder)")
