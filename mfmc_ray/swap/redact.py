"""Redaction: an opaque cover over a face. Nothing of what it covers decides how it looks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mfmc_ray.faces.faces import Image

MARGIN = 0.12
"""How far the cover reaches beyond the box on each side, in sides of the box: hairline and chin with a box that is a little off."""
_RING = 0.15


def cover_of(box: NDArray[np.float32], shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The covered rectangle x0 y0 x1 y1 (px, end exclusive) of a face's box, inside an image of this shape; at least 2 px a side."""
    width, height = box[2] - box[0], box[3] - box[1]
    low = np.floor([box[0] - MARGIN * width, box[1] - MARGIN * height]).astype(int)
    high = np.ceil([box[2] + MARGIN * width, box[3] + MARGIN * height]).astype(int) + 1
    x0, y0 = (int(v) for v in np.clip(low, 0, [shape[1] - 1, shape[0] - 1]))
    return x0, y0, int(np.clip(high[0], x0 + 1, shape[1])), int(np.clip(high[1], y0 + 1, shape[0]))


def redact(image: Image, area: tuple[int, int, int, int]) -> None:
    """Fills a rectangle x0 y0 x1 y1 (px) of an image (uint8 h×w×3), in place, with one colour: the median of a ring around it."""
    x0, y0, x1, y1 = area
    ring = max(2, round(_RING * max(x1 - x0, y1 - y0)))
    around = np.zeros(image.shape[:2], bool)
    around[max(0, y0 - ring) : y1 + ring, max(0, x0 - ring) : x1 + ring] = True
    around[y0:y1, x0:x1] = False
    colour = np.median(image[around], 0) if around.any() else np.full(3, 128)
    image[y0:y1, x0:x1] = np.round(colour).astype(np.uint8)
