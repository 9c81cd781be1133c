from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from made_stages import units

from mfmc_ray.config import FindConfig
from mfmc_ray.faces.pack import ModelPack, load_pack
from mfmc_ray.identities.model import load_model
from mfmc_ray.pipeline.scan import ScanStage
from mfmc_ray.swap.render import MorphSwapper

RECOGNIZERS = ("sface", "dlib")


@pytest.fixture(scope="session")
def pack() -> ModelPack:
    return load_pack(FindConfig(), RECOGNIZERS)


@pytest.fixture(scope="session")
def swapper() -> MorphSwapper:
    return MorphSwapper(load_model())


@pytest.fixture(scope="module")
def scan(folder: Path, pack: ModelPack) -> pa.Table:
    """What the scan finds in a module's `folder`."""
    return ScanStage(pack, 178_956_970)(units(folder))
