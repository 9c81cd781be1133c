"""The audit's look at a picture: faces found in another way than the scan finds them, confirmed in close-up."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from mfmc_ray.faces.detect import CenterFace, View, YuNet, overlap
from mfmc_ray.faces.faces import F32, Faces, Image
from mfmc_ray.faces.mesh import FaceMesh, five_points
from mfmc_ray.faces.protocols import Detector

LEAST_SCORE = 0.5
"""Detections of the second look from which on they count."""
LEAST_CLOSEUP, LEAST_MESH = 0.4, 0.3
"""A detection is confirmed from this score of the mesh network on, or this mean score of YuNet and CenterFace on close-ups of its place.
Measured on 39 pictures without a face and 120 photos of people: of 39 detections that the scan does not have, two are confirmed, which are
faces of 9 px; the others are helmets, toys, ears, backs of heads. Of those that the scan has, too, 89 % are confirmed."""
_REACHES = (1.0, 0.75)
_SAME_IOU, _SAME_INSIDE, _SAME_SIZE = 0.25, 0.7, 1 / 8
_MIRRORED = [1, 0, 2, 4, 3]
_WIDE, _HIGH = 1.5, 1.9
"""Half axes of an ellipse about five points of a face, in distances of the eyes from each other or from the mouth, the longer of both: it
holds 98 % and more of the mesh of 95 in 100 faces (266 replaced ones)."""
_WIDER = 1.06
"""How much larger than the mesh a face may be drawn."""


class _MidwayCenterFace(CenterFace):
    """At scales between those of the scan."""

    views = (View(448, border=48), View(1024), View(1920, larger_than=2400))


class _CloseupYuNet(YuNet):
    """At a cut-out of one face and its surroundings."""

    views = (View(160, border=32, enlarge=8),)


class _CloseupCenterFace(CenterFace):
    """The same."""

    views = (View(160, border=32, enlarge=8),)


class AuditLook:
    """Finds faces in another way than `FaceFinder` does: CenterFace alone, at other scales, on the mirrored picture.

    The audit looks at what is published with it. The scan looks with it, too, less strictly, so that what the audit would find was treated.
    """

    def __init__(self, strictness: float = 1.0) -> None:
        """Load the networks.

        Args:
            strictness: factor on all scores that are asked for.

        Raises:
            ModelError: when the weights cannot be had.
        """
        self.detector: Detector = _MidwayCenterFace(min_score=LEAST_SCORE * strictness)
        self.closeups: tuple[Detector, ...] = (_CloseupYuNet(min_score=0.05), _CloseupCenterFace(min_score=0.05))
        self._mesh = FaceMesh()
        self._strictness = strictness

    def find(self, image: Image) -> Faces:
        """The faces of an upright image, best first, in px of the image as it is."""
        seen = self.detector.detect(np.ascontiguousarray(image[:, ::-1]))
        last = image.shape[1] - 1
        boxes, points = seen.boxes.copy(), seen.points[:, _MIRRORED].copy()
        boxes[:, [0, 2]] = last - seen.boxes[:, [2, 0]]
        points[..., 0] = last - points[..., 0]
        return seen.with_(boxes=boxes, points=points)

    def confirmed(self, image: Image, faces: Faces) -> NDArray[np.bool_]:
        """Which detections hold when they are looked at closely: bool (n,)."""
        _, scores = self._mesh.fit(image, faces.boxes, faces.points)
        least_mesh, least_closeup = LEAST_MESH * self._strictness, LEAST_CLOSEUP * self._strictness
        found = [s >= least_mesh or self._closely(image, box) >= least_closeup for s, box in zip(scores, faces.boxes, strict=True)]
        return np.array(found, bool)

    def shown(self, image: Image, points: F32, near: Sequence[Sequence[float]]) -> NDArray[np.bool_] | None:
        """Where replaced faces are, as far as they may be before covers.

        Args:
            image: uint8 (h, w, 3) RGB.
            points: float32 (n, 5, 2) px, theirs.
            near: rectangles x0 y0 x1 y1 px, the covers.

        Returns:
            bool (h, w): the outlines of their meshes, or an ellipse about one that the mesh network does not find; None if no face is near.
        """
        page = np.zeros(image.shape[:2], np.uint8)
        for one in points[np.isfinite(points).all((1, 2))]:
            about = _about(one)
            box = np.concatenate([about.min(0), about.max(0)]).astype(np.float32)
            if not any((box[:2] < area[2:]).all() and (box[2:] > area[:2]).all() for area in np.asarray(near, np.float32)):
                continue
            meshes, scores = self._mesh.fit(image, box[None], one[None])
            if scores[0] >= LEAST_MESH and (np.abs(five_points(meshes[0]) - one).max(0) < 0.15 * (box[2:] - box[:2])).all():
                hull = np.asarray(cv2.convexHull(np.ascontiguousarray(meshes[0][:, :2], np.float32)), np.float32)[:, 0]
                about = hull.mean(0) + _WIDER * (hull - hull.mean(0))
            cv2.fillConvexPoly(page, np.round(about).astype(np.int32), 1)
        return page > 0 if page.any() else None

    def _closely(self, image: Image, box: F32) -> float:
        """The mean score, 0–1, of both detectors on wide and narrow close-ups of the place, as it is and mirrored."""
        scores = []
        centre, side = (box[:2] + box[2:]) / 2, float((box[2:] - box[:2]).max())
        for reach in _REACHES:
            x0, y0 = (max(0, int(v)) for v in centre - reach * side)
            x1, y1 = (int(v) + 1 for v in centre + reach * side)
            part = image[y0:y1, x0:x1]
            if part.size == 0:
                return 0.0
            here = box - np.array([x0, y0, x0, y0], np.float32)
            last = part.shape[1] - 1
            there = np.array([last - here[2], here[1], last - here[0], here[3]], np.float32)
            for picture, place in ((part, here), (part[:, ::-1], there)):
                for detector in self.closeups:
                    seen = detector.detect(np.ascontiguousarray(picture))
                    near = overlap(seen.boxes, place[None])[0][:, 0] > 0.3
                    scores.append(float(seen.scores[near].max(initial=0)))
        return float(np.mean(scores))


def _about(points: F32) -> F32:
    """The ellipse (k, 2) px within which a face with these five points (5, 2) px is, whichever way it looks."""
    eyes, mouth = points[:2].mean(0), points[3:].mean(0)
    size = max(float(np.linalg.norm(mouth - eyes)), float(np.linalg.norm(points[1] - points[0])), 1.0)
    down = (mouth - eyes) / max(float(np.linalg.norm(mouth - eyes)), 1e-3)
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)[:, None]
    across = np.array([-down[1], down[0]])
    return np.asarray((eyes + mouth) / 2 + size * (_WIDE * np.cos(angles) * across + _HIGH * np.sin(angles) * down), np.float32)


def same_place(boxes: F32, others: F32) -> NDArray[np.bool_]:
    """Whether boxes (n, 4) and others (m, 4) are about one face: bool (n, m). A much smaller box inside a large one is not."""
    iou, inside = overlap(boxes, others)
    areas, other_areas = (np.prod(np.maximum(b[:, 2:] - b[:, :2], 1e-6), axis=1) for b in (boxes, others))
    ratio = areas[:, None] / other_areas[None]
    return np.asarray((iou >= _SAME_IOU) | ((inside >= _SAME_INSIDE) & (np.minimum(ratio, 1 / ratio) >= _SAME_SIZE)))
