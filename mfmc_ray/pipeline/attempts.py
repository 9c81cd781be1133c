"""How often parts were begun, counted in an actor: Ray gives a dead worker's part to the next one without end.

A process of Ray's takes a second to start, so that one serves all passes of a session; and it imports this module, which therefore imports
little.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import ray

_serving: dict[tuple[str, str, str], Any] = {}


class Attempts:
    """Counts. `run` is of the pass: workers of one that was given up may still be at it when the next has begun."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, int]] = Counter()
        self._blamed: Counter[str] = Counter()

    def begin(self, run: str, part: int) -> int:
        """How often the part was begun, this time included."""
        self._counts[run, part] += 1
        return self._counts[run, part]

    def blamed(self, run: str, part: int) -> int:
        """As `begin`, after an image was blamed for the last worker's death, which then does not count."""
        self._counts[run, part] -= 1
        self._blamed[run] += 1
        return self._counts[run, part]

    def end(self, run: str, part: int) -> None:
        """The part is done; it may have to be done again with others that share its block, through no fault of its own."""
        del self._counts[run, part]

    def forget(self, run: str) -> int:
        """Counts a pass anew, since its workers were stopped by ourselves; how many deaths images were blamed for in all."""
        for key in [key for key in self._counts if key[0] == run]:
            del self._counts[key]
        return self._blamed[run]


def attempts() -> Any:
    """The session's actor; made when it is first asked for."""
    here = ray.get_runtime_context()
    session = here.gcs_address, here.get_job_id(), here.namespace  # the last is random for each connection
    if session not in _serving:
        _serving.clear()
        _serving[session] = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Attempts).remote()
    return _serving[session]
