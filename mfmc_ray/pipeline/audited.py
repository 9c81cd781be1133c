"""What an audit is about: OUT, and the private side it is held against (scan, known faces, pool, the run's settings)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mfmc_ray.access.combined import access_model
from mfmc_ray.access.decide import AccessModel, ReplaceAll
from mfmc_ray.config import DECIDING, ConfigError, RunConfig, load
from mfmc_ray.faces.faces import F32
from mfmc_ray.faces.pack import ALL_DIMENSIONS, ALL_EMBEDDERS, digests_of
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.known.index import KnownFaces, KnownIndex, KnownIndexError
from mfmc_ray.known.search import usable
from mfmc_ray.ledger import Ledger, LedgerError, Stage
from mfmc_ray.pipeline import approved
from mfmc_ray.pipeline import findings as checks
from mfmc_ray.pipeline.curves import used
from mfmc_ray.pipeline.findings import Findings
from mfmc_ray.pipeline.known import gallery_stages, named_faces, recognisable
from mfmc_ray.pipeline.leak import LEAST_PEOPLE, People, measure, sexes_of
from mfmc_ray.pipeline.recheck import ScanIndex
from mfmc_ray.pipeline.recognise import people_of, recognise
from mfmc_ray.pipeline.rows import matrix
from mfmc_ray.pipeline.workers import POOL, SCAN
from mfmc_ray.tables import embedding_column, pool_schema

_SAME = 1e-6  # of an embedding's numbers


@dataclass
class Audited:
    """What is audited, and the private side it is held against.

    Attributes:
        ledger: the folders.
        manifest: OUT/manifest.json, and its sha-256.
        settings: of the run.
        known: the known faces, verified against the index's digests.
        thresholds: guard recognizer → cosine, computed from settings and index, not read from OUT.
        scan: where the scan's rows are.
        pool: the admitted identities.
        people: who the known faces of the collection are, as far as recognizers tell.
        calibration: the curves that the run's thresholds come from.
        access: which faces may be kept, now.
        findings: what was found so far.
    """

    ledger: Ledger
    manifest: dict[str, Any]
    manifest_sha256: str
    settings: RunConfig
    known: KnownFaces
    thresholds: dict[str, float]
    scan: ScanIndex
    pool: pa.Table
    people: People
    calibration: Calibration
    access: AccessModel = field(default_factory=ReplaceAll)
    findings: Findings = field(default_factory=Findings)

    @classmethod
    def open(cls, config: RunConfig) -> Audited:
        """Reads the private side.

        Raises:
            LedgerError: OUT is unfinished, or something private is missing or damaged.
            AccessError, PeopleError: the access tables or enrolled people that the run was made with cannot be read.
        """
        ledger = Ledger(config.out, config.work, config.storage_options)
        manifest, digest = read_manifest(ledger)
        findings = Findings()
        try:
            recognizers, known = _known(ledger)
            settings = _settings(ledger, manifest, config, findings)
            # the guard's order: the first one's threshold is what the settings may override
            names = settings.guard.recognizers if set(settings.guard.recognizers) == set(recognizers) else tuple(recognizers)
            scan = ScanIndex(_files(ledger, SCAN))
            pool = pool_schema(recognizers).empty_table()
            if settings.swap.pseudonyms != "none":
                pool = pa.concat_tables([pq.read_table(file) for file in _files(ledger, POOL)])
            calibration = used(ledger.work, settings)
            people = People.of_collection(known, names, calibration)
            thresholds = _thresholds(settings, names, len(known), calibration)
            audited = cls(ledger, manifest, digest, settings, known, thresholds, scan, pool, people, calibration, findings=findings)
            audited._check_known()
        except (OSError, KnownIndexError, pa.ArrowException, AttributeError, KeyError, TypeError, ValueError) as error:
            raise LedgerError(f"the private tables in {ledger.work} cannot be used, so nothing can be proved: {error}") from error
        told = approved.as_now(config, audited.settings)
        access = approved.reviewed(access_model(told), ledger.work)
        audited.access = access.bound(recognise(ledger, people_of(told, ledger), calibration, names, settings.swap.min_face))
        return audited

    def for_stage(self) -> dict[str, Any]:
        """The arguments of `AuditStage`."""
        return {
            "settings": self.settings,
            "ledger": self.ledger,
            "known": self.known,
            "thresholds": self.thresholds,
            "scan": self.scan,
            "asked": self.people.ids if len(self.people) >= LEAST_PEOPLE else self.people.ids[:0],
            "calibration": self.calibration,
            "access": self.access,
        }

    def leak(self, held_out: Sequence[str]) -> tuple[Any, str]:
        """The leak rate, from what the stage kept, or why there is none; see `leak.measure`."""
        guards, folder = list(self.thresholds), self.ledger.work / "audit"
        files = _files(self.ledger, SCAN) if len(self.people) >= LEAST_PEOPLE else []
        return measure(self.people, folder, guards, held_out, sexes_of(files, self.people))

    def _check_known(self) -> None:
        """Every face that was scanned must be among the known ones, as it was scanned, or the certificates would be about others."""
        galleries = gallery_stages(self.ledger, len(self.settings.guard.galleries))
        order = np.argsort(self.known.ids, kind="stable")
        everyone = self.known.ids[order]
        for stage, source in [(SCAN, "collection"), *((stage, "gallery") for stage in galleries)]:
            for file in _files(self.ledger, stage):
                wanted = ("box", "detectors", "mesh_score", *(embedding_column(n) for n in self.thresholds))
                table = pq.ParquetFile(file).read(columns=["image_id", *(f"faces.list.element.{name}" for name in wanted)])
                names, flat = named_faces(table, source)
                # what gives no embedding resembles nobody
                vectors = {n: matrix(flat.field(embedding_column(n)), ALL_DIMENSIONS[n]) for n in self.thresholds}
                usable_here = [usable(v) for v in vectors.values()]
                wanted_ids = np.array([name.encode() for name in names], np.bytes_)
                at, stop = (np.searchsorted(everyone, wanted_ids, side) for side in ("left", "right"))
                absent = at == stop
                for i in np.flatnonzero(absent & np.all(usable_here, axis=0) & recognisable(flat, self.settings.swap.min_face)):
                    self.findings.add(checks.UNKNOWN, names[i])
                there = np.flatnonzero(~absent)
                alike = self._alike(order[at[there]], {n: v[there] for n, v in vectors.items()})
                for i in there[~alike]:
                    rows = order[at[i] : stop[i]]  # several if a later scan gave other embeddings
                    if not self._alike(rows, {n: v[i][None] for n, v in vectors.items()}).any():
                        self.findings.add(checks.UNKNOWN, f"{names[i]}: with other embeddings than the scan's")

    def _alike(self, rows: NDArray[np.int64], vectors: Mapping[str, F32]) -> NDArray[np.bool_]:
        """bool (n,): whether these rows of the index have these embeddings, by every recognizer."""
        near = [np.abs(self.known.vectors[n][rows] - v).max(1, initial=0) <= _SAME for n, v in vectors.items()]
        return np.asarray(np.all(near, axis=0), bool)


def read_manifest(ledger: Ledger) -> tuple[dict[str, Any], str]:
    """OUT/manifest.json and its sha-256.

    Raises:
        LedgerError: it is not there, so OUT is unfinished, or it is damaged.
    """
    try:
        data = ledger.read_bytes("manifest.json")
        manifest = json.loads(data)
    except FileNotFoundError:
        raise LedgerError(
            f"{ledger.out} has no manifest.json, so it is no finished result; run `mfmc anonymize` again to finish it, then audit it"
        ) from None
    except ValueError as error:
        raise LedgerError(f"{ledger.out}/manifest.json is damaged ({error}); run `mfmc anonymize` again to write it anew") from error
    if not isinstance(manifest, dict):
        raise LedgerError(f"{ledger.out}/manifest.json is damaged; run `mfmc anonymize` again to write it anew")
    return manifest, hashlib.sha256(data).hexdigest()


def _known(ledger: Ledger) -> tuple[dict[str, int], KnownFaces]:
    """The recognizers of the index and its faces."""
    first = ledger.work / "known" / "generation-00000.json"
    if not first.is_file():
        raise LedgerError(f"the known-face index in {ledger.work}/known is missing, so nothing can be proved; give the run's own WORK")
    recognizers = {str(name): int(dim) for name, dim in json.loads(first.read_text())["recognizers"].items()}
    if unknown := set(recognizers) - set(ALL_EMBEDDERS):
        raise LedgerError(f"the index was made with {unknown.pop()!r}, which this version does not have; install the one that made it")
    return recognizers, KnownIndex.open(ledger.work / "known", recognizers, digests_of(list(recognizers))).faces


def _settings(ledger: Ledger, manifest: Mapping[str, Any], config: RunConfig, findings: Findings) -> RunConfig:
    """The run's settings from the manifest, if they are those that WORK's run was begun with; else the defaults."""
    begun = json.loads((ledger.work / "run.json").read_text())
    try:
        stated = {name: value for name, value in dict(manifest["config"]).items() if name in DECIDING}
        settings = load(None, **stated)
    except (KeyError, TypeError, ValueError, ConfigError):
        settings = None
    if settings is None or settings.digest() != begun.get("config"):
        findings.add(checks.MANIFEST, "the settings are not those of the run in WORK")
        settings = RunConfig()
    return replace(settings, out=config.out, work=config.work, storage_options=config.storage_options, ray=config.ray)


def _thresholds(settings: RunConfig, recognizers: tuple[str, ...], n_known: int, calibration: Calibration) -> dict[str, float]:
    chosen = {name: calibration.default_threshold(name, n_known).value for name in recognizers}
    if settings.guard.threshold is not None:
        chosen[recognizers[0]] = settings.guard.threshold
    return chosen


def markers(ledger: Ledger, stage: Stage) -> Iterator[dict[str, Any]]:
    """What the run noted of each committed part: `files` with `file` and `sha256`."""
    for path in sorted((ledger.work / "ledger" / stage.name).glob("part-*.json")):
        yield json.loads(path.read_text())


def _files(ledger: Ledger, stage: Stage) -> list[Path]:
    """A private stage's committed files, whole and unchanged."""
    files = []
    for marker in markers(ledger, stage):
        for entry in marker["files"]:
            path = ledger.work / entry["file"]
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
                    raise ValueError(f"{path} is damaged or was changed; restore it, or run again with --restart")
            files.append(path)
    if not files:
        raise ValueError(f"no table of {stage.name} is there; repeat a `mfmc known add` that was broken off, or give the run's own WORK")
    return files
