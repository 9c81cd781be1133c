"""The fakes of a run: the pool of certified identities, and, where people keep theirs in all images, who wears which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console

from mfmc_ray.config import RunConfig
from mfmc_ray.identities.model import load_model
from mfmc_ray.identities.pool import LEAST_POOL, Pool, pool_size
from mfmc_ray.key import obtain
from mfmc_ray.known.certificate import terms_of
from mfmc_ray.known.renewal import Renewal
from mfmc_ray.ledger import Ledger
from mfmc_ray.people.sightings import Sightings
from mfmc_ray.pipeline.assign import Assigner, by_use
from mfmc_ray.pipeline.away import call
from mfmc_ray.pipeline.fitting import FITTING, FittingWorker
from mfmc_ray.pipeline.parts import run_parts
from mfmc_ray.pipeline.persons import persons, scanned_faces
from mfmc_ray.pipeline.pool import admitted, fill_pool, read_pool, renew_pool
from mfmc_ray.pipeline.pseudonyms import Assigned, Book
from mfmc_ray.pipeline.session import plan_of
from mfmc_ray.pipeline.times import Times
from mfmc_ray.pipeline.workers import SCAN, IdentityWorker
from mfmc_ray.swap.swappers import digest_of
from mfmc_ray.tables import pool_schema

LINKED = (
    "Pseudonyms: in all images a person shows the same fake face (column identity_id), so that images of one person can be linked with "
    "each other; whoever recognises them in one, by hair, clothes, place or company, knows the others."
)
"""What a reader of a result with `pseudonyms: person` must know."""


@dataclass
class Fakes:
    """What faces are given.

    Attributes:
        config: of the run.
        ledger: its folders.
        recognizers: guard recognizer → dimension.
        certifying: what every worker that certifies takes.
        times, console: of the run.
        pool: of `tables.pool_schema`, once it is filled.
        fallen: failed certificates of identities that no longer held, as rows of `tables.CERTIFICATE` with `identity_id`.
        assigned: who wears what, with `pseudonyms: person`.
    """

    config: RunConfig
    ledger: Ledger
    recognizers: Mapping[str, int]
    certifying: Mapping[str, Any]
    times: Times
    console: Console
    pool: pa.Table
    fallen: list[dict[str, Any]] = field(default_factory=list)
    assigned: Assigned | None = None

    @classmethod
    def made(
        cls,
        config: RunConfig,
        ledger: Ledger,
        recognizers: Mapping[str, int],
        certifying: Mapping[str, Any],
        times: Times,
        console: Console,
        *,
        sightings: Sightings,
        salts: Mapping[str, bytes],
        key_in: Path,
    ) -> Fakes:
        """Renews the pool, fills it up, and gives people theirs; nothing where no face is replaced.

        Args:
            config, ledger, recognizers, certifying, times, console: as the attributes.
            sightings: who is recognised.
            salts: enrolled person → 16 random bytes.
            key_in: folder of the key.
        """
        fakes = cls(config, ledger, recognizers, certifying, times, console, pool_schema(recognizers).empty_table())
        if config.swap.pseudonyms == "none":
            return fakes
        known, thresholds, calibration = (certifying[name] for name in ("known", "thresholds", "calibration"))
        renewal = Renewal(ledger.work / "known", recognizers, known, thresholds, calibration)
        terms = terms_of(thresholds, calibration)
        fakes.fallen = call(config.ray, renew_pool, ledger, recognizers, renewal, known.digest, terms, digest_of(config.swap))
        if config.swap.pseudonyms == "person":
            fakes._assign(sightings, salts, obtain(key_in), key_in)
        else:
            asked = config.swap.identities
            faces = sum(summary["faces"] for summary in ledger.done(SCAN).values())
            fakes._fill(asked or pool_size(faces), asked=bool(asked))
        return fakes

    def _fill(self, wanted: int, *, asked: bool) -> None:
        seed = self.config.swap.seed
        self.pool = fill_pool(
            self.ledger, self.recognizers, wanted=wanted, asked=asked, seed=seed, certify=self._certify, console=self.console
        )

    def _certify(self, parts: Sequence[Mapping[str, Any]]) -> None:
        self._run(IdentityWorker, parts, "identities", "Certifying identities", sum(len(part["seeds"]) for part in parts))

    def _fit(self, parts: Sequence[Mapping[str, Any]]) -> None:
        total = sum(len(person["faces"]) for part in parts for person in part["people"])
        self._run(FittingWorker, parts, "fitting", "Trying identities on", total)

    def _run(self, worker: Any, parts: Sequence[Mapping[str, Any]], stage: str, label: str, total: int) -> None:
        with self.times.of(stage) as timed:
            run_parts(
                worker,
                self.certifying,
                parts,
                plan=plan_of(self.config.ray),
                label=label,
                total=total,
                on_result=lambda part, summary: timed.add(summary["images"], 0),
            )

    def _assign(self, sightings: Sightings, salts: Mapping[str, bytes], key: bytes, folder: Path) -> None:
        """Gives everybody in the collection identities of their own, and notes them."""
        self.ledger.recover(FITTING)
        scanned = scanned_faces(self.ledger, self.recognizers, self.config.swap.min_face)
        book = Book.read(folder, key)
        people = by_use(persons(scanned, book.people, sightings, salts, key, self.certifying["calibration"]), self.ledger)

        def pool_of(needed: int) -> Pool:
            asked = self.config.swap.identities
            self._fill(asked or max(needed, LEAST_POOL), asked=bool(asked))  # a fair pool
            if self.pool.num_rows < needed and not asked:
                self._fill(needed, asked=True)
            return Pool.from_table(load_model(), read_pool(self.ledger, self.recognizers))

        def holding() -> set[str]:
            return set(admitted(self.ledger)["identity_id"].to_pylist())

        self.assigned = Assigner(self.ledger, key, folder, scanned, holding, pool_of, self._fit)(people, book).assigned()
