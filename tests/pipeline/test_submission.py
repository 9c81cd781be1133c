"""What is made of the job server's answers; tests/cluster has a real one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from ray.job_submission import JobStatus

from mfmc_ray.job import Job, SubmissionError
from mfmc_ray.pipeline import submission
from mfmc_ray.pipeline.submission import Jobs

JOB = Job("a", "python -m mfmc_ray.cli scan", {}, {})


class Server:
    """Answers as the client of a job server does: one status after another."""

    def __init__(self, **statuses: str) -> None:
        self.statuses, self.submitted, self.refusals = statuses, list[str](), list[str]()
        self.code: int | None = None
        self.logs = ["one\n", "one\ntwo\n", "one\ntwo\nthree\n"]

    def list_jobs(self) -> list[Any]:
        return [
            SimpleNamespace(submission_id=name, status=JobStatus(status), driver_exit_code=self.code, message="no pip\nof it all")
            for name, status in self.statuses.items()
        ]

    def submit_job(self, **job: Any) -> str:
        if self.refusals:
            raise RuntimeError(self.refusals.pop(0))
        self.submitted.append(job["submission_id"])
        return str(job["submission_id"])

    async def tail_job_logs(self, name: str) -> AsyncIterator[str]:
        text = self.logs.pop(0)
        if not self.logs:
            self.statuses[name] = "FAILED"
        for line in text.splitlines(keepends=True):
            yield line
        raise RuntimeError("WebSocket connection closed")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setattr(submission, "JobSubmissionClient", lambda address: server)
    monkeypatch.setattr(submission.time, "sleep", lambda seconds: None)
    return server


@pytest.mark.parametrize(
    ("statuses", "again", "wanted"),
    [
        ({}, False, ("a", None)),
        ({"a": "RUNNING"}, False, ("a", "RUNNING")),
        ({"a": "SUCCEEDED"}, False, ("a", "SUCCEEDED")),
        ({"a": "SUCCEEDED"}, True, ("a-2", None)),
        ({"a": "FAILED", "a-2": "STOPPED"}, False, ("a-3", None)),
        ({"a": "FAILED", "a-2": "PENDING"}, True, ("a-2", "PENDING")),
    ],
)
def test_which_id_a_job_gets(server: Server, statuses: dict[str, str], again: bool, wanted: tuple[str, str | None]) -> None:
    server.statuses = statuses
    assert Jobs(None).place("a", again=again) == wanted


def test_a_cluster_that_starts_is_waited_for(server: Server) -> None:
    server.refusals = ["Request failed with status code 500: No available agent to submit job, please try again later.."]
    assert Jobs(None).submit(JOB, "a")
    assert server.submitted == ["a"]


def test_somebody_else_was_faster(server: Server) -> None:
    server.refusals = ["Job with submission_id a already exists. Please use a different submission_id."]
    assert not Jobs(None).submit(JOB, "a")


def test_the_cluster_refuses(server: Server) -> None:
    server.refusals = ["Request failed with status code 400: no"]
    with pytest.raises(SubmissionError, match="not accepted: Request failed"):
        Jobs(None).submit(JOB, "a")


@pytest.mark.parametrize(("code", "wanted"), [(3, 3), (-9, 137), (None, 1)])
def test_a_broken_log_is_told_once_and_the_code_is_the_jobs(server: Server, code: int | None, wanted: int) -> None:
    server.statuses, server.code = {"a": "RUNNING"}, code
    said: list[str] = []
    assert Jobs(None).follow("a", said.append) == wanted
    assert "".join(said) == "one\ntwo\nthree\n" + ("no pip\n" if code is None else "")


def test_a_job_that_is_not_there(server: Server) -> None:
    with pytest.raises(SubmissionError, match="no job b"):
        Jobs(None).follow("b", print)
