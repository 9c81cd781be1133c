"""The identities stage: sample → render neutral → embed → exact search → admit or reject."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from mfmc_ray.faces.faces import F32
from mfmc_ray.identities.model import load_model
from mfmc_ray.identities.pool import pool_table
from mfmc_ray.identities.sample import Identity, sample
from mfmc_ray.pipeline.check import OutputCheck
from mfmc_ray.swap.protocol import SwapError, Swapper
from mfmc_ray.tables import embedding_column, pool_schema


class IdentityStage:
    """Admits the identities that resemble no known face.

    Args:
        check: holds the recognizers and the guard.
        swapper: shows them.
    """

    needs = pa.schema([("seed", pa.int64())])

    def __init__(self, check: OutputCheck, swapper: Swapper) -> None:
        self.check = check
        self.swapper = swapper
        self.model = load_model()
        self.shown = 0
        """Of how many seeds of the last batch the swapper showed a face."""
        self.adds: pa.Schema = pool_schema(check.pack.dimensions)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Seeds → the admitted identities (`tables.pool_schema`), in order."""
        names = list(self.check.pack.embedders)
        embeddings: dict[str, list[F32]] = {name: [] for name in names}
        identities = []
        self.shown = 0
        for seed in batch["seed"].to_pylist():
            identity = sample(self.model, seed)
            vectors = self._embed(identity)
            if vectors is not None:
                identities.append(identity)
                for name in names:
                    embeddings[name].append(vectors[name])
        if not identities:
            return pool_table([], self.check.pack.dimensions)
        verdicts = self.check.guard.certify({name: np.stack(vectors) for name, vectors in embeddings.items()})
        rows = [
            {
                "identity_id": identity.identity_id,
                "seed": identity.seed,
                "sex": identity.sex,
                "age": identity.age,
                "tone": identity.tone,
                "certificates": [certificate.row() for certificate in verdict.certificates],
                **{embedding_column(name): vectors[i].tolist() for name, vectors in embeddings.items()},
            }
            for i, (identity, verdict) in enumerate(zip(identities, verdicts, strict=True))
            if verdict.passed
        ]
        return pool_table(rows, self.check.pack.dimensions)

    def _embed(self, identity: Identity) -> dict[str, F32] | None:
        """recognizer → the embedding (d,) of its portrait; None if there is none, or as soon as a known face is found in it."""
        try:
            portrait = self.swapper.portrait(identity)
        except SwapError:
            return None
        self.shown += 1
        points = self.check.points(portrait.pixels, portrait.mesh)[None]
        found = {}
        for name, embedder in self.check.pack.embedders.items():
            vectors = embedder.embed(portrait.pixels, points)
            if not self.check.guard.clear(name, vectors)[0]:
                return None
            found[name] = vectors[0]
        return found
