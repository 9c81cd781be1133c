from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import pytest

from mfmc_ray.access.explicit import Explicit
from mfmc_ray.access.groups import Groups
from mfmc_ray.access.proxy import Proxy
from mfmc_ray.boxes import Boxes
from mfmc_ray.evaluate import labels
from mfmc_ray.evaluate.synth.collection import Maker, Row, make
from mfmc_ray.evaluate.synth.settings import Making, Settings
from mfmc_ray.faces.embed import SFaceEmbedder
from mfmc_ray.faces.mesh import five_points
from mfmc_ray.label import label
from mfmc_ray.people.photos import listed

pytestmark = pytest.mark.models
SETTINGS = Settings(classes="equal", by=("sex", "age"), people=6, photos=2, groups=2, size=320)


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    making = Making(tmp_path_factory.mktemp("synth") / "out")
    making.begin(SETTINGS)
    maker = Maker(making, SETTINGS)

    def run(parts: list[Row], label: str, images: int | None) -> None:
        for part in parts:
            maker(part)

    make(making, SETTINGS, run)  # type: ignore[arg-type]
    return maker


@pytest.fixture(scope="module")
def folder(maker: Maker) -> Path:
    return maker.making.folder


def rows(folder: Path, table: str) -> list[Row]:
    found: list[Row] = pq.read_table(folder / f"tables/{table}.parquet").to_pylist()
    return found


def test_classes_have_equally_many_people_and_photos(folder: Path) -> None:
    people, photos = rows(folder, "people"), rows(folder, "photos")
    assert sorted(Counter(row["class"] for row in people).values()) == [1] * 6
    assert {row["sex"] for row in people} == {"woman", "man"}
    of = {row["person_id"]: row for row in people}
    assert len({row["identity_id"] for row in people}) == 6
    single = [row for row in photos if row["person"]]
    assert set(Counter(of[row["person"]]["class"] for row in single).values()) == {2}
    for row in people:
        low, _, high = row["age_band"].rstrip("+").partition("-")
        assert int(low) <= row["age"] < int(high or 120) + 1
        assert (row["man"] > 0.5) == (row["sex"] == "man")
    assert json.loads((folder / "collection.json").read_text())["counts"] == {"people": 6, "photos": 14, "groups": 2, "faces": 12 + 5}
    assert "NON-COMMERCIAL" in (folder / "README.md").read_text()


def test_boxes_are_on_faces_and_name_who_is_there(folder: Path, maker: Maker) -> None:
    boxes = Boxes.load(str(folder / "tables/faces.parquet"))
    embedder, looks = SFaceEmbedder(), {}
    for photo in rows(folder, "photos"):
        file = folder / "photos" / photo["path"]
        assert hashlib.sha256(file.read_bytes()).hexdigest() == photo["image_id"]
        picture = PIL.Image.open(file)
        assert picture.info["xmp"] == label("http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia")
        found = boxes.of(photo["image_id"], photo["path"], *picture.size)
        assert found is not None
        assert len(found) == photo["people"]
        assert (found[:, :2] > -20).all()
        assert (found[:, 2:] < np.array(picture.size) + 20).all()
        if photo["person"]:
            seen = maker.studio.face(np.asarray(picture))
            assert seen is not None
            looks.setdefault(photo["person"], []).append(embedder.embed(np.asarray(picture), five_points(seen.mesh)[None])[0])
    everybody = np.concatenate([np.array(some) for some in looks.values()])
    who = np.repeat(np.arange(6), 2)
    cosines, same = everybody @ everybody.T, who[:, None] == who
    assert cosines[same].min() > np.quantile(cosines[~same], 0.99)


def test_tables_are_what_other_verbs_read(folder: Path) -> None:
    assert {label.person for label in labels.read(str(folder / "tables/faces.parquet"))} == {f"p000{n}" for n in range(6)}
    tables = {name: str(folder / f"tables/{name}.parquet") for name in ("tags", "trust", "consents", "enrol")}
    assert Proxy.load(tables["tags"], tables["trust"], Groups.of([])) is not None
    assert Explicit.load(tables["consents"]) is not None
    enrolled = list(listed(tables["enrol"]))
    assert len({photo.person for photo in enrolled}) == 6
    assert all(photo.read() for photo in enrolled)


def test_a_part_that_is_made_again_is_the_same(folder: Path, maker: Maker) -> None:
    making = maker.making
    before = {file.name: file.read_bytes() for file in (folder / "photos/people/p0003").iterdir()}
    row = making.parts / "person-0003.json"
    person = making.rows("settle-0003")
    said = row.read_bytes()
    row.unlink()
    maker({"name": "person-0003", "kind": "person", "what": {"person": person}})
    assert row.read_bytes() == said
    assert {file.name: file.read_bytes() for file in (folder / "photos/people/p0003").iterdir()} == before
