"""Merging detectors, and finding faces in real photos."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pictures
from skimage.data import astronaut

from mfmc_ray.faces.detect import CenterFace, YuNet, overlap
from mfmc_ray.faces.faces import Faces, Image
from mfmc_ray.faces.finder import FaceFinder, merge
from mfmc_ray.faces.mesh import FaceMesh

BIG = (100, 100, 200, 220)
NEAR = (104, 96, 203, 214)  # the same face as BIG
EYE = (120, 130, 140, 150)  # inside BIG
ELSEWHERE = (400, 100, 450, 160)


def detections(name: str, *found: tuple[tuple[int, int, int, int], float]) -> Faces:
    boxes = np.array([box for box, _ in found], np.float32).reshape(-1, 4)
    points = np.repeat((boxes[:, None, :2] + boxes[:, None, 2:]) / 2, 5, axis=1)
    return Faces(boxes, points, np.array([score for _, score in found], np.float32), (name,) * len(found))


@pytest.mark.parametrize(
    ("a", "b", "wanted"),
    [
        ([(BIG, 0.9)], [], [(BIG, "a")]),
        ([(BIG, 0.5)], [], []),
        ([(BIG, 0.5)], [(NEAR, 0.4)], [(BIG, "a+b")]),
        ([(BIG, 0.5)], [(NEAR, 0.2)], []),
        ([(BIG, 0.4)], [(NEAR, 0.7)], [(NEAR, "a+b")]),
        ([(BIG, 0.9)], [(NEAR, 0.2)], [(BIG, "a")]),
        ([(BIG, 0.7), (ELSEWHERE, 0.4)], [(ELSEWHERE, 0.8)], [(ELSEWHERE, "a+b"), (BIG, "a")]),
        ([(BIG, 0.9), (EYE, 0.7)], [(EYE, 0.4)], [(BIG, "a")]),
        # what could be a face before a wrong, large box is kept
        ([(BIG, 0.7), (EYE, 0.65)], [], [(BIG, "a"), (EYE, "a")]),
        ([(BIG, 0.9), (EYE, 0.7)], [(EYE, 0.8)], [(BIG, "a"), (EYE, "a+b")]),
        ([], [], []),
    ],
)
def test_merge(
    a: list[tuple[tuple[int, int, int, int], float]],
    b: list[tuple[tuple[int, int, int, int], float]],
    wanted: list[tuple[tuple[int, int, int, int], str]],
) -> None:
    merged = merge([detections("a", *a), detections("b", *b)], 0.6)
    assert [(tuple(box.astype(int)), names) for box, names in zip(merged.boxes, merged.detectors, strict=True)] == wanted


def test_a_finder_needs_a_detector() -> None:
    with pytest.raises(ValueError, match="at least one"):
        FaceFinder([], FaceMesh())


@pytest.fixture(scope="module")
def finder() -> FaceFinder:
    return FaceFinder([YuNet(), CenterFace()], FaceMesh())


@pytest.mark.models
def test_find_fills_everything(finder: FaceFinder) -> None:
    image = np.ascontiguousarray(astronaut())
    faces = finder.find(image)
    assert len(faces) == 1
    assert faces.detectors == ("yunet+centerface",)
    assert faces.meshes is not None
    assert faces.mesh_scores is not None
    assert faces.poses is not None
    assert faces.mesh_scores[0] > 0.9
    assert np.abs(faces.poses[0]).max() < 30


@pytest.mark.models
def test_find_without_a_face(finder: FaceFinder) -> None:
    faces = finder.find(np.zeros((100, 150, 3), np.uint8))
    assert len(faces) == 0
    assert faces.meshes is not None
    assert faces.poses is not None


@pytest.mark.models
def test_recall_against_human_boxes(finder: FaceFinder, shared_data: Path) -> None:
    hits: list[bool] = []
    for path in sorted((shared_data / "masks_with_boxes").glob("*.jpg"))[::3]:
        root = ET.parse(path.with_suffix(".xml")).getroot()
        boxes = np.array([[float(b.findtext(k, "")) for k in ("xmin", "ymin", "xmax", "ymax")] for b in root.iter("bndbox")], np.float32)
        boxes = boxes[np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) >= 12**2]
        hits += list((overlap(boxes, finder.detect(read(path)).boxes)[0] > 0.3).any(1))
    assert len(hits) > 50
    assert np.mean(hits) > 0.95


@pytest.mark.models
def test_few_false_alarms(finder: FaceFinder, shared_data: Path) -> None:
    found = [len(finder.detect(read(path))) for path in sorted((shared_data / "no_faces").glob("*.*"))[::2]]
    assert np.mean(found) < 0.4


@pytest.mark.models
def test_no_sure_detection_is_lost(finder: FaceFinder, shared_data: Path) -> None:
    yunet, centerface = YuNet(), CenterFace()
    for path in sorted((shared_data / "scenes").glob("*.jpg"))[::12]:
        image = read(path)
        merged = finder.detect(image)
        parts = [yunet.detect(image), centerface.detect(image)]
        for faces in parts:
            sure = faces.take(faces.scores >= 0.6)
            if len(sure):
                iou, inside = overlap(sure.boxes, merged.boxes)
                assert ((iou > 0.3) | (inside > 0.7)).any(1).all(), path.name


def read(path: Path) -> Image:
    return np.asarray(Pictures.open(path).convert("RGB"))
