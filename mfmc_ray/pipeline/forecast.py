"""What a run against many known faces would take, beside what a run that was made did take."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mfmc_ray.faces.pack import EMBEDDERS, digests_of
from mfmc_ray.identities.catalogue import catalogued, pass_beyond
from mfmc_ray.identities.pool import SEEDS_PER_PART, more_seeds, pool_size
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.known.capacity import Capacity, attempts, capacity
from mfmc_ray.ledger import LedgerError
from mfmc_ray.pipeline.curves import USED
from mfmc_ray.pipeline.trial import make_fakes, search_seconds

DEFAULT = ("sface", "dlib")
ORIENTATION = tuple(10**k for k in range(2, 8))
"""Numbers of known faces of the table."""


@dataclass(frozen=True)
class Supply:
    """What a run does for its pool, on average.

    Attributes:
        offered: seeds.
        admitted: identities.
    """

    offered: int
    admitted: int


@dataclass(frozen=True)
class Observed:
    """What a run did.

    Attributes:
        capacity: what is foretold for its known faces and thresholds.
        offered, admitted: seeds and identities: of the catalogue, and after it.
        cpu_seconds: of one seed, with search; None if it was not noted.
    """

    capacity: Capacity
    offered: tuple[int, int]
    admitted: tuple[int, int]
    cpu_seconds: float | None


@dataclass(frozen=True)
class Forecast:
    """What is foretold. Where there are two of a thing, the first is for errors of the recognizers that depend fully on each other, the
    second for independent ones.

    Attributes:
        capacity: against the number of known faces asked for.
        images: faces to be replaced.
        pool: identities that such a run wants.
        supply: what it offers and admits for them.
        fake_seconds: CPU seconds to make and embed one fake here; None if none was made.
        search_seconds: CPU seconds to search all known faces for one fake here; likewise.
        table: for `ORIENTATION`, each with what a run for as many faces offers and admits.
        observed: the run it is held against, if any.
    """

    capacity: Capacity
    images: int
    pool: int
    supply: tuple[Supply, Supply]
    fake_seconds: float | None
    search_seconds: float | None
    table: tuple[tuple[Capacity, tuple[Supply, Supply]], ...]
    observed: Observed | None

    def plain(self) -> dict[str, Any]:
        """As plain JSON data; what is infinite is null."""
        plain: dict[str, Any] = _finite(dataclasses.asdict(self))
        return plain

    def lines(self) -> list[str]:
        """In words: warnings, attempts, pool, cost and the comparison."""
        found = self.capacity
        lines = [one.threshold.warning for one in found.each if one.threshold.warning]
        tries = _range(attempts(found.dependent.value), attempts(found.independent.value))
        lines.append(f"Expected attempts: {tries} random fakes for one that passes.")
        some, more = self.supply
        seeds, made = _range(some.offered, more.offered), _range(some.admitted, more.admitted)
        lines.append(
            f"Pool: a run that replaces {self.images:,} faces wants {self.pool:,} identities; it offers about {seeds} fakes and admits "
            f"{made}. The first {catalogued()} are known to resemble none of the portraits that fakes are made of; of later ones about "
            f"{pass_beyond(_rate(found)):.0%} do not."
        )
        if self.fake_seconds is not None and self.search_seconds is not None:
            each = self.fake_seconds + self.search_seconds
            total = _range(some.offered * each / 60, more.offered * each / 60, digits=1)
            lines.append(
                f"Cost here: {self.fake_seconds:.3f} CPU s to make and embed a fake, {self.search_seconds:.2g} CPU s to search all known "
                f"faces for it; {total} CPU minutes for the pool at most (a fake that the first recognizer refuses costs less)."
            )
        return lines + ([] if self.observed is None else _observed_lines(self.observed))


def forecast(
    faces: int | None,
    recognizers: Sequence[str] | None,
    *,
    work: Path | None = None,
    images: int | None = None,
    calibration: str | None = None,
    trial: int = 0,
) -> Forecast:
    """Foretells a run.

    Args:
        faces: N, known faces; None: those of the run in `work`.
        recognizers: of the guard; None: those of the run, or the default ones.
        work: private folder of a run to compare with.
        images: faces to be replaced; None: N.
        calibration: folder with curves; None: the run's, or the shipped ones.
        trial: fakes to make for the cost of one; 0: no costs.

    Raises:
        LedgerError: the run has no known faces.
        CalibrationError: there is no curve for a recognizer, or it is of other weights.
    """
    folder: str | Path | None = calibration
    if folder is None and work is not None and (work / USED).is_dir():
        folder = work / USED
    curves = Calibration.load(folder, digests_of(list(EMBEDDERS)))
    observed, names = None, tuple(recognizers or DEFAULT)
    if work is not None:
        known, mine = _index_of(work)
        names = tuple(recognizers or mine)
        observed = _observed(work, known, curves, mine)
        faces = known if faces is None else faces
    if faces is None:
        raise ValueError("wanted a number of known faces or a run")
    found = capacity(curves, names, faces)
    images = faces if images is None else images
    return Forecast(
        capacity=found,
        images=images,
        pool=pool_size(images),
        supply=_supplies(found, images),
        fake_seconds=make_fakes(names, trial).cpu_seconds if trial else None,
        search_seconds=search_seconds(names) * faces if trial else None,
        table=tuple((one, _supplies(one, one.faces)) for one in (capacity(curves, names, n) for n in ORIENTATION)),
        observed=observed,
    )


def supply(chance: float, rate: float, wanted: int) -> Supply:
    """What a run offers and admits for a pool on average, by the rule of `more_seeds`.

    Args:
        chance: that a seed of the catalogue passes.
        rate: the false-match rate at the thresholds, which tells how many later seeds resemble the references.
        wanted: the pool's size.
    """
    offered, admitted = 0, 0.0
    while more := more_seeds(wanted, int(admitted), offered, asked=False):
        more = -(-more // SEEDS_PER_PART) * SEEDS_PER_PART
        listed = min(more, max(0, catalogued() - offered))
        admitted += chance * (listed + pass_beyond(rate) * (more - listed))
        offered += more
    return Supply(offered, min(wanted, int(admitted)))


def _supplies(found: Capacity, images: int) -> tuple[Supply, Supply]:
    wanted, rate = pool_size(images), _rate(found)
    return supply(found.dependent.value, rate, wanted), supply(found.independent.value, rate, wanted)


def _rate(found: Capacity) -> float:
    """The false-match rate at the laxest threshold."""
    return max(one.threshold.rate.rate for one in found.each)


def _index_of(work: Path) -> tuple[int, tuple[str, ...]]:
    """How many faces a run knows, and its recognizers."""
    headers = [json.loads(file.read_text()) for file in sorted((work / "known").glob("generation-*.json"))]
    if not headers:
        raise LedgerError(f"there is no known-face index in {work}; run `mfmc index` first, or give the private folder of a run")
    return sum(int(header["rows"]) for header in headers), tuple(headers[0]["recognizers"])


def _observed(work: Path, known: int, curves: Calibration, names: Sequence[str]) -> Observed | None:
    """What the parts of the pool say; None without any."""
    offered, admitted, seconds = [0, 0], [0, 0], []
    for marker in sorted((work / "ledger" / "pool").glob("part-*.json")):
        part = json.loads(marker.read_text())["summary"]
        later = int(sum(offered) + part["images"] > catalogued())
        offered[later] += part["images"]
        admitted[later] += part["faces"]
        seconds.append(part.get("cpu_seconds"))
    if not sum(offered):
        return None
    cost = None if None in seconds else sum(seconds) / sum(offered)
    return Observed(
        capacity=capacity(curves, names, known, _taken(work)),
        offered=(offered[0], offered[1]),
        admitted=(admitted[0], admitted[1]),
        cpu_seconds=cost,
    )


def _taken(work: Path) -> dict[str, float]:
    """recognizer → the threshold of the first admitted identity's certificate."""
    for file in sorted((work / "pool").glob("part-*.parquet")):
        for row in pq.read_table(file, columns=["certificates"]).slice(0, 1).to_pylist():
            return {one["recognizer"]: float(one["threshold"]) for one in row["certificates"]}
    return {}


def _observed_lines(seen: Observed) -> list[str]:
    found = seen.capacity
    chances = _range(found.independent.value, found.dependent.value, digits=3)
    thresholds = ", ".join(f"{one.recognizer} {one.threshold.value:.3f}" for one in found.each)
    lines = [f"Observed in the run ({found.faces:,} known faces; thresholds {thresholds}), foretold {chances} for strangers:"]
    for what, offered, admitted in zip(("of the catalogue", "after it"), seen.offered, seen.admitted, strict=True):
        if offered:
            share = admitted / offered
            spread = 1.96 * math.sqrt(share * (1 - share) / offered)
            lines.append(f"  {what}: {admitted} of {offered} fakes passed: {share:.3f} ± {spread:.3f}")
    if seen.offered[1]:
        lines.append("  (those after the catalogue must also pass the 200 portraits that fakes are made of, which they resemble)")
    if seen.cpu_seconds is not None:
        lines.append(f"  it took {seen.cpu_seconds:.3f} CPU s a fake")
    return lines


def _range(one: float, other: float, digits: int = 0) -> str:
    """Two figures, the lower first; one if they look the same."""
    low, high = sorted((one, other))
    texts = [f"{v:,.{digits}f}" if v < 1e6 else f"{v:.0e}" if v < 1e12 else "endlessly many" for v in (low, high)]
    return texts[0] if texts[0] == texts[1] else f"{texts[0]} to {texts[1]}"


def _finite(plain: Any) -> Any:
    if isinstance(plain, dict):
        return {key: _finite(value) for key, value in plain.items()}
    if isinstance(plain, (list, tuple)):
        return [_finite(value) for value in plain]
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain
