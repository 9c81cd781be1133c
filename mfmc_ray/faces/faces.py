"""`Faces`: the detected faces of one image as a struct of arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Image = NDArray[np.uint8]
"""An image: uint8, height × width × 3, RGB, C-contiguous, upright (EXIF orientation applied)."""

MESH_POINTS = 468


class Pixels(Protocol):
    """What faces are read from by windows: an `Image`, or a picture whose pixels are made when they are looked at."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Height and width in px, 3 colours."""
        ...

    def __getitem__(self, at: tuple[slice, slice], /) -> Image:
        """Rows and columns; slices without steps."""
        ...


@dataclass(frozen=True)
class Faces:
    """n faces of one image. Coordinates are pixels of the upright image: x to the right, y down; a pixel's centre is at integers.

    Attributes:
        boxes: float32 (n, 4), x0 y0 x1 y1; may reach beyond the border.
        points: float32 (n, 5, 2), the ArcFace order: the eye on the image's left, the other, nose tip, mouth corner on the left, the other.
        scores: float32 (n,), the detector's confidence in 0–1.
        detectors: n names, "+"-joined where several detectors agree.
        meshes: float32 (n, 468, 3) FaceMesh points (z towards the viewer is negative), or None before the fit.
        mesh_scores: float32 (n,), the mesh network's belief in 0–1 that there is a face.
        embeddings: recognizer name → float32 (n, d), unit length.
        ages: float32 (n,), years.
        sexes: float32 (n,), estimated probability in 0–1 that the face is read as a man's.
        poses: float32 (n, 3), yaw, pitch, roll in degrees; yaw > 0 looks to the image's right, pitch > 0 up, roll > 0 clockwise.
        tones: float32 (n,), skin tone as the individual typology angle (ITA) in degrees; high is light.
        beards: float32 (n,), beard strength: about 0 without, 1 a full dark beard.

    Raises:
        ValueError: when an array's first dimension or shape does not fit.
    """

    boxes: F32
    points: F32
    scores: F32
    detectors: tuple[str, ...]
    meshes: F32 | None = None
    mesh_scores: F32 | None = None
    embeddings: Mapping[str, F32] = field(default_factory=dict)
    ages: F32 | None = None
    sexes: F32 | None = None
    poses: F32 | None = None
    tones: F32 | None = None
    beards: F32 | None = None

    def __post_init__(self) -> None:
        n = len(self.boxes)
        shapes: list[tuple[str, Any, tuple[int, ...]]] = [
            ("boxes", self.boxes, (n, 4)),
            ("points", self.points, (n, 5, 2)),
            ("scores", self.scores, (n,)),
            ("meshes", self.meshes, (n, MESH_POINTS, 3)),
            ("mesh_scores", self.mesh_scores, (n,)),
            ("ages", self.ages, (n,)),
            ("sexes", self.sexes, (n,)),
            ("poses", self.poses, (n, 3)),
            ("tones", self.tones, (n,)),
            ("beards", self.beards, (n,)),
        ]
        for name, array, shape in shapes:
            if array is not None and array.shape != shape:
                raise ValueError(f"Faces.{name} has shape {array.shape}, wanted {shape}")
        if len(self.detectors) != n:
            raise ValueError(f"Faces.detectors names {len(self.detectors)} faces, wanted {n}")
        for name, vectors in self.embeddings.items():
            if vectors.ndim != 2 or len(vectors) != n:
                raise ValueError(f"Faces.embeddings[{name!r}] has shape {vectors.shape}, wanted ({n}, d)")

    def __len__(self) -> int:
        return len(self.boxes)

    @classmethod
    def empty(cls) -> Faces:
        """No face."""
        return cls(np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), np.zeros(0, np.float32), ())

    @classmethod
    def concat(cls, parts: Sequence[Faces]) -> Faces:
        """The detections of several detectors after each other; what was added after detection is dropped."""
        if not parts:
            return cls.empty()
        return cls(
            np.concatenate([p.boxes for p in parts]),
            np.concatenate([p.points for p in parts]),
            np.concatenate([p.scores for p in parts]),
            tuple(name for p in parts for name in p.detectors),
        )

    def need(self, name: str) -> F32:
        """An array that is added after detection, by its attribute's name.

        Raises:
            ValueError: it was not added yet.
        """
        array: F32 | None = getattr(self, name)
        if array is None:
            raise ValueError(f"Faces.{name} was not filled yet")
        return array

    @property
    def sizes(self) -> F32:
        """float32 (n,): √(width × height) of each box in pixels."""
        wh = np.maximum(self.boxes[:, 2:] - self.boxes[:, :2], 0)
        return np.asarray(np.sqrt(wh[:, 0] * wh[:, 1]), np.float32)

    def take(self, rows: Sequence[int] | NDArray[np.integer[Any]] | NDArray[np.bool_]) -> Faces:
        """The faces of these rows (indices or a mask), in this order."""
        index = np.asarray(rows)
        index = np.flatnonzero(index) if index.dtype == bool else index.astype(np.intp).reshape(-1)

        def pick(array: F32 | None) -> F32 | None:
            return None if array is None else array[index]

        return Faces(
            self.boxes[index],
            self.points[index],
            self.scores[index],
            tuple(self.detectors[i] for i in index),
            pick(self.meshes),
            pick(self.mesh_scores),
            {name: vectors[index] for name, vectors in self.embeddings.items()},
            pick(self.ages),
            pick(self.sexes),
            pick(self.poses),
            pick(self.tones),
            pick(self.beards),
        )

    def with_(self, **arrays: Any) -> Faces:
        """A copy with some arrays set."""
        return replace(self, **arrays)
