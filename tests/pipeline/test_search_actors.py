"""Shards in Ray's actors: the answers of one index, whoever is killed."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ray
from numpy.typing import NDArray

from mfmc_ray.config import RayConfig, RunConfig, load
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.known.certificate import Guard
from mfmc_ray.known.index import KnownFaces, KnownIndex
from mfmc_ray.known.search import ExactSearch, rounding_bound
from mfmc_ray.pipeline import shards as module
from mfmc_ray.pipeline.parts import run_parts
from mfmc_ray.pipeline.session import connect, plan_of
from mfmc_ray.pipeline.shards import ShardError, Shards

pytestmark = pytest.mark.ray
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import tests

F32 = NDArray[np.float32]
DIMS = {"sface": 128, "dlib": 128}
N = 30_000


def unit(vectors: NDArray[np.floating]) -> F32:
    wide = np.asarray(vectors, np.float64)
    return np.ascontiguousarray(wide / np.linalg.norm(wide, axis=-1, keepdims=True), np.float32)


@pytest.fixture(scope="module", autouse=True)
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with connect(RayConfig(actors=2), tmp_path_factory.mktemp("ray")):
        yield


@pytest.fixture(scope="module")
def queries() -> F32:
    return unit(np.random.default_rng(1).standard_normal((4200, 128)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, queries: F32) -> Path:
    """An index of three generations, with rivals of each query that float32 cannot tell apart, and copies of them in every shard."""
    folder = tmp_path_factory.mktemp("known")
    index = KnownIndex.open(folder, DIMS)
    rng = np.random.default_rng(0)
    rivals = unit(queries[:2000] + 0.9 * rng.standard_normal((2000, 128)) / np.sqrt(128))
    rivals = np.concatenate([rivals, unit(rivals + rounding_bound(128) * rng.standard_normal((2000, 128)) / np.sqrt(128)), rivals])
    rows = np.concatenate([rivals, unit(rng.standard_normal((N - len(rivals), 128)))])[rng.permutation(N)]
    for start, stop in ((0, 4000), (4000, 19_000), (19_000, N)):
        ids = [f"face:{i}" for i in range(start, stop)]
        index.append(ids, ["collection"] * len(ids), {"sface": rows[start:stop], "dlib": -rows[start:stop]})
    return folder


@pytest.fixture(scope="module")
def known(folder: Path) -> KnownFaces:
    return KnownIndex.open(folder, DIMS).faces


@pytest.fixture(scope="module")
def shards(folder: Path) -> Iterator[Shards]:
    made = Shards(folder, DIMS, 3)
    yield made
    made.close()


@pytest.fixture(scope="module")
def absent(folder: Path) -> KnownFaces:
    """The known faces without their vectors."""
    faces = KnownIndex.open(folder, DIMS, vectors=False).faces
    assert not faces.vectors
    return faces


def same(search: Any, known: F32, queries: F32) -> None:
    whole = ExactSearch(known)
    assert (search.dim, len(search)) == (128, len(known))
    similarity, row = whole.top1(queries)
    got = search.top1(queries)
    np.testing.assert_array_equal(got[0].view(np.int32), similarity.view(np.int32))
    np.testing.assert_array_equal(got[1], row)
    for a, b in zip(search.above(queries, 0.5), whole.above(queries, 0.5), strict=True):
        np.testing.assert_array_equal(a, b)


def test_actors_answer_as_one_index(shards: Shards, absent: KnownFaces, known: KnownFaces, queries: F32) -> None:
    searches = shards.searches(absent)
    assert searches is not None
    assert list(searches) == list(DIMS)
    assert len(set(shards.pids())) == 3
    for name in DIMS:
        same(searches[name], known.vectors[name], queries)
    same(searches["sface"], known.vectors["sface"], queries[:1])
    similarity, row = searches["sface"].top1(queries[:0])
    assert (similarity.dtype, row.dtype, len(similarity), len(row)) == (np.float32, np.int64, 0, 0)
    assert searches["sface"].above(queries[:0], 0.3) == []
    copy = pickle.loads(ray.cloudpickle.dumps(searches["dlib"]))
    np.testing.assert_array_equal(copy.top1(queries[:5]), searches["dlib"].top1(queries[:5]))
    for bad, says in ((queries * np.float32(2), "unit length"), (queries[:, :64].copy(), "unit length|dimension")):
        with pytest.raises(ValueError, match=says):
            searches["sface"].top1(bad)
    with pytest.raises(ValueError, match="finite"):
        searches["sface"].above(queries, np.nan)


def busy(pids: list[int], since: dict[int, float]) -> bool:
    return all(sum(psutil.Process(pid).cpu_times()[:2]) > since[pid] + 0.05 for pid in pids)


@pytest.mark.parametrize("count", [1, 3])
def test_killed_in_the_middle_of_a_search(shards: Shards, absent: KnownFaces, known: KnownFaces, queries: F32, count: int) -> None:
    """The victims die while they multiply: each has used processor time since the question, and no answer has come."""
    many = np.concatenate([queries] * 4)
    searches = shards.searches(absent)
    assert searches is not None
    pids = shards.pids()
    since = {pid: sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids}
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(searches["sface"].top1(many)))
    thread.start()
    victims = pids[:count]
    while not busy(victims, since):
        assert thread.is_alive(), "the search was over before it was seen to begin"
        time.sleep(0.001)
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    assert not answers
    thread.join()
    similarity, row = ExactSearch(known.vectors["sface"]).top1(queries)
    np.testing.assert_array_equal(answers[0][0].view(np.int32), np.tile(similarity, 4).view(np.int32))
    np.testing.assert_array_equal(answers[0][1], np.tile(row, 4))
    after = shards.pids()
    assert not set(victims) & set(after)
    assert after[count:] == pids[count:]


def test_killed_between_searches(shards: Shards, absent: KnownFaces, known: KnownFaces, queries: F32) -> None:
    searches = shards.searches(absent)
    assert searches is not None
    for pid in shards.pids():
        os.kill(pid, signal.SIGKILL)
    same(searches["dlib"], known.vectors["dlib"], queries[:300])


class Certify:
    """A stage that certifies through a guard, as the workers' stages do."""

    def __init__(self, known: KnownFaces, searches: Any, queries: F32) -> None:
        self.guard = Guard(known, {"sface": 0.5, "dlib": 0.5}, Calibration(), searches)
        self.queries = queries

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        some = self.queries[part["part"] * 100 : (part["part"] + 1) * 100]
        verdicts = self.guard.certify({"sface": some, "dlib": some})
        clear = self.guard.clear("sface", some).tolist()
        return {"images": 100, "faces": 0, "rows": [[c.row() for c in v.certificates] for v in verdicts], "clear": clear}


def test_certificates_of_workers_are_the_same(shards: Shards, absent: KnownFaces, known: KnownFaces, queries: F32) -> None:
    """Through Ray Data's actors, one shard being killed between their questions."""
    found: dict[int, Any] = {}

    def keep(part: int, summary: dict[str, Any]) -> None:
        if not found:
            os.kill(shards.pids()[1], signal.SIGKILL)
        found[part] = summary

    kwargs = {"known": absent, "searches": shards.searches(absent), "queries": queries}
    run_parts(
        Certify, kwargs, [{"part": k} for k in range(6)], plan=plan_of(RayConfig(actors=2)), label="certifying", total=None, on_result=keep
    )
    alone = Certify(known, None, queries)
    assert found == {k: alone({"part": k}) for k in range(6)}
    assert {len(rows) for summary in found.values() for rows in summary["rows"]} == {2}


def test_the_object_store_is_read_in_place(known: KnownFaces, queries: F32) -> None:
    stored = ray.get(ray.put(known.vectors["sface"]))
    assert not stored.flags.writeable
    search = ExactSearch(stored)
    assert search.known is stored
    same(search, known.vectors["sface"], queries[:100])


def test_a_changed_index_is_refused(tmp_path: Path, queries: F32) -> None:
    index = KnownIndex.open(tmp_path, DIMS)
    index.append([str(i) for i in range(2)], ["collection"] * 2, dict.fromkeys(DIMS, queries[:2]))
    before = index.faces
    shards = Shards(tmp_path, DIMS, 8)
    try:
        searches = shards.searches(before)
        assert searches is not None
        assert searches["sface"].top1(queries[:2])[1].tolist() == [0, 1]
        assert len(set(shards.pids())) == 2  # no more shards than faces
        index.append(["more"], ["collection"], dict.fromkeys(DIMS, queries[7:8]))
        newer = shards.searches(index.faces)  # the old actors make room for new ones
        assert newer is not None
        assert newer["sface"].top1(queries[7:8])[1].tolist() == [2]
        with pytest.raises(ray.exceptions.RayError):
            searches["sface"].top1(queries[:1])
        with pytest.raises(ShardError, match="has changed during the run"):
            shards.searches(before)
    finally:
        shards.close()


def test_no_room_is_said(folder: Path, absent: KnownFaces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "START_SECONDS", 1.0)
    shards = Shards(folder, {"sface": 2**24}, 3)  # 625 GiB each; Ray counts bytes in 1/10000, and much more would be no number
    with pytest.raises(ShardError, match="no room for the known-face index"):
        shards.searches(absent)


def test_without_shards_there_are_no_actors(folder: Path, absent: KnownFaces) -> None:
    assert Shards(folder, DIMS, RunConfig().guard.shards).searches(absent) is None


def test_shards_do_not_change_what_a_run_is() -> None:
    assert load(None, guard__shards=3).digest() == load(None).digest()
    assert load(None, guard__shards=3).guard.shards == 3
