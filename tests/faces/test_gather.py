from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from mfmc_ray.faces import runtime
from mfmc_ray.faces.gather import Array, Feed, Gatherer, Gathering, Lanes, RowsError


class Doubler:
    """Twice each row, and the row's number in its batch; notes the batches' sizes."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.sizes: list[int] = []
        self.seconds = seconds

    def __call__(self, feed: Feed) -> list[Array]:
        x = feed["x"]
        self.sizes.append(len(x))
        time.sleep(self.seconds)
        if (x < 0).any():
            raise ValueError("negative")
        return [2 * x, np.arange(len(x))]


def ask_all(gatherer: Gatherer, how: Gathering, rows: list[np.ndarray]) -> list[Any]:
    """Each in a thread of its own, all at once."""
    gate = threading.Barrier(len(rows))

    def one(x: np.ndarray) -> Any:
        with how.lanes.request():
            gate.wait()
            try:
                return gatherer({"x": x})[0]
            except ValueError as error:
                return error

    with ThreadPoolExecutor(len(rows)) as pool:
        return list(pool.map(one, rows))


def test_calls_share_batches_and_everybody_gets_their_own_rows() -> None:
    how, run = Gathering(size=8, wait=0.5), Doubler()
    rows = [np.arange(3.0) + 10 * i for i in range(8)]
    found = ask_all(Gatherer(run, how), how, rows)
    for x, y in zip(rows, found, strict=True):
        np.testing.assert_array_equal(y, 2 * x)
    assert sum(run.sizes) == 24
    assert max(run.sizes) == 6  # two calls of three; a third would not fit
    assert len(run.sizes) < 8


def test_a_batch_waits_for_nobody_who_cannot_come() -> None:
    how, run = Gathering(size=100, wait=30.0), Doubler()
    gatherer = Gatherer(run, how)
    started = time.monotonic()
    assert gatherer({"x": np.ones(2)})[0].tolist() == [2, 2]  # nobody else is at work
    assert len(ask_all(gatherer, how, [np.ones(1)] * 3)) == 3  # all wait
    assert time.monotonic() - started < 10


def test_a_batch_that_is_not_full_waits_no_longer_than_it_is_told() -> None:
    how, run = Gathering(size=100, wait=0.05), Doubler()
    with how.lanes.request(), how.lanes.request():  # one more that never asks
        assert Gatherer(run, how)({"x": np.ones(2)})[0].tolist() == [2, 2]


def test_more_rows_than_a_batch_holds() -> None:
    how, run = Gathering(size=4), Doubler()
    np.testing.assert_array_equal(Gatherer(run, how)({"x": np.arange(10.0)})[0], 2 * np.arange(10.0))
    assert run.sizes == [4, 4, 2]


def test_full_batches_have_one_size() -> None:
    how, run = Gathering(size=4), Doubler()
    np.testing.assert_array_equal(Gatherer(run, how, full=True)({"x": np.arange(6.0)})[0], 2 * np.arange(6.0))
    assert run.sizes == [4, 4]


def test_no_rows() -> None:
    how, run = Gathering(size=4), Doubler()
    assert Gatherer(run, how)({"x": np.zeros((0, 3))})[0].shape == (0, 3)


def test_who_is_at_fault_is_told_and_nobody_else() -> None:
    how, run = Gathering(size=8, wait=0.5), Doubler()
    found = ask_all(Gatherer(run, how), how, [np.ones(2), -np.ones(2), np.ones(2)])
    assert [isinstance(one, ValueError) for one in found] == [False, True, False]


def test_lanes() -> None:
    lanes = Lanes()
    assert not lanes.more_may_come()
    with lanes.request():
        assert lanes.more_may_come()
        with lanes.waiting():
            assert not lanes.more_may_come()


@pytest.fixture
def network() -> bytes:
    """A small convolution, global pool and dense layer, as a recognizer has."""
    rng = np.random.default_rng(0)
    weights = {"k": rng.standard_normal((8, 3, 3, 3)), "d": rng.standard_normal((8, 16))}
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "d"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3, 32, 32])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 16])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    return model


def test_a_gathered_network_gives_what_it_gives_alone(network: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_process", runtime._Process())
    alone = runtime.session(network, rows=True)
    how = Gathering(size=16, wait=0.2, always=True)
    runtime.gather(how)
    together = runtime.session(network, rows=True)
    assert runtime.at_once(alone, 4) == 4
    assert runtime.at_once(together, 4) == 16
    faces = np.random.default_rng(1).standard_normal((12, 3, 32, 32)).astype(np.float32)
    expected = [alone.run(["y"], {"x": faces[i : i + 3]})[0] for i in range(0, 12, 3)]

    def one(i: int) -> np.ndarray:
        with how.lanes.request():
            found: np.ndarray = together.run(None, {"x": faces[i : i + 3]})[0]
            return found

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(one, range(0, 12, 3)))
    np.testing.assert_array_equal(np.concatenate(found), np.concatenate(expected))
    batches, rows = runtime.batches()
    assert rows == 12
    assert batches <= 4
    assert together.get_outputs()[0].name == "y"


def test_on_a_cpu_nothing_is_gathered_unasked(network: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_process", runtime._Process())
    runtime.gather(Gathering(size=16))
    assert runtime.at_once(runtime.session(network, rows=True), 4) == 4


@pytest.mark.parametrize("rows", [1, 5, 7])
def test_other_rows_than_were_given_are_nobody_s(rows: int) -> None:
    gatherer = Gatherer(lambda feed: [feed["x"], np.zeros((rows, 2))], Gathering(size=8))
    with pytest.raises(RowsError, match="rows"):
        gatherer({"x": np.ones(6)})


def test_in_a_full_batch_too() -> None:
    gatherer = Gatherer(lambda feed: [feed["x"][:3]], Gathering(size=8), full=True)
    with pytest.raises(RowsError):
        gatherer({"x": np.ones(3)})  # as many as were asked for, and not as many as were run


def test_arrays_of_other_rows_are_not_run() -> None:
    gatherer = Gatherer(lambda feed: [feed["x"]], Gathering(size=8))
    with pytest.raises(RowsError):
        gatherer({"x": np.ones(3), "y": np.ones(2)})
