"""Which parts a run consists of: of the listing for the scan, of the scan for all that follows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow.parquet as pq

from mfmc_ray.collection import Collection
from mfmc_ray.ledger import Ledger, LedgerError
from mfmc_ray.pipeline.known import files_of_stage
from mfmc_ray.pipeline.workers import SCAN

PART_BYTES = 256 << 20
"""Source bytes of one output part at most, so that a part fits into a worker's memory."""


def anonymize_parts(ledger: Ledger, rows_per_part: int) -> list[dict[str, Any]]:
    """Slices of the scan's files, a part each, with the duplicates in them."""
    parts: list[dict[str, Any]] = []
    first: dict[str, str] = {}
    for file in files_of_stage(ledger, SCAN):
        table = pq.read_table(file, columns=["image_id", "path", "source_bytes"])
        ids, paths = table["image_id"].to_pylist(), table["path"].to_pylist()
        sizes = [size or 0 for size in table["source_bytes"].to_pylist()]
        start, held = 0, 0
        for row in range(len(ids) + 1):
            full = row - start >= rows_per_part or (row > start and row < len(ids) and held + sizes[row] > PART_BYTES)
            if row == len(ids) or full:
                if row > start:
                    name = str(file.relative_to(ledger.work))
                    parts.append({"part": len(parts), "file": name, "start": start, "stop": row, "duplicates": {}})
                start, held = row, 0
            if row < len(ids):
                held += sizes[row]
        for part in parts:
            if part["file"] != str(file.relative_to(ledger.work)):
                continue
            for row in range(part["start"], part["stop"]):
                if ids[row] is None:
                    continue
                if ids[row] in first:
                    part["duplicates"][str(row - part["start"])] = f"duplicate of {first[ids[row]]}"
                else:
                    first[ids[row]] = paths[row]
    if not parts:
        raise LedgerError("nothing was scanned yet; run `mfmc scan` first")
    return parts


def images_in(parts: Sequence[dict[str, Any]]) -> int:
    return sum(part["stop"] - part["start"] for part in parts)


def listed(collection: Collection) -> list[dict[str, Any]]:
    return [{"unit": u.unit, "path": u.path, "kind": u.kind, "size": u.size, "version": u.version} for u in collection.units()]


def grouped(units: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Units in parts that depend on the listing only: a shard by itself, files in runs."""
    size = 8 if len(units) < 400 else 32 if len(units) < 10_000 else 128
    group: list[dict[str, Any]] = []
    for unit in units:
        if unit["kind"] != "file":
            yield [unit | {"part": 0}]
            continue
        group.append(unit | {"part": 0})
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
