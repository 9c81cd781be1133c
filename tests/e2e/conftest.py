"""The command as a user runs it: a process of its own, real models, a real Ray."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from bad_images import save
from PIL import Image
from ray_nodes import RayNodes
from skimage.data import astronaut, coffee

SECONDS = 500.0
_open: list[tuple[RayNodes, dict[str, str]]] = []


def plain_environment() -> dict[str, str]:
    """Of commands, without what leads to a Ray."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**inherited, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1"}


@dataclass
class Command:
    """`mfmc`, in a folder of its own.

    Attributes:
        folder: for what it prints.
        ray: variables that lead to a running Ray; without them each command makes its own.
        started: its processes.
    """

    folder: Path
    ray: Mapping[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *args: object, environment: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
        """Begins a command; what it prints goes into files, because a pipe would be held open by whatever outlives it.

        Args:
            args: of `mfmc`.
            environment: further variables.
            options: further ones of `subprocess.Popen`.
        """
        number = len(self.started)
        with (self.folder / f"{number}.out").open("w") as out, (self.folder / f"{number}.err").open("w") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", "mfmc_ray.cli", *(os.fspath(a) if isinstance(a, Path) else str(a) for a in args)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                text=True,
                env={**plain_environment(), **self.ray, **(environment or {})},
                **options,
            )
        self.started.append(process)
        return process

    def finish(self, process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
        """What became of it."""
        code = process.wait(SECONDS)
        out, err = ((self.folder / f"{self.started.index(process)}.{stream}").read_text() for stream in ("out", "err"))
        return subprocess.CompletedProcess(process.args, code, out, err)

    def __call__(self, *args: object) -> subprocess.CompletedProcess[str]:
        return self.finish(self.start(*args))

    def stop(self) -> None:
        """Ends what is still there, by id."""
        for process in self.started:
            if process.poll() is None:
                with_children = [*psutil.Process(process.pid).children(recursive=True), process]
                for one in with_children:
                    one.kill()
                process.wait()


@pytest.fixture(scope="module")
def running_ray() -> dict[str, str]:
    """The variables that lead to a Ray that commands share: each saves the seconds that a start of its own takes."""
    if not _open:
        nodes = RayNodes()
        try:
            nodes.head(cpus=2)
            ray = {name: value for name, value in nodes.environment.items() if name.startswith("RAY_")} | {"RAY_ADDRESS": nodes.address}
            _open.append((nodes, ray))
        except BaseException:
            nodes.close()
            raise
    return _open[0][1]


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """After the last test here: Ray takes a tenth of a core though nobody asks it for anything."""
    if nextitem is None or not nextitem.path.is_relative_to(Path(__file__).parent):
        pytest_sessionfinish()


def pytest_sessionfinish() -> None:
    """Ends what is still there."""
    while _open:
        _open.pop()[0].close()


@pytest.fixture(scope="module")
def mfmc(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """Runs `mfmc` with these arguments: `returncode`, `stdout`, `stderr`.

    In a module with `OWN_RAY` each command makes a Ray of its own, as on a laptop; in others all share one, as on a cluster.
    """
    own = getattr(request.module, "OWN_RAY", False)
    command = Command(tmp_path_factory.mktemp("printed"), {} if own else request.getfixturevalue("running_ray"))
    yield command
    command.stop()


@pytest.fixture(scope="session")
def pictures() -> dict[str, Any]:
    """File name → bytes: a face and a cup of coffee, neither with metadata."""
    return {
        "face.jpg": save(Image.fromarray(astronaut()), "JPEG", quality=90),
        "cup.jpg": save(Image.fromarray(np.ascontiguousarray(coffee()[:300, :300])), "JPEG", quality=90),
    }
