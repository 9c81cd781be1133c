from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from mfmc_ray.config import RayConfig
from mfmc_ray.discreet import told
from mfmc_ray.faces import insight, runtime
from mfmc_ray.pipeline import away
from mfmc_ray.pipeline.attempts import Attempts, attempts
from mfmc_ray.pipeline.away import call
from mfmc_ray.pipeline.parts import WORKER_DEATHS, PartError, run_parts
from mfmc_ray.pipeline.profiles import Role
from mfmc_ray.pipeline.services import _Service
from mfmc_ray.pipeline.session import connect, plan_of
from mfmc_ray.retry import StoreError

pytestmark = pytest.mark.ray
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import tests


@pytest.fixture(scope="module", autouse=True)
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    # a folder whose sockets' paths would be too long
    work = tmp_path_factory.mktemp("x" * 60) / ("deep" * 10)
    work.mkdir()
    with connect(RayConfig(actors=2), work):
        yield work
    assert list(work.iterdir()) == []


class Work:
    """Notes who did which part when; does what the part says."""

    def __init__(self, notes: str, shared: Any = None, broken: bool = False) -> None:
        if broken:
            raise FileNotFoundError("no such model")
        self.notes = Path(notes)
        self.shared = shared

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        note = self.notes / f"{part['part']}"
        attempts = len(list(self.notes.glob(f"{part['part']}.*")))
        (self.notes / f"{part['part']}.{attempts}").touch()
        if attempts < part.get("deaths", 0):
            os.kill(os.getpid(), signal.SIGKILL)
        if attempts < part.get("errors", 0):
            raise ValueError(f"bad luck {attempts}")
        if "store" in part:
            raise StoreError(part["store"])
        started = time.time()
        time.sleep(part.get("seconds", 0))
        note.write_text(str(os.getpid()))
        shared = None if self.shared is None else [float(self.shared.sum()), bool(self.shared.flags.writeable)]
        threads = os.environ.get("OMP_NUM_THREADS")
        return {
            "images": 10,
            "faces": 3,
            "pid": os.getpid(),
            "started": started,
            "threads": threads,
            "echo": part,
            "shared": shared,
            "weights": pinned(),
        }


def run(folder: Path, parts: list[dict[str, Any]], size: int = 2, **kwargs: Any) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}

    def keep(part: int, summary: dict[str, Any]) -> None:
        assert part not in found
        found[part] = {**summary, "seen": time.time()}

    run_parts(
        Work,
        {"notes": str(folder), **kwargs},
        parts,
        plan=plan_of(RayConfig(actors=size)),
        label="work",
        total=10 * len(parts),
        on_result=keep,
    )
    return found


def test_session_is_private(session: Path) -> None:
    assert plan_of(RayConfig()).actors == 2
    assert plan_of(RayConfig(actors=5)).actors == 5
    folder = Path(ray._private.worker._global_node.get_session_dir_path())
    assert not folder.is_relative_to(session)
    assert folder.parents[1].stat().st_mode & 0o077 == 0  # Ray opens the one below to everybody
    own = {p.pid for p in _session_processes()}
    listening = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout.splitlines()
    ours = [line for line in listening if any(f"pid={pid}," in line for pid in own)]
    assert ours
    assert all(line.split()[3].startswith(("127.0.0.1:", "[::1]:", "[::ffff:127.0.0.1]:")) for line in ours), ours


def _session_processes() -> list[Any]:
    """Of this session; another test's cluster may be there, too."""
    import psutil

    begun = [psutil.Process(one.process.pid) for some in ray._private.worker._global_node.all_processes.values() for one in some]
    return [process for one in begun for process in (one, *one.children(recursive=True))]


def test_attempts_are_counted_for_each_pass() -> None:
    counts = Attempts()
    assert [counts.begin("one", 3), counts.begin("one", 3), counts.begin("other", 3), counts.blamed("one", 3)] == [1, 2, 1, 1]
    assert [counts.forget("one"), counts.forget("other")] == [1, 0]
    counts.begin("other", 3)
    counts.end("one", 3)  # of a worker that was late
    assert [counts.begin("one", 3), counts.begin("other", 3)] == [1, 2]
    counts.end("other", 3)
    assert counts.begin("other", 3) == 1


def test_a_session_has_one_counter() -> None:
    assert attempts() is attempts()


def test_parts_come_back_as_they_were(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    parts = [
        {"part": 0, "rows": [], "name": "é%E9"},
        {"part": 7, "rows": [{"offset": None, "length": 2**40}], "nested": {"a": [1.5, None, True]}},
        *({"part": i} for i in range(10, 22)),
    ]
    found = run(tmp_path, parts, shared=np.ones(3_000_000, np.float32))
    assert [found[p["part"]]["echo"] for p in parts] == parts
    assert {s["shared"][0] for s in found.values()} == {3e6}
    assert not any(s["shared"][1] for s in found.values())  # in shared memory
    assert {s["threads"] for s in found.values()} == {"1"}
    said = capfd.readouterr().err.strip().splitlines()
    assert all(line.startswith("work: ") for line in said), said  # nothing of Ray's
    assert said[-1].startswith("work: 140 of 140 images, 14 of 14 parts, ")


def test_few_parts_use_every_worker_and_a_slow_one_holds_up_none(tmp_path: Path) -> None:
    parts = [{"part": 0, "seconds": 6.0}, *({"part": i, "seconds": 0.3} for i in range(1, 8))]
    found = run(tmp_path, parts)
    assert len({s["pid"] for s in found.values()}) == 2
    assert len({s["pid"] for i, s in found.items() if i != 0}) <= 2
    slow_ends = found[0]["started"] + 6.0
    assert all(found[i]["started"] < slow_ends for i in range(1, 8))
    # results are seen as they come, not at the end
    assert sum(found[i]["seen"] < slow_ends for i in range(1, 8)) == 7


def test_a_killed_worker_is_replaced_and_its_part_done_again(tmp_path: Path) -> None:
    parts = [{"part": i, "deaths": 2 if i == 3 else 0} for i in range(6)]
    assert set(run(tmp_path, parts)) == set(range(6))
    assert len(list(tmp_path.glob("3.*"))) == 3


def test_an_exception_is_tried_again(tmp_path: Path) -> None:
    assert set(run(tmp_path, [{"part": i, "errors": 1 if i == 1 else 0} for i in range(3)])) == {0, 1, 2}


def test_a_part_that_always_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(PartError) as caught:
        run(tmp_path, [{"part": i, "errors": 99 if i == 4 else 0} for i in range(6)])
    assert str(caught.value) == "part 4: ValueError: bad luck 1"
    assert told(caught.value).startswith("part 4: ValueError: at test_parts.py:")  # what is printed: it could have named a file
    assert "in __call__" in caught.value.__notes__[0]  # where it happened


def test_a_part_that_always_kills_its_worker_is_named(tmp_path: Path) -> None:
    with pytest.raises(PartError, match="part 1: its worker died 4 times"):
        run(tmp_path, [{"part": i, "deaths": 99 if i == 1 else 0} for i in range(3)])
    assert len(list(tmp_path.glob("1.*"))) == WORKER_DEATHS + 1


def test_a_stage_that_cannot_be_set_up_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PartError) as caught:
        run(tmp_path, [{"part": 0}, {"part": 1}], broken=True)
    assert str(caught.value) == "the stage cannot be set up: FileNotFoundError: no such model"


def test_what_on_result_raises_stops_the_run(tmp_path: Path) -> None:
    def stop(part: int, summary: dict[str, Any]) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        run_parts(
            Work,
            {"notes": str(tmp_path)},
            [{"part": i, "seconds": 0.2} for i in range(200)],
            plan=plan_of(RayConfig(actors=2)),
            label="x",
            total=None,
            on_result=stop,
        )
    assert len(list(tmp_path.glob("*.0"))) < 200
    assert set(run(tmp_path, [{"part": 1000}])) == {1000}  # the workers are free again


def test_a_part_without_end_is_given_up(tmp_path: Path) -> None:
    parts = [{"part": 0, "seconds": 60}]
    with pytest.raises(PartError, match="no part was finished in 3 s"):
        run_parts(
            Work,
            {"notes": str(tmp_path)},
            parts,
            plan=plan_of(RayConfig(actors=1)),
            label="x",
            total=None,
            on_result=lambda *_: None,
            patience=3.0,
        )
    assert set(run(tmp_path, [{"part": 1}])) == {1}


def test_no_parts(tmp_path: Path) -> None:
    assert run(tmp_path, []) == {}


def test_a_store_that_is_down_is_told_in_its_own_words_and_not_asked_again(tmp_path: Path) -> None:
    with pytest.raises(PartError) as raised:
        run(tmp_path, [{"part": 0, "store": "the store is down; run again"}])
    assert str(raised.value) == "the store is down; run again"
    assert [p.name for p in tmp_path.iterdir()] == ["0.0"]


def test_workers_and_tasks_are_pinned_to_the_weights_that_this_process_has_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(insight, "_process", insight._Process(named={"arcface": "0" * 64}))
    assert run(tmp_path, [{"part": 0}])[0]["weights"] == {"arcface": "0" * 64}
    monkeypatch.setattr(away, "cluster_of", lambda config: "here")
    assert call(RayConfig(), pinned) == {"arcface": "0" * 64}
    assert insight._process.pinned is None  # but this one


def pinned() -> dict[str, str] | None:
    return insight._process.pinned


class Pinned:
    """What a service does, and what it may load while it is made."""

    def __init__(self) -> None:
        self.weights = pinned()

    def warm_up(self) -> None:
        pass


def test_services_are_pinned_before_they_load_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(insight, "_process", insight._Process())
    monkeypatch.setattr(runtime, "_process", runtime._Process())
    service = _Service(Role("look", 1, 0.0, 1.0, 1, 1, 0.0), [ray.put((Pinned, {}))], "cpu", {"scrfd": "1" * 64})
    assert service._doer.weights == {"scrfd": "1" * 64}
