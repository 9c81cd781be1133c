"""All faces of an image: several detectors look, what they find is merged, and the mesh is fitted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mfmc_ray.faces.detect import overlap
from mfmc_ray.faces.faces import Faces, Image
from mfmc_ray.faces.mesh import pose
from mfmc_ray.faces.protocols import Detector, MeshFitter

AGREEMENT = 0.5
"""Two detectors that agree are believed from this share of `min_score` on."""
_SAME_IOU = 0.35
_SAME_INSIDE = 0.7
"""Detections are the same face if they share that much of their union, or, unless far from equally large, of the smaller one."""
_PART_AREA = 0.25
_SURE = 0.8
"""A detection smaller than `_PART_AREA` of the area of a face that it lies in is taken for an eye or a mouth if that face is sure."""


class FaceFinder:
    """Finds every face of an image."""

    def __init__(self, detectors: Sequence[Detector], mesh: MeshFitter, *, min_score: float = 0.6) -> None:
        """Put detectors and mesh together.

        Args:
            detectors: all of them look at each image; they must report detections from `min_score` × `AGREEMENT` on.
            mesh: fits the mesh to what they find.
            min_score: confidence from which a detection counts on its own, 0–1.

        Raises:
            ValueError: without a detector.
        """
        if not detectors:
            raise ValueError("no detector is named: faces would stay unfound; name at least one")
        self.detectors = tuple(detectors)
        self._mesh = mesh
        self._min_score = min_score

    def detect(self, image: Image) -> Faces:
        """The faces that one detector is sure of or that two agree on, best first; `detectors` names all that saw it."""
        return merge([detector.detect(image) for detector in self.detectors], self._min_score)

    def find(self, image: Image) -> Faces:
        """The same, with `meshes`, `mesh_scores` and `poses`. No face is dropped because its mesh does not fit."""
        faces = self.detect(image)
        meshes, scores = self._mesh.fit(image, faces.boxes, faces.points)
        return faces.with_(meshes=meshes, mesh_scores=scores, poses=pose(meshes))


def merge(parts: Sequence[Faces], min_score: float) -> Faces:
    """One detection per face from those of several detectors.

    Args:
        parts: what each detector found.
        min_score: see `FaceFinder`.

    Returns:
        For each face the box, points and score of its best detection, best first.
    """
    every = Faces.concat(parts)
    order = dict.fromkeys(every.detectors)
    every = every.take(np.argsort(-every.scores, kind="stable"))
    iou, inside = overlap(every.boxes, every.boxes)
    areas = every.sizes**2
    part = areas[None] < _PART_AREA * areas[:, None]
    same = (iou > _SAME_IOU) | ((inside > _SAME_INSIDE) & ~part & ~part.T)
    feature = (inside > _SAME_INSIDE) & part & (every.scores >= _SURE)[:, None]
    free = np.ones(len(every), bool)
    best: list[int] = []
    names: list[str] = []
    for i in range(len(every)):
        if not free[i]:
            continue
        group = np.flatnonzero(same[i] & free)
        free[group] = False
        seen = {every.detectors[j] for j in group if every.scores[j] >= min_score * AGREEMENT}
        sure = {every.detectors[j] for j in group if every.scores[j] >= min_score}
        # what both are sure of is a face even before another face
        if len(sure) > 1 or ((sure or len(seen) > 1) and not feature[best, i].any()):
            best.append(i)
            names.append("+".join(name for name in order if name in seen))
    return every.take(np.array(best, np.intp)).with_(detectors=tuple(names))
