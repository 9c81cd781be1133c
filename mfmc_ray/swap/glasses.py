"""Whether a face wears glasses, read off the eyes' band of its texture square, each half of the face for itself."""

from __future__ import annotations

import importlib.resources

import cv2
import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

ROWS, COLUMNS = slice(26, 66), slice(6, 74)
"""The eyes' band of one half, with the bridge of the nose, on a texture square of 128 texels."""
_CELL, _TURNS = 4, 8
"""Side in texels of a cell, and directions of edges, undirected."""
_FAINT = 1e-5
_LOOKED_AT = slice(30, 60), slice(20, 60)
"""Rows and columns that must be seen for one half to tell."""
_LEAST_SEEN, _ENOUGH_SEEN = 0.5, 0.85
"""Shares of these up to which a half hardly counts, and from which fully."""
_LOG = np.log(np.arange(256, dtype=np.float32) + 16)
_ROW, _COLUMN = np.mgrid[: ROWS.stop - ROWS.start, : COLUMNS.stop - COLUMNS.start] // _CELL
_CELLS = ((_ROW * (_COLUMN.max() + 1) + _COLUMN) * _TURNS).ravel()
"""For each texel of the band where its cell's histogram starts."""


def gradients(texture: NDArray[np.uint8]) -> F32:
    """Histograms of oriented gradients (Dalal & Triggs 2005) of the eyes' bands of a texture uint8 (128, 128, 3) RGB: float32 (2, d), of
    its left half and of the mirrored right one.

    They are those of `skimage.feature.hog`, in a tenth of its time.
    """
    return np.stack([_of_band(texture), _of_band(texture[:, ::-1])])


def _of_band(texture: NDArray[np.uint8]) -> F32:
    light = _LOG[cv2.cvtColor(np.ascontiguousarray(texture[ROWS, COLUMNS]), cv2.COLOR_RGB2GRAY)]
    across, down = np.zeros(light.shape), np.zeros(light.shape)  # float64, as there: of a diagonal the last digit decides
    across[:, 1:-1], down[1:-1] = light[:, 2:] - light[:, :-2], light[2:] - light[:-2]
    turn = (np.degrees(np.arctan2(down, across)) % 180 * (_TURNS / 180)).astype(np.intp) % _TURNS
    count = int(_CELLS[-1]) + _TURNS
    cells = np.bincount(_CELLS + turn.ravel(), np.hypot(across, down).ravel() / _CELL**2, count)
    cells = cells.reshape(light.shape[0] // _CELL, -1, _TURNS)
    blocks = np.lib.stride_tricks.sliding_window_view(cells, (2, 2), (0, 1)).transpose(0, 1, 3, 4, 2).reshape(-1, 4 * _TURNS)
    blocks = np.minimum(blocks / np.sqrt((blocks**2).sum(1, keepdims=True) + _FAINT**2), 0.2)
    return np.asarray(blocks / np.sqrt((blocks**2).sum(1, keepdims=True) + _FAINT**2), np.float32).ravel()


def weights_of(seen: NDArray[np.bool_]) -> F32:
    """How much each half of a face counts, float32 (2,), whose sum is 1; `seen` (128, 128): what of it can be seen."""
    shares = np.array([seen[_LOOKED_AT].mean(), seen[:, ::-1][_LOOKED_AT].mean()], np.float32)
    counts = np.clip((shares - _LEAST_SEEN) / (_ENOUGH_SEEN - _LEAST_SEEN), 0.02, 1)
    return np.asarray(counts / counts.sum(), np.float32)


class GlassesReader:
    """A logistic regression on `gradients`, which `tools/build_glasses.py` fits to glasses worn in photos, and drawn on bare faces."""

    def __init__(self) -> None:
        with (
            importlib.resources.files("mfmc_ray.swap").joinpath("glasses.npz").open("rb") as file,
            np.load(file, allow_pickle=False) as arrays,
        ):
            self._weights, self._offset = arrays["weights"].astype(np.float32), float(arrays["offset"])

    def __call__(self, texture: NDArray[np.uint8], seen: NDArray[np.bool_] | None = None) -> float:
        """The log-odds that a face wears glasses.

        Args:
            texture: uint8 (128, 128, 3) RGB.
            seen: bool (128, 128), which texels face the viewer and lie in the picture; None: all.
        """
        halves = gradients(texture) @ self._weights + self._offset
        return float(halves.mean() if seen is None else weights_of(seen) @ halves)
