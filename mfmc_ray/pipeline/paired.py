"""Which pictures an evaluation looks at: each image of a collection with what became of it, in parts that workers share out.

OUT is what a run has published, or a plain folder of pictures with the same relative paths (of another tool, or of a baseline).
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from mfmc_ray.collection import Collection, CollectionError
from mfmc_ray.evaluate.pairing import VERSION
from mfmc_ray.ledger import Ledger, LedgerError
from mfmc_ray.sources import Unit, read_unit

IMAGES_PER_PART = 12
"""Few, so that little is done again after a kill."""
Place = dict[str, Any]
"""Where an image's bytes are: `unit`, `locator`, `size`; or of what is published `file` and `row`."""

_COLUMNS = ["image_id", "path", "verdict"]


@dataclass(frozen=True)
class Plan:
    """What there is to look at.

    Attributes:
        parts: plain data with `part`, its number, `digest`, which changes when anything of it does, and `pairs`.
        images: pairs in all.
        missing: images of OUT whose original is not in the collection.
        absent: images of the collection that OUT does not have.
        guards: recognizers that guarded the run; none of a plain folder.
        plain: whether OUT is one.
    """

    parts: list[dict[str, Any]]
    images: int
    missing: int
    absent: int
    guards: tuple[str, ...]
    plain: bool


def plan(originals: str, ledger: Ledger, options: Mapping[str, Any]) -> Plan:
    """Pairs the images of a collection with those of OUT.

    Args:
        originals: as `Collection.open` takes it.
        ledger: whose OUT it is.
        options: for fsspec.

    Raises:
        CollectionError: there are no originals, or nothing in OUT.
        LedgerError: OUT is a run's that is not finished, or is of other originals.
    """
    sources = dict(places_of(originals, options))
    published = ledger.files("images")
    found = _published(sources, published, ledger) if published else _plain(sources, ledger, options)
    if not found.images:
        raise LedgerError(f"no image of {ledger.out} is one of {originals}: give the collection that it was made from")
    return found


def places_of(collection: str, options: Mapping[str, Any]) -> Iterator[tuple[str, Place]]:
    """Path and place of each image of a collection. Shards are read for it."""
    for unit in Collection.open(collection, options).units():
        if unit.kind == "file":
            yield unit.path, {"unit": unit.unit, "locator": {"kind": "file"}, "size": unit.size, "version": unit.version}
        else:
            yield from ((path, place | {"version": unit.version}) for path, place in _in_shard(unit, options))


def _in_shard(unit: Unit, options: Mapping[str, Any]) -> Iterator[tuple[str, Place]]:
    for source in read_unit(unit, options):
        if source.data is not None:
            yield source.path, {"unit": source.unit, "locator": source.locator, "size": len(source.data)}


def _published(sources: Mapping[str, Place], files: Iterable[str], ledger: Ledger) -> Plan:
    try:
        manifest = json.loads(ledger.read_text("manifest.json"))
        guards = tuple(str(entry["recognizer"]) for entry in manifest["guard"])
    except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
        raise LedgerError(f"{ledger.out} has no manifest that can be read, so it is unfinished: run `mfmc anonymize` to its end") from error
    parts: list[dict[str, Any]] = []
    seen: set[str] = set()
    missing = 0
    for file in files:
        data = ledger.read_bytes(file)
        faces = file.replace("images/", "faces/", 1)
        try:
            digest = hashlib.sha256(data + ledger.read_bytes(faces)).hexdigest()
        except FileNotFoundError:
            faces, digest = "", hashlib.sha256(data).hexdigest()
        rows = pq.read_table(io.BytesIO(data), columns=_COLUMNS).to_pylist()
        pairs = []
        for number, row in enumerate(rows):
            place = sources.get(row["path"])
            missing += place is None
            seen.add(row["path"])
            if place is not None and row["image_id"] is not None:
                pairs.append({**row, "original": place, "output": {"file": file, "row": number}, "faces": faces})
        parts += _parts(pairs, len(parts), digest)
    images = sum(len(part["pairs"]) for part in parts)
    return Plan(parts, images, missing, len(sources.keys() - seen), guards, plain=False)


def _plain(sources: Mapping[str, Place], ledger: Ledger, options: Mapping[str, Any]) -> Plan:
    outputs = dict(places_of(ledger.out, options))
    stems = Counter(_stem(path) for path in sources)
    others = {_stem(path): place for path, place in outputs.items()}
    pairs = []
    for path in sorted(sources):
        # another tool may have written another format
        output = outputs.get(path) or (others.get(_stem(path)) if stems[_stem(path)] == 1 else None)
        verdict = "changed" if output else "missing"
        pairs.append({"image_id": None, "path": path, "verdict": verdict, "original": sources[path], "output": output, "faces": None})
    absent = sum(pair["output"] is None for pair in pairs)
    if absent == len(pairs):
        raise CollectionError(f"{ledger.out} has no picture with the path of an original: wanted the same names in the same folders")
    strange = sum(_stem(path) not in stems for path in outputs)
    return Plan(_parts(pairs, 0, ""), len(pairs), strange, absent, (), plain=True)


def _stem(path: str) -> str:
    return path.rpartition(".")[0] or path


def _parts(pairs: list[dict[str, Any]], first: int, digest: str) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for start in range(0, len(pairs), IMAGES_PER_PART):
        some = pairs[start : start + IMAGES_PER_PART]
        made = hashlib.sha256(json.dumps([VERSION, digest, some], sort_keys=True).encode()).hexdigest()
        parts.append({"part": first + len(parts), "digest": made, "pairs": some})
    return parts


class Outputs:
    """Reads what is published; the last files stay open."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._images: tuple[str, Any] = ("", None)
        self._column: tuple[int, Any] = (-1, None)
        self._faces: tuple[str, dict[str, list[dict[str, Any]]]] = ("", {})

    def image(self, file: str, row: int) -> bytes | None:
        """The published bytes; None if there are none."""
        if self._images[0] != file:
            opened = pq.ParquetFile(io.BytesIO(self._ledger.read_bytes(file)))
            self._images, self._column = (file, opened), (-1, None)
        parquet, start = self._images[1], 0
        for group in range(parquet.num_row_groups):
            stop = start + parquet.metadata.row_group(group).num_rows
            if row < stop:
                if self._column[0] != group:
                    self._column = group, parquet.read_row_group(group, columns=["image"])["image"]
                value = self._column[1][row - start].as_py()
                return None if value is None else value["bytes"]
            start = stop
        raise LedgerError(f"{file} has no row {row}: OUT was changed meanwhile; run the same command again")

    def faces(self, file: str, path: str) -> list[dict[str, Any]]:
        """The rows of an image's faces, by number."""
        if not file:
            return []
        if self._faces[0] != file:
            columns = ["path", "face_no", "box", "verdict", "reason", "identity_id", "points"]
            rows: dict[str, list[dict[str, Any]]] = {}
            for row in pq.read_table(io.BytesIO(self._ledger.read_bytes(file)), columns=columns).to_pylist():
                rows.setdefault(row["path"], []).append(row)
            self._faces = file, rows
        return sorted(self._faces[1].get(path, []), key=lambda row: row["face_no"])
