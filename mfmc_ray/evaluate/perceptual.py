"""The section `perceptual`: how different faces, and pictures without their faces, look to a network that has learnt to look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from mfmc_ray.evaluate import downstream, networks
from mfmc_ray.evaluate.columns import image_rows, means, means_by_group, of_faces, of_images, replaced, values
from mfmc_ray.evaluate.features import feature_notes, table_of
from mfmc_ray.evaluate.networks import NETWORKS
from mfmc_ray.evaluate.sections import About, Note, Options

METHOD = (
    "LPIPS's reckoning without its learnt weights, on other networks: 0 equal, 2 at most; not to be held against published LPIPS figures "
    "but against `blurred`, the distance of an original face to itself blurred with a σ of 1/20 of the crop"
)


def notes(options: Options) -> Sequence[Note]:
    """Faces' features, and what `downstream` notes of pictures."""
    return [*feature_notes(), *(note for note in downstream.notes(options) if note.name == "objects")]


def figures(tables: Mapping[str, pa.Table], about: About) -> dict[str, Any]:
    """See docs/evaluate.md."""
    rows, boot, n = replaced(about), of_faces(about), len(about)
    found: dict[str, Any] = {}
    for name in NETWORKS:
        if (table := tables.get(table_of(name))) is None:
            found[name] = {"network": networks.TITLES[name], "why": networks.missing(name)}
            continue
        numbers = {column: values(table, column, about.at(table), n) for column in ("distance", "blurred")}
        groups = means_by_group(about, boot, {"distance": numbers["distance"]}, rows)
        found[name] = {"network": networks.TITLES[name], **means(boot, numbers, rows), "by_group": groups}
    return {"method": METHOD, "faces": found, "outside": _outside(tables.get("objects"), about)}


def _outside(table: pa.Table | None, about: About) -> dict[str, Any]:
    if table is None:
        return {"why": networks.missing("objects")}
    numbers = values(table, "distance", image_rows(table, about), about.images.num_rows)
    return {"network": networks.TITLES["objects"], "distance": of_images(about).mean(numbers, share=False)}
