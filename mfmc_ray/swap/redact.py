"""Redaction: an opaque cover over a face. Nothing of what it covers decides how it looks."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Cover:
    """An opaque rectangle.

    Attributes:
        area: x0 y0 x1 y1 px, end exclusive.
        colour: RGB, 0–255.
    """

    area: tuple[int, int, int, int]
    colour: tuple[int, int, int]

    @classmethod
    def of(cls, image: Image, area: tuple[int, int, int, int]) -> Cover:
        """For this area of an image (uint8 h×w×3), in one colour: the median of a ring around it."""
        x0, y0, x1, y1 = area
        ring = max(2, round(_RING * max(x1 - x0, y1 - y0)))
        around = np.zeros(image.shape[:2], bool)
        around[max(0, y0 - ring) : y1 + ring, max(0, x0 - ring) : x1 + ring] = True
        around[y0:y1, x0:x1] = False
        colour = np.median(image[around], 0) if around.any() else np.full(3, 128)
        red, green, blue = (int(value) for value in np.round(colour))
        return cls(area, (red, green, blue))

    def paste(self, image: Image) -> None:
        """Fills its area of an image uint8 (h, w, 3), in place."""
        image[self.window] = self.colour

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of its area."""
        x0, y0, x1, y1 = self.area
        return slice(y0, y1), slice(x0, x1)


def redact(image: Image, area: tuple[int, int, int, int]) -> None:
    """Covers a rectangle x0 y0 x1 y1 (px) of an image (uint8 h×w×3), in place."""
    Cover.of(image, area).paste(image)
