"""Sampling of fake identities: a seed gives a person who does not exist."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mfmc_ray.identities.features import Features, draw
from mfmc_ray.identities.model import REGIONS, IdentityModel
from mfmc_ray.identities.surface import F32

SHAPE_REACH = 2.2
"""Shape coefficients are drawn within this many standard deviations; beyond it faces look odd."""
SHAPE_SCALE = 2.0
"""The mesh network regresses towards the mean face: people's shapes differ by more than its meshes do."""

AGES = (5.0, 90.0)
"""Ages of identities, years."""
TONES = (-35.0, 60.0)
"""Skin tones of identities, ITA in degrees: into the darkest and the lightest band."""
YOUNGEST = 22.0
"""The age whose sources a younger identity is made from."""
BEARDED, SHAVEN = 20.0, 0.1
"""Below this age an identity's sources have no more than this beard strength."""

NEIGHBOURS = 18
"""From how many sources near the lead one a region's source is drawn."""
_FOREHEAD, _CHEEKS = REGIONS.index("forehead"), REGIONS.index("cheeks")
UNLIKE = 0.2
"""Cosine (SFace) that two sources of one identity stay below if it can be."""


@dataclass(frozen=True, eq=False)
class Identity:
    """A fake identity before it is rendered.

    Attributes:
        seed: what it was sampled from.
        man: whether it is read as a man's face.
        age: years, 5–90; below 18 by damped detail only, no source is a child.
        tone: ITA in degrees.
        beard: beard strength as `IdentityModel.beard`.
        sources: int (6,), the source texture of each region, in the order of `model.REGIONS`.
        mirrored: bool (6,), whether that region's source is flipped.
        skin: float32 (3,), RGB of its skin in even light, 0–255.
        shape: float32 (k,), identity coefficients.
        features: how its features lie in the texture.
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
    features: Features

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

    Sex, age and skin tone are drawn evenly, not as the sources have them, which are mostly young. A lead source comes near them; each
    region comes from a source near the lead, so that the parts fit together; shape and features are drawn freely. At least four different
    sources are mixed, so that no identity is a portrait's.
    """
    rng = np.random.default_rng([0x6D666D63, seed])
    looks = model.references["sface"]
    man = bool(rng.integers(2))
    age = float(rng.uniform(*AGES))
    candidates = np.flatnonzero((model.man == man) & model.usable.any(1) & ((age >= BEARDED) | (model.beard < SHAVEN)))
    lead = int(rng.choice(candidates, p=_near(model, candidates, max(age, YOUNGEST), float(rng.uniform(*TONES)))))
    distance = (
        np.abs(model.age - model.age[lead]) / 9 + np.abs(model.tone - model.tone[lead]) / 14 + np.abs(model.beard - model.beard[lead]) / 0.5
    )
    sources = np.empty(len(REGIONS), np.intp)
    for r in range(len(REGIONS)):
        if r == _CHEEKS and model.usable[sources[_FOREHEAD], r]:
            sources[r] = sources[_FOREHEAD]  # skin is one person's
            continue
        able = candidates[model.usable[candidates, r]]
        nearest = np.setdiff1d(able[np.argsort(distance[able], kind="stable")[:NEIGHBOURS]], sources[:r])
        # parts of people who look alike would make up just such a person
        alike = (looks[nearest] @ looks[sources[:r]].T).max(1, initial=-1.0)
        unlike = nearest[alike < UNLIKE] if (alike < UNLIKE).any() else nearest[[int(np.argmin(alike))]]
        sources[r] = rng.choice(unlike)
    shape = np.clip(rng.standard_normal(len(model.spread)), -SHAPE_REACH, SHAPE_REACH).astype(np.float32) * model.spread * SHAPE_SCALE
    mirrored = rng.integers(2, size=len(REGIONS)).astype(bool)
    if sources[_CHEEKS] == sources[_FOREHEAD]:
        mirrored[_CHEEKS] = mirrored[_FOREHEAD]
    return Identity(
        seed=seed,
        man=man,
        age=age,
        tone=float(model.tone[lead]),
        beard=float(model.beard[sources[[3, 5]]].mean()),
        sources=sources,
        mirrored=mirrored,
        skin=model.skin[lead],
        shape=shape,
        features=draw(rng),
    )


def _near(model: IdentityModel, candidates: NDArray[np.intp], age: float, tone: float) -> NDArray[np.float64]:
    """Probabilities of candidates to lead: those of about this age and tone."""
    far = np.abs(model.age[candidates] - age) / 6 + np.abs(model.tone[candidates] - tone) / 6
    weight = np.exp(-(far - far.min()).astype(np.float64))
    return np.asarray(weight / weight.sum())
