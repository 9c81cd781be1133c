"""The known-face index on disk: append-only generations of known faces, and what was forgotten of them.

    generation-00000.parquet   the rows (`tables.known_schema`)
    generation-00000.json      written after it: commits it, with the digest of this and all earlier generations
    generation-00003.json      without rows: a removal; it names the rows of earlier generations that are gone from now on
    generation-00000.r00003.parquet   generation 0 without what generation 3 removed

A digest covers the digest before it and one digest for each row. A removal names the digest of each row it removes, so that every earlier
digest can still be computed from what is left: it can be proved that these rows are missing and no others. A row's digest is a sha-256
over an embedding; nothing of the embedding can be computed from it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mfmc_ray.known.search import F32
from mfmc_ray.places import replace_file
from mfmc_ray.tables import embedding_column, known_schema

EMPTY_DIGEST = hashlib.sha256(b"mfmc-ray known-face index").hexdigest()
"""The digest of an index without a generation."""
ROWS_AT_ONCE = 1 << 16  # a row group, and what is held while an index is only looked through


class KnownIndexError(RuntimeError):
    """The index on disk is not what was written, or was made for other recognizers; the message says what to do."""


@dataclass(frozen=True)
class Rows:
    """Some rows of the index.

    Attributes:
        ids: bytes (n,), UTF-8 known ids.
        sources: n of collection, gallery, enrolled, reference.
        vectors: recognizer → float32 (n, d), C-contiguous; none where an index is only looked through.
        digests: bytes (n,), hex: sha-256 over id, source and vectors (float32, little-endian, by name of the recognizer); none (0,)
            before `sealed`.
    """

    ids: NDArray[np.bytes_]
    sources: list[str]
    vectors: dict[str, F32]
    digests: NDArray[np.bytes_] = field(default_factory=lambda: np.zeros(0, "S64"))

    def __len__(self) -> int:
        return len(self.ids)

    def sealed(self) -> Rows:
        """The same with digests."""
        arrays = [np.ascontiguousarray(self.vectors[name], "<f4") for name in sorted(self.vectors)]
        found = []
        for i, (known_id, source) in enumerate(zip(self.ids, self.sources, strict=True)):
            sha = hashlib.sha256(json.dumps([bytes(known_id).decode(), source]).encode())
            for array in arrays:
                sha.update(array[i].data)
            found.append(sha.hexdigest())
        return replace(self, digests=np.array(found, "S64"))

    def where(self, keep: NDArray[np.bool_]) -> Rows:
        """The rows that `keep` (bool (n,)) says."""
        if keep.all():
            return self
        sources = [source for source, kept in zip(self.sources, keep, strict=True) if kept]
        digests = self.digests[keep] if len(self.digests) else self.digests
        return Rows(self.ids[keep], sources, {name: v[keep] for name, v in self.vectors.items()}, digests)


@dataclass(frozen=True)
class Forgotten:
    """A row that a removal took away.

    Attributes:
        generation, position: where it was, from 0, as appended.
        row: the row's digest, hex.
        face: sha-256 of its known id, hex.
    """

    generation: int
    position: int
    row: str
    face: str


@dataclass(frozen=True)
class Header:
    """A committed generation.

    Attributes:
        number: from 0.
        rows: as appended; 0 of a removal.
        recognizers: name → dimension.
        models: recognizer → sha-256 of its weights.
        created: ISO time.
        digest: sha-256 of this and all earlier generations, hex.
        purged: the removal without whose rows its file was written last; −1 if with all rows.
        forgets: what a removal removes.
        returns: whether faces that a removal removed are taken in again if they are scanned again.
    """

    number: int
    rows: int
    recognizers: dict[str, int]
    models: dict[str, str]
    created: str
    digest: str
    purged: int = -1
    forgets: tuple[Forgotten, ...] = ()
    returns: bool = False

    @property
    def file(self) -> str | None:
        """The name of the file with its rows; None for a removal."""
        if self.forgets:
            return None
        return f"{stem(self.number)}.parquet" if self.purged < 0 else f"{stem(self.number)}.r{self.purged:05d}.parquet"

    @classmethod
    def read(cls, path: Path, number: int) -> Header:
        """From its JSON file.

        Raises:
            KeyError, TypeError, ValueError, OSError: it is no such file.
        """
        plain = json.loads(path.read_text())
        forgets = tuple(Forgotten(int(g), int(p), str(row), str(face)) for g, p, row, face in plain.get("forgets", ()))
        recognizers, models = dict(plain["recognizers"]), dict(plain["models"])
        purged = int(plain.get("purged", -1))
        created, digest, returns = str(plain.get("created", "")), str(plain["digest"]), bool(plain.get("returns", False))
        return cls(number, int(plain["rows"]), recognizers, models, created, digest, purged, forgets, returns)

    def write(self, folder: Path) -> None:
        """Commits it."""
        plain: dict[str, Any] = {"rows": self.rows, "recognizers": self.recognizers, "models": self.models, "created": self.created}
        if self.purged >= 0:
            plain["purged"] = self.purged
        if self.forgets:
            plain["forgets"] = [[f.generation, f.position, f.row, f.face] for f in self.forgets]
            plain["returns"] = self.returns
        text = json.dumps({**plain, "digest": self.digest}, indent=1) + "\n"
        replace_file(folder / f"{stem(self.number)}.json", lambda path: path.write_text(text))

    def digest_of(self, previous: str, rows: Sequence[str]) -> str:
        """What its digest must be, given the one before it and its rows' digests."""
        described = {"rows": self.rows, "recognizers": self.recognizers, "models": self.models}
        sha = hashlib.sha256(json.dumps([previous, self.number, described], sort_keys=True).encode())
        sha.update(json.dumps([[f.generation, f.position, f.row, f.face] for f in self.forgets]).encode())
        sha.update(b"returns" if self.returns else b"")
        sha.update("".join(rows).encode())
        return sha.hexdigest()


class Generations:
    """The committed generations in a folder.

    Args:
        folder: of the index; need not exist.
        recognizers: guard recognizer → dimension.

    Raises:
        KnownIndexError: a generation is missing, unreadable, or of other recognizers. Rows are not looked at yet.
    """

    def __init__(self, folder: Path, recognizers: Mapping[str, int]) -> None:
        self.folder, self.recognizers = folder, dict(recognizers)
        self.headers: list[Header] = []
        for number, name in enumerate(sorted(path.name for path in folder.glob("generation-*.json"))):
            if name != f"{stem(number)}.json":
                raise KnownIndexError(f"{folder}: {stem(number)}.json is missing, so known faces are; restore it, or delete the index")
            try:
                header = Header.read(folder / name, number)
            except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
                raise self._damaged(number, error) from error
            # one recognizer would otherwise search among fewer faces than another
            if header.recognizers != self.recognizers:
                raise KnownIndexError(
                    f"{folder / name} holds embeddings of {header.recognizers}, wanted {self.recognizers}; delete the index and run "
                    "`mfmc index`"
                )
            self.headers.append(header)

    def forgotten(self, number: int, until: int | None = None) -> dict[int, Forgotten]:
        """position → row of a generation that removals (up to `until`) have taken away."""
        removals = self.headers if until is None else self.headers[: until + 1]
        return {f.position: f for header in removals for f in header.forgets if f.generation == number}

    def live(self, number: int) -> int:
        """How many rows of a generation are left."""
        return self.headers[number].rows - len(self.forgotten(number))

    def verified(self, number: int, previous: str) -> Iterator[Rows]:
        """The rows of a generation that are left, some at a time; their digest is checked when the last have been given.

        Raises:
            KnownIndexError: they are not what was written.
        """
        header = self.headers[number]
        missing, gone = self.forgotten(number, header.purged), self.forgotten(number)
        digests: list[str] = []
        try:
            for rows in self._stored(header):
                rows = rows.sealed()
                keep = []
                for one in rows.digests.tolist():
                    while len(digests) in missing:
                        digests.append(missing[len(digests)].row)
                    keep.append(len(digests) not in gone)
                    digests.append(one.decode())
                yield rows.where(np.array(keep, bool))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
            raise self._damaged(number, error) from error
        while len(digests) in missing:
            digests.append(missing[len(digests)].row)
        if len(digests) != header.rows or any(digests[p] != f.row for p, f in gone.items()):
            raise self._damaged(number, "it has other rows")
        if header.digest_of(previous, digests) != header.digest:
            raise self._damaged(number, "it has another digest")

    def some(self, start: int, stop: int) -> Iterator[Rows]:
        """The rows from `start` to `stop` of all that are left, oldest first. Their digest cannot be checked."""
        first = 0
        for header in self.headers:
            low, high = start - first, stop - first
            first += self.live(header.number)
            if not self.live(header.number) or low >= self.live(header.number) or high <= 0:
                continue
            missing, gone = self.forgotten(header.number, header.purged), self.forgotten(header.number)
            stored = np.setdiff1d(np.arange(header.rows), list(missing))
            keep = ~np.isin(stored, list(gone))
            rank = np.cumsum(keep) - 1
            keep &= (rank >= low) & (rank < high)
            at = 0
            file = self._open(header)
            for group in range(file.num_row_groups):
                mine = keep[at : at + file.metadata.row_group(group).num_rows]
                at += len(mine)
                if mine.any():
                    yield _rows(file.read_row_group(group), self.recognizers).where(mine)

    def append(self, rows: Rows, models: Mapping[str, str], previous: str) -> Header:
        """Commits sealed rows as a new generation; it is there whole or not at all.

        Raises:
            KnownIndexError: another process has appended.
        """
        header = self._next(len(rows), models)
        header = replace(header, digest=header.digest_of(previous, [one.decode() for one in rows.digests.tolist()]))
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write(self.folder / str(header.file), rows)
        header.write(self.folder)
        self.headers.append(header)
        return header

    def remove(self, forgets: Sequence[Forgotten], models: Mapping[str, str], previous: str, *, returns: bool = False) -> Header:
        """Commits a removal: from then on these rows are gone, and `purge` takes them out of the files."""
        header = replace(self._next(0, models), forgets=tuple(forgets), returns=returns)
        header = replace(header, digest=header.digest_of(previous, []))
        header.write(self.folder)
        self.headers.append(header)
        return header

    def purge(self) -> list[str]:
        """Takes what was forgotten out of the files, and removes files that no generation names; may be repeated after a crash.

        Returns:
            names of the files written anew or removed.
        """
        touched = []
        for i, header in enumerate(self.headers):
            gone = self.forgotten(header.number)
            if not gone or len(gone) == len(self.forgotten(header.number, header.purged)):
                continue
            newest = max(removal.number for removal in self.headers for f in removal.forgets if f.generation == header.number)
            missing = self.forgotten(header.number, header.purged)
            stored = np.setdiff1d(np.arange(header.rows), list(missing))
            rows = joined(list(self._stored(header)), self.recognizers).where(~np.isin(stored, list(gone)))
            self.headers[i] = replace(header, purged=newest)
            self._write(self.folder / str(self.headers[i].file), rows)
            self.headers[i].write(self.folder)
            touched.append(str(self.headers[i].file))
        named = {header.file for header in self.headers} | {f"{stem(header.number)}.json" for header in self.headers}
        for path in (*self.folder.glob("generation-*"), *self.folder.glob(".generation-*")):
            if path.name not in named:
                path.unlink()
                touched.append(path.name)
        return touched

    def _next(self, rows: int, models: Mapping[str, str]) -> Header:
        """The header of the next generation, without digest."""
        number = len(self.headers)
        commit = self.folder / f"{stem(number)}.json"
        if commit.exists():
            raise KnownIndexError(f"{commit} has been written by another process; open the index again and repeat")
        return Header(number, rows, self.recognizers, dict(models), datetime.now(UTC).isoformat(timespec="seconds"), "")

    def _open(self, header: Header) -> pq.ParquetFile:
        file = pq.ParquetFile(self.folder / str(header.file))
        if not file.schema_arrow.equals(known_schema(self.recognizers)):
            raise ValueError(f"{header.file} has other columns")
        return file

    def _stored(self, header: Header) -> Iterator[Rows]:
        """The rows in a generation's file."""
        if header.file is not None:
            file = self._open(header)
            for group in range(file.num_row_groups):
                yield _rows(file.read_row_group(group), self.recognizers)

    def _write(self, path: Path, rows: Rows) -> None:
        columns: list[pa.Array] = [pa.array([bytes(i).decode() for i in rows.ids], pa.string()), pa.array(rows.sources, pa.string())]
        for name, dim in self.recognizers.items():
            columns.append(pa.FixedSizeListArray.from_arrays(pa.array(rows.vectors[name].reshape(-1)), dim))
        table = pa.Table.from_arrays(columns, schema=known_schema(self.recognizers))
        # embeddings do not compress
        replace_file(path, lambda new: pq.write_table(table, new, compression="none", use_dictionary=False, row_group_size=ROWS_AT_ONCE))

    def _damaged(self, number: int, why: object) -> KnownIndexError:
        return KnownIndexError(
            f"{self.folder / stem(number)}: the known-face index is damaged or was changed ({why}); restore it from a copy, or delete the "
            "index and run `mfmc index`"
        )


def stem(generation: int) -> str:
    """The name of a generation's files."""
    return f"generation-{generation:05d}"


def _rows(table: pa.Table, recognizers: Mapping[str, int]) -> Rows:
    ids = np.array([known_id.encode() for known_id in table["known_id"].to_pylist()], np.bytes_)
    return Rows(ids, table["source"].to_pylist(), {name: _matrix(table, name, dim) for name, dim in recognizers.items()})


def _matrix(table: pa.Table, recognizer: str, dim: int) -> F32:
    column = table[embedding_column(recognizer)]
    if column.null_count or any(chunk.flatten().null_count for chunk in column.chunks):
        raise ValueError(f"null in the {recognizer} embeddings")
    return np.concatenate([np.zeros((0, dim), np.float32), *(chunk.flatten().to_numpy().reshape(-1, dim) for chunk in column.chunks)])


def joined(parts: Sequence[Rows], recognizers: Mapping[str, int]) -> Rows:
    """All of them, one after the other, with the vectors of these recognizers."""
    vectors = {n: np.concatenate([np.zeros((0, d), np.float32), *(part.vectors[n] for part in parts)]) for n, d in recognizers.items()}
    ids = np.concatenate([np.zeros(0, "S1"), *(part.ids for part in parts)])
    digests = np.concatenate([np.zeros(0, "S64"), *(part.digests for part in parts)])
    return Rows(ids, [source for part in parts for source in part.sources], vectors, digests)
