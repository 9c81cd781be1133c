"""What would become of each face of one image, and why: a dry run of the access decision, and of what follows from it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq

from mfmc_ray.access.combined import access_model
from mfmc_ray.access.decide import AccessModel, Decision, decisions
from mfmc_ray.boxes import Boxes
from mfmc_ray.codec import CodecError, decode
from mfmc_ray.config import RunConfig
from mfmc_ray.evaluate.explained import Mark, draw
from mfmc_ray.faces.faces import Faces, Image
from mfmc_ray.faces.pack import ALL_DIMENSIONS, load_pack
from mfmc_ray.faces.store import pull
from mfmc_ray.identities.model import load_model
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.ledger import Ledger, LedgerError
from mfmc_ray.people.match import Matcher, fit
from mfmc_ray.people.registry import Registry
from mfmc_ray.people.sightings import Sighting, Sightings
from mfmc_ray.pipeline import approved
from mfmc_ray.pipeline.known import files_of_stage
from mfmc_ray.pipeline.manifest import models_of
from mfmc_ray.pipeline.publish import EXPLAINED, originals_of
from mfmc_ray.pipeline.recognise import people_of
from mfmc_ray.pipeline.rows import faces_of
from mfmc_ray.pipeline.scan import ScanStage
from mfmc_ray.pipeline.unfit import unfit
from mfmc_ray.pipeline.workers import ANONYMIZE, SCAN
from mfmc_ray.places import replace_file
from mfmc_ray.review.decisions import RULE, LostFaceError
from mfmc_ray.sources import SourceReader, Unit, escape
from mfmc_ray.swap.cover import CoverFinder
from mfmc_ray.swap.glasses import GlassesReader
from mfmc_ray.swap.mouth import MouthReader

_IMAGE_ID = re.compile(r"[0-9a-fA-F]{12,64}")


@dataclass(frozen=True)
class Face:
    """What would become of a face.

    Attributes:
        box: x0 y0 x1 y1, px.
        verdict: kept, replaced or redacted. A face that is to be replaced may still be redacted, if no fake holds.
        reason: the rows that keep it, or the rule that covers it; of a face that is to be replaced the row that denies it, if one does.
        seen: who it was recognised as; None if nobody is enrolled.
        published: its verdict in OUT, with the reason; None if it is not there.
    """

    box: tuple[float, float, float, float]
    verdict: str
    reason: str | None
    seen: Sighting | None
    published: str | None


@dataclass(frozen=True)
class Explanation:
    """What would become of an image.

    Attributes:
        image_id, path: of the image.
        faces: its faces; none if it is kept back.
        kept_back: why nothing of it would be published; None if it would.
        picture: the file that shows it; None if it cannot be shown.
        scanned: whether it is in the collection; else its faces were found now.
    """

    image_id: str
    path: str
    faces: tuple[Face, ...]
    kept_back: str | None
    picture: Path | None
    scanned: bool


def explain(config: RunConfig, ledger: Ledger, image: str, calibration: Calibration) -> Explanation:
    """Explains an image, and draws it into WORK/explain.

    Args:
        config: settings.
        ledger: the folders; the collection was scanned. Nothing else need have been done.
        image: its image_id or path, or a file, in the collection or not.
        calibration: of the recognizers.

    Raises:
        LedgerError: there is no such image.
        AccessError, PeopleError, ReviewError, ConfigError: tables, people or reviews cannot be used.
    """
    registry = people_of(config, ledger)
    access = approved.reviewed(access_model(config), ledger.work)
    row, scalar, scanned = _row_of(config, ledger, image)
    image_id, path = row["image_id"], row["path"]
    if row["reason"] is not None or not scalar.is_valid:
        return Explanation(image_id or "", path, (), row["reason"] or "not_scanned", None, scanned)
    faces = faces_of(scalar, {name: ALL_DIMENSIONS[name] for name in config.guard.recognizers})
    seen = _seen(registry, calibration, config, faces)
    access = access.bound(Sightings({} if seen is None else {image_id: seen}, ""))
    try:
        decided = decisions(access, image_id, path, faces)
    except LostFaceError as error:
        return Explanation(image_id, path, (), str(error), None, scanned)
    original = _original(config, ledger, row, scanned=scanned)
    rules = _rules(config, original, faces, decided)
    there = _published(ledger, image_id, path)
    found = []
    for i, (one, rule) in enumerate(zip(decided, rules, strict=True)):
        verdict = "kept" if one.keep else "redacted" if rule else "replaced"
        x0, y0, x1, y1 = (float(v) for v in faces.boxes[i])
        found.append(Face((x0, y0, x1, y1), verdict, one.reason or rule or one.denied, None if seen is None else seen[i], there.get(i)))
    picture = None if original is None else _drawn(ledger.work / EXPLAINED, image_id, original, found, access)
    return Explanation(image_id, path, tuple(found), None, picture, scanned)


def who(seen: Sighting | None, *, named: bool) -> str:
    """Who a face was recognised as, in words; by name only if they may be `named`."""
    if seen is None:
        return ""
    cosines = f"{seen.similarity:.2f}, {seen.margin:+.2f} to the next" if seen.similarity > -1 else ""
    if seen.person is None:
        return f"{seen.reason} ({cosines})" if cosines else seen.reason
    return f"{seen.person if named else 'recognised'} ({cosines})"


def _row_of(config: RunConfig, ledger: Ledger, image: str) -> tuple[dict[str, Any], pa.ListScalar, bool]:
    """The scan's row of an image without its faces, these, and whether it is the collection's."""
    files = files_of_stage(ledger, SCAN)
    if not files:
        raise LedgerError(f"nothing was scanned yet in {ledger.work}; run `mfmc scan` first")
    file = Path(image).expanduser()
    place = _place(files, "path", image)
    if place is None and _IMAGE_ID.fullmatch(image):
        place = _place(files, "image_id", image.lower())
    if place is None and file.is_file():
        place = _place(files, "image_id", hashlib.sha256(file.read_bytes()).hexdigest())
    if place is not None:
        table = pq.ParquetFile(place[0]).read().slice(place[1], 1)
        return table.drop_columns(["faces"]).to_pylist()[0], table["faces"][0], True
    if not file.is_file():
        raise LedgerError("no scanned image has this image_id or path, and there is no such file")
    pull(models_of(config))
    find = config.find
    boxes = Boxes.load(find.boxes, config.storage_options, instead=find.boxes_mode == "instead") if find.boxes else None
    stage = ScanStage(load_pack(find, config.guard.recognizers), find.max_pixels, boxes=boxes)
    table = stage.scan(stage.read(Unit(escape(str(file.absolute())), "file", file.stat().st_size, "", escape(file.name))))
    return table.drop_columns(["faces"]).to_pylist()[0], table["faces"][0], False


def _place(files: Sequence[Path], column: str, wanted: str) -> tuple[Path, int] | None:
    """File and row of the image in whose column this is; of an image_id its beginning is enough.

    Raises:
        LedgerError: it is the beginning of several.
    """
    found: dict[str, tuple[Path, int]] = {}
    for file in files:
        for row, value in enumerate(pq.ParquetFile(file).read(columns=[column])[column].to_pylist()):
            if value == wanted or (column == "image_id" and (value or "").startswith(wanted)):
                found.setdefault(value, (file, row))  # of duplicates either
    if len(found) > 1:
        raise LedgerError(f"{len(found)} images have an image_id that begins so; give all of its 64 digits")
    return next(iter(found.values()), None)


def _seen(registry: Registry | None, calibration: Calibration, config: RunConfig, faces: Faces) -> tuple[Sighting, ...] | None:
    if registry is None:
        return None
    matcher = Matcher(registry, calibration, list(config.guard.recognizers))
    usable = fit(faces.embeddings, faces.sizes, faces.need("mesh_scores"), config.swap.min_face)
    return matcher(faces.embeddings, faces.sizes, usable)


def _original(config: RunConfig, ledger: Ledger, row: Mapping[str, Any], *, scanned: bool) -> Image | None:
    """The picture, if it still is where it was scanned, and the same, and nobody in it was forgotten."""
    try:
        if scanned:
            return originals_of(ledger, config, {row["image_id"]})(row["image_id"])
        return decode(SourceReader().read(row["unit"], row["locator"]), config.find.max_pixels).pixels
    except (OSError, CodecError, KeyError):
        return None


def _rules(config: RunConfig, original: Image | None, faces: Faces, decided: list[Decision]) -> list[str | None]:
    """Of each face that is not kept the rule that covers it, as far as that is known before fakes are tried."""
    if config.swap.pseudonyms == "none":
        return [None if one.keep else RULE if one.redact else "pseudonyms_none" for one in decided]
    rules: list[str | None] = [RULE if one.redact else None for one in decided]
    left = [i for i, one in enumerate(decided) if not one.keep and not one.redact]
    if original is not None and left:
        covers = CoverFinder(load_model(), GlassesReader(), MouthReader())
        for i in left:
            covered = covers.find(original, faces.need("meshes")[i])
            rules[i] = unfit(config.swap.min_face, faces, i, covered)
    return rules


def _published(ledger: Ledger, image_id: str, path: str) -> dict[int, str]:
    """Face number → what OUT says of it."""
    for part in ledger.done(ANONYMIZE):
        placed = pq.read_table(ledger.work / "placed" / f"part-{part:05d}.parquet", columns=["image_id", "path"])
        if (image_id, path) in zip(*(column.to_pylist() for column in placed.columns), strict=True):
            return dict(_faces_in(ledger, part, image_id, path))
    return {}


def _faces_in(ledger: Ledger, part: int, image_id: str, path: str) -> Iterator[tuple[int, str]]:
    for row in ledger.read_table(ANONYMIZE, "faces", part).to_pylist():
        if (row["image_id"], row["path"]) == (image_id, path):
            why = row["reason"] or row["access_reason"]
            yield row["face_no"], f"{row['verdict']} ({why})" if why else row["verdict"]


def _drawn(folder: Path, image_id: str, original: Image, faces: list[Face], access: AccessModel) -> Path:
    """Draws the picture into WORK; people are named in it."""
    marks = []
    for face in faces:
        said = [face.verdict if face.reason is None else f"{face.verdict}: {face.reason}", who(face.seen, named=True)]
        said += [f"in OUT: {face.published}"] if face.published else []
        marks.append(Mark(face.box, face.verdict, "   ".join(text for text in said if text)))
    sheet = draw(original, marks, f"PRIVATE   {image_id[:16]}…   {len(faces)} faces")
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{image_id[:16]}.png"

    def write(temporary: Path) -> None:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
            PIL.Image.fromarray(np.ascontiguousarray(sheet)).save(file, "PNG")

    replace_file(path, write)
    return path
