"""The identity model's own portraits as known faces: no fake may resemble what it is made of."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

import numpy as np

from mfmc_ray.faces.faces import F32
from mfmc_ray.faces.mesh import five_points
from mfmc_ray.faces.pack import ALL_EMBEDDERS
from mfmc_ray.faces.protocols import Embedder
from mfmc_ray.identities.features import FEATURES, Features
from mfmc_ray.identities.model import REGIONS, load_model
from mfmc_ray.identities.sample import sample
from mfmc_ray.swap.render import MorphSwapper


def references_of(recognizers: Collection[str]) -> dict[str, F32]:
    """recognizer → float32 (n, d), an embedding of each portrait.

    Those of the embedded recognizers ship with the identity model, which does not hold the portraits themselves. For another recognizer
    each is rendered again from its texture alone, on the average head: with SFace such a rendering had a cosine of 0.59 (median of 40) to
    its portrait, of 0.18 to another, and was nearest to its own 37 times.

    Raises:
        ModelError: a recognizer's weights cannot be had.
    """
    model = load_model()
    found = {name: vectors for name, vectors in model.references.items() if name in recognizers}
    return {name: found[name] if name in found else rendered(ALL_EMBEDDERS[name](), range(len(model.man))) for name in recognizers}


def rendered(embedder: Embedder, sources: Iterable[int]) -> F32:
    """float32 (n, d): what a recognizer makes of the identity model's sources."""
    model = load_model()
    model = replace(model, usable=np.ones_like(model.usable))  # with the hair and glasses that no fake takes from it
    swapper, zeros = MorphSwapper(model), np.zeros(FEATURES, np.float32)
    vectors = []
    for i in sources:
        person = replace(
            sample(model, 0),
            man=bool(model.man[i]),
            age=float(model.age[i]),
            tone=float(model.tone[i]),
            beard=float(model.beard[i]),
            sources=np.array([i]),
            weights=np.ones(1, np.float32),
            mirrored=np.zeros(1, bool),
            lines=np.zeros(len(REGIONS), np.intp),
            skin=model.skin[i],
            shape=np.zeros_like(model.spread),
            features=Features(zeros, zeros),
        )
        portrait = swapper.portrait(person)
        vectors.append(embedder.embed(portrait.pixels, five_points(portrait.mesh)[None])[0])
    return np.stack(vectors)
