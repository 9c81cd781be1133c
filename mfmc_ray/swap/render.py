"""Rendering a fake identity onto a face: the embedded swapper."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import cv2
import numpy as np

from mfmc_ray.faces.faces import Image
from mfmc_ray.faces.hands import HandFinder
from mfmc_ray.faces.lids import as_before, opened
from mfmc_ray.identities.model import IdentityModel
from mfmc_ray.identities.sample import Identity
from mfmc_ray.identities.surface import F32, INNER_LIPS, Bool, alike, place, read, shrunk
from mfmc_ray.identities.texture import Texture, at_age, texture
from mfmc_ray.identities.traits import bare_skin
from mfmc_ray.swap.cover import NOTHING, PAGE, Covered, CoverFinder
from mfmc_ray.swap.glasses import GlassesReader
from mfmc_ray.swap.match import COARSE, as_colourful_as, as_shaded_as, as_sharp_as, brow_gain, contrast_gain, grain, luma, median
from mfmc_ray.swap.mouth import MouthReader
from mfmc_ray.swap.protocol import OPAQUE, Patch, Portrait, Swapper

TONE_FLOOR = 16.0
"""Added before a logarithm is taken, so that dark skin's noise and highlights are not blown up."""
LOW_PASS = 0.3
"""σ of the low-pass that carries light and tone, in face widths. A finer one carries the original's cheeks and eye sockets, too."""
SURROUNDINGS = 0.5
"""How far around a face its surroundings move along, in face widths."""
FOLLOW = 0.07
"""σ over which surroundings are moved along, in face widths."""
_STAYS = 1 / 128
"""Px; what moves less stays as it is, which is less than half a level off."""
_LIGHT = np.log(np.arange(256, dtype=np.float32) + TONE_FLOOR)
WIDE_MOUTH, WIDER_MOUTH = 1.1, 0.92
"""How wide a mouth becomes at most: so many times the mean face's, or so much of its width in the photo if that is more. The mesh network
sees a broad smile broader than it is, and what an identity adds to it would be a grimace."""
_LIPS = 9
"""Texels by which the slit between the lips is widened until all of the mask's hole is in it."""
_CORNERS = (61, 291)
_LIP_PAIRS = tuple(zip(INNER_LIPS[1:10], INNER_LIPS[:10:-1], strict=True))


@dataclass(frozen=True, eq=False)
class Seen:
    """Where a face shows in a window of h × w px.

    Attributes:
        size: side of the texture square that `texel` is about.
        texel: float32 (h, w, 2), each pixel's; beyond the face without meaning.
        drawn: bool (h, w), pixels of the face.
        light: float32 (h, w, 3), natural logarithm of the window's pixels + TONE_FLOOR.
        mask: float32 (h, w), 0–1, soft: where it is to be drawn; not over what lies before it, nor within an open mouth.
        edges, brows, skin: float32 (h, w), 0–1: where faces have sharp edges, the brows, bare skin.
        veil: float32 (h, w), 0 where something is hidden before the face, 1 elsewhere; None: nothing is.
    """

    size: int
    texel: F32
    drawn: Bool
    light: F32
    mask: F32
    edges: F32
    brows: F32
    skin: F32
    veil: F32 | None

    @property
    def cover(self) -> float:
        """Fraction in 0–1 of the face's area that is drawn."""
        return float(self.mask.sum() / max(1, self.drawn.sum()))


class MorphSwapper(Swapper):
    """Replaces a face's identity by a sampled one; pose, expression, light and skin tone stay the target's.

    The recipe: new mesh = target mesh with its identity part exchanged; the surroundings follow by a smooth warp; the identity's detail is
    drawn on the new mesh over a low-pass of the target, which carries light and tone; the inner mouth and what covers the face stay.
    """

    name = "morph"
    digest = ""
    licences = ()
    at_once = 1

    def __init__(self, model: IdentityModel) -> None:
        self.model = model
        self._textures = lru_cache(maxsize=64)(self._texture)
        self._mask_level = lru_cache(maxsize=8)(lambda size: shrunk(_closed(model), size))
        self._covers = CoverFinder(model, GlassesReader(), MouthReader())
        self._zones = lru_cache(maxsize=8)(lambda size: shrunk(_make_zones(model), size))

    def swap(
        self,
        image: Image,
        mesh: F32,
        identity: Identity,
        *,
        age: float | None = None,
        strength: float = 1.0,
        match_sharpness: bool = True,
        keep_rims: bool = True,
        covered: Covered | None = None,
    ) -> Patch:
        """The window of `image` (uint8 h×w×3 RGB) around the face with `mesh` (468, 3) px, now showing `identity`.

        `age` in years is how old it is to look; by default the identity's. `strength` scales the exchange of shape: 0 changes the texture
        only, above 1 the identity's features are exaggerated. Without `match_sharpness` the identity's detail is drawn as it is, however
        soft, grainy or fair-browed the picture. Without `keep_rims` the rims of glasses are drawn over; other things before the face
        always stay: what `covered` says, by default what is found but for hands.
        """
        age = identity.age if age is None else age
        moved = self._moved(mesh, identity, age, strength)
        width = max(float(np.ptp(mesh[:, 0])), 4.0)
        x0, y0, x1, y1 = window_of(np.concatenate([mesh, moved])[:, :2], SURROUNDINGS * width, image.shape)
        origin = np.array([x0, y0, 0], np.float32)
        window = _follow(image[y0:y1, x0:x1], (mesh - origin)[:, :2], (moved - origin)[:, :2], width)
        covered = self.covered(image, mesh, hands=False) if covered is None else covered
        at = moved - origin
        left, top, right, bottom = window_of(at[:, :2], 2.0, window.shape)
        inside = slice(top, bottom), slice(left, right)
        at = at - np.array([left, top, 0], np.float32)
        hidden = None if covered is NOTHING else covered.page if keep_rims else covered.objects
        shown = self._draw(window[inside], at, identity, age, width, hidden, match_sharpness)
        window[inside] = shown.pixels
        front = np.zeros(window.shape[:2], np.bool_)
        front[inside] = False if shown.front is None else shown.front
        return Patch(x0, y0, window, moved, shown.cover, front)

    def _moved(self, mesh: F32, identity: Identity, age: float, strength: float) -> F32:
        """The face's mesh (468, 3) px with the identity's shape."""
        model = self.model
        target = place(mesh, model.surface.mean)
        wanted = model.childhood.shaped(identity.shape, model.adults[int(identity.man)], age)
        return target.mesh(self._reshape(target.shape, wanted, strength))

    def _draw(self, window: Image, mesh: F32, identity: Identity, age: float, width: float, hidden: F32 | None, match: bool) -> Patch:
        """The face with its new `mesh` (468, 3) px in a window just around it, drawn but for what is `hidden` on the texture square."""
        seen = self.seen(window, mesh, width, hidden)
        light, mask, edges, brows = seen.light, seen.mask, seen.edges, seen.brows
        skin = mask * seen.skin
        low = _low_pass(light, skin, width)
        original = light - low
        detail = read(at_age(self.model, self._textures(identity, seen.size), age), seen.texel)
        detail = as_colourful_as(detail, original, mask)
        detail += alike(seen.skin) * (as_colourful_as(detail, original, skin) - detail)
        if match:
            detail *= contrast_gain(detail, original, mask)
            detail = as_shaded_as(detail, original, skin, width)
            detail *= alike(1 + (brow_gain(detail, original, mask * brows) - 1) * brows)
            detail = as_sharp_as(detail, light, mask * edges, width)
            detail = grain(detail, light, mask * (1 - edges), width, identity.seed)
        fake = np.exp(low + detail) - TONE_FLOOR
        return Patch(0, 0, mixed(window, fake, mask), mesh, seen.cover, np.asarray(mask >= OPAQUE, np.bool_))

    def seen(self, window: Image, mesh: F32, width: float, hidden: F32 | None) -> Seen:
        """Where the face with `mesh` (468, 3) px, `width` px wide, shows in a window just around it, uint8 (h, w, 3) RGB.

        What is `hidden` (PAGE, PAGE), on the texture square, lies before it, and so does hair.
        """
        surface, size, shape = self.model.surface, self._size(width), window.shape[:2]
        raster = surface.rasterise(mesh[:, :2], mesh[:, 2], shape)
        values = np.column_stack([surface.uv, surface.front(mesh)]).astype(np.float32)
        u, v, front = cv2.split(raster.interpolate(values, surface.corners, shape))
        drawn = np.asarray(u >= 0)
        texel = (cv2.merge([u, v]) + 0.5) * (size / surface.size) - 0.5
        # at the outline a pixel's centre may lie beyond its triangle, and what is interpolated there below 0
        mask = np.where(drawn, read(self._mask_level(size), texel) * np.clip(front, 0, 1), 0).astype(np.float32)
        mask *= 1 - mouth_of(mesh[:, :2], shape)

        light = np.asarray(cv2.LUT(window, _LIGHT), np.float32)
        hair, edges, brows, skin = (np.asarray(zone, np.float32) for zone in cv2.split(read(self._zones(size), texel)))
        mask *= _uncovered(light, mask, hair, width)
        if hidden is not None:  # it lies on the texture square, where a face keeps its place whatever its shape
            veil = np.where(drawn, 1 - read(hidden, (texel + 0.5) * (PAGE / size) - 0.5), 1).astype(np.float32)
            mask *= veil
        return Seen(size, texel, drawn, light, mask, edges, brows, skin, None if hidden is None else veil)

    def covered(self, image: Image, mesh: F32, *, hands: bool = True) -> Covered:
        """What lies before the face with `mesh` (468, 3) px of `image` (uint8 h×w×3 RGB); to look for hands takes most of the time."""
        found = self._covers.find(image, mesh)
        return self._covers.behind_hands(found, self._hands.find(image, mesh), mesh, image.shape) if hands else found

    @cached_property
    def _hands(self) -> HandFinder:
        return HandFinder()

    def portrait(self, identity: Identity) -> Portrait:
        """The identity as this swapper shows it, see `neutral_portrait`."""
        return Portrait(neutral_portrait(self, identity), self.model.head_mesh)

    def _reshape(self, shape: F32, wanted: F32, strength: float) -> F32:
        """A shape (468, 3) with its identity part moved towards these coefficients (k,)."""
        shape, lids = opened(shape, self.model.surface.mean)  # lids say how the face looks, not who it is
        offset = strength * self.model.offset(wanted - self.model.split(shape))
        for upper, lower in _LIP_PAIRS:  # the mouth stays as far open as it is
            offset[[upper, lower]] = (offset[upper] + offset[lower]) / 2
        usual, before = (float(np.ptp(one[list(_CORNERS), 0])) for one in (self.model.surface.mean, shape))
        new = _mouth_within(np.asarray(shape + offset, np.float32), max(WIDE_MOUTH * usual, WIDER_MOUTH * before))
        return as_before(new, lids)

    def _size(self, width: float) -> int:
        """The coarsest texture level that has a texel for every pixel of a face `width` px wide."""
        size = self.model.surface.size
        while size > 48 and size >= 2 * 1.3 * width:
            size //= 2
        return size

    def _texture(self, identity: Identity, size: int) -> Texture:
        return texture(self.model, identity, size)


def neutral_portrait(swapper: MorphSwapper, identity: Identity) -> Image:
    """The identity on the average head of its sex, looking straight ahead in even light: uint8 (h, h, 3) RGB.

    It is what the identity's certificate is about.
    """
    head, mesh = neutral_head(swapper.model, identity), swapper.model.head_mesh
    swapper.swap(head, mesh, identity, match_sharpness=False, covered=NOTHING).paste(head)
    return head


def neutral_head(model: IdentityModel, identity: Identity) -> Image:
    """The average head of an identity's sex, nobody's, in the identity's skin tone: uint8 (h, h, 3) RGB; its mesh is `model.head_mesh`."""
    head, mesh = model.heads[int(identity.man)], model.head_mesh
    x0, y0, x1, y1 = window_of(mesh[:, :2], -0.25 * float(np.ptp(mesh[:, 0])), head.shape)
    usual = np.median(head[y0:y1, x0:x1].reshape(-1, 3), 0)
    ratio = (identity.skin + TONE_FLOOR) / (usual + TONE_FLOOR)
    return np.asarray(np.clip((head + TONE_FLOOR) * ratio - TONE_FLOOR, 0, 255), np.uint8)


def mixed(window: Image, fake: F32, mask: F32) -> Image:
    """`fake` (h, w, 3) over a window, uint8 (h, w, 3), inside the weights `mask` (h, w): uint8."""
    return np.asarray(np.clip(window + (fake - window) * mask[:, :, None] + 0.5, 0, 255), np.uint8)


def _make_zones(model: IdentityModel) -> F32:
    """float32 (size, size, 4): where hair may lie over the face (forehead and the cheeks' sides), where faces have sharp edges (eyes,
    brows, mouth), the brows, bare skin."""
    eyes, brows, _, mouth, forehead, cheeks = model.regions
    size = model.surface.size
    aside = np.clip((np.abs(np.arange(size, dtype=np.float32) - (size - 1) / 2) / size - 0.2) / 0.06, 0, 1)
    hair, edges = np.clip(forehead + cheeks * aside, 0, 1), np.clip(eyes + brows + mouth, 0, 1)
    return np.dstack([hair, edges, brows, bare_skin(model.surface, size)]).astype(np.float32)


def _uncovered(light: F32, mask: F32, zone: F32, width: float) -> F32:
    """1 where a window (logarithmic light, h×w×3) shows skin, 0 where hair or the like lies over it inside `zone`: float32 (h, w).

    Skin is what looks like the middle of the face; the threshold follows that face's own spread, so that a dark skin is not taken for hair.
    """
    centre = np.flatnonzero((mask > 0.9) & (zone < 0.1))
    if len(centre) < 30:
        return np.ones(mask.shape, np.float32)
    skin = np.stack([np.take(channel, centre) for channel in cv2.split(light)], dtype=np.float32)
    usual = median(skin)
    spread = 1.4826 * median(np.abs(skin - usual[:, None])).mean() + 0.08
    off = np.asarray(cv2.GaussianBlur(light - usual, (0, 0), max(0.5, 0.008 * width)), np.float32)
    brightness = luma(off)
    odd = -brightness / (3.0 * spread)
    for channel in cv2.split(off):
        odd = np.maximum(odd, np.abs(channel - brightness) / 0.3)
    covered = np.clip((odd - 1.0) / 0.35, 0, 1) * zone
    return np.asarray(1 - cv2.GaussianBlur(covered, (0, 0), max(0.5, 0.006 * width)), np.float32)


def mouth_of(points: F32, shape: tuple[int, ...]) -> F32:
    """How far the open mouth of a mesh with these points (468, 2) px covers each pixel of a window: float32 (h, w), 0–1."""
    mouth = np.zeros(shape[:2], np.uint8)
    cv2.fillPoly(mouth, [np.round(points[list(INNER_LIPS)] * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return np.asarray(mouth / 255, np.float32)


def _closed(model: IdentityModel) -> F32:
    """The mask without a hole at the mouth, (size, size): how far that is open is the photo's affair, and on the square it is a slit."""
    hole = np.zeros(model.mask.shape, np.uint8)
    cv2.fillConvexPoly(hole, cv2.convexHull(np.round(model.surface.uv[list(INNER_LIPS)]).astype(np.int32)), 1)
    return np.asarray(np.maximum(model.mask, cv2.dilate(hole, np.ones((_LIPS, _LIPS), np.uint8))), np.float32)


def window_of(points: F32, pad: float, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """x0 y0 x1 y1, px, end exclusive, of the window around points (n, 2) with `pad` px around them, inside a picture of this shape."""
    low, high = points.min(0) - pad, points.max(0) + pad
    x0, y0 = max(0, int(low[0])), max(0, int(low[1]))
    return x0, y0, max(x0 + 1, min(shape[1], int(high[0]) + 1)), max(y0 + 1, min(shape[0], int(high[1]) + 1))


def _follow(window: Image, old: F32, new: F32, width: float) -> Image:
    """Moves a window's pixels so that what was at `old` (468, 2) px is at `new`, smoothly, fading out towards the window's border."""
    step = max(1.0, width / COARSE)
    height, breadth = max(1, round(window.shape[0] / step)), max(1, round(window.shape[1] / step))
    sigma = FOLLOW * width / step
    moved, weight = np.zeros((height, breadth, 2), np.float32), np.zeros((height, breadth), np.float32)
    at = np.round(new / step).astype(int)
    inside = (at >= 0).all(1) & (at[:, 0] < breadth) & (at[:, 1] < height)
    np.add.at(moved, (at[inside, 1], at[inside, 0]), (old - new)[inside])
    np.add.at(weight, (at[inside, 1], at[inside, 0]), 1)
    weight = np.asarray(cv2.GaussianBlur(weight, (0, 0), sigma), np.float32)
    field = cv2.GaussianBlur(moved, (0, 0), sigma) / (weight + weight.max() * 0.02 + 1e-9)[:, :, None]
    fade = np.ones((height, breadth), np.float32)
    fade[[0, -1]], fade[:, [0, -1]] = 0, 0
    fade = np.clip(cv2.distanceTransform((fade > 0).astype(np.uint8), cv2.DIST_L2, 3) / (0.2 * width / step), 0, 1)
    field = cv2.resize(field * alike(fade, 2), window.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return warped(window, np.asarray(field, np.float32))


def warped(page: Image, field: F32) -> Image:
    """A copy of a page, uint8 (h, w, 3), each pixel of which is taken from where `field` (h, w, 2) px, right and down, points from it."""
    shown, height, breadth = page.copy(), *page.shape[:2]
    far = np.abs(field)
    down, across = (np.flatnonzero(most > _STAYS) for most in (far.reshape(height, -1).max(1), far.max(0).max(1)))
    if len(down) and len(across):
        part = np.s_[down[0] : down[-1] + 1, across[0] : across[-1] + 1]
        x, y = np.arange(breadth, dtype=np.float32)[part[1]], np.arange(height, dtype=np.float32)[part[0], None]
        at = x + field[part][..., 0], y + field[part][..., 1]
        shown[part] = cv2.remap(page, *at, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return shown


def _mouth_within(shape: F32, most: float) -> F32:
    """A shape (468, 3) whose mouth is no wider than `most`; within twice its own width the face around it follows."""
    wide = float(np.ptp(shape[list(_CORNERS), 0]))
    if wide <= most:
        return shape
    centre = shape[list(INNER_LIPS)].mean(0)
    apart = np.hypot(*((shape - centre)[:, :2] / (wide / 2)).T)
    narrowed = shape.copy()
    narrowed[:, 0] -= (1 - most / wide) * np.clip(2 - apart, 0, 1) * (shape - centre)[:, 0]
    return narrowed


def _low_pass(light: F32, skin: F32, width: float) -> F32:
    """What of a window's logarithmic light (h, w, 3) varies slower than `LOW_PASS` face widths, seen on the skin (weights h, w) only."""
    step = max(1.0, width / COARSE)
    size = max(1, round(light.shape[1] / step)), max(1, round(light.shape[0] / step))
    weight = np.asarray(cv2.resize(np.where(skin > 0.3, skin, 0), size, interpolation=cv2.INTER_AREA), np.float32)
    small = cv2.resize(light, size, interpolation=cv2.INTER_AREA)
    sigma = LOW_PASS * width / step
    total = np.asarray(cv2.GaussianBlur(weight, (0, 0), sigma) + 1e-4, np.float32)
    low = cv2.GaussianBlur(small * alike(weight), (0, 0), sigma) / alike(total)
    return np.asarray(cv2.resize(low, light.shape[1::-1], interpolation=cv2.INTER_LINEAR), np.float32)
