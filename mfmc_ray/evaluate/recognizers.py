"""The recognizers that judge a result, by name. Each is an `Embedder`; most took no part in making it.

All weights come out of pinned packages (`models.lock`), but for ArcFace, which the user has or has not. Faces are aligned by five points,
as everywhere here, so that one that no detector sees any more (blurred, covered) is still looked at where it was.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from mfmc_ray.config import ConfigError
from mfmc_ray.evaluate import memento
from mfmc_ray.evaluate.tfjs import convert
from mfmc_ray.faces import runtime
from mfmc_ray.faces.align import ARCFACE_TEMPLATE, TEMPLATE_SIZE, chips, similarity, warp
from mfmc_ray.faces.embed import DlibEmbedder, Network, SFaceEmbedder
from mfmc_ray.faces.faces import F32, Image, Pixels
from mfmc_ray.faces.openface import OpenFaceEmbedder
from mfmc_ray.faces.protocols import Embedder
from mfmc_ray.faces.store import ModelError, load_lock, model_path, pull
from mfmc_ray.faces.weights import in_one_file

ARCFACE = "MFMC_ARCFACE"
"""Variable that names insightface's recognition network, if it is not where insightface puts it."""
_ARCFACE_PLACES = ("buffalo_l/w600k_r50.onnx", "antelopev2/glintr100.onnx", "buffalo_m/w600k_r50.onnx", "buffalo_s/w600k_mbf.onnx")
_BATCH = 4  # larger ones gain nothing on a core


@dataclass(frozen=True)
class Recognizer:
    """One of them.

    Attributes:
        name: in evaluation.json, and of `--recognizers`.
        title: what it is.
        license: of its weights.
        models: its files in models.lock; none for the user's own.
        make: builds it; the files must be there.
        reference: TAR at FAR 1e-2 on 520 LFW photos of 130 people, of ArcFace as published: how strong it is where there are too few
            faces to measure that.
    """

    name: str
    title: str
    license: str
    models: tuple[str, ...]
    make: Callable[[], Embedder]
    reference: float


class HseEmbedder:
    """HSE's face networks (Savchenko, "Efficient facial representations for age, gender and identity recognition", SISY 2019).

    They see 224 px, B G R less the mean of ImageNet, of an upright square that is 1.15 times as wide as the box which YuNet gives such a
    face, and its mirror image, of which the mean is taken.
    """

    dim = 1024

    _OUTPUTS = ("global_pooling/Mean", "age_pred/Softmax", "gender_pred/Sigmoid")
    _SIDE, _MARGIN = 224, 1.15
    # YuNet's box: the median of 520 LFW photos, px of the 112-px chip
    _BOX_CENTRE, _BOX_SIDE = np.array([54.9, 64.9], np.float32), 108.7
    _MEAN = np.array([103.939, 116.779, 123.68], np.float32)

    def __init__(self, name: str) -> None:
        self.name = name
        self._net = _tfjs(name, *self._OUTPUTS)
        self._template = (ARCFACE_TEMPLATE - self._BOX_CENTRE) * (self._SIDE / (self._MARGIN * self._BOX_SIDE)) + (self._SIDE - 1) / 2

    def embed(self, image: Pixels, points: F32) -> F32:
        """float32 (n, 1024), unit length, for the faces whose five points are `points` (n, 5, 2) in image pixels."""
        return self.embed_crops(self.crops(image, points))

    def crops(self, image: Pixels, points: F32) -> Image:
        """uint8 (n, 224, 224, 3)."""
        return warp(image, similarity(points, self._template), self._SIDE)

    def embed_crops(self, crops: Image) -> F32:
        """float32 (n, 1024), unit length, of what `crops` gave for any images."""
        return self.look(crops)[0]

    def look(self, crops: Image) -> tuple[F32, F32, F32]:
        """The same; ages, float32 (n,), years; and probabilities of "man", float32 (n,), 0–1."""
        planes = crops[..., ::-1].astype(np.float32) - self._MEAN
        vectors, ages, men = (a + b for a, b in zip(self._net(planes), self._net(planes[:, :, ::-1]), strict=True))
        years = np.arange(ages.shape[1], dtype=np.float32)
        return _unit(vectors, self.dim), np.asarray(ages @ years / 2, np.float32), np.asarray(men[:, 0] / 2, np.float32)


class MobileFaceEmbedder:
    """MobileFace V3 (becauseofAI, 2018), a network of 2 MB.

    It is given R G B: on 520 LFW photos it tells people apart much better so than given B G R (of pairs of one person it recognizes 58 %
    instead of 40 % at a false-match rate of 1e-3). The mean of the face and its mirror image is taken.
    """

    name = "mobileface"
    dim = 256

    def __init__(self) -> None:
        self._net = _tfjs(self.name, "batchnorm0/add_1")

    def embed(self, image: Pixels, points: F32) -> F32:
        """float32 (n, 256), unit length, for the faces whose five points are `points` (n, 5, 2) in image pixels."""
        return self.embed_crops(self.crops(image, points))

    def crops(self, image: Pixels, points: F32) -> Image:
        """uint8 (n, 112, 112, 3)."""
        return chips(image, points)

    def embed_crops(self, crops: Image) -> F32:
        """float32 (n, 256), unit length, of what `crops` gave for any images."""
        planes = crops.astype(np.float32)
        (straight,), (mirrored,) = self._net(planes), self._net(planes[:, :, ::-1])
        return _unit(straight + mirrored, self.dim)


class MementoEmbedder:
    """Memento's EfficientNet-B0 (R. Moesch, 2025)."""

    name = "memento"
    dim = memento.DIM

    def __init__(self) -> None:
        self._net = Network(memento.graph(model_path("memento")))

    def embed(self, image: Pixels, points: F32) -> F32:
        """float32 (n, 384), unit length, for the faces whose five points are `points` (n, 5, 2) in image pixels."""
        return self.embed_crops(self.crops(image, points))

    def crops(self, image: Pixels, points: F32) -> Image:
        """uint8 (n, 256, 256, 3)."""
        return chips(image, points, memento.SIDE)

    def embed_crops(self, crops: Image) -> F32:
        """float32 (n, 384), unit length, of what `crops` gave for any images."""
        return self._net.run(crops)


class ArcFaceEmbedder:
    """insightface's ArcFace (Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019).

    Its weights are for non-commercial use, and never fetched by mfmc-ray.

    Raises:
        ModelError: the file is not there, or is no network of this kind.
    """

    name = "arcface"

    def __init__(self) -> None:
        path = arcface_file()
        if path is None:
            raise ModelError(f"there is no ArcFace: set {ARCFACE} to insightface's recognition network (w600k_r50.onnx)")
        try:
            self._session = runtime.session(in_one_file(path), exact=True)
            (given,), (found,) = self._session.get_inputs(), self._session.get_outputs()
        except ModelError:
            raise
        except Exception as error:  # whatever the file is
            raise ModelError(f"{path} is no recognition network of insightface ({type(error).__name__})") from error
        if list(given.shape[1:]) != [3, TEMPLATE_SIZE, TEMPLATE_SIZE]:
            raise ModelError(f"{path} is no recognition network of insightface: wanted 3 × 112 × 112, not {given.shape}")
        self._input, self.dim = given.name, int(found.shape[1])

    def embed(self, image: Pixels, points: F32) -> F32:
        """float32 (n, d), unit length, for the faces whose five points are `points` (n, 5, 2) in image pixels."""
        return self.embed_crops(self.crops(image, points))

    def crops(self, image: Pixels, points: F32) -> Image:
        """uint8 (n, 112, 112, 3)."""
        return chips(image, points)

    def embed_crops(self, crops: Image) -> F32:
        """float32 (n, d), unit length, of what `crops` gave for any images."""
        planes = (crops.transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 127.5
        batches = [self._session.run(None, {self._input: plane[None]})[0] for plane in planes]  # some of the files have a fixed batch
        return _unit(np.concatenate(batches) if batches else np.zeros((0, self.dim), np.float32), self.dim)


def _hse(name: str) -> Callable[[], Embedder]:
    return lambda: HseEmbedder(name)


RECOGNIZERS: Mapping[str, Recognizer] = MappingProxyType(
    {
        one.name: one
        for one in (
            Recognizer("sface", "SFace", "Apache-2.0", ("sface",), SFaceEmbedder, 0.99),
            Recognizer("dlib", "dlib ResNet-29", "CC0-1.0", ("dlib_resnet", "dlib_5points"), DlibEmbedder, 0.986),
            Recognizer("faceres", "HSE faceres", "Apache-2.0", ("faceres", "faceres_json"), _hse("faceres"), 0.963),
            Recognizer(
                "faceres_deep", "HSE faceres-deep", "Apache-2.0", ("faceres_deep", "faceres_deep_json"), _hse("faceres_deep"), 0.755
            ),
            Recognizer("mobileface", "MobileFace V3", "MIT", ("mobileface", "mobileface_json"), MobileFaceEmbedder, 0.776),
            Recognizer("openface", "OpenFace nn4.small2", "Apache-2.0", ("openface",), OpenFaceEmbedder, 0.603),
            Recognizer("memento", "Memento EfficientNet-B0", "MIT", ("memento",), MementoEmbedder, 0.523),
            Recognizer("arcface", "insightface ArcFace", "non-commercial", (), ArcFaceEmbedder, 0.99),
        )
    }
)
"""Which of them guarded a run, its manifest says: `guards` of evaluation.json. By default sface and dlib do."""


@dataclass(frozen=True)
class Available:
    """The recognizers that can be had.

    Attributes:
        names: in the order of `RECOGNIZERS`.
        skipped: name → why not.
        digests: name → sha-256, hex, of its files.
    """

    names: tuple[str, ...]
    skipped: Mapping[str, str]
    digests: Mapping[str, str]


def available(asked: Sequence[str] | None = None, *, progress: bool = True) -> Available:
    """Pulls what is not there, and sees what then is.

    Args:
        asked: names; None: all. What is asked for by name must be there.
        progress: of pulling, on stderr.

    Raises:
        ConfigError: there is no recognizer of that name.
        ModelError: one that was asked for by name cannot be had, or none can.
    """
    if unknown := [name for name in asked or () if name not in RECOGNIZERS]:
        raise ConfigError(f"there is no recognizer {unknown[0]!r}; there are: {', '.join(RECOGNIZERS)}")
    lock = {model.name: model.sha256 for model in load_lock()}
    skipped: dict[str, str] = {}
    digests: dict[str, str] = {}
    for name in RECOGNIZERS if asked is None else asked:
        try:
            if name == ArcFaceEmbedder.name:
                digests[name] = _own_digest()
            else:
                pull(RECOGNIZERS[name].models, progress=progress)
                digests[name] = hashlib.sha256("".join(lock[file] for file in RECOGNIZERS[name].models).encode()).hexdigest()
        except ModelError as error:
            if asked is not None:
                raise
            skipped[name] = str(error)
    if not digests:
        raise ModelError(f"no recognizer can be had: {next(iter(skipped.values()), 'none was asked for')}")
    return Available(tuple(digests), skipped, digests)


def arcface_file() -> Path | None:
    """The user's ArcFace; None if there is none."""
    if given := os.environ.get(ARCFACE):
        return Path(given).expanduser() if Path(given).expanduser().is_file() else None
    root = Path(os.environ.get("INSIGHTFACE_HOME") or "~/.insightface").expanduser() / "models"
    return next((root / place for place in _ARCFACE_PLACES if (root / place).is_file()), None)


def _own_digest() -> str:
    path = arcface_file()
    if path is None:
        raise ModelError(f"not here: it is insightface's, for non-commercial use; set {ARCFACE} to its file if you have it")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tfjs(name: str, *outputs: str) -> Callable[[F32], list[F32]]:
    """Runs a tf.js graph of models.lock: float32 (n, side, side, 3) → (n, d) of each output."""
    model_path(name)  # its weights lie beside it
    session = runtime.session(convert(model_path(f"{name}_json"), list(outputs)).SerializeToString(), exact=True)
    (given,) = session.get_inputs()
    widths = [found.shape[1] for found in session.get_outputs()]

    def run(planes: F32) -> list[F32]:
        none = [np.zeros((0, width), np.float32) for width in widths]
        starts = range(0, len(planes), _BATCH)
        batches = [session.run(list(outputs), {given.name: np.ascontiguousarray(planes[i : i + _BATCH])}) for i in starts]
        return [np.concatenate(parts) for parts in zip(none, *batches, strict=True)]

    return run


def _unit(vectors: F32, dim: int) -> F32:
    return np.asarray(vectors.reshape(-1, dim) / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), np.float32)
