from __future__ import annotations

import pytest

from mfmc_ray.people.quality import Examiner


@pytest.fixture(scope="session")
def examiner() -> Examiner:
    return Examiner()
