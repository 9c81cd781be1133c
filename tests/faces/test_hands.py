"""Hands: none where there is none, and on photos, where they are to be had, the joints of those before faces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as Pictures
from skimage.data import astronaut

from mfmc_ray.faces.detect import YuNet
from mfmc_ray.faces.faces import F32, Image
from mfmc_ray.faces.hands import _ANCHORS, JOINTS, HandFinder, drawn
from mfmc_ray.faces.mesh import FaceMesh
from mfmc_ray.faces.store import ModelError

pytestmark = pytest.mark.models

# a hand held up, palm 40 px long, its fingers 30: wrist, thumb, then index to little finger from root to tip
_FINGERS = [[(x, 60 - 10 * k) for k in range(4)] for x in (42, 54, 66, 78)]
HAND: F32 = np.array([(60, 100), (42, 90), (32, 80), (26, 72), (22, 66), *(joint for finger in _FINGERS for joint in finger)], np.float32)


@pytest.fixture(scope="module")
def finder() -> HandFinder:
    return HandFinder()


def look(image: Image) -> F32:
    """The mesh of the largest face."""
    faces = YuNet().detect(image)
    one = [int(np.argmax(faces.sizes))]
    return FaceMesh().fit(image, faces.boxes[one], faces.points[one])[0][0]


def photo(path: Path) -> Image:
    return np.asarray(Pictures.open(path).convert("RGB"))


def test_cells_of_the_palm_network() -> None:
    assert _ANCHORS.shape == (24 * 24 * 2 + 12 * 12 * 6, 2)
    assert 0 < _ANCHORS.min() < _ANCHORS.max() < 1
    np.testing.assert_allclose(_ANCHORS.mean(0), 0.5, atol=1e-6)


def test_a_drawn_hand_covers_its_joints_and_the_arm() -> None:
    page = drawn(HAND[None], (160, 120))
    for x, y in HAND.astype(int):
        assert page[y, x] == 255
    assert page[120, 60] == 255  # the arm
    assert page[80, 60] == 255  # the palm
    assert page[20, 60] == page[70, 110] == page[40, 5] == 0
    np.testing.assert_array_equal(drawn(np.zeros((0, JOINTS, 2), np.float32), (9, 7)), 0)
    assert drawn(HAND[None] + 500, (160, 120)).max() == 0


def test_a_hand_seen_from_its_edge_is_as_thick() -> None:
    thin = HAND.copy()
    thin[:, 0] = 60
    rows = (drawn(thin[None], (160, 120)) > 0).sum(1)
    assert 8 <= rows[45] <= 16


def test_where_there_is_no_hand_none_is_found(finder: HandFinder) -> None:
    image = np.ascontiguousarray(astronaut())
    found = finder.find(image, look(image))
    assert found.shape == (0, JOINTS, 2)
    assert found.dtype == np.float32
    for scale, shift in ((0, 0), (1, 9000)):  # a face without extent, one outside
        mesh = look(image) * np.float32(scale) + np.float32([shift, 0, 0])
        assert len(finder.find(image, mesh)) == 0


@pytest.mark.parametrize("name", ["_palm", "_hand"])
def test_what_is_no_number_raises(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = getattr(HandFinder(), name)
    net = network.interpreter()

    class Net:
        def __getattr__(self, name: str) -> Any:
            return getattr(net, name)

        def get_tensor(self, index: int) -> np.ndarray:
            found: np.ndarray = net.get_tensor(index)
            return found * np.nan

    monkeypatch.setattr(network._nets, "net", Net())
    with pytest.raises(ModelError, match="no number"):
        network(np.zeros(net.get_input_details()[0]["shape"], np.uint8))


BEFORE = ("Jack_Straw/Jack_Straw_0004", "Heizo_Takenaka/Heizo_Takenaka_0001", "Emanuel_Ginobili/Emanuel_Ginobili_0002")
"""News photos with a hand before the face: it covers some of the box around the mesh."""


@pytest.mark.parametrize("name", BEFORE)
def test_hands_before_faces_are_found(finder: HandFinder, shared_data: Path, name: str) -> None:
    image = photo(shared_data / "people" / f"{name}.jpg")
    mesh = look(image)
    hands = finder.find(image, mesh)
    assert len(hands) >= 1
    low, high = mesh[:, :2].min(0), mesh[:, :2].max(0)
    page = drawn(hands, image.shape)
    x0, y0, x1, y1 = (*low.astype(int), *high.astype(int))
    assert (page[y0:y1, x0:x1] > 0).mean() > 0.03
    # the picture turned: the same joints, turned
    turned = np.ascontiguousarray(np.rot90(image))
    again = np.column_stack([mesh[:, 1], image.shape[1] - 1 - mesh[:, 0], mesh[:, 2]]).astype(np.float32)
    other = drawn(finder.find(turned, again), turned.shape)
    both = np.rot90(page) > 0
    assert ((other > 0) & both).sum() > 0.6 * both.sum()


def test_faces_are_no_hands(finder: HandFinder, shared_data: Path) -> None:
    seen = found = 0
    for path in sorted((shared_data / "official_portraits").iterdir())[::3]:
        image = photo(path)
        faces = YuNet().detect(image)
        meshes, scores = FaceMesh().fit(image, faces.boxes, faces.points)
        for mesh in meshes[scores > 0.5]:
            page = drawn(finder.find(image, mesh), image.shape)
            inside = np.zeros_like(page)
            cv2.fillConvexPoly(inside, cv2.convexHull(np.round(mesh[:, :2]).astype(np.int32)), 1)
            seen += 1
            found += bool((page[inside > 0] > 0).mean() > 0.02)
    assert seen >= 15
    assert found == 0
