"""Networks that say how alike pictures look, and what is in them. None of them recognises people.

Both come out of pinned packages (`models.lock`); the one that knows objects from npm, so that it may be missing.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray

from mfmc_ray.evaluate.tfjs import convert
from mfmc_ray.faces import runtime
from mfmc_ray.faces.detect import overlap
from mfmc_ray.faces.faces import F32, Image
from mfmc_ray.faces.store import ModelError, model_path, pull

OBJECT_MODELS = ("centernet", "centernet_json")
_HEADS = ["tower_0/Sigmoid", "tower_0/mul"]
_LAYERS = [
    "tower_0/MobilenetV3/expanded_conv/add",
    "tower_0/MobilenetV3/expanded_conv_2/add",
    "tower_0/MobilenetV3/expanded_conv_4/add",
    "tower_0/MobilenetV3/expanded_conv_11/add",
    "tower_0/extern1/hard_swish/mul_1",
]
_PEAKS, _STRIDE, _SAME_OBJECT = 100, 4, 0.5
_LOOK_LAYERS = [f"conv_pw_{n}_relu/clip_by_value" for n in (1, 3, 5, 11, 13)]
_LOOK_VECTOR = "feats/Relu"
_EMPTY = 1e-10


@dataclass(frozen=True)
class Seen:
    """What a network makes of n pictures.

    Attributes:
        layers: float32 (n, channels, height, width) each, from fine to coarse.
        vectors: float32 (n, d): the whole picture in one.
    """

    layers: list[F32]
    vectors: F32


@dataclass(frozen=True)
class Objects:
    """m things in a picture.

    Attributes:
        boxes: float32 (m, 4), x0 y0 x1 y1, px.
        scores: float32 (m,), 0–1, falling.
        kinds: int64 (m,): numbers of COCO's 80 classes, 0 is "person".
    """

    boxes: F32
    scores: F32
    kinds: NDArray[np.int64]


class FeatureNet(Protocol):
    """A network that looks at square pictures of faces."""

    side: int

    def see(self, pictures: Image) -> Seen:
        """Of uint8 (n, side, side, 3), RGB."""
        ...


class ObjectNet:
    """A CenterNet on MobileNetV3, trained on COCO's photos of everyday things (610265158/mobilenetv3_centernet; Zhou et al., "Objects as
    Points", 2019; Howard et al., "Searching for MobileNetV3", ICCV 2019).

    Raises:
        ModelError: its files are not there.
    """

    side = 128

    def __init__(self) -> None:
        model_path("centernet")  # its weights lie beside it
        graph = convert(model_path("centernet_json"), _HEADS + _LAYERS, free_size=True)
        self._net = runtime.session(graph.SerializeToString())

    def see(self, pictures: Image) -> Seen:
        """The layers' pictures, and the last one's mean (480 numbers), of uint8 (n, height, width, 3), RGB."""
        layers = self._net.run(_LAYERS, {"tower_0/images": pictures.astype(np.float32)})
        return Seen(layers, np.asarray(layers[-1].mean((2, 3)), np.float32))

    def objects(self, picture: Image, least: float) -> Objects:
        """What is in a picture, looked at as 512 × 512 px as the network was trained.

        Args:
            picture: uint8 (h, w, 3), RGB.
            least: score.
        """
        side = 512
        small = np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), np.float32)
        heat, reach = (one[0] for one in self._net.run(_HEADS, {"tower_0/images": small[None]}))
        highest = np.stack([cv2.dilate(plane, np.ones((3, 3), np.uint8)) for plane in heat])
        kinds, ys, xs = np.nonzero((heat == highest) & (heat >= least))
        scores = heat[kinds, ys, xs]
        order = np.argsort(-scores, kind="stable")[:_PEAKS]
        kinds, ys, xs, scores = kinds[order], ys[order], xs[order], scores[order]
        left, top, right, bottom = reach[:, ys, xs]
        boxes = np.stack([xs * _STRIDE - left, ys * _STRIDE - top, xs * _STRIDE + right, ys * _STRIDE + bottom], axis=1)
        boxes = np.clip(boxes, 0, side) * np.tile(np.array(picture.shape[1::-1]) / side, 2)
        kept: list[int] = []
        iou = overlap(boxes.astype(np.float32), boxes.astype(np.float32))[0] if len(boxes) else np.zeros((0, 0), np.float32)
        for i in range(len(boxes)):
            if not any(kinds[j] == kinds[i] and iou[j, i] > _SAME_OBJECT for j in kept):
                kept.append(i)
        return Objects(boxes[kept].astype(np.float32), scores[kept].astype(np.float32), kinds[kept].astype(np.int64))


class LookNet:
    """The network that reads age and sex (see `AttributeHead`): what it sees on the way. It ships with this package."""

    side = 224

    def __init__(self) -> None:
        graph = onnx.load(model_path("attribute_net"))
        graph.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in (*_LOOK_LAYERS, _LOOK_VECTOR))
        self._net = runtime.session(graph.SerializeToString(), settings={"session.disable_quant_qdq": "1"})

    def see(self, pictures: Image) -> Seen:
        """The layers' pictures, and what age and sex are read from (256 numbers), of uint8 (n, 224, 224, 3), RGB."""
        *layers, vectors = self._net.run([*_LOOK_LAYERS, _LOOK_VECTOR], {"faces": pictures})
        return Seen(layers, vectors)


NETWORKS: dict[str, type[ObjectNet] | type[LookNet]] = {"objects": ObjectNet, "looks": LookNet}
MODELS: dict[str, tuple[str, ...]] = {"objects": OBJECT_MODELS, "looks": ("attribute_net",)}
TITLES = {
    "objects": "CenterNet-MobileNetV3 (COCO's objects)",
    "looks": "the network that reads age and sex; it took part in choosing the fakes",
}


def distances(one: Seen, other: Seen) -> F32:
    """How different n pictures look: 0 equal, 2 at most.

    Features of each place are brought to length 1, and the squares of their differences added; the mean over places, then over layers. That
    is LPIPS without its learnt weights (Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018),
    on another network: its numbers are not LPIPS's.

    Returns:
        float32 (n,).
    """

    def apart(a: F32, b: F32) -> F32:
        a, b = (x / np.sqrt((x * x).sum(1, keepdims=True) + _EMPTY) for x in (a, b))
        return np.asarray(((a - b) ** 2).sum(1).mean((1, 2)), np.float32)

    return np.asarray(np.mean([apart(a, b) for a, b in zip(one.layers, other.layers, strict=True)], axis=0), np.float32)


@functools.cache
def missing(name: str) -> str | None:
    """Pulls the network's files; why it cannot be had, None if it can."""
    try:
        pull(MODELS[name])
    except ModelError as error:
        return str(error)
    return None
