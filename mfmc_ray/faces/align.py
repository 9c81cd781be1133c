"""Upright crops of faces: least-squares similarity transforms onto a template, and warps that do not alias."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mfmc_ray.faces.faces import F32, Image, Pixels

ARCFACE_TEMPLATE: F32 = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32
)
"""float32 (5, 2): where the five points lie in a chip of 112 × 112 px (InsightFace's `arcface_dst`)."""

TEMPLATE_SIZE = 112

# a warp that shrinks by more than this averages the pixels first: bilinear sampling reads 2 × 2 pixels however many it stands for
SHARP_SHRINK = 1.25


def similarity(points: F32, template: F32) -> F32:
    """The rotation, uniform scale and shift that bring each face's points nearest to the template, in the least-squares sense.

    With points as complex numbers p and template t, both centred, the minimiser of Σ|a·p − t|² is a = Σ p̄·t / Σ|p|²: Umeyama's solution
    ("Least-squares estimation of transformation parameters between two point patterns", TPAMI 1991), in the plane, never mirrored.

    Args:
        points: (n, 5, 2), or any other number of points, px. Points that all coincide are only shifted.
        template: (5, 2), where they shall go, px.

    Returns:
        float32 (n, 2, 3): x' = M[:, :2] x + M[:, 2].
    """
    p = points[..., 0].astype(np.float64) + 1j * points[..., 1]
    t = template[:, 0].astype(np.float64) + 1j * template[:, 1]
    p_mean, t_mean = p.mean(1), t.mean()
    p = p - p_mean[:, None]
    spread = (np.abs(p) ** 2).sum(1)
    a = np.where(spread > 0, (p.conj() @ (t - t_mean)) / np.where(spread > 0, spread, 1), 1)
    b = t_mean - a * p_mean
    return np.stack([np.stack([a.real, -a.imag, b.real], -1), np.stack([a.imag, a.real, b.imag], -1)], 1).astype(np.float32)


def warp(image: Pixels, matrices: F32, size: int) -> Image:
    """Square crops through similarity transforms; what lies outside the image is black.

    A face larger than its crop is first averaged down (area interpolation of the region that the crop needs), so that fine
    structure does not alias into the crop. The cost does not depend on the size of the image.

    Args:
        image: the image.
        matrices: (n, 2, 3), image px → crop px, as `similarity` gives them.
        size: side of the crops, px.

    Returns:
        uint8 (n, size, size, 3).
    """
    crops = np.zeros((len(matrices), size, size, 3), np.uint8)
    for crop, matrix in zip(crops, matrices.astype(np.float64), strict=True):
        x0, y0, x1, y1 = region_of(matrix, size, image.shape)
        if x0 >= x1 or y0 >= y1:
            continue
        region: NDArray[Any] = image[y0:y1, x0:x1]
        linear, shift = matrix[:, :2], matrix[:, 2] + matrix[:, :2] @ (x0, y0)
        shrink = 1 / np.sqrt(abs(np.linalg.det(linear)))
        if shrink > SHARP_SHRINK:
            height, width = region.shape[:2]
            small = max(1, round(width / shrink)), max(1, round(height / shrink))
            region = cv2.resize(region, small, interpolation=cv2.INTER_AREA)
            # pixel centres are at integers: x = (x' + ½) · ratio − ½
            ratio = np.array([width, height]) / small
            shift = shift + linear @ ((ratio - 1) / 2)
            linear = linear * ratio
        cv2.warpAffine(region, np.column_stack([linear, shift]), (size, size), dst=crop, flags=cv2.INTER_LINEAR)
    return crops


def chips(image: Pixels, points: F32, size: int = TEMPLATE_SIZE) -> Image:
    """The aligned faces that ArcFace-style recognizers read.

    Args:
        image: the image.
        points: (n, 5, 2), px, in the order of `Faces.points`.
        size: side of a chip, px; the template grows with it.

    Returns:
        uint8 (n, size, size, 3), RGB.
    """
    return warp(image, similarity(points, scaled(ARCFACE_TEMPLATE, size / TEMPLATE_SIZE)), size)


def scaled(template: F32, factor: float) -> F32:
    """A template for a chip whose side is `factor` times as long; pixel centres are at integers."""
    return np.asarray((template + 0.5) * factor - 0.5, np.float32)


def region_of(matrix: NDArray[np.float64], size: int, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """x0 y0 x1 y1 of the pixels a crop can read, inside the image."""
    edge = np.array([[-1, -1], [size, -1], [-1, size], [size, size]], np.float64)
    corners = np.linalg.solve(matrix[:, :2], (edge - matrix[:, 2]).T)
    margin = 2 / np.sqrt(abs(np.linalg.det(matrix[:, :2]))) + 2
    low, high = np.floor(corners.min(1) - margin), np.ceil(corners.max(1) + margin)
    height, width = shape[:2]
    x0, y0 = np.clip(low, 0, (width, height)).astype(int)
    x1, y1 = np.clip(high, 0, (width, height)).astype(int)
    return int(x0), int(y0), int(x1), int(y1)
