"""The Ray session of a run: an existing cluster, or a local one made for the run and gone with it."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mfmc_ray.config import ConfigError, RayConfig, SwapConfig
from mfmc_ray.discreet import hushed
from mfmc_ray.faces import insight
from mfmc_ray.faces.runtime import available
from mfmc_ray.faces.store import ModelError, pull
from mfmc_ray.pipeline.growth import wait_for
from mfmc_ray.pipeline.profiles import GPU_PROVIDERS, Node, Plan, plan, without_services
from mfmc_ray.private import short_link, tidy
from mfmc_ray.swap.swappers import fetch

STORE_BYTES = 1 << 30
"""Of a local object store: it holds the known-face index and the models' settings, never pictures …"""
STORE_BYTES_GPU = 8 << 30
"""… unless there are services: then a picture a worker besides."""
PATIENCE = 30.0
"""Seconds for which a cluster that does not answer is tried again. Ray itself would go on for many minutes without a word."""
_TOKEN = secrets.token_hex(32)  # one for the process: Ray reads it only once
_SOCKET_PATH = 107  # bytes in a Unix socket's path
_SESSION_PATH = len("/s/session_2026-01-31_00-00-00_000000_4194304/sockets/plasma_store_0")


class SessionError(ConnectionError):
    """There is no Ray to work with; the message says what would do."""


@contextlib.contextmanager
def connect(config: RayConfig, work: str | os.PathLike[str]) -> Iterator[None]:
    """Ray, for as long as the block runs.

    The cluster is `config.address`, else the one that RAY_ADDRESS names (as it does in a submitted job), else a local Ray made here. That
    one listens on loopback only, asks for a token that only its processes have, has no dashboard, and keeps its files in WORK: logs,
    sockets, spilled objects. At the end it is stopped and they are removed, as is first what a killed command has left. A Ray that this
    process is already connected to is used and left.

    Args:
        config: where it runs.
        work: the private folder.

    Raises:
        SessionError, ConnectionError: the cluster cannot be reached or does not grow as it must, or a local Ray not be started.
    """
    if ray.is_initialized():
        yield
        return
    address = cluster_of(config)
    place = Path(work).absolute()
    tidy(place)
    with contextlib.ExitStack() as stack:
        stack.callback(tidy, place)
        # of this process only errors of Ray's that Ray does not also raise; it tells that it was told so
        stack.enter_context(_environment({"RAY_BACKEND_LOG_LEVEL": "fatal"}))
        if address:
            _reach(address)
            with _starting():
                ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
            stack.callback(ray.shutdown)
            wait_for(config.wait_for)
        else:
            stack.enter_context(_environment(_local_settings()))
            stack.enter_context(_loopback())
            spill = place / "ray-spill"
            spill.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder = _session_folder(place)
            with _explained(work), _muted():
                ray.init(
                    address="local",
                    num_cpus=config.actors or None,
                    include_dashboard=False,
                    object_store_memory=_store_bytes(config),
                    object_spilling_directory=str(spill),
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                    _temp_dir=str(folder),
                    _node_ip_address="127.0.0.1",
                )
            stack.callback(ray.shutdown)
        yield


def cluster_of(config: RayConfig) -> str | None:
    """The address of the cluster that a run uses; None: a Ray of its own, on this machine."""
    return config.address or os.environ.get("RAY_ADDRESS") or None


def nodes() -> list[Node]:
    """The nodes of the cluster. Those with GPUs are asked what their onnxruntime can do."""
    alive = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    found = [Node(node["NodeID"], node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0)) for node in alive]
    asked = {node.name: ray.remote(available).options(num_cpus=0, **_on(node.name)).remote() for node in found if node.gpus}
    said = dict(zip(asked, ray.get(list(asked.values())), strict=True))
    return [replace(node, providers=said.get(node.name)) for node in found]


def plan_of(config: RayConfig, *, services: bool = True) -> Plan:
    """How the work is shared out on this cluster as it is now.

    Args:
        config: settings.
        services: whether the pass asks services; one that does not has one worker a CPU.

    Raises:
        ProfileError: the cluster does not have what the profile needs.
    """
    made = plan(config, nodes())
    return made if services else without_services(made, config)


def prepare(names: Sequence[str], swap: SwapConfig | None = None) -> None:
    """Has each node of a cluster get the files of these models and of a swapper, once, before its workers ask for them at the same time.

    InsightFace's files, which every node has of its own, must be the ones that this process has named (`insight.named`).

    Raises:
        ModelError, ConfigError: a node cannot get one, or has another one.
    """
    others = [node for node in nodes() if node.name != ray.get_runtime_context().get_node_id()]
    tasks = [ray.remote(_pulled).options(num_cpus=0, **_on(node.name)).remote(list(names), swap, insight.named()) for node in others]
    for failure in ray.get(tasks):
        if failure is not None:
            raise failure


def _pulled(names: list[str], swap: SwapConfig | None, weights: Mapping[str, str]) -> Exception | None:
    try:
        pull(names, progress=False)
        insight.pin(weights)
        for name in weights:
            insight.check(name)
        if swap is not None:
            fetch(swap)
    except (ModelError, ConfigError) as error:
        return error
    return None


def _on(node: str) -> dict[str, Any]:
    """On this node; elsewhere if it is gone by then."""
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=True)}


def _reach(address: str) -> None:
    """Sees whether anybody listens at the address of a cluster, if it names a host and a port.

    Raises:
        SessionError: nobody does.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdigit():  # as "auto"
        return
    until = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
            return
        except OSError as error:
            if time.monotonic() >= until:
                raise SessionError(
                    f"no Ray cluster answers at {address} ({error.strerror or error}): start it, or give another --address; "
                    "without one (and without RAY_ADDRESS) a local Ray is made for the run"
                ) from error
        time.sleep(min(1.0, PATIENCE))


def _local_settings() -> dict[str, str]:
    settings = {
        "OMP_NUM_THREADS": "1",  # one actor a core; more threads only wait for each other
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # what makes every process of Ray bind to loopback
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_free_objects_period_milliseconds": "100",  # what services were asked about would stay in the store for a second
    }
    if "RAY_AUTH_MODE" not in os.environ:  # then Ray asks for a token, and would write one of its own into the home folder
        settings["RAY_AUTH_TOKEN"] = _TOKEN
    return settings


@contextlib.contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in (*settings, "RAY_AUTH_MODE")}  # Ray sets the last one itself
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _starting() -> Iterator[None]:
    """Muted; what Ray says when it cannot start may be printed: it names addresses, and nothing of a collection."""
    try:
        with _muted():
            yield
    except Exception as error:
        hushed(error, str(error))
        raise


@contextlib.contextmanager
def _muted() -> Iterator[None]:
    """Without what native code writes to stderr."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextlib.contextmanager
def _explained(work: str | os.PathLike[str]) -> Iterator[None]:
    """Ray's own report of a start that failed is a page without a cause."""
    try:
        yield
    except Exception as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        what = f"a local Ray could not be started ({said}): see whether {work} and the memory have room, or the machine is very busy"
        raise SessionError(f"{what}; run the same command again to resume") from error


@contextlib.contextmanager
def _loopback() -> Iterator[None]:
    """Ray looks at the setting when it is imported, which may have been before ours."""
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _session_folder(work: Path) -> Path:
    """A folder for Ray's session in WORK; where the path of a socket in there would be too long, by the name of a link to it."""
    private = work / "ray"
    private.mkdir(mode=0o700, exist_ok=True)
    folder = private / "s"  # Ray opens this one to everybody, so it must be in a private one
    folder.mkdir(mode=0o700)
    return folder if len(os.fsencode(private)) + _SESSION_PATH <= _SOCKET_PATH else short_link(work, folder)


def _store_bytes(config: RayConfig) -> int:
    if config.store_gib:
        return int(config.store_gib * 2**30)
    wanted = STORE_BYTES_GPU if any(name in GPU_PROVIDERS for name in available()) or config.profile == "gpu" else STORE_BYTES
    return min(wanted, _memory() // 4)


def _memory() -> int:
    """Bytes that this machine or container has."""
    return int(ray._common.utils.get_system_memory())
