"""What a reader of OUT gets besides images and faces: identities, manifest, dataset card, report. And the private report in WORK."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mfmc_ray.codec import decode
from mfmc_ray.config import RunConfig
from mfmc_ray.evaluate.card import dataset_card
from mfmc_ray.evaluate.report import write_report
from mfmc_ray.faces.faces import Image
from mfmc_ray.known.index import face_digest
from mfmc_ray.ledger import Ledger
from mfmc_ray.pipeline.known import forgotten_faces
from mfmc_ray.private import scratch
from mfmc_ray.retry import StoreError
from mfmc_ray.sources import SourceError, SourceReader
from mfmc_ray.stores import PROBE_SECONDS
from mfmc_ray.tables import FACES, IDENTITIES, IMAGES

EXPLAINED = "explain"
"""Folder in WORK with pictures that `mfmc access explain` has drawn of originals."""
SHOWN_IMAGES = 400
"""From about how many images the report draws its sample."""


def publish(ledger: Ledger, config: RunConfig, manifest: dict[str, Any], pool: pa.Table, uses: Mapping[str, int]) -> None:
    """Writes identities, card, reports and, last, the manifest that says the run is complete."""
    ledger.remove("audit.json")  # an earlier audit was about what was there before
    shutil.rmtree(ledger.work / EXPLAINED, ignore_errors=True)  # likewise; and somebody in them may have been forgotten
    identities = used_identities(pool, uses)
    ledger.commit("identities", 0, identities)
    ledger.write_text("README.md", dataset_card(manifest))
    write_reports(ledger, config, manifest, identities, None)
    ledger.purge_versions()  # of parts and of the report, which showed what may be gone now
    ledger.write_json("manifest.json", manifest)


def write_reports(
    ledger: Ledger, config: RunConfig | None, manifest: Mapping[str, Any], identities: pa.Table, audit: Mapping[str, Any] | None
) -> None:
    """OUT/report/index.html, and with a configuration WORK/report/index.html, which shows originals."""
    images, faces = sample(ledger)
    with tempfile.TemporaryDirectory(dir=scratch(ledger.work)) as folder:
        page = write_report(folder, manifest=manifest, images=images, faces=faces, identities=identities, audit=audit)
        ledger.write_text("report/index.html", page.read_text())
    if config is not None:
        write_report(
            ledger.work / "report",
            manifest=manifest,
            images=images,
            faces=faces,
            identities=identities,
            originals=originals_of(ledger, config),
            audit=audit,
        )


def used_identities(pool: pa.Table, uses: Mapping[str, int]) -> pa.Table:
    """The identities that published faces wear, as `tables.IDENTITIES`."""
    used = pool.filter(pc.is_in(pool["identity_id"], pa.array(list(uses), pa.string())))
    counts = pa.array([uses[name] for name in used["identity_id"].to_pylist()], pa.int64())
    return used.select([n for n in IDENTITIES.names if n != "uses"]).append_column("uses", counts).select(IDENTITIES.names).cast(IDENTITIES)


def sample(ledger: Ledger) -> tuple[pa.Table, pa.Table]:
    """Whole parts of the published images, until there are enough to show, and all faces."""
    images: list[pa.Table] = []
    for name in ledger.files("images"):
        if sum(table.num_rows for table in images) < SHOWN_IMAGES:
            images.append(pq.read_table(pa.BufferReader(ledger.read_bytes(name))))
    faces = [pq.read_table(pa.BufferReader(ledger.read_bytes(name))) for name in ledger.files("faces")]
    return _joined(images, IMAGES), _joined(faces, FACES)


def _joined(tables: list[pa.Table], schema: pa.Schema) -> pa.Table:
    return pa.concat_tables(tables) if tables else schema.empty_table()


def originals_of(ledger: Ledger, config: RunConfig, wanted: Set[str] | None = None) -> Callable[[str], Image]:
    """Reads the original of an image_id from where the scan found it; not one with a face that was removed from the known ones.

    Args:
        ledger, config: of the run.
        wanted: image_ids that it will be asked for; None: any.

    Returns:
        what raises SourceError or CodecError if the file cannot be read, or is not that image any more, KeyError if it must not be.
    """
    gone = forgotten_faces(ledger)
    places: dict[str, tuple[str, dict[str, Any]]] = {}
    for file in sorted(Path(ledger.work / "scan").glob("part-*.parquet")):
        table = pq.ParquetFile(file).read(columns=["image_id", "unit", "locator", "faces.list.element.score"])
        if wanted is not None:
            table = table.filter(pc.is_in(table["image_id"], pa.array(sorted(wanted), pa.string())))
        for row in table.to_pylist():
            name, faces = row["image_id"], row["faces"] or ()
            if name and not any(face_digest(f"{name}:{k}") in gone for k in range(len(faces))):
                places[name] = row["unit"], row["locator"]
    reader = SourceReader({**config.storage_options, "patience": PROBE_SECONDS})

    def original(image_id: str) -> Image:
        try:
            data = reader.read(*places[image_id])
        except StoreError as error:  # the report does without; and a finished run's input may be gone
            raise SourceError("unreadable") from error
        if hashlib.sha256(data).hexdigest() != image_id:
            raise SourceError("changed_since_scan")
        return decode(data, config.find.max_pixels).pixels

    return original
