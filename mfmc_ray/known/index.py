"""The known-face index: the embeddings of every face that a fake must not resemble, in append-only generations (`known/generations.py`)."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mfmc_ray.known.generations import EMPTY_DIGEST, Forgotten, Generations, KnownIndexError, Rows, joined, stem
from mfmc_ray.known.search import F32, ExactSearch, usable

__all__ = ["EMPTY_DIGEST", "KnownFaces", "KnownIndex", "KnownIndexError", "face_digest", "known_rows"]


@dataclass(frozen=True)
class KnownFaces:
    """n known faces as plain arrays: what the stages take, and what Ray shares between actors without copying.

    Attributes:
        ids: bytes (n,), UTF-8, each the known_id of a face; `known_id` reads it.
        vectors: recognizer name → float32 (n, d), C-contiguous, unit length.
        generation: the newest generation of the index, from 0; −1 without one.
        digest: sha-256 of the index, hex.
        starts: int64 (generation + 1,): of each generation the row with which it begins; a removal has no rows.
        forgotten: sha-256 of the known ids that were removed and are not here again, hex.
        digests: sha-256 of the index as of each generation, hex; none where nobody needs them.

    Raises:
        ValueError: when the arrays do not have the same number of rows.
    """

    ids: NDArray[np.bytes_]
    vectors: Mapping[str, F32]
    generation: int
    digest: str
    starts: tuple[int, ...] = ()
    forgotten: frozenset[str] = frozenset()
    digests: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # what is no dict is not in this process yet, and was checked where it is
        for name, array in self.vectors.items() if isinstance(self.vectors, dict) else ():
            if array.ndim != 2 or len(array) != len(self.ids):
                raise ValueError(f"KnownFaces.vectors[{name!r}] has shape {array.shape}, wanted ({len(self.ids)}, d)")

    def __len__(self) -> int:
        return len(self.ids)

    def known_id(self, row: int) -> str | None:
        """The id of a row; None for −1, which stands for no known face."""
        return None if row < 0 else bytes(self.ids[row]).decode()

    def since(self, generation: int) -> KnownFaces:
        """What was added after a generation, as views of the same arrays."""
        start = self.starts[generation + 1] if generation + 1 < len(self.starts) else len(self)
        starts = tuple(max(0, s - start) for s in self.starts)
        vectors = {name: array[start:] for name, array in self.vectors.items()}
        return KnownFaces(self.ids[start:], vectors, self.generation, self.digest, starts, self.forgotten, self.digests)

    def is_forgotten(self, known_id: str | None) -> bool:
        """Whether this face was removed."""
        return known_id is not None and bool(self.forgotten) and face_digest(known_id) in self.forgotten

    @classmethod
    def empty(cls, recognizers: Mapping[str, int]) -> Self:
        """Nobody is known."""
        return cls(np.zeros(0, "S1"), {name: np.zeros((0, dim), np.float32) for name, dim in recognizers.items()}, -1, EMPTY_DIGEST)


class KnownIndex:
    """The index in a folder. Open it with `KnownIndex.open`; one process at a time may change it (the run lock sees to that)."""

    def __init__(self, generations: Generations, models: Mapping[str, str], parts: Sequence[Rows], vectors: bool) -> None:
        self._generations = generations
        self._models = dict(models)
        self._parts = list(parts)
        self._vectors = vectors
        self._faces: KnownFaces | None = None
        self._searches: dict[str, ExactSearch] = {}

    @classmethod
    def open(
        cls, folder: str | Path, recognizers: Mapping[str, int], models: Mapping[str, str] | None = None, *, vectors: bool = True
    ) -> Self:
        """Reads the committed generations and checks their digests. A folder without any is an empty index.

        Args:
            folder: a local folder on the private side; made by the first `append`.
            recognizers: guard recognizer name → dimension.
            models: guard recognizer name → sha-256 of its weights. Given names must agree with what the index was made with:
                embeddings of different weights cannot be compared.
            vectors: False: they are checked but not held, for an index that does not fit into memory; `faces.vectors` is then empty.

        Raises:
            KnownIndexError: for a missing, changed or unreadable generation, or one of other recognizers or models.
        """
        generations = Generations(Path(folder), recognizers)
        recorded: dict[str, str] = dict(models or {})
        digest, parts = EMPTY_DIGEST, []
        for header in generations.headers:
            for recognizer, sha in header.models.items():
                if recorded.setdefault(recognizer, sha) != sha:
                    raise KnownIndexError(
                        f"{Path(folder) / stem(header.number)} was made with another {recognizer} model; delete the index and run "
                        "`mfmc index`"
                    )
            some = generations.verified(header.number, digest)
            parts.append(joined([rows if vectors else replace(rows, vectors={}) for rows in some], recognizers if vectors else {}))
            digest = header.digest
        return cls(generations, recorded, parts, vectors)

    @property
    def faces(self) -> KnownFaces:
        """All known faces."""
        if self._faces is None:
            rows = self._parts[0] if len(self._parts) == 1 else joined(self._parts, self._held)
            starts = tuple(int(n) for n in np.cumsum([0, *(len(part) for part in self._parts[:-1])])) if self._parts else ()
            forgotten = frozenset(f.face for header in self._generations.headers for f in header.forgets) - self._returned()
            digests = tuple(header.digest for header in self._generations.headers)
            self._faces = KnownFaces(rows.ids, rows.vectors, self.generation, self.digest, starts, forgotten, digests)
        return self._faces

    def append(self, ids: Sequence[str], sources: Sequence[str], embeddings: Mapping[str, F32]) -> int:
        """Adds known faces as a new generation; it is there whole or not at all.

        Rows that the index already holds (the same id with the same vectors) are passed over, so a job that was killed after its append
        can repeat it; so are ids that were removed. A known id whose vectors changed is added beside the old one.

        Args:
            ids: n known ids (`tables.known_schema`).
            sources: for each, collection, gallery, enrolled or reference.
            embeddings: for every recognizer of the index float32 (n, d), finite, of unit length.

        Returns:
            the newest generation; the same as before if there was nothing to add.

        Raises:
            ValueError: when the arrays do not fit together or a vector is no embedding.
            KnownIndexError: when another process has appended since this index was opened.
        """
        self._check(ids, sources, embeddings)
        encoded = np.array([known_id.encode() for known_id in ids], np.bytes_)
        rows = Rows(encoded, list(sources), {name: embeddings[name] for name in self._generations.recognizers}).sealed()
        rows = rows.where(self._new(rows))
        if not len(rows):
            return self.generation
        header = self._generations.append(rows, self._models, self.digest)
        self._changed([*self._parts, rows if self._vectors else replace(rows, vectors={})])
        return header.number

    def remove(self, ids: Collection[str], *, returns: bool = False) -> int:
        """Forgets known faces: their rows leave the files, and these ids are never taken in again.

        A removal that was killed half-way is completed by `purge`, and what is removed is not searched from the moment it is committed.

        Args:
            ids: known ids; those that the index does not hold are passed over.
            returns: take them in again if they are appended again: their image was deleted, and may be put back.

        Returns:
            how many rows were removed.
        """
        wanted = pa.array(sorted({known_id.encode() for known_id in ids}), pa.binary())
        forgets, parts = [], []
        for number, part in enumerate(self._parts):
            hit = _among(part.ids, wanted)
            parts.append(part.where(~hit))
            if hit.any():
                positions = np.setdiff1d(np.arange(self._generations.headers[number].rows), list(self._generations.forgotten(number)))
                gone = part.where(hit)
                forgets += [
                    Forgotten(number, int(position), digest.decode(), face_digest(known_id.decode()))
                    for position, digest, known_id in zip(positions[hit], gone.digests.tolist(), gone.ids.tolist(), strict=True)
                ]
        if forgets:
            self._generations.remove(forgets, self._models, self.digest, returns=returns)
            self._changed([*parts, joined([], self._held)])
        self.purge()
        return len(forgets)

    def purge(self) -> None:
        """Takes what was removed out of the files; there is nothing to do unless a removal was killed."""
        self._generations.purge()

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
        return len(self._parts) - 1

    @property
    def digest(self) -> str:
        """sha-256 over every generation, hex."""
        return self._generations.headers[-1].digest if self._generations.headers else EMPTY_DIGEST

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    @property
    def _held(self) -> dict[str, int]:
        """The recognizers whose vectors are held."""
        return self._generations.recognizers if self._vectors else {}

    def _changed(self, parts: Sequence[Rows]) -> None:
        self._parts, self._faces = list(parts), None
        self._searches.clear()

    def _returned(self) -> set[str]:
        """What stands for faces that came after a removal which lets them return."""
        first = next((header.number for header in self._generations.headers if header.returns), None)
        return set() if first is None else {face_digest(name.decode()) for part in self._parts[first:] for name in part.ids.tolist()}

    def _check(self, ids: Sequence[str], sources: Sequence[str], embeddings: Mapping[str, F32]) -> None:
        recognizers = self._generations.recognizers
        if len(sources) != len(ids) or set(embeddings) != set(recognizers):
            raise ValueError(f"wanted a source for each of {len(ids)} ids and embeddings of {', '.join(sorted(recognizers))}")
        if strange := set(sources) - {"collection", "gallery", "enrolled", "reference"}:
            raise ValueError(f"a known face comes from a collection, a gallery, enrolment or a reference, not from {strange.pop()!r}")
        if any(not known_id or "\0" in known_id for known_id in ids):
            raise ValueError("a known id must not be empty or hold a NUL")
        for name, dim in recognizers.items():
            vectors = embeddings[name]
            if vectors.dtype != np.float32 or vectors.shape != (len(ids), dim):
                raise ValueError(f"{name} embeddings must be float32 ({len(ids)}, {dim}), not {vectors.dtype} {vectors.shape}")
            bad = np.flatnonzero(~usable(vectors))
            if len(bad):
                raise ValueError(f"the {name} embedding of {ids[bad[0]]} is not a finite vector of unit length")

    def _new(self, rows: Rows) -> NDArray[np.bool_]:
        """Which rows the index neither holds yet nor has forgotten; one pass over its ids, none over its vectors."""
        wanted = pa.array(rows.ids.tolist(), pa.binary())
        held = {digest for part in self._parts for digest in part.digests[_among(part.ids, wanted)].tolist()}
        forgotten = {f.face for header in self._generations.headers if not header.returns for f in header.forgets}
        new = np.zeros(len(rows), bool)
        for i, (known_id, digest) in enumerate(zip(rows.ids.tolist(), rows.digests.tolist(), strict=True)):
            new[i] = digest not in held and not (forgotten and face_digest(known_id.decode()) in forgotten)
            held.add(digest)
        return new


def known_rows(folder: str | Path, recognizers: Mapping[str, int], start: int, stop: int) -> KnownFaces:
    """The rows from `start` to `stop` of the index, in its order, and no others are read.

    A part of an index has no digest, so whoever opened the whole must have checked it (`KnownIndex.open`, also without vectors).

    Raises:
        KnownIndexError: the index cannot be read.
    """
    generations = Generations(Path(folder), recognizers)
    try:
        rows = joined(list(generations.some(start, stop)), recognizers)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise KnownIndexError(f"{folder}: the known-face index cannot be read: {error}") from error
    digest = generations.headers[-1].digest if generations.headers else EMPTY_DIGEST
    return KnownFaces(rows.ids, rows.vectors, len(generations.headers) - 1, digest)


def face_digest(known_id: str) -> str:
    """What stands for a removed face: sha-256 of its known id, hex."""
    return hashlib.sha256(known_id.encode()).hexdigest()


def _among(ids: NDArray[np.bytes_], wanted: pa.Array) -> NDArray[np.bool_]:
    """Which ids are among some: bool (n,)."""
    if not len(ids) or not len(wanted):
        return np.zeros(len(ids), bool)
    return np.asarray(pc.is_in(pa.array(ids.tolist(), pa.binary()), value_set=wanted).to_numpy(zero_copy_only=False), bool)
