from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from mfmc_ray import discreet
from mfmc_ray.config import ConfigError, load
from mfmc_ray.job import CONFIG, Job, job_of

DAY = datetime.date(2026, 1, 31)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "run.yaml"
    file.write_text(
        "input: s3://bucket/ada\nout: s3://bucket/out\nwork: /work\naccess: {never: ada.csv}\nray: {address: 'a:1', actors: 2}\n"
    )
    return file


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    (tmp_path / "stage").mkdir()
    return tmp_path / "stage"


def made(stage: Path, file: Path | None, *arguments: str, verb: str = "anonymize", **options: Any) -> Job:
    return job_of(verb, arguments, stage, config_file=file, today=DAY, **options)


def test_the_same_settings_are_the_same_job(stage: Path, file: Path) -> None:
    job = made(stage, file)
    assert job.id.startswith("mfmc-anonymize-2026-01-31-")
    assert made(stage, file).id == job.id
    file.write_text("# said otherwise\n" + file.read_text().replace("'a:1'", "'b:2'"))
    assert made(stage, file).id == job.id
    others = [made(stage, file, verb="scan"), made(stage, file, "--restart"), job_of("anonymize", (), stage, config_file=file)]
    file.write_text(file.read_text() + "swap: {seed: 1}\n")
    assert job.id not in {other.id for other in (*others, made(stage, file))}
    assert made(stage, file, name="nightly-7").id == "nightly-7"


def test_what_is_uploaded_means_the_same_there(stage: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    job = made(stage, file)
    assert [path.name for path in stage.iterdir()] == [CONFIG]
    here, there = load(file), load(stage / CONFIG)
    assert there.ray.address is None
    assert there.ray.actors == 2
    assert (there.input, there.out, there.work, there.access) == (here.input, here.out, here.work, here.access)
    assert yaml.safe_load((stage / CONFIG).read_text())["access"]["never"] == str(tmp_path / "ada.csv")
    assert job.local == ("work", "access.never")
    file.write_text(file.read_text() + "swap: {swapper: morph}\n")
    assert made(stage, file).local == job.local
    file.write_text(file.read_text().replace("morph", "net.yaml"))
    assert made(stage, file).local == (*job.local, "swap.swapper")
    assert load(stage / CONFIG).swap.swapper == str(tmp_path / "net.yaml")
    assert job.entrypoint == f"python -m mfmc_ray.cli anonymize --config {CONFIG}"
    assert Path(job.runtime_env["py_modules"][0]).name == "mfmc_ray"


def test_places_of_the_command_line_are_in_the_file(stage: Path) -> None:
    job = made(stage, None, "photos/ada", "published", "--attempts", "2", work="/w")
    assert load(stage / CONFIG).input == str(Path("photos/ada").absolute())
    assert job.entrypoint.endswith(f"{CONFIG} --attempts 2")
    assert "/ada" not in str(job.shown())


def test_what_is_shown_names_no_value_of_the_environment(stage: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "secret")
    job = made(stage, file, environment=["HERE", "B=secret=1"], pip=["s3fs"], installed=True)
    assert job.runtime_env["env_vars"] == {"HERE": "secret", "B": "secret=1"}
    assert "secret" not in str(job.shown())
    assert "py_modules" not in job.runtime_env
    assert job.runtime_env["pip"] == ["s3fs"]


def test_a_checkout_is_its_own_code(stage: Path, file: Path) -> None:
    root = file.parent
    (root / "jobs").mkdir()
    (root / "jobs" / "anonymize.py").touch()
    (root / "mfmc_ray").mkdir()
    (root / "mfmc_ray" / "cli.py").touch()
    job = made(stage, file, working_dir=root)
    assert job.entrypoint == "python jobs/anonymize.py --config run.yaml"
    assert job.runtime_env["working_dir"] == str(root)
    assert "py_modules" not in job.runtime_env
    assert not list(stage.iterdir())


def test_an_audit_needs_no_input(stage: Path, file: Path) -> None:
    job = made(stage, None, "s3://bucket/out", verb="audit", work="/work")
    assert yaml.safe_load((stage / CONFIG).read_text()) == {"out": "s3://bucket/out", "work": "/work"}
    assert job.local == ("work",)
    made(stage, file, verb="audit")
    assert load(stage / CONFIG).input == "s3://bucket/ada"


def test_an_evaluation_names_nobody_on_its_command_line(stage: Path, file: Path, tmp_path: Path) -> None:
    job = made(stage, None, "photos/ada", "/published", "--labels", "folders", "--rounds=50", verb="evaluate")
    assert job.entrypoint == f"python -m mfmc_ray.cli evaluate --config {CONFIG} --labels folders --rounds=50"
    there = load(stage / CONFIG)
    assert (there.input, there.out) == (str(Path("photos/ada").absolute()), "/published")
    file.write_text(file.read_text() + f"evaluate: {{labels: {tmp_path}/ada.csv}}\n")
    assert "ada" not in made(stage, file, verb="evaluate").entrypoint
    assert "evaluate.labels" in made(stage, file, verb="evaluate").local


def test_nothing_private_is_uploaded(stage: Path, file: Path) -> None:
    root = file.parent
    file.write_text(f"input: s3://b/in\nout: s3://b/out\nwork: {root}/deep/work\n")
    with pytest.raises(ConfigError, match="`work:` is in --working-dir"):
        made(stage, file, working_dir=root)
    file.write_text("input: s3://b/in\nout: s3://b/out\nwork: /work\n")
    made(stage, file, working_dir=root)
    (root / "old-work").mkdir()
    (root / "old-work" / "pseudonym.key").touch()
    with pytest.raises(ConfigError, match="private folder"):
        made(stage, file, working_dir=root)


def test_verbose_goes_along(stage: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discreet, "_named", True)
    assert made(stage, file).entrypoint.endswith("--verbose")


@pytest.mark.parametrize(
    ("verb", "arguments", "options", "said"),
    [
        ("demo", (), {}, "is no job"),
        ("anonymize", ("photos",), {}, "INPUT and OUT"),
        ("nightly", ("photos",), {}, "configuration file"),
        ("anonymize", ("--known", "people/ada"), {}, "command line"),
        ("anonymize", ("--known", "ada-lovelace.parquet"), {}, "command line"),
        ("anonymize", ("--never=ada.csv",), {}, "command line"),
        ("evaluate", ("--labels", "ada.csv"), {}, "command line"),
        ("evaluate", ("--storage-options", "{}"), {}, "command line"),
        ("evaluate", ("social", "x"), {}, "one process"),
        ("anonymize", ("--audience", "viewer:bob"), {}, "command line"),
        ("anonymize", ("--storage-options={}",), {}, "command line"),
        ("anonymize", (), {"name": "a b"}, "--id"),
        ("anonymize", (), {"environment": ["MFMC_NOT_SET"]}, "not set here"),
        ("anonymize", ("a", "b"), {"working_dir": Path()}, "--working-dir"),
        ("anonymize", (), {"working_dir": Path("docs")}, "in that folder"),
    ],
)
def test_what_cannot_be_submitted(
    stage: Path, file: Path, verb: str, arguments: tuple[str, ...], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        made(stage, file, *arguments, verb=verb, **options)


def test_out_must_not_go_with_the_job(stage: Path, file: Path) -> None:
    file.write_text("input: photos\nout: published\nwork: /work\n")
    with pytest.raises(ConfigError, match="`out:` is in the job's own folder"):
        made(stage, file, working_dir=file.parent)
