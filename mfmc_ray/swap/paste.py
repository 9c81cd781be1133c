"""Pasting what a network made of a face's crop back into the picture: only around the face, and behind what lies before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mfmc_ray.faces.faces import F32, Image
from mfmc_ray.swap.match import as_sharp_as, grain, luma
from mfmc_ray.swap.protocol import Patch
from mfmc_ray.swap.render import TONE_FLOOR, MorphSwapper, Seen, mixed, mouth_of, window_of

BORDER = 0.06
"""Over what part of a crop's side its border fades."""
_CONTRAST = (0.8, 1.25)
"""How far a fake's contrast may be changed to be the picture's."""
_HIDDEN_MOUTH = 0.1
"""Share of the lips behind something from which the inner mouth stays the picture's."""


@dataclass(frozen=True, eq=False)
class Made:
    """What a network made of a face.

    Attributes:
        pixels: uint8 (k, k, 3) RGB.
        matrix: float32 (2, 3), px of the picture → px of these.
        mask: float32 (k, k), 0–1, the network's own; None if it has none.
    """

    pixels: Image
    matrix: F32
    mask: F32 | None


@dataclass(frozen=True, eq=False)
class Place:
    """Where something is to be pasted.

    Attributes:
        image: uint8 (h, w, 3) RGB, the picture.
        mesh: float32 (468, 3), px, of the face.
        window: x0 y0 x1 y1, px, end exclusive.
        width: of the face, px.
        seen: the face in the window; None where that is not asked for.
        mouth: share of the lips that is hidden.
    """

    image: Image
    mesh: F32
    window: tuple[int, int, int, int]
    width: float
    seen: Seen | None
    mouth: float

    @property
    def pixels(self) -> Image:
        """The window's."""
        x0, y0, x1, y1 = self.window
        return self.image[y0:y1, x0:x1]

    @property
    def at(self) -> F32:
        """The mesh in the window, float32 (468, 2) px."""
        return np.asarray(self.mesh[:, :2] - np.array(self.window[:2], np.float32), np.float32)


def look(renderer: MorphSwapper, image: Image, mesh: F32, matrix: F32, side: int, hidden: F32 | None, mouth: float, how: str) -> Place:
    """Where the face with `mesh` (468, 3) px is in a picture, and what lies before it.

    Args:
        renderer: draws the mesh.
        image: uint8 (h, w, 3) RGB.
        mesh: of the face.
        matrix: float32 (2, 3), px of the picture → px of the crop.
        side: of the crop, px.
        hidden: float32 (PAGE, PAGE) on the texture square; None: nothing is.
        mouth: share of the lips that is hidden.
        how: face: the window is the mesh's. crop: and the crop's. plain: the crop's; the mesh is not drawn.
    """
    points = mesh[:, :2]
    if how != "face":
        corners = np.array([[0, 0], [side, 0], [0, side], [side, side]], np.float64)
        square = np.linalg.solve(matrix[:, :2].astype(np.float64), (corners - matrix[:, 2]).T).T.astype(np.float32)
        points = square if how == "plain" else np.concatenate([points, square])
    window = window_of(points, 2.0, image.shape)
    width = max(float(np.ptp(mesh[:, 0])), 4.0)
    x0, y0, x1, y1 = window
    seen = None
    if how != "plain":
        seen = renderer.seen(image[y0:y1, x0:x1], mesh - np.array([x0, y0, 0], np.float32), width, hidden)
    return Place(image, mesh, window, width, seen, mouth)


def paste(place: Place, made: Made, how: str, seed: int | None, match: bool) -> Patch:
    """The window of the picture with the new face.

    Args:
        place: of `look`.
        made: the new face.
        how: see `spec.PasteSpec.mask`.
        seed: of the grain; None: sharpness and grain stay the network's.
        match: tone, and with a seed sharpness and grain, are made the picture's.
    """
    window, seen = place.pixels, place.seen
    if how == "box":
        fake, mask = _warped(made.pixels, made, place, False), _box(made, place)
    else:
        fake, mask = _warped(made.pixels, made, place, True), _warped(_fading(len(made.pixels)), made, place, True)
        if how == "network" and made.mask is not None:
            mask = mask * np.clip(_warped(made.mask, made, place, True), 0, 1)
        elif seen is not None:
            mask = mask * _with_mouth(seen.mask, place)
    if seen is not None and seen.veil is not None and how != "face":
        mask = mask * seen.veil
    shown = fake.astype(np.float32)
    if match and seen is not None:
        shown = _matched(shown, seen, mask, place.width, seed)
    x0, y0, _, _ = place.window
    return Patch(x0, y0, mixed(window, shown, mask), place.mesh, _cover(mask, place))


def _warped(page: NDArray[Any], made: Made, place: Place, fine: bool) -> F32:
    """A page (k, k[, 3]) as it lies in the window, uint8 or float32; `fine`: averaged where it shrinks, and never cut hard."""
    x0, y0, x1, y1 = place.window
    linear, shift = made.matrix[:, :2].astype(np.float64), made.matrix[:, 2].astype(np.float64)
    shift = shift + linear @ (x0, y0)
    side = len(page)
    factor = float(np.sqrt(abs(np.linalg.det(linear)))) * side / len(made.pixels)  # px of the page for one of the picture
    flags = cv2.INTER_LINEAR
    if fine and factor > 1.25:
        small = max(1, round(side / factor))
        page = np.asarray(cv2.resize(page, (small, small), interpolation=cv2.INTER_AREA))
    elif fine and factor < 0.8 and page.ndim == 3:
        flags = cv2.INTER_CUBIC
    ratio = len(page) / len(made.pixels)
    # a pixel's centre is at integers: x' = (x + ½) · ratio − ½
    matrix = np.column_stack([linear * ratio, (shift + 0.5) * ratio - 0.5])
    border = cv2.BORDER_REPLICATE if fine and page.ndim == 3 else cv2.BORDER_CONSTANT
    return np.asarray(cv2.warpAffine(page, matrix, (x1 - x0, y1 - y0), flags=flags | cv2.WARP_INVERSE_MAP, borderMode=border))


def _fading(side: int) -> F32:
    """float32 (side, side): 1, and 0 at the border."""
    at = np.minimum(np.arange(side), np.arange(side)[::-1]) / (BORDER * side)
    ramp = np.clip(at, 0, 1).astype(np.float32)
    return np.asarray(np.minimum(ramp[:, None], ramp[None]), np.float32)


def _box(made: Made, place: Place) -> F32:
    """The crop but for its border, soft, as INSwapper pastes it (insightface, model_zoo/inswapper.py), in the window alone."""
    white = _warped(np.full(made.pixels.shape[:2], 255, np.float32), made, place, False)
    white = np.where(white > 20, np.float32(255), white)
    rows, columns = np.nonzero(white == 255)
    if not len(rows):
        return white
    size = int(np.sqrt(float(np.ptp(rows)) * float(np.ptp(columns))))
    k = max(size // 10, 10)
    mask = cv2.erode(white, np.ones((k, k), np.uint8))
    k = 2 * max(size // 20, 5) + 1
    return np.asarray(cv2.GaussianBlur(mask, (k, k), 0), np.float32) / np.float32(255)


def _with_mouth(mask: F32, place: Place) -> F32:
    """The mask with the inner mouth, which a mesh leaves open, unless something is before it."""
    if place.mouth > _HIDDEN_MOUTH:
        return mask
    return np.maximum(mask, mouth_of(place.at, mask.shape))


def _matched(fake: F32, seen: Seen, mask: F32, width: float, seed: int | None) -> F32:
    """A fake (h, w, 3), 0–255, with the picture's tone and contrast on the skin (Reinhard et al., "Color transfer between images", 2001, on
    the logarithm of light), no sharper than it, and as grainy."""
    light = np.log(np.clip(fake, 0, 255) + TONE_FLOOR)
    weight = mask * seen.skin
    total = float(weight.sum())
    if total >= 10:
        usual, wanted = ((values * weight[:, :, None]).sum((0, 1)) / total for values in (light, seen.light))
        spread = [float(np.sqrt(((luma(v - m) ** 2) * weight).sum() / total)) for v, m in ((light, usual), (seen.light, wanted))]
        light = (light - usual) * np.float32(np.clip(spread[1] / max(spread[0], 1e-6), *_CONTRAST)) + wanted
    if seed is not None:
        light = as_sharp_as(light, seen.light, mask * seen.edges, width)
        light = grain(light, seen.light, mask * (1 - seen.edges), width, seed)
    return np.asarray(np.exp(light) - TONE_FLOOR, np.float32)


def _cover(mask: F32, place: Place) -> float:
    """Fraction in 0–1 of the face's area that is new."""
    if place.seen is not None:
        drawn = place.seen.drawn
    else:
        outline = np.zeros(mask.shape, np.uint8)
        cv2.fillConvexPoly(outline, cv2.convexHull(np.round(place.at).astype(np.int32)), 1)
        drawn = outline > 0
    return float(mask[drawn].sum() / max(1, drawn.sum()))
