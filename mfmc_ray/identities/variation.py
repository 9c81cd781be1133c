"""Variations of an identity: features and bones a little other than it has them, as nobody looks quite the same in two photos.

An identity that a person wears in all photos has to pass the guard in each of them, and what it comes near to differs from photo to photo:
an unvaried one passes on about half of the faces. Small steps, of which those are kept that lead away from whoever is too near, let most of
the others pass, too (`pipeline/wearing.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mfmc_ray.identities.features import FEATURES, SPREAD, Features
from mfmc_ray.identities.model import IdentityModel
from mfmc_ray.identities.sample import Identity, shape_spread
from mfmc_ray.identities.surface import F32

STEP = 0.45
"""Length of a step in each direction, in standard deviations between people."""
FARTHEST = 1.2
"""How far from the identity steps may lead in each direction, in standard deviations. (Of 77 faces the median cosine (SFace) of one
identity on two photos of a person was 0.73 with variations and 0.76 without; of two identities on two photos of a person 0.39.)"""


def varied(model: IdentityModel, identity: Identity, steps: Sequence[int]) -> Identity:
    """The identity after some steps, which are numbers from 1: the same numbers, the same steps. It keeps its name."""
    if not len(steps):
        return identity
    at = place(model, identity, steps)
    shape, features = np.split(at, [len(model.spread)])
    moved = Features((identity.features.both + SPREAD * features).astype(np.float32), identity.features.uneven)
    return replace(identity, shape=(identity.shape + shape * shape_spread(model)).astype(np.float32), features=moved)


def place(model: IdentityModel, identity: Identity, steps: Sequence[int]) -> F32:
    """float32 (k + FEATURES,): where steps lead, in standard deviations between people; the identity itself is at 0."""
    at = np.zeros(len(model.spread) + FEATURES, np.float32)
    for step in steps:
        direction = np.random.default_rng([0x76617279, identity.seed, step]).standard_normal(len(at))
        at = np.clip(at + STEP * direction, -FARTHEST, FARTHEST).astype(np.float32)
    return at
