"""InsightFace's detector and recognizer through insightface itself, on tiny networks with the same inputs and outputs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_networks as tiny
from sick_networks import Sick, on_gpu

from mfmc_ray.config import FindConfig, load
from mfmc_ray.faces import insight
from mfmc_ray.faces.align import chips
from mfmc_ray.faces.insight import ArcFaceEmbedder, ScrfdDetector
from mfmc_ray.faces.pack import ALL_DIMENSIONS, EMBEDDERS, digests_of, load_pack
from mfmc_ray.faces.store import ModelError
from mfmc_ray.pipeline.manifest import name_weights
from mfmc_ray.pipeline.references import rendered
from mfmc_ray.pipeline.session import _pulled

pytestmark = pytest.mark.models


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(insight.ENVIRONMENT, str(tmp_path))
    tiny.inswapper(tmp_path / "a_swapper.onnx")
    tiny.scrfd(tmp_path / "det.onnx")
    tiny.arcface(tmp_path / "rec.onnx")
    return tmp_path


@pytest.fixture
def installed() -> None:
    pytest.importorskip("insightface", reason="insightface is not installed: docs/swappers.md says how")


def test_without_insightface_it_is_said_how_to_get_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "insightface", None)
    with pytest.raises(ModelError, match="pip install --no-deps insightface"):
        ArcFaceEmbedder()
    assert "arcface" not in EMBEDDERS


@pytest.mark.usefixtures("installed")
def test_a_folder_without_the_model_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(insight.ENVIRONMENT, str(tmp_path))
    with pytest.raises(ModelError, match="no model for scrfd"):
        ScrfdDetector()


@pytest.mark.usefixtures("folder", "installed")
@pytest.mark.parametrize("size", [(480, 640), (1400, 2600)])
def test_scrfd_finds_what_is_there(size: tuple[int, int]) -> None:
    height, width = size
    image = np.zeros((height, width, 3), np.uint8)
    scale = width // 640
    x, y = 256 * scale, 160 * scale
    image[y : y + 32 * scale, x : x + 32 * scale] = 255
    faces = ScrfdDetector(min_score=0.5).detect(image)
    assert len(faces) >= 1
    assert faces.detectors[0] == "scrfd"
    centre = (faces.boxes[0, :2] + faces.boxes[0, 2:]) / 2
    assert np.abs(centre - [x, y]).max() < 40 * scale
    assert (faces.points[0, 1, 0] > faces.points[0, 0, 0]) & (faces.points[0, 3, 1] > faces.points[0, 0, 1])
    assert len(ScrfdDetector(min_score=0.5).detect(np.zeros_like(image))) == 0


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("batch", ["n", 1])
def test_arcface_is_insightface_s(folder: Path, batch: int | str) -> None:
    tiny.arcface(folder / "rec.onnx", batch=batch)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (300, 300, 3), np.uint8)
    points = np.array([[[110, 110], [180, 112], [145, 150], [118, 185], [172, 186]], [[60, 70], [99, 60], [85, 90], [72, 112], [107, 103]]])
    embedder = ArcFaceEmbedder()
    vectors = embedder.embed(image, points.astype(np.float32))
    assert vectors.shape == (2, ALL_DIMENSIONS["arcface"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    theirs = insight.model_of("arcface").get_feat(list(chips(image, points.astype(np.float32))[..., ::-1]))[:1] if batch == "n" else None
    if theirs is not None:
        np.testing.assert_allclose(vectors[0], theirs[0] / np.linalg.norm(theirs[0]), atol=1e-5)
    assert embedder.embed_crops(np.zeros((0, 112, 112, 3), np.uint8)).shape == (0, 512)
    assert len(digests_of(["arcface", "sface"])["arcface"]) == 64
    assert rendered(embedder, [0, 7]).shape == (2, 512)


@pytest.mark.usefixtures("folder", "installed")
def test_a_pack_has_them_beside_the_embedded_ones() -> None:
    pack = load_pack(FindConfig(detectors=("yunet", "scrfd"), det_size=320), ("sface", "arcface"))
    assert pack.dimensions == {"sface": 128, "arcface": 512}


def test_runs_without_them_are_the_same() -> None:
    plain = load(None)
    assert load(None, find__det_size=320).digest() == plain.digest()
    assert load(None, find__detectors=["scrfd"], find__det_size=320).digest() != load(None, find__detectors=["scrfd"]).digest()


@pytest.mark.usefixtures("folder", "installed")
@pytest.mark.parametrize("output", [0, 3, 8])
def test_what_is_no_number_is_no_empty_picture(output: int) -> None:
    def spoil(outputs: list[np.ndarray]) -> None:
        outputs[output].flat[0] = np.nan

    detector = ScrfdDetector()
    detector._model.session._session = Sick(detector._model.session._session, spoil)
    with pytest.raises(ModelError, match="scrfd gives what is no number"):
        detector.detect(np.zeros((64, 64, 3), np.uint8))


@pytest.mark.usefixtures("folder", "installed")
def test_on_a_gpu_scrfd_must_see_when_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = on_gpu(monkeypatch, lambda outputs: None)
    with pytest.raises(ModelError, match="scrfd does not find a face"):  # this one never does
        ScrfdDetector()
    assert exact == [True]


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(insight, "_process", insight._Process())


@pytest.mark.usefixtures("installed", "fresh")
def test_other_weights_than_the_run_s_are_not_loaded(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name_weights(load(None, guard__recognizers=["sface", "arcface"], find__detectors=["yunet", "scrfd"]))
    named = insight.named()
    assert {name: digest == insight.digest_of(name) for name, digest in named.items()} == {"arcface": True, "scrfd": True}
    insight.pin(named)
    ArcFaceEmbedder(), ScrfdDetector()
    other = tmp_path / "node"  # another machine, where the variable says something else
    other.mkdir()
    tiny.arcface(other / "rec.onnx", batch=1)
    tiny.scrfd(other / "det.onnx")
    monkeypatch.setenv(insight.ENVIRONMENT, str(other))
    ScrfdDetector()
    with pytest.raises(ModelError, match=r"arcface .* not the one of the machine that leads the run .* on every node"):
        ArcFaceEmbedder()
    said = _pulled([], None, named)  # before anything is scanned
    assert isinstance(said, ModelError)
    assert "MFMC_INSIGHTFACE" in str(said)
    assert str(tmp_path) not in str(said)


@pytest.mark.usefixtures("folder", "installed", "fresh")
def test_what_the_run_has_not_named_is_not_loaded() -> None:
    insight.pin({})
    with pytest.raises(ModelError, match="the file of scrfd"):
        ScrfdDetector()


@pytest.mark.usefixtures("installed")
def test_weights_beside_the_file_are_refused(folder: Path) -> None:
    tiny.beside(folder / "rec.onnx")
    with pytest.raises(ModelError, match=r"rec\.onnx has weights in other files"):
        ArcFaceEmbedder()
    (folder / "rec.onnx").write_text("no network")
    with pytest.raises(ModelError, match=r"cannot load rec\.onnx"):
        ArcFaceEmbedder()


@pytest.mark.usefixtures("folder", "installed")
def test_pictures_of_all_sizes_are_looked_at_by_one_network() -> None:
    detector, seen = ScrfdDetector(), list[int]()
    detector._model.session._session = Sick(detector._model.session._session, lambda outputs: seen.append(len(outputs)))
    for side in (64, 96, 128):
        detector.detect(np.zeros((side, 64, 3), np.uint8))
    assert len(seen) == 3 * len([view for view in detector.views if not view.larger_than])
