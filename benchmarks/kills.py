"""Kills runs and nights at random moments, and sees what becomes of them: `python benchmarks/kills.py --setting local --rounds 12`.

Each round begins a fresh `mfmc anonymize` or an `mfmc nightly` on a collection that has changed at random, kills something at a random
moment, runs the same command again until it succeeds, and looks at OUT as a plain reader does: at the kill, when the command has ended,
and at the end (`kills_checks`). What was committed must not be computed again. One line a round, a table at the end.

Settings:
    local    Ray made by the run. Kills: driver, worker, raylet, gcs_server, all at once.
    cluster  `ray start` twice on this machine, the driver with --address. Kills: driver, worker, the second node's raylet (a new node
             comes), the head's raylet, gcs_server, all.
    library  `ray.cluster_utils.Cluster` with three nodes and the driver in this process. Kills: a node without grace, a worker.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from kills_checks import BrokenError, Collection, check_end, check_visible
from kills_settings import PICTURES, STAGES, Library, Local, Nodes, Place, end, named, tree, wait

from mfmc_ray.pipeline.difference import part_size

RACY = 2.2  # seconds until a file's time stamp proves something
PATIENCE = 200.0
"""Seconds after a kill in which a command must have ended, well or not; longer is a failure."""
MOMENTS = ("start", "scan", "index", "anonymize", "publish", "any")


class Meter:
    """Wall and CPU seconds of processes and all that they start."""

    def __init__(self, roots: Callable[[], Sequence[psutil.Process]]) -> None:
        self._roots, self._seen = roots, {}  # type: ignore[var-annotated]
        self._before: dict[Any, float] = {}
        self._end = threading.Event()
        self.samples: list[tuple[float, float]] = []

    def __enter__(self) -> Meter:
        self._before = self._now()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def until(self, moment: float) -> np.ndarray[Any, Any]:
        """[wall, CPU] seconds from the beginning to a moment (of time.time())."""
        times, cpu = zip(*self.samples, strict=True)
        return np.array([moment - times[0], np.interp(moment, times, cpu)])

    def _run(self) -> None:
        while True:
            self._seen.update(self._now())
            total = sum(seconds - self._before.get(key, 0.0) for key, seconds in self._seen.items())
            self.samples.append((time.time(), total))
            if self._end.wait(0.2):
                return

    def _now(self) -> dict[Any, float]:
        found = {}
        for root in self._roots():
            for one in tree(root):
                with contextlib.suppress(psutil.Error):
                    found[one.pid, one.create_time()] = sum(one.cpu_times()[:2])
        return found


@dataclass
class Shape:
    """What an uninterrupted fresh run costs, [wall, CPU] seconds: nothing to do; each stage's setting up; each of its parts."""

    whole: np.ndarray[Any, Any]
    idle: np.ndarray[Any, Any]
    setup: dict[str, np.ndarray[Any, Any]]
    part: dict[str, np.ndarray[Any, Any]]
    parts: dict[str, int]
    spans: dict[str, tuple[float, float]] = field(default_factory=dict)
    night: float = 0.0

    def expected(self, done: dict[str, dict[str, Any]], pictures: int) -> np.ndarray[Any, Any]:
        """Of a run of so many pictures that has these parts committed."""
        total = self.idle.copy()
        for stage in STAGES:
            parts = self.parts[stage] if stage == "pool" else -(-pictures // part_size(pictures))
            if (left := parts - len(done[stage])) > 0:
                total += self.setup[stage] + left * self.part[stage]
        return total


def measure(setting: Local, place: Place) -> Shape:
    """Two uninterrupted runs: one that does everything, one that does nothing."""
    cost = []
    for _ in range(2):
        with Meter(setting.roots) as meter:
            begun = time.time()
            code = whole(setting, True)
        if code:
            raise BrokenError((place.folder / "said").read_text())
        cost.append((begun, meter, time.time()))
    (begun, meter, ended), (_, idle_meter, idle_ended) = cost
    idle, everything = idle_meter.until(idle_ended), meter.until(ended)
    marks = {stage: sorted(p.stat().st_mtime for p in (place.work / "ledger" / stage).glob("part-*.json")) for stage in STAGES}
    last = idle - (everything - meter.until(marks["anonymize"][-1]))  # what an idle run costs before its end: a start
    setup, part, spans, previous = {}, {}, {"start": (begun, marks["scan"][0])}, np.maximum(last, 0)
    for stage, times in marks.items():
        first, end_ = meter.until(times[0]), meter.until(times[-1])
        part[stage] = (end_ - first) / max(len(times) - 1, 1) if len(times) > 1 else np.zeros(2)
        setup[stage] = np.maximum(first - previous - part[stage], 0)
        previous = end_
        spans[stage] = times[0], times[-1]
    spans = {
        "start": (0.0, marks["scan"][0] - begun),
        "scan": (0.0, marks["scan"][-1] - marks["scan"][0]),
        "index": (0.0, marks["pool"][-1] - marks["scan"][-1]),
        "anonymize": (0.0, marks["anonymize"][-1] - marks["pool"][-1]),
        "publish": (0.0, ended - marks["anonymize"][-1]),
    }
    return Shape(everything, idle, setup, part, {stage: len(times) for stage, times in marks.items()}, spans)


def whole(setting: Local, fresh: bool) -> int:
    """A command, undisturbed; its exit code."""
    if isinstance(setting, Library):
        return setting.run(fresh)
    process = setting.start(fresh)
    if not wait(lambda: process.poll() is not None, 2 * PATIENCE):
        end(tree(setting.root))
        return -1
    return int(process.poll() or 0)


def begun(place: Place, moment: str, shape: Shape) -> bool:
    """Whether a fresh run has come to a stage."""
    count = {stage: len(list((place.work / "ledger" / stage).glob("part-*.json"))) for stage in STAGES}
    at = {"start": True, "any": True, "scan": count["scan"] > 0, "index": count["scan"] == shape.parts["scan"]}
    return (at | {"anonymize": count["pool"] > 0, "publish": count["anonymize"] == shape.parts["anonymize"]})[moment]


def strike(setting: Local, place: Place, shape: Shape, kind: str, moment: str, fresh: bool, rng: Any, running: Callable[[], bool]) -> float:
    """Waits for the moment and kills; when that was (of time.time(); 0: there was nothing left to kill)."""
    wait(lambda: begun(place, moment, shape), 2 * PATIENCE, stop=lambda: not running())
    low, high = shape.spans[moment] if fresh and moment != "any" else (0.0, float(shape.whole[0]) if fresh else shape.night)
    wait(lambda: False, rng.uniform(low, high), stop=lambda: not running())
    while running():
        if isinstance(setting, Library):
            if setting.strike(kind):
                return time.time()
        elif found := setting.victims(kind):
            setting._left = [one for root in setting.roots() for one in named(tree(root), "worker")]
            end(found)
            return time.time()
        time.sleep(0.02)
    return 0.0


def one(setting: Local, place: Place, shape: Shape, kind: str, moment: str, fresh: bool, rng: Any) -> dict[str, Any]:
    """A round."""
    told: dict[str, Any] = {"verb": "anonymize" if fresh else "nightly", "kind": kind}
    if fresh:
        shutil.rmtree(place.out, ignore_errors=True)
        shutil.rmtree(place.work, ignore_errors=True)
    else:
        told["changed"] = place.collection.change(place.out)
        time.sleep(RACY)
    before = {} if fresh else place.committed()
    hasty = bool(rng.random() < 0.5)

    def struck() -> None:
        told["moment"] = place.at(before)
        check_visible(place.collection, place.out, None)

    if isinstance(setting, Library):
        running, errors, killed_at = [True], [], [0.0]

        def killer() -> None:
            try:
                killed_at[0] = strike(setting, place, shape, kind, moment, fresh, rng, lambda: running[0])
                struck()
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=killer)
        thread.start()
        code: int | None = setting.run(fresh)
        running[0] = False
        thread.join()
        if errors:
            raise errors[0]
        killed, setting_ended = killed_at[0], True
        setting.mend(kind)
    else:
        process = setting.start(fresh)
        killed = strike(setting, place, shape, kind, moment, fresh, rng, lambda: process.poll() is None)
        struck()
        if kind == "raylet" and isinstance(setting, Nodes):
            setting.mend(kind)
        setting_ended = wait(lambda: process.poll() is not None, PATIENCE)
        code = process.poll()
        if not setting_ended:
            end(tree(setting.root))
            wait(lambda: process.poll() is not None, 10)
    told |= {"code": code, "ended_s": round(time.time() - killed, 1) if killed else None, "killed": bool(killed)}
    said = (place.folder / "said").read_text().strip().splitlines() if (place.folder / "said").exists() else []
    told["said"] = said[-1][:160] if said and code else ""
    if not setting_ended:
        told["hung"] = True
    if code != 0:
        if not hasty:  # nobody writes any more
            psutil.wait_procs(setting._left, timeout=40)
            told["looked_at"] = check_visible(place.collection, place.out, place.work)
        if not (kind == "raylet" and isinstance(setting, Nodes)):
            setting.mend(kind)
        resume(setting, place, shape, before, fresh, told)
    elif killed and not (kind == "raylet" and isinstance(setting, Nodes)):
        setting.mend(kind)  # the command could do without what was killed; the next one cannot
    check_end(place.collection, place.out, place.work)
    return told | {"hasty": hasty}


def resume(setting: Local, place: Place, shape: Shape, before: dict[str, Any], fresh: bool, told: dict[str, Any]) -> None:
    """Runs the same command again until it succeeds, and compares what was committed."""
    at_kill = place.committed()
    done = {
        stage: {part: named_ for part, named_ in parts.items() if named_ != before.get(stage, {}).get(part)}
        for stage, parts in at_kill.items()
    }
    names = [name for parts in done.values() for some in parts.values() for name in some]
    was, tries = place.files(names), 0
    becoming = {
        name
        for stage, parts in done.items()
        for part, some in parts.items()
        if json.loads((place.work / "ledger" / stage / f"{part}.json").read_bytes()).get("next")
        for name in some
    }
    told["committed"] = {stage: len(parts) for stage, parts in done.items()}
    while True:
        tries += 1
        with Meter(setting.roots) as meter:
            code = whole(setting, fresh)
        if code == 0:
            break
        if tries == 3:
            raise BrokenError("it does not succeed: " + (place.folder / "said").read_text()[-2000:])
    spent = meter.until(meter.samples[-1][0])
    now, after = place.committed(), place.files(names)
    for stage, parts in done.items():
        for part, some in parts.items():
            if now[stage].get(part) != some:
                raise BrokenError(f"{stage} {part} was committed and computed again")
    if again := [name for name in names if name not in becoming and was.get(name) != after.get(name)]:
        raise BrokenError(f"written again: {again}")
    expected = shape.expected(done, len(list(place.collection.folder.iterdir()))) if fresh else np.array([shape.night, np.nan])
    told |= {"tries": tries, "resumed_s": round(float(spent[0]), 1), "cpu_s": round(float(spent[1]), 1)}
    told |= {"expected_s": round(float(expected[0]), 1), "expected_cpu_s": round(float(expected[1]), 1) if fresh else None}


def rounds(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(asked.seed)
    folder = Path(tempfile.mkdtemp(prefix="kills-", dir=asked.folder))
    kind_of = {"local": Local, "cluster": Nodes, "library": Library}[asked.setting]
    place = Place(folder, Collection(folder / "in", np.random.default_rng(asked.seed)), kind_of.actors)
    place.collection.fill(PICTURES)
    time.sleep(RACY)
    with kind_of(place) as setting:
        shape = measure(setting, place)
        check_end(place.collection, place.out, place.work)
        print(f"a whole run: {shape.whole}, an idle one: {shape.idle} [wall, CPU seconds]; {shape.setup} {shape.part}", flush=True)
        place.collection.change(place.out)
        time.sleep(RACY)
        started = time.time()
        if whole(setting, False):
            raise BrokenError((place.folder / "said").read_text())
        shape.night = time.time() - started
        check_end(place.collection, place.out, place.work)
        print(f"a whole night: {shape.night:.1f} s", flush=True)
        kinds, moments = list(asked.kinds or setting.kinds), list(MOMENTS)
        for i in range(asked.rounds):
            fresh = i % 2 == 0
            if i % len(kinds) == 0:
                rng.shuffle(kinds)
            if i % (2 * len(moments)) == 0:
                rng.shuffle(moments)
            began = time.time()
            kind, moment = kinds[i % len(kinds)], moments[i // 2 % len(moments)] if fresh else "any"
            try:
                yield {"round": i, **one(setting, place, shape, kind, moment, fresh, rng), "seconds": round(time.time() - began)}
            except BrokenError as error:
                yield {"round": i, "kind": kind, "BROKEN": str(error)}
                if asked.stop:
                    raise
                whole(setting, False)
        print("the audit:", "passes" if subprocess.run(audit(place), check=False).returncode == 0 else "REFUTES", flush=True)
    if not asked.keep:
        shutil.rmtree(folder)


def audit(place: Place) -> list[str]:
    return [sys.executable, "-m", "mfmc_ray.cli", "audit", str(place.out), "--work", str(place.work)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--setting", choices=("local", "cluster", "library"), default="local")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", help="only these")
    parser.add_argument("--folder", type=Path, help="where to work, with a short path (default: the folder for temporary files)")
    parser.add_argument("--keep", action="store_true", help="leave the folder")
    parser.add_argument("--stop", action="store_true", help="at the first failure")
    every = []
    for told in rounds(parser.parse_args()):
        print(json.dumps(told), flush=True)
        every.append(told)
    killed = [told for told in every if told.get("killed")]
    ratios = [told["cpu_s"] / told["expected_cpu_s"] for told in killed if told.get("expected_cpu_s")]
    print(
        f"{len(killed)} kills in {len(every)} rounds, {sum('BROKEN' in told for told in every)} broken, "
        f"{sum('hung' in told for told in killed)} hung. CPU of resumed runs / expected: {[round(ratio, 2) for ratio in ratios]}"
    )


if __name__ == "__main__":
    main()
