"""The dry run of access decisions: what it says of each face, and what it draws."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pytest
from skimage import data
from typer.testing import CliRunner

from mfmc_ray import discreet
from mfmc_ray.access_cli import app
from mfmc_ray.config import AccessConfig, RunConfig, SwapConfig
from mfmc_ray.errors import USER_ERRORS
from mfmc_ray.evaluate.explained import COLOURS, Mark, draw
from mfmc_ray.faces.pack import DIMENSIONS, ModelPack
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.ledger import Ledger, LedgerError
from mfmc_ray.people.registry import Photo, Registry, changing
from mfmc_ray.pipeline.explain import Explanation, explain
from mfmc_ray.pipeline.rows import faces_of
from mfmc_ray.pipeline.state import State
from mfmc_ray.pipeline.workers import SCAN
from mfmc_ray.review.decisions import REDACT, append

pytestmark = pytest.mark.models
FACE = np.ascontiguousarray(data.astronaut()[:260, 120:320])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face, and the same one large and small beside each other."""
    root = tmp_path_factory.mktemp("photos")
    small = np.zeros_like(FACE)
    small[:65, :50] = FACE[::4, ::4]
    PIL.Image.fromarray(FACE).save(root / "one.png")
    PIL.Image.fromarray(np.hstack([FACE, small])).save(root / "pair.png")
    return root


@dataclasses.dataclass
class Scanned:
    config: RunConfig
    ledger: Ledger

    def explain(self, image: str, **access: str) -> Explanation:
        config = dataclasses.replace(self.config, access=AccessConfig(**access)) if access else self.config
        return explain(config, self.ledger, image, Calibration())


@pytest.fixture
def run(scan: pa.Table, folder: Path, pack: ModelPack, tmp_path: Path) -> Scanned:
    """A collection that was scanned and no more, and a person who is enrolled, with the face in one.png."""
    config = RunConfig(input=str(folder), out=str(tmp_path / "out"), work=str(tmp_path / "work"), swap=SwapConfig(min_face=60.0))
    ledger = Ledger(config.out, config.work)
    ledger.commit_part(SCAN, 0, {"scan": scan}, {"images": scan.num_rows, "faces": 3})
    State(ledger.work).begin(config, {})
    faces = faces_of(scan["faces"][scan["path"].to_pylist().index("one.png")], pack.dimensions)
    vectors = {
        name: faces.embeddings[name][0] if name in faces.embeddings else np.eye(1, dim, dtype=np.float32)[0]
        for name, dim in DIMENSIONS.items()
    }
    people = tmp_path / "people"
    registry = Registry.open(people, new=True).adding([Photo("Ada Example", "ab" * 32, vectors)])
    with changing(people):
        registry.write()
    (tmp_path / "consents.csv").write_text("image,person,allow\none.png,Ada Example,yes\n")
    return Scanned(config, ledger)


def test_each_face_is_explained_before_anything_is_published(run: Scanned, tmp_path: Path) -> None:
    explained = {"people": str(tmp_path / "people"), "model": "explicit", "consents": str(tmp_path / "consents.csv")}
    one = run.explain("one.png", **explained)
    (face,) = one.faces
    assert (face.verdict, face.reason, face.published, one.scanned) == ("kept", "explicit:1", None, True)
    assert face.seen is not None
    assert (face.seen.person, face.seen.reason) == ("Ada Example", "recognised")
    pair = run.explain("pair.png", **explained)
    by_size = sorted(pair.faces, key=lambda face: face.box[2] - face.box[0])
    # nobody has approved this image
    assert [(face.verdict, face.reason) for face in by_size] == [("redacted", "too_small"), ("replaced", None)]
    assert run.explain("pair.png").faces[0].seen is None
    (denied,) = run.explain("one.png", **explained, never=str(_table(tmp_path, "never.csv", "person\nAda Example\n"))).faces
    assert (denied.verdict, denied.reason) == ("replaced", "never:1")


def test_an_image_is_found_by_its_id_its_path_and_its_file(run: Scanned, folder: Path, tmp_path: Path) -> None:
    image_id = run.explain("one.png").image_id
    for name in (image_id, image_id.upper(), image_id[:16], str(folder / "one.png")):
        found = run.explain(name)
        assert (found.path, found.scanned) == ("one.png", True)
    for name in ("two.png", "f" * 64):
        with pytest.raises(LedgerError, match="no scanned image"):
            run.explain(name)
    other = tmp_path / "other.png"
    PIL.Image.fromarray(FACE[:, ::-1]).save(other)
    found = run.explain(str(other))
    assert (found.path, found.scanned, len(found.faces)) == ("other.png", False, 1)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert run.explain(str(tmp_path / "broken.png")).kept_back is not None


def test_reviews_and_pseudonyms_are_part_of_it(run: Scanned) -> None:
    before = run.explain("one.png").faces[0]
    look = dict.fromkeys(("reason", "similarity_to_original", "age_after", "yaw_after", "pitch_after", "roll_after", "identity_id"))
    face: dict[str, Any] = look | {"image_id": run.explain("one.png").image_id, "face_no": 0, "box": before.box, "verdict": "replaced"}
    append(run.ledger.work, REDACT, face)
    assert [(one.verdict, one.reason) for one in run.explain("one.png").faces] == [("redacted", "review")]
    append(run.ledger.work, REDACT, face | {"face_no": 4, "box": [0, 0, 3, 3]})
    lost = run.explain("one.png")
    assert (lost.faces, lost.picture) == ((), None)
    assert "not found any more" in (lost.kept_back or "")
    covered = dataclasses.replace(run.config.swap, pseudonyms="none")
    run.config = dataclasses.replace(run.config, swap=covered)
    assert {one.reason for one in run.explain("pair.png").faces} == {"pseudonyms_none"}


def test_the_picture_is_private_and_shows_the_boxes(run: Scanned) -> None:
    found = run.explain("one.png")
    assert found.picture is not None
    assert found.picture.parent == run.ledger.work / "explain"
    assert (found.picture.stat().st_mode & 0o777, found.picture.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    drawn = np.asarray(PIL.Image.open(found.picture))
    scale = 900 / FACE.shape[0]
    x0, y0, _, y1 = (v * scale for v in found.faces[0].box)
    np.testing.assert_array_equal(drawn[round((y0 + y1) / 2), round(x0)], COLOURS["replaced"])


def test_labels_do_not_lie_on_each_other() -> None:
    marks = [Mark((300.0 + i, 300.0 + i, 380.0, 400.0), verdict, "a line") for i, verdict in enumerate(COLOURS)]
    drawn = draw(np.full((900, 900, 3), 128, np.uint8), marks, "a heading")
    for colour in COLOURS.values():
        assert (drawn[:900] == colour).all(2).sum() > 24 * 60 * 0.5
    assert drawn.shape == (900 + 4 * 28 + 28, 900, 3)
    assert draw(np.zeros((40, 2000, 3), np.uint8), [], "wide").shape[1] == 1800


def test_the_command_names_nobody_unless_asked(run: Scanned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discreet, "_named", False)
    told = ["explain", "one.png", run.config.out, "--work", run.config.work, "--people", str(tmp_path / "people")]
    told += ["--access", "explicit", "--consents", str(tmp_path / "consents.csv")]
    done = CliRunner().invoke(app, told, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "explicit:1" in done.output
    assert "recognised" in done.output
    assert "Ada" not in done.output
    assert "one.png" not in done.output
    monkeypatch.setattr(discreet, "_named", True)
    assert "Ada Example" in CliRunner().invoke(app, told, env={"COLUMNS": "200"}).output
    # what the run was told is what is asked, unless something else is given
    settings = json.loads((run.ledger.work / "settings.json").read_text())
    settings["access"] |= {"people": str(tmp_path / "people"), "model": "explicit", "consents": str(tmp_path / "consents.csv")}
    (run.ledger.work / "settings.json").write_text(json.dumps(settings))
    plain = ["explain", "one.png", run.config.out, "--work", run.config.work]
    assert "explicit:1" in CliRunner().invoke(app, plain).output
    tags, trust = _table(tmp_path, "tags.csv", "image,person,by\n"), _table(tmp_path, "trust.csv", "person,trusts\n")
    other = CliRunner().invoke(app, [*plain, "--access", "proxy", "--tags", str(tags), "--trust", str(trust)])
    assert other.exit_code == 0, other.output
    assert "kept" not in other.output
    assert isinstance(CliRunner().invoke(app, ["explain", "x", str(tmp_path / "nowhere")]).exception, USER_ERRORS)


def _table(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name
