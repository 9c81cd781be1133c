"""What faces look like before and after: geometry, expression, gaze, age, sex, skin tone. The collector of the section `utility`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import pyarrow as pa

from mfmc_ray.evaluate.iris import IrisLook
from mfmc_ray.evaluate.pair import CHANGED, REPLACED, Pair
from mfmc_ray.evaluate.pairing import MIN_SCORE, SAME_FACE, placed
from mfmc_ray.evaluate.recognizers import HseEmbedder
from mfmc_ray.evaluate.sections import FACE_KEY, Row
from mfmc_ray.faces.attributes import AttributeHead
from mfmc_ray.faces.detect import overlap
from mfmc_ray.faces.faces import F32, Faces, Image
from mfmc_ray.faces.mesh import FaceMesh, eye_opening, mouth_opening, pose, smile

EXPRESSIONS: Mapping[str, Callable[[F32], F32]] = MappingProxyType(
    {"mouth_opening": mouth_opening, "eye_opening": eye_opening, "smile": smile}
)
DETECTORS = ("yunet", "centerface")
JUDGE = "faceres_deep"
"""Reads age and sex as well, and took no part in choosing the fakes (`HseEmbedder`)."""
JUDGE_MODELS = ("faceres_deep", "faceres_deep_json")
SIDES = ("before", "after")
NUMBERS = (*DETECTORS, "mesh", "yaw", "pitch", "roll", *EXPRESSIONS, "gaze_x", "gaze_y", "age", "man", "tone", "judge_age", "judge_man")
"""Of each side: whether a detector sees it (0, 1); the mesh network's belief, 0–1; degrees; as `mesh` and `iris` say; years, probability
and ITA in degrees; years and probability as the judge says."""
_OUTER = (33, 263)  # corners of the eyes


class Looks:
    """A row for each face that wears another one.

    `landmarks` is the mean distance between the meshes' 468 points in the picture, `points` that between the detectors' five where a
    detector sees the face in both; in units of the distance between the outer corners of the original's eyes, in three dimensions, so that
    a turned head's error is not blown up.

    Args:
        judge: whether faceres-deep is there to tell age and sex.
    """

    schema = pa.schema(
        [*FACE_KEY, ("landmarks", pa.float32()), ("points", pa.float32())]
        + [(f"{name}_{side}", pa.float32()) for name in NUMBERS for side in SIDES]
    )

    def __init__(self, judge: bool) -> None:
        self._mesh, self._head, self._iris = FaceMesh(), AttributeHead(), IrisLook()
        self._judge = HseEmbedder(JUDGE) if judge else None

    def collect(self, pair: Pair) -> list[Row]:
        """Of one pair."""
        faces, rows = pair.faces, pair.faces.which((REPLACED, CHANGED))
        if pair.output is None or not len(rows):
            return []
        # the original's where a detector sees it, too: another frame would be an error of itself
        points, boxes, _ = placed(faces.boxes[rows], faces.points[rows], [one[0] for one in pair.detections.values()])
        places = ((boxes, points), (faces.output_boxes[rows], faces.output_points[rows]))
        pictures = (pair.original, pair.output)
        fitted = [self._mesh.fit(image, *place) for image, place in zip(pictures, places, strict=True)]
        meshes = [one[0] for one in fitted]
        columns: dict[str, F32] = {}
        for k, side in enumerate(SIDES):
            found = {name: pair.detections[name][k] if name in pair.detections else Faces.empty() for name in DETECTORS}
            columns |= {f"{name}_{side}": _seen(every, places[k][0]) for name, every in found.items()}
            columns |= {f"{name}_{side}": values for name, values in self._look(pictures[k], *fitted[k], places[k][1]).items()}
        # a plain folder's picture may have another size
        scale = np.array(pair.original.shape[1::-1], np.float32) / np.array(pair.output.shape[1::-1], np.float32)
        eyes = np.linalg.norm(meshes[0][:, _OUTER[0]] - meshes[0][:, _OUTER[1]], axis=1)
        eyes = np.where(eyes > 0, eyes, np.nan)
        columns["landmarks"] = np.linalg.norm(meshes[1][..., :2] * scale - meshes[0][..., :2], axis=2).mean(1) / eyes
        five = np.linalg.norm(places[1][1] * scale - places[0][1], axis=2).mean(1) / eyes
        columns["points"] = np.where(faces.seen[rows] & faces.output_seen[rows], five, np.nan)
        return [pair.key(i) | {name: _number(values[j]) for name, values in columns.items()} for j, i in enumerate(rows.tolist())]

    def _look(self, image: Image, meshes: F32, scores: F32, points: F32) -> dict[str, F32]:
        looks, angles, gaze = self._head.estimate(image, meshes), pose(meshes), self._iris.gaze(image, meshes)
        found = {"mesh": scores, "yaw": angles[:, 0], "pitch": angles[:, 1], "roll": angles[:, 2]}
        found |= {name: np.asarray(measure(meshes).reshape(len(meshes), -1).mean(1)) for name, measure in EXPRESSIONS.items()}
        found |= {"gaze_x": gaze[:, 0], "gaze_y": gaze[:, 1], "age": looks.ages, "man": looks.sexes, "tone": looks.tones}
        if self._judge is not None:
            _, ages, men = self._judge.look(self._judge.crops(image, points))
            found |= {"judge_age": ages, "judge_man": men}
        return found


def _seen(faces: Faces, boxes: F32) -> F32:
    """1 where a detection is where the box is, else 0."""
    some = faces.take(faces.scores >= MIN_SCORE) if len(faces) else faces
    if not len(some):
        return np.zeros(len(boxes), np.float32)
    return np.asarray(overlap(some.boxes, boxes)[0].max(0) >= SAME_FACE, np.float32)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
