"""What a night would do, and what it would cost: known before it starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from mfmc_ray.config import RunConfig
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.ledger import Ledger
from mfmc_ray.pipeline.curves import other_curves
from mfmc_ray.pipeline.difference import Difference
from mfmc_ray.pipeline.manifest import SWAPPER, model_digests
from mfmc_ray.pipeline.plan import Plan
from mfmc_ray.pipeline.state import State
from mfmc_ray.pipeline.times import Times

FIXED_SECONDS = 30.0
"""For Ray, models, index, report: about what a night takes in which a single image is new."""
SCAN_SECONDS, ANONYMIZE_SECONDS = 0.2, 1.0
"""For an image, where no run has measured it yet."""
_UNIMPORTANT = (
    *("input", "out", "work", "storage_options", "ray", "nightly", "access.people"),
    *("find.boxes", "find.boxes_mode", "find.max_seconds", "guard.shards", "output.rows_per_part", "output.c2pa_key"),
)
"""Settings that may change and change nothing; for a moved input is compared by its content, and so are enrolled people."""


@dataclass(frozen=True)
class Change:
    """What has become of the settings since the last run.

    Attributes:
        changed: names of settings and models, as `swap.seed` or `model sface`.
        anew: whether faces have to be found anew, so that everything is done again.
        pool: whether the fake identities are other ones.
    """

    changed: tuple[str, ...] = ()
    anew: bool = False
    pool: bool = False


@dataclass(frozen=True)
class Line:
    """A line of the outlook: what, of how many, and about how many seconds that takes."""

    what: str
    count: int
    seconds: float
    note: str = ""


@dataclass
class Outlook:
    """What a night would do.

    Attributes:
        first: whether nothing was done so far.
        change: of the settings.
        lines: what there is to do; empty if nothing.
        deleted: the share of the files that is gone from the collection, or from a gallery that the settings name, 0–1.
    """

    first: bool
    change: Change
    lines: list[Line] = field(default_factory=list)
    deleted: float = 0.0

    @property
    def seconds(self) -> float:
        """About how long it takes."""
        return FIXED_SECONDS + sum(line.seconds for line in self.lines) if self.lines else 0.0


def _makes_fakes(model: str) -> bool:
    """Whether with another one only the fakes are made anew, and what wears them, and nothing is scanned again."""
    return model == "identities" or model.split(" ")[0] == SWAPPER


def change_of(ledger: Ledger, config: RunConfig, calibration: Calibration) -> Change:
    """Compares the settings, models and curves with those of the run in WORK, if there is one."""
    state = State(ledger.work)
    made_with = state.made_with()
    if made_with is None:  # what was scanned may have been with any settings
        return Change(("unknown settings",), anew=True) if state.is_begun else Change()
    old, models = made_with
    names = [name for name in _settings(config) if _settings(old).get(name) != _settings(config)[name]]
    names += other_curves(ledger.work, calibration, config.guard.recognizers)  # which change under the same name, or with the version
    now = model_digests(config)
    other = [name for name in sorted(now.keys() | models.keys()) if now.get(name) != models.get(name)]
    anew = any(name.startswith("find.") or name == "guard.recognizers" for name in names) or not all(map(_makes_fakes, other))
    pool = "swap.seed" in names or any(map(_makes_fakes, other))
    return Change((*names, *(f"model {name}" for name in other)), anew, pool)


def outlook(
    change: Change, differences: Mapping[str, Difference], plan: Plan | None, images: int, published: int, times: Times, *, first: bool
) -> Outlook:
    """Puts together what there is to do.

    Args:
        change: of the settings.
        differences: scan → how its listing differs.
        plan: of the images that were scanned so far; None: none were.
        images: files listed.
        published: images that are published now.
        times: what stages took so far.
        first: whether nothing was done so far.
    """
    scan = times.seconds_per_image("scan") or SCAN_SECONDS
    both = scan + (times.seconds_per_image("anonymize") or ANONYMIZE_SECONDS)
    found = Outlook(first, change, deleted=max(map(_gone, differences.values()), default=0.0))
    if first or change.anew:
        why = "first run" if first else f"changed: {', '.join(change.changed)}"
        found.lines.append(Line("everything anew", images, images * both, why))
        return found
    for name, difference in differences.items():
        where, each = ("images", both) if name == "scan" else (f"photos in {name}", scan)
        found.lines += [
            Line(f"new {where}", len(difference.new), len(difference.new) * each),
            Line(f"changed {where}", len(difference.changed), len(difference.changed) * each, "less if only the time stamp did"),
            Line(f"{where} to compare again", len(difference.unsure), 0.0, "unreadable last time, or modified as they were listed"),
            Line(f"moved {where}", len(difference.moved), 0.0),
            Line(f"deleted {where}", len(difference.gone), 0.0),
        ]
    counts = plan.counts if plan else {}
    anonymize = both - scan
    for key, what, note in (
        ("access", "images in which access or reviews changed", ""),
        ("pseudonyms", "images whose people get another fake", ""),
        ("settings", "images made with other settings", ", ".join(change.changed)),
        ("retried", "images to try again", "they failed after they had been scanned"),
        ("new", "images scanned and not published yet", "of a run that was killed"),
    ):
        found.lines.append(Line(what, counts.get(key, 0), counts.get(key, 0) * anonymize, note))
    found.lines = [line for line in found.lines if line.count]
    if not found.lines and change.changed:
        found.lines.append(Line("certificates to renew", published, 0.0, ", ".join(change.changed)))
    return found


def enrolled_lines(before: Set[str], now: Collection[str]) -> list[Line]:
    """What is to be done because other photos are enrolled.

    Args:
        before: known ids of those in the index.
        now: of those that are enrolled.
    """
    new, gone = len(set(now) - before), len(before - set(now))
    lines = [
        Line("photos newly enrolled", new, 0.0, "their images are counted above; who resembles them is found later"),
        Line("photos not enrolled any more", gone, 0.0, "their images are counted above"),
    ]
    return [line for line in lines if line.count]


def _gone(found: Difference) -> float:
    there = found.same + sum(len(some) for some in (found.new, found.changed, found.unsure, found.moved))
    return len(found.gone) / (there + len(found.gone)) if there else 0.0  # a gallery without any is one that was dropped


def _settings(config: RunConfig) -> dict[str, Any]:
    """The settings that decide the result, by dotted name."""
    return dict(_flat(dataclasses.asdict(config)))


def _flat(plain: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in plain.items():
        full = prefix + name
        if full in _UNIMPORTANT:
            continue
        if isinstance(value, dict):
            yield from _flat(value, full + ".")
        else:
            yield full, list(value) if isinstance(value, tuple) else value
