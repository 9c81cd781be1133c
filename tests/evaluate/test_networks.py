"""The packaged networks that look at pictures see what is there."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from skimage.data import astronaut, coffee

from mfmc_ray.evaluate import networks
from mfmc_ray.evaluate.iris import IrisLook
from mfmc_ray.evaluate.networks import NETWORKS, ObjectNet, distances
from mfmc_ray.faces.mesh import MIRROR, FaceMesh
from mfmc_ray.faces.store import pull

pytestmark = pytest.mark.models

PERSON, CUP = 0, 41
BOX = np.array([[176, 63, 268, 174]], np.float32)
POINTS = np.array([[[200.1, 101.8], [247.2, 102.6], [220.3, 124.7], [198.9, 143.2], [239.8, 143.9]]], np.float32)


def need(name: str) -> None:
    if why := networks.missing(name):
        pytest.skip(why)


@pytest.mark.parametrize(("picture", "kind"), [(astronaut(), PERSON), (coffee(), CUP)], ids=["person", "cup"])
def test_things_are_where_they_are(picture: np.ndarray, kind: int) -> None:
    need("objects")
    found = ObjectNet().objects(picture, 0.3)
    assert found.kinds[0] == kind
    assert (np.diff(found.scores) <= 0).all()
    x0, y0, x1, y1 = found.boxes[0]
    height, width = picture.shape[:2]
    assert 0 <= x0 < width / 2 < x1 <= width
    assert 0 <= y0 < height / 2 < y1 <= height
    assert len(ObjectNet().objects(np.full((64, 64, 3), 128, np.uint8), 0.3).boxes) == 0


@pytest.mark.parametrize("name", list(NETWORKS))
def test_the_more_a_face_is_changed_the_further_it_is(name: str) -> None:
    need(name)
    net = NETWORKS[name]()
    face = cv2.resize(astronaut()[40:200, 140:300], (net.side, net.side))
    changed = [face, *(cv2.GaussianBlur(face, (0, 0), net.side * s) for s in (0.01, 0.03, 0.1)), np.zeros_like(face)]
    seen = net.see(np.stack(changed).astype(np.uint8))
    assert len(seen.vectors) == 5
    first = net.see(np.stack([face] * 5))
    apart = distances(first, seen)
    assert apart[0] == pytest.approx(0, abs=1e-5)
    assert (np.diff(apart[:4]) > 0).all()
    assert apart[4] > apart[2]  # of what shows nothing any more, not all is further than the rest
    assert apart.max() <= 2


def test_a_mirrored_face_looks_the_other_way() -> None:
    pull(["iris"])
    image, look = astronaut(), IrisLook()
    meshes, _ = FaceMesh().fit(image, BOX, POINTS)
    mirrored = (meshes * [-1, 1, 1] + [image.shape[1] - 1, 0, 0])[:, MIRROR].astype(np.float32)
    here, there = look.gaze(image, meshes), look.gaze(np.ascontiguousarray(image[:, ::-1]), mirrored)
    assert np.abs(here).max() < 0.3
    np.testing.assert_allclose(there * [-1, 1], here, atol=0.02)
    # both irises drawn anew to the image's left are found there
    moved = look.gaze(np.roll(image, -3, axis=1), meshes)
    assert moved[0, 0] < here[0, 0] - 0.05
    assert np.isnan(look.gaze(image, np.zeros_like(meshes))).all()
