from __future__ import annotations

from pathlib import Path

import cv2
import dlib
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from skimage.data import astronaut

from mfmc_ray.faces.align import ARCFACE_TEMPLATE, chips, similarity, warp
from mfmc_ray.faces.embed import DlibEmbedder, SFaceEmbedder
from mfmc_ray.faces.faces import F32, Image
from mfmc_ray.faces.gather import RowsError
from mfmc_ray.faces.protocols import Embedder
from mfmc_ray.faces.store import model_path

pytestmark = pytest.mark.models

# a little above the cosines at a false-match rate of 1e-3 between LFW strangers, .363 and .924
THRESHOLDS = {"sface": 0.38, "dlib": 0.927}

# the astronaut's five points, as YuNet finds them
ASTRONAUT = np.array([[[200.1, 101.8], [247.2, 102.6], [220.3, 124.7], [198.9, 143.2], [239.8, 143.9]]], np.float32)


@pytest.fixture(scope="module", params=[SFaceEmbedder, DlibEmbedder])
def embedder(request: pytest.FixtureRequest) -> Embedder:
    made: Embedder = request.param()
    return made


@pytest.fixture(scope="module")
def people(shared_data: Path) -> tuple[list[Image], list[F32], np.ndarray]:
    """Photos, five points and names of 40 people, 4 photos each."""
    found = cv2.FaceDetectorYN.create(str(model_path("yunet")), "", (250, 250), 0.6)
    images, points, names = [], [], []
    for folder in sorted((shared_data / "people").iterdir())[:40]:
        for file in sorted(folder.iterdir()):
            image = cv2.imread(str(file))
            _, faces = found.detect(image)
            middle = np.abs(faces[:, :2] + faces[:, 2:4] / 2 - 125).sum(1).argmin()
            images.append(np.ascontiguousarray(image[:, :, ::-1]))
            points.append(faces[middle, 4:14].reshape(1, 5, 2))
            names.append(folder.name)
    return images, points, np.array(names)


def test_shape_and_unit_length(embedder: Embedder) -> None:
    points = np.repeat(ASTRONAUT, 6, 0) + np.arange(6, dtype=np.float32)[:, None, None]
    vectors = embedder.embed(astronaut(), points)
    assert vectors.shape == (6, embedder.dim)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    # the batches a face falls in do not change it
    alone = np.concatenate([embedder.embed(astronaut(), points[i : i + 1]) for i in range(6)])
    np.testing.assert_allclose(vectors, alone, atol=1e-5)


def test_no_faces(embedder: Embedder) -> None:
    vectors = embedder.embed(astronaut(), np.zeros((0, 5, 2), np.float32))
    assert vectors.shape == (0, embedder.dim)
    assert vectors.dtype == np.float32


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_face_is_the_same_person(embedder: Embedder, turns: int) -> None:
    image, points = astronaut(), ASTRONAUT
    for _ in range(turns):
        points = np.stack([points[..., 1], image.shape[1] - 1 - points[..., 0]], -1)
    turned = embedder.embed(np.ascontiguousarray(np.rot90(image, turns)), points)
    assert float(turned[0] @ embedder.embed(image, ASTRONAUT)[0]) > 0.99


@pytest.mark.parametrize("change", ["mirrored", "darker", "smaller", "jpeg"])
def test_a_changed_picture_is_the_same_person(embedder: Embedder, change: str) -> None:
    image, points = astronaut(), ASTRONAUT
    if change == "mirrored":
        changed = np.ascontiguousarray(image[:, ::-1])
        points = (np.array([image.shape[1] - 1, 0]) + ASTRONAUT * (-1, 1))[:, [1, 0, 2, 4, 3]].astype(np.float32)
    elif change == "darker":
        changed = (image * 0.6).astype(np.uint8)
    elif change == "smaller":
        changed = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        points = (points + 0.5) / 2 - 0.5
    else:
        changed = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)
    cosine = float(embedder.embed(changed, points)[0] @ embedder.embed(image, ASTRONAUT)[0])
    assert cosine > THRESHOLDS[embedder.name]


def test_sface_agrees_with_the_file_as_it_is() -> None:
    model = onnx.load(model_path("sface"))
    data = next(i for i in model.graph.input if i.name == "data")
    del model.graph.input[:]
    model.graph.input.append(data)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    chip = chips(astronaut(), ASTRONAUT)
    expected = session.run(None, {"data": chip.transpose(0, 3, 1, 2).astype(np.float32)})[0][0]
    vector = SFaceEmbedder().embed(astronaut(), ASTRONAUT)[0]
    np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-5)


def test_dlib_agrees_with_dlib() -> None:
    """dlib's own way: its detector, its aligner, its network."""
    network = dlib.face_recognition_model_v1(str(model_path("dlib_resnet")))
    align = dlib.shape_predictor(str(model_path("dlib_5points")))
    (box,) = dlib.get_frontal_face_detector()(astronaut(), 0)
    expected = np.array(network.compute_face_descriptor(astronaut(), align(astronaut(), box)))
    vector = DlibEmbedder().embed(astronaut(), ASTRONAUT)[0]
    assert vector @ expected / np.linalg.norm(expected) > 0.995


def test_dlib_network_is_exact() -> None:
    """On the same chip dlib's network gives the same vector."""
    network = dlib.face_recognition_model_v1(str(model_path("dlib_resnet")))
    chip = warp(astronaut(), similarity(ASTRONAUT, ARCFACE_TEMPLATE + 19), 150)
    expected = np.array(network.compute_face_descriptor(chip[0]))
    np.testing.assert_allclose(DlibEmbedder()._net.run(chip)[0], expected / np.linalg.norm(expected), atol=1e-5)


@pytest.mark.parametrize(("make", "true_matches"), [(SFaceEmbedder, 0.95), (DlibEmbedder, 0.9)])
def test_tells_people_apart(people: tuple[list[Image], list[F32], np.ndarray], make: type[Embedder], true_matches: float) -> None:
    images, points, names = people
    embedder = make()
    vectors = np.concatenate([embedder.embed(i, p) for i, p in zip(images, points, strict=True)])
    first, second = np.triu_indices(len(vectors), 1)
    cosines, same = (vectors @ vectors.T)[first, second], (names[:, None] == names)[first, second]
    accepted = cosines > THRESHOLDS[embedder.name]
    assert accepted[same].mean() > true_matches
    assert accepted[~same].mean() < 2e-3


def test_one_embedding_is_not_spread_over_several_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = SFaceEmbedder()
    crops = np.repeat(embedder.crops(astronaut(), ASTRONAUT), 3, 0)
    assert embedder.embed_crops(crops).shape == (3, 128)
    session = embedder._net._session
    first = type("Session", (), {"run": lambda _, names, feed: [session.run(names, feed)[0][:1]]})()
    monkeypatch.setattr(embedder._net, "_session", first)
    with pytest.raises(RowsError, match="of 3 faces"):
        embedder.embed_crops(crops)
