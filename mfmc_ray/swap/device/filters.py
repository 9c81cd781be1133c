"""Filters of batches, with OpenCV's conventions. Items may be smaller than the page that holds them: each has its own border.

Pages are float32 (b, c, h, w). `Span` says where in them an item lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Span:
    """Where items lie in their pages.

    Attributes:
        top, bottom, left, right: int64 (b,), the first and the last row and column.
    """

    top: Tensor
    bottom: Tensor
    left: Tensor
    right: Tensor

    @classmethod
    def of(cls, height: Tensor, width: Tensor) -> Span:
        """Items in the upper left corner."""
        return cls(torch.zeros_like(height), height - 1, torch.zeros_like(width), width - 1)

    def inside(self, rows: int, columns: int) -> Tensor:
        """bool (b, rows, columns)."""
        y, x = torch.arange(rows, device=self.top.device), torch.arange(columns, device=self.top.device)
        down = (y >= self.top[:, None]) & (y <= self.bottom[:, None])
        across = (x >= self.left[:, None]) & (x <= self.right[:, None])
        return down[:, :, None] & across[:, None]


def radius_of(sigma: float) -> int:
    """How far `cv2.GaussianBlur` reaches on float pictures whose kernel size is left to it, px."""
    return (round(sigma * 8 + 1) | 1) // 2


def kernels(sigmas: Sequence[float], device: torch.device) -> Tensor:
    """Gaussian kernels float32 (n, k) as `cv2.getGaussianKernel` has them, the shorter ones between zeros; of σ 0 one that changes
    nothing."""
    most = max(radius_of(sigma) if sigma else 0 for sigma in sigmas)
    table = np.zeros((len(sigmas), 2 * most + 1))
    for row, sigma in zip(table, sigmas, strict=True):
        reach = radius_of(sigma) if sigma else 0
        at = np.arange(-reach, reach + 1)
        weight = np.exp(-0.5 * (at / sigma) ** 2) if sigma else np.ones(1)
        row[most - reach : most + reach + 1] = weight / weight.sum()
    return torch.from_numpy(table.astype(np.float32)).to(device)


def blur(pages: Tensor, kernel: Tensor, span: Span) -> Tensor:
    """Convolves each item with its kernel, along both axes, as `cv2.sepFilter2D` with BORDER_REFLECT_101.

    A sum over the taps: every item has its own kernel, and a convolution by cuDNN may round to 10 bits (TF32).

    Args:
        pages: (b, c, h, w).
        kernel: (b, k), symmetric.
        span: where the items lie; beyond it nothing of the result counts.

    Returns:
        As `pages`.
    """
    taps = kernel[:, :, None, None, None]
    for axis, low, high in ((2, span.top, span.bottom), (3, span.left, span.right)):
        wide, size = _reflected(pages, axis, low, high, kernel.shape[1] // 2), pages.shape[axis]
        pages = wide.narrow(axis, 0, size) * taps[:, 0]
        for k in range(1, kernel.shape[1]):
            pages.addcmul_(wide.narrow(axis, k, size), taps[:, k])
    return pages


def gauss_rows(counts: Sequence[int], sigmas: Sequence[float], size: int, device: torch.device) -> Tensor:
    """Matrices that blur along one axis, with BORDER_REFLECT_101: for kernels as wide as the picture.

    Args:
        counts: pixels of each item.
        sigmas: as many, px.
        size: of the matrices.

    Returns:
        float32 (b, size, size); beyond an item's pixels 0.
    """
    reach = [radius_of(sigma) for sigma in sigmas]
    total = [float(np.exp(-0.5 * (np.arange(-r, r + 1) / sigma) ** 2).sum()) for r, sigma in zip(reach, sigmas, strict=True)]
    count, far = (torch.tensor(v, device=device)[:, None, None] for v in (list(counts), reach))
    spread, scale = (torch.tensor(v, dtype=torch.float32, device=device)[:, None, None] for v in (list(sigmas), total))
    period = (2 * (count - 1)).clamp(min=1)
    row = torch.arange(size, device=device)
    inside = (row < count) & (row[:, None] < count)
    twice = (row != 0) & (row != count - 1)  # the two ends are their own mirror images
    matrix = torch.zeros(len(reach), size, size, device=device)
    turns = max(r // max(2 * (n - 1), 1) + 1 for r, n in zip(reach, counts, strict=True))
    for turn in range(-turns, turns + 1):
        for image, counted in ((row + turn * period, inside), (turn * period - row, inside & twice)):
            off = row[:, None] - image
            weight = torch.exp(-0.5 * (off / spread) ** 2) / scale
            matrix += weight * (counted & (off.abs() <= far))
    return matrix


def laplacian(pages: Tensor, span: Span) -> Tensor:
    """As `cv2.Laplacian` with ksize 1: the four neighbours less four times the pixel, BORDER_REFLECT_101. As `pages`."""
    total = -4 * pages
    for axis, low, high in ((2, span.top, span.bottom), (3, span.left, span.right)):
        wide, size = _reflected(pages, axis, low, high, 1), pages.shape[axis]
        total += wide.narrow(axis, 0, size) + wide.narrow(axis, 2, size)
    return total


def median(values: Tensor, some: Tensor) -> Tensor:
    """The median (as of `np.median`) of each row's values (b, n) where `some` (b, n) is true: (b,), NaN where it nowhere is."""
    values = values.masked_fill(~some, torch.nan)
    # torch's is the lower of the two in the middle
    return (values.nanmedian(1).values - (-values).nanmedian(1).values) / 2


def _reflected(pages: Tensor, axis: int, low: Tensor, high: Tensor, by: int) -> Tensor:
    """Pages with `by` more px at both ends of an axis, each item's own pixels mirrored at its borders."""
    to = _mirrored(torch.arange(-by, pages.shape[axis] + by, device=pages.device).expand(1, -1), low, high)[:, 0]
    shape = list(pages.shape)
    shape[axis] = to.shape[1]
    to = to[:, None, :, None] if axis == 2 else to[:, None, None, :]
    return pages.gather(axis, to.expand(shape))


def _mirrored(at: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Where BORDER_REFLECT_101 sends positions `at` (…, n) that leave low … high (b,): int64 (b, …, n), always inside."""
    low, high = low[:, None, None], high[:, None, None]
    period = (2 * (high - low)).clamp(min=1)
    off = (at - low) % period
    return low + torch.minimum(torch.minimum(off, period - off), high - low)
