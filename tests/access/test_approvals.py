"""The approvals table: what it says, what it refuses, and that nothing but an approval ever keeps a face."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfmc_ray.access.approvals import Approvals, Row
from mfmc_ray.access.combined import access_model
from mfmc_ray.access.decide import AccessError, Decision, ReplaceAll, decisions
from mfmc_ray.config import load
from mfmc_ray.faces.faces import Faces

ID, OTHER_ID = "ab" * 32, "cd" * 32
BOX = (10.0, 10.0, 50.0, 60.0)
AWAY = (200.0, 10.0, 240.0, 60.0)


def faces_at(*boxes: tuple[float, ...]) -> Faces:
    n = len(boxes)
    return Faces(np.array(boxes, np.float32).reshape(n, 4), np.zeros((n, 5, 2), np.float32), np.ones(n, np.float32), ("yunet",) * n)


def table(tmp_path: Path, text: str) -> Approvals:
    file = tmp_path / "approvals.csv"
    file.write_text(text)
    return Approvals.load(str(file))


def kept(access: Any, faces: Faces, image_id: str = ID, path: str = "a/b.jpg") -> list[str | None]:
    """The reason of each face; None: it is not kept."""
    found = access.decide(image_id, path, faces)
    assert [one.keep for one in found] == [one.reason is not None for one in found]
    return [one.reason for one in found]


# what a table says


def test_a_face_is_named_by_image_id_or_path_and_box(tmp_path: Path) -> None:
    access = table(tmp_path, f"image,x0,y0,x1,y1\n{ID.upper()},10,10,50,60\na/b.jpg,200,10,240,60\n")
    assert len(access) == 2
    assert kept(access, faces_at(AWAY, (0, 100, 40, 150), BOX)) == ["approvals:2", None, "approvals:1"]
    assert kept(access, faces_at(AWAY, BOX), image_id=OTHER_ID) == ["approvals:2", None]
    assert kept(access, faces_at(AWAY, BOX), path="b.jpg") == [None, "approvals:1"]
    assert kept(access, faces_at()) == []


def test_a_file_called_like_an_id_is_not_that_image(tmp_path: Path) -> None:
    access = table(tmp_path, f"image,x0,y0,x1,y1\n{ID},10,10,50,60\n")
    assert kept(access, faces_at(BOX), image_id=OTHER_ID, path=ID) == [None]


@pytest.mark.parametrize(("allow", "stays"), [("true", True), ("1", True), (" Yes", True), ("false", False), ("0", False), ("", False)])
def test_allow_says_whether(tmp_path: Path, allow: str, stays: bool) -> None:
    access = table(tmp_path, f"image,x0,y0,x1,y1,allow\na/b.jpg,10,10,50,60,{allow}\n")
    assert kept(access, faces_at(BOX)) == ["approvals:1" if stays else None]


def test_a_row_can_have_a_number_of_its_own(tmp_path: Path) -> None:
    access = table(tmp_path, "row,image,x0,y0,x1,y1,person\n70,a/b.jpg,10,10,50,60,Ada\n7,a/b.jpg,10,10,50,61,Ada\n")
    assert kept(access, faces_at(BOX)) == ["approvals:7"]


def test_csv_and_parquet_say_the_same(tmp_path: Path) -> None:
    text = 'image,x0,y0,x1,y1,allow,person\n"a, b.jpg",1.5,2,3,4,true,"Ada\nL."\n\nc.jpg,5,6,7,8,false,\n'
    columns: dict[str, Any] = {"image": ["a, b.jpg", "c.jpg"], "allow": [True, False], "person": [{"id": 3}, None]}
    boxes = [[1.5, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]
    as_lists, as_columns = tmp_path / "lists.parquet", tmp_path / "columns"
    pq.write_table(pa.table(columns | {"box": pa.array(boxes, pa.list_(pa.float32(), 4))}), as_lists)
    pq.write_table(pa.table(columns | {name: [box[i] for box in boxes] for i, name in enumerate(("x0", "y0", "x1", "y1"))}), as_columns)
    read = [table(tmp_path, "\ufeff" + text.replace("\n\n", "\r\n\r\n")), *(Approvals.load(str(file)) for file in (as_lists, as_columns))]
    assert read[0].images == {"a, b.jpg": (Row(1, True, (1.5, 2.0, 3.0, 4.0)),), "c.jpg": (Row(2, False, (5.0, 6.0, 7.0, 8.0)),)}
    assert read[0] == read[1] == read[2]


def test_an_empty_table_approves_nobody(tmp_path: Path) -> None:
    access = table(tmp_path, "image,x0,y0,x1,y1\n")
    assert len(access) == 0
    assert kept(access, faces_at(BOX)) == [None]


def test_it_is_read_from_where_fsspec_reads() -> None:
    with fsspec.open("memory://tables/approvals.csv", "w") as file:
        file.write("image,x0,y0,x1,y1\na/b.jpg,10,10,50,60\n")
    settings = load(None, access__approvals="memory://tables/approvals.csv")
    access = access_model(settings)
    assert kept(pickle.loads(pickle.dumps(access)), faces_at(BOX)) == ["approvals:1"]
    assert access_model(load(None)).decide(ID, "a/b.jpg", faces_at(BOX)) == [Decision(keep=False)]


def test_the_digest_is_over_decisions_and_not_over_persons(tmp_path: Path) -> None:
    head = "image,x0,y0,x1,y1,allow,person\n"
    first = table(tmp_path, head + "a.jpg,1,2,3,4,true,Ada\n")
    assert table(tmp_path, head + "a.jpg,1,2,3,4.0,yes,Grace\n").digest == first.digest
    others = [
        table(tmp_path, head + row).digest for row in ("", "a.jpg,1,2,3,4,false,Ada\n", "b.jpg,1,2,3,4,true,Ada\n", "a.jpg,1,2,3,5,true,\n")
    ]
    assert len({first.digest, ReplaceAll.digest, *others}) == 6


# what it refuses


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image,x0,y0,x1,y1,alow\n", "unknown column 'alow'"),
        ("image;x0;y0;x1;y1\n", "unknown column 'image;x0;y0;x1;y1'"),
        ("image,x0,y0,x1,y1,x0\n", "'x0' is there twice"),
        ("", "wanted the column image"),
        ("image,x0,y0,x1\n", "either x0, y0, x1 and y1"),
        ("image,x0,y0,x1,y1,box\n", "either x0, y0, x1 and y1"),
        ("x0,y0,x1,y1\n", "wanted the column image"),
        ("image,x0,y0,x1,y1\na,1,2,3\n", "row 1: 4 cells, but 5 columns"),
        ("image,x0,y0,x1,y1\na,1,2,3,4\n,1,2,3,4\n", "row 2: no image"),
        ("image,x0,y0,x1,y1\n/home/a.jpg,1,2,3,4\n", "row 1: image '/home/a.jpg'"),
        ("image,x0,y0,x1,y1\ns3://bucket/a.jpg,1,2,3,4\n", "relative to the collection"),
        ("image,x0,y0,x1,y1\na,1,2,x,4\n", "row 1: box .*wanted four numbers"),
        ("image,x0,y0,x1,y1\na,1,2,nan,4\n", "row 1: box .*wanted px"),
        ("image,x0,y0,x1,y1\na,1,2,1e9,4\n", "row 1: box .*wanted px"),
        ("image,x0,y0,x1,y1\na,3,2,1,4\n", "row 1: box .*x0 < x1"),
        ("image,x0,y0,x1,y1\na,3,2,3,4\n", "row 1: box .*x0 < x1"),
        ("image,box\na,1 2 3 4\n", "row 1: box is text"),
        ("image,x0,y0,x1,y1,allow\na,1,2,3,4,maybe\n", "row 1: allow 'maybe'"),
        ("image,x0,y0,x1,y1,row\na,1,2,3,4,Ada\n", "row 1: row 'Ada': wanted a whole number"),
        ("image,x0,y0,x1,y1,row\na,1,2,3,4,5\nb,1,2,3,4,05\n", "row 2: another row has the number 5"),
        ('image,x0,y0,x1,y1\n"a,1,2,3,4\n', "is no CSV"),
    ],
)
def test_mistakes_are_named_by_row(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(AccessError, match=rf"approvals\.csv: .*{says}"):
        table(tmp_path, text)


def test_all_bad_rows_are_counted(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match=r"row 1: .*; row 10: .*; and 2 more rows$"):
        table(tmp_path, "image,x0,y0,x1,y1\n" + "a,4,4,4,4\n" * 12)


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "approvals.csv"
    with pytest.raises(AccessError, match=r"approvals\.csv: not found"):
        Approvals.load(str(file))
    with pytest.raises(AccessError, match="cannot be read"):
        Approvals.load(str(tmp_path))
    for data, says in ((b"\xff\xfe\x00", "neither Parquet nor a CSV"), (b"PAR1 and nothing", "damaged Parquet")):
        file.write_bytes(data)
        with pytest.raises(AccessError, match=says):
            Approvals.load(str(file))
    pq.write_table(pa.table({"image": ["a", None], "box": [[1.0, 2.0, 3.0], None]}), file)
    with pytest.raises(AccessError, match=r"row 1: box .*four numbers; row 2: no image"):
        Approvals.load(str(file))


def test_a_model_that_does_not_decide_keeps_nobody() -> None:
    class Short(ReplaceAll):
        def decide(self, image_id: str, path: str, faces: Faces) -> list[Decision]:
            return [Decision(True, "x"), Decision(True)][: len(faces) or 1]

    assert decisions(Short(), ID, "a", faces_at(BOX, AWAY)) == [Decision(True, "x"), Decision(False)]  # a reason must be named
    with pytest.raises(AccessError, match="1 decisions about 0 faces"):
        decisions(Short(), ID, "a", faces_at())
    with pytest.raises(AccessError, match="2 decisions about 3 faces"):
        decisions(Short(), ID, "a", faces_at(BOX, AWAY, AWAY))


# matching


def test_a_box_that_could_mean_two_faces_means_nobody() -> None:
    access = Approvals({"a": (Row(1, True, (0, 0, 100, 100)),)})
    faces = faces_at((0, 0, 100, 90), (0, 20, 100, 100))
    assert kept(access, faces, path="a") == [None, None]
    assert kept(access, faces.take([1]), path="a") == ["approvals:1"]


def test_half_of_the_union_is_the_least() -> None:
    access = Approvals({"a": (Row(1, True, (0, 0, 100, 100)),)})
    assert kept(access, faces_at((0, 0, 100, 51)), path="a") == ["approvals:1"]
    assert kept(access, faces_at((0, 0, 100, 49)), path="a") == [None]


def test_a_denial_reaches_further_than_an_approval() -> None:
    face = (0.0, 0.0, 100.0, 100.0)
    for denied in (face, (0.0, 0.0, 100.0, 30.0), (40.0, 40.0, 60.0, 60.0), (-500.0, -500.0, 500.0, 500.0)):
        access = Approvals({"a": (Row(1, True, face), Row(2, False, denied))})
        assert kept(access, faces_at(face), path="a") == [None], denied
    access = Approvals({"a": (Row(1, True, face), Row(2, False, (100.0, 0.0, 200.0, 100.0)))})
    assert kept(access, faces_at(face), path="a") == ["approvals:1"]


# properties: coordinates on a coarse grid, so that boxes coincide, overlap and miss each other

BOXES = st.tuples(*[st.integers(0, 8)] * 2, *[st.integers(1, 5)] * 2).map(
    lambda b: (10.0 * b[0], 10.0 * b[1], 10.0 * (b[0] + b[2]), 10.0 * (b[1] + b[3]))
)
NAMES = st.sampled_from([ID, OTHER_ID, "a/b.jpg", "c.jpg"])
GRANTS = st.lists(st.tuples(NAMES, st.booleans(), BOXES), max_size=8)
PICTURES = st.lists(BOXES, max_size=5).map(lambda boxes: faces_at(*boxes))


def of(grants: list[tuple[str, bool, tuple[float, float, float, float]]]) -> Approvals:
    images: dict[str, tuple[Row, ...]] = {}
    for number, (name, allow, box) in enumerate(grants, 1):
        images[name] = (*images.get(name, ()), Row(number, allow, box))
    return Approvals(images)


def disclosed(access: Approvals, faces: Faces) -> set[int]:
    return {i for i, reason in enumerate(kept(access, faces)) if reason}


def shared(a: Any, b: Any) -> float:
    """Intersection over union, in plain arithmetic."""
    across, down = (max(0.0, min(a[k + 2], b[k + 2]) - max(a[k], b[k])) for k in (0, 1))
    both = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return float(across * down / (sum(both) - across * down))


@given(GRANTS, PICTURES)
def test_no_grant_no_disclosure(grants: list[Any], faces: Faces) -> None:
    for i, reason in enumerate(kept(of(grants), faces)):
        if reason is not None:
            name, allow, box = grants[int(reason.removeprefix("approvals:")) - 1]
            assert allow
            assert name in (ID, "a/b.jpg")
            alike = [k for k in range(len(faces)) if shared(box, faces.boxes[k]) >= 0.5 - 1e-6]
            assert i in alike
            assert [k for k in range(len(faces)) if shared(box, faces.boxes[k]) >= 0.5 + 1e-6] in ([i], [])


@given(GRANTS, PICTURES, st.data())
def test_an_approval_withdrawn_never_discloses_more(grants: list[Any], faces: Faces, data: st.DataObject) -> None:
    gone = data.draw(st.sets(st.integers(0, 7)))
    fewer = [grant for k, grant in enumerate(grants) if not (grant[1] and k in gone)]
    assert disclosed(of(fewer), faces) <= disclosed(of(grants), faces)


@given(GRANTS, PICTURES, st.tuples(NAMES, st.just(False), BOXES), st.integers(0, 8))
def test_a_further_denial_never_discloses_more(grants: list[Any], faces: Faces, denial: Any, at: int) -> None:
    assert disclosed(of([*grants[:at], denial, *grants[at:]]), faces) <= disclosed(of(grants), faces)


@given(GRANTS, PICTURES, st.sampled_from([ID, "a/b.jpg"]), st.data())
def test_a_denial_wins(grants: list[Any], faces: Faces, name: str, data: st.DataObject) -> None:
    denied = data.draw(st.sets(st.integers(0, len(faces) - 1))) if len(faces) else set()
    denials = [(name, False, tuple(map(float, faces.boxes[i]))) for i in denied]
    assert not disclosed(of([*grants, *denials]), faces) & denied


@given(GRANTS, PICTURES, st.lists(st.tuples(st.sampled_from([OTHER_ID, "c.jpg"]), st.booleans(), BOXES)))
def test_rows_of_other_images_never_matter(grants: list[Any], faces: Faces, others: list[Any]) -> None:
    assert disclosed(of([*others, *grants]), faces) == disclosed(of(grants), faces)


@given(GRANTS, PICTURES, st.booleans())
def test_rows_of_other_places_never_matter(grants: list[Any], faces: Faces, allow: bool) -> None:
    elsewhere = ("a/b.jpg", allow, (1000.0, 1000.0, 1040.0, 1050.0))
    assert disclosed(of([*grants, elsewhere]), faces) == disclosed(of(grants), faces)
