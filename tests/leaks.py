"""Looks for private things in published files: embeddings in any usual encoding, and byte strings."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.spatial import cKDTree

LONGEST = 10
"""Numbers of the longest published list, a face's five points."""
ENCODINGS = ("<f4", ">f4", "<f8", ">f8", "<f2", ">f2")
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


@dataclass
class Secrets:
    """What must not be found.

    Attributes:
        vectors: float32 (n, d) each: embeddings, meshes.
        texts: what it is → its bytes.
    """

    vectors: list[NDArray[np.float32]]
    texts: dict[str, bytes]

    def __post_init__(self) -> None:
        self._keys = {kind: self._starts(kind) for kind in ENCODINGS}
        runs = [np.lib.stride_tricks.sliding_window_view(v, 4, axis=1).reshape(-1, 4) for v in self.vectors]
        self._tree = cKDTree(np.concatenate(runs).astype(np.float64))

    def _starts(self, kind: str) -> NDArray[np.uint64]:
        """Every run of numbers of every vector that takes eight bytes."""
        numbers = max(1, 8 // np.dtype(kind).itemsize)
        runs = [np.lib.stride_tricks.sliding_window_view(v.astype(kind), numbers, axis=1).reshape(-1, numbers) for v in self.vectors]
        keys: NDArray[np.uint64] = np.unique(np.concatenate([np.ascontiguousarray(run).view(np.uint64) for run in runs]))
        return keys[keys != 0]

    def in_bytes(self, data: bytes) -> list[str]:
        """Which secrets these bytes hold, at any offset."""
        found = [what for what, needle in self.texts.items() if needle in data]
        if len(data) < 8:
            return found
        windows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data, np.uint8), 8)
        seen = np.unique(np.ascontiguousarray(windows).view(np.uint64))
        return found + [f"a vector as {kind}" for kind, keys in self._keys.items() if np.isin(keys, seen, assume_unique=True).any()]

    def in_text(self, data: bytes) -> list[str]:
        """Whether four consecutive numbers of a vector are written out, to four decimals."""
        numbers = np.array([float(number) for number in _NUMBER.findall(data)])
        if len(numbers) < 4:
            return []
        runs = np.clip(np.lib.stride_tricks.sliding_window_view(numbers, 4), -1e9, 1e9)
        distances, _ = self._tree.query(runs, p=np.inf, distance_upper_bound=6e-5)
        return ["a vector as decimals"] if np.isfinite(distances).any() else []


def findings(out: Path, secrets: Secrets, schemas: Mapping[str, pa.Schema]) -> list[str]:
    """Everything private that a published folder holds: "file: what"."""
    found = []
    for path in sorted(out.rglob("*")):
        if path.is_file():
            name = str(path.relative_to(out))
            whats = _in_file(path, secrets, schemas.get(name.partition("/")[0]))
            found += [f"{name}: {what}" for what in dict.fromkeys(whats)] + secrets_in_name(name, secrets)
    return found


def secrets_in_name(name: str, secrets: Secrets) -> list[str]:
    """The same of a file's name."""
    return [f"{name}: its name has {what}" for what in secrets.in_bytes(name.encode())]


def _in_file(path: Path, secrets: Secrets, schema: pa.Schema | None) -> Iterator[str]:
    data = path.read_bytes()
    yield from secrets.in_bytes(data)
    if path.suffix == ".parquet":
        # as it is decoded, too: what is compressed or in a dictionary shows nothing to a search of bytes
        table = pq.read_table(pa.BufferReader(data))
        if schema is None or not table.schema.equals(schema) or table.schema.metadata != schema.metadata:
            yield "columns that tables.py does not have"
        for field in table.schema:
            yield from _in_type(field.name, field.type)
        for column in table.columns:
            for chunk in column.chunks:
                yield from _in_array(chunk, secrets)
    else:
        yield from secrets.in_text(data)
        for text in re.findall(rb"base64,([A-Za-z0-9+/=]+)", data):
            yield from secrets.in_bytes(base64.b64decode(text))


def _in_type(name: str, kind: pa.DataType) -> Iterator[str]:
    """Lists that could be an embedding or a mesh."""
    if pa.types.is_struct(kind):
        for field in kind:
            yield from _in_type(f"{name}.{field.name}", field.type)
    elif pa.types.is_fixed_size_list(kind):
        if kind.list_size > LONGEST:
            yield f"{name} has {kind.list_size} numbers"
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        if not pa.types.is_struct(kind.value_type):
            yield f"{name} is a list of any length"
        yield from _in_type(name, kind.value_type)


def _in_array(array: Any, secrets: Secrets) -> Iterator[str]:
    kind = array.type
    if pa.types.is_struct(kind):
        for i in range(kind.num_fields):
            yield from _in_array(array.field(i), secrets)
    elif pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield from _in_array(array.flatten(), secrets)
    elif pa.types.is_floating(kind):
        yield from secrets.in_bytes(array.drop_null().to_numpy(zero_copy_only=False).tobytes())
    elif pa.types.is_binary(kind) or pa.types.is_string(kind):
        joined = io.BytesIO()
        for value in array.drop_null().to_pylist():
            joined.write(value if isinstance(value, bytes) else value.encode() + b"\n")
        yield from secrets.in_bytes(joined.getvalue())


def vectors_of(work: Path) -> list[NDArray[np.float32]]:
    """Every list of 64 numbers and more that the private folder's tables hold: float32 (n, d) of each column."""
    found = []
    for path in sorted(work.rglob("*.parquet")):
        table = pq.read_table(path)
        for column in table.columns:
            for chunk in column.chunks:
                found += [vectors for vectors in _long_lists(chunk) if len(vectors)]
    return found


def _long_lists(array: Any) -> Iterator[NDArray[np.float32]]:
    kind = array.type
    if pa.types.is_fixed_size_list(kind) and kind.list_size >= 64:
        yield array.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, kind.list_size)
    elif pa.types.is_list(kind):
        yield from _long_lists(array.flatten())
    elif pa.types.is_struct(kind):
        for i in range(kind.num_fields):
            yield from _long_lists(array.field(i))
