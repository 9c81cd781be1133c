from dataclasses import replace

import cv2
import numpy as np
import pytest

from mfmc_ray.identities.model import REGIONS, load_model
from mfmc_ray.identities.sample import sample
from mfmc_ray.identities.surface import F32
from mfmc_ray.identities.texture import MOST, at_age, line_gain, places, shading, texture


def drawn(seed: int, years: float, size: int = 192) -> F32:
    model = load_model()
    return at_age(model, texture(model, sample(model, seed), size), years)


def energy(page: F32, region: str) -> float:
    model = load_model()
    return float((np.abs(page).mean(2) * model.sharp(page.shape[0])[REGIONS.index(region)]).sum())


def fine_lines(page: F32) -> F32:
    return page - np.asarray(cv2.GaussianBlur(page, (0, 0), 2.5), np.float32)


@pytest.mark.parametrize("size", [48, 96, 192, 384])
def test_a_texture_is_the_same_again_at_any_size(size: int) -> None:
    page = drawn(7, 40, size)
    assert page.shape == (size, size, 3)
    assert page.dtype == np.float32
    np.testing.assert_array_equal(page, drawn(7, 40, size))


@pytest.mark.parametrize("grid", [48, 96])
def test_shading_departs_from_the_mean_of_its_sex_as_the_weights_say(grid: int) -> None:
    model = load_model()
    usual_lead = np.flatnonzero(model.man == sample(model, 5).man)
    lead = usual_lead[np.argmin(np.abs(model.tone[usual_lead] - model.tone[usual_lead].mean()) + np.abs(model.age[usual_lead] - 43))]
    identity = replace(sample(model, 5), sources=np.array([lead, *sample(model, 5).sources[1:]]))
    usual, spread = model.typical(identity.man, grid)
    skin = model.openings(grid) < 1e-3  # an eye is one source's
    beyond = [(shading(model, replace(identity, weights=k * identity.weights), grid) - usual)[skin] for k in (0, 0.5, 1, 9)]
    # but for what is left between the usual tone and age and its lead's
    assert np.abs(beyond[0]).max() < 0.1
    apart = [float(np.abs(one).mean()) for one in beyond]
    assert apart[0] < apart[1] < apart[2] < apart[3]
    most = np.tensordot(MOST, model.soft(grid), 1)[:, :, None] * spread
    assert (np.abs(beyond[3]) <= most[skin] + 2e-3).all()


@pytest.mark.parametrize("seed", range(5))
def test_an_eye_is_that_of_one_source(seed: int) -> None:
    model = load_model()
    identity = sample(model, seed)
    k = identity.lines[REGIONS.index("eyes")]
    own = model.coarse(int(identity.sources[k]), 96)
    eye = model.openings(96) > 0.9
    assert eye.any()
    np.testing.assert_allclose(shading(model, identity, 96)[eye], (own[:, ::-1] if identity.mirrored[k] else own)[eye], atol=0.1)


def test_sources_of_another_tone_shine_as_the_lead_does() -> None:
    model = load_model()
    women = ~model.man & model.usable.all(1)
    pale, dark = (int(np.flatnonzero(women)[pick(model.tone[women])]) for pick in (np.argmax, np.argmin))
    identity = replace(
        sample(model, 0), man=False, lines=np.zeros(6, np.intp), mirrored=np.zeros(4, bool), weights=np.full(4, 0.5, np.float32)
    )
    cheek = np.zeros((96, 96), bool)
    cheek[46:58, 24:34] = cheek[46:58, 62:72] = True

    def shine(lead: int) -> float:
        mixed = shading(model, replace(identity, tone=float(model.tone[lead]), sources=np.array([lead, dark, dark, dark])), 96)
        return float(mixed[cheek].mean())

    assert shine(pale) < shine(dark)
    assert line_gain(
        model, replace(identity, sources=np.array([pale, dark, dark, dark]), tone=float(model.tone[pale])), 0
    ) == pytest.approx(1)


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


def test_a_child_has_fainter_brows_and_smoother_cheeks() -> None:
    shares = []
    for seed in range(6):
        child, adult = (fine_lines(drawn(seed, age)) for age in (6, 30))
        shares.append([energy(child, name) / energy(adult, name) for name in ("brows", "cheeks")])
    assert (np.array(shares) < (0.75, 0.95)).all()
    assert (np.mean(shares, 0) < (0.6, 0.75)).all()


@pytest.mark.parametrize("seed", range(6))
def test_age_deepens_lines(seed: int) -> None:
    model = load_model()
    page = texture(model, sample(model, seed), 192)
    young, old = at_age(model, page, page.age - 15), at_age(model, page, page.age + 15)
    lines = [energy(fine_lines(page), "forehead") for page in (young, old)]
    assert lines[1] > 1.1 * lines[0]


def test_ageing_ends_before_it_looks_painted() -> None:
    model = load_model()
    page = texture(model, sample(model, 1), 96)
    np.testing.assert_array_equal(at_age(model, page, page.age + 40), at_age(model, page, page.age + 90))
