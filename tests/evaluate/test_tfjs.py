"""Graphs of TensorFlow.js become the same in ONNX: against the operators written out in numpy."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from mfmc_ray.evaluate.tfjs import convert

RNG = np.random.default_rng(0)
WEIGHTS = {
    "mean": np.float32([127.5]),
    "scale": np.float32([1 / 64]),
    "pads": np.int32([[0, 0], [1, 1], [1, 1], [0, 0]]),
    "kernel": RNG.normal(size=(3, 3, 2, 4)).astype(np.float32),
    "zero": np.float32(0),
    "slope": RNG.random(4).astype(np.float32),
    "depthwise": RNG.normal(size=(3, 3, 4, 1)).astype(np.float32),
    "gain": RNG.normal(size=4).astype(np.float32),
    "bias": RNG.normal(size=4).astype(np.float32),
    "shape": np.int32([-1, 4 * 5 * 4]),
    "dense": RNG.normal(size=(80, 3)).astype(np.float32),
    "offset": RNG.normal(size=3).astype(np.float32),
}


def op(name: str, kind: str, *inputs: str, **attributes: Any) -> dict[str, Any]:
    return {"name": name, "op": kind, "input": list(inputs), "attr": attributes}


def padding(kind: str, stride: int = 1) -> dict[str, Any]:
    steps = {"list": {"i": ["1", str(stride), str(stride), "1"]}}
    return {"padding": {"s": base64.b64encode(kind.encode()).decode()}, "strides": steps, "dilations": {"list": {"i": ["1"] * 4}}}


NODES = [
    op("data", "Placeholder", shape={"shape": {"dim": [{"size": s} for s in ("-1", "8", "10", "2")]}}),
    op("sub", "Sub", "data", "mean"),
    op("mul", "Mul", "scale", "sub"),  # the constant may come first
    op("pad", "Pad", "mul", "pads"),
    op("conv", "Conv2D", "pad", "kernel", **padding("VALID", 2)),
    op("positive", "Maximum", "zero", "conv"),
    op("negative", "Minimum", "zero", "conv"),
    op("bent", "Mul", "slope", "negative"),
    op("prelu", "AddV2", "positive", "bent"),
    op("each", "DepthwiseConv2dNative", "prelu", "depthwise", **padding("SAME")),
    op("gained", "Mul", "each", "gain"),
    op("shifted", "BiasAdd", "gained", "bias"),
    op("clipped", "Relu6", "shifted"),
    op("residual", "AddV2", "clipped", "prelu"),
    op("flat", "Reshape", "residual", "shape"),
    op("product", "MatMul", "flat", "dense"),
    op("out", "AddV2", "product", "offset"),
    op("unused", "Sigmoid", "out"),
]


def written(folder: Path, nodes: list[dict[str, Any]]) -> Path:
    entries = [{"name": n, "shape": list(w.shape), "dtype": str(w.dtype)} for n, w in WEIGHTS.items()]
    constants = [op(name, "Const") for name in WEIGHTS]
    plain = {"modelTopology": {"node": constants + nodes}, "weightsManifest": [{"paths": ["net.bin"], "weights": entries}]}
    (folder / "net.bin").write_bytes(b"".join(w.tobytes() for w in WEIGHTS.values()))
    (folder / "net.json").write_text(json.dumps(plain))
    return folder / "net.json"


def windows(x: np.ndarray, stride: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))[:, ::stride, ::stride]  # n h w c 3 3


def expected(x: np.ndarray) -> np.ndarray:
    w = WEIGHTS
    around = ((0, 0), (1, 1), (1, 1), (0, 0))
    x = np.einsum("nhwcij,ijcf->nhwf", windows(np.pad((x - w["mean"]) * w["scale"], around), 2), w["kernel"])
    x = np.maximum(x, 0) + w["slope"] * np.minimum(x, 0)
    y = np.einsum("nhwcij,ijc->nhwc", windows(np.pad(x, around), 1), w["depthwise"][..., 0])
    y = np.clip(y * w["gain"] + w["bias"], 0, 6) + x
    return np.asarray(y.reshape(len(y), -1) @ w["dense"] + w["offset"])


def test_all_it_knows_is_the_same(tmp_path: Path) -> None:
    model = convert(written(tmp_path, NODES), ["out"])
    assert "unused" not in {node.name for node in model.graph.node}
    assert sum(node.op_type == "Conv" for node in model.graph.node) == 2
    x = RNG.random((3, 8, 10, 2), np.float32) * 255
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"data": x})[0], expected(x), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (op("out", "Erf", "data"), "operator Erf is not known"),
        (op("out", "Maximum", "data", "data"), "one constant"),
        (op("out", "Reshape", "sub", "shape"), ""),
    ],
)
def test_what_it_does_not_know_it_says(tmp_path: Path, node: dict[str, Any], message: str) -> None:
    path = written(tmp_path, [*NODES[:2], node])
    if message:
        with pytest.raises(ValueError, match=message):
            convert(path, ["out"])
    else:
        assert convert(path, ["out"]).graph.output[0].name == "out"
    with pytest.raises(ValueError, match="there is no node"):
        convert(written(tmp_path, NODES), ["elsewhere"])


def fused(*names: str) -> dict[str, Any]:
    return {"fused_ops": {"list": {"s": [base64.b64encode(name.encode()).decode() for name in names]}}}


MORE_NODES = [
    op("data", "Placeholder", shape={"shape": {"dim": [{"size": s} for s in ("1", "8", "10", "2")]}}),
    op("conv", "_FusedConv2D", "data", "kernel", "bias", **padding("SAME"), **fused("BiasAdd")),
    op("sixth", "Mul", "sixth/y", "conv"),  # a hard swish: two read the convolution
    op("three", "AddV2", "conv", "three/y"),
    op("gate", "Relu6", "three"),
    op("swish", "Mul", "sixth", "gate"),
    op("each", "FusedDepthwiseConv2dNative", "swish", "depthwise", "bias", **padding("SAME"), **fused("BiasAdd", "Relu")),
    op("squeezed", "Mean", "each", "sides", keep_dims={"b": True}),
    op("share", "Sigmoid", "squeezed"),
    op("excited", "Mul", "each", "share"),
    op("large", "ResizeBilinear", "excited", "size"),
    op("large_too", "ResizeBilinear", "swish", "size"),
    op("out", "ConcatV2", "large", "large_too", "axis"),
    op("argmax", "ArgMax", "out"),  # nobody needs it, so nobody has to know it
]
MORE_WEIGHTS = {
    "sixth/y": np.float32(1 / 6),
    "three/y": np.float32(3),
    "sides": np.int32([1, 2]),
    "size": np.int32([16, 20]),
    "axis": np.int32(3),
}


def doubled(x: np.ndarray) -> np.ndarray:
    for axis in (1, 2):
        after = np.concatenate([np.delete(x, 0, axis), np.take(x, [-1], axis)], axis)
        x = np.stack([x, (x + after) / 2], axis + 1).reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])
    return x


def test_what_detectors_have_is_the_same_at_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in MORE_WEIGHTS.items():
        monkeypatch.setitem(WEIGHTS, name, value)
    model = convert(written(tmp_path, MORE_NODES), ["out"], free_size=True)
    assert sum(node.op_type == "Conv" for node in model.graph.node) == 2
    w, around = WEIGHTS, ((0, 0), (1, 1), (1, 1), (0, 0))
    x = RNG.random((2, 6, 4, 2), np.float32)
    y = np.einsum("nhwcij,ijcf->nhwf", windows(np.pad(x, around), 1), w["kernel"]) + w["bias"]
    swish = y / 6 * np.clip(y + 3, 0, 6)
    z = np.maximum(np.einsum("nhwcij,ijc->nhwc", windows(np.pad(swish, around), 1), w["depthwise"][..., 0]) + w["bias"], 0)
    z = z / (1 + np.exp(-z.mean((1, 2), keepdims=True)))
    wanted = np.concatenate([doubled(z), doubled(swish)], 3).transpose(0, 3, 1, 2)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"data": x})[0], wanted, rtol=1e-3, atol=1e-3)
