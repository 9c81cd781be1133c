from __future__ import annotations

import cv2
import numpy as np
import pytest

from mfmc_ray.evaluate.people import CUT_SIDE, PersonGenerator, cut_out
from mfmc_ray.faces.detect import YuNet
from mfmc_ray.faces.embed import SFaceEmbedder
from mfmc_ray.faces.faces import F32, Image

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def generator() -> PersonGenerator:
    return PersonGenerator()


def embedding(image: Image) -> F32:
    faces = YuNet(min_score=0.7).detect(image)
    return SFaceEmbedder().embed(image, faces.points[:1])[0]


def test_a_seed_is_a_person(generator: PersonGenerator) -> None:
    first, again, other = generator.portrait(5), PersonGenerator(threads=2).portrait(5), generator.portrait(6)
    assert first.shape == (1024, 1024, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert embedding(first) @ embedding(other) < 0.36


@pytest.mark.parametrize(("seed", "style"), [(5, 105), (7, 300)])
def test_a_variation_is_the_same_person_in_another_picture(generator: PersonGenerator, seed: int, style: int) -> None:
    portrait, variation = generator.portrait(seed), generator.variation(seed, style)
    assert np.abs(portrait.astype(int) - variation).mean() > 10
    assert embedding(portrait) @ embedding(variation) > 0.5
    assert np.array_equal(variation, generator.variation(seed, style))


def test_no_truncation_left_is_the_average_face(generator: PersonGenerator) -> None:
    assert np.array_equal(generator.portrait(1, truncation=0), generator.portrait(2, truncation=0))


@pytest.mark.parametrize("seed", [0, 5, 8])
def test_cut_out_keeps_the_face_and_drops_the_background(generator: PersonGenerator, seed: int) -> None:
    portrait = generator.portrait(seed)
    person = cut_out(portrait, (10, 200, 30))
    middle = person.shape[1] // 2
    points = YuNet(min_score=0.7).detect(portrait).points[0] * (CUT_SIDE / 1024) + [middle - CUT_SIDE / 2, 0]
    features = cv2.fillConvexPoly(np.zeros(person.shape[:2], np.uint8), cv2.convexHull(points.astype(np.int32)), 1)
    assert person[features > 0, 3].min() > 0.95
    assert person[:20, :100, 3].max() == 0
    assert person[:20, -100:, 3].max() == 0
    assert person[-1, middle - 200 : middle + 200, 3].min() > 0.99
    assert person[..., 3].max() <= 1
