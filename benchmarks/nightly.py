"""What a night costs against a full run: `python benchmarks/nightly.py --photos FOLDER [--images 2000] [--share 0.01]`.

Makes a collection of that many images out of the photos (cut, mirrored, lit differently; without photos, of public pictures of 128 px,
one in ten with a face), runs `mfmc nightly` on it, changes one image and runs again (which shows what a night costs in any case: Ray,
models, index, report), then changes the share: a quarter each of new, changed, deleted and moved images. Prints wall time and CPU time of
all processes, and their ratios to the full run.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import numpy as np
import psutil
from PIL import Image
from skimage.data import astronaut, coffee

Rng = np.random.Generator


def sources(photos: Path | None) -> list[Image.Image]:
    """Pictures to make others of."""
    if photos is None:
        cups = [coffee()[y : y + 128, x : x + 128] for y in (50, 100, 150) for x in (100, 200, 300)]
        return [Image.fromarray(np.ascontiguousarray(cut)) for cut in (astronaut()[40:168, 160:288], *cups)]
    found = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    return [Image.open(path).convert("RGB") for path in found]


def variant(image: Image.Image, rng: Rng) -> Image.Image:
    """Another picture of the same."""
    left, top = (int(rng.integers(0, max(1, side // 16))) for side in image.size)
    cut = image.crop((left, top, image.width - int(rng.integers(0, 8)), image.height - int(rng.integers(0, 8))))
    if rng.random() < 0.5:
        cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return Image.fromarray(np.clip(np.asarray(cut) * rng.uniform(0.85, 1.1), 0, 255).astype(np.uint8))


def measured(command: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of a command and all that it starts."""
    started, seen = time.monotonic(), {}
    with tempfile.TemporaryFile() as said:
        process = psutil.Popen(command, stdout=said, stderr=said)
        while process.poll() is None:
            for one in [process, *children(process)]:
                try:
                    seen[one.pid, one.create_time()] = sum(one.cpu_times()[:2])
                except psutil.Error:
                    continue
            time.sleep(0.1)
        wall = time.monotonic() - started
        if process.returncode:
            said.seek(0)
            sys.exit(said.read().decode())
    return wall, sum(seen.values())


def children(process: psutil.Process) -> Iterator[psutil.Process]:
    try:
        yield from process.children(recursive=True)
    except psutil.Error:
        return


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, help="folder with photos of people")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--share", type=float, default=0.01)
    parser.add_argument("--folder", type=Path, help="where to work; removed first (default: a temporary folder)")
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="nightly-"))
    shutil.rmtree(folder, ignore_errors=True)
    photos, rng, made = folder / "in", np.random.default_rng(0), sources(asked.photos)
    photos.mkdir(parents=True)

    def save(name: str) -> None:
        variant(made[int(rng.integers(len(made)))], rng).save(photos / name, "JPEG", quality=90)

    for i in range(asked.images):
        save(f"{i:05}.jpg")
    config = folder / "nightly.yaml"
    config.write_text(f"input: {photos}\nout: {folder / 'out'}\nwork: {folder / 'work'}\n")
    time.sleep(3)  # or every file would be compared again, for it could have been modified as it was listed

    def night(label: str, change: Callable[[], None] | None = None) -> tuple[float, float]:
        if change is not None:
            change()
            time.sleep(3)
        wall, cpu = measured([sys.executable, "-m", "mfmc_ray.cli", "nightly", "--config", str(config)])
        published = duckdb.sql(f"select path from '{folder}/out/images/*.parquet'").fetchall()  # noqa: S608
        assert sorted(name for (name,) in published) == sorted(path.name for path in photos.iterdir())
        print(f"{label}: {wall:.1f} s, {cpu:.1f} s of CPU", flush=True)
        return wall, cpu

    def some() -> None:
        each = max(1, round(asked.images * asked.share / 4))
        names = sorted(path.name for path in photos.iterdir())
        chosen = [names[i] for i in rng.choice(len(names), 3 * each, replace=False)]
        for i, name in enumerate(chosen):
            if i < each:
                save(name)
            elif i < 2 * each:
                (photos / name).unlink()
            else:
                (photos / name).rename(photos / f"moved-{name}")
        for i in range(each):
            save(f"new-{i:05}.jpg")

    full = night(f"full run of {asked.images} images")
    nothing = night("nothing changed")
    one = night("one image changed", lambda: save("00000.jpg"))
    changed = night(f"{asked.share:.1%} changed", some)
    for name, k in (("wall", 0), ("CPU", 1)):
        print(
            f"{name}: night / full run {changed[k] / full[k]:.2%}; above the night with one image {(changed[k] - one[k]) / full[k]:.2%}; "
            f"nothing changed {nothing[k] / full[k]:.2%}"
        )


if __name__ == "__main__":
    main()
