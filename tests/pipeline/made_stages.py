"""Stages made for a scan, as the workers make them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa

from mfmc_ray.access.decide import AccessModel, ReplaceAll
from mfmc_ray.config import FindConfig, OutputConfig, SwapConfig
from mfmc_ray.faces.pack import ModelPack
from mfmc_ray.identities.pool import Pool
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.known.certificate import Guard
from mfmc_ray.known.index import KnownFaces
from mfmc_ray.pipeline.anonymize import AnonymizeStage
from mfmc_ray.pipeline.check import OutputCheck
from mfmc_ray.pipeline.identities import IdentityStage
from mfmc_ray.pipeline.rows import matrix
from mfmc_ray.swap.render import MorphSwapper
from mfmc_ray.tables import embedding_column

RECOGNIZERS = ("sface", "dlib")
_pools: dict[tuple[str, int, int, int], tuple[pa.Table, ModelPack, MorphSwapper]] = {}
"""Tests of a scan have the same pool; what it was made with is kept, so that nothing else has its id."""


def known_faces(scan: pa.Table, pack: ModelPack) -> KnownFaces:
    """All faces of a scan as known faces."""
    flat = scan["faces"].combine_chunks().flatten()
    vectors = {name: matrix(flat.field(embedding_column(name)), dim) for name, dim in pack.dimensions.items()}
    ids = [f"{row['image_id']}:{k}" for row in scan.select(["image_id", "faces"]).to_pylist() for k in range(len(row["faces"] or ()))]
    digest = hashlib.sha256(b"".join(v.tobytes() for v in vectors.values())).hexdigest()
    return KnownFaces(ids=np.array(ids, "S"), vectors=vectors, digest=digest, generation=0)


def make_check(known: KnownFaces, pack: ModelPack) -> OutputCheck:
    calibration = Calibration()
    thresholds = {name: calibration.default_threshold(name, len(known)).value for name in pack.dimensions}
    return OutputCheck(pack, Guard(known, thresholds, calibration))


def make_stage(
    scan: pa.Table, pack: ModelPack, swapper: MorphSwapper, seeds: int = 24, access: AccessModel | None = None, **swap: object
) -> AnonymizeStage:
    """The anonymize stage for a scan, with a small pool."""
    known = known_faces(scan, pack)
    check = make_check(known, pack)
    key = known.digest, seeds, id(pack), id(swapper)
    if key not in _pools:
        admitted = IdentityStage(check, swapper)(pa.table({"seed": pa.array(range(seeds), pa.int64())}))
        _pools[key] = admitted, pack, swapper
    pool = _pools[key][0]
    return AnonymizeStage(
        swap=SwapConfig(**swap),  # type: ignore[arg-type]
        output=OutputConfig(),
        max_pixels=FindConfig().max_pixels,
        check=check,
        pool=Pool.from_table(swapper.model, pool),
        swapper=swapper,
        access=access or ReplaceAll(),
        key=b"0" * 32,
    )


def units(folder: Path) -> pa.Table:
    from mfmc_ray.collection import Collection
    from mfmc_ray.tables import UNITS

    found = Collection.open(str(folder)).units()
    rows = [{"unit": u.unit, "path": u.path, "kind": u.kind, "size": u.size, "version": u.version} for u in found]
    return pa.Table.from_pylist(rows, schema=UNITS)
