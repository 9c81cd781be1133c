"""An identity's skin: its sources' regions joined, its features moved, brought to an age."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mfmc_ray.identities.features import rearrange
from mfmc_ray.identities.model import REGIONS, IdentityModel
from mfmc_ray.identities.sample import Identity
from mfmc_ray.identities.surface import F32

GRID = 96
"""Side in texels of the coarse band."""
BOLD = (1.25, 1.1)
"""Factors of coarse shading and of fine detail. Light is taken out of textures, and with it some of what tells faces apart; what the
photo leaves of the original outweighs a faint face."""
LOWEST = 6.0
"""σ of the coarsest band, in texels of `GRID`."""
ADULT, INFANT = 20.0, 6.0
"""Years at which a skin has all, and least, of its detail."""
EAGER = 1.5
"""A regression sees less than half of what age does (fine lines lie elsewhere on each face), so it is followed further."""
FARTHEST = 28.0
"""Years by which a texture can be aged before it looks painted."""

# What a small child's skin keeps of a young adult's detail, in the order of REGIONS: soft shading and small lines, faint brows.
CHILD_COARSE = np.array((0.75, 0.4, 0.55, 0.65, 0.5, 0.5), np.float32)
CHILD_FINE = np.array((0.7, 0.4, 0.3, 0.6, 0.3, 0.3), np.float32)
assert len(CHILD_COARSE) == len(CHILD_FINE) == len(REGIONS)


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

    The regions are joined in three bands (Burt & Adelson 1983, "A multiresolution spline with application to image mosaics"): fine detail
    sharply, coarse shading softly, the coarsest over the whole face, so that no patch of skin is lighter than the next.
    """
    grid = min(GRID, size)
    sharp, wide, widest = model.weights(size, grid)
    fine, coarse = np.zeros((size, size, 3), np.float32), np.zeros((grid, grid, 3), np.float32)
    for weight, soft, broad, source, flip in zip(sharp, wide, widest, identity.sources, identity.mirrored, strict=True):
        detail = model.detail(int(source), size)
        detail = detail[:, ::-1] if flip else detail
        low = np.asarray(cv2.GaussianBlur(_to(np.ascontiguousarray(detail), grid), (0, 0), 1.5 * grid / GRID), np.float32)
        quarter = cv2.resize(low, (grid // 4, grid // 4), interpolation=cv2.INTER_AREA)
        lowest = _to(np.asarray(cv2.GaussianBlur(quarter, (0, 0), LOWEST / 4 * grid / GRID), np.float32), grid)
        fine += (detail - _to(low, size)) * weight[:, :, None]
        coarse += (low - lowest) * soft[:, :, None] + lowest * broad[:, :, None]
    return Texture(
        rearrange(model.surface, BOLD[0] * coarse, identity.features),
        rearrange(model.surface, BOLD[1] * fine, identity.features),
        float(model.age[identity.sources].mean()),
    )


def at_age(model: IdentityModel, page: Texture, years: float) -> F32:
    """The texture as of a person of this age: float32 (size, size, 3), natural logarithm of skin over its low-pass.

    Between adults it is moved along the model's regression of detail on age. No source is a child: below `ADULT` years detail is damped
    instead, which makes a face look younger but no portrait of childhood.
    """
    grid, size = page.coarse.shape[0], page.fine.shape[0]
    later = float(np.clip(EAGER * (max(years, ADULT) - page.age), -FARTHEST, FARTHEST))
    coarse = page.coarse + later * _to(model.ageing[..., :3], grid)
    gain = np.exp(later * _to(model.ageing[..., 3], grid))
    childhood = float(np.clip((ADULT - years) / (ADULT - INFANT), 0, 1))
    if childhood > 0:
        _, wide, _ = model.weights(size, grid)
        coarse = coarse * (1 - childhood * np.einsum("rhw,r->hw", wide, 1 - CHILD_COARSE))[:, :, None]
        gain = gain * (1 - childhood * np.einsum("rhw,r->hw", wide, 1 - CHILD_FINE))
    return np.asarray(page.fine * _to(gain.astype(np.float32), size)[:, :, None] + _to(coarse.astype(np.float32), size), np.float32)


def _to(page: F32, size: int) -> F32:
    if page.shape[0] == size:
        return page
    return np.asarray(
        cv2.resize(page, (size, size), interpolation=cv2.INTER_LINEAR if page.shape[0] < size else cv2.INTER_AREA), np.float32
    )
