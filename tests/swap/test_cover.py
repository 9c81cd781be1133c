"""What lies in front of a face, drawn on NASA's portrait of Eileen Collins (public domain) that ships with scikit-image."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from mfmc_ray.codec import decode
from mfmc_ray.faces.detect import YuNet
from mfmc_ray.faces.mesh import FaceMesh
from mfmc_ray.identities.model import load_model
from mfmc_ray.identities.sample import sample
from mfmc_ray.identities.surface import IMAGE_LEFT_EYE, IMAGE_RIGHT_EYE
from mfmc_ray.pipeline.unfit import HALF_COVERED
from mfmc_ray.swap.cover import GLASSES, PAGE, CoverFinder
from mfmc_ray.swap.glasses import GlassesReader
from mfmc_ray.swap.mouth import MouthReader
from mfmc_ray.swap.render import MorphSwapper

pytestmark = pytest.mark.models

Draw = Callable[[np.ndarray, np.ndarray], None]


def fitted(image: np.ndarray) -> np.ndarray:
    faces = YuNet(min_score=0.5).detect(image)
    one = [int(np.argmax(faces.sizes))]
    return FaceMesh().fit(image, faces.boxes[one], faces.points[one])[0][0]


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.ascontiguousarray(data.astronaut())


@pytest.fixture(scope="module")
def mesh(image: np.ndarray) -> np.ndarray:
    return fitted(image)


@pytest.fixture(scope="module")
def finder() -> CoverFinder:
    return CoverFinder(load_model(), GlassesReader(), MouthReader())


def eyes(mesh: np.ndarray) -> list[tuple[int, int]]:
    return [tuple(np.round(mesh[list(ring), :2].mean(0)).astype(int).tolist()) for ring in (IMAGE_LEFT_EYE, IMAGE_RIGHT_EYE)]


def lenses(image: np.ndarray, mesh: np.ndarray, thickness: int) -> None:
    apart = float(np.linalg.norm(np.subtract(*eyes(mesh))))
    for centre in eyes(mesh):
        cv2.ellipse(image, centre, (int(0.4 * apart), int(0.34 * apart)), 0, 0, 360, (25, 20, 20), thickness, cv2.LINE_AA)
    (x0, y0), (x1, y1) = eyes(mesh)
    cv2.line(image, (x0 + int(0.38 * apart), y0), (x1 - int(0.38 * apart), y1), (25, 20, 20), 3, cv2.LINE_AA)


def clear_glasses(image: np.ndarray, mesh: np.ndarray) -> None:
    lenses(image, mesh, 3)


def sunglasses(image: np.ndarray, mesh: np.ndarray) -> None:
    lenses(image, mesh, -1)


def green_ball(image: np.ndarray, mesh: np.ndarray) -> None:
    x, y = np.round(mesh[152, :2]).astype(int)
    cv2.circle(image, (int(x), int(y)), int(0.25 * np.ptp(mesh[:, 0])), (60, 200, 60), -1, cv2.LINE_AA)


def paper_before_the_mouth(image: np.ndarray, mesh: np.ndarray) -> None:
    cv2.fillConvexPoly(image, cv2.convexHull(np.round(mesh[[50, 280, 6, 172, 397, 152], :2]).astype(np.int32)), (215, 225, 235))


def drawn(image: np.ndarray, mesh: np.ndarray, draw: Draw) -> np.ndarray:
    result = image.copy()
    draw(result, mesh)
    return result


def test_a_bare_face_shows_its_skin(image: np.ndarray, mesh: np.ndarray, finder: CoverFinder) -> None:
    found = finder(image, mesh)
    assert found.page.shape == (PAGE, PAGE)
    assert found.page.dtype == np.float32
    assert 0 <= float(found.page.min()) <= float(found.page.max()) <= 1
    assert found.glasses < GLASSES
    assert max(found.eyes, found.nose, found.mouth, found.half) < 0.1
    assert float(found.page[40:90, 30:98].mean()) < 0.05


@pytest.mark.parametrize("width", [60, 128, 300])
def test_clear_glasses_leave_the_eyes_free(image: np.ndarray, mesh: np.ndarray, finder: CoverFinder, width: int) -> None:
    scale = width / float(np.ptp(mesh[:, 0]))
    worn = cv2.resize(drawn(image, mesh, clear_glasses), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    found = finder(worn, (mesh * scale).astype(np.float32))
    assert found.glasses >= GLASSES
    assert found.eyes < 0.2
    left, right = (float(found.page[20:66, half].sum()) for half in (slice(0, 64), slice(64, 128)))
    assert 0.6 < left / right < 1.7  # never half of them


def test_dark_lenses_cover_the_eyes(image: np.ndarray, mesh: np.ndarray, finder: CoverFinder) -> None:
    assert finder(drawn(image, mesh, sunglasses), mesh).eyes > 0.9


def test_an_object_is_found_where_it_is(image: np.ndarray, mesh: np.ndarray, finder: CoverFinder) -> None:
    found = finder(drawn(image, mesh, green_ball), mesh)
    assert float(found.page[112:124, 56:72].mean()) > 0.9
    assert float(found.page[40:80, 30:98].mean()) < 0.05
    assert found.eyes < 0.1


def test_a_mouth_that_cannot_be_seen_is_covered(image: np.ndarray, mesh: np.ndarray, finder: CoverFinder) -> None:
    assert finder(drawn(image, mesh, paper_before_the_mouth), mesh).mouth > 0.9


def test_a_half_beside_the_face_is_hidden(image: np.ndarray, mesh: np.ndarray, finder: CoverFinder) -> None:
    beside = image.copy()
    beside[:, : round(float(mesh[133, 0]))] = (30, 40, 60)  # as of a profile whose mesh is turned too little
    assert finder(beside, mesh).half > HALF_COVERED
    assert finder(drawn(image, mesh, clear_glasses), mesh).half < 0.1


@pytest.mark.parametrize(("draw", "most"), [(clear_glasses, 30), (sunglasses, 12), (green_ball, 12)])
def test_what_covers_the_face_stays_in_front_of_the_fake(image: np.ndarray, mesh: np.ndarray, draw: Draw, most: float) -> None:
    covered = drawn(image, mesh, draw)
    patch = MorphSwapper(load_model()).swap(covered, mesh, sample(load_model(), 1), strength=0)
    result = covered.copy()
    patch.paste(result)
    object_ = (np.abs(covered.astype(int) - image).max(2) > 60).astype(np.uint8)
    change = np.abs(result.astype(int) - covered).mean(2)
    assert change[object_ > 0].mean() < most
    assert change[object_ == 0].max() > 12


@pytest.mark.parametrize("shift", [(-170, 0), (250, 0), (0, -60), (0, 700)])
def test_faces_cut_by_the_border_do_not_break_it(image: np.ndarray, mesh: np.ndarray, finder: CoverFinder, shift: tuple[int, int]) -> None:
    moved = cv2.warpAffine(image, np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32), (512, 512))
    found = finder(moved, (mesh + np.array([*shift, 0], np.float32)).astype(np.float32))
    assert np.isfinite(found.page).all()


def test_sunglasses_are_rare_on_photos(shared_data: Path, finder: CoverFinder) -> None:
    detector, fitter, hidden = YuNet(min_score=0.6), FaceMesh(), 0
    for path in sorted((shared_data / "people").glob("*/*"))[::4]:
        image = decode(path.read_bytes()).pixels
        faces = detector.detect(image)
        if len(faces):
            one = [int(np.argmax(faces.sizes))]
            hidden += finder(image, fitter.fit(image, faces.boxes[one], faces.points[one])[0][0]).eyes > 0.5
    assert hidden <= 4  # of 130


def a_hand(centre: np.ndarray, size: float) -> np.ndarray:
    """Joints (21, 2), px, of a hand held up, its palm about a point."""
    fingers = [(x, 0.1 - 0.25 * k) for x in (-0.45, -0.15, 0.15, 0.45) for k in range(4)]
    thumb = [(-0.5, 0.6), (-0.75, 0.4), (-0.9, 0.2), (-1.0, 0.0)]
    return (centre + size * np.array([(0.0, 1.1), *thumb, *fingers])).astype(np.float32)


def test_hands_cover_what_is_behind_them(image: np.ndarray, mesh: np.ndarray, finder: CoverFinder) -> None:
    bare = finder.find(image, mesh)
    width = float(np.ptp(mesh[:, 0]))
    assert finder.behind_hands(bare, np.zeros((0, 21, 2), np.float32), mesh, image.shape) is bare
    beside = a_hand(mesh[234, :2] - [1.5 * width, 0], 0.3 * width)
    assert finder.behind_hands(bare, beside[None], mesh, image.shape) is bare
    before = finder.behind_hands(bare, a_hand(mesh[13, :2], 0.3 * width)[None], mesh, image.shape)
    assert before.mouth > 0.8 > 0.2 > bare.mouth
    assert before.eyes == bare.eyes
    assert before.objects[finder.lips].mean() > 0.8
    assert (before.objects >= bare.objects).all()
    np.testing.assert_array_equal(before.rims, bare.rims)
    cheek = finder.behind_hands(bare, a_hand(mesh[205, :2], 0.22 * width)[None], mesh, image.shape)
    assert cheek.half > 0.4 > bare.half
    eye = finder.behind_hands(bare, a_hand(mesh[[33, 133], :2].mean(0), 0.22 * width)[None], mesh, image.shape)
    assert eye.eyes > HALF_COVERED
    assert eye.half > HALF_COVERED  # redacted


def test_a_hand_stays_before_the_fake(image: np.ndarray, mesh: np.ndarray, finder: CoverFinder) -> None:
    swapper, width = MorphSwapper(load_model()), float(np.ptp(mesh[:, 0]))
    hand = a_hand(mesh[205, :2] + [0, 0.1 * width], 0.2 * width)
    covered = finder.behind_hands(finder.find(image, mesh), hand[None], mesh, image.shape)
    x, y = hand[[5, 9, 13, 17]].mean(0).astype(int)
    for before, there in ((None, True), (covered, False)):
        patch = swapper.swap(image, mesh, sample(swapper.model, 1635), age=36.0, strength=0.0, covered=before)
        assert patch.front is not None
        assert bool(patch.front[y - patch.y, x - patch.x]) is there  # nothing of the picture shows
        cheek = mesh[425, :2].astype(int)
        assert patch.front[cheek[1] - patch.y, cheek[0] - patch.x]


def test_hands_are_looked_for_where_faces_are_covered(shared_data: Path) -> None:
    image = decode((shared_data / "people/Heizo_Takenaka/Heizo_Takenaka_0001.jpg").read_bytes()).pixels
    swapper, mesh = MorphSwapper(load_model()), fitted(image)
    with_hands, without = swapper.covered(image, mesh), swapper.covered(image, mesh, hands=False)
    assert with_hands.objects.mean() > without.objects.mean() + 0.02
