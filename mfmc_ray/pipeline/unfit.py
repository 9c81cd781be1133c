"""Which faces cannot be swapped well, and are covered instead."""

from __future__ import annotations

import numpy as np

from mfmc_ray.faces.faces import Faces
from mfmc_ray.faces.mesh import disagreement
from mfmc_ray.swap.cover import Covered

LIPS_COVERED = 0.5
"""Share of the lips behind something (`cover.Covered.mouth`) from which no mouth is drawn."""
HALF_COVERED = 0.65
"""Share of a cheek behind something (`cover.Covered.half`) from which the face is taken to be in profile, or half hidden: of 102 faces that
are swapped well none had more than 0.43, of one whose far eye was drawn beside it it was 0.93."""
LEAST_MESH_SCORE = 0.3
LARGEST_YAW = 60.0
LARGEST_PITCH = 45.0
LARGEST_DISAGREEMENT = 0.22


def unfit(min_face: float, faces: Faces, i: int, covered: Covered) -> str | None:
    """The rule by which the i-th face cannot be swapped well; None if it can.

    Args:
        min_face: px, √area of the box; smaller faces cannot.
        faces: of the picture, with all that `Faces` can hold.
        i: the face.
        covered: what lies before it.
    """
    if faces.sizes[i] < min_face:
        return "too_small"
    if faces.need("mesh_scores")[i] < LEAST_MESH_SCORE:
        return "no_mesh"
    yaw, pitch, _ = np.abs(faces.need("poses")[i])
    if yaw > LARGEST_YAW:
        return "profile"
    if pitch > LARGEST_PITCH:
        return "steep_pitch"
    mesh = faces.need("meshes")[i]
    if disagreement(mesh, faces.points[i], faces.boxes[i]) > LARGEST_DISAGREEMENT:
        return "unsure_mesh"
    if covered.mouth > LIPS_COVERED:
        return "mouth_covered"
    return "half_hidden" if covered.half > HALF_COVERED else None
