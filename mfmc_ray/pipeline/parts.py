"""The one graph that every pass runs: parts in, tiny summaries out.

What travels through Ray are ids and locators; pixels never do, but to services (`services.py`). A worker actor holds the pass's stage,
reads a part's bytes itself, writes the part's files itself under names that depend on the part alone, and hands back a summary. Thus a part
may be done again at any time, and is when its worker or node dies.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import secrets
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, ExecutionResources
from ray.data.exceptions import ExecutionTimeoutError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mfmc_ray.discreet import hushed, kind_and_words, told
from mfmc_ray.faces import insight, runtime
from mfmc_ray.pipeline.attempts import attempts
from mfmc_ray.pipeline.profiles import Plan
from mfmc_ray.pipeline.remote import alone
from mfmc_ray.pipeline.watch import Watch
from mfmc_ray.retry import AGAIN, StoreError

MAX_BLOCKS = 10_000
"""Blocks that the driver makes; of more parts several share one."""
WORKER_DEATHS = 3
"""How often a part is begun again after its worker died, not counting deaths that an image is blamed for."""
RETRIES = 1
"""How often a part is done again after an exception."""
LINE_SECONDS = 10.0
"""Between two lines of progress where there is no terminal."""
NO_PROGRESS_SECONDS = 900.0
"""Ray's own patience is half an hour."""


_RESULT = pa.schema([("part", pa.int64()), *((name, pa.string()) for name in ("summary", "error", "discreet", "traceback"))])


class PartStage(Protocol):
    """A pass: configured in `__init__`, called on one part."""

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        """Do the part, write its files, return its summary: plain JSON data with `images` and `faces`, the numbers done."""
        ...


@runtime_checkable
class WatchedStage(Protocol):
    """A pass that notes which image it is at."""

    @staticmethod
    def watch_of(**constructor_kwargs: Any) -> Watch:
        """The watch of a stage made with these."""
        ...


class PartError(RuntimeError):
    """A part failed for good; the message names it, and may name files of the collection: `discreet.told` gives what may be printed."""


def run_parts(
    stage_class: type[PartStage],
    constructor_kwargs: Mapping[str, Any],
    parts: Sequence[Mapping[str, Any]],
    *,
    plan: Plan,
    label: str,
    total: int | None,
    on_result: Callable[[int, dict[str, Any]], None],
    patience: float = NO_PROGRESS_SECONDS,
) -> None:
    """Do all parts, each on whichever worker is free.

    Args:
        stage_class: importable on the workers.
        constructor_kwargs: for the stage; large numpy arrays in it are shared by the workers of a node, read-only.
        parts: plain JSON data with `part`, its number.
        plan: how many workers there are at most, and what each has.
        label: of the progress bar.
        total: images in all parts; None if that is not known, then the bar counts parts.
        on_result: called in this process with a part's number and summary, as soon as it is done, in any order.
        patience: seconds without a finished part after which the pass is given up; longer than any part takes.

    Raises:
        PartError: the stage cannot be set up, a part raised, or its worker died time and again.
        Whatever `on_result` raises; no further part is begun then.
    """
    if not parts:
        return
    begun = attempts(), secrets.token_hex(8)
    stage = _kept((stage_class, dict(constructor_kwargs)))
    waiting = {part["part"]: part for part in parts}
    blamed = 0
    with _progress(label, total, len(parts)) as advance:
        while waiting:
            try:
                with contextlib.closing(_results(_graph(stage, begun, list(waiting.values()), plan, patience))) as results:
                    for part, summary in results:
                        if waiting.pop(part, None) is None:
                            continue  # done twice: a node that was taken for lost has come back
                        advance(summary)
                        on_result(part, summary)
            except ray.exceptions.RayError as error:
                raise _failure(error) from error
            except ExecutionTimeoutError as error:
                before, blamed = blamed, ray.get(begun[0].forget.remote(begun[1]))
                if blamed > before:
                    continue  # bad images were found in that time
                advice = "if workers were lost, run again to resume; if the images are slow, use smaller parts"
                raise PartError(f"no part was finished in {patience:.0f} s: {advice}") from error
            if waiting:
                raise PartError(f"no result of part {', '.join(map(str, waiting))}")


def _graph(
    stage: ray.ObjectRef[Any], begun: tuple[Any, str], parts: Sequence[Mapping[str, Any]], plan: Plan, patience: float
) -> ray.data.Dataset:
    actors = min(plan.actors, len(parts))
    rows = [{"part": part["part"], "payload": json.dumps(part)} for part in parts]  # one schema, whatever a part holds
    dataset = ray.data.from_items(rows, override_num_blocks=min(len(rows), MAX_BLOCKS))
    context = dataset.context
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):  # its reports stay in Ray's log file
            handler.setLevel(logging.CRITICAL)
    context.execution_no_progress_timeout_s = patience
    if plan.store_bytes:
        context.execution_options.resource_limits = ExecutionResources.for_limits(object_store_memory=plan.store_bytes)
    return dataset.map_batches(
        _Worker,
        fn_constructor_args=(stage, begun, plan.threads, plan.providers, insight.named()),
        batch_size=1,
        batch_format="pyarrow",
        zero_copy_batch=True,
        # with one in flight: a part that waits behind a slow one would wait for nothing
        compute=ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=plan.in_flight),
        num_cpus=plan.share(actors),
    )


def _kept(value: Any) -> ray.ObjectRef[Any]:
    """In the object store, for all workers."""
    try:
        return ray.put(value)
    except ray.exceptions.RayError as error:
        raise _failure(error) from error


def _failure(error: Exception) -> PartError:
    said = str(error).splitlines()[0]
    full = isinstance(error, ray.exceptions.OutOfDiskError)
    return PartError(f"Ray failed: {said}" + (f": make room where WORK and temporary files are, then {AGAIN}" if full else ""))


def _results(dataset: ray.data.Dataset) -> Generator[tuple[int, dict[str, Any]]]:
    batch: Any
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for row in batch.to_pylist():
            if row["error"] is not None:
                failure = hushed(PartError(row["error"]), row["discreet"])
                failure.add_note(row["traceback"] or "")
                raise failure
            yield row["part"], json.loads(row["summary"])


class _Worker:
    """Runs the stage in an actor. What goes wrong is handed back as a row: Ray's own reports bury the cause."""

    def __init__(self, stage: ray.ObjectRef[Any], begun: tuple[Any, str], threads: int, providers: str, weights: Mapping[str, str]) -> None:
        runtime.use(threads=threads, providers=providers)
        insight.pin(weights)
        self._source = stage
        self._stage: PartStage | None = None
        self._attempts, self._run = begun

    def __call__(self, batch: pa.Table) -> pa.Table:
        (row,) = batch.to_pylist()
        summary: str | None = None
        trace: str | None = None
        discreet: str | None
        error: str | None
        discreet = error = f"part {row['part']}: its worker died {WORKER_DEATHS + 1} times (out of memory, or a crash in native code)"
        begun = ray.get(self._attempts.begin.remote(self._run, row["part"]))
        if begun > 1 and self._blame(row["part"]):
            begun = ray.get(self._attempts.blamed.remote(self._run, row["part"]))
        if begun <= WORKER_DEATHS + 1:
            for _ in range(RETRIES + 1):
                try:
                    summary = json.dumps(self._do(json.loads(row["payload"])))
                    discreet = error = trace = None
                    break
                except StoreError as failure:  # it was patient enough, and says itself what to do
                    discreet, error, trace = told(failure), str(failure), traceback.format_exc()
                    break
                except Exception as failure:
                    what = f"part {row['part']}" if self._stage else "the stage cannot be set up"
                    error, trace = f"{what}: {type(failure).__name__}: {failure}", traceback.format_exc()
                    discreet = f"{what}: {kind_and_words(failure)}"
            ray.get(self._attempts.end.remote(self._run, row["part"]))
        found = {"part": row["part"], "summary": summary, "error": error, "discreet": discreet, "traceback": trace}
        return pa.Table.from_pylist([found], _RESULT)

    def _blame(self, part: int) -> bool:
        """Whether an image is to blame for the death of the worker that had this part."""
        stage_class, constructor_kwargs = ray.get(self._source)
        return isinstance(stage_class, WatchedStage) and stage_class.watch_of(**constructor_kwargs).blame(part)

    def _do(self, part: dict[str, Any]) -> dict[str, Any]:
        if self._stage is None:
            stage_class, constructor_kwargs = ray.get(self._source)
            self._stage = stage_class(**constructor_kwargs)
            gc.freeze()  # or its end, which the next pass waits for, would look through all that was imported, for half a second
        before = alone()
        summary = self._stage(part)
        return summary if alone() == before else {**summary, "alone": alone() - before}


@contextlib.contextmanager
def _progress(label: str, total: int | None, parts: int) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A bar on a terminal, otherwise now and then a line; both on stderr. The value takes each summary."""
    console = Console(stderr=True)
    started = last = time.monotonic()
    images = faces = finished = by_themselves = 0
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    task: TaskID = bar.add_task(label, total=parts if total is None else total, speed="")

    def speed() -> str:
        seconds = max(time.monotonic() - started, 1e-6)
        return f"{images / seconds:.1f} images/s {faces / seconds:.1f} faces/s"

    def line() -> None:
        of = "" if total is None else f" of {total}"
        console.print(f"{label}: {images}{of} images, {finished} of {parts} parts, {speed()}", soft_wrap=True, highlight=False)

    def advance(summary: Mapping[str, Any]) -> None:
        nonlocal images, faces, finished, by_themselves, last
        images += summary.get("images", 0)
        faces += summary.get("faces", 0)
        finished += 1
        by_themselves += summary.get("alone", 0)
        bar.update(task, completed=finished if total is None else images, speed=speed())
        if not console.is_terminal and time.monotonic() - last >= LINE_SECONDS:
            last = time.monotonic()
            line()

    with bar:
        yield advance
    if not console.is_terminal:
        line()
    if by_themselves:
        what = f"{by_themselves} times a service died over what it was asked, and a worker did it itself, on its CPU"
        console.print(f"{label}: {what}", soft_wrap=True, highlight=False)
