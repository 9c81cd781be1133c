"""What a face looks like to a stranger: age and sex as a network reads them, skin tone read from its pixels.

They are approximations for choosing a fake identity that fits, not facts about the person.
"""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mfmc_ray.faces import runtime
from mfmc_ray.faces.faces import F32, Image, Pixels
from mfmc_ray.faces.gather import RowsError
from mfmc_ray.faces.mesh import CANONICAL, upright_squares
from mfmc_ray.faces.store import model_path

AGES = (1.0, 95.0)
"""The range of estimated ages, years."""

SIDE = 224
"""Side of the network's input in px."""
MARGIN = 1.15
"""Side of what it sees, in units of the mesh's longer side. Between 1.0 and 1.5 the age changes little; the sex is best here."""
_BATCH = 4
"""Larger batches gain nothing on one core, and memory stays bounded in crowds."""
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
    """Age, sex and skin tone of faces whose meshes are known.

    Age and sex are the age and sex outputs of HSE faceres (A. Savchenko, "Efficient facial representations for age, gender and identity
    recognition in organizing photo albums using multi-output ConvNet", 2019), which `tools/build_attribute_net.py` cuts out of it; its
    embedding of a face is not among the outputs. On photos it takes old people for younger, and old women for men more often than the
    other way round; `corrected` takes out what of that shows on portraits. The sex of a child under six is hardly better than a guess.

    The tone is the ITA (Chardon et al., "Skin colour typology and suntanning pathways", 1991) of the picture's skin: light and camera
    are in it.
    """

    def __init__(self, threads: int | None = None) -> None:
        """Load what corrects the network; itself it is loaded when it is first asked, and then raises a `ModelError` if it is not the
        pinned one.

        Args:
            threads: CPU threads for one batch; None: as `runtime.use` has settled.
        """
        self._threads = threads
        with (
            importlib.resources.files("mfmc_ray.faces").joinpath("attributes.npz").open("rb") as file,
            np.load(file, allow_pickle=False) as arrays,
        ):
            self._skin, self._older, self._female = (np.asarray(arrays[name], np.float32) for name in ("skin", "older", "female"))

    @cached_property
    def _net(self) -> Any:
        # weights are stored as int8: have them turned to float32 once, at load
        settings = {"session.disable_quant_qdq": "1"}
        return runtime.session(model_path("attribute_net"), threads=self._threads, rows=True, settings=settings)

    def estimate(self, image: Pixels, meshes: F32) -> Attributes:
        """Attributes of n faces of an image.

        Args:
            image: upright RGB.
            meshes: float32 (n, 468, 3), px.
        """
        said = np.empty((len(meshes), 2), np.float32)
        for i in range(0, len(meshes), self.at_once):
            said[i : i + self.at_once] = self.read(upright_squares(image, meshes[i : i + self.at_once], MARGIN, SIDE))
        ages, logits = corrected(said, self._older, self._female)
        sexes = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
        return Attributes(np.clip(ages, *AGES), sexes.astype(np.float32), self.tones(skin_colour(image, meshes)))

    def tones(self, colours: F32) -> F32:
        """ITA in degrees, float32 (n,), of skin of these colours, see `ita`."""
        return ita(colours, self._skin)

    @property
    def at_once(self) -> int:
        """How many faces the network is given together."""
        return runtime.at_once(self._net, _BATCH)

    def read(self, squares: Image) -> F32:
        """What the network says of squares, uint8 (n, 224, 224, 3) as `mesh.upright_squares` cuts them: float32 (n, 2), years and the logit
        of "man".

        Raises:
            RowsError: the network gives other rows than it is given.
        """
        said = np.concatenate(self._net.run(["age", "man"], {"faces": squares}), axis=1)
        if said.shape != (len(squares), 2):
            raise RowsError(f"ages and sexes {said.shape} of {len(squares)} faces")
        return said


def corrected(said: F32, older: F32, female: F32) -> tuple[F32, F32]:
    """Ages and logits of "man" without the biases of the network that are known.

    Args:
        said: float32 (n, 2), the network's age in years and logit.
        older: float32 (2,), knee and slope: years beyond the knee count 1 + slope times.
        female: float32 (3,), what is taken from the logit of adults, and the ages in years between which it comes in.

    Returns:
        Two float32 (n,).
    """
    knee, slope = older
    offset, child, adult = female
    ages, logits = said.T
    grown = np.clip((ages - child) / (adult - child), 0, 1)
    return ages + slope * np.maximum(ages - knee, 0), logits - offset * grown


def skin_colour(image: Pixels, meshes: F32) -> F32:
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
    colours = np.full((len(meshes), 3), np.nan, np.float32)
    for i, (where, mask) in enumerate(zip(at, seen, strict=True)):
        if mask.any():
            x, y = where[mask].T
            part = image[y.min() : y.max() + 1, x.min() : x.max() + 1]
            skin = part[y - y.min(), x - x.min()][None]
            colours[i] = _median_skin(cv2.cvtColor(skin.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0])
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
