"""The dataset card: README.md of the published folder, with the front-matter that the Hugging Face Hub reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2
import pyarrow as pa
import yaml

from mfmc_ray.evaluate.report import clean, cosine, notices, number, odds
from mfmc_ray.tables import FACES, IDENTITIES, IMAGES

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M"))
_CONFIGS = ("images", "faces", "identities")

# What the columns of the published tables mean; `tables.py` has their types. A test sees to it that none is missing.
_MEANING = {
    "images": {
        "image_id": "sha-256 of the source file, hex",
        "path": "relative to the source collection's root",
        "image": "the encoded picture; null when it is not published",
        "width": "px, upright",
        "height": "px, upright",
        "format": "JPEG, PNG, …",
        "verdict": "`unchanged` (no face in it, or all of them approved), `anonymized`, `withheld` or `failed`",
        "faces": "number of faces",
        "reason": "why it was withheld or failed",
    },
    "faces": {
        "image_id": "as in `images`",
        "path": "as in `images`",
        "face_no": "from 0 in each image",
        "box": "x0 y0 x1 y1, px of the published picture",
        "face_bboxes": "the same relative to width and height, 0–1",
        "verdict": "`kept`, `replaced` or `redacted`",
        "reason": "the rule that redacted it",
        "access_reason": "the row of the access tables that allowed a kept face",
        "identity_id": "the fake identity it wears; null unless replaced",
        "attempts": "identities tried",
        "similarity_to_original": "cosine, −1…1, to the face that was there; first guard recognizer",
        "max_similarity_to_known": "cosine, −1…1, to the nearest known face",
        "threshold": "cosine; both similarities are below it",
        "certificates": "for each guard recognizer: similarity, nearest known face, threshold, false-match rate, the index",
        "points": "eyes, nose tip and mouth corners of the published face, x y, px: the certificates' embeddings are aligned by them",
        "redacted_area": "x0 y0 x1 y1, px: what is covered; null unless redacted",
        "sex": "estimated, `man` or `woman`",
        "age": "estimated, years",
        "tone": "skin tone as the individual typology angle, degrees; high is light",
        "yaw": "head pose, degrees; positive looks to the picture's right",
        "pitch": "head pose, degrees; positive looks up",
        "roll": "head pose, degrees; positive is clockwise",
        "eye_opening": "distance of the lids / width of the eye, mean of both; about 0.1 is closed, 0.3 open",
        "mouth_opening": "distance of the inner lips / width of the mouth; 0 is closed, above 0.3 wide open",
        "smile": "from the corners of the mouth; about 0 neutral, 1 a broad smile",
    },
    "identities": {
        "identity_id": "as in `faces`",
        "seed": "that it was sampled with",
        "sex": "`man` or `woman`",
        "age": "years",
        "tone": "individual typology angle, degrees",
        "certificates": "as in `faces`, of its neutral rendering",
        "uses": "published faces that wear it",
    },
}


def dataset_card(manifest: Mapping[str, Any], *, name: str = "Anonymized image collection") -> str:
    """The card in Markdown, with YAML front-matter.

    Args:
        manifest: the run's manifest; what is missing in it is left out.
        name: shown as the data set's name.
    """
    counts = {part: dict((manifest.get("counts") or {}).get(part) or {}) for part in ("images", "faces", "redacted", "failed")}
    total = sum(counts["images"].values())
    front = {
        "pretty_name": clean(name),
        "license": "other",
        "license_name": "as-the-source",
        "annotations_creators": ["machine-generated"],
        "task_categories": ["image-classification", "object-detection"],
        "size_categories": [next((label for limit, label in _SIZES if total < limit), "n>10M")],
        "tags": ["face-anonymization", "privacy", "synthetic-faces", "deepfake", "mfmc-ray"],
        "configs": [
            {"config_name": config, "data_files": f"{config}/*.parquet", **({"default": True} if config == "images" else {})}
            for config in _CONFIGS
        ],
    }
    # Markdown has no autoescaping: every value from outside goes through `line`
    environment = jinja2.Environment(loader=jinja2.PackageLoader("mfmc_ray.evaluate"), trim_blocks=True, lstrip_blocks=True)  # noqa: S701
    environment.filters |= {"line": _line, "number": number, "odds": odds, "cosine": cosine}
    return environment.get_template("card.md.j2").render(
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True).rstrip(),
        name=name,
        manifest=manifest,
        counts=counts,
        total=total,
        published=counts["images"].get("unchanged", 0) + counts["images"].get("anonymized", 0),
        notices=notices(manifest),
        pseudonyms=((manifest.get("config") or {}).get("swap") or {}).get("pseudonyms", "image"),
        columns={"images": _columns(IMAGES, "images"), "faces": _columns(FACES, "faces"), "identities": _columns(IDENTITIES, "identities")},
    )


def _columns(schema: pa.Schema, table: str) -> list[tuple[str, str, str]]:
    """Name, type and meaning of each column; `…_before` and `…_after` share one."""
    rows = []
    for field in schema:
        stem, _, when = field.name.rpartition("_")
        if when in ("before", "after"):
            meaning = f"{_MEANING[table].get(stem, '')}; of the {'original' if when == 'before' else 'published'} face"
        else:
            meaning = _MEANING[table].get(field.name, "")
        rows.append((field.name, _type(field.type), meaning))
    return rows


def _type(kind: pa.DataType) -> str:
    if pa.types.is_fixed_size_list(kind):
        return f"{_type(kind.value_type)}[{kind.list_size}]"
    if pa.types.is_list(kind):
        return f"list of {_type(kind.value_type)}"
    if pa.types.is_struct(kind):
        return "struct"
    return {"float": "float32", "double": "float64"}.get(str(kind), str(kind))


def _line(value: object) -> str:
    """A value from outside as one line of plain Markdown."""
    return clean(value).translate({ord(c): f"&#{ord(c)};" for c in "\\`*_[]<>|#&"})
