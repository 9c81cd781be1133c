"""The leak rate on embeddings whose answer is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components
from scipy.stats import binomtest

from mfmc_ray.faces.faces import F32
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.known.index import KnownFaces
from mfmc_ray.pipeline.leak import LEAST_PEOPLE, People, clusters, forget, in_words, measure, store, wilson

PEOPLE, PHOTOS, DIM = 60, 2, 128


def unit(vectors: Any) -> F32:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


@pytest.fixture(scope="module")
def known() -> KnownFaces:
    """60 people with two photos each, whose cosine is about 0.96, and a gallery of the same people."""
    rng = np.random.default_rng(0)
    centres = unit(rng.standard_normal((PEOPLE, DIM)))
    photos = unit(np.repeat(centres, PHOTOS, 0) + 0.2 * unit(rng.standard_normal((PEOPLE * PHOTOS, DIM))))
    ids = [f"{n:064x}:0" for n in range(PEOPLE * PHOTOS)] + [f"gallery:{n:064x}:0" for n in range(PEOPLE)] + ["reference:1"]
    vectors = np.concatenate([photos, centres, centres[:1]])
    return KnownFaces(np.array([i.encode() for i in ids]), {"sface": vectors, "dlib": vectors}, 0, "d")


@pytest.fixture(scope="module")
def people(known: KnownFaces) -> People:
    return People.of_collection(known, ["sface", "dlib"], Calibration())


def measured(people: People, folder: Path, probes: dict[str, F32], originals: dict[str, F32], sexes: Any = None) -> dict[str, Any]:
    half = len(people.ids) // 2
    for part, some in enumerate((slice(0, half), slice(half, None))):
        ids = {"ids": people.ids[some]}
        store(folder, part, ids | {n: v[some] for n, v in probes.items()}, ids | {n: v[some] for n, v in originals.items()})
    found, reason = measure(people, folder, ["sface"], ["openface"], np.zeros(len(people.ids), int) if sexes is None else sexes)
    assert reason == ""
    assert json.loads(json.dumps(found)) == found
    return {row["recognizer"]: row for row in found["recognizers"]}


def test_people_are_the_collections_own_clusters(people: People) -> None:
    assert len(people) == PEOPLE
    assert len(people.ids) == people.of == PEOPLE * PHOTOS
    assert people.person.tolist() == [n // PHOTOS for n in range(PEOPLE * PHOTOS)]
    assert people.seed is None


def test_of_many_faces_some_are_drawn(known: KnownFaces) -> None:
    some = People.of_collection(known, ["sface", "dlib"], Calibration(), most=30)
    assert (len(some.ids), some.of) == (30, PEOPLE * PHOTOS)
    assert some.seed is not None
    assert (np.sort(some.ids) == some.ids).all()


def test_clusters_are_connected_components() -> None:
    rng = np.random.default_rng(3)
    for n in (1, 2, 40, 300):
        vectors = {name: unit(rng.standard_normal((n, 5))) for name in "ab"}
        joined = {"a": 0.6, "b": 0.2}
        near = np.all([vectors[name] @ vectors[name].T >= t for name, t in joined.items()], axis=0)
        count, labels = connected_components(near | np.eye(n, dtype=bool), directed=False)
        found = clusters(vectors, joined)
        assert found.max() + 1 == count
        assert len(set(zip(found.tolist(), labels.tolist(), strict=True))) == count
    assert len(clusters({"a": np.zeros((0, 5), np.float32)}, {"a": 0.5})) == 0


def test_originals_themselves_are_recovered(people: People, tmp_path: Path) -> None:
    own = people.vectors["sface"]
    rows = measured(people, tmp_path, {"sface": own, "openface": own}, {"openface": own})
    for name, independent in (("sface", False), ("openface", True)):
        row = rows[name]
        assert (row["independent"], row["people"], row["probes"], row["people_probed"]) == (independent, PEOPLE, PEOPLE * PHOTOS, PEOPLE)
        assert row["rank1"]["rate"] == row["rank5"]["rate"] == 1
        assert not row["rank1"]["chance_in_interval"]
        assert row["other_photo"]["rank1"]["rate"] == row["quality"]["rank1"]["rate"] == 1
        assert row["other_photo"]["people"] == PEOPLE


def test_strangers_are_recovered_by_chance(people: People, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    rates = []
    for _ in range(30):
        strangers = unit(rng.standard_normal((len(people.ids), DIM)))
        row = measured(people, tmp_path, {"sface": strangers, "openface": strangers}, {"openface": people.vectors["sface"]})["openface"]
        rates.append((row["rank1"]["rate"], row["rank5"]["rate"], row["rank1"]["chance_in_interval"]))
        assert (row["rank1"]["chance"], row["rank5"]["chance"]) == pytest.approx((1 / PEOPLE, 5 / PEOPLE), rel=1e-3)
        assert row["quality"]["rank1"]["rate"] == 1
    first, five, inside = np.mean(rates, axis=0)
    assert first == pytest.approx(1 / PEOPLE, abs=4 * (1 / PEOPLE / (30 * len(people.ids))) ** 0.5)
    assert five == pytest.approx(5 / PEOPLE, abs=4 * (5 / PEOPLE / (30 * len(people.ids))) ** 0.5)
    assert inside >= 0.9


def test_a_rank_counts_the_people_who_are_nearer(people: People, tmp_path: Path) -> None:
    """Each probe lies nearest to another person: its own comes second."""
    own = people.vectors["sface"]
    others = unit(0.9 * own[(np.arange(len(own)) + PHOTOS) % len(own)] + 0.4 * own)
    row = measured(people, tmp_path, {"sface": others}, {})["sface"]
    assert row["rank1"]["rate"] == 0
    assert row["rank5"]["rate"] == 1


def test_chance_within_a_sex_is_higher(people: People, tmp_path: Path) -> None:
    own = people.vectors["sface"]
    row = measured(people, tmp_path, {"sface": own}, {}, people.person % 2)["sface"]
    assert row["rank1"]["chance_same_sex"] == pytest.approx(2 / PEOPLE, rel=1e-3)


def test_each_person_weighs_the_same(people: People, tmp_path: Path) -> None:
    """One person with two probes that hit, one with one that misses."""
    own = people.vectors["sface"]
    ids = {"ids": people.ids[[0, 1, 2]]}
    store(tmp_path, 0, ids | {"sface": np.stack([own[0], own[1], -own[2]])}, {"ids": people.ids[:0]})
    found, _ = measure(people, tmp_path, ["sface"], [], np.zeros(len(people.ids), int))
    (row,) = found["recognizers"]
    assert (row["probes"], row["people_probed"], row["rank1"]["rate"]) == (3, 2, 0.5)


def test_a_held_out_gallery_of_too_few_originals_says_so(people: People, tmp_path: Path) -> None:
    own = people.vectors["sface"]
    ids = {"ids": people.ids[:10]}
    store(tmp_path, 0, ids | {"sface": own[:10], "openface": own[:10]}, ids | {"openface": own[:10]})
    found, _ = measure(people, tmp_path, ["sface"], ["openface"], np.zeros(len(people.ids), int))
    guard, held_out = found["recognizers"]
    assert guard["rank1"]["rate"] == 1
    assert held_out["rank1"] is None
    assert "5 people with a readable original" in held_out["why"]
    said = in_words(found)
    assert len(said) == 2
    assert "not independent" in said[0]
    assert "too few" in said[1]


def test_a_vector_that_is_none_is_no_probe(people: People, tmp_path: Path) -> None:
    own = people.vectors["sface"].copy()
    own[::2] = np.nan
    row = measured(people, tmp_path, {"sface": own}, {})["sface"]
    assert (row["probes"], row["rank1"]["rate"]) == (PEOPLE, 1)


def test_few_people_have_no_rate(tmp_path: Path) -> None:
    few = unit(np.random.default_rng(1).standard_normal((LEAST_PEOPLE - 1, DIM)))
    known = KnownFaces(np.array([f"{n:03d}:0".encode() for n in range(len(few))]), {"sface": few}, 0, "d")
    people = People.of_collection(known, ["sface"], Calibration())
    found, reason = measure(people, tmp_path, ["sface"], [], np.zeros(len(few), int))
    assert found is None
    assert "wanted 50 people or more, 49 are there" in reason
    nobody = People.of_collection(KnownFaces.empty({"sface": DIM}), ["sface"], Calibration())
    assert (len(nobody), nobody.find([b"a"]).tolist()) == (0, [-1])


def test_what_was_kept_is_forgotten(people: People, tmp_path: Path) -> None:
    store(tmp_path / "audit", 3, {"ids": people.ids[:0]}, {"ids": people.ids[:0]})
    assert [path.name for path in (tmp_path / "audit").iterdir()] == ["part-00003.npz"]
    forget(tmp_path / "audit")
    forget(tmp_path / "audit")
    assert not (tmp_path / "audit").exists()


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (1, 10), (5, 60), (60, 60), (1, 1)])
def test_intervals_are_wilsons(hits: int, n: int) -> None:
    expected = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert wilson(hits / n, n) == pytest.approx((expected.low, expected.high), abs=1e-6)
