"""Casting: everybody gets their own, and nothing but the key tells which."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from mfmc_ray.identities.casting import CHOICE, FITTING, Casting, identity_of, name_of
from mfmc_ray.identities.model import IdentityModel, load_model
from mfmc_ray.identities.pool import Pool, Wanted

F32 = NDArray[np.float32]
SIZE = 160
KEYS = 600


def directions(seed: int, n: int) -> F32:
    vectors = np.random.default_rng(seed).standard_normal((n, 128))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> IdentityModel:
    return load_model()


@pytest.fixture(scope="module")
def pool(model: IdentityModel) -> Pool:
    return Pool(model, range(SIZE), {"sface": directions(0, SIZE), "dlib": directions(1, SIZE)})


WANTED = Wanted(man=0.9, age=45.0, tone=30.0, beard=0.1)
FACES = {"sface": directions(2, 3), "dlib": directions(3, 3)}


def test_what_comes_into_question_looks_right_and_is_nobody_else_s(pool: Pool) -> None:
    casting = Casting(pool, b"k" * 32)
    choice = casting.choice(WANTED, FACES)
    assert len(choice) == CHOICE < FITTING
    identities = {one.identity_id: one for one in pool.identities}
    assert all(identities[name].man for name in choice)
    casting.take(choice)
    assert not set(casting.choice(WANTED, FACES)) & set(choice)
    casting.release(choice[0])
    again = casting.choice(WANTED, FACES)
    assert set(again) & set(choice) <= {choice[0]}
    other_key = Casting(pool, b"l" * 32)
    assert other_key.choice(WANTED, FACES) == choice  # the key has no part in it


def test_who_looks_like_nobody_gets_nothing(pool: Pool) -> None:
    some = [one.identity_id for one in pool.identities if one.man]
    assert Casting(pool, b"k" * 32, some).choice(WANTED, FACES) == []


def test_without_the_key_a_guess_is_at_chance(pool: Pool) -> None:
    """Who has everything but the key (photos, pool, program, everybody else's fakes) knows what comes into question, and no more.

    Over many keys each of these is drawn equally often, whoever the person is (χ² with 23 degrees of freedom: 49.7 once in a thousand
    times); a new photo, a second release by another key, and other people's draws tell nothing of it.
    """
    choice = Casting(pool, b"k" * 32).choice(WANTED, FACES)
    first: Counter[str] = Counter()
    repeated = linked = 0
    rng = np.random.default_rng(0)
    for _ in range(KEYS):
        one, other = (Casting(pool, rng.bytes(32)) for _ in range(2))
        drawn = one.drawn("0" * 32, choice)
        first[drawn[0]] += 1
        repeated += drawn[0] == other.drawn("0" * 32, choice)[0]
        linked += drawn[0] == one.drawn("1" * 32, choice)[0]
    expected = KEYS / len(choice)
    assert sum((first[name] - expected) ** 2 / expected for name in choice) < 49.7
    spread = 4 * np.sqrt(expected)
    assert abs(repeated - expected) < spread
    assert abs(linked - expected) < spread


def test_the_same_key_draws_the_same(pool: Pool) -> None:
    one, other = Casting(pool, b"k" * 32), Casting(pool, b"k" * 32)
    choice = one.choice(WANTED, FACES)
    assert one.drawn("a", choice) == other.drawn("a", choice[::-1])
    fewer = [name for name in choice if name != one.drawn("a", choice)[0]]
    assert one.drawn("a", fewer) == one.drawn("a", choice)[1:]  # who is not there any more changes nothing for the others


def test_names_say_nothing() -> None:
    asked = [(b"k" * 32, "person", b"salt"), (b"l" * 32, "person", b"salt"), (b"k" * 32, "stranger", b"salt"), (b"k" * 32, "person", b"")]
    names = {name_of(*one) for one in asked}
    assert len(names) == len(asked)
    assert {len(name) for name in names} == {32}


def test_an_identity_is_found_by_its_name(pool: Pool, model: IdentityModel) -> None:
    one = pool.identities[7]
    found = identity_of(model, one.identity_id)
    assert found.seed == one.seed
    np.testing.assert_array_equal(found.shape, one.shape)
    for name in ("mfmc-", "7", "mfmc-x7"):
        with pytest.raises(ValueError, match="no identity"):
            identity_of(model, name)
