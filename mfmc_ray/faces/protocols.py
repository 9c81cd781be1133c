"""The four things that learn from pixels. A model pack names one of each; every one is a plain object with no Ray in it."""

from __future__ import annotations

from typing import Protocol

from mfmc_ray.faces.faces import F32, Faces, Image, Pixels


class Detector(Protocol):
    """Finds faces."""

    name: str

    def detect(self, image: Image) -> Faces:
        """All faces of an upright RGB image, best first; boxes, points, scores and detectors are filled."""
        ...


class Embedder(Protocol):
    """A face recognizer."""

    name: str
    dim: int

    def embed(self, image: Pixels, points: F32) -> F32:
        """float32 (n, dim), unit length, for the faces whose five points are `points` (n, 5, 2) in image pixels: `crops`, `embed_crops`."""
        ...

    def crops(self, image: Pixels, points: F32) -> Image:
        """uint8 (n, side, side, 3): all that the recognizer sees of these faces."""
        ...

    def embed_crops(self, crops: Image) -> F32:
        """float32 (n, dim), unit length, of crops of any images; a face's vector does not depend on the others."""
        ...


class MeshFitter(Protocol):
    """Fits the 468-point 3D mesh."""

    def fit(self, image: Pixels, boxes: F32, points: F32) -> tuple[F32, F32]:
        """Meshes float32 (n, 468, 3) in image pixels (z in the same unit, smaller is nearer) and scores float32 (n,) in 0–1."""
        ...
