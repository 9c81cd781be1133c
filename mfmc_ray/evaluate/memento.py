"""Memento's face recognizer, an EfficientNet-B0 (Tan and Le 2019), put together as ONNX from its PyTorch checkpoint, without PyTorch.

It is weak (`recognizers.py` has figures): a second opinion of an unrelated family of networks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from mfmc_ray.evaluate.torchfile import state_dict
from mfmc_ray.faces.embed import as_model

SIDE, DIM = 256, 384
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB in 0–1
_EPSILON = 1e-5
_STRIDES = (1, 2, 2, 2, 1, 2, 1)
"""Of the first block of each stage (torchvision's `efficientnet_b0`)."""


def graph(path: Path) -> onnx.ModelProto:
    """From float32 (n, 3, 256, 256) RGB 0–255 to float32 (n, 384), not yet of unit length.

    Raises:
        TorchFileError: the file is no dict of tensors.
    """
    tensors = state_dict(path)
    plane = (1, 3, 1, 1)
    weights: dict[str, NDArray[Any]] = {
        "mean": np.array(_MEAN, np.float32).reshape(plane) * 255,
        "scale": 1 / (np.array(_STD, np.float32).reshape(plane) * 255),
    }
    nodes: list[Any] = []

    def add(op: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, list(inputs), [f"x{len(nodes)}"], **attributes))
        return f"x{len(nodes) - 1}"

    def silu(x: str) -> str:
        return add("Mul", x, add("Sigmoid", x))

    def convolve(x: str, name: str, stride: int = 1) -> str:
        """A convolution with the batch normalisation after it, folded."""
        kernel = tensors[f"{name}.0.weight"]
        gain, shift = _affine(tensors, f"{name}.1")
        weights[name], weights[f"{name}/bias"] = kernel * gain[:, None, None, None], shift
        group = len(kernel) if kernel.shape[1] == 1 else 1
        return add("Conv", x, name, f"{name}/bias", strides=[stride] * 2, pads=[kernel.shape[2] // 2] * 4, group=group)

    def squeeze(x: str, name: str) -> str:
        """Squeeze and excitation."""
        y = add("GlobalAveragePool", x)
        for layer, activate in (("fc1", silu), ("fc2", lambda z: add("Sigmoid", z))):
            weights[f"{name}.{layer}"], weights[f"{name}.{layer}/bias"] = (tensors[f"{name}.{layer}.{what}"] for what in ("weight", "bias"))
            y = activate(add("Conv", y, f"{name}.{layer}", f"{name}.{layer}/bias"))
        return add("Mul", x, y)

    def block(x: str, name: str, stride: int) -> str:
        """An inverted bottleneck; the first stage's do not widen."""
        y, steps = x, 4 if f"{name}.3.0.weight" in tensors else 3
        if steps == 4:
            y = silu(convolve(y, f"{name}.0"))
        y = silu(convolve(y, f"{name}.{steps - 3}", stride))
        y = convolve(squeeze(y, f"{name}.{steps - 2}"), f"{name}.{steps - 1}")
        first, last = tensors[f"{name}.0.0.weight"], tensors[f"{name}.{steps - 1}.0.weight"]
        entering = first.shape[1] if steps == 4 else len(first)
        return add("Add", x, y) if stride == 1 and entering == len(last) else y

    x = silu(convolve(add("Mul", add("Sub", "data", "mean"), "scale"), "backbone.0", 2))
    for stage, first_stride in enumerate(_STRIDES, 1):
        number = 0
        while f"backbone.{stage}.{number}.block.0.0.weight" in tensors:
            x = block(x, f"backbone.{stage}.{number}.block", first_stride if number == 0 else 1)
            number += 1
    x = silu(convolve(silu(convolve(x, "backbone.8")), "neck"))
    gain, weights["shift"] = _affine(tensors, "embedding.1")
    weights["gain"] = gain
    x = add("Add", add("Mul", add("Flatten", add("GlobalAveragePool", x)), "gain"), "shift")
    return as_model(nodes, SIDE, x, DIM, weights)


def _affine(tensors: dict[str, NDArray[Any]], name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What a batch normalisation multiplies with and adds."""
    gamma, beta, mean, variance = (tensors[f"{name}.{what}"] for what in ("weight", "bias", "running_mean", "running_var"))
    gain = gamma / np.sqrt(variance + np.float32(_EPSILON))
    return gain.astype(np.float32), (beta - mean * gain).astype(np.float32)
