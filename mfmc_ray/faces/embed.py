"""The recognizers of the embedded pack, SFace and dlib's ResNet, each an `Embedder`.

Both run in onnxruntime, on graphs that are put together here from the pinned files when an embedder is first asked (0.2 s): who only cuts
faces out needs no network.
"""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Any

import dlib
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from mfmc_ray.faces import runtime
from mfmc_ray.faces.align import ARCFACE_TEMPLATE, TEMPLATE_SIZE, chips, scaled, similarity, warp
from mfmc_ray.faces.faces import F32, Image, Pixels
from mfmc_ray.faces.gather import RowsError
from mfmc_ray.faces.store import model_path

# on a CPU larger batches gain nothing (the activations leave the cache), and memory stays bounded in crowds
_BATCH = 4

# what every graph built here needs: block-quantised weights are of opset 21, which onnxruntime knows since 1.18
_OPSET, _IR = 21, 10


class SFaceEmbedder:
    """SFace (Zhong et al., "SFace: Sigmoid-Constrained Hypersphere Loss for Robust Face Recognition", TIP 2021)."""

    name = "sface"
    dim = 128

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads

    @cached_property
    def _net(self) -> Network:
        return Network(_sface(model_path("sface")), self._threads)

    def embed(self, image: Pixels, points: F32) -> F32:
        """float32 (n, 128), unit length, for the faces whose five points are `points` (n, 5, 2) in image pixels."""
        return self.embed_crops(self.crops(image, points))

    def crops(self, image: Pixels, points: F32) -> Image:
        """uint8 (n, 112, 112, 3): the aligned faces."""
        return chips(image, points)

    def embed_crops(self, crops: Image) -> F32:
        """float32 (n, 128), unit length, of what `crops` gave for any images."""
        return self._net.run(crops)


class DlibEmbedder:
    """dlib's face recognition ResNet (King, "High Quality Face Recognition with Deep Metric Learning", dlib.net 2017).

    dlib's own 5-point predictor aligns the face, in an upright patch that the given points lay out, so a face may be turned by any angle in
    the plane. True matches at a false-match rate of 1e-3 on 516 LFW photos: 95.2 %; starting from dlib's own detector 95.6 %, aligning by
    the given points alone 93.6 %. The network itself runs in onnxruntime, about 20× as fast as in dlib with the same result to 3e-7.
    """

    name = "dlib"
    dim = 128

    # the patch: the ArcFace chip and a margin on each side, in px of the 112-px chip, and its side
    _MARGIN, _PATCH = 24, 256
    # the box that dlib's frontal detector gives such a face: the median of 516 LFW photos, in px of the 112-px chip
    _BOX_CENTRE, _BOX_SIDE = np.array([56.96, 71.81]), 89.6
    # what the network was trained on: side and margin of dlib's chip
    _CHIP, _PADDING = 150, 0.25

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads
        self._predictor = dlib.shape_predictor(str(model_path("dlib_5points")))
        factor = self._PATCH / (TEMPLATE_SIZE + 2 * self._MARGIN)
        self._template = scaled(ARCFACE_TEMPLATE + np.float32(self._MARGIN), factor)
        corners = self._BOX_CENTRE + self._MARGIN + np.array([[-0.5], [0.5]]) * self._BOX_SIDE
        self._box = dlib.rectangle(*(round(float(x)) for x in scaled(corners.astype(np.float32), factor).ravel()))

    @cached_property
    def _net(self) -> Network:
        return Network(_dlib_resnet(model_path("dlib_resnet")), self._threads)

    def embed(self, image: Pixels, points: F32) -> F32:
        """float32 (n, 128), unit length, for the faces whose five points are `points` (n, 5, 2) in image pixels."""
        return self.embed_crops(self.crops(image, points))

    def crops(self, image: Pixels, points: F32) -> Image:
        """uint8 (n, 150, 150, 3): dlib's chips."""
        patches = warp(image, similarity(points, self._template), self._PATCH)
        faces = [dlib.get_face_chip(p, self._predictor(p, self._box), self._CHIP, self._PADDING) for p in patches]
        return np.asarray(faces, np.uint8).reshape(-1, self._CHIP, self._CHIP, 3)

    def embed_crops(self, crops: Image) -> F32:
        """float32 (n, 128), unit length, of what `crops` gave for any images."""
        return self._net.run(crops)


class Network:
    """A graph with one input `data`, float32 (n, 3, side, side), RGB 0–255, and one output, float32 (n, d)."""

    def __init__(self, graph: onnx.ModelProto, threads: int | None = None) -> None:
        self._session = runtime.session(graph.SerializeToString(), threads=threads, exact=True, rows=True)
        self._dim: int = self._session.get_outputs()[0].shape[1]

    def run(self, faces: Image) -> F32:
        """float32 (n, d), unit length, of uint8 (n, side, side, 3).

        Raises:
            RowsError: the network gives other rows than it is given.
        """
        vectors = np.empty((len(faces), self._dim), np.float32)
        step = runtime.at_once(self._session, _BATCH)
        for i in range(0, len(faces), step):
            planes = faces[i : i + step].transpose(0, 3, 1, 2).astype(np.float32)
            found = self._session.run(None, {"data": planes})[0]
            if found.shape != (len(planes), self._dim):  # one row would be spread over several faces
                raise RowsError(f"embeddings {found.shape} of {len(planes)} faces")
            vectors[i : i + step] = found
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def as_model(nodes: list[Any], side: int, output: str, dim: int, weights: dict[str, NDArray[Any]]) -> onnx.ModelProto:
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "embedder",
        [helper.make_tensor_value_info("data", onnx.TensorProto.FLOAT, ["n", 3, side, side])],
        [helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, ["n", dim])],
        [numpy_helper.from_array(value, name) for name, value in weights.items() if name in used],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)


def _sface(path: Path) -> onnx.ModelProto:
    """The float32 graph, with a free batch size, of the file's blocks of int8.

    PReLU is written as a·x + (1 − a)·relu(x), each factor a 1 × 1 depthwise convolution: onnxruntime's own PReLU is scalar code that breaks
    its blocked channel layout, and took two thirds of the time. On one core 7.7 ms a face instead of 18 (and 13 in cv2.dnn), with the same
    result to 4e-7.
    """
    graph = onnx.load(path).graph
    weights: dict[str, NDArray[Any]] = {w.name: numpy_helper.to_array(w) for w in graph.initializer}
    nodes: list[Any] = []
    for node in graph.node:
        if node.op_type == "DequantizeLinear":
            weights[node.output[0]] = _dequantise(node, weights)
        elif node.op_type == "Reshape" and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]].reshape(weights[node.input[1]])
        elif node.op_type == "PRelu":
            x, y = node.input[0], node.output[0]
            slope = weights[node.input[1]].reshape(-1, 1, 1, 1)
            weights[f"{y}/slope"], weights[f"{y}/rest"] = slope, 1 - slope
            nodes += [
                helper.make_node("Conv", [x, f"{y}/slope"], [f"{y}/linear"], group=len(slope)),
                helper.make_node("Relu", [x], [f"{y}/positive"]),
                helper.make_node("Conv", [f"{y}/positive", f"{y}/rest"], [f"{y}/bend"], group=len(slope)),
                helper.make_node("Add", [f"{y}/bend", f"{y}/linear"], [y]),
            ]
        else:
            nodes.append(node)
    return as_model(nodes, TEMPLATE_SIZE, graph.output[0].name, SFaceEmbedder.dim, weights)


def _dequantise(node: onnx.NodeProto, weights: dict[str, NDArray[Any]]) -> F32:
    attributes = {a.name: a.i for a in node.attribute}
    axis, block = attributes["axis"], attributes["block_size"]
    quantised, scales, zeros = (weights[name].astype(np.float32) for name in node.input)
    length = quantised.shape[axis]

    def spread(values: F32) -> F32:
        return np.repeat(values, block, axis).take(range(length), axis)

    return np.asarray((quantised - spread(zeros)) * spread(scales), np.float32)


def _dlib_resnet(path: Path) -> onnx.ModelProto:
    """dlib's `anet_type` (dlib/examples/dnn_face_recognition_ex.cpp) as a graph.

    dlib's conventions: a strided convolution or pool has no padding, another one pads by half its size; `affine` after a convolution is
    folded into it; where the two branches of a residual block differ in size or channels, the smaller one is filled up with zeros.
    """
    tensors = _dlib_tensors(path)
    dense = tensors.pop().reshape(-1, DlibEmbedder.dim)
    convolutions = iter(zip(tensors[0::2], tensors[1::2], strict=True))
    # the network's own input layer: (x − mean) / 256
    weights: dict[str, NDArray[Any]] = {
        "mean": np.array([122.782, 117.001, 104.298], np.float32).reshape(1, 3, 1, 1),
        "scale": np.array(1 / 256, np.float32),
        "dense": dense,
    }
    nodes: list[Any] = []

    def add(op: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, list(inputs), [f"x{len(nodes)}"], **attributes))
        return f"x{len(nodes) - 1}"

    def convolve(x: str, inputs: int, filters: int, size: int, stride: int) -> str:
        conv, affine = next(convolutions)
        gain, offset = affine[:filters], affine[filters:]
        kernel, bias = f"kernel{len(nodes)}", f"bias{len(nodes)}"
        weights[kernel] = conv[:-filters].reshape(filters, inputs, size, size) * gain[:, None, None, None]
        weights[bias] = conv[-filters:] * gain + offset
        return add("Conv", x, kernel, bias, strides=[stride] * 2, pads=[0 if stride > 1 else size // 2] * 4)

    def pad(x: str, channels: int, pixels: int) -> str:
        name = f"pads{len(nodes)}"
        weights[name] = np.array([0, 0, 0, 0, 0, channels, pixels, pixels], np.int64)
        return add("Pad", x, name)

    x = add("Mul", add("Sub", "data", "mean"), "scale")
    x = add("Relu", convolve(x, 3, 32, 7, 2))
    x = add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2])
    channels, side = 32, 35
    for filters, blocks, halves in ((32, 3, False), (64, 4, True), (128, 3, True), (256, 3, True), (256, 1, True)):
        for block in range(blocks):
            halve = halves and block == 0
            y = add("Relu", convolve(x, channels, filters, 3, 2 if halve else 1))
            y = convolve(y, filters, filters, 3, 1)
            if halve:
                x = add("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
                convolved, side = (side - 3) // 2 + 1, (side - 2) // 2 + 1
                if convolved < side:
                    y = pad(y, 0, side - convolved)
                if channels < filters:
                    x = pad(x, filters - channels, 0)
            x = add("Relu", add("Add", y, x))
            channels = filters
    x = add("MatMul", add("Flatten", add("GlobalAveragePool", x)), "dense")
    return as_model(nodes, DlibEmbedder._CHIP, x, DlibEmbedder.dim, weights)


def _dlib_tensors(path: Path) -> list[F32]:
    """The flat parameters of the layers of a dlib network file, from input to output.

    dlib writes an integer as a byte that counts its bytes and then those, and a tensor as the version 2, four sizes and raw float32.
    """
    data = path.read_bytes()
    layer = re.compile(rb"\x01\x05con_4|\x01\x07affine_|\x01\x04fc_2")
    tensors: list[F32] = []
    at = 0

    def integer() -> int:
        nonlocal at
        start, at = at + 1, at + 1 + data[at]
        return int.from_bytes(data[start:at], "little")

    while found := layer.search(data, at):
        at = found.end()
        if found.group().endswith(b"fc_2"):
            integer(), integer()  # outputs and inputs, which the sizes repeat
        if integer() != 2:
            raise ValueError(f"{path}: not a tensor of a dlib network file at byte {at}")
        length = integer() * integer() * integer() * integer()
        tensors.append(np.frombuffer(data, "<f4", length, at).astype(np.float32))
        at += 4 * length
    return tensors
