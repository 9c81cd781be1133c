"""Build `mfmc_ray/identities/data/catalogue.npy`: seeds whose neutral rendering resembles none of the identity model's own references.

    python tools/build_catalogue.py 1500

Runs admit identities against their own known faces again; the catalogue only says where to look first. Build it anew after the identity
model, the renderer or a recognizer has changed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
from rich.progress import Progress

from mfmc_ray.config import FindConfig
from mfmc_ray.faces.pack import EMBEDDERS, load_pack
from mfmc_ray.identities.model import load_model
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.known.certificate import Guard
from mfmc_ray.known.index import KnownFaces
from mfmc_ray.pipeline.check import OutputCheck
from mfmc_ray.pipeline.identities import IdentityStage
from mfmc_ray.swap.render import MorphSwapper

OUT = Path(__file__).parents[1] / "mfmc_ray/identities/data/catalogue.npy"
ALIKE = 0.7
BATCH = 64


def main(wanted: int) -> None:
    cv2.setNumThreads(1)
    model, calibration = load_model(), Calibration()
    n = len(model.references["sface"])
    known = KnownFaces(
        ids=np.array([f"reference:{i}" for i in range(n)], "S"),
        vectors={name: model.references[name] for name in EMBEDDERS},
        digest="",
        generation=0,
    )
    thresholds = {name: calibration.strict_threshold(name) for name in EMBEDDERS}
    check = OutputCheck(load_pack(FindConfig(), tuple(EMBEDDERS)), Guard(known, thresholds, calibration))
    stage = IdentityStage(check, MorphSwapper(model))
    kept, vectors, seed = [], np.zeros((0, 128), np.float32), 0
    with Progress() as bar:
        task = bar.add_task("Certifying", total=wanted)
        while len(kept) < wanted:
            table = stage(pa.table({"seed": pa.array(range(seed, seed + BATCH), pa.int64())}))
            seed += BATCH
            for row in table.select(["seed", "embedding_sface"]).to_pylist():
                vector = np.array(row["embedding_sface"], np.float32)
                if len(vectors) == 0 or float((vectors @ vector).max()) < ALIKE:
                    kept.append(row["seed"])
                    vectors = np.vstack([vectors, vector])
            bar.update(task, completed=len(kept))
    np.save(OUT, np.array(kept[:wanted], np.int64))
    print(f"{OUT}: {wanted} of {seed} seeds")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(int(sys.argv[1]))
