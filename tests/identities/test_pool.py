from collections import Counter

import numpy as np
import pytest

from mfmc_ray.identities.model import load_model
from mfmc_ray.identities.pool import Pool, Wanted, keyed


def unit(n: int, rng: np.random.Generator) -> np.ndarray:
    vectors = rng.standard_normal((n, 128)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def pool() -> Pool:
    return Pool(load_model(), list(range(200)), {"sface": unit(200, np.random.default_rng(0))})


@pytest.mark.parametrize(("man", "age", "tone"), [(1.0, 30.0, 40.0), (0.0, 70.0, -20.0), (0.0, 25.0, 50.0)])
def test_candidates_fit_the_face(pool: Pool, man: float, age: float, tone: float) -> None:
    original = {"sface": unit(1, np.random.default_rng(1))[0]}
    found = pool.candidates(Wanted(man, age, tone, 0.0), original, keyed(b"k", "image", 0), set())
    assert all(identity.man == bool(man) for identity in found[:8])
    everyone = np.mean([abs(i.age - age) + abs(i.tone - tone) for i in pool.identities if i.man == bool(man)])
    assert np.mean([abs(i.age - age) + abs(i.tone - tone) for i in found[:8]]) < 0.7 * everyone


def test_nobody_is_worn_twice(pool: Pool) -> None:
    wanted, original = Wanted(1.0, 40, 30, 0), {"sface": unit(1, np.random.default_rng(1))[0]}
    first = pool.candidates(wanted, original, keyed(b"k", "image", 0), set())[0]
    again = pool.candidates(wanted, original, keyed(b"k", "image", 0), {first.identity_id})
    assert first.identity_id not in {identity.identity_id for identity in again}


def test_what_looks_like_the_original_comes_last(pool: Pool) -> None:
    wanted = Wanted(1.0, 40, 30, 0)
    like = next(i for i, identity in enumerate(pool.identities) if identity.man)
    found = pool.candidates(wanted, {"sface": pool.embeddings["sface"][like]}, keyed(b"k", 1), set())
    names = [identity.identity_id for identity in found]
    assert pool.identities[like].identity_id not in names[:10]


def test_the_choice_is_random_and_repeatable_with_the_key(pool: Pool) -> None:
    wanted, original = Wanted(0.0, 40, 30, 0), {"sface": unit(1, np.random.default_rng(1))[0]}

    def first(key: bytes, image: str) -> str:
        return pool.candidates(wanted, original, keyed(key, image, 0), set())[0].identity_id

    assert first(b"one", "a") == first(b"one", "a")
    assert len({first(b"one", str(image)) for image in range(40)}) > 4
    assert [first(b"one", str(i)) for i in range(20)] != [first(b"two", str(i)) for i in range(20)]


def test_nobody_is_tried_on_every_face_that_is_alike(pool: Pool) -> None:
    wanted, original = Wanted(1.0, 40, 30, 0), {"sface": unit(1, np.random.default_rng(1))[0]}
    orders = [pool.candidates(wanted, original, keyed(b"k", str(image), 0), set()) for image in range(80)]
    first = Counter(identity.identity_id for order in orders for identity in order[:16])
    assert max(first.values()) < 0.7 * len(orders)
    assert all(identity.man for order in orders for identity in order[:16])
    assert len({frozenset(identity.identity_id for identity in order) for order in orders}) == 1  # the others are not lost


def test_an_empty_pool_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        Pool(load_model(), [], {})


def test_a_child_wears_no_mans_features(pool: Pool) -> None:
    original = {"sface": unit(1, np.random.default_rng(1))[0]}
    found = pool.candidates(Wanted(1.0, 4.0, 30, 0.0), original, keyed(b"k", "image", 0), set())
    assert not any(identity.man for identity in found[:12])
