"""The units of a collection as they were listed: in a Parquet file, because there may be millions of them.

A listing is written as it comes, in the order of `Collection.units`, which depends on nothing but the names. In memory stays a byte for
each unit. What is decided about units is said by their numbers (`Units`), and workers are given ranges of rows (`Units.plain`).
"""

from __future__ import annotations

import hashlib
import json
import time
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mfmc_ray.collection import Collection
from mfmc_ray.places import replace_file
from mfmc_ray.tables import UNITS

ROW = dict[str, Any]
ROWS = 16_384
"""Units in a row group."""
_KINDS = ("file", "parquet", "tar")


class Digest:
    """sha-256 over listings, as if over their JSON.

    Args:
        several: a list of listings; one otherwise.
    """

    def __init__(self, several: bool = True) -> None:
        self._sum, self._several, self._listings, self._units = hashlib.sha256(b"[" if several else b""), several, 0, 0

    def begin(self) -> None:
        """What comes is of another listing."""
        self._sum.update(b"], [" if self._listings else b"[")
        self._listings, self._units = self._listings + 1, 0

    def add(self, unit: Mapping[str, Any]) -> None:
        """A unit, without the time of the listing: the same again as long as the file is."""
        plain = {name: value for name, value in unit.items() if name != "listed"}
        self._sum.update((b", " if self._units else b"") + json.dumps(plain, sort_keys=True).encode())
        self._units += 1

    def value(self) -> str:
        """Hex, of what was added so far."""
        whole = self._sum.copy()
        whole.update((b"]" if self._listings else b"") + (b"]" if self._several else b""))
        return whole.hexdigest()


class Listing(Sequence[ROW]):
    """The units in a Parquet file, rows of `tables.UNITS`, each once though patterns may name it twice. Iterating reads the file.

    Attributes:
        path: the file.
        kinds: uint8 (n,), of each unit its place in file, parquet, tar.
    """

    def __init__(self, path: Path, kinds: NDArray[np.uint8]) -> None:
        self.path, self.kinds = path, kinds

    @classmethod
    def write(cls, path: Path, collection: Collection, digest: Digest) -> Listing:
        """Lists a collection.

        Args:
            path: of the file; its folder is made.
            collection: to list.
            digest: is given the units.

        Raises:
            CollectionError: as `Collection.units`.
        """
        kinds = bytearray()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        digest.begin()

        def write(to: Path) -> None:
            with pq.ParquetWriter(to, UNITS, compression="zstd") as writer:
                rows = once(collection)
                while some := list(islice(rows, ROWS)):
                    for row in some:
                        digest.add(row)
                        kinds.append(_KINDS.index(row["kind"]))
                    writer.write_table(pa.Table.from_pylist(some, UNITS))

        replace_file(path, write)
        return cls(path, np.frombuffer(bytes(kinds), np.uint8))

    def __len__(self) -> int:
        return len(self.kinds)

    def __iter__(self) -> Iterator[ROW]:
        for batch in pq.ParquetFile(self.path).iter_batches(ROWS, use_threads=False):
            yield from batch.to_pylist()

    @overload
    def __getitem__(self, index: int) -> ROW: ...
    @overload
    def __getitem__(self, index: slice) -> list[ROW]: ...
    def __getitem__(self, index: int | slice) -> ROW | list[ROW]:
        if isinstance(index, slice):
            return list(self.rows(range(*index.indices(len(self)))))
        return next(self.rows([range(len(self))[index]]))

    def rows(self, numbers: Iterable[int]) -> Iterator[ROW]:
        """Some units, in this order; cheap if it is theirs."""
        file, first, rows = pq.ParquetFile(self.path), 0, list[ROW]()
        for number in numbers:
            if not first <= number < first + len(rows):
                first = number // ROWS * ROWS
                rows = file.read_row_group(number // ROWS, use_threads=False).to_pylist()
            yield rows[number - first]


class Units(Sequence[ROW]):
    """Some units of a listing.

    Attributes:
        listing: all of them; a list of few will do.
        numbers: int64 (n,), rows of it.
    """

    def __init__(self, listing: Sequence[ROW], numbers: Iterable[int]) -> None:
        self.listing, self.numbers = listing, np.array(array("q", numbers), np.int64)

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[ROW]:
        numbers = self.numbers.tolist()
        return self.listing.rows(numbers) if isinstance(self.listing, Listing) else (self.listing[i] for i in numbers)

    @overload
    def __getitem__(self, index: int) -> ROW: ...
    @overload
    def __getitem__(self, index: slice) -> Units: ...
    def __getitem__(self, index: int | slice) -> ROW | Units:
        if isinstance(index, slice):
            return Units(self.listing, self.numbers[index].tolist())
        return self.listing[int(self.numbers[index])]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    @property
    def are_files(self) -> NDArray[np.bool_]:
        """Which of them are a file, and no shard: bool (n,)."""
        if isinstance(self.listing, Listing):
            return np.asarray(self.listing.kinds[self.numbers] == 0)
        return np.array([unit["kind"] == "file" for unit in self], bool)

    def plain(self) -> list[ROW] | dict[str, Any]:
        """Plain data that `rows_of` takes: the units, or of a file's where they are in it."""
        if not isinstance(self.listing, Listing):
            return list(self)
        if not len(self):
            return []
        starts = np.flatnonzero(np.diff(self.numbers, prepend=-2) != 1)
        stops = [*starts[1:].tolist(), len(self.numbers)]
        ranges = [[int(self.numbers[a]), int(self.numbers[b - 1]) + 1] for a, b in zip(starts.tolist(), stops, strict=True)]
        return {"listing": str(self.listing.path), "rows": ranges}


def rows_of(plain: list[ROW] | dict[str, Any]) -> list[ROW]:
    """The units that `Units.plain` told of."""
    if isinstance(plain, list):
        return plain
    listing = Listing(Path(plain["listing"]), np.zeros(0, np.uint8))
    return list(listing.rows(i for start, stop in plain["rows"] for i in range(start, stop)))


def listed(collection: Collection) -> list[ROW]:
    """The units of a small collection."""
    return list(once(collection))


def once(collection: Collection) -> Iterator[ROW]:
    """The units of a collection as plain data (`tables.UNITS`), each once."""
    now, seen = time.time_ns(), set[bytes]()
    for unit in collection.units():
        if collection.may_repeat:
            key = hashlib.blake2b(unit.unit.encode(), digest_size=16).digest()
            if key in seen:
                continue
            seen.add(key)
        yield {**asdict(unit), "listed": now}
