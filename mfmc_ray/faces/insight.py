"""InsightFace's detector and recognizer (extra `insightface`), from model files that the user has.

The files come from the folder that the environment variable MFMC_INSIGHTFACE names, or are those of a model pack of that name
(`buffalo_l` if it says nothing) in ~/.insightface/models. Nothing is downloaded. InsightFace's pretrained weights are for non-commercial
research only.
"""

from __future__ import annotations

import functools
import hashlib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mfmc_ray.faces import runtime
from mfmc_ray.faces.align import chips
from mfmc_ray.faces.detect import Scanner, View, numbers, prove
from mfmc_ray.faces.faces import F32, Image, Pixels
from mfmc_ray.faces.store import ModelError
from mfmc_ray.faces.weights import in_one_file

ENVIRONMENT = "MFMC_INSIGHTFACE"
DEFAULT = "buffalo_l"
LICENCE = "InsightFace pretrained models: non-commercial research only, unless you have another licence"
_TASKS = {"scrfd": "detection", "arcface": "recognition"}
NAMES = tuple(_TASKS)
_BATCH = 16


@dataclass
class _Process:
    """What holds for this process.

    Attributes:
        named: sha-256, hex, of the files that were named so far.
        pinned: of the only ones that may be loaded; None: any.
    """

    named: dict[str, str] = field(default_factory=dict)
    pinned: dict[str, str] | None = None


_process = _Process()


def named() -> dict[str, str]:
    """`scrfd` or `arcface` → sha-256, hex, of those that this process has named so far: what other processes of a run are pinned to."""
    return dict(_process.named)


def pin(digests: Mapping[str, str]) -> None:
    """Has this process load no other files than these (see `named`): every node has its own, and they might be others."""
    _process.pinned = dict(digests)


class ScrfdDetector(Scanner):
    """SCRFD (Guo et al., "Sample and Computation Redistribution for Efficient Face Detection", 2021), through insightface."""

    name = "scrfd"

    def __init__(self, *, min_score: float = 0.3, side: int = 640) -> None:
        """Load the network.

        Args:
            min_score: detections below it are left out, 0–1.
            side: `det_size`, px: the longer side of the middle view. A finer one has twice, the coarse one half of it.

        Raises:
            ModelError: insightface or the file is missing, or the network, on anything but a CPU, is blind.
        """
        self.min_score = min_score
        self._model = model_of(self.name)
        if not self._model.use_kps:
            raise ModelError(f"{file_of(self.name).name} finds no points of faces: name a detector with them (SCRFD …_bnkps, det_10g)")
        self.views = (View(4 * side, larger_than=5 * side // 2, enlarge=1), View(2 * side), View(side), View(side // 2, border=32))
        on_cpu = runtime.on_cpu(self._model.session)
        self._model.session = _Numbers(self._model.session)  # insightface passes over what is no number
        if not on_cpu:
            prove(self)

    def _run(self, canvas: Image) -> F32:
        height, width = canvas.shape[:2]
        bgr = np.ascontiguousarray(canvas[:, :, ::-1])
        rows, points = self._model.detect(bgr, input_size=(width, height), det_thresh=self.min_score)
        return np.column_stack([rows[:, :4], np.reshape(points, (-1, 10)), rows[:, 4]]).astype(np.float32)


class ArcFaceEmbedder:
    """ArcFace (Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019), through insightface."""

    name = "arcface"
    dim = 512

    def __init__(self) -> None:
        self._model = model_of(self.name)
        self._side = int(self._model.input_size[0])
        if tuple(self._model.output_shape[1:]) != (self.dim,):
            raise ModelError(f"{file_of(self.name).name} gives embeddings {self._model.output_shape}, not of {self.dim} numbers")

    def embed(self, image: Pixels, points: F32) -> F32:
        """float32 (n, 512), unit length, for the faces whose five points are `points` (n, 5, 2) in image pixels."""
        return self.embed_crops(self.crops(image, points))

    def crops(self, image: Pixels, points: F32) -> Image:
        """uint8 (n, 112, 112, 3): the aligned faces."""
        return chips(image, points, self._side)

    def embed_crops(self, crops: Image) -> F32:
        """float32 (n, 512), unit length, of what `crops` gave for any images."""
        step = _BATCH if not isinstance(self._model.input_shape[0], int) else 1
        parts = [np.zeros((0, self.dim), np.float32)]
        for i in range(0, len(crops), step):
            parts.append(self._model.get_feat([np.ascontiguousarray(crop[:, :, ::-1]) for crop in crops[i : i + step]]))
        vectors = np.concatenate(parts)
        if len(vectors) != len(crops):
            raise ModelError(f"{file_of(self.name).name} gives {len(vectors)} embeddings of {len(crops)} faces: name another file")
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


class _Numbers:
    """A session of SCRFD that raises where it would give what is no number."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, *arguments: Any) -> Any:
        """As `onnxruntime.InferenceSession.run`."""
        return numbers(ScrfdDetector.name, self._session.run(*arguments))


def model_of(name: str) -> Any:
    """insightface's object for `scrfd` or `arcface`, with a session of ours: providers and threads are settled in one place.

    Raises:
        ModelError: insightface or the file is missing, or it is another file than this process may load.
    """
    path = file_of(name)
    check(name)
    model = _zoo().get_model(str(path), providers=["CPUExecutionProvider"])
    model.static_shape_sessions = False  # SCRFD would make a session of its own for each size of picture
    model.session = runtime.session(path, exact=True)
    return model


def file_of(name: str) -> Path:
    """The file of `scrfd` or `arcface`.

    Raises:
        ModelError: insightface or the file is missing.
    """
    return _file(name, os.environ.get(ENVIRONMENT) or DEFAULT)


def digest_of(name: str) -> str:
    """sha-256 of the file, hex.

    Raises:
        ModelError: as `file_of`.
    """
    digest = _process.named[name] = _sha256(str(file_of(name)))
    return digest


def check(name: str) -> None:
    """Whether the file of `scrfd` or `arcface` is the one that this process may load.

    Raises:
        ModelError: it is another one; or as `file_of`.
    """
    digest = digest_of(name)
    if _process.pinned is not None and _process.pinned.get(name) != digest:
        wanted = _process.pinned.get(name, "none")
        raise ModelError(
            f"the file of {name} on {socket.gethostname()} is not the one of the machine that leads the run (SHA-256 {digest[:12]}…, "
            f"there {wanted[:12]}…): put the same InsightFace files on every node, and set {ENVIRONMENT} to their folder there"
        )


@functools.cache
def _file(name: str, place: str) -> Path:
    folder = Path(place).expanduser()
    if not folder.is_dir():
        folder = Path("~/.insightface/models").expanduser() / place
    for path in sorted(folder.glob("*.onnx")):
        try:
            model = _zoo().get_model(str(in_one_file(path)), providers=["CPUExecutionProvider"])
        except ModelError:
            raise
        except Exception as error:  # whatever insightface and onnxruntime raise
            raise ModelError(f"insightface cannot load {path.name} ({type(error).__name__}): take it out of {folder}") from error
        if getattr(model, "taskname", None) == _TASKS[name]:
            return path
    raise ModelError(
        f"there is no model for {name} in {folder}: set {ENVIRONMENT} to a folder with InsightFace's .onnx files, or let insightface "
        f"fetch {DEFAULT} (docs/swappers.md)"
    )


@functools.cache
def _sha256(path: str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _zoo() -> Any:
    try:
        from insightface import model_zoo
    except ImportError as error:
        raise ModelError(
            "scrfd and arcface need insightface: run `pip install 'mfmc-ray[insightface]'` and `pip install --no-deps insightface==2.1`"
        ) from error
    return model_zoo
