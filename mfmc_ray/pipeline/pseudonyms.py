"""Which fake identities each person of a collection wears: noted in WORK beside the key, and handed to the workers."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mfmc_ray.identities.model import model_digest
from mfmc_ray.key import ASSIGNED, erase, obtain, state
from mfmc_ray.ledger import LedgerError
from mfmc_ray.places import replace_file
from mfmc_ray.tables import PSEUDONYMS

Face = tuple[str, int]
"""image_id and face_no."""
_META = b"mfmc-ray"
_BETWEEN = "\x1f"
"""Separates what the access model and the pseudonyms have to say of an image (`tables.PLACED`)."""


@dataclass(frozen=True)
class Pseudonym:
    """One person's, as a row of `tables.PSEUDONYMS`.

    Attributes:
        steps: of each face, in their order.
    """

    name: str
    enrolled: bool
    identities: tuple[str, ...]
    faces: tuple[Face, ...]
    steps: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Book:
    """What is noted: everybody's pseudonyms, and identities that somebody wore who is not there any more, which nobody gets again."""

    people: tuple[Pseudonym, ...] = ()
    retired: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def read(cls, folder: Path, key: bytes | None) -> Self:
        """What is noted in a folder by the holder of this key; nothing if it was another key, or another identity model.

        Raises:
            LedgerError: it is damaged.
        """
        path = folder / ASSIGNED
        if key is None or not path.is_file():
            return cls()
        try:
            table = pq.read_table(path)
            about = json.loads((table.schema.metadata or {})[_META])
            if about["key"] != _fingerprint(key) or about["model"] != model_digest():
                return cls()
            people = tuple(
                Pseudonym(
                    row["name"],
                    row["enrolled"],
                    tuple(row["identities"]),
                    tuple((face["image_id"], face["face_no"]) for face in row["faces"]),
                    tuple(tuple(face["steps"]) for face in row["faces"]),
                )
                for row in table.select(PSEUDONYMS.names).to_pylist()
            )
            return cls(people, frozenset(about["retired"]))
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise LedgerError(f"{path} is damaged: restore it, or let everybody get another fake with `mfmc key rotate`") from error

    def write(self, folder: Path, key: bytes) -> None:
        """Notes it, readable by the owner only, and overwrites what was noted before. Hold the run's lock."""
        rows = [
            {
                "name": one.name,
                "enrolled": one.enrolled,
                "identities": list(one.identities),
                "faces": [{"image_id": i, "face_no": n, "steps": list(s)} for (i, n), s in zip(one.faces, one.steps, strict=True)],
            }
            for one in self.people
        ]
        about = {"key": _fingerprint(key), "model": model_digest(), "retired": sorted(self.retired)}
        table = pa.Table.from_pylist(rows, schema=PSEUDONYMS.with_metadata({_META: json.dumps(about).encode()}))
        path = folder / ASSIGNED
        old = path.open("rb+") if path.is_file() else None
        replace_file(path, lambda temporary: _private(table, temporary))
        if old is not None:
            with old:
                erase(old)

    def assigned(self) -> Assigned:
        """For the workers."""
        flat = [
            (f"{image}:{number}".encode(), k, bytes(steps)) for k, one in enumerate(self.people) for (image, number), steps in _steps(one)
        ]
        flat.sort()
        return Assigned(
            np.array([name for name, _, _ in flat], np.bytes_),
            np.array([k for _, k, _ in flat], np.int64),
            np.array([steps for _, _, steps in flat], np.bytes_),
            tuple(one.identities for one in self.people),
        )


@dataclass(frozen=True)
class Assigned:
    """Which identities each face may wear; plain arrays, which Ray shares without copying.

    Attributes:
        faces: bytes (n,), rising: "<image_id>:<face_no>".
        person: int64 (n,), whose each is.
        steps: bytes (n,), the steps with which the first identity held on it, a byte each; none: it is not known.
        identities: of each person, the first one first.
    """

    faces: NDArray[np.bytes_]
    person: NDArray[np.int64]
    steps: NDArray[np.bytes_]
    identities: tuple[tuple[str, ...], ...]

    def of(self, image_id: str, number: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """The identities that a face may wear, the first one first, and the steps of that; none if it may wear none."""
        wanted = f"{image_id}:{number}".encode()
        row = int(np.searchsorted(self.faces, wanted))
        if row == len(self.faces) or self.faces[row] != wanted:
            return (), ()
        return self.identities[self.person[row]], tuple(bytes(self.steps[row]))

    def version(self, image_id: str | None) -> str:
        """What stands for the fakes that an image should show: the first one of each of its faces. Private."""
        start, stop = np.searchsorted(self.faces, [f"{image_id}:".encode(), f"{image_id};".encode()])
        shown = [[bytes(self.faces[row]).decode(), *self.identities[self.person[row]][:1]] for row in range(start, stop)]
        return hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:32] if shown else ""


def assigned_in(folder: Path) -> Assigned:
    """What is noted in a folder, by the key that is there; nothing if there is none."""
    return Book.read(folder, obtain(folder) if state(folder).there else None).assigned()


def version_of(access: Callable[[str | None, str], str], assigned: Assigned | None) -> Callable[[str | None, str], str]:
    """(image_id, path) → what stands for all that decides about its faces, besides settings: `AccessModel.version` and pseudonyms."""
    if assigned is None:
        return access

    def version(image: str | None, path: str) -> str:
        shown = assigned.version(image)
        return f"{access(image, path)}{_BETWEEN}{shown}" if shown else access(image, path)

    return version


def same_access(one: str, other: str) -> bool:
    """Whether two values of `version_of` differ at most in the pseudonyms."""
    return one.partition(_BETWEEN)[0] == other.partition(_BETWEEN)[0]


def fault_of(mode: str, work: Path) -> Callable[[Mapping[str, Any]], str | None]:
    """What is wrong with a replaced face's identity by `SwapConfig.pseudonyms`: row of `tables.FACES` → text; None if nothing.

    Whether people wear their own can be told as long as the key is there.

    Args:
        mode: the setting.
        work: the private folder.
    """
    if mode == "none":
        return lambda _: "replaced, though the settings replace nobody"
    assigned = assigned_in(work) if mode == "person" and state(work).there else None
    if assigned is None:
        return lambda _: None
    return lambda row: (
        None if row["identity_id"] in assigned.of(row["image_id"], row["face_no"])[0] else "it wears what is not its person's"
    )


def _steps(one: Pseudonym) -> Sequence[tuple[Face, tuple[int, ...]]]:
    return list(zip(one.faces, one.steps, strict=True))


def _fingerprint(key: bytes) -> str:
    return hmac.new(key, b"pseudonyms", hashlib.sha256).hexdigest()[:16]


def _private(table: pa.Table, path: Path) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
        pq.write_table(table, file)
