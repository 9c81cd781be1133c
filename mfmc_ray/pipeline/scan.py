"""The scan stage: bytes → decode → detect → mesh → embed → attributes, beard."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from mfmc_ray.boxes import Boxes
from mfmc_ray.codec import CodecError, decode
from mfmc_ray.faces.faces import Faces, Image
from mfmc_ray.faces.pack import Pack
from mfmc_ray.identities.model import load_model
from mfmc_ray.identities.traits import beard_of
from mfmc_ray.pipeline.rows import faces_column
from mfmc_ray.pipeline.watch import Watch
from mfmc_ray.sources import Source, Unit, failed, read_unit
from mfmc_ray.tables import UNITS, scan_schema


class ScanStage:
    """Finds and describes the faces of every image of some units.

    Args:
        pack: finds the faces.
        max_pixels: larger images are not decoded.
        storage_options: for fsspec, of remote units.
        watch: notes what it is at, and knows what not to touch.
        boxes: of faces that the user knows of.
    """

    needs: pa.Schema = UNITS

    def __init__(
        self,
        pack: Pack,
        max_pixels: int,
        storage_options: Mapping[str, Any] | None = None,
        watch: Watch | None = None,
        boxes: Boxes | None = None,
    ) -> None:
        self.pack = pack
        self.max_pixels = max_pixels
        self.storage_options = dict(storage_options or {})
        self.watch = watch or Watch()
        self.boxes = boxes
        self.adds: pa.Schema = scan_schema(pack.dimensions)
        self._surface = load_model().surface

    def __call__(self, units: pa.Table) -> pa.Table:
        """Units (`tables.UNITS`) → one row per image (`tables.scan_schema`). Never raises for a bad image."""
        sources = (
            source
            for row in units.to_pylist()
            for source in self.read(Unit(row["unit"], row["kind"], row["size"], row["version"], row["path"]))
        )
        return self.scan(sources)

    def scan(self, sources: Iterable[Source]) -> pa.Table:
        """Images → rows."""
        rows: list[dict[str, Any]] = []
        found: list[Faces | None] = []
        for source in sources:
            row, faces = self._one(source)
            rows.append(row)
            found.append(faces)
        plain = pa.Table.from_pylist(rows, schema=self.adds.remove(self.adds.get_field_index("faces")))
        return plain.append_column(self.adds.field("faces"), faces_column(found, self.pack.dimensions)).select(self.adds.names)

    def read(self, unit: Unit) -> Iterator[Source]:
        """The images of a unit. Of a shard what comes after an image that kills its reader is not read either."""
        sources, number = read_unit(unit, self.storage_options), 0
        while True:
            key = json.dumps([unit.unit, unit.size, unit.version, number])
            if reason := self.watch.reason(key):
                yield failed(unit, reason)
                return
            with self.watch.at(key, path=unit.path, unit=unit.unit):  # in its own time: a store may be slow
                source = next(sources, None)
            if source is None:
                return
            yield source
            number += 1

    def _one(self, source: Source) -> tuple[dict[str, Any], Faces | None]:
        row: dict[str, Any] = {"path": source.path, "unit": source.unit, "locator": source.locator, "reason": source.error}
        if source.data is None:
            return row, None
        key = hashlib.sha256(source.data).hexdigest()
        row |= {"image_id": key, "source_bytes": len(source.data), "reason": self.watch.reason(key)}
        row["boxes"] = self.boxes.version(key, source.path) if self.boxes else None
        if row["reason"]:
            return row, None
        where = {"path": source.path, "unit": source.unit, "locator": source.locator}
        try:
            with self.watch.at(key, self.watch.allowed(), **where):
                picture = decode(source.data, self.max_pixels)
        except CodecError as error:
            return row | {"reason": error.reason}, None
        row |= {"format": picture.format, "width": picture.width, "height": picture.height}
        try:
            with self.watch.at(key, self.watch.allowed(picture.width * picture.height), **where):
                given = self.boxes.of(key, source.path, picture.width, picture.height) if self.boxes else None
                if given is None or self.boxes is None:
                    return row, self._bearded(picture.pixels, self.pack.analyse(picture.pixels))
                return row, self._bearded(
                    picture.pixels, self.pack.analyse(picture.pixels, given, instead=self.boxes.alone(key, source.path))
                )
        except Exception as error:  # one odd picture must not end the run; without faces known it is not published
            return row | {"reason": f"internal_error: {type(error).__name__}"}, None

    def _bearded(self, image: Image, faces: Faces) -> Faces:
        """The faces with the strength of their beards."""
        beards = [beard_of(self._surface, image, mesh) for mesh in (faces.need("meshes") if len(faces) else ())]
        return faces.with_(beards=np.array(beards, np.float32))
