"""Makes a `Pair` of an image's two files: decodes them, finds the faces in both, and says which is which."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from mfmc_ray.codec import CodecError, decode
from mfmc_ray.evaluate.pair import CHANGED, I64, WITHHELD, Pair, PairedFaces
from mfmc_ray.faces.align import ARCFACE_TEMPLATE
from mfmc_ray.faces.detect import CenterFace, YuNet, overlap
from mfmc_ray.faces.faces import F32, Faces, Image
from mfmc_ray.faces.finder import AGREEMENT, merge
from mfmc_ray.faces.protocols import Detector

VERSION = 1
"""Of how pairs are made: raised, all notes are made anew."""
SAME_FACE = 0.3
"""IoU from which a detection is of the face whose box it is held against."""
MIN_SCORE = 0.6
"""Of a detector that sees a face; `Pair.detections` have half of it."""
LONGEST = 2048
"""px: larger pictures are looked at in a copy of this size, by which faces below about 10 px there are lost."""
# where the five points are in a box as YuNet draws it: the median of 520 LFW photos
_IN_BOX: F32 = ((ARCFACE_TEMPLATE - np.array([54.9, 64.9], np.float32)) / 108.7).astype(np.float32)


class PairingError(ValueError):
    """There is no pair to be made; the message is a word: unreadable (the original's file is no picture), another_original."""


class Pairer:
    """Makes pairs; holds the detectors.

    Args:
        max_pixels: larger pictures are not decoded.
    """

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._detectors: dict[str, Detector] = {
            "yunet": YuNet(min_score=MIN_SCORE * AGREEMENT),
            "centerface": CenterFace(min_score=MIN_SCORE * AGREEMENT),
        }

    def pair(
        self,
        path: str,
        verdict: str,
        original: bytes,
        output: bytes | None,
        rows: Sequence[Mapping[str, Any]] | None,
        image_id: str | None = None,
    ) -> Pair:
        """The pair of two files.

        Args:
            path: of the image in its collection.
            verdict: as of `Pair`.
            original: its file.
            output: what is published; None if nothing is, or if it cannot be decoded.
            rows: of OUT's faces table; None: no table describes the picture.
            image_id: what sha-256 the original must have; None: any.

        Raises:
            PairingError: as it says.
        """
        digest = hashlib.sha256(original).hexdigest()
        if image_id is not None and digest != image_id:
            raise PairingError("another_original")
        try:
            before = decode(original, self._max_pixels).pixels
        except CodecError as error:
            raise PairingError("unreadable") from error
        after = self._output(output)
        there = {name: detected(one, before) for name, one in self._detectors.items()}
        found = {name: (faces, faces if output == original else self._seen(name, after)) for name, faces in there.items()}
        if rows is not None and any(row["box"] is None for row in rows):
            rows = [row for row in rows if row["box"] is not None]
        if not rows and (rows is None or after is None):
            faces = self._found(before, after, found)
        else:
            faces = _told(before, after, found, rows or ())
        return Pair(digest, path, verdict, before, after, faces, found, (len(original), len(output or b"")))

    def again(self, pair: Pair, output: bytes, rows: Sequence[Mapping[str, Any]]) -> Pair:
        """The same original beside another output; nothing is looked for in the original again. `rows` as of `pair`."""
        after = self._output(output)
        found = {name: (pair.detections[name][0], self._seen(name, after)) for name in self._detectors}
        faces = _told(pair.original, after, found, rows)
        return Pair(pair.image_id, pair.path, pair.verdict, pair.original, after, faces, found, (pair.sizes[0], len(output)))

    def _output(self, data: bytes | None) -> Image | None:
        if data is None:
            return None
        try:
            return decode(data, self._max_pixels).pixels
        except CodecError:
            return None

    def _seen(self, name: str, image: Image | None) -> Faces:
        """What a detector finds in what is published; nothing if nothing is."""
        return Faces.empty() if image is None else detected(self._detectors[name], image)

    def _found(self, before: Image, after: Image | None, found: Mapping[str, tuple[Faces, Faces]]) -> PairedFaces:
        """The faces that the detectors find in the original."""
        some = merge([sides[0] for sides in found.values()], MIN_SCORE)
        verdict = CHANGED if after is not None else WITHHELD
        rows = [{"face_no": i, "box": box.tolist(), "verdict": verdict} for i, box in enumerate(some.boxes)]
        return _told(before, after, found, rows)


def detected(detector: Detector, image: Image) -> Faces:
    """What a detector finds in a picture, or in a smaller copy of a large one; px of the picture."""
    height, width = image.shape[:2]
    shrink = max(height, width) / LONGEST
    if shrink <= 1:
        return detector.detect(image)
    small = cv2.resize(image, (round(width / shrink), round(height / shrink)), interpolation=cv2.INTER_AREA)
    faces = detector.detect(np.ascontiguousarray(small))
    ratio = np.array([width / small.shape[1], height / small.shape[0]], np.float32)
    return faces.with_(boxes=faces.boxes * np.tile(ratio, 2), points=faces.points * ratio)


def _told(before: Image, after: Image | None, found: Mapping[str, tuple[Faces, Faces]], rows: Sequence[Mapping[str, Any]]) -> PairedFaces:
    """The faces of some rows, where the detectors see them in both pictures."""
    n = len(rows)
    boxes = np.array([row["box"] for row in rows], np.float32).reshape(n, 4)
    told = np.full((n, 5, 2), np.nan, np.float32)
    for i, row in enumerate(rows):
        if row.get("points"):
            told[i] = np.reshape(row["points"], (5, 2))
    points, _, seen = placed(boxes, np.where(np.isfinite(told), told, points_of(boxes)), [one[0] for one in found.values()])
    if after is None:
        blank = np.full((n, 4), np.nan, np.float32), np.full((n, 5, 2), np.nan, np.float32), np.zeros(n, bool)
        output_boxes, output_points, output_seen = blank
    else:
        scale = np.array([after.shape[1] / before.shape[1], after.shape[0] / before.shape[0]], np.float32)
        there = boxes * np.tile(scale, 2)
        fallback = np.where(np.isfinite(told), told, points * scale).astype(np.float32)  # the table is about the output
        output_points, output_boxes, output_seen = placed(there, fallback, [one[1] for one in found.values()])
    return PairedFaces(
        numbers=np.array([row["face_no"] for row in rows], np.int64).reshape(n),
        verdicts=tuple(str(row["verdict"]) if after is not None else WITHHELD for row in rows),
        reasons=tuple(row.get("reason") or "" for row in rows),
        identities=tuple(row.get("identity_id") or "" for row in rows),
        boxes=boxes,
        points=points,
        output_boxes=output_boxes,
        output_points=output_points,
        seen=seen,
        output_seen=output_seen,
    )


def placed(boxes: F32, points: F32, parts: Sequence[Faces]) -> tuple[F32, F32, Any]:
    """Points, boxes and whether it is seen, of the detection that is where each box (n, 4) is; of the first detector that has one there;
    where none has, as they are given."""
    points, boxes, seen = points.astype(np.float32), boxes.astype(np.float32), np.zeros(len(boxes), bool)
    for every in parts:
        faces = every.take(every.scores >= MIN_SCORE)
        if len(faces) and len(boxes):
            iou = overlap(faces.boxes, boxes)[0] * (~seen)[None]
            for detection, face in matched(iou):
                points[face], boxes[face], seen[face] = faces.points[detection], faces.boxes[detection], True
    return points, boxes, seen


def matched(iou: F32, least: float = SAME_FACE) -> list[tuple[int, int]]:
    """Pairs of row and column, the most alike first, each in one pair only.

    Args:
        iou: float32 (n, m).
        least: IoU of a pair.
    """
    pairs, left = [], iou.copy()
    while left.size and left.max() >= least:
        row, column = (int(i) for i in np.unravel_index(left.argmax(), left.shape))
        pairs.append((row, column))
        left[row], left[:, column] = -1, -1
    return pairs


def points_of(boxes: F32) -> F32:
    """float32 (n, 5, 2): about where the five points of faces with these boxes (n, 4) are."""
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).max(1, initial=0)
    return np.asarray(centres[:, None] + sides[:, None, None] * _IN_BOX, np.float32)


def main_face(boxes: F32, width: int, height: int) -> int:
    """The face that a photo is of: of those at least half as large as the largest the one nearest the middle; −1 without faces.

    Args:
        boxes: float32 (n, 4), px.
        width, height: of the picture, px.
    """
    if not len(boxes):
        return -1
    sizes = np.sqrt(np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1))
    away = np.linalg.norm((boxes[:, :2] + boxes[:, 2:]) / 2 - [width / 2, height / 2], axis=1)
    large: I64 = np.flatnonzero(sizes >= sizes.max() / 2)
    return int(large[np.argmin(away[large])])
