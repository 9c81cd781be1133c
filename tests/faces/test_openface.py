"""The held-out recognizer: that the network is put together as it was trained, and how weak it is."""

from __future__ import annotations

from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from skimage.data import astronaut

from mfmc_ray.config import FindConfig, GuardConfig
from mfmc_ray.faces.align import similarity, warp
from mfmc_ray.faces.detect import YuNet
from mfmc_ray.faces.faces import F32
from mfmc_ray.faces.openface import OpenFaceEmbedder
from mfmc_ray.faces.pack import EMBEDDERS, HELD_OUT, PackError, load_pack
from mfmc_ray.faces.store import load_lock, model_path
from mfmc_ray.known.calibration import Calibration

pytestmark = pytest.mark.models

# the astronaut's five points, as YuNet finds them
ASTRONAUT = np.array([[[200.1, 101.8], [247.2, 102.6], [220.3, 124.7], [198.9, 143.2], [239.8, 143.9]]], np.float32)


@pytest.fixture(scope="module")
def embedder() -> OpenFaceEmbedder:
    return OpenFaceEmbedder()


def test_it_can_be_held_out_and_never_guards() -> None:
    assert set(HELD_OUT) == {"openface"}
    assert not set(HELD_OUT) & {*EMBEDDERS, *GuardConfig().recognizers}
    with pytest.raises(PackError, match="unknown recognizer openface"):
        load_pack(FindConfig(), ("sface", "openface"))


def test_shape_length_and_batches(embedder: OpenFaceEmbedder) -> None:
    points = np.repeat(ASTRONAUT, 6, 0) + np.arange(6, dtype=np.float32)[:, None, None]
    vectors = embedder.embed(astronaut(), points)
    assert vectors.shape == (6, 128)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(vectors[3:4], embedder.embed(astronaut(), points[3:4]), atol=1e-5)
    assert embedder.embed(astronaut(), points[:0]).shape == (0, 128)


def test_the_graph_is_the_one_of_the_paper(embedder: OpenFaceEmbedder) -> None:
    """Against nn4.small2 written out again, layer by layer, in float64 numpy."""
    chip = warp(astronaut(), similarity(ASTRONAUT, embedder._TEMPLATE), 96)[0]
    with h5py.File(model_path("openface")) as weights:
        expected = Plain(weights).run(chip.transpose(2, 0, 1) / 255.0)
    assert float(embedder.embed(astronaut(), ASTRONAUT)[0] @ expected) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(embedder.embed(astronaut(), ASTRONAUT)[0], expected, atol=1e-4)


class Plain:
    """The network, unfolded: convolution, batch normalisation, ReLU; arrays (channels, height, width)."""

    def __init__(self, weights: h5py.File) -> None:
        self.weights = weights

    def of(self, name: str, what: str) -> np.ndarray:
        return np.asarray(self.weights[name][name][f"{what}:0"], np.float64)

    def convolve(self, x: np.ndarray, conv: str, norm: str, stride: int = 1) -> np.ndarray:
        kernel = self.of(conv, "kernel")
        half = kernel.shape[0] // 2
        x = np.pad(x, ((0, 0), (half, half), (half, half)))
        windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], (1, 2))[:, ::stride, ::stride]
        y = np.einsum("chwij,ijcf->fhw", windows, kernel, optimize=True) + self.of(conv, "bias")[:, None, None]
        gamma, beta, mean, variance = (self.of(norm, w)[:, None, None] for w in ("gamma", "beta", "moving_mean", "moving_variance"))
        return np.maximum((y - mean) / np.sqrt(variance + 1e-5) * gamma + beta, 0)

    @staticmethod
    def windows(x: np.ndarray, stride: int) -> np.ndarray:
        return np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))[:, ::stride, ::stride]

    @staticmethod
    def normalise(x: np.ndarray) -> np.ndarray:
        squares = np.pad(x * x, ((2, 2), (0, 0), (0, 0)))
        return np.asarray(x / (1 + 1e-4 / 5 * sum(squares[i : i + len(x)] for i in range(5))) ** 0.75)

    def inception(self, x: np.ndarray, name: str, sizes: tuple[int, ...], stride: int, largest: bool) -> np.ndarray:
        stem = f"inception_{name}"
        branches = []
        for size in sizes:
            y = self.convolve(x, f"{stem}_{size}x{size}_conv1", f"{stem}_{size}x{size}_bn1")
            branches.append(self.convolve(y, f"{stem}_{size}x{size}_conv2", f"{stem}_{size}x{size}_bn2", stride))
        y = self.windows(x, 2).max((3, 4)) if largest else np.sqrt((self.windows(x, 3) ** 2).sum((3, 4)))
        if f"{stem}_pool_conv" in self.weights:
            y = self.convolve(y, f"{stem}_pool_conv", f"{stem}_pool_bn")
        missing = branches[0].shape[1] - y.shape[1]
        branches.append(np.pad(y, ((0, 0), *[(missing // 2, missing - missing // 2)] * 2)))
        if f"{stem}_1x1_conv" in self.weights:
            branches.append(self.convolve(x, f"{stem}_1x1_conv", f"{stem}_1x1_bn"))
        return np.concatenate(branches)

    def run(self, x: np.ndarray) -> np.ndarray:
        around = ((0, 0), (1, 1), (1, 1))
        x = self.convolve(x, "conv1", "bn1", 2)
        x = self.normalise(self.windows(np.pad(x, around), 2).max((3, 4)))
        x = self.convolve(self.convolve(x, "conv2", "bn2"), "conv3", "bn3")
        x = self.windows(np.pad(self.normalise(x), around), 2).max((3, 4))
        x = self.inception(x, "3a", (3, 5), 1, True)
        x = self.inception(x, "3b", (3, 5), 1, False)
        x = self.inception(x, "3c", (3, 5), 2, True)
        x = self.inception(x, "4a", (3, 5), 1, False)
        x = self.inception(x, "4e", (3, 5), 2, True)
        x = self.inception(x, "5a", (3,), 1, False)
        x = self.inception(x, "5b", (3,), 1, True)
        assert x.shape == (736, 3, 3)
        y = x.mean((1, 2)) @ self.of("dense", "kernel") + self.of("dense", "bias")
        return np.asarray(y / np.linalg.norm(y))


def test_it_knows_people_a_little(embedder: OpenFaceEmbedder, shared_data: Path) -> None:
    """25 people, two photos each: far above chance, far below the guards."""
    detector, vectors = YuNet(min_score=0.6), []
    for folder in sorted((shared_data / "people").iterdir())[:25]:
        for file in sorted(folder.iterdir())[:2]:
            image = np.ascontiguousarray(cv2.imread(str(file))[:, :, ::-1])
            faces = detector.detect(image)
            middle = np.abs((faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2 - 125).sum(1).argmin()
            vectors.append(embedder.embed(image, faces.points[middle : middle + 1])[0])
    cosines = np.array(vectors) @ np.array(vectors).T
    a, b = np.triu_indices(len(vectors), 1)
    same = a // 2 == b // 2
    genuine, impostors = cosines[a, b][same], cosines[a, b][~same]
    assert (genuine[:, None] > impostors).mean() > 0.93  # area under the curve; 0.967 over all people
    strict = Calibration().strict_threshold("openface")
    assert (impostors >= strict).mean() < 4e-3
    assert 0.1 < (genuine >= strict).mean() < 0.6


def test_what_was_measured_is_what_is_locked() -> None:
    (model,) = (m for m in load_lock() if m.name == "openface")
    curve = Calibration().curves["openface"]
    assert curve.model_sha256 == model.sha256
    assert 5e-4 < curve.at(curve.strict_threshold).rate < 2e-3


def test_another_face_is_another(embedder: OpenFaceEmbedder) -> None:
    turned: F32 = embedder.embed(np.ascontiguousarray(astronaut()[:, ::-1]), (np.array([511, 0]) - ASTRONAUT * [1, -1])[:, [1, 0, 2, 4, 3]])
    assert float(turned[0] @ embedder.embed(astronaut(), ASTRONAUT)[0]) > 0.8
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    assert float(embedder.embed(noise, ASTRONAUT)[0] @ embedder.embed(astronaut(), ASTRONAUT)[0]) < 0.6
