"""`mfmc known` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_work import make_work
from typer.testing import CliRunner

from mfmc_ray.cli import app
from mfmc_ray.config import ConfigError


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_work(tmp_path_factory.mktemp("run"), people=30, photos=2)


def said(*words: object) -> str:
    result = CliRunner().invoke(app, ["known", *map(str, words)], env={"COLUMNS": "200"}, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_calibrate_prints_every_source_beside_the_shipped_curve(work: Path) -> None:
    text = said("calibrate", work, "--people", "folder")
    for words in ("as shipped", "known faces of different people", "pool × known faces", "extrapolated", "censored", "too few"):
        assert words in text
    assert "1.2e-03 (7.9e-04–1.7e-03)" in text
    plain = json.loads(said("calibrate", work.with_name("out"), "--json"))  # OUT, whose WORK is beside it
    assert plain["known_faces"] == 20 + 60 + 9
    assert set(plain["recognizers"]) == {"sface", "dlib"}


def test_capacity_prints_outlook_and_orientation(work: Path) -> None:
    text = said("capacity", "--faces", 20_000, "--trial", 0)
    for words in (
        "Against 20,000 known faces",
        "all, if independent",
        "all, if fully dependent",
        "230,258",
        "Expected attempts: 10 to 100",
        "†",
    ):
        assert words in text
    assert "Observed" not in text
    assert "13 of 20 fakes passed" in said("capacity", "--work", work, "--trial", 0)
    plain = json.loads(said("capacity", "--faces", 1000, "--trial", 0, "--json", "--recognizers", "sface"))
    (one,) = plain["capacity"]["each"]
    assert one["chance"]["low"] < one["chance"]["value"] < one["chance"]["high"]
    assert one["moves_at"]["value"] == 1865


def test_wrong_usage_says_what_to_do(work: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--faces, or a run"):
        said("capacity")
    with pytest.raises(ConfigError, match="no private folder of a run"):
        said("calibrate", tmp_path)
    with pytest.raises(ConfigError, match="no calibration for the recognizer 'nobody'"):
        said("capacity", "--faces", 100, "--trial", 0, "--recognizers", "nobody")
