"""The pool: the fake identities admitted for a run, and which of them go onto a face."""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mfmc_ray.faces.faces import Faces
from mfmc_ray.identities.catalogue import catalogued
from mfmc_ray.identities.model import IdentityModel
from mfmc_ray.identities.sample import Identity, sample
from mfmc_ray.identities.surface import F32
from mfmc_ray.tables import embedding_column, pool_schema

LEAST_POOL, MOST_POOL = 500, 3000
"""Fake identities that a run makes, so that every sex, age and skin tone has some to choose from."""
SEEDS_PER_PART = 20
SEEDS_AT_ONCE = 400
NEAREST = 60
"""From how many of the best-fitting identities one is drawn at random."""
LIKE = 6.0
"""Steps of misfit that it costs to be the one of these that is most like the original: what is put onto a face shows in the result
(measured: within one face, the cosines of identity and result to the original correlate by 0.4 to 0.6)."""
TURN, WAIT = 0.5, 10.0
"""Share of these whose turn it is, by chance, and steps of misfit that it costs the others: some are unlike nearly everybody, and one of
them would be on every seventh face of a collection of portraits."""
GROWN, BOYISH = 15.0, 6.0
"""Years from which a face shows its sex fully, and up to which not at all."""
MORE_BEARD, LESS_BEARD = 0.12, 0.25
"""Beard strength that a man's fake has more or less than he has and that counts as much as 7 years of age."""
STEP = 1.5
"""Misfit of one step: about 10 years of age, or one band of skin tone and a little beard."""
CHANCE = 2.5
"""Within how many steps chance decides."""


@dataclass(frozen=True)
class Wanted:
    """What an identity should be like to look right on a face.

    Attributes:
        man: probability in 0–1 that the face is read as a man's.
        age: years.
        tone: ITA in degrees.
        beard: beard strength (`traits.beard`).
    """

    man: float
    age: float
    tone: float
    beard: float

    @classmethod
    def of(cls, faces: Faces, i: int) -> Wanted:
        """As face i is read."""
        return cls(*(float(faces.need(name)[i]) for name in ("sexes", "ages", "tones", "beards")))


class Pool:
    """Admitted identities with the embeddings of their neutral renderings.

    Args:
        model: the identity model.
        seeds: of the admitted identities.
        embeddings: recognizer → float32 (n, d).
    """

    def __init__(self, model: IdentityModel, seeds: Sequence[int], embeddings: Mapping[str, F32]) -> None:
        if not seeds:
            raise ValueError("the pool is empty: no fake identity was admitted")
        self.identities: tuple[Identity, ...] = tuple(sample(model, seed) for seed in seeds)
        self.embeddings = dict(embeddings)
        self._man = np.array([i.man for i in self.identities])
        self._age = np.array([i.age for i in self.identities], np.float32)
        self._tone = np.array([i.tone for i in self.identities], np.float32)
        self._beard = np.array([i.beard for i in self.identities], np.float32)

    def __len__(self) -> int:
        return len(self.identities)

    @classmethod
    def from_table(cls, model: IdentityModel, table: pa.Table) -> Pool:
        """The pool of a `tables.pool_schema` table."""
        names = [name.removeprefix("embedding_") for name in table.column_names if name.startswith("embedding_")]
        vectors = {}
        for name in names:
            column = table[embedding_column(name)].combine_chunks()
            vectors[name] = np.asarray(column.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(table.num_rows, -1)
        return cls(model, table["seed"].to_pylist(), vectors)

    def candidates(self, wanted: Wanted, original: Mapping[str, F32], rng: np.random.Generator, used: set[str]) -> list[Identity]:
        """Identities for a face in the order in which to try them: those whose turn it is, and of these the unlike ones, first.

        Args:
            wanted: sex, age, tone and beard of the face.
            original: recognizer → the face's embedding float32 (d,).
            rng: decides the order; see `keyed`.
            used: identity_ids that another face of the image wears already; left out.
        """
        misfit = self.misfit(wanted)
        nearest = np.argsort(misfit, kind="stable")[:NEAREST]
        rank = misfit[nearest] / STEP + LIKE * self.alike(nearest, original) + rng.uniform(0, CHANCE, len(nearest))
        order = nearest[np.argsort(rank + WAIT * (rng.random(len(nearest)) > TURN), kind="stable")]
        return [self.identities[i] for i in order if self.identities[i].identity_id not in used]

    def misfit(self, wanted: Wanted) -> F32:
        """How far each identity is from what is wanted: float32 (n,), 0 the same; the sex weighs 25, 7 years of age 1."""
        # the sex of a child's face cannot be told, and a man's features with a trace of a beard do not suit it: it takes a woman's
        man = wanted.man * float(np.clip((wanted.age - BOYISH) / (GROWN - BOYISH), 0, 1))
        more = self._beard - wanted.beard  # one that the photo does not have ends at the face's edge, and looks painted on
        beard = np.where(more > 0, more / MORE_BEARD, -more / LESS_BEARD) * man
        return np.asarray(
            np.abs(self._man - man) * 25 + np.abs(self._age - wanted.age) / 7 + np.abs(self._tone - wanted.tone) / 12 + beard, np.float32
        )

    def alike(self, some: NDArray[np.intp], original: Mapping[str, F32]) -> F32:
        """How like a face some identities are beside the others: 0 the least, 1 the most, the mean over the recognizers.

        Args:
            some: rows of the pool.
            original: recognizer → float32 (d,), the face.
        """
        ranks = [np.argsort(np.argsort(self.embeddings[n][some] @ v, kind="stable")) for n, v in original.items() if n in self.embeddings]
        return np.asarray(np.mean(ranks, 0) / max(1, len(some) - 1) if ranks else np.zeros(len(some)), np.float32)


def pool_size(faces: int) -> int:
    """How many identities a run wants for so many faces, unless a number is asked for."""
    return min(max(faces, LEAST_POOL), MOST_POOL)


def more_seeds(wanted: int, admitted: int, offered: int, *, asked: bool) -> int | None:
    """How many further seeds a run offers; 0 when it has identities enough, None when it gives up.

    Args:
        wanted: the pool's size.
        admitted: identities so far.
        offered: seeds so far.
        asked: the size was asked for.
    """
    missing = wanted - admitted
    # past the catalogue few seeds pass: a fair pool is then enough, unless a size was asked for
    if missing <= 0 or (not asked and admitted >= LEAST_POOL / 2 and offered >= catalogued()):
        return 0
    if offered > 200 + 100 * wanted:
        return None
    if not offered:
        return math.ceil(missing / 0.9)
    # not all that the rate so far foretells: a fair pool may be there long before
    return min(math.ceil(missing / max(0.02, admitted / offered)), SEEDS_AT_ONCE)


def keyed(key: bytes, *parts: Any) -> np.random.Generator:
    """A random generator that only the holder of the key can repeat: HMAC-SHA-256 over the parts."""
    digest = hmac.new(key, "\0".join(map(str, parts)).encode(), hashlib.sha256).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32))


def pool_table(rows: Sequence[Mapping[str, Any]], recognizers: Mapping[str, int]) -> pa.Table:
    """Admitted identities as a `tables.pool_schema` table."""
    return pa.Table.from_pylist(list(rows), schema=pool_schema(recognizers))
