"""A window of a picture that travels: what is around a face, and where it was."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mfmc_ray.faces.faces import F32, Image

REACH = 1.5
"""How far around a mesh its window reaches, in the mesh's longer sides. What a recognizer cuts out of a face turned by any angle reaches
0.7, what moves along with a swap 0.5, what is changed of the head's outline 1.3."""


@dataclass(frozen=True, eq=False)
class Window:
    """A part of a picture.

    Attributes:
        height, width: of the picture, px.
        x, y: of the part's upper left corner, px.
        pixels: uint8 (h, w, 3) RGB.
    """

    height: int
    width: int
    x: int
    y: int
    pixels: Image

    @classmethod
    def around(cls, picture: Image, mesh: F32) -> Window:
        """What is needed of a picture, uint8 (h, w, 3), to swap the face with `mesh` (468, 3) px and to look at it; not copied."""
        height, width = picture.shape[:2]
        low, high = mesh[:, :2].min(0), mesh[:, :2].max(0)
        reach = REACH * float((high - low).max()) + 16
        x0, y0 = (max(0, int(v)) for v in low - reach)
        x1, y1 = max(x0 + 1, min(width, int(high[0] + reach) + 1)), max(y0 + 1, min(height, int(high[1] + reach) + 1))
        return cls(height, width, x0, y0, picture[y0:y1, x0:x1])

    def canvas(self) -> Image:
        """A picture of the whole size with this part in its place, so that everything has the coordinates, and the rounding, that it has in
        the whole one. The rest is zero; memory that is not touched is not there."""
        canvas = np.zeros((self.height, self.width, 3), np.uint8)
        canvas[self.y : self.y + self.pixels.shape[0], self.x : self.x + self.pixels.shape[1]] = self.pixels
        return canvas
