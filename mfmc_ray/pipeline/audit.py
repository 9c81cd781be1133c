"""The audit stage: published parts are looked at, embedded and searched again, and held against the private tables."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mfmc_ray.codec import CodecError, decode
from mfmc_ray.collection import SourceError, SourceReader
from mfmc_ray.config import RunConfig
from mfmc_ray.faces.audit_look import AuditLook, same_place
from mfmc_ray.faces.faces import F32, Faces, Image
from mfmc_ray.faces.pack import EMBEDDERS
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.known.index import KnownFaces
from mfmc_ray.ledger import Ledger
from mfmc_ray.pipeline import findings as checks
from mfmc_ray.pipeline.findings import Findings
from mfmc_ray.pipeline.inspection import MetadataCheck, around, mostly_in, see_through, strange_columns
from mfmc_ray.pipeline.recheck import TOLERANCE, PlainSearch, Row, ScanIndex, number, unit
from mfmc_ray.tables import FACES, IMAGES, embedding_column

CLOSEST = 10
"""Pairs that the result lists."""
_FAR_POINTS = 0.4
"""A swap changes the shape of a face: its points may move by this much of the box's √area, on average, and not more."""


class AuditStage:
    """Audits parts of OUT: one part is a file of images and the file of their faces. Tampered data never raises: it is a finding.

    Args:
        settings: the run's.
        ledger: its folders.
        known: the known faces.
        thresholds: recognizer → the cosine a published face must stay below.
        scan: where the scan's rows are.
        calibration: what the thresholds come from.
    """

    def __init__(
        self,
        settings: RunConfig,
        ledger: Ledger,
        known: KnownFaces,
        thresholds: Mapping[str, float],
        scan: ScanIndex,
        calibration: Calibration,
    ) -> None:
        cv2.setNumThreads(1)  # one worker a core
        self.ledger, self.scan = ledger, scan
        self.max_pixels = settings.find.max_pixels
        self.search = PlainSearch(known, thresholds, calibration)
        self.embedders = {name: EMBEDDERS[name]() for name in thresholds}
        self.held_out = {name: EMBEDDERS[name]() for name in EMBEDDERS if name not in thresholds}
        self.look, self.metadata = AuditLook(), MetadataCheck()
        self.strict = {name: calibration.strict_threshold(name) for name in self.held_out}
        self.reader = SourceReader(settings.storage_options)

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        """Audits one part.

        Args:
            part: `images` and `faces`, names of files of OUT or None, and `written`, name → the sha-256 that the run noted.

        Returns:
            plain data: `counts` and `examples` of the findings, `totals`, `verdicts`, `places` (of the scan, one for each image row),
            `uses` of identities, the `closest` faces, the `highest` cosines, `held_out` and `files`, the sha-256 of what was read.
        """
        work = _Part(self)
        images = work.table(part["images"], IMAGES, part["written"])
        faces = work.table(part["faces"], FACES, part["written"])
        places = self.scan.find([r["image_id"] for r in images], [r["path"] for r in images])
        private = self.scan.read((int(p) for p in places if p >= 0), list(self.embedders))
        rows: dict[tuple[Any, Any], list[Row]] = {}
        for face in faces:
            rows.setdefault((face["image_id"], face["path"]), []).append(face)
        for image, place in zip(images, places, strict=True):
            mine = rows.pop((image["image_id"], image["path"]), [])
            source = private.get(int(place))
            if source is None or (source["image_id"], source["path"]) != (image["image_id"], image["path"]):
                work.findings.add(checks.IMAGE_ROWS, f"{image['path']}: the scan does not have it")
                source = None
            try:
                work.image(image, mine, source)
            except Exception as error:  # whatever a tampered row brings about: it was not shown to be right
                work.findings.add(checks.UNREADABLE, f"{image['path']}: cannot be audited: {type(error).__name__}: {error}")
        for (_, path), strange in rows.items():
            for _ in strange:
                work.findings.add(checks.FACE_ROWS, f"{path}: a face of an image that is not there")
        work.certify()
        return work.summary(len(images), len(faces), [int(p) for p in places])


@dataclass
class _Worn:
    """A replaced face whose certificates are still to be computed."""

    row: Row
    where: str
    vectors: dict[str, F32]
    originals: dict[str, F32]


class _Part:
    """One part's audit under way."""

    def __init__(self, stage: AuditStage) -> None:
        self.stage = stage
        self.findings = Findings()
        self.totals: Counter[str] = Counter()
        self.verdicts: dict[str, Counter[str]] = {"images": Counter(), "faces": Counter()}
        self.uses: Counter[str] = Counter()
        self.worn: list[_Worn] = []
        self.closest: list[Row] = []
        self.highest: dict[str, dict[str, float]] = {}
        self.held_out = {name: {"compared": 0, "same_person": 0} for name in stage.held_out}
        self.files: dict[str, str] = {}

    def table(self, name: str | None, schema: pa.Schema, written: Mapping[str, str]) -> list[Row]:
        """The rows of a published file; none if it cannot be read."""
        if name is None:
            return []
        try:
            data = self.stage.ledger.read_bytes(name)
            self.files[name] = hashlib.sha256(data).hexdigest()
            if self.files[name] != written.get(name):
                self.findings.add(checks.CHANGED, name)
            table = pq.read_table(pa.BufferReader(data))
            for column in strange_columns(table.schema, schema, table):
                self.findings.add(checks.COLUMNS, f"{name}: {column}")
            rows: list[Row] = table.select(schema.names).cast(schema).to_pylist()
        except Exception as error:  # a damaged Parquet file raises nearly anything
            self.findings.add(checks.UNREADABLE, f"{name}: {type(error).__name__}: {error}")
            return []
        return rows

    def image(self, image: Row, rows: list[Row], source: Row | None) -> None:
        """One row of images with its faces' rows and the scan's row."""
        path = image["path"]
        rows.sort(key=lambda row: -1 if row["face_no"] is None else row["face_no"])
        self.verdicts["images"][str(image["verdict"])] += 1
        self.verdicts["faces"].update(str(row["verdict"]) for row in rows)
        data = (image["image"] or {}).get("bytes")
        for fault in _contradictions(image, rows):
            self.findings.add(checks.VERDICTS, f"{path}: {fault}")
        if source is not None and (data is not None or rows):
            for fault in _face_faults(rows, source["faces"] or []):
                self.findings.add(checks.FACE_ROWS, f"{path}: {fault}")
        worn = Counter(row["identity_id"] for row in rows if row["identity_id"])
        self.uses.update(worn)
        for name, times in worn.items():
            if times > 1:
                self.findings.add(checks.IDENTITY_USE, f"{path}: {name} stands in it {times} times")
        if data is None:
            return
        self.totals["published"] += 1
        try:
            pixels = decode(data, self.stage.max_pixels).pixels
        except CodecError as error:
            self.findings.add(checks.UNREADABLE, f"{path}: {error.reason}")
            return
        if pixels.shape[:2] != (image["height"], image["width"]):
            self.findings.add(
                checks.VERDICTS, f"{path}: its picture is {pixels.shape[1]} × {pixels.shape[0]} px, which the row does not say"
            )
        surplus = self.stage.metadata.fault(data, self.stage.max_pixels, labelled=image["verdict"] == "anonymized")
        if surplus:
            self.findings.add(checks.METADATA, f"{path}: {surplus}")
        self._look(path, pixels, rows)
        for i in see_through(pixels, [row["redacted_area"] for row in rows if row["redacted_area"]]):
            self.findings.add(checks.COVERS, f"{path}: cover {i}")
        original = self._original(source) if source else None
        self.totals["sources compared" if original is not None else "sources not readable"] += 1
        if original is not None and _digest(original) == _digest(pixels) and image["verdict"] == "anonymized":
            self.findings.add(checks.PIXELS, f"{path}: anonymized, but it shows the original")
        if original is not None and _digest(original) != _digest(pixels) and image["verdict"] == "unchanged":
            self.findings.add(checks.PIXELS, f"{path}: unchanged, but it does not show the original")
        self._embed(path, pixels, rows, source, original)

    def _look(self, path: str, pixels: Image, rows: list[Row]) -> None:
        """Every face that is seen must be accounted for."""
        seen = self.stage.look.find(pixels)
        self.totals["detections"] += len(seen)
        left = np.ones(len(seen), bool)
        shown = [row for row in rows if row["verdict"] in ("kept", "replaced")]
        boxes = [row["box"] for row in shown if row["box"]]
        if boxes:
            left &= ~same_place(seen.boxes, np.array(boxes, np.float32)).any(1)
        points = [row["points"] for row in shown if row["points"]]
        if points:
            left &= ~same_place(seen.boxes, around(np.array(points, np.float32).reshape(-1, 5, 2))).any(1)
        covers = [row["redacted_area"] for row in rows if row["redacted_area"]]
        covered = mostly_in(seen.boxes, np.array(covers, np.float32)).any(1) if covers else np.zeros(len(seen), bool)
        for check, some in ((checks.SEEN, left & covered), (checks.LEFT, left & ~covered)):
            faces: Faces = seen.take(some)
            for box in faces.boxes[self.stage.look.confirmed(pixels, faces)]:
                self.findings.add(check, f"{path}: at {', '.join(f'{v:.0f}' for v in box)}")

    def _embed(self, path: str, pixels: Image, rows: list[Row], source: Row | None, original: Image | None) -> None:
        """Embeds the replaced faces again, and by held-out recognizers the originals, too."""
        scanned = (source["faces"] or []) if source else []
        able = []
        for row in rows:
            if row["verdict"] != "replaced":
                continue
            where = f"{path}#{row['face_no']}"
            n = row["face_no"] if row["face_no"] is not None else -1
            if row["points"] is None or not np.isfinite(row["points"]).all() or not 0 <= n < len(scanned):
                self.findings.add(checks.CERTIFICATES, f"{where}: without points or without an original, so nothing can be computed again")
                continue
            able.append((row, where, scanned[n]))
        if not able:
            return
        points = np.array([row["points"] for row, _, _ in able], np.float32).reshape(-1, 5, 2)
        vectors = {name: embedder.embed(pixels, points) for name, embedder in self.stage.embedders.items()}
        for i, (row, where, face) in enumerate(able):
            originals = {name: np.array(face[embedding_column(name)], np.float32) for name in vectors}
            self.worn.append(_Worn(row, where, {name: v[i] for name, v in vectors.items()}, originals))
        if original is not None:
            before = np.array([face["points"] for _, _, face in able], np.float32).reshape(-1, 5, 2)
            for name, embedder in self.stage.held_out.items():
                cosines = (unit(embedder.embed(pixels, points)) * unit(embedder.embed(original, before))).sum(1)
                self.held_out[name]["compared"] += len(able)
                self.held_out[name]["same_person"] += int((cosines >= self.stage.strict[name]).sum())

    def certify(self) -> None:
        """Computes the certificates of the part's replaced faces again, all at once."""
        if not self.worn:
            return
        search = self.stage.search
        ids = [f"{worn.row['image_id']}:{worn.row['face_no']}" for worn in self.worn]
        for i in np.flatnonzero(~np.isin(np.array([name.encode() for name in ids]), search.known.ids)):
            self.findings.add(checks.UNKNOWN, f"{self.worn[i].where}: it was replaced, not redacted")
        found = {name: search.highest(name, np.stack([w.vectors[name] for w in self.worn])) for name in search.thresholds}
        for k, worn in enumerate(self.worn):
            mine = {name: (float(cosines[k]), int(rows[k])) for name, (cosines, rows) in found.items()}
            own = {name: float((unit(worn.vectors[name][None]) * unit(worn.originals[name][None])).sum()) for name in mine}
            faults = search.faults(worn.row["certificates"], worn.vectors, mine)
            faults += _first_faults(worn.row, mine, own)
            for fault in faults:
                self.findings.add(checks.CERTIFICATES, f"{worn.where}: {fault}")
            for name, (cosine, row) in mine.items():
                nearest, threshold = search.known.known_id(row), search.thresholds[name]
                if not cosine < threshold:
                    self.findings.add(checks.MATCHES, f"{worn.where}: {name} {cosine:.4f} to {nearest}, threshold {threshold:.4f}")
                if not own[name] < search.original_thresholds[name]:
                    allowed = search.original_thresholds[name]
                    self.findings.add(checks.MATCHES, f"{worn.where}: {name} {own[name]:.4f} to its original, threshold {allowed:.4f}")
                top = self.highest.setdefault(name, {"to_known": -1.0, "to_original": -1.0})
                top["to_known"], top["to_original"] = max(top["to_known"], cosine), max(top["to_original"], own[name])
                self.closest.append(
                    {
                        "face": ids[k],
                        "known": nearest,
                        "recognizer": name,
                        "cosine": cosine,
                        "to_original": own[name],
                        "threshold": threshold,
                    }
                )

    def _original(self, source: Row) -> Image | None:
        """The picture that the scan read, if it is still there and still the same."""
        try:
            data = self.stage.reader.read(source["unit"], source["locator"])
            return decode(data, self.stage.max_pixels).pixels if hashlib.sha256(data).hexdigest() == source["image_id"] else None
        except (SourceError, CodecError):
            return None

    def summary(self, images: int, faces: int, places: list[int]) -> Row:
        """What the stage returns."""
        return {
            "images": images,
            "faces": faces,
            "counts": dict(self.findings.counts),
            "examples": self.findings.examples,
            "totals": dict(self.totals),
            "verdicts": {name: dict(counts) for name, counts in self.verdicts.items()},
            "places": places,
            "uses": dict(self.uses),
            "closest": nearest_first(self.closest),
            "highest": self.highest,
            "held_out": self.held_out,
            "files": self.files,
        }


def nearest_first(closest: Iterable[Row]) -> list[Row]:
    """The `CLOSEST` pairs with the least margin; what is no number comes first."""
    return sorted(closest, key=lambda pair: np.nan_to_num(pair["threshold"] - pair["cosine"], nan=-np.inf))[:CLOSEST]


def _digest(pixels: Image) -> tuple[tuple[int, ...], bytes]:
    return pixels.shape, hashlib.sha256(np.ascontiguousarray(pixels).data).digest()


def _first_faults(row: Row, found: Mapping[str, tuple[float, int]], own: Mapping[str, float]) -> list[str]:
    """What is wrong with the columns that repeat the first certificate."""
    first = (row["certificates"] or [{}])[0]
    name = first.get("recognizer")
    if name not in found:
        return []  # said already
    faults = []
    if not abs(number(row["similarity_to_original"]) - own[name]) <= TOLERANCE:
        faults.append(f"similarity_to_original is {own[name]:.4f}, not {number(row['similarity_to_original']):.4f}")
    if not abs(number(row["max_similarity_to_known"]) - found[name][0]) <= TOLERANCE:
        faults.append(f"max_similarity_to_known is {found[name][0]:.4f}, not {number(row['max_similarity_to_known']):.4f}")
    if row["threshold"] != first["threshold"]:
        faults.append("its threshold is not its certificate's")
    return faults


def _contradictions(image: Row, rows: Sequence[Row]) -> list[str]:
    """What in an image's row and its faces' rows cannot be true together."""
    verdict, published = image["verdict"], (image["image"] or {}).get("bytes") is not None
    verdicts = {row["verdict"] for row in rows}
    faults = []
    if verdict in ("unchanged", "anonymized"):
        rules = [
            (published, "no picture is there"),
            ((verdicts <= {"kept"}) == (verdict == "unchanged"), f"{verdict}, but its faces are {', '.join(map(str, verdicts)) or 'none'}"),
            (image["faces"] == len(rows), f"{image['faces']} faces, but {len(rows)} rows"),
        ]
    elif verdict in ("withheld", "failed"):
        rules = [(not published, f"{verdict}, but a picture is there"), (bool(image["reason"]), f"{verdict} without a reason")]
    else:
        rules = [(False, f"unknown verdict {verdict!r}")]
    for row in rows:
        where = f"face {row['face_no']}"
        if row["verdict"] == "replaced":
            rules.append((row["identity_id"] is not None and row["points"] is not None, f"{where}: replaced without identity or points"))
        elif row["verdict"] == "redacted":
            rules.append(
                (row["redacted_area"] is not None and _covers(row, image), f"{where}: redacted, but its area does not cover its box")
            )
            rules.append((bool(row["reason"]), f"{where}: redacted without a reason"))
        elif row["verdict"] == "kept":
            rules.append((bool(row["access_reason"]), f"{where}: kept, but no access row is named"))
        else:
            rules.append((False, f"{where}: unknown verdict {row['verdict']!r}"))
    faults += [text for holds, text in rules if not holds]
    return faults


def _covers(row: Row, image: Row) -> bool:
    """Whether a redacted face's area holds the middle half of its box (in width and height), as far as that is in the picture."""
    x0, y0, x1, y1 = row["redacted_area"]
    a0, b0, a1, b1 = row["box"]
    x, y, right, bottom = (a1 - a0) / 4, (b1 - b0) / 4, number(image["width"]), number(image["height"])
    return bool(x0 <= max(a0 + x, 0) + 1 and y0 <= max(b0 + y, 0) + 1 and x1 >= min(a1 - x, right) - 1 and y1 >= min(b1 - y, bottom) - 1)


def _face_faults(rows: Sequence[Row], scanned: Sequence[Row]) -> list[str]:
    """How an image's face rows differ from the faces that the scan found."""
    numbers = Counter(row["face_no"] for row in rows)
    faults = [f"face {n} is missing" for n in range(len(scanned)) if n not in numbers]
    faults += [f"face {n} is there {times} times" for n, times in numbers.items() if times > 1]
    for row in rows:
        n = row["face_no"]
        if n is None or not 0 <= n < len(scanned):
            faults.append(f"face {n} was not scanned")
            continue
        box = np.array(scanned[n]["box"], np.float32)
        if row["box"] is None or not np.abs(np.array(row["box"]) - box).max() <= 0.5:
            faults.append(f"face {n} is not where the scan found it")
        elif row["points"] is not None:
            apart = np.array(row["points"]).reshape(5, 2) - np.array(scanned[n]["points"]).reshape(5, 2)
            if not np.linalg.norm(apart, axis=1).mean() <= _FAR_POINTS * np.sqrt(np.prod(np.maximum(box[2:] - box[:2], 1))):
                faults.append(f"the points of face {n} are not on it")
    return faults
