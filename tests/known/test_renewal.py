"""Renewed certificates are those that a search among everybody would give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mfmc_ray.known import renewal
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.known.certificate import Guard
from mfmc_ray.known.index import KnownIndex
from mfmc_ray.known.renewal import Renewal

F32 = NDArray[np.float32]
DIMS = {"sface": 128, "dlib": 128}
THRESHOLDS = {"sface": 0.35, "dlib": 0.3}


def unit(vectors: NDArray[Any]) -> F32:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def people(seed: int, n: int) -> tuple[list[str], list[str], dict[str, F32]]:
    rng = np.random.default_rng(seed)
    return [f"{seed}:{i}" for i in range(n)], ["gallery"] * n, {name: unit(rng.standard_normal((n, dim))) for name, dim in DIMS.items()}


def certified(index: KnownIndex, faces: dict[str, F32]) -> list[list[dict[str, Any]]]:
    guard = Guard(index.faces, THRESHOLDS, Calibration())
    return [[certificate.row() for certificate in verdict.certificates] for verdict in guard.certify(faces)]


@pytest.fixture
def index(tmp_path: Path) -> KnownIndex:
    index = KnownIndex.open(tmp_path, DIMS)
    index.append(*people(1, 300))
    return index


def renewed(tmp_path: Path, index: KnownIndex, faces: dict[str, F32], old: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
    known = KnownIndex.open(tmp_path, DIMS, vectors=False).faces
    return [[c.row() for c in some] for some in Renewal(tmp_path, DIMS, known, THRESHOLDS, Calibration())(faces, old)]


@pytest.mark.parametrize("rows_at_once", [7, renewal.SLICE])
def test_after_additions_they_are_those_of_a_whole_search(
    tmp_path: Path, index: KnownIndex, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal, "SLICE", rows_at_once)
    faces = people(2, 40)[2]
    old = certified(index, faces)
    index.append(*people(3, 20))
    mixed = certified(index, faces)[:10] + old[10:]  # some know the generation between
    index.append(*people(4, 30))
    assert renewed(tmp_path, index, faces, mixed) == certified(index, faces) != old


def test_only_what_was_added_is_read(tmp_path: Path, index: KnownIndex) -> None:
    faces = people(2, 5)[2]
    old = certified(index, faces)
    index.append(*people(3, 20))
    wanted = certified(index, faces)
    (tmp_path / "generation-00000.parquet").write_bytes(b"")  # nobody opens it
    known = index.faces
    got = Renewal(tmp_path, DIMS, known, THRESHOLDS, Calibration())(faces, old)
    assert [[c.row() for c in some] for some in got] == wanted


def test_without_additions_nothing_but_the_generation_changes(tmp_path: Path, index: KnownIndex) -> None:
    faces = people(2, 5)[2]
    old = certified(index, faces)
    assert renewed(tmp_path, index, faces, old) == old


def test_a_look_alike_added_later_is_found(tmp_path: Path, index: KnownIndex) -> None:
    """By either recognizer: one of the faces itself, and a person just at, just below and just above a threshold."""
    faces = people(2, 6)[2]
    old = certified(index, faces)
    rng = np.random.default_rng(9)

    def near(name: str, i: int, cosine: float) -> F32:
        face = faces[name][i].astype(np.float64)
        side = rng.standard_normal(len(face))
        side -= (side @ face) * face
        return unit((cosine * face + np.sqrt(1 - cosine**2) * side / np.linalg.norm(side))[None])

    planted = people(5, 5)
    planted[2]["sface"][0] = faces["sface"][0]
    planted[2]["dlib"][1] = faces["dlib"][1]
    planted[2]["sface"][2] = near("sface", 2, THRESHOLDS["sface"] + 1e-4)[0]
    planted[2]["dlib"][3] = near("dlib", 3, THRESHOLDS["dlib"])[0]  # cannot be shown to be below
    planted[2]["dlib"][4] = near("dlib", 4, THRESHOLDS["dlib"] - 1e-3)[0]
    index.append(*planted)
    known = KnownIndex.open(tmp_path, DIMS, vectors=False).faces
    got = Renewal(tmp_path, DIMS, known, THRESHOLDS, Calibration())(faces, old)
    assert [all(c.passed for c in some) for some in got] == [False, False, False, False, True, True]
    assert [got[0][0].nearest_known, got[1][1].nearest_known] == ["5:0", "5:1"]
    assert [[c.row() for c in some] for some in got] == certified(index, faces)


def test_after_a_removal_those_who_resembled_the_removed_are_compared_with_all(tmp_path: Path, index: KnownIndex) -> None:
    faces = people(2, 40)[2]
    old = certified(index, faces)
    index.remove([old[3][0]["nearest_known"], old[7][1]["nearest_known"]])
    index.append(*people(6, 10))
    new = renewed(tmp_path, index, faces, old)
    assert new == certified(index, faces)
    assert new[3][0]["nearest_known"] != old[3][0]["nearest_known"]


def test_an_embedding_that_is_none_is_refused(tmp_path: Path, index: KnownIndex) -> None:
    faces = people(2, 2)[2]
    old = certified(index, faces)
    faces["dlib"][1] = np.nan
    with pytest.raises(ValueError, match="dlib"):
        renewed(tmp_path, index, faces, old)


def test_certificates_of_another_index_count_for_nothing(tmp_path: Path) -> None:
    """The index was deleted and built anew, or restored from a copy: its generations have the same numbers and hold others."""
    faces = people(2, 6)[2]
    first = KnownIndex.open(tmp_path / "first", DIMS)
    first.append(*people(1, 300))
    first.append(*people(3, 20))
    old = certified(first, faces)
    again = KnownIndex.open(tmp_path / "again", DIMS)
    planted = people(4, 20)
    planted[2]["sface"][5] = faces["sface"][1]  # never compared with, though of a generation that the certificates name
    again.append(*planted)
    again.append(*people(1, 300))
    new = renewed(tmp_path / "again", again, faces, old)
    assert new == certified(again, faces)
    assert new[1][0]["nearest_known"] == "4:5"
