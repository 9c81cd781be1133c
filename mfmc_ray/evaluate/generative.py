"""The section `generative`: whether the faces of the output, taken together, are like those of the originals.

Everything is reckoned twice: between the originals of one half of the people and the outputs of the other half, and between the originals
of both halves, which is the yardstick: no set of other faces is nearer than that. Halves are drawn anew several times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mfmc_ray.evaluate import networks
from mfmc_ray.evaluate.bootstrap import Bootstrap, nothing, short
from mfmc_ray.evaluate.columns import of_faces, replaced, vectors
from mfmc_ray.evaluate.distances import components, frechet, prdc
from mfmc_ray.evaluate.features import feature_notes, table_of
from mfmc_ray.evaluate.networks import NETWORKS
from mfmc_ray.evaluate.sections import About, Note, Options

F64 = NDArray[np.float64]

K = 5
"""Neighbours, as in both papers' code."""
LEAST, FEW = 40, 400
"""Faces, below which there are no figures, and below which they are said to be of few."""
MOST_FACES, COMPONENTS, DRAWS = 4000, 32, 20
METHOD = (
    "features of the same crops before and after, over the originals' mean spread; `output`: originals of half of the people, outputs of "
    "the other half; `real`: originals of both halves, the yardstick, as large as `output`; means of 20 draws of halves, 95 % of them "
    "between low and high. The Fréchet distance is that of the first principal components of all: it is no FID"
)


def notes(options: Options) -> Sequence[Note]:
    """Faces' features."""
    return feature_notes()


def figures(tables: Mapping[str, pa.Table], about: About) -> dict[str, Any]:
    """See docs/evaluate.md."""
    rows, boot, found = replaced(about), of_faces(about), {}
    for name in NETWORKS:
        if (table := tables.get(table_of(name))) is None:
            found[name] = {"network": networks.TITLES[name], "why": networks.missing(name)}
            continue
        at = about.at(table)
        some = np.flatnonzero(rows[at])
        if len(some) > MOST_FACES:
            some = np.sort(np.random.default_rng(about.options.seed).permutation(some)[:MOST_FACES])
        originals, outputs = (vectors(table, side)[some].astype(np.float64) for side in ("original", "output"))
        found[name] = {"network": networks.TITLES[name], **_compared(originals, outputs, boot, at[some], about.options.seed)}
    return {"method": METHOD, "k": K, **found}


def _compared(originals: F64, outputs: F64, boot: Bootstrap, at: NDArray[np.int64], seed: int) -> dict[str, Any]:
    people = np.unique(boot.person[at], return_inverse=True)[1]
    result: dict[str, Any] = {"faces": len(originals)}
    why = nothing(f"fewer than {LEAST} replaced faces, or all of the same few people")
    none = {**result, **{name: {"output": why, "real": why} for name in ("frechet", "precision", "recall", "density", "coverage")}}
    if len(originals) < LEAST:
        return none
    # one number for all features: each by its own would let those outweigh the others that originals hardly have
    spread = max(float(np.sqrt(originals.var(0).mean())), 1e-12)
    originals, outputs = originals / spread, outputs / spread
    # of both together: what only outputs have would not show along the originals' directions
    width = min(COMPONENTS, len(originals) // 4)
    mean, axes = components(np.concatenate([originals, outputs]), width)
    rng = np.random.default_rng(seed)
    drawn: dict[str, dict[str, list[float]]] = {}
    for _ in range(DRAWS):
        one = rng.permutation(people.max() + 1)[people] % 2 == 0
        if min(one.sum(), (~one).sum()) <= K:
            continue
        reference = originals[one]
        for name, others in (("output", outputs[~one]), ("real", originals[~one])):
            scores = {"frechet": frechet((reference - mean) @ axes, (others - mean) @ axes), **prdc(reference, others, K)}
            for figure, value in scores.items():
                drawn.setdefault(figure, {}).setdefault(name, []).append(value)
    if not drawn:
        return none
    for figure, both in drawn.items():
        result[figure] = {name: _spread(numbers, len(originals)) for name, numbers in both.items()}
    result["components"] = width
    if len(originals) < FEW:
        result["warning"] = (
            f"of {len(originals)} faces only: such figures want {FEW} and more; hold `output` against `real`, not against others'"
        )
    return result


def _spread(numbers: Sequence[float], n: int) -> dict[str, Any]:
    low, high = np.percentile(numbers, [2.5, 97.5])
    return {"value": short(float(np.mean(numbers))), "low": short(float(low)), "high": short(float(high)), "n": n}
