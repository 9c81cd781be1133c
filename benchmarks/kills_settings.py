"""For `kills.py`: where a command runs, and how its parts are found and killed; only what was started here is."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from kills_checks import BrokenError, Collection, digests

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from ray_nodes import RayNodes, end, tree

STAGES = ("scan", "pool", "anonymize")
PICTURES = 32


@dataclass
class Started:
    """A command that runs: whether it has ended, its exit code, and how to kill the driver."""

    poll: Callable[[], int | None]
    kill: Callable[[], None]
    said: Callable[[], str]


@dataclass
class Place:
    """The folders of the rounds."""

    folder: Path
    collection: Collection
    actors: int

    def __post_init__(self) -> None:
        self.out, self.work, self.config = self.folder / "out", self.folder / "work", self.folder / "config.yaml"
        plain = {"input": str(self.collection.folder), "out": str(self.out), "work": str(self.work)}
        plain |= {"swap": {"identities": 6, "attempts": 2}, "ray": {"actors": self.actors}}  # type: ignore[dict-item]
        self.config.write_text(json.dumps(plain))

    def committed(self) -> dict[str, dict[str, dict[str, str]]]:
        return {stage: digests(self.work, stage) for stage in STAGES}

    def files(self, names: Sequence[str]) -> dict[str, int]:
        """File → mtime in ns."""
        places = [self.work / name if (self.work / name).exists() else self.out / name for name in names]
        return {name: path.stat().st_mtime_ns for name, path in zip(names, places, strict=True) if path.exists()}

    def at(self, before: dict[str, Any]) -> str:
        """Which stage a command is at, and how far it is."""
        now = self.committed()
        done = {stage: sum(parts.get(part) != before.get(stage, {}).get(part) for part in parts) for stage, parts in now.items()}
        first = not before.get("anonymize")
        total = max(len(now["scan"]), -(-PICTURES // 8))
        if (self.out / "manifest.json").exists():
            stage = "scan" if not first else "after the end"
        elif first:
            stage = "anonymize" if done["pool"] else "index" if done["scan"] >= total else "scan"
            stage = "publish" if done["anonymize"] >= total else stage
        else:
            stage = "update or publish"
        return f"{stage} (" + ", ".join(f"{name} {n}" for name, n in done.items() if n) + ")"


def named(processes: Sequence[psutil.Process], kind: str) -> list[psutil.Process]:
    """The workers, raylets, gcs_servers among some processes."""
    found = []
    for one in processes:
        with contextlib.suppress(psutil.Error, IndexError):
            is_worker = one.cmdline()[0].startswith("ray::") and "Worker" in one.cmdline()[0]
            if is_worker if kind == "worker" else one.name() == kind:
                found.append(one)
    return found


class Local:
    """The command makes its own Ray."""

    kinds: tuple[str, ...] = ("driver", "worker", "raylet", "gcs_server", "all")
    actors = 1
    options: tuple[str, ...] = ()

    def __init__(self, place: Place) -> None:
        self.place, self.root = place, psutil.Process()
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {"OMP_NUM_THREADS": "1"}

    def __enter__(self) -> Local:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def start(self, fresh: bool) -> Started:
        p = self.place
        verb = ["anonymize", str(p.collection.folder), str(p.out), "--work", str(p.work)] if fresh else ["nightly"]
        said = (p.folder / "said").open("w+")
        process = psutil.Popen(
            [sys.executable, "-m", "mfmc_ray.cli", "-v", *verb, "--config", str(p.config), *self.options],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env=self.environment,
        )
        self.root = psutil.Process(process.pid)
        return Started(process.poll, process.kill, lambda: (p.folder / "said").read_text())

    def roots(self) -> list[psutil.Process]:
        return [self.root]

    def victims(self, kind: str) -> list[psutil.Process]:
        """Whom to kill; nobody if there is none of the kind now."""
        every = [one for root in self.roots() for one in tree(root)]
        return [self.root] if kind == "driver" else every if kind == "all" else named(every, kind)[:1]

    def mend(self, kind: str) -> None:
        """What an operator does after a kill, before the command is run again."""

    def quiet(self) -> bool:
        """Whether no worker is left."""
        return not self._left

    _left: Sequence[psutil.Process] = ()


class Nodes(Local):
    """A head and a second node, each `ray start`."""

    kinds = ("driver", "worker", "raylet", "head raylet", "gcs_server", "all")
    actors = 2

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.cluster = RayNodes(inherited=self.environment)
        self.environment = self.cluster.environment

    def __enter__(self) -> Nodes:
        self._head()
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.close()

    def roots(self) -> list[psutil.Process]:
        return [self.root, *self.cluster.nodes]

    def victims(self, kind: str) -> list[psutil.Process]:
        if kind in ("raylet", "head raylet"):
            return named(tree(self.cluster.nodes[0 if kind == "head raylet" else 1]), "raylet")
        return super().victims(kind)

    def mend(self, kind: str) -> None:
        if kind == "raylet":
            self.cluster.kill(self.cluster.nodes[1])
            self.cluster.node()
        elif kind in ("head raylet", "gcs_server", "all"):
            for node in list(self.cluster.nodes):
                self.cluster.kill(node)
            self._head()

    def _head(self) -> None:
        self.cluster.head()
        self.cluster.node()
        self.options = ("--address", self.cluster.address)


class Library(Local):
    """Three nodes of `ray.cluster_utils` and the driver in this process."""

    kinds = ("node", "node", "worker")
    actors = 2

    def __enter__(self) -> Library:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        os.environ |= {"RAY_health_check_period_ms": "500", "RAY_health_check_failure_threshold": "4", "OMP_NUM_THREADS": "1"}
        import ray
        from ray.cluster_utils import Cluster

        memory = 150 << 20
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": memory})
        self.added = [self.cluster.add_node(num_cpus=1, object_store_memory=memory) for _ in range(2)]
        ray.init(address=self.cluster.address, logging_level="ERROR", log_to_driver=False)
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        ray.shutdown()
        self.cluster.shutdown()

    def run(self, fresh: bool) -> int:
        """The command, in this thread; its exit code."""
        from mfmc_ray.config import load
        from mfmc_ray.pipeline.nightly import nightly
        from mfmc_ray.pipeline.run import Run

        config = load(self.place.config)
        try:
            if fresh:
                run = Run(config)
                with run.session():
                    run.all()
            else:
                nightly(config)
        except Exception as error:
            (self.place.folder / "said").write_text(f"{type(error).__name__}: {error}")
            return 1
        return 0

    def strike(self, kind: str) -> bool:
        if kind == "node":
            self.cluster.remove_node(self.added.pop(), allow_graceful=False)
            return True
        found = self.victims("worker")
        end(found)
        return bool(found)

    def mend(self, kind: str) -> None:
        while len(self.added) < 2:
            self.added.append(self.cluster.add_node(num_cpus=1, object_store_memory=150 << 20))


def wait(
    what: Callable[[], Any], seconds: float, failed: Callable[[], str] | None = None, stop: Callable[[], bool] = lambda: False
) -> bool:
    """Until it is so; whether it is."""
    until = time.monotonic() + seconds
    while not what():
        if stop() or time.monotonic() > until:
            if failed is not None:
                raise BrokenError(failed())
            return False
        time.sleep(0.02)
    return True
