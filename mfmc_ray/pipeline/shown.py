"""What the page of an evaluation shows of OUT: only what is published there, and no path."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mfmc_ray.codec import CodecError, decode
from mfmc_ray.evaluate.page import Guarded, Published
from mfmc_ray.evaluate.sheets import face_crop
from mfmc_ray.faces.faces import Image
from mfmc_ray.ledger import Ledger
from mfmc_ray.pipeline.publish import sample

FACES_SHOWN, CLOSEST_SHOWN = 64, 16
_SIDE = 96  # px of a tile
_MARGIN = 0.2  # of the box: little else than the face
_BIN = 0.02  # cosines


def published_of(ledger: Ledger) -> Published | None:
    """What there is to show of a run's OUT; None of a plain folder, which does not say whose faces it shows.

    Args:
        ledger: whose OUT it is. Nothing is written.
    """
    if not ledger.files("images"):
        return None
    images, faces = sample(ledger)
    return shown(json.loads(ledger.read_text("manifest.json")), images, faces)


def shown(manifest: Mapping[str, Any], images: pa.Table, faces: pa.Table) -> Published:
    """The same of tables as of `mfmc_ray.tables`; of `images` a sample will do."""
    replaced = faces.filter(pc.equal(faces["verdict"], "replaced"))
    redacted = faces.filter(pc.equal(faces["verdict"], "redacted"))
    reasons = Counter(reason or "not stated" for reason in redacted["reason"].to_pylist())
    kept = pc.unique(faces.filter(pc.equal(faces["verdict"], "kept"))["path"])
    alone = replaced.filter(pc.invert(pc.is_in(replaced["path"], kept)))  # a kept face beside it would be somebody's own
    return Published(manifest, _guarded(replaced), dict(reasons), _tiles(images, alone))


def _guarded(replaced: pa.Table) -> list[Guarded]:
    certificates = pc.list_flatten(replaced["certificates"])
    names, closest, limits = (pc.struct_field(certificates, name) for name in ("recognizer", "max_similarity", "threshold"))
    found = []
    for name in pc.unique(names).drop_null().to_pylist():
        mine = pc.equal(names, name)
        values, under = (np.asarray(c.filter(mine).to_numpy(zero_copy_only=False), np.float64) for c in (closest, limits))
        some = np.isfinite(values)
        bins = np.floor(np.clip(values[some], -1, 1) / _BIN).astype(np.int64)
        first = int(bins.min(initial=0)) if len(bins) else 0
        lowest = float(np.nanmin(under)) if np.isfinite(under).any() else None
        broken = int((~(values < under)).sum())  # what is not recorded does not hold
        counts = np.bincount(bins - first).tolist() if len(bins) else []
        found.append(Guarded(name, lowest, float(values[some].max()) if some.any() else None, first * _BIN, _BIN, counts, broken))
    return found


def _tiles(images: pa.Table, replaced: pa.Table) -> list[Image]:
    """Replaced faces of these images: those with the narrowest margins, then in the order of their hashes, each image's by turns."""
    rows = replaced.select(["image_id", "path", "face_no", "box", "threshold", "max_similarity_to_known"]).to_pylist()
    at = {path: i for i, path in enumerate(images["path"].to_pylist())}
    rows = [row for row in rows if row["path"] in at and row["box"] is not None]

    def margin(row: Mapping[str, Any]) -> float:
        limit, similarity = row["threshold"], row["max_similarity_to_known"]
        return float("inf") if limit is None or similarity is None else float(limit - similarity)

    closest = sorted(rows, key=margin)[:CLOSEST_SHOWN]
    spread = sorted(rows, key=lambda row: (row["face_no"], row["image_id"] or ""))
    chosen = {(row["path"], row["face_no"]): row for row in [*closest, *spread]}
    listed = list(chosen.values())[:FACES_SHOWN]
    tiles: dict[tuple[str, int], Image] = {}
    for path in dict.fromkeys(row["path"] for row in listed):
        data = (images["image"][at[path]].as_py() or {}).get("bytes")
        try:
            picture = decode(data).pixels if data else None  # one at a time: only its tiles stay in memory
        except CodecError:
            picture = None
        if picture is not None:
            mine = (row for row in listed if row["path"] == path)
            tiles |= {(path, row["face_no"]): face_crop(picture, row["box"], margin=_MARGIN, side=_SIDE) for row in mine}
    return [tiles[key] for row in listed if (key := (row["path"], row["face_no"])) in tiles]
