from dataclasses import replace

import cv2
import numpy as np
import pytest

from mfmc_ray.identities.model import REGIONS, load_model
from mfmc_ray.identities.sample import sample
from mfmc_ray.identities.surface import F32
from mfmc_ray.identities.texture import MOST, at_age, places, shading, texture


def drawn(seed: int, years: float, size: int = 192) -> F32:
    model = load_model()
    return at_age(model, texture(model, sample(model, seed), size), years)


def energy(page: F32, region: str) -> float:
    model = load_model()
    return float((np.abs(page).mean(2) * model.sharp(page.shape[0])[REGIONS.index(region)]).sum())


@pytest.mark.parametrize("size", [48, 96, 192, 384])
def test_a_texture_is_the_same_again_at_any_size(size: int) -> None:
    page = drawn(7, 40, size)
    assert page.shape == (size, size, 3)
    assert page.dtype == np.float32
    np.testing.assert_array_equal(page, drawn(7, 40, size))


@pytest.mark.parametrize("grid", [48, 96])
def test_shading_departs_from_the_mean_of_its_sex_as_the_weights_say(grid: int) -> None:
    model = load_model()
    identity = sample(model, 5)
    usual, spread = model.typical(identity.man, grid)
    beyond = [shading(model, replace(identity, weights=k * identity.weights), grid) - usual for k in (0, 0.5, 1, 9)]
    np.testing.assert_allclose(beyond[0], 0, atol=1e-6)
    apart = [float(np.abs(one).mean()) for one in beyond]
    assert apart[1] < apart[2] < apart[3]
    assert (np.abs(beyond[3]) <= MOST * spread + 1e-5).all()


@pytest.mark.parametrize("seed", range(4))
def test_a_mirrored_source_has_the_same_features(seed: int) -> None:
    model = load_model()
    identity = sample(model, seed)
    field = places(model, identity)
    np.testing.assert_array_equal(places(model, replace(identity, mirrored=~identity.mirrored)), field)
    assert np.abs(field).max() < 0.15  # sides of the square: nothing is torn off its place


def test_textures_hold_no_light() -> None:
    model = load_model()
    page = drawn(3, sample(model, 3).age, 384)
    inside = model.mask > 0.9
    assert abs(float(page[inside].mean())) < 0.12
    left, right = page[:, :150][inside[:, :150]].mean(), page[:, -150:][inside[:, -150:]].mean()
    assert abs(float(left - right)) < 0.08


@pytest.mark.parametrize("seed", range(6))
def test_a_child_has_fainter_brows_and_smoother_cheeks(seed: int) -> None:
    child, adult = drawn(seed, 6), drawn(seed, 30)
    assert energy(child, "brows") < 0.75 * energy(adult, "brows")
    assert energy(child, "cheeks") < 0.75 * energy(adult, "cheeks")


@pytest.mark.parametrize("seed", range(6))
def test_age_deepens_lines(seed: int) -> None:
    model = load_model()
    page = texture(model, sample(model, seed), 192)
    young, old = at_age(model, page, page.age - 15), at_age(model, page, page.age + 15)
    lines = [energy(p - np.asarray(cv2.GaussianBlur(p, (0, 0), 2.5), np.float32), "forehead") for p in (young, old)]
    assert lines[1] > 1.1 * lines[0]


def test_ageing_ends_before_it_looks_painted() -> None:
    model = load_model()
    page = texture(model, sample(model, 1), 96)
    np.testing.assert_array_equal(at_age(model, page, page.age + 40), at_age(model, page, page.age + 90))
