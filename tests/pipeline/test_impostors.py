"""Which faces of a run are certainly of different people, and what is measured on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_work import directions, make_work

from mfmc_ray.config import ConfigError
from mfmc_ray.faces.pack import digests_of
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.ledger import LedgerError
from mfmc_ray.pipeline.calibrate import calibrate_run
from mfmc_ray.pipeline.impostors import KnownPeople, sources_of


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_work(tmp_path_factory.mktemp("run"))


def strangers(cosine: float) -> float:
    from scipy.special import betainc

    return float(0.5 * betainc(63.5, 0.5, 1 - cosine**2))


def test_who_is_compared_with_whom(work: Path) -> None:
    known = KnownPeople(work)
    assert known.everyone == 20 + 256 + 9
    owners = known.labelled("folder")
    assert (owners != "").sum() == 256  # in a group photo nobody says whose face is whose
    assert set(owners[:4]) == {"person 00"}
    a, b = known.same_image()
    assert len(a) == 3 * 2  # two of the three faces touch
    assert all(known.images[a] == known.images[b])
    fakes = {name: directions(np.random.default_rng(1), 30) for name in known.vectors}
    sources = {source.name: source for source in sources_of(known, owners, fakes)}
    sizes = {name: len(source.pairs["sface"]) for name, source in sources.items()}
    assert sizes == {
        "known faces of different people": 64 * 63 // 2 * 16,
        "two faces of one photo": 6,
        "offered fakes × known faces": 30 * 265,
        "pool × known faces": 13 * 265,
        "pool × pool": 13 * 12 // 2,
        "reference portraits × known faces": 20 * 265,
    }
    assert {name for name, source in sources.items() if source.selected} == {"pool × known faces"}
    assert sources["offered fakes × known faces"].pairs["dlib"].people == 30 + 64 + 3  # who is unlabelled counts by photo
    pairs = sources["known faces of different people"].pairs["sface"]
    mine = known.vectors["sface"][owners != ""]
    assert pairs.closest is not None
    first, second = pairs.closest[0]
    assert float(mine[first] @ mine[second]) == pytest.approx(pairs.cosines[0], abs=1e-6)


def test_labelled_people_give_curves_that_a_run_can_take(work: Path) -> None:
    result = calibrate_run(work, "folder", 0)
    assert [Path(file).name for file in result["written"]] == ["sface.json", "dlib.json"]
    loaded = Calibration.load(work / "calibration", digests_of(["sface", "dlib"]))
    assert loaded.strict_threshold("sface") == 0.363  # the vendor's
    for name in ("sface", "dlib"):
        curve = loaded.curves[name]
        assert (curve.people, curve.pairs) == (64, 32_256)
        assert "64 people known to the run, by the first folder" in curve.source
        assert curve.at(0.2).low < strangers(0.2) < curve.at(0.2).high
        row = result["recognizers"][name]["rows"][0]
        assert row["matches"] == 0
        assert [one["extrapolated"] for one in row["cosines"]] == [False, True, True]
        assert len(result["recognizers"][name]["closest"][0]["paths"]) == 2
    strict = loaded.strict_threshold("dlib")  # to three digits, on the stricter side
    assert loaded.fmr("dlib", strict + 0.001) < 1e-3 <= loaded.fmr("dlib", strict)
    plain = json.loads((work / "calibration" / "dlib.json").read_text())
    assert plain["genuine"]["pairs"] == 64 * 6
    assert "rounded down" in plain["strict_source"]
    assert "shipped 0.923" in result["recognizers"]["dlib"]["verdict"]


def test_the_pool_is_censored_and_small_sources_have_no_rate(work: Path) -> None:
    rows = {row["source"]: row for row in calibrate_run(work, None, 0)["recognizers"]["sface"]["rows"]}
    assert "rate" not in rows["pool × known faces"]
    assert "censored" in rows["pool × known faces"]["note"]
    assert "too few" in rows["two faces of one photo"]["note"]
    reference = rows["reference portraits × known faces"]
    assert reference["rate"]["extrapolated"]
    assert reference["rate"]["low"] <= reference["rate"]["rate"] <= reference["rate"]["high"]


def test_nothing_is_written_that_can_set_no_threshold(tmp_path: Path) -> None:
    few = make_work(tmp_path, people=50)
    unlabelled, labelled = calibrate_run(few, None, 0), calibrate_run(few, "folder", 0)
    for result, why in ((unlabelled, "does not say who is who"), (labelled, "50 people with 19,600 pairs are too few")):
        assert result["written"] == []
        assert why in result["recognizers"]["sface"]["verdict"]
    assert not (few / "calibration").exists()


def test_people_by_a_table(work: Path, tmp_path: Path) -> None:
    known = KnownPeople(work)
    table = tmp_path / "people.csv"
    table.write_text("path,person\nperson 00/00-0.jpg,Ann\nperson 01/01-0.jpg,Ben\nperson 00/group 0.jpg,Ann\nelsewhere.jpg,Eve\n")
    owners = known.labelled(str(table))
    assert sorted(owners[owners != ""]) == ["Ann", "Ben"]

    def refused(text: str, why: str) -> Any:
        table.write_text(text)
        with pytest.raises(ConfigError, match=why):
            known.labelled(str(table))

    refused("file,person\na.jpg,Ann\n", "columns path and person")
    refused("path,person\nnowhere.jpg,Ann\n", "names no photo of the run")
    with pytest.raises(ConfigError, match="columns path and person"):
        known.labelled(str(tmp_path / "absent.csv"))


def test_a_run_without_known_faces_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="mfmc index"):
        KnownPeople(tmp_path)
