"""The scan stage: bytes → decode → detect → mesh → embed → attributes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from mfmc_ray.codec import CodecError, decode
from mfmc_ray.faces.faces import Faces
from mfmc_ray.faces.pack import ModelPack
from mfmc_ray.pipeline.rows import faces_column
from mfmc_ray.sources import Source, Unit, read_unit
from mfmc_ray.tables import UNITS, scan_schema


class ScanStage:
    """Finds and describes the faces of every image of some units.

    Args:
        pack: finds the faces.
        max_pixels: larger images are not decoded.
        storage_options: for fsspec, of remote units.
    """

    needs: pa.Schema = UNITS

    def __init__(self, pack: ModelPack, max_pixels: int, storage_options: Mapping[str, Any] | None = None) -> None:
        self.pack = pack
        self.max_pixels = max_pixels
        self.storage_options = dict(storage_options or {})
        self.adds: pa.Schema = scan_schema(pack.dimensions)

    def __call__(self, units: pa.Table) -> pa.Table:
        """Units (`tables.UNITS`) → one row per image (`tables.scan_schema`). Never raises for a bad image."""
        sources = (
            source
            for row in units.to_pylist()
            for source in read_unit(Unit(row["unit"], row["kind"], row["size"], row["version"], row["path"]), self.storage_options)
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

    def _one(self, source: Source) -> tuple[dict[str, Any], Faces | None]:
        row: dict[str, Any] = {"path": source.path, "unit": source.unit, "locator": source.locator, "reason": source.error}
        if source.data is None:
            return row, None
        row |= {"image_id": hashlib.sha256(source.data).hexdigest(), "source_bytes": len(source.data)}
        try:
            picture = decode(source.data, self.max_pixels)
        except CodecError as error:
            return row | {"reason": error.reason}, None
        row |= {"format": picture.format, "width": picture.width, "height": picture.height}
        try:
            return row, self.pack.analyse(picture.pixels)
        except Exception as error:  # one odd picture must not end the run; without faces known it is not published
            return row | {"reason": f"internal_error: {type(error).__name__}"}, None
