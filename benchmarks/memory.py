"""Whether memory grows with the collection: `python benchmarks/memory.py [--images 1000 10000]`.

Anonymizes collections of so many small pictures, one in two hundred with a face, and samples the memory of the command and of its workers
(PSS: shared pages are divided among those who share them). Prints the peaks, and the ratios of the last to the first.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from skimage.data import astronaut

FACE = Image.fromarray(astronaut()[40:168, 160:288]).resize((64, 64))


def collection(folder: Path, images: int) -> None:
    """Noise of 16 px, and now and then a face of 64 px, none like another."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for i in range(images):
        noise = rng.integers(0, 255, (16, 16, 3), np.uint8)
        picture = Image.fromarray(noise)
        if i % 200 == 0:
            lit = np.clip(np.asarray(FACE) * rng.uniform(0.8, 1.1), 0, 255).astype(np.uint8)
            lit[:4, :4] = noise[:4, :4]
            picture = Image.fromarray(lit)
        picture.save(folder / f"{i:06}.png")


def peaks(command: list[str]) -> dict[str, float]:
    """The highest PSS of the command and of any worker, and of all processes together, in MB."""
    highest = {"command": 0.0, "a worker": 0.0, "all": 0.0}
    with tempfile.TemporaryFile() as said:
        process = psutil.Process(subprocess.Popen(command, stdout=said, stderr=said).pid)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            total = 0.0
            for one in [process, *process.children(recursive=True)]:
                try:
                    size = one.memory_full_info().pss / 1e6
                    name = one.name() if one.pid != process.pid else "command"
                except psutil.Error:
                    continue
                total += size
                kind = "a worker" if "MapWorker" in name else name
                if kind in highest:
                    highest[kind] = max(highest[kind], size)
            highest["all"] = max(highest["all"], total)
            time.sleep(0.5)
        if process.wait():
            said.seek(0)
            sys.exit(said.read().decode())
    return highest


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000])
    asked = parser.parse_args()
    found = []
    for images in asked.images:
        folder = Path(tempfile.mkdtemp(prefix="memory-"))
        collection(folder / "in", images)
        command = [
            sys.executable,
            "-m",
            "mfmc_ray.cli",
            "anonymize",
            str(folder / "in"),
            str(folder / "out"),
            "--work",
            str(folder / "work"),
        ]
        found.append(peaks([*command, "--identities", "40"]))
        print(f"{images:,} images: " + ", ".join(f"{kind} {size:.0f} MB" for kind, size in found[-1].items()), flush=True)
        shutil.rmtree(folder)
    print("last / first: " + ", ".join(f"{kind} {found[-1][kind] / found[0][kind]:.2f}" for kind in found[0]))


if __name__ == "__main__":
    main()
