"""The scans of a run: of the collection and of each gallery, compared with their listings and brought up to date."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mfmc_ray.boxes import Boxes, BoxesError
from mfmc_ray.collection import Collection, CollectionError
from mfmc_ray.config import RunConfig
from mfmc_ray.ledger import Ledger, Stage
from mfmc_ray.pipeline.before import Before, scanned
from mfmc_ray.pipeline.difference import Difference, difference, scan_parts
from mfmc_ray.pipeline.known import added_galleries, begin_gallery, dropped_galleries, gallery_stages
from mfmc_ray.pipeline.listing import Digest, Listing
from mfmc_ray.pipeline.parts import run_parts
from mfmc_ray.pipeline.remote import Ask
from mfmc_ray.pipeline.session import plan_of
from mfmc_ray.pipeline.times import Times
from mfmc_ray.pipeline.workers import SCAN, ScanWorker

Units = Sequence[dict[str, Any]]
FOLDER = "listing"
"""In WORK: what the last run has listed."""


class Scans:
    """Args:
        config: of the run.
        ledger: its folders.
        times: notes how long it takes.
        update: whether a run is brought up to date, rather than begun or resumed.

    Attributes:
        units, gallery_units: of the collection and of each gallery, once they are listed.
        digest: sha-256, hex, over what is listed.
        skipped: what of the collection is no image: kind → how many.
        differences: how each scan's listing differed from what it had scanned, once it was brought up to date.
    """

    def __init__(
        self, config: RunConfig, ledger: Ledger, times: Times, *, update: bool, services: Callable[[], Ask | None] = lambda: None
    ) -> None:
        self._config, self._ledger, self._times, self._update, self._services = config, ledger, times, update, services
        self._boxes: Boxes | None = None
        self.units: Units = ()
        self.gallery_units: Sequence[Units] = ()
        self.skipped: dict[str, int] = {}
        self.digest = Digest().value()
        self.differences: dict[str, Difference] = {}

    @property
    def boxes(self) -> Boxes | None:
        """The boxes that the user gives for the collection; read when they are needed first.

        Raises:
            BoxesError: they cannot be used.
        """
        find = self._config.find
        if self._boxes is None and find.boxes is not None:
            self._boxes = Boxes.load(find.boxes, self._config.storage_options, instead=find.boxes_mode == "instead")
        return self._boxes

    def list_units(self, collections: Sequence[Collection]) -> None:
        """Lists the collection and the galleries, into WORK; the lock is held."""
        digest = Digest()
        names = ["scan", *(f"gallery-{i}" for i in range(len(collections) - 1))]
        self.units, *self.gallery_units = (self._listing(*one, digest) for one in zip(names, collections, strict=True))
        self.digest = digest.value()
        self.skipped = dict(collections[0].skipped)

    def take_units(self, other: Scans) -> None:
        """Takes what another run has listed of the same collection and galleries."""
        self.units, self.gallery_units, self.skipped, self.digest = other.units, other.gallery_units, other.skipped, other.digest

    def __iter__(self) -> Iterator[tuple[Stage, Units]]:
        """The stages that scan, galleries first, each with its units."""
        configured = len(self._config.guard.galleries)
        yield from ((stage, []) for stage in dropped_galleries(self._ledger, configured) if self._update)
        yield from zip(gallery_stages(self._ledger, configured)[:configured], self.gallery_units, strict=True)
        yield SCAN, self.units

    def difference(self, stage: Stage, units: Units, *, again: bool = False) -> Difference:
        """How a listing differs from what was scanned; `again` as of `difference`."""
        return self._difference(stage, units, again)[0]

    def bring_up(self, stage: Stage, units: Units, label: str) -> None:
        """Brings a scan up to date with a listing."""
        done = self._ledger.recover(stage)
        found, before = self._difference(stage, units, self._update)
        self.differences[stage.name] = found
        todo = scan_parts(found, before, done, len(units), fill=self._update)
        if not todo:
            return
        with self._times.of(stage.name) as timed:
            only_files = isinstance(units, Listing) and not units.kinds.any()
            run_parts(
                ScanWorker,
                {
                    "config": self._config,
                    "ledger": self._ledger,
                    "stage": stage,
                    "boxes": self.boxes if stage is SCAN else None,
                    "services": self._services(),
                },
                todo,
                plan=plan_of(self._config.ray),
                label=label,
                total=found.to_read if only_files else None,
                on_result=lambda part, summary: timed.add(summary["looked_at"], summary["faces"]),
            )
        if stage is SCAN and units and not any(summary["images"] for summary in self._ledger.done(SCAN).values()):
            raise CollectionError("there are no images in what was listed: no Parquet file has a column of them, or all tars are empty")

    def notes(self) -> list[str]:
        """What the user should know of the scan of the collection: which tables hold no images, and how many boxes were of use."""
        summaries = self._ledger.done(SCAN).values()
        tables = sum(unit["kind"] == "parquet" for summary in summaries for unit in summary.get("empty", ()))
        found = [f"{tables} × table without images passed over"] if tables else []
        if self.boxes is not None:
            boxed, named = sum(summary.get("boxed", 0) for summary in summaries), len(self.boxes.images)
            found.append(f"Boxes: {named} images are named in what find.boxes says, and {boxed} of the collection's have them")
        return found

    def add_gallery(self, place: str) -> tuple[Stage, bool]:
        """Finds the faces of a further gallery of a finished run: WORK/gallery-N. A gallery that was scanned before is passed over.

        Returns:
            its stage, and whether it is new; then `end_gallery` has to follow, from which on whoever is in it is known.
        """
        collection = Collection.open(place, self._config.storage_options)
        self._ledger.check_input(collection.root)
        digest_so_far = Digest(several=False)
        units = self._listing("added", collection, digest_so_far)
        digest = digest_so_far.value()
        configured = len(self._config.guard.galleries)
        stage = begin_gallery(self._ledger, configured, digest)
        if stage is not None:
            self.bring_up(stage, units, "Scanning the gallery")
            return stage, True
        number = configured + added_galleries(self._ledger).index(digest)
        return gallery_stages(self._ledger, configured)[number], False

    def _listing(self, name: str, collection: Collection, digest: Digest) -> Listing:
        return Listing.write(self._ledger.work / FOLDER / f"{name}.parquet", collection, digest)

    def _difference(self, stage: Stage, units: Units, again: bool) -> tuple[Difference, Before]:
        boxes = self.boxes if stage is SCAN else None
        before = scanned(self._ledger, stage, boxes)
        if boxes is not None and not boxes.images and before.any_reboxed():
            raise BoxesError("the boxes that this run had are not there any more: bring them back, or take find.boxes out of the settings")
        return difference(units, before, self._config.storage_options, again=again, boxes=boxes), before
