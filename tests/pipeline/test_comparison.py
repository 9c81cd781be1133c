"""`mfmc evaluate compare` on photos of real people: the ends of the scale are where they must be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from mfmc_ray.config import ConfigError, RunConfig, SwapConfig
from mfmc_ray.evaluate.baselines import BASELINES
from mfmc_ray.evaluate.frontier import front
from mfmc_ray.evaluate.sections import Options
from mfmc_ray.pipeline import comparison
from mfmc_ray.pipeline.comparison import Asked, compare
from mfmc_ray.pipeline.methods import METRICS, RULES, choose

PEOPLE, PHOTOS = 10, 2


def test_front_is_what_nothing_beats() -> None:
    assert front([(0, 1), (1, 0), (0.5, 0.5), (0.4, 0.4), (0.9, 0.9)]) == [0, 4, 1]


def test_l2_and_cosine_choose_the_same_fake_of_unit_vectors() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        vectors = rng.normal(size=(40, 128))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        face = vectors[0] * 0.3 + vectors[1]
        face /= np.linalg.norm(face)
        for rule in RULES:
            one, other = (choose(metric, rule, vectors, face, 0.25, np.random.default_rng(1)) for metric in METRICS)
            assert one is not None
            assert one == other
            assert vectors[one] @ face < 0.25
    assert choose("cosine", "random", vectors, face, -1.0, rng) is None


def test_methods_are_named() -> None:
    assert comparison._wanted(("fake-l2-sface-random", "box"), ("sface",)) == {"fake-cosine-sface-random", "box"}
    assert comparison._wanted(None, ("dlib",)) >= {"noop", "morph", "fake-cosine-dlib-nearest"}
    for name in ("fake-cosine-sface-best", "fake-cosine-arcface-random", "boxes"):
        with pytest.raises(ConfigError, match=f"no method '{name}'"):
            comparison._wanted((name,), ("sface", "dlib"))


@pytest.mark.parametrize("name", ["noop", "blur", "pixelate", "box"])
def test_baselines_change_faces_and_nothing_else(name: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    changed, box = image.copy(), np.array([[30, 20, 70, 60]], np.float32)
    BASELINES[name].make()(changed, box)
    assert np.array_equal(changed[75:], image[75:])
    assert np.array_equal(changed, image) == (name == "noop")


@pytest.mark.models
def test_methods_are_in_the_right_order(shared_data: Path, tmp_path: Path) -> None:
    folders = sorted(f for f in (shared_data / "people").iterdir() if f.is_dir() and len(list(f.glob("*.jpg"))) >= PHOTOS)
    for folder in folders[:PEOPLE]:
        (tmp_path / "in" / folder.name).mkdir(parents=True)
        for photo in sorted(folder.glob("*.jpg"))[:PHOTOS]:
            shutil.copy(photo, tmp_path / "in" / folder.name)
    options = Options(recognizers=("sface", "openface"), sections=("none",), rounds=50)
    methods = ("noop", "blur", "box", "morph", "fake-cosine-sface-farthest")
    config = RunConfig(work=str(tmp_path / "work"), swap=SwapConfig(attempts=5))
    asked = Asked(str(tmp_path / "in"), config, "folders", options, methods, identities=15, plot=False)
    result = compare(asked, Console(quiet=True))
    found = {row["method"]: row for row in result["methods"]}
    assert result["people"] == PEOPLE
    assert {row["faces"] for row in result["methods"]} == {found["noop"]["faces"]}

    def both(name: str) -> tuple[float, float]:
        return found[name]["privacy"]["value"], found[name]["utility"]["score"]["value"]

    assert both("noop")[1] == max(both(name)[1] for name in found) > 0.99
    assert both("noop")[0] == min(both(name)[0] for name in found) < 0.1
    assert both("box")[1] == min(both(name)[1] for name in found) < 0.2
    assert both("box")[0] > 0.8
    assert both("box")[1] < both("blur")[1] < both("noop")[1]
    assert both("morph")[1] > both("blur")[1]
    assert both("morph")[0] > 0.7
    twin = found["fake-l2-sface-farthest"]
    assert twin["agreement"]["same"] == twin["agreement"]["of"] > 0
    _resumes(asked, result, tmp_path / "work" / "comparison")


def _resumes(asked: Asked, before: dict[str, Any], folder: Path) -> None:
    part = folder / "blur" / "part-00000.json"
    others = {file: file.stat().st_mtime_ns for file in folder.rglob("part-*.json") if file != part}
    part.unlink()
    after = compare(asked, Console(quiet=True))
    assert {file: file.stat().st_mtime_ns for file in others} == others
    for one, other in zip(before["methods"], after["methods"], strict=True):
        assert one["privacy"] == other["privacy"]
    assert json.loads((folder / "comparison.json").read_text())["methods"] == json.loads(json.dumps(after["methods"]))
    assert (folder / "methods.jpg").is_file()
