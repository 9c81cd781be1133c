"""Variations: small steps away from an identity, the same for the same numbers, and never far."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfmc_ray.identities.model import IdentityModel, load_model
from mfmc_ray.identities.sample import sample, shape_spread
from mfmc_ray.identities.variation import FARTHEST, place, varied


@pytest.fixture(scope="module")
def model() -> IdentityModel:
    return load_model()


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), steps=st.lists(st.integers(1, 200), max_size=12))
def test_the_same_steps_lead_to_the_same_place_and_never_far(seed: int, steps: list[int]) -> None:
    model = load_model()
    identity = sample(model, seed)
    one, other = varied(model, identity, steps), varied(model, sample(model, seed), tuple(steps))
    np.testing.assert_array_equal(one.shape, other.shape)
    np.testing.assert_array_equal(one.features.both, other.features.both)
    assert one.identity_id == identity.identity_id
    assert (np.abs(one.shape - identity.shape) <= FARTHEST * shape_spread(model) * (1 + 1e-4)).all()
    assert (one.man, one.age, one.tone, one.beard) == (identity.man, identity.age, identity.tone, identity.beard)
    np.testing.assert_array_equal(one.sources, identity.sources)


def test_no_step_is_the_identity_itself_and_two_identities_step_apart(model: IdentityModel) -> None:
    identity = sample(model, 1)
    assert varied(model, identity, ()) is identity
    assert place(model, identity, (1, 2)).tolist() != place(model, identity, (2,)).tolist()
    assert place(model, identity, (1,)).tolist() != place(model, sample(model, 2), (1,)).tolist()
