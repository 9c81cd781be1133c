"""Sampling of fake identities: a seed gives a person who does not exist."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mfmc_ray.identities.features import Features, draw
from mfmc_ray.identities.model import REGIONS, IdentityModel
from mfmc_ray.identities.surface import F32

SHAPE_REACH = 1.8
"""Shape coefficients are drawn within this many standard deviations; beyond it faces look odd."""
SHAPE_SCALE = 1.7
"""The mesh network regresses towards the mean face: people's shapes differ by more than its meshes do."""
MOST_SCALE = 2.4
"""The most of it, in the portraits' standard deviations: where people seem to differ by more, it is too little to be measured well."""

AGES = (5.0, 90.0)
"""Ages of identities, years."""
TONES = (-35.0, 60.0)
"""Skin tones of identities, ITA in degrees: into the darkest and the lightest band."""
YOUNGEST = 22.0
"""The age whose sources a younger identity is made from."""
BEARDED = 20.0
"""Below this age a man's sources are shaven."""
SHAVEN = 0.5
"""The share of older men who are. Whoever is in a photo mostly is, and few sources: a beard on a shaven man's neck looks painted on."""
BARE = 0.1
"""Beard strength of a shaven man; what can be measured on his sources is their jaws' shade."""
WHOLE = 5
"""How many of its regions a source must have bare."""

PARENTS = 4
"""Sources that are mixed. Of fewer an identity resembles one too often; of more it is everybody."""
DISTINCT = 2.6
"""What their weights add up to."""
NEIGHBOURS, SHAVEN_NEIGHBOURS = 20, 10
"""From how many sources near the lead the others are drawn; from how many shaven ones."""
UNLIKE = 0.3
"""Cosine (SFace) that two sources of one identity stay below if it can be."""
LOWER = ("mouth", "cheeks")
"""The regions where a beard is."""
_LINES = {"eyes": 1, "brows": 1, "nose": 2, "mouth": 2, "forehead": 0, "cheeks": 0}
"""Which source's fine lines each region has: skin is the lead's, an eye goes with its brow and a mouth with the fold at the nose, of those
that go best with it."""


@dataclass(frozen=True, eq=False)
class Identity:
    """A fake identity before it is rendered.

    Attributes:
        seed: what it was sampled from.
        man: whether it is read as a man's face.
        age: years, 5–90; below 18 by statistics (`childhood`), no source is a child.
        tone: ITA in degrees.
        beard: beard strength as `IdentityModel.beard`.
        shaven: whether the lower half of the face is of sources without a beard only; so it is of women.
        sources: int (PARENTS,), the source textures it is mixed from: the lead, then the others, those first that go best with it.
        usable: bool (PARENTS, 6), which regions each is used for, in the order of `model.REGIONS`.
        weights: float32 (PARENTS,), how much of what each has beyond its sex's mean.
        mirrored: bool (PARENTS,), whether that source is flipped.
        lines: int (6,), which of the sources each region's fine lines are of.
        skin: float32 (3,), RGB of its skin in even light, 0–255.
        shape: float32 (k,), identity coefficients.
        features: how its features lie in the texture.
    """

    seed: int
    man: bool
    age: float
    tone: float
    beard: float
    shaven: bool
    sources: NDArray[np.intp]
    usable: NDArray[np.bool_]
    weights: F32
    mirrored: NDArray[np.bool_]
    lines: NDArray[np.intp]
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

    Sex, age and skin tone are drawn evenly, not as the sources have them, which are mostly young. A lead source comes near them; the others
    come from sources near the lead, so that they fit together, and unlike each other. Weights, shape and features are drawn freely.
    """
    rng = np.random.default_rng([0x6D666D64, seed])
    man = bool(rng.integers(2))
    age = float(rng.uniform(*AGES))
    boy = man and age < BEARDED
    shaven = not man or boy or float(np.random.default_rng([0x73686176, seed]).random()) < SHAVEN
    candidates = np.flatnonzero((model.man == man) & (model.shaven | (not boy)) & (model.usable.sum(1) >= WHOLE))
    bare = candidates[model.shaven[candidates]] if shaven else candidates
    lead = int(rng.choice(bare, p=_near(model, bare, max(age, YOUNGEST), float(rng.uniform(*TONES)))))
    sources = np.array([lead])
    near = _nearest(model, candidates, lead, NEIGHBOURS)
    shaved = near if len(bare) == len(candidates) else _nearest(model, bare, lead, SHAVEN_NEIGHBOURS)
    looks = model.references["sface"]
    while len(sources) < PARENTS:
        rest = np.setdiff1d(near if len(sources) == PARENTS - 1 else shaved, sources)  # the last may have a beard: he gives eyes and brows
        # people who look alike would make up just such a person
        alike = (looks[rest] @ looks[sources].T).max(1)
        unlike = rest[alike < UNLIKE] if (alike < UNLIKE).any() else rest[[int(np.argmin(alike))]]
        sources = np.append(sources, rng.choice(unlike))
    sources[1:] = sources[1:][np.argsort(_apart(model, sources[1:], lead), kind="stable")]
    bearded = shaven & ~model.shaven[sources]
    usable = model.usable[sources] & ~(bearded[:, None] & np.isin(REGIONS, LOWER))
    lines = np.array([_first(usable[:, r], _LINES[name]) for r, name in enumerate(REGIONS)])
    others = (1 - 1 / PARENTS) * rng.dirichlet(np.full(PARENTS - 1, 8.0))
    weights = DISTINCT * np.concatenate([[1 / PARENTS], others])
    own = np.clip(rng.standard_normal(len(model.spread)), -SHAPE_REACH, SHAPE_REACH).astype(np.float32)
    shape = model.adults[int(man)] + own * shape_spread(model)
    lower = sources[lines[[REGIONS.index("mouth"), REGIONS.index("cheeks")]]]
    return Identity(
        seed=seed,
        man=man,
        age=age,
        tone=float(model.tone[lead]),
        beard=BARE if man and shaven else float((weights @ model.beard[sources] / weights.sum() + model.beard[lower].mean()) / 2),
        shaven=shaven,
        sources=sources,
        usable=usable,
        weights=weights.astype(np.float32),
        mirrored=rng.integers(2, size=PARENTS).astype(bool),
        lines=lines,
        skin=model.skin[lead],
        shape=shape,
        features=draw(rng),
    )


def shape_spread(model: IdentityModel) -> F32:
    """By how much fakes of one sex differ: float32 (k,), standard deviations of their shapes' coefficients.

    Like real people's: the portraits differ in the large ones by as much as people or more, and all widened alike made caricatures.
    """
    return np.asarray(np.minimum(SHAPE_SCALE * model.people, MOST_SCALE * model.spread), np.float32)


def _nearest(model: IdentityModel, some: NDArray[np.intp], lead: int, count: int) -> NDArray[np.intp]:
    """The lead and so many of some sources that go best with it."""
    return some[np.argsort(_apart(model, some, lead), kind="stable")[: count + 1]]


def _apart(model: IdentityModel, some: NDArray[np.intp], lead: int) -> F32:
    """How badly sources go together with another: float32 (n,)."""
    return np.asarray(
        np.abs(model.age[some] - model.age[lead]) / 6
        + np.abs(model.tone[some] - model.tone[lead]) / 16
        + np.abs(model.beard[some] - model.beard[lead]) / 0.5,
        np.float32,
    )


def _first(usable: NDArray[np.bool_], wanted: int) -> int:
    """Of some sources the wanted one if that is usable, else the next that is, from the lead on; the wanted one if none is."""
    return next((k for k in (wanted, *range(len(usable))) if usable[k]), wanted)


def _near(model: IdentityModel, candidates: NDArray[np.intp], age: float, tone: float) -> NDArray[np.float64]:
    """Probabilities of candidates to lead: those of about this age and tone."""
    far = np.abs(model.age[candidates] - age) / 6 + np.abs(model.tone[candidates] - tone) / 6
    weight = np.exp(-(far - far.min()).astype(np.float64))
    return np.asarray(weight / weight.sum())
