"""What of a picture is inside faces, and what is outside."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mfmc_ray.faces.faces import F32, Image

AROUND = 0.25
"""Of a box's longer side, that is added on each side of it: further out a picture is outside of faces."""
_GREY, _SIDE = 128, 256


def outside(boxes: F32, height: int, width: int) -> NDArray[np.bool_]:
    """bool (height, width): what is further from all boxes (n, 4) px than `AROUND`."""
    found = np.ones((height, width), bool)
    for box in boxes:
        if np.isfinite(box).all():
            x0, y0, x1, y1 = pixels(box, AROUND, height, width)
            found[y0:y1, x0:x1] = False
    return found


def pixels(box: F32, around: float, height: int, width: int) -> tuple[int, int, int, int]:
    """x0 y0 x1 y1, whole px in the picture, of a box that is made larger by `around` of its longer side on each side."""
    more = around * float(max(box[2] - box[0], box[3] - box[1]))
    x0, y0 = (max(0, int(np.floor(v - more))) for v in box[:2])
    x1, y1 = (min(n, int(np.ceil(v + more))) for v, n in zip(box[2:], (width, height), strict=True))
    return x0, y0, max(x0, x1), max(y0, y1)


def same_size(output: Image, original: Image) -> Image:
    """The output, drawn as large as the original: a plain folder's pictures may have been scaled."""
    if output.shape == original.shape:
        return output
    return np.asarray(cv2.resize(output, original.shape[1::-1], interpolation=cv2.INTER_AREA), np.uint8)


def hidden(image: Image, boxes: F32) -> Image:
    """uint8 (256, 256, 3): a picture, grey wherever it is not outside of these boxes (n, 4) px."""
    shown = np.where(outside(boxes, *image.shape[:2])[..., None], image, np.uint8(_GREY))
    return np.asarray(cv2.resize(shown, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), np.uint8)
