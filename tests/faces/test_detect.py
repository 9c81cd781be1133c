"""Detectors on real faces: turned, huge, tiny, cut by the border, in large images."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as Pictures
from sick_networks import Sick, blind, on_gpu
from skimage.data import astronaut

from mfmc_ray.faces.detect import CenterFace, Scanner, YuNet, _resized, _starts, overlap, prove, suppress
from mfmc_ray.faces.faces import F32, Faces, Image
from mfmc_ray.faces.protocols import Detector
from mfmc_ray.faces.store import ModelError, model_path

pytestmark = pytest.mark.models

FACE = np.array([[182, 68, 268, 178]], np.float32)  # the astronaut's, by eye
EYES = np.array([[203, 101], [246, 103]], np.float32)


@pytest.fixture(scope="module", params=[YuNet, CenterFace], ids=lambda kind: kind.name)
def detector(request: pytest.FixtureRequest) -> Detector:
    found: Detector = request.param()
    return found


@pytest.fixture(scope="module")
def yunet() -> YuNet:
    return YuNet()


@pytest.fixture(scope="module")
def photo() -> Image:
    return np.ascontiguousarray(astronaut())


def iou(faces: Faces, box: F32) -> F32:
    return overlap(faces.boxes, box)[0][:, 0]


def test_finds_the_face_and_its_points(detector: Detector, photo: Image) -> None:
    faces = detector.detect(photo)
    assert faces.detectors == (detector.name,) * len(faces)
    assert np.all(np.diff(faces.scores) <= 0)
    assert faces.scores[0] > 0.8
    assert iou(faces, FACE)[0] > 0.6
    np.testing.assert_allclose(faces.points[0, :2], EYES, atol=8)
    left_mouth, right_mouth = faces.points[0, 3:]
    assert left_mouth[0] < faces.points[0, 2, 0] < right_mouth[0]
    assert left_mouth[1] > faces.points[0, 2, 1] > EYES[:, 1].max()
    assert (iou(faces, FACE) > 0.4).sum() == 1  # scales are merged


@pytest.mark.parametrize("size", [16, 40, 200, 500])
def test_finds_faces_of_any_size_at_their_place(detector: Detector, photo: Image, size: int) -> None:
    k = size / 97
    small = cv2.resize(photo, None, fx=k, fy=k, interpolation=cv2.INTER_AREA if k < 1 else cv2.INTER_LINEAR)
    image = np.full((1200, 1600, 3), 128, np.uint8) if size < 100 else np.full((*small.shape[:2], 3), 128, np.uint8)
    image[: small.shape[0], : small.shape[1]] = small
    faces = detector.detect(image)
    assert iou(faces, FACE * k).max() > 0.5


@pytest.mark.parametrize(
    "crop",
    [(160, 55, 275, 210), (215, 40, 400, 230), (120, 130, 320, 300)],
    ids=["fills the picture", "left half cut", "upper half cut"],
)
def test_finds_faces_that_fill_or_leave_the_picture(yunet: YuNet, photo: Image, crop: tuple[int, int, int, int]) -> None:
    x0, y0, x1, y1 = crop
    faces = Faces.concat([found.detect(np.ascontiguousarray(photo[y0:y1, x0:x1])) for found in (yunet, CenterFace())])
    seen = np.clip(FACE, [x0, y0] * 2, [x1, y1] * 2) - [x0, y0, x0, y0]
    best = int(np.argmax(faces.scores))
    assert faces.scores[best] > 0.6
    clipped = np.clip(faces.boxes[[best]], 0, [x1 - x0, y1 - y0] * 2)
    assert overlap(clipped, seen.astype(np.float32))[0][0, 0] > 0.5


def test_a_box_may_reach_beyond_the_border(yunet: YuNet, photo: Image) -> None:
    faces = yunet.detect(np.ascontiguousarray(photo[40:300, 200:420]))
    assert faces.boxes[0, 0] < 0


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_finds_turned_faces_and_keeps_their_own_left_and_right(yunet: YuNet, photo: Image, quarters: int) -> None:
    faces = yunet.detect(np.ascontiguousarray(np.rot90(photo, quarters)))
    assert faces.scores[0] > 0.6
    points = faces.points[0]
    for _ in range(quarters):  # undo: x' = y, y' = width − 1 − x
        points = np.stack([photo.shape[1] - 1 - points[:, 1], points[:, 0]], axis=1)
    np.testing.assert_allclose(points[:2], EYES, atol=8)


def test_a_small_face_in_a_very_large_image(yunet: YuNet, photo: Image) -> None:
    image = np.full((9000, 12000, 3), 90, np.uint8)
    k, x, y = 0.5, 8321, 5077
    small = cv2.resize(photo, None, fx=k, fy=k, interpolation=cv2.INTER_AREA)
    image[y : y + 256, x : x + 256] = small
    faces = yunet.detect(image)
    assert iou(faces, FACE * k + np.array([x, y, x, y], np.float32)).max() > 0.5


@pytest.mark.parametrize("shape", [(1, 1), (2, 3000), (3000, 2), (7, 5)])
@pytest.mark.parametrize("value", [0, 255])
def test_images_of_odd_shape_have_no_face(detector: Detector, shape: tuple[int, int], value: int) -> None:
    faces = detector.detect(np.full((*shape, 3), value, np.uint8))
    assert (faces.scores < 0.6).all()


def test_min_score(photo: Image) -> None:
    many, few = YuNet(min_score=0.1).detect(photo), YuNet(min_score=0.8).detect(photo)
    assert len(many) > len(few) >= 1
    assert few.scores.min() >= 0.8


def test_input_is_rgb(yunet: YuNet, photo: Image) -> None:
    # the reference: OpenCV's own reader of the quantised file, which takes BGR
    size = 512
    reference = cv2.FaceDetectorYN_create(str(model_path("yunet")), "", (size, size), 0.5, 0.3, 5000)
    row = max(reference.detect(np.ascontiguousarray(photo[:, :, ::-1]))[1], key=lambda row: float(row[14]))
    ours = suppress(yunet._run(photo))[0]
    np.testing.assert_allclose(ours[14], row[14], atol=2e-3)
    np.testing.assert_allclose(ours[4:14], row[4:14], atol=0.5)


@pytest.mark.parametrize("length", [1, 1536, 1537, 3000, 5120])
def test_tiles_cover_everything(length: int) -> None:
    starts = _starts(length)
    covered = np.zeros(length, int)
    for start in starts:
        covered[start : start + 1536] += 1
    assert covered.min() >= 1
    assert len(starts) <= 1 + length // 1280
    if len(starts) > 1:
        assert all(later - earlier <= 1280 for earlier, later in pairwise(starts))


def test_copies_are_made_from_smaller_ones_of_the_image_only() -> None:
    image = np.random.default_rng(0).integers(0, 255, (100, 200, 3), np.uint8)
    copies = [image]
    assert _resized(copies, (200, 100)) is image
    large = _resized(copies, (400, 200))
    assert large.shape == (200, 400, 3)
    np.testing.assert_array_equal(_resized(copies, (100, 50)), cv2.resize(image, (100, 50), interpolation=cv2.INTER_AREA))
    assert _resized(copies, (400, 200)) is large


def test_overlap_and_suppress() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5], [20, 20, 30, 30], [5, 5, 5, 5]], np.float32)
    iou, inside = overlap(boxes, boxes)
    assert iou[0, 1] == pytest.approx(0.5)
    assert inside[0, 1] == pytest.approx(1)
    assert iou[0, 2] == inside[0, 2] == 0
    assert np.isfinite(iou).all()
    rows = np.column_stack([boxes[:3], [0.5, 0.9, 0.7]]).astype(np.float32)
    np.testing.assert_array_equal(suppress(rows, 0.4)[:, -1], np.array([0.9, 0.7], np.float32))
    assert len(suppress(rows, 0.6)) == 3
    assert suppress(rows[:0]).shape == (0, 5)


@pytest.mark.parametrize(("folder", "least"), [("portraits", 1.0), ("attributes", 1.0), ("people", 1.0), ("official_portraits", 0.9)])
def test_portraits_of_every_kind(detector: Detector, shared_data: Path, load: Callable[[Path], Image], folder: str, least: float) -> None:
    paths = sorted((shared_data / folder).rglob("*.jpg"))[:: 60 if folder == "people" else 40 if folder != "official_portraits" else 6]
    found = [float(detector.detect(load(path)).scores[:1].sum()) > 0.6 for path in paths]
    assert np.mean(found) >= least


@pytest.fixture
def load() -> Callable[[Path], Image]:
    return lambda path: np.asarray(Pictures.open(path).convert("RGB"))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("output", [0, 2, -1])
def test_what_is_no_number_is_no_empty_picture(
    detector: Detector, photo: Image, output: int, bad: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(outputs: list[np.ndarray]) -> None:
        outputs[output].flat[0] = bad

    monkeypatch.setattr(detector, "_net", Sick(detector._net, spoil))  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match=f"{detector.name} gives what is no number"):
        detector.detect(photo)


def test_boxes_that_are_no_numbers_are_no_empty_picture(detector: Detector, photo: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(outputs: list[np.ndarray]) -> None:
        for output in outputs:
            if output.shape[-1] == 4 or output.shape[1] == 2:  # of the sizes of boxes the exponential is taken
                output[:] = 1000

    monkeypatch.setattr(detector, "_net", Sick(detector._net, spoil))  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match="no number"):
        detector.detect(photo)


def test_a_detector_that_is_blind_is_noticed(detector: Detector, photo: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    prove(detector)
    monkeypatch.setattr(detector, "_net", Sick(detector._net, blind))  # type: ignore[attr-defined]
    assert len(detector.detect(photo)) == 0
    with pytest.raises(ModelError, match=f"{detector.name} does not find a face that is plain to see"):
        prove(detector)


@pytest.mark.parametrize("kind", [YuNet, CenterFace])
def test_on_a_gpu_each_must_see_when_it_is_loaded_and_computes_exactly(kind: type[Scanner], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        exact = on_gpu(patch, lambda outputs: None)
        kind()
        assert exact == [True]
    on_gpu(monkeypatch, blind)
    with pytest.raises(ModelError, match=r"plain to see: .* set ray.providers"):
        kind()
