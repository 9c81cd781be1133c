"""The section `downstream`: whether the output serves what the original served: detecting faces, tagging, finding pictures,
training a face detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from mfmc_ray.evaluate import networks, trained
from mfmc_ray.evaluate.bootstrap import Bootstrap, nothing
from mfmc_ray.evaluate.columns import image_rows, of_images, vectors
from mfmc_ray.evaluate.detections import OBJECTS_FROM, found_again
from mfmc_ray.evaluate.looks import DETECTORS
from mfmc_ray.evaluate.pairing import MIN_SCORE
from mfmc_ray.evaluate.sections import About, Note, Options

VERSION = 1
MOST_PICTURES = 4000
"""Among so many a picture is looked for."""
METHOD = (
    "what a detector finds in the originals is the truth, at IoU 0.5; covered faces count as missed; withheld images are not counted. "
    "That is what the output is worth as a test set, and to a detector that is there; “trained” says what it is worth to train one"
)


def notes(options: Options) -> Sequence[Note]:
    """Detections, windows to train on; objects, if the network that knows them can be had."""
    found = [Note("detections", "mfmc_ray.evaluate.detections:FaceDetections", VERSION, models=("yunet", "centerface")), trained.note()]
    if networks.missing("objects") is None:
        found.append(Note("objects", "mfmc_ray.evaluate.detections:ObjectsNote", VERSION, models=networks.OBJECT_MODELS))
    return found


def figures(tables: Mapping[str, pa.Table], about: About) -> dict[str, Any]:
    """See docs/evaluate.md."""
    table, boot = tables["detections"], of_images(about)
    names = np.array(table["detector"].to_pylist(), np.str_)
    detectors = {}
    for name in DETECTORS:
        mine = table.filter(pa.array(names == name))
        detectors[name] = found_again(mine, image_rows(mine, about), boot, MIN_SCORE)
    published = len(set(table["path"].to_pylist()))
    found = {"method": METHOD, "images": published, "unpublished": about.images.num_rows - published, "faces": detectors}
    found["trained"] = trained.figures(tables[trained.TABLE], about)
    if "objects" not in tables:
        why = networks.missing("objects") or "it was not asked for"
        return {**found, "tags": {"why": why}, "surroundings": {"why": why}}
    return {**found, **_things(tables["objects"], about, boot)}


def _things(table: pa.Table, about: About, boot: Bootstrap) -> dict[str, Any]:
    at, n = image_rows(table, about), about.images.num_rows
    before, after = ([set(kinds) for kinds in table[name].to_pylist()] for name in ("kinds", "output_kinds"))
    alike, same, cosine = (np.full(n, np.nan) for _ in range(3))
    alike[at] = [len(a & b) / len(a | b) if a | b else np.nan for a, b in zip(before, after, strict=True)]
    same[at] = [float(a == b) for a, b in zip(before, after, strict=True)]
    one, other = (vectors(table, name) for name in ("original", "output"))
    one, other = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (one, other))
    cosine[at] = (one * other).sum(1)
    return {
        "tags": {
            "network": networks.TITLES["objects"],
            "threshold": OBJECTS_FROM,
            "jaccard": boot.mean(alike, share=False),
            "same": boot.mean(same),
            "objects": found_again(table, at, boot, OBJECTS_FROM),
        },
        "surroundings": {
            "network": networks.TITLES["objects"],
            "cosine": boot.mean(cosine, share=False),
            "of_other_pictures": _others(one),
            "found_again": _nearest(one, other, at, n, boot),
        },
    }


def _others(one: np.ndarray[Any, np.dtype[np.float32]]) -> float | None:
    """The mean cosine of two different originals, which the other is to be held against."""
    m = len(one)
    if m < 2:
        return None
    total = one.sum(0, dtype=np.float64)
    return float(f"{(total @ total - (one.astype(np.float64) ** 2).sum()) / (m * (m - 1)):.4g}")


def _nearest(one: Any, other: Any, at: Any, n: int, boot: Bootstrap) -> dict[str, Any]:
    """The share of outputs whose most similar original is their own."""
    if len(one) < 2:
        return nothing("too few pictures")
    one, other, at = one[:MOST_PICTURES], other[:MOST_PICTURES], at[:MOST_PICTURES]
    cosines = other @ one.T
    # pictures that are there twice find each other as well
    hits = np.full(n, np.nan)
    hits[at] = cosines[np.arange(len(one)), np.arange(len(one))] >= cosines.max(1) - 1e-5
    return boot.mean(hits)
