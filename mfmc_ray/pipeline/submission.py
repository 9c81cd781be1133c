"""The jobs of a Ray cluster: submitted once, followed from anywhere, with the exit code of their own command."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from mfmc_ray.job import Job, SubmissionError

PATIENCE = 120.0
"""Seconds for which a job server that does not answer is asked again while a job is followed."""
STOPPED, FAILED = 143, 1
"""Exit codes of a job that was stopped (as by SIGTERM), and of one that failed before its command ran."""
_NOT_YET = "No available agent"  # the cluster has only just been started
_ADDRESSES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")  # Ray takes these rather than what it is told


class Jobs:
    """The job server of a cluster.

    Args:
        address: its URL, http://HEAD:8265, or the cluster's own address; None: what RAY_API_SERVER_ADDRESS or RAY_ADDRESS says, else a
            cluster on this machine.

    Raises:
        SubmissionError: nobody answers there, or it wants a token.
    """

    def __init__(self, address: str | None) -> None:
        with _quiet(), _explained("no job server answers"), _instead(address):
            self._client = JobSubmissionClient(address)

    def status(self, name: str) -> str | None:
        """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED; None: there is no such job."""
        found = self._find(name)
        return None if found is None else str(found.status.value)

    def place(self, name: str, *, again: bool = False) -> tuple[str, str | None]:
        """Which id a job gets, and the status of the job that has it already.

        A job that failed or was stopped leaves the next id to the same job: NAME-2, NAME-3.

        Args:
            name: the id that it should have.
            again: pass over jobs that succeeded, too.
        """
        with _quiet(), _explained("the jobs of the cluster cannot be listed"):
            jobs = {job.submission_id: job.status for job in self._client.list_jobs() if job.submission_id}
        over = {JobStatus.FAILED, JobStatus.STOPPED, *([JobStatus.SUCCEEDED] if again else [])}
        number, free = 1, name
        while jobs.get(free) in over:
            number += 1
            free = f"{name}-{number}"
        return free, jobs[free].value if free in jobs else None

    def submit(self, job: Job, name: str) -> bool:
        """Submits a job under a name; whether it is new: another process may have submitted it just now.

        Raises:
            SubmissionError: the cluster refuses it.
        """
        until = time.monotonic() + PATIENCE
        while True:
            with _quiet(), _explained("the job was not accepted"):
                try:
                    self._client.submit_job(
                        entrypoint=job.entrypoint,
                        submission_id=name,
                        runtime_env=job.runtime_env,
                        metadata=dict(job.metadata),
                        **job.resources,
                    )
                    return True
                except RuntimeError as error:
                    if "already exists" in str(error):
                        return False
                    if _NOT_YET not in str(error) or time.monotonic() > until:
                        raise
            time.sleep(1.0)

    def follow(self, name: str, tell: Callable[[str], None]) -> int:
        """Hands on what a job prints until it has ended.

        Args:
            name: its id.
            tell: takes text as it comes, from the job's beginning on.

        Returns:
            the exit code of its command; 128 + n if signal n ended it, `STOPPED`, or `FAILED` if there was none.

        Raises:
            SubmissionError: there is no such job, or the job server is gone.
        """
        told = _Once(tell)
        heard = time.monotonic()
        while True:
            with _quiet():
                with contextlib.suppress(aiohttp.ClientError, OSError, RuntimeError):  # its status says whether it goes on
                    asyncio.run(self._tail(name, told))
                try:
                    found = self._find(name)
                except SubmissionError:
                    if time.monotonic() - heard > PATIENCE:
                        raise
                else:
                    heard = time.monotonic()
                    if found is None:
                        raise SubmissionError(f"the cluster has no job {name}: see `ray job list`")
                    if found.status.is_terminal():
                        if found.driver_exit_code is None and found.status == JobStatus.FAILED:
                            tell(f"{(found.message or 'it failed').strip().splitlines()[0]}\n")
                        return _exit_code(found)
            time.sleep(1.0)

    def stop(self, name: str) -> bool:
        """Asks a job to end; whether it was running.

        Raises:
            SubmissionError: there is no such job.
        """
        with _quiet(), _explained(f"{name} cannot be stopped"):
            return bool(self._client.stop_job(name))

    def _find(self, name: str) -> Any:
        with _quiet(), _explained("the job server does not answer"):
            return next((job for job in self._client.list_jobs() if job.submission_id == name), None)

    async def _tail(self, name: str, told: _Once) -> None:
        told.begin()
        async for text in self._client.tail_job_logs(name):
            told(text)


class _Once:
    """Hands on a text that may be begun anew, and each piece of it once."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell, self._told, self._at = tell, 0, 0

    def begin(self) -> None:
        """The text comes from its beginning now."""
        self._at = 0

    def __call__(self, text: str) -> None:
        self._at += len(text)
        if self._at > self._told:
            self._tell(text[-(self._at - self._told) :])
            self._told = self._at


def _exit_code(found: Any) -> int:
    code = found.driver_exit_code
    if found.status == JobStatus.STOPPED:
        return STOPPED
    if code is None:
        return 0 if found.status == JobStatus.SUCCEEDED else FAILED
    return int(code) if code >= 0 else 128 - int(code)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Ray's own lines, which name files and are many."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Raises SubmissionError for what the job server, or the way to it, says."""
    try:
        yield
    except AuthenticationError as error:
        raise SubmissionError(f"{what}: the cluster asks for its token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to it") from error
    except ConnectionError as error:
        raise SubmissionError(f"{what}: start the cluster, or give the URL of its dashboard, as --address http://HEAD:8265") from error
    except (RuntimeError, ValueError, OSError) as error:
        raise SubmissionError(f"{what}: {(str(error) or type(error).__name__).strip().splitlines()[-1]}") from error


@contextlib.contextmanager
def _instead(address: str | None) -> Iterator[None]:
    """What the caller says, rather than the environment."""
    kept = {name: os.environ.pop(name) for name in _ADDRESSES if address is not None and name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
