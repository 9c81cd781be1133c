"""Parts of OUT that are brought up to date without looking at a picture: what is deleted, moved or called otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from made_work import GUARDS, directions

from mfmc_ray.access.decide import ReplaceAll
from mfmc_ray.config import RunConfig
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.known.certificate import Guard
from mfmc_ray.known.index import KnownIndex
from mfmc_ray.ledger import Ledger
from mfmc_ray.pipeline.plan import plan_parts
from mfmc_ray.pipeline.update import Costly, UpdateWorker, cheaply
from mfmc_ray.pipeline.workers import ANONYMIZE, SCAN, grounds_of
from mfmc_ray.tables import FACES, IMAGES, PLACED, embedding_column, published_schema, scan_schema

THRESHOLDS = {"sface": 0.363, "dlib": 0.93}
ACCESS = ReplaceAll()


class Night:
    """A finished run of images with a face each, whose originals are nowhere: nothing can be anonymized."""

    def __init__(self, folder: Path, images: dict[str, str]) -> None:
        self.ledger = Ledger(str(folder / "out"), str(folder / "work"))
        self.ledger.begin("c", "i")
        index = KnownIndex.open(self.ledger.work / "known", GUARDS)
        rng = np.random.default_rng(0)
        index.append(["gallery:x:0"], ["gallery"], {name: directions(rng, 1) for name in GUARDS})
        self.known, self.calibration = index.faces, Calibration()
        fakes = {name: directions(rng, len(images)) for name in GUARDS}
        certified = Guard(self.known, THRESHOLDS, self.calibration).certify(fakes)
        self.grounds = grounds_of(RunConfig(), self.known, THRESHOLDS, self.calibration)
        rows = [
            {"path": path, "image_id": image, "verdict": "anonymized", "faces": 1, "image": {"bytes": image.encode() * 9, "path": path}}
            for path, image in images.items()
        ]
        same = ("path", "image_id")
        worn = [{**{name: row[name] for name in same}, "face_no": 0, "identity_id": "x"} for row in rows]
        faces = [w | {"verdict": "replaced", "attempts": 1} for w in worn]
        for i, (face, w) in enumerate(zip(faces, worn, strict=True)):
            face["certificates"] = [certificate.row() for certificate in certified[i].certificates]
            w |= {embedding_column(name): vectors[i] for name, vectors in fakes.items()}
        tables = {
            "images": pa.Table.from_pylist(rows, schema=IMAGES),
            "faces": pa.Table.from_pylist(faces, schema=FACES),
            "published": pa.Table.from_pylist(worn, schema=published_schema(GUARDS)),
            "placed": pa.Table.from_pylist([row | {"access": ""} for row in rows], schema=PLACED),
        }
        self.ledger.commit_part(ANONYMIZE, 0, tables, {"images": len(rows), **self.grounds})

    def __call__(self, images: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
        """The part's tables when this is the collection."""
        rows = [{"path": path, "image_id": image} for path, image in images.items()]
        self.ledger.commit_part(SCAN, 0, {"scan": pa.Table.from_pylist(rows, schema=scan_schema(GUARDS))}, {"images": len(rows)})
        plan = plan_parts(self.ledger, 8, made=self.grounds["made"], access=ACCESS.version, night=True)
        (part,) = plan.changed
        arguments = {
            "config": RunConfig(),
            "ledger": self.ledger,
            "known": self.known,
            "thresholds": THRESHOLDS,
            "calibration": self.calibration,
        }
        worker = UpdateWorker(arguments, GUARDS, {"x"}, cheaply=True)
        summary = worker(part)
        read = {name: self.ledger.read_table(ANONYMIZE, name, 0).to_pylist() for name in ("images", "faces", "published", "placed")}
        assert summary["images"] == len(images)
        assert worker(part)["images"] == len(images)  # by a worker that is given it once more
        assert read == {name: self.ledger.read_table(ANONYMIZE, name, 0).to_pylist() for name in read}
        assert not plan_parts(self.ledger, 8, made=self.grounds["made"], access=ACCESS.version, night=True).changed
        return read


def test_deleted_and_moved_images(tmp_path: Path) -> None:
    night = Night(tmp_path, {"a": "1", "b": "2", "c": "3", "d": "4"})
    found = night({"b": "2", "new name": "3", "a": "1"})
    for name, rows in found.items():
        assert {(row["path"], row["image_id"]) for row in rows} == {("a", "1"), ("b", "2"), ("new name", "3")}, name
    assert {row["path"]: row["image"] for row in found["images"]}["new name"] == {"bytes": b"3" * 9, "path": "new name"}
    assert [row["path"] for row in found["faces"]] == [row["path"] for row in found["images"]]
    files = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert b"4" * 9 not in files


def test_what_needs_a_picture_is_left_to_the_workers(tmp_path: Path) -> None:
    """And the part is as it was; what was deleted goes with it."""
    night = Night(tmp_path, {"a": "1", "b": "2"})
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    with pytest.raises(Costly):
        night({"a": "another"})
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before
    part = {"part": 0, "rows": [[0, 0, 1]], "reasons": {}, "redo": ["a"], "moved": {}}
    arguments = {
        "config": RunConfig(),
        "ledger": night.ledger,
        "known": night.known,
        "thresholds": THRESHOLDS,
        "calibration": night.calibration,
    }
    assert cheaply({"anonymize": arguments, "recognizers": GUARDS, "identities": {"x"}}, [part]) == ([], [part])


def test_two_images_that_change_names(tmp_path: Path) -> None:
    """Neither is lost in the other's place; they are done anew, for a name may matter, unless nothing has to be."""
    night = Night(tmp_path, {"a": "1", "b": "2"})
    found = night({"c": "1", "d": "2"})
    assert {row["path"]: row["image"]["bytes"] for row in found["images"]} == {"c": b"1" * 9, "d": b"2" * 9}


def test_a_duplicate_that_is_one_no_more(tmp_path: Path) -> None:
    night = Night(tmp_path, {"a": "1", "b": "1", "c": "1"})
    found = night({"b": "1", "c": "1"})
    assert {row["path"]: row["reason"] for row in found["images"]} == {"b": None, "c": "duplicate of b"}
    assert {row["path"]: row["reason"] for row in found["placed"]} == {"b": None, "c": "duplicate of b"}
