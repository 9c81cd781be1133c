"""Swap networks, tiny ones with INSwapper's interface, on a real face; against insightface's own INSwapper, and against what it gave."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import tiny_networks as tiny
from onnx import helper, numpy_helper
from skimage import data

from mfmc_ray.faces.detect import YuNet
from mfmc_ray.faces.mesh import FaceMesh
from mfmc_ray.faces.store import ModelError
from mfmc_ray.faces.weights import in_one_file
from mfmc_ray.identities.model import load_model
from mfmc_ray.identities.sample import sample
from mfmc_ray.swap.cover import NOTHING, PAGE, Covered
from mfmc_ray.swap.onnx import OnnxSwapper
from mfmc_ray.swap.paste import Made, look, paste
from mfmc_ray.swap.protocol import Order, SwapError
from mfmc_ray.swap.spec import TEMPLATES, load_spec

pytestmark = pytest.mark.models
EXPECTED = Path(__file__).parent / "inswapper_expected.npz"
"""What insightface 2.1's INSwapper.get made of the tiny network on the astronaut: made by this file with MFMC_WRITE_EXPECTED=1."""


@pytest.fixture(scope="module")
def face() -> SimpleNamespace:
    image = np.ascontiguousarray(data.astronaut())
    faces = YuNet(min_score=0.5).detect(image).take([0])
    meshes, _ = FaceMesh().fit(image, faces.boxes, faces.points)
    return SimpleNamespace(image=image, mesh=meshes[0], points=faces.points[0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("networks")
    tiny.inswapper(root / "free.onnx", batch="n")
    tiny.inswapper(root / "fixed.onnx")
    tiny.inswapper(root / "stuck.onnx", stuck=True)
    tiny.arcface(root / "encoder.onnx")
    return root


def made(folder: Path, name: str = "free", **more: Any) -> OnnxSwapper:
    return OnnxSwapper(load_spec(tiny.spec(folder, folder / f"{name}.onnx", folder / "encoder.onnx", **more)))


@pytest.fixture(scope="module")
def free(folder: Path) -> OnnxSwapper:
    return made(folder)


def latents(count: int) -> np.ndarray:
    vectors = np.random.default_rng(11).normal(size=(count, 512)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize(("name", "fixed"), [("free", False), ("fixed", False), ("stuck", True)])
def test_a_batch_is_as_one_by_one(folder: Path, face: SimpleNamespace, free: OnnxSwapper, name: str, fixed: bool) -> None:
    swapper = free if name == "free" else made(folder, name, batch=8)
    assert swapper.network.fixed == fixed
    crop, _ = swapper.aligned(face.image, face.points[None])
    crops = np.concatenate([np.roll(crop, 3 * k, 2) for k in range(11)])
    told = swapper.latents.projected(latents(11))
    together, _ = swapper.run(crops, told)
    for k in range(11):
        one, _ = swapper.run(crops[k : k + 1], told[k : k + 1])
        np.testing.assert_allclose(together[k], one[0], atol=1e-4)
    assert np.abs(together[0] - together[1]).mean() > 0.01


def reference(path: Path) -> Any:
    """insightface's own swapper."""
    swappers = pytest.importorskip("insightface.model_zoo.inswapper", reason="insightface is not installed (docs/swappers.md says how)")
    runtime = pytest.importorskip("onnxruntime")
    return swappers.INSwapper(str(path), runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"]))


def same_as_theirs(
    folder: Path, swapper: OnnxSwapper, face: SimpleNamespace, crop: np.ndarray, matrix: np.ndarray, whole: np.ndarray
) -> None:
    """Holds our way against INSwapper.get's: its crop (128, 128, 3) RGB, its matrix (2, 3), its picture around the face."""
    crops, matrices = swapper.aligned(face.image, face.points[None])
    np.testing.assert_allclose(matrices[0], matrix, atol=1e-3)
    values, _ = swapper.run(crops, swapper.latents.projected(latents(1)))
    ours = np.clip(values[0] * 255 + 0.5, 0, 255).astype(np.uint8)
    assert np.abs(ours.astype(int) - crop).max() <= 1  # theirs cuts off, ours rounds
    place = look(swapper.renderer, face.image, face.mesh, matrices[0], 128, None, 0.0, "plain")
    patch = paste(place, Made(crop, matrices[0], None), "box", None, False)
    result = face.image.copy()
    patch.paste(result)
    off = np.abs(result.astype(int) - whole)
    assert off.max() <= 2
    assert (off > 1).any(2).mean() < 0.001
    assert np.abs(result.astype(int) - face.image).max() > 50


def test_it_is_what_insightface_does(folder: Path, free: OnnxSwapper, face: SimpleNamespace) -> None:
    theirs = reference(folder / "fixed.onnx")
    target, source = SimpleNamespace(kps=face.points), SimpleNamespace(normed_embedding=latents(1)[0])
    bgr = np.ascontiguousarray(face.image[..., ::-1])
    crop, matrix = theirs.get(bgr, target, source, paste_back=False)
    whole = theirs.get(bgr, target, source)[..., ::-1]
    same_as_theirs(folder, free, face, crop[..., ::-1], matrix, whole.astype(int))
    # the network's own numbers, from the very same crop
    aligned, _ = free.aligned(face.image, face.points[None])
    told = free.latents.projected(latents(1))
    blob = cv2.dnn.blobFromImage(aligned[0], 1 / 255, (128, 128), (0, 0, 0), swapRB=False)
    theirs_floats = theirs.session.run(None, {"target": blob, "source": told})[0][0].transpose(1, 2, 0)
    np.testing.assert_allclose(free.run(aligned, told)[0][0], theirs_floats, atol=1e-4)
    np.testing.assert_allclose(told[0], normed(latents(1)[0] @ theirs.emap), atol=1e-5)
    if os.environ.get("MFMC_WRITE_EXPECTED"):
        y, x = slice(0, 260), slice(130, 330)
        np.savez_compressed(EXPECTED, crop=crop[..., ::-1], matrix=matrix, whole=whole[y, x], points=face.points, at=[0, 130])


def normed(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def test_it_is_what_insightface_gave(folder: Path, free: OnnxSwapper, face: SimpleNamespace) -> None:
    with np.load(EXPECTED) as kept:
        crop, matrix, part, points, (top, left) = (kept[name] for name in ("crop", "matrix", "whole", "points", "at"))
    whole = face.image.astype(int)
    whole[top : top + part.shape[0], left : left + part.shape[1]] = part
    there = SimpleNamespace(image=face.image, mesh=face.mesh, points=points)
    same_as_theirs(folder, free, there, crop, matrix, whole)


def test_templates_are_the_published_ones() -> None:
    # insightface's face_align.estimate_norm: arcface_dst × side / 112, or + 8 px × side / 128
    np.testing.assert_allclose(TEMPLATES["arcface112"][0] * 112, [38.2946, 51.6963], atol=1e-4)
    np.testing.assert_allclose(TEMPLATES["arcface128"][4] * 256, [2 * 70.7299 + 16, 2 * 92.2041], atol=1e-3)


@pytest.fixture(scope="module")
def drawing(folder: Path, free: OnnxSwapper) -> OnnxSwapper:
    """A network that really draws faces: those of eight fakes, whichever the latent is nearest to."""
    tiny.drawing(folder / "faces.onnx", free, [sample(free.model, seed) for seed in range(8)])
    return made(folder, "faces")


def tiny_identity(folder: Path) -> dict[str, Any]:
    return {"encoder": tiny.weights_of(folder / "encoder.onnx")}


def test_only_around_the_face_and_behind_what_lies_before_it(drawing: OnnxSwapper, face: SimpleNamespace) -> None:
    objects = np.zeros((PAGE, PAGE), np.float32)
    objects[:, : PAGE // 2] = 1
    covered = Covered(objects, np.zeros_like(objects), 0.0, 0.0, 0.0, 0.0)
    person = sample(drawing.model, 0)
    bare, hidden = (swapped(drawing, face, person, what) for what in (NOTHING, covered))
    low, high = face.mesh[:, :2].min(0).astype(int) - 3, face.mesh[:, :2].max(0).astype(int) + 4
    outside = np.ones(face.image.shape[:2], bool)
    outside[low[1] : high[1], low[0] : high[0]] = False
    assert (bare[outside] == face.image[outside]).all()
    nose = int(face.mesh[4, 0])
    left = slice(low[1], high[1]), slice(low[0], nose - 12)
    changed = [np.abs(one[left].astype(int) - face.image[left]).mean() for one in (bare, hidden)]
    assert changed[0] > 3
    assert changed[1] < 0.1 * changed[0]


def swapped(swapper: OnnxSwapper, face: SimpleNamespace, person: Any, covered: Covered) -> np.ndarray:
    result = face.image.copy()
    swapper.swap(face.image, face.mesh, person, covered=covered).paste(result)
    return result


def test_identities_differ_and_the_tone_is_the_pictures(drawing: OnnxSwapper, face: SimpleNamespace) -> None:
    one, other = (swapped(drawing, face, sample(drawing.model, seed), NOTHING) for seed in (0, 5))
    inside = tuple(slice(int(face.mesh[:, k].min()) + 8, int(face.mesh[:, k].max()) - 8) for k in (1, 0))
    assert np.abs(one[inside].astype(int) - other[inside]).mean() > 3
    for result in (one, other):
        assert np.abs(result[inside].mean((0, 1)) - face.image[inside].mean((0, 1))).max() < 14


def test_many_orders_are_as_each_alone(drawing: OnnxSwapper, face: SimpleNamespace) -> None:
    mirrored = np.ascontiguousarray(face.image[:, ::-1])
    faces = YuNet(min_score=0.5).detect(mirrored).take([0])
    meshes, _ = FaceMesh().fit(mirrored, faces.boxes, faces.points)
    orders = [Order(face.image, face.mesh, sample(drawing.model, seed)) for seed in (0, 1, 2)]
    orders += [Order(mirrored, meshes[0], sample(drawing.model, 1)), Order(face.image, face.mesh * np.nan, orders[0].identity)]
    together = drawing.swap_many(orders)
    assert together[-1] is None
    for order, patch in zip(orders[:-1], together, strict=False):
        alone = drawing.swap(order.image, order.mesh, order.identity)
        assert patch is not None
        np.testing.assert_allclose(patch.pixels.astype(int), alone.pixels, atol=1)
        np.testing.assert_allclose(patch.mesh, alone.mesh, atol=0.5)


def test_what_is_no_face_is_nothing(folder: Path, free: OnnxSwapper, face: SimpleNamespace) -> None:
    tiny.inswapper(folder / "nan.onnx", batch="n", bad="nan")
    for swapper in (free, made(folder, "nan")):
        with pytest.raises(SwapError):
            swapper.swap(face.image, face.mesh, sample(swapper.model, 0))
        with pytest.raises(SwapError):
            swapper.portrait(sample(swapper.model, 4))  # on a man's head a detector takes some of this noise for a face


@contextmanager
def refused(match: str) -> Iterator[pytest.ExceptionInfo[ModelError]]:
    with pytest.raises(ModelError, match=match) as caught:
        yield caught
    assert "\n" not in str(caught.value)


def test_a_wrong_network_is_said_in_one_sentence(folder: Path) -> None:
    tiny.inswapper(folder / "shape.onnx", batch="n", bad="shape")
    with refused("not a square picture"):
        made(folder, "shape")
    with refused(r"takes target \(3, 128, 128\), source \(512,\): wanted are a picture of 256 px"):
        made(folder, crop={"template": "arcface128", "size": 256})
    with refused("no output 'face'"):
        made(folder, output={"image": "face"})
    with refused("its size|SHA-256"):
        tiny_spec = load_spec(tiny.spec(folder, folder / "free.onnx", folder / "encoder.onnx"))
        OnnxSwapper(replace(tiny_spec, model=replace(tiny_spec.model, sha256="0" * 64)))
    with refused("cannot be read"):
        OnnxSwapper(replace(tiny_spec, model=replace(tiny_spec.model, place=str(folder / "none.onnx"))))
    (folder / "text.onnx").write_text("no network")
    with refused("no network that onnxruntime can load"):
        made(folder, "text")
    tiny.inswapper(folder / "plain.onnx", batch="n", bad="emap")
    with refused("no matrix"):
        made(folder, "plain")


def test_given_latents_and_mixtures_are_the_seeds_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mfmc_ray.swap.latent.ANCHORS", 10)
    np.save(folder / "rows.npy", latents(40))
    given = made(folder, identity={"latents": tiny.weights_of(folder / "rows.npy"), "mix": 3, "projection": "last"})
    mixed = made(folder, identity=tiny_identity(folder) | {"mix": 3})
    people = [sample(given.model, seed) for seed in (4, 5)]
    for swapper in (given, mixed):
        first, second = swapper.latents(people)
        again = swapper.latents([sample(swapper.model, 4)])[0]
        np.testing.assert_array_equal(first, again)
        np.testing.assert_allclose(np.linalg.norm([first, second], axis=1), 1, atol=1e-5)
        assert first @ second < 0.999
    assert not np.allclose(mixed.latents(people), made(folder, identity=tiny_identity(folder)).latents(people), atol=1e-3)


def test_its_model_is_the_shipped_one(free: OnnxSwapper) -> None:
    assert free.model is load_model()
    assert (free.name, free.licences[0].name, free.licences[0].commercial) == ("tiny", tiny.LICENCE, False)


@pytest.mark.parametrize("part", ["model", "encoder"])
def test_weights_beside_the_file_are_refused(part: str, tmp_path: Path) -> None:
    tiny.inswapper(tmp_path / "net.onnx", batch="n")
    tiny.arcface(tmp_path / "enc.onnx")
    file = tmp_path / ("net.onnx" if part == "model" else "enc.onnx")
    tiny.beside(file)
    spec = load_spec(tiny.spec(tmp_path, tmp_path / "net.onnx", tmp_path / "enc.onnx"))
    with refused(f"{file.stem}.onnx has weights in other files, which its SHA-256 says nothing of: save it as one file") as caught:
        OnnxSwapper(spec)
    command = str(caught.value).split("`")[1]
    subprocess.run(shlex.split(command.replace("python", sys.executable, 1)), cwd=tmp_path, check=True)
    (tmp_path / "one.onnx").replace(file)
    OnnxSwapper(load_spec(tiny.spec(tmp_path, tmp_path / "net.onnx", tmp_path / "enc.onnx")))


def test_weights_elsewhere_are_found_wherever_they_are_used(tmp_path: Path) -> None:
    outside = numpy_helper.from_array(np.ones(3, np.float32), "w")
    onnx.external_data_helper.set_external_data(outside, "w.bin")
    number = tiny.value("x", 3)
    constant = helper.make_node("Constant", [], ["w"], value=outside)
    branch = helper.make_graph([constant], "branch", [], [tiny.value("w", 3)])
    whole = [helper.make_node("If", ["c"], ["x"], then_branch=branch, else_branch=branch)]
    inner = helper.make_graph([], "inner", [], [number], [outside])
    for nodes, functions in (
        (whole, []),
        ([constant], []),
        ([helper.make_node("If", ["c"], ["x"], then_branch=inner, else_branch=inner)], []),
        ([], [helper.make_function("own", "f", [], ["w"], [constant], [helper.make_opsetid("", 17)])]),
    ):
        model = helper.make_model(helper.make_graph(nodes, "g", [], [number]), functions=functions)
        onnx.save(model, str(tmp_path / "net.onnx"))
        with refused("weights in other files"):
            in_one_file(tmp_path / "net.onnx")


@pytest.mark.parametrize("rows", [1, 4])
def test_other_pictures_than_faces_are_nobody_s(free: OnnxSwapper, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    crops = np.zeros((3, 128, 128, 3), np.uint8)
    real = free.network._bound
    monkeypatch.setattr(free.network, "_bound", lambda *told: [np.resize(out, (rows, *out.shape[1:])) for out in real(*told)])
    with refused("for 3 faces"):
        free.run(crops, free.latents.projected(latents(3)))
