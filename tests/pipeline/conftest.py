from __future__ import annotations

import pytest

from mfmc_ray.config import FindConfig
from mfmc_ray.faces.pack import ModelPack, load_pack
from mfmc_ray.identities.model import load_model
from mfmc_ray.swap.render import MorphSwapper

RECOGNIZERS = ("sface", "dlib")


@pytest.fixture(scope="session")
def pack() -> ModelPack:
    return load_pack(FindConfig(), RECOGNIZERS)


@pytest.fixture(scope="session")
def swapper() -> MorphSwapper:
    return MorphSwapper(load_model())
