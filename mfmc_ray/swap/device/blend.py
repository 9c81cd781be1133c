"""Fitting drawn faces to the photos they go into, in batches: light, colour, sharpness, grain; and putting them in.

`swap.match` on a device, and what pasting a network's crops needs. Light is the natural logarithm of 0–255 + `TONE_FLOOR`. Pages are
float32 (b, c, h, w), weights (b, h, w); a weight is 0 outside of an item.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from mfmc_ray.swap.device import filters
from mfmc_ray.swap.device.filters import Span
from mfmc_ray.swap.device.warp import affine, apply, area_rows
from mfmc_ray.swap.match import (
    BROW_FOLLOW,
    BROW_GAIN,
    COLOURFUL,
    CONTRAST_FOLLOW,
    CONTRAST_GAIN,
    EVEN,
    GRAIN_SIGMAS,
    LEAST_GRAIN,
    LEAST_SHADE,
    MOST_GRAIN,
    SHADED,
    SHARPER,
    SOFTER,
    STRONGEST,
    grain_share,
    specks,
)

TONE_FLOOR = 16.0
"""As of `swap.render`."""


def light_of(pixels: Tensor) -> Tensor:
    """Of pixels 0–255."""
    return torch.log(pixels + TONE_FLOOR)


def luma(pages: Tensor) -> Tensor:
    """The mean of three channels: (b, 1, h, w)."""
    return pages.mean(1, keepdim=True)


def toned(light: Tensor, wanted: Tensor, weight: Tensor, contrast: tuple[float, float]) -> Tensor:
    """`light` with the tone and contrast that the light `wanted` has inside the weights (Reinhard et al., "Color transfer between images",
    2001).

    Args:
        light, wanted: (b, 3, h, w).
        weight: (b, h, w); items with a sum below 10 stay.
        contrast: how far contrast may be changed.
    """
    total = weight.sum((1, 2))
    least = total.clamp(min=1e-6)

    def usual(values: Tensor) -> Tensor:
        return ((values * weight[:, None]).sum((2, 3)) / least[:, None])[:, :, None, None]

    def spread(values: Tensor, middle: Tensor) -> Tensor:
        return torch.sqrt((luma(values - middle)[:, 0] ** 2 * weight).sum((1, 2)) / least)

    middle, goal = usual(light), usual(wanted)
    gain = (spread(wanted, goal) / spread(light, middle).clamp(min=1e-6)).clamp(*contrast)
    return torch.where(_each(total >= 10), (light - middle) * _each(gain) + goal, light)


def as_colourful_as(detail: Tensor, original: Tensor, mask: Tensor) -> Tensor:
    """`match.as_colourful_as`: colours toned down to those of the photo's `original` detail."""
    total = mask.sum((1, 2))

    def colour(values: Tensor, middle: Tensor) -> Tensor:
        return torch.sqrt((((values - middle) ** 2).sum(1) * mask).sum((1, 2)) / total.clamp(min=1e-6))

    grey = luma(detail)
    gain = colour(original, luma(original)) / colour(detail, grey).clamp(min=1e-6)
    return torch.where(_each(total >= 10), grey + _each((COLOURFUL * gain).clamp(max=1)) * (detail - grey), detail)


def contrast_gain(detail: Tensor, original: Tensor, mask: Tensor) -> Tensor:
    """`match.contrast_gain`, (b,)."""
    had, has = (spread(luma(values)[:, 0], mask) for values in (original.clamp(-STRONGEST, STRONGEST), detail))
    gain = (had / has.clamp(min=1e-6)) ** CONTRAST_FOLLOW
    return torch.where(mask.sum((1, 2)) >= 10, gain.clamp(*CONTRAST_GAIN), 1.0)


def spread(grey: Tensor, weight: Tensor) -> Tensor:
    """`match.spread`, (b,), of values (b, h, w); 0 where the weights are."""
    least = weight.sum((1, 2)).clamp(min=1e-6)
    middle = (grey * weight).sum((1, 2)) / least
    return torch.sqrt(((grey - middle[:, None, None]) ** 2 * weight).sum((1, 2)) / least)


def brow_gain(detail: Tensor, original: Tensor, brows: Tensor) -> Tensor:
    """`match.brow_gain`, (b,)."""

    def dark(values: Tensor) -> Tensor:
        return (luma(values)[:, 0].neg().clamp(min=0) * brows).sum((1, 2))

    gain = (dark(original) / dark(detail).clamp(min=1e-6)) ** BROW_FOLLOW
    return torch.where(brows.sum((1, 2)) >= 8, gain.clamp(*BROW_GAIN), 1.0)


def shade_change(has: Tensor, had: Tensor, weight: Tensor) -> Tensor:
    """What `match.as_shaded_as` adds to the shading `has` of a detail beside the photo's `had`, all (b, 1, g, g)."""
    total = weight.sum((1, 2, 3), keepdim=True)
    had = had.clamp(-STRONGEST, STRONGEST)
    light, dark = (
        most * torch.sqrt(((side * had).clamp(min=0) ** 2 * weight).sum((1, 2, 3), keepdim=True) / total.clamp(min=1e-6)) + LEAST_SHADE
        for most, side in zip(SHADED, (1, -1), strict=True)
    )
    held = torch.where(has > 0, light * torch.tanh(has / light), dark * torch.tanh(has / dark))
    return torch.where(total >= 10, held - has, 0.0)


def even_gain(fake: Tensor, photo: Tensor, weight: Tensor) -> Tensor:
    """`match.even_gain`, (b,), of values (b, g, g); 1 where `match.as_shaded_as` has nothing to go by."""
    had, has = (spread(values.clamp(-STRONGEST, STRONGEST), weight) for values in (photo, fake))
    gain = ((EVEN * had).clamp(min=LEAST_SHADE) / has.clamp(min=1e-6)).clamp(max=1)
    return torch.where(weight.sum((1, 2)) >= 10, gain, 1.0)


def as_sharp_as(detail: Tensor, light: Tensor, zone: Tensor, span: Span, widths: Sequence[float]) -> Tensor:
    """`match.as_sharp_as`: blurred, each item by the first of `SOFTER` that leaves no more fine structure than the photo has."""
    total = zone.sum((1, 2))

    def strength(grey: Tensor, sigma: float) -> Tensor:
        kernel = filters.kernels([float(np.hypot(specks(width), sigma)) for width in widths], detail.device)
        curved = filters.laplacian(filters.blur(grey, kernel, span), span)
        return (curved[:, 0].abs() * zone).sum((1, 2)) / total.clamp(min=1e-6)

    wanted, grey = SHARPER * strength(luma(light), 0.0), luma(detail)
    good = torch.stack([strength(grey, sigma) <= wanted for sigma in (0.0, *SOFTER[:-1])])
    # the first that is good; the last one, if none is
    first = torch.where(good.any(0), good.int().argmax(0), len(SOFTER))
    first = torch.where(total >= 10, first, 0)
    return filters.blur(detail, filters.kernels((0.0, *SOFTER), detail.device)[first], span)


def grain(detail: Tensor, light: Tensor, skin: Tensor, widths: Sequence[float], noise: Callable[[int], Tensor]) -> Tensor:
    """`match.grain`: noise where the photo's skin has more grain than the detail.

    Args:
        detail, light: (b, 3, h, w).
        skin: (b, h, w).
        widths: of the faces, px.
        noise: number of values → (b, number), standard normal, each row its identity's.
    """
    rows, columns = detail.shape[2:]
    some = skin > 0.5
    down, across = some.any(2).int(), some.any(1).int()
    span = Span(down.argmax(1), rows - 1 - down.flip(1).argmax(1), across.argmax(1), columns - 1 - across.flip(1).argmax(1))
    y, x = torch.arange(rows, device=detail.device), torch.arange(columns, device=detail.device)
    # the values run row by row through the window that holds the skin
    wide = (span.right - span.left + 1)[:, None, None]
    at = (y[:, None] - span.top[:, None, None]) * wide + x - span.left[:, None, None]
    window = span.inside(rows, columns)
    page = noise(rows * columns).gather(1, torch.where(window, at, 0).reshape(len(at), -1)).reshape(at.shape)[:, None]
    sigmas = [GRAIN_SIGMAS[0] if width < 250 else GRAIN_SIGMAS[1] for width in widths]
    page = filters.blur(page, filters.kernels(sigmas, detail.device), span) * window[:, None]
    count = window.sum((1, 2))
    mean = page.sum((1, 2, 3)) / count
    spread = torch.sqrt((((page - _each(mean)) ** 2) * window[:, None]).sum((1, 2, 3)) / count)
    page = page / (_each(spread) + 1e-9)

    def strength(values: Tensor) -> Tensor:
        curved = filters.laplacian(values, span)[:, 0].abs()
        return filters.median(curved.flatten(1), some.flatten(1)) / 0.6745

    had, has = strength(luma(light)), strength(luma(detail))
    shares = torch.tensor([grain_share(width) for width in widths], device=detail.device)
    missing = shares * torch.sqrt((had**2 - has**2).clamp(min=0)) / strength(page)
    wanted = (missing >= LEAST_GRAIN) & (some.sum((1, 2)) >= 200)
    return detail + torch.where(_each(wanted) & window[:, None], _each(missing.clamp(max=MOST_GRAIN)) * page, 0.0)


def mixed(window: Tensor, fake: Tensor, mask: Tensor) -> Tensor:
    """`fake` over a window, both 0–255, inside the mask: uint8 (b, 3, h, w)."""
    return (window + (fake - window) * mask[:, None] + 0.5).clamp(0, 255).to(torch.uint8)


def placed(pages: Tensor, matrices: np.ndarray, rows: int, columns: int, *, replicate: bool = True) -> Tensor:
    """Square crops as they lie in windows of their pictures: averaged where they shrink, by cubics where they grow.

    Args:
        pages: (b, c, k, k), crops; all are placed at about the same scale, or by one call each.
        matrices: float64 (b, 2, 3), px of the window → px of the crop.
        rows, columns: of the windows.
        replicate: beyond a crop its border goes on, else it is 0.

    Returns:
        float32 (b, c, rows, columns).
    """
    side = pages.shape[3]
    factor = float(np.median(np.sqrt(np.abs(np.linalg.det(matrices[:, :, :2])))))  # px of the crop for one of the window
    small = max(1, round(side / factor)) if factor > 1.25 else side
    if small < side:
        shrink = area_rows(torch.tensor([side], device=pages.device), torch.tensor([small], device=pages.device), side, small)
        pages = apply(shrink, pages, shrink)
    ratio = small / side
    scaled = matrices.astype(np.float64) * ratio
    scaled[:, :, 2] = (matrices[:, :, 2] + 0.5) * ratio - 0.5
    cubic = factor < 0.8 and pages.shape[1] > 1
    return affine(pages, torch.from_numpy(scaled).to(pages.device), rows, columns, cubic=cubic, replicate=replicate)


def paste_back(windows: Tensor, crops: Tensor, matrices: np.ndarray, masks: Tensor) -> Tensor:
    """Crops put back into windows of their pictures.

    Args:
        windows: (b, 3, h, w), 0–255.
        crops: (b, 3, k, k), 0–255.
        matrices: float64 (b, 2, 3), px of the window → px of the crop.
        masks: (b, k, k), 0–1, in the crop; beyond it nothing is changed.

    Returns:
        uint8 (b, 3, h, w).
    """
    rows, columns = windows.shape[2:]
    fake = placed(crops, matrices, rows, columns)
    mask = placed(masks[:, None], matrices, rows, columns, replicate=False)[:, 0]
    return mixed(windows, fake, mask)


def _each(values: Tensor) -> Tensor:
    return values[:, None, None, None]
