"""The eight EXIF orientations: turning pictures upright and back, and writing the tag."""

from __future__ import annotations

import struct
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

Samples = TypeVar("Samples", bound=np.generic)

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
MIRRORS_COLUMNS, MIRRORS_ROWS = frozenset({2, 3, 7, 8}), frozenset({3, 4, 6, 7})
"""The orientations whose last stored column, last stored row, comes first in what is shown."""
SIDEWAYS = frozenset({5, 6, 7, 8})
"""The orientations whose stored rows are shown as columns."""


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation as `ImageOps.exif_transpose` sees it; 1 if the EXIF is broken, as viewers have it."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        return 1
    return int(value) if value in range(1, 9) else 1


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """The picture upright, given its EXIF orientation."""
    return image.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else image


def turned(samples: NDArray[Samples], orientation: int) -> NDArray[Samples]:
    """The same for an array (height, width, …); a view."""
    if orientation in MIRRORS_COLUMNS:
        samples = samples[:, ::-1]
    if orientation in MIRRORS_ROWS:
        samples = samples[::-1]
    return samples.swapaxes(0, 1) if orientation in SIDEWAYS else samples


def back(orientation: int) -> int:
    """The orientation that undoes this one."""
    return {6: 8, 8: 6}.get(orientation, orientation)


def exif(orientation: int) -> bytes:
    """A TIFF structure with the orientation tag alone; empty for 1."""
    return b"" if orientation == 1 else struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)
