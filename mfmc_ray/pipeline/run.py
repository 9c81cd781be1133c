"""A run, driven from one process: list, scan, index, identities, anonymize, publish. Each step resumes where a killed run left it."""

from __future__ import annotations

import contextlib
import dataclasses
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
from typing import Any

import pyarrow as pa
from rich.console import Console

from mfmc_ray import __version__
from mfmc_ray.collection import Collection
from mfmc_ray.config import RunConfig, load
from mfmc_ray.faces.pack import DIMENSIONS, files_of
from mfmc_ray.faces.store import load_lock, pull
from mfmc_ray.identities.pool import pool_size
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.known.generations import replace_file
from mfmc_ray.known.index import KnownFaces
from mfmc_ray.known.renewal import Renewal
from mfmc_ray.ledger import Ledger, LedgerError, Stage
from mfmc_ray.pipeline.curves import calibration_of, keep, used
from mfmc_ray.pipeline.known import added_galleries, begin_gallery, build_index, end_gallery, gallery_stages
from mfmc_ray.pipeline.parts import run_parts
from mfmc_ray.pipeline.plan import anonymize_parts, grouped, images_in, listed
from mfmc_ray.pipeline.pool import admitted, fill_pool, renew_pool
from mfmc_ray.pipeline.publish import publish
from mfmc_ray.pipeline.renew import RenewWorker
from mfmc_ray.pipeline.session import actors, connect
from mfmc_ray.pipeline.shards import Shards
from mfmc_ray.pipeline.workers import ANONYMIZE, SCAN, AnonymizeWorker, IdentityWorker, ScanWorker, count

_SETTINGS = "settings.json"
_FINISHED = "ledger/finished.json"


class Run:
    """One collection's way from originals to published tables.

    Args:
        config: all settings; `input`, `out` and `work` are given.
        restart: start anew instead of resuming.
        notices: what a reader of the result must know besides, for its manifest, card and report.
        calibration: what thresholds come from; None: what the settings name.

    Raises:
        LedgerError, CollectionError, CalibrationError: the folders, the input or the calibration cannot be used.
    """

    def __init__(
        self, config: RunConfig, *, restart: bool = False, notices: Sequence[str] = (), calibration: Calibration | None = None
    ) -> None:
        self.config = config
        self.restart = restart
        self.notices = tuple(notices)
        self.ledger = Ledger(config.out, config.work, config.storage_options)
        self.recognizers = {name: DIMENSIONS[name] for name in config.guard.recognizers}
        self.calibration = calibration or calibration_of(config)
        self.console = Console(stderr=True, highlight=False)
        self._shards = Shards(self.ledger.work / "known", self.recognizers, config.guard.shards)

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """Holds the run's lock and Ray, with the models at hand, while steps are run."""
        collection = Collection.open(self.config.input, self.config.storage_options)
        self.ledger.check_input(collection.root)  # before anything is made: WORK itself may be in the input
        galleries = [Collection.open(gallery, self.config.storage_options) for gallery in self.config.guard.galleries]
        for gallery in galleries:
            self.ledger.check_input(gallery.root)
        self.ledger.probe()
        with self.ledger.lock():
            self._begin(collection, galleries)
            pull(files_of([*self.config.find.detectors, *self.config.guard.recognizers, "mesh", "attributes"]))
            with connect(self.config.ray, self.ledger.work), contextlib.closing(self._shards):
                yield

    def _begin(self, collection: Collection, galleries: Sequence[Collection]) -> None:
        units = listed(collection)
        self.gallery_units = [listed(gallery) for gallery in galleries]
        digest = hashlib.sha256(json.dumps([units, *self.gallery_units], sort_keys=True).encode()).hexdigest()
        resumed = self.ledger.begin(self.config.digest(), digest, restart=self.restart)
        settings = dataclasses.asdict(replace(self.config, storage_options={}))  # which may hold secrets
        (self.ledger.work / _SETTINGS).write_text(json.dumps(settings, indent=1))
        keep(self.ledger.work, self.calibration, list(self.recognizers), restart=self.restart)
        self.units = units
        skipped = "".join(f", {n} × {what} skipped" for what, n in sorted(collection.skipped.items()))
        self.console.print(f"{'Resuming' if resumed else 'Found'}: {len(units)} files in {self.config.input}{skipped}")

    @classmethod
    def finished(cls, config: RunConfig) -> Run:
        """The run whose result is in OUT, with its own settings.

        Args:
            config: `out`, `work`, `storage_options` and `ray` are used.

        Raises:
            LedgerError: WORK holds no run, none of this OUT, or an unfinished one.
        """
        ledger = Ledger(config.out, config.work, config.storage_options)
        try:
            settings = json.loads((ledger.work / _SETTINGS).read_text())
            begun = json.loads((ledger.work / "run.json").read_text())
        except (OSError, ValueError) as error:
            raise LedgerError(f"WORK ({ledger.work}) holds no run; give the private folder of the run that made {ledger.out}") from error
        if "config" not in begun:
            raise LedgerError(f"the run in {ledger.work} was being started anew; run `mfmc anonymize --restart` again first")
        if begun.get("out") != ledger.out:
            raise LedgerError(f"WORK ({ledger.work}) belongs to another OUT ({begun.get('out')})")
        if not (ledger.work / _FINISHED).is_file():
            raise LedgerError(f"the run in {ledger.work} is not finished; run `mfmc anonymize` again to finish it first")
        loaded = load(None, **{name: value for name, value in settings.items() if name not in ("storage_options", "ray")})
        return cls(
            replace(loaded, out=config.out, work=config.work, storage_options=config.storage_options, ray=config.ray),
            calibration=used(ledger.work, loaded),
            notices=json.loads((ledger.work / _FINISHED).read_text())["notices"],
        )

    @contextlib.contextmanager
    def reopened(self) -> Iterator[None]:
        """As `session`, for a finished run whose input is not listed again."""
        with self.ledger.lock():
            shutil.rmtree(self.ledger.work / "ray-spill", ignore_errors=True)  # of a run that was killed
            pull(files_of([*self.config.find.detectors, *self.config.guard.recognizers, "mesh", "attributes"]))
            with connect(self.config.ray, self.ledger.work), contextlib.closing(self._shards):
                yield

    # the steps

    def scan(self) -> None:
        """Finds the faces of every image: WORK/scan."""
        for stage, units in self._scans():
            self._scan(stage, units, "Scanning" if stage is SCAN else f"Scanning {stage.name}")

    def index(self) -> KnownFaces:
        """Builds the known-face index from the collection, the galleries and the identity model's references: WORK/known."""
        missing = [stage.name for stage, units in self._scans() if len(self.ledger.done(stage)) < len(list(grouped(units)))]
        if missing:
            raise LedgerError(
                f"not everything was scanned yet ({', '.join(missing)}): run `mfmc scan` first, or the known faces would not be complete"
            )
        return self.known()

    def known(self) -> KnownFaces:
        """The known faces of everything that was scanned so far."""
        galleries = gallery_stages(self.ledger, len(self.config.guard.galleries))
        return build_index(self.ledger, galleries, self.recognizers, self.config.swap.min_face, vectors=not self.config.guard.shards).faces

    def identities(self) -> pa.Table:
        """Fills the pool of fake identities: WORK/pool."""
        return self._pool(self.index())[0]

    def anonymize(self) -> None:
        """Swaps, checks, redacts and writes every image: OUT/images and OUT/faces."""
        self.publish(self.index())

    def publish(self, known: KnownFaces) -> list[dict[str, Any]]:
        """Brings OUT up to date with the known faces: anonymizes what is not yet, renews what was certified against fewer.

        Returns:
            what no longer held: failed certificates (`tables.CERTIFICATE`) with the `identity_id` of a pool identity, or what `RenewWorker`
            says of published faces. It holds again, or is gone, when this returns.
        """
        self.withdraw()
        path = self.ledger.work / _FINISHED
        finished = json.loads(path.read_text()) if path.is_file() else {}
        if len(self.ledger.done(SCAN)) < finished.get("scan_parts", 0):
            raise LedgerError("parts of the scan are gone, so OUT cannot be brought up to date; run `mfmc anonymize` again first")
        parts = anonymize_parts(self.ledger, self.config.output.rows_per_part)
        done = self.ledger.recover(ANONYMIZE)
        stale = done.keys() - {part["part"] for part in parts}
        if stale:
            raise LedgerError(f"OUT holds {len(stale)} parts that this run did not plan; start anew with --restart")
        todo = [part for part in parts if part["part"] not in done]
        old = [part | {"summary": done[part["part"]]} for part in parts if part["part"] in done]
        old = [part for part in old if part["summary"].get("index_digest") != known.digest]
        pool, fallen = self._pool(known)
        kwargs = {**self._certifying(known), "pool": pool, "key": self._key()}
        count_of = actors(self.config.ray)
        renew = {"anonymize": kwargs, "recognizers": self.recognizers, "identities": set(admitted(self.ledger)["identity_id"].to_pylist())}
        run_parts(
            RenewWorker,
            renew,
            old,
            actors=count_of,
            label="Renewing certificates",
            total=images_in(old),
            on_result=lambda part, summary: fallen.extend(summary["fallen"]),
        )
        started = time.monotonic()
        run_parts(AnonymizeWorker, kwargs, todo, actors=count_of, label="Anonymizing", total=images_in(todo), on_result=_ignore)
        summaries = list(self.ledger.done(ANONYMIZE).values())
        if todo:
            self._timed("anonymize", started, images_in(todo), sum(s["faces"] for s in summaries))
        publish(self.ledger, self.config, self.manifest(known, pool, summaries), admitted(self.ledger), count(summaries, "uses"))
        finished = {"notices": self.notices, "scan_parts": len(self.ledger.done(SCAN))}
        replace_file(self.ledger.work / _FINISHED, lambda path: path.write_text(json.dumps(finished)))
        return fallen

    def withdraw(self) -> None:
        """Takes manifest and audit out of OUT, which is no finished dataset until `publish` has ended."""
        for name in ("manifest.json", "audit.json"):
            self.ledger.remove(name)

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
        parts: list[dict[str, Any]] = [{"part": number, "units": some} for number, some in enumerate(grouped(units))]
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
        configured = len(self.config.guard.galleries)
        yield from zip(gallery_stages(self.ledger, configured)[:configured], self.gallery_units, strict=True)
        yield SCAN, self.units

    def scan_gallery(self, place: str) -> int:
        """Finds the faces of a further gallery of a finished run: WORK/gallery-N. A gallery that was scanned before is passed over.

        Returns:
            how many of its pictures could not be read: nobody in them becomes known.
        """
        collection = Collection.open(place, self.config.storage_options)
        self.ledger.check_input(collection.root)
        units = listed(collection)
        digest = hashlib.sha256(json.dumps(units, sort_keys=True).encode()).hexdigest()
        configured = len(self.config.guard.galleries)
        stage = begin_gallery(self.ledger, configured, digest)
        if stage is not None:
            self._scan(stage, units, "Scanning the gallery")
            self.withdraw()  # from now on whatever is done to the run makes them known
            end_gallery(self.ledger)
        number = configured + added_galleries(self.ledger).index(digest)
        summaries = self.ledger.done(gallery_stages(self.ledger, configured)[number]).values()
        return sum(sum(summary["bad"].values()) for summary in summaries)

    def _certifying(self, known: KnownFaces) -> dict[str, Any]:
        """What every worker that certifies takes."""
        thresholds = self.thresholds(len(known))
        return {
            "config": self.config,
            "ledger": self.ledger,
            "known": known,
            "thresholds": thresholds,
            "calibration": self.calibration,
            "searches": self._shards.searches(known),
        }

    def _pool(self, known: KnownFaces) -> tuple[pa.Table, list[dict[str, Any]]]:
        """The pool, renewed and filled up, and the certificates that no longer held."""
        started, certifying = time.monotonic(), self._certifying(known)
        renewal = Renewal(self.ledger.work / "known", self.recognizers, known, certifying["thresholds"], certifying["calibration"])
        fallen = renew_pool(self.ledger, self.recognizers, renewal, known.digest)

        def certify(parts: list[dict[str, Any]]) -> None:
            total = sum(len(part["seeds"]) for part in parts)
            count_of = actors(self.config.ray)
            run_parts(IdentityWorker, certifying, parts, actors=count_of, label="Certifying identities", total=total, on_result=_ignore)

        faces = sum(s["faces"] for s in self.ledger.done(SCAN).values())
        asked = self.config.swap.identities
        pool = fill_pool(
            self.ledger,
            self.recognizers,
            wanted=asked or pool_size(faces),
            asked=bool(asked),
            seed=self.config.swap.seed,
            certify=certify,
            console=self.console,
        )
        self._timed("identities", started, pool.num_rows, 0)
        return pool, fallen

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


def _ignore(part: int, summary: dict[str, Any]) -> None:
    """The markers hold the summaries."""
