"""How children's faces differ from adults': no source of the identity model is a child, so an identity is made one by statistics.

What `tools/build_statistics.py` found are means over children beside young adults: how much rounder and shorter a face is, where it is
darker and lighter, how much less it has of fine lines. Each is a curve over age, so that all ages are in between.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mfmc_ray.identities.surface import F32, shrunk

GROWN_UP, NEWBORN = 18.0, 1.0
"""Years at which a face has all, and least, of what an adult's has."""
EARLY = 0.65
"""Exponent of youth: below 1 a child of ten is more of a child. As the means have it (1) fakes were read as grown up."""
SHADING, LINES = 1.2, 3.5
"""How far the curves of shading and of lines are followed: on each face a child's lies elsewhere, which means do not see."""
SAME_SHAPE, SAME_SHADING = 0.35, 0.5
"""What share of what is its own the shape, and the shading, of a small child lacks: children differ less."""


@dataclass(frozen=True)
class Childhood:
    """By how much children differ from young adults: each attribute's two pages are added, times youth and times its square.

    Attributes:
        shape: float32 (2, k), coefficients of the identity model's shapes.
        coarse: float32 (2, g, g, 3), coarse detail.
        fine: float32 (2, g, g), natural logarithm of how strong fine lines are.
    """

    shape: F32
    coarse: F32
    fine: F32

    def shaped(self, shape: F32, usual: F32, age: float) -> F32:
        """An identity's shape (k,) at an age, years; `usual` (k,) is that of its sex."""
        own = 1 - SAME_SHAPE * _common(youth(age))
        return np.asarray(usual + own * (shape - usual) + _curve(self.shape, youth(age)), np.float32)

    def shading(self, usual: F32, age: float) -> tuple[float, F32]:
        """What coarse detail at an age, years, is: so many times an adult's, plus a page (g, g, 3); `usual` (g, g, 3) is everybody's."""
        own = 1 - SAME_SHADING * _common(youth(age))
        return own, np.asarray((1 - own) * usual + shrunk(SHADING * _curve(self.coarse, youth(age)), usual.shape[0]), np.float32)

    def lined(self, age: float, grid: int) -> F32:
        """The factor of fine lines at an age, years: float32 (grid, grid)."""
        return np.asarray(np.exp(shrunk(LINES * _curve(self.fine, youth(age)), grid)), np.float32)


def youth(age: float) -> float:
    """How much of a child somebody of this age is: 0 grown up, 1 a baby."""
    return float(np.clip((GROWN_UP - age) / (GROWN_UP - NEWBORN), 0, 1) ** EARLY)


def _common(young: float) -> float:
    """How far children of this youth have in common what small ones have, 0–1."""
    return min(1.0, 2 * young)


def _curve(pages: F32, young: float) -> F32:
    return np.asarray(young * pages[0] + young**2 * pages[1], np.float32)
