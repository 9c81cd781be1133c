"""What the audit sees in one published picture: faces, metadata, covers. Nothing of the private side is needed for it."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import ExifTags
from PIL import Image as Pillow

from mfmc_ray.codec import FORMATS, XMP, CodecError, decode, encode
from mfmc_ray.faces.detect import CenterFace, View, YuNet, overlap
from mfmc_ray.faces.faces import F32, Faces, Image
from mfmc_ray.faces.mesh import FaceMesh
from mfmc_ray.faces.protocols import Detector
from mfmc_ray.scrub import scrub

LEAST_SCORE = 0.5
"""Detections of the second look from which on they count."""
LEAST_CLOSEUP, LEAST_MESH = 0.4, 0.3
"""A detection is confirmed from this score of the mesh network on, or this mean score of YuNet and CenterFace on close-ups of its place.
Measured on 39 pictures without a face and 120 photos of people: of 39 detections that the scan does not have, two are confirmed, which are
faces of 9 px; the others are helmets, toys, ears, backs of heads. Of those that the scan has, too, 89 % are confirmed."""
_REACHES = (1.0, 0.75)
_SAME_IOU, _SAME_INSIDE, _SAME_SIZE = 0.25, 0.7, 1 / 8
_COVERED = 0.6
_FLAT = 24
_MIRRORED = [1, 0, 2, 4, 3]
LONGEST_VECTOR = 10
"""Numbers that a published list column may have in a row; longer ones could be embeddings."""


class _MidwayCenterFace(CenterFace):
    """At scales between those of the scan."""

    views = (View(448, border=48), View(1024), View(1920, larger_than=2400))


class _CloseupYuNet(YuNet):
    """At a cut-out of one face and its surroundings."""

    views = (View(160, border=32, enlarge=8),)


class _CloseupCenterFace(CenterFace):
    """The same."""

    views = (View(160, border=32, enlarge=8),)


class AuditLook:
    """Finds faces in another way than the scan did: CenterFace alone, at other scales, on the mirrored picture."""

    def __init__(self) -> None:
        """Load the networks.

        Raises:
            ModelError: when the weights cannot be had.
        """
        self._detector: Detector = _MidwayCenterFace(min_score=LEAST_SCORE)
        self._closeups: tuple[Detector, ...] = (_CloseupYuNet(min_score=0.05), _CloseupCenterFace(min_score=0.05))
        self._mesh = FaceMesh()

    def find(self, image: Image) -> Faces:
        """The faces of an upright image, best first, in px of the image as it is."""
        seen = self._detector.detect(np.ascontiguousarray(image[:, ::-1]))
        last = image.shape[1] - 1
        boxes, points = seen.boxes.copy(), seen.points[:, _MIRRORED].copy()
        boxes[:, [0, 2]] = last - seen.boxes[:, [2, 0]]
        points[..., 0] = last - points[..., 0]
        return seen.with_(boxes=boxes, points=points)

    def confirmed(self, image: Image, faces: Faces) -> NDArray[np.bool_]:
        """Which detections hold when they are looked at closely: bool (n,)."""
        _, scores = self._mesh.fit(image, faces.boxes, faces.points)
        found = [s >= LEAST_MESH or self._closely(image, box) >= LEAST_CLOSEUP for s, box in zip(scores, faces.boxes, strict=True)]
        return np.array(found, bool)

    def _closely(self, image: Image, box: F32) -> float:
        """The mean score, 0–1, of both detectors on wide and narrow close-ups of the place, as it is and mirrored."""
        scores = []
        centre, side = (box[:2] + box[2:]) / 2, float((box[2:] - box[:2]).max())
        for reach in _REACHES:
            x0, y0 = (max(0, int(v)) for v in centre - reach * side)
            x1, y1 = (int(v) + 1 for v in centre + reach * side)
            part = image[y0:y1, x0:x1]
            if part.size == 0:
                return 0.0
            here = box - np.array([x0, y0, x0, y0], np.float32)
            last = part.shape[1] - 1
            there = np.array([last - here[2], here[1], last - here[0], here[3]], np.float32)
            for picture, place in ((part, here), (part[:, ::-1], there)):
                for detector in self._closeups:
                    seen = detector.detect(np.ascontiguousarray(picture))
                    near = overlap(seen.boxes, place[None])[0][:, 0] > 0.3
                    scores.append(float(seen.scores[near].max(initial=0)))
        return float(np.mean(scores))


def same_place(boxes: F32, others: F32) -> NDArray[np.bool_]:
    """Whether boxes (n, 4) and others (m, 4) are about one face: bool (n, m). A much smaller box inside a large one is not."""
    iou, inside = overlap(boxes, others)
    areas, other_areas = (np.prod(np.maximum(b[:, 2:] - b[:, :2], 1e-6), axis=1) for b in (boxes, others))
    ratio = areas[:, None] / other_areas[None]
    return np.asarray((iou >= _SAME_IOU) | ((inside >= _SAME_INSIDE) & (np.minimum(ratio, 1 / ratio) >= _SAME_SIZE)))


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


def see_through(image: Image, areas: Sequence[Sequence[float]]) -> list[int]:
    """Which rectangles x0 y0 x1 y1 (px, end exclusive) are not opaque: too many of their pixels do not have the colour of the cover.

    Where covers lie over each other a pixel may have the colour of either. JPEG's ringing reaches into a cover from its border: a share of
    5 % + 2 px / side may be off by more than 24 levels. Measured: covers at quality 30 stay below it (23 % at 10 px, 3 % at 40 px); of 420
    faces, uncovered, all of 20 px and more are above it, and 98 % of those of 10 px.
    """
    height, width = image.shape[:2]
    clipped = [(max(0, int(x0)), max(0, int(y0)), min(width, int(np.ceil(x1))), min(height, int(np.ceil(y1)))) for x0, y0, x1, y1 in areas]
    layers = np.zeros((height, width), np.uint16)
    for x0, y0, x1, y1 in clipped:
        layers[y0:y1, x0:x1] += 1
    away = np.full((height, width), 255, np.uint8)
    for x0, y0, x1, y1 in clipped:
        inside = image[y0:y1, x0:x1]
        if inside.size:
            alone = layers[y0:y1, x0:x1] == 1
            colour = np.median(inside[alone] if alone.any() else inside.reshape(-1, 3), axis=0)
            off = np.abs(inside - colour).max(2).astype(np.uint8)
            away[y0:y1, x0:x1] = np.minimum(away[y0:y1, x0:x1], off)
    found = []
    for i, (x0, y0, x1, y1) in enumerate(clipped):
        off = away[y0:y1, x0:x1]
        if off.size == 0 or (off > _FLAT).mean() > 0.05 + 2 / np.sqrt(off.size):
            found.append(i)
    return found


class MetadataCheck:
    """Looks for metadata in published pictures."""

    def __init__(self) -> None:
        tiny = np.zeros((8, 8, 3), np.uint8)
        self._label: dict[str, int] = {}
        for name in ("JPEG", "PNG", "WEBP"):
            labelled = encode(tiny, decode(_tiny(name)))[0]
            self._label[name] = len(labelled) - len(scrub(labelled))

    def fault(self, data: bytes, max_pixels: int, *, labelled: bool) -> str | None:
        """What a picture holds that it should not, or lacks; None if nothing.

        Two ways must agree: what Pillow reads, and what `scrub` would still cut off.

        Args:
            data: a published picture that can be decoded.
            max_pixels: as of `codec.decode`.
            labelled: it must have the label of synthetic content, and nothing else; else not even that.
        """
        with Pillow.open(io.BytesIO(data), formats=FORMATS) as image:
            kind = "JPEG" if image.format == "MPO" else str(image.format)
            info = image.info
            tags = set(image.getexif()) - {ExifTags.Base.Orientation}
            xmp = info.get("xmp") or info.get("XML:com.adobe.xmp") or b""
            texts = set(getattr(image, "text", {})) - {"XML:com.adobe.xmp"} if image.format == "PNG" else set()
        if tags:
            return f"EXIF tags {sorted(tags)[:5]}"
        if other := texts | ({"comment", "photoshop", "mp"} & set(info)):
            return f"{', '.join(sorted(map(str, other)))}"
        if (xmp.encode() if isinstance(xmp, str) else bytes(xmp)).rstrip(b"\0") != (XMP if labelled else b""):
            return "the label of synthetic content is missing" if labelled and not xmp else "XMP"
        try:
            surplus = len(data) - len(scrub(data, max_pixels))
        except CodecError as error:
            return f"cannot be followed to its end ({error.reason})"
        if surplus > (self._label.get(kind, 0) if labelled else 0):
            return f"{surplus} bytes that are not the picture"
        return None


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
