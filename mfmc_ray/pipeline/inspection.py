"""What the audit sees in one published picture: faces, metadata, covers. Nothing of the private side is needed for it."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import ExifTags
from PIL import Image as Pillow

from mfmc_ray import credentials, tiff
from mfmc_ray.codec import FORMATS, CodecError, decode, encode
from mfmc_ray.faces.faces import F32, Image
from mfmc_ray.label import LABELS
from mfmc_ray.scrub import scrub

_COVERED = 0.6
_FLAT = 24
LONGEST_VECTOR = 10
"""Numbers that a published list column may have in a row; longer ones could be embeddings."""


def mostly_in(boxes: F32, areas: F32) -> NDArray[np.bool_]:
    """Whether each box (n, 4) lies mostly in an area (m, 4): bool (n, m)."""
    low, high = np.maximum(boxes[:, None, :2], areas[None, :, :2]), np.minimum(boxes[:, None, 2:], areas[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=2)
    return np.asarray(shared >= _COVERED * np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6), axis=1)[:, None])


def around(points: F32) -> F32:
    """The box (n, 4) of faces with these five points (n, 5, 2)."""
    low, high = points.min(1), points.max(1)
    centre, half = (low + high) / 2, (high - low).max(1, keepdims=True)
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)


def see_through(image: Image, areas: Sequence[Sequence[float]], before: NDArray[np.bool_] | None = None) -> list[int]:
    """Which rectangles x0 y0 x1 y1 (px, end exclusive) are not opaque: too many of their pixels do not have the colour of the cover.

    Replaced faces may be `before` them, bool (h, w): what of a cover is there is not looked at.

    Where covers lie over each other a pixel may have the colour of either. JPEG's ringing reaches into a cover from its border: a share of
    5 % + 2 px / side may be off by more than 24 levels. Measured: covers at quality 30 stay below it (23 % at 10 px, 3 % at 40 px); of 420
    faces, uncovered, all of 20 px and more are above it, and 98 % of those of 10 px.
    """
    height, width = image.shape[:2]
    clipped = [(max(0, int(x0)), max(0, int(y0)), min(width, int(np.ceil(x1))), min(height, int(np.ceil(y1)))) for x0, y0, x1, y1 in areas]
    layers = np.zeros((height, width), np.uint16)
    for x0, y0, x1, y1 in clipped:
        layers[y0:y1, x0:x1] += 1
    shown = np.zeros((height, width), np.bool_) if before is None else before
    away = np.full((height, width), 255, np.uint8)
    for x0, y0, x1, y1 in clipped:
        inside = image[y0:y1, x0:x1]
        if inside.size:
            free = ~shown[y0:y1, x0:x1]
            alone = free & (layers[y0:y1, x0:x1] == 1)
            some = next((mask for mask in (alone, free) if mask.any()), shown[y0:y1, x0:x1])
            colour = np.median(inside[some], axis=0)
            off = np.abs(inside - colour).max(2).astype(np.uint8)
            away[y0:y1, x0:x1] = np.minimum(away[y0:y1, x0:x1], off)
    found = []
    for i, (x0, y0, x1, y1) in enumerate(clipped):
        off = away[y0:y1, x0:x1][~shown[y0:y1, x0:x1]]
        if x0 >= x1 or y0 >= y1 or (off.size > 0 and (off > _FLAT).mean() > 0.05 + 2 / np.sqrt(off.size)):
            found.append(i)
    return found


class MetadataCheck:
    """Looks for metadata in published pictures."""

    def __init__(self) -> None:
        tiny = np.zeros((8, 8, 3), np.uint8)
        self._label: dict[str, int] = {}
        for name in ("JPEG", "PNG", "WEBP", "TIFF"):
            labelled = [encode(tiny, decode(_tiny(name)), xmp=xmp)[0] for xmp in LABELS]
            self._label[name] = max(len(file) - len(scrub(file)) for file in labelled)

    def stated(self, data: bytes, *, labelled: bool) -> str | None:
        """The same as `fault`, as far as the file's headers tell: no pixel is decoded."""
        with Pillow.open(io.BytesIO(data), formats=FORMATS) as image:
            info = image.info
            tags = set(image.getexif()) - {ExifTags.Base.Orientation}
            if image.format == "TIFF":
                tags -= {*tiff.DESCRIBING, tiff.XMP_TAG, tiff.C2PA_TAG}
            xmp = info.get("xmp") or info.get("XML:com.adobe.xmp") or b""
            texts = set(getattr(image, "text", {})) - {"XML:com.adobe.xmp"} if image.format == "PNG" else set()
        if tags:
            return f"EXIF tags {sorted(tags)[:5]}"
        if other := texts | ({"comment", "photoshop", "mp"} & set(info)):
            return f"{', '.join(sorted(map(str, other)))}"
        if (xmp.encode() if isinstance(xmp, str) else bytes(xmp)).rstrip(b"\0") not in (LABELS if labelled else {b""}):
            return "the label of synthetic content is missing" if labelled and not xmp else "XMP"
        return None

    def fault(self, data: bytes, max_pixels: int, *, labelled: bool) -> str | None:
        """What a picture holds that it should not, or lacks; None if nothing.

        Two ways must agree: what Pillow reads, and what `scrub` would still cut off.

        Args:
            data: a published picture that can be decoded.
            max_pixels: as of `codec.decode`.
            labelled: it must have the label of synthetic content, and nothing else; else not even that.
        """
        if said := self.stated(data, labelled=labelled):
            return said
        try:
            with Pillow.open(io.BytesIO(data), formats=FORMATS) as image:
                kind = _kind(image)
            if labelled and (said := credentials.fault(data, kind)):
                return said
            surplus = len(credentials.unsigned(data, kind) if labelled else data) - len(scrub(data, max_pixels))
        except CodecError as error:
            return f"cannot be followed to its end ({error.reason})"
        if surplus > (self._label.get(kind, 0) if labelled else 0):
            return f"{surplus} bytes that are not the picture"
        return None


def _kind(image: Pillow.Image) -> str:
    return "JPEG" if image.format == "MPO" else str(image.format)


def _tiny(kind: str) -> bytes:
    file = io.BytesIO()
    Pillow.new("RGB", (8, 8)).save(file, kind)
    return file.getvalue()


def strange_columns(schema: pa.Schema, expected: pa.Schema, table: pa.Table) -> list[str]:
    """Columns of a published table that do not belong in it, or whose rows hold more numbers than `LONGEST_VECTOR`."""
    found = [name for name in schema.names if name not in expected.names]
    return found + [name for name in schema.names if name not in found and _longest(table[name].combine_chunks()) > LONGEST_VECTOR]


def _longest(column: pa.Array) -> int:
    """The most floating-point numbers that a list anywhere in a column holds."""
    if isinstance(column, pa.ChunkedArray):
        return max((_longest(chunk) for chunk in column.chunks), default=0)
    kind = column.type
    if pa.types.is_struct(kind):
        return max((_longest(column.field(i)) for i in range(kind.num_fields)), default=0)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        if pa.types.is_floating(kind.value_type):
            lengths = column.value_lengths().drop_null()
            return max(lengths.to_pylist(), default=0)
        return _longest(column.flatten())
    return 0
