"""A run, driven from one process: list, scan, index, identities, anonymize, publish. Each step resumes where a killed run left it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from mfmc_ray import __version__
from mfmc_ray.collection import Collection
from mfmc_ray.config import RunConfig
from mfmc_ray.faces.pack import DIMENSIONS, digests_of, files_of
from mfmc_ray.faces.store import load_lock, pull
from mfmc_ray.identities.catalogue import seeds
from mfmc_ray.identities.model import load_model
from mfmc_ray.identities.pool import SEEDS_PER_PART, more_seeds, pool_size
from mfmc_ray.known.index import KnownFaces, KnownIndex
from mfmc_ray.known.search import usable
from mfmc_ray.ledger import Ledger, LedgerError, Stage
from mfmc_ray.pipeline.anonymize import LEAST_MESH_SCORE
from mfmc_ray.pipeline.curves import calibration_of, keep
from mfmc_ray.pipeline.parts import run_parts
from mfmc_ray.pipeline.publish import publish
from mfmc_ray.pipeline.rows import matrix
from mfmc_ray.pipeline.session import actors, connect
from mfmc_ray.pipeline.workers import ANONYMIZE, GALLERY, POOL, SCAN, AnonymizeWorker, IdentityWorker, ScanWorker, count
from mfmc_ray.tables import embedding_column

PART_BYTES = 256 << 20
"""Source bytes of one output part at most, so that a part fits into a worker's memory."""
NEAREST_FAKES = 0.75
"""Two identities of the pool whose neutral renderings reach this cosine count as one; the later is left out."""


class Run:
    """One collection's way from originals to published tables.

    Args:
        config: all settings; `input`, `out` and `work` are given.
        restart: start anew instead of resuming.
        notices: what a reader of the result must know besides, for its manifest, card and report.

    Raises:
        LedgerError, CollectionError: the folders or the input cannot be used.
    """

    def __init__(self, config: RunConfig, *, restart: bool = False, notices: Sequence[str] = ()) -> None:
        self.config = config
        self.restart = restart
        self.notices = tuple(notices)
        self.ledger = Ledger(config.out, config.work, config.storage_options)
        self.recognizers = {name: DIMENSIONS[name] for name in config.guard.recognizers}
        self.calibration = calibration_of(config)
        self.console = Console(stderr=True, highlight=False)
        self.times: dict[str, dict[str, Any]] = {}

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """Holds the run's lock and Ray, with the models at hand, while steps are run."""
        collection = Collection.open(self.config.input, self.config.storage_options)
        self.ledger.check_input(collection.root)  # before anything is made: WORK itself may be in the input
        galleries = [Collection.open(gallery, self.config.storage_options) for gallery in self.config.guard.galleries]
        for gallery in galleries:
            self.ledger.check_input(gallery.root)
        with self.ledger.lock():
            self._begin(collection, galleries)
            pull(files_of([*self.config.find.detectors, *self.config.guard.recognizers, "mesh", "attributes"]))
            with connect(self.config.ray, self.ledger.work):
                yield

    def _begin(self, collection: Collection, galleries: Sequence[Collection]) -> None:
        units = _listed(collection)
        self.gallery_units = [_listed(gallery) for gallery in galleries]
        digest = hashlib.sha256(json.dumps([units, *self.gallery_units], sort_keys=True).encode()).hexdigest()
        resumed = self.ledger.begin(self.config.digest(), digest, restart=self.restart)
        if self.restart:
            for folder in ("scan", "gallery-*", "known", "pool", "report"):
                for path in self.ledger.work.glob(folder):
                    shutil.rmtree(path, ignore_errors=True)
        keep(self.ledger.work, self.calibration, list(self.recognizers), restart=self.restart)
        self.units = units
        skipped = "".join(f", {n} × {what} skipped" for what, n in sorted(collection.skipped.items()))
        self.console.print(f"{'Resuming' if resumed else 'Found'}: {len(units)} files in {self.config.input}{skipped}")

    # the steps

    def scan(self) -> None:
        """Finds the faces of every image: WORK/scan."""
        for stage, units in self._scans():
            self._scan(stage, units, "Scanning" if stage is SCAN else f"Scanning {stage.name}")

    def index(self) -> KnownFaces:
        """Builds the known-face index from the collection, the galleries and the identity model's references: WORK/known."""
        missing = [stage.name for stage, units in self._scans() if len(self.ledger.done(stage)) < len(list(_grouped(units)))]
        if missing:
            raise LedgerError(
                f"not everything was scanned yet ({', '.join(missing)}): run `mfmc scan` first, or the known faces would not be complete"
            )
        index = KnownIndex.open(self.ledger.work / "known", self.recognizers, digests_of(list(self.recognizers)))
        if len(index) == 0:
            references = load_model().references
            names = [f"reference:{i}" for i in range(len(references[next(iter(self.recognizers))]))]
            index.append(names, ["reference"] * len(names), {name: references[name] for name in self.recognizers})
        for stage, source in [(stage, "gallery") for stage in self._gallery_stages()] + [(SCAN, "collection")]:
            ids, vectors = self._known_of(stage, source)
            if ids:
                index.append(ids, [source] * len(ids), vectors)
        return index.faces

    def identities(self) -> pa.Table:
        """Fills the pool of fake identities: WORK/pool."""
        known = self.index()
        wanted = self.config.swap.identities or pool_size(self._scanned_faces())
        done = self.ledger.recover(POOL)
        offer = seeds(self.config.swap.seed)
        offered: list[dict[str, Any]] = [{"part": k, "seeds": [next(offer) for _ in range(SEEDS_PER_PART)]} for k in range(len(done))]
        started = time.monotonic()
        thresholds = self.thresholds(len(known))
        kwargs = {"config": self.config, "ledger": self.ledger, "known": known, "thresholds": thresholds, "calibration": self.calibration}
        while True:
            pool = self._pool()
            missing = more_seeds(wanted, pool.num_rows, len(offered) * SEEDS_PER_PART, asked=bool(self.config.swap.identities))
            if missing == 0:
                break
            if missing is None:
                self.console.print(f"[yellow]Only {pool.num_rows} of {wanted} fake identities are far enough from all known faces.")
                break
            more = -(-missing // SEEDS_PER_PART)
            parts: list[dict[str, Any]] = [
                {"part": len(offered) + k, "seeds": [next(offer) for _ in range(SEEDS_PER_PART)]} for k in range(more)
            ]
            offered.extend(parts)
            run_parts(
                IdentityWorker,
                kwargs,
                parts,
                actors=actors(self.config.ray),
                label="Certifying identities",
                total=more * SEEDS_PER_PART,
                on_result=_ignore,
            )
        if pool.num_rows == 0:
            raise LedgerError(
                "no fake identity is far enough from all known faces; see the thresholds in the manifest, or raise --threshold"
            )
        pool = pool.slice(0, wanted)
        self._timed("identities", started, pool.num_rows, 0)
        return pool

    def anonymize(self) -> None:
        """Swaps, checks, redacts and writes every image: OUT/images and OUT/faces."""
        known, pool = self.index(), self.identities()
        parts = self._anonymize_parts()
        done = self.ledger.recover(ANONYMIZE)
        stale = done.keys() - {part["part"] for part in parts}
        if stale:
            raise LedgerError(f"OUT holds {len(stale)} parts that this run did not plan; start anew with --restart")
        todo = [part for part in parts if part["part"] not in done]
        started = time.monotonic()
        kwargs = {
            "config": self.config,
            "ledger": self.ledger,
            "known": known,
            "thresholds": self.thresholds(len(known)),
            "calibration": self.calibration,
            "pool": pool,
            "key": self._key(),
        }
        total = sum(part["stop"] - part["start"] for part in todo)
        run_parts(AnonymizeWorker, kwargs, todo, actors=actors(self.config.ray), label="Anonymizing", total=total, on_result=_ignore)
        summaries = list(self.ledger.done(ANONYMIZE).values())
        if todo:
            self._timed("anonymize", started, total, sum(s["faces"] for s in summaries))
        publish(self.ledger, self.config, self.manifest(known, pool, summaries), pool, count(summaries, "uses"))

    def all(self) -> dict[str, Any]:
        """Every step, in order; the manifest."""
        self.scan()
        self.index()
        self.anonymize()
        return self.read_manifest()

    # what the steps leave behind

    def thresholds(self, n_known: int) -> dict[str, float]:
        """recognizer → the cosine a published face must stay below."""
        chosen = {}
        for i, name in enumerate(self.recognizers):
            given = self.config.guard.threshold if i == 0 else None
            chosen[name] = self.calibration.default_threshold(name, n_known).value if given is None else given
        return chosen

    def warnings(self, n_known: int) -> list[str]:
        """What the user must know about the thresholds."""
        found = [self.calibration.default_threshold(name, n_known).warning for name in self.recognizers]
        return [warning for warning in found if warning]

    def read_manifest(self) -> dict[str, Any]:
        """OUT/manifest.json."""
        manifest: dict[str, Any] = json.loads(self.ledger.read_text("manifest.json"))
        return manifest

    def manifest(self, known: KnownFaces, pool: pa.Table, summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """What was done, with which settings, models and index."""
        chosen = self.thresholds(len(known))
        used = files_of([*self.config.find.detectors, *self.recognizers, "mesh", "attributes"])
        return {
            "version": __version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "config": self.config.to_dict(),
            "counts": {
                "images": count(list(summaries), "image_verdicts"),
                "faces": count(list(summaries), "face_verdicts"),
                "redacted": count(list(summaries), "redacted"),
                "failed": count(list(summaries), "failed"),
                "attempts": sum(s["attempts"] for s in summaries),
                "identities": {"pool": pool.num_rows, "used": len(count(list(summaries), "uses"))},
            },
            "stages": self._stage_times(),
            "guard": [
                {
                    "recognizer": name,
                    "threshold": chosen[name],
                    "false_match_rate": self.calibration.fmr(name, chosen[name]),
                    "strict_threshold": self.calibration.strict_threshold(name),
                    "calibration": self.calibration.curves[name].digest,
                    "known_faces": len(known),
                    "generation": known.generation,
                    "index_digest": known.digest,
                }
                for name in self.recognizers
            ],
            "models": [
                {"name": model.name, "sha256": model.sha256, "license": model.license, "commercial": model.commercial}
                for model in load_lock()
                if model.name in used
            ],
            "notices": [*self.notices, *self.warnings(len(known))],
            "versions": {name: version(name) for name in ("ray", "pyarrow", "numpy", "faiss-cpu", "onnxruntime", "opencv-python-headless")},
        }

    # helpers

    def _scan(self, stage: Stage, units: list[dict[str, Any]], label: str) -> None:
        done = self.ledger.recover(stage)
        parts: list[dict[str, Any]] = [{"part": number, "units": some} for number, some in enumerate(_grouped(units))]
        todo = [part for part in parts if part["part"] not in done]
        if not todo:
            return
        started = time.monotonic()
        only_files = all(unit["kind"] == "file" for part in todo for unit in part["units"])
        run_parts(
            ScanWorker,
            {"config": self.config, "ledger": self.ledger, "stage": stage},
            todo,
            actors=actors(self.config.ray),
            label=label,
            total=sum(len(part["units"]) for part in todo) if only_files else None,
            on_result=_ignore,
        )
        summaries = self.ledger.done(stage).values()
        self._timed(stage.name, started, sum(s["images"] for s in summaries), sum(s["faces"] for s in summaries))

    def _scans(self) -> Iterator[tuple[Stage, list[dict[str, Any]]]]:
        """The stages that scan, galleries first, each with its units."""
        yield from zip(self._gallery_stages(), self.gallery_units, strict=True)
        yield SCAN, self.units

    def _gallery_stages(self) -> list[Stage]:
        return [replace(GALLERY, name=f"gallery-{n}", tables=(f"gallery-{n}",)) for n in range(len(self.config.guard.galleries))]

    def _known_of(self, stage: Stage, source: str) -> tuple[list[str], dict[str, Any]]:
        ids: list[str] = []
        vectors: dict[str, list[Any]] = {name: [] for name in self.recognizers}
        prefix = "" if source == "collection" else f"{source}:"
        seen: set[str] = set()
        for file in self._files(stage):
            table = pq.read_table(file, columns=["image_id", "faces"])
            faces = table["faces"].combine_chunks()
            counts = np.asarray(faces.value_lengths().fill_null(0).to_numpy(zero_copy_only=False))
            flat = faces.flatten()
            arrays = {name: matrix(flat.field(embedding_column(name)), dim) for name, dim in self.recognizers.items()}
            good = np.all([usable(array) for array in arrays.values()], axis=0) & recognisable(flat, self.config.swap.min_face)
            names = [f"{prefix}{image}:{k}" for image, n in zip(table["image_id"].to_pylist(), counts, strict=True) for k in range(n)]
            keep = []
            for i, name in enumerate(names):
                if good[i] and name not in seen:  # a duplicate's faces are known already
                    seen.add(name)
                    keep.append(i)
            ids += [names[i] for i in keep]
            for recognizer, array in arrays.items():
                vectors[recognizer].append(array[keep])
        return ids, {name: np.concatenate(parts) for name, parts in vectors.items() if parts}

    def _files(self, stage: Stage) -> list[Path]:
        return [self.ledger.work / stage.tables[0] / f"part-{part:05d}.parquet" for part in sorted(self.ledger.done(stage))]

    def _scanned_faces(self) -> int:
        return sum(s["faces"] for s in self.ledger.done(SCAN).values())

    def _pool(self) -> pa.Table:
        """What was admitted so far, without identities that look alike."""
        files = self._files(POOL)
        if not files:
            return pa.table({"seed": pa.array([], pa.int64())})
        pool = pa.concat_tables([pq.read_table(file) for file in files])
        name, dim = next(iter(self.recognizers.items()))
        vectors = matrix(pool[embedding_column(name)], dim)
        kept: list[int] = []
        for i in range(pool.num_rows):
            if not kept or float((vectors[kept] @ vectors[i]).max()) < NEAREST_FAKES:
                kept.append(i)
        return pool.take(kept)

    def _anonymize_parts(self) -> list[dict[str, Any]]:
        """Slices of the scan's files, a part each, with the duplicates in them."""
        parts: list[dict[str, Any]] = []
        first: dict[str, str] = {}
        for file in self._files(SCAN):
            table = pq.read_table(file, columns=["image_id", "path", "source_bytes"])
            ids, paths = table["image_id"].to_pylist(), table["path"].to_pylist()
            sizes = [size or 0 for size in table["source_bytes"].to_pylist()]
            start, held = 0, 0
            for row in range(len(ids) + 1):
                full = row - start >= self.config.output.rows_per_part or (
                    row > start and row < len(ids) and held + sizes[row] > PART_BYTES
                )
                if row == len(ids) or full:
                    if row > start:
                        name = str(file.relative_to(self.ledger.work))
                        parts.append({"part": len(parts), "file": name, "start": start, "stop": row, "duplicates": {}})
                    start, held = row, 0
                if row < len(ids):
                    held += sizes[row]
            for part in parts:
                if part["file"] != str(file.relative_to(self.ledger.work)):
                    continue
                for row in range(part["start"], part["stop"]):
                    if ids[row] is None:
                        continue
                    if ids[row] in first:
                        part["duplicates"][str(row - part["start"])] = f"duplicate of {first[ids[row]]}"
                    else:
                        first[ids[row]] = paths[row]
        if not parts:
            raise LedgerError("nothing was scanned yet; run `mfmc scan` first")
        return parts

    def _key(self) -> bytes:
        """The run's secret: who holds it can repeat the random choices. Made once, readable by its owner only."""
        path = self.ledger.work / "pseudonym.key"
        with contextlib.suppress(FileExistsError), open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
            file.write(secrets.token_bytes(32))
        key = path.read_bytes()
        if len(key) != 32:
            raise LedgerError(f"{path} is damaged; start anew with --restart after removing it")
        return key

    def _timed(self, name: str, started: float, images: int, faces: int) -> None:
        path = self.ledger.work / "times.json"
        times = json.loads(path.read_text()) if path.exists() else {}
        times[name] = {"name": name, "seconds": round(time.monotonic() - started, 2), "images": images, "faces": faces}
        path.write_text(json.dumps(times))

    def _stage_times(self) -> list[dict[str, Any]]:
        path = self.ledger.work / "times.json"
        return list(json.loads(path.read_text()).values()) if path.exists() else []


def recognisable(faces: pa.StructArray, min_face: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which detections (rows of the scan's `faces`) are known faces: bool (n,).

    Left out is what cannot be told from others by anyone, and would only be in every fake's way: detections smaller than `min_face`, and
    those that one detector alone saw and the face mesh denies (hands, patterns). They are redacted, never published.
    """
    box = matrix(faces.field("box"), 4)
    size = np.sqrt(np.clip(box[:, 2] - box[:, 0], 0, None) * np.clip(box[:, 3] - box[:, 1], 0, None))
    confirmed = np.array(["+" in name for name in faces.field("detectors").to_pylist()], bool)
    mesh = np.asarray(faces.field("mesh_score").to_numpy(zero_copy_only=False))
    return np.asarray((size >= min_face) & (confirmed | (mesh >= LEAST_MESH_SCORE)))


def _listed(collection: Collection) -> list[dict[str, Any]]:
    return [{"unit": u.unit, "path": u.path, "kind": u.kind, "size": u.size, "version": u.version} for u in collection.units()]


def _grouped(units: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Units in parts that depend on the listing only: a shard by itself, files in runs."""
    size = 8 if len(units) < 400 else 32 if len(units) < 10_000 else 128
    group: list[dict[str, Any]] = []
    for unit in units:
        if unit["kind"] != "file":
            yield [unit | {"part": 0}]
            continue
        group.append(unit | {"part": 0})
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _ignore(part: int, summary: dict[str, Any]) -> None:
    """The markers hold the summaries."""
