"""The sample and its bound: against every possible draw of small populations, and scipy's distribution for large ones."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from math import comb
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom

from mfmc_ray.config import ConfigError
from mfmc_ray.ledger import Ledger
from mfmc_ray.parquet import write_parquet
from mfmc_ray.pipeline.sampling import Drawn, Sample, at_most, bound, draw, in_words


def at_or_below(violating: int, of: int, bad: int, looked: int) -> Fraction:
    """P(X ≤ v), by counting the draws."""
    return Fraction(sum(comb(bad, x) * comb(of - bad, looked - x) for x in range(violating + 1)), comb(of, looked))


@pytest.mark.parametrize("confidence", [Fraction(19, 20), Fraction(99, 100), Fraction(1, 2)])
def test_the_bound_is_the_largest_number_that_no_draw_refutes(confidence: Fraction) -> None:
    for of in range(1, 15):
        for looked in range(of + 1):
            for violating in range(looked + 1):
                possible = range(violating, of - looked + violating + 1)
                chances = {k: at_or_below(violating, of, k, looked) for k in possible}
                found = at_most(of, looked, violating, float(confidence))
                # a tie may be decided either way
                assert max((k for k in possible if chances[k] > 1 - confidence), default=violating) <= found
                assert found <= max((k for k in possible if chances[k] >= 1 - confidence), default=violating)


@pytest.mark.parametrize("confidence", [Fraction(19, 20), Fraction(99, 100)])
def test_the_bound_holds_as_often_as_it_says(confidence: Fraction) -> None:
    for of, looked in ((12, 5), (30, 10)):
        limits = [at_most(of, looked, v, float(confidence)) for v in range(looked + 1)]
        for bad in range(of + 1):
            reached = [at_or_below(v, of, bad, looked) for v in range(looked + 1)]
            chances = [reached[0], *(b - a for a, b in pairwise(reached))]
            assert sum(p for p, most in zip(chances, limits, strict=True) if most >= bad) >= confidence


@given(of=st.integers(1, 2_000_000), data=st.data())
def test_large_populations_agree_with_scipy(of: int, data: st.DataObject) -> None:
    looked = data.draw(st.integers(1, min(of, 5000)))
    violating = data.draw(st.integers(0, min(looked, 20)))
    most = at_most(of, looked, violating)
    assert violating <= most <= of - looked + violating
    assert most == violating or hypergeom.cdf(violating, of, most, looked) > 0.05 * (1 - 1e-4)
    assert most == of - looked + violating or hypergeom.cdf(violating, of, most + 1, looked) <= 0.05 * (1 + 1e-4)


def test_known_bounds() -> None:
    assert at_most(1000, 1000, 0) == 0
    assert at_most(1000, 1000, 3) == 3
    assert at_most(50, 0, 0) == 50
    assert at_most(0, 0, 0) == 0
    assert at_most(10**6, 300, 0) == pytest.approx(10**6 * (1 - 0.05 ** (1 / 300)), rel=1e-3)  # about 3 / n
    with pytest.raises(ValueError, match="cannot be"):
        at_most(10, 11, 0)
    with pytest.raises(ValueError, match="cannot be"):
        at_most(10, 5, 6)


@pytest.mark.parametrize(
    ("text", "size"),
    [("200", 200), ("5%", 50), ("0.1%", 1), ("100%", 1000), (" 7 ", 7), ("5000", 1000), ("12.34%", 124), (None, 1000)],
)
def test_sizes(text: str | None, size: int) -> None:
    assert Sample.parse(text).size(1000) == size


@pytest.mark.parametrize("text", ["0", "-3", "0%", "101%", "many", "5 %%", "", "1.5", "nan%", "inf%"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(ConfigError, match="5%"):
        Sample.parse(text)


def test_a_seed_without_a_sample_is_an_error() -> None:
    with pytest.raises(ConfigError, match="--sample-seed"):
        Sample.parse(None, 3)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    (tmp_path / "out/images").mkdir(parents=True)
    for part, verdicts in enumerate((["failed", "unchanged", "anonymized"], [], [None, "withheld"], ["anonymized"] * 5)):
        write_parquet(pa.table({"verdict": pa.array(verdicts, pa.string())}), tmp_path / f"out/images/part-{part:05d}.parquet")
    return Ledger(str(tmp_path / "out"), str(tmp_path / "work"))


NAMES = [*(f"images/part-{part:05d}.parquet" for part in range(4)), None, "images/absent.parquet"]


def test_only_published_images_are_drawn_each_as_often(ledger: Ledger) -> None:
    times: dict[tuple[int, int], int] = {}
    for seed in range(350):
        drawn = draw(Sample(images=3, seed=seed), ledger, NAMES)
        assert drawn.of == 7
        assert drawn.rows is not None
        places = [(part, row) for part, rows in enumerate(drawn.rows) for row in rows]
        assert len(set(places)) == 3
        for place in places:
            times[place] = times.get(place, 0) + 1
    assert set(times) == {(0, 1), (0, 2), *((3, row) for row in range(5))}
    assert all(abs(n - 150) < 5 * (350 * 3 / 7 * 4 / 7) ** 0.5 for n in times.values())


def test_the_seed_decides_and_nobody_can_guess_it(ledger: Ledger) -> None:
    first, again, other = (draw(Sample(share=0.4, seed=s), ledger, NAMES) for s in (1, 1, 2))
    assert first == again
    assert first.given
    assert first.rows != other.rows
    seeds = {draw(Sample(images=2), ledger, NAMES).seed for _ in range(5)}
    assert len(seeds) == 5
    assert draw(Sample(), ledger, NAMES) == Drawn(None)


def test_what_the_result_says() -> None:
    plain = bound(Drawn([[0]], of=1000, seed=9), 100, 0)
    assert (plain["images"], plain["of"], plain["seed"], plain["seed_given"]) == (100, 1000, 9, False)
    assert (plain["at_most"], plain["at_most_share"]) == (at_most(1000, 100, 0), at_most(1000, 100, 0) / 1000)
    assert plain["at_most_99"] == at_most(1000, 100, 0, 0.99) > plain["at_most"]
    assert "100 of 1,000 published images" in in_words(plain)
    everything = bound(Drawn(None), 40, 2)
    assert (everything["at_most"], everything["at_most_99"], everything["method"]) == (2, 2, "all")
    assert in_words(everything) == "All 40 published images were looked at; 2 violate."
