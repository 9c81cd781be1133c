"""Enrolled people of a run: known faces that no fake may resemble, and recognised in the scan; without Ray."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from made_work import GUARDS, directions

from mfmc_ray.access.decide import ReplaceAll
from mfmc_ray.config import RunConfig, load
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.known.index import KnownFaces, KnownIndex
from mfmc_ray.ledger import Ledger, LedgerError
from mfmc_ray.people.registry import FILE, PeopleError, Photo, Registry, changing
from mfmc_ray.people.sightings import AMBIGUOUS, RECOGNISED, UNKNOWN, UNUSABLE, Sightings
from mfmc_ray.pipeline import approved
from mfmc_ray.pipeline.change import look_for
from mfmc_ray.pipeline.known import build_index, enrolled_ids
from mfmc_ray.pipeline.leak import People
from mfmc_ray.pipeline.outlook import change_of, enrolled_lines
from mfmc_ray.pipeline.recognise import NOBODY, check_apart, people_of, recognise, told
from mfmc_ray.pipeline.run import Run
from mfmc_ray.pipeline.state import State
from mfmc_ray.pipeline.workers import SCAN
from mfmc_ray.tables import embedding_column, scan_schema

CALIBRATION = Calibration()
Face = dict[str, Any]


def person(seed: int) -> Face:
    rng = np.random.default_rng([seed, 3])
    return {name: directions(rng, 1, dim)[0] for name, dim in GUARDS.items()}


def near(face: Face, seed: int, cosines: tuple[float, float] = (0.9, 0.985)) -> Face:
    made, rng = {}, np.random.default_rng([seed, 4])
    for cosine, (name, vector) in zip(cosines, face.items(), strict=True):
        other = directions(rng, 1, len(vector))[0]
        other = other - (other @ vector) * vector
        made[name] = (cosine * vector + np.sqrt(1 - cosine**2) * other / np.linalg.norm(other)).astype(np.float32)
    return made


ADA, BOB, EVE = person(1), person(2), person(3)
GONE: Face = {name: np.zeros(dim, np.float32) for name, dim in GUARDS.items()}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(str(tmp_path / "out"), str(tmp_path / "work"))
    ledger.begin("c", "i")
    return ledger


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = Registry.open(tmp_path / "people", new=True)
    photos = [Photo(who, f"{k:064x}", near(face, 10 + k)) for k, (who, face) in enumerate([("ada", ADA), ("ada", ADA), ("bob", BOB)])]
    with changing(tmp_path / "people"):
        made = made.adding(photos)
        made.write()
    return made


def scanned(ledger: Ledger, part: int, images: dict[str, list[Face] | None], mesh_score: float = 1.0, size: float = 60.0) -> None:
    """A part of the scan: image_id → its faces; None of one that could not be read."""
    rows = []
    for name, faces in images.items():
        row: dict[str, Any] = {"image_id": name, "path": f"{name}.jpg", "faces": None if faces is None else []}
        for face in faces or ():
            about = {"box": [0.0, 0.0, size, size], "points": [1.0] * 10, "score": 1.0, "detectors": "a+b", "mesh": [1.0] * (468 * 3)}
            about |= {"mesh_score": mesh_score, "age": 30.0, "sex": 0.5, "pose": [0.0] * 3, "tone": 0.0}
            row["faces"].append(about | {embedding_column(name): vector for name, vector in face.items()})
        rows.append(row)
    table = pa.Table.from_pylist(rows, schema=scan_schema(GUARDS))
    ledger.commit_part(SCAN, part, {"scan": table}, {"images": len(rows), "faces": sum(len(f or ()) for f in images.values())})


def seen(ledger: Ledger, registry: Registry | None) -> Sightings:
    return recognise(ledger, registry, CALIBRATION, list(GUARDS), 20.0)


def indexed(ledger: Ledger, registry: Registry | None) -> KnownFaces:
    return build_index(ledger, [], GUARDS, 20.0, people=registry).faces


def test_people_are_recognised_wherever_they_are(ledger: Ledger, registry: Registry) -> None:
    scanned(ledger, 0, {"none": [], "bad": None, "a": [near(ADA, 1), EVE], "e": [EVE]})
    scanned(ledger, 1, {"b": [GONE, near(BOB, 2), near(ADA, 3)], "a": [near(ADA, 1), EVE], "twice": [near(BOB, 4), near(BOB, 5)]})
    found = seen(ledger, registry)
    assert {image: [(one.person, one.reason) for one in some] for image, some in found.images.items()} == {
        "a": [("ada", RECOGNISED), (None, UNKNOWN)],
        "b": [(None, UNUSABLE), ("bob", RECOGNISED), ("ada", RECOGNISED)],
        "twice": [(None, AMBIGUOUS)] * 2,
    }
    assert found.of("e") == found.of(None) == ()
    sentence = told(found, registry, CALIBRATION, list(GUARDS), 9)
    assert "2 of 2 enrolled are recognised, in 3 faces; 2 are ambiguous" in sentence
    assert "about 1.8e-05" in sentence
    assert "ada" not in sentence


def test_sightings_have_one_digest(ledger: Ledger, registry: Registry) -> None:
    scanned(ledger, 0, {"a": [near(ADA, 1)]})
    before = seen(ledger, registry)
    assert before.digest == seen(ledger, registry).digest
    scanned(ledger, 1, {"e": [EVE]})
    assert seen(ledger, registry).digest == before.digest  # nobody new in it
    scanned(ledger, 2, {"b": [near(BOB, 1)]})
    assert seen(ledger, registry).digest != before.digest
    assert seen(ledger, None) == NOBODY == seen(ledger, registry.without({"ada", "bob"}))


@pytest.mark.parametrize(("mesh_score", "size"), [(0.2, 60.0), (1.0, 19.0)])
def test_what_is_hardly_a_face_is_nobody(ledger: Ledger, registry: Registry, mesh_score: float, size: float) -> None:
    scanned(ledger, 0, {"a": [near(ADA, 1)]}, mesh_score, size)
    assert seen(ledger, registry) == NOBODY or not seen(ledger, registry).images


def test_enrolled_people_are_known_faces_until_they_are_removed(ledger: Ledger, registry: Registry) -> None:
    scanned(ledger, 0, {"e": [EVE]})
    without = indexed(ledger, None)
    assert enrolled_ids(ledger) == set()
    known = indexed(ledger, registry)
    assert len(known) == len(without) + 3
    assert known.generation == without.generation + 1  # a night compares with these alone
    assert [known.known_id(row) for row in range(len(known))][-3:] == registry.known_ids()
    assert enrolled_ids(ledger) == set(registry.known_ids())
    assert indexed(ledger, registry).digest == known.digest
    written = b"".join(path.read_bytes() for path in ledger.work.rglob("*") if path.is_file()).decode("latin-1")
    assert "ada" not in re.sub("[0-9a-f]{32,}", "", written)  # a digest may say so by chance
    left = indexed(ledger, registry.without({"ada"}))
    assert len(left) == len(without) + 1
    traces = look_for(ledger.work, {name: registry.vectors(name)[:2] for name in GUARDS})
    assert (traces.embeddings, traces.found) == (4, ())
    again = registry.without({"ada"}).adding(registry.photos)
    assert len(indexed(ledger, again)) == len(known)  # who is enrolled again is known again
    assert len(indexed(ledger, None)) == len(without)


def test_enrolled_photos_are_no_photos_of_the_collection(ledger: Ledger, registry: Registry) -> None:
    scanned(ledger, 0, {"e": [EVE]})
    indexed(ledger, registry)
    known = KnownIndex.open(ledger.work / "known", GUARDS).faces
    assert People.of_collection(known, list(GUARDS), CALIBRATION).ids.tolist() == [b"e:0"]


def test_a_night_sees_who_came_and_went(ledger: Ledger, registry: Registry) -> None:
    lines = enrolled_lines({"person:x:0"}, registry.known_ids())
    assert [(line.what, line.count) for line in lines] == [("photos newly enrolled", 3), ("photos not enrolled any more", 1)]
    assert enrolled_lines(set(registry.known_ids()), registry.known_ids()) == []


def test_a_run_is_resumed_with_the_same_people_only(ledger: Ledger, registry: Registry) -> None:
    access = ReplaceAll()
    approved.begin(ledger.work, access, registry, resumed=False)
    approved.begin(ledger.work, access, Registry.open(registry.folder), resumed=True)
    for other in (None, registry.without({"bob"})):
        with pytest.raises(LedgerError, match="other people were enrolled"):
            approved.begin(ledger.work, access, other, resumed=True)
    (ledger.work / "access.json").write_text(json.dumps({"digest": ""}))  # of a run from before there were people
    approved.begin(ledger.work, access, None, resumed=True)


def test_where_people_are_kept_decides_nothing(tmp_path: Path, ledger: Ledger, registry: Registry) -> None:
    places = {"input": "in", "out": ledger.out, "work": str(ledger.work)}
    here, there, nowhere = (load(None, **places, access__people=name) for name in (str(registry.folder), "elsewhere/p", None))
    assert here.digest() == there.digest() == nowhere.digest()
    assert here.to_dict()["access"] == {"people": "people"}
    assert Path(there.access.people or "").is_absolute()
    State(ledger.work).begin(here, {})
    assert "access.people" not in change_of(ledger, there, CALIBRATION).changed


def test_people_are_kept_apart_from_what_is_published_or_read(tmp_path: Path, ledger: Ledger, registry: Registry) -> None:
    config = RunConfig(input="x", out=ledger.out, work=str(ledger.work))
    assert people_of(config, ledger) is None
    config = load(None, input="x", out=ledger.out, work=str(ledger.work), access__people=str(registry.folder))
    assert (people_of(config, ledger) or registry.without({"ada"})).digest == registry.digest
    with pytest.raises(LedgerError, match="are in OUT"):
        people_of(config, Ledger(str(tmp_path), str(tmp_path.parent / "elsewhere")))
    with pytest.raises(LedgerError, match="are in the input"):
        check_apart(registry, "the input", str(tmp_path))
    (registry.folder / FILE).unlink()
    with pytest.raises(PeopleError, match="nobody is enrolled"):
        Run(config)
