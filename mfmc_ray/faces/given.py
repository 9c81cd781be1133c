"""Faces that the user knows of: boxes that are given, beside or instead of what the detectors find."""

from __future__ import annotations

import numpy as np

from mfmc_ray.faces.audit_look import same_place
from mfmc_ray.faces.detect import CenterFace, View, YuNet, overlap
from mfmc_ray.faces.faces import F32, Faces, Image
from mfmc_ray.faces.protocols import MeshFitter

GIVEN = "given"
"""The detector's name of a face that was given."""
_REACHES = (1.0, 0.75)  # half sides of the close-ups in units of the box's longer side
_SAME_PLACE = 0.3
_LEAST_SCORE = 0.2
_POINTS = np.array([[0.31, 0.38], [0.69, 0.38], [0.5, 0.57], [0.34, 0.75], [0.66, 0.75]], np.float32)
"""Where the five points are in the box of an upright face that looks at the camera, in units of its sides."""


class GivenFaces:
    """Makes faces of boxes: five points from the detectors in close-up, a mesh by these.

    A box where no face can be made out stays one all the same, with a mesh score that has it covered.

    Args:
        mesh: fits the mesh.
    """

    def __init__(self, mesh: MeshFitter) -> None:
        self._mesh = mesh
        self.detectors = (YuNet(min_score=_LEAST_SCORE), CenterFace(min_score=_LEAST_SCORE))
        for detector in self.detectors:
            detector.views = (View(160, border=32, enlarge=8),)

    def __call__(self, image: Image, boxes: F32, found: Faces) -> Faces:
        """Faces of an image with `meshes` and `mesh_scores`: those that were found, then those that only were given.

        Args:
            image: upright.
            boxes: float32 (n, 4), x0 y0 x1 y1 px, given. Those that lie outside of the image are passed over.
            found: by detectors; where a box is about one of them, `detectors` says so.
        """
        height, width = image.shape[:2]
        there = (boxes[:, 0] < width) & (boxes[:, 1] < height) & (boxes[:, 2] > 0) & (boxes[:, 3] > 0)
        boxes = boxes[there]
        if not len(boxes):
            return found
        same = same_place(boxes, found.boxes) if len(found) else np.zeros((len(boxes), 0), bool)
        names = tuple(
            f"{name}+{GIVEN}" if seen else name for name, seen in zip(found.detectors, np.asarray(same.any(axis=0)).tolist(), strict=True)
        )
        found, boxes = found.with_(detectors=names), boxes[~same.any(1)]
        if not len(boxes):
            return found
        points = np.stack([self._points(image, box) for box in boxes])
        meshes, scores = self._mesh.fit(image, boxes, points)
        given = Faces(boxes, points, np.ones(len(boxes), np.float32), (GIVEN,) * len(boxes))
        return Faces.concat([found, given]).with_(
            meshes=np.concatenate([found.need("meshes"), meshes]), mesh_scores=np.concatenate([found.need("mesh_scores"), scores])
        )

    def _points(self, image: Image, box: F32) -> F32:
        """The five points of the face in a box, float32 (5, 2) px."""
        centre, side = (box[:2] + box[2:]) / 2, float((box[2:] - box[:2]).max())
        seen = []
        for reach in _REACHES:
            x0, y0 = (max(0, int(v)) for v in centre - reach * side)
            x1, y1 = (int(v) + 1 for v in centre + reach * side)
            part = np.ascontiguousarray(image[y0:y1, x0:x1])
            if part.size:
                origin = np.array([x0, y0], np.float32)
                for detector in self.detectors:
                    one = detector.detect(part)
                    seen.append(one.with_(boxes=one.boxes + np.tile(origin, 2), points=one.points + origin))
        every = Faces.concat(seen)
        near = every.take(overlap(every.boxes, box[None])[0][:, 0] > _SAME_PLACE) if len(every) else every
        if len(near):
            return np.asarray(near.points[int(np.argmax(near.scores))], np.float32)
        return np.asarray(box[:2] + _POINTS * (box[2:] - box[:2]), np.float32)
