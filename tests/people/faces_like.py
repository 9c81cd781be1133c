"""Made-up embeddings with the cosines that a test wants."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mfmc_ray.faces.faces import F32
from mfmc_ray.faces.pack import DIMENSIONS
from mfmc_ray.people.registry import Photo

SURE = {"sface": 0.75, "dlib": 0.965}
"""Cosines that a person's photos usually have: evidence 15."""
STRANGERS = {"sface": 0.1, "dlib": 0.84}
"""Cosines that strangers usually have: evidence 0.7."""


def unit(vector: F32) -> F32:
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def anyone(seed: int) -> dict[str, F32]:
    """A face like nobody's: recognizer → float32 (d,)."""
    rng = np.random.default_rng([seed, 7])
    return {name: unit(rng.standard_normal(dim)) for name, dim in DIMENSIONS.items()}


def like(face: Mapping[str, F32], cosines: Mapping[str, float], seed: int = 0) -> dict[str, F32]:
    """A face with these cosines to another one."""
    rng = np.random.default_rng([seed, 8])
    made = {}
    for name, vector in face.items():
        other = rng.standard_normal(len(vector))
        other = unit(other - (other @ vector) * vector)
        made[name] = unit(cosines[name] * vector + np.sqrt(1 - cosines[name] ** 2) * other)
    return made


def photo_of(person: str, vectors: Mapping[str, F32], number: int = 0) -> Photo:
    return Photo(person, f"{person}{number}".encode().hex().rjust(64, "0"), dict(vectors), 90.0, 0.55, 4.0)


def together(*faces: Mapping[str, F32]) -> dict[str, F32]:
    """Recognizer → float32 (n, d), of faces of one image."""
    return {name: np.array([face[name] for face in faces], np.float32) for name in DIMENSIONS}
