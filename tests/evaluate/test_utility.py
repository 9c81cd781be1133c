"""What the sections about utility say of real pictures: all is kept where nothing was done, less by a blur, least by a black box."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from made_pairs import black, blur, evaluated, paired
from skimage.data import astronaut

from mfmc_ray.evaluate import networks, sections
from mfmc_ray.evaluate.pairing import Pairer
from mfmc_ray.evaluate.sections import Options

pytestmark = pytest.mark.models

NAMES = ("utility", "downstream", "structure", "perceptual", "generative")
OPTIONS = Options(sections=NAMES, recognizers=("faceres_deep",), rounds=50)
PEOPLE = 7


@pytest.fixture(scope="module")
def said(shared_data: Path) -> dict[str, dict[str, Any]]:
    """What was done → what the sections say."""
    pictures = {"astronaut/0.png": np.ascontiguousarray(astronaut()[:320, 60:380])}
    for folder in sorted((shared_data / "people").iterdir())[:PEOPLE]:
        pictures[f"{folder.name}/0.jpg"] = np.ascontiguousarray(cv2.imread(str(sorted(folder.iterdir())[0]))[:, :, ::-1])
    pairer, chosen = Pairer(10**7), sections.chosen(OPTIONS)
    changes = {"nothing": None, "blur": blur, "black": black}
    return {name: evaluated(paired(pairer, pictures, change), chosen, OPTIONS)[0] for name, change in changes.items()}


def value(said: Any, *path: str) -> float:
    for key in path:
        said = said[key]
    assert isinstance(said["value"], float | int), path
    return float(said["value"])


PERFECT = {
    ("utility", "detected", "yunet", "kept"): 1,
    ("utility", "landmarks", "mesh"): 0,
    ("utility", "landmarks", "five_points"): 0,
    ("utility", "pose", "yaw", "error"): 0,
    ("utility", "pose", "pitch", "p90"): 0,
    ("utility", "expression", "smile", "error"): 0,
    ("utility", "expression", "smile", "correlation"): 1,
    ("utility", "expression", "mouth_opening", "correlation"): 1,
    ("utility", "gaze", "error"): 0,
    ("utility", "gaze", "sideways", "correlation"): 1,
    ("utility", "age", "judge", "error"): 0,
    ("utility", "sex_kept", "judge"): 1,
    ("utility", "sex_kept", "own"): 1,
    ("utility", "tone", "band_kept"): 1,
    ("downstream", "faces", "yunet", "precision"): 1,
    ("downstream", "faces", "yunet", "recall"): 1,
    ("downstream", "faces", "centerface", "ap50"): 1,
    ("structure", "faces", "ssim"): 1,
    ("structure", "faces", "psnr"): 100,
    ("structure", "faces", "sharpness"): 1,
    ("structure", "faces", "colour"): 0,
    ("structure", "outside", "ssim"): 1,
    ("structure", "outside", "changed"): 0,
    ("perceptual", "faces", "looks", "distance"): 0,
}
PERFECT_WITH_OBJECTS = {
    ("downstream", "tags", "jaccard"): 1,
    ("downstream", "tags", "objects", "ap50"): 1,
    ("downstream", "surroundings", "cosine"): 1,
    ("downstream", "surroundings", "found_again"): 1,
    ("perceptual", "faces", "objects", "distance"): 0,
    ("perceptual", "outside", "distance"): 0,
}
# from the best to the worst: nothing, blur, black
RISING = [("perceptual", "faces", "looks", "distance"), ("structure", "faces", "colour")]
FALLING = [
    ("structure", "faces", "ssim"),
    ("structure", "faces", "psnr"),
    ("structure", "faces", "sharpness"),
    ("downstream", "faces", "yunet", "recall"),
]


def test_what_is_as_it_was_is_perfect(said: dict[str, dict[str, Any]]) -> None:
    perfect = PERFECT | (PERFECT_WITH_OBJECTS if networks.missing("objects") is None else {})
    for path, wanted in perfect.items():
        assert value(said["nothing"], *path) == pytest.approx(wanted, abs=2e-4), path


def test_less_is_kept_by_a_blur_and_least_by_a_box(said: dict[str, dict[str, Any]]) -> None:
    for path in RISING:
        first, second, third = (value(said[change], *path) for change in ("nothing", "blur", "black"))
        assert first < second < third, (path, first, second, third)
    for path in FALLING:
        first, second, third = (value(said[change], *path) for change in ("nothing", "blur", "black"))
        assert first >= second >= third, (path, first, second, third)
        assert first > third, path
    for change in ("blur", "black"):
        assert value(said[change], "utility", "landmarks", "mesh") > 0.01
        assert value(said[change], "structure", "outside", "changed") == 0  # a quarter around the box is not outside
    assert value(said["black"], "utility", "mesh_found", "after") < value(said["black"], "utility", "mesh_found", "before")
    distances = said["blur"]["perceptual"]["faces"]["looks"]
    assert distances["distance"]["value"] == pytest.approx(distances["blurred"]["value"], rel=1)


def test_too_few_faces_are_said_and_all_is_plain_data(said: dict[str, dict[str, Any]]) -> None:
    assert said["blur"]["generative"]["looks"]["frechet"]["output"]["value"] is None
    assert "fewer than" in said["blur"]["generative"]["looks"]["frechet"]["output"]["why"]
    json.dumps(said, allow_nan=False)
    for change in said.values():
        assert change["utility"]["faces"] > PEOPLE - 2


def test_pictures_without_faces_or_output_are_no_error() -> None:
    grey = np.full((60, 80, 3), 99, np.uint8)
    pairs = paired(Pairer(10**7), {"a/0.png": grey, "b/1.png": grey}, None)
    chosen = sections.chosen(OPTIONS)
    for some in (pairs, [dataclasses.replace(pairs[0], output=None)], []):
        said, _ = evaluated(some, chosen, OPTIONS)
        json.dumps(said, allow_nan=False)
        assert said["utility"]["faces"] == 0
        assert said["utility"]["pose"]["yaw"]["error"]["value"] is None
        assert said["downstream"]["unpublished"] == int(len(some) == 1)
        assert said["structure"]["faces"]["ssim"]["value"] is None
        assert said["structure"]["outside"]["ssim"]["value"] == (1 if len(some) == 2 else None)
        assert said["generative"]["looks"]["faces"] == 0
