"""What lies in front of a face: glasses, hands, microphones, masks, hair, beards. It stays in front when the face is swapped.

Everything but loose hair is looked for on a small texture square (`PAGE` texels a side), where eyes, nose and mouth have fixed places
whatever the pose, so that the work does not grow with the face. What it finds is 1 where something covers the face and is drawn back into
the picture by the renderer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from mfmc_ray.faces.hands import drawn
from mfmc_ray.identities.model import IdentityModel
from mfmc_ray.identities.surface import F32, IMAGE_LEFT_EYE, IMAGE_RIGHT_EYE, Bool, read
from mfmc_ray.identities.traits import BROWS, polygon
from mfmc_ray.swap.glasses import GlassesReader
from mfmc_ray.swap.match import median
from mfmc_ray.swap.mouth import MouthReader

Image = NDArray[np.uint8]

PAGE = 128
"""Side in texels of the square on which covers are looked for."""
SMALL, LARGE = 60, 500
"""Texels an object has at least when it reaches in from the face's border, and when it does not."""
LIGHT_FLOOR = 16.0
"""Added before a logarithm is taken, as in the renderer."""
GLASSES = 0.0
"""Log-odds from which a face is taken to wear glasses; `tools/build_glasses.py` prints how often that is right. Without them nothing around
the eyes is kept: a wrinkle taken for a rim, or a shaded eye for a dark lens, would leave the original's own eyes in the picture."""
MOUTH, BARE_MOUTH = 0.0, -2.5
"""Log-odds from which a mouth is taken to be covered, and up to which to be bare: what seems to lie over it then is a beard or a shadow.

Of the 105 faces of 20 px and more with masks in crowds all are above 1, and of 599 bare faces in news and other photos 12 are said to be
covered (18 with −1), by networks that were fitted to these pictures. By those that were fitted to the other half of pictures and people 104
of the masks are above 1, and 3 of 520 people in the news, none of 420 others and none of 200 portraits."""
_RIM = 0.1
"""Strength of a rim, natural logarithm of light, from which it is drawn back. Of ten faces of 50 px and more below it that were taken to
wear glasses, in news and scenes, five are bare, and of the others' thin rims pieces were kept."""

_LOG = np.log(np.arange(256, dtype=np.float32) + LIGHT_FLOOR)
_LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
_NOSE = (168, 122, 196, 236, 198, 209, 49, 48, 64, 98, 97, 2, 326, 327, 294, 278, 279, 429, 420, 456, 419, 351)
_CORE = ((168, 245, 126, 49, 4, 279, 355, 465), (119, 101, 36, 205, 50, 117), (348, 330, 266, 425, 280, 346))
"""The bridge of the nose and both cheeks under the eyes: what is covered last."""
_ANGLES, _RADII = 40, 22
_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)
_DISC = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
_EYE_X = (43.5, 83.5)
_CHEEK_ROWS, _CHEEK_COLUMNS = slice(52, 100), (slice(28, 62), slice(66, 100))
_SPREAD = (0.12, 0.05, 0.05)
"""Added to the measured spread of skin: brightness, red over green, green over blue, natural logarithm."""
_STIFF = (1e-3, 0.02, 0.02)
"""Ridge of the plane fitted to the skin, against tilting it after an object."""
_MEAN = np.full((1, 3), 1 / 3, np.float32)
_BRIGHT_RED_GREEN = np.array([[1 / 3, 1 / 3, 1 / 3], [1, -1, 0], [0, 1, -1]], np.float32)


@dataclass(frozen=True)
class Covered:
    """What lies over a face.

    Attributes:
        objects: float32 (PAGE, PAGE), 0–1 on the texture square: 1 where something lies before the face, 0 where its skin shows.
        rims: the same of the rims and temples of glasses.
        glasses: log-odds that the face wears glasses; see `GLASSES`.
        eyes, nose, mouth: shares in 0–1 of these parts that an object (dark lenses, not clear ones) covers; of the eyes the more
            covered one. `mouth` is 1 or 0 where it is plain that it is covered or bare, see `MOUTH`.
        half: the same of the cheeks; of a profile that the mesh takes for a face turned less, one is beside the face.
    """

    objects: F32
    rims: F32
    glasses: float
    eyes: float
    nose: float
    mouth: float
    half: float = 0.0

    @property
    def page(self) -> F32:
        """Both together."""
        return np.maximum(self.objects, self.rims)


NOTHING = Covered(np.zeros((PAGE, PAGE), np.float32), np.zeros((PAGE, PAGE), np.float32), 0.0, 0.0, 0.0, 0.0)
"""A bare face."""


class CoverFinder:
    """Finds what lies in front of faces.

    Args:
        model: the identity model.
        glasses: tells who wears glasses; without it nobody does.
        mouth: tells whose mouth is covered; without it `Covered.mouth` is a share alone.
    """

    def __init__(self, model: IdentityModel, glasses: GlassesReader | None, mouth: MouthReader | None) -> None:
        self._wears, self._hides = glasses, mouth
        surface = model.surface
        scale = surface.size / PAGE
        centres = np.round((np.arange(PAGE) + 0.5) * scale - 0.5).astype(np.intp)
        triangle = np.full((surface.size, surface.size), -1, np.intp)
        weight = np.zeros((surface.size, surface.size, 3), np.float32)
        texels = surface.texels
        triangle[texels.rows, texels.columns], weight[texels.rows, texels.columns] = texels.triangles, texels.weights
        triangle, weight = triangle[np.ix_(centres, centres)], weight[np.ix_(centres, centres)]
        self._inside: Bool = triangle >= 0
        self._corners = surface.corners[triangle[self._inside]].T.copy()
        self._weights = weight[self._inside].T.copy()
        self._surface = surface
        self._outside, self._nearest = _nearest(self._inside)

        def area(*landmarks: tuple[int, ...]) -> Bool:
            return np.asarray(np.any([polygon(surface, ring, PAGE) for ring in landmarks], 0))

        self._eyes = (area(IMAGE_LEFT_EYE), area(IMAGE_RIGHT_EYE))
        self._nose, self.lips, self._core = area(_NOSE), area(_LIPS), area(*_CORE)
        self._brows = _grown(area(*BROWS), 2)
        brows = _grown(area(*BROWS), 4)
        self._openings = _grown(self._eyes[0] | self._eyes[1], 2)
        nostrils = _grown(area((98, 97, 2, 326, 327, 2)), 3)
        # where every face is darker or of another colour than its skin
        self._features = _grown(self._eyes[0] | self._eyes[1], 6) | brows | _grown(self.lips, 2) | nostrils
        self._bare = self._inside & ~self._features
        self._cheeks = tuple(_within(self._bare, _CHEEK_ROWS, columns) for columns in _CHEEK_COLUMNS)
        y, x = np.mgrid[:PAGE, :PAGE].astype(np.float32)
        self._plane = np.stack([np.ones_like(x), x / PAGE - 0.5, y / PAGE - 0.5], -1)
        self._rim = _round_the_eyes()
        self._lens = tuple(((x - cx) / 24) ** 2 + ((y - 44) / 17) ** 2 < 1 for cx in _EYE_X)
        y0 = np.clip((np.abs(x - 63.5) - 18) / 8, 0, 1) * np.clip((y - 78) / 12, 0, 1)
        chin = np.clip((y - 102) / 6, 0, 1)
        self._jaw = np.asarray(np.maximum(y0, chin) * self._inside, np.float32)

    def __call__(self, window: Image, mesh: F32) -> Covered:
        """What covers the face with `mesh` (468, 3) in px of `window`, uint8 (h, w, 3) RGB."""
        texture = self.unwrap(window, mesh)
        light = np.asarray(cv2.LUT(texture, _LOG), np.float32)
        seen = self.seen(mesh, window.shape)
        glasses = self._wears(texture, seen) if self._wears else -np.inf
        objects = self._objects(light, seen, glasses > GLASSES)
        grey = np.asarray(cv2.GaussianBlur(cv2.transform(light, _MEAN), (0, 0), 0.8), np.float32)
        rims = self._rims(grey) if glasses > GLASSES else np.zeros((PAGE, PAGE), np.float32)
        left, right, nose, mouth = (_share(objects, part & seen) for part in (*self._eyes, self._nose, self.lips))
        half = max(_share(objects, cheek & seen) for cheek in self._cheeks)
        if self._hides is not None:
            odds = self._hides(self.whole(texture), seen)
            mouth = 1.0 if odds > MOUTH else 0.0 if odds < BARE_MOUTH else mouth
        objects = np.asarray(cv2.GaussianBlur(cv2.dilate(objects, _CROSS), (0, 0), 1.0), np.float32)
        rims = np.asarray(cv2.GaussianBlur(rims, (0, 0), 0.6), np.float32)
        return Covered(objects, rims, glasses, max(left, right), nose, mouth, half)

    def find(self, image: Image, mesh: F32) -> Covered:
        """The same of a face of a whole picture, uint8 (h, w, 3) RGB: only what is around the face is looked at."""
        x0, y0, x1, y1 = _around(mesh, image.shape)
        return self(image[y0:y1, x0:x1], mesh - np.array([x0, y0, 0], np.float32))

    def behind_hands(self, covered: Covered, hands: F32, mesh: F32, shape: tuple[int, ...]) -> Covered:
        """What was found with hands, joints (n, 21, 2) px of a picture of this shape, before the face with `mesh` (468, 3) px as well."""
        x0, y0, x1, y1 = _around(mesh, shape)
        mesh = mesh - np.array([x0, y0, 0], np.float32)
        hidden = drawn(hands - np.array([x0, y0], np.float32), (y1 - y0, x1 - x0))
        if not hidden.any():
            return covered
        page = np.asarray(self.unwrap(np.asarray(cv2.merge([hidden] * 3), np.uint8), mesh)[:, :, 0] / 255, np.float32)
        seen = self.seen(mesh, hidden.shape)
        left, right, nose, mouth = (_share(page, part & seen) for part in (*self._eyes, self._nose, self.lips))
        return replace(
            covered,
            objects=np.maximum(covered.objects, np.asarray(cv2.GaussianBlur(page, (0, 0), 0.7), np.float32)),
            eyes=max(covered.eyes, left, right),
            nose=max(covered.nose, nose),
            mouth=max(covered.mouth, mouth),
            # an eye behind a hand counts like a cheek: what joints say of a hand's outline is too rough to leave a photo's eye beside it
            half=max(covered.half, left, right, *(_share(page, cheek & seen) for cheek in self._cheeks)),
        )

    def unwrap(self, window: Image, mesh: F32) -> Image:
        """The window's texture, uint8 (PAGE, PAGE, 3)."""
        x0, y0 = np.maximum(np.floor(mesh[:, :2].min(0)).astype(int) - 4, 0)
        x1, y1 = np.maximum(np.ceil(mesh[:, :2].max(0)).astype(int) + 5, (x0 + 1, y0 + 1))
        window = window[min(y0, window.shape[0] - 1) : y1, min(x0, window.shape[1] - 1) : x1]
        points = mesh[:, :2] - np.array([x0, y0], np.float32)
        shrink = round(float(np.ptp(points[:, 0])) / PAGE)
        if shrink > 1:
            size = max(1, window.shape[1] // shrink), max(1, window.shape[0] // shrink)
            window = np.asarray(cv2.resize(window[: size[1] * shrink, : size[0] * shrink], size, interpolation=cv2.INTER_AREA), np.uint8)
            points = np.asarray((points + 0.5) / shrink - 0.5, np.float32)
        at = np.full((2, PAGE, PAGE), -1, np.float32)
        for page, coordinate in zip(at, points.T.copy(), strict=True):
            page[self._inside] = (self._weights * np.take(coordinate, self._corners)).sum(0)
        return np.asarray(read(window, np.moveaxis(at, 0, 2)), np.uint8)

    def whole(self, texture: Image) -> Image:
        """A texture (PAGE, PAGE, 3) with the texels that are no skin, around the face and in the open mouth, like the nearest that are."""
        filled = texture.copy()
        filled[self._outside] = texture[self._nearest]
        return filled

    def seen(self, mesh: F32, shape: tuple[int, ...]) -> Bool:
        """Bool (PAGE, PAGE): texels that face the viewer and lie in the picture."""
        x, y = mesh[:, 0], mesh[:, 1]
        good = (self._surface.facing(mesh) > 0.15) & (x >= 0) & (y >= 0) & (x < shape[1]) & (y < shape[0])
        seen = np.zeros((PAGE, PAGE), bool)
        seen[self._inside] = good[self._corners].all(0)
        return seen

    def _objects(self, light: F32, seen: Bool, glasses: bool) -> F32:
        odd = self._odd(light, seen)
        body = self._bare & seen
        spots = cv2.morphologyEx(((odd > 1) & body).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        edge = seen & ~_grown(seen, -4)
        _, label, stats, _ = cv2.connectedComponentsWithStats(spots, connectivity=4)
        area = stats[:, cv2.CC_STAT_AREA]
        touching = np.bincount(label[edge], minlength=len(area))
        keep = (area >= LARGE) | ((area >= SMALL) & (touching >= 4))
        keep[0] = False
        object_ = keep[label].astype(np.uint8)
        eyes = np.zeros((PAGE, PAGE), bool)
        for eye, lens in zip(self._eyes, self._dark_lenses(light, seen), strict=True):
            if glasses and lens.any():
                object_ = np.maximum(object_, (lens | eye).astype(np.uint8))
            else:
                eyes |= _grown(eye, 4)
        may = ((odd > 0.9) & seen & ~eyes).astype(np.uint8)
        for _ in range(10):
            object_ = np.maximum(object_, np.minimum(np.asarray(cv2.dilate(object_, _CROSS), np.uint8), may))
        beard = np.clip((np.asarray(cv2.GaussianBlur(odd, (0, 0), 1.0), np.float32) - 0.6) / 0.4, 0, 1) * self._jaw * seen
        return np.asarray(np.maximum(object_, beard), np.float32)

    def _dark_lenses(self, light: F32, seen: Bool) -> tuple[Bool, Bool]:
        """Where an opaque lens hides the left and the right eye's surroundings; empty for clear ones.

        Above and below a bare eye there is skin like the cheek's.
        """
        none = np.zeros((PAGE, PAGE), bool)
        usual = []
        for x in (int(x) for x in _EYE_X):
            if seen[48:54, x - 7 : x + 8].mean() < 0.5:
                continue
            cheek = _middle(np.concatenate([light[62:74, x - 9 : x + 10].reshape(1, -1, 3), light[52:66, 59:69].reshape(1, -1, 3)], 1))
            below, above = (_middle(light[rows, x - 7 : x + 8]) - cheek for rows in (slice(49, 54), slice(32, 37)))
            less, more = sorted((-float(below.mean()), -float(above.mean())))
            colour = min(float(np.abs(v - v.mean()).max()) for v in (below, above))
            if not (less > 0.65 or (less > 0.35 and more > 1.0) or colour > 0.22):
                return none, none
            usual.append(cheek)
        if not usual:
            return none, none
        off = light - np.mean(usual, 0, np.float32)
        level = cv2.transform(off, _MEAN)
        r, g, b = cv2.split(np.abs(off - level[:, :, None]))
        unlike = ((level < -0.3) | (np.maximum(np.maximum(r, g), b) > 0.18)) & seen
        left, right = (
            cv2.morphologyEx((unlike & reach).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8)) > 0 for reach in self._lens
        )
        return np.asarray(left), np.asarray(right)

    def _odd(self, light: F32, seen: Bool) -> F32:
        """How far each texel is off this face's skin: float32 (PAGE, PAGE), above 1 where it does not belong to it.

        Skin is a plane of brightness and colour over the face, fitted robustly from its middle outwards.
        """
        values = np.asarray(cv2.GaussianBlur(cv2.transform(light, _BRIGHT_RED_GREEN), (0, 0), 0.8), np.float32)
        core = values[self._core & seen].T
        if core.shape[1] < 60:
            return np.zeros((PAGE, PAGE), np.float32)
        usual = median(core)
        spread = np.asarray(1.4826 * median(np.abs(core - usual[:, None])) + np.array(_SPREAD, np.float32))
        body = (self._bare & seen)[::3, ::3]
        base, data = self._plane[::3, ::3][body], (values[::3, ::3][body] - usual) / spread
        off = data
        for _ in range(3):
            weight = (np.maximum.reduce(np.abs(off.T)) < 2.5).astype(np.float32)
            weighted = base.T * weight
            slope = np.linalg.solve(weighted @ base + np.diag(_STIFF).astype(np.float32) * len(data), weighted @ data)
            off = data - base @ slope
        fit = np.asarray(cv2.transform(self._plane, np.ascontiguousarray(slope.T)), np.float32)
        channels = zip(cv2.split(values), usual, spread, cv2.split(fit), strict=True)
        return np.asarray(np.maximum.reduce([np.abs((value - at) / by - fitted) for value, at, by, fitted in channels]) / 3.0, np.float32)

    def _rims(self, grey: F32) -> F32:
        """Rims and temples of glasses, float32 (PAGE, PAGE), 0–1; nothing where none stands out (rimless ones)."""
        polar = np.stack([np.asarray(cv2.remap(grey, x, y, cv2.INTER_LINEAR), np.float32) for x, y in self._rim])
        found = np.minimum(_ridge(polar, (2, 3, 4)), 0.25)
        below = slice(int(0.05 * _ANGLES), int(0.45 * _ANGLES))
        bridge = float(np.median(_ridge(grey[30:60, 56:72].T, (2, 3)).max(1)))
        path = _rings_through(found)
        along = np.take_along_axis(found, path[:, :, None], 2)[:, :, 0]
        if float(along[:, below].mean()) + 0.5 * bridge < _RIM:
            return np.zeros((PAGE, PAGE), np.float32)
        band = np.zeros((PAGE, PAGE), np.uint8)
        for (x, y), r in zip(self._rim, path, strict=True):
            at = np.arange(_ANGLES)
            line = np.round(np.stack([x[at, r], y[at, r]], 1) * 8).astype(np.int32)
            cv2.polylines(band, [line], True, 1, 6, cv2.LINE_8, 3)
            cv2.polylines(band, [line[below]], False, 2, 2, cv2.LINE_8, 3)
        band[34:50, 56:72] = np.maximum(band[34:50, 56:72], 1)
        for side in (slice(0, 20), slice(-20, None)):
            band[36:54, side] = np.maximum(band[36:54, side], 1)
        hat = np.maximum(cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, _DISC), cv2.morphologyEx(grey, cv2.MORPH_TOPHAT, _DISC))
        usual = float(np.median(hat[band == 2]))
        rims = np.where((band > 0) & ~self._openings, np.clip((hat - 0.3 * usual) / (0.3 * usual + 1e-3), 0, 1), 0)
        # a brow is no rim, unless a dark rim lies over it
        rims[self._brows] *= np.clip((hat[self._brows] - 0.3) / 0.2, 0, 1)
        return np.asarray(rims, np.float32)


def _around(mesh: F32, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """x0 y0 x1 y1, px, end exclusive, of the window of a picture of this shape that a mesh (468, 3) px is in."""
    low, high = mesh[:, :2].min(0) - 2.0, mesh[:, :2].max(0) + 2.0
    x0, y0 = max(0, int(low[0])), max(0, int(low[1]))
    return x0, y0, max(x0 + 1, min(shape[1], int(high[0]) + 1)), max(y0 + 1, min(shape[0], int(high[1]) + 1))


def _ridge(lines: F32, widths: tuple[int, ...]) -> F32:
    """How much each point of many lines (…, n) is darker, or a little less so brighter, than both sides at some distance."""
    best = np.zeros(lines.shape, np.float32)
    for d in widths:
        wide = np.pad(lines, [(0, 0)] * (lines.ndim - 1) + [(d, d)], mode="edge")
        low, high = wide[..., : -2 * d], wide[..., 2 * d :]
        best = np.maximum(best, np.maximum(np.minimum(low, high) - lines, 0.8 * (lines - np.maximum(low, high))))
    return best


def _round_the_eyes() -> list[tuple[F32, F32]]:
    """For each eye the texels of a polar grid around it, x and y, (angles, radii); angle 0 points outward, a quarter turn down."""
    angle = np.arange(_ANGLES, dtype=np.float32)[:, None] * (2 * np.pi / _ANGLES)
    radius = np.linspace(7, 30, _RADII, dtype=np.float32)
    across, down = np.cos(angle), np.sin(angle)
    return [
        (
            (x + side * across * radius * np.where(across > 0, 1.05, 0.85)).astype(np.float32),
            (43.5 + 0.85 * down * radius).astype(np.float32),
        )
        for side, x in zip((-1, 1), _EYE_X, strict=True)
    ]


def _rings_through(found: F32) -> NDArray[np.intp]:
    """The closed paths with the most of `found` (eyes, angles, radii) on them, a step of radius an angle at most: radii (eyes, angles)."""
    eyes, angles, radii = found.shape
    steps, start = angles * 3 // 2, angles // 4  # half a turn more, so that the turn in its middle closes
    best = np.full((steps, eyes, radii + 2), -1e9, np.float32)
    best[0, :, 1:-1] = found[:, 0]
    for t in range(1, steps):
        before = best[t - 1]
        aside = np.maximum(before[:, :-2], before[:, 2:])
        best[t, :, 1:-1] = np.maximum(before[:, 1:-1], aside - 0.03) + found[:, t % angles]
    inward, outward, along = best[..., :-2] - 0.03, best[..., 2:] - 0.03, best[..., 1:-1]
    step = np.where(along >= np.maximum(inward, outward), 0, np.where(inward > outward, -1, 1))
    path = np.zeros((eyes, angles), np.intp)
    radius = along[-1].argmax(1)
    for t in range(steps - 1, start - 1, -1):
        if t < start + angles:
            path[:, t % angles] = radius
        radius = radius + step[t - 1, np.arange(eyes), radius]
    return path


def _nearest(inside: Bool) -> tuple[tuple[NDArray[np.intp], ...], tuple[NDArray[np.intp], ...]]:
    """Rows and columns of the texels that are not `inside` (PAGE, PAGE), and of the nearest to each that is."""
    _, label = cv2.distanceTransformWithLabels((~inside).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    rows, columns = np.nonzero(inside)
    at = np.zeros((2, int(label.max()) + 1), np.intp)
    at[:, label[rows, columns]] = rows, columns
    outside = np.nonzero(~inside)
    return outside, tuple(at[:, label[outside]])


def _middle(area: F32) -> F32:
    """The median colour of an area (h, w, 3)."""
    return median(np.ascontiguousarray(area.reshape(-1, 3).T))


def _grown(area: Bool, by: int) -> Bool:
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(by) + 1, 2 * abs(by) + 1))
    change = cv2.dilate if by > 0 else cv2.erode
    return np.asarray(change(area.astype(np.uint8), kernel) > 0)


def _within(area: Bool, rows: slice, columns: slice) -> Bool:
    part = np.zeros_like(area)
    part[rows, columns] = area[rows, columns]
    return part


def _share(page: F32, part: Bool) -> float:
    return float(page[part].mean()) if part.sum() >= 8 else 0.0
