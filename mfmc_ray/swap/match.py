"""Fitting an identity's detail to the photo it is drawn into: its colour, contrast, sharpness, grain and the darkness of the brows."""

from __future__ import annotations

import cv2
import numpy as np

from mfmc_ray.identities.surface import F32, alike

COLOURFUL = 1.1
"""How much more colour than the photo's an identity's detail may have."""
CONTRAST_GAIN = (0.45, 1.2)
"""How far detail may be made fainter or stronger."""
CONTRAST_FOLLOW = 0.5
"""How far its contrast follows the photo's: 0 not at all, 1 fully."""
STRONGEST = 0.6
"""Detail (natural logarithm of light) beyond this is no contrast of a face, but hair over it or an engraver's line."""
BROW_GAIN = (0.3, 1.3)
"""How far brows may be made fainter or stronger."""
BROW_FOLLOW = 0.7
"""How far their darkness follows the photo's: 0 not at all, 1 fully. It is one of the things that people are known by."""
LEAST_GRAIN = 0.004
"""Missing grain (standard deviation of logarithmic light) that is not worth drawing."""
MOST_GRAIN = 0.05
"""Grain that is drawn at most."""
GRAIN_SIGMAS = (0.55, 0.8)
"""σ of the blur that makes noise grain, px: in faces less than 250 px wide, and in others."""
SHARPER = 1.1
"""How much more fine structure than the photo has detail may have: a blurred face is half the original's."""
SOFTER = (0.6, 0.9, 1.3, 1.8, 2.5, 3.5, 5.0, 7.0)
"""σ of the blurs, px, by which detail is made softer."""
SPECKS = 0.006, 1.0
"""σ of the blur before structure is compared, in face widths, and at most, px: noise and the blocks of JPEG make a blurred photo no
sharper."""
COARSE = 64
"""Smooth fields (low-pass, shading, warp) are computed with the face at most this many px wide."""
SHADES = 0.03
"""σ of the blur that leaves shading, in face widths."""
SHADED = (2.2, 3.0)
"""How far shading may go to the light and to the dark, softly, in root mean squares of the photo's on that side."""
LEAST_SHADE = 0.03
"""Shading (natural logarithm of light) that every face may have."""
EVEN = 0.8
"""How much of the photo's contrast bare skin may have: fakes mostly have three quarters of it, and those with as much as the photo look
harshly lit."""
GRAINY = (40.0, 120.0)
"""Widths of faces, px, up to which they show no grain, and from which all of it: in small ones eyes and mouth are as fine as grain, and
what seemed to be some became freckles."""


def luma(values: F32) -> F32:
    """The mean of three channels: float32 (h, w). Much faster than `mean(2)`."""
    return np.asarray(cv2.transform(values, np.full((1, 3), 1 / 3, np.float32)), np.float32)


def median(values: F32) -> F32:
    """The median along the last axis (…, n), as of `np.median`, which also looks for what is no number."""
    half = values.shape[-1] // 2
    parted = np.partition(values, half, -1)
    upper = parted[..., half]
    return np.asarray(upper if values.shape[-1] % 2 else (parted[..., :half].max(-1) + upper) / 2, np.float32)


def spread(grey: F32, weight: F32) -> float:
    """The standard deviation of values inside weights, both (h, w); the weights' sum is above 0."""
    total = float(weight.sum())
    return float(np.sqrt((((grey - (grey * weight).sum() / total) ** 2) * weight).sum() / total))


def as_colourful_as(detail: F32, original: F32, mask: F32) -> F32:
    """`detail` (h, w, 3) with its colours toned down to those of the photo's `original` detail, inside the weights (h, w).

    A black-and-white photo has none, a tinted or faded one few.
    """
    total = float(mask.sum())
    if total < 10:
        return detail
    grey = alike(luma(detail))
    colours = detail - grey

    def strength(colours: F32) -> float:
        return float(np.sqrt((mask.reshape(-1) @ (colours * colours).reshape(-1, 3)).sum() / total))

    gain = strength(original - alike(luma(original))) / max(strength(colours), 1e-6)
    return np.asarray(grey + min(1.0, COLOURFUL * gain) * colours, np.float32)


def contrast_gain(detail: F32, original: F32, mask: F32) -> float:
    """The factor that brings the contrast of `detail` (h, w, 3) nearer that of `original`, inside the weights (h, w).

    A washed-out photo has a washed-out face, one under hard light a strong one. It is one number that is taken from the photo.
    """
    if mask.sum() < 10:
        return 1.0
    ratio = spread(luma(np.clip(original, -STRONGEST, STRONGEST)), mask) / max(spread(luma(detail), mask), 1e-6)
    return float(np.clip(ratio**CONTRAST_FOLLOW, *CONTRAST_GAIN))


def brow_gain(detail: F32, original: F32, brows: F32) -> float:
    """The factor that brings the darkness of the brows of `detail` (h, w, 3) nearer that of `original`, inside the weights (h, w).

    Black brows on a fair head look painted on. Only their mean darkness is taken from the photo, nothing of their shape.
    """

    def dark(values: F32) -> float:
        return float((np.maximum(-luma(values), 0) * brows).sum())

    return float(np.clip((dark(original) / max(dark(detail), 1e-6)) ** BROW_FOLLOW, *BROW_GAIN)) if brows.sum() >= 8 else 1.0


def as_shaded_as(detail: F32, original: F32, skin: F32, width: float) -> F32:
    """`detail` (h, w, 3) of a face `width` px wide with highlights and shadows held within about those of the photo's `original` detail on
    its skin (weights h, w), and fainter where they would be more than `EVEN` of its contrast.

    A shine that goes with dark skin looks painted on a pale one, deep folds do in flat light: in an overexposed photo the skin is even,
    however dark the eyes and brows are that `contrast_gain` goes by. Three numbers are taken from the photo.
    """
    step = max(1.0, width / COARSE)
    size = max(1, round(detail.shape[1] / step)), max(1, round(detail.shape[0] / step))
    weight = np.asarray(cv2.resize(skin, size, interpolation=cv2.INTER_AREA), np.float32)
    total = float(weight.sum())
    if total < 10:
        return detail

    photo, fake = (np.asarray(cv2.resize(luma(values), size, interpolation=cv2.INTER_AREA), np.float32) for values in (original, detail))
    had, has = (np.asarray(cv2.GaussianBlur(small, (0, 0), SHADES * width / step), np.float32) for small in (photo, fake))
    had = np.clip(had, -STRONGEST, STRONGEST)
    light, dark = (
        most * float(np.sqrt((np.maximum(side * had, 0) ** 2 * weight).sum() / total)) + LEAST_SHADE
        for most, side in zip(SHADED, (1, -1), strict=True)
    )
    held = np.where(has > 0, light * np.tanh(has / light), dark * np.tanh(has / dark))
    change = (held - has).astype(np.float32)
    gain = even_gain(fake + change, photo, weight)
    change = np.asarray(cv2.resize(change, detail.shape[1::-1], interpolation=cv2.INTER_LINEAR), np.float32)
    held_back = detail + alike(change * skin)
    return held_back * alike(1 + (gain - 1) * skin) if gain < 1 else held_back


def even_gain(fake: F32, photo: F32, weight: F32) -> float:
    """The factor, at most 1, that leaves a fake no more than `EVEN` of the photo's contrast inside the weights, all (h, w).

    `LEAST_SHADE` it may have in any case: on skin of one flat colour a face without any would have no nose.
    """
    had, has = (spread(np.clip(values, -STRONGEST, STRONGEST), weight) for values in (photo, fake))
    return min(1.0, max(EVEN * had, LEAST_SHADE) / max(has, 1e-6))


def specks(width: float) -> float:
    """σ in px of the blur that takes noise out of a face `width` px wide before its sharpness is measured; at least 0.1."""
    return max(0.1, min(SPECKS[0] * width, SPECKS[1]))


def as_sharp_as(detail: F32, light: F32, zone: F32, width: float) -> F32:
    """`detail` (h, w, 3) blurred until it has little more fine structure in `zone` (h, w) than the picture's own logarithmic `light`."""
    total = float(zone.sum())
    if total < 10:
        return detail

    def strength(grey: F32, sigma: float) -> float:
        soft = np.asarray(cv2.GaussianBlur(grey, (0, 0), float(np.hypot(specks(width), sigma))), np.float32)
        return float((np.abs(_curvature_of(soft)) * zone).sum()) / total

    wanted, grey = SHARPER * strength(luma(light), 0.0), luma(detail)
    sigma = next((sigma for sigma in (0.0, *SOFTER[:-1]) if strength(grey, sigma) <= wanted), SOFTER[-1])
    return np.asarray(cv2.GaussianBlur(detail, (0, 0), sigma), np.float32) if sigma else detail


def grain_share(width: float) -> float:
    """What part of a photo's grain a face `width` px wide is given, 0–1."""
    return min(1.0, max(0.0, (width - GRAINY[0]) / (GRAINY[1] - GRAINY[0])))


def grain(detail: F32, light: F32, skin: F32, width: float, seed: int) -> F32:
    """`detail` (h, w, 3) with noise added where the picture's logarithmic `light` has more grain and pores on its `skin` (weights h, w).

    Measured as the median absolute curvature, which wrinkles and edges hardly change. The textures hold a face about 200 px wide: without
    this a larger one would look like wax.
    """
    some = skin > 0.5
    if grain_share(width) <= 0 or some.sum() < 200:
        return detail
    rows, columns = np.flatnonzero(some.any(1)), np.flatnonzero(some.any(0))
    window = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    inside, shape = np.flatnonzero(some[window]), some[window].shape

    def strength(values: F32) -> float:
        return float(median(np.abs(np.take(values, inside)))) / 0.6745

    noise = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), GRAIN_SIGMAS[0] if width < 250 else GRAIN_SIGMAS[1]), np.float32)
    noise /= noise.std() + 1e-9
    had, has = strength(_curvature(light[window])), strength(_curvature(detail[window]))
    missing = grain_share(width) * np.sqrt(max(had**2 - has**2, 0.0)) / strength(_curvature_of(noise))
    if missing < LEAST_GRAIN:
        return detail
    grainy = detail.copy()
    grainy[window] += alike(min(missing, MOST_GRAIN) * noise)
    return grainy


def _curvature(values: F32) -> F32:
    return _curvature_of(luma(values))


def _curvature_of(values: F32) -> F32:
    return np.asarray(cv2.Laplacian(values, cv2.CV_32F, ksize=1), np.float32)
