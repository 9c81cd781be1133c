"""A run, driven from one process: list, scan, index, identities, anonymize, publish. Each step resumes where a killed run left it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.markup import escape

from mfmc_ray.access.combined import access_model
from mfmc_ray.collection import Collection
from mfmc_ray.config import RunConfig
from mfmc_ray.credentials import Credential
from mfmc_ray.faces.pack import ALL_DIMENSIONS
from mfmc_ray.faces.store import pull
from mfmc_ray.key import obtain
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.known.certificate import terms_of
from mfmc_ray.known.index import KnownFaces
from mfmc_ray.ledger import Ledger, LedgerError
from mfmc_ray.pipeline import approved
from mfmc_ray.pipeline.away import call, held
from mfmc_ray.pipeline.curves import calibration_of, keep, used
from mfmc_ray.pipeline.fakes import LINKED, Fakes
from mfmc_ray.pipeline.known import (
    added_galleries,
    carry_forgotten,
    end_gallery,
    fix_galleries,
    gallery_stages,
    known_faces,
)
from mfmc_ray.pipeline.manifest import manifest_of, model_digests, models_of, name_weights
from mfmc_ray.pipeline.parts import run_parts
from mfmc_ray.pipeline.plan import Plan, images_in, plan_parts
from mfmc_ray.pipeline.pool import admitted
from mfmc_ray.pipeline.profiles import LOOK, SWAP
from mfmc_ray.pipeline.pseudonyms import version_of
from mfmc_ray.pipeline.publish import publish
from mfmc_ray.pipeline.recognise import NOBODY, check_apart, people_of, recognise, told
from mfmc_ray.pipeline.remote import Ask
from mfmc_ray.pipeline.roles import Look, Swap
from mfmc_ray.pipeline.scans import Scans
from mfmc_ray.pipeline.services import Services
from mfmc_ray.pipeline.session import cluster_of, connect, plan_of, prepare
from mfmc_ray.pipeline.shards import Shards
from mfmc_ray.pipeline.state import State
from mfmc_ray.pipeline.times import Times
from mfmc_ray.pipeline.update import UpdateWorker, cheaply
from mfmc_ray.pipeline.workers import ANONYMIZE, SCAN, AnonymizeWorker, certified, count, grounds_of
from mfmc_ray.private import NAMES, complaints
from mfmc_ray.swap.swappers import fetch, spec_of


class Run:
    """One collection's way from originals to published tables.

    Args:
        config: all settings; `input`, `out` and `work` are given.
        restart: start anew instead of resuming.
        update: bring a run up to date whose input or settings have changed, instead of refusing it.
        notices: what a reader of the result must know besides, for its manifest, card and report.
        calibration: what thresholds come from; None: what the settings name.

    Raises:
        LedgerError, CollectionError, CalibrationError, AccessError, PeopleError, ReviewError: the folders, the input, the calibration, the
            access tables, the enrolled people or the reviewers' decisions cannot be used.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        restart: bool = False,
        update: bool = False,
        notices: Sequence[str] = (),
        calibration: Calibration | None = None,
    ) -> None:
        self.config = config
        self.restart, self.update = restart, update
        self.notices = tuple(notices)
        self.ledger = Ledger(config.out, config.work, config.storage_options)
        self.recognizers = {name: ALL_DIMENSIONS[name] for name in config.guard.recognizers}
        self.calibration = calibration or calibration_of(config)
        self.take_access()
        self.console = Console(stderr=True, highlight=False)
        self.planned: Plan = Plan()
        """What `publish` did last."""
        self._input_stays = True
        self.key_in = self.ledger.work
        """Folder of the key: a private one; of several releases the first one's."""
        self.times, self.state = Times(self.ledger.work), State(self.ledger.work)
        self._services = Services()
        self.scans = Scans(config, self.ledger, self.times, update=update, services=self._looking)
        self._shards = Shards(self.ledger.work / "known", self.recognizers, config.guard.shards)

    def take_access(self) -> None:
        """Reads who is enrolled, and what the access tables and the reviewers say, as it is now; nobody is recognised yet."""
        self.people = people_of(self.config, self.ledger)
        self.access = approved.reviewed(access_model(self.config), self.ledger.work)
        self.sightings = NOBODY

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """Holds the run's lock and Ray, with the models at hand, while steps are run."""
        listing = self.open()
        with self.ledger.lock():
            self.scans.list_units(listing)
            self.begin()
            with self.working():
                yield

    def open(self) -> list[Collection]:
        """The collection and the galleries, which must be apart from OUT, WORK and the enrolled people.

        Raises:
            LedgerError, CollectionError: they cannot be used.
        """
        _ = self.scans.boxes  # can be read, or says why not
        spec_of(self.config.swap)
        Credential.of(self.config.output)  # can be signed with, or says why not before anything is made
        collection = Collection.open(self.config.input, self.config.storage_options)
        self.ledger.check_input(collection.root)  # before anything is made: WORK itself may be in the input
        galleries = [Collection.open(gallery, self.config.storage_options) for gallery in self.config.guard.galleries]
        for gallery in galleries:
            self.ledger.check_input(gallery.root)
        for place in (collection, *galleries):
            check_apart(self.people, "the input", place.root)
        return [collection, *galleries]

    def begin(self) -> None:
        """Takes up the run in WORK, or starts one; the lock is held and everything listed."""
        self.ledger.probe()
        if self.restart:
            carry_forgotten(self.ledger)
            if added := len(added_galleries(self.ledger)):
                warning = f"{added} galleries given to `mfmc known add` are not known any more: add them again, or name them with --known"
                self.console.print(f"[yellow]{warning}[/yellow]", soft_wrap=True)
        elif self.update:
            self.state.reopen()
        resumed = self.ledger.begin(self.config.digest(), self.scans.digest, restart=self.restart, update=self.update)
        self.state.begin(self.config, model_digests(self.config))
        keep(self.ledger.work, self.calibration, list(self.recognizers), restart=self.restart or self.update)
        approved.begin(self.ledger.work, self.access, self.people, resumed=resumed and not self.update)
        fix_galleries(self.ledger, len(self.config.guard.galleries))
        skipped = "".join(f", {n} × {what} skipped" for what, n in sorted(self.scans.skipped.items()))
        self.console.print(f"{'Resuming' if resumed else 'Found'}: {len(self.scans.units)} files in {self.config.input}{skipped}")

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Models and Ray, for as long as the block runs."""
        for complaint in complaints(self.ledger.work):
            self.console.print(f"[yellow]{escape(complaint)}[/yellow]", soft_wrap=True)
        pull(models_of(self.config))
        fetch(self.config.swap)
        name_weights(self.config)
        with connect(self.config.ray, self.ledger.work), contextlib.closing(self._shards), contextlib.closing(self._services):
            prepare(models_of(self.config), self.config.swap)
            for line in plan_of(self.config.ray).told():
                self.console.print(line, markup=False, soft_wrap=True)
            yield
            for line in self._services.told():
                self.console.print(line, markup=False, soft_wrap=True)
        with contextlib.suppress(OSError):  # not if it holds what a worker has left
            (self.ledger.work / "watch").rmdir()

    @classmethod
    def finished(cls, config: RunConfig) -> Run:
        """The run whose result is in OUT, with its own settings.

        Args:
            config: `out`, `work`, `storage_options` and `ray` are used.

        Raises:
            LedgerError: WORK holds no run, none of this OUT, or an unfinished one.
        """
        ledger = Ledger(config.out, config.work, config.storage_options)
        state = State(ledger.work)
        loaded = state.finished_settings(ledger)
        return cls(
            replace(loaded, out=config.out, work=config.work, storage_options=config.storage_options, ray=config.ray),
            calibration=used(ledger.work, loaded),
            notices=state.notices,
        )

    @contextlib.contextmanager
    def reopened(self) -> Iterator[None]:
        """As `session`, for a finished run whose input is not listed again, and may be gone."""
        self._input_stays = False
        with self.ledger.lock(), self.working():
            yield

    # the steps

    def scan(self) -> None:
        """Finds the faces of every image: WORK/scan."""
        for stage, units in self.scans:
            self.scans.bring_up(stage, units, "Scanning" if stage is SCAN else f"Scanning {stage.name}")
        for note in self.scans.notes():
            self.console.print(note, markup=False, soft_wrap=True)

    def index(self) -> KnownFaces:
        """Builds the known-face index from the collection, the galleries and the identity model's references: WORK/known."""
        missing = [stage.name for stage, units in self.scans if self.scans.difference(stage, units)]
        if missing:
            raise LedgerError(
                f"not everything was scanned yet ({', '.join(missing)}): run `mfmc scan` first, or the known faces would not be complete"
            )
        return self._known()

    def known(self) -> KnownFaces:
        """The known faces of everything that was scanned so far.

        Raises:
            LedgerError: parts of the scan are gone; who is in them would be forgotten.
        """
        configured, whole = len(self.config.guard.galleries), self.state.parts
        stages = (*gallery_stages(self.ledger, configured)[:configured], SCAN)
        if gone := [stage.name for stage in stages if len(self.ledger.recover(stage)) < whole.get(stage.name, 0)]:
            raise LedgerError(f"parts of {', '.join(gone)} are gone, so OUT cannot be brought up to date; run `mfmc anonymize` again first")
        return self._known()

    def _known(self) -> KnownFaces:
        galleries, min_face = gallery_stages(self.ledger, len(self.config.guard.galleries)), self.config.swap.min_face
        vectors = not self.config.guard.shards and cluster_of(self.config.ray) is None
        known = call(self.config.ray, known_faces, self.ledger, galleries, self.recognizers, min_face, people=self.people, vectors=vectors)
        self.recognise()
        return known

    def recognise(self) -> None:
        """Finds the enrolled people among all faces that were scanned so far, and binds the access model to them."""
        min_face = self.config.swap.min_face
        if self.people is not None:
            names = list(self.recognizers)
            self.sightings = call(self.config.ray, recognise, self.ledger, self.people, self.calibration, names, min_face)
        self.access = self.access.bound(self.sightings)

    def identities(self) -> pa.Table:
        """Fills the pool of fake identities: WORK/pool."""
        return self._fakes(self.index()).pool

    def anonymize(self) -> list[dict[str, Any]]:
        """Swaps, checks, redacts and writes every image: OUT/images and OUT/faces; as `publish`."""
        known = self.index()
        if self.people is not None:
            faces = sum(summary["faces"] for summary in self.ledger.done(SCAN).values())
            line = told(self.sightings, self.people, self.calibration, list(self.recognizers), faces)
            self.console.print(line, markup=False, soft_wrap=True)
        for line in approved.notes(self.access, self.ledger, self.people.people() if self.people else None):
            self.console.print(line, markup=False, soft_wrap=True)
        return self.publish(known)

    def publish(self, known: KnownFaces) -> list[dict[str, Any]]:
        """Brings OUT up to date with the known faces: anonymizes what is not yet, renews what was certified against fewer.

        Returns:
            what no longer held: failed certificates (`tables.CERTIFICATE`) with the `identity_id` of a pool identity, or what `RenewWorker`
            says of published faces. It holds again, or is gone, when this returns.
        """
        self.withdraw()
        self.ledger.recover(ANONYMIZE)
        grounds = grounds_of(self.config, known, self.thresholds(len(known)), self.calibration)
        fakes = self._fakes(known)
        pool, fallen, certifying = fakes.pool, fakes.fallen, fakes.certifying
        version = version_of(self.access.version, fakes.assigned)
        plan = self.planned = plan_parts(
            self.ledger, self.config.output.rows_per_part, made=grounds["made"], access=version, night=self.update
        )
        for part in plan.gone:
            self.ledger.remove_part(ANONYMIZE, part)
        old = [part for part in plan.kept if not certified(part["summary"], grounds)]
        kwargs = {**certifying, "pool": pool, "key": obtain(self.key_in), "access": self.access, "assigned": fakes.assigned}
        plan_of_work = plan_of(self.config.ray)
        holding = set(admitted(self.ledger)["identity_id"].to_pylist())
        update: dict[str, Any] = {
            "anonymize": kwargs,
            "recognizers": self.recognizers,
            "identities": holding,
            "input_stays": self._input_stays,
        }
        with self.times.of("anonymize") as timed:

            def updated(part: int, summary: dict[str, Any]) -> None:
                fallen.extend(summary["fallen"])
                timed.add(*summary["done"])

            stale = [*plan.changed, *old]
            if stale:
                done, stale = call(self.config.ray, cheaply, update, stale)
                for part, summary in done:
                    updated(part, summary)
            run_parts(UpdateWorker, update, stale, plan=plan_of_work, label="Updating", total=images_in(stale), on_result=updated)
            run_parts(
                AnonymizeWorker,
                kwargs,
                plan.new,
                plan=plan_of_work,
                label="Anonymizing",
                total=images_in(plan.new),
                on_result=lambda part, summary: timed.add(summary["images"], summary["faces"]),
            )
        summaries = list(self.ledger.done(ANONYMIZE).values())
        manifest = manifest_of(
            self.config,
            known,
            certifying["thresholds"],
            self.calibration,
            summaries,
            pool=pool.num_rows,
            stages=self.times.all(),
            resources=self._services.published(plan_of_work),
            notices=[*self.notices, NAMES, *([LINKED] if fakes.assigned else []), *self.warnings(len(known))],
        )
        publish(self.ledger, self.config, manifest, admitted(self.ledger), count(summaries, "uses"))
        stages = (*gallery_stages(self.ledger, len(self.config.guard.galleries)), SCAN)
        self.state.finish(self.notices, {stage.name: len(self.ledger.done(stage)) for stage in stages})
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

    # helpers

    def scan_gallery(self, place: str) -> int:
        """Finds the faces of a further gallery of a finished run.

        Returns:
            how many of its pictures could not be read: nobody in them becomes known.
        """
        stage, new = self.scans.add_gallery(place)
        if new:
            self.withdraw()  # from now on whatever is done to the run makes them known
            end_gallery(self.ledger)
        return sum(sum(summary["bad"].values()) for summary in self.ledger.done(stage).values())

    def _certifying(self, known: KnownFaces) -> dict[str, Any]:
        """What every worker that certifies takes."""
        thresholds = self.thresholds(len(known))
        certifying = {
            "config": self.config,
            "ledger": self.ledger,
            "known": known if self.config.guard.shards else held(self.config.ray, self.ledger.work / "known", self.recognizers, known),
            "thresholds": thresholds,
            "calibration": self.calibration,
            "searches": self._shards.searches(known),
        }
        return {**certifying, "services": self._swapping(certifying)}

    def _looking(self) -> Ask | None:
        """The services that find faces, started when they are needed first; None if the profile has none."""
        arguments = {"find": self.config.find, "recognizers": self.config.guard.recognizers}
        self._services.start(plan_of(self.config.ray), LOOK, Look, arguments, "")
        return self._services.ask()

    def _swapping(self, certifying: Mapping[str, Any]) -> Ask | None:
        """All services, those that swap faces with what is certified against."""
        self._looking()
        known, terms = certifying["known"], terms_of(certifying["thresholds"], certifying["calibration"])
        if self.config.swap.pseudonyms != "none":
            self._services.start(plan_of(self.config.ray), SWAP, Swap, certifying, f"{known.digest} {terms}")
        return self._services.ask()

    def _fakes(self, known: KnownFaces) -> Fakes:
        """The pool, renewed and filled up, and who wears what."""
        salts = self.people.salts if self.people else {}
        made = (self.config, self.ledger, self.recognizers, self._certifying(known), self.times, self.console)
        return Fakes.made(*made, sightings=self.sightings, salts=salts, key_in=self.key_in)
