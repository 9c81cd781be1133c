"""Drawing a batch of meshes on a device: which triangle each pixel shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mfmc_ray.identities.surface import CHEEKS, FAINT, SEEN, Surface

_HALF = 1 << 15
"""Half a px in fixed point."""
_BITS = 10
"""Of a triangle's number, below its rank in a pixel's key."""


@dataclass(frozen=True)
class Drawn:
    """What each pixel shows.

    Attributes:
        drawn: bool (b, h, w), whether it is a triangle.
        corners: int64 (b, h, w, 3), of that triangle (of any, where there is none).
        weights: float32 (b, h, w, 3), barycentric.
    """

    drawn: Tensor
    corners: Tensor
    weights: Tensor

    def interpolate(self, values: Tensor, fill: float = -1.0) -> Tensor:
        """Per-vertex `values` (b, 468, k) at each pixel: float32 (b, k, h, w)."""
        b, h, w, _ = self.corners.shape
        flat = self.corners.reshape(b, -1)
        at = torch.stack([values[:, :, k].gather(1, flat) for k in range(values.shape[2])], 1).reshape(b, -1, h, w, 3)
        return torch.where(self.drawn[:, None], (at * self.weights[:, None]).sum(4), fill)


class Rasteriser:
    """Draws the meshes of a surface: each pixel shows the nearest triangle by mean depth, as `Surface.rasterise` has it.

    Pixel by pixel as OpenCV fills triangles.

    Args:
        surface: the mesh.
        device: of torch.
    """

    def __init__(self, surface: Surface, device: torch.device) -> None:
        self._surface, self._corners = surface, surface.corners
        self.corners = torch.from_numpy(surface.corners.astype(np.int64)).to(device)
        self._turn = torch.from_numpy(surface.turn).to(device)[:, None]
        self._inner = torch.from_numpy(surface.inner).to(device)
        around: list[list[int]] = [[] for _ in surface.uv]
        for number, three in enumerate(surface.corners):
            for point in three:
                around[point].append(number)
        most = max(len(some) for some in around)
        # a triangle without area fills the lists up
        self._around = torch.tensor([some + [len(surface.corners)] * (most - len(some)) for some in around], device=device)

    def facing(self, meshes: Tensor) -> Tensor:
        """`Surface.facing` of meshes (b, 468, 3): float32 (b, 468). Sums run over lists, so that their order is always the same."""
        a, b, c = (meshes[:, self.corners[:, k]] for k in range(3))
        normal = torch.linalg.cross(b - a, c - a) * self._turn
        normal = torch.cat([normal, torch.zeros_like(normal[:, :1])], 1)
        total = normal[:, self._around].sum(2)
        return total[..., 2] / (torch.linalg.vector_norm(total, dim=2) + 1e-9)

    def front(self, meshes: Tensor) -> Tensor:
        """`Surface.front` of meshes (b, 468, 3): float32 (b, 468)."""
        facing = self.facing(meshes)
        cheeks = torch.stack([facing[:, list(side)].mean(1) for side in CHEEKS], 1)
        beyond = (cheeks.amin(1) / SEEN).clamp(0, 1)
        return torch.maximum(((facing - FAINT) / SEEN).clamp(0, 1), self._inner * beyond[:, None])

    def __call__(self, meshes: NDArray[np.float32], height: NDArray[np.intp], width: NDArray[np.intp], rows: int, columns: int) -> Drawn:
        """Draws meshes (b, 468, 3), px, into windows of `height` and `width` (b,) in the corners of pages of `rows` × `columns`."""
        device = self.corners.device
        corners = np.round(meshes[:, :, :2] * 16).astype(np.int64)[:, self._corners]  # 1/16 px, as OpenCV has them
        order = np.lexsort((-meshes[:, :, 2][:, self._corners].mean(2), self._surface.towards(meshes)))
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.broadcast_to(np.arange(1, order.shape[1] + 1), order.shape), 1)
        keys = (rank << _BITS | np.arange(order.shape[1])).reshape(-1)
        limits = np.repeat(np.column_stack([np.arange(len(meshes)), height, width]), order.shape[1], 0)
        triangles = corners.reshape(-1, 3, 2)
        pages = torch.zeros(len(meshes) * rows * columns, dtype=torch.int64, device=device)
        for of, x, y in (_filled(triangles, limits, device), _outlined(triangles, limits, device)):
            page, high, wide, key = torch.from_numpy(np.column_stack([limits, keys])).to(device)[of].unbind(1)
            seen = (x >= 0) & (y >= 0) & (x < wide) & (y < high)
            pixel = torch.where(seen, (page * rows + y) * columns + x, 0)
            # the nearest, in whatever order they come
            pages.scatter_reduce_(0, pixel, torch.where(seen, key, 0), "amax")
        return self._weighted(torch.from_numpy(meshes[:, :, :2]).to(device), pages.reshape(len(meshes), rows, columns))

    def _weighted(self, points: Tensor, keys: Tensor) -> Drawn:
        batch, rows, columns = keys.shape
        corners = self.corners[keys & ((1 << _BITS) - 1)]
        flat = corners.reshape(batch, -1)
        at = torch.stack([points[:, :, k].gather(1, flat) for k in range(2)]).reshape(2, batch, rows, columns, 3)
        a, b, c = at.unbind(4)
        pixel = torch.stack(
            [
                torch.arange(columns, device=keys.device).expand(rows, -1),
                torch.arange(rows, device=keys.device)[:, None].expand(-1, columns),
            ]
        )[:, None]
        u, v, w = b - a, c - a, pixel - a
        area = u[0] * v[1] - v[0] * u[1]
        area = torch.where(area.abs() < 1e-6, 1e-6, area)
        second = ((w[0] * v[1] - v[0] * w[1]) / area).clamp(-0.5, 1.5)
        third = ((u[0] * w[1] - u[1] * w[0]) / area).clamp(-0.5, 1.5)
        return Drawn(keys > 0, corners, torch.stack([1 - second - third, second, third], 3))


def _outlined(triangles: NDArray[np.int64], limits: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels of the outlines of triangles (t, 3, 2), 1/16 px, in windows (limits (t, 3): page, height, width): triangle, x and y of
    each. What OpenCV's `Line2` draws."""
    start, stop = np.roll(triangles, 1, 1).reshape(-1, 2) << 12, triangles.reshape(-1, 2) << 12  # 1/65536 px from here on
    last = np.repeat((limits[:, [2, 1]] << 16) - 1, 3, 0)
    beyond = ((np.minimum(start, stop) < 0) | (np.maximum(start, stop) > last)).any(1)
    seen = np.ones(len(start), bool)
    start[beyond], stop[beyond], seen[beyond] = _clipped(start[beyond], stop[beyond], last[beyond])
    off = np.abs(stop - start)
    flat = off[:, 0] > off[:, 1]
    major = np.where(flat, 0, 1)[:, None]
    back = np.take_along_axis(stop - start, major, 1) < 0
    start, stop = np.where(back, stop, start), np.where(back, start, stop)
    first, last = np.take_along_axis(start, major, 1)[:, 0], np.take_along_axis(stop, major, 1)[:, 0]
    low, high = np.take_along_axis(start, 1 - major, 1)[:, 0], np.take_along_axis(stop, 1 - major, 1)[:, 0]
    step = _quotient((high - low) << 16, (last - first) | 1)
    count = np.where(seen, ((last - first) >> 16) + 2, 0)  # and the last point, which the steps may miss
    ends = np.cumsum(count)
    table = np.column_stack(
        [ends - count, ends - 1, (first + _HALF) >> 16, low + _HALF, step, (last + _HALF) >> 16, (high + _HALF) >> 16, flat]
    )
    of = torch.repeat_interleave(torch.from_numpy(count).to(device), output_size=int(ends[-1]))
    begin, end, first_px, low_at, step_at, last_px, high_px, lying = torch.from_numpy(table).to(device)[of].unbind(1)
    number = torch.arange(len(of), device=device)
    along = torch.where(number == end, last_px, first_px + number - begin)
    across = torch.where(number == end, high_px, (low_at + (number - begin) * step_at) >> 16)
    lies = lying > 0
    return torch.div(of, 3, rounding_mode="floor"), torch.where(lies, along, across), torch.where(lies, across, along)


def _clipped(
    start: NDArray[np.int64], stop: NDArray[np.int64], last: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Lines (n, 2) cut off at 0 and `last` (n, 2), first above and below, and whether anything is left: what OpenCV's `clipLine` does
    (Cohen and Sutherland's codes), its rounding included."""

    def outside(points: NDArray[np.int64], axis: int) -> NDArray[np.int64]:
        return np.where(points[:, axis] < 0, 1, np.where(points[:, axis] > last[:, axis], 2, 0))

    ends = [start.copy(), stop.copy()]
    apart = ((outside(start, 0) & outside(stop, 0)) | (outside(start, 1) & outside(stop, 1))) > 0
    for axis in (1, 0):
        for end in ends:
            code = outside(end, axis)
            cut = (code > 0) & ~apart
            to = np.where(code == 1, 0, last[:, axis])
            run, rise = (ends[1] - ends[0])[:, axis], (ends[1] - ends[0])[:, 1 - axis]
            moved = (to - end[:, axis]) * rise
            end[cut, 1 - axis] += _quotient(moved[cut] * np.sign(run[cut]), np.abs(run[cut]))
            end[cut, axis] = to[cut]
        apart |= (outside(ends[0], 0) & outside(ends[1], 0)) > 0
    return ends[0], ends[1], ~apart


def _filled(triangles: NDArray[np.int64], limits: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels inside of triangles (t, 3, 2), 1/16 px, in windows (limits (t, 3): page, height, width): triangle, x and y of each.

    As OpenCV's `FillConvexPoly` scans them: row by row from the topmost corner down, along one chain of edges on each side.
    """
    turn = np.argmin(triangles[:, :, 1], 1)[:, None] + np.arange(3)
    triangles = np.take_along_axis(triangles, turn[:, :, None] % 3, 1)
    x, y = triangles[:, :, 0] << 12, (triangles[:, :, 1] + 8) >> 4
    top = np.maximum(y[:, 0], 0)
    count = np.maximum(np.minimum(y.max(1), limits[:, 1]) - top, 0)
    chains = [_segment(x, y, a, b) for a, b in ((0, 1), (1, 2), (0, 2), (2, 1))]
    ends = np.cumsum(count)
    table = np.column_stack([top - (ends - count), y[:, 1], y[:, 2], *chains, limits[:, 2] - 1])
    of = torch.repeat_interleave(torch.from_numpy(count).to(device), output_size=int(ends[-1]))
    first, turn_a, turn_b, *segments, last = torch.from_numpy(table).to(device)[of].unbind(1)
    row = torch.arange(len(of), device=device) + first
    a, b = (
        torch.where(row < at, x0 + (row - y0) * dx0, x1 + (row - y1) * dx1)
        for at, (x0, y0, dx0, x1, y1, dx1) in ((turn_a, segments[:6]), (turn_b, segments[6:]))
    )
    left = ((torch.minimum(a, b) + _HALF) >> 16).clamp(min=0)
    right = torch.minimum((torch.maximum(a, b) + _HALF) >> 16, last)
    wide = (right - left + 1).clamp(min=0)
    line = torch.repeat_interleave(wide)
    start = torch.cumsum(wide, 0) - wide
    return of[line], left[line] + torch.arange(len(line), device=device) - start[line], row[line]


def _segment(x: NDArray[np.int64], y: NDArray[np.int64], a: int, b: int) -> NDArray[np.int64]:
    """(t, 3): where the edge from corner a to b is at its first row, that row, and how far it moves a row; 1/65536 px."""
    rows = np.maximum(y[:, b] - y[:, a], 1)
    return np.column_stack([x[:, a], y[:, a], _quotient(2 * (x[:, b] - x[:, a]) + rows, 2 * rows)])


def _quotient(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """a / b for positive b, rounded towards 0 as in C."""
    return np.asarray(np.sign(a) * (np.abs(a) // b), np.int64)
