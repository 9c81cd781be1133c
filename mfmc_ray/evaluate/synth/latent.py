"""Which way of the portrait generator's styles makes a face older, darker, turned or smiling."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources

import numpy as np

from mfmc_ray.faces.faces import F32

_ROUNDS, _STEP = 4, 0.7


class Latent:
    """Linear readings of styles and directions in them, made by `tools/build_directions.py` from 700 generated portraits.

    Names and units: `man` (logit of the probability that a man is seen), `age` (years), `tone` (ITA in degrees), `yaw`, `pitch` (degrees),
    `smile`, `mouth`, `eyes` (as `faces.mesh`), `glasses`, `beard` (as their readers), and brightness in 0–255: `bright`
    (background), `side` (the cheek on the image's left less the other), `hair`.
    """

    def __init__(self) -> None:
        with (
            resources.files("mfmc_ray.evaluate.synth").joinpath("directions.npz").open("rb") as file,
            np.load(file, allow_pickle=False) as arrays,
        ):
            self.names = tuple(str(name) for name in arrays["names"])
            self._mean, self._spread, self._middle, self._reading, self._ways = (
                np.asarray(arrays[name], np.float32) for name in ("mean", "spread", "middle", "reading", "ways")
            )

    def read(self, style: F32) -> dict[str, float]:
        """What a style (1, 512) will look like, about: name → value."""
        values = self._mean + self._spread * ((style[0] - self._middle) @ self._reading)
        return {name: float(value) for name, value in zip(self.names, values, strict=True)}

    def spread(self, name: str) -> float:
        """The standard deviation of a value between portraits."""
        return float(self._spread[self.names.index(name)])

    def moved(self, style: F32, by: Mapping[str, float]) -> F32:
        """A style (1, 512) moved so that some things change, and others as little as can be.

        Args:
            style: float32 (1, 512).
            by: name → how far, in standard deviations between portraits.
        """
        way = np.array([by.get(name, 0.0) for name in self.names], np.float32)
        return np.asarray(style + way @ self._ways, np.float32)

    def towards(self, style: F32, wanted: Mapping[str, float]) -> F32:
        """A style (1, 512) moved until it reads as wanted: name → value. What comes out is near it, not there."""
        for _ in range(_ROUNDS):
            seen = self.read(style)
            off = {name: _STEP * (value - seen[name]) / self.spread(name) for name, value in wanted.items()}
            style = self.moved(style, off)
        return style
