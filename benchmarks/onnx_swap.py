"""Swap networks: the batched way with its paste-back around the face, against insightface's own INSwapper.get, one face after another.

The network is a tiny one with INSwapper's interface (there are no weights to be had here), so what is compared is all that is around it:
alignment, preparation, the calls, and the paste-back. With a real network the same milliseconds come off a longer time. One thread.

    python benchmarks/onnx_swap.py [--batch 16] [--rounds 15]
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import onnxruntime as ort
from rich.console import Console
from rich.table import Table
from skimage import data

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import tiny_networks as tiny

from mfmc_ray.faces import runtime
from mfmc_ray.faces.detect import YuNet
from mfmc_ray.faces.mesh import FaceMesh, five_points
from mfmc_ray.identities.model import load_model
from mfmc_ray.identities.sample import Identity, sample
from mfmc_ray.swap.cover import NOTHING
from mfmc_ray.swap.onnx import OnnxSwapper
from mfmc_ray.swap.paste import Made, look, paste
from mfmc_ray.swap.protocol import Order
from mfmc_ray.swap.spec import load_spec


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    runtime.use(threads=1)
    warnings.simplefilter("ignore", FutureWarning)  # insightface's use of scikit-image
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        return measured(Path(folder), arguments.batch, arguments.rounds)


def measured(folder: Path, batch: int, rounds: int) -> int:
    free, fixed = tiny.inswapper(folder / "free.onnx", batch="n"), tiny.inswapper(folder / "fixed.onnx")
    stuck, encoder = tiny.inswapper(folder / "stuck.onnx", stuck=True), tiny.arcface(folder / "encoder.onnx")
    box = {"mask": "box", "match": False}
    swappers = {
        name: OnnxSwapper(load_spec(tiny.spec(folder, path, encoder, batch=batch, paste=how)))
        for name, path, how in (("free", free, box), ("fixed", fixed, box), ("stuck", stuck, box))
    }
    natural = OnnxSwapper(load_spec(tiny.spec(folder, tiny.drawing(folder / "faces.onnx", swappers["free"], people(8)), encoder)))
    theirs = insightface(fixed)
    table = Table(title=f"CPU ms a face, 1 thread, medians of {rounds}; ratio to INSwapper.get")
    for heading in ("picture", "what", "ms a face", "ratio"):
        table.add_column(heading, justify="left" if heading in ("picture", "what") else "right")
    ok = True
    for size in ((512, 512), (1280, 886), (3840, 2160)):
        image, mesh = picture(size)
        base = None
        if theirs is not None:
            base = timed(lambda image=image, mesh=mesh: one_by_one(theirs, image, mesh, batch), rounds) / batch
            table.add_row(f"{size[0]}×{size[1]}", "insightface: INSwapper.get, paste_back", f"{base:.2f}", "1")
        rows: list[tuple[str, Callable[[], object]]] = [
            (f"batch of {batch}, box paste (the same picture)", lambda i=image, m=mesh: same_picture(swappers["free"], i, m, batch)),
            (f"batch of {batch}, file with a fixed batch, freed", lambda i=image, m=mesh: same_picture(swappers["fixed"], i, m, batch)),
            ("one by one, file that cannot be freed", lambda i=image, m=mesh: same_picture(swappers["stuck"], i, m, batch)),
            (
                f"batch of {batch}, mask of the mesh, tone, grain, looked at",
                lambda i=image, m=mesh: whole_way(natural, i, m, batch),
            ),
        ]
        for k, (what, run) in enumerate(rows):
            each = timed(run, rounds) / batch
            ratio = f"{base / each:.1f}" if base else "–"
            ok &= k > 0 or base is None or base / each >= 3
            table.add_row("", what, f"{each:.2f}", ratio)
    Console(width=140).print(table)
    if theirs is None:
        print("insightface is not installed, so there is nothing to compare with: docs/swappers.md says how")
    return 0 if ok else 1


@functools.cache
def people(count: int) -> list[Identity]:
    """The same ones each time, so that what is told of them is remembered, as in a run."""
    return [sample(load_model(), seed) for seed in range(count)]


def picture(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A face of 512 × 512 px of photo somewhere in a picture of this size, and its mesh."""
    image = np.full((size[1], size[0], 3), 90, np.uint8)
    x, y = (size[0] - 512) // 2, (size[1] - 512) // 2
    image[y : y + 512, x : x + 512] = data.astronaut()
    faces = YuNet(min_score=0.5).detect(np.ascontiguousarray(data.astronaut())).take([0])
    meshes, _ = FaceMesh().fit(data.astronaut(), faces.boxes, faces.points)
    return image, (meshes[0] + [x, y, 0]).astype(np.float32)


def insightface(path: Path) -> object | None:
    try:
        from insightface.model_zoo.inswapper import INSwapper
    except ImportError:
        return None
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with contextlib.redirect_stdout(io.StringIO()):
        return INSwapper(str(path), ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]))


def latents(count: int) -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(count, 512)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def one_by_one(theirs: object, image: np.ndarray, mesh: np.ndarray, batch: int) -> None:
    points = five_points(mesh)
    for vector in latents(batch):
        theirs.get(image, SimpleNamespace(kps=points), SimpleNamespace(normed_embedding=vector))  # type: ignore[attr-defined]


def same_picture(swapper: OnnxSwapper, image: np.ndarray, mesh: np.ndarray, batch: int) -> None:
    """What INSwapper.get does, for a batch: aligned, told, run, pasted back; nothing is looked at."""
    found = [swapper.aligned(image, five_points(mesh)[None]) for _ in range(batch)]
    values, _ = swapper.run(np.concatenate([crop for crop, _ in found]), swapper.latents.projected(latents(batch)))
    canvas = image
    for value, (_, matrices) in zip(values, found, strict=True):
        made = Made(np.clip(value * 255 + 0.5, 0, 255).astype(np.uint8), matrices[0], None)
        place = look(swapper.renderer, canvas, mesh, matrices[0], len(value), None, 0.0, "plain")
        paste(place, made, "box", None, False)


def whole_way(swapper: OnnxSwapper, image: np.ndarray, mesh: np.ndarray, batch: int) -> None:
    """What a run does with a face that several identities are tried on, without the search for covers."""
    some = people(8)
    orders = [Order(image, mesh, some[k % 8], covered=NOTHING) for k in range(batch)]
    swapper.swap_many(orders)


def timed(run: Callable[[], object], rounds: int) -> float:
    """Median ms of CPU time, which other processes of the machine do not change."""
    run()
    spent = []
    for _ in range(rounds):
        started = time.process_time()
        run()
        spent.append(time.process_time() - started)
    return 1000 * statistics.median(spent)


if __name__ == "__main__":
    sys.exit(main())
