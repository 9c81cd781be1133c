"""Hands near a face: where their joints are, and which pixels they cover."""

from __future__ import annotations

import cv2
import numpy as np

from mfmc_ray.faces.align import warp
from mfmc_ray.faces.detect import overlap
from mfmc_ray.faces.faces import F32, Image, Pixels
from mfmc_ray.faces.lite import LiteNetwork

JOINTS = 21
"""0 the wrist; of the thumb and each finger, from the index on, four from its root to its tip."""
LEAST_PALM, LEAST_HAND = 0.5, 0.8
"""How sure the networks must be of a palm, and of a hand, 0–1. Of 42 hands found so before 1,226 faces 41 are hands by eye."""
REACH = 2.2
"""Side of the square around a face in which palms are looked for, in longer sides of its mesh."""
MOST = 3
"""Hands of which the joints are found."""
_PALM_SIDE, _HAND_SIDE = 192, 224
_SAME = 0.3  # IoU of two detections of one palm
_WRIST, _MIDDLE = 0, 2
"""Of a palm's seven points: the wrist, and the root of the middle finger."""
_SHIFT, _SCALE = 0.5, 2.6
"""How a hand lies about its palm: its middle is so many palms towards the fingers, its side so many palms long."""
_ROOTS = (5, 9, 13, 17)
_PALM = (0, 1, *_ROOTS)
_FINGERS = ((1, 2, 3, 4), (0, 5, 6, 7, 8), (0, 9, 10, 11, 12), (0, 13, 14, 15, 16), (0, 17, 18, 19, 20))
_THICK, _LEAST_THICK = 1.25, 0.25
"""Thickness of a finger, in distances between the roots of two fingers, and at least in lengths of the palm: seen from its edge, a hand's
fingers hide each other, but are as thick."""
_ARM, _ARM_THICK = 1.0, 2.6
"""What of the arm is taken along: so many lengths of the palm, and so many fingers thick."""


def _anchors() -> F32:
    """Middles of the cells that the palm network's outputs are about: float32 (2016, 2), shares of the square's side."""
    rows = []
    for stride, each in ((8, 2), (16, 6)):
        cells = (np.arange(_PALM_SIDE // stride, dtype=np.float32) + 0.5) * stride / _PALM_SIDE
        y, x = np.meshgrid(cells, cells, indexing="ij")
        rows.append(np.repeat(np.stack([x.ravel(), y.ravel()], 1), each, 0))
    return np.concatenate(rows)


_ANCHORS = _anchors()


class HandFinder:
    """MediaPipe Hands (Zhang et al., "MediaPipe Hands: On-device Real-time Hand Tracking", 2020): palms, then the joints of each hand.

    Args:
        threads: CPU threads; None: as `runtime.use` has settled.

    Raises:
        ModelError: when the weights cannot be had.
    """

    def __init__(self, *, threads: int | None = None) -> None:
        self._palm, self._hand = LiteNetwork("palm_detection", threads), LiteNetwork("hand_landmark", threads)

    def find(self, image: Pixels, mesh: F32) -> F32:
        """Joints of the hands near a face with `mesh` (468, 3) px: float32 (n, 21, 2), px, see `JOINTS`.

        Raises:
            ModelError: a network gives what is no number.
        """
        low, high = mesh[:, :2].min(0), mesh[:, :2].max(0)
        side = REACH * float((high - low).max())
        if not side >= 1:
            return np.zeros((0, JOINTS, 2), np.float32)
        found = [
            hand for box, points in self._palms(image, (low + high) / 2, side) if (hand := self._joints(image, box, points)) is not None
        ]
        return np.asarray(found, np.float32).reshape(-1, JOINTS, 2)

    def _palms(self, image: Pixels, centre: F32, side: float) -> list[tuple[F32, F32]]:
        """Boxes (4,) and seven points (7, 2), px, of palms in a square, surest first."""
        k = _PALM_SIDE / side
        shift = _PALM_SIDE / 2 - k * centre
        square = warp(image, np.array([[[k, 0, shift[0]], [0, k, shift[1]]]], np.float32), _PALM_SIDE)
        (raw,), (logits,) = (output.reshape(1, len(_ANCHORS), -1) for output in self._palm(square))
        logits = logits[:, 0]
        some = np.argsort(-logits, kind="stable")[: np.count_nonzero(logits > np.log(LEAST_PALM / (1 - LEAST_PALM)))]
        centres = raw[some, :2] / _PALM_SIDE + _ANCHORS[some]
        half = raw[some, 2:4] / (2 * _PALM_SIDE)
        boxes = (np.concatenate([centres - half, centres + half], 1) * side + np.tile(centre - side / 2, 2)).astype(np.float32)
        points = ((raw[some, 4:].reshape(-1, 7, 2) / _PALM_SIDE + _ANCHORS[some, None]) * side + centre - side / 2).astype(np.float32)
        kept: list[int] = []
        for i in range(len(some)):
            if len(kept) < MOST and (not kept or overlap(boxes[i : i + 1], boxes[kept])[0].max() < _SAME):
                kept.append(i)
        return [(boxes[i], points[i]) for i in kept]

    def _joints(self, image: Pixels, box: F32, points: F32) -> F32 | None:
        """Joints (21, 2), px, of the hand with this palm; None if there is none."""
        up = points[_MIDDLE] - points[_WRIST]
        length = float(np.hypot(*up))
        side = float((box[2:] - box[:2]).max())
        if not (length > 0 and side >= 1):
            return None
        up = up / length
        centre = (box[:2] + box[2:]) / 2 + _SHIFT * side * up
        k = _HAND_SIDE / (_SCALE * side)
        turn = np.array([[-up[1], up[0]], [-up[0], -up[1]]]) * k
        shift = _HAND_SIDE / 2 - turn @ centre
        joints, sure, *_ = self._hand(warp(image, np.column_stack([turn, shift])[None].astype(np.float32), _HAND_SIDE))
        if float(sure.reshape(())) < LEAST_HAND:
            return None
        return np.asarray((joints.reshape(JOINTS, 3)[:, :2] - shift) @ turn / k**2, np.float32)


def drawn(hands: F32, shape: tuple[int, ...]) -> Image:
    """What hands (n, 21, 2), px, cover in a window of this shape (h, w, …): uint8 (h, w), 255 where there is a hand or its arm."""
    page = np.zeros(shape[:2], np.uint8)
    for hand in hands:
        length = max(float(np.linalg.norm(hand[9] - hand[0])), 1e-6)
        apart = float(np.linalg.norm(np.diff(hand[list(_ROOTS)], axis=0), axis=1).mean())
        thick = max(_THICK * apart, _LEAST_THICK * length)
        elbow = hand[0] - _ARM * (hand[list(_ROOTS)].mean(0) - hand[0])
        lines = [(hand[list(finger)], thick) for finger in _FINGERS] + [(np.stack([hand[0], elbow]), _ARM_THICK * thick)]
        for line, width in lines:
            cv2.polylines(page, [np.round(line * 16).astype(np.int32)], False, 255, max(1, round(width)), cv2.LINE_AA, 4)
        cv2.fillConvexPoly(page, cv2.convexHull(np.round(hand[list(_PALM)] * 16).astype(np.int32)), 255, cv2.LINE_AA, 4)
    return page
