"""Who of the enrolled people is in which image of a run: exact search over WORK/scan, on the driver."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from mfmc_ray.config import RunConfig
from mfmc_ray.faces.pack import DIMENSIONS
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.ledger import Ledger, LedgerError
from mfmc_ray.people.match import Matcher, fit
from mfmc_ray.people.registry import Registry
from mfmc_ray.people.sightings import AMBIGUOUS, RECOGNISED, Sighting, Sightings
from mfmc_ray.pipeline.known import files_of_stage
from mfmc_ray.pipeline.rows import matrix
from mfmc_ray.pipeline.workers import SCAN
from mfmc_ray.places import full, inside
from mfmc_ray.tables import embedding_column

NOBODY = Sightings({}, hashlib.sha256(b"nobody").hexdigest())
"""When nobody is enrolled."""


def people_of(config: RunConfig, ledger: Ledger) -> Registry | None:
    """The enrolled people that the settings name; None if they name none.

    Raises:
        PeopleError: they cannot be read, or were enrolled with other recognizers.
        LedgerError: their folder is in OUT.
    """
    if config.access.people is None:
        return None
    registry = Registry.open(config.access.people)
    check_apart(registry, "OUT", ledger.out)
    registry.check(config.guard.recognizers)
    return registry


def check_apart(registry: Registry | None, name: str, root: str) -> None:
    """Refuses people who are enrolled where they would be published, or read as images.

    Args:
        registry: the people, if any are enrolled.
        name: of the other place, for the message.
        root: the other place.

    Raises:
        LedgerError: they are in it.
    """
    if registry is not None and inside(str(registry.folder), full(root)):
        raise LedgerError(f"the enrolled people ({registry.folder}) are in {name} ({root}): move their folder elsewhere")


def recognise(
    ledger: Ledger, registry: Registry | None, calibration: Calibration, recognizers: Sequence[str], min_face: float
) -> Sightings:
    """Looks for the enrolled people among all scanned faces.

    Args:
        ledger: the folders.
        registry: the people; None: nobody is enrolled.
        calibration: of the recognizers.
        recognizers: guard recognizers, the first one first.
        min_face: px, √area; smaller faces are nobody.

    Returns:
        the sightings in images in which somebody is recognised or ambiguous.

    Raises:
        PeopleError, CalibrationError: as `Matcher`.
    """
    if registry is None or not registry.photos:
        return NOBODY
    matcher = Matcher(registry, calibration, recognizers)
    images: dict[str, tuple[Sighting, ...]] = {}
    for file in files_of_stage(ledger, SCAN):
        _look(file, matcher, min_face, images)
    plain = sorted((image, [(one.person, one.reason) for one in seen]) for image, seen in images.items())
    return Sightings(images, hashlib.sha256(json.dumps(plain).encode()).hexdigest())


def _look(file: Path, matcher: Matcher, min_face: float, images: dict[str, tuple[Sighting, ...]]) -> None:
    """Adds the sightings in one file of the scan."""
    columns = ("box", "mesh_score", *(embedding_column(name) for name in matcher.recognizers))
    table = pq.ParquetFile(file).read(columns=["image_id", *(f"faces.list.element.{name}" for name in columns)])
    faces = table["faces"].combine_chunks()
    counts = np.array(faces.value_lengths().fill_null(0).to_pylist(), np.intp)
    if not counts.sum():
        return
    flat = faces.flatten()
    vectors = {name: matrix(flat.field(embedding_column(name)), DIMENSIONS[name]) for name in matcher.recognizers}
    box = matrix(flat.field("box"), 4)
    sizes = np.sqrt(np.prod(np.clip(box[:, 2:] - box[:, :2], 0, None), axis=1)).astype(np.float32)
    usable = fit(vectors, sizes, np.asarray(flat.field("mesh_score").to_numpy(zero_copy_only=False), np.float32), min_face)
    likely = np.zeros(len(usable), bool)
    rows = np.flatnonzero(usable)
    likely[rows[matcher.likely({name: np.ascontiguousarray(array[rows]) for name, array in vectors.items()})]] = True
    ends = np.cumsum(counts)
    for image, start, end in zip(table["image_id"].to_pylist(), (ends - counts).tolist(), ends.tolist(), strict=True):
        if image is None or image in images or not likely[start:end].any():
            continue
        seen = matcher({name: array[start:end] for name, array in vectors.items()}, sizes[start:end], usable[start:end])
        if any(one.reason in (RECOGNISED, AMBIGUOUS) for one in seen):
            images[image] = seen


def told(sightings: Sightings, registry: Registry, calibration: Calibration, recognizers: Sequence[str], faces: int) -> str:
    """How many were recognised, in a sentence that names nobody.

    Args:
        sightings: of the run.
        registry, calibration, recognizers: as of `recognise`.
        faces: how many faces were scanned.
    """
    reasons = Counter(one.reason for seen in sightings.images.values() for one in seen)
    there = {one.person for seen in sightings.images.values() for one in seen if one.person is not None}
    matcher = Matcher(registry, calibration, recognizers)
    return (
        f"People: {len(there)} of {len(matcher.people)} enrolled are recognised, in {reasons[RECOGNISED]} faces; {reasons[AMBIGUOUS]} are "
        f"ambiguous, so nobody. If all {faces:,} faces were strangers, about {matcher.wrong(faces):.2g} would be taken for one of them."
    )
