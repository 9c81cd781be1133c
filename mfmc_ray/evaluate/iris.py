"""Where the irises are in the eyes: as near to the direction of a gaze as a photo's pixels say."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter

from mfmc_ray.faces import runtime
from mfmc_ray.faces.faces import F32, Pixels
from mfmc_ray.faces.store import model_path

_SIDE, _MARGIN = 64, 2.3
"""px of the network's input, which is 2.3 times as wide as the eye."""
_EYES = ((33, 133, False), (362, 263, True))
"""Mesh points of the corners, from the image's left to its right, and whether the eye is mirrored for the network."""


class IrisLook:
    """MediaPipe Iris (Ablavatski et al., "Real-time Pupil Tracking from Monocular Video for Digital Puppetry", 2020)."""

    def __init__(self) -> None:
        self._net = Interpreter(str(model_path("iris")), num_threads=runtime.threads())
        self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]["index"]
        self._iris = next(o["index"] for o in self._net.get_output_details() if o["shape"][-1] == 15)

    def gaze(self, image: Pixels, meshes: F32) -> F32:
        """Where the irises' middles are, from the middle between the corners of the eye, in widths of the eye; the mean of both eyes.

        It is no angle: the head's pose is in it, and so is that the mesh follows the lids.

        Args:
            image: upright RGB.
            meshes: float32 (n, 468, 3), px.

        Returns:
            float32 (n, 2): to the image's right and down, of the face turned upright; NaN where an eye has no extent.
        """
        found = np.full((len(meshes), 2), np.nan, np.float32)
        for i, mesh in enumerate(meshes):
            found[i] = np.mean([self._eye(image, mesh, *eye) for eye in _EYES], axis=0)
        return found

    def _eye(self, image: Pixels, mesh: F32, start: int, end: int, mirrored: bool) -> F32:
        corners = mesh[[start, end], :2].astype(np.float64)
        across = corners[1] - corners[0]
        width = float(np.hypot(*across))
        if width < 1:
            return np.full(2, np.nan, np.float32)
        scale = _SIDE / (_MARGIN * width)
        cos, sin = across / width * scale
        turn = np.array([[cos, sin], [-sin, cos]])
        if mirrored:
            turn[0] *= -1
        pixels: Any = image
        matrix: Any = np.column_stack([turn, (_SIDE - 1) / 2 - turn @ corners.mean(0)])
        square: Any = cv2.warpAffine(pixels, matrix, (_SIDE, _SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        self._net.set_tensor(self._input, (square / np.float32(255))[None])
        self._net.invoke()
        x, y = self._net.get_tensor(self._iris).reshape(5, 3)[0, :2] - _SIDE / 2
        return np.array([-x if mirrored else x, y], np.float32) / (scale * width)
