import dataclasses

import numpy as np

from mfmc_ray.identities.features import FEATURES, Features, draw, flow, moved
from mfmc_ray.identities.model import load_model
from mfmc_ray.identities.surface import F32, Surface

NONE = np.zeros(FEATURES, np.float32)


def ramp(size: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """A page whose two channels are each texel's own place, so that a warp can be read off."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    return np.dstack([x, y])


def rearrange(surface: Surface, page: F32, features: Features) -> F32:
    return moved(page, flow(surface, features))


def test_features_at_rest_move_nothing() -> None:
    page = ramp(192)
    np.testing.assert_allclose(rearrange(load_model().surface, page, Features(NONE, NONE)), page, atol=0.05)


def test_low_brows_move_the_brows_down_and_the_mouth_not() -> None:
    surface = load_model().surface
    low = NONE.copy()
    low[0] = 1
    page = rearrange(surface, ramp(384), Features(low, NONE))
    x, y = surface.uv[105].astype(int)
    assert page[y, x, 1] < y - 3
    x, y = surface.uv[0].astype(int)
    assert abs(page[y, x, 1] - y) < 0.3


def test_both_halves_move_alike_unless_uneven() -> None:
    surface = load_model().surface
    features = draw(np.random.default_rng(5))
    even = rearrange(surface, ramp(384), dataclasses.replace(features, uneven=NONE)) - ramp(384)
    apart = np.abs(even[:, :, 1] - even[:, ::-1, 1]).mean()
    assert apart < 0.2
    uneven = rearrange(surface, ramp(384), features) - ramp(384)
    assert np.abs(uneven[:, :, 1] - uneven[:, ::-1, 1]).mean() > 1.3 * apart


def test_the_warp_is_the_same_at_every_level() -> None:
    surface = load_model().surface
    features = draw(np.random.default_rng(2))
    large, small = rearrange(surface, ramp(384), features) - ramp(384), rearrange(surface, ramp(96), features) - ramp(96)
    np.testing.assert_allclose(large[2::4, 2::4] / 4, small, atol=0.4)
