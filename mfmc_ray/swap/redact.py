"""Redaction: an opaque cover over a face. Nothing of what it covers decides how it looks.

A cover is a rectangle, and would cut into a replaced face that is before the one it covers. It gives way where that face has been drawn
anew, which hides as well what is behind it; what was left of the picture within it (an open mouth, glasses) is covered.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mfmc_ray.faces.faces import Image
from mfmc_ray.identities.surface import Bool
from mfmc_ray.swap.protocol import Patch

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

    def paste(self, image: Image, before: Bool | None = None) -> None:
        """Fills its area of an image uint8 (h, w, 3), in place, but for what is `before` it, bool (y1 − y0, x1 − x0)."""
        if before is None:
            image[self.window] = self.colour
        else:
            image[self.window][~before] = self.colour

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of its area."""
        x0, y0, x1, y1 = self.area
        return slice(y0, y1), slice(x0, x1)


class Fronts:
    """Where the replaced faces of a picture have been drawn anew, and nothing else shows (`Patch.front`)."""

    def __init__(self) -> None:
        self._of: dict[int, tuple[int, int, Bool]] = {}

    def add(self, face: int, image: Image, patch: Patch) -> None:
        """That of a face whose patch is about to be pasted into `image`: of the others nothing is left where it changes that."""
        height, width = patch.pixels.shape[:2]
        same = (image[patch.y : patch.y + height, patch.x : patch.x + width] == patch.pixels).all(2)
        for other, (x, y, front) in self._of.items():
            self._of[other] = x, y, front & _part((patch.x, patch.y, same), (x, y, x + front.shape[1], y + front.shape[0]), True)
        if patch.front is not None:
            self._of[face] = patch.x, patch.y, patch.front

    def drop(self, face: int) -> None:
        """Of a face that is not replaced after all."""
        self._of.pop(face, None)

    def within(self, area: tuple[int, int, int, int]) -> Bool:
        """Where any of them shows in a rectangle x0 y0 x1 y1 (px): bool (y1 − y0, x1 − x0)."""
        shown = np.zeros((area[3] - area[1], area[2] - area[0]), np.bool_)
        for one in self._of.values():
            shown |= _part(one, area, False)
        return shown


def before(patch: Patch, cover: Cover) -> Bool | None:
    """What of a patch shows before a cover, for `Cover.paste`."""
    return None if patch.front is None else _part((patch.x, patch.y, patch.front), cover.area, False)


def _part(placed: tuple[int, int, Bool], area: tuple[int, int, int, int], elsewhere: bool) -> Bool:
    """What a page at x y (px) shows of a rectangle x0 y0 x1 y1, `elsewhere` beyond the page."""
    (x, y, page), (x0, y0, x1, y1) = placed, area
    part = np.full((y1 - y0, x1 - x0), elsewhere, np.bool_)
    left, top, right, bottom = max(x, x0), max(y, y0), min(x + page.shape[1], x1), min(y + page.shape[0], y1)
    if left < right and top < bottom:
        part[top - y0 : bottom - y0, left - x0 : right - x0] = page[top - y : bottom - y, left - x : right - x]
    return part


def redact(image: Image, area: tuple[int, int, int, int]) -> None:
    """Covers a rectangle x0 y0 x1 y1 (px) of an image (uint8 h×w×3), in place."""
    Cover.of(image, area).paste(image)
