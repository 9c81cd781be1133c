"""What was scanned, by unit, from the rows of a scan: columns, about 200 bytes for a file, rather than objects."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mfmc_ray.boxes import Boxes
from mfmc_ray.ledger import Ledger, LedgerError, Stage

PASSING = frozenset({"vanished", "unreadable", "no_permission", "damaged_tar", "damaged_parquet"})
"""Reasons of images that are worth another try."""
_MANY = 16_384
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Scanned:
    """A unit as it was scanned.

    Attributes:
        part: of the scan.
        size, version, listed: as in `tables.UNITS`; None of an older version's rows.
        images: image_id of each of its images; None of one that could not be read.
        retry: whether an image failed for a reason that may have passed.
        path: of its first image, in the collection as it was then; "" without any.
        reboxed: whether the user has given other boxes for one of its images since.
    """

    part: int
    size: int | None
    version: str | None
    listed: int | None
    images: tuple[str | None, ...]
    retry: bool
    path: str = field(default="", compare=False)
    reboxed: bool = False


_COLUMNS = pa.schema(
    [
        ("unit", pa.large_string()),  # large: together they may have more than 2 GB
        ("part", pa.int32()),
        ("size", pa.int64()),
        ("version", pa.large_string()),
        ("listed", pa.int64()),
        ("images", pa.large_list(pa.large_binary())),
        ("retry", pa.bool_()),
        ("path", pa.string()),  # null if it is an end of `unit`, as of all files
        ("tail", pa.int32()),  # its length then
        ("reboxed", pa.bool_()),
    ]
)


class Before(Mapping[str, Scanned]):
    """unit → what was scanned of it.

    Args:
        tables: rows of units; of one that is there twice the last counts. The list is emptied.
    """

    def __init__(self, tables: list[pa.Table]) -> None:
        chunked = pa.concat_tables(tables) if tables else _COLUMNS.empty_table()
        tables.clear()
        columns = []
        while chunked.num_columns:  # one by one, or for a moment all would be there twice
            columns.append(chunked.column(0).combine_chunks())
            chunked = chunked.remove_column(0)
        self._table = pa.table(columns, _COLUMNS)
        hashes = np.fromiter(map(hash, self._names()), np.int64, self._table.num_rows)
        self._order = np.argsort(hashes, kind="stable").astype(np.int32)
        self._hashes = hashes[self._order]
        self._last = np.ones(len(hashes), bool)
        ties = np.flatnonzero(self._hashes[1:] == self._hashes[:-1])
        for i in ties.tolist():  # of a scan that was interrupted, or two names with one hash
            name = self._name(int(self._order[i]))
            self._last[self._order[i]] = name not in {self._name(int(row)) for row in self._tied(i + 1)}

    def __len__(self) -> int:
        return int(self._last.sum())

    def __iter__(self) -> Iterator[str]:
        return (name for name, last in zip(self._names(), self._last.tolist(), strict=True) if last)

    def __getitem__(self, unit: str) -> Scanned:
        (row,) = self.rows_of([unit])
        if row < 0:
            raise KeyError(unit)
        return next(self.at([row]))

    def rows_of(self, units: Sequence[str]) -> list[int]:
        """Rows, −1 of units that were not scanned."""
        at = np.searchsorted(self._hashes, np.fromiter(map(hash, units), np.int64, len(units))).tolist()
        return [self._row(unit, i) for unit, i in zip(units, at, strict=True)]

    def at(self, rows: Sequence[int]) -> Iterator[Scanned]:
        """What was scanned of the units in some rows."""
        for one in self._table.take(pa.array(rows, pa.int64())).to_pylist():
            name, images, tail = one.pop("unit"), one.pop("images"), one.pop("tail")
            path = name[len(name) - tail :] if one["path"] is None else one["path"]
            yield Scanned(**{**one, "path": path, "images": tuple(map(_text, images))})

    def part(self, unit: str) -> int:
        """The part that a unit is in."""
        (row,) = self.rows_of([unit])
        return int(self._table["part"][row].as_py())

    def left(self, seen: np.ndarray[Any, np.dtype[np.bool_]]) -> Names:
        """The units that were not seen, bool of each row."""
        return Names(self._table["unit"].filter(pa.array(self._last & ~seen)))

    @classmethod
    def of(cls, before: Mapping[str, Scanned]) -> Before:
        """The same, if it is no such thing yet."""
        return before if isinstance(before, cls) else cls([_packed(list(before.items()))] if before else [])

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return int(self._table.num_rows)

    def held(self) -> Counter[int]:
        """Units by part."""
        parts, counts = np.unique(np.asarray(self._table["part"])[self._last], return_counts=True)
        return Counter(dict(zip(parts.tolist(), counts.tolist(), strict=True)))

    def shards(self) -> set[int]:
        """Parts with units that do not hold just one image."""
        return set(self._table["part"].filter(pc.not_equal(pc.list_value_length(self._table["images"]), 1)).to_pylist())

    def any_reboxed(self) -> bool:
        return bool(pc.any(self._table["reboxed"]).as_py())

    def _row(self, unit: str, at: int) -> int:
        for row in self._tied(at):
            if self._last[row] and self._name(int(row)) == unit:
                return int(row)
        return -1

    def _tied(self, at: int) -> Iterator[int]:
        """Rows with the hash of the one at this place in the order of hashes, from there on."""
        first = at
        while at < len(self._hashes) and self._hashes[at] == self._hashes[first]:
            yield int(self._order[at])
            at += 1

    def _name(self, row: int) -> str:
        return str(self._table["unit"][row].as_py())

    def _names(self) -> Iterator[str]:
        for chunk in self._table["unit"].chunks:
            for start in range(0, len(chunk), _MANY):
                yield from chunk.slice(start, _MANY).to_pylist()


class Names(Sequence[str]):
    """Strings, in an Arrow column."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, index: Any) -> Any:
        return self._column[index].as_py() if isinstance(index, int) else self._column[index].to_pylist()

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self._column), _MANY):
            yield from self._column.slice(start, _MANY).to_pylist()


def scanned(ledger: Ledger, stage: Stage, boxes: Boxes | None = None) -> Before:
    """What was scanned of each unit, from the committed parts of a scan, as against the boxes that the user gives now.

    Raises:
        LedgerError: it was made by an older version.
    """
    tables, rows = [], list[tuple[str, Scanned]]()
    for part, summary in ledger.done(stage).items():
        for unit in summary.get("empty", ()):
            rows.append((unit["unit"], Scanned(part, unit["size"], unit["version"], unit["listed"], (), False)))
        rows += _units_of(ledger, stage, part, boxes)
        if len(rows) >= _MANY:
            tables.append(_packed(rows))
            rows = []
    tables += [_packed(rows)] if rows else []
    return Before(tables)


def _units_of(ledger: Ledger, stage: Stage, part: int, boxes: Boxes | None) -> Iterator[tuple[str, Scanned]]:
    """The units of a part."""
    file = pq.ParquetFile(ledger.work / stage.tables[0] / f"part-{part:05d}.parquet")
    columns = ("unit", "image_id", "reason", "boxes", "path", "unit_size", "unit_version", "unit_listed")
    if not set(columns) <= set(file.schema_arrow.names):
        raise LedgerError(f"WORK ({ledger.work}) was made by an older version of mfmc-ray; start anew with --restart")
    images: dict[str, list[str | None]] = {}
    retry: set[str] = set()
    reboxed: set[str] = set()
    first: dict[str, tuple[Any, ...]] = {}
    for batch in file.iter_batches(columns=list(columns)):
        for unit, image, reason, given, path, *listed in zip(*(batch.column(name).to_pylist() for name in columns), strict=True):
            images.setdefault(unit, []).append(image)
            first.setdefault(unit, (path, *listed))
            if reason is not None and reason.split(":")[0] in PASSING:
                retry.add(unit)
            if image is not None and given != (boxes.version(image, path) if boxes else None):
                reboxed.add(unit)
    for unit, ids in images.items():
        path, size, version, at = first[unit]
        yield unit, Scanned(part, size, version, at, tuple(ids), unit in retry, path, unit in reboxed)


def _packed(rows: Sequence[tuple[str, Scanned]]) -> pa.Table:
    columns: dict[str, list[Any]] = {one.name: [getattr(row, one.name) for _, row in rows] for one in fields(Scanned)}
    columns["images"] = [[_bytes(image) for image in images] for images in columns["images"]]
    ends = [unit.endswith(path) for (unit, _), path in zip(rows, columns["path"], strict=True)]
    columns["tail"] = [len(path) if end else None for path, end in zip(columns["path"], ends, strict=True)]
    columns["path"] = [None if end else path for path, end in zip(columns["path"], ends, strict=True)]
    return pa.table({"unit": [unit for unit, _ in rows], **columns}, _COLUMNS)


def _bytes(image: str | None) -> bytes | None:
    """An image_id in half the space."""
    if image is None:
        return None
    return b"\0" + bytes.fromhex(image) if _SHA256.fullmatch(image) else b"\1" + image.encode()


def _text(image: bytes | None) -> str | None:
    if image is None:
        return None
    return image[1:].decode() if image[:1] == b"\1" else image[1:].hex()
