"""The enrolled people: a private folder with one Parquet file, a row for each enrolled photo. No picture is in it.

people.parquet   `tables.people_schema`; written whole, so it is there as it was or as it becomes
people.lock      while somebody changes it
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import re
import secrets
import stat
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mfmc_ray.faces.faces import F32
from mfmc_ray.faces.pack import DIMENSIONS, digests_of
from mfmc_ray.known.search import usable
from mfmc_ray.places import full, is_remote, replace_file
from mfmc_ray.runlock import RunLock
from mfmc_ray.tables import embedding_column, people_schema

FILE = "people.parquet"
LONGEST_ID = 100
SALT_BYTES = 16
_ID = re.compile(r"[^\W_](?:[\w.@+\- ]*[\w.@+\-])?")
_META = b"mfmc-ray"


class PeopleError(ValueError):
    """Enrolled people cannot be read, enrolled or removed; the message says what to do."""


def person_id(text: str) -> str:
    """A person's id as it is kept and compared everywhere: in Unicode's composed form (NFC), without space around it.

    Raises:
        PeopleError: it is empty, too long, or has characters that tables, patterns or `group:NAME` give a meaning to.
    """
    name = unicodedata.normalize("NFC", text.strip())
    if len(name) > LONGEST_ID or not _ID.fullmatch(name):
        shown = repr(name if len(name) <= LONGEST_ID else name[:40] + "…")
        raise PeopleError(
            f"{shown} cannot be a person's id: wanted at most {LONGEST_ID} letters, digits, spaces and . _ - @ +, a letter or digit first"
        )
    return name


@dataclass(frozen=True)
class Photo:
    """An enrolled photo.

    Attributes:
        person: the user's id of who is on it.
        photo_id: sha-256 of the photo's bytes, hex.
        vectors: recognizer → float32 (d,), unit length.
        size: √area of the face's box, px.
        sharpness: of the face, as `quality.sharpness` has it.
        yaw: degrees; > 0 looks to the image's right.
        enrolled: ISO time.
    """

    person: str
    photo_id: str
    vectors: Mapping[str, F32] = field(compare=False)
    size: float = 0.0
    sharpness: float = 0.0
    yaw: float = 0.0
    enrolled: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


@dataclass(frozen=True)
class Registry:
    """The enrolled people of a folder.

    Attributes:
        folder: where they are.
        photos: their photos; those of a person one after the other, people in the order of their ids.
        salts: person → 16 random bytes, made when the person is enrolled and destroyed with them.
        models: recognizer → sha-256 of the weights that made the embeddings.
    """

    folder: Path
    photos: tuple[Photo, ...] = ()
    salts: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    models: Mapping[str, str] = field(default_factory=lambda: digests_of(list(DIMENSIONS)))

    @classmethod
    def open(cls, folder: str | Path, *, new: bool = False) -> Self:
        """The enrolled people of a folder. A file or folder that others may read is closed to them.

        Args:
            folder: a local one.
            new: make it, with nobody in it, if there is none.

        Raises:
            PeopleError: there is none, or it cannot be read.
        """
        if is_remote(str(folder)):
            raise PeopleError(f"the folder of enrolled people must be a local one, not {folder}")
        place = Path(full(str(folder)))
        path = place / FILE
        try:
            if new and not path.exists():
                if place.is_dir() and any(place.iterdir()) and not (place / "people.guard").exists():
                    raise PeopleError(f"{place} is not empty and holds no enrolled people: give a folder of its own for them")
                place.mkdir(mode=0o700, parents=True, exist_ok=True)
                return cls(place)
            _close(place, path)
            table = pq.read_table(path)
            return cls._of(place, table)
        except FileNotFoundError as error:
            raise PeopleError(f"nobody is enrolled in {place}: make it with `mfmc people enroll {place} PHOTOS`") from error
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            if isinstance(error, PeopleError):
                raise
            raise PeopleError(f"{path} cannot be read ({error}): restore it, or enrol everybody again into a new folder") from error

    @classmethod
    def _of(cls, folder: Path, table: pa.Table) -> Self:
        models = json.loads((table.schema.metadata or {})[_META])["models"]
        dims = {name: DIMENSIONS[name] for name in models if name in DIMENSIONS}
        if set(models) != set(dims) or table.schema.names != people_schema(dims).names:
            raise ValueError("it has other columns")
        vectors = {
            name: np.array(table[embedding_column(name)].to_pylist(), np.float32).reshape(len(table), dim) for name, dim in dims.items()
        }
        if not all(usable(array).all() for array in vectors.values()):
            raise ValueError("some row has no embedding")
        photos: list[Photo] = []
        salts: dict[str, bytes] = {}
        for i, row in enumerate(table.drop_columns([embedding_column(name) for name in dims]).to_pylist()):
            person, salt = person_id(row["person"]), bytes(row["salt"])
            if len(salt) != SALT_BYTES or salts.setdefault(person, salt) != salt:
                raise ValueError("a salt is damaged")
            about = {name: row[name] for name in ("photo_id", "size", "sharpness", "yaw", "enrolled")}
            photos.append(Photo(person, vectors={name: array[i] for name, array in vectors.items()}, **about))
        return cls(folder, tuple(photos), salts, models)

    def people(self) -> tuple[str, ...]:
        """The ids, in order."""
        return tuple(dict.fromkeys(photo.person for photo in self.photos))

    def vectors(self, recognizer: str) -> F32:
        """float32 (n, d), unit length: of all photos, in their order.

        Raises:
            PeopleError: they were enrolled without this recognizer, or with other weights of it.
        """
        self.check([recognizer])
        parts = [photo.vectors[recognizer] for photo in self.photos]
        return np.array(parts, np.float32).reshape(len(parts), DIMENSIONS[recognizer])

    def owners(self) -> NDArray[np.intp]:
        """intp (n,): whose each photo is, as a place in `people()`."""
        place = {person: i for i, person in enumerate(self.people())}
        return np.array([place[photo.person] for photo in self.photos], np.intp)

    def salt(self, person: str) -> bytes:
        """A person's 16 random bytes.

        Raises:
            KeyError: nobody of that id is enrolled.
        """
        return self.salts[person]

    def known_ids(self) -> list[str]:
        """The known_id of each photo's face, "person:<hex>:0": nothing in it can be found out from person or photo, for it is keyed with
        the salt, and certificates that name it are published."""
        return [f"person:{hmac.digest(self.salts[p.person], p.photo_id.encode(), 'sha256').hex()}:0" for p in self.photos]

    @property
    def digest(self) -> str:
        """sha-256, hex, over all that decides who is recognised, and under which known ids they are known."""
        sha = hashlib.sha256(json.dumps(["mfmc-ray people 1", sorted(self.models.items())]).encode())
        for photo, known_id in zip(self.photos, self.known_ids(), strict=True):
            sha.update(json.dumps([photo.person, known_id]).encode())
            for name in sorted(photo.vectors):
                sha.update(np.ascontiguousarray(photo.vectors[name], "<f4").data)
        return sha.hexdigest()

    def check(self, recognizers: Sequence[str]) -> None:
        """Refuses recognizers that the photos were not enrolled with.

        Raises:
            PeopleError: one is missing, or its weights were others.
        """
        now = digests_of([name for name in recognizers if name in DIMENSIONS])
        for name in recognizers:
            if name not in now or self.models.get(name) != now[name]:
                raise PeopleError(
                    f"the people in {self.folder} were enrolled with other weights of {name} than this version has: enrol their photos "
                    "again into a new folder"
                )

    def adding(self, photos: Sequence[Photo]) -> Self:
        """The same with further photos; of a person's photo that is there already nothing changes. People that are new get a salt."""
        there = {(photo.person, photo.photo_id) for photo in self.photos}
        fresh = [photo for photo in photos if (photo.person, photo.photo_id) not in there]
        salts = dict(self.salts)
        for photo in fresh:
            salts.setdefault(photo.person, secrets.token_bytes(SALT_BYTES))
        every = sorted([*self.photos, *fresh], key=lambda photo: photo.person)
        return type(self)(self.folder, tuple(every), salts, self.models)

    def without(self, people: Collection[str]) -> Self:
        """The same without these people, their salts included."""
        photos = tuple(photo for photo in self.photos if photo.person not in people)
        return type(self)(self.folder, photos, {p: salt for p, salt in self.salts.items() if p not in people}, self.models)

    def write(self) -> None:
        """Writes the file whole, and then overwrites what it was; call it with `changing` held.

        A journal, a snapshot or a worn-out flash cell can still hold the bytes: nothing in user space reaches these.
        """
        columns = {
            "person": [photo.person for photo in self.photos],
            "photo_id": [photo.photo_id for photo in self.photos],
            "salt": [self.salts[photo.person] for photo in self.photos],
            **{name: [getattr(photo, name) for photo in self.photos] for name in ("enrolled", "size", "sharpness", "yaw")},
            **{embedding_column(name): [photo.vectors[name] for photo in self.photos] for name in self.models},
        }
        schema = people_schema({name: DIMENSIONS[name] for name in self.models})
        schema = schema.with_metadata({_META: json.dumps({"models": dict(self.models)}).encode()})
        table = pa.Table.from_pydict(columns, schema=schema)
        path = self.folder / FILE
        with contextlib.ExitStack() as stack:
            old = stack.enter_context(path.open("rb+")) if path.is_file() else None
            replace_file(path, lambda temporary: _write(table, temporary))
            if old is not None:
                old.write(bytes(os.fstat(old.fileno()).st_size))
                old.flush()
                os.fsync(old.fileno())


@contextlib.contextmanager
def changing(folder: str | Path) -> Iterator[None]:
    """Lets one process at a time change the people of a folder, and removes what a killed one has left half-written.

    Raises:
        BusyError: another one is at it.
    """
    place = Path(full(str(folder)))
    with RunLock(place / "people.lock"):
        for path in place.glob(f".{FILE}.*.tmp"):
            path.unlink()
        yield


def _write(table: pa.Table, path: Path) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
        pq.write_table(table, file)


def _close(folder: Path, file: Path) -> None:
    """Takes away from others what they might do with the file, and with the folder what they might change."""
    for path, mode in ((folder, 0o700), (file, 0o600)):
        about: Any = path.stat()
        if stat.S_IMODE(about.st_mode) & 0o077:
            with contextlib.suppress(OSError):  # of another owner, or on a mount without modes
                path.chmod(mode)
