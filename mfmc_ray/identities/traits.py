"""What is read off an unwrapped texture to find identities that fit a face: its beard."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from mfmc_ray.identities.surface import F32, IMAGE_LEFT_EYE, IMAGE_RIGHT_EYE, Bool, Surface

TRAIT_SIZE = 128
"""Side in texels of the textures that traits are read from."""

# FaceMesh landmarks around each area.
CHEEKS = ((50, 101, 36, 205, 187, 123), (280, 330, 266, 425, 411, 352))
_JAW = (57, 43, 106, 182, 83, 18, 313, 406, 335, 273, 287, 364, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150, 136, 135)
_LIPS = (61, 39, 0, 269, 291, 405, 17, 181)
BROWS = ((70, 63, 105, 66, 107, 55, 65, 52, 53, 46), (300, 293, 334, 296, 336, 285, 295, 282, 283, 276))
_NOSTRILS = (98, 97, 2, 326, 327)


def polygon(surface: Surface, landmarks: tuple[int, ...], size: int) -> Bool:
    """Bool (size, size): the texels inside the convex hull of some landmarks."""
    page = np.zeros((size, size), np.uint8)
    points = np.round((surface.uv[list(landmarks)] + 0.5) * (size / surface.size) - 0.5).astype(np.int32)
    cv2.fillConvexPoly(page, cv2.convexHull(points), 1)
    return np.asarray(page > 0)


def bare_skin(surface: Surface, size: int) -> F32:
    """float32 (size, size), 0–1: 1 on the texels that show skin on a bare face, 0 on brows, eyes, lips and nostrils and outside."""
    page = np.zeros((TRAIT_SIZE, TRAIT_SIZE), np.uint8)
    for outline, by in (
        *((ring, 3) for ring in (IMAGE_LEFT_EYE, IMAGE_RIGHT_EYE)),
        *((brow, 3) for brow in BROWS),
        (_LIPS, 3),
        (_NOSTRILS, 2),
    ):
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * by + 1, 2 * by + 1))
        page = np.maximum(page, np.asarray(cv2.dilate(polygon(surface, outline, TRAIT_SIZE).astype(np.uint8), kernel), np.uint8))
    bare = cv2.GaussianBlur((page == 0).astype(np.float32), (0, 0), 1.0)
    return np.asarray(cv2.resize(bare, (size, size), interpolation=cv2.INTER_LINEAR if size > TRAIT_SIZE else cv2.INTER_AREA), np.float32)


def beard(surface: Surface, texture: NDArray[np.uint8], visible: Bool | None = None) -> float:
    """Beard strength of a texture uint8 (TRAIT_SIZE, TRAIT_SIZE, 3) RGB: about 0 without, 0.3 stubble, 1 a full dark beard.

    How much darker and how much rougher the jaw is than the cheeks, on a logarithmic scale. `visible` limits it to texels that were seen.
    """
    cheeks, jaw = _areas(surface.uv.tobytes(), surface.size)
    if visible is not None:
        cheeks, jaw = cheeks & visible, jaw & visible
    if cheeks.sum() < 50 or jaw.sum() < 50:
        return 0.0
    light = np.log(texture.astype(np.float32).mean(2) + 16)
    rough = np.abs(light - cv2.GaussianBlur(light, (0, 0), 1.5))
    darker = float(np.median(light[cheeks]) - np.median(light[jaw]))
    return max(0.0, darker - 0.12) * 1.6 + max(0.0, float(rough[jaw].mean() - rough[cheeks].mean()) - 0.004) * 16


@lru_cache(maxsize=2)
def _areas(uv: bytes, size: int) -> tuple[Bool, Bool]:
    surface = Surface(np.zeros((468, 3), np.float32), np.frombuffer(uv, np.float32).reshape(468, 2), np.zeros((0, 3), np.intp), size)
    cheeks = polygon(surface, CHEEKS[0], TRAIT_SIZE) | polygon(surface, CHEEKS[1], TRAIT_SIZE)
    return cheeks, polygon(surface, _JAW, TRAIT_SIZE) & ~polygon(surface, _LIPS, TRAIT_SIZE)


def beard_of(surface: Surface, image: NDArray[np.uint8], mesh: F32) -> float:
    """`beard` of a face in a picture (uint8 h×w×3 RGB) with mesh (468, 3) in px."""
    facing = surface.texels.interpolate(surface.facing(mesh)[:, None], surface.corners, (surface.size, surface.size), 0.0)[:, :, 0]
    visible = cv2.resize(facing, (TRAIT_SIZE, TRAIT_SIZE), interpolation=cv2.INTER_NEAREST) > 0.4
    return beard(surface, surface.unwrap(image, mesh, TRAIT_SIZE), visible)
