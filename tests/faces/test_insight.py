"""InsightFace's detector and recognizer through insightface itself, on tiny networks with the same inputs and outputs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_networks as tiny

from mfmc_ray.config import FindConfig, load
from mfmc_ray.faces import insight
from mfmc_ray.faces.align import chips
from mfmc_ray.faces.insight import ArcFaceEmbedder, ScrfdDetector
from mfmc_ray.faces.pack import ALL_DIMENSIONS, EMBEDDERS, digests_of, load_pack
from mfmc_ray.faces.store import ModelError
from mfmc_ray.pipeline.references import rendered

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
