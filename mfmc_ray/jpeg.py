"""How a JPEG is coded, and coding pixels so again with as little loss as its tables allow."""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from mfmc_ray.orientation import MIRRORS_COLUMNS, MIRRORS_ROWS, SIDEWAYS, turned

SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""The first marker after a scan's coded samples."""
_REACH = 4
"""Chroma samples to each side that `_sharpened` weighs: what is beyond would change a sample by less than 0.03 levels."""


@dataclass(frozen=True)
class JpegCoding:
    """How a JPEG was quantised, and in which orientation it is to be stored again.

    Attributes:
        tables: one quantisation table (64 values, row by row) for each component; the last serves the components after it, too.
        subsampling: 0, 1, 2 for 4:4:4, 4:2:2, 4:2:0.
        progressive: whether it is a progressive JPEG.
        rgb: whether it stores RGB instead of YCbCr.
        orientation: the EXIF orientation (1–8) it is stored in. 1 (upright; tables and sampling are then turned as the picture was) unless
            that would move the borders of its blocks and so quantise everything a second time.
    """

    tables: tuple[tuple[int, ...], ...]
    subsampling: int
    progressive: bool
    rgb: bool
    orientation: int = 1


def coding_of(image: JpegImagePlugin.JpegImageFile, orientation: int) -> JpegCoding | None:
    """The coding of an opened JPEG, to be shown in this orientation; None if it cannot be repeated: CMYK, 4:4:0, 4:1:1, …"""
    if len(image.layer) not in (1, 3) or any(layer[3] not in image.quantization for layer in image.layer):
        return None
    sampling, rgb = 0, False
    if len(image.layer) == 3:
        (_, h0, v0, _), (_, h1, v1, _), (_, h2, v2, _) = image.layer
        found = {(1.0, 1.0): 0, (2.0, 1.0): 1, (2.0, 2.0): 2}.get((h0 / h1, v0 / v1)) if (h1, v1) == (h2, v2) else None
        # libjpeg's rule for what three components mean
        if "jfif" not in image.info:
            ids = bytes(layer[0] for layer in image.layer)
            rgb = image.info.get("adobe_transform", -1) == 0 or ("adobe" not in image.info and ids == b"RGB")
        if found is None or (rgb and found):
            return None
        sampling = found
    unit_width, unit_height = (16 if sampling else 8), (16 if sampling == 2 else 8)
    moved = (orientation in MIRRORS_COLUMNS and image.width % unit_width) or (orientation in MIRRORS_ROWS and image.height % unit_height)
    sideways = orientation in SIDEWAYS
    kept = orientation if moved or (sideways and sampling == 1) else 1
    tables = [np.reshape(image.quantization[layer[3]], (8, 8)) for layer in image.layer]
    flat = [tuple((table.T if sideways and kept == 1 else table).reshape(-1).tolist()) for table in tables]
    if len(flat) == 3 and flat[1] == flat[2]:
        flat.pop()
    return JpegCoding(tuple(flat), sampling, bool(image.info.get("progressive")), rgb, kept)


def samples(pixels: NDArray[np.uint8], source: bytes, orientation: int) -> NDArray[np.uint8]:
    """Pixels as YCbCr: those that are still the source's as it has them, which RGB of 8 bits does not tell exactly.

    Colours that the source's coefficients put outside of RGB were clipped. Coded anew from what is left, coarse tables would make them
    others than they were: down to 43 dB.

    Args:
        pixels: uint8 (height, width, 3) RGB.
        source: the JPEG, YCbCr, that they come from.
        orientation: 1–8, by which its pixels were turned.

    Returns:
        uint8 (height, width, 3), JFIF's full-range YCbCr.
    """
    found = []
    for mode in ("RGB", "YCbCr"):
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(source), formats=("JPEG",)) as image:
            image.draft(mode, None)
            found.append(turned(np.asarray(image), orientation))
    before, planes = found
    out = np.array(planes)
    changed = (before != pixels).any(-1)
    if changed.any():
        rows, columns = (np.flatnonzero(changed.any(axis)) for axis in (1, 0))
        at = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        new = np.asarray(Image.fromarray(np.ascontiguousarray(pixels[at])).convert("YCbCr"))
        out[at][changed[at]] = new[changed[at]]
    return out


def coded(image: Image.Image, coding: JpegCoding | None, quality: int, **options: Any) -> bytes:
    """A JPEG of a picture as it is stored.

    Args:
        image: mode YCbCr, or L, or RGB for one that stores it, or that has no coding.
        coding: how; None for 4:4:4 of this quality.
        quality: 1–100.
        options: Pillow's, such as `icc_profile`.
    """
    how: dict[str, Any] = {"quality": quality, "subsampling": 0}
    if coding is not None:
        # with tables, a quality would scale them
        how = {"qtables": [list(table) for table in coding.tables], "keep_rgb": coding.rgb, "subsampling": coding.subsampling}
        if coding.subsampling and image.mode == "YCbCr":
            image = Image.fromarray(subsampled(np.asarray(image), coding.subsampling), "YCbCr")
    out = io.BytesIO()
    image.save(out, "JPEG", **how, **options)
    return out.getvalue()


def ycc(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """RGB as JFIF's full-range YCbCr, not rounded: uint8 (height, width, 3) → float32, 0–255."""
    red, green, blue = (pixels[..., i].astype(np.float32) for i in range(3))
    luma = np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
    chroma = [(colour - luma) * np.float32(1 / scale) + np.float32(128) for colour, scale in ((blue, 1.772), (red, 1.402))]
    return np.dstack([luma, *chroma])


def subsampled(planes: NDArray[np.uint8] | NDArray[np.float32], subsampling: int) -> NDArray[np.uint8]:
    """YCbCr whose chroma, once halved by averaging as encoders do and doubled by interpolation as decoders do, is the chroma that is given.

    Decoders of 4:2:2 and 4:2:0 interpolate with weights of 3/4 and 1/4 (libjpeg's "fancy upsampling"); averaging two neighbours of that
    gives (1, 6, 1)/8 of the stored samples, not the samples. Coding a decoded picture plainly therefore blurs its chroma, 40 dB in detailed
    photos. This undoes it with the inverse of (1, 6, 1)/8. Only elementwise arithmetic: a part of a picture gives the very same values.

    Args:
        planes: uint8 or float32 (height, width, 3) YCbCr, 0–255.
        subsampling: 1 or 2, 4:2:2 or 4:2:0.

    Returns:
        uint8 (height, width, 3) YCbCr.
    """
    height, width, _ = planes.shape
    out = np.rint(planes).astype(np.uint8)
    for channel in (1, 2):
        chroma = planes[..., channel].astype(np.float32)
        for axis in (1, 0)[:subsampling]:
            chroma = _sharpened(_halved(chroma, axis), axis)
        small = np.clip(np.rint(chroma), 0, 255).astype(np.uint8)
        for axis in (1, 0)[:subsampling]:
            small = small.repeat(2, axis)
        out[..., channel] = small[:height, :width]
    return out


def _halved(plane: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Means of neighbours; the last of an odd number stands alone."""
    if plane.shape[axis] % 2:
        plane = np.concatenate([plane, np.take(plane, [-1], axis)], axis)
    even, odd = (plane[:, i::2] if axis else plane[i::2] for i in (0, 1))
    return (even + odd) * np.float32(0.5)


def _sharpened(plane: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """The plane filtered by the inverse of (1, 6, 1)/8, whose weights fall by √8 − 3 with each sample."""
    weights = (np.sqrt(8) - 3) ** np.arange(_REACH + 1)
    weights = (weights / (2 * weights.sum() - 1)).astype(np.float32)
    size = plane.shape[axis]
    padded = np.pad(plane, [(_REACH, _REACH) if i == axis else (0, 0) for i in (0, 1)], "edge")

    def shifted(by: int) -> NDArray[np.float32]:
        at = slice(_REACH + by, _REACH + by + size)
        return padded[:, at] if axis else padded[at]

    out = weights[0] * shifted(0)
    for k in range(1, _REACH + 1):
        out += weights[k] * (shifted(-k) + shifted(k))
    return np.asarray(out, np.float32)
