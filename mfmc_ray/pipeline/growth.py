"""A cluster that grows with what is asked for: asked before the work is shared out among its nodes, for only those that are there count."""

from __future__ import annotations

import math
import time

import ray
from ray.autoscaler.sdk import request_resources
from rich.console import Console

from mfmc_ray.config import NodesConfig

POLL_SECONDS = 2.0


class GrowthError(ConnectionError):
    """The cluster did not become as large as it must be; the message says what would do."""


def wait_for(wanted: NodesConfig) -> None:
    """Asks the autoscaler for CPUs and GPUs and waits until they are there.

    The request is taken back then: what is idle afterwards goes when the autoscaler's own time is over, also if this process is killed.

    Raises:
        GrowthError: they are not there in time.
    """
    if _missing(wanted) is None:
        return
    until = time.monotonic() + 60 * wanted.minutes
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"Waiting for {wanted.cpus:g} CPUs and {wanted.gpus:g} GPUs of the cluster")
    request_resources(bundles=[{"CPU": 1}] * math.ceil(wanted.cpus) + [{"GPU": 1}] * math.ceil(wanted.gpus))
    try:
        while (missing := _missing(wanted)) is not None:
            if time.monotonic() >= until:
                raise GrowthError(
                    f"the cluster has {missing} after {wanted.minutes:g} minutes, and ray.wait_for asks for {wanted.cpus:g} and "
                    f"{wanted.gpus:g}: see `ray status`, allow more workers (maxReplicas, max_workers), or ask for less"
                )
            time.sleep(POLL_SECONDS)
    finally:
        request_resources(bundles=[])


def _missing(wanted: NodesConfig) -> str | None:
    """What the cluster has, if that is not enough."""
    there = ray.cluster_resources()  # type: ignore[no-untyped-call]
    cpus, gpus = there.get("CPU", 0.0), there.get("GPU", 0.0)
    return None if cpus >= wanted.cpus and gpus >= wanted.gpus else f"{cpus:g} CPUs and {gpus:g} GPUs"
