"""Kept faces stay as they were, although a neighbour's swap moved the surroundings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mfmc_ray.faces.faces import F32, Image
from mfmc_ray.swap.redact import cover_of


def restore(canvas: Image, original: Image, kept: F32, others: Sequence[tuple[int, int, int, int]]) -> None:
    """Puts the original's pixels back where a kept face is, but nowhere where another one is, in place.

    Inside the box of a kept face all is the original's; from there to the border of its margin (`cover_of`) it fades into the canvas.

    Args:
        canvas, original: uint8 (h, w, 3), the picture with swapped faces and as it was.
        kept: float32 (n, 4), boxes x0 y0 x1 y1 px of the faces that stay.
        others: x0 y0 x1 y1 px, end exclusive, of what must never come back: see `area_of`.
    """
    for box in kept:
        x0, y0, x1, y1 = cover_of(box, canvas.shape)
        weight = np.outer(_ramp(y0, y1, box[1], box[3]), _ramp(x0, x1, box[0], box[2]))
        for a0, b0, a1, b1 in others:
            weight[max(0, b0 - y0) : max(0, b1 - y0), max(0, a0 - x0) : max(0, a1 - x0)] = 0
        window, before = canvas[y0:y1, x0:x1], original[y0:y1, x0:x1].astype(np.float32)
        mixed = window + (before - window) * weight[:, :, None]
        canvas[y0:y1, x0:x1] = np.round(mixed).astype(np.uint8)


def area_of(box: F32, meshes: Sequence[F32], shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """All that may show a face that is not kept: its cover, and what its meshes (468, 3) px, before and after a swap, reach."""
    x0, y0, x1, y1 = cover_of(box, shape)
    for mesh in meshes:
        points = mesh[np.isfinite(mesh).all(1), :2]
        if len(points):
            low, high = np.floor(points.min(0)), np.ceil(points.max(0)) + 1
            x0, y0, x1, y1 = min(x0, int(low[0])), min(y0, int(low[1])), max(x1, int(high[0])), max(y1, int(high[1]))
    return max(0, x0), max(0, y0), min(shape[1], x1), min(shape[0], y1)


def _ramp(start: int, stop: int, low: float, high: float) -> F32:
    """For each px of start … stop: 1 from low to high, falling to 0 just outside of start and stop."""
    at = np.arange(start, stop, dtype=np.float32)
    inner = np.clip([np.floor(low), np.ceil(high)], start, stop - 1)
    rising = np.clip((at - (start - 1)) / max(1.0, inner[0] - (start - 1)), 0, 1)
    falling = np.clip((stop - at) / max(1.0, stop - inner[1]), 0, 1)
    return np.asarray(np.minimum(rising, falling), np.float32)
