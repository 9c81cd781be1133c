"""Providers, threads and what is said when something is not there. No GPU is here: providers and their sessions are made up."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from mfmc_ray.faces import runtime
from mfmc_ray.faces.runtime import ProviderError, _Process

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"


class Log:
    """Stands in for the module's logger: what other tests and libraries settle for a process' logging is not asked."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture(autouse=True)
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    """What is said; the process is as it begins."""
    said, before = Log(), cv2.getNumThreads()
    monkeypatch.setattr(runtime, "_process", _Process())
    monkeypatch.setattr(runtime, "_log", said)
    monkeypatch.delenv(runtime.ENVIRONMENT, raising=False)
    yield said
    cv2.setNumThreads(before)


@pytest.fixture(scope="module")
def model() -> bytes:
    """y = x · 2."""
    value = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n"]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "twice", value[:1], value[1:])
    made: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    return made


class Sessions:
    """Stands in for `onnxruntime.InferenceSession`: raises for some providers, passes over others as onnxruntime does."""

    def __init__(self, here: Sequence[str], broken: Sequence[str] = (), unloadable: Sequence[str] = ()) -> None:
        self.here, self.broken, self.unloadable = here, broken, unloadable
        self.calls: list[dict[str, Any]] = []

    def __call__(self, model: Any, options: Any, *, providers: Sequence[tuple[str, dict[str, str]]], enable_fallback: int) -> Any:
        names = [name for name, _ in providers]
        self.calls.append({"names": names, "of": dict(providers), "threads": options.intra_op_num_threads, "fallback": enable_fallback})
        if broken := [name for name in names if name in self.broken]:
            raise RuntimeError(f"{broken[0]} failed: libnvinfer.so.10 is missing\nmore")
        return type("Session", (), {"get_providers": lambda _: [name for name in names if name not in self.unloadable]})()


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(here: Sequence[str], **faults: Sequence[str]) -> Sessions:
        sessions = Sessions(here, **faults)
        monkeypatch.setattr(ort, "get_available_providers", lambda: list(here))
        monkeypatch.setattr(ort, "InferenceSession", sessions)
        return sessions

    return install


def test_a_real_session_runs_on_the_cpu(model: bytes, tmp_path: Path) -> None:
    (tmp_path / "twice.onnx").write_bytes(model)
    for source in (model, tmp_path / "twice.onnx", str(tmp_path / "twice.onnx")):
        net = runtime.session(source, settings={"session.disable_quant_qdq": "1"})
        np.testing.assert_array_equal(net.run(None, {"x": np.float32([1, 2])})[0], np.float32([2, 4]))
    assert runtime.used() == (CPU,)
    assert runtime.notes() == ()


@pytest.mark.parametrize(
    ("asked", "here", "taken"),
    [
        ("auto", [TENSORRT, CUDA, CPU], [CUDA, CPU]),  # TensorRT never unasked
        ("auto", [CPU], [CPU]),
        ("cpu", [CUDA, CPU], [CPU]),
        ("cuda", [TENSORRT, CUDA, CPU], [CUDA, CPU]),
        ("tensorrt", [TENSORRT, CUDA, CPU], [TENSORRT, CUDA, CPU]),
    ],
)
@pytest.mark.parametrize("by", ["setting", "environment"])
def test_providers_that_are_taken(
    asked: str, here: list[str], taken: list[str], by: str, pretend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = pretend(here)
    if by == "setting":
        runtime.use(providers=asked)
    else:
        monkeypatch.setenv(runtime.ENVIRONMENT, asked)
    runtime.session(b"")
    assert sessions.calls[-1]["names"] == taken
    assert runtime.used() == (taken[0],)
    assert runtime.notes() == ()


def test_a_setting_counts_more_than_the_environment(pretend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = pretend([CUDA, CPU])
    monkeypatch.setenv(runtime.ENVIRONMENT, "cuda")
    runtime.use(providers="cpu")
    runtime.session(b"")
    assert sessions.calls[-1]["names"] == [CPU]


def test_what_is_not_there_is_said(pretend: Any, log: Log) -> None:
    pretend([CPU])
    runtime.use(providers="cuda")
    runtime.session(b"")
    runtime.session(b"")
    assert len(runtime.notes()) == 1
    assert "no CUDAExecutionProvider" in runtime.notes()[0]
    assert log.warnings == list(runtime.notes())  # once


def test_what_fails_to_load_is_said_and_the_next_is_taken(pretend: Any, log: Log) -> None:
    sessions = pretend([TENSORRT, CUDA, CPU], broken=[TENSORRT])
    runtime.use(providers="tensorrt")
    runtime.session(b"")
    assert [call["names"] for call in sessions.calls] == [[TENSORRT, CUDA, CPU], [CUDA, CPU]]
    assert runtime.used() == (CUDA,)
    assert runtime.notes() == (f"{TENSORRT} cannot be used ({TENSORRT} failed: libnvinfer.so.10 is missing); {CUDA} is used",)
    assert log.warnings == list(runtime.notes())


def test_what_onnxruntime_passes_over_is_said(pretend: Any, log: Log) -> None:
    pretend([CUDA, CPU], unloadable=[CUDA])
    runtime.session(b"")
    assert runtime.used() == (CPU,)
    assert "CUDAExecutionProvider cannot be loaded" in log.warnings[0]


def test_a_bad_model_is_the_models_fault(pretend: Any) -> None:
    with pytest.raises(Exception, match=r"(?i)protobuf|model"):
        runtime.session(b"no graph")
    assert runtime.notes() == ()


def test_no_session_changes_its_provider_while_it_is_used(pretend: Any) -> None:
    sessions = pretend([CUDA, CPU])
    runtime.session(b"")
    assert sessions.calls[-1]["fallback"] == 0


def test_recognizers_keep_their_precision(pretend: Any) -> None:
    sessions = pretend([TENSORRT, CUDA, CPU])
    runtime.use(providers="tensorrt")
    for exact in (True, False):
        runtime.session(b"", exact=exact)
    exact_call, other = (call["of"] for call in sessions.calls)
    assert (exact_call[CUDA]["use_tf32"], exact_call[TENSORRT]["trt_fp16_enable"]) == ("0", "0")
    assert (other[CUDA]["use_tf32"], other[TENSORRT]["trt_fp16_enable"]) == ("1", "1")


def test_threads_are_settled_once(pretend: Any) -> None:
    sessions = pretend([CPU])
    runtime.session(b"")
    runtime.use(threads=3)
    assert (runtime.threads(), runtime.threads(2), cv2.getNumThreads()) == (3, 2, 3)
    runtime.session(b"")
    runtime.session(b"", threads=2)
    assert [call["threads"] for call in sessions.calls] == [1, 3, 2]
    runtime.use()
    assert runtime.threads() == 3


@pytest.mark.parametrize("by", ["setting", "environment"])
def test_an_unknown_provider(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if by == "setting":
        with pytest.raises(ProviderError, match=r"ray\.providers .* wants auto, cpu, cuda or tensorrt, not 'gpu'"):
            runtime.use(providers="gpu")
    else:
        monkeypatch.setenv(runtime.ENVIRONMENT, "gpu")
        with pytest.raises(ProviderError, match="MFMC_PROVIDERS"):
            runtime.session(b"")


def test_nobody_else_makes_sessions() -> None:
    root = Path(runtime.__file__).parents[1]
    for path in root.rglob("*.py"):
        names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert "InferenceSession" not in names or path == Path(runtime.__file__), path


@pytest.mark.parametrize("exact", [True, False])
def test_no_engine_is_read_from_disk(pretend: Any, exact: bool) -> None:
    sessions = pretend([TENSORRT, CUDA, CPU])
    runtime.use(providers="tensorrt")
    runtime.session(b"", exact=exact)
    options = sessions.calls[0]["of"][TENSORRT]
    assert (options["trt_engine_cache_enable"], options["trt_timing_cache_enable"]) == ("0", "0")
    assert not any("path" in name for name in options)
