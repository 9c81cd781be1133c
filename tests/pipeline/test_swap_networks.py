"""The stages with a swap network, without Ray: what is no face is covered, what is one is checked as the renderer's are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tiny_networks as tiny
from made_stages import known_faces, make_check, make_stage
from PIL import Image
from rich.console import Console
from skimage import data

from mfmc_ray.codec import decode
from mfmc_ray.config import SwapConfig, load
from mfmc_ray.faces.pack import ModelPack
from mfmc_ray.faces.store import ModelError
from mfmc_ray.identities.pool import Wanted
from mfmc_ray.identities.sample import sample
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.known.index import KnownFaces
from mfmc_ray.ledger import Ledger, LedgerError
from mfmc_ray.pipeline.anonymize import AnonymizeStage, split
from mfmc_ray.pipeline.choice import Chooser
from mfmc_ray.pipeline.identities import IdentityStage
from mfmc_ray.pipeline.manifest import given_digests, manifest_of, model_digests
from mfmc_ray.pipeline.pool import fill_pool, renew_pool
from mfmc_ray.pipeline.rows import faces_of
from mfmc_ray.pipeline.wearing import Wearer
from mfmc_ray.pipeline.workers import POOL, made_of
from mfmc_ray.swap.onnx import OnnxSwapper
from mfmc_ray.swap.render import MorphSwapper
from mfmc_ray.swap.spec import load_spec
from mfmc_ray.swap.swappers import swapper_of
from mfmc_ray.tables import pool_schema

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    Image.fromarray(data.astronaut()).save(root / "face.jpg", quality=92)
    Image.fromarray(np.hstack([data.astronaut(), data.astronaut()[:, ::-1]])).save(root / "two.png")
    return root


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("networks")
    tiny.arcface(root / "encoder.onnx")
    tiny.inswapper(root / "junk.onnx", batch="n")
    tiny.inswapper(root / "noise.onnx", batch="n", bad="noise")
    tiny.inswapper(root / "nan.onnx", batch="n", bad="nan")
    free = network(root, "junk")
    tiny.drawing(root / "faces.onnx", free, [sample(free.model, seed) for seed in range(12)])
    return root


def network(root: Path, name: str) -> OnnxSwapper:
    return OnnxSwapper(load_spec(tiny.spec(root, root / f"{name}.onnx", root / "encoder.onnx")))


@pytest.fixture(scope="module")
def stage(scan: pa.Table, pack: ModelPack, swapper: MorphSwapper) -> AnonymizeStage:
    return make_stage(scan, pack, swapper, seeds=8, attempts=6)


def put_on(stage: AnonymizeStage, swapper: OnnxSwapper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "swapper", swapper)
    monkeypatch.setattr(stage, "_choose", Chooser(swapper, stage.check, 6))


@pytest.mark.parametrize("name", ["noise", "nan"])
def test_what_is_no_face_is_covered(
    stage: AnonymizeStage, scan: pa.Table, networks: Path, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_on(stage, network(networks, name), monkeypatch)
    images, faces = split(stage(scan))
    assert set(images["verdict"].to_pylist()) == {"anonymized"}
    assert (faces.num_rows, set(faces["verdict"].to_pylist()), set(faces["reason"].to_pylist())) == (3, {"redacted"}, {"swap_failed"})
    rows = {row["path"]: row for row in images.to_pylist()}
    for face in faces.to_pylist():
        x0, y0, x1, y1 = map(int, face["redacted_area"])
        area = decode(rows[face["path"]]["image"]["bytes"], 10**8).pixels[y0:y1, x0:x1]
        assert (area[4:-4, 4:-4].reshape(-1, 3).std(0) < 2).all(), "nothing of a face is left"


def test_what_only_repaints_the_face_is_checked_like_any_other(
    stage: AnonymizeStage, scan: pa.Table, networks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_on(stage, network(networks, "junk"), monkeypatch)
    _, faces = split(stage(scan))
    for row in faces.to_pylist():
        passed = row["certificates"] and all(one["max_similarity"] < one["threshold"] for one in row["certificates"])
        assert row["verdict"] == "redacted" or (passed and row["similarity_to_original"] < row["threshold"])


def test_a_network_that_breaks_publishes_nothing(
    stage: AnonymizeStage, scan: pa.Table, networks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = network(networks, "junk")

    def fail(*_: object) -> None:
        raise ModelError("out of memory")

    monkeypatch.setattr(broken.network, "run", fail)
    put_on(stage, broken, monkeypatch)
    images, faces = split(stage(scan))
    assert set(images["verdict"].to_pylist()) == {"withheld"}
    assert [image for image in images["image"].to_pylist() if image] == []
    assert faces.num_rows == 0


@pytest.fixture(scope="module")
def drawing(networks: Path) -> OnnxSwapper:
    return network(networks, "faces")


def test_a_network_s_faces_are_certified_and_checked(scan: pa.Table, pack: ModelPack, drawing: OnnxSwapper) -> None:
    made = make_stage(scan, pack, drawing, seeds=12, attempts=8)  # type: ignore[arg-type]
    images, faces = split(made(scan))
    rows = faces.to_pylist()
    assert set(images["verdict"].to_pylist()) == {"anonymized"}
    replaced = [row for row in rows if row["verdict"] == "replaced"]
    assert replaced
    admitted = {one.identity_id for one in made.pool.identities} if made.pool else set()
    for row in replaced:
        assert row["identity_id"] in admitted
        assert row["similarity_to_original"] < row["threshold"]
        assert all(one["max_similarity"] < one["threshold"] for one in row["certificates"])
        assert row["points"] is not None


def test_the_certificate_is_about_what_the_network_shows(
    scan: pa.Table, pack: ModelPack, drawing: OnnxSwapper, swapper: MorphSwapper
) -> None:
    nobody = KnownFaces.empty(pack.dimensions)
    seeds = pa.table({"seed": pa.array([20], pa.int64())})
    theirs, ours = (IdentityStage(make_check(nobody, pack), one)(seeds).to_pylist()[0] for one in (drawing, swapper))
    assert (theirs["identity_id"], theirs["age"]) == (ours["identity_id"], ours["age"])
    assert np.dot(theirs["embedding_sface"], ours["embedding_sface"]) < 0.9
    portrait = drawing.portrait(sample(drawing.model, 20))
    points = make_check(nobody, pack).points(portrait.pixels, portrait.mesh)[None]
    np.testing.assert_allclose(pack.embedders["sface"].embed(portrait.pixels, points)[0], theirs["embedding_sface"], atol=1e-5)


def test_who_wears_one_in_all_images_is_covered_too(scan: pa.Table, pack: ModelPack, networks: Path) -> None:
    at = scan["path"].to_pylist().index("face.jpg")
    faces, pixels = faces_of(scan["faces"][at], pack.dimensions), np.ascontiguousarray(data.astronaut())
    junk = network(networks, "noise")
    wearer = Wearer(junk, make_check(known_faces(scan, pack), pack))
    originals = {name: vectors[:1] for name, vectors in faces.embeddings.items()}
    mesh = faces.need("meshes")[0]
    worn = wearer(pixels, mesh, sample(junk.model, 1), Wanted(0.0, 40.0, 40.0, 0.0), junk.covered(pixels, mesh), originals, 3)
    assert (worn.best, worn.reason) == (None, "swap_failed")


def test_what_the_file_says_is_what_decides(networks: Path, tmp_path: Path) -> None:
    path = tiny.spec(networks, networks / "junk.onnx", networks / "encoder.onnx")
    config, calibration = load(None, swap__swapper=str(path)), Calibration()
    before, plain = made_of(config, calibration), made_of(load(None), calibration)
    assert before != plain
    assert model_digests(config)["swapper"] == swapper_of(config.swap).digest
    assert "swapper" not in model_digests(load(None))
    given = given_digests(model_digests(config))
    assert given == {
        name: tiny.weights_of(networks / f"{file}.onnx")["sha256"] for name, file in (("tiny", "junk"), ("tiny: encoder", "encoder"))
    }
    assert given_digests(model_digests(load(None))) == {}
    assert config.digest() != load(None).digest()
    assert str(networks) not in str(config.to_dict())
    tiny.spec(networks, networks / "junk.onnx", networks / "encoder.onnx", batch=3)
    assert made_of(config, calibration) == before
    tiny.spec(networks, networks / "junk.onnx", networks / "encoder.onnx", paste={"mask": "box"})
    assert made_of(config, calibration) != before
    assert isinstance(swapper_of(SwapConfig()), MorphSwapper)


def test_the_manifest_names_the_licences(networks: Path, pack: ModelPack) -> None:
    path = tiny.spec(networks, networks / "junk.onnx", networks / "encoder.onnx")
    config = load(None, swap__swapper=str(path))
    nobody = KnownFaces.empty(pack.dimensions)
    manifest = manifest_of(config, nobody, {}, Calibration(), [], pool=0, resources={}, stages=[], notices=[])
    mine = {model["name"]: model for model in manifest["models"] if model["license"] == tiny.LICENCE}
    assert set(mine) == {"tiny", "tiny: encoder"}
    assert not any(model["commercial"] for model in mine.values())
    from mfmc_ray.evaluate.card import dataset_card

    assert "NON-COMMERCIAL" in dataset_card(manifest).upper()
    assert tiny.LICENCE in dataset_card(manifest)


def test_another_swapper_s_pool_is_certified_anew(tmp_path: Path, pack: ModelPack) -> None:
    ledger = Ledger(str(tmp_path / "out"), str(tmp_path / "work"), {})
    ledger.begin("config", "input", restart=False)
    table = pool_schema(pack.dimensions).empty_table()
    for part, more in enumerate(({}, {"swapper": "a"}, {"swapper": "b"})):
        ledger.commit_part(POOL, part, {"pool": table}, {"index_digest": "i", "terms": "t", **more})
    assert renew_pool(ledger, pack.dimensions, None, "i", "t", "b") == []  # type: ignore[arg-type]
    assert list(ledger.done(POOL)) == [2]


def test_a_network_that_shows_nobody_is_said_early(tmp_path: Path, pack: ModelPack, networks: Path) -> None:
    ledger = Ledger(str(tmp_path / "out"), str(tmp_path / "work"), {})
    ledger.begin("config", "input", restart=False)
    stage = IdentityStage(make_check(KnownFaces.empty(pack.dimensions), pack), network(networks, "noise"))

    def certify(parts: list[dict[str, Any]]) -> None:
        for part in parts:
            admitted = stage(pa.table({"seed": pa.array(part["seeds"][:1], pa.int64())}))
            ledger.commit_part(POOL, part["part"], {"pool": admitted}, {"swapper": "x", "shown": stage.shown})

    with pytest.raises(LedgerError, match="shows no face of any of 20 fakes"):
        fill_pool(ledger, pack.dimensions, wanted=5, asked=True, seed=0, certify=certify, console=Console(quiet=True))
