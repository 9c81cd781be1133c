"""The one place that makes onnxruntime sessions, and decides on how many threads and on which device networks run in this process."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import onnxruntime as ort

from mfmc_ray.faces.gather import GatheredSession, Gathering

PROVIDERS = ("auto", "cpu", "cuda", "tensorrt")
"""What may be asked for. auto: CUDA where this onnxruntime has it. TensorRT builds an engine for minutes, so it is never taken unasked."""
ENVIRONMENT = "MFMC_PROVIDERS"
"""Variable that says what is asked for where no setting does."""

_CPU, _CUDA, _TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
_ORDER: Mapping[str, tuple[str, ...]] = {
    "auto": (_CUDA, _CPU),
    "cpu": (_CPU,),
    "cuda": (_CUDA, _CPU),
    "tensorrt": (_TENSORRT, _CUDA, _CPU),
}
_log = logging.getLogger(__name__)


class ProviderError(ValueError):
    """An execution provider was asked for that there is none of; the message says which there are."""


@dataclass
class _Process:
    """What holds for this process.

    Attributes:
        threads: of each network and of OpenCV.
        asked: one of `PROVIDERS`; None: nobody has said.
        used: providers that sessions run on.
        notes: what did not go as it was asked for.
        gathering: how what several threads ask is run together; None: it is not.
        gathered: what is.
    """

    threads: int = 1
    asked: str | None = None
    used: dict[str, None] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)
    gathering: Gathering | None = None
    gathered: list[GatheredSession] = field(default_factory=list)


_process = _Process()


def use(*, threads: int | None = None, providers: str | None = None) -> None:
    """Settles what the networks that this process loads from now on run on, and OpenCV's threads. A worker does so before it loads any.

    The processes of a machine share its cores: workers × threads = cores.

    Args:
        threads: of each network; None: as before, at first 1.
        providers: one of `PROVIDERS`; None: as before, at first what the environment variable MFMC_PROVIDERS says, else auto.

    Raises:
        ProviderError: for a name that is none of them.
    """
    if threads is not None:
        _process.threads = max(1, threads)
    if providers is not None:
        _process.asked = _known(providers, "ray.providers (--providers)")
    cv2.setNumThreads(_process.threads)


def gather(how: Gathering | None) -> None:
    """Has networks that this process loads from now on run what several threads ask of them together (see `session`); None: not."""
    _process.gathering = how


def gathering() -> Gathering | None:
    """What `gather` was told."""
    return _process.gathering


def threads(asked: int | None = None) -> int:
    """How many threads a network gets: as many as asked for, else as `use` has settled."""
    return _process.threads if asked is None else asked


def session(
    model: bytes | str | Path,
    *,
    threads: int | None = None,
    exact: bool = False,
    rows: bool = False,
    settings: Mapping[str, str] | None = None,
) -> Any:
    """A session of a network: an `onnxruntime.InferenceSession`, or what has its methods `run` and `get_outputs`.

    A provider that cannot be had is noted (see `notes`) and logged, and the next one is taken; none changes while a session is used: what
    fails then raises, rather than go on many times slower.

    Args:
        model: a serialised graph, or its file.
        threads: CPU threads; None: as `use` has settled.
        exact: of a recognizer, whose cosines are held against thresholds, or a detector, which a score too low makes blind: no GPU may
            round its products to less than float32.
        rows: the first axis of all inputs and outputs is free, and no row depends on another: calls may be gathered.
        settings: session configuration entries.

    Raises:
        ProviderError: the environment variable names a provider that there is none of.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = _process.threads if threads is None else threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # unused initializers are no news
    for name, value in (settings or {}).items():
        options.add_session_config_entry(name, value)
    source = str(model) if isinstance(model, Path) else model
    wanted = providers()
    while True:
        try:
            made = _made(source, options, wanted, exact)
        except (RuntimeError, ValueError) as error:
            # whatever it is, with the CPU alone it would be the model's fault
            if len(wanted) == 1:
                raise
            _note(f"{wanted[0]} cannot be used ({_first_line(error)}); {wanted[1]} is used")
            wanted = wanted[1:]
            continue
        got = made.get_providers()[0]
        if got != wanted[0]:  # onnxruntime itself passes over what it cannot load
            _note(f"{wanted[0]} cannot be loaded (are its libraries installed?); {got} is used")
        _process.used[got] = None
        how = _process.gathering
        if not rows or how is None or (got == _CPU and not how.always):
            return made
        _process.gathered.append(GatheredSession(made, how, full=got != _CPU))
        return _process.gathered[-1]


def providers() -> tuple[str, ...]:
    """The providers that a session is made with, best first: what is asked for, as far as this onnxruntime has it."""
    asked = _process.asked or _known(os.environ.get(ENVIRONMENT) or "auto", f"the environment variable {ENVIRONMENT}")
    here = available()
    found = tuple(name for name in _ORDER[asked] if name in here)
    if asked not in ("auto", "cpu") and found[0] != _ORDER[asked][0]:
        _note(f"this onnxruntime has no {_ORDER[asked][0]} (pip install 'mfmc-ray[gpu]' has CUDA's); {found[0]} is used")
    return found


def available() -> tuple[str, ...]:
    """The providers that this onnxruntime has."""
    return tuple(ort.get_available_providers())


def on_cpu(session: Any) -> bool:
    """Whether a session runs on the CPU."""
    return bool(session.get_providers()[0] == _CPU)


def used() -> tuple[str, ...]:
    """The providers that the sessions of this process run on."""
    return tuple(_process.used)


def at_once(session: Any, usual: int) -> int:
    """How many rows it is worth to give a session together: as many as are gathered, else what is usual on a CPU."""
    return session.size if isinstance(session, GatheredSession) else usual


def batches() -> tuple[int, int]:
    """How many batches were gathered in this process, and how many rows were in them."""
    return sum(one.gatherer.batches for one in _process.gathered), sum(one.gatherer.rows for one in _process.gathered)


def notes() -> tuple[str, ...]:
    """What did not go as it was asked for in this process, each a sentence that names no file."""
    return tuple(_process.notes)


def _made(source: bytes | str, options: Any, wanted: tuple[str, ...], exact: bool) -> ort.InferenceSession:
    if wanted[0] != _CPU:
        with contextlib.suppress(Exception):  # CUDA's libraries may also be found without; it is seen whether they are
            ort.preload_dlls()
    return ort.InferenceSession(source, options, providers=[(name, _options(name, exact)) for name in wanted], enable_fallback=0)


def _options(provider: str, exact: bool) -> dict[str, str]:
    """Of a provider.

    TF32 keeps 10 bits of a product's factors: cosines then move by up to 1e-3, more than is between many a face and its threshold. cuDNN
    would otherwise try all algorithms anew for each size of picture.
    """
    if provider == _CUDA:
        settled = {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}
        return settled | {"use_tf32": "0" if exact else "1"}
    if provider == _TENSORRT:
        # no engine is kept on disk: nobody checks one that is read back, and a network with other weights has the same name there
        return {"trt_engine_cache_enable": "0", "trt_timing_cache_enable": "0", "trt_fp16_enable": "0" if exact else "1"}
    return {}


def _known(name: str, where: str) -> str:
    if name not in PROVIDERS:
        raise ProviderError(f"{where} wants {', '.join(PROVIDERS[:-1])} or {PROVIDERS[-1]}, not {name!r}")
    return name


def _note(text: str) -> None:
    if text not in _process.notes:
        _process.notes[text] = None
        _log.warning(text)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
