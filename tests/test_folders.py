from __future__ import annotations

from pathlib import Path

import pytest

from mfmc_ray.config import ConfigError
from mfmc_ray.folders import finished_run, run_settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "run.yaml"
    file.write_text("input: photos\nout: s3://bucket/out\nwork: /work\nstorage_options: {key: k}\nray: {actors: 3}\nswap: {attempts: 4}\n")
    return file


def places(file: Path | None, **given: str | None) -> tuple[str, str, str]:
    settings = run_settings(file, **{"input": None, "out": None, "work": None, **given})  # type: ignore[arg-type]
    return settings.input, settings.out, settings.work


def test_the_file_names_the_folders(file: Path) -> None:
    assert places(file) == ("photos", "s3://bucket/out", "/work")


def test_the_command_line_goes_before_the_file(file: Path) -> None:
    assert places(file, input="others", out="there", work="private") == ("others", "there", "private")
    assert places(file, input="others", out="s3://bucket/out")[2] == "/work"


def test_the_files_work_is_of_no_other_out(file: Path) -> None:
    assert places(file, out="/tmp/there")[2] == "/tmp/there-work"


def test_work_is_beside_a_local_out(file: Path) -> None:
    file.write_text("input: photos\nout: /published\n")
    assert places(file) == ("photos", "/published", "/published-work")


@pytest.mark.parametrize(
    ("text", "said"), [(None, "give INPUT and OUT"), ("out: o\n", "has no `input:`"), ("swap: {seed: 1}\n", "`input:` and `out:`")]
)
def test_nobody_names_a_folder(file: Path, text: str | None, said: str) -> None:
    file.write_text(text or "")
    with pytest.raises(ConfigError, match=said):
        places(file if text else None)


def test_a_remote_out_needs_work(file: Path) -> None:
    file.write_text("input: photos\nout: s3://bucket/out\n")
    with pytest.raises(ConfigError, match="needs --work"):
        places(file)


def test_a_finished_run_by_its_file(file: Path) -> None:
    settings = finished_run(None, None, None, None, "a:1", {"access__model": "none"}, file)
    assert (settings.out, settings.work, settings.storage_options) == ("s3://bucket/out", "/work", {"key": "k"})
    assert (settings.ray.actors, settings.ray.address) == (3, "a:1")
    assert settings.swap.attempts != 4  # what decided the result is in the run's own settings
    with pytest.raises(ConfigError, match="give OUT"):
        finished_run(None, None, None, None, None)
