"""The known-face index: the embeddings of every face that a fake must not resemble, in append-only generations.

A generation is `generation-00000.parquet` (`tables.known_schema`) and, written after it, `generation-00000.json`, which commits it. Each
generation's digest covers its rows and the digest before it, so the newest digest names the whole index.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mfmc_ray.known.search import F32, ExactSearch, usable
from mfmc_ray.tables import embedding_column, known_schema

EMPTY_DIGEST = hashlib.sha256(b"mfmc-ray known-face index").hexdigest()
"""The digest of an index without a generation."""


class KnownIndexError(RuntimeError):
    """The index on disk is not what was written, or was made for other recognizers; the message says what to do."""


@dataclass(frozen=True)
class KnownFaces:
    """n known faces as plain arrays: what the stages take, and what Ray shares between actors without copying.

    Attributes:
        ids: bytes (n,), UTF-8, each the known_id of a face; `known_id` reads it.
        vectors: recognizer name → float32 (n, d), C-contiguous, unit length.
        generation: the newest generation of the index, from 0; −1 without one.
        digest: sha-256 of the index, hex.

    Raises:
        ValueError: when the arrays do not have the same number of rows.
    """

    ids: NDArray[np.bytes_]
    vectors: Mapping[str, F32]
    generation: int
    digest: str

    def __post_init__(self) -> None:
        for name, array in self.vectors.items():
            if array.ndim != 2 or len(array) != len(self.ids):
                raise ValueError(f"KnownFaces.vectors[{name!r}] has shape {array.shape}, wanted ({len(self.ids)}, d)")

    def __len__(self) -> int:
        return len(self.ids)

    def known_id(self, row: int) -> str | None:
        """The id of a row; None for −1, which stands for no known face."""
        return None if row < 0 else bytes(self.ids[row]).decode()

    @classmethod
    def empty(cls, recognizers: Mapping[str, int]) -> Self:
        """Nobody is known."""
        return cls(np.zeros(0, "S1"), {name: np.zeros((0, dim), np.float32) for name, dim in recognizers.items()}, -1, EMPTY_DIGEST)


class KnownIndex:
    """The index in a folder. Open it with `KnownIndex.open`; one process at a time may append (the run lock sees to that)."""

    def __init__(self, folder: Path, recognizers: Mapping[str, int], models: Mapping[str, str], faces: KnownFaces) -> None:
        self._folder = folder
        self._recognizers = dict(recognizers)
        self._models = dict(models)
        self.faces = faces
        self._searches: dict[str, ExactSearch] = {}

    @classmethod
    def open(cls, folder: str | Path, recognizers: Mapping[str, int], models: Mapping[str, str] | None = None) -> Self:
        """Reads the committed generations and checks their digests. A folder without any is an empty index.

        Args:
            folder: a local folder on the private side; made by the first `append`.
            recognizers: guard recognizer name → dimension.
            models: guard recognizer name → sha-256 of its weights. Given names must agree with what the index was made with:
                embeddings of different weights cannot be compared.

        Raises:
            KnownIndexError: for a missing, changed or unreadable generation, or one of other recognizers or models.
        """
        folder = Path(folder)
        names = sorted(path.name for path in folder.glob("generation-*.json"))
        parts: list[KnownFaces] = []
        recorded: dict[str, str] = dict(models or {})
        digest = EMPTY_DIGEST
        for generation, name in enumerate(names):
            if name != f"{_stem(generation)}.json":
                raise KnownIndexError(f"{folder}: {_stem(generation)}.json is missing, so known faces are; restore it, or delete the index")
            part, made_with = _read(folder, generation, digest, recognizers)
            for recognizer, sha in made_with.items():
                if recorded.setdefault(recognizer, sha) != sha:
                    raise KnownIndexError(f"{folder / name} was made with another {recognizer} model; delete the index and run `mfmc scan`")
            parts.append(part)
            digest = part.digest
        return cls(folder, recognizers, recorded, _joined(parts) if parts else KnownFaces.empty(recognizers))

    def append(self, ids: Sequence[str], sources: Sequence[str], embeddings: Mapping[str, F32]) -> int:
        """Adds known faces as a new generation; it is there whole or not at all.

        Rows that the index already holds (the same id with the same vectors) are passed over, so a job that was killed after its append
        can repeat it. A known id whose vectors changed is added beside the old one: no known face is ever forgotten.

        Args:
            ids: n known ids (`tables.known_schema`).
            sources: for each, collection, gallery or reference.
            embeddings: for every recognizer of the index float32 (n, d), finite, of unit length.

        Returns:
            the newest generation; the same as before if there was nothing to add.

        Raises:
            ValueError: when the arrays do not fit together or a vector is no embedding.
            KnownIndexError: when another process has appended since this index was opened.
        """
        self._check(ids, sources, embeddings)
        new = self._new(ids, embeddings)
        if not len(new):
            return self.generation
        number = self.generation + 1
        commit = self._folder / f"{_stem(number)}.json"
        if commit.exists():
            raise KnownIndexError(f"{commit} has been written by another process; open the index again and repeat")
        columns: list[pa.Array] = [pa.array([ids[i] for i in new], pa.string()), pa.array([sources[i] for i in new], pa.string())]
        for name, dim in self._recognizers.items():
            columns.append(pa.FixedSizeListArray.from_arrays(pa.array(embeddings[name][new].reshape(-1)), dim))
        table = pa.Table.from_arrays(columns, schema=known_schema(self._recognizers))
        header: dict[str, Any] = {"rows": len(new), "recognizers": self._recognizers, "models": self._models}
        header["created"] = datetime.now(UTC).isoformat(timespec="seconds")
        part = _part(table, self._recognizers, number, _digest(table, number, header, self.digest))
        self._folder.mkdir(parents=True, exist_ok=True)
        # embeddings do not compress
        _replace(
            self._folder / f"{_stem(number)}.parquet", lambda path: pq.write_table(table, path, compression="none", use_dictionary=False)
        )
        _replace(commit, lambda path: path.write_text(json.dumps({**header, "digest": part.digest}, indent=1) + "\n"))
        self.faces = _joined([self.faces, part])
        self._searches.clear()
        return number

    def nearest(self, recognizer: str, queries: F32) -> tuple[F32, list[str | None]]:
        """The most similar known face of each query.

        Args:
            recognizer: the one that made the queries.
            queries: float32 (q, d), C-contiguous, finite, of unit length.

        Returns:
            similarity: float32 (q,), the cosine; −1 when nobody is known.
            known ids: q of them; None when nobody is known.

        Raises:
            ValueError: for a recognizer that the index does not have, or queries that are no embeddings.
        """
        if recognizer not in self._searches:
            self._searches[recognizer] = ExactSearch(self.vectors(recognizer))
        similarity, rows = self._searches[recognizer].top1(queries)
        return similarity, [self.faces.known_id(int(row)) for row in rows]

    def vectors(self, recognizer: str) -> F32:
        """float32 (n, d), unit length: a recognizer's embeddings, oldest first."""
        if recognizer not in self.faces.vectors:
            raise ValueError(f"the index has no embeddings of {recognizer!r}; it has: {', '.join(sorted(self.faces.vectors))}")
        return self.faces.vectors[recognizer]

    @property
    def ids(self) -> list[str]:
        """The known ids, oldest first."""
        return [bytes(i).decode() for i in self.faces.ids]

    @property
    def generation(self) -> int:
        """The newest generation, from 0; −1 without one."""
        return self.faces.generation

    @property
    def digest(self) -> str:
        """sha-256 over every generation, hex."""
        return self.faces.digest

    def __len__(self) -> int:
        return len(self.faces)

    def _check(self, ids: Sequence[str], sources: Sequence[str], embeddings: Mapping[str, F32]) -> None:
        if len(sources) != len(ids) or set(embeddings) != set(self._recognizers):
            raise ValueError(f"wanted a source for each of {len(ids)} ids and embeddings of {', '.join(sorted(self._recognizers))}")
        if strange := set(sources) - {"collection", "gallery", "reference"}:
            raise ValueError(f"a known face comes from a collection, a gallery or a reference, not from {strange.pop()!r}")
        if any(not known_id or "\0" in known_id for known_id in ids):
            raise ValueError("a known id must not be empty or hold a NUL")
        for name, dim in self._recognizers.items():
            vectors = embeddings[name]
            if vectors.dtype != np.float32 or vectors.shape != (len(ids), dim):
                raise ValueError(f"{name} embeddings must be float32 ({len(ids)}, {dim}), not {vectors.dtype} {vectors.shape}")
            bad = np.flatnonzero(~usable(vectors))
            if len(bad):
                raise ValueError(f"the {name} embedding of {ids[bad[0]]} is not a finite vector of unit length")

    def _new(self, ids: Sequence[str], embeddings: Mapping[str, F32]) -> list[int]:
        """The rows that the index does not hold yet."""
        stored = self.faces.ids
        rows = np.flatnonzero(np.isin(stored, np.array([known_id.encode() for known_id in ids], np.bytes_)))
        held = {(bytes(stored[row]), *(self.faces.vectors[name][row].tobytes() for name in self._recognizers)) for row in rows}
        new = []
        for row, known_id in enumerate(ids):
            key = (known_id.encode(), *(embeddings[name][row].tobytes() for name in self._recognizers))
            if key not in held:
                held.add(key)
                new.append(row)
        return new


def _stem(generation: int) -> str:
    return f"generation-{generation:05d}"


def _read(folder: Path, generation: int, previous: str, recognizers: Mapping[str, int]) -> tuple[KnownFaces, dict[str, str]]:
    """A committed generation, verified, and the models it was made with."""
    path = folder / f"{_stem(generation)}.parquet"
    damaged = f"{path}: the known-face index is damaged or was changed; restore it from a copy, or delete the index and run `mfmc scan`"
    try:
        header = json.loads(path.with_suffix(".json").read_text())
        made_for, made_with = dict(header["recognizers"]), dict(header["models"])
        # one recognizer would otherwise search among fewer faces than another
        if made_for != dict(recognizers):
            raise KnownIndexError(
                f"{path} holds embeddings of {made_for}, wanted {dict(recognizers)}; delete the index and run `mfmc scan`"
            )
        table = pq.read_table(path, schema=known_schema(recognizers), memory_map=False).combine_chunks()
        digest = _digest(table, generation, header, previous)
        if digest != header["digest"] or table.num_rows != header["rows"]:
            raise KnownIndexError(damaged)
        return _part(table, recognizers, generation, digest), made_with
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise KnownIndexError(f"{damaged} ({error})") from error


def _part(table: pa.Table, recognizers: Mapping[str, int], generation: int, digest: str) -> KnownFaces:
    ids = np.array([known_id.encode() for known_id in table["known_id"].to_pylist()])
    return KnownFaces(ids, {name: _matrix(table, name, dim) for name, dim in recognizers.items()}, generation, digest)


def _matrix(table: pa.Table, recognizer: str, dim: int) -> F32:
    column = table[embedding_column(recognizer)]
    if column.null_count or any(chunk.flatten().null_count for chunk in column.chunks):
        raise ValueError(f"null in the {recognizer} embeddings")
    return np.concatenate([np.zeros((0, dim), np.float32), *(chunk.flatten().to_numpy().reshape(-1, dim) for chunk in column.chunks)])


def _joined(parts: Sequence[KnownFaces]) -> KnownFaces:
    vectors = {name: np.concatenate([part.vectors[name] for part in parts]) for name in parts[0].vectors}
    return KnownFaces(np.concatenate([part.ids for part in parts]), vectors, parts[-1].generation, parts[-1].digest)


def _digest(table: pa.Table, generation: int, header: Mapping[str, Any], previous: str) -> str:
    """sha-256 over the digest before, the header without its date, the ids and sources, and the vectors (float32, little-endian)."""
    described = {key: header[key] for key in ("rows", "recognizers", "models")}
    sha = hashlib.sha256(json.dumps([previous, generation, described], sort_keys=True).encode())
    sha.update(json.dumps([table["known_id"].to_pylist(), table["source"].to_pylist()]).encode())
    for name, dim in sorted(header["recognizers"].items()):
        sha.update(np.ascontiguousarray(_matrix(table, name, dim), "<f4").data)
    return sha.hexdigest()


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file that appears whole, and stays after a power cut."""
    temporary = path.with_name(path.name + ".tmp")
    write(temporary)
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
