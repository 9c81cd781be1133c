import numpy as np
import pytest

from mfmc_ray.identities.childhood import GROWN_UP, youth
from mfmc_ray.identities.model import GRID, load_model
from mfmc_ray.identities.sample import sample


def test_adults_are_as_they_are() -> None:
    model = load_model()
    shape, usual = sample(model, 3).shape, model.everybody(GRID)
    own, added = model.childhood.shading(usual, GROWN_UP)
    assert own == 1
    assert not added.any()
    np.testing.assert_allclose(model.childhood.shaped(shape, model.adults[0], 40.0), shape, atol=1e-7)
    np.testing.assert_array_equal(model.childhood.lined(GROWN_UP, GRID), 1)


def test_youth_falls_with_age() -> None:
    ages = [youth(age) for age in (0.5, 1, 4, 8, 12, 17.9, 18, 60)]
    assert ages[:2] == [1, 1]
    assert ages[-2:] == [0, 0]
    assert ages == sorted(ages, reverse=True)


@pytest.mark.parametrize("grid", [48, GRID])
def test_a_child_differs_the_more_the_younger(grid: int) -> None:
    model = load_model()
    shape, usual = sample(model, 5).shape, model.everybody(grid)
    changes = []
    for age in (2.0, 6.0, 10.0, 14.0):
        _, added = model.childhood.shading(usual, age)
        moved = model.childhood.shaped(shape, model.adults[0], age) - shape
        changes.append([np.linalg.norm(moved / model.spread), np.abs(added).mean(), 1 - model.childhood.lined(age, grid).mean()])
        assert added.shape == (grid, grid, 3)
    falling = np.diff(np.array(changes), axis=0)
    assert (falling < 0).all()


def test_children_are_less_unlike_each_other() -> None:
    model = load_model()
    adults = [sample(model, seed).shape for seed in range(20)]
    children = [model.childhood.shaped(shape, model.adults[0], 3.0) for shape in adults]
    assert np.std(children, 0).sum() < 0.8 * np.std(adults, 0).sum()
