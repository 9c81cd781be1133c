"""The pictures of a comparison, scanned once, and how methods are applied to them and judged."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.progress import Progress

from mfmc_ray.codec import decode
from mfmc_ray.collection import CollectionError
from mfmc_ray.config import RunConfig
from mfmc_ray.evaluate import faces_note
from mfmc_ray.evaluate.pair import CHANGED, Pair
from mfmc_ray.evaluate.pairing import VERSION, Pairer, PairingError
from mfmc_ray.evaluate.sections import Collector, Note
from mfmc_ray.evaluate.sheets import face_crop
from mfmc_ray.faces.pack import load_pack
from mfmc_ray.faces.store import load_lock
from mfmc_ray.ledger import LedgerError
from mfmc_ray.pipeline.methods import Method, digest_of
from mfmc_ray.pipeline.paired import IMAGES_PER_PART, Place
from mfmc_ray.pipeline.rows import faces_of
from mfmc_ray.pipeline.scan import ScanStage
from mfmc_ray.places import replace_file, text_of
from mfmc_ray.sources import Source, SourceError, SourceReader

SHOWN = 8
"""Faces on the contact sheet."""


class Pictures:
    """The pictures, scanned once."""

    def __init__(self, folder: Path, config: RunConfig, places: list[tuple[str, Place]], bar: Progress) -> None:
        self.reader, self.max_pixels = SourceReader(config.storage_options), config.find.max_pixels
        self.pack = load_pack(config.find, config.guard.recognizers)
        stage = ScanStage(self.pack, self.max_pixels, config.storage_options)
        parts: list[pa.Table] = []
        task = bar.add_task("Scanning", total=len(places))
        for start in range(0, len(places), IMAGES_PER_PART):
            some = places[start : start + IMAGES_PER_PART]
            digest = digest_of(json.dumps(some, sort_keys=True), repr(config.find), config.guard.recognizers)
            file = folder / "scan" / f"{digest}.parquet"
            if not file.is_file():
                file.parent.mkdir(exist_ok=True)
                replace_file(file, partial(pq.write_table, stage.scan(self._sources(some))))
            parts.append(pq.read_table(file))
            bar.advance(task, len(some))
        wanted = pa.concat_tables(parts)
        self.scan = wanted.filter(pa.array([reason is None for reason in wanted["reason"].to_pylist()]))
        self.images = {"looked_at": self.scan.num_rows, "not_looked_at": wanted.num_rows - self.scan.num_rows}
        if not len(self.scan["faces"].combine_chunks().flatten()):
            raise CollectionError("no face was found in these pictures: there is nothing to compare")

    def _sources(self, some: Sequence[tuple[str, Place]]) -> Iterator[Source]:
        for path, place in some:
            try:
                yield Source(path, place["unit"], place["locator"], self.reader.read(place["unit"], place["locator"]), None)
            except SourceError as error:
                yield Source(path, place["unit"], place["locator"], None, str(error))

    def parts(self) -> list[pa.Table]:
        """The rows, some at a time."""
        return [self.scan.slice(i, IMAGES_PER_PART) for i in range(0, self.scan.num_rows, IMAGES_PER_PART)]


class Judge:
    """Applies methods, and has collectors look at what comes of it.

    Args:
        folder: WORK/comparison.
        pictures: that methods are applied to.
        notes: of each method.
        bar: to show what is done.
    """

    def __init__(self, folder: Path, pictures: Pictures, notes: Sequence[Note], bar: Progress) -> None:
        self.folder, self.pictures, self.notes, self.bar = folder, pictures, notes, bar
        self.pairer = Pairer(pictures.max_pixels)
        self._made: dict[str, Collector] = {}
        lock = {model.name: model.sha256 for model in load_lock()}
        self._noted = {note.name: note.digest(lock) for note in (*faces_note.NOTES, *notes)}
        self._shown = set(np.linspace(0, pictures.scan.num_rows - 1, min(SHOWN, pictures.scan.num_rows)).astype(int).tolist())

    def __call__(self, methods: Sequence[Method]) -> dict[str, list[dict[str, Any]]]:
        """Method → a summary of each part."""
        parts = self.pictures.parts()
        task = self.bar.add_task("Comparing", total=len(parts) * len(methods))
        found: dict[str, list[dict[str, Any]]] = {method.name: [] for method in methods}
        for number, part in enumerate(parts):
            # pictures are decoded, and looked at, once for all methods, and only if some is missing
            pairs: list[tuple[int, bytes, Pair]] = []
            rows = digest_of(part["image_id"].to_pylist(), part["path"].to_pylist(), VERSION)
            opened = partial(self._pairs, part, number, pairs)
            self._base(number, rows, opened)
            for method in methods:
                digest = digest_of(method.digest, rows, sorted((note.name, self._noted[note.name]) for note in self.notes))
                file = self.folder / method.name / f"part-{number:05d}.json"
                summary = json.loads(file.read_text()) if file.is_file() else {}
                if summary.get("digest") != digest:
                    summary = self._part(method, part, number, opened()) | {"digest": digest}
                    replace_file(file, text_of(json.dumps(summary)))
                found[method.name].append(summary)
                self.bar.advance(task)
        return found

    def _pairs(self, part: pa.Table, number: int, held: list[tuple[int, bytes, Pair]]) -> list[tuple[int, bytes, Pair]]:
        for i in range(0 if held else part.num_rows):
            place = part["unit"][i].as_py(), part["locator"][i].as_py()
            data = self.pictures.reader.read(*place)
            faces = faces_of(part["faces"][i], self.pictures.pack.dimensions)
            rows = [{"face_no": k, "box": box.tolist(), "verdict": CHANGED} for k, box in enumerate(faces.boxes)]
            try:
                pair = self.pairer.pair(part["path"][i].as_py(), "anonymized", data, data, rows, part["image_id"][i].as_py())
            except PairingError as error:
                raise LedgerError("a picture has changed since the comparison began: remove WORK/comparison and start again") from error
            held.append((number * IMAGES_PER_PART + i, data, pair))
        return held

    def _base(self, number: int, rows: str, pairs: Callable[[], list[tuple[int, bytes, Pair]]]) -> None:
        """What is noted of the originals alone."""
        digest = digest_of(rows, *(self._noted[note.name] for note in faces_note.NOTES))
        file = self.folder / "originals" / f"part-{number:05d}.json"
        if not file.is_file() or json.loads(file.read_text()).get("digest") != digest:
            file.parent.mkdir(exist_ok=True)
            for note in faces_note.NOTES:
                self._note("originals", note, number, [pair for _, _, pair in pairs()])
            replace_file(file, text_of(json.dumps({"digest": digest})))

    def _part(self, method: Method, part: pa.Table, number: int, pairs: Sequence[tuple[int, bytes, Pair]]) -> dict[str, Any]:
        folder = self.folder / method.name
        folder.mkdir(exist_ok=True)
        seconds, covered, faces, agreed, made = 0.0, 0, 0, getattr(method, "agreed", []), []
        agreed.clear()
        for i, (image, data, pair) in enumerate(pairs):
            found = faces_of(part["faces"][i], self.pictures.pack.dimensions)
            rows = [{"face_no": k, "box": box.tolist(), "verdict": CHANGED} for k, box in enumerate(found.boxes)]
            after = pair
            if len(found):
                applied = method(part.slice(i, 1), data, decode(data, self.pictures.max_pixels), found)
                seconds, covered, faces = seconds + applied.seconds, covered + applied.covered, faces + len(found)
                # the no-op's pair is there already
                after = pair if applied.data == data else self.pairer.again(pair, applied.data, rows)
            made.append(after)
            if image in self._shown and len(found) and after.output is not None:
                tile = face_crop(after.output, found.boxes[int(np.argmax(found.sizes))])
                cv2.imwrite(str(folder / f"tile-{image:05d}.png"), tile[..., ::-1])
        for note in self.notes:
            self._note(method.name, note, number, made)
        return {"faces": faces, "covered": covered, "seconds": seconds, "agreed": sum(agreed), "chosen": len(agreed)}

    def _note(self, folder: str, note: Note, number: int, pairs: Sequence[Pair]) -> None:
        if note.name not in self._made:
            self._made[note.name] = note.make()
        collector = self._made[note.name]
        table = pa.Table.from_pylist([row for pair in pairs for row in collector.collect(pair)], collector.schema)
        replace_file(self.folder / folder / f"part-{number:05d}.{note.name}.parquet", partial(pq.write_table, table))

    def base(self, name: str) -> pa.Table:
        """A table about the originals."""
        return self._read("originals", name, len(self.pictures.parts()))

    def table(self, method: str, note: Note, summaries: Sequence[Any]) -> pa.Table:
        """A method's table."""
        return self._read(method, note.name, len(summaries))

    def tiles(self, method: str) -> dict[int, Any]:
        """Number of a picture → the face of it that is shown, as the method left it, uint8 (160, 160, 3)."""
        found = {}
        for image in sorted(self._shown):
            file = self.folder / method / f"tile-{image:05d}.png"
            tile = cv2.imread(str(file)) if file.is_file() else None
            if tile is not None:
                found[image] = tile[..., ::-1]
        return found

    def _read(self, folder: str, name: str, parts: int) -> pa.Table:
        return pa.concat_tables([pq.read_table(self.folder / folder / f"part-{i:05d}.{name}.parquet") for i in range(parts)])
