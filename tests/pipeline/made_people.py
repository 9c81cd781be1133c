"""A made-up collection: a scan with people's faces in random directions, and a pool of identities that need no pictures."""

from __future__ import annotations

from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mfmc_ray.faces.mesh import five_points
from mfmc_ray.faces.pack import DIMENSIONS
from mfmc_ray.identities.model import load_model
from mfmc_ray.identities.pool import Pool
from mfmc_ray.ledger import Ledger
from mfmc_ray.pipeline.workers import SCAN
from mfmc_ray.tables import embedding_column, scan_schema

F32 = NDArray[np.float32]
GUARDS = {name: DIMENSIONS[name] for name in ("sface", "dlib")}
MESH = load_model().head_mesh.astype(np.float32)


def look(person: int, photo: int, name: str) -> F32:
    """The embedding of a photo of a person: alike for one person, unlike for two; what all share is in dlib's."""
    shared = np.random.default_rng(0).standard_normal(128) * (0.2 if name == "dlib" else 0.03)
    own = np.random.default_rng([person, len(name)]).standard_normal(128) / np.sqrt(128)
    noise = np.random.default_rng([person, photo, len(name)]).standard_normal(128) * 0.02
    vector = shared + own + noise
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def face(person: int, photo: int, **other: Any) -> dict[str, Any]:
    """A face of the scan, by default a large frontal one of a man of 40."""
    low, high = MESH[:, :2].min(0), MESH[:, :2].max(0)
    about = {"box": [*low, *high], "points": five_points(MESH).reshape(-1).tolist(), "score": 1.0, "detectors": "a+b"}
    about |= {"mesh": MESH.reshape(-1).tolist(), "mesh_score": 1.0, "age": 40.0, "sex": 1.0, "pose": [0.0] * 3, "tone": 30.0, "beard": 0.1}
    return about | {embedding_column(name): look(person, photo, name) for name in GUARDS} | other


def scanned(folder: Path, *parts: Sequence[tuple[str, Sequence[dict[str, Any]]]]) -> Ledger:
    """A run whose scan has these parts: each a list of image and faces."""
    ledger = Ledger(str(folder / "out"), str(folder / "out-work"))
    for number, part in enumerate(parts):
        rows = [{"image_id": image, "path": f"{image}.jpg", "faces": faces} for image, faces in part]
        summary = {"images": len(rows), "faces": sum(len(faces) for _, faces in part)}
        ledger.commit_part(SCAN, number, {"scan": pa.Table.from_pylist(rows, schema=scan_schema(GUARDS))}, summary)
    return ledger


def pool_of(size: int, but: Set[int] = frozenset()) -> Pool:
    """Identities whose portraits look like nobody's, without those of some seeds."""
    rng = np.random.default_rng(5)
    kept = [seed for seed in range(size) if seed not in but]
    vectors = {}
    for name, dim in GUARDS.items():
        some = rng.standard_normal((size, dim))
        vectors[name] = (some / np.linalg.norm(some, axis=1, keepdims=True)).astype(np.float32)[kept]
    return Pool(load_model(), kept, vectors)
