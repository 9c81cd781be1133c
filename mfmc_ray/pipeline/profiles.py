"""Resource profiles: how the work of a run is shared out among the nodes of a cluster. No Ray in here: nodes in, plan out.

local, cpu-cluster: a worker on each CPU does all that there is to do to its images. gpu: the workers list, read, decode, encode and commit,
and ask services for what is learned: actors that share the GPUs. A worker that waits for an answer uses no core, so there are more
workers than CPUs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mfmc_ray.config import RayConfig, ServiceConfig

LOOK, SWAP = "look", "swap"
"""What services do: find and describe faces; put identities on faces and look at the results."""
GPU_LANES = {LOOK: 4, SWAP: 8}
"""Requests that a service works on at a time: enough that batches fill up while others' pictures are cut out and drawn on the CPU."""
BATCH, WAIT_MS = 16, 2.0
WORKERS_A_CPU = 2
"""With services: about half of a worker's time goes into waiting for them."""
RAYS_OWN = 1.0
"""CPUs of the cluster that are left free, or Ray's own tasks could wait for ever."""
GPU_PROVIDERS = ("CUDAExecutionProvider", "TensorrtExecutionProvider")
"""onnxruntime's names."""
_GRAIN = 10_000
"""Ray counts in so many parts of a CPU."""


class ProfileError(ValueError):
    """The cluster does not have what the profile needs; the message says what would do."""


@dataclass(frozen=True)
class Node:
    """A node as Ray knows it.

    Attributes:
        name: its id.
        cpus, gpus: that Ray shares out on it.
        providers: execution providers of its onnxruntime; None: not asked.
    """

    name: str
    cpus: float
    gpus: float = 0.0
    providers: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Role:
    """What services there are of one kind; as `config.ServiceConfig`, settled."""

    name: str
    actors: int
    gpus: float
    cpus: float
    lanes: int
    batch: int
    wait_ms: float


@dataclass(frozen=True)
class Plan:
    """How the work is shared out.

    Attributes:
        profile: local, cpu-cluster or gpu.
        actors: workers.
        cpus: that each worker reserves, if there are that many.
        threads: of each worker's networks.
        in_flight: parts that each worker is given at a time.
        providers: what workers' networks run on.
        service_providers: what services' networks run on.
        roles: services; empty without.
        free: CPUs for workers on each node.
        fixed: whether `cpus` was set, and stays when there are fewer workers.
        store_bytes: that the graph of parts may hold in the object store; 0: Ray's own limit.
        notes: what the user should know.
    """

    profile: str
    actors: int
    cpus: float
    threads: int = 1
    in_flight: int = 1
    providers: str = "cpu"
    service_providers: str = "auto"
    roles: tuple[Role, ...] = ()
    free: tuple[float, ...] = (1.0,)
    fixed: bool = False
    store_bytes: int = 0
    notes: tuple[str, ...] = ()

    def role(self, name: str) -> Role | None:
        """The services of this name; None: there are none."""
        return next((role for role in self.roles if role.name == name), None)

    def share(self, actors: int) -> float:
        """CPUs that each of so many workers reserves."""
        return self.cpus if self.fixed else _share(self.free, actors)

    def told(self) -> list[str]:
        """What is said of it when a run begins; nothing of a local one."""
        services = [f"{role.actors} that {role.name} on {role.gpus:g} GPU each" for role in self.roles]
        line = f"Profile {self.profile}: {self.actors} workers" + (f"; services: {', '.join(services)}" if services else "")
        return [*([] if self.profile == "local" else [line]), *self.notes]

    def published(self) -> dict[str, Any]:
        """For the manifest."""
        roles = {role.name: {"actors": role.actors, "gpus": role.gpus, "lanes": role.lanes, "batch": role.batch} for role in self.roles}
        return {"profile": self.profile, "workers": self.actors, "threads": self.threads} | ({"services": roles} if roles else {})


def plan(config: RayConfig, nodes: Sequence[Node]) -> Plan:
    """The plan for a cluster.

    Args:
        config: settings; what is 0 or auto in it is chosen here.
        nodes: that are alive now. A cluster that grows is planned for by `actors`, `cpus` and the services' `actors`.

    Raises:
        ProfileError: services are asked for that the cluster has no GPUs for.
    """
    notes: list[str] = []
    profile = _auto(nodes, notes) if config.profile == "auto" else config.profile
    roles: tuple[Role, ...] = ()
    free = [node.cpus for node in nodes]
    if profile == "gpu":
        roles = _roles(config, nodes, notes)
        if any(node.gpus for node in nodes) and not any(_can(node) for node in nodes if node.gpus):
            notes.append("the onnxruntime of the nodes with GPUs has no CUDA (pip install 'mfmc-ray[gpu]' there): services run on CPUs")
        reserved = sum(role.actors * role.cpus for role in roles)
        having = max(1, sum(node.gpus > 0 for node in nodes))
        free = [max(0.0, node.cpus - (reserved / having if node.gpus else 0.0)) for node in nodes]
    usual = max(1, int(sum(free) + 1e-9)) * (WORKERS_A_CPU if roles else 1)
    made = Plan(
        profile=profile,
        actors=config.actors or usual,
        cpus=config.cpus,
        threads=config.threads or 1,
        in_flight=config.in_flight or 1,
        providers="cpu" if config.providers == "auto" or roles else config.providers,
        service_providers=config.providers,
        roles=roles,
        free=tuple(free),
        fixed=config.cpus > 0,
        store_bytes=int(config.store_gib * 2**30),
        notes=tuple(notes),
    )
    return made if made.fixed else replace(made, cpus=made.share(made.actors))


def without_services(made: Plan, config: RayConfig) -> Plan:
    """The plan for a pass that asks no services, beside those that are there."""
    if not made.roles:
        return made
    alone = replace(made, roles=(), actors=config.actors or max(1, int(sum(made.free) + 1e-9)))
    return alone if alone.fixed else replace(alone, cpus=alone.share(alone.actors))


def _auto(nodes: Sequence[Node], notes: list[str]) -> str:
    having = [node for node in nodes if node.gpus]
    if any(_can(node) for node in having):
        return "gpu"
    if having:
        notes.append(
            "there are GPUs, but no onnxruntime with CUDA on their nodes, so CPUs are used: pip install 'mfmc-ray[gpu]' there, or say "
            "--profile cpu-cluster or local"
        )
    return "cpu-cluster" if sum(node.cpus > 0 for node in nodes) > 1 else "local"


def _can(node: Node) -> bool:
    """Whether its onnxruntime has a GPU's provider."""
    return any(name in GPU_PROVIDERS for name in node.providers or ())


def _roles(config: RayConfig, nodes: Sequence[Node], notes: list[str]) -> tuple[Role, ...]:
    gpus = sum(node.gpus for node in nodes)
    wanted = {name: asked for name, asked in ((LOOK, config.look), (SWAP, config.swap)) if asked.actors >= 0}
    if not wanted:
        raise ProfileError("ray.look.actors and ray.swap.actors are -1, so nothing would run on a GPU: say --profile cpu-cluster")
    grows = all(asked.actors for asked in wanted.values())
    if gpus <= 0 and not grows:
        raise ProfileError(
            "ray.profile gpu (--profile gpu) needs a node with a GPU, and this cluster has none: add one (docs/cluster.md), or say "
            "--profile cpu-cluster; where nodes come when they are asked for, set ray.look.actors and ray.swap.actors"
        )
    usual = max(1, int(gpus))
    most = sum(asked.actors or usual for asked in wanted.values())
    reserved = sum((asked.actors or usual) * (asked.gpus or 1.0 / len(wanted)) for asked in wanted.values())
    # of the nodes that are there at most half of the CPUs beside the GPUs
    here = math.floor(sum(node.cpus for node in nodes if node.gpus) / 2 / most * _GRAIN) / _GRAIN
    cpus = 1.0 if reserved > gpus + 1e-6 else min(1.0, here)
    if reserved > gpus + 1e-6 and grows:
        notes.append(f"the services reserve {reserved:g} GPUs, and the cluster has {gpus:g} now: they wait until nodes have come")
    elif reserved > gpus + 1e-6:
        raise ProfileError(
            f"the services would reserve {reserved:g} GPUs, and the cluster has {gpus:g}: lower ray.look.actors, ray.swap.actors or their "
            "gpus"
        )
    return tuple(_role(name, asked, usual, 1.0 / len(wanted), cpus) for name, asked in wanted.items())


def _role(name: str, asked: ServiceConfig, actors: int, gpus: float, cpus: float) -> Role:
    return Role(
        name=name,
        actors=asked.actors or actors,
        gpus=asked.gpus or gpus,
        cpus=asked.cpus or cpus,
        lanes=asked.lanes or GPU_LANES[name],
        batch=asked.batch or BATCH,
        wait_ms=asked.wait_ms or WAIT_MS,
    )


def _share(free: Sequence[float], actors: int) -> float:
    """The largest share of a CPU of which so many fit on the nodes, with a CPU in all left over."""
    most = min(1.0, max(sum(free) - RAYS_OWN, 0.5) / actors)
    fits = [node / k for node in free if node > 0 for k in range(1, math.ceil(node / most) + 2)]
    for share in sorted({most, *(share for share in fits if share < most)}, reverse=True):
        rounded = math.floor(share * _GRAIN) / _GRAIN
        if rounded > 0 and sum(math.floor(node / rounded + 1e-9) for node in free) >= actors:
            return rounded
    return max(1 / _GRAIN, math.floor(most * _GRAIN) / _GRAIN)
