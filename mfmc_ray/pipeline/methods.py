"""What a comparison holds against each other: baselines, swappers with all their checks, and ways to choose the fake."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from mfmc_ray.access.decide import ReplaceAll
from mfmc_ray.codec import Decoded, encode
from mfmc_ray.config import RunConfig
from mfmc_ray.evaluate.baselines import BASELINES, VERSION, Apply
from mfmc_ray.faces.faces import F32, Faces, Image
from mfmc_ray.faces.pack import Pack
from mfmc_ray.identities.catalogue import catalogued, seeds
from mfmc_ray.identities.model import load_model
from mfmc_ray.identities.pool import NEAREST, SEEDS_PER_PART, Pool, Wanted, keyed
from mfmc_ray.identities.sample import Identity
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.known.certificate import Guard
from mfmc_ray.known.index import KnownFaces
from mfmc_ray.known.search import usable
from mfmc_ray.pipeline.anonymize import AnonymizeStage
from mfmc_ray.pipeline.check import OutputCheck
from mfmc_ray.pipeline.choice import LEAST_COVER, misplaced
from mfmc_ray.pipeline.identities import IdentityStage
from mfmc_ray.pipeline.known import recognisable
from mfmc_ray.pipeline.pool import NEAREST_FAKES
from mfmc_ray.pipeline.rows import matrix
from mfmc_ray.pipeline.unfit import unfit
from mfmc_ray.swap.protocol import SwapError, Swapper
from mfmc_ray.swap.redact import cover_of, redact
from mfmc_ray.tables import embedding_column

METRICS, RULES = ("cosine", "l2"), ("random", "farthest", "nearest")
KEY = b"comparison".ljust(32)
"""Choices are the same each time: nothing of a comparison is published."""


@dataclass(frozen=True)
class Applied:
    """A picture as a method leaves it.

    Attributes:
        data: encoded; b"" if it is withheld.
        seconds: CPU.
        covered: faces that it covered instead.
    """

    data: bytes
    seconds: float
    covered: int = 0


class Method(Protocol):
    """Changes the faces of a picture.

    Attributes:
        name: of `--methods`, and of its folder.
        title: in tables.
        kind: baseline, outside, swapper or fake.
        digest: of all that decides its results.
    """

    name: str
    title: str
    kind: str
    digest: str

    def __call__(self, row: pa.Table, data: bytes, picture: Decoded, faces: Faces) -> Applied:
        """The picture of a row of the scan, its file, decoded, and its faces."""
        ...


class Plain:
    """A baseline. Encoding is not in its time."""

    def __init__(self, name: str, quality: int) -> None:
        self.name, self.title, self.quality = name, BASELINES[name].title, quality
        self.kind = "outside" if name == "deface" else "baseline"
        self.digest = digest_of(name, VERSION, quality)
        self._apply: Apply = BASELINES[name].make()

    def __call__(self, row: pa.Table, data: bytes, picture: Decoded, faces: Faces) -> Applied:
        """See `Method`."""
        canvas = picture.pixels.copy()
        start = time.process_time()
        self._apply(canvas, faces.boxes)
        seconds = time.process_time() - start
        # nothing done: not even encoded anew
        return Applied(data if self.name == "noop" else encode(canvas, picture, quality=self.quality)[0], seconds)


class Swapping:
    """A swapper as `mfmc anonymize` uses it: many attempts, the guard's checks, a cover over what does not hold.

    Reading and encoding are in its time: results are checked encoded.
    """

    kind = "swapper"

    def __init__(self, name: str, title: str, swapper: Swapper, config: RunConfig, pool: PoolOf) -> None:
        self.name, self.title = name, title
        self.digest = digest_of(name, swapper.digest, pool.digest, config.made())
        self._stage: AnonymizeStage | None = None
        self._parts = swapper, config, pool

    def __call__(self, row: pa.Table, data: bytes, picture: Decoded, faces: Faces) -> Applied:
        """See `Method`."""
        if self._stage is None:
            swapper, config, pool = self._parts
            self._stage = AnonymizeStage(
                swap=config.swap,
                output=config.output,
                max_pixels=config.find.max_pixels,
                check=OutputCheck(pool.pack, pool.guard),
                pool=pool.made(swapper),
                swapper=swapper,
                access=ReplaceAll(),
                key=KEY,
                storage_options=config.storage_options,
            )
        start = time.process_time()
        (made,) = self._stage(row).to_pylist()
        seconds = time.process_time() - start
        if made["image"] is None:
            return Applied(b"", seconds, len(faces))
        return Applied(made["image"]["bytes"], seconds, sum(face["verdict"] == "redacted" for face in made["face_rows"]))


class Choosing:
    """The embedded swapper with one fake for each face, chosen by how like the original its portrait is, and nothing else: no second
    attempt, no look at the result. Among those that fit in sex, age and tone. What cannot be swapped well is covered, as ever.

    `random`: anyone below the recognizer's threshold (My Face My Choice). `farthest`: the least like. `nearest`: the most like of those
    below.
    """

    kind = "fake"

    def __init__(self, metric: str, recognizer: str, rule: str, swapper: Swapper, config: RunConfig, pool: PoolOf) -> None:
        self.name = f"fake-{metric}-{recognizer}-{rule}"
        self.title = f"{rule} fake, {metric} of {recognizer}"
        self.metric, self.recognizer, self.rule = metric, recognizer, rule
        self.digest = digest_of(self.name, swapper.digest, pool.digest, config.made())
        self.agreed: list[bool] = []
        """Of each face: whether the other metric chose the same."""
        self._swapper, self._config, self._pool = swapper, config, pool

    def __call__(self, row: pa.Table, data: bytes, picture: Decoded, faces: Faces) -> Applied:
        """See `Method`."""
        canvas, covered, used = picture.pixels.copy(), [], set[str]()
        self._pool.made(self._swapper)  # in nobody's time
        start = time.process_time()
        for i in np.argsort(-faces.sizes, kind="stable"):
            chosen = self._swapped(row["image_id"][0].as_py(), picture.pixels, canvas, faces, int(i), used)
            if chosen is None:
                covered.append(i)
            else:
                used.add(chosen.identity_id)
        for i in covered:
            redact(canvas, cover_of(faces.boxes[i], canvas.shape))
        seconds = time.process_time() - start
        return Applied(encode(canvas, picture, quality=self._config.output.jpeg_quality)[0], seconds, len(covered))

    def _swapped(self, image_id: str, original: Image, canvas: Image, faces: Faces, i: int, used: set[str]) -> Identity | None:
        mesh = faces.need("meshes")[i]
        hidden = self._swapper.covered(original, mesh)
        if unfit(self._config.swap.min_face, faces, i, hidden) is not None:
            return None
        wanted = Wanted.of(faces, i)
        identity = self._choice(wanted, faces.embeddings[self.recognizer][i], keyed(KEY, image_id, i), used)
        if identity is None:
            return None
        try:
            patch = self._swapper.swap(canvas, mesh, identity, age=wanted.age, covered=hidden)
        except SwapError:
            return None
        if misplaced(patch, mesh, canvas.shape) or not patch.cover >= LEAST_COVER:
            return None
        patch.paste(canvas)
        return identity

    def _choice(self, wanted: Wanted, face: F32, chance: np.random.Generator, used: set[str]) -> Identity | None:
        pool = self._pool.made(self._swapper)
        fitting = np.argsort(pool.misfit(wanted), kind="stable")[:NEAREST]
        fitting = np.array([k for k in fitting if pool.identities[k].identity_id not in used], np.int64)
        vectors = pool.embeddings[self.recognizer][fitting].astype(np.float64)
        threshold = self._pool.guard.threshold(self.recognizer)
        picks = [choose(metric, self.rule, vectors, face.astype(np.float64), threshold, chance) for metric in METRICS]
        if self.rule != "random":  # chance differs, not what is allowed
            self.agreed.append(picks[0] == picks[1])
        at = picks[METRICS.index(self.metric)]
        return None if at is None else pool.identities[fitting[at]]


def choose(metric: str, rule: str, vectors: Any, face: Any, threshold: float, chance: np.random.Generator) -> int | None:
    """Which of some fakes a face is given; None if none is far enough.

    Args:
        metric: cosine, or l2: the Euclidean distance.
        rule: one of `RULES`.
        vectors: float64 (n, d), unit length, the fakes.
        face: float64 (d,), the original.
        threshold: cosine from which two faces are one person; of l2 what is as far: √(2 − 2 threshold).
        chance: for `random`.
    """
    if metric == "cosine":
        away, least = 1 - vectors @ face, 1 - threshold
    else:
        away, least = np.linalg.norm(vectors - face, axis=1), float(np.sqrt(max(0.0, 2 - 2 * threshold)))
    allowed = np.flatnonzero(away > least)
    if not len(allowed):
        return None
    if rule == "random":
        return int(chance.choice(allowed))
    return int(allowed[np.argmax(away[allowed]) if rule == "farthest" else np.argmin(away[allowed])])


@dataclass
class PoolOf:
    """The fakes that swappers give, made when first asked for; one pool for each swapper, since each shows them in its own way.

    Attributes:
        pack: sees faces.
        guard: knows whom no fake may resemble.
        digest: of whom the guard knows, and of how many are wanted.
        wanted: identities; fewer if the seeds are used up before.
        seed: the first.
    """

    pack: Pack
    guard: Guard
    digest: str
    wanted: int
    seed: int
    _made: dict[str, Pool] = field(default_factory=dict)

    def made(self, swapper: Swapper) -> Pool:
        """Those that resemble no known face and not each other."""
        key = f"{swapper.name}:{swapper.digest}"
        if key not in self._made:
            self._made[key] = Pool.from_table(load_model(), self._filled(IdentityStage(OutputCheck(self.pack, self.guard), swapper)))
        return self._made[key]

    def _filled(self, stage: IdentityStage) -> pa.Table:
        name = self.guard.recognizers[0]
        dim, offer, tables = self.pack.dimensions[name], seeds(self.seed), list[pa.Table]()
        kept: list[int] = []
        for _ in range(0, max(catalogued(), 4 * self.wanted), SEEDS_PER_PART):
            tables.append(stage(pa.table({"seed": pa.array([next(offer) for _ in range(SEEDS_PER_PART)], pa.int64())})))
            vectors = matrix(pa.concat_tables(tables)[embedding_column(name)], dim)
            for i in range(len(vectors) - tables[-1].num_rows, len(vectors)):
                if not kept or float((vectors[kept] @ vectors[i]).max()) < NEAREST_FAKES:
                    kept.append(i)
            if len(kept) >= self.wanted:
                break
        return pa.concat_tables(tables).take(kept[: self.wanted])


def pool_of(pack: Pack, scan: pa.Table, config: RunConfig, wanted: int) -> PoolOf:
    """What guards the swappers: the identity model's references and all faces of the scan are known."""
    names = config.guard.recognizers
    base = load_model().references
    faces = scan["faces"].combine_chunks().flatten()
    vectors = {name: matrix(faces.field(embedding_column(name)), base[name].shape[1]) for name in names}
    good = np.all([usable(v) for v in vectors.values()], axis=0) & recognisable(faces, config.swap.min_face)
    ids = np.array([*(f"reference:{i}" for i in range(len(base[names[0]]))), *(f"face:{i}" for i in np.flatnonzero(good))], "S")
    every = {name: np.ascontiguousarray(np.concatenate([base[name], v[good]])) for name, v in vectors.items()}
    calibration = Calibration()
    limits = {name: calibration.default_threshold(name, len(ids)).value for name in names}
    digest = digest_of(*(hashlib.sha256(v.tobytes()).hexdigest() for v in every.values()), sorted(limits.items()), wanted)
    return PoolOf(pack, Guard(KnownFaces(ids, every, 0, "comparison"), limits, calibration), digest, wanted, config.swap.seed)


def fakes(swapper: Swapper, config: RunConfig, pool: PoolOf, names: Sequence[str]) -> Iterator[Choosing]:
    """A method for each recognizer and rule, by cosine: of unit vectors l2 chooses the same; `Choosing.agreed` counts it."""
    for recognizer in config.guard.recognizers:
        for rule in RULES:
            one = Choosing("cosine", recognizer, rule, swapper, config, pool)
            if one.name in names:
                yield one


def with_swapper(config: RunConfig, file: str) -> RunConfig:
    """The same settings with another swapper."""
    return replace(config, swap=replace(config.swap, swapper=file))


def digest_of(*plain: Any) -> str:
    """sha-256, hex, over plain data."""
    return hashlib.sha256(repr([sorted(p.items()) if isinstance(p, Mapping) else p for p in plain]).encode()).hexdigest()
