"""The time that a service's request may take: native code that never comes back ends the process, as it does a worker's (`watch.py`)."""

from __future__ import annotations

import contextlib
import faulthandler
import sys
import threading
import time
from collections.abc import Iterator
from typing import TextIO


class Deadlines:
    """Of several threads; the process ends at the first one that is missed.

    Args:
        log: gets where the threads were; None: stderr.
    """

    def __init__(self, log: TextIO | None = None) -> None:
        self._lock = threading.Lock()
        self._ends: dict[object, float] = {}
        self._log = log or sys.stderr

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """While the block runs; 0: any time."""
        if seconds <= 0:
            yield
            return
        key = object()
        with self._lock:
            self._ends[key] = time.monotonic() + seconds
            self._arm()
        try:
            yield
        finally:
            with self._lock:
                del self._ends[key]
                self._arm()

    def _arm(self) -> None:
        # Not a thread of Python's: it would wait for ever for native code that does not let go of the interpreter.
        if self._ends:
            faulthandler.dump_traceback_later(max(0.001, min(self._ends.values()) - time.monotonic()), exit=True, file=self._log)
        else:
            faulthandler.cancel_dump_traceback_later()
