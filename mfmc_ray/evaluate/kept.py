"""The note `kept`: what of each face is still there, in numbers that any method can be held against, down to a black box."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from skimage.metrics import structural_similarity

from mfmc_ray.evaluate.bootstrap import Bootstrap
from mfmc_ray.evaluate.pair import Pair
from mfmc_ray.evaluate.sections import FACE_KEY, About, Note, Row
from mfmc_ray.faces.attributes import AttributeHead
from mfmc_ray.faces.faces import F32, Image
from mfmc_ray.faces.mesh import FaceMesh

NOTE = Note("kept", "mfmc_ray.evaluate.kept:Kept", 2, models=("facemesh", "iris", "attribute_net"))
KEPT = ("detected", "landmarks", "expression", "age", "sex")
"""What the utility of a face is the mean of."""
LOST_POINTS, LOST_YEARS, LOST_OPENING = 0.25, 20.0, 0.3
"""From where on nothing is kept: the five points' mean error in distances of the eyes, years, how far mouth and eyes are open."""
_SIDE = 96  # px, of the crops whose structure is compared
# mesh vertices: (above, below, left, right) of mouth, right and left eye
_OPENINGS = ((13, 14, 78, 308), (159, 145, 33, 133), (386, 374, 362, 263))


class Kept:
    """A row for each face that a detector sees in the original and the output shows.

    `score_*` are 0–1; all but `ssim` are 0 where no detector sees a face any more: what a mesh is laid over then is none.
    """

    schema = pa.schema([*FACE_KEY, *((f"score_{name}", pa.float32()) for name in KEPT), *((n, pa.float32()) for n in ("points", "ssim"))])

    def __init__(self) -> None:
        self._mesh, self._head = FaceMesh(), AttributeHead()

    def collect(self, pair: Pair) -> list[Row]:
        """Of one pair."""
        faces = pair.faces
        if pair.output is None or pair.output.shape != pair.original.shape:
            return []
        rows = []
        for i in np.flatnonzero(faces.seen):
            eyes = max(1.0, float(np.linalg.norm(faces.points[i, 0] - faces.points[i, 1])))
            moved = float(np.linalg.norm(faces.points[i] - faces.output_points[i], axis=1).mean()) / eyes
            scores = dict.fromkeys((f"score_{name}" for name in KEPT), 0.0)
            if faces.output_seen[i]:
                before = self._look(pair.original, faces.boxes[i], faces.points[i])
                # of the same box: what is as it was is to be read as it was
                after = self._look(pair.output, faces.boxes[i], faces.output_points[i])
                scores["score_detected"] = 1.0
                scores["score_landmarks"] = _left(moved, LOST_POINTS)
                opened = zip(before[0], after[0], strict=True)
                scores["score_expression"] = float(np.mean([_left(abs(a - b), LOST_OPENING) for a, b in opened]))
                scores["score_age"] = _left(abs(before[1] - after[1]), LOST_YEARS)
                scores["score_sex"] = float((before[2] > 0.5) == (after[2] > 0.5))
            rows.append(
                pair.key(int(i))
                | scores
                | {
                    "points": moved if faces.output_seen[i] else None,
                    "ssim": _structure(pair.original, pair.output, faces.boxes[i]),
                }
            )
        return rows

    def _look(self, image: Image, box: F32, points: F32) -> tuple[list[float], float, float]:
        """How far mouth and eyes are open, in their widths; years; probability of "man"."""
        meshes, _ = self._mesh.fit(image, box[None], points[None])
        looks = self._head.estimate(image, meshes)
        at = meshes[0, :, :2]
        apart = [(np.linalg.norm(at[a] - at[b]), np.linalg.norm(at[c] - at[d])) for a, b, c, d in _OPENINGS]
        opened = [float(gap) / max(1e-3, float(width)) for gap, width in apart]
        return opened, float(looks.ages[0]), float(looks.sexes[0])


def figures(table: pa.Table, about: About) -> dict[str, Any]:
    """`score`, the mean of `KEPT` over faces, and each of them, with intervals; `points` (of faces still seen) and `ssim` beside."""
    at, boot = about.at(table), Bootstrap(about.person, about.options.rounds, about.options.seed)

    def spread(name: str) -> Any:
        values = np.full(len(about), np.nan)
        values[at] = np.array([np.nan if v is None else v for v in table[name].to_pylist()], np.float64)
        return values

    each = {name: spread(f"score_{name}") for name in KEPT}
    found: Mapping[str, Any] = {"score": boot.mean(np.mean(list(each.values()), axis=0))}
    return {**found, **{name: boot.mean(values) for name, values in each.items()}, **{n: boot.mean(spread(n)) for n in ("points", "ssim")}}


def _left(lost: float, most: float) -> float:
    return max(0.0, 1.0 - lost / most) if np.isfinite(lost) else 0.0


def _structure(before: Image, after: Image, box: F32) -> float:
    """SSIM inside the box, of grey crops of one size."""
    x0, y0 = (int(max(0, v)) for v in box[:2])
    x1, y1 = (int(max(v, low + 2)) for v, low in zip(box[2:], (x0, y0), strict=True))
    crops = [cv2.resize(cv2.cvtColor(one[y0:y1, x0:x1], cv2.COLOR_RGB2GRAY), (_SIDE, _SIDE)) for one in (before, after)]
    return float(structural_similarity(crops[0], crops[1], data_range=255))  # type: ignore[no-untyped-call]
