"""The Arrow schema of every table, with units. The only place that names columns.

`IMAGES`, `FACES` and `IDENTITIES` are published (OUT); `scan_schema`, `known_schema`, `pool_schema` and `published_schema` stay on the
private side (WORK), `people_schema` in a private folder of the user's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import pyarrow as pa


def vector(dim: int) -> pa.DataType:
    """An embedding: `dim` float32 of unit length."""
    return pa.list_(pa.float32(), dim)


# Where an image's bytes are. A `file` unit is the image; a `parquet` unit holds it in row `index` of row group `group` (column `column`);
# in a `tar` unit it is the `length` bytes from `offset`.
LOCATOR = pa.struct(
    [
        ("kind", pa.string()),  # file | parquet | tar
        ("column", pa.string()),
        ("group", pa.int32()),
        ("index", pa.int64()),
        ("offset", pa.int64()),  # bytes
        ("length", pa.int64()),  # bytes
    ]
)

UNITS = pa.schema(
    [
        ("unit", pa.string()),  # path or URL that fsspec opens
        ("path", pa.string()),  # relative to the collection's root
        ("kind", pa.string()),  # file | parquet | tar
        ("size", pa.int64()),  # bytes
        ("version", pa.string()),  # etag, or mtime in ns
        ("listed", pa.int64()),  # when it was listed, ns since 1970
    ]
)


def scan_face(recognizers: Mapping[str, int]) -> pa.StructType:
    """One detected face on the private side; `recognizers` maps a guard recognizer's name to its dimension."""
    return pa.struct(
        [
            ("box", pa.list_(pa.float32(), 4)),  # x0 y0 x1 y1, px of the upright image
            ("points", pa.list_(pa.float32(), 10)),  # five points x y, px
            ("score", pa.float32()),  # 0–1
            ("detectors", pa.string()),  # "+"-joined
            ("mesh", pa.list_(pa.float32(), 468 * 3)),  # px
            ("mesh_score", pa.float32()),  # 0–1
            ("age", pa.float32()),  # years
            ("sex", pa.float32()),  # probability of "man", 0–1
            ("pose", pa.list_(pa.float32(), 3)),  # yaw pitch roll, degrees
            ("tone", pa.float32()),  # ITA, degrees
            ("beard", pa.float32()),  # its strength, about 0–1, see `identities/traits.py`
            *((embedding_column(name), vector(dim)) for name, dim in recognizers.items()),
        ]
    )


def embedding_column(recognizer: str) -> str:
    """The column that holds a recognizer's embeddings."""
    return f"embedding_{recognizer}"


def scan_schema(recognizers: Mapping[str, int]) -> pa.Schema:
    """One row per image found: what `scan` writes and `anonymize` reads. No pixels."""
    return pa.schema(
        [
            ("image_id", pa.string()),  # sha-256 of the source bytes, hex; null if they could not be read
            ("path", pa.string()),  # relative to the collection's root
            ("unit", pa.string()),
            ("locator", LOCATOR),
            ("source_bytes", pa.int64()),
            ("format", pa.string()),  # JPEG, PNG, …; null if not an image
            ("width", pa.int32()),  # px, upright
            ("height", pa.int32()),
            ("reason", pa.string()),  # why it failed; null if it was decoded
            ("faces", pa.list_(scan_face(recognizers))),
            ("unit_size", pa.int64()),  # of the unit as it was listed, as in `UNITS`
            ("unit_version", pa.string()),
            ("unit_listed", pa.int64()),
            ("boxes", pa.string()),  # what boxes the user gave for it, as `Boxes.version` puts it; null if none
        ]
    )


def people_schema(recognizers: Mapping[str, int]) -> pa.Schema:
    """The enrolled people, one row per photo; in a private folder of their own."""
    return pa.schema(
        [
            ("person", pa.string()),  # the user's id
            ("photo_id", pa.string()),  # sha-256 of the photo's bytes, hex
            ("salt", pa.binary(16)),  # random, the same for all photos of a person
            ("enrolled", pa.string()),  # ISO time
            ("size", pa.float32()),  # √area of the face's box, px
            ("sharpness", pa.float32()),  # see people/quality.py
            ("yaw", pa.float32()),  # degrees
            *((embedding_column(name), vector(dim)) for name, dim in recognizers.items()),
        ]
    )


def known_schema(recognizers: Mapping[str, int]) -> pa.Schema:
    """The known-face index, one row per known face; one Parquet file per generation."""
    return pa.schema(
        [
            ("known_id", pa.string()),  # <image_id>:<face_no>, gallery:<sha-256>:<face_no>, person:<hex>:0 or reference:<n>
            ("source", pa.string()),  # collection | gallery | enrolled | reference
            *((embedding_column(name), vector(dim)) for name, dim in recognizers.items()),
        ]
    )


CERTIFICATE = pa.struct(
    [
        ("recognizer", pa.string()),
        ("max_similarity", pa.float32()),  # cosine, −1…1: the highest to any known face
        ("nearest_known", pa.string()),  # its known_id
        ("threshold", pa.float32()),  # cosine; the face passed because max_similarity < threshold
        ("false_match_rate", pa.float64()),  # of two strangers at that threshold
        ("generation", pa.int32()),  # of the known-face index
        ("index_digest", pa.string()),  # sha-256
        ("search", pa.string()),  # "exact"
    ]
)

_ATTRIBUTES: list[tuple[str, pa.DataType]] = [
    ("sex", pa.string()),  # man | woman
    ("age", pa.float32()),  # years
    ("tone", pa.float32()),  # ITA, degrees
]

IDENTITIES = pa.schema(
    [
        ("identity_id", pa.string()),
        ("seed", pa.int64()),
        *_ATTRIBUTES,
        ("certificates", pa.list_(CERTIFICATE)),  # of its neutral rendering
        ("uses", pa.int64()),  # published faces that wear it
    ]
)

IMAGES = pa.schema(
    [
        ("image_id", pa.string()),  # sha-256 of the source bytes
        ("path", pa.string()),  # relative to the collection's root
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),  # null bytes: not published
        ("width", pa.int32()),  # px
        ("height", pa.int32()),
        ("format", pa.string()),
        ("verdict", pa.string()),  # unchanged | anonymized | withheld | failed
        ("faces", pa.int32()),
        ("reason", pa.string()),
    ],
    # makes `datasets` and the Hub's viewer show the pictures
    metadata={
        b"huggingface": json.dumps(
            {
                "info": {
                    "features": {
                        "image_id": {"dtype": "string", "_type": "Value"},
                        "path": {"dtype": "string", "_type": "Value"},
                        "image": {"_type": "Image"},
                        "width": {"dtype": "int32", "_type": "Value"},
                        "height": {"dtype": "int32", "_type": "Value"},
                        "format": {"dtype": "string", "_type": "Value"},
                        "verdict": {"dtype": "string", "_type": "Value"},
                        "faces": {"dtype": "int32", "_type": "Value"},
                        "reason": {"dtype": "string", "_type": "Value"},
                    }
                }
            }
        ).encode()
    },
)

FACES = pa.schema(
    [
        ("image_id", pa.string()),
        ("path", pa.string()),
        ("face_no", pa.int32()),  # from 0, in an image
        ("box", pa.list_(pa.float32(), 4)),  # x0 y0 x1 y1, px of the published image
        (
            "face_bboxes",
            pa.list_(pa.float32(), 4),
        ),  # the same, relative to width and height, 0–1 (img2dataset's convention)
        ("verdict", pa.string()),  # kept | replaced | redacted
        ("reason", pa.string()),  # the rule that redacted it; null otherwise
        ("access_reason", pa.string()),  # the row that allowed a kept face; null otherwise
        ("identity_id", pa.string()),  # null unless replaced
        ("attempts", pa.int32()),  # identities tried
        ("similarity_to_original", pa.float32()),  # cosine of the first guard recognizer; null unless replaced
        ("max_similarity_to_known", pa.float32()),
        ("threshold", pa.float32()),
        ("certificates", pa.list_(CERTIFICATE)),  # one per guard recognizer
        ("points", pa.list_(pa.float32(), 10)),  # five points x y, px: what the certificates' embeddings are aligned by
        ("redacted_area", pa.list_(pa.float32(), 4)),  # x0 y0 x1 y1, px: what is covered; null unless redacted
        *((f"{name}_before", kind) for name, kind in _ATTRIBUTES),
        *((f"{name}_after", kind) for name, kind in _ATTRIBUTES),
        *((f"{angle}_{when}", pa.float32()) for when in ("before", "after") for angle in ("yaw", "pitch", "roll")),  # degrees
        # of the mesh, see faces/mesh.py: lids and lips apart / their width, raised and wide corners of the mouth
        *((f"{name}_{when}", pa.float32()) for when in ("before", "after") for name in ("eye_opening", "mouth_opening", "smile")),
    ]
)


def pool_schema(recognizers: Mapping[str, int]) -> pa.Schema:
    """The pool of admitted fake identities on the private side."""
    return pa.schema(
        [
            *IDENTITIES.remove(IDENTITIES.get_field_index("uses")),
            *((embedding_column(name), vector(dim)) for name, dim in recognizers.items()),
        ]
    )


def public_face() -> pa.StructType:
    """A row of `FACES` as it is nested in what the anonymize stage returns."""
    return pa.struct(list(FACES))


def _published_face(recognizers: Mapping[str, int]) -> list[pa.Field]:
    """A replaced face as the guard recognizers see it in the published picture."""
    return [
        pa.field("face_no", pa.int32()),  # as in `FACES`
        pa.field("identity_id", pa.string()),
        *(pa.field(embedding_column(name), vector(dim)) for name, dim in recognizers.items()),
    ]


def published_schema(recognizers: Mapping[str, int]) -> pa.Schema:
    """The embeddings that the certificates of the replaced faces are about, one row per replaced face; on the private side."""
    return pa.schema([("image_id", pa.string()), ("path", pa.string()), *_published_face(recognizers)])


PSEUDONYMS = pa.schema(
    [
        ("name", pa.string()),  # what stands for a person; keyed, 32 hexadecimal digits
        ("enrolled", pa.bool_()),
        ("identities", pa.list_(pa.string())),  # identity_ids that nobody else wears; all photos should wear the first
        # image_id, face_no, and the steps (`identities/variation.py`) with which the first identity held on the face, if it was tried on
        ("faces", pa.list_(pa.struct([("image_id", pa.string()), ("face_no", pa.int32()), ("steps", pa.list_(pa.int16()))]))),
    ]
)
"""Which identities a person wears in all photos, one row per person; on the private side, beside the key and destroyed with it."""

FITTING = pa.schema(
    [
        ("name", pa.string()),  # as in `PSEUDONYMS`
        ("identity_id", pa.string()),
        (
            "faces",
            pa.list_(
                pa.struct([("image_id", pa.string()), ("face_no", pa.int32()), ("room", pa.float32()), ("steps", pa.list_(pa.int16()))])
            ),
        ),
    ]
)
"""Identities that were tried on, one row each, in the order in which they were: how much room (`Checked.room`) was left on each face; on
the private side."""

PLACED = pa.schema(
    [
        ("path", pa.string()),
        ("image_id", pa.string()),
        ("verdict", pa.string()),
        ("reason", pa.string()),
        ("boxes", pa.string()),  # as in `scan_schema`
        ("access", pa.string()),  # what the access model and pseudonyms had to say of the image, as of `pseudonyms.version_of`
    ]
)
"""Which images are in a published part, and on what grounds; on the private side, so that planning a night reads nothing of OUT."""


def anonymized_schema(recognizers: Mapping[str, int]) -> pa.Schema:
    """What the anonymize stage returns: `IMAGES`, with the rows of `FACES` nested as `face_rows` and those of `published_schema` as
    `published`, which is not published."""
    return pa.schema(
        [
            *IMAGES,
            pa.field("face_rows", pa.list_(public_face())),
            pa.field("published", pa.list_(pa.struct(_published_face(recognizers)))),
        ]
    )
