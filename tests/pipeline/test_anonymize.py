"""The scan and anonymize stages on a real face, without Ray."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from made_stages import make_stage, units
from PIL import Image
from sick_networks import Sick
from skimage import data

from mfmc_ray.codec import decode
from mfmc_ray.config import SwapConfig
from mfmc_ray.faces.audit_look import AuditLook
from mfmc_ray.faces.pack import ModelPack
from mfmc_ray.identities.sample import sample
from mfmc_ray.pipeline import anonymize, settle
from mfmc_ray.pipeline.anonymize import AnonymizeStage, published_of, split, summary
from mfmc_ray.pipeline.choice import CHOICE, worn
from mfmc_ray.pipeline.inspection import see_through
from mfmc_ray.pipeline.known import blanked
from mfmc_ray.pipeline.rows import faces_of
from mfmc_ray.pipeline.scan import ScanStage
from mfmc_ray.pipeline.settle import Settler
from mfmc_ray.pipeline.watch import Watch
from mfmc_ray.swap.render import MorphSwapper
from mfmc_ray.tables import FACES, IMAGES, embedding_column, published_schema, scan_schema

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    Image.fromarray(data.astronaut()).save(root / "face.jpg", quality=92)
    Image.fromarray(data.astronaut()).save(root / "same.jpg", quality=92)
    Image.fromarray(data.chelsea()).save(root / "cat.png")
    Image.fromarray(np.hstack([data.astronaut(), data.astronaut()[:, ::-1]])).save(root / "two.png")
    (root / "broken.jpg").write_bytes((root / "face.jpg").read_bytes()[:4000])
    (root / "empty.jpg").write_bytes(b"")
    return root


@pytest.fixture(scope="module")
def stage(scan: pa.Table, pack: ModelPack, swapper: MorphSwapper) -> AnonymizeStage:
    return make_stage(scan, pack, swapper)


@pytest.fixture(scope="module")
def done(stage: AnonymizeStage, scan: pa.Table) -> pa.Table:
    return stage(scan)


def test_the_scan_has_a_row_for_each_file(scan: pa.Table, folder: Path, pack: ModelPack) -> None:
    assert scan.schema.equals(scan_schema(pack.dimensions))
    rows = {row["path"]: row for row in scan.drop_columns(["faces"]).to_pylist()}
    assert set(rows) == {path.name for path in folder.iterdir()}
    assert rows["face.jpg"]["image_id"] == hashlib.sha256((folder / "face.jpg").read_bytes()).hexdigest()
    assert rows["broken.jpg"]["reason"] == "truncated"
    assert rows["empty.jpg"]["reason"] == "empty"


def test_the_scan_describes_faces(scan: pa.Table, pack: ModelPack) -> None:
    at = scan["path"].to_pylist().index("face.jpg")
    faces = faces_of(scan["faces"][at], pack.dimensions)
    assert len(faces) == 1
    assert faces.need("mesh_scores")[0] > 0.5
    assert faces.need("sexes")[0] < 0.5
    assert 25 < faces.need("ages")[0] < 60
    np.testing.assert_allclose(np.linalg.norm(faces.embeddings["sface"], axis=1), 1, atol=1e-4)


def test_one_row_each_in_order(done: pa.Table, scan: pa.Table) -> None:
    assert done["path"].to_pylist() == scan["path"].to_pylist()
    images, faces = split(done)
    assert images.schema.equals(IMAGES)
    assert faces.schema.equals(FACES)
    verdicts = dict(zip(images["path"].to_pylist(), images["verdict"].to_pylist(), strict=True))
    assert verdicts["broken.jpg"] == verdicts["empty.jpg"] == "failed"
    assert verdicts["face.jpg"] == verdicts["two.png"] == "anonymized"


def test_a_failed_image_publishes_nothing(done: pa.Table) -> None:
    for row in done.to_pylist():
        if row["verdict"] == "failed":
            assert row["image"] is None
            assert row["reason"]
            assert row["face_rows"] == []


def test_every_face_is_replaced_or_redacted_and_holds(done: pa.Table, scan: pa.Table, pack: ModelPack) -> None:
    _, faces = split(done)
    assert faces.num_rows == sum(len(row or ()) for row in scan["faces"].to_pylist())
    for row in faces.to_pylist():
        assert row["verdict"] in {"replaced", "redacted"}
        if row["verdict"] == "replaced":
            assert row["similarity_to_original"] < row["threshold"]
            assert row["max_similarity_to_known"] < row["threshold"]
            assert {c["recognizer"] for c in row["certificates"]} == {"sface", "dlib"}
        else:
            assert row["reason"]


def test_certificates_are_about_the_published_bytes(done: pa.Table, scan: pa.Table, pack: ModelPack, stage: AnonymizeStage) -> None:
    known = stage.check.guard._known.vectors["sface"].astype(np.float64)
    seen = 0
    for row in done.to_pylist():
        for face in row["face_rows"]:
            if face["verdict"] != "replaced":
                continue
            published = decode(row["image"]["bytes"]).pixels
            vector = pack.embedders["sface"].embed(published, np.array(face["points"], np.float32).reshape(1, 5, 2))[0]
            assert float((known @ vector).max()) == pytest.approx(face["max_similarity_to_known"], abs=1e-4)
            seen += 1
    assert seen > 0


def test_the_embeddings_of_the_published_faces_are_handed_back(done: pa.Table, pack: ModelPack) -> None:
    images = {row["path"]: row for row in done.to_pylist()}
    table = published_of(done, pack.dimensions)
    assert table.schema.equals(published_schema(pack.dimensions))
    replaced = {(row["path"], row["face_no"]): row["identity_id"] for row in split(done)[1].to_pylist() if row["verdict"] == "replaced"}
    assert {(row["path"], row["face_no"]): row["identity_id"] for row in table.to_pylist()} == replaced
    for row in table.to_pylist():
        image = images[row["path"]]
        assert row["image_id"] == image["image_id"]
        pixels = decode(image["image"]["bytes"]).pixels
        points = np.array(image["face_rows"][row["face_no"]]["points"], np.float32).reshape(1, 5, 2)
        for name, embedder in pack.embedders.items():
            np.testing.assert_allclose(row[embedding_column(name)], embedder.embed(pixels, points)[0], atol=1e-6)


def test_where_nobody_is_replaced_everybody_is_covered(
    scan: pa.Table, pack: ModelPack, swapper: MorphSwapper, stage: AnonymizeStage
) -> None:
    covering = AnonymizeStage(
        swap=SwapConfig(pseudonyms="none"),
        output=stage.output,
        max_pixels=stage.max_pixels,
        check=stage.check,
        pool=None,
        swapper=swapper,
        access=stage.access,
        key=stage.key,
    )
    images, faces = split(covering(scan))
    assert {row["verdict"] for row in faces.to_pylist()} == {"redacted"}
    assert {row["reason"] for row in faces.to_pylist()} == {"pseudonyms_none"}
    for row in images.to_pylist():
        if row["verdict"] == "anonymized":
            x0, y0, x1, y1 = (int(v) for v in next(face for face in faces.to_pylist() if face["path"] == row["path"])["redacted_area"])
            patch = decode(row["image"]["bytes"]).pixels[y0:y1, x0:x1].reshape(-1, 3)
            assert np.ptp(patch[:, 0].astype(int)) < 24  # one colour, but for JPEG


def test_duplicates_come_out_alike(done: pa.Table) -> None:
    rows = {row["path"]: row for row in done.to_pylist()}
    assert rows["face.jpg"]["image"]["bytes"] == rows["same.jpg"]["image"]["bytes"]


def test_nobody_is_worn_twice_in_a_picture(done: pa.Table) -> None:
    for row in done.to_pylist():
        worn = [face["identity_id"] for face in row["face_rows"] if face["identity_id"]]
        assert len(worn) == len(set(worn))


def test_the_published_face_is_not_the_original(done: pa.Table, folder: Path) -> None:
    rows = {row["path"]: row for row in done.to_pylist()}
    before = decode((folder / "face.jpg").read_bytes()).pixels.astype(int)
    after = decode(rows["face.jpg"]["image"]["bytes"]).pixels.astype(int)
    x0, y0, x1, y1 = (round(v) for v in rows["face.jpg"]["face_rows"][0]["box"])
    assert np.abs(before - after)[y0:y1, x0:x1].mean() > 8
    far = np.abs(before - after)[400:, :100]
    assert far.mean() < 2


def test_what_cannot_be_swapped_is_covered(scan: pa.Table, pack: ModelPack, swapper: MorphSwapper) -> None:
    covered = make_stage(scan, pack, swapper, min_face=5000.0)(scan)
    _, faces = split(covered)
    assert set(faces["verdict"].to_pylist()) == {"redacted"}
    assert set(faces["reason"].to_pylist()) == {"too_small"}
    for row in covered.to_pylist():
        for face in row["face_rows"]:
            x0, y0, x1, y1 = (round(v) for v in face["redacted_area"])
            inside = decode(row["image"]["bytes"]).pixels[y0 + 4 : y1 - 4, x0 + 4 : x1 - 4]
            assert inside.reshape(-1, 3).std(0).max() < 6


def test_a_cover_gives_way_to_a_face_before_it(scan: pa.Table, pack: ModelPack, swapper: MorphSwapper, folder: Path) -> None:
    at = scan["path"].to_pylist().index("face.jpg")
    row = scan.slice(at, 1)
    (face,) = row["faces"][0].as_py()
    width = face["box"][2] - face["box"][0]
    beside = face | {"box": [face["box"][0] + 0.6 * width, face["box"][1], face["box"][2] + 0.6 * width, face["box"][3]], "mesh_score": 0.0}
    two = row.set_column(
        row.schema.get_field_index("faces"), row.schema.field("faces"), pa.array([[face, beside]], row.schema.field("faces").type)
    )
    (done,) = make_stage(scan, pack, swapper)(two).to_pylist()
    worn_row, covered = done["face_rows"]
    assert (worn_row["verdict"], covered["verdict"], covered["reason"]) == ("replaced", "redacted", "no_mesh")
    shown, original = decode(done["image"]["bytes"]).pixels, decode((folder / "face.jpg").read_bytes()).pixels
    area = covered["redacted_area"]
    x0, y0, x1, y1 = map(int, area)
    shared = slice(y0, y1), slice(x0, int(face["box"][2]))
    colour = np.median(shown[y0:y1, int(face["box"][2]) + 9 : x1].reshape(-1, 3), 0)
    off = np.abs(shown - colour).max(2)
    assert (off[y0 + 4 : y1 - 4, int(face["box"][2]) + 9 : x1 - 4] < 24).mean() > 0.97
    assert (off[shared] > 24).mean() > 0.35  # most of her cheek, less its soft rim
    front = off > 24
    assert (np.abs(shown.astype(int) - original).max(2) > 8)[shared][front[shared]].mean() > 0.7  # and that is another face's
    look = AuditLook()
    points = np.array(worn_row["points"], np.float32).reshape(1, 5, 2)
    assert see_through(shown, [area]) == [0]
    assert see_through(shown, [area], look.shown(shown, points, [area])) == []
    assert look.shown(shown, points, [(0, 0, 9, 9)]) is None
    assert see_through(original, [area], look.shown(original, points, [area])) == [0]


def test_an_impossible_threshold_redacts(scan: pa.Table, stage: AnonymizeStage, pack: ModelPack, swapper: MorphSwapper) -> None:
    strict = make_stage(scan, pack, swapper)
    for name in strict.check.guard._thresholds:
        strict.check.guard._thresholds[name] = -0.9
    _, faces = split(strict(scan))
    assert set(faces["verdict"].to_pylist()) == {"redacted"}
    # all there may be, where a face can be swapped at all
    assert max(faces["attempts"].to_pylist()) == min(strict.swap.attempts, len(strict.pool))


def test_the_best_of_the_first_is_taken(done: pa.Table, stage: AnonymizeStage) -> None:
    _, faces = split(done)
    replaced = [row for row in faces.to_pylist() if row["verdict"] == "replaced"]
    assert replaced
    assert all(1 <= row["attempts"] <= stage.swap.attempts for row in replaced)
    assert np.median([row["attempts"] for row in replaced]) <= CHOICE


def test_a_tried_identity_leaves_no_trace(scan: pa.Table, pack: ModelPack, swapper: MorphSwapper) -> None:
    canvas = np.ascontiguousarray(data.astronaut())
    mesh = faces_of(scan["faces"][scan["path"].to_pylist().index("face.jpg")], pack.dimensions).need("meshes")[0]
    patch = swapper.swap(canvas, mesh, sample(swapper.model, 1))
    with worn(canvas, patch):
        assert not np.array_equal(canvas, data.astronaut())
    np.testing.assert_array_equal(canvas, data.astronaut())


def test_a_file_that_changed_since_the_scan_is_withheld(scan: pa.Table, stage: AnonymizeStage, folder: Path) -> None:
    at = scan["path"].to_pylist().index("cat.png")
    picture = (folder / "cat.png").read_bytes()
    try:
        (folder / "cat.png").write_bytes((folder / "face.jpg").read_bytes())
        (row,) = stage(scan.slice(at, 1)).to_pylist()
    finally:
        (folder / "cat.png").write_bytes(picture)
    assert row["verdict"] == "withheld"
    assert row["image"] is None


def test_the_summary_counts(done: pa.Table) -> None:
    counted = summary(*split(done))
    assert counted["images"] == done.num_rows
    assert sum(counted["face_verdicts"].values()) == counted["faces"]
    assert counted["failed"] == {"truncated": 1, "empty": 1}


def test_an_unforeseen_error_withholds_the_picture_and_goes_on(
    scan: pa.Table, stage: AnonymizeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise FloatingPointError("odd")

    monkeypatch.setattr(stage.swapper, "swap", broken)
    rows = {row["path"]: row for row in stage(scan).to_pylist()}
    assert rows["face.jpg"]["verdict"] == "withheld"
    assert rows["face.jpg"]["image"] is None
    assert rows["face.jpg"]["reason"] == "internal_error: FloatingPointError"
    assert rows["broken.jpg"]["verdict"] == "failed"


def test_an_unforeseen_error_in_the_scan_is_a_row(folder: Path, pack: ModelPack, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise FloatingPointError("odd")

    broken_pack = type("Broken", (), {"dimensions": pack.dimensions, "analyse": staticmethod(broken)})()
    rows = ScanStage(broken_pack, 178_956_970)(units(folder)).to_pylist()
    assert len(rows) == len(list(folder.iterdir()))
    assert all(row["reason"] and row["faces"] is None for row in rows)


def test_a_forgotten_face_is_covered(stage: AnonymizeStage, scan: pa.Table, pack: ModelPack) -> None:
    """Of somebody who was removed from the known faces the scan has box and points only."""
    ids = scan["image_id"].to_pylist()
    at = scan["path"].to_pylist().index("face.jpg")
    blank = blanked(scan.slice(at, 1), [f"{ids[at]}:0"], {f"{ids[at]}:0"}, pack.dimensions)
    (row,) = stage(blank).to_pylist()
    assert (row["verdict"], row["reason"]) == ("anonymized", None)
    (face,) = row["face_rows"]
    assert (face["verdict"], face["reason"]) == ("redacted", "no_mesh")
    split(stage(blank))


def test_a_picture_in_which_nobody_looked_for_faces_is_withheld(scan: pa.Table, stage: AnonymizeStage) -> None:
    """Whatever has lost the faces of a row: it must not pass for a picture without any, which is published as it is."""
    few = scan.filter(pc.is_in(scan["path"], pa.array(["cat.png", "face.jpg"])))
    place = few.schema.get_field_index("faces")
    done = stage(few.set_column(place, few.schema.field(place), pa.nulls(few.num_rows, few.schema.field(place).type)))
    assert done["verdict"].to_pylist() == ["withheld", "withheld"]
    assert done["reason"].to_pylist() == ["not_scanned", "not_scanned"]
    assert done["image"].to_pylist() == [None, None]


def test_the_watch_knows_which_image_it_is_at_and_what_not_to_touch(
    scan: pa.Table, stage: AnonymizeStage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched, watch = copy.copy(stage), Watch(tmp_path, "anonymize", 60.0)
    watched.watch = watch
    watched._settler = Settler(stage.check, 95, watch=watch)
    few = scan.filter(pc.is_in(scan["path"], pa.array(["cat.png", "face.jpg"])))
    paths = dict(zip(few["image_id"].to_pylist(), few["path"].to_pylist(), strict=True))
    seen: list[tuple[str, str]] = []

    def spied(module: Any, name: str) -> None:
        real = getattr(module, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            note = json.loads((tmp_path / "watch" / "anonymize-00000.at").read_bytes().partition(b"\n")[0])
            seen.append((name, paths[note["key"]]))
            return real(*args, **kwargs)

        monkeypatch.setattr(module, name, call)

    spied(anonymize, "scrub")
    spied(anonymize, "decode")
    spied(settle, "Published")
    with watch.part(0):
        done = watched(few)
    assert set(seen) == {("scrub", "cat.png"), ("decode", "face.jpg"), ("Published", "face.jpg")}
    assert done["verdict"].to_pylist() == ["unchanged", "anonymized"]

    (tmp_path / "quarantine").mkdir()
    for image_id in paths:
        (tmp_path / "quarantine" / f"anonymize-{image_id}.json").write_text('{"reason": "too_slow"}')
    seen.clear()
    with watch.part(0):
        done = watched(few)
    assert not seen
    assert done["verdict"].to_pylist() == ["failed", "failed"]
    assert done["reason"].to_pylist() == ["too_slow", "too_slow"]
    assert done["image"].to_pylist() == [None, None]


@pytest.mark.parametrize("kind", ["finder", "second_look", "audit_look"])
def test_nothing_is_published_where_a_detector_gives_no_numbers(
    stage: AnonymizeStage, pack: ModelPack, folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(outputs: list[np.ndarray]) -> None:
        outputs[0][:] = np.nan  # all scores: nothing is found

    part: Any = getattr(pack, kind)
    for detector in [part.detector] if kind == "audit_look" else part.detectors:
        monkeypatch.setattr(detector, "_net", Sick(detector._net, spoil))
    monkeypatch.setattr("mfmc_ray.faces.second_look.SURE_SCORE", 2.0)  # it looks at every face again
    row = units(folder)
    rows = ScanStage(pack, 10**8)(row.filter(pc.equal(row["path"], "face.jpg")))
    assert rows["reason"].to_pylist() == ["internal_error: ModelError"]
    images, _ = split(stage(rows))
    assert images["verdict"].to_pylist() == ["failed"]
    assert images["image"].null_count == 1
