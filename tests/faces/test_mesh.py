"""The mesh and its geometry, on real faces and on turned canonical ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as Pictures
from skimage.data import astronaut

from mfmc_ray.faces.detect import YuNet
from mfmc_ray.faces.faces import F32, Faces, Image
from mfmc_ray.faces.mesh import CANONICAL, MIRROR, FaceMesh, disagreement, eye_opening, mouth_opening, pose, smile, upright_squares
from mfmc_ray.faces.store import ModelError

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def fitter() -> FaceMesh:
    return FaceMesh()


@pytest.fixture(scope="module")
def photo() -> Image:
    return np.ascontiguousarray(astronaut())


@pytest.fixture(scope="module")
def face(photo: Image) -> Faces:
    return YuNet().detect(photo).take([0])


@pytest.fixture(scope="module")
def mesh(fitter: FaceMesh, photo: Image, face: Faces) -> F32:
    meshes, _ = fitter.fit(photo, face.boxes, face.points)
    return meshes


def test_canonical_is_a_symmetric_unit_face() -> None:
    assert CANONICAL.shape == (468, 3)
    assert CANONICAL.dtype == np.float32
    np.testing.assert_allclose(CANONICAL.mean(0), 0, atol=1e-5)
    assert np.sqrt((CANONICAL**2).sum(1).mean()) == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(MIRROR[MIRROR], np.arange(468))
    np.testing.assert_array_equal(CANONICAL[MIRROR] * [-1, 1, 1], CANONICAL)
    # FaceMesh's numbering: eye corners, mouth corners, brows; forehead, nose tip and chin on the midline
    for left, right in [(33, 263), (133, 362), (61, 291), (159, 386), (105, 334), (234, 454)]:
        assert MIRROR[left] == right
        assert CANONICAL[left, 0] < 0
    for middle in (10, 1, 152, 13, 14):
        assert MIRROR[middle] == middle
    assert CANONICAL[1, 2] < CANONICAL[10, 2]  # the nose is near
    assert CANONICAL[10, 1] < CANONICAL[152, 1]  # y is down


@pytest.mark.parametrize(("yaw", "pitch", "roll"), [(0, 0, 0), (40, 0, 0), (0, 30, 0), (0, 0, 100), (-30, 20, 10), (25, -15, -170)])
def test_pose_of_a_turned_canonical_face(yaw: float, pitch: float, roll: float) -> None:
    a, b, c = np.radians([yaw, pitch, roll])
    # written from the convention: pitch > 0 lifts the nose, then yaw > 0 takes it to the right, then the picture turns clockwise
    lift = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
    aside = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    clockwise = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    nose = np.array([0, 0, -1.0])
    assert np.sign((lift @ nose)[1]) == -np.sign(pitch)
    assert np.sign((aside @ nose)[0]) == np.sign(yaw)
    turned = CANONICAL @ (clockwise @ aside @ lift).T * 80 + [300, 200, 5]
    np.testing.assert_allclose(pose(turned[None].astype(np.float32))[0], [yaw, pitch, roll], atol=0.1)


def test_fit_lies_on_the_face(fitter: FaceMesh, photo: Image, face: Faces) -> None:
    meshes, scores = fitter.fit(photo, face.boxes, face.points)
    assert meshes.shape == (1, 468, 3)
    assert meshes.dtype == scores.dtype == np.float32
    assert scores[0] > 0.95
    eyes = [meshes[0, [33, 133]].mean(0)[:2], meshes[0, [263, 362]].mean(0)[:2]]
    np.testing.assert_allclose(eyes, face.points[0, :2], atol=6)
    np.testing.assert_allclose(meshes[0, [61, 291], :2], face.points[0, 3:], atol=10)


@pytest.mark.parametrize(("size", "aside"), [(1.0, 0.7), (1.2, 0.6), (1.4, 0.5), (0.9, 0.6)])
def test_a_face_that_touches_another_keeps_its_mesh(fitter: FaceMesh, photo: Image, face: Faces, size: float, aside: float) -> None:
    box, points = face.boxes[0] + 150, face.points[0] + 150
    beside = cv2.copyMakeBorder(photo, 150, 150, 150, 150, cv2.BORDER_REPLICATE)
    (x0, y0, x1, y1), width = box, box[2] - box[0]
    other = beside[int(y0 - 0.25 * width) : int(y1 + 0.1 * width), int(x0 - 0.1 * width) : int(x1 + 0.1 * width)]
    other = np.asarray(cv2.resize(other, None, fx=size, fy=size, interpolation=cv2.INTER_AREA), np.uint8)
    height, breadth = other.shape[:2]
    middle = breadth // 2, height // 2
    oval = cv2.ellipse(np.zeros((height, breadth), np.uint8), middle, middle, 0, 0, 360, 1, -1) > 0
    corner = int(y0 - 0.25 * width), int(x0 + aside * width)
    before_it = beside[corner[0] : corner[0] + height, corner[1] : corner[1] + breadth]
    before_it[oval] = other[oval]
    meshes, scores = fitter.fit(beside, box[None], points[None])
    assert scores[0] > 0.9
    assert disagreement(meshes[0], points, box) < 0.1


def test_no_face_no_mesh(fitter: FaceMesh, photo: Image) -> None:
    meshes, scores = fitter.fit(photo, np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32))
    assert meshes.shape == (0, 468, 3)
    assert pose(meshes).shape == (0, 3)
    assert eye_opening(meshes).shape == (0, 2)
    assert mouth_opening(meshes).shape == (0,)
    assert smile(meshes).shape == (0,)
    assert upright_squares(photo, meshes, 1.2, 32).shape == (0, 32, 32, 3)
    assert len(scores) == 0


@pytest.mark.parametrize(
    "box", [[5, 5, 5, 5], [-900, -900, -800, -800], [np.nan, 0, 10, 10], [300, 330, 420, 450]], ids=["empty", "outside", "nan", "no face"]
)
def test_bad_boxes_score_low(fitter: FaceMesh, photo: Image, box: list[float]) -> None:
    meshes, scores = fitter.fit(photo, np.array([box], np.float32), np.full((1, 5, 2), 7, np.float32))
    assert scores[0] < 0.5
    assert np.isfinite(meshes).all()


@pytest.mark.parametrize("degrees", [-150, -60, 20, 90, 180])
def test_turning_the_picture_turns_the_mesh_and_changes_only_roll(
    fitter: FaceMesh, photo: Image, face: Faces, mesh: F32, degrees: float
) -> None:
    turn = cv2.getRotationMatrix2D((217, 130), -degrees, 1)  # OpenCV's angle is anticlockwise
    turn[:, 2] += 150
    image = cv2.warpAffine(photo, turn, (700, 700))
    points = face.points @ turn[:, :2].T + turn[:, 2]
    middle = (face.boxes[0, :2] + face.boxes[0, 2:]) / 2 @ turn[:, :2].T + turn[:, 2]
    box = np.concatenate([middle - 60, middle + 60])[None]
    meshes, scores = fitter.fit(image, box.astype(np.float32), points.astype(np.float32))
    assert scores[0] > 0.9
    size = np.ptp(mesh[0, :, 1])
    np.testing.assert_allclose(meshes[0, :, :2], mesh[0, :, :2] @ turn[:, :2].T + turn[:, 2], atol=0.05 * size)
    before, after = pose(mesh)[0], pose(meshes)[0]
    np.testing.assert_allclose(after[:2], before[:2], atol=4)
    assert (after[2] - before[2] - degrees + 180) % 360 - 180 == pytest.approx(0, abs=4)


def test_flipping_the_picture_mirrors_the_mesh(fitter: FaceMesh, photo: Image, face: Faces, mesh: F32) -> None:
    last = photo.shape[1] - 1
    boxes = face.boxes[:, [2, 1, 0, 3]] * np.array([-1, 1, -1, 1], np.float32) + np.array([last, 0, last, 0], np.float32)
    points = (face.points * np.array([-1, 1], np.float32) + np.array([last, 0], np.float32))[:, [1, 0, 2, 4, 3]]
    flipped, _ = fitter.fit(np.ascontiguousarray(photo[:, ::-1]), boxes, points)
    back = (flipped[0] * [-1, 1, 1] + [last, 0, 0])[MIRROR]
    np.testing.assert_allclose(back[:, :2], mesh[0, :, :2], atol=0.06 * np.ptp(mesh[0, :, 1]))
    np.testing.assert_allclose(pose(flipped)[0] * [-1, 1, -1], pose(mesh)[0], atol=5)
    np.testing.assert_allclose(eye_opening(flipped)[:, ::-1], eye_opening(mesh), atol=0.08)


@pytest.mark.parametrize("factor", [0.25, 4, 8])
def test_size_does_not_matter(fitter: FaceMesh, photo: Image, face: Faces, mesh: F32, factor: float) -> None:
    image = cv2.resize(photo, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    meshes, scores = fitter.fit(image, face.boxes * factor, face.points * factor)
    assert scores[0] > 0.9
    np.testing.assert_allclose(meshes[0, :, :2] / factor, mesh[0, :, :2], atol=0.05 * np.ptp(mesh[0, :, 1]))


def test_openings_follow_eyes_and_mouth(mesh: F32) -> None:
    assert (eye_opening(mesh) > 0.2).all()
    assert 0.05 < mouth_opening(mesh)[0] < 0.6  # she smiles with her teeth
    closed = mesh.copy()
    closed[:, [160, 159, 158]] = closed[:, [144, 145, 153]]
    closed[:, [82, 13, 312]] = closed[:, [87, 14, 317]]
    assert eye_opening(closed)[0, 0] == 0
    assert eye_opening(closed)[0, 1] == pytest.approx(eye_opening(mesh)[0, 1])
    assert mouth_opening(closed)[0] == 0


def test_a_smile_is_raised_and_wide_corners(mesh: F32) -> None:
    assert 0.5 < smile(mesh)[0] < 1.5  # she smiles with her teeth
    assert -0.5 < smile(CANONICAL[None])[0] < 0.5
    assert smile(np.zeros((1, 468, 3), np.float32))[0] == 0
    eyes = np.linalg.norm(CANONICAL[33] - CANONICAL[263])
    for change in ([0, -0.05 * eyes, 0], [0.05 * eyes, 0, 0]):
        moved = CANONICAL[None].copy()
        moved[0, 291] += change
        moved[0, 61] += np.float32([-1, 1, 1]) * change
        assert smile(moved)[0] > smile(CANONICAL[None])[0] + 0.2
    # a mouth that opens takes its corners half the way down
    opened = CANONICAL[None].copy()
    opened[0, [14, 17, 87, 317], 1] += 0.2 * eyes
    opened[0, [61, 291], 1] += 0.1 * eyes
    assert smile(opened)[0] == pytest.approx(smile(CANONICAL[None])[0], abs=0.05)


@pytest.mark.parametrize("degrees", [-120, 35, 180])
@pytest.mark.parametrize("factor", [0.2, 30])
def test_size_and_turn_do_not_change_a_smile(mesh: F32, degrees: float, factor: float) -> None:
    a, b = np.radians([degrees, 25])
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    aside = np.array([[np.cos(b), 0, -np.sin(b)], [0, 1, 0], [np.sin(b), 0, np.cos(b)]])
    turned = (mesh @ (turn @ aside).T * factor + [50, -20, 3]).astype(np.float32)
    assert smile(turned)[0] == pytest.approx(smile(mesh)[0], abs=0.01)


@pytest.mark.parametrize("degrees", [-150, 40, 90])
def test_upright_squares_do_not_turn_with_the_picture(photo: Image, mesh: F32, degrees: float) -> None:
    turn = cv2.getRotationMatrix2D((217, 130), degrees, 1)
    turn[:, 2] += 150
    image = np.asarray(cv2.warpAffine(photo, turn, (800, 800)), np.uint8)
    turned = mesh.copy()
    turned[..., :2] = mesh[..., :2] @ turn[:, :2].T + turn[:, 2]
    before, after = upright_squares(photo, mesh, 1.15, 96), upright_squares(image, turned, 1.15, 96)
    assert np.abs(before.astype(int) - after).mean() < 6
    assert np.abs(before.astype(int) - after[:, ::-1]).mean() > 20


@pytest.mark.parametrize(("scale", "shift"), [(1, -200), (1, 9000), (0, 0)], ids=["cut", "outside", "no extent"])
def test_squares_of_faces_that_are_not_in_the_picture(photo: Image, mesh: F32, scale: float, shift: float) -> None:
    moved = mesh * np.float32(scale) + np.float32([shift, 0, 0])
    assert upright_squares(photo, moved, 1.15, 64).shape == (1, 64, 64, 3)


def test_portraits_look_straight_on_average(fitter: FaceMesh, shared_data: Path) -> None:
    detector = YuNet(min_score=0.7)
    poses = []
    for path in sorted((shared_data / "portraits").glob("*.jpg"))[::10]:
        image = np.asarray(Pictures.open(path).convert("RGB"))
        faces = detector.detect(image).take([0])
        meshes, scores = fitter.fit(image, faces.boxes, faces.points)
        assert scores[0] > 0.9, path.name
        poses.append(pose(meshes)[0])
    assert np.abs(np.median(poses, axis=0)).max() < 6


@pytest.mark.parametrize("output", [0, 1])
def test_what_is_no_number_raises(photo: Image, face: Faces, output: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fitter = FaceMesh()
    net = fitter._network.interpreter()
    bad = net.get_output_details()[output]["index"]

    class Net:
        def __getattr__(self, name: str) -> Any:
            return getattr(net, name)

        def get_tensor(self, index: int) -> np.ndarray:
            found: np.ndarray = net.get_tensor(index)
            return found * np.nan if index == bad else found

    monkeypatch.setattr(fitter._network._nets, "net", Net())
    with pytest.raises(ModelError, match="no number"):
        fitter.fit(photo, face.boxes, face.points)
