"""The figures of the section `recognition`, on made-up embeddings: as loops reckon them, in the right order, within their intervals."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mfmc_ray.evaluate import recognition
from mfmc_ray.evaluate.bootstrap import Bootstrap, by_group, wilson
from mfmc_ray.evaluate.faces_note import FACES, IMAGES
from mfmc_ray.evaluate.identification import identify
from mfmc_ray.evaluate.recognition import Embeddings, figures
from mfmc_ray.evaluate.sections import About, Options

PEOPLE, PHOTOS, DIM = 40, 4, 24


def unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


def world(leak: float, *, redacted: int = 0, noise: float = 0.7, seed: int = 0) -> tuple[About, pa.Table]:
    """People with photos each; what is left of one in the output is `leak`. Two strangers stand in the first photos."""
    rng = np.random.default_rng(seed)
    people = rng.normal(size=(PEOPLE, DIM))
    faces, rows, person = [], [], []
    for who in range(PEOPLE):
        for photo in range(PHOTOS):
            path = f"{who}/{photo}.jpg"
            originals = [people[who] + noise * rng.normal(size=DIM)]
            originals += [rng.normal(size=DIM)] if photo == 0 and who < 2 else []
            for number, original in enumerate(originals):
                verdict = "redacted" if who < redacted else "changed"
                output = leak * original + (1 - leak) * rng.normal(size=DIM)
                faces.append({"path": path, "face_no": number, "verdict": verdict, "identity": "", "reason": "", "box": [0, 0, 9, 9]})
                vectors = {"original": unit(original).tolist(), "output": None if verdict == "redacted" else unit(output).tolist()}
                rows.append({"path": path, "face_no": number, **vectors})
                person.append(who if number == 0 else -1)
    table = pa.Table.from_pylist(faces, FACES)
    groups = {"sex": ["man" if p % 2 else "woman" for p in person], "age": [""] * len(person)}
    options = Options(recognizers=("sface",), rounds=200, extra={"guards": []})
    images = pa.Table.from_pylist([{"path": p} for p in dict.fromkeys(table["path"].to_pylist())], IMAGES)
    return About(table, images, np.array(person), "table", groups, options), pa.Table.from_pylist(rows, Embeddings.schema)


def of(about: About, table: pa.Table) -> dict[str, Any]:
    return figures({"embeddings-sface": table}, about)


def checker() -> Any:
    place = Path(__file__).parents[2] / "benchmarks" / "check_evaluation.py"
    spec = importlib.util.spec_from_file_location("check_evaluation", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("leak", "redacted"), [(0.5, 6), (1.0, 0)])
def test_loops_reckon_the_same(tmp_path: Path, leak: float, redacted: int) -> None:
    about, table = world(leak, redacted=redacted)
    (tmp_path / "embeddings-sface").mkdir()
    pq.write_table(table, tmp_path / "embeddings-sface" / "part-00000.parquet")
    people = about.faces.select(["path", "face_no", "verdict"]).append_column("person", pa.array(about.person))
    pq.write_table(people, tmp_path / "people.parquet")
    (tmp_path / "evaluation.json").write_text(json.dumps({"recognition": of(about, table)}))
    module = checker()
    found = module.check(tmp_path)
    assert len(found) == 14
    assert [row for row in found if module.differs(row[2], row[3])] == []


def test_what_leaks_more_is_worse_and_a_no_op_is_the_recognizer_itself() -> None:
    none, some, all_ = (of(*world(leak))["recognizers"][0] for leak in (0.0, 0.4, 1.0))
    rates = [row["identification"]["other_photos"]["rank1"]["value"] for row in (none, some, all_)]
    assert rates == sorted(rates)
    assert rates[2] == all_["quality"]["rank1"]["value"] > 0.9
    assert all_["verification"]["tar_1e-2"]["value"] == pytest.approx(all_["quality"]["tar_1e-2"]["value"], abs=1e-9)
    assert all_["identification"]["other_photos"]["drop1"]["value"] == 0
    assert all_["margin"]["to_original"]["matches"]["value"] == 1
    asked = none["identification"]["other_photos"]
    assert asked["rank1"]["low"] <= asked["chance1"] <= asked["rank1"]["high"]
    assert asked["chance1"] == pytest.approx(1 / PEOPLE, rel=0.6)
    assert none["verification"]["auc"]["low"] < 0.5 < none["verification"]["auc"]["high"]
    assert none["margin"]["to_original"]["mean"]["value"] > some["margin"]["to_original"]["mean"]["value"]


def test_covered_faces_are_counted_apart() -> None:
    about, table = world(1.0, redacted=10)
    found = of(about, table)
    asked = found["recognizers"][0]["identification"]["other_photos"]
    assert found["faces"] == {"replaced": 0, "changed": (PEOPLE - 10) * PHOTOS, "redacted": 10 * PHOTOS + 2, "withheld": 0, "kept": 0}
    assert asked["probes"] == (PEOPLE - 10) * PHOTOS
    assert asked["rank1_of_all_faces"]["n"] == PEOPLE * PHOTOS
    assert asked["rank1_of_all_faces"]["value"] == pytest.approx(asked["rank1"]["value"] * 0.75, abs=1e-3)


def test_nobody_twice_and_nobody_at_all() -> None:
    about, table = world(0.3)
    alone = About(about.faces, about.images, np.arange(len(about)), "table", about.groups, about.options)
    row = of(alone, table)["recognizers"][0]
    assert row["identification"]["protocol"] == "same_photo"
    assert row["quality"]["rank1"]["value"] is None
    assert row["quality"]["reference"] > 0.9
    unknown = About(about.faces, about.images, np.full(len(about), -1), "clusters", about.groups, about.options)
    found = of(unknown, table)
    assert found["recognizers"][0]["thresholds"] == {"1e-2": None, "1e-3": None}
    assert found["verdict"]["recognizer"] is None
    json.dumps(found, allow_nan=False)
    empty = About(about.faces.slice(0, 0), about.images.slice(0, 0), np.zeros(0, np.int64), "table", {}, about.options)
    json.dumps(of(empty, table.slice(0, 0)), allow_nan=False)


def test_weak_recognizers_and_guards_are_not_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    about, strong = world(0.6)
    _, weak = world(0.0, noise=3)
    options = Options(recognizers=("sface", "faceres", "openface"), rounds=50, extra={"guards": ["sface"]})
    about = About(about.faces, about.images, about.person, "table", about.groups, options)
    found = figures({"embeddings-sface": strong, "embeddings-faceres": strong, "embeddings-openface": weak}, about)
    assert found["verdict"]["recognizer"] == "faceres"
    assert found["verdict"]["weak"] == ["openface"]
    assert "more than guessing" in found["verdict"]["text"]
    assert [row["recognizer"] for row in found["recognizers"]][-1] == "openface"
    assert found["average_accuracy"]["all"]["recognizers"] == 3
    assert found["average_accuracy"]["independent"]["recognizers"] == 1
    assert set(found["recognizers"][0]["by_group"]) == {"sex"}
    assert figures({"embeddings-sface": strong}, about)["verdict"]["recognizer"] is None  # it guards
    monkeypatch.setattr(recognition, "STRONG", 1.1)
    silent = figures({"embeddings-openface": weak}, about)["verdict"]
    assert "No good verdict" in silent["text"]
    assert silent["at_chance"] is False
    loud = figures({"embeddings-faceres": weak, "embeddings-openface": strong}, about)["verdict"]
    assert loud["recognizer"] == "openface"  # that a weak one finds people is news


def test_intervals_hold_what_they_say() -> None:
    """Of 200 collections with a known share, the interval has it in about 95 %; photos of a person are all hits or all misses."""
    rng, inside = np.random.default_rng(0), 0
    for seed in range(200):
        person = np.repeat(np.arange(60), 4)
        figure = Bootstrap(person, 300, seed).mean((rng.random(60) < 0.3)[person])
        inside += figure["low"] <= 0.3 <= figure["high"]
    assert 180 <= inside <= 198


def test_where_all_agree_the_interval_is_not_empty() -> None:
    boot = Bootstrap(np.arange(50), 100)
    assert boot.mean(np.zeros(50)) == {"value": 0, "low": 0, "high": pytest.approx(wilson(0, 50)[1], rel=1e-3), "n": 50}
    assert boot.mean(np.full(50, np.nan))["value"] is None
    assert Bootstrap(np.full(4, -1), 20).people == 4
    groups = {"sex": ["man"] * 49 + ["woman"]}
    assert by_group(groups, lambda mine: {"n": int(mine.sum())}) == {"sex": {"man": {"n": 49}}}


def test_chance_is_that_of_the_answers() -> None:
    """A recognizer that calls everybody by the name of person 0 hits as often as that person is asked about."""
    person = np.repeat(np.arange(10), 3)
    gallery = np.tile(np.eye(1, 4, dtype=np.float32), (30, 1)) * np.where(person == 0, 1.0, 0.5)[:, None].astype(np.float32)
    probes = np.tile(np.eye(1, 4, dtype=np.float32), (30, 1))
    answers = identify(probes, person, np.arange(30), gallery, person, np.arange(30))
    assert (answers.named[:, 0] == 0).all()
    assert answers.hits(1).mean() == answers.chance(person, 1) == pytest.approx(0.1)
    # told the sex, and with answers that keep to it, chance is among half as many
    sexes = ["man" if p % 2 else "woman" for p in person]
    assert answers.chance(person, 1, sexes) == pytest.approx(0.1)
