"""TensorFlow.js graph models (a .json with its .bin beside it) as ONNX, needing neither TensorFlow nor Node.

Knows the operators of convolutional networks (MobileNets and the like). The graph keeps TensorFlow's input (n, height, width,
channels) and runs in channels-first order inside; scales and offsets that follow a convolution are folded into it, chains of Relu,
Minimum and Maximum become one Clip, and what no output needs is left out.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

F32 = NDArray[np.float32]
OPSET = 18


def read_weights(path: Path, manifest: list[dict[str, Any]]) -> dict[str, NDArray[Any]]:
    """name → array as the network uses it (float32 or int), of a `weightsManifest` whose files lie beside `path`.

    Raises:
        ValueError: when a weight is stored in a way that is not known here.
    """
    weights: dict[str, NDArray[Any]] = {}
    for group in manifest:
        data = b"".join((path.parent / name).read_bytes() for name in group["paths"])
        at = 0
        for entry in group["weights"]:
            quantisation = entry.get("quantization", {})
            stored = np.dtype(quantisation.get("dtype", entry["dtype"]))
            if stored not in (np.float16, np.float32, np.int32, np.uint8, np.uint16):
                raise ValueError(f"{entry['name']} is stored as {stored}, which this converter does not read")
            count = int(np.prod(entry["shape"], dtype=int))
            array = np.frombuffer(data, stored, count, at).reshape(entry["shape"])
            at += count * stored.itemsize
            if "scale" in quantisation:
                array = array.astype(np.float32) * np.float32(quantisation["scale"]) + np.float32(quantisation["min"])
            weights[entry["name"]] = array.astype(entry["dtype"])
    return weights


class Converter:
    """Builds the ONNX graph node by node; pictures are channels first inside."""

    def __init__(self, weights: dict[str, NDArray[Any]], *, free_size: bool = False) -> None:
        self._weights, self._free_size = weights, free_size
        self._nodes: dict[str, onnx.NodeProto] = {}
        self._constants: dict[str, NDArray[Any]] = {}
        self._pictures: set[str] = set()
        self._convolutions: dict[str, tuple[str, F32, F32, dict[str, Any]]] = {}
        self._clips: dict[str, tuple[str, float, float]] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._readers: Counter[str] = Counter()

    def expect(self, nodes: list[dict[str, Any]]) -> None:
        """Say which nodes come, so that a convolution that several read is not folded into each."""
        self._readers.update(i.removesuffix(":0") for node in nodes for i in node.get("input", []))

    def add(self, node: dict[str, Any]) -> None:
        """Convert one node; its inputs come before it.

        Raises:
            ValueError: for an operator or form of it that is not known here.
        """
        name, kind, attributes = node["name"], node["op"], node.get("attr", {})
        inputs = [i.removesuffix(":0") for i in node.get("input", []) if not i.startswith("^")]
        match kind:
            case "Const":
                pass
            case "Placeholder":
                shape = [int(d["size"]) for d in attributes["shape"]["shape"]["dim"]]
                sides = ["height", "width"] if self._free_size else shape[1:3]
                self._inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *sides, shape[3]]))
                self._emit("Transpose", [name], f"{name}/channels_first", perm=[0, 3, 1, 2])
                self._pictures.add(name)
            case "Conv2D" | "DepthwiseConv2dNative":
                self._convolution(name, inputs, attributes, depthwise=kind != "Conv2D")
            case "_FusedConv2D" | "FusedDepthwiseConv2dNative":
                self._fused(name, inputs, attributes, depthwise=kind != "_FusedConv2D")
            case "Add" | "AddV2" | "BiasAdd" | "Mul" | "Sub":
                self._arithmetic(name, kind, inputs)
            case "Relu" | "Relu6" | "Minimum" | "Maximum":
                limits, source = {"Relu": (0.0, np.inf), "Relu6": (0.0, 6.0)}.get(kind), inputs[0]
                if limits is None:
                    source, value = self._split(name, inputs)
                    limits = (-np.inf, float(value.reshape(()))) if kind == "Minimum" else (float(value.reshape(())), np.inf)
                self._clip(name, source, *limits)
            case "Pad":
                before, after = self._weights[inputs[1]][[0, 3, 1, 2]].T  # as channels first
                pads = self._constant(f"{name}/pads", np.concatenate([before, after]).astype(np.int64))
                self._emit("Pad", [inputs[0], pads], name)
                self._pictures.add(name)
            case "Reshape":
                wanted = self._weights[inputs[1]]
                if inputs[0] not in self._pictures or len(wanted) != 2:
                    raise ValueError(f"{name}: of reshapes only the flattening of a picture is known")
                self._emit("Transpose", [inputs[0]], f"{name}/channels_last", perm=[0, 2, 3, 1])
                self._emit("Flatten", [f"{name}/channels_last"], name)
            case "Mean":
                if sorted(self._weights[inputs[1]].tolist()) != [1, 2] or inputs[0] not in self._pictures:
                    raise ValueError(f"{name}: only the mean over a picture is known")
                kept = bool(attributes.get("keep_dims", {}).get("b"))
                self._emit("ReduceMean", [inputs[0], self._constant(f"{name}/axes", np.array([2, 3]))], name, keepdims=int(kept))
                if kept:
                    self._pictures.add(name)
            case "ResizeBilinear":
                self._doubled(name, inputs, attributes)
            case "ConcatV2":
                if int(self._weights[inputs[-1]]) not in (3, -1) or not self._pictures >= set(inputs[:-1]):
                    raise ValueError(f"{name}: of concatenations only that of pictures' channels is known")
                self._emit("Concat", inputs[:-1], name, axis=1)
                self._pictures.add(name)
            case "MatMul" | "_FusedMatMul":
                weight = self._weights[inputs[1]]
                if attributes.get("transpose_b", {}).get("b"):
                    weight = weight.T
                fused = _fused_ops(attributes)
                if fused not in ([], ["BiasAdd"], ["BiasAdd", "Relu"]):
                    raise ValueError(f"{name}: a product fused with {fused} is not known")
                bias = [self._constant(inputs[2], self._weights[inputs[2]])] if fused else []
                product = f"{name}/product" if "Relu" in fused else name
                self._emit("Gemm", [inputs[0], self._constant(inputs[1], weight), *bias], product)
                if "Relu" in fused:
                    self._clip(name, product, 0.0, np.inf)
            case "Sigmoid":
                self._emit("Sigmoid", inputs, name)
                if inputs[0] in self._pictures:
                    self._pictures.add(name)
            case "Softmax":
                self._emit("Softmax", inputs, name, axis=-1)
            case _:
                raise ValueError(f"{name}: the operator {kind} is not known to this converter")

    def model(self, outputs: list[str]) -> onnx.ModelProto:
        """The checked model with these nodes as outputs and only what they need.

        Raises:
            ValueError: when there is no such node.
        """
        for name in outputs:
            if name not in self._nodes:
                raise ValueError(f"there is no node {name}; the last ones are: {', '.join(list(self._nodes)[-8:])}")
        needed, queue = set(), list(outputs)
        while queue:
            name = queue.pop()
            if name in self._nodes and name not in needed:
                needed.add(name)
                queue += self._nodes[name].input
        nodes = [node for name, node in self._nodes.items() if name in needed]
        used = {name for node in nodes for name in node.input}
        constants = [numpy_helper.from_array(np.ascontiguousarray(a), name) for name, a in self._constants.items() if name in used]
        results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(nodes, "tfjs", self._inputs, results, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        del model.graph.value_info[:]
        onnx.checker.check_model(model, full_check=True)
        return model

    def _emit(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> None:
        # a picture that comes in is channels last: all but the node that turns it read the turned one
        turned = [i if kind == "Transpose" or f"{i}/channels_first" not in self._nodes else f"{i}/channels_first" for i in inputs]
        self._nodes[name] = helper.make_node(kind, turned, [name], name=name, **attributes)

    def _constant(self, name: str, array: NDArray[Any]) -> str:
        self._constants[name] = array
        return name

    def _split(self, name: str, inputs: list[str]) -> tuple[str, NDArray[Any]]:
        """Of two inputs, of which one is a constant: the other, and the constant."""
        constants = [i for i in inputs if i in self._weights]
        if len(constants) != 1:
            raise ValueError(f"{name}: wanted one constant among {' and '.join(inputs)}")
        (source,) = (i for i in inputs if i not in constants)
        return source, self._weights[constants[0]]

    def _arithmetic(self, name: str, kind: str, inputs: list[str]) -> None:
        """A sum, difference or product: folded into a convolution before it, if it can be."""
        operator = {"Mul": "Mul", "Sub": "Sub"}.get(kind, "Add")
        if not set(inputs) & set(self._weights):
            self._emit(operator, inputs, name)
            if self._pictures >= set(inputs):
                self._pictures.add(name)
            return
        source, value = self._split(name, inputs)
        if source in self._convolutions and operator != "Sub" and self._readers[source] < 2:
            origin, weight, bias, how = self._convolutions[source]
            flat = np.broadcast_to(value.reshape(-1), len(weight))
            if operator == "Mul":
                self._convolve(name, origin, weight * flat[:, None, None, None], bias * flat, how)
            else:
                self._convolve(name, origin, weight, bias + flat, how)
            return
        if source in self._pictures:
            self._pictures.add(name)
            value = value.reshape(-1, 1, 1)
        constant = self._constant(f"{name}/constant", value)
        self._emit(operator, [source if i in (source, f"{source}:0") else constant for i in inputs], name)

    def _convolution(self, name: str, inputs: list[str], attributes: dict[str, Any], *, depthwise: bool) -> None:
        weight = self._weights[inputs[1]]  # height, width, in, out (depthwise: height, width, channels, multiplier)
        padding = base64.b64decode(attributes["padding"]["s"]).decode()
        how: dict[str, Any] = {"auto_pad": {"SAME": "SAME_UPPER", "VALID": "VALID"}[padding]}
        for key in ("strides", "dilations"):
            how[key] = [int(i) for i in attributes[key]["list"]["i"][1:3]]
        if depthwise:
            height, width, channels, multiplier = weight.shape
            how["group"] = channels
            weight = weight.transpose(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width)
        else:
            weight = weight.transpose(3, 2, 0, 1)
        self._convolve(name, inputs[0], weight, np.zeros(len(weight), np.float32), how)

    def _fused(self, name: str, inputs: list[str], attributes: dict[str, Any], *, depthwise: bool) -> None:
        """A convolution with its offset, and what bends it."""
        fused = _fused_ops(attributes)
        if fused not in (["BiasAdd"], ["BiasAdd", "Relu"], ["BiasAdd", "Relu6"]):
            raise ValueError(f"{name}: a convolution fused with {fused} is not known")
        plain = name if len(fused) == 1 else f"{name}/plain"
        self._convolution(plain, inputs[:2], attributes, depthwise=depthwise)
        origin, weight, _, how = self._convolutions[plain]
        self._convolve(plain, origin, weight, self._weights[inputs[2]].reshape(-1), how)
        if plain != name:
            self._clip(name, plain, 0.0, 6.0 if fused[1] == "Relu6" else np.inf)

    def _doubled(self, name: str, inputs: list[str], attributes: dict[str, Any]) -> None:
        """A picture drawn twice as large; whatever size the graph says, that is all that is known here."""
        if any(attributes.get(key, {}).get("b") for key in ("align_corners", "half_pixel_centers")) or inputs[0] not in self._pictures:
            raise ValueError(f"{name}: of resizing only TensorFlow's plain one of pictures is known")
        scales = self._constant(f"{name}/scales", np.array([1, 1, 2, 2], np.float32))
        self._emit("Resize", [inputs[0], "", scales], name, mode="linear", coordinate_transformation_mode="asymmetric")
        self._pictures.add(name)

    def _convolve(self, name: str, source: str, weight: F32, bias: F32, how: dict[str, Any]) -> None:
        self._convolutions[name] = source, weight, bias, how
        self._pictures.add(name)
        named = [self._constant(f"{name}/weight", weight), self._constant(f"{name}/bias", bias)]
        self._emit("Conv", [source, *named], name, **how)

    def _clip(self, name: str, source: str, low: float, high: float) -> None:
        """Clip to low…high; after another clip, one in its place."""
        origin, before, after = self._clips.get(source, (source, -np.inf, np.inf))
        low, high = (float(np.clip(limit, low, high)) for limit in (before, after))
        self._clips[name] = origin, low, high
        if source in self._pictures:
            self._pictures.add(name)
        limits = [self._constant(f"{name}/{which}", np.float32(v)) for which, v in (("low", low), ("high", high))]  # type: ignore[arg-type]
        self._emit("Clip", [origin, *limits], name)


def _fused_ops(attributes: dict[str, Any]) -> list[str]:
    return [base64.b64decode(s).decode() for s in attributes.get("fused_ops", {}).get("list", {}).get("s", [])]


def convert(path: Path, outputs: list[str], *, free_size: bool = False) -> onnx.ModelProto:
    """The ONNX form of the tf.js graph model whose json is at `path`; float32 in and out, any batch.

    Args:
        path: the .json; its weight files lie beside it.
        outputs: names of nodes; pictures among them come channels first.
        free_size: pictures of any height and width may be given, not only such as the graph names.

    Raises:
        ValueError: for a model that this converter does not know how to convert, or an output it does not have.
    """
    model = json.loads(path.read_text(encoding="utf-8"))
    converter = Converter(read_weights(path, model["weightsManifest"]), free_size=free_size)
    nodes = needed_for(outputs, model["modelTopology"]["node"])
    converter.expect(nodes)
    for node in in_order(nodes):
        converter.add(node)
    return converter.model(outputs)


def needed_for(outputs: list[str], nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The nodes that the outputs need; all if one of the outputs is not among them."""
    by_name = {node["name"]: node for node in nodes}
    if not by_name.keys() >= set(outputs):
        return nodes
    found, queue = set(), list(outputs)
    while queue:
        name = queue.pop()
        if name not in found:
            found.add(name)
            queue += [i.lstrip("^").split(":")[0] for i in by_name[name].get("input", [])]
    return [node for node in nodes if node["name"] in found]


def in_order(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The nodes, each after its inputs."""
    by_name = {node["name"]: node for node in nodes}
    ordered: dict[str, dict[str, Any]] = {}
    stack = [node["name"] for node in reversed(nodes)]
    while stack:
        name = stack[-1]
        inputs = (i.lstrip("^").split(":")[0] for i in by_name[name].get("input", []))
        waiting = [] if name in ordered else [i for i in inputs if i not in ordered]
        if waiting:
            stack += waiting
        else:
            ordered.setdefault(stack.pop(), by_name[name])
    return list(ordered.values())
