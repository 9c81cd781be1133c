"""OpenFace's nn4.small2, the recognizer that no guard uses: what an audit asks that the anonymizer never saw.

It is weak (see `OpenFaceEmbedder`): that it does not recognize a face says little, that it does is worth a look.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from mfmc_ray.faces.align import similarity, warp
from mfmc_ray.faces.embed import Network, as_model
from mfmc_ray.faces.faces import F32, Image, Pixels
from mfmc_ray.faces.store import model_path

_BN_EPSILON = 1e-5
_LRN = {"size": 5, "alpha": 1e-4, "beta": 0.75, "bias": 1.0}


@dataclass(frozen=True)
class _Inception:
    """A module of several branches that are concatenated.

    Attributes:
        name: of its layers in the weights file.
        sizes: kernels of the branches that reduce by 1 × 1 and then convolve.
        stride: of those.
        pool: how the pooling branch pools: maximum of 3 × 3 by 2, or root of the sum of squares of 3 × 3 by 3.
    """

    name: str
    sizes: tuple[int, ...]
    stride: int
    pool: str


_MODULES = (
    _Inception("3a", (3, 5), 1, "max"),
    _Inception("3b", (3, 5), 1, "l2"),
    _Inception("3c", (3, 5), 2, "max"),
    _Inception("4a", (3, 5), 1, "l2"),
    _Inception("4e", (3, 5), 2, "max"),
    _Inception("5a", (3,), 1, "l2"),
    _Inception("5b", (3,), 1, "max"),
)


class OpenFaceEmbedder:
    """OpenFace nn4.small2 (Amos et al., "OpenFace: A general-purpose face recognition library with mobile applications", CMU 2016).

    On 520 LFW photos of 130 people: area under the curve 0.967, equal error rate 9.5 %; of pairs of one person it recognizes 60 % at a
    false-match rate of 1e-2, 28 % at 1e-3 (cosine 0.773) and 12 % at 1e-4. 15–19 ms a face on one core.
    """

    name = "openface"
    dim = 128

    _SIDE = 96
    # where the five points lie, px of the chip: eyes, tip of the nose, corners of the mouth
    _TEMPLATE: F32 = np.array([[27, 17], [69, 17], [48, 43], [34, 65], [62, 65]], np.float32)

    def __init__(self, threads: int | None = None) -> None:
        self._net = Network(_graph(model_path("openface")), threads)

    def embed(self, image: Pixels, points: F32) -> F32:
        """float32 (n, 128), unit length, for the faces whose five points are `points` (n, 5, 2) in image pixels."""
        return self.embed_crops(self.crops(image, points))

    def crops(self, image: Pixels, points: F32) -> Image:
        """uint8 (n, 96, 96, 3): the aligned faces."""
        return warp(image, similarity(points, self._TEMPLATE), self._SIDE)

    def embed_crops(self, crops: Image) -> F32:
        """float32 (n, 128), unit length, of what `crops` gave for any images."""
        return self._net.run(crops)


def _graph(path: Path) -> onnx.ModelProto:
    """nn4.small2 (OpenFace, models/openface/nn4.small2.def.lua) with the weights of a Keras file.

    Torch's conventions: batch normalisation with ε = 1e-5, folded into the convolution before it; `SpatialCrossMapLRN` divides α by its
    size, as ONNX does; `SpatialLPPooling` is the root of a sum, not of a mean; `DepthConcat` centres a smaller branch in zeros.
    """
    import h5py  # here: every worker imports this module, and only an audit's reads the file

    weights: dict[str, NDArray[Any]] = {"scale": np.array(1 / 255, np.float32), "nine": np.array(9, np.float32)}
    nodes: list[Any] = []

    def add(op: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, list(inputs), [f"x{len(nodes)}"], **attributes))
        return f"x{len(nodes) - 1}"

    with h5py.File(path) as file:

        def layer(name: str, *what: str) -> list[F32]:
            return [np.asarray(file[f"{name}/{name}/{one}:0"], np.float32) for one in what]

        def convolve(x: str, conv: str, norm: str, stride: int = 1) -> str:
            kernel, bias = layer(conv, "kernel", "bias")  # height, width, inputs, filters
            gamma, beta, mean, variance = layer(norm, "gamma", "beta", "moving_mean", "moving_variance")
            gain = gamma / np.sqrt(variance + np.float32(_BN_EPSILON))
            weights[f"{conv}/kernel"] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)) * gain[:, None, None, None]
            weights[f"{conv}/bias"] = (bias - mean) * gain + beta
            pads = [kernel.shape[0] // 2] * 4
            return add("Relu", add("Conv", x, f"{conv}/kernel", f"{conv}/bias", strides=[stride] * 2, pads=pads))

        def inception(x: str, module: _Inception, side: int) -> tuple[str, int]:
            stem, out = f"inception_{module.name}", (side - 1) // module.stride + 1
            branches = []
            for size in module.sizes:
                conv, norm = (f"{stem}_{size}x{size}_{what}" for what in ("conv", "bn"))
                branches.append(convolve(convolve(x, f"{conv}1", f"{norm}1"), f"{conv}2", f"{norm}2", module.stride))
            if module.pool == "max":
                y, pooled = add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2]), (side - 3) // 2 + 1
            else:
                y, pooled = add("AveragePool", add("Mul", x, x), kernel_shape=[3, 3], strides=[3, 3]), (side - 3) // 3 + 1
                y = add("Sqrt", add("Mul", y, "nine"))
            if f"{stem}_pool_conv" in file:
                y = convolve(y, f"{stem}_pool_conv", f"{stem}_pool_bn")
            before, after = (out - pooled) // 2, out - pooled - (out - pooled) // 2
            weights[f"{stem}/pads"] = np.array([0, 0, before, before, 0, 0, after, after], np.int64)
            branches.append(add("Pad", y, f"{stem}/pads"))
            if f"{stem}_1x1_conv" in file:
                branches.append(convolve(x, f"{stem}_1x1_conv", f"{stem}_1x1_bn"))
            return add("Concat", *branches, axis=1), out

        x = convolve(add("Mul", "data", "scale"), "conv1", "bn1", 2)
        x = add("LRN", add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4), **_LRN)
        x = convolve(convolve(x, "conv2", "bn2"), "conv3", "bn3")
        x = add("MaxPool", add("LRN", x, **_LRN), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
        side = 12
        for module in _MODULES:
            x, side = inception(x, module, side)
        weights["dense"], weights["dense/bias"] = layer("dense", "kernel", "bias")
        x = add("Flatten", add("AveragePool", x, kernel_shape=[3, 3]))
        x = add("Add", add("MatMul", x, "dense"), "dense/bias")
    return as_model(nodes, OpenFaceEmbedder._SIDE, x, OpenFaceEmbedder.dim, weights)
