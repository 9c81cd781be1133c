"""Warps and resizes of batches, with OpenCV's conventions: a pixel's centre is at integers, (0, 0) is that of the first one.

OpenCV 5 samples at exact coordinates in float32, as torch does. OpenCV 4 rounded them to 1/32 px.

Pages are float32 (b, c, h, w). Items of a batch may be smaller than the page that holds them; what follows says what is read then.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def sample(pages: Tensor, x: Tensor, y: Tensor, *, cubic: bool = False, replicate: bool = True) -> Tensor:
    """Reads pages at coordinates, as `cv2.remap` with INTER_LINEAR or INTER_CUBIC.

    Args:
        pages: (b, c, h, w).
        x, y: float32 (b, rows, columns), px.
        cubic: by a bicubic polynomial (a = −0.75) instead of a bilinear one.
        replicate: beyond the page its border goes on (BORDER_REPLICATE), else it is 0 (BORDER_CONSTANT).

    Returns:
        float32 (b, c, rows, columns).
    """
    height, width = pages.shape[2:]
    at = torch.stack([x * (2 / max(width - 1, 1)) - 1, y * (2 / max(height - 1, 1)) - 1], -1)
    mode, beyond = "bicubic" if cubic else "bilinear", "border" if replicate else "zeros"
    return functional.grid_sample(pages, at, mode=mode, padding_mode=beyond, align_corners=True)


def affine(pages: Tensor, matrices: Tensor, rows: int, columns: int, *, cubic: bool = False, replicate: bool = False) -> Tensor:
    """As `cv2.warpAffine` with WARP_INVERSE_MAP.

    Args:
        pages: (b, c, h, w).
        matrices: float64 (b, 2, 3), px of the result → px of the page.
        rows, columns: of the result.
        cubic, replicate: as of `sample`.

    Returns:
        float32 (b, c, rows, columns).
    """
    down, across = (torch.arange(n, device=pages.device, dtype=torch.float64) for n in (rows, columns))
    m = matrices.to(torch.float64)[:, :, :, None, None]
    x, y = (m[:, k, 0] * across + m[:, k, 1] * down[:, None] + m[:, k, 2] for k in range(2))
    return sample(pages, x.float(), y.float(), cubic=cubic, replicate=replicate)


def linear_rows(old: Tensor, new: Tensor, columns: int, rows: int) -> Tensor:
    """Matrices that resize along one axis as `cv2.resize` with INTER_LINEAR.

    Args:
        old, new: int (b,), pixels there are and pixels that come out.
        columns, rows: of the matrices: the most of each; what is beyond an item's is 0.

    Returns:
        float32 (b, rows, columns).
    """
    ratio = (old / new)[:, None]
    at = ((torch.arange(rows, device=old.device) + 0.5) * ratio - 0.5).clamp(min=0)
    at = torch.minimum(at, (old - 1)[:, None].to(at.dtype))
    weight = (1 - (at[:, :, None] - torch.arange(columns, device=old.device)).abs()).clamp(min=0)
    return weight * _within(new, rows)[:, :, None]


def area_rows(old: Tensor, new: Tensor, columns: int, rows: int) -> Tensor:
    """As `linear_rows`, with INTER_AREA; `new` ≤ `old`."""
    ratio = (old / new)[:, None, None]
    row, column = torch.arange(rows, device=old.device)[:, None], torch.arange(columns, device=old.device)
    low, high = row * ratio, (row + 1) * ratio
    share = (torch.minimum(high, column + 1.0) - torch.maximum(low, column.float())).clamp(min=0)
    inside = (column < old[:, None, None]) & (row < new[:, None, None])
    return share * inside / ratio


def apply(rows: Tensor, pages: Tensor, columns: Tensor) -> Tensor:
    """One matrix (b, m, h) along the height of pages (b, c, h, w), another (b, n, w) along their width: (b, c, m, n)."""
    return rows[:, None] @ pages @ columns[:, None].transpose(2, 3)


def window(pages: Tensor, y: Tensor, x: Tensor, height: Tensor, width: Tensor, rows: int, columns: int) -> Tensor:
    """Cuts a window out of each page; what is beyond it repeats its last row and column.

    Args:
        pages: (b, c, h, w).
        y, x, height, width: int (b,), px, of each window.
        rows, columns: of the result.

    Returns:
        (b, c, rows, columns).
    """
    down = y[:, None] + torch.minimum(torch.arange(rows, device=y.device), height[:, None] - 1)
    across = x[:, None] + torch.minimum(torch.arange(columns, device=x.device), width[:, None] - 1)
    b, c = pages.shape[:2]
    pages = pages.gather(2, down[:, None, :, None].expand(b, c, rows, pages.shape[3]))
    return pages.gather(3, across[:, None, None].expand(b, c, rows, columns))


def _within(count: Tensor, size: int) -> Tensor:
    """bool (b, size): the first `count` (b,) of each."""
    return torch.arange(size, device=count.device) < count[:, None]
