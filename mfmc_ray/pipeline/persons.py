"""Who is the same person in a collection: enrolled people where they are recognised, strangers by exact search, and as it was last time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mfmc_ray.faces.faces import F32, MESH_POINTS
from mfmc_ray.faces.mesh import disagreement
from mfmc_ray.identities.casting import name_of
from mfmc_ray.identities.pool import Wanted
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.known.search import I64, usable
from mfmc_ray.known.strangers import gather
from mfmc_ray.ledger import Ledger
from mfmc_ray.people.sightings import Sightings
from mfmc_ray.pipeline.known import recognisable
from mfmc_ray.pipeline.pseudonyms import Face, Pseudonym
from mfmc_ray.pipeline.rows import matrix
from mfmc_ray.pipeline.unfit import LARGEST_DISAGREEMENT, LARGEST_PITCH, LARGEST_YAW, LEAST_MESH_SCORE
from mfmc_ray.pipeline.workers import SCAN
from mfmc_ray.tables import embedding_column

TODDLER = 5.0
"""Age in years, as it is read off a face, below which strangers are told apart in no way: each face is somebody else. (Of 780 pairs of
infants 373 reached the false-match rate of 1e-4, of 3916 pairs of faces of 40 to 60 years two, one of them a pair of one person.)"""
_COLUMNS = ("box", "points", "detectors", "mesh", "mesh_score", "age", "sex", "pose", "tone", "beard")


@dataclass(frozen=True)
class Scanned:
    """n faces of a collection that may be replaced, each once, however often its image is there.

    Attributes:
        faces: (image_id, face_no) of each.
        places: int64 (n, 2), the part of the scan and the row in it.
        ages, sexes, tones, beards: float32 (n,), as in `Faces`.
        vectors: recognizer → float32 (n, d), unit length.
    """

    faces: tuple[Face, ...]
    places: I64
    ages: F32
    sexes: F32
    tones: F32
    beards: F32
    vectors: Mapping[str, F32]

    def __len__(self) -> int:
        return len(self.faces)

    def wanted(self, rows: Sequence[int] | I64) -> Wanted:
        """What a person with these faces is read as: the median of them."""
        return Wanted(*(float(np.median(array[rows])) for array in (self.sexes, self.ages, self.tones, self.beards)))


@dataclass(frozen=True)
class Person:
    """Somebody in the collection.

    Attributes:
        name: what stands for them (`casting.name_of`).
        rows: int64 (n,), of `Scanned`.
        enrolled: whether they were recognised.
        before: what was noted of them last time.
    """

    name: str
    rows: I64
    enrolled: bool
    before: Pseudonym | None


def scanned_faces(ledger: Ledger, recognizers: Mapping[str, int], min_face: float) -> Scanned:
    """The faces of WORK/scan that may be replaced, as far as the scan tells: `AnonymizeStage` covers those that are left out.

    Args:
        ledger: the folders.
        recognizers: guard recognizer → dimension.
        min_face: px, √area; smaller ones are covered.
    """
    faces: list[Face] = []
    there: set[str] = set()
    places: list[tuple[int, int]] = []
    kept: list[pa.Table] = []
    columns = [*_COLUMNS, *(embedding_column(name) for name in recognizers)]
    for part in sorted(ledger.done(SCAN)):
        file = pq.ParquetFile(ledger.work / "scan" / f"part-{part:05d}.parquet")
        table = file.read(columns=["image_id", *(f"faces.list.element.{name}" for name in columns)])
        nested = table["faces"].combine_chunks()
        flat, counts = nested.flatten(), nested.value_lengths().fill_null(0).to_pylist()
        able, at = _replaceable(flat, recognizers, min_face), 0
        rows = []
        for row, (image, count) in enumerate(zip(table["image_id"].to_pylist(), counts, strict=True)):
            if image is not None and image not in there:
                there.add(image)
                for number in range(count):
                    if able[at + number]:
                        faces.append((image, number))
                        places.append((part, row))
                        rows.append(at + number)
            at += count
        names = ["age", "sex", "tone", "beard", *columns[len(_COLUMNS) :]]
        kept.append(pa.table({name: flat.field(name) for name in names}).take(pa.array(rows, pa.int64())))

    def column(name: str) -> F32:
        return np.concatenate([np.zeros(0), *(np.asarray(some[name].to_numpy()) for some in kept)]).astype(np.float32)

    vectors = {
        name: np.concatenate([np.zeros((0, dim), np.float32), *(matrix(some[embedding_column(name)], dim) for some in kept)])
        for name, dim in recognizers.items()
    }
    return Scanned(
        tuple(faces), np.array(places, np.int64).reshape(-1, 2), column("age"), column("sex"), column("tone"), column("beard"), vectors
    )


def persons(
    scanned: Scanned,
    before: Sequence[Pseudonym],
    sightings: Sightings,
    salts: Mapping[str, bytes],
    key: bytes,
    calibration: Calibration,
) -> list[Person]:
    """Puts the faces together that are one person's.

    Who was somebody last time still is, and two people of last time are never made one: what is published does not change by itself. But
    whoever is enrolled since is that person in all photos in which they are recognised, and who is enrolled no more is a stranger.

    Args:
        scanned: the faces.
        before: what was noted last time.
        sightings: who is recognised.
        salts: enrolled person → 16 random bytes.
        key: of the run.
        calibration: of the recognizers.

    Returns:
        people, enrolled ones first, then in an order that only the key decides.
    """
    names = {person: name_of(key, "person", salt) for person, salt in salts.items()}
    numbers = {name: number for number, name in enumerate(names.values())}  # of groups: the enrolled people's, then those of last time
    olds: dict[int, Pseudonym] = {}
    groups = np.full(len(scanned), -1, np.int64)
    pictures: defaultdict[int, set[str]] = defaultdict(set)
    row_of = {face: row for row, face in enumerate(scanned.faces)}
    for row, (image, number) in enumerate(scanned.faces):
        seen = sightings.of(image)
        if number < len(seen) and seen[number].person is not None:
            groups[row] = numbers[names[str(seen[number].person)]]
            pictures[int(groups[row])].add(image)
    for old in before:
        there = [row_of[face] for face in old.faces if face in row_of]
        free = [row for row in there if groups[row] < 0]
        if old.name not in numbers and (old.enrolled or len(free) < len(there)):
            continue  # they are enrolled no more, or since
        group = numbers.setdefault(old.name, len(numbers))
        olds[group] = old
        groups[[row for row in free if scanned.faces[row][0] not in pictures[group]]] = group
    groups = _gathered(scanned, groups, len(numbers), calibration)
    old_names, found = list(numbers), []
    order = np.argsort(groups, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1) if len(order) else ():
        group = int(groups[rows[0]])
        first = min(f"{image}:{number}" for image, number in (scanned.faces[row] for row in rows))
        name = old_names[group] if group < len(old_names) else name_of(key, "stranger", first.encode())
        found.append(Person(name, rows.astype(np.int64), group < len(names), olds.get(group)))
    return sorted(found, key=lambda one: (not one.enrolled, one.name))


def _gathered(scanned: Scanned, groups: I64, first: int, calibration: Calibration) -> I64:
    """Groups of everybody; those of before have numbers below `first`."""
    groups = groups.copy()
    _, pictures = np.unique(np.array([image for image, _ in scanned.faces], np.str_), return_inverse=True)
    old = np.flatnonzero(scanned.ages >= TODDLER)
    vectors = {name: np.ascontiguousarray(v[old]) for name, v in scanned.vectors.items()}
    groups[old] = gather(vectors, pictures[old].astype(np.int64), calibration, groups[old], first)
    alone = np.flatnonzero(groups < 0)
    groups[alone] = int(groups.max(initial=first - 1)) + 1 + np.arange(len(alone))
    return groups


def _replaceable(flat: pa.StructArray, recognizers: Mapping[str, int], min_face: float) -> NDArray[np.bool_]:
    """Which detections may be replaced: bool (n,)."""

    def number(name: str) -> F32:
        return np.asarray(flat.field(name).to_numpy(zero_copy_only=False), np.float32)

    pose = np.abs(matrix(flat.field("pose"), 3))
    turned = (pose[:, 0] > LARGEST_YAW) | (pose[:, 1] > LARGEST_PITCH)
    able = recognisable(flat, min_face) & (number("mesh_score") >= LEAST_MESH_SCORE) & ~turned
    for name, dim in recognizers.items():
        able &= usable(matrix(flat.field(embedding_column(name)), dim))
    box, meshes = matrix(flat.field("box"), 4), matrix(flat.field("mesh"), 3 * MESH_POINTS).reshape(-1, MESH_POINTS, 3)
    points = matrix(flat.field("points"), 10).reshape(-1, 5, 2)
    for i in np.flatnonzero(able):
        able[i] = disagreement(meshes[i], points[i], box[i]) <= LARGEST_DISAGREEMENT
    return np.asarray(able)
