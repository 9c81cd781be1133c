"""Build `mfmc_ray/identities/data/catalogue.npy`: seeds whose neutral rendering resembles none of the identity model's own references.

    python tools/build_catalogue.py [MINUTES]
    python tools/build_catalogue.py --on [MINUTES]  # keep what there is, and search on for whom there are too few of

Runs admit identities against their own known faces again; the catalogue only says where to look first. Build it anew after the identity
model, the renderer or a recognizer has changed, then look at all of it and put into STRUCK who is no likely person. It is balanced: as far
as the time allows, every cell of sex × age band × tone band gets the same number of seeds.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
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
ON = 100_000
"""The first seed that is tried when a search goes on."""

# Looked at, one by one, on sheets of all that passed, on heads and on portraits of their sex, age and tone: nobody would take them for a
# person like that, or they have a streak, a patch or brows like painted. Of this model only.
# fmt: off
STRUCK = {
    17, 55, 60, 120, 195, 277, 291, 367, 401, 474, 553, 587, 658, 663, 727, 785, 905, 1066, 1135, 1144, 1178, 1217, 1268, 1302, 1355,
    1371, 1596, 1647, 1674, 1728, 1784, 2044, 2071, 2073, 2200, 2479, 2548, 2582, 2621, 2651, 2670, 2869, 3120, 3205, 3284, 3406, 3549,
    3657, 3803, 4380, 4452, 4891, 4920, 5013, 5047, 5269, 5365, 5418, 5542, 5863, 6060, 6099, 6438, 6671, 6679, 7077, 7213, 7415, 7437,
    7492, 7599, 7706, 7752, 7820, 8022, 8318, 8435, 8477, 9242, 9320, 10224, 10324, 10621, 10659, 10745, 10864, 10949, 11071, 11096,
    11339, 11391, 11712, 11753, 12093, 12466, 12836, 13095, 14052, 14434, 14652, 15144, 15407, 15552, 15883, 15927, 16509, 16541, 16606,
    17494, 17767, 17905, 18087, 18261, 20014, 20436, 20804, 21574, 22772, 23931, 25071, 25890, 26555, 27531, 28180, 28749, 32074, 34509,
    34584, 34766, 35186, 36002, 36462, 36551, 37598, 37903, 38773, 49161, 49715, 50322, 51408, 52318, 59948, 61170, 62250, 62686, 62708,
    64748, 69097, 80230, 80766, 81122, 81639, 101151, 101850, 102728, 102965, 103046, 103453, 103598, 103652, 103659, 104473, 104749,
    105495, 105998, 106027, 106245, 106470, 106953, 108561, 108841, 109026, 109245, 110671, 110721, 112610, 113143, 113418, 113558,
    114467, 114754,
}
# fmt: on

Cell = tuple[bool, int, int]


def cell_of(identity: Identity) -> Cell:
    return identity.man, int(np.digitize(identity.age, (18, 32, 46, 60))), int(np.digitize(identity.tone, (10, 28, 41)))


def is_short(cell: Cell) -> bool:
    """Whether a search over all finds too few of these: the pale and the young, whom there are most photos of."""
    man, age, tone = cell
    return tone >= (3 if man else 2) or (age <= 1 and tone >= 1)


def stage_of() -> IdentityStage:
    """Lets seeds pass that resemble no reference."""
    cv2.setNumThreads(1)
    model, calibration = load_model(), Calibration()
    n = len(model.references["sface"])
    ids = np.array([f"reference:{i}" for i in range(n)], "S")
    known = KnownFaces(ids=ids, vectors={name: model.references[name] for name in EMBEDDERS}, digest="", generation=0)
    thresholds = {name: calibration.strict_threshold(name) for name in EMBEDDERS}
    check = OutputCheck(load_pack(FindConfig(), tuple(EMBEDDERS)), Guard(known, thresholds, calibration))
    return IdentityStage(check, MorphSwapper(model))


def passing(stage: IdentityStage, seeds: Sequence[int]) -> list[tuple[int, np.ndarray]]:
    """Those of some seeds that pass, with their embeddings."""
    rows = stage(pa.table({"seed": pa.array(seeds, pa.int64())})).select(["seed", "embedding_sface"]).to_pylist()
    return [(row["seed"], np.array(row["embedding_sface"], np.float32)) for row in rows]


def admitted(start: int, seconds: float, wanted: Callable[[Cell], bool]) -> Iterator[tuple[Cell, int, np.ndarray]]:
    """Seeds start, start + PROCESSES, … that pass, with their embeddings; cells that are not wanted, full or hopeless are passed over."""
    model, stage = load_model(), stage_of()
    until, seed = time.monotonic() + seconds, start
    passed: Counter[Cell] = Counter()
    tried: Counter[Cell] = Counter()
    while time.monotonic() < until:
        batch: list[tuple[Cell, int]] = []
        while len(batch) < BATCH:
            cell = cell_of(sample(model, seed))
            if (
                wanted(cell)
                and passed[cell] < PER_CELL / PROCESSES
                and tried[cell] <= 2 * min((tried[c] for c in tried), default=0) + TRIES_PER_CELL / 8
            ):
                tried[cell] += 1
                batch.append((cell, seed))
            seed += PROCESSES
            if seed - start > 200_000:
                return
        cells = {s: cell for cell, s in batch}
        for found, vector in passing(stage, [s for _, s in batch]):
            passed[cells[found]] += 1
            yield cells[found], found, vector


def everybody(_: Cell) -> bool:
    return True


def collect(start: int, seconds: float, wanted: Callable[[Cell], bool]) -> list[tuple[Cell, int, np.ndarray]]:
    return list(admitted(start, seconds, wanted))


def main(minutes: float, on: bool) -> None:
    model, found = load_model(), list[tuple[Cell, int, np.ndarray]]()
    if on:
        found = [
            (cell_of(sample(model, seed)), seed, vector) for seed, vector in passing(stage_of(), np.load(OUT, allow_pickle=False).tolist())
        ]
    with get_context("spawn").Pool(PROCESSES) as pool:
        parts = pool.starmap(collect, [((ON if on else 0) + k, minutes * 60, is_short if on else everybody) for k in range(PROCESSES)])
    found += sorted(itertools.chain.from_iterable(parts), key=lambda one: one[1])
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
    rest = [word for word in sys.argv[1:] if word != "--on"]
    main(float(rest[0]) if rest else 20, "--on" in sys.argv)
