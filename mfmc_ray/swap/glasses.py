"""Whether a face wears glasses, read off the eyes' band of its texture square."""

from __future__ import annotations

import importlib.resources

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.feature import hog

ROWS, COLUMNS = slice(26, 66), slice(6, 122)
"""The eyes' band on a texture square of 128 texels."""


def gradients(texture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Histograms of oriented gradients (Dalal & Triggs 2005) of the eyes' band of a texture uint8 (128, 128, 3) RGB: float32 (d,)."""
    light = np.log(cv2.cvtColor(np.ascontiguousarray(texture[ROWS, COLUMNS]), cv2.COLOR_RGB2GRAY).astype(np.float32) + 16)
    return np.asarray(hog(light, orientations=8, pixels_per_cell=(4, 4), cells_per_block=(2, 2)), np.float32)


class GlassesReader:
    """A logistic regression on `gradients`, which `tools/build_glasses.py` fits to glasses drawn on faces of people who do not exist."""

    def __init__(self) -> None:
        with (
            importlib.resources.files("mfmc_ray.swap").joinpath("glasses.npz").open("rb") as file,
            np.load(file, allow_pickle=False) as arrays,
        ):
            self._weights, self._offset = arrays["weights"].astype(np.float32), float(arrays["offset"])

    def __call__(self, texture: NDArray[np.uint8]) -> float:
        """The log-odds that a face with this texture, uint8 (128, 128, 3) RGB, wears glasses."""
        return float(gradients(texture) @ self._weights) + self._offset
