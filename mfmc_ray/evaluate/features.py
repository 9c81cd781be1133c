"""Faces as networks that recognise nobody see them, before and after: for the sections `perceptual` and `generative`."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pyarrow as pa

from mfmc_ray.evaluate import networks
from mfmc_ray.evaluate.networks import NETWORKS, FeatureNet, distances
from mfmc_ray.evaluate.pair import CHANGED, REPLACED, Pair
from mfmc_ray.evaluate.sections import FACE_KEY, Note, Row
from mfmc_ray.evaluate.sheets import face_crop
from mfmc_ray.evaluate.surroundings import same_size
from mfmc_ray.faces.faces import Image

VERSION = 1
MARGIN = 0.15
"""Around a face's box, of its longer side."""
_PREFIX = "features-"
_BLUR = 1 / 20  # σ, of the crop's side


def feature_notes() -> Sequence[Note]:
    """A table for each network that can be had."""
    return [
        Note(_PREFIX + name, "mfmc_ray.evaluate.features:FaceFeatures", VERSION, {"network": name}, networks.MODELS[name])
        for name in NETWORKS
        if networks.missing(name) is None
    ]


def table_of(name: str) -> str:
    """What `feature_notes` calls the table of a network."""
    return _PREFIX + name


class FaceFeatures:
    """A row for each face that wears another one, of square crops of the same place in both pictures.

    `distance` (see `networks.distances`) between the two; `blurred` between the original and itself, blurred with a σ of a twentieth of
    the crop's side, as a yardstick; `original` and `output`: the crops as vectors.

    Args:
        network: a name of `networks.NETWORKS`.
    """

    schema = pa.schema(
        [
            *FACE_KEY,
            ("distance", pa.float32()),
            ("blurred", pa.float32()),
            ("original", pa.list_(pa.float32())),
            ("output", pa.list_(pa.float32())),
        ]
    )

    def __init__(self, network: str) -> None:
        self._net: FeatureNet = NETWORKS[network]()

    def collect(self, pair: Pair) -> list[Row]:
        """Of one pair."""
        if pair.output is None:
            return []
        output, rows = same_size(pair.output, pair.original), []
        for i in pair.faces.which((REPLACED, CHANGED)).tolist():  # one at a time: crowds would not fit
            before, after = (self._crop(image, pair, i) for image in (pair.original, output))
            blurred = cv2.GaussianBlur(before, (0, 0), self._net.side * _BLUR)
            one, other, third = (self._net.see(crop[None]) for crop in (before, after, np.asarray(blurred, np.uint8)))
            apart = {"distance": float(distances(one, other)[0]), "blurred": float(distances(one, third)[0])}
            rows.append(pair.key(i) | apart | {"original": one.vectors[0].tolist(), "output": other.vectors[0].tolist()})
        return rows

    def _crop(self, image: Image, pair: Pair, i: int) -> Image:
        return face_crop(image, pair.faces.boxes[i], margin=MARGIN, side=self._net.side)
