"""How many faces are found, how many things are mistaken for one, and how long that takes.

    OMP_NUM_THREADS=1 python benchmarks/detection.py ../shared/data

The folder holds `masks_with_boxes` (photos with human-drawn boxes as VOC XML), `no_faces`, and folders of photos with a face each.
Times are CPU time on one thread.
"""

from __future__ import annotations

import argparse
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from mfmc_ray.faces.detect import CenterFace, YuNet, overlap
from mfmc_ray.faces.faces import F32, Faces
from mfmc_ray.faces.finder import FaceFinder, merge
from mfmc_ray.faces.mesh import FaceMesh

BANDS = [(0, 8), (8, 12), (12, 16), (16, 24), (24, 40), (40, 10_000)]
ONE_FACE = ("portraits", "official_portraits", "people", "attributes")
SAME = 0.3  # IoU with the human box


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def human_boxes(path: Path) -> F32:
    root = ET.parse(path.with_suffix(".xml")).getroot()  # noqa: S314
    return np.array([[float(box.findtext(k, "")) for k in ("xmin", "ymin", "xmax", "ymax")] for box in root.iter("bndbox")], np.float32)


def some(folder: Path, most: int) -> list[Path]:
    paths = sorted(folder.rglob("*.jpg")) + sorted(folder.rglob("*.png"))
    return [paths[i] for i in sorted(np.random.default_rng(0).permutation(len(paths))[:most])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=60, help="most images of a folder (default: %(default)s)")
    parser.add_argument("--min-score", type=float, default=0.6)
    options = parser.parse_args()

    cv2.setNumThreads(1)
    yunet, centerface = YuNet(), CenterFace()
    finder = FaceFinder([yunet, centerface], FaceMesh(), min_score=options.min_score)

    def each(image: np.ndarray) -> dict[str, Faces]:
        parts = {"yunet": yunet.detect(image), "centerface": centerface.detect(image)}
        alone = {name: faces.take(faces.scores >= options.min_score) for name, faces in parts.items()}
        return {**alone, "merged": merge(list(parts.values()), options.min_score)}

    names = ("yunet", "centerface", "merged")
    table = Table("found", *names, title=f"min score {options.min_score}")

    def share(title: str, found: dict[str, list[bool]]) -> None:
        table.add_row(f"{title} (n={len(found['merged'])})", *(f"{np.mean(found[name]):.3f}" for name in names))

    hits: dict[str, list[bool]] = {name: [] for name in names}
    sizes: list[float] = []
    for path in some(options.data / "masks_with_boxes", options.images):
        boxes = human_boxes(path)
        sizes += list(np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)))
        for name, faces in each(read(path)).items():
            hits[name] += list((overlap(boxes, faces.boxes)[0] > SAME).any(1))
    for low, high in BANDS:
        band = [low <= size < high for size in sizes]
        share(
            f"human boxes of {low}–{high} px" if high < 1000 else f"human boxes over {low} px",
            {n: list(np.array(h)[band]) for n, h in hits.items()},
        )

    for folder in ONE_FACE:
        found = [each(read(path)) for path in some(options.data / folder, options.images)]
        share(f"{folder}: a face is found", {name: [len(f[name]) > 0 for f in found] for name in names})

    turns: dict[int, dict[str, list[bool]]] = {k: {name: [] for name in names} for k in (1, 2)}
    for path in some(options.data / "scenes", options.images):
        image = read(path)
        sure = yunet.detect(image)
        sure = sure.take((sure.scores > 0.8) & (sure.sizes > 16))
        if len(sure) == 0:
            continue
        for quarter, seen in turns.items():
            for name, faces in each(np.ascontiguousarray(np.rot90(image, quarter))).items():
                seen[name] += list((overlap(turned(sure.boxes, quarter, image.shape), faces.boxes)[0] > SAME).any(1))
    for quarter, seen in turns.items():
        share(f"scenes turned by {quarter * 90}°: the faces seen before", seen)

    false = [each(read(path)) for path in some(options.data / "no_faces", options.images)]
    table.add_row(f"no_faces: detections an image (n={len(false)})", *(f"{np.mean([len(f[name]) for f in false]):.3f}" for name in names))
    Console(width=120).print(table)

    speed = Table("CPU ms an image", "yunet", "centerface", "finder.find")
    photos = [read(path) for path in some(options.data / "scenes", 8)]
    for side in (640, 2000):
        scaled = [cv2.resize(p, None, fx=side / max(p.shape), fy=side / max(p.shape)) for p in photos]
        speed.add_row(f"longer side {side} px", *(f"{timed(run, scaled):.0f}" for run in (yunet.detect, centerface.detect, finder.find)))
    Console(width=120).print(speed)


def turned(boxes: F32, quarters: int, shape: tuple[int, ...]) -> F32:
    """Boxes of an image after `np.rot90(image, quarters)`."""
    height, width = shape[:2]
    for _ in range(quarters):
        boxes = np.stack([boxes[:, 1], width - boxes[:, 2], boxes[:, 3], width - boxes[:, 0]], axis=1)
        height, width = width, height
    return boxes


def timed(run: Callable[[np.ndarray], Faces], images: list[np.ndarray]) -> float:
    """Median over images of the best of three runs, CPU ms."""
    best = []
    for image in images:
        runs = []
        for _ in range(3):
            start = time.process_time()
            run(image)
            runs.append(time.process_time() - start)
        best.append(min(runs))
    return float(np.median(best)) * 1000


if __name__ == "__main__":
    main()
