"""An identity's skin: its sources mixed, its features moved, brought to an age."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mfmc_ray.identities.childhood import youth
from mfmc_ray.identities.features import flow, moved
from mfmc_ray.identities.model import GRID, REGIONS, IdentityModel
from mfmc_ray.identities.sample import DISTINCT, Identity
from mfmc_ray.identities.surface import F32, alike

EVEN = 0.35
"""How far a mixture's coarse shading is made symmetric, 0.5 is wholly: most of what is uneven in a portrait's is light."""
MOST = np.array((1.6, 1.6, 2.3, 2.3, 2.3, 2.3), np.float32)
"""How far coarse shading may depart from a sex's mean, softly, in standard deviations of its sources, in the order of REGIONS; beyond it
looks painted, and brows and sockets look stern."""
ADULT = 20.0
"""Years down to which a skin is aged as adults' are; for children see `childhood`."""
EAGER = 2.2
"""A regression sees less than half of what age does (fine lines lie elsewhere on each face), so it is followed further."""
MOST_FINER = 0.7
"""How far a source's lines are made fainter or stronger to go with the lead's, natural logarithm."""
FARTHEST = 34.0
"""Years by which a texture can be aged before it looks painted."""


@dataclass(frozen=True)
class Texture:
    """Natural logarithm of skin over its low-pass, in two bands.

    Attributes:
        coarse: float32 (g, g, 3), g = `GRID` or the texture's size if that is smaller.
        fine: float32 (size, size, 3), what `coarse` leaves.
        age: years, of the sources.
    """

    coarse: F32
    fine: F32
    age: float


def texture(model: IdentityModel, identity: Identity, size: int) -> Texture:
    """The identity's detail at the age of its sources, `size` texels a side.

    As in an active appearance model (Cootes, Edwards & Taylor, "Active appearance models", 2001) what is averaged is registered: see
    `shading`. Fine lines would blur: those of eyes and brows are one source's, those of nose and mouth another's, those of the skin a
    third's. Then all is moved to where the identity has it.
    """
    grid = min(GRID, size)
    sharp = model.sharp(size)
    fine = np.zeros((size, size, 3), np.float32)
    for k in sorted(set(identity.lines.tolist())):
        source = int(identity.sources[k])
        lines = model.detail(source, size) - _to(model.coarse(source, grid), size)
        lines *= alike(_to(line_gain(model, identity, k), size))
        fine += _mirrored(lines, identity.mirrored[k]) * alike(sharp[identity.lines == k].sum(0))
    field = places(model, identity)
    return Texture(moved(shading(model, identity, grid), field), moved(fine, field), years(model, identity))


def line_gain(model: IdentityModel, identity: Identity, k: int) -> F32:
    """The factor that makes the fine lines of an identity's k-th source a person's of its tone and its lead's age: float32 (g, g)."""
    source = identity.sources[k]
    tone, age = identity.tone - model.tone[source], EAGER * (years(model, identity) - model.age[source])
    gain = tone * model.toning[..., 3] + age * model.ageing[..., 3]
    return np.asarray(np.exp(np.clip(gain, -MOST_FINER, MOST_FINER)), np.float32)


def shading(model: IdentityModel, identity: Identity, grid: int) -> F32:
    """The identity's coarse shading where the mean of all sources has its features: float32 (grid, grid, 3).

    It is its sex's mean and, by the identity's weights, what its sources have beyond that. The weights add up to more than 1, because an
    average of people is nearer to everybody than a person is. Then it is brought to the tone and age of the lead: a shine that sources of
    darker skin have looks painted on a pale one.
    """
    usual, spread = model.typical(identity.man, grid)
    same = model.man == identity.man

    def short(of: F32) -> float:
        """By how much the mixture falls short of what its lead has."""
        middle = float(of[same].mean())
        return float(of[identity.sources[0]] - middle - identity.weights @ (of[identity.sources] - middle))

    beyond = short(model.tone) * _to(model.toning[..., :3], grid) + short(model.age) * _to(model.ageing[..., :3], grid)
    for source, usable, weight, flip in zip(identity.sources, identity.usable, identity.weights, identity.mirrored, strict=True):
        bare = np.tensordot(usable.astype(np.float32), model.soft(grid), 1)
        beyond += _mirrored(alike(weight * bare) * (model.coarse(int(source), grid) - usual), flip)
    beyond = (1 - EVEN) * beyond + EVEN * beyond[:, ::-1]
    red, green, blue = cv2.split(beyond)
    grey = alike(np.asarray((red + green + blue) / 3, np.float32))
    most = alike(np.tensordot(MOST, model.soft(grid), 1)) * spread
    # of colour there is no more than in the mean: the blue of a shine on dark skin is purple on a pale one
    mixed = usual + most * np.tanh((grey + (beyond - grey) / DISTINCT) / most)
    # an eye is light and dark in places that no average has
    k = identity.lines[REGIONS.index("eyes")]
    eyes = _mirrored(model.coarse(int(identity.sources[k]), grid), identity.mirrored[k])
    return np.asarray(mixed + alike(model.openings(grid)) * (eyes - mixed), np.float32)


def places(model: IdentityModel, identity: Identity) -> F32:
    """Where the identity has its features: float32 (g, g, 2), right and down of the mean of all sources, in sides of the square.

    As its sources have them, by the identity's weights, and beyond that as its features say.
    """
    own = np.tensordot(identity.weights, np.stack([model.displacement(int(source)) for source in identity.sources]), 1)
    field = flow(model.surface, identity.features)
    return np.asarray(field + _to(np.asarray((own + own[:, ::-1] * (-1, 1)) / 2, np.float32), field.shape[0]), np.float32)


def years(model: IdentityModel, identity: Identity) -> float:
    """The age that the identity's texture shows: its lead's."""
    return float(model.age[identity.sources[0]])


def at_age(model: IdentityModel, page: Texture, age: float) -> F32:
    """The texture as of a person of this age: float32 (size, size, 3), natural logarithm of skin over its low-pass.

    Between adults it is moved along the model's regression of detail on age, below that by what children have otherwise (`childhood`).
    """
    grid, size = page.coarse.shape[0], page.fine.shape[0]
    later = float(np.clip(EAGER * (max(age, ADULT) - page.age), -FARTHEST, FARTHEST))
    coarse = page.coarse + later * _to(model.ageing[..., :3], grid)
    gain = np.exp(later * _to(model.ageing[..., 3], grid))
    if youth(age) > 0:
        own, added = model.childhood.shading(model.everybody(grid), age)
        coarse = own * coarse + added
        gain = gain * model.childhood.lined(age, grid)
    return np.asarray(page.fine * alike(_to(gain.astype(np.float32), size)) + _to(coarse.astype(np.float32), size), np.float32)


def _mirrored(page: F32, flip: bool) -> F32:
    return page[:, ::-1] if flip else page


def _to(page: F32, size: int) -> F32:
    if page.shape[0] == size:
        return page
    return np.asarray(
        cv2.resize(page, (size, size), interpolation=cv2.INTER_LINEAR if page.shape[0] < size else cv2.INTER_AREA), np.float32
    )
