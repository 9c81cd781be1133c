"""What faces are commonly hidden with: the ends between which a swap is to be judged. None of them knows an identity.

Strengths are relative to the face, so that a large face is hidden as well as a small one.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np

from mfmc_ray.config import ConfigError
from mfmc_ray.faces.faces import F32, Image
from mfmc_ray.swap.redact import cover_of, redact

BLUR = 0.1
"""σ of the blur, in sides of the box."""
BLOCKS = 10
"""Of the mosaic, along a side of what is covered."""
VERSION = 1

Apply = Callable[[Image, F32], None]
"""Changes a picture (uint8 h×w×3 RGB) in place where its faces are (boxes float32 (n, 4), px)."""


@dataclass(frozen=True)
class Baseline:
    """One of them.

    Attributes:
        name: of `--methods`.
        title: in tables and plots.
        make: builds it.
    """

    name: str
    title: str
    make: Callable[[], Apply]


def nothing(image: Image, boxes: F32) -> None:
    """Leaves the picture as it is: what everything costs in privacy that is not done."""


def blur(image: Image, boxes: F32) -> None:
    """Gaussian blur."""
    for box, window in _windows(image, boxes):
        sigma = max(1.0, BLUR * float(np.sqrt(np.prod(np.maximum(box[2:] - box[:2], 1)))))
        window[:] = cv2.GaussianBlur(window, (0, 0), sigma)


def pixelate(image: Image, boxes: F32) -> None:
    """A mosaic."""
    for _, window in _windows(image, boxes):
        height, width = window.shape[:2]
        shrink = max(height, width) / BLOCKS
        small = cv2.resize(window, (max(1, round(width / shrink)), max(1, round(height / shrink))), interpolation=cv2.INTER_AREA)
        window[:] = cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)


def cover(image: Image, boxes: F32) -> None:
    """An opaque box, as redacted faces have it."""
    for box in boxes:
        redact(image, cover_of(box, image.shape))


def deface() -> Apply:
    """ORB-HD's deface (`pip install deface`) with its defaults, an elliptic blur; but with our boxes instead of its own detector's.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        anonymize: Any = importlib.import_module("deface.deface").anonymize_frame
    except (ImportError, AttributeError) as error:
        raise ConfigError("deface is not installed: pip install deface, or leave it out of --methods") from error

    def apply(image: Image, boxes: F32) -> None:
        found = np.concatenate([boxes, np.ones((len(boxes), 1), np.float32)], 1)
        anonymize(found, image, mask_scale=1.3, replacewith="blur", ellipse=True, draw_scores=False, replaceimg=None, mosaicsize=20)

    return apply


BASELINES: Mapping[str, Baseline] = MappingProxyType(
    {
        one.name: one
        for one in (
            Baseline("noop", "nothing done", lambda: nothing),
            Baseline("blur", "Gaussian blur", lambda: blur),
            Baseline("pixelate", "mosaic", lambda: pixelate),
            Baseline("box", "opaque box", lambda: cover),
            Baseline("deface", "deface", deface),
        )
    }
)


def _windows(image: Image, boxes: F32) -> list[tuple[F32, Image]]:
    """Each box, and what of the picture a cover of it would hide."""
    found = []
    for box in boxes:
        x0, y0, x1, y1 = cover_of(box, image.shape)
        found.append((box, image[y0:y1, x0:x1]))
    return found
