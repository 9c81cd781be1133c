"""A made-up private folder: people in folders, group photos, references and a pool, all random directions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mfmc_ray.faces.pack import DIMENSIONS, digests_of
from mfmc_ray.known.index import KnownIndex
from mfmc_ray.ledger import Ledger
from mfmc_ray.parquet import write_parquet
from mfmc_ray.pipeline.workers import POOL
from mfmc_ray.tables import embedding_column, pool_schema, scan_schema

F32 = NDArray[np.float32]
GUARDS = {name: DIMENSIONS[name] for name in ("sface", "dlib")}


def directions(rng: np.random.Generator, n: int, dim: int = 128) -> F32:
    vectors = rng.standard_normal((n, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def photos_of(rng: np.random.Generator, people: int, photos: int) -> F32:
    """People's photos, those of one person alike: float32 (people · photos, 128)."""
    mixed = 0.8 * np.repeat(directions(rng, people), photos, axis=0) + 0.3 * directions(rng, people * photos)
    return (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)


def scan_row(image: str, path: str, boxes: list[list[float]]) -> dict[str, Any]:
    return {"image_id": image, "path": path, "faces": [{"box": box} for box in boxes]}


def make_work(folder: Path, *, people: int = 64, photos: int = 4, groups: int = 3, pool: tuple[int, int] = (20, 13)) -> Path:
    """WORK with `people` in folders, `groups` photos of three faces (two of which touch), 20 references and a part of a pool (offered,
    admitted)."""
    rng, work = np.random.default_rng(0), folder / "out-work"
    single = [f"{p:02d}-{k}" for p in range(people) for k in range(photos)]
    rows = [scan_row(name, f"person {name[:2]}/{name}.jpg", [[10, 10, 60, 60]]) for name in single]
    rows += [scan_row(f"group-{g}", f"person 00/group {g}.jpg", [[0, 0, 9, 9], [20, 0, 29, 9], [25, 5, 34, 14]]) for g in range(groups)]
    (work / "scan").mkdir(parents=True)
    write_parquet(pa.Table.from_pylist(rows, schema=scan_schema(GUARDS)), work / "scan" / "part-00000.parquet")
    ids = [f"{name}:0" for name in single] + [f"group-{g}:{k}" for g in range(groups) for k in range(3)]
    index = KnownIndex.open(work / "known", GUARDS, digests_of(list(GUARDS)))
    index.append([f"reference:{i}" for i in range(20)], ["reference"] * 20, {name: directions(rng, 20) for name in GUARDS})
    vectors = {name: np.concatenate([photos_of(rng, people, photos), directions(rng, 3 * groups)]) for name in GUARDS}
    index.append(ids, ["collection"] * len(ids), vectors)
    offered, admitted = pool
    certificates = [{"recognizer": name, "threshold": 0.363 if name == "sface" else 0.9} for name in GUARDS]
    identities = [
        {
            "identity_id": str(i),
            "seed": i,
            "certificates": certificates,
            **{embedding_column(name): directions(rng, 1)[0].tolist() for name in GUARDS},
        }
        for i in range(admitted)
    ]
    table = pa.Table.from_pylist(identities, schema=pool_schema(GUARDS))
    Ledger(str(folder / "out"), str(work)).commit_part(POOL, 0, {"pool": table}, {"images": offered, "faces": admitted, "cpu_seconds": 2.0})
    return work
