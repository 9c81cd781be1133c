from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from mfmc_ray import submit_cli
from mfmc_ray.cli import app
from mfmc_ray.job import CONFIG, Job


class Server:
    """Takes a job, and looks at what is uploaded."""

    def __init__(self, status: str | None = None, code: int = 0, name: str = "id-1") -> None:
        self.status, self.code, self.name = status, code, name
        self.job: Job | None = None
        self.settings: Any = None
        self.followed = self.stopped = ""

    def place(self, name: str, *, again: bool) -> tuple[str, str | None]:
        return self.name, None if again else self.status

    def submit(self, job: Job, name: str) -> bool:
        self.job, self.settings = job, yaml.safe_load((Path(job.runtime_env["working_dir"]) / CONFIG).read_text())
        return True

    def follow(self, name: str, tell: Any) -> int:
        self.followed = name
        if self.code == submit_cli.INTERRUPTED:
            raise KeyboardInterrupt
        tell("what it says\n")
        return self.code

    def stop(self, name: str) -> bool:
        self.stopped = name
        return True


def run(monkeypatch: pytest.MonkeyPatch, server: Server, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(submit_cli, "_jobs", lambda address, config_file: server)
    result = CliRunner().invoke(app, ["submit", *arguments])
    return result.exit_code, result.stdout, result.stderr


RUN = ("anonymize", "s3://b/in", "s3://b/out", "--work", "/w")


def test_a_job_is_followed_and_has_its_own_code(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(code=75)
    code, out, said = run(monkeypatch, server, *RUN)
    assert (code, out, server.followed) == (75, "what it says\n", "id-1")
    assert server.settings == {"input": "s3://b/in", "out": "s3://b/out", "work": "/w"}
    assert "same paths: work\n" in said
    assert "Submitted id-1" in said
    assert "exit code 75" in said


def test_one_that_runs_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server("RUNNING")
    assert run(monkeypatch, server, *RUN)[0] == 0
    assert (server.job, server.followed) == (None, "id-1")


def test_one_that_has_succeeded_is_not_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server("SUCCEEDED")
    code, _, said = run(monkeypatch, server, *RUN)
    assert (code, server.job, server.followed) == (0, None, "")
    assert "--again" in said
    assert run(monkeypatch, server, *RUN, "--again")[0] == 0
    assert server.job is not None


def test_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    assert run(monkeypatch, server, *RUN, "--no-wait", "--num-cpus", "0.5", "--resources", '{"head": 1}')[:2] == (0, "id-1\n")
    assert server.job is not None
    assert server.job.resources == {"entrypoint_num_cpus": 0.5, "entrypoint_resources": {"head": 1}}
    assert server.followed == ""


def test_ctrl_c_leaves_the_job_running(monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, said = run(monkeypatch, Server(code=submit_cli.INTERRUPTED), *RUN, "--address", "http://h:1")
    assert code == submit_cli.INTERRUPTED
    assert "--follow id-1 --address http://h:1" in said
    assert "--stop id-1 --address http://h:1" in said


def test_followed_and_stopped_by_id(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(code=3)
    assert run(monkeypatch, server, "--follow", "x")[0] == 3
    assert run(monkeypatch, server, "--stop", "y")[0] == 0
    assert (server.followed, server.stopped) == ("x", "y")


def test_a_dry_run_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = run(monkeypatch, None, *RUN, "--dry-run", "--id", "mine")  # type: ignore[arg-type]
    assert code == 0
    assert json.loads(out)["submission_id"] == "mine"
    assert "s3://b" not in out


@pytest.mark.parametrize("arguments", [(), ("scan", "--follow", "x"), (*RUN, "--resources", "[]"), (*RUN, "--resources", "{")])
def test_wrong_usage(monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    code, _, _ = run(monkeypatch, Server(), *arguments)
    assert code == 1  # as an exception that `main` tells in a sentence
