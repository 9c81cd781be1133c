"""Verbs as jobs of a real cluster: the same rows as here, though a node is lost, and the exit codes of the command itself."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from bad_images import save
from conftest import ROOT
from PIL import Image
from ray_nodes import RayNodes
from skimage.data import astronaut, coffee

pytestmark = [pytest.mark.ray, pytest.mark.models]
PICTURES, ROWS_PER_PART = 12, 2
WATCHED = """import atexit, sys
from mfmc_ray.known.generations import Rows
from mfmc_ray.known.search import ExactSearch
from mfmc_ray.pipeline import rows
seen = set()
def noting(function):
    def noted(*given, **more):
        seen.add(sys._getframe(1).f_code.co_name)
        return function(*given, **more)
    return noted
rows.matrix, Rows.sealed, ExactSearch.__init__ = noting(rows.matrix), noting(Rows.sealed), noting(ExactSearch.__init__)
atexit.register(lambda: print("the driver had embeddings in:", sorted(seen)))
from mfmc_ray.cli import main
sys.argv = ["mfmc", "anonymize", *sys.argv[1:]]
main()
"""
"""A driver that tells where in it embeddings were made arrays of, checked or searched."""


class Place:
    """A folder in which `mfmc` runs, with a run's OUT and WORK."""

    def __init__(self, folder: Path, photos: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment | {"COLUMNS": "200", "NO_COLOR": "1"}
        self.out, self.work, self.config = folder / "out", folder / "work", folder / "run.yaml"
        self.work.mkdir(mode=0o700)
        (self.work / "pseudonym.key").write_bytes(bytes(range(32)))
        (self.work / "pseudonym.key").chmod(0o600)
        self.settings: dict[str, Any] = {
            "input": str(photos),
            "out": str(self.out),
            "work": str(self.work),
            "swap": {"identities": 4, "attempts": 2},
            "output": {"rows_per_part": ROWS_PER_PART},
            "ray": {"actors": 2},
        }
        self.config.write_text(json.dumps(self.settings))
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        with (self.folder / f"{len(self.started)}.said").open("w") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "mfmc_ray.cli", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                text=True,
                env=self.environment,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # where the tests run in the background it is ignored
            )
        self.started.append(process)
        return process

    def said(self, process: subprocess.Popen[str]) -> str:
        return (self.folder / f"{self.started.index(process)}.said").read_text()

    def __call__(self, *arguments: object) -> tuple[int, str]:
        """Exit code, and what was printed."""
        process = self.start(*arguments)
        return process.wait(300), self.said(process)

    def rows(self, table: str) -> list[dict[str, Any]]:
        rows = [row for path in (self.out / table).glob("*.parquet") for row in pq.read_table(path).to_pylist()]
        return sorted(rows, key=lambda row: (row["path"], row.get("face_no", 0)))

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face, cut out and lit in as many ways, and now and then a cup."""
    folder = tmp_path_factory.mktemp("ada-photos")
    rng = np.random.default_rng(0)
    for i in range(PICTURES):
        x, y = rng.integers(-12, 12, 2)
        source = coffee()[100 + y : 228 + y, 200 + x : 328 + x] if i % 4 == 3 else astronaut()[40 + y : 168 + y, 160 + x : 288 + x]
        pixels = np.clip(source * rng.uniform(0.8, 1.1), 0, 255).astype(np.uint8)
        (folder / f"{i:02}.jpg").write_bytes(save(Image.fromarray(pixels), "JPEG", quality=92))
    return folder


@pytest.fixture
def place(tmp_path: Path, photos: Path, cluster: RayNodes) -> Iterator[Place]:
    place = Place(tmp_path, photos, cluster.environment)
    yield place
    place.close()


def checkout(place: Place) -> Path:
    """What `ray job submit --working-dir .` sends of one, and a picture that it must not."""
    folder = place.folder / "checkout"
    for name in ("jobs", "mfmc_ray"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".rayignore", folder)
    (folder / "ada.jpg").write_bytes(os.urandom(8))
    shutil.copy(place.config, folder / "run.yaml")
    return folder


def until(what: Callable[[], Any], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_job_survives_a_node_and_has_the_rows_of_a_local_run(cluster: RayNodes, place: Place, photos: Path, tmp_path: Path) -> None:
    folder = checkout(place)
    (folder / "jobs" / "anonymize.py").write_text(WATCHED)
    submit = ("submit", "anonymize", "--config", folder / "run.yaml", "--working-dir", folder, "--address", cluster.jobs)
    first = place.start(*submit)
    until(lambda: "Submitted" in place.said(first) or first.poll() is not None)
    second = place.start(*submit)  # by somebody else
    until(lambda: list(place.out.glob("images/*.parquet")) or first.poll() is not None, 450)
    until(lambda: "is running already" in place.said(second))
    assert first.poll() is None, place.said(first)
    cluster.kill(cluster.nodes[1])
    second.send_signal(signal.SIGINT)
    try:
        (tmp_path / "here").mkdir()
        here = Place(tmp_path / "here", photos, {n: v for n, v in cluster.environment.items() if not n.startswith("RAY_")})
        code, said = here("anonymize", "--config", here.config)
        assert code == 0, said
        assert first.wait(300) == 0, place.said(first)
        assert second.wait(60) == 130, place.said(second)
    finally:
        cluster.node()
    assert "is running already" in place.said(second)
    assert "The job goes on" in place.said(second)
    (driver,) = [line for line in place.said(first).splitlines() if line.startswith("the driver")]
    assert driver.endswith("['read_pool']")  # of the fakes, of which there are few
    for table in ("images", "faces"):
        assert place.rows(table) == here.rows(table)
    assert len(place.rows("images")) == PICTURES
    assert "replaced" in {row["verdict"] for row in place.rows("faces")}
    assert "00.jpg" not in place.said(first)

    code, said = place(*submit)
    assert (code, "has succeeded already" in said) == (0, True), said


def test_a_job_that_fails_has_its_own_exit_code(cluster: RayNodes, place: Place) -> None:
    command = ("submit", "scan", "--config", place.config, "--address", cluster.jobs, "--id", "scan-1")
    code, said = place(*command, "--", "--attempts", "0")
    assert (code, "Invalid value for '--attempts'" in said) == (2, True), said
    code, said = place(*command, "--no-wait", "--", "--attempts", "0")  # the same job once more
    assert (code, said.split()[-1]) == (0, "scan-1-2"), said
    code, said = place("submit", "--follow", "scan-1-2", "--address", cluster.jobs)
    assert (code, "Invalid value for '--attempts'" in said) == (2, True), said
    code, said = place("submit", "--stop", "scan-1-2", "--address", cluster.jobs)
    assert (code, "was not running" in said) == (0, True), said
