"""Boxes that the user brings: every format gives the same, and what cannot be used is refused with its row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mfmc_ray.boxes import Boxes, BoxesError
from mfmc_ray.boxes_export import coco, export
from mfmc_ray.tables import FACES, IMAGES

ID = "ab" * 32
WANTED = [[10, 20, 50, 80], [100, 20, 140, 80]]
COCO = {
    "images": [{"id": 7, "file_name": "in/a.jpg", "width": 200, "height": 100}, {"id": 8, "file_name": "none.jpg"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 2, "bbox": [10, 20, 40, 60]},
        {"id": 2, "image_id": 7, "category_id": 2, "bbox": [100, 20, 40, 60]},
        {"id": 3, "image_id": 7, "category_id": 1, "bbox": [0, 0, 90, 90]},
    ],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "Face"}],
}
RELATIVE = [[10 / 200, 20 / 100, 50 / 200, 80 / 100], [100 / 200, 20 / 100, 140 / 200, 80 / 100]]


def written(folder: Path, kind: str) -> Path:
    path = folder / f"boxes.{kind}"
    if kind == "coco.json":
        path.write_text(json.dumps(COCO))
    elif kind == "rows.json":
        path.write_text(json.dumps([{"path": "in/a.jpg", "boxes": WANTED}]))
    elif kind == "lines.json":
        path.write_text("\n".join(json.dumps({"path": "in/a.jpg", "box": box}) for box in WANTED))
    elif kind == "csv":
        path.write_text("image,x0,y0,x1,y1\n" + "".join(f"in/a.jpg,{','.join(map(str, box))}\n" for box in WANTED))
    elif kind == "img2dataset.parquet":
        pq.write_table(pa.table({"key": ["a"], "url": ["http://somewhere"], "face_bboxes": [RELATIVE]}), path)
    elif kind == "text.parquet":
        pq.write_table(pa.table({"path": ["in/a.jpg"], "face_bboxes": [json.dumps(RELATIVE)]}), path)
    elif kind == "faces.parquet":
        pq.write_table(pa.table({"image_id": [ID] * 2, "path": ["elsewhere/b.jpg"] * 2, "box": WANTED, "verdict": ["kept"] * 2}), path)
    return path


@pytest.mark.parametrize("kind", ["coco.json", "rows.json", "lines.json", "csv", "img2dataset.parquet", "text.parquet", "faces.parquet"])
def test_every_format_gives_the_same(kind: str, tmp_path: Path) -> None:
    boxes = Boxes.load(str(written(tmp_path, kind)))
    found = boxes.of(ID, "in/a.jpg", 200, 100)
    assert found is not None
    assert found.dtype == np.float32
    assert np.allclose(found, WANTED)
    assert boxes.of("cd" * 32, "in/c.jpg", 200, 100) is None
    assert boxes.version("cd" * 32, "in/c.jpg") is None


def test_a_folder_of_parquet_files_and_a_name_without_extension(tmp_path: Path) -> None:
    for i, box in enumerate(WANTED):
        pq.write_table(pa.table({"path": ["in/a"], "box": [box]}), tmp_path / f"part-{i}.parquet")
    found = Boxes.load(str(tmp_path)).of(ID, "in/a.jpg", 200, 100)
    assert np.allclose(np.array(found), WANTED)


def test_an_image_without_boxes_is_named_all_the_same(tmp_path: Path) -> None:
    found = Boxes.load(str(written(tmp_path, "coco.json"))).of(ID, "none.jpg", 200, 100)
    assert found is not None
    assert found.shape == (0, 4)


def test_versions_follow_the_image_alone(tmp_path: Path) -> None:
    def of(rows: list[dict[str, Any]], **how: Any) -> str | None:
        (tmp_path / "rows.json").write_text(json.dumps(rows))
        return Boxes.load(str(tmp_path / "rows.json"), **how).version(ID, "a.jpg")

    a, b = {"path": "a.jpg", "boxes": [WANTED[0]]}, {"path": "b.jpg", "boxes": WANTED}
    assert of([a]) == of([a, b]) != of([{**a, "boxes": WANTED}])
    assert of([a]) != of([a], instead=True)
    assert of([b]) is None


def test_only_the_bytes_or_the_whole_path_name_an_image_beyond_doubt(tmp_path: Path) -> None:
    def of(row: dict[str, Any]) -> Boxes:
        (tmp_path / "rows.json").write_text(json.dumps([{**row, "boxes": []}]))
        return Boxes.load(str(tmp_path / "rows.json"), instead=True)

    assert of({"image_id": ID}).alone(ID, "train/7.jpg")
    assert of({"path": "train/7.jpg"}).alone(ID, "train/7.jpg")
    for row in ({"key": "7"}, {"path": "train/7"}, {"file_name": "7.jpg"}):  # val/7.jpg, train/7.png may be other people
        boxes = of(row)
        assert boxes.of(ID, "train/7.jpg", 200, 100) is not None
        assert not boxes.alone(ID, "train/7.jpg")
    named = of({"file_name": "in/7.jpg"})
    assert named.alone(ID, "in/7.jpg")
    assert named.version(ID, "in/7.jpg") != named.version(ID, "other/in/7.jpg")  # a moved image is another one


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"path": "a.jpg", "box": [1, 2, 3]}], "row 1: box [1, 2, 3]: wanted four numbers"),
        ([{"path": "a.jpg", "box": [5, 2, 3, 9]}], "x0 < x1"),
        ([{"path": "a.jpg", "box": [1, 2, float("nan"), 9]}], "four numbers"),
        ([{"path": "a.jpg", "face_bboxes": [[10, 20, 50, 80]]}], "relative"),
        ([{"path": "/a.jpg", "box": [1, 2, 3, 4]}], "relative to the collection"),
        ([{"box": [1, 2, 3, 4]}], "names no image"),
        ([{"path": "a.jpg"}], "no boxes"),
        ([{"path": "a.jpg", "box": WANTED[0]}, {"path": "b.jpg", "face_bboxes": RELATIVE}], "one kind"),
        ([{"path": "a.jpg", "box": WANTED[0]}] + [{"path": "b.jpg", "box": [1]}] * 12, "row 2: .*and 2 more rows"),
        ([1, 2], "wanted COCO"),
        ({"annotations": [], "images": [{"id": 1}]}, "'file_name' is missing"),
        ({**COCO, "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]}, "called face: cat, dog"),
        ({**COCO, "images": []}, "not in images"),
    ],
)
def test_what_cannot_be_used_is_refused(rows: Any, said: str, tmp_path: Path) -> None:
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    with pytest.raises(BoxesError, match=said.replace("[", r"\[")):
        Boxes.load(str(tmp_path / "boxes.json"))


@pytest.mark.parametrize("data", [b"", b"PAR1 and no more", b"\xff\xfe\x00", b'{"images": [', b'a,b\n"'])
def test_damaged_files_are_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "boxes").write_bytes(data)
    if data:
        with pytest.raises(BoxesError):
            Boxes.load(str(tmp_path / "boxes"))
    with pytest.raises(BoxesError, match="not found"):
        Boxes.load(str(tmp_path / "nothing"))


@pytest.mark.parametrize("kind", ["coco", "img2dataset", "parquet"])
def test_what_is_exported_can_be_brought_back(kind: str, tmp_path: Path) -> None:
    images = [{"image_id": ID, "path": "in/a.jpg", "width": 200, "height": 100}, {"image_id": None, "path": "bad.jpg"}]
    faces = [{"image_id": ID, "path": "in/a.jpg", "face_no": i, "box": box, "verdict": "replaced"} for i, box in enumerate(WANTED)]
    for name, rows, schema in (("images", images, IMAGES), ("faces", faces, FACES)):
        (tmp_path / "out" / name).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "out" / name / "part-00000.parquet")
    target = tmp_path / f"boxes.{kind}"
    assert export(str(tmp_path / "out"), target, kind) == (1, 2)
    found = Boxes.load(str(target)).of(ID, "in/a.jpg", 200, 100)
    assert found is not None
    assert np.allclose(found, WANTED, atol=0.01)
    with pytest.raises(BoxesError, match="no published result"):
        export(str(tmp_path / "nowhere"), target, kind)


def test_coco_numbers_are_joined() -> None:
    images = [{"path": "a.jpg", "width": 20, "height": 10}, {"path": "b.jpg", "width": 20, "height": 10}]
    plain = coco(images, {"b.jpg": [{"box": [1, 2, 4, 8], "verdict": "redacted"}]})
    (one,) = plain["annotations"]
    assert (one["bbox"], one["area"], one["verdict"]) == ([1, 2, 3, 6], 18, "redacted")
    assert {image["id"]: image["file_name"] for image in plain["images"]}[one["image_id"]] == "b.jpg"


WIDER = """0--Parade/0_Parade_marchingband_1_849.jpg
2
10 20 40 60 0 0 0 0 0 0
100 20 40 60 2 0 0 1 2 0
0--Parade/none.jpg
0
0 0 0 0 0 0 0 0 0 0
"1--Handshaking/with, comma.jpg
1
5 5 0 9 0 0 0 0 0 0
"""


def test_wider_face_as_it_is_distributed(tmp_path: Path) -> None:
    path = tmp_path / "wider_face_train_bbx_gt.txt"
    for text in (WIDER, WIDER.replace("\n", "\r\n"), "\ufeff" + WIDER):
        path.write_bytes(text.encode())
        boxes = Boxes.load(str(path), instead=True)
        where = "WIDER_train/images/0--Parade/0_Parade_marchingband_1_849.jpg"  # not as the file names it
        found = boxes.of(ID, where, 200, 100)
        assert found is not None
        assert np.allclose(found, WANTED)
        assert not boxes.alone(ID, where)  # another folder may have such a file
        assert boxes.alone(ID, "0--Parade/none.jpg")
        assert [len(boxes.images[name]) for name in ("0--Parade/none.jpg", '"1--Handshaking/with, comma.jpg')] == [0, 0]
        assert boxes.of(ID, "other.jpg", 200, 100) is None
    path.write_text(WIDER.replace("\n2\n", "\n3\n"))
    with pytest.raises(BoxesError, match="line 2"):
        Boxes.load(str(path))


def test_a_path_that_a_table_gives_is_the_whole_one(tmp_path: Path) -> None:
    rows = [{"path": "a.jpg", "boxes": WANTED}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    assert Boxes.load(str(tmp_path / "rows.json")).of(ID, "in/a.jpg", 200, 100) is None
    (tmp_path / "coco.json").write_text(json.dumps({**COCO, "images": [{"id": 7, "file_name": "./a.jpg"}]}))
    found = Boxes.load(str(tmp_path / "coco.json")).of(ID, "train/in/a.jpg", 200, 100)
    assert found is not None
    assert np.allclose(found, WANTED)


def test_of_a_pattern_files_without_boxes_of_faces_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    pattern = str(tmp_path / "{,*/}{*.json,*.parquet,*.txt,*.csv}")
    assert not Boxes.load(pattern).images
    things = {**COCO, "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}]}
    (tmp_path / "annotations" / "instances.json").write_text(json.dumps(things))
    (tmp_path / "annotations" / "captions.json").write_text(json.dumps({"images": [], "annotations": [{"caption": "a face"}]}))
    (tmp_path / "a.json").write_text(json.dumps({"caption": None}))
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "labels.csv").write_text("file_name,label\na.jpg,1\n")
    pq.write_table(pa.table({"key": ["a"], "status": ["success"]}), tmp_path / "00000.parquet")
    assert not Boxes.load(pattern).images
    with pytest.raises(BoxesError, match="called face"):
        Boxes.load(str(tmp_path / "annotations" / "instances.json"))
    (tmp_path / "annotations" / "faces.json").write_text(json.dumps(COCO))
    assert set(Boxes.load(pattern).images) == {"in/a.jpg", "none.jpg"}
    (tmp_path / "labels.csv").write_text("file_name,x0,y0,x1,y1\nb.jpg,1,1,3\n")
    with pytest.raises(BoxesError, match="four numbers"):  # meant as boxes
        Boxes.load(pattern)


def test_whole_body_annotations_have_faces(tmp_path: Path) -> None:
    of = {"image_id": 7, "category_id": 1, "bbox": [0, 0, 90, 90]}
    plain = {
        "images": COCO["images"],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [
            {"id": 1, **of, "face_box": [10, 20, 40, 60], "face_valid": True},
            {"id": 2, **of, "face_box": [0, 0, 0, 0], "face_valid": False},
            {"id": 3, **of, "face_box": [100, 20, 40, 60], "face_valid": True},
        ],
    }
    (tmp_path / "wholebody.json").write_text(json.dumps(plain))
    for place in ("wholebody.json", "*.json"):
        found = Boxes.load(str(tmp_path / place)).of(ID, "in/a.jpg", 200, 100)
        assert found is not None
        assert np.allclose(found, WANTED)


def test_of_a_parquet_file_only_what_counts_is_read(tmp_path: Path) -> None:
    pictures = pa.array([{"bytes": b"x" * 100, "path": "a.jpg"}], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"image": pictures, "key": ["a"], "face_bboxes": [RELATIVE]}), tmp_path / "shard.parquet")
    found = Boxes.load(str(tmp_path)).of(ID, "shard.parquet/a", 200, 100)
    assert found is not None
    assert np.allclose(found, WANTED)
