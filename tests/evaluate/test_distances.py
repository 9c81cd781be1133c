"""Fréchet distance, precision, recall, density, coverage, average precision and correlation: as reckoned by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mfmc_ray.evaluate import generative
from mfmc_ray.evaluate.bootstrap import Bootstrap
from mfmc_ray.evaluate.detections import FaceDetections, average_precision, found_again, matched
from mfmc_ray.evaluate.distances import components, frechet, prdc
from mfmc_ray.evaluate.faces_note import FACES, IMAGES
from mfmc_ray.evaluate.features import FaceFeatures
from mfmc_ray.evaluate.pair import Pair, PairedFaces
from mfmc_ray.evaluate.sections import About, Options
from mfmc_ray.evaluate.structure import EQUAL, Inside, Outside
from mfmc_ray.evaluate.surroundings import outside
from mfmc_ray.evaluate.utility import correlation

RNG = np.random.default_rng(0)


def test_frechet_of_normal_distributions() -> None:
    # one dimension: (Δμ)² + (σ₁ − σ₂)², with means 0 and 3, variances 2 and 8
    assert frechet(np.array([[-1.0], [1.0]]), np.array([[1.0], [5.0]])) == pytest.approx(9 + 2)
    # independent dimensions add up
    scales = np.array([1.0, 2.0, 0.5])
    many = RNG.normal(size=(20000, 3))
    assert frechet(many, many * scales + 1) == pytest.approx(3 + ((scales - 1) ** 2).sum(), rel=0.05)
    assert frechet(many, many) == pytest.approx(0, abs=1e-8)


def test_balls_on_a_line() -> None:
    real, fake = np.array([[0.0], [1.0], [3.0], [10.0]]), np.array([[0.5], [1.2], [20.0]])
    # k = 1: real balls reach 1, 1, 2, 7: 0…1, 0…2, 1…5, 3…17; fake ones 0.7, 0.7, 18.8
    found = prdc(real, fake, k=1)
    # 0.5 is in the first two, 1.2 in the second and third, 20 in none
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["density"] == pytest.approx(4 / 3)
    # 0 and 1 are in 0.5's −0.2…1.2, 3 and 10 in 20's 1.2…38.8
    assert found["recall"] == 1
    assert found["coverage"] == pytest.approx(3 / 4)
    same = RNG.normal(size=(50, 4))
    assert prdc(same, same)["precision"] == prdc(same, same)["recall"] == prdc(same, same)["coverage"] == 1
    apart = prdc(same, same + 100)
    assert apart == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


def test_components_are_those_of_most_spread() -> None:
    vectors = RNG.normal(size=(500, 3)) * [1, 10, 0.1] + 5
    mean, axes = components(vectors, 2)
    assert mean == pytest.approx([5, 5, 5], abs=2)
    assert np.abs(axes[1, 0]) > 0.99
    assert np.abs(axes[0, 1]) > 0.99


def test_average_precision_by_hand() -> None:
    # right, wrong, right, of three: precision 1, 1/2, 2/3 at recall 1/3, 1/3, 2/3: 1/3 + 1/3 · 2/3
    assert average_precision(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]), 3) == pytest.approx(5 / 9)
    assert average_precision(np.array([0.7, 0.9]), np.array([False, True]), 1) == 1
    assert average_precision(np.zeros(0), np.zeros(0, bool), 2) == 0
    assert np.isnan(average_precision(np.zeros(0), np.zeros(0, bool), 0))
    # counted twice is there twice
    once = np.array([0.9, 0.8, 0.7]), np.array([True, False, True])
    twice = [np.repeat(one, 2) for one in once]
    assert average_precision(*once, 6, np.full(3, 2.0)) == pytest.approx(average_precision(*twice, 6))


def test_each_truth_is_found_once() -> None:
    truth = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], np.float32)
    boxes = np.array([[1, 0, 11, 10], [0, 0, 10, 10], [20, 0, 30, 10], [50, 0, 60, 10]], np.float32)
    scores = np.array([0.5, 0.9, 0.8, 0.7], np.float32)
    assert matched(truth, boxes, scores).tolist() == [False, True, True, False]
    kinds = np.array([1, 1, 3, 1]), np.array([1, 2])
    assert matched(truth, boxes, scores, kinds[1], kinds[0]).tolist() == [False, True, False, False]
    assert matched(truth[:0], boxes, scores).tolist() == [False] * 4


def test_detections_over_images() -> None:
    rows = [
        {"path": "a", "detector": "yunet", "truth": 2, "scores": [0.9, 0.7], "hits": [True, False]},
        {"path": "b", "detector": "yunet", "truth": 1, "scores": [0.8, 0.4], "hits": [True, False]},
    ]
    table = pa.Table.from_pylist(rows, FaceDetections.schema)
    found = found_again(table, np.array([0, 1]), Bootstrap([-1, -1], 50), 0.6)
    assert found["precision"]["value"] == pytest.approx(2 / 3, abs=1e-3)
    assert found["recall"]["value"] == pytest.approx(2 / 3, abs=1e-3)
    assert found["ap50"]["value"] == pytest.approx(2 / 3, abs=1e-3)
    assert found["recall"]["low"] <= 0.5
    assert found["recall"]["high"] == 1
    nothing = found_again(table.slice(0, 0), np.zeros(0, np.int64), Bootstrap([-1, -1], 50), 0.6)
    assert nothing["recall"]["value"] is None


def test_correlation_is_pearsons() -> None:
    one = RNG.normal(size=30)
    other = one + RNG.normal(size=30)
    one[3] = np.nan
    some = np.isfinite(one)
    said = correlation(Bootstrap(np.full(30, -1), 200), one, other, some)
    assert said["value"] == pytest.approx(np.corrcoef(one[some], other[some])[0, 1], abs=1e-3)
    assert said["low"] < said["value"] < said["high"]
    assert correlation(Bootstrap(np.full(30, -1)), np.ones(30), other, some)["why"] == "it does not vary"


def of_pair(original: np.ndarray, output: np.ndarray | None, box: tuple[float, ...]) -> Pair:
    boxes, points = np.array([box], np.float32), np.zeros((1, 5, 2), np.float32)
    yes = np.ones(1, bool)
    faces = PairedFaces(np.zeros(1, np.int64), ("replaced",), ("",), ("",), boxes, points, boxes, points, yes, yes)
    return Pair("0" * 64, "a.png", "anonymized", original, output, faces)


def test_pixels_inside_and_outside() -> None:
    original = RNG.integers(0, 256, (100, 120, 3), np.uint8)
    output = original.copy()
    output[20:60, 30:70] = 255 - output[20:60, 30:70]
    pair = of_pair(original, output, (30, 20, 70, 60))
    (inside,), (beyond,) = Inside().collect(pair), Outside().collect(pair)
    assert inside["psnr"] < 15
    assert inside["ssim"] < 0.2
    assert beyond["psnr"] == EQUAL
    assert beyond["changed"] == 0
    output[0, :60] ^= 1
    (beyond,) = Outside().collect(of_pair(original, output, (30, 20, 70, 60)))
    there = outside(np.array([[30, 20, 70, 60]]), 100, 120)
    assert there.sum() == 100 * 120 - 60 * 60
    assert beyond["changed"] == pytest.approx(60 / there.sum())
    assert beyond["visibly_changed"] == 0
    assert 60 < beyond["psnr"] < EQUAL
    assert 0 < beyond["colour"] < 0.1
    for note in (Inside(), Outside(), FaceDetections()):
        assert note.collect(of_pair(original, None, (30, 20, 70, 60))) == []
    half = np.ascontiguousarray(output[::2, ::2])  # a plain folder may have scaled pictures
    assert Inside().collect(of_pair(original, half, (30, 20, 70, 60)))[0]["ssim"] < 1
    assert Inside().collect(of_pair(original, output, (300, 20, 340, 60))) == []


def made_up(shift: float, n: int = 120) -> dict[str, Any]:
    """Features of n people's faces in 6 numbers; outputs are other people's, moved by `shift`."""
    paths = [f"{i}.jpg" for i in range(n)]
    before, after = RNG.normal(size=(2, n, 6))
    rows = [
        {"path": p, "face_no": 0, "distance": 0.1, "blurred": 0.1, "original": a.tolist(), "output": (b + shift).tolist()}
        for p, a, b in zip(paths, before, after, strict=True)
    ]
    faces = [{"path": p, "face_no": 0, "verdict": "replaced", "size": 80.0} for p in paths]
    images = pa.Table.from_pylist([{"path": p} for p in paths], IMAGES)
    about = About(pa.Table.from_pylist(faces, FACES), images, np.arange(n), "table", {}, Options(rounds=20))
    return generative.figures({"features-looks": pa.Table.from_pylist(rows, FaceFeatures.schema)}, about)["looks"]


def test_sets_of_faces_are_held_against_the_originals_own_halves() -> None:
    alike, apart = made_up(0.0), made_up(3.0)
    real = alike["frechet"]["real"]
    assert real["low"] - 0.5 < alike["frechet"]["output"]["value"] < real["high"] + 0.5
    assert apart["frechet"]["output"]["value"] > 10 * real["value"]
    assert apart["frechet"]["real"]["value"] == pytest.approx(real["value"], rel=0.5)
    assert apart["coverage"]["output"]["value"] < 0.1 < 0.7 < alike["coverage"]["output"]["value"]
    assert apart["precision"]["output"]["value"] < 0.2 < 0.6 < alike["precision"]["output"]["value"]
    assert "120 faces only" in alike["warning"]
    assert made_up(0.0, 20)["frechet"]["output"]["value"] is None
