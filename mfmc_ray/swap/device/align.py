"""Aligned crops of many faces at once: `faces.align` on a device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mfmc_ray.faces.align import ARCFACE_TEMPLATE, SHARP_SHRINK, TEMPLATE_SIZE, region_of, scaled, similarity
from mfmc_ray.faces.faces import F32, Image, Pixels
from mfmc_ray.swap.device.plan import padded
from mfmc_ray.swap.device.warp import affine, apply, area_rows

PIXELS = 1 << 22
"""Of pictures' regions that are warped together, at most."""


def align_crops(images: Sequence[Pixels], points: F32, device: str, template: F32 = ARCFACE_TEMPLATE, size: int = TEMPLATE_SIZE) -> Image:
    """Aligned faces, one of each picture (or of a region of it), as `faces.align.chips` cuts them.

    Args:
        images: n pictures, uint8 (h, w, 3) each; a picture with several faces is given several times.
        points: float32 (n, 5, 2), or any other number of points, px of each picture.
        device: of torch.
        template: where the points go in a crop of the template's own size, px.
        size: side of a crop, px; the template grows with it.

    Returns:
        uint8 (n, size, size, 3), RGB.
    """
    return warp_crops(images, similarity(points, scaled(template, size / TEMPLATE_SIZE)), size, device)


def warp_crops(images: Sequence[Pixels], matrices: F32, size: int, device: str) -> Image:
    """Square crops through similarity transforms, one of each picture, as `faces.align.warp` cuts them.

    Args:
        images: n pictures, uint8 (h, w, 3) each.
        matrices: (n, 2, 3), picture px → crop px.
        size: side of the crops, px.
        device: of torch.

    Returns:
        uint8 (n, size, size, 3); what lies outside a picture is black.
    """
    crops = np.zeros((len(images), size, size, 3), np.uint8)
    groups: dict[int, list[tuple[int, Image]]] = {}
    placed = matrices.astype(np.float64)
    for number, (image, matrix) in enumerate(zip(images, placed, strict=True)):
        x0, y0, x1, y1 = region_of(matrix, size, image.shape)
        if x0 < x1 and y0 < y1:
            matrix[:, 2] += matrix[:, :2] @ (x0, y0)
            groups.setdefault(padded(max(x1 - x0, y1 - y0)), []).append((number, np.asarray(image[y0:y1, x0:x1])))
    with torch.inference_mode():
        for side, some in groups.items():
            most = max(1, PIXELS // side**2)
            for start in range(0, len(some), most):
                numbers, regions = zip(*some[start : start + most], strict=True)
                crops[list(numbers)] = _warped(regions, placed[list(numbers)], side, size, torch.device(device))
    return crops


def _warped(regions: Sequence[Image], matrices: NDArray[np.float64], side: int, size: int, device: torch.device) -> Image:
    """Crops of regions that fit into pages of `side` px."""
    pages = np.zeros((len(regions), side, side, 3), np.uint8)
    old = np.array([some.shape[:2] for some in regions])
    fewer = old.copy()
    backward = np.empty_like(matrices)
    for page, some, matrix, inverse, less in zip(pages, regions, matrices, backward, fewer, strict=True):
        high, wide = some.shape[:2]
        page[:high, :wide] = some
        linear, shift = matrix[:, :2], matrix[:, 2]
        shrink = 1 / np.sqrt(abs(np.linalg.det(linear)))
        small = (wide, high) if shrink <= SHARP_SHRINK else (max(1, round(wide / shrink)), max(1, round(high / shrink)))
        ratio = np.array([wide, high]) / small
        shift = shift + linear @ ((ratio - 1) / 2)
        linear = np.linalg.inv(linear * ratio)
        inverse[:] = np.column_stack([linear, -linear @ shift])
        less[:] = small[1], small[0]
    values = torch.from_numpy(pages).to(device).permute(0, 3, 1, 2).float()
    if (fewer < old).any():
        rows, columns = (
            area_rows(torch.from_numpy(old[:, k]).to(device), torch.from_numpy(fewer[:, k]).to(device), side, side) for k in range(2)
        )
        values = apply(rows, values, columns).round()
    crops = affine(values, torch.from_numpy(backward).to(device), size, size)
    return np.asarray(crops.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy())
