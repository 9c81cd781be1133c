"""Photos that are fit to be enrolled, and those that are not, each for its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from skimage.data import astronaut, coffee

from mfmc_ray.faces.faces import Faces, Image
from mfmc_ray.people.quality import LEAST_SHARPNESS, Examiner, RefusedError, sharpness, subject

FACE: Image = np.ascontiguousarray(astronaut()[:300, 80:380])
HEIGHT, WIDTH = FACE.shape[:2]


def file_of(image: Any) -> bytes:
    return bytes(cv2.imencode(".png", image[:, :, ::-1])[1])


def why(examiner: Examiner, data: bytes) -> str:
    with pytest.raises(RefusedError) as caught:
        examiner(data)
    return f"{caught.value.reason}: {caught.value}"


def test_a_good_photo(examiner: Examiner) -> None:
    look = examiner(file_of(FACE))
    assert 60 < look.size < 120
    assert 0.4 < look.sharpness < 0.8
    assert abs(look.yaw) < 20
    for vector in look.vectors.values():
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_refusals(examiner: Examiner) -> None:
    assert why(examiner, b"no picture").startswith("unreadable: cannot be read as a picture")
    assert why(examiner, file_of(coffee()[:200, :200])) == "no_face: no face was found"
    assert (
        why(examiner, file_of(np.hstack([FACE, FACE[:, ::-1]]))) == "two_faces: 2 faces of about the same size: cut the photo to one person"
    )
    assert why(examiner, file_of(cv2.resize(FACE, None, fx=0.35, fy=0.35, interpolation=cv2.INTER_AREA))).startswith("too_small: ")
    assert why(examiner, file_of(cv2.GaussianBlur(FACE, (0, 0), 4))).startswith("blurry: the face is blurry: sharpness 0.2")


def test_a_small_face_in_the_background_does_not_matter(examiner: Examiner) -> None:
    small = cv2.resize(FACE, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    beside = np.full((HEIGHT, WIDTH + small.shape[1], 3), 128, np.uint8)
    beside[:, :WIDTH], beside[: small.shape[0], WIDTH:] = FACE, small
    assert examiner(file_of(beside)).size > 90  # px; the other one has half of that


def found(*boxes: tuple[float, float, float, float], mesh: float = 1.0, detectors: str = "a+b") -> Faces:
    n = len(boxes)
    array = np.array(boxes, np.float32).reshape(n, 4)
    faces = Faces(array, np.zeros((n, 5, 2), np.float32), np.ones(n, np.float32), (detectors,) * n)
    return faces.with_(mesh_scores=np.full(n, mesh, np.float32))


def test_whose_photo_it_is() -> None:
    large, cut, small = (100.0, 100.0, 200.0, 220.0), (-5.0, 100.0, 105.0, 220.0), (300.0, 0.0, 350.0, 60.0)
    assert subject(found(small, large), (400, 400, 3)) == 1
    assert subject(found(cut, large, small), (400, 400, 3)) == 1  # the border cuts the other one off
    assert subject(found(cut), (400, 400, 3)) == 0
    for faces in (found(large, (210.0, 100.0, 300.0, 200.0)), found(cut, (300.0, 100.0, 405.0, 220.0))):
        with pytest.raises(RefusedError, match="2 faces"):
            subject(faces, (400, 400, 3))
    for nothing in (found(), found(large, mesh=0.1, detectors="a")):
        with pytest.raises(RefusedError, match="no face"):
            subject(nothing, (400, 400, 3))


def test_turned_and_hidden_faces(examiner: Examiner) -> None:
    faces = examiner.pack.analyse(FACE)
    poses = faces.need("poses").copy()
    poses[0, 0] = 50
    with pytest.raises(RefusedError, match="turned away: 50° to the side"):
        examiner.judge(FACE, faces.with_(poses=poses))
    with pytest.raises(RefusedError, match="hidden or in profile"):
        examiner.judge(FACE, faces.with_(mesh_scores=faces.need("mesh_scores") * 0))
    with pytest.raises(RefusedError, match="no recognizer"):
        examiner.judge(FACE, faces.with_(embeddings={name: v * 0 for name, v in faces.embeddings.items()}))


def test_covered_faces(examiner: Examiner, shared_data: Path) -> None:
    masked = next((shared_data / "masks_with_boxes").rglob("maksssksksss133.*g"))
    assert why(examiner, masked.read_bytes()) == "hidden: the mouth seems to be covered"
    glasses = sorted(sorted((shared_data / "people").iterdir())[103].iterdir())[1]
    assert why(examiner, glasses.read_bytes()) == "hidden: an eye seems to be covered (dark glasses?)"


def test_sharpness_falls_with_blur_and_is_not_about_contrast() -> None:
    chip = cv2.resize(FACE[40:200, 60:220], (112, 112), interpolation=cv2.INTER_AREA)
    values = [sharpness(np.asarray(cv2.GaussianBlur(chip, (0, 0), sigma) if sigma else chip, np.uint8)) for sigma in (0, 1, 2, 3, 4)]
    assert values == sorted(values, reverse=True)
    assert values[0] > LEAST_SHARPNESS + 0.1
    assert values[4] < LEAST_SHARPNESS
    assert sharpness((chip // 2 + 60).astype(np.uint8)) == pytest.approx(values[0], abs=0.03)
