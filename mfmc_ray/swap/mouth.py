"""Whether something lies before a face's mouth — a mask, a scarf, a hand, food — read off its texture square."""

from __future__ import annotations

import importlib.resources

import cv2
import numpy as np
from numpy.typing import NDArray

from mfmc_ray.swap.match import median

F32 = NDArray[np.float32]

SIDE = 128
"""Of the texture square, texels."""
CELL = 8
"""Side in texels of the cells that features are of."""
_WIDTH = 64
"""Texels across of half a face."""
_TOP, _MOUTH_TOP = 16, 56
"""The first rows of texels, of 128, whose colours and whose edges are looked at."""
_TURNS = 8
"""Directions of edges, undirected."""
_FAINT = 0.02
"""Edges as faint as this, natural logarithm of light, count little."""
_SKIN = np.s_[18:46, 52:76]
"""Rows and columns where forehead and bridge of the nose are: what the rest is compared with."""
_LOOKED_AT = np.s_[70:116, 20:64]
"""Rows and columns that must be seen for one half to tell."""
_LEAST_SEEN = 0.55
"""Share of these from which a half counts."""
_BRIGHT_RED_GREEN = np.array([[1 / 3, 1 / 3, 1 / 3], [1, -1, 0], [0, 1, -1]], np.float32)
_LOG = np.log(np.arange(256, dtype=np.float32) + 16)
_ROW, _COLUMN = np.mgrid[: SIDE - _MOUTH_TOP + CELL, :SIDE] // CELL
_CELLS = ((_ROW * (SIDE // CELL) + _COLUMN) * _TURNS).ravel()
"""For each texel from a cell above `_MOUTH_TOP` on, where its cell's histogram starts."""


def features(texture: NDArray[np.uint8]) -> F32:
    """What a mouth is told by: float32 (2, d), of the left half of a texture uint8 (128, 128, 3) RGB and of the mirrored right one.

    Histograms of oriented gradients of the lower part (after Dalal & Triggs 2005), how strong its edges are, and colours and lightness
    compared with the forehead's and the nose bridge's.
    """
    light = np.asarray(cv2.LUT(texture, _LOG), np.float32)
    skin = median(light[_SKIN].reshape(-1, 3).T.copy())
    colours = cv2.transform(light, _BRIGHT_RED_GREEN) - _BRIGHT_RED_GREEN @ skin
    tone = np.clip(cv2.resize(colours, (SIDE // CELL, SIDE // CELL), interpolation=cv2.INTER_AREA)[_TOP // CELL :], -1.5, 1.5)

    grey = cv2.GaussianBlur(cv2.transform(light[_MOUTH_TOP - CELL :], _BRIGHT_RED_GREEN[:1]), (0, 0), 0.7)
    across, down = (cv2.Sobel(grey, cv2.CV_32F, x, 1 - x, scale=0.125) for x in (1, 0))
    strength, angle = cv2.cartToPolar(across, down)
    turn = angle.ravel() * np.float32(_TURNS / np.pi)
    low = turn.astype(np.intp)
    strength = strength.ravel() / CELL**2
    upper = strength * (turn - low)
    count = len(_CELLS) // CELL**2 * _TURNS
    first = np.bincount(_CELLS + low % _TURNS, strength - upper, count)
    cells = (first + np.bincount(_CELLS + (low + 1) % _TURNS, upper, count)).astype(np.float32).reshape(-1, SIDE // CELL, _TURNS)
    energy = cv2.blur((cells * cells).sum(2), (3, 3), borderType=cv2.BORDER_REPLICATE)
    edges = (cells / np.sqrt(energy + (_FAINT / 4) ** 2)[:, :, None])[1:]
    force = np.log(cells.sum(2) + 0.002)[1:]
    mirror = -np.arange(_TURNS) % _TURNS
    half = slice(0, _WIDTH // CELL)
    own = [*(_BRIGHT_RED_GREEN @ skin), float(np.abs(colours[::4, ::4, 1]).mean())]
    rows = []
    for t, e, f in ((tone, edges, force), (tone[:, ::-1], edges[:, ::-1][:, :, mirror], force[:, ::-1])):
        rows.append(np.concatenate([t[:, half].ravel(), e[:, half].ravel(), f[:, half].ravel(), own]))
    return np.asarray(rows, np.float32)


def weights_of(seen: NDArray[np.bool_]) -> F32:
    """How much each half of a face counts, float32 (2,), whose sum is 1; `seen` (128, 128): what of it can be seen."""
    shares = np.array([seen[_LOOKED_AT].mean(), seen[:, ::-1][_LOOKED_AT].mean()], np.float32)
    counts = np.clip((shares - _LEAST_SEEN) / 0.3, 0.02, 1)
    return np.asarray(counts / counts.sum(), np.float32)


class MouthReader:
    """A small network on `features`, which `tools/build_mouth.py` fits."""

    def __init__(self) -> None:
        with (
            importlib.resources.files("mfmc_ray.swap").joinpath("mouth.npz").open("rb") as file,
            np.load(file, allow_pickle=False) as arrays,
        ):
            self._hidden, self._hidden_offset, self._out, self._offset = (
                arrays[name].astype(np.float32) for name in ("hidden", "hidden_offset", "out", "offset")
            )

    def __call__(self, texture: NDArray[np.uint8], seen: NDArray[np.bool_]) -> float:
        """The log-odds that something covers the mouth of a face.

        Args:
            texture: uint8 (128, 128, 3) RGB.
            seen: bool (128, 128), which texels face the viewer and lie in the picture.
        """
        inner = np.maximum(features(texture) @ self._hidden + self._hidden_offset, 0)
        return float(weights_of(seen) @ (inner @ self._out + self._offset))
