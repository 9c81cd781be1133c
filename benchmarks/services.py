"""Whether the object store stays bounded when services are slow: `python benchmarks/services.py [--workers 2 4 8] [--requests 5 20]`.

Workers ask one service on a logical GPU, which takes its time, about pictures of a given size, as a scan does. Prints the most bytes that
were in the object store at any moment, in pictures: it should be about the number of workers, and what is served until Ray frees what is
done with, whatever the number of requests.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from typing import Any

import numpy as np

os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
os.environ.setdefault("RAY_free_objects_period_milliseconds", "100")  # as a run's own Ray has it; Ray's default is 1000

import ray
from ray._private.internal_api import get_memory_info_reply, get_state_from_address

from mfmc_ray.config import RayConfig, ServiceConfig
from mfmc_ray.pipeline.profiles import LOOK, Node, plan
from mfmc_ray.pipeline.remote import Asker
from mfmc_ray.pipeline.services import Services

MEGAPIXELS = 4


class Slow:
    """A role that does nothing, slowly."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def warm_up(self) -> None:
        """Nothing to warm up."""

    def analyse(self, image: Any) -> int:
        """The picture's bytes, after a while."""
        time.sleep(self.seconds)
        return int(image.nbytes)


class Worker:
    """Asks about one picture after the other."""

    def work(self, ask: Any, requests: int) -> int:
        """The bytes of all pictures."""
        asker, total = Asker(ask), 0
        for i in range(requests):
            picture = np.full((1000 * MEGAPIXELS, 1000, 3), i, np.uint8)
            total += asker(LOOK, "analyse", picture, otherwise=lambda: 0)
        return total


class Peak(threading.Thread):
    """Samples how full the object store is."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes, self.over, self.spilled = 0, threading.Event(), 0

    def run(self) -> None:
        state = get_state_from_address(ray.get_runtime_context().gcs_address)
        while not self.over.wait(0.03):
            stats = get_memory_info_reply(state).store_stats
            self.bytes = max(self.bytes, stats.object_store_bytes_used)
            self.spilled = max(self.spilled, stats.spilled_bytes_total)


def main() -> None:
    """Prints a row for each number of workers and of requests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--requests", type=int, nargs="+", default=[5, 20])
    parser.add_argument("--seconds", type=float, default=0.1, help="that the service takes over a picture")
    asked = parser.parse_args()
    ray.init(
        num_cpus=2, num_gpus=1, include_dashboard=False, object_store_memory=300_000_000, log_to_driver=False, _node_ip_address="127.0.0.1"
    )
    made = plan(
        RayConfig(profile="gpu", look=ServiceConfig(lanes=2), swap=ServiceConfig(actors=-1)),
        [Node("here", 2, 1, ("CUDAExecutionProvider",))],
    )
    picture = MEGAPIXELS * 3_000_000
    services = Services()
    services.start(made, LOOK, Slow, {"seconds": asked.seconds}, "")
    for count in asked.workers:
        workers = [ray.remote(num_cpus=0.1)(Worker).remote() for _ in range(count)]
        for requests in asked.requests:
            peak = Peak()
            peak.start()
            started = time.monotonic()
            totals = ray.get([worker.work.remote(services.ask(), requests) for worker in workers])
            seconds = time.monotonic() - started
            peak.over.set()
            peak.join()
            assert totals == [requests * picture] * count
            (about,) = services.about()[LOOK]
            print(
                f"{count} workers × {requests} pictures of {picture / 1e6:.0f} MB: {seconds:.1f} s, at most {peak.bytes / picture:.1f} "
                f"pictures in the object store, {peak.spilled / 1e6:.0f} MB spilled; waited {about['waited']:.1f} s in the queue so far",
                flush=True,
            )
        for worker in workers:
            ray.kill(worker)
    services.close()
    ray.shutdown()


if __name__ == "__main__":
    main()
