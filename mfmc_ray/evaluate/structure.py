"""The section `structure`: how much of the pixels is as it was, inside faces and outside: SSIM, PSNR, sharpness, colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mfmc_ray.evaluate.columns import image_rows, means, means_by_group, of_faces, of_images, replaced, values
from mfmc_ray.evaluate.pair import CHANGED, REPLACED, Pair
from mfmc_ray.evaluate.sections import FACE_KEY, About, Note, Options, Row
from mfmc_ray.evaluate.surroundings import outside, pixels, same_size
from mfmc_ray.faces.faces import F32, Image

VERSION = 1
EQUAL = 100.0
"""dB that equal pixels are given, whose PSNR is infinite."""
VISIBLE = 8
"""Levels of 255 from which a pixel is taken for visibly changed; JPEG's noise is mostly less."""
FACE_NUMBERS = ("ssim", "psnr", "sharpness", "colour")
OUTSIDE_NUMBERS = ("ssim", "psnr", "changed", "visibly_changed", "colour")
METHOD = (
    "inside: the boxes of replaced faces of at least 32 px; outside: further from every face's box, whatever became of it, than a quarter "
    "of its longer side. Outputs of another size are scaled to the original's first"
)


def notes(options: Options) -> Sequence[Note]:
    """Two tables: faces, and what is outside of them."""
    return [Note(f"structure-{name.lower()}", f"mfmc_ray.evaluate.structure:{name}", VERSION) for name in ("Inside", "Outside")]


class Inside:
    """A row for each face that wears another one.

    `ssim` −1…1, `psnr` dB, `sharpness`: variance of the Laplacian, after / before, of the box without its outer
    tenth, where a covered face's edge would count as sharp; `colour`: mean ΔE*ab of 1976.
    """

    schema = pa.schema([*FACE_KEY, *((name, pa.float32()) for name in FACE_NUMBERS)])

    def collect(self, pair: Pair) -> list[Row]:
        """Of one pair."""
        rows = pair.faces.which((REPLACED, CHANGED))
        if pair.output is None or not len(rows):
            return []
        output = same_size(pair.output, pair.original)
        found = []
        for i in rows.tolist():
            x0, y0, x1, y1 = pixels(pair.faces.boxes[i], 0, *pair.original.shape[:2])
            if min(x1 - x0, y1 - y0) >= _WINDOW:
                before, after = pair.original[y0:y1, x0:x1], output[y0:y1, x0:x1]
                numbers = {"ssim": float(ssim(before, after).mean()), "psnr": psnr(before, after)}
                colour = float(colour_shift(before, after).mean())
                x0, y0, x1, y1 = pixels(pair.faces.boxes[i], -_RIM, *pair.original.shape[:2])
                sharper = _sharper(pair.original[y0:y1, x0:x1], output[y0:y1, x0:x1])
                found.append(pair.key(i) | numbers | {"sharpness": sharper, "colour": colour})
        return found


class Outside:
    """A row for each published picture; `changed` and `visibly_changed` are shares of its pixels outside, 0–1."""

    schema = pa.schema([("path", pa.string()), *((name, pa.float32()) for name in OUTSIDE_NUMBERS)])

    def collect(self, pair: Pair) -> list[Row]:
        """Of one pair."""
        if pair.output is None:
            return []
        output = same_size(pair.output, pair.original)
        mask = outside(pair.faces.boxes, *pair.original.shape[:2])
        if not mask.any() or min(mask.shape) < _WINDOW:
            return []
        most = cv2.absdiff(pair.original, output).max(2)[mask]
        if not most.any():
            return [pair.key() | {"ssim": 1.0, "psnr": EQUAL, "changed": 0.0, "visibly_changed": 0.0, "colour": 0.0}]
        numbers = {"ssim": float(ssim(pair.original, output)[mask].mean()), "psnr": psnr(pair.original[mask], output[mask])}
        shares = {"changed": float((most > 0).mean()), "visibly_changed": float((most > VISIBLE).mean())}
        return [pair.key() | numbers | shares | {"colour": float(colour_shift(pair.original, output)[mask].mean())}]


def figures(tables: Mapping[str, pa.Table], about: About) -> dict[str, Any]:
    """See docs/evaluate.md."""
    inside, beyond = tables["structure-inside"], tables["structure-outside"]
    at, n, rows, boot = about.at(inside), len(about), replaced(about), of_faces(about)
    faces = {name: values(inside, name, at, n) for name in FACE_NUMBERS}
    sharpness = faces.pop("sharpness")
    there, images = image_rows(beyond, about), about.images.num_rows
    pictures = {name: values(beyond, name, there, images) for name in OUTSIDE_NUMBERS}
    return {
        "method": METHOD,
        "faces": {**means(boot, faces, rows), "sharpness": boot.quantile(sharpness, 0.5, rows)},
        "outside": means(of_images(about), pictures),
        "by_group": means_by_group(about, boot, faces, rows),
    }


_WINDOW = 7  # px, of SSIM
_RIM = 0.1


def ssim(before: Image, after: Image) -> NDArray[np.float64]:
    """(h, w): the structural similarity of the luma around each pixel (Wang et al., "Image Quality Assessment: From Error Visibility to
    Structural Similarity", 2004; windows of 7 × 7 px as scikit-image has them)."""
    from skimage.metrics import structural_similarity  # slow to import

    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (before, after)]
    return np.asarray(_untyped(structural_similarity)(*grey, win_size=_WINDOW, data_range=255, full=True)[1], np.float64)


def psnr(before: Image, after: Image) -> float:
    """dB, at most `EQUAL`."""
    from skimage.metrics import peak_signal_noise_ratio

    if np.array_equal(before, after):
        return EQUAL
    return min(EQUAL, float(_untyped(peak_signal_noise_ratio)(before, after, data_range=255)))


def _untyped(function: Any) -> Any:
    return function


def colour_shift(before: Image, after: Image) -> F32:
    """float32 (h, w): the distance of each pixel's colours in CIELAB (D65), ΔE*ab; 2.3 is just noticeable."""
    one, other = (cv2.cvtColor(image.astype(np.float32) / np.float32(255), cv2.COLOR_RGB2LAB) for image in (before, after))
    return np.asarray(np.linalg.norm(one - other, axis=2), np.float32)


def _sharper(before: Image, after: Image) -> float | None:
    """None where the original is flat, or nothing is left of it."""
    if min(before.shape[:2]) < 3:
        return None
    one, other = (
        float(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32), cv2.CV_32F).var()) for image in (before, after)
    )
    return other / one if one > 1e-6 else None
