"""Which face is which: in both pictures, by tables, by labels."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image as PILImage
from skimage.data import astronaut

from mfmc_ray.access.decide import AccessError
from mfmc_ray.evaluate import pairing
from mfmc_ray.evaluate.faces_note import FACES, IMAGES, FacesNote, ImagesNote, age_band, groups_of
from mfmc_ray.evaluate.labels import assign, of_folders, read
from mfmc_ray.evaluate.pairing import Pairer, PairingError, main_face, matched, points_of
from mfmc_ray.faces.detect import YuNet

BOX = [175.0, 63.0, 273.0, 186.0]  # about the astronaut's face


def encoded(image: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    PILImage.fromarray(image).save(file, "PNG", **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def pairer() -> Pairer:
    return Pairer(10_000_000)


def row(**columns: Any) -> dict[str, Any]:
    return {"face_no": 0, "box": BOX, "verdict": "replaced", "reason": None, "identity_id": "x", "points": None} | columns


@pytest.mark.models
def test_a_face_is_found_in_both_pictures(pairer: Pairer) -> None:
    image = np.asarray(astronaut())
    covered = image.copy()
    covered[40:200, 160:290] = 0
    same = pairer.pair("a.png", "anonymized", encoded(image), encoded(image), [row()])
    assert (len(same.faces), same.faces.verdicts, same.faces.identities) == (1, ("replaced",), ("x",))
    assert same.faces.seen[0]
    assert same.faces.output_seen[0]
    np.testing.assert_array_equal(same.faces.points, same.faces.output_points)
    assert set(same.detections) == {"yunet", "centerface"}
    assert all(before is after for before, after in same.detections.values())  # the same file is looked at once
    hidden = pairer.pair("a.png", "anonymized", encoded(image), encoded(covered), [row(verdict="redacted", reason="no_mesh")])
    assert hidden.faces.seen[0]
    assert not hidden.faces.output_seen[0]
    np.testing.assert_array_equal(hidden.faces.points, hidden.faces.output_points)  # it is where it was
    told = (np.asarray(same.faces.points[0]) + 5).ravel().tolist()
    known = pairer.pair("a.png", "anonymized", encoded(image), encoded(covered), [row(points=told)])
    np.testing.assert_allclose(known.faces.output_points[0].ravel(), told)  # or where the table says
    np.testing.assert_allclose(points_of(np.array([BOX], np.float32))[0], same.faces.points[0], atol=15)


@pytest.mark.models
def test_plain_folders_and_what_is_not_published(pairer: Pairer) -> None:
    image = np.asarray(astronaut())
    half = encoded(np.asarray(PILImage.fromarray(image).resize((256, 256))))
    plain = pairer.pair("a.png", "changed", encoded(image), half, None)
    assert plain.faces.verdicts == ("changed",)
    np.testing.assert_allclose(plain.faces.output_points * 2, plain.faces.points, atol=5)
    withheld = pairer.pair("a.png", "withheld", encoded(image), None, [])
    assert withheld.faces.verdicts == ("withheld",)
    assert np.isnan(withheld.faces.output_points).all()
    nobody = pairer.pair("a.png", "unchanged", encoded(image), encoded(image), [])
    assert len(nobody.faces) == 0  # the table is believed
    with pytest.raises(PairingError, match="unreadable"):
        pairer.pair("a.png", "changed", b"no picture", half, None)
    with pytest.raises(PairingError, match="another_original"):
        pairer.pair("a.png", "changed", encoded(image), half, None, "0" * 64)
    assert pairer.pair("a.png", "changed", encoded(image), b"no picture", None).output is None
    faces, images = FacesNote().collect(plain), ImagesNote().collect(plain)
    table = pa.Table.from_pylist(faces, FACES)
    assert {name: labels[0] for name, labels in groups_of(table).items()}["sex"] == "woman"
    assert pa.Table.from_pylist(images, IMAGES)["faces"].to_pylist() == [1]


@pytest.mark.models
def test_large_pictures_are_looked_at_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    image, detector = np.asarray(astronaut()), YuNet(min_score=0.6)
    whole = detector.detect(image)
    monkeypatch.setattr(pairing, "LONGEST", 300)
    small = pairing.detected(detector, image)
    assert len(small) == len(whole) == 1
    np.testing.assert_allclose(small.boxes, whole.boxes, atol=8)
    np.testing.assert_allclose(small.points, whole.points, atol=5)


def test_matches_are_one_to_one_and_the_best_first() -> None:
    assert matched(np.array([[0.9, 0.8], [0.85, 0.1]], np.float32)) == [(0, 0)]
    assert matched(np.array([[0.6, 0.8], [0.85, 0.1]], np.float32)) == [(1, 0), (0, 1)]
    assert matched(np.zeros((0, 3), np.float32)) == []


def test_a_photo_is_of_the_large_face_in_its_middle() -> None:
    boxes = np.array([[45, 45, 55, 55], [0, 0, 40, 40], [30, 40, 70, 80]], np.float32)
    assert main_face(boxes, 100, 100) == 2
    assert main_face(boxes[:0], 100, 100) == -1


def tables() -> tuple[pa.Table, pa.Table]:
    faces = [
        ("ada/1.jpg", 0, [40, 40, 60, 60]),
        ("ada/1.jpg", 1, [0, 0, 20, 20]),
        ("bob/1.jpg", 0, [0, 0, 20, 20]),
        ("c.jpg", 0, [9, 9, 30, 30]),
    ]
    rows = [{"path": path, "face_no": n, "box": box} for path, n, box in faces]
    images = [{"path": path, "width": 100, "height": 100} for path in ("ada/1.jpg", "bob/1.jpg", "c.jpg", "dot/1.jpg")]
    return pa.Table.from_pylist(rows, FACES), pa.Table.from_pylist(images, IMAGES)


def test_folders_name_the_main_face() -> None:
    faces, images = tables()
    person, groups = assign(of_folders(images), faces, images)
    assert person.tolist() == [0, -1, 1, -1]
    assert groups == {}


def test_tables_name_faces_by_box(tmp_path: Path) -> None:
    rows = [
        ("path", "person", "x0", "y0", "x1", "y1", "sex", "age"),
        ("ada/1.jpg", "Ada", "41", "40", "61", "60", "woman", "36"),
        ("ada/1.jpg", "Bob", "1", "0", "21", "20", "man", "60+"),
        ("bob/1.jpg", "Bob", "", "", "", "", "", ""),
        ("c.jpg", "Ada", "60", "60", "80", "80", "woman", ""),
    ]
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    faces, images = tables()
    person, groups = assign(read(str(tmp_path / "labels.csv")), faces, images)
    assert person.tolist() == [0, 1, 1, -1]
    assert groups == {"sex": ["woman", "man", "", ""], "age": ["30–44", "60+", "", ""]}
    assert age_band(17) == "13–17"


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (("", "Ada", "", "", "", ""), "no path"),
        (("a.jpg", "", "", "", "", ""), "no person"),
        (("a.jpg", "Ada", "1", "2", "", "4"), "wanted x0"),
        (("a.jpg", "Ada", "5", "2", "1", "4"), "x0 < x1"),
    ],
)
def test_rows_that_cannot_be_used_are_named(tmp_path: Path, cells: tuple[str, ...], message: str) -> None:
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "person", "x0", "y0", "x1", "y1"), cells])
    with pytest.raises(AccessError, match=f"row 1: .*{message}"):
        read(str(tmp_path / "labels.csv"))
