"""Where the irises are in the eyes: as near to the direction of a gaze as a photo's pixels say."""

from __future__ import annotations

import numpy as np

from mfmc_ray.faces.faces import F32, Pixels
from mfmc_ray.faces.lids import EYES, EyeLook


class IrisLook:
    """What `EyeLook` sees of irises."""

    def __init__(self) -> None:
        self._look = EyeLook()

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
            looks = [self._look(image, mesh, eye) for eye in EYES]
            found[i] = np.mean([np.full(2, np.nan) if look is None else look[1] for look in looks], axis=0)
        return found
