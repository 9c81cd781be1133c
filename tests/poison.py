"""Files that a decoder cannot bear, and the decoder that cannot bear them: what real ones do with bytes that nobody knows yet."""

from __future__ import annotations

import ctypes
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from mfmc_ray.faces.faces import MESH_POINTS, Faces


def suffer(data: bytes, pass_: str, notes: Path) -> None:
    """What the native code of a pass does over poison, which a file carries after its end: `poison crash|hang <pass> <number>`."""
    words = data.rpartition(b"poison ")[2].decode(errors="replace").split()
    if len(words) == 3 and words[1] == pass_:
        with (notes / "tries").open("a") as file:
            file.write(f"{pass_} {hashlib.sha256(data).hexdigest()}\n")
        if words[0] == "crash":
            ctypes.string_at(0)
        ctypes.PyDLL(None).sleep(1000)  # no thread of Python's runs meanwhile


def tried(notes: Path) -> list[tuple[str, str]]:
    """The pass and the sha-256 of each time that poison was taken."""
    return [(line.split()[0], line.split()[1]) for line in (notes / "tries").read_text().splitlines()]


def plant(module: Any, name: str, pass_: str, notes: Path) -> None:
    """Makes a module's decoder one that suffers."""
    real = getattr(module, name)

    def poisonous(data: bytes, max_pixels: int) -> Any:
        suffer(data, pass_, notes)
        return real(data, max_pixels)

    setattr(module, name, poisonous)


class NobodyThere:
    """A pack that finds no face, at once."""

    dimensions = {"sface": 128}  # noqa: RUF012

    def analyse(self, pixels: object) -> Faces:
        """No face."""
        none = np.zeros(0, np.float32)
        meshes, poses = np.zeros((0, MESH_POINTS, 3), np.float32), np.zeros((0, 3), np.float32)
        vectors = {name: np.zeros((0, dim), np.float32) for name, dim in self.dimensions.items()}
        return Faces.empty().with_(meshes=meshes, mesh_scores=none, ages=none, sexes=none, tones=none, poses=poses, embeddings=vectors)
