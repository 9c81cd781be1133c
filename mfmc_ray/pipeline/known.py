"""The known faces of a run: the scans that they come from, and the index built from these."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mfmc_ray.faces.faces import F32
from mfmc_ray.faces.pack import digests_of
from mfmc_ray.identities.model import load_model
from mfmc_ray.known.index import KnownIndex
from mfmc_ray.known.search import usable
from mfmc_ray.ledger import Ledger, Stage
from mfmc_ray.pipeline.anonymize import LEAST_MESH_SCORE
from mfmc_ray.pipeline.rows import matrix
from mfmc_ray.pipeline.workers import GALLERY, SCAN
from mfmc_ray.tables import embedding_column

_ADDED = "galleries.json"


def gallery_stages(ledger: Ledger, configured: int) -> list[Stage]:
    """The scans of the galleries: of those in the settings, then of those that were added to the finished run."""
    count = configured + len(added_galleries(ledger))
    return [replace(GALLERY, name=f"gallery-{n}", tables=(f"gallery-{n}",)) for n in range(count)]


def added_galleries(ledger: Ledger) -> list[str]:
    """What tells the added galleries apart: the digest of each one's listing, in the order in which they came."""
    path = ledger.work / _ADDED
    return list(json.loads(path.read_text())) if path.is_file() else []


def note_gallery(ledger: Ledger, digest: str) -> int:
    """Notes an added gallery; its place among the added ones, the same if it was there already."""
    added = added_galleries(ledger)
    if digest not in added:
        added.append(digest)
        temporary = ledger.work / (_ADDED + ".tmp")
        temporary.write_text(json.dumps(added))
        temporary.replace(ledger.work / _ADDED)
    return added.index(digest)


def files_of_stage(ledger: Ledger, stage: Stage) -> list[Path]:
    """The committed files of a private stage, in order."""
    return [ledger.work / stage.tables[0] / f"part-{part:05d}.parquet" for part in sorted(ledger.done(stage))]


def build_index(
    ledger: Ledger, galleries: Sequence[Stage], recognizers: Mapping[str, int], min_face: float, *, vectors: bool = True
) -> KnownIndex:
    """The index with every known face of the scans in it: a generation for each source that brings new ones.

    Args:
        ledger: the folders.
        galleries: their stages.
        recognizers: guard recognizer → dimension.
        min_face: smaller faces are not known.
        vectors: as of `KnownIndex.open`.
    """
    index = KnownIndex.open(ledger.work / "known", recognizers, digests_of(list(recognizers)), vectors=vectors)
    if index.generation < 0:
        references = load_model().references
        names = [f"reference:{i}" for i in range(len(references[next(iter(recognizers))]))]
        index.append(names, ["reference"] * len(names), {name: references[name] for name in recognizers})
    for stage, source in [*((stage, "gallery") for stage in galleries), (SCAN, "collection")]:
        ids, found = known_of(ledger, stage, source, recognizers, min_face)
        if ids:
            index.append(ids, [source] * len(ids), found)
    return index


def known_of(
    ledger: Ledger, stage: Stage, source: str, recognizers: Mapping[str, int], min_face: float
) -> tuple[list[str], dict[str, F32]]:
    """The known faces of one scan: their ids and, for each recognizer, float32 (n, d)."""
    ids: list[str] = []
    vectors: dict[str, list[F32]] = {name: [] for name in recognizers}
    seen: set[str] = set()
    for file in files_of_stage(ledger, stage):
        table = pq.read_table(file, columns=["image_id", "faces"])
        names, flat = named_faces(table, source)
        arrays = {name: matrix(flat.field(embedding_column(name)), dim) for name, dim in recognizers.items()}
        good = np.all([usable(array) for array in arrays.values()], axis=0) & recognisable(flat, min_face)
        keep = []
        for i, name in enumerate(names):
            if good[i] and name not in seen:  # a duplicate's faces are known already
                seen.add(name)
                keep.append(i)
        ids += [names[i] for i in keep]
        for recognizer, array in arrays.items():
            vectors[recognizer].append(array[keep])
    return ids, {name: np.concatenate(parts) for name, parts in vectors.items() if parts}


def named_faces(table: pa.Table, source: str) -> tuple[list[str], pa.StructArray]:
    """The known ids of all faces in rows of a scan (its `image_id` and `faces`), and these faces, one after the other."""
    faces = table["faces"].combine_chunks()
    counts = faces.value_lengths().fill_null(0).to_pylist()
    prefix = "" if source == "collection" else f"{source}:"
    return [f"{prefix}{i}:{k}" for i, n in zip(table["image_id"].to_pylist(), counts, strict=True) for k in range(n)], faces.flatten()


def recognisable(faces: pa.StructArray, min_face: float) -> NDArray[np.bool_]:
    """Which detections (rows of the scan's `faces`) are known faces: bool (n,).

    Left out is what cannot be told from others by anyone, and would only be in every fake's way: detections smaller than `min_face`, and
    those that one detector alone saw and the face mesh denies (hands, patterns). They are redacted, never published.
    """
    box = matrix(faces.field("box"), 4)
    size = np.sqrt(np.clip(box[:, 2] - box[:, 0], 0, None) * np.clip(box[:, 3] - box[:, 1], 0, None))
    confirmed = np.array(["+" in name for name in faces.field("detectors").to_pylist()], bool)
    mesh = np.asarray(faces.field("mesh_score").to_numpy(zero_copy_only=False))
    return np.asarray((size >= min_face) & (confirmed | (mesh >= LEAST_MESH_SCORE)))
