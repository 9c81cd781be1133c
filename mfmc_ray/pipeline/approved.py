"""Access decisions of a whole run: resumed only with the table it was begun with, told about rows without effect, audited."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mfmc_ray.access.decide import AccessError, AccessModel, decisions
from mfmc_ray.config import ACCESS_PLACES, RunConfig
from mfmc_ray.faces.faces import F32, Faces
from mfmc_ray.ledger import Ledger, LedgerError
from mfmc_ray.people.registry import Registry
from mfmc_ray.pipeline.known import files_of_stage
from mfmc_ray.pipeline.recheck import Row
from mfmc_ray.pipeline.workers import SCAN
from mfmc_ray.places import replace_file
from mfmc_ray.review.decisions import Reviews
from mfmc_ray.review.reviewed import Reviewed

NOTE = "access.json"
"""File in WORK: the digests of what OUT was decided by: `digest` of the access tables, `people` of who is enrolled."""


def reviewed(access: AccessModel, work: Path) -> AccessModel:
    """An access model with what reviewers of this WORK's result have decided.

    Raises:
        ReviewError: that cannot be read.
    """
    reviews = Reviews.load(work)
    return Reviewed(access, reviews) if reviews else access


def begin(work: Path, access: AccessModel, people: Registry | None = None, *, resumed: bool) -> None:
    """Notes in WORK what the faces of a run are decided by, or compares it with what a resumed run was begun with.

    Raises:
        LedgerError: those were other tables, or other people are enrolled.
    """
    path = work / NOTE
    noted = json.loads(path.read_text()) if path.is_file() else None
    now = {"digest": access.digest, "people": people.digest if people else ""}
    if resumed and noted and noted.get("people", "") != now["people"]:
        raise LedgerError(
            f"WORK ({work}) holds a run for which other people were enrolled: bring the result up to date with `mfmc nightly`, give "
            "another WORK and OUT, or start anew with --restart"
        )
    if resumed and noted and noted["digest"] != now["digest"]:
        raise LedgerError(
            f"WORK ({work}) holds a run whose access tables were others (files have the same names, their rows have changed): undo the "
            "change to resume it, bring the result up to date with `mfmc nightly`, give another WORK and OUT, or start anew with --restart"
        )
    replace_file(path, lambda temporary: temporary.write_text(json.dumps(now)))


def notes(access: AccessModel, ledger: Ledger, enrolled: Collection[str] | None = None) -> list[str]:
    """Sentences about rows of access tables that have no effect, since what they are about is not there. They name no person.

    Args:
        access: bound to who was recognised.
        ledger: the folders; everything was scanned.
        enrolled: the ids of the people who are; None: it is not known.
    """
    effects = access.effects()
    for file in files_of_stage(ledger, SCAN) if effects else ():
        table = pq.ParquetFile(file).read(columns=["image_id", "path", "faces.list.element.box"])
        ids, paths = table["image_id"].to_pylist(), table["path"].to_pylist()
        for i, (image_id, path) in enumerate(zip(ids, paths, strict=True)):
            for one in effects:
                one.see(image_id, path, partial(_boxes, table["faces"], i))
    return [line for one in effects for line in one.lines(enrolled)]


def _boxes(faces: pa.ChunkedArray, row: int) -> F32:
    return np.array([face["box"] for face in faces[row].as_py() or ()], np.float32).reshape(-1, 4)


def as_now(config: RunConfig, settings: RunConfig) -> RunConfig:
    """The settings that a run's kept faces are held against: its access tables, and enrolled people, are read anew from where they are.

    Args:
        config: of the audit; what it says of access is used instead of what the run was told.
        settings: of the run, as its manifest has them.

    Raises:
        AccessError: it is not known where a table of the run is, so nothing can be shown about the kept faces.
    """
    given, told = config.access.published(), settings.access.published()
    wanted = [name for name in told if name not in given and (name in ACCESS_PLACES or name == "audience")]
    try:
        plain = json.loads((Path(config.work) / "settings.json").read_text())["access"] if wanted else {}
        private = {name: str(plain[name]) for name in wanted}
    except (OSError, ValueError, KeyError, TypeError) as error:
        options = " and ".join(f"--{name}" for name in wanted)
        raise AccessError(f"{config.work}/settings.json does not have the run's {options}; say it with the option") from error
    access = replace(settings.access, **private, **{name: getattr(config.access, name) for name in given})
    return replace(settings, access=access, storage_options=config.storage_options)


def not_allowed(access: AccessModel, image: Row, rows: Sequence[Row], source: Row | None) -> list[str]:
    """What is wrong with the kept ones among the faces of a published image.

    Args:
        access: what they are held against.
        image, rows: of the published tables.
        source: the scan's row of the image, whose boxes are what is decided about; None if it has none.
    """
    kept = [row for row in rows if row["verdict"] == "kept"]
    if not kept:
        return []
    try:
        decided = decisions(access, str(image["image_id"]), str(image["path"]), _faces((source or {}).get("faces") or []))
    except AccessError as error:
        return [f"face {row['face_no']}: {error}" for row in kept]
    faults = []
    for row in kept:
        n = row["face_no"]
        if n is None or not 0 <= n < len(decided) or not decided[n].keep:
            faults.append(f"face {n}: no row of the access table allows it")
    return faults


def _faces(scanned: Sequence[Mapping[str, object]]) -> Faces:
    """The scan's faces of one image as far as decisions need them."""
    n = len(scanned)
    boxes = np.array([face["box"] for face in scanned], np.float32).reshape(n, 4)
    points = np.array([face["points"] for face in scanned], np.float32).reshape(n, 5, 2)
    return Faces(boxes, points, np.ones(n, np.float32), ("scan",) * n)
