"""A night: what changed since the last one is brought into OUT, and nothing else is done."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mfmc_ray.config import RunConfig
from mfmc_ray.evaluate.night import duration, write_night
from mfmc_ray.ledger import LedgerError
from mfmc_ray.pipeline.audit_run import audit
from mfmc_ray.pipeline.difference import Difference
from mfmc_ray.pipeline.known import added_galleries, enrolled_ids
from mfmc_ray.pipeline.outlook import Change, Outlook, change_of, enrolled_lines, outlook
from mfmc_ray.pipeline.plan import Plan, plan_parts
from mfmc_ray.pipeline.pseudonyms import assigned_in, version_of
from mfmc_ray.pipeline.run import Run
from mfmc_ray.pipeline.sampling import Sample
from mfmc_ray.pipeline.workers import ANONYMIZE, SCAN, made_of
from mfmc_ray.places import replace_file

__all__ = ["DONE", "NOTHING", "REFUTED", "TOO_LONG", "TOO_MANY_GONE", "Night", "duration", "nightly"]

FOLDER = "nights"
"""In WORK: a summary of each night, as a page and as JSON."""
OWED = "owed"
"""In that folder while a night that has begun still owes its audit and its summary; after a kill the next one makes up for both."""
DONE, NOTHING, REFUTED = "done", "nothing to do", "done, and refuted by the audit"
TOO_LONG, TOO_MANY_GONE = "not started: it would take too long", "not started: too many images are gone"


@dataclass(frozen=True)
class Night:
    """What became of a night.

    Attributes:
        result: `DONE`, `NOTHING`, `TOO_LONG`, `TOO_MANY_GONE` or `REFUTED`.
        outlook: what there was to do.
        summary: plain data, as it is kept in WORK/nights; None if nothing was done.
        page: the same for people.
    """

    result: str
    outlook: Outlook
    summary: dict[str, Any] | None = None
    page: Path | None = None


def nightly(config: RunConfig, *, only_plan: bool = False, show: Callable[[Outlook], None] = lambda _: None) -> Night | None:
    """Brings OUT up to date with the collection, the galleries, the settings and the models.

    Args:
        config: all settings; those of the result may be others than last time.
        only_plan: do nothing but say what there is to do.
        show: is given that before anything is done.

    Returns:
        None with `only_plan`.

    Raises:
        BusyError: another process works on the run, and went on longer than `nightly.wait_minutes`.
        LedgerError: everything has to be done anew, and added galleries would be forgotten.
        LedgerError, CollectionError, …: as `Run`.
    """
    run = Run(config, update=True)
    listing = run.open()
    with run.ledger.lock(60 * config.nightly.wait_minutes):
        if config.nightly.wait_minutes:  # an approval may have been withdrawn meanwhile, a file deleted
            run.take_access()
            listing = run.open()
        started = datetime.now(UTC)
        run.scans.list_units(listing)
        expected = _outlook(run)
        owed = run.ledger.work / FOLDER / OWED
        show(expected)
        if only_plan:
            return None
        if not expected.lines and _is_whole(run) and not owed.exists():
            return Night(NOTHING, expected)
        if expected.deleted > config.nightly.max_deleted:
            return Night(TOO_MANY_GONE, expected)
        hours = config.nightly.max_hours
        if hours is not None and expected.seconds > 3600 * hours:
            return Night(TOO_LONG, expected)
        before = _counts(run)
        owed.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        owed.touch()
        clock = time.monotonic()
        fallen = bring_up_to_date(run, expected.change)
        seconds = time.monotonic() - clock
    summary = _summary(run, started, seconds, expected, before, fallen)
    if config.nightly.audit is not None:
        summary["audit"] = _audited(config)
    page = _keep(owed.parent, summary, config.nightly.kept)
    owed.unlink(missing_ok=True)
    return Night(REFUTED if summary.get("audit") is False else DONE, expected, summary, page)


def bring_up_to_date(run: Run, change: Change) -> list[dict[str, Any]]:
    """Does what there is to do; the lock is held and everything listed.

    Args:
        run: made with `update`.
        change: what has become of its settings.

    Returns:
        as `Run.publish`.

    Raises:
        LedgerError: everything has to be done anew, and added galleries would be forgotten.
    """
    if change.anew and (added := len(added_galleries(run.ledger))):
        raise LedgerError(
            f"everything has to be done anew ({', '.join(change.changed)}), and {added} galleries that were given to "
            "`mfmc known add` would be forgotten: name them in guard.galleries and run `mfmc anonymize --restart`"
        )
    run.restart = run.restart or change.anew or run.state.is_restarting
    if change.pool:
        _empty_pool(run)  # first: killed in between, this night's settings are not yet the run's, and it is emptied again
    run.begin()
    with run.working():
        run.scan()
        return run.anonymize()


def _outlook(run: Run) -> Outlook:
    change = change_of(run.ledger, run.config, run.calibration)
    if not run.state.is_begun:
        return outlook(change, {}, None, len(run.scans.units), 0, run.times, first=True)
    differences: dict[str, Difference] = {}
    for stage, units in run.scans:
        run.ledger.recover(stage)
        differences[stage.name] = run.scans.difference(stage, units, again=True)
    plan = _plan(run) if run.ledger.done(SCAN) else None
    published = sum(summary["images"] for summary in run.ledger.done(ANONYMIZE).values())
    found = outlook(change, differences, plan, len(run.scans.units), published, run.times, first=False)
    if not change.anew:
        found.lines += enrolled_lines(enrolled_ids(run.ledger), run.people.known_ids() if run.people else ())
    return found


def _plan(run: Run) -> Plan:
    before = run.ledger.done(ANONYMIZE)
    if run.ledger.recover(ANONYMIZE).keys() != before.keys():  # files were gone, and OUT is not what its manifest says
        run.withdraw()
    run.recognise()
    made, assigned = made_of(run.config, run.calibration), assigned_in(run.key_in) if run.config.swap.pseudonyms == "person" else None
    access = version_of(run.access.version, assigned)
    return plan_parts(run.ledger, run.config.output.rows_per_part, made=made, access=access, night=True)


def _is_whole(run: Run) -> bool:
    """Whether the last run or night came to its end."""
    try:
        run.read_manifest()
    except (FileNotFoundError, ValueError):
        return False
    return run.state.is_finished


def _counts(run: Run) -> dict[str, Any]:
    """What is published."""
    try:
        return dict(run.read_manifest()["counts"])
    except (FileNotFoundError, ValueError, KeyError):
        return {}


def _empty_pool(run: Run) -> None:
    """The seeds of the pool would now be other people."""
    shutil.rmtree(run.ledger.work / "ledger" / "pool", ignore_errors=True)
    shutil.rmtree(run.ledger.work / "pool", ignore_errors=True)


def _summary(
    run: Run, started: datetime, seconds: float, expected: Outlook, before: dict[str, Any], fallen: list[dict[str, Any]]
) -> dict[str, Any]:
    manifest = run.read_manifest()
    return {
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "expected_seconds": round(expected.seconds, 1),
        "first": expected.first,
        "settings_changed": list(expected.change.changed),
        "plan": [asdict(line) for line in expected.lines],
        "listed": {name: _shape(found) for name, found in run.scans.differences.items()},
        "images": dict(run.planned.counts),
        "parts": {name: len(getattr(run.planned, name)) for name in ("new", "changed", "kept", "gone")},
        "known_faces": manifest["guard"][0]["known_faces"],
        "generation": manifest["guard"][0]["generation"],
        "reopened": {
            "identities": len({row["identity_id"] for row in fallen if "face_no" not in row}),
            "faces": len({(row["path"], row["face_no"]) for row in fallen if "face_no" in row}),
        },
        "before": before,
        "counts": manifest["counts"],
        "notices": manifest["notices"],
    }


def _shape(found: Difference) -> dict[str, int]:
    lists = {name: len(getattr(found, name)) for name in ("new", "changed", "unsure", "moved", "gone")}
    return {**lists, "same": found.same}


def _audited(config: RunConfig) -> bool:
    asked = config.nightly.audit
    return audit(replace(config, input="-"), Sample.parse(None if asked == "all" else asked, None))


def _keep(folder: Path, summary: dict[str, Any], kept: int) -> Path:
    """Writes the summary and removes the oldest ones; the page."""
    name = datetime.fromisoformat(summary["started"]).strftime("%Y-%m-%dT%H-%M-%SZ")
    replace_file(folder / f"{name}.json", lambda path: path.write_text(json.dumps(summary, indent=1) + "\n"))
    nights = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))[-kept:]]
    page = write_night(folder / f"{name}.html", summary, nights)
    for old in sorted(folder.glob("*.json"))[:-kept]:
        old.unlink()
        old.with_suffix(".html").unlink(missing_ok=True)
    return page
