"""Sampling of fake identities: a seed gives a person who does not exist."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mfmc_ray.identities.model import REGIONS, IdentityModel
from mfmc_ray.identities.surface import F32

SHAPE_REACH = 2.2
"""Shape coefficients are drawn within this many standard deviations; beyond it faces look odd."""
SHAPE_SCALE = 2.1
"""The mesh network regresses towards the mean face: people's shapes differ by more than its meshes do."""

NEIGHBOURS = 18
"""From how many sources near the lead one a region's source is drawn."""
UNLIKE = 0.2
"""Cosine (SFace) that two sources of one identity stay below if it can be."""


@dataclass(frozen=True, eq=False)
class Identity:
    """A fake identity before it is rendered.

    Attributes:
        seed: what it was sampled from.
        man: whether it is read as a man's face.
        age: years.
        tone: ITA in degrees.
        beard: beard strength as `IdentityModel.beard`.
        sources: int (6,), the source texture of each region, in the order of `model.REGIONS`.
        mirrored: bool (6,), whether that region's source is flipped.
        skin: float32 (3,), RGB of its skin in even light, 0–255.
        shape: float32 (k,), identity coefficients.
    """

    seed: int
    man: bool
    age: float
    tone: float
    beard: float
    sources: NDArray[np.intp]
    mirrored: NDArray[np.bool_]
    skin: F32
    shape: F32

    @property
    def identity_id(self) -> str:
        """A stable name."""
        return f"mfmc-{self.seed:012d}"

    @property
    def sex(self) -> str:
        """`man` or `woman`."""
        return "man" if self.man else "woman"


def sample(model: IdentityModel, seed: int) -> Identity:
    """The identity of a seed: same seed and model data, same identity, anywhere.

    A lead source gives sex, age and tone; each region comes from a source near it, so that the parts fit together; the shape is drawn from
    the identity basis. At least three different sources are mixed, so that no identity is a portrait's.
    """
    rng = np.random.default_rng([0x6D666D63, seed])
    looks = model.references["sface"]
    man = bool(rng.integers(2))
    candidates = np.flatnonzero((model.man == man) & model.usable.any(1))
    # uniform over age and tone bands rather than over portraits, which are mostly young
    lead = int(rng.choice(candidates, p=_even(model.age[candidates], model.tone[candidates])))
    distance = (
        np.abs(model.age - model.age[lead]) / 9 + np.abs(model.tone - model.tone[lead]) / 14 + np.abs(model.beard - model.beard[lead]) / 0.5
    )
    sources = np.empty(len(REGIONS), np.intp)
    for r in range(len(REGIONS)):
        able = candidates[model.usable[candidates, r]]
        nearest = np.setdiff1d(able[np.argsort(distance[able], kind="stable")[:NEIGHBOURS]], sources[:r])
        # parts of people who look alike would make up just such a person
        alike = (looks[nearest] @ looks[sources[:r]].T).max(1, initial=-1.0)
        unlike = nearest[alike < UNLIKE] if (alike < UNLIKE).any() else nearest[[int(np.argmin(alike))]]
        sources[r] = rng.choice(unlike)
    shape = np.clip(rng.standard_normal(len(model.spread)), -SHAPE_REACH, SHAPE_REACH).astype(np.float32) * model.spread * SHAPE_SCALE
    return Identity(
        seed=seed,
        man=man,
        age=float(model.age[sources].mean()),
        tone=float(model.tone[sources].mean()),
        beard=float(model.beard[sources[[3, 5]]].mean()),
        sources=sources,
        mirrored=rng.integers(2, size=len(REGIONS)).astype(bool),
        skin=np.asarray(model.skin[sources[4:]].mean(0), np.float32),
        shape=shape,
    )


def texture(model: IdentityModel, identity: Identity) -> F32:
    """The identity's detail: float32 (size, size, 3), natural logarithm of skin over its low-pass.

    The regions are joined in two bands (Burt & Adelson 1983, "A multiresolution spline with application to image mosaics"): fine detail
    sharply, coarse shading softly.
    """
    size = model.surface.size
    fine, coarse = np.zeros((size, size, 3), np.float32), np.zeros((size // 4, size // 4, 3), np.float32)
    wide = [cv2.GaussianBlur(cv2.resize(w, (size // 4, size // 4), interpolation=cv2.INTER_AREA), (0, 0), 3.5) for w in model.regions]
    for weight, soft, source, flip in zip(model.regions, wide, identity.sources, identity.mirrored, strict=True):
        detail = model.detail(int(source))
        detail = np.ascontiguousarray(detail[:, ::-1]) if flip else detail
        low = cv2.GaussianBlur(cv2.resize(detail, (size // 4, size // 4), interpolation=cv2.INTER_AREA), (0, 0), 1.5)
        fine += (detail - cv2.resize(low, (size, size), interpolation=cv2.INTER_CUBIC)) * weight[:, :, None]
        coarse += low * soft[:, :, None]
    return fine + cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


def _even(ages: F32, tones: F32) -> NDArray[np.float64]:
    cells = np.clip(ages // 15, 1, 5).astype(int) * 10 + np.digitize(tones, (-30, 10, 28, 41, 55))
    _, inverse, count = np.unique(cells, return_inverse=True, return_counts=True)
    weight = 1.0 / count[inverse]
    return np.asarray(weight / weight.sum())
