"""Access decisions of a whole run: resumed only with the table it was begun with, told about rows without effect, audited."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from mfmc_ray.access.approvals import Approvals, reaches
from mfmc_ray.access.combined import access_model
from mfmc_ray.access.decide import AccessError, AccessModel, decisions
from mfmc_ray.config import RunConfig
from mfmc_ray.faces.faces import Faces
from mfmc_ray.ledger import Ledger, LedgerError
from mfmc_ray.pipeline.known import files_of_stage
from mfmc_ray.pipeline.recheck import Row
from mfmc_ray.pipeline.workers import SCAN
from mfmc_ray.places import replace_file
from mfmc_ray.review.decisions import Reviews
from mfmc_ray.review.reviewed import Reviewed

NOTE = "access.json"
"""File in WORK: the digest of what OUT was decided by."""
SHOWN = 10


def reviewed(access: AccessModel, work: Path) -> AccessModel:
    """An access model with what reviewers of this WORK's result have decided.

    Raises:
        ReviewError: that cannot be read.
    """
    reviews = Reviews.load(work)
    return Reviewed(access, reviews) if reviews else access


def begin(work: Path, access: AccessModel, *, resumed: bool) -> None:
    """Notes in WORK what the faces of a run are decided by, or compares it with what a resumed run was begun with.

    Raises:
        LedgerError: that was another table.
    """
    path = work / NOTE
    if resumed and path.is_file() and json.loads(path.read_text())["digest"] != access.digest:
        raise LedgerError(
            f"WORK ({work}) holds a run whose approvals were others (the file has the same name, its rows have changed): undo the change "
            "to resume it, bring the result up to date with `mfmc nightly`, give another WORK and OUT, or start anew with --restart"
        )
    replace_file(path, lambda temporary: temporary.write_text(json.dumps({"digest": access.digest})))


def notes(access: AccessModel, ledger: Ledger) -> list[str]:
    """Sentences about approvals that keep no face: what a table says of images that are not there, and of faces that are not there."""
    if isinstance(access, Reviewed):
        access = access.model
    if not isinstance(access, Approvals):
        return []
    there: set[int] = set()
    named: set[int] = set()
    for file in files_of_stage(ledger, SCAN):
        table = pq.ParquetFile(file).read(columns=["image_id", "path", "faces.list.element.box"])
        ids, paths = table["image_id"].to_pylist(), table["path"].to_pylist()
        for i, (image_id, path) in enumerate(zip(ids, paths, strict=True)):
            rows = access.rows_of(image_id or "", path)
            if not rows:
                continue
            boxes = [face["box"] for face in table["faces"][i].as_py() or ()]
            reached = reaches(rows, np.array(boxes, np.float32).reshape(-1, 4))
            there.update(row.number for row in rows)
            named.update(rows[k].number for k in np.flatnonzero(reached.any(1)))
    every = {row.number for rows in access.images.values() for row in rows if row.allow}
    found = []
    if absent := sorted(every - there):
        found.append(f"Approvals: {_listed(absent)} for images that are not in the collection.")
    if lost := sorted((every & there) - named):
        found.append(f"Approvals: {_listed(lost)} for no face, or for several that it could be: nobody is kept by them.")
    return found


def of_run(config: RunConfig, settings: RunConfig) -> AccessModel:
    """What a run's kept faces are held against: its access tables as they are now.

    Args:
        config: of the audit; an access table that it names is used instead of the run's.
        settings: of the run, as its manifest has them.

    Raises:
        AccessError: the table cannot be read, so nothing can be shown about the kept faces.
    """
    if config.access.approvals is not None:
        return access_model(config)
    if settings.access.approvals is None:
        return access_model(settings)
    try:
        plain = json.loads((Path(config.work) / "settings.json").read_text())
        place = str(plain["access"]["approvals"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AccessError(f"where the approvals of the run are is not in {config.work}/settings.json; say it with --approvals") from error
    return access_model(replace(settings, access=replace(settings.access, approvals=place), storage_options=config.storage_options))


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
    decided = decisions(access, str(image["image_id"]), str(image["path"]), _faces((source or {}).get("faces") or []))
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


def _listed(numbers: Sequence[int]) -> str:
    named = ", ".join(map(str, numbers[:SHOWN])) + (f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else "")
    return f"row {named} is" if len(numbers) == 1 else f"{len(numbers)} rows ({named}) are"
