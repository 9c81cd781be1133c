"""The head's outline: where its hairline and its sides are. A fake identity changes them, too.

What recognizers still know of a person once the face is another one is mostly the strip above it: forehead and hairline. Both are moved
along the head by a smooth field that leaves eyes, nose and mouth alone, whichever swapper has drawn them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from mfmc_ray.faces.faces import F32, Image
from mfmc_ray.faces.mesh import five_points
from mfmc_ray.identities.surface import read
from mfmc_ray.swap.protocol import Patch
from mfmc_ray.swap.redact import MARGIN
from mfmc_ray.swap.render import TONE_FLOOR, warped

HAIRLINE = (0.08, 0.15)
"""How far a hairline moves at least and at most, up or down, in face widths."""
FOREHEAD = (0.32, 0.72)
"""Above the eyes, in face widths: where hairlines stay within when they are moved."""
SIDES = (-0.06, 0.04)
"""How far the head's sides move at most, in and out, in face widths."""
_TOP, _CHIN = 10, 152
_SKIN = (50, 280, 117, 346, 205, 425, 9)
"""Points of the mesh on bare skin: cheeks, and between the brows."""
_OTHER = (0.45, 0.25)
"""Differences in the logarithm of light and of colour from which something is no skin."""
_LIFT = (0.14, 0.52, 0.95, 1.6)
"""Face widths above the eyes from where a hairline's shift rises, is full, falls, is none."""
_BESIDE = (0.7, 1.2)
"""Face widths beside the middle from where it falls, and is none."""
_ASIDE = (0.32, 0.5)
"""Face widths beside the middle from where the shift of the sides rises, and is full: eyes and mouth are within."""
_LOW = (0.55, 1.1)
"""Below the eyes, in face widths, from where the shift of the head's sides falls, and is none."""
_STILL, _BORDER = 0.25, 0.5
"""Over how many face widths a shift fades towards other faces, and towards the picture's border: hair that is cut off there would be
streaks."""
_FINE = 40
"""Pixels to a face's width at which the shift is computed."""
_LEAST = 0.01
"""Face widths; a smaller shift is none."""


@dataclass(frozen=True, eq=False)
class Head:
    """Where a head is in a picture, and its measures.

    Attributes:
        eyes: float32 (2,), px, between them.
        right, up: float32 (2,), of unit length: along the head's axes in the picture.
        middle: of the face, face widths right of the eyes.
        width: px. Of a turned face what is to be expected of its height.
        frontal: how much of that shows, 0–1.
        hairline: how many face widths above the eyes skin ends, 0.2–1; 1 if it does not: who is bald to there.
    """

    eyes: F32
    right: F32
    up: F32
    middle: float
    width: float
    frontal: float
    hairline: float

    @classmethod
    def of(cls, image: Image, mesh: F32) -> Head:
        """Of the face with this mesh (468, 3) px in an image, uint8 (h, w, 3) RGB."""
        points = mesh[:, :2]
        up = points[_TOP] - points[_CHIN]
        up = up / max(float(np.linalg.norm(up)), 1e-3)
        right = np.array([-up[1], up[0]], np.float32)
        eyes = five_points(mesh)[:2].mean(0)
        across, along = (points - eyes) @ right, (points - eyes) @ up
        shown = float(np.ptp(across))
        width = max(shown, 0.8 * float(np.ptp(along)), 4.0)
        middle = float(across.max() + across.min()) / 2 / width
        head = cls(np.asarray(eyes, np.float32), right, np.asarray(up, np.float32), middle, width, min(1.0, shown / width), 1.0)
        return replace(head, hairline=_hairline(image, head, points[list(_SKIN)]))

    def at(self, across: F32, along: F32) -> F32:
        """Points (…, 2) px, so many face widths from the middle and above the eyes."""
        across = np.asarray((across + self.middle) * self.width, np.float32)
        return np.asarray(self.eyes + across[..., None] * self.right + (along * self.width)[..., None] * self.up, np.float32)

    def measures(self, points: F32) -> tuple[F32, F32]:
        """The other way round: of points (…, 2) px."""
        off = points - self.eyes
        return np.asarray(off @ self.right / self.width - self.middle, np.float32), np.asarray(off @ self.up / self.width, np.float32)


@dataclass(frozen=True)
class Outline:
    """What is changed.

    Attributes:
        lift: face widths, how far the hairline moves up; down if negative.
        out: face widths, how far the head's sides move out; in if negative.
    """

    lift: float
    out: float

    @classmethod
    def of(cls, seed: int, hairline: float, frontal: float = 1.0) -> Outline:
        """An identity's, on somebody whose `hairline` is so many face widths above the eyes, so that it looks right there.

        Args:
            seed: the identity's.
            hairline, frontal: of `Head`; a turned head keeps its sides.
        """
        rng = np.random.default_rng([0x6F75746C, seed])
        upward, far, out = bool(rng.integers(2)), float(rng.uniform(*HAIRLINE)), float(rng.uniform(*SIDES))
        rise, fall = _room(hairline)
        if (rise if upward else fall) < HAIRLINE[0]:
            upward = rise > fall
        return cls(min(far, rise) if upward else -min(far, fall), out * _sideways(frontal))

    @classmethod
    def choices(cls, hairline: float, frontal: float) -> list[Outline]:
        """Some that differ as far as they may and look right, on such a head (as of `of`)."""
        rooms = [(sign, room) for sign, room in zip((1, -1), _room(hairline), strict=True) if room >= HAIRLINE[0]]
        lifts = dict.fromkeys(sign * min(far, room) for far in HAIRLINE for sign, room in rooms)
        return [cls(lift, out) for lift in lifts for out in dict.fromkeys(side * _sideways(frontal) for side in SIDES)]


def _room(hairline: float) -> tuple[float, float]:
    """How far it may be moved up, and down."""
    return max(0.0, FOREHEAD[1] - hairline), max(0.0, hairline - FOREHEAD[0])


def _sideways(frontal: float) -> float:
    """By how much of what a head's sides move when it looks straight ahead."""
    return float(np.clip((frontal - 0.7) / 0.3, 0, 1))


def outlined(image: Image, patch: Patch, head: Head, outline: Outline, others: F32) -> Patch:
    """A patch with the head around it changed as well.

    Args:
        image: uint8 (h, w, 3) RGB, the picture that the patch is for.
        patch: of a swap.
        head: that the swap is of, as it was before.
        outline: what is changed.
        others: float32 (n, 4), boxes x0 y0 x1 y1 px of other faces, which stay where they are.
    """
    corners = head.at(*np.meshgrid(np.array([-_BESIDE[1], _BESIDE[1]], np.float32), np.array([-_LOW[1], _LIFT[3]], np.float32)))
    low, high = corners.min((0, 1)), corners.max((0, 1))
    height, width = image.shape[:2]
    x0, y0 = (max(0, int(v)) for v in np.minimum(low, (patch.x, patch.y)))
    x1 = min(width, max(int(high[0]) + 1, patch.x + patch.pixels.shape[1]))
    y1 = min(height, max(int(high[1]) + 1, patch.y + patch.pixels.shape[0]))
    step = max(1.0, head.width / _FINE)
    grown = np.tile(MARGIN * (others[:, 2:] - others[:, :2]) + step, 2) * [-1, -1, 1, 1]
    others = np.asarray(others + grown, np.float32)  # what is covered of them, and up to where a coarse field is exact
    reach = _STILL * head.width
    others = others[(others[:, :2] < np.array([x1, y1]) + reach).all(1) & (others[:, 2:] > np.array([x0, y0]) - reach).all(1)]
    columns, rows = (max(2, round((end - start) / step)) for start, end in ((x0, x1), (y0, y1)))
    grid = np.stack(np.meshgrid(_spread(x0, x1, columns), _spread(y0, y1, rows)), 2)
    field = _field(grid, head, outline, others, image.shape)
    far = np.maximum(*np.abs(cv2.split(field)))
    if not far.max() > _LEAST * head.width:
        return patch
    moving = far > 1e-3 * head.width
    top, bottom = _reach(moving.any(1), step, y1 - y0)
    left, right = _reach(moving.any(0), step, x1 - x0)
    full = np.asarray(cv2.resize(field, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR), np.float32)
    # no more of the picture than moves, and than the patch has: a service is sent only what is around the face
    cut = np.s_[min(top, patch.y - y0) : max(bottom, patch.y - y0 + patch.pixels.shape[0])]
    across = np.s_[min(left, patch.x - x0) : max(right, patch.x - x0 + patch.pixels.shape[1])]
    page = image[y0:y1, x0:x1][cut, across].copy()
    x0, y0, full = x0 + across.start, y0 + cut.start, full[cut, across]
    drawn = np.s_[patch.y - y0 : patch.y - y0 + patch.pixels.shape[0], patch.x - x0 : patch.x - x0 + patch.pixels.shape[1]]
    page[drawn] = patch.pixels
    front = None
    if patch.front is not None and len(others):  # where nobody else is, nobody is covered either
        alone = np.zeros(page.shape[:2], np.uint8)
        alone[drawn] = cv2.erode(255 * patch.front.astype(np.uint8), np.ones((3, 3), np.uint8))  # as far as an interpolated pixel looks
        front = np.asarray(warped(alone, -full) == 255, np.bool_)
    mesh, points = patch.mesh.copy(), patch.mesh[:, :2]
    for _ in range(4):  # what is drawn at p comes from p − shift(p): where p goes is found by going on
        mesh[:, :2] = points + _field(mesh[:, :2], head, outline, others, image.shape)
    return Patch(x0, y0, warped(page, -full), mesh, patch.cover, front)


def _hairline(image: Image, head: Head, skin: F32) -> float:
    """See `Head.hairline`; `skin` (k, 2) px are points on bare skin."""
    along = np.linspace(0.2, 1.0, 33, dtype=np.float32)
    grid = head.at(*np.meshgrid(np.linspace(-0.15, 0.15, 7, dtype=np.float32), along))
    light = _light(image, np.concatenate([grid, skin[None].repeat(len(grid), 0)], 1))
    off = light[:, :7] - np.median(light[0, 7:], 0)
    brightness = off.mean(2)
    odd = np.maximum(np.abs(brightness) / _OTHER[0], np.abs(off - brightness[:, :, None]).max(2) / _OTHER[1])
    hidden = np.median(odd, 1) > 1
    both = np.flatnonzero(hidden[1:] & hidden[:-1])
    return float(along[both[0]]) if len(both) else 1.0


def _field(points: F32, head: Head, outline: Outline, others: F32, shape: tuple[int, ...]) -> F32:
    """By how many px what is seen at these points (…, 2) px has been moved: float32 (…, 2)."""
    across, along = head.measures(points)
    beside, below_top = np.abs(across), 1 - _smooth(along, _LIFT[2], _LIFT[3])
    lift = outline.lift * _smooth(along, _LIFT[0], _LIFT[1]) * below_top * (1 - _smooth(beside, *_BESIDE))
    out = outline.out * np.sign(across) * _smooth(beside, *_ASIDE) * (1 - _smooth(beside, 0.65, _BESIDE[1]))
    out = out * (1 - _smooth(-along, *_LOW)) * below_top
    reach = head.width * _still(points, head, others, shape)
    lift, out = lift * reach, out * reach
    return np.stack([lift * up + out * right for up, right in zip(head.up, head.right, strict=True)], -1, dtype=np.float32)


def _still(points: F32, head: Head, others: F32, shape: tuple[int, ...]) -> F32:
    """What of a shift there is at these points, 0–1: nothing moves within other faces, nor at the picture's border."""
    x, y = points[..., 0], points[..., 1]
    near = np.minimum(np.minimum(x, shape[1] - 1 - x), np.minimum(y, shape[0] - 1 - y))
    border = np.asarray(near / head.width - 1 / _FINE, np.float32)
    if not len(others):
        return _smooth(border, 0, _BORDER)
    hair = head.at(*np.meshgrid(np.linspace(-0.5, 0.5, 5, dtype=np.float32), np.linspace(0.3, 1.0, 4, dtype=np.float32)))
    free, least = np.full(border.shape, _STILL, np.float32), _STILL
    for box in others:
        gap, near = (np.linalg.norm(np.maximum(0, np.maximum(box[:2] - at, at - box[2:])), axis=-1) for at in (points, hair))
        free, least = np.minimum(free, gap / head.width), min(least, float(near.min()) / head.width)
    # one that is at the hair stills all of it: half of it moved would be a bump
    return _smooth(border, 0, _BORDER) * _smooth(free, 0, _STILL) * (least / _STILL)


def _smooth(value: F32, low: float, high: float) -> F32:
    """0 up to `low`, 1 from `high` on, smoothly between."""
    t = np.minimum(np.maximum((value - low) / (high - low), 0), 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def _spread(start: int, end: int, count: int) -> F32:
    """The centres, px, of so many equal parts from `start` to `end`."""
    return np.asarray(start + (np.arange(count) + 0.5) * ((end - start) / count) - 0.5, np.float32)


def _reach(flags: NDArray[np.bool_], step: float, end: int) -> tuple[int, int]:
    """From and to which px a field moves anything, where these of its rows or columns do."""
    some = np.flatnonzero(flags)
    return max(0, int((some[0] - 1) * step)), min(end, int((some[-1] + 2) * step) + 1)


def _light(image: Image, points: F32) -> F32:
    """The natural logarithm of an image + `TONE_FLOOR` at points (r, c, 2) px: float32 (r, c, 3)."""
    size = np.array(image.shape[1::-1]) - 1
    low = np.clip(np.floor(points.min((0, 1))), 0, size).astype(int)
    high = np.clip(np.ceil(points.max((0, 1))), 0, size).astype(int) + 1
    seen = read(image[low[1] : high[1], low[0] : high[0]], np.asarray(points - low, np.float32))
    return np.asarray(np.log(seen.astype(np.float32) + TONE_FLOOR), np.float32)
