import numpy as np
import pytest

from mfmc_ray.identities.catalogue import seeds
from mfmc_ray.identities.model import REGIONS, load_model
from mfmc_ray.identities.sample import SHAPE_REACH, SHAPE_SCALE, sample, texture


def test_a_seed_gives_the_same_identity_again() -> None:
    model = load_model()
    one, two = sample(model, 7), sample(model, 7)
    assert one.identity_id == two.identity_id
    np.testing.assert_array_equal(texture(model, one), texture(model, two))
    np.testing.assert_array_equal(one.shape, two.shape)


def test_seeds_give_different_people() -> None:
    model = load_model()
    people = [sample(model, seed) for seed in range(300)]
    assert len({(tuple(p.sources), tuple(p.mirrored)) for p in people}) == 300
    assert 0.35 < np.mean([p.man for p in people]) < 0.65
    assert min(p.age for p in people) < 30
    assert max(p.age for p in people) > 60
    assert np.ptp([p.tone for p in people]) > 60


@pytest.mark.parametrize("seed", range(40))
def test_no_identity_is_a_portrait(seed: int) -> None:
    model = load_model()
    identity = sample(model, seed)
    assert len(set(identity.sources.tolist())) == len(REGIONS)
    assert all(model.usable[source, region] for region, source in enumerate(identity.sources))
    assert all(model.man[source] == identity.man for source in identity.sources)
    assert (np.abs(identity.shape) <= SHAPE_REACH * SHAPE_SCALE * model.spread + 1e-6).all()


def test_textures_hold_no_light() -> None:
    model = load_model()
    detail = texture(model, sample(model, 3))
    inside = model.mask > 0.9
    assert abs(float(detail[inside].mean())) < 0.1
    left, right = detail[:, :150][inside[:, :150]].mean(), detail[:, -150:][inside[:, -150:]].mean()
    assert abs(float(left - right)) < 0.06


def test_identity_coefficients_survive_the_split() -> None:
    model = load_model()
    wanted = sample(model, 11).shape
    found = model.split(model.surface.mean + model.offset(wanted))
    strong = model.spread > 0.05
    assert np.corrcoef(wanted[strong], found[strong])[0, 1] > 0.9


def test_expression_is_not_read_as_identity() -> None:
    model = load_model()
    smiling = model.surface.mean + 0.5 * model.expression[0]
    moved = np.linalg.norm(model.offset(model.split(smiling)))
    assert moved < 0.25 * 0.5


def test_the_catalogue_is_followed_by_fresh_seeds() -> None:
    offer = seeds(0)
    first = [next(offer) for _ in range(5000)]
    assert len(set(first)) == 5000
