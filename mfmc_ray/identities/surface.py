"""The surface all faces share: 468 mesh points, their triangles, and a texture square they unroll to.

A point of the square is a texel; u runs to the image's right, v down, both in texels of a `size`-texel side.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Bool = NDArray[np.bool_]

# FaceMesh's rings of landmarks, each in order around the opening.
INNER_LIPS = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
IMAGE_LEFT_EYE = (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7)
IMAGE_RIGHT_EYE = (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249)
_MIDDLE = (0.1, 0.16)
"""Up to which distance from the middle line, in sides of the texture, a point is on nose or lips, and from which not at all."""
CHEEKS = ((50, 205, 101), (280, 425, 330))
"""Points of each cheek."""
FAINT, SEEN = 0.05, 0.3
"""What a point faces the viewer by at which it is drawn no longer, and how much more than that until it is drawn fully."""


def alike(page: F32, channels: int = 3) -> F32:
    """A page (h, w) as each of some channels: (h, w, channels). OpenCV makes it, and numpy goes on, faster than with `page[:, :, None]`."""
    return np.asarray(cv2.merge([page] * channels), np.float32)


def read(page: NDArray[Any], at: F32) -> NDArray[Any]:
    """A page (height, width) or (height, width, c) at points (h, w, 2) px, its border's repeated beyond it: (h, w) or (h, w, c)."""
    return cv2.remap(page, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def shrunk(page: F32, size: int) -> F32:
    """A square page (s, s, …) of float32 averaged down to (size, size, …)."""
    return page if page.shape[0] == size else np.asarray(cv2.resize(page, (size, size), interpolation=cv2.INTER_AREA), np.float32)


def rigid(source: F32, target: F32) -> F32:
    """The rotation (3, 3) that turns centred `source` (n, 3) onto centred `target` in the least-squares sense: source @ R ≈ target.

    Kabsch 1976, "A solution for the best rotation to relate two sets of vectors".
    """
    a, b = source - source.mean(0), target - target.mean(0)
    u, _, vt = np.linalg.svd(a.T @ b)
    flip = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    return np.asarray(u @ flip @ vt, np.float32)


@dataclass(frozen=True)
class Placed:
    """A mesh taken apart: shape in the shared frame, and where it stands in the picture. mesh = shape @ rotation.T · scale + centre.

    Attributes:
        shape: float32 (468, 3), unit root-mean-square radius, facing the viewer.
        rotation: float32 (3, 3).
        scale: px a unit.
        centre: float32 (3,), px.
    """

    shape: F32
    rotation: F32
    scale: float
    centre: F32

    def mesh(self, shape: F32) -> F32:
        """Another shape (468, 3) put where this one stands: (468, 3) in px."""
        return np.asarray(shape @ self.rotation.T * self.scale + self.centre, np.float32)


def place(mesh: F32, mean: F32) -> Placed:
    """Takes a mesh (468, 3) in px apart by its best similarity to the mean shape."""
    centre = mesh.mean(0)
    centred = mesh - centre
    scale = float(np.sqrt((centred**2).sum(1).mean()))
    rotation = rigid(centred / scale, mean)
    return Placed(np.asarray(centred / scale @ rotation, np.float32), rotation, scale, np.asarray(centre, np.float32))


@dataclass(frozen=True)
class Raster:
    """Which triangle each pixel of a window shows, nearest on top.

    Attributes:
        rows, columns: int (p,), the covered pixels.
        triangles: int (p,), each one's triangle.
        weights: float32 (p, 3), its barycentric weights.
    """

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    triangles: NDArray[np.intp]
    weights: F32

    def interpolate(self, values: F32, corners: NDArray[np.intp], shape: tuple[int, int], fill: float = -1.0) -> F32:
        """Per-vertex `values` (468, k) at each pixel of a window: float32 (height, width, k)."""
        image = np.full((values.shape[1], *shape), fill, np.float32)
        at = self.rows * shape[1] + self.columns
        # channel by channel, from the few triangles: numpy gathers numbers much faster than rows of them
        for channel, value in zip(image, values.T, strict=True):
            first, second, third = (
                weight * np.take(corner, self.triangles) for weight, corner in zip(self.weights.T, value[corners].T, strict=True)
            )
            channel.reshape(-1)[at] = first + second + third
        return np.asarray(cv2.merge(list(image)), np.float32).reshape(*shape, -1)


@dataclass(frozen=True)
class Surface:
    """Attributes:
    mean: float32 (468, 3), the mean shape.
    uv: float32 (468, 2), each point's texel.
    corners: int (t, 3), triangles; those of the open mouth are left out.
    size: side of the texture in texels.
    """

    mean: F32
    uv: F32
    corners: NDArray[np.intp]
    size: int

    def rasterise(self, points: F32, depth: F32, shape: tuple[int, int]) -> Raster:
        """Draws the triangles with corners `points` (468, 2) px, farthest first, into a window of `shape` (height, width).

        Those that are seen from behind come before all others: on edge they would be lines on what is behind them.
        """
        ids = np.zeros(shape, np.int32)
        order = np.lexsort((-depth[self.corners].mean(1), self.towards(points)))
        fixed = np.round(points * 16).astype(np.int32)[self.corners[order]]
        for number, corners in zip((order + 1).tolist(), fixed, strict=True):
            cv2.fillConvexPoly(ids, corners, number, cv2.LINE_8, 4)
        covered = np.flatnonzero(ids)
        rows, columns = np.divmod(covered, shape[1])
        triangles = ids.reshape(-1)[covered].astype(np.intp) - 1
        a, b, c = (points[self.corners[:, k]].T for k in range(3))
        u, v = b - a, c - a
        area = u[0] * v[1] - v[0] * u[1]
        area[np.abs(area) < 1e-6] = 1e-6
        ax, ay, ux, uy, vx, vy, area = np.take(np.stack([*a, *u, *v, area]), triangles, 1)
        x, y = columns - ax, rows - ay
        # a pixel's centre may lie a little outside the triangle that covers it
        second = np.clip((x * vy - vx * y) / area, -0.5, 1.5)
        third = np.clip((ux * y - uy * x) / area, -0.5, 1.5)
        weights = np.stack([1 - second - third, second, third], 1, dtype=np.float32, casting="same_kind")
        return Raster(rows, columns, triangles, weights)

    @cached_property
    def _places(self) -> NDArray[np.intp]:
        """intp (3, 3 t): where the coordinates of the first, second and third corner of each triangle are among 3 × 468 numbers."""
        return np.asarray((self.corners.T[:, :, None] * 3 + np.arange(3)).reshape(3, -1), np.intp)

    @cached_property
    def turn(self) -> F32:
        """float32 (t,), ±1: which way round the corners of each triangle go on the texture square."""
        return np.asarray(np.sign(self._areas(self.uv)), np.float32)

    def towards(self, points: F32) -> Bool:
        """bool (…, t): whether each triangle is seen from its front, with corners at `points` (…, 468, 2 or 3) px."""
        return np.asarray(self._areas(points) * self.turn > 0, np.bool_)

    def _areas(self, points: F32) -> F32:
        """Twice the area of each triangle, with its sign: float32 (…, t)."""
        a, b, c = (points[..., self.corners[:, k], :2] for k in range(3))
        u, v = b - a, c - a
        return np.asarray(u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0], np.float32)

    @cached_property
    def mirror(self) -> NDArray[np.intp]:
        """intp (468,): each point's counterpart on the other half of the face."""
        flipped = self.mean * np.array((-1, 1, 1), np.float32)
        return np.asarray(((flipped[:, None] - self.mean) ** 2).sum(-1).argmin(1), np.intp)

    @cached_property
    def texels(self) -> Raster:
        """The texture square's own raster."""
        return self.rasterise(self.uv, np.zeros(len(self.uv), np.float32), (self.size, self.size))

    @cached_property
    def inside(self) -> Bool:
        """Bool (size, size): texels on the face."""
        mask = np.zeros((self.size, self.size), bool)
        mask[self.texels.rows, self.texels.columns] = True
        return mask

    def unwrap(self, image: NDArray[Any], mesh: F32, size: int | None = None) -> NDArray[Any]:
        """A photo's texture: its pixels (height, width, channels) at each texel, (size, size, channels) in the image's dtype.

        `size` < `self.size` reads a coarser texture.
        """
        at = self.texels.interpolate(mesh[:, :2], self.corners, (self.size, self.size))
        if size is not None and size != self.size:
            at = np.asarray(cv2.resize(at, (size, size), interpolation=cv2.INTER_NEAREST), np.float32)
        shrink = float(np.ptp(mesh[:, 0])) / at.shape[0]
        if shrink > 1.3:
            x0, y0 = np.maximum(np.floor(mesh[:, :2].min(0)).astype(int) - 4, 0)
            x1, y1 = np.ceil(mesh[:, :2].max(0)).astype(int) + 5
            image = cv2.GaussianBlur(image[y0:y1, x0:x1], (0, 0), 0.4 * shrink)
            at = at - np.array([x0, y0], np.float32)
        return read(image, at)

    def facing(self, mesh: F32) -> F32:
        """float32 (468,): cosine between each point's normal and the line of sight, −1…1; 1 faces the viewer.

        Normals come from the mesh as it stands in the picture, area-weighted over the triangles around a point.
        """
        a, b, c = (mesh[self.corners[:, k]] for k in range(3))
        (ux, uy, uz), (vx, vy, vz) = (b - a).T, (c - a).T
        # all triangles are wound alike on the texture square; make that "towards the viewer"
        normal = np.stack([uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx], 1) * self.turn[:, None]
        total = np.zeros_like(mesh)
        for places in self._places:  # numpy adds up plain lists of numbers much faster than rows
            np.add.at(total.reshape(-1), places, normal.reshape(-1))
        return np.asarray(total[:, 2] / (np.linalg.norm(total, axis=1) + 1e-9), np.float32)

    def front(self, mesh: F32) -> F32:
        """float32 (468,), 0–1: how far each point of a face is to be drawn, by its `facing`.

        Where the far side is foreshortened the mesh no longer tells where the face ends. What is foreshortened in the middle of it, the
        sides of the nose or the lips, is drawn all the same, as long as the far cheek is to be seen: behind it is the face.
        """
        facing = self.facing(mesh)
        beyond = float(np.clip(min(facing[list(side)].mean() for side in CHEEKS) / SEEN, 0, 1))
        return np.asarray(np.maximum(np.clip((facing - FAINT) / SEEN, 0, 1), self.inner * beyond), np.float32)

    @cached_property
    def inner(self) -> F32:
        """float32 (468,), 0–1: how near each point is to the face's middle line, where nose and lips are."""
        off = np.abs(self.uv[:, 0] - (self.size - 1) / 2) / self.size
        return np.asarray(np.clip((_MIDDLE[1] - off) / (_MIDDLE[1] - _MIDDLE[0]), 0, 1), np.float32)


def unroll(mean: F32, size: int, margin: float = 4.0) -> Surface:
    """The surface of a mean shape (468, 3): unrolled on a cylinder behind the face, triangulated once (Delaunay)."""
    x, y, z = mean.T
    # the axis lies well behind the head, so that the front gets most of the texels
    uv = np.stack([np.arctan2(x, 3.0 - z), y], 1)
    low, high = uv.min(0), uv.max(0)
    uv = ((uv - low) / (high - low) * (size - 2 * margin - 1) + margin).astype(np.float32)
    subdivision = cv2.Subdiv2D((0, 0, size, size))
    for u, v in uv:
        subdivision.insert((float(u), float(v)))
    corners = []
    for six in subdivision.getTriangleList():
        found = [int(np.argmin(((uv - six[2 * k : 2 * k + 2]) ** 2).sum(1))) for k in range(3)]
        distance = [float(np.abs(uv[i] - six[2 * k : 2 * k + 2]).max()) for k, i in enumerate(found)]
        if len(set(found)) == 3 and max(distance) < 0.01 and not set(found) <= set(INNER_LIPS):
            corners.append(sorted(found))
    return Surface(mean, uv, np.unique(np.array(corners, np.intp), axis=0), size)
