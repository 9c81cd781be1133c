"""What runs in the worker actors: each builds a stage, feeds it one part and commits what it returns. No Ray in here."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mfmc_ray.access import ReplaceAll
from mfmc_ray.config import RunConfig
from mfmc_ray.faces.pack import load_pack
from mfmc_ray.identities.model import load_model
from mfmc_ray.identities.pool import Pool
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.known.certificate import Guard
from mfmc_ray.known.index import KnownFaces
from mfmc_ray.known.search import Search
from mfmc_ray.ledger import Ledger, Stage
from mfmc_ray.pipeline.anonymize import AnonymizeStage, published_of, split, summary
from mfmc_ray.pipeline.check import OutputCheck
from mfmc_ray.pipeline.identities import IdentityStage
from mfmc_ray.pipeline.scan import ScanStage
from mfmc_ray.pipeline.watch import Watch
from mfmc_ray.swap.render import MorphSwapper
from mfmc_ray.tables import UNITS

SCAN = Stage("scan", ("scan",), private=True)
GALLERY = Stage("gallery", ("gallery",), private=True)
POOL = Stage("pool", ("pool",), private=True)
ANONYMIZE = Stage("anonymize", ("faces", "images"), kept=("published",))


class ScanWorker:
    """Scans the units of a part into WORK/scan (or, for galleries, WORK/gallery)."""

    def __init__(self, config: RunConfig, ledger: Ledger, stage: Stage) -> None:
        cv2.setNumThreads(1)  # one worker a core
        self.ledger, self.stage = ledger, stage
        self.watch = self.watch_of(config=config, ledger=ledger, stage=stage)
        pack = load_pack(config.find, config.guard.recognizers)
        self.scan = ScanStage(pack, config.find.max_pixels, config.storage_options, self.watch)

    @staticmethod
    def watch_of(**arguments: Any) -> Watch:
        """The watch of a worker made with these."""
        return Watch(arguments["ledger"].work, arguments["stage"].name, arguments["config"].find.max_seconds, SCAN.name)

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        with self.watch.part(part["part"]):
            return self._do(part)

    def _do(self, part: dict[str, Any]) -> dict[str, Any]:
        table = self.scan(pa.Table.from_pylist(part["units"], schema=UNITS))
        faces = table["faces"].combine_chunks()
        result = {
            "images": table.num_rows,
            "faces": len(faces.flatten()),
            "bad": dict(Counter(reason.split(":")[0] for reason in table["reason"].to_pylist() if reason)),
        }
        self.ledger.commit_part(self.stage, part["part"], {self.stage.tables[0]: table}, result)
        return result


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
    ) -> None:
        cv2.setNumThreads(1)
        self.ledger, self.index_digest = ledger, known.digest
        check = _check(config, Guard(known, thresholds, calibration, searches))
        self.stage = IdentityStage(check, MorphSwapper(load_model()))

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        started = time.process_time()
        admitted = self.stage(pa.table({"seed": pa.array(part["seeds"], pa.int64())}))
        seconds = round(time.process_time() - started, 3)  # of all cores: what `mfmc known capacity` reckons with
        counts = {"images": len(part["seeds"]), "faces": admitted.num_rows}
        result = {**counts, "cpu_seconds": seconds, "index_digest": self.index_digest}
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
        searches: Mapping[str, Search] | None = None,
    ) -> None:
        cv2.setNumThreads(1)
        self.ledger, self.index_digest = ledger, known.digest
        model = load_model()
        self.stage = AnonymizeStage(
            swap=config.swap,
            output=config.output,
            max_pixels=config.find.max_pixels,
            check=_check(config, Guard(known, thresholds, calibration, searches)),
            pool=Pool.from_table(model, pool),
            swapper=MorphSwapper(model),
            access=ReplaceAll(),
            key=key,
            storage_options=config.storage_options,
            watch=self.watch_of(config=config, ledger=ledger),
        )

    @staticmethod
    def watch_of(**arguments: Any) -> Watch:
        """The watch of a worker made with these."""
        return Watch(arguments["ledger"].work, ANONYMIZE.name, arguments["config"].find.max_seconds)

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        rows = self._rows(part)
        return self._commit(part, self._anonymized(part, rows, range(rows.num_rows)))

    def again(self, part: dict[str, Any], which: Set[tuple[str, str]], faces: pa.Table, published: pa.Table) -> dict[str, Any]:
        """Anonymizes some images of a committed part anew.

        Args:
            part: as before.
            which: their image_id and path.
            faces, published: the part's tables, whose rows of the other images stay.

        Raises:
            LedgerError: the part's images are not those that were committed.
        """
        images = self.ledger.read_table(ANONYMIZE, "images", part["part"])
        named = [(row["image_id"], row["path"]) for row in images.select(["image_id", "path"]).to_pylist()]
        places = {name: i for i, name in enumerate(named)}
        some = [i for i, name in enumerate(named) if name in which]
        others = np.setdiff1d(np.arange(images.num_rows), some)
        new = self._anonymized(part, self._rows(part).take(some), some)
        tables = {}
        for name, old in (("images", images), ("faces", faces), ("published", published)):
            keys = [places[row["image_id"], row["path"]] for row in old.select(["image_id", "path"]).to_pylist()]
            kept = old.filter(pa.array(np.isin(keys, others), pa.bool_()))
            both = pa.concat_tables([kept, new[name].cast(kept.schema)])
            keys = [places[row["image_id"], row["path"]] for row in both.select(["image_id", "path"]).to_pylist()]
            tables[name] = both.take(np.argsort(keys, kind="stable"))
        return self._commit(part, tables)

    def _anonymized(self, part: dict[str, Any], rows: pa.Table, numbers: Sequence[int]) -> dict[str, pa.Table]:
        """The tables of some rows of the scan, whose numbers in the part these are."""
        with self.stage.watch.part(part["part"]):
            table = self.stage(rows)
        images, faces = split(table)
        duplicates = part.get("duplicates", {})
        if duplicates:
            reasons = [reason or duplicates.get(str(i)) for i, reason in zip(numbers, images["reason"].to_pylist(), strict=True)]
            images = images.set_column(images.schema.get_field_index("reason"), "reason", pa.array(reasons, pa.string()))
        return {"images": images, "faces": faces, "published": published_of(table, self.stage.recognizers)}

    def _commit(self, part: dict[str, Any], tables: dict[str, pa.Table]) -> dict[str, Any]:
        result = {**summary(tables["images"], tables["faces"]), "index_digest": self.index_digest}
        self.ledger.commit_part(ANONYMIZE, part["part"], tables, result)
        return result

    def _rows(self, part: dict[str, Any]) -> pa.Table:
        file = pq.ParquetFile(self.ledger.work / part["file"])
        start, stop = part["start"], part["stop"]
        groups, at = [], 0
        first = None
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if at < stop and at + rows > start:
                groups.append(group)
                first = at if first is None else first
            at += rows
        table = file.read_row_groups(groups, columns=self.stage.needs.names)
        return table.slice(start - (first or 0), stop - start)


def _check(config: RunConfig, guard: Guard) -> OutputCheck:
    return OutputCheck(load_pack(config.find, config.guard.recognizers), guard)


def count(summaries: list[dict[str, Any]], name: str) -> dict[str, int]:
    """The sum of a dictionary of counts over parts' summaries."""
    total: Counter[str] = Counter()
    for one in summaries:
        total.update(one.get(name, {}))
    return dict(sorted(total.items(), key=lambda item: -item[1]))
