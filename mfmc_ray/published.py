"""The pixels of a picture as its published file will hold them, known before the file is written."""

from __future__ import annotations

import functools
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mfmc_ray.codec import Decoded, decode, encode, encode_part, jpeg_samples
from mfmc_ray.label import XMP
from mfmc_ray.orientation import MIRRORS_COLUMNS, MIRRORS_ROWS, SIDEWAYS, turned

_UNIT = 16
"""px: the largest unit (MCU) that JPEGs are written in here; the smaller ones divide it."""
_MARGIN = 18
"""px, beyond what is read of a JPEG: a unit at a window's border is coded otherwise than in the file, since its chroma is weighed with that
of its neighbours, and decoders smooth chroma over the borders of units, which reaches 2 px."""
_GROWTH = 0.3
"""By how much of its sides a window is larger than what is read first, on each side: the next reads are of the same face."""


class PublishedError(RuntimeError):
    """The file is not coded as the windows were that were looked at."""


class Published:
    """A picture that is read like an array, `published[y0:y1, x0:x1]`: exactly the pixels that `decode(encode(…))` has there.

    They are made when they are read, from the smallest part of the picture that decides them, and kept:

    - In a JPEG no unit of 8 × 8 to 16 × 16 px depends on another but its neighbours (see `encode_part`). A window of whole units, coded
      alone with the file's tables and subsampling, decodes to the file's pixels, but for its outermost 18 px.
    - PNG, TIFF and lossless WebP hold the pixels as they are, or their grey.
    - In a lossy WebP every block depends on those before it: the whole is encoded, and decoded.

    A JPEG that is stored turned is cut into windows as it is stored.

    Args:
        picture: what to publish; its pixels must not change while this is used.
        quality, xmp: as for `encode`.
    """

    def __init__(self, picture: Decoded, quality: int, xmp: bytes | None = XMP) -> None:
        self._picture, self._quality, self._xmp = picture, quality, xmp
        self._windows: list[tuple[int, int, NDArray[np.uint8]]] = []
        self._coding: tuple[Any, ...] | None = None
        self._file: tuple[bytes, str] | None = None

    @functools.cached_property
    def _stored(self) -> NDArray[np.uint8]:
        """What is coded, as it is stored."""
        return jpeg_samples(self._picture.pixels, self._picture)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height and width in px, 3 colours."""
        return self._picture.height, self._picture.width, 3

    def __getitem__(self, at: tuple[slice, slice]) -> NDArray[np.uint8]:
        """uint8 (h, w, 3) RGB of rows and columns; not to be written to.

        Raises:
            ValueError: for slices with a step.
        """
        (y0, y1, down), (x0, x1, right) = (part.indices(size) for part, size in zip(at, self.shape, strict=False))
        if (down, right) != (1, 1):
            raise ValueError("a published picture is read by slices without steps")
        if y0 >= y1 or x0 >= x1:
            return np.zeros((max(0, y1 - y0), max(0, x1 - x0), 3), np.uint8)
        if self._picture.format == "JPEG" or (self._picture.format == "WEBP" and not self._picture.lossless):
            return self._coded(y0, y1, x0, x1)
        part = self._picture.pixels[y0:y1, x0:x1]
        if self._picture.grey:
            return np.array(Image.fromarray(np.ascontiguousarray(part)).convert("L").convert("RGB"))
        return part

    def _coded(self, y0: int, y1: int, x0: int, x1: int) -> NDArray[np.uint8]:
        """Rows and columns of what is coded with loss."""
        height, width, _ = self.shape
        orientation = self._picture.stored_in
        # where they are stored: the steps of `turned` undone, the last one first
        if orientation in SIDEWAYS:
            (y0, y1, x0, x1), (height, width) = (x0, x1, y0, y1), (width, height)
        if orientation in MIRRORS_ROWS:
            y0, y1 = height - y1, height - y0
        if orientation in MIRRORS_COLUMNS:
            x0, x1 = width - x1, width - x0
        top, left, pixels = self._window(y0, y1, x0, x1)
        return turned(pixels[y0 - top : y1 - top, x0 - left : x1 - left], orientation)

    def file(self) -> tuple[bytes, str]:
        """The file, and its format's name; what `encode` gives.

        Raises:
            PublishedError: if its header says that it is coded otherwise than the windows.
        """
        file, kind = self._file or self._encoded()
        with Image.open(io.BytesIO(file), formats=(kind,)) as header:
            same = kind != "JPEG" or self._coding in (None, _coding(header))
            shape = self.shape[1::-1] if self._picture.stored_in in SIDEWAYS else self.shape[:2]
            if (header.height, header.width) != shape or not same:
                raise PublishedError("the file is not coded as the windows were that were looked at")
        return file, kind

    def _encoded(self) -> tuple[bytes, str]:
        stored = self._stored if self._picture.format == "JPEG" else None
        return encode(self._picture.pixels, self._picture, quality=self._quality, xmp=self._xmp, stored=stored)

    def _window(self, y0: int, y1: int, x0: int, x1: int) -> tuple[int, int, NDArray[np.uint8]]:
        """Top, left and the pixels of a window that has all these stored rows and columns."""
        for top, left, pixels in self._windows:
            if top <= y0 and left <= x0 and y1 <= top + pixels.shape[0] and x1 <= left + pixels.shape[1]:
                return top, left, pixels
        if self._picture.format == "JPEG":
            height, width, _ = self._stored.shape
            made = self._part(*_grown(y0, y1, height), *_grown(x0, x1, width))
        else:
            self._file = self._encoded()
            made = 0, 0, decode(self._file[0], self.shape[0] * self.shape[1]).pixels
            if made[2].shape != self.shape:
                raise PublishedError("the file has another size than the picture")
        self._windows.append(made)
        return made

    def _part(self, y0: int, y1: int, x0: int, x1: int) -> tuple[int, int, NDArray[np.uint8]]:
        """A window of a JPEG of at least these stored rows and columns."""
        height, width, _ = self._stored.shape
        top, left = ((max(0, start - _MARGIN) // _UNIT) * _UNIT for start in (y0, x0))
        bottom, right = (min(-(-(end + _MARGIN) // _UNIT) * _UNIT, size) for end, size in ((y1, height), (x1, width)))
        part = encode_part(self._stored[top:bottom, left:right], self._picture, quality=self._quality)
        with Image.open(io.BytesIO(part), formats=("JPEG",)) as image:
            self._coding = _coding(image)
            pixels = np.array(image.convert("RGB"))
        # a border that is not the picture's own is smoothed otherwise than in the file
        cut = (
            slice(_MARGIN if top else 0, -_MARGIN if bottom < height else None),
            slice(_MARGIN if left else 0, -_MARGIN if right < width else None),
        )
        return top + (_MARGIN if top else 0), left + (_MARGIN if left else 0), pixels[cut]


def _grown(start: int, end: int, size: int) -> tuple[int, int]:
    """A range that is larger by `_GROWTH` at both ends, inside 0…size."""
    more = round(_GROWTH * (end - start))
    return max(0, start - more), min(size, end + more)


def _coding(image: Any) -> tuple[Any, ...]:
    """What decides how an opened JPEG's coefficients become pixels."""
    return image.mode, image.layer, image.quantization, image.info.get("adobe_transform"), "jfif" in image.info
