"""The outline of the head, on NASA's portrait of Eileen Collins, public domain, that ships with scikit-image."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from skimage import data

from mfmc_ray.faces.detect import YuNet
from mfmc_ray.faces.embed import SFaceEmbedder
from mfmc_ray.faces.mesh import FaceMesh
from mfmc_ray.pipeline.window import Window
from mfmc_ray.swap.outline import FOREHEAD, HAIRLINE, SIDES, Head, Outline, outlined
from mfmc_ray.swap.protocol import Patch

pytestmark = pytest.mark.models
NOBODY = np.zeros((0, 4), np.float32)
EYES, LIPS, TOP = [33, 133, 263, 362], [13, 14], 10


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.ascontiguousarray(data.astronaut())


def fit(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    face = YuNet(min_score=0.5).detect(image)
    one = [int(np.argmax(face.sizes))]
    return FaceMesh().fit(image, face.boxes[one], face.points[one])[0][0], face.points[one]


@pytest.fixture(scope="module")
def mesh(image: np.ndarray) -> np.ndarray:
    return fit(image)[0]


def as_it_is(image: np.ndarray, mesh: np.ndarray) -> Patch:
    """A patch that changes nothing."""
    (x0, y0), (x1, y1) = (np.round(v).astype(int).tolist() for v in (mesh[:, :2].min(0), mesh[:, :2].max(0)))
    return Patch(x0, y0, image[y0:y1, x0:x1].copy(), mesh, 1.0)


def capped(image: np.ndarray, mesh: np.ndarray, hairline: float) -> np.ndarray:
    """Bare skin above the brows, and from the hairline on dark hair."""
    head, result = Head.of(image, mesh), image.copy()
    skin = np.median([image[round(y), round(x)] for x, y in mesh[[50, 280, 205, 425], :2].tolist()], 0)
    for low, high, colour in ((0.1, hairline, skin.tolist()), (hairline, 1.25, (40, 30, 25))):
        corners = [head.at(np.float32(x), np.float32(y)) for x, y in ((-0.4, low), (0.4, low), (0.4, high), (-0.4, high))]
        cv2.fillPoly(result, [np.round(corners).astype(np.int32)], colour)
    return result


def shaped(image: np.ndarray, mesh: np.ndarray, outline: Outline, others: np.ndarray = NOBODY) -> tuple[np.ndarray, np.ndarray]:
    before = image.copy()
    patch = outlined(image, as_it_is(image, mesh), Head.of(image, mesh), outline, others)
    np.testing.assert_array_equal(image, before)
    patch.paste(before)
    return before, patch.mesh


@pytest.mark.parametrize("lift", [-0.1, 0.1])
def test_the_hairline_moves_and_the_features_stay(image: np.ndarray, mesh: np.ndarray, lift: float) -> None:
    width, cap = Head.of(image, mesh).width, capped(image, mesh, 0.55)
    assert Head.of(cap, mesh).hairline == pytest.approx(0.55, abs=0.04)
    assert Head.of(shaped(cap, mesh, Outline(lift, 0.0))[0], mesh).hairline == pytest.approx(0.55 + lift, abs=0.04)
    result, moved = shaped(image, mesh, Outline(lift, 0.0))
    off = (moved - mesh) / width
    assert np.abs(off[EYES + LIPS, :2]).max() < 0.005
    assert off[TOP, 1] == pytest.approx(-lift, abs=0.06)
    np.testing.assert_array_equal(off[:, 2], 0)
    seen, _ = fit(result)  # where a fresh look finds the face
    assert np.linalg.norm((seen - mesh)[EYES + LIPS, :2], axis=1).max() < 0.04 * width


def test_the_sides_move(image: np.ndarray, mesh: np.ndarray) -> None:
    _, wide = shaped(image, mesh, Outline(0.0, 0.04))
    _, narrow = shaped(image, mesh, Outline(0.0, -0.06))
    across = [float(np.ptp(Head.of(image, mesh).measures(one[:, :2])[0])) for one in (narrow, mesh, wide)]
    np.testing.assert_allclose(np.diff(across), [0.12, 0.08], atol=0.03)


def test_a_recognizer_knows_the_person_less(image: np.ndarray, mesh: np.ndarray) -> None:
    (_, points), embedder = fit(image), SFaceEmbedder()
    (original,) = embedder.embed(image, points)
    alike = [float(original @ embedder.embed(shaped(image, mesh, one)[0], points)[0]) for one in Outline.choices(0.5, 1.0)]
    assert len(alike) == 8
    assert max(alike) < 0.97
    assert min(alike) < 0.88


def test_other_faces_and_the_border_stay(image: np.ndarray, mesh: np.ndarray) -> None:
    head = Head.of(image, mesh)
    x, y = head.at(np.float32(0.85), np.float32(0.6))
    box = np.array([[x - 15, y - 15, x + 15, y + 15]], np.float32)
    outline = Outline(0.12, 0.04)
    alone, _ = shaped(image, mesh, outline)
    beside, _ = shaped(image, mesh, outline, box)
    area = slice(int(y - 17), int(y + 17)), slice(int(x - 17), int(x + 17))  # with a cover's margin, less a px
    assert (alone[area] != image[area]).mean() > 0.5
    np.testing.assert_array_equal(beside[area], image[area])
    assert (beside != image).mean() > 0.01
    x, y = head.at(np.float32(0.3), np.float32(0.9))
    upon, _ = shaped(image, mesh, outline, np.array([[x - 9, y - 9, x + 9, y + 9]], np.float32))
    np.testing.assert_array_equal(upon, image)
    x0, y0 = (int(v) for v in head.at(np.float32(-0.45), np.float32(0.75)))
    cut = np.ascontiguousarray(image[y0:, x0:])
    result, _ = shaped(cut, mesh - np.array([x0, y0, 0], np.float32), outline)
    assert np.abs(result.astype(int) - cut)[[0], :].max() <= 1
    assert np.abs(result.astype(int) - cut)[:, [0]].max() <= 1
    assert (result != cut).any()


def test_it_turns_with_the_head(image: np.ndarray, mesh: np.ndarray) -> None:
    outline = Outline(0.12, -0.05)
    upright, _ = shaped(image, mesh, outline)
    turned = np.ascontiguousarray(np.rot90(image))
    rolled = np.column_stack([mesh[:, 1], image.shape[1] - 1 - mesh[:, 0], mesh[:, 2]]).astype(np.float32)
    result, _ = shaped(turned, rolled, outline)
    off = np.abs(np.rot90(result, -1).astype(int) - upright)
    assert off.mean() < 0.5
    assert (upright != image).mean() > 0.1


@pytest.mark.parametrize("hairline", np.linspace(0.2, 1, 9).tolist())
def test_foreheads_stay_likely(hairline: float) -> None:
    outlines = [Outline.of(seed, hairline) for seed in range(200)] + Outline.choices(hairline, 1.0)
    lifts, outs = (np.array([getattr(one, name) for one in outlines]) for name in ("lift", "out"))
    assert (np.abs(lifts) <= HAIRLINE[1] + 1e-6).all()
    assert np.abs(lifts).min() >= HAIRLINE[0] - 1e-6
    up, down = hairline + lifts[lifts > 0], hairline + lifts[lifts < 0]
    assert (up <= FOREHEAD[1] + 1e-6).all()
    assert (down >= FOREHEAD[0] - 1e-6).all()
    assert outs.min() >= SIDES[0]
    assert outs.max() <= SIDES[1]
    assert Outline.of(7, hairline) == Outline.of(7, hairline)
    assert len({(one.lift, one.out) for one in outlines}) > 150
    if 0.45 < hairline < 0.65:
        assert 0.3 < (lifts > 0).mean() < 0.7


def test_a_turned_head_keeps_its_sides() -> None:
    assert Outline.of(3, 0.5, 0.6).out == 0
    assert {one.out for one in Outline.choices(0.5, 0.7)} == {0}


def test_nothing_to_change_is_nothing_changed(image: np.ndarray, mesh: np.ndarray) -> None:
    patch = as_it_is(image, mesh)
    assert outlined(image, patch, Head.of(image, mesh), Outline(0.0, 0.0), NOBODY) is patch


def test_who_is_bald_has_no_hairline(image: np.ndarray, mesh: np.ndarray) -> None:
    assert Head.of(capped(image, mesh, 1.2), mesh).hairline == 1


@pytest.mark.parametrize("roll", range(0, 360, 45))
@pytest.mark.parametrize("flat", [1.0, 0.7])
def test_a_window_around_the_face_is_enough(image: np.ndarray, mesh: np.ndarray, roll: int, flat: float) -> None:
    picture, head = np.full((900, 900, 3), 90, np.uint8), Head.of(image, mesh)
    cv2.randu(picture, 60, 200)
    along = (mesh[:, :2] - head.eyes) @ head.up * flat  # flat: a head that looks down
    across, angle = (mesh[:, :2] - head.eyes) @ head.right, np.radians(roll)
    up, right = np.array([np.sin(angle), -np.cos(angle)]), np.array([np.cos(angle), np.sin(angle)])
    points = np.array([450, 450]) + across[:, None] * right + along[:, None] * up
    there = np.column_stack([points, mesh[:, 2]]).astype(np.float32)
    for outline in (Outline(0.15, 0.04), Outline(-0.15, -0.06)):
        whole, part = (shaped(one, there, outline)[0] for one in (picture, Window.around(picture, there).canvas()))
        changed = (whole != picture).any(2)
        assert changed.mean() > 0.02
        window = Window.around(picture, there).canvas()
        patch = outlined(window, as_it_is(window, there), Head.of(window, there), outline, NOBODY)
        area = slice(patch.y, patch.y + patch.pixels.shape[0]), slice(patch.x, patch.x + patch.pixels.shape[1])
        np.testing.assert_array_equal(part[area], whole[area])
        assert not changed.sum() - changed[area].sum()


def test_where_the_face_shows_moves_with_it(image: np.ndarray, mesh: np.ndarray) -> None:
    plain = as_it_is(image, mesh)
    front = np.zeros(plain.pixels.shape[:2], np.uint8)
    cv2.fillConvexPoly(front, cv2.convexHull(np.round(mesh[:, :2] - [plain.x, plain.y]).astype(np.int32)), 1)
    x, y = plain.x + plain.pixels.shape[1], plain.y + plain.pixels.shape[0]
    neighbour = np.array([[x + 2, y, x + 80, y + 80]], np.float32)
    moved = outlined(image, replace(plain, front=front > 0), Head.of(image, mesh), Outline(0.1, 0.04), neighbour)
    assert moved.front is not None
    assert moved.front.shape == moved.pixels.shape[:2]
    hull = np.zeros(moved.pixels.shape[:2], np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(np.round(moved.mesh[:, :2] - [moved.x, moved.y]).astype(np.int32)), 1)
    inner = cv2.erode(hull, np.ones((7, 7), np.uint8)) > 0
    assert moved.front[inner].mean() > 0.99
    assert (moved.front & (hull == 0)).sum() < 0.005 * hull.sum()  # where an interpolated pixel would be the picture's in part it is not
    assert outlined(image, plain, Head.of(image, mesh), Outline(0.1, 0.04), neighbour).front is None
    assert outlined(image, replace(plain, front=front > 0), Head.of(image, mesh), Outline(0.1, 0.04), NOBODY).front is None
