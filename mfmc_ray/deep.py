"""Pictures of 16 bits a sample: kept beside the 8 bits that everything else works on, and written again."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin

from mfmc_ray.orientation import turned

_ROWS = 64


@dataclass(frozen=True, eq=False)
class Deep:
    """Samples of more than 8 bits.

    Attributes:
        samples: uint16 (height, width, channels), upright: 1 grey, 3 RGB, and one more for transparency.
        top: the sample that is shown as 255 (65535, but less for grey from sensors of fewer bits).
    """

    samples: NDArray[np.uint16]
    top: int

    @property
    def grey(self) -> bool:
        """Whether it has no colour."""
        return bool(self.samples.shape[2] < 3)

    def eight(self) -> NDArray[np.uint8]:
        """uint8 (height, width, channels), as Pillow makes them: grey alone is rounded, all else loses its lower bits."""
        if self.samples.shape[2] == 1:
            return np.asarray(np.rint(self.samples.astype(np.float32) * np.float32(255 / self.top)), np.uint8)
        return np.asarray(self.samples >> 8, np.uint8)

    def changed(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint16] | None:
        """The samples, with those of other 8-bit pixels than before replaced by these, scaled.

        Args:
            pixels: uint8 (height, width, 3) RGB.

        Returns:
            uint16 (height, width, channels). None if that would not be shown as these pixels: it has become darker than its range tells.
        """
        out = self.samples.copy()
        shown: NDArray[np.uint8] = pixels
        if self.grey:
            shown = np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))[..., None]
        colours = shown.shape[2]
        other = (shown != self.eight()[..., :colours]).any(-1)
        out[..., :colours][other] = np.rint(shown[other].astype(np.float32) * np.float32(self.top / 255))
        if out.shape[2] == 1 and range_of(out) != self.top:
            return None
        return out


def range_of(values: NDArray[np.uint16]) -> int:
    """The least usual range that these grey samples fit into. Sensors of 10 or 12 bits are often stored in 16: taken for 16 they would be
    black, and no face be found in them."""
    high = int(values.max())
    return next(top for top in (255, 511, 1023, 2047, 4095, 65535) if high <= top)


def read(
    data: bytes, image: Image.Image, pixels: NDArray[np.uint8], alpha: NDArray[np.uint8] | None, orientation: int, *, grey: bool
) -> Deep | None:
    """The samples of a PNG or TIFF of 16 bits; None for any other, and if they are not what Pillow made the 8 bits from.

    Args:
        data: the file.
        image: as Pillow opened and loaded it.
        pixels, alpha: what became of it, uint8 (height, width, 3) and (height, width), upright.
        orientation: 1–8, as the file has it.
        grey: it has no colour.
    """
    if image.format == "PNG":
        deep = data[24] == 16
    elif isinstance(image, TiffImagePlugin.TiffImageFile):
        deep = set(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, ())) == {16}
        orientation = int(image.tag_v2.get(ExifTags.Base.Orientation, 1))
    else:
        return None
    if not deep or "transparency" in image.info or image.mode[0] not in "RLI":
        return None
    if image.mode[0] == "I":  # Pillow has it with 16 bits, and a TIFF already upright
        samples = np.asarray(image).astype(np.uint16)[..., None]
        found = Deep(np.ascontiguousarray(turned(samples, orientation if image.format == "PNG" else 1)), range_of(samples))
    else:
        try:
            read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error:
            return None
        if read is None or read.dtype != np.uint16 or read.ndim != 3 or read.shape[2] != (3 if alpha is None else 4):
            return None
        order = [0, 3] if grey else [2, 1, 0, 3][: read.shape[2]]
        found = Deep(np.ascontiguousarray(turned(read[..., order], orientation)), 65535)
    same = found.samples.shape[:2] == pixels.shape[:2] and (found.eight()[..., : 1 if found.grey else 3] == pixels).all()
    same = same and (alpha is None or np.array_equal(found.samples[..., -1] >> 8, alpha))
    return found if same else None


def png(samples: NDArray[np.uint16], chunks: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Samples as a PNG of 16 bits. (W3C PNG, third edition; each row is written as its difference from the one above.)

    Args:
        samples: uint16 (height, width, channels), channels as of `Deep`.
        chunks: kind and payload of what to put before the pixels.
    """
    height, width, channels = samples.shape
    rows = samples.astype(">u2").view(np.uint8).reshape(height, -1)
    deflater, data = zlib.compressobj(), b""
    for top in range(0, height, _ROWS):
        lines = rows[top : top + _ROWS]
        above = rows[top - 1 : top + len(lines) - 1] if top else np.vstack([np.zeros_like(rows[:1]), lines[:-1]])
        data += deflater.compress(np.hstack([np.full((len(lines), 1), 2, np.uint8), lines - above]).tobytes())
    data += deflater.flush()
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
