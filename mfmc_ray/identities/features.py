"""Features: how brows, nose, lips and lids of an identity are moved about in its texture, beyond what its sources had.

Shape alone cannot do it: the mesh network hardly sees a brow's arch or a nose's wings. A texture square is warped smoothly instead, so that
mixtures of some hundred sources make up many more faces that are nobody's.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mfmc_ray.identities.surface import F32, IMAGE_LEFT_EYE, IMAGE_RIGHT_EYE, INNER_LIPS, Surface

_SPREAD = 0.026
"""σ over which a landmark's displacement carries its neighbourhood along, in sides of the texture."""

_BROW = (70, 63, 105, 66, 107, 46, 53, 52, 65, 55)  # upper edge from the outside in, then the lower
_WINGS = (64, 98, 49, 48, 219, 218, 129, 203)
_TIP = (1, 4, 2, 19, 94, 97, 98, 64, 5, 45, 44)
_UPPER_LIP = (0, 37, 39, 40, 185, 164, 167)
_LOWER_LIP = (17, 84, 181, 91, 146, 18, 83)
_CREASE = (27, 28, 56, 30, 29, 247, 161, 160, 159, 158)
_LOWER_LID = (145, 144, 153, 163, 154, 110, 24, 23, 22)
_OUTER_CORNER = (33, 246, 7, 130)
_INNER_CORNER = (133, 173, 155)


def _down(landmarks: tuple[int, ...], *amounts: float) -> tuple[tuple[int, ...], list[tuple[float, float]]]:
    return landmarks, [(0.0, v) for v in (amounts * len(landmarks) if len(amounts) == 1 else amounts)]


# each: landmarks of the image's left half and their displacement (right, down) in thousandths of the texture's side
_MODES: tuple[tuple[tuple[int, ...], list[tuple[float, float]]], ...] = (
    _down(_BROW, 24),  # brows lower
    _down(_BROW, *(-11, -5, 0, 5, 11) * 2),  # brows slanted
    _down(_BROW, *(13, -7, -19, -7, 13) * 2),  # brows arched
    _down(_BROW, *(-6,) * 5, *(6,) * 5),  # brows thick
    ((107, 55, 66, 65), [(33.0, 0.0), (33.0, 0.0), (19.0, 0.0), (19.0, 0.0)]),  # brows together
    (_WINGS, [(-38.0, 0.0)] * 4 + [(-28.0, 0.0)] * 2 + [(-23.0, 0.0), (-14.0, 0.0)]),  # nose wide
    _down(_TIP, *(38,) * 6, *(23,) * 3, *(28,) * 2),  # nose long
    _down(_UPPER_LIP, -22, -22, -19, -15, -9, -9, -9),  # upper lip full
    _down(_LOWER_LIP, 22, 22, 19, 15, 9, 9, 9),  # lower lip full
    _down(_CREASE, *(-19,) * 6, *(-14,) * 4),  # lid's crease high
    _down(_LOWER_LID, 16),  # lower lid low
    (_OUTER_CORNER, [(-19.0, -14.0)] * 4),  # eyes long
    _down(_OUTER_CORNER + _INNER_CORNER, *(-19,) * 4, *(14,) * 3),  # eyes slanted
)

_MODE = np.array([mode for mode, (landmarks, _) in enumerate(_MODES) for _ in landmarks])
_POINTS = np.array([point for landmarks, _ in _MODES for point in landmarks])
_VECTORS = np.array([vector for _, vectors in _MODES for vector in vectors], np.float32)
"""All of the modes' landmarks, one after another: which mode's each is, its number, its displacement."""
assert len(_POINTS) == len(_VECTORS)

FEATURES = len(_MODES)
"""How many ways there are to move features."""
SPREAD = 0.45
"""σ over people of how far each mode moves."""
MOST = 1.4
"""How far it moves at most, in σ. It is the fakes least like a face that are taken for it, so that extremes (thick brows, small eyes) were
seen often."""


@dataclass(frozen=True)
class Features:
    """Attributes:
    both: float32 (FEATURES,), how far each mode moves both halves of the face alike; 1 is usual, 2 strong.
    uneven: float32 (FEATURES,), what is added on the image's left and taken away on the other half.
    """

    both: F32
    uneven: F32


def draw(rng: np.random.Generator) -> Features:
    """Random features: independent normal, within `MOST` standard deviations, slightly uneven as faces are."""
    both = np.clip(rng.standard_normal(FEATURES), -MOST, MOST) * SPREAD
    uneven = np.clip(rng.standard_normal(FEATURES), -2, 2) * 0.06
    return Features(both.astype(np.float32), uneven.astype(np.float32))


GRID = 96
"""Side of the square on which `flow` moves features."""


def moved(page: NDArray[np.float32], field: NDArray[np.float32]) -> NDArray[np.float32]:
    """A page float32 (size, size, c) with what is on it moved by a smooth field float32 (g, g, 2): right and down, in sides of it."""
    size = page.shape[0]
    field = cv2.resize(field, (size, size), interpolation=cv2.INTER_LINEAR) * size
    x, y = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
    return np.asarray(cv2.remap(page, x - field[..., 0], y - field[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)


def flow(surface: Surface, features: Features) -> NDArray[np.float32]:
    """Where the features go: float32 (GRID, GRID, 2), right and down in sides of the texture square."""
    shifts = np.zeros((len(surface.uv), 2), np.float32)
    others = surface.mirror[_POINTS]
    own, opposite = (features.both + sign * features.uneven for sign in (1, -1))
    pairs = np.stack([own[_MODE, None] * _VECTORS, opposite[_MODE, None] * (_VECTORS * np.array((-1, 1), np.float32))], 1)
    pairs[others == _POINTS, 1] = 0  # a point of the middle line is its own counterpart
    np.add.at(shifts, np.stack([_POINTS, others], 1), pairs)
    at = np.clip(np.round((surface.uv + 0.5) * (GRID / surface.size) - 0.5).astype(int), 0, GRID - 1)
    weight, field = np.zeros((GRID, GRID), np.float32), np.zeros((GRID, GRID, 2), np.float32)
    np.add.at(weight, (at[:, 1], at[:, 0]), 1)
    # the opening of mouth and eyes is the photo's: the texture's must stay on it
    for ring, hold in ((INNER_LIPS, 3), (IMAGE_LEFT_EYE, 1), (IMAGE_RIGHT_EYE, 1)):
        held = at[list(ring)]
        np.add.at(weight, (held[:, 1], held[:, 0]), hold)
    np.add.at(field, (at[:, 1], at[:, 0]), shifts / 1000)
    # landmarks around that stay where they are hold the rest of the face in place
    return np.asarray(
        cv2.GaussianBlur(field, (0, 0), _SPREAD * GRID) / (cv2.GaussianBlur(weight, (0, 0), _SPREAD * GRID)[..., None] + 1e-3), np.float32
    )
