"""Services: Ray actors with a share of a GPU that do one kind of learned work for all workers of a run (`roles.py` says what).

A worker asks one, on its own node if there is one, and waits; so each has at most one request under way, and what is in the object store
for services is at most one picture, or one window, a worker. An actor that dies is started again, wherever there is a GPU, and asked again.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray

from mfmc_ray.faces import insight, runtime
from mfmc_ray.faces.gather import Gathering, Lanes
from mfmc_ray.pipeline.deadlines import Deadlines
from mfmc_ray.pipeline.profiles import Plan, Role
from mfmc_ray.pipeline.remote import ServiceLostError

START_SECONDS = 900.0
"""Until all services are ready; on a cluster that grows, nodes may have to come first."""
RETRIES = 3
"""How often a request is begun again after its actor died, before the worker does it itself."""


class ServiceError(RuntimeError):
    """The services cannot be started; the message says what to do."""


class Services:
    """The services of a run, of several roles: started when they are needed first, removed by `close`."""

    def __init__(self) -> None:
        self._actors: dict[str, list[Any]] = {}
        self._made_with: dict[str, str] = {}
        self._nodes: dict[str, list[str]] = {}
        self._shared: dict[str, list[ray.ObjectRef[Any]]] = {}
        self.notes: dict[str, None] = {}
        """What did not go as it was asked for."""

    def start(self, plan: Plan, role: str, kind: type, arguments: Mapping[str, Any], made_with: str) -> None:
        """Starts the services of a role, and waits until they are warm; nothing if the plan has none, or those there are do.

        Args:
            plan: how many, and with what.
            role: its name.
            kind: class of `roles`, importable on the nodes.
            arguments: of its constructor; large arrays are shared by the actors of a node, read-only.
            made_with: stands for the arguments: others are started anew.

        Raises:
            ServiceError: the cluster has no room for them, or an actor cannot be set up.
        """
        settled = plan.role(role)
        if settled is None or self._made_with.get(role) == made_with:
            return
        self._end(role)
        shared = self._shared[role] = [ray.put((kind, dict(arguments)))]  # kept: who is started again reads it again
        options = {"num_gpus": settled.gpus, "num_cpus": settled.cpus, "scheduling_strategy": "SPREAD"}
        restarts = {"max_restarts": -1, "max_task_retries": RETRIES, "max_concurrency": 1000}
        actor: Any = ray.remote(_Service).options(**options, **restarts)
        actors = [actor.remote(settled, shared, plan.service_providers, insight.named()) for _ in range(settled.actors)]
        self._actors[role] = actors
        try:
            about = ray.get([actor.about.remote() for actor in actors], timeout=START_SECONDS)
        except ray.exceptions.GetTimeoutError as error:
            self.close()
            raise ServiceError(
                f"the cluster has no room for {settled.actors} × {settled.gpus:g} GPU and {settled.cpus:g} CPU for the services that "
                f"{role}: add nodes with GPUs, or lower ray.{role}.actors, gpus or cpus"
            ) from error
        except ray.exceptions.RayError as error:
            self.close()
            raise ServiceError(f"a service that is to {role} cannot be set up: {str(error).strip().splitlines()[-1]}") from error
        self._made_with[role] = made_with
        self._nodes[role] = [one["node"] for one in about]
        self.notes |= dict.fromkeys(note for one in about for note in one["notes"])

    def ask(self) -> Asking | None:
        """What workers ask with; None without services."""
        if not self._actors:
            return None
        return Asking({role: list(zip(actors, self._nodes[role], strict=True)) for role, actors in self._actors.items()})

    def about(self) -> dict[str, list[dict[str, Any]]]:
        """role → of each of its services: `pid`, `node`, `gpus` and `cpus` reserved, `busy` lanes, `providers`, `notes`, and since it
        was started `requests`, `seconds` worked, `waited` in the queue, `batches` and `rows` in them."""
        return {role: list(ray.get([actor.about.remote() for actor in actors])) for role, actors in self._actors.items()}

    def told(self) -> list[str]:
        """How busy the services have been since they were started, a line for each role: what to turn is in docs/cluster.md."""
        lines = []
        for role, some in self.about().items():
            requests, batches = (max(1, sum(one[name] for one in some)) for name in ("requests", "batches"))
            worked, waited, rows = (sum(one[name] for one in some) for name in ("seconds", "waited", "rows"))
            line = f"Services that {role}: {sum(one['requests'] for one in some)} requests, {1000 * worked / requests:.0f} ms each after "
            line += f"{1000 * waited / requests:.0f} ms in the queue"
            lines.append(line + (f"; {rows / batches:.1f} faces a batch" if rows else ""))
        return lines

    def published(self, plan: Plan) -> dict[str, Any]:
        """For the manifest: what the plan is, what the services' networks run on, and what did not go as it was asked for."""
        found = plan.published()
        for role, some in self.about().items():
            found["services"][role]["providers"] = sorted({name for one in some for name in one["providers"]})
        notes = [*plan.notes, *self.notes]
        return found | ({"notes": notes} if notes else {})

    def close(self) -> None:
        """Removes the services; who asks them from now on is told so."""
        for role in list(self._actors):
            self._end(role)

    def _end(self, role: str) -> None:
        for actor in self._actors.pop(role, []):
            ray.kill(actor)
        self._made_with.pop(role, None)
        self._nodes.pop(role, None)
        self._shared.pop(role, None)


class Asking:
    """A `remote.Ask` of these services. It can be pickled, and used by any worker of the cluster.

    Args:
        actors: role → its actors, each with the node that it was started on.
    """

    def __init__(self, actors: Mapping[str, Sequence[tuple[Any, str]]]) -> None:
        self._actors = {role: list(some) for role, some in actors.items()}
        self._turns: dict[str, Any] = {}

    def has(self, role: str) -> bool:
        """Whether there are services of this role."""
        return bool(self._actors.get(role))

    def __call__(self, role: str, method: str, *arguments: Any, seconds: float = 0.0) -> Any:
        """See `remote.Ask`."""
        try:
            answer = ray.get(self._next(role).call.remote(method, arguments, seconds))
        except ray.exceptions.RayError as error:
            raise ServiceLostError(f"no answer of the services that {role} ({type(error).__name__})") from error
        if isinstance(answer, _Failure):
            raise answer.error
        return answer

    def _next(self, role: str) -> Any:
        """The next in turn of those on this node, or of all."""
        if role not in self._turns:
            here = ray.get_runtime_context().get_node_id()
            near = [actor for actor, node in self._actors[role] if node == here] or [actor for actor, _ in self._actors[role]]
            start = os.getpid() % len(near)  # or all workers would begin with the same one
            self._turns[role] = itertools.cycle(near[start:] + near[:start])
        return next(self._turns[role])

    def __reduce__(self) -> Any:
        return Asking, (self._actors,)


class _Failure:
    """An exception that a method has raised: no fault of the service."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class _Service:
    """The actor."""

    def __init__(self, role: Role, shared: list[ray.ObjectRef[Any]], providers: str, weights: Mapping[str, str]) -> None:
        os.environ["RAY_WARN_BLOCKING_GET_INSIDE_ASYNC"] = "0"  # here and in lanes, which may ask shards, nothing else is held up
        kind, arguments = ray.get(shared[0])
        self._lanes, self._deadlines = Lanes(), Deadlines()
        runtime.use(threads=max(1, round(role.cpus)), providers=providers)
        insight.pin(weights)
        runtime.gather(Gathering(role.batch, role.wait_ms / 1000, lanes=self._lanes))
        self._doer = kind(**arguments)
        self._doer.warm_up()
        self._pool = ThreadPoolExecutor(role.lanes, thread_name_prefix="lane")
        self._lock = threading.Lock()
        self._requests, self._seconds, self._waited = 0, 0.0, 0.0

    async def call(self, method: str, arguments: tuple[Any, ...], seconds: float) -> Any:
        """The method's answer, or a `_Failure`."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._do, method, arguments, seconds, time.monotonic())

    def _do(self, method: str, arguments: tuple[Any, ...], seconds: float, asked: float) -> Any:
        started = time.monotonic()
        try:
            with self._lanes.request(), self._deadlines.within(seconds):
                return getattr(self._doer, method)(*arguments)
        except Exception as error:
            return _Failure(error)
        finally:
            with self._lock:
                self._requests += 1
                self._waited += started - asked
                self._seconds += time.monotonic() - started

    async def about(self) -> dict[str, Any]:
        """See `Services.about`."""
        context = ray.get_runtime_context()
        reserved = context.get_assigned_resources()  # type: ignore[no-untyped-call]
        batches, rows = runtime.batches()
        return {
            "pid": os.getpid(),
            "node": context.get_node_id(),
            "gpus": reserved.get("GPU", 0.0),
            "cpus": reserved.get("CPU", 0.0),
            "busy": self._lanes.busy,
            "providers": list(runtime.used()),
            "notes": list(runtime.notes()),
            "requests": self._requests,
            "seconds": self._seconds,
            "waited": self._waited,
            "batches": batches,
            "rows": rows,
        }
