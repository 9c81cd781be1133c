"""Tiny networks with the interfaces of real ones: INSwapper, ArcFace, SCRFD. Nothing in them has learned anything."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

from mfmc_ray.faces.mesh import five_points
from mfmc_ray.identities.sample import Identity
from mfmc_ray.swap.onnx import OnnxSwapper

LICENCE = "for tests only"


def save(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: dict[str, np.ndarray]) -> Path:
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, [numpy_helper.from_array(value, name) for name, value in weights.items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def value(name: str, *shape: int | str, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, list(shape))


def inswapper(path: Path, *, batch: int | str = 1, stuck: bool = False, bad: str = "", side: int = 128) -> Path:
    """INSwapper's interface: `target`, `source` (512) → one picture 0–1; the last initializer is the emap.

    Args:
        path: to write.
        batch: 1 as insightface's file has it; "n": free.
        stuck: the batch of 1 cannot be freed.
        bad: "nan": gives no numbers. "noise": gives noise, whatever the picture. "shape": gives no picture. "emap": has no emap.
        side: of the pictures, px.
    """
    rng = np.random.default_rng(7)
    weights = {
        "k1": rng.normal(0, 0.25, (8, 3, 3, 3)).astype(np.float32),
        "style": rng.normal(0, 2.0, (512, 8)).astype(np.float32),
        "shape": np.array([1 if batch == 1 else -1, 8, 1, 1], np.int64),
        "k2": rng.normal(0, 0.4, (3, 8, 3, 3)).astype(np.float32),
        "one": np.array(1.0, np.float32),
        "zero": np.array(0.0, np.float32),
        "flat": np.array([1, 3 * side * side], np.int64),
        "square": np.array([1, 3, side, side], np.int64),
        "slim": np.array([0, -1], np.int64),
        "emap": (np.linalg.qr(rng.normal(size=(512, 512)))[0] * 1.5).astype(np.float32),
    }
    if bad == "emap":
        del weights["emap"]
    nodes = [
        helper.make_node("Conv", ["target", "k1"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("MatMul", ["source", "style"], ["s"]),
        helper.make_node("Reshape", ["s", "shape"], ["s4"]),
        helper.make_node("Add", ["s4", "one"], ["s5"]),
        helper.make_node("Mul", ["a", "s5"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Conv", ["c", "k2"], ["d"], pads=[1, 1, 1, 1]),
        helper.make_node("Sigmoid", ["d"], ["e"]),
    ]
    if bad == "noise":
        weights["noise"] = rng.normal(0, 3, (1, 3, side, side)).astype(np.float32)
        nodes[0] = helper.make_node("Conv", ["blind", "k1"], ["a"], pads=[1, 1, 1, 1])
        nodes.insert(0, helper.make_node("Add", ["nothing", "noise"], ["blind"]))
        nodes.insert(0, helper.make_node("Mul", ["target", "zero"], ["nothing"]))
        weights["emap"] = weights.pop("emap")  # stays the last
    last = "e"
    if stuck:  # the mean over the batch, which is itself with one
        nodes += [helper.make_node("ReduceMean", [last], ["m"], axes=[0], keepdims=1)]
        last = "m"
    if bad == "nan":
        nodes += [helper.make_node("Div", ["zero", "zero"], ["nan"]), helper.make_node("Add", [last, "nan"], ["bad"])]
        last = "bad"
    shape: list[int | str] = [batch, 3, side, side]
    if bad == "shape":
        nodes += [helper.make_node("Reshape", [last, "slim"], ["bad"])]
        last, shape = "bad", [batch, 3 * side * side]
    nodes += [helper.make_node("Identity", [last], ["output"])]
    return save(path, nodes, [value("target", batch, 3, side, side), value("source", batch, 512)], [value("output", *shape)], weights)


def arcface(path: Path, *, dim: int = 512, batch: int | str = "n") -> Path:
    """ArcFace's interface: one picture of 112 px, one vector. What it says depends on the coarse look of the crop."""
    rng = np.random.default_rng(3)
    weights = {
        "w": rng.normal(0, 1, (3 * 14 * 14, dim)).astype(np.float32),
        "flat": np.array([1 if batch == 1 else -1, 3 * 14 * 14], np.int64),
        "middle": np.zeros((1, 3, 1, 1), np.float32),
    }
    nodes = [
        helper.make_node("AveragePool", ["data"], ["a"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("GlobalAveragePool", ["a"], ["g"]),
        helper.make_node("Sub", ["a", "g"], ["c"]),
        helper.make_node("Reshape", ["c", "flat"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["fc1"]),
    ]
    return save(path, nodes, [value("data", batch, 3, 112, 112)], [value("fc1", batch, dim)], weights)


def scrfd(path: Path) -> Path:
    """SCRFD's interface with points: three strides, two anchors, nine outputs. It takes bright squares of 64 px for faces."""
    weights: dict[str, np.ndarray] = {}
    nodes, outputs = [], []
    heads: dict[str, list[tuple[int, int]]] = {"score": [], "bbox": [], "kps": []}
    for stride in (8, 16, 32):
        kernel = {"score": 1, "bbox": 4, "kps": 10}
        nodes.append(helper.make_node("AveragePool", ["input.1"], [f"p{stride}"], kernel_shape=[stride] * 2, strides=[stride] * 2))
        for head, size in kernel.items():
            gain = np.zeros((2 * size, 3, 1, 1), np.float32)
            bias = np.zeros(2 * size, np.float32)
            if head == "score":
                gain[0] = 20 if stride == 32 else 0  # the second anchor, and other strides, see nothing
                bias[:] = [-50, -50]
            elif head == "bbox":
                bias[:] = 1.0  # in strides, from the cell's corner
            else:
                bias[:10] = bias[10:] = np.array([-0.4, -0.4, 0.4, -0.4, 0, 0, -0.3, 0.5, 0.3, 0.5])
            weights |= {f"g{head}{stride}": gain, f"b{head}{stride}": bias, f"s{head}": np.array([-1, size], np.int64)}
            out = f"{head}_{stride}"
            nodes += [
                helper.make_node("Conv", [f"p{stride}", f"g{head}{stride}", f"b{head}{stride}"], [f"c{out}"]),
                helper.make_node("Transpose", [f"c{out}"], [f"t{out}"], perm=[2, 3, 0, 1]),
                helper.make_node("Reshape", [f"t{out}", f"s{head}"], [f"r{out}" if head == "score" else out]),
            ]
            if head == "score":
                nodes.append(helper.make_node("Sigmoid", [f"r{out}"], [out]))
            heads[head].append((stride, size))
    for head, some in heads.items():
        outputs += [value(f"{head}_{stride}", f"n{stride}", size) for stride, size in some]
    return save(path, nodes, [value("input.1", 1, 3, "height", "width")], outputs, weights)


def faces(path: Path, keys: np.ndarray, crops: np.ndarray, *, batch: int | str = "n") -> Path:
    """A network that draws one of the faces it was given: the one whose key is nearest to the latent. Something that really shows faces.

    Args:
        path: to write.
        keys: float32 (k, 512), unit length.
        crops: uint8 (k, 128, 128, 3) RGB.
        batch: as of `inswapper`.
    """
    count = len(keys)
    weights = {
        "keys": np.ascontiguousarray(keys.T * 200, np.float32),
        "crops": (crops.transpose(0, 3, 1, 2).reshape(count, -1) / 255).astype(np.float32),
        "square": np.array([1 if batch == 1 else -1, 3, 128, 128], np.int64),
        "none": np.array(0.0, np.float32),
        "emap": np.eye(512, dtype=np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["source", "keys"], ["a"]),
        helper.make_node("Softmax", ["a"], ["b"], axis=1),
        helper.make_node("MatMul", ["b", "crops"], ["c"]),
        helper.make_node("Reshape", ["c", "square"], ["d"]),
        helper.make_node("Mul", ["target", "none"], ["e"]),
        helper.make_node("Add", ["d", "e"], ["output"]),
    ]
    ports = [value("target", batch, 3, 128, 128), value("source", batch, 512)]
    return save(path, nodes, ports, [value("output", batch, 3, 128, 128)], weights)


def drawing(path: Path, swapper: OnnxSwapper, people: list[Identity]) -> Path:
    """`faces` with the faces of fakes, as the embedded renderer shows them; the spec that it goes with is the swapper's."""
    portraits = [swapper.renderer.portrait(one) for one in people]
    crops = [swapper.aligned(p.pixels, five_points(p.mesh)[None])[0][0] for p in portraits]
    return faces(path, swapper.latents(people) @ np.linalg.inv(swapper.network.last), np.stack(crops))


def weights_of(path: Path, **more: Any) -> dict[str, Any]:
    return {"place": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "licence": LICENCE, **more}


def spec(folder: Path, swapper: Path, encoder: Path | None = None, **more: Any) -> Path:
    """The YAML file of an INSwapper-like network beside it; `more` replaces whole keys."""
    identity: dict[str, Any] = {"projection": "last"}
    if encoder is not None:
        identity["encoder"] = weights_of(encoder)
    plain = {
        "name": "tiny",
        "model": weights_of(swapper),
        "crop": {"template": "arcface128", "size": 128},
        "identity": identity,
    }
    path = folder / f"{swapper.stem}.yaml"
    path.write_text(yaml.safe_dump({**plain, **more}, sort_keys=False))
    return path


def beside(path: Path) -> Path:
    """The network of a file, with its weights in another file beside it; that file."""
    other = path.with_suffix(".onnx.data")
    model = onnx.load(path)
    onnx.save(model, str(path), save_as_external_data=True, location=other.name, size_threshold=0)
    return other
