"""What a synthetic collection is made of, and where its files are while it is made."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mfmc_ray import __version__
from mfmc_ray.config import ConfigError
from mfmc_ray.evaluate.synth.classes import PARTS, Wish, as_they_come, equal
from mfmc_ray.evaluate.synth.studio import Person
from mfmc_ray.identities.catalogue import seeds
from mfmc_ray.identities.model import IdentityModel
from mfmc_ray.identities.pool import Pool, Wanted

VERSION = 1
"""Of the recipe: another one makes other pictures."""
ALIKE = 0.5
"""Cosine (SFace) of two people's base portraits from which they are too much alike, and the later one is cast anew."""
OFFERED = 1200
"""Identities that the first people choose from; further ones for more people."""
_MARK, _PARTS = "collection.json", ".making"


@dataclass(frozen=True)
class Settings:
    """Attributes:
    classes: "random", people as the generator makes them, or "equal", as many of each class.
    by: what classes are made of, of `classes.PARTS`.
    people: at least; with "equal" the next number that the classes divide.
    photos: of each person.
    groups: group photos.
    seed: of everything.
    size: px, the longer side of photos; groups are larger where there are many people.
    wear: whether each person wears a sampled identity.
    """

    classes: str = "random"
    by: tuple[str, ...] = PARTS
    people: int = 200
    photos: int = 8
    groups: int = 40
    seed: int = 0
    size: int = 512
    wear: bool = True

    def wishes(self) -> list[Wish]:
        """For each person."""
        if self.classes == "random":
            return as_they_come(self.people)
        return equal(self.people, self.by, np.random.default_rng([0x657175, self.seed]))

    def plain(self) -> dict[str, Any]:
        """JSON data, with the versions that the pictures depend on."""
        return json.loads(json.dumps(asdict(self))) | {"recipe": VERSION, "version": __version__}  # type: ignore[no-any-return]


class Making:
    """The files of a collection that is being made: a part that is there is whole.

    Args:
        folder: of the collection.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.parts = folder, folder / _PARTS

    def begin(self, settings: Settings) -> bool:
        """Whether there is anything to do.

        Raises:
            ConfigError: the folder holds something else.
        """
        wanted = settings.plain()
        for file in (self.folder / _MARK, self.parts / _MARK):
            if file.is_file():
                held = json.loads(file.read_text())
                if held["settings"] != wanted:
                    said = f"{self.folder} holds a collection made with other options, or by another version"
                    raise ConfigError(f"{said}: give another folder, or remove it")
                return not self.whole
        if self.folder.is_dir() and any(self.folder.iterdir()):
            raise ConfigError(f"{self.folder} is not empty: give a new folder")
        self.parts.mkdir(parents=True)
        self._write(self.parts / _MARK, json.dumps({"settings": wanted}).encode())
        return True

    @property
    def whole(self) -> bool:
        """Whether it is made."""
        return (self.folder / _MARK).is_file()

    def path(self, name: str) -> Path:
        """Of a file of the collection."""
        return self.folder / name

    def has(self, name: str) -> bool:
        """Whether a part was done."""
        return (self.parts / f"{name}.json").is_file()

    def rows(self, name: str) -> Any:
        """What a part holds."""
        return json.loads((self.parts / f"{name}.json").read_text())

    def done(self, name: str, rows: Any, files: Mapping[str, bytes] | None = None) -> None:
        """Keeps a part: its files in the collection, then what is said of them."""
        for path, data in (files or {}).items():
            self._write(self.folder / path, data)
        self._write(self.parts / f"{name}.json", json.dumps(rows).encode())

    def end(self, about: Mapping[str, Any]) -> None:
        """The collection is whole."""
        self._write(self.folder / _MARK, (json.dumps(about, indent=1) + "\n").encode())

    def tidy(self) -> None:
        """Removes what a whole collection does not need."""
        shutil.rmtree(self.parts, ignore_errors=True)
        for half in self.folder.glob("photos/**/.*"):  # of a killed worker
            half.unlink()

    def about(self) -> dict[str, Any]:
        """Of a whole collection."""
        found: dict[str, Any] = json.loads((self.folder / _MARK).read_text())
        return found

    @staticmethod
    def _write(path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_name(f".{path.name}.{os.getpid()}")
        half.write_bytes(data)
        half.replace(path)


def too_alike(people: Sequence[Person]) -> list[int]:
    """Rows of the people who look too much like somebody before them."""
    looks = np.array([person.looks for person in people], np.float32)
    cosines = np.tril(looks @ looks.T, -1)
    out: list[int] = []
    for row in range(len(people)):
        before = [i for i in range(row) if i not in out]
        if before and float(cosines[row, before].max()) > ALIKE:
            out.append(row)
    return out


def worn_by(model: IdentityModel, people: Sequence[Person]) -> list[int]:
    """The seed of the sampled identity for each person, nobody's twice: the one that fits best of those that are left."""
    pool = Pool(model, list(itertools.islice(seeds(), max(OFFERED, 4 * len(people)))), {})
    free = np.ones(len(pool), bool)
    chosen = []
    for person in people:
        misfit = pool.misfit(Wanted(person.man, person.age, person.ita, person.beard))
        best = int(np.argmin(np.where(free, misfit, np.inf)))
        free[best] = False
        chosen.append(pool.identities[best].seed)
    return chosen
