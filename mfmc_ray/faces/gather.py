"""Gathering: what several threads ask of one network is run together, so that a GPU gets batches that no single picture has.

A caller whose rows are run with others' gets what it would get alone: rows come back in order, and on a GPU every batch is filled up to the
same size, so that the same kernels run whatever came together.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Feed = Mapping[str, Array]
Run = Callable[[Feed], list[Array]]


class Lanes:
    """How many requests this process works on, and how many of them wait for a batch: while all wait, no batch can grow any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy = self._waiting = 0

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """While a request is worked on."""
        with self._lock:
            self._busy += 1
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """While its thread waits for a batch."""
        with self._lock:
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1

    @property
    def busy(self) -> int:
        """Requests that are worked on."""
        with self._lock:
            return self._busy

    def more_may_come(self) -> bool:
        """Whether another request that is worked on could still join."""
        with self._lock:
            return self._busy > self._waiting


@dataclass(frozen=True)
class Gathering:
    """How batches are made.

    Attributes:
        size: rows of a batch at most.
        wait: seconds that a batch which is not full waits for others.
        always: gather on a CPU, too. There it gains nothing: a batch costs what its rows cost.
        lanes: who might come.
    """

    size: int
    wait: float = 0.002
    always: bool = False
    lanes: Lanes = field(default_factory=Lanes)


class RowsError(ValueError):
    """Something has other rows than what it is about."""


@dataclass
class _Call:
    feed: Feed
    rows: int
    done: Future[list[Array]] = field(default_factory=Future)


class Gatherer:
    """Runs a function of rows on the rows of several callers together.

    Args:
        run: arrays by name, with as many rows each → arrays with as many rows.
        how: sizes and times.
        full: fill every batch up to `how.size` with zeros.
    """

    def __init__(self, run: Run, how: Gathering, *, full: bool = False) -> None:
        self._run, self._how, self._full = run, how, full
        self._calls: deque[_Call] = deque()
        self._changed = threading.Condition()
        self.batches = self.rows = 0
        """What was run so far."""
        threading.Thread(target=self._work, daemon=True, name="gatherer").start()

    def __call__(self, feed: Feed) -> list[Array]:
        """Waits for the result.

        Raises:
            RowsError: arrays differ in their rows, or the function has given other rows than it was given.
            whatever the function raises for these rows.
        """
        call = _Call(feed, _rows(feed.values()))
        with self._how.lanes.waiting():
            with self._changed:
                self._calls.append(call)
                self._changed.notify()
            return call.done.result()

    def _work(self) -> None:
        while True:
            some = self._next()
            try:
                parts = self._together([call.feed for call in some], [call.rows for call in some])
            except Exception:
                for call in some:  # only who is at fault is told so
                    try:
                        call.done.set_result(self._together([call.feed], [call.rows])[0])
                    except Exception as error:
                        call.done.set_exception(error)
                continue
            for call, part in zip(some, parts, strict=True):
                call.done.set_result(part)

    def _next(self) -> list[_Call]:
        """The next calls that fit into a batch, or one that alone is larger."""
        with self._changed:
            while not self._calls:
                self._changed.wait()
            until = time.monotonic() + self._how.wait
            while sum(call.rows for call in self._calls) < self._how.size and self._how.lanes.more_may_come():
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            some = [self._calls.popleft()]
            while self._calls and sum(call.rows for call in some) + self._calls[0].rows <= self._how.size:
                some.append(self._calls.popleft())
            return some

    def _together(self, feeds: Sequence[Feed], rows: Sequence[int]) -> list[list[Array]]:
        """Each one's outputs."""
        joined = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
        outputs: list[list[Array]] = []
        for start in range(0, max(sum(rows), 1), self._how.size):
            part = {name: array[start : start + self._how.size] for name, array in joined.items()}
            outputs.append(self._batch(part))
        whole = [np.concatenate(parts) for parts in zip(*outputs, strict=True)]
        ends = np.cumsum(rows)[:-1]
        return [list(mine) for mine in zip(*(np.split(output, ends) for output in whole), strict=True)]

    def _batch(self, part: Feed) -> list[Array]:
        rows = _rows(part.values())
        self.batches += 1
        self.rows += rows
        if self._full and rows < self._how.size:
            part = {
                name: np.concatenate([array, np.zeros((self._how.size - rows, *array.shape[1:]), array.dtype)])
                for name, array in part.items()
            }
        outputs = self._run(part)
        if outputs and _rows(outputs) != _rows(part.values()):  # whose rows they are nobody could say
            raise RowsError(f"{_rows(outputs)} rows for {_rows(part.values())}")
        return [output[:rows] for output in outputs]


class GatheredSession:
    """An `onnxruntime.InferenceSession` whose inputs and outputs have their rows on the first axis, with `run` gathered.

    Args:
        session: to run on.
        how: sizes and times.
        full: as of `Gatherer`.
    """

    def __init__(self, session: Any, how: Gathering, *, full: bool) -> None:
        self._session = session
        self.size = how.size
        self._names = [output.name for output in session.get_outputs()]
        self.gatherer = Gatherer(lambda feed: session.run(self._names, dict(feed)), how, full=full)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, names: Sequence[str] | None, feed: Feed) -> list[Array]:
        """The outputs of these names (None: all) for some rows."""
        outputs = self.gatherer(feed)
        return outputs if names is None else [outputs[self._names.index(name)] for name in names]


def _rows(arrays: Iterable[Array]) -> int:
    """How many rows these have, each.

    Raises:
        RowsError: not all the same.
    """
    found = {len(array) for array in arrays}
    if len(found) != 1:
        raise RowsError(f"arrays of {', '.join(map(str, sorted(found)))} rows, where all must have as many")
    return found.pop()
