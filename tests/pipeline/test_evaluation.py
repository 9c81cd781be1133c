"""The way of `mfmc evaluate` without Ray: pairs, notes that are made once, figures."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from mfmc_ray.cli import app
from mfmc_ray.collection import CollectionError
from mfmc_ray.ledger import Ledger, LedgerError
from mfmc_ray.pipeline import evaluation
from mfmc_ray.pipeline.evaluation import EvaluateWorker
from mfmc_ray.pipeline.paired import plan
from mfmc_ray.tables import FACES, IMAGES

PEOPLE, PHOTOS = 11, 2


@pytest.fixture(scope="module")
def photos(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few people with two photos each."""
    folder = tmp_path_factory.mktemp("photos")
    for person in sorted((shared_data / "people").iterdir())[:PEOPLE]:
        (folder / person.name).mkdir()
        for file in sorted(person.iterdir())[:PHOTOS]:
            shutil.copy(file, folder / person.name / file.name)
    return folder


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """No Ray; the images of each part that was done."""
    seen: list[int] = []

    def run_parts(
        stage: type[EvaluateWorker],
        arguments: Mapping[str, Any],
        parts: Sequence[Mapping[str, Any]],
        *,
        on_result: Callable[[int, dict[str, Any]], None],
        **_: Any,
    ) -> None:
        worker = stage(**arguments)
        for part in parts:
            seen.append(len(part["pairs"]))
            on_result(part["part"], worker(json.loads(json.dumps(part))))

    monkeypatch.setattr(evaluation, "run_parts", run_parts)
    monkeypatch.setattr(evaluation, "connect", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(evaluation, "plan_of", lambda *_, **__: None)
    monkeypatch.setattr(evaluation, "prepare", lambda *_: None)
    return seen


def mfmc(*arguments: Any) -> str:
    done = CliRunner().invoke(app, ["evaluate", *map(str, arguments), "--rounds", "50"])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return " ".join(done.output.split())


def published(out: Path, photos: Path) -> None:
    """OUT as a run writes it: the first person's photos are covered, one image is withheld, the others are as they were."""
    images, faces = [], []
    files = sorted(photos.rglob("*.jpg"))
    for i, file in enumerate(files):
        data, path = file.read_bytes(), str(file.relative_to(photos))
        image_id, withheld = hashlib.sha256(data).hexdigest(), i == len(files) - 1
        verdict = "withheld" if withheld else "anonymized"
        images.append(
            {"image_id": image_id, "path": path, "verdict": verdict, "image": {"bytes": None if withheld else data, "path": path}}
        )
        face = {
            "image_id": image_id,
            "path": path,
            "face_no": 0,
            "box": [75, 70, 175, 195],
            "verdict": "redacted" if i < PHOTOS else "replaced",
        }
        faces += [] if withheld else [face | {"identity_id": None if i < PHOTOS else f"fake-{i % 3}"}]
    for name, rows, schema in (("images", images, IMAGES), ("faces", faces, FACES)):
        (out / name).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows, schema), out / name / "part-00000.parquet")
    (out / "manifest.json").write_text(json.dumps({"guard": [{"recognizer": "sface"}]}))


@pytest.mark.models
def test_a_run_s_result(photos: Path, tmp_path: Path, looked_at: list[int]) -> None:
    out, work = tmp_path / "out", tmp_path / "work"
    published(out, photos)
    before = {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    text = mfmc(photos, out, "--work", work, "--labels", "folders", "--recognizers", "sface,mobileface")
    assert looked_at == [12, 10]
    assert "(guard)" in text
    assert "redacted, 1 withheld" in text
    found = json.loads((work / "evaluation" / "evaluation.json").read_text())
    assert found["images"] | {"verdicts": None} == {
        "pairs": 22,
        "verdicts": None,
        "not_looked_at": {},
        "without_original": 0,
        "without_output": 0,
    }
    assert found["recognition"]["faces"] == {"replaced": 19, "changed": 0, "redacted": 2, "withheld": 1, "kept": 0}
    sface, mobileface = found["recognition"]["recognizers"]
    assert (sface["recognizer"], sface["guard"], mobileface["guard"]) == ("sface", True, False)
    assert sface["identification"]["other_photos"]["rank1"]["value"] == 1  # nothing was changed
    assert sface["identification"]["other_photos"]["rank1_of_all_faces"]["value"] == pytest.approx(19 / 22, abs=1e-3)
    assert sface["unique"]["identities_worn"] == 3
    assert found["utility"]["faces"] == 19
    assert found["utility"]["sex_kept"]["own"]["value"] == 1
    assert found["downstream"]["unpublished"] == 1
    assert found["structure"]["faces"]["ssim"]["value"] == 1
    assert found["perceptual"]["faces"]["looks"]["distance"]["value"] == 0
    html = (work / "evaluation" / "index.html").read_text()
    assert "SFace (guard)" in html
    assert html.count("data:image/jpeg") == 19  # the replaced faces, no other
    assert not [person.name for person in photos.iterdir() if person.name in html]
    assert {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before

    # again: nothing; another recognizer: that alone; a part that a crash has left without a marker: that alone; clusters: nothing
    mfmc(photos, out, "--work", work, "--labels", "folders", "--recognizers", "sface,mobileface")
    assert looked_at == [12, 10]
    stamp = (work / "evaluation" / "embeddings-sface" / "part-00000.parquet").stat().st_mtime_ns
    (work / "evaluation" / "ledger" / "embeddings-mobileface" / "part-00001.json").unlink()
    mfmc(photos, out, "--work", work, "--recognizers", "sface,mobileface")
    assert looked_at == [12, 10, 10]
    assert (work / "evaluation" / "embeddings-sface" / "part-00000.parquet").stat().st_mtime_ns == stamp
    found = json.loads((work / "evaluation" / "evaluation.json").read_text())["recognition"]["people"]
    assert found["labels"] == "clusters"
    assert PEOPLE - 2 <= found["people"] <= 2 * PEOPLE


@pytest.mark.models
def test_a_plain_folder_and_what_changes_in_it(photos: Path, tmp_path: Path, looked_at: list[int]) -> None:
    out, work = tmp_path / "out", tmp_path / "work"
    shutil.copytree(photos, out)
    first, *others = sorted(out.rglob("*.jpg"))
    first.unlink()
    others[0].rename(others[0].with_suffix(".jpeg"))  # found all the same
    asked = ("--labels", "folders", "--recognizers", "mobileface", "--sections", "recognition")
    text = mfmc(photos, out, "--work", work, *asked)
    assert "changed" in text
    found = json.loads((work / "evaluation" / "evaluation.json").read_text())
    assert found["made"]["plain_folder"] is True
    assert found["images"]["verdicts"] == {"missing": 1, "changed": 21}
    (row,) = found["recognition"]["recognizers"]
    other = row["identification"]["other_photos"]
    assert other["rank1"]["value"] == other["rank1_before"]["value"]
    others[-1].write_bytes(b"no picture any more")
    mfmc(photos, out, "--work", work, *asked)
    assert looked_at == [12, 10, 10]


def test_what_is_no_pair_is_said(tmp_path: Path) -> None:
    for name in ("photos", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "out" / "b.jpg").write_bytes(b"\xff\xd8\xff")
    ledger = Ledger(str(tmp_path / "out"), str(tmp_path / "work"))
    with pytest.raises(CollectionError, match="no picture with the path of an original"):
        plan(str(tmp_path / "photos"), ledger, {})
    published(tmp_path / "run", tmp_path / "photos")
    ledger = Ledger(str(tmp_path / "run"), str(tmp_path / "work"))
    assert plan(str(tmp_path / "photos"), ledger, {}).guards == ("sface",)
    with pytest.raises(LedgerError, match="give the collection that it was made from"):
        plan(str(tmp_path / "out"), ledger, {})
    (tmp_path / "run" / "manifest.json").unlink()
    with pytest.raises(LedgerError, match="unfinished"):
        plan(str(tmp_path / "photos"), ledger, {})
