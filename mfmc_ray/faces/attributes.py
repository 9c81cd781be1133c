"""What a face looks like to a stranger: age and sex read from its embedding, skin tone read from its pixels.

They are approximations for choosing a fake identity that fits, not facts about the person.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mfmc_ray.faces.faces import F32, Image
from mfmc_ray.faces.mesh import CANONICAL

RECOGNIZERS = ("dlib", "sface")
"""Recognizers whose embeddings age and sex can be read from, best first. SFace's hardly show the sex of real people (see
`benchmarks/attributes.py`): it is there for when dlib's is not at hand."""
AGES = (1.0, 95.0)
"""The range of estimated ages, years."""

_CHILD = 7.0
"""The age in years given to a face with a child's proportions: the middle of childhood."""
_BANDS = (55.0, 41.0, 28.0, 10.0, -30.0)
_UNSEEN_TONE = 20.0
"""ITA of a face without a visible skin pixel: the middle of the bands."""
_GREY = 3.0
"""C*ab below which skin has no colour of its own: the photo is grey."""
_PATCHES = (
    (50, 101, 36, 205, 187, 123),  # cheek on the image's left
    (280, 330, 266, 425, 411, 352),  # the other cheek
    (122, 168, 351, 5),  # bridge of the nose, around 6, 197 and 195
    (108, 151, 337, 336, 9, 107),  # forehead above the brows
)
"""Outlines of skin patches as mesh points."""


@dataclass(frozen=True)
class Attributes:
    """Of n faces.

    Attributes:
        ages: float32 (n,), years, 1–95.
        sexes: float32 (n,), estimated probability in 0–1 that the face is read as a man's.
        tones: float32 (n,), individual typology angle (ITA) in degrees; high is light. Always finite.
    """

    ages: F32
    sexes: F32
    tones: F32


class AttributeHead:
    """Age, sex and skin tone of faces whose meshes and embeddings are known.

    Age and sex are radial-basis functions of the embedding, fitted by `tools/train_attributes.py` to portraits of people who do not exist.
    Those are 18 to 89 years old: the embedding of a child gives the age of a young adult and a sex that means nothing. Children's noses and
    faces are shorter beside the width of their eyes than adults', so a face with proportions that 0.5 % of the adult portraits have gets a
    child's age (between 0.5 and 2 %, one between that and the embedding's). That finds 8 of 10 children under two, half of those up to
    five, hardly any schoolchild.

    The tone is the ITA (Chardon et al., "Skin colour typology and suntanning pathways", 1991) of the picture's skin: light and camera
    are in it.
    """

    def __init__(self) -> None:
        with importlib.resources.files("mfmc_ray.faces").joinpath("attributes.npz").open("rb") as file, np.load(file) as arrays:
            data = {name: np.asarray(arrays[name], np.float32) for name in arrays.files}
        self._heads = {name: KernelHead(**{k: data[f"{name}_{k}"] for k in KernelHead.__annotations__}) for name in RECOGNIZERS}
        self._proportions = data["proportions"]
        self._skin = data["skin"]

    def estimate(self, image: Image, meshes: F32, embeddings: Mapping[str, F32]) -> Attributes:
        """Attributes of n faces of an image.

        Args:
            image: upright RGB.
            meshes: float32 (n, 468, 3), px.
            embeddings: recognizer → float32 (n, d), unit length; the best of `RECOGNIZERS` that is there is used.

        Raises:
            ValueError: when the embeddings are of none of `RECOGNIZERS`.
        """
        name = next((name for name in RECOGNIZERS if name in embeddings), None)
        if name is None:
            raise ValueError(f"age and sex need an embedding of {' or '.join(RECOGNIZERS)}, got {', '.join(embeddings) or 'none'}")
        ages, logits = self._heads[name](embeddings[name]).T
        rare, unusual = self._proportions
        child = np.clip((unusual - proportion(meshes)) / (unusual - rare), 0, 1)
        ages = np.clip(ages + child * np.minimum(_CHILD - ages, 0), *AGES)
        sexes = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
        return Attributes(ages.astype(np.float32), sexes.astype(np.float32), ita(skin_colour(image, meshes), self._skin))


@dataclass(frozen=True)
class KernelHead:
    """A Gaussian radial-basis function of an embedding of d dimensions, with c centres.

    Attributes:
        mean, scale: float32 (d,): (embedding − mean) × scale is what is compared.
        gamma: float32 (), of exp(−gamma · distance²).
        centres: float32 (c, d), scaled.
        weights, bias: float32 (c, 2) and (2,), for the age in years and the logit of "man".
    """

    mean: F32
    scale: F32
    gamma: F32
    centres: F32
    weights: F32
    bias: F32

    def __call__(self, embeddings: F32) -> F32:
        """float32 (n, 2): age in years (unlimited) and logit, of float32 (n, d)."""
        return np.asarray(kernel((embeddings - self.mean) * self.scale, self.centres, float(self.gamma)) @ self.weights + self.bias)


def kernel(x: F32, centres: F32, gamma: float) -> F32:
    """exp(−gamma · |x − c|²), float32 (n, c), of (n, d) and (c, d)."""
    squares = (x**2).sum(1)[:, None] + (centres**2).sum(1) - 2 * x @ centres.T
    return np.asarray(np.exp(-gamma * np.maximum(squares, 0)), np.float32)


def proportion(meshes: F32) -> F32:
    """Length of nose and face beside the width of the eyes, which grow less: √(nose · face) / eyes, in three dimensions.

    The nose from its root (168) to its base (2), the face from there to the chin (152), between the outer corners of the eyes (33, 263).

    Returns:
        float32 (n,): 0.83 ± 0.03 for adults, 0.73 for toddlers; 1 for a mesh without extent.
    """
    eyes, nose, face = (np.linalg.norm(meshes[:, a] - meshes[:, b], axis=1) for a, b in ((33, 263), (168, 2), (168, 152)))
    return np.where(eyes > 0, np.sqrt(nose * face) / np.maximum(eyes, 1e-6), 1).astype(np.float32)


def skin_colour(image: Image, meshes: F32) -> F32:
    """The median colour of cheeks, bridge of the nose and forehead.

    Left out are patches that face away (beside the most visible one less than half as large as on a frontal face), pixels outside the
    image, and shadows, highlights and hair (L* more than 2 robust standard deviations from the median).

    Returns:
        float32 (n, 3): CIELAB (D65) L* 0–100, a*, b*; NaN where no skin pixel is in the image.
    """
    areas = np.stack([_area(meshes[:, patch, :2]) for patch in _PATCHES], axis=1) / _FRONTAL_AREAS
    facing = areas > 0.5 * areas.max(1, keepdims=True)
    at = np.round(np.einsum("sv,nvx->nsx", _MIX, meshes[:, _VERTICES, :2])).astype(int)
    height, width = image.shape[:2]
    seen = facing[:, _PATCH_OF] & (at >= 0).all(2) & (at < [width, height]).all(2)
    pixels = image[np.clip(at[..., 1], 0, height - 1), np.clip(at[..., 0], 0, width - 1)]
    colours = np.full((len(meshes), 3), np.nan, np.float32)
    for i, (face, mask) in enumerate(zip(pixels, seen, strict=True)):
        if mask.any():
            colours[i] = _median_skin(cv2.cvtColor(face[mask][None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0])
    return colours


def ita(colours: F32, skin: F32) -> F32:
    """The individual typology angle atan2(L* − 50, b*) of skin.

    In grey photos, where b* is about 0 and the angle would mean nothing, b* is taken to be that of average skin as light as this one; in
    coloured ones it is at least half of that, against bluish light.

    Args:
        colours: float32 (n, 3), CIELAB L* a* b*; NaN for unseen skin.
        skin: float32 (2,), offset and slope of average skin's b* over L*.

    Returns:
        float32 (n,), degrees, −90…90; 20, the middle of the bands, for unseen skin.
    """
    light, b = colours[:, 0], colours[:, 2]
    usual = np.maximum(skin[0] + skin[1] * light, 1)
    grey = np.hypot(colours[:, 1], b) < _GREY
    angle = np.degrees(np.arctan2(light - 50, np.where(grey, usual, np.maximum(b, usual / 2))))
    return np.where(np.isfinite(angle), angle, _UNSEEN_TONE).astype(np.float32)


def tone_band(ita: float) -> int:
    """The conventional band of an ITA in degrees: 0 very light (> 55), 1 light (> 41), 2 intermediate (> 28), 3 tan (> 10), 4 brown
    (> −30), 5 dark."""
    return sum(ita <= band for band in _BANDS)


def _median_skin(colours: F32) -> F32:
    apart = np.abs(colours[:, 0] - np.median(colours[:, 0]))
    # 1.4826 × the median absolute deviation is a normal distribution's standard deviation; 1 is the noise of a flat patch
    return np.asarray(np.median(colours[apart <= 2 * max(1.4826 * float(np.median(apart)), 1)], axis=0), np.float32)


def _area(outlines: F32) -> F32:
    """Signed areas of polygons (n, p, 2)."""
    x, y = outlines[..., 0], outlines[..., 1]
    return np.asarray((x * np.roll(y, -1, 1) - y * np.roll(x, -1, 1)).sum(1) / 2)


def _mixes() -> tuple[F32, NDArray[np.intp]]:
    """Where the pixels of the patches lie: weights (s, v) of the patches' v corners, and the patch of each of the s pixels."""
    # 10 points inside a triangle
    steps = np.array([(i, j, 6 - i - j) for i in range(1, 5) for j in range(1, 6 - i)]) / 6
    rows, patch_of = [], []
    start = 0
    for number, patch in enumerate(_PATCHES):
        corners = len(patch)
        for corner in range(corners):
            for middle, one, next_one in steps:
                row = np.zeros(len(_VERTICES))
                row[start : start + corners] = middle / corners
                row[start + corner] += one
                row[start + (corner + 1) % corners] += next_one
                rows.append(row)
                patch_of.append(number)
        start += corners
    return np.asarray(rows, np.float32), np.asarray(patch_of, np.intp)


_VERTICES = [point for patch in _PATCHES for point in patch]
_MIX, _PATCH_OF = _mixes()
_FRONTAL_AREAS = np.array([_area(CANONICAL[None, patch, :2])[0] for patch in _PATCHES])
