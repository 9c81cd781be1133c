"""Boxes that the user gives, from the scan to the plan of a night."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_stages import make_stage, units
from PIL import Image

from mfmc_ray.boxes import Boxes
from mfmc_ray.collection import Collection
from mfmc_ray.config import RunConfig
from mfmc_ray.faces.pack import ModelPack
from mfmc_ray.ledger import Ledger
from mfmc_ray.pipeline.difference import difference, scan_parts, scanned
from mfmc_ray.pipeline.listing import listed
from mfmc_ray.pipeline.plan import plan_parts
from mfmc_ray.pipeline.scan import ScanStage
from mfmc_ray.pipeline.workers import SCAN, ScanWorker
from mfmc_ray.swap.render import MorphSwapper

PIXELS = 178_956_970


@pytest.fixture(scope="module")
def folder(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people beside each other, who are found, and an empty wall."""
    made = tmp_path_factory.mktemp("in")
    people = [Image.open(path).convert("RGB").resize((250, 250)) for path in sorted((shared_data / "portraits").glob("*.jpg"))[:2]]
    both = Image.new("RGB", (700, 250), (128, 128, 128))
    both.paste(people[0], (0, 0))
    both.paste(people[1], (250, 0))
    both.save(made / "both.png")
    return made


def given(folder: Path, boxes: list[list[float]] | None, **how: Any) -> Boxes:
    (folder / "boxes.json").write_text(json.dumps([{"path": "both.png", "boxes": boxes}] if boxes is not None else []))
    return Boxes.load(str(folder / "boxes.json"), **how)


def boxes_of(pack: ModelPack, folder: Path, boxes: Boxes | None) -> list[dict[str, Any]]:
    (row,) = ScanStage(pack, PIXELS, boxes=boxes)(units(folder)).to_pylist()
    return list(row["faces"])


def test_beside_and_instead_of_what_is_found(folder: Path, pack: ModelPack, swapper: MorphSwapper, tmp_path: Path) -> None:
    found = boxes_of(pack, folder, None)
    assert len(found) == 2
    near = [float(v) + d for v, d in zip(found[0]["box"], (-6, 5, 4, 7), strict=True)]
    wall, outside = [560.0, 60.0, 640.0, 160.0], [900.0, 0.0, 990.0, 90.0]
    added = boxes_of(pack, folder, given(tmp_path, [near, wall, outside]))
    names = [face["detectors"] for face in added]
    assert len(added) == 3
    assert sum(name.endswith("+given") for name in names) == 1
    assert names[2] == "given"
    assert added[0]["box"] == found[0]["box"]
    assert added[2]["box"] == wall

    only = given(tmp_path, [near], instead=True)
    (one,) = boxes_of(pack, folder, only)
    assert one["box"] == pytest.approx(near)
    assert one["detectors"] == "given"
    # as good as one that was found: the same person, with a mesh
    assert np.dot(one["embedding_sface"], found[0]["embedding_sface"]) > 0.9
    assert one["mesh_score"] > 0.9
    assert boxes_of(pack, folder, given(tmp_path, [], instead=True)) == []
    assert len(boxes_of(pack, folder, given(tmp_path, None, instead=True))) == 2  # not in the file: looked at as ever

    scan = ScanStage(pack, PIXELS, boxes=given(tmp_path, [near, wall]))(units(folder))
    (row,) = make_stage(scan, pack, swapper, attempts=4)(scan).to_pylist()
    assert [face["verdict"] for face in row["face_rows"]] == ["replaced", "replaced", "redacted"]  # no face can be made out: it is covered
    assert row["face_rows"][2]["reason"] == "no_mesh"


def test_other_boxes_reopen_their_images_only(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "in")
    Image.new("RGB", (90, 60), (9, 99, 9)).save(tmp_path / "in" / "wall.png")
    ledger = Ledger(str(tmp_path / "out"), str(tmp_path / "work"))
    ledger.work.mkdir()
    config = RunConfig(input=str(tmp_path / "in"))
    with ledger.lock():

        def scan(boxes: Boxes | None) -> list[str]:
            """Brings the scan up to date; what was looked at."""
            before = scanned(ledger, SCAN, boxes)
            listing = listed(Collection.open(config.input))
            found = difference(listing, before, boxes=boxes)
            worker = ScanWorker(config, ledger, SCAN, boxes)
            looked = [worker(part)["looked_at"] for part in scan_parts(found, before, ledger.done(SCAN), len(listing))]
            return [*(unit["path"] for unit in (*found.new, *found.changed)), f"looked at {sum(looked)}"]

        assert scan(None) == ["both.png", "wall.png", "looked at 2"]
        assert scan(None) == ["looked at 0"]
        boxes = given(tmp_path, [[560, 60, 640, 160]])
        assert scan(boxes) == ["both.png", "looked at 1"]
        (part,) = plan_parts(ledger, 8, made="", access=lambda image, path: "", night=True).new
        assert part["rows"] == [[0, 0, 2]]
        assert scan(boxes) == ["looked at 0"]
        (tmp_path / "in" / "both.png").rename(tmp_path / "in" / "moved.png")  # no box is given for this name
        assert scan(boxes) == ["moved.png", "looked at 1"]
        assert scan(None) == ["looked at 0"]
