"""The tables of a synthetic collection: what is true of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_CLASS = [("sex", pa.string()), ("age_band", pa.string()), ("tone", pa.string()), ("class", pa.string())]
PEOPLE = pa.schema(
    [
        ("person_id", pa.string()),
        ("seed", pa.int64()),
        ("identity_id", pa.string()),
        *_CLASS,
        ("age", pa.float32()),
        ("man", pa.float32()),
        ("ita", pa.float32()),
        ("photos", pa.int32()),
    ]
)
"""`seed` of the generator, `identity_id` that is worn (null: none); `age` in years, `man` 0–1 and `ita` in degrees as the base
portrait is read."""
PHOTOS = pa.schema(
    [
        ("path", pa.string()),
        ("image_id", pa.string()),
        ("person", pa.string()),
        ("by", pa.string()),
        ("place", pa.string()),
        ("people", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("head_seed", pa.int64()),
        *((name, pa.float32()) for name in ("yaw", "pitch", "roll", "smile", "side_light", "exposure", "warmth", "blur", "noise")),
        ("quality", pa.int32()),
    ]
)
"""`path` relative to the collection, `image_id` the SHA-256 of the file; `person` null in groups; `by` who put it online; `place` one of
portrait, scene, group. `yaw`, `pitch` and `roll` in degrees as measured, `smile` and `side_light` in standard deviations as asked for,
`exposure` and `warmth` factors, `blur` and `noise` σ in px and in 0–255, `quality` of the JPEG. What does not apply is null."""
FACES = pa.schema(
    [(name, pa.string()) for name in ("path", "image_id", "person")]
    + [(name, pa.float32()) for name in ("x0", "y0", "x1", "y1")]
    + [(name, pa.string()) for name in ("sex", "age", "tone", "class")]
)
"""A row a face, as `--boxes` and `--labels` want it: the box in px; `age` is the band."""
TAGS = pa.schema([(name, pa.string()) for name in ("image", "person", "by")] + [("allow", pa.bool_())])
TRUST = pa.schema([("person", pa.string()), ("trusts", pa.string()), ("allow", pa.bool_())])
CONSENTS = pa.schema([("image", pa.string()), ("person", pa.string()), ("allow", pa.bool_())])
ENROL = pa.schema([("path", pa.string()), ("person", pa.string())])
"""Photos to enrol; `path` is relative to the table."""
SCHEMAS: Mapping[str, pa.Schema] = {
    "people": PEOPLE,
    "photos": PHOTOS,
    "faces": FACES,
    "tags": TAGS,
    "trust": TRUST,
    "consents": CONSENTS,
    "enrol": ENROL,
}


def write(folder: Path, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Writes `<table>.parquet` for each of `SCHEMAS`; the same rows, the same bytes.

    Args:
        folder: made if absent.
        rows: table → rows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, schema in SCHEMAS.items():
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows[name]], schema=schema), folder / f"{name}.parquet")
