"""Build `mfmc_ray/identities/data/catalogue.npy`: seeds whose neutral rendering resembles none of the identity model's own references.

    python tools/build_catalogue.py [MINUTES]

Runs admit identities against their own known faces again; the catalogue only says where to look first. Build it anew after the identity
model, the renderer or a recognizer has changed, then look at all of it and put into STRUCK who is no likely person. It is balanced: as far
as the time allows, every cell of sex × age band × tone band gets the same number of seeds.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa

from mfmc_ray.config import FindConfig
from mfmc_ray.faces.pack import EMBEDDERS, load_pack
from mfmc_ray.identities.model import load_model
from mfmc_ray.identities.sample import Identity, sample
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.known.certificate import Guard
from mfmc_ray.known.index import KnownFaces
from mfmc_ray.pipeline.check import OutputCheck
from mfmc_ray.pipeline.identities import IdentityStage
from mfmc_ray.swap.render import MorphSwapper

OUT = Path(__file__).parents[1] / "mfmc_ray/identities/data/catalogue.npy"
PROCESSES = 2
PER_CELL = 125
TRIES_PER_CELL = 2500
ALIKE = 0.7
BATCH = 16

# Looked at, one by one, on sheets of all that passed, some on portraits that wore them: nobody would take them for a person of their sex
# and age, or they have a streak or a patch. Of this model only.
# fmt: off
STRUCK = {
    291, 391, 401, 474, 587, 905, 1135, 1178, 1272, 1596, 1674, 1728, 2044, 2073, 2479, 2548, 2621, 2651, 2869, 3205, 3284, 3475,
    3803, 4380, 5013, 5269, 5365, 6099, 6438, 6671, 7077, 7492, 7706, 7820, 8022, 9524, 10224, 10324, 10621, 10864, 10935, 11096,
    12093, 12466, 13095, 15144, 15407, 15927, 16509, 17767, 17791, 18087, 18261, 20014, 25071, 27531, 28180, 34584, 34766, 35186,
    36551, 38773, 49161, 49715, 50322, 51408, 52318, 59948, 61170, 62686, 64748, 69097, 81639,
}
# fmt: on

Cell = tuple[bool, int, int]


def cell_of(identity: Identity) -> Cell:
    return identity.man, int(np.digitize(identity.age, (18, 32, 46, 60))), int(np.digitize(identity.tone, (10, 28, 41)))


def admitted(start: int, seconds: float) -> Iterator[tuple[Cell, int, np.ndarray]]:
    """Seeds start, start + PROCESSES, … that pass, with their embeddings; cells that are full or hopeless are passed over."""
    cv2.setNumThreads(1)
    model, calibration = load_model(), Calibration()
    n = len(model.references["sface"])
    ids = np.array([f"reference:{i}" for i in range(n)], "S")
    known = KnownFaces(ids=ids, vectors={name: model.references[name] for name in EMBEDDERS}, digest="", generation=0)
    thresholds = {name: calibration.strict_threshold(name) for name in EMBEDDERS}
    check = OutputCheck(load_pack(FindConfig(), tuple(EMBEDDERS)), Guard(known, thresholds, calibration))
    stage = IdentityStage(check, MorphSwapper(model))
    until, seed = time.monotonic() + seconds, start
    passed: Counter[Cell] = Counter()
    tried: Counter[Cell] = Counter()
    while time.monotonic() < until:
        batch: list[tuple[Cell, int]] = []
        while len(batch) < BATCH:
            cell = cell_of(sample(model, seed))
            if passed[cell] < PER_CELL / PROCESSES and tried[cell] <= 2 * min((tried[c] for c in tried), default=0) + TRIES_PER_CELL / 8:
                tried[cell] += 1
                batch.append((cell, seed))
            seed += PROCESSES
            if seed - start > 200_000:
                return
        cells = {s: cell for cell, s in batch}
        for row in stage(pa.table({"seed": pa.array([s for _, s in batch], pa.int64())})).select(["seed", "embedding_sface"]).to_pylist():
            passed[cells[row["seed"]]] += 1
            yield cells[row["seed"]], row["seed"], np.array(row["embedding_sface"], np.float32)


def collect(start: int, seconds: float) -> list[tuple[Cell, int, np.ndarray]]:
    return list(admitted(start, seconds))


def main(minutes: float) -> None:
    with get_context("spawn").Pool(PROCESSES) as pool:
        parts = pool.starmap(collect, [(k, minutes * 60) for k in range(PROCESSES)])
    found = sorted(itertools.chain.from_iterable(parts), key=lambda one: one[1])
    cells: dict[Cell, list[int]] = {}
    vectors = np.zeros((0, 128), np.float32)
    for cell, seed, vector in found:
        if seed not in STRUCK and (len(vectors) == 0 or float((vectors @ vector).max()) < ALIKE):
            cells.setdefault(cell, []).append(seed)
            vectors = np.vstack([vectors, vector])
    # one of each cell in turn, so that any beginning of the list is balanced
    rounds = max(len(seeds) for seeds in cells.values())
    order = [seeds[k] for k in range(rounds) for _, seeds in sorted(cells.items()) if k < len(seeds)]
    np.save(OUT, np.array(order, np.int64))
    for cell, seeds in sorted(cells.items()):
        print(f"{'man' if cell[0] else 'woman'}, age band {cell[1]}, tone band {cell[2]}: {len(seeds)}")
    print(f"{OUT}: {len(order)} seeds")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 20)
