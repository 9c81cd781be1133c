"""The renderer on a device against the one of NumPy and OpenCV: how far results differ, and how long they take.

    python benchmarks/device_swap.py FOLDER [FOLDER …] [--device cpu] [--faces 60] [--sheet sheet.png] [--speed]

Every face of 20 px and more that is found in the folders' pictures gets a sampled identity, by both. Differences are in levels of 255,
over the pixels that the swap changes; the cosines are those of both results' embeddings (SFace, dlib). `--speed`: processor (on a GPU:
wall) time a face, by NumPy, on the device one at a time, and in batches. `--sheet`: originals, both results, and their difference × 40.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mfmc_ray.codec import CodecError, decode
from mfmc_ray.faces.detect import YuNet
from mfmc_ray.faces.embed import DlibEmbedder, SFaceEmbedder
from mfmc_ray.faces.mesh import FaceMesh, five_points
from mfmc_ray.identities.model import load_model
from mfmc_ray.identities.sample import sample
from mfmc_ray.swap.device.morph import DeviceSwapper
from mfmc_ray.swap.protocol import Order, Patch
from mfmc_ray.swap.render import MorphSwapper

SMALLEST = 20
WIDTHS = (30, 60, 120, 240)
SPEED_FACES = 16
TILE = 200


@dataclass(frozen=True)
class Compared:
    """One face: differences over what changes, whether windows are the same, cosines by recognizer."""

    width: float
    mean: float
    most: float
    nearly_all: float
    cosines: tuple[float, ...]


def orders_of(folders: list[Path], most: int) -> list[Order]:
    """Faces spread evenly over the pictures of the folders."""
    detector, fitter, model = YuNet(min_score=0.6), FaceMesh(), load_model()
    photos = sorted(p for folder in folders for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
    found: list[Order] = []
    for photo in photos[:: max(1, len(photos) // most)]:
        try:
            image = decode(photo.read_bytes(), 10**8).pixels
        except CodecError:
            continue
        faces = detector.detect(image)
        large = np.flatnonzero(faces.sizes >= SMALLEST)[:4]
        if len(large):
            meshes, _ = fitter.fit(image, faces.boxes[large], faces.points[large])
            found += [Order(image, mesh, sample(model, len(found) + k), 8.0 + (len(found) + k) * 7 % 70) for k, mesh in enumerate(meshes)]
        if len(found) >= most:
            break
    return found[:most]


def one_by_one(swapper: MorphSwapper, orders: list[Order]) -> list[Patch]:
    return [swapper.swap(o.image, o.mesh, o.identity, age=o.age, strength=o.strength, covered=o.covered) for o in orders]


def compared(order: Order, plain: Patch, device: Patch, embedders: list[SFaceEmbedder | DlibEmbedder]) -> Compared:
    assert (plain.x, plain.y, plain.pixels.shape) == (device.x, device.y, device.pixels.shape)
    height, width = plain.pixels.shape[:2]
    changed = (plain.pixels != order.image[plain.y : plain.y + height, plain.x : plain.x + width]).any(2)
    off = np.abs(plain.pixels.astype(int) - device.pixels)[changed]
    results = [worn(order, patch) for patch in (plain, device)]
    five = five_points(plain.mesh)[None]
    cosines = []
    for embedder in embedders:
        a, b = (embedder.embed(result, five)[0] for result in results)
        cosines.append(float(a @ b))
    return Compared(float(np.ptp(order.mesh[:, 0])), float(off.mean()), float(off.max()), float(np.percentile(off, 99.9)), tuple(cosines))


def worn(order: Order, patch: Patch) -> np.ndarray:
    result = order.image.copy()
    patch.paste(result)
    return result


def sheet(orders: list[Order], plain: list[Patch], device: list[Patch], path: Path) -> None:
    """A column a face."""
    columns = []
    for order, a, b in zip(orders, plain, device, strict=True):
        height, width = a.pixels.shape[:2]
        before = order.image[a.y : a.y + height, a.x : a.x + width]
        off = np.clip(np.abs(a.pixels.astype(int) - b.pixels) * 40, 0, 255).astype(np.uint8)
        columns.append(
            np.concatenate([cv2.resize(one, (TILE, TILE), interpolation=cv2.INTER_AREA) for one in (before, a.pixels, b.pixels, off)])
        )
    cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(columns, 1), cv2.COLOR_RGB2BGR))


def seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    """The shortest of three, after a first."""
    taken = []
    for _ in range(4):
        started = clock()
        work()
        taken.append(clock() - started)
    return min(taken[1:])


def speed(order: Order, plain: MorphSwapper, device: DeviceSwapper) -> None:
    model = load_model()
    clock = time.process_time if device.device.type == "cpu" else time.perf_counter
    print(f"{SPEED_FACES} identities on a face, ms a swap (textures at hand)")
    print(
        "| face px | NumPy | device, one by one | device, together | NumPy / together | one by one / together |\n|---|---|---|---|---|---|"
    )
    for width in WIDTHS:
        factor = width / float(np.ptp(order.mesh[:, 0]))
        image = np.asarray(
            cv2.resize(order.image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
        )
        mesh = (order.mesh * factor).astype(np.float32)
        covered = plain.covered(image, mesh)
        orders = [Order(image, mesh, sample(model, seed), 35.0, covered=covered) for seed in range(SPEED_FACES)]
        times = [
            seconds(work, clock) / SPEED_FACES * 1e3
            for work in (
                lambda some=orders: one_by_one(plain, some),
                lambda some=orders: one_by_one(device, some),
                lambda some=orders: device.swap_many(some),
            )
        ]
        print(
            f"| {width} | {times[0]:.1f} | {times[1]:.1f} | {times[2]:.1f} | {times[0] / times[2]:.2f} | {times[1] / times[2]:.2f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--faces", type=int, default=60)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--speed", action="store_true")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    orders = orders_of(given.folders, given.faces)
    plain, device = MorphSwapper(load_model()), DeviceSwapper(load_model(), given.device)
    by_numpy, by_device = one_by_one(plain, orders), [patch for patch in device.swap_many(orders) if patch is not None]
    embedders: list[SFaceEmbedder | DlibEmbedder] = [SFaceEmbedder(), DlibEmbedder()]
    found = [compared(*three, embedders) for three in zip(orders, by_numpy, by_device, strict=True)]
    widths = [one.width for one in found]
    print(f"{len(found)} faces, {min(widths):.0f} to {max(widths):.0f} px wide, median {np.median(widths):.0f}")
    print(f"levels, the worst face: mean {max(o.mean for o in found):.4f}, 99.9 % {max(o.nearly_all for o in found):.1f}, "
          f"most {max(o.most for o in found):.0f}; the mean face: mean {np.mean([o.mean for o in found]):.5f}")  # fmt: skip
    print(f"faces with a pixel that differs by more than a level: {sum(o.most > 1 for o in found)}")
    print("least cosine of both results: " + ", ".join(f"{e.name} {min(o.cosines[k] for o in found):.6f}" for k, e in enumerate(embedders)))
    if given.sheet:
        sheet(
            orders[:: max(1, len(orders) // 12)][:12],
            by_numpy[:: max(1, len(orders) // 12)][:12],
            by_device[:: max(1, len(orders) // 12)][:12],
            given.sheet,
        )
    if given.speed:
        speed(orders[0], plain, device)


if __name__ == "__main__":
    main()
