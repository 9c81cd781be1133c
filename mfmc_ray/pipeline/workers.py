"""What runs in the worker actors: each builds a stage, feeds it one part and commits what it returns. No Ray in here."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mfmc_ray.access.decide import AccessModel
from mfmc_ray.boxes import Boxes
from mfmc_ray.config import RunConfig
from mfmc_ray.faces import runtime
from mfmc_ray.identities.model import load_model, model_digest
from mfmc_ray.identities.pool import Pool
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.known.certificate import Guard, terms_of
from mfmc_ray.known.index import KnownFaces
from mfmc_ray.known.search import Search
from mfmc_ray.ledger import Ledger, Stage
from mfmc_ray.pipeline.anonymize import AnonymizeStage, published_of, split, summary
from mfmc_ray.pipeline.check import OutputCheck
from mfmc_ray.pipeline.difference import unit_of
from mfmc_ray.pipeline.identities import IdentityStage
from mfmc_ray.pipeline.listing import rows_of
from mfmc_ray.pipeline.profiles import LOOK, SWAP
from mfmc_ray.pipeline.pseudonyms import Assigned
from mfmc_ray.pipeline.remote import Ask, Asker, chooser_of, pack_of, wearer_of
from mfmc_ray.pipeline.scan import ScanStage
from mfmc_ray.pipeline.watch import Watch
from mfmc_ray.sources import TABLE, Source
from mfmc_ray.swap.swappers import digest_of, swapper_of
from mfmc_ray.tables import PLACED

SCAN = Stage("scan", ("scan",), private=True)
GALLERY = Stage("gallery", ("gallery",), private=True)
POOL = Stage("pool", ("pool",), private=True)
ANONYMIZE = Stage("anonymize", ("faces", "images"), kept=("published", "placed"))


class ScanWorker:
    """Scans the units of a part into WORK/scan (or, for galleries, WORK/gallery)."""

    def __init__(self, config: RunConfig, ledger: Ledger, stage: Stage, boxes: Boxes | None = None, services: Ask | None = None) -> None:
        runtime.use()
        self.ledger, self.stage = ledger, stage
        self.watch = self.watch_of(config=config, ledger=ledger, stage=stage)
        pack = pack_of(config.find, config.guard.recognizers, Asker.of(services, LOOK, self.watch))
        self.scan = ScanStage(pack, config.find.max_pixels, config.storage_options, self.watch, boxes)

    @staticmethod
    def watch_of(**arguments: Any) -> Watch:
        """The watch of a worker made with these."""
        return Watch(arguments["ledger"].work, arguments["stage"].name, arguments["config"].find.max_seconds, SCAN.name)

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        """Does one part of `difference.scan_parts`; what is in it already and is not named stays."""
        with self.watch.part(part["part"]):
            return self._do(part)

    def _do(self, part: dict[str, Any]) -> dict[str, Any]:
        name, units, moved = self.stage.tables[0], rows_of(part["units"]), part["moved"]
        old = self.ledger.read_table(self.stage, name, part["part"]) if part["committed"] else self.scan.adds.empty_table()
        names = {unit["unit"] for unit in units}
        touched = pa.array([*names, *part["drop"], *moved], pa.string())
        kept = old.filter(pc.invert(pc.is_in(old["unit"], touched)))
        fresh, again = self._fresh(units, old)
        tables = [kept, _renamed(old, moved), _stamped(pa.concat_tables([again, fresh]), units)]
        table = pa.concat_tables(tables)
        seen = set(fresh["unit"].to_pylist()) | set(again["unit"].to_pylist())
        before = self.ledger.done(self.stage)[part["part"]].get("empty", []) if part["committed"] else []
        empty = [unit for unit in before if unit["unit"] not in names and unit["unit"] not in part["drop"]]
        result = {
            "images": table.num_rows,
            "faces": len(table["faces"].combine_chunks().flatten()),
            "bad": dict(Counter(reason.split(":")[0] for reason in table["reason"].to_pylist() if reason)),
            "boxed": table.num_rows - table["boxes"].null_count,
            "empty": empty + [unit for unit in units if unit["unit"] not in seen],
        }
        if not table.num_rows and not result["empty"]:
            if part["committed"]:
                self.ledger.remove_part(self.stage, part["part"])
        else:
            self.ledger.commit_part(self.stage, part["part"], {name: table}, result)
        looked = len(fresh["faces"].combine_chunks().flatten())
        return {"images": fresh.num_rows + again.num_rows, "faces": looked, "looked_at": fresh.num_rows}

    def _fresh(self, units: list[dict[str, Any]], old: pa.Table) -> tuple[pa.Table, pa.Table]:
        """The rows of some units: of images that were looked at now, and of those that the part holds already, wherever they were."""
        columns = (old[name].to_pylist() for name in ("image_id", "boxes", "reason"))
        known = {
            (image, given): row
            for row, (image, given, reason) in enumerate(zip(*columns, strict=True))
            if image is not None and reason is None
        }
        boxes = self.scan.boxes
        again: list[tuple[int, Source]] = []

        def unknown() -> Iterator[Source]:
            for unit in units:
                for source in self.scan.read(unit_of(unit)):
                    if source.error == TABLE and self.stage.name == SCAN.name:
                        continue  # labels beside the images; a gallery must not lose people unsaid
                    row = None
                    if known and source.data is not None:
                        image = hashlib.sha256(source.data).hexdigest()
                        row = known.get((image, boxes.version(image, source.path) if boxes else None))
                    if row is None:
                        yield source
                    else:
                        again.append((row, replace(source, data=None)))

        fresh = self.scan.scan(unknown())
        same = old.take(pa.array([row for row, _ in again], pa.int64()))
        for column in ("path", "unit", "locator"):
            field = same.schema.get_field_index(column)
            values = pa.array([getattr(source, column) for _, source in again], same.schema.field(column).type)
            same = same.set_column(field, same.schema.field(column), values)
        return fresh, same


class IdentityWorker:
    """Renders and certifies the identities of a part's seeds into WORK/pool."""

    def __init__(
        self,
        config: RunConfig,
        ledger: Ledger,
        known: KnownFaces,
        thresholds: dict[str, float],
        calibration: Calibration,
        searches: Mapping[str, Search] | None = None,
        services: Ask | None = None,
    ) -> None:
        runtime.use()
        self.ledger, self.index_digest, self.terms = ledger, known.digest, terms_of(thresholds, calibration)
        self.swapper = digest_of(config.swap)
        check = check_of(config, Guard(known, thresholds, calibration, searches), services)
        self.stage = IdentityStage(check, swapper_of(config.swap, device=False))

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        started = time.process_time()
        admitted = self.stage(pa.table({"seed": pa.array(part["seeds"], pa.int64())}))
        seconds = round(time.process_time() - started, 3)  # of all cores: what `mfmc known capacity` reckons with
        counts = {"images": len(part["seeds"]), "faces": admitted.num_rows}
        result = {**counts, "cpu_seconds": seconds, "index_digest": self.index_digest, "terms": self.terms}
        result |= {"swapper": self.swapper, "shown": self.stage.shown} if self.swapper else {}
        self.ledger.commit_part(POOL, part["part"], {"pool": admitted}, result)
        return result


class AnonymizeWorker:
    """Anonymizes the rows of a part into OUT/faces and OUT/images."""

    def __init__(
        self,
        config: RunConfig,
        ledger: Ledger,
        known: KnownFaces,
        thresholds: dict[str, float],
        calibration: Calibration,
        pool: pa.Table,
        key: bytes,
        access: AccessModel,
        searches: Mapping[str, Search] | None = None,
        assigned: Assigned | None = None,
        services: Ask | None = None,
    ) -> None:
        runtime.use()
        self.ledger, self.grounds = ledger, grounds_of(config, known, thresholds, calibration)
        model, watch = load_model(), self.watch_of(config=config, ledger=ledger)
        check, asker = check_of(config, Guard(known, thresholds, calibration, searches), services, watch), Asker.of(services, SWAP, watch)
        swapper = swapper_of(config.swap, device=asker is None)  # beside services a GPU is theirs
        self.stage = AnonymizeStage(
            swap=config.swap,
            output=config.output,
            max_pixels=config.find.max_pixels,
            check=check,
            pool=Pool.from_table(model, pool) if config.swap.pseudonyms == "image" else None,
            swapper=swapper,
            chooser=chooser_of(swapper, check, config.swap.attempts, asker),
            wearer=wearer_of(swapper, check, asker),
            access=access,
            key=key,
            storage_options=config.storage_options,
            watch=watch,
            assigned=assigned,
        )

    @staticmethod
    def watch_of(**arguments: Any) -> Watch:
        """The watch of a worker made with these."""
        return Watch(arguments["ledger"].work, ANONYMIZE.name, arguments["config"].find.max_seconds)

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        """Does a whole part of `plan.plan_parts`."""
        return commit(self.ledger, part, self.tables(part, self.rows(part)), self.grounds)

    def tables(self, part: dict[str, Any], rows: pa.Table) -> dict[str, pa.Table]:
        """The tables of a part that is made of some of its rows of the scan."""
        with self.stage.watch.part(part["part"]):
            table = self.stage(rows)
        images, faces = split(table)
        images = with_reasons(images, part["reasons"])
        access = [self.stage.version(image, path) for image, path in zip(*_names(images), strict=True)]
        placed = images.select(PLACED.names[:-2])
        placed = placed.append_column(PLACED.field("boxes"), rows["boxes"]).append_column(
            PLACED.field("access"), pa.array(access, pa.string())
        )
        return {"images": images, "faces": faces, "published": published_of(table, self.stage.recognizers), "placed": placed}

    def rows(self, part: dict[str, Any], paths: Set[str] | None = None) -> pa.Table:
        """The scan's rows of a part's images, or of some of them."""
        return pa.concat_tables(list(scan_rows(self.ledger, part["rows"], self.stage.needs.names, paths)))


def grounds_of(config: RunConfig, known: KnownFaces, thresholds: Mapping[str, float], calibration: Calibration) -> dict[str, str]:
    """What a published part was made with, as its summary holds it: a part with other grounds is brought up to date."""
    return {"index_digest": known.digest, "terms": terms_of(thresholds, calibration), "made": made_of(config, calibration)}


def certified(summary: Mapping[str, Any], grounds: Mapping[str, str]) -> bool:
    """Whether a part's certificates are about these known faces, thresholds and curves."""
    return all(summary.get(name) == grounds[name] for name in ("index_digest", "terms"))


def commit(ledger: Ledger, part: Mapping[str, Any], tables: Mapping[str, pa.Table], grounds: Mapping[str, str]) -> dict[str, Any]:
    """Commits a published part; its summary."""
    result = {**summary(tables["images"], tables["faces"]), **grounds}
    ledger.commit_part(ANONYMIZE, part["part"], tables, result)
    return result


def scan_rows(ledger: Ledger, rows: Sequence[Sequence[int]], columns: Sequence[str], paths: Set[str] | None = None) -> Iterator[pa.Table]:
    """Rows of the scan.

    Args:
        ledger: the folders.
        rows: [part of the scan, first row, after the last] of each piece.
        columns: to read, `path` among them.
        paths: only those with these paths; None: all. Row groups without any of them are read in their `path` alone.
    """
    for number, start, stop in rows:
        file = pq.ParquetFile(ledger.work / "scan" / f"part-{number:05d}.parquet")
        at = 0
        for group in range(file.num_row_groups):
            first, at = at, at + file.metadata.row_group(group).num_rows
            if first >= stop or at <= start:
                continue
            low, high = max(start - first, 0), min(stop, at) - first
            if paths is not None:
                mine = [path in paths for path in file.read_row_group(group, columns=["path"])["path"].to_pylist()[low:high]]
                if any(mine):
                    yield file.read_row_group(group, columns=columns).slice(low, high - low).filter(pa.array(mine, pa.bool_()))
            else:
                yield file.read_row_group(group, columns=columns).slice(low, high - low)


def with_reasons(images: pa.Table, reasons: Mapping[str, str]) -> pa.Table:
    """Rows of `tables.IMAGES` with the reasons of what is published; others keep why they are not."""
    new = [
        reasons.get(path) if verdict in ("unchanged", "anonymized") else reason
        for path, verdict, reason in zip(*(images[name].to_pylist() for name in ("path", "verdict", "reason")), strict=True)
    ]
    return images.set_column(images.schema.get_field_index("reason"), images.schema.field("reason"), pa.array(new, pa.string()))


def _names(images: pa.Table) -> tuple[list[str | None], list[str]]:
    return images["image_id"].to_pylist(), images["path"].to_pylist()


def _stamped(table: pa.Table, units: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows of the scan with their units' size and version as listed."""
    by_name = {unit["unit"]: unit for unit in units}
    for name in ("size", "version", "listed"):
        field = table.schema.get_field_index(f"unit_{name}")
        values = [by_name[unit][name] for unit in table["unit"].to_pylist()]
        table = table.set_column(field, table.schema.field(field), pa.array(values, table.schema.field(field).type))
    return table


def _renamed(old: pa.Table, moved: Mapping[str, Mapping[str, Any]]) -> pa.Table:
    """The rows of units that are elsewhere now (old unit → new one), with their new names."""
    rows = old.filter(pc.is_in(old["unit"], pa.array(list(moved), pa.string())))
    units, paths = [], []
    for path, name in zip(rows["path"].to_pylist(), rows["unit"].to_pylist(), strict=True):
        unit = moved[name]
        units.append(unit["unit"])
        paths.append(unit["path"] if unit["kind"] == "file" else f"{unit['path']}/{_member(name, path)}")
    for column, values in (("path", paths), ("unit", units)):
        rows = rows.set_column(rows.schema.get_field_index(column), rows.schema.field(column), pa.array(values, pa.string()))
    return _stamped(rows, list(moved.values()))


def _member(unit: str, path: str) -> str:
    """The name within its shard of an image: what of its path follows the shard's own, which is the end of the shard's URL."""
    folders = unit.split("/")
    shard = next(("/".join(folders[i:]) + "/" for i in range(len(folders)) if path.startswith("/".join(folders[i:]) + "/")), "")
    return path[len(shard) :]


def made_of(config: RunConfig, calibration: Calibration) -> str:
    """What stands for all that decides what becomes of a face, other than who is known: sha-256, hex.

    Among it how near a fake may come to the face that it replaces: that is not looked at again when certificates are renewed.
    """
    given, names = config.guard.threshold, config.guard.recognizers
    nearest = {name: calibration.strict_threshold(name) for name in names}
    if given is not None:
        nearest[names[0]] = min(nearest[names[0]], given)
    network = digest_of(config.swap)
    made = [config.made(), model_digest(), nearest, *([network] if network else [])]
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()


def check_of(config: RunConfig, guard: Guard, services: Ask | None = None, watch: Watch | None = None) -> OutputCheck:
    """Looks at faces with the eyes that these settings name, wherever they are."""
    return OutputCheck(pack_of(config.find, config.guard.recognizers, Asker.of(services, LOOK, watch)), guard)


def count(summaries: list[dict[str, Any]], name: str) -> dict[str, int]:
    """The sum of a dictionary of counts over parts' summaries."""
    total: Counter[str] = Counter()
    for one in summaries:
        total.update(one.get(name, {}))
    return dict(sorted(total.items(), key=lambda item: -item[1]))
