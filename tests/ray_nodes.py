"""A Ray cluster of several nodes on this machine, each `ray start`; ended by process id: `ray stop` would end every Ray of the machine.

Its nodes have loopback addresses. Some of Ray's own servers listen on all addresses as soon as there are several nodes; those ask for a
token.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

START_SECONDS = 120.0
STORE_BYTES = 200_000_000
HEALTH = {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "5"}
"""A node that is killed is noticed within seconds."""


class NodeError(RuntimeError):
    """A node did not start; the message is what it said."""


class RayNodes:
    """A head, 127.X.Y.1, and further nodes, 127.X.Y.2 and so on. Their processes ask for a token that only `environment` has.

    Args:
        dashboard: whether jobs can be submitted.
        inherited: the nodes' environment, and so their workers'; None: this process's. RAY_* of it are left out.
    """

    def __init__(self, *, dashboard: bool = False, inherited: dict[str, str] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="k-"))  # short: the paths of sockets are below it
        kept = {name: value for name, value in (os.environ if inherited is None else inherited).items() if not name.startswith("RAY_")}
        kept["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])  # a job's `python` is this one
        settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
        self.environment = kept | settings | HEALTH
        """Of nodes and of commands that use the cluster."""
        self.nodes: list[psutil.Process] = []
        """The `ray start` of each, the head's first."""
        self._dashboard = dashboard
        self._network = f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(250)}"  # another cluster may be here
        self._count = 0
        self.address = self.jobs = ""

    def head(self, *, cpus: int = 1, options: Sequence[str] = ()) -> psutil.Process:
        """Starts the head; what was there is not ended. `address` is of Ray itself, `jobs` the URL that jobs are submitted to."""
        self.nodes = []
        self._count += 1
        ip = f"{self._network}.{self._count}"
        self.address = f"{ip}:{_free_port(ip)}"
        more = ["--head", "--port", self.address.rpartition(":")[2], "--temp-dir", str(self.folder), "--num-cpus", str(cpus)]
        more += ["--ray-client-server-port", str(_free_port("127.0.0.1"))]
        more += ["--include-dashboard", str(self._dashboard).lower()]
        if self._dashboard:
            port = _free_port(ip)
            self.jobs = f"http://{ip}:{port}"
            more += ["--dashboard-host", ip, "--dashboard-port", str(port)]
        node = self._start(ip, *more, *options)
        if self._dashboard:
            _wait(lambda: _listens(ip, self._agent), lambda: "no job agent is there")
        return node

    def node(self, *, cpus: int = 2, gpus: int = 0, options: Sequence[str] = ()) -> psutil.Process:
        """Starts a further node; the GPUs are names only."""
        self._count += 1
        ip = f"{self._network}.{self._count}"
        return self._start(ip, "--address", self.address, "--num-cpus", str(cpus), "--num-gpus", str(gpus), *options)

    def kill(self, node: psutil.Process) -> None:
        """Ends a node and all that runs on it at once, as a lost machine does."""
        end(tree(node))
        self.nodes.remove(node)

    def close(self) -> None:
        """Ends all nodes and removes their files."""
        everything = [one for node in self.nodes for one in tree(node)]
        end(everything)
        psutil.wait_procs(everything, 10)
        self.nodes = []
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, ip: str, *options: str) -> psutil.Process:
        said = self.folder / f"{self._count}.said"
        self._agent = _free_port("127.0.0.1")  # where it listens, too
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
        ports = ["--dashboard-agent-listen-port", str(self._agent)]
        with said.open("w") as file:
            process = psutil.Popen(
                [*ray, "--node-ip-address", ip, "--object-store-memory", str(STORE_BYTES), *ports, *options],
                stdout=file,
                stderr=file,
                env=self.environment,
                start_new_session=True,
            )
        node = psutil.Process(process.pid)
        self.nodes.append(node)
        _wait(lambda: "Ray runtime started" in said.read_text(), said.read_text, lambda: process.poll() is not None)
        return node


def tree(root: psutil.Process) -> list[psutil.Process]:
    """A process and all below it; none if it has ended."""
    try:
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def end(processes: Sequence[psutil.Process]) -> None:
    """Kills some processes."""
    for one in processes:
        with contextlib.suppress(psutil.Error):
            one.kill()


def _free_port(ip: str) -> int:
    with socket.socket() as one:
        one.bind((ip, 0))
        return int(one.getsockname()[1])


def _listens(ip: str, port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex((ip, port)) == 0


def _wait(what: Callable[[], bool], failed: Callable[[], str], over: Callable[[], bool] = lambda: False) -> None:
    until = time.monotonic() + START_SECONDS
    while not what():
        if over() or time.monotonic() > until:
            raise NodeError(failed())
        time.sleep(0.05)
