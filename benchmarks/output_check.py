"""What the output check costs on this machine: `python benchmarks/output_check.py [--known 200000]`.

Prints ratios within one run, of CPU time, alternating, the best of several rounds:

- for JPEGs of 1, 4 and 12 megapixels with faces 200 px wide, what it takes until the recognizers' crops are there: by decoding the whole
  file, against coding windows of it (`Published`); the file itself is encoded once either way;
- finding the nearest known face of the faces of a group of pictures: one search for each, against one for all.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image
from skimage.data import astronaut

from mfmc_ray.codec import Decoded, decode, encode
from mfmc_ray.faces.embed import DlibEmbedder, SFaceEmbedder
from mfmc_ray.faces.faces import F32, Pixels
from mfmc_ray.known.search import ExactSearch
from mfmc_ray.published import Published

POINTS = np.array([[200.1, 101.8], [247.2, 102.6], [220.3, 124.7], [198.9, 143.2], [239.8, 143.9]], np.float32)
"""The astronaut's, as YuNet finds them; the face is 110 px wide."""
SCALE = 200 / 110


def picture(megapixels: float, faces: int) -> tuple[Decoded, F32]:
    """A 4:3 JPEG, quality 90, 4:2:0, with some faces of the many in it to look at."""
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    width = round(height * 4 / 3)
    tile = cv2.resize(astronaut(), None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_CUBIC)
    side = tile.shape[0]
    pixels = np.tile(tile, (height // side + 1, width // side + 1, 1))[:height, :width]
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, "JPEG", quality=90, subsampling=2)
    corners = [(x, y) for y in range(0, height - side // 2, side) for x in range(0, width - side // 2, side)]
    chosen = [corners[i] for i in np.linspace(0, len(corners) - 1, faces).round().astype(int)]
    return decode(out.getvalue()), np.array([POINTS * SCALE + corner for corner in chosen], np.float32)


def seconds(work: Callable[[], object]) -> float:
    """CPU time of all threads, which other load on the machine disturbs less than wall time."""
    start = time.process_time()
    work()
    return time.process_time() - start


def best(rounds: int, *ways: Callable[[], object]) -> list[float]:
    """The least time of each."""
    return [min(times) for times in zip(*([seconds(way) for way in ways] for _ in range(rounds)), strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--known", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    embedders = (SFaceEmbedder(), DlibEmbedder())

    print("megapixels  faces  whole ms/face  windows ms/face  ratio")
    for megapixels in (1, 4, 12):
        for faces in (1, 4):
            source, points = picture(megapixels, faces)
            file, _ = encode(source.pixels, source)

            def crops(pixels: Pixels, points: F32 = points) -> None:
                for embedder in embedders:
                    embedder.crops(pixels, points)

            whole, windows = best(
                arguments.rounds,
                lambda file=file, crops=crops: crops(decode(file).pixels),  # type: ignore[misc]
                lambda source=source, crops=crops: crops(Published(source, 95)),  # type: ignore[misc]
            )
            print(f"{megapixels:10d} {faces:6d} {1e3 * whole / faces:14.1f} {1e3 * windows / faces:16.1f} {whole / windows:6.1f}")

    rng = np.random.default_rng(0)
    known = rng.standard_normal((arguments.known, 128), dtype=np.float32)
    known /= np.linalg.norm(known, axis=1, keepdims=True)
    search = ExactSearch(known)
    print("\nqueries  one by one ms/face  together ms/face  ratio")
    for count in (3, 16, 64):
        queries = rng.standard_normal((count, 128), dtype=np.float32)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        single, together = best(
            arguments.rounds,
            lambda queries=queries: [search.top1(query[None]) for query in queries],  # type: ignore[misc]
            lambda queries=queries: search.top1(queries),  # type: ignore[misc]
        )
        print(f"{count:7d} {1e3 * single / count:19.2f} {1e3 * together / count:17.2f} {single / together:6.1f}")


if __name__ == "__main__":
    main()
