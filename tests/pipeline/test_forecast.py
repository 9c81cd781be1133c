"""What is foretold of a run: its own rule for the pool, and beside what a run did."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from made_work import directions, make_work

from mfmc_ray.identities.catalogue import catalogued, pass_beyond
from mfmc_ray.identities.pool import SEEDS_PER_PART, more_seeds
from mfmc_ray.known.calibration import Calibration, pass_probability
from mfmc_ray.known.capacity import capacity
from mfmc_ray.ledger import LedgerError
from mfmc_ray.pipeline.forecast import _measured, forecast, supply
from mfmc_ray.pipeline.impostors import KnownPeople
from mfmc_ray.pipeline.trial import Trial


@pytest.mark.parametrize(("chance", "wanted"), [(0.95, 500), (0.8, 500), (0.4, 500), (0.3, 1000), (0.1, 3000)])
def test_the_supply_is_the_mean_of_runs_by_the_same_rule(chance: float, wanted: int) -> None:
    """Runs that draw each seed's luck."""
    rng, offered, admitted = np.random.default_rng(0), [], []
    for _ in range(40):
        seeds = passed = 0
        while more := more_seeds(wanted, passed, seeds, asked=False):
            more = -(-more // SEEDS_PER_PART) * SEEDS_PER_PART
            listed = max(0, min(more, catalogued() - seeds))
            passed += rng.binomial(listed, chance) + rng.binomial(more - listed, chance * pass_beyond(1e-3))
            seeds += more
        offered.append(seeds)
        admitted.append(min(passed, wanted))
    foretold = supply(chance, 1e-3, wanted)
    assert foretold.offered == pytest.approx(np.mean(offered), rel=0.15)
    assert foretold.admitted == pytest.approx(np.mean(admitted), rel=0.15)


def test_where_nothing_passes_the_run_gives_up() -> None:
    foretold = supply(0.0, 1e-5, 500)
    assert foretold.admitted == 0
    assert more_seeds(500, 0, foretold.offered, asked=False) is None


def test_more_seeds() -> None:
    assert more_seeds(500, 0, 0, asked=False) == 556
    assert more_seeds(500, 500, 600, asked=True) == 0
    assert more_seeds(500, 250, catalogued(), asked=False) == 0
    assert more_seeds(500, 250, catalogued(), asked=True) == 400
    assert more_seeds(500, 250, catalogued() - 1, asked=False) == 400
    assert more_seeds(500, 480, 600, asked=True) == 25
    assert more_seeds(500, 0, 50_201, asked=False) is None


def test_later_seeds_pass_more_often_at_laxer_thresholds() -> None:
    shares = [pass_beyond(rate) for rate in (1e-6, 1e-5, 1e-4, 5e-4, 1e-3, 1e-2)]
    assert shares == sorted(shares, reverse=True)
    assert pass_beyond(1e-4) == pytest.approx(0.51)


def test_a_run_is_shown_beside_its_forecast(tmp_path: Path) -> None:
    work = make_work(tmp_path, people=20, photos=2)
    found = forecast(None, None, work=work)
    assert found.capacity.faces == 20 + 40 + 9
    assert found.observed is not None
    assert (found.observed.offered, found.observed.admitted, found.observed.cpu_seconds) == ((20, 0), (13, 0), 0.1)
    calibration = Calibration()
    sface, dlib = found.observed.capacity.each
    assert sface.chance.value == pytest.approx(pass_probability(69, calibration.fmr("sface", 0.363)))
    assert dlib.threshold.value == pytest.approx(0.9)  # what that run took, not the default
    assert dlib.chance.value == pytest.approx(pass_probability(69, calibration.fmr("dlib", 0.9)), rel=1e-4)
    text = "\n".join(found.lines())
    assert "13 of 20 fakes passed: 0.650 ± 0.209" in text
    assert "69 known faces" in text
    json.dumps(found.plain(), allow_nan=False)


def test_known_faces_and_images_are_two_things() -> None:
    found = forecast(10**5, ["sface"], images=700)
    assert (found.pool, found.images) == (700, 700)
    assert found.capacity.independent == found.capacity.dependent
    assert [one.faces for one, _ in found.table] == [10**k for k in range(2, 8)]
    assert "rose from 0.363" in found.lines()[0]
    assert found.plain()["fake_seconds"] is None
    never = forecast(10**9, None)
    assert never.plain()["capacity"]["each"][0]["chance"]["value"] == 0
    assert "endlessly many" in "\n".join(never.lines())
    with pytest.raises(ValueError, match="known faces or a run"):
        forecast(None, None)


def test_a_run_without_an_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="mfmc index"):
        forecast(None, None, work=tmp_path)


def test_fakes_that_were_made_are_measured_against_the_people(tmp_path: Path) -> None:
    """Random directions match random people as rarely as geometry has it, whatever the shipped curves say of real ones."""
    known = KnownPeople(make_work(tmp_path, people=100, photos=1))
    made = Trial({name: directions(np.random.default_rng(5), 300) for name in known.vectors}, 0.1)
    found = _measured(known, made, capacity(Calibration(), ["sface"], 109), 500)
    assert found is not None
    (one,) = found.each
    assert (found.faces, one.threshold.value) == (500, 0.363)
    true = 1.18e-5  # ½·I(1 − 0.363²; 63.5, ½)
    assert one.threshold.rate.low < true < one.threshold.rate.high < 1e-3
    assert one.chance.low < pass_probability(500, true) < one.chance.high
    few = Trial({name: v[:10] for name, v in made.vectors.items()}, 0.1)
    assert _measured(known, few, capacity(Calibration(), ["sface"], 109), 500) is None


@pytest.mark.models
def test_costs_are_measured_on_fakes_that_are_made() -> None:
    found = forecast(1000, ["sface"], trial=2)
    assert found.fake_seconds is not None
    assert found.search_seconds is not None
    assert 0 < found.search_seconds < found.fake_seconds
    assert any("CPU minutes" in line for line in found.lines())
