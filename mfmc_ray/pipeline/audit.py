"""The audit stage: published parts are looked at, embedded and searched again, and held against the private tables."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mfmc_ray.access.decide import AccessModel
from mfmc_ray.codec import CodecError, decode
from mfmc_ray.config import RunConfig
from mfmc_ray.faces import runtime
from mfmc_ray.faces.audit_look import AuditLook, same_place
from mfmc_ray.faces.faces import F32, Faces, Image
from mfmc_ray.faces.pack import ALL_EMBEDDERS, EMBEDDERS, HELD_OUT
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.known.index import KnownFaces
from mfmc_ray.ledger import Ledger
from mfmc_ray.pipeline import findings as checks
from mfmc_ray.pipeline import leak
from mfmc_ray.pipeline.approved import not_allowed
from mfmc_ray.pipeline.contradictions import contradictions, face_faults
from mfmc_ray.pipeline.findings import Findings
from mfmc_ray.pipeline.inspection import MetadataCheck, around, mostly_in, see_through, strange_columns
from mfmc_ray.pipeline.pseudonyms import fault_of
from mfmc_ray.pipeline.recheck import TOLERANCE, PlainSearch, Row, ScanIndex, number, unit
from mfmc_ray.retry import StoreError
from mfmc_ray.sources import SourceError, SourceReader
from mfmc_ray.stores import PROBE_SECONDS
from mfmc_ray.tables import FACES, IMAGES, embedding_column

CLOSEST = 10
"""Pairs that the result lists."""


class AuditStage:
    """Audits parts of OUT: one part is a file of images and the file of their faces. Tampered data never raises: it is a finding.

    Args:
        settings: the run's.
        ledger: its folders.
        known: the known faces.
        thresholds: recognizer → the cosine a published face must stay below.
        scan: where the scan's rows are.
        asked: known ids, rising, of the faces whose embeddings the leak rate needs; they are kept in WORK/audit until it is measured.
        calibration: what the thresholds come from.
        access: which faces may be kept.
    """

    def __init__(
        self,
        settings: RunConfig,
        ledger: Ledger,
        known: KnownFaces,
        thresholds: Mapping[str, float],
        scan: ScanIndex,
        asked: leak.Ids,
        calibration: Calibration,
        access: AccessModel,
    ) -> None:
        runtime.use()
        self.ledger, self.scan, self.asked, self.access = ledger, scan, asked, access
        self.max_pixels, self.wrongly_worn = settings.find.max_pixels, fault_of(settings.swap.pseudonyms, ledger.work)
        self.search = PlainSearch(known, thresholds, calibration)
        self.embedders = {name: ALL_EMBEDDERS[name]() for name in thresholds}
        self.held_out = {name: make() for name, make in {**EMBEDDERS, **HELD_OUT}.items() if name not in thresholds}
        self.look, self.metadata = AuditLook(), MetadataCheck()
        self.strict = {name: calibration.strict_threshold(name) for name in self.held_out}
        self.reader = SourceReader({**settings.storage_options, "patience": PROBE_SECONDS})

    def asked_for(self, ids: Sequence[str]) -> list[int]:
        """Which of these faces the leak rate is about."""
        wanted = np.array([name.encode() for name in ids], np.bytes_)
        return [int(i) for i in np.flatnonzero(np.isin(wanted, self.asked))] if len(self.asked) else []

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        """Audits one part.

        Args:
            part: its number `part`, `images` and `faces`, names of files of OUT or None, `written`, name → the sha-256 that the run
                noted, and `look`, the numbers of the image rows whose pictures are looked at; without it all are. Rows and what they
                claim are checked in any case.

        Returns:
            plain data: `counts` and `examples` of the findings, `totals`, `verdicts`, `places` (of the scan, one for each image row),
            `uses` of identities, the `closest` faces, the `highest` cosines, `held_out`, `looked`, how many published images of the
            sample were looked at, `violating`, how many of them must not be as they are, and `files`, the sha-256 of what was read.
        """
        work = _Part(self)
        images = work.table(part["images"], IMAGES, part["written"])
        faces = work.table(part["faces"], FACES, part["written"])
        places = self.scan.find([r["image_id"] for r in images], [r["path"] for r in images])
        private = self.scan.read((int(p) for p in places if p >= 0), list(self.embedders))
        rows: dict[tuple[Any, Any], list[Row]] = {}
        for face in faces:
            rows.setdefault((face["image_id"], face["path"]), []).append(face)
        look = None if part.get("look") is None else set(part["look"])
        for k, (image, place) in enumerate(zip(images, places, strict=True)):
            mine = rows.pop((image["image_id"], image["path"]), [])
            source = private.get(int(place))
            if source is None or (source["image_id"], source["path"]) != (image["image_id"], image["path"]):
                work.findings.add(checks.IMAGE_ROWS, f"{image['path']}: the scan does not have it")
                source = None
            try:
                work.image(k, image, mine, source, sampled=look is None or k in look)
            except Exception as error:  # whatever a tampered row brings about: it was not shown to be right
                work.violating.update({k} & work.looked)
                work.findings.add(checks.UNREADABLE, f"{image['path']}: cannot be audited: {type(error).__name__}: {error}")
        for (_, path), strange in rows.items():
            for _ in strange:
                work.findings.add(checks.FACE_ROWS, f"{path}: a face of an image that is not there")
        work.certify()
        work.believe()
        work.keep(int(part["part"]))
        return work.summary(len(images), len(faces), [int(p) for p in places])


@dataclass
class _Worn:
    """A replaced face whose certificates are still to be computed."""

    index: int  # of the image's row
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
        self.unseen: list[tuple[Row, str]] = []  # replaced faces in pictures that are not looked at
        self.looked: set[int] = set()
        self.violating: set[int] = set()
        self.probes: list[tuple[str, dict[str, F32]]] = []
        self.originals: list[tuple[str, dict[str, F32]]] = []
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

    def image(self, index: int, image: Row, rows: list[Row], source: Row | None, *, sampled: bool) -> None:
        """One row of images with its faces' rows and the scan's row; its picture only if it is in the sample."""
        path, shown = image["path"], image["verdict"] in ("unchanged", "anonymized")
        rows.sort(key=lambda row: -1 if row["face_no"] is None else row["face_no"])
        self.verdicts["images"][str(image["verdict"])] += 1
        self.verdicts["faces"].update(str(row["verdict"]) for row in rows)
        data = (image["image"] or {}).get("bytes")
        for fault in contradictions(image, rows, self.stage.wrongly_worn):
            self.findings.add(checks.VERDICTS, f"{path}: {fault}")
        for fault in not_allowed(self.stage.access, image, rows, source):
            self.findings.add(checks.KEPT, f"{path}: {fault}")
        if source is not None and (data is not None or rows):
            for fault in face_faults(rows, source["faces"] or []):
                self.findings.add(checks.FACE_ROWS, f"{path}: {fault}")
        worn = Counter(row["identity_id"] for row in rows if row["identity_id"])
        self.uses.update(worn)
        for name, times in worn.items():
            if times > 1:
                self.findings.add(checks.IDENTITY_USE, f"{path}: {name} stands in it {times} times")
        if data is not None or shown:
            self.looked.update({index} if sampled else ())
        if data is None:
            self.violating.update({index} & self.looked)
            return
        self.totals["published"] += 1
        if not sampled and shown:
            if surplus := self.stage.metadata.stated(data, labelled=image["verdict"] == "anonymized"):
                self.findings.add(checks.METADATA, f"{path}: {surplus}")
            self.unseen += [(row, f"{path}#{row['face_no']}") for row in rows if row["verdict"] == "replaced"]
            return
        before = self.findings.counts.total()
        self._picture(index, image, data, rows, source)
        if self.findings.counts.total() > before:
            self.violating.update({index} & self.looked)

    def _picture(self, index: int, image: Row, data: bytes, rows: list[Row], source: Row | None) -> None:
        """What only the picture itself can tell."""
        path = image["path"]
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
        areas = [row["redacted_area"] for row in rows if row["redacted_area"]]
        worn = np.array([row["points"] for row in rows if row["verdict"] == "replaced" and row["points"]], np.float32)
        for i in see_through(pixels, areas, self.stage.look.shown(pixels, worn.reshape(-1, 5, 2), areas)):
            self.findings.add(checks.COVERS, f"{path}: cover {i}")
        original = self._original(source) if source else None
        self.totals["sources compared" if original is not None else "sources not readable"] += 1
        if original is not None and _digest(original) == _digest(pixels) and image["verdict"] == "anonymized":
            self.findings.add(checks.PIXELS, f"{path}: anonymized, but it shows the original")
        if original is not None and _digest(original) != _digest(pixels) and image["verdict"] == "unchanged":
            self.findings.add(checks.PIXELS, f"{path}: unchanged, but it does not show the original")
        self._embed(index, image, pixels, rows, source, original)

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

    def _embed(self, index: int, image: Row, pixels: Image, rows: list[Row], source: Row | None, original: Image | None) -> None:
        """Embeds the replaced faces again, and by held-out recognizers the originals, too."""
        scanned = (source["faces"] or []) if source else []
        able = []
        for row in rows:
            if row["verdict"] != "replaced":
                continue
            where = f"{image['path']}#{row['face_no']}"
            n = row["face_no"] if row["face_no"] is not None else -1
            if row["points"] is None or not np.isfinite(row["points"]).all() or not 0 <= n < len(scanned):
                self.findings.add(checks.CERTIFICATES, f"{where}: without points or without an original, so nothing can be computed again")
                continue
            able.append((row, where, n))
        points = np.array([row["points"] for row, _, _ in able], np.float32).reshape(-1, 5, 2)
        vectors = {name: embedder.embed(pixels, points) for name, embedder in self.stage.embedders.items()}
        for i, (row, where, n) in enumerate(able):
            originals = {name: np.array(scanned[n][embedding_column(name)], np.float32) for name in vectors}
            self.worn.append(_Worn(index, row, where, {name: v[i] for name, v in vectors.items()}, originals))
        vectors |= {name: embedder.embed(pixels, points) for name, embedder in self.stage.held_out.items()}
        ids = [f"{image['image_id']}:{n}" for n in range(len(scanned))]
        self.probes += [(ids[n], {name: v[i] for name, v in vectors.items()}) for i, (_, _, n) in enumerate(able)]
        wanted = sorted({n for _, _, n in able} | set(self.stage.asked_for(ids)))
        if original is None or not wanted:
            return
        places = np.array([scanned[n]["points"] for n in wanted], np.float32).reshape(-1, 5, 2)
        before = {name: embedder.embed(original, places) for name, embedder in self.stage.held_out.items()}
        self.originals += [(ids[n], {name: v[i] for name, v in before.items()}) for i, n in enumerate(wanted)]
        own = [wanted.index(n) for _, _, n in able]
        for name in self.stage.held_out if able else ():
            cosines = (unit(vectors[name]) * unit(before[name][own])).sum(1)
            self.held_out[name]["compared"] += len(able)
            self.held_out[name]["same_person"] += int((cosines >= self.stage.strict[name]).sum())

    def certify(self) -> None:
        """Computes the certificates of the part's replaced faces again, all at once."""
        if not self.worn:
            return
        search = self.stage.search
        ids = [f"{worn.row['image_id']}:{worn.row['face_no']}" for worn in self.worn]
        for i in self._unknown(ids):
            self.findings.add(checks.UNKNOWN, f"{self.worn[i].where}: it was replaced, not redacted")
        found = {name: search.highest(name, np.stack([w.vectors[name] for w in self.worn])) for name in search.thresholds}
        for k, worn in enumerate(self.worn):
            mine = {name: (float(cosines[k]), int(rows[k])) for name, (cosines, rows) in found.items()}
            own = {name: float((unit(worn.vectors[name][None]) * unit(worn.originals[name][None])).sum()) for name in mine}
            first = (worn.row["certificates"] or [{}])[0].get("recognizer")
            if search.known.is_forgotten(ids[k]):  # nothing of the original is left to compare with: what was certified then stands
                own = {name: number(worn.row["similarity_to_original"]) if name == first else -1.0 for name in mine}
                self.totals["originals forgotten"] += 1
            before = self.findings.counts.total()
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
            if self.findings.counts.total() > before:
                self.violating.update({worn.index} & self.looked)

    def _unknown(self, ids: Sequence[str]) -> list[int]:
        """Which faces are not among the known ones, though a face that is replaced must be, or have been until it was forgotten."""
        known = self.stage.search.known
        absent = np.flatnonzero(~np.isin(np.array([name.encode() for name in ids], np.bytes_), known.ids))
        return [i for i in map(int, absent) if not known.is_forgotten(ids[i])]

    def believe(self) -> None:
        """Takes the certificates of faces that are not looked at at their word: what they say must be of this index, and be enough."""
        search, known = self.stage.search, self.stage.search.known
        ids = [f"{row['image_id']}:{row['face_no']}" for row, _ in self.unseen]
        for i in self._unknown(ids):
            self.findings.add(checks.UNKNOWN, f"{self.unseen[i][1]}: it was replaced, not redacted")
        named = [str(c["nearest_known"]).encode() for row, _ in self.unseen for c in row["certificates"] or ()]
        rows = np.flatnonzero(np.isin(known.ids, np.array(named, np.bytes_))) if named else ()
        at = {known.known_id(int(row)): int(row) for row in rows}
        nothing = {name: np.zeros(known.vectors[name].shape[1], np.float32) for name in search.thresholds}
        for row, where in self.unseen:
            certificates = row["certificates"] or ()
            stated = {str(c["recognizer"]): (number(c["max_similarity"]), at.get(c["nearest_known"], -1)) for c in certificates}
            own = number(row["similarity_to_original"])
            faults = search.faults(certificates, nothing, stated) + _first_faults(row, stated, dict.fromkeys(stated, own))
            for fault in faults:
                self.findings.add(checks.CERTIFICATES, f"{where}: {fault}")
            for name, (cosine, _) in stated.items():
                if name in search.thresholds and not (cosine < search.thresholds[name]):
                    self.findings.add(checks.MATCHES, f"{where}: {name} {cosine:.4f}, as it says itself")
            first = next(iter(stated), None)
            if first in search.thresholds and not own < search.original_thresholds[first]:
                self.findings.add(checks.MATCHES, f"{where}: {first} {own:.4f} to its original, as it says itself")

    def keep(self, part: int) -> None:
        """Keeps the embeddings that the leak rate is measured with, in WORK."""
        kept = []
        for faces in (self.probes, self.originals):
            some = [faces[i] for i in self.stage.asked_for([name for name, _ in faces])]
            vectors = {name: np.stack([v[name] for _, v in some]) for name in (some[0][1] if some else ())}
            kept.append({"ids": np.array([name.encode() for name, _ in some], np.bytes_), **vectors})
        if len(self.stage.asked):
            leak.store(self.stage.ledger.work / "audit", part, *kept)

    def _original(self, source: Row) -> Image | None:
        """The picture that the scan read, if it is still there and still the same."""
        try:
            data = self.stage.reader.read(source["unit"], source["locator"])
            return decode(data, self.stage.max_pixels).pixels if hashlib.sha256(data).hexdigest() == source["image_id"] else None
        except (SourceError, CodecError, StoreError):
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
            "looked": len(self.looked),
            "violating": len(self.violating),
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
