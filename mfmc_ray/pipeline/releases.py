"""Releases for several audiences: each an OUT of its own. What was found, who is known and the fakes are made once.

The first audience's run does all the work. Another's WORK starts as a copy of that one's, its OUT as a copy of that OUT, by hard links
where both are local; then it is brought up to date as by a night, with its own audience: only images of which it is told something else are
made anew, and parts without any stay the very same files. A part that shows somebody whom the other audience may not see is never copied.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mfmc_ray.config import ConfigError, RunConfig, audience_in_full
from mfmc_ray.ledger import Ledger, LedgerError
from mfmc_ray.pipeline.nightly import bring_up_to_date
from mfmc_ray.pipeline.outlook import Change, change_of
from mfmc_ray.pipeline.pseudonyms import same_access
from mfmc_ray.pipeline.run import Run
from mfmc_ray.pipeline.workers import ANONYMIZE
from mfmc_ray.places import linked, replace_file, share
from mfmc_ray.stage import part_file

SHARED = (
    *("scan", "gallery-*", "galleries.json", "people.json", "forgotten.json", "known", "pool"),
    *("calibration-used", "quarantine", "models.json"),
)
"""What of WORK is the same for every audience."""
Version = Callable[[str | None, str], str]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]*")


@dataclass(frozen=True)
class Release:
    """What there is for one audience.

    Attributes:
        audience: as in the settings.
        out, work: its folders.
        manifest: of the result.
        shared: how many of its published files are those of the first audience.
    """

    audience: str
    out: str
    work: str
    manifest: dict[str, Any]
    shared: int


def folder_of(audience: str) -> str:
    """The name of an audience's folder: "everyone", "group-friends", "viewer-bob".

    Raises:
        ConfigError: it is no name of a folder.
    """
    name = audience.replace(":", "-", 1)
    if not _NAME.fullmatch(name):
        raise ConfigError(f"audience {audience!r} has characters that no folder should be called by; rename the group or viewer")
    return name


def release(
    config: RunConfig, audiences: Sequence[str], *, restart: bool = False, tell: Callable[[Release], None] = lambda _: None
) -> list[Release]:
    """Makes a release for each audience, or brings it up to date.

    Args:
        config: of all of them; `out` and `work` get a folder for each audience.
        audiences: the first one's run does what they have in common.
        restart: start all of them anew.
        tell: is given each release when it is there.

    Raises:
        ConfigError: two audiences would have the same folder.
        LedgerError, …: as `Run`.
    """
    audiences = [audience_in_full(audience) for audience in audiences]
    names = [folder_of(audience).lower() for audience in audiences]
    if doubled := [audience for audience, name in zip(audiences, names, strict=True) if names.count(name) > 1]:
        raise ConfigError(
            f"audiences {', '.join(doubled)} would have the same folder; name each once, and rename groups that are spelt alike"
        )
    runs = [Run(_of_audience(config, audience), update=True) for audience in audiences]  # all tables are read before anything is done
    first, done = runs[0], []
    for audience, run in zip(audiences, runs, strict=True):
        listing = run.open() if run is first else None
        with run.ledger.lock():
            change = change_of(run.ledger, run.config, run.calibration)
            if listing is not None:
                run.restart = restart
                run.scans.list_units(listing)
                bring_up_to_date(run, change)
            else:
                run.key_in = first.ledger.work
                run.scans.take_units(first.scans)
                access = run.access.bound(first.sightings).version
                with first.ledger.lock():
                    seed(first.ledger, run.ledger, access, anew=restart or change.anew)
                bring_up_to_date(run, Change())
        shared = len(_common(first.ledger, run.ledger))
        done.append(Release(audience, run.ledger.out, str(run.ledger.work), run.read_manifest(), shared))
        tell(done[-1])
    return done


def _of_audience(config: RunConfig, audience: str) -> RunConfig:
    name = folder_of(audience)
    access = replace(config.access, audience=audience)
    return replace(config, out=f"{config.out.rstrip('/')}/{name}", work=str(Path(config.work) / name), access=access)


def seed(source: Ledger, target: Ledger, access: Version, *, anew: bool = False) -> None:
    """Makes a run's WORK hold what it has in common with another's, and, if there is no run in it, OUT what that one has published.

    Hold both locks. Killed in the middle, the target is one that is being started anew, and only this or a restart goes on with it.

    Args:
        source: of the run that did the work; it has come to its end.
        target: of the other one.
        access: (image_id, path) → what the access model has to say of an image to the target's audience, `AccessModel.version`.
        anew: even if there is a run in it.

    Raises:
        LedgerError: the target's OUT holds what is not its own.
    """
    identity = target.work / "run.json"
    begun = json.loads(identity.read_text()) if identity.is_file() else {}
    if begun.get("out", target.out) != target.out:
        raise LedgerError(f"WORK ({target.work}) belongs to another OUT ({begun['out']}); give that one, or another WORK")
    if not begun and (strangers := target.public.names()):
        raise LedgerError(f"OUT ({target.out}) is not empty (it holds {strangers[0]}) and no run has made it: give an empty OUT")
    replace_file(identity, lambda path: path.write_text(json.dumps({"out": target.out})))
    own = "config" in begun and not anew
    for stage in [path.name for path in (target.work / "ledger").glob("*") if not (own and path.name == ANONYMIZE.name)]:
        _remove(target.work / "ledger" / stage)
    if not own:
        target.remove("manifest.json")
        for table in (*ANONYMIZE.tables, *ANONYMIZE.kept):
            target.remove(table) if table in ANONYMIZE.tables else _remove(target.work / table)
        for part in source.done(ANONYMIZE):
            if _may_be_seen(source, part, access):
                for table in ANONYMIZE.tables:
                    share(source.public, target.public, part_file(table, part))
                for name in (*(part_file(table, part) for table in ANONYMIZE.kept), ANONYMIZE.marker(part)):
                    _link(source.work / name, target.work / name)
    for pattern in SHARED:
        for path in {*target.work.glob(pattern), *(target.work / p.name for p in source.work.glob(pattern))}:
            _link(source.work / path.name, path)
    for path in (source.work / "ledger").iterdir():
        if path.is_dir() and path.name != ANONYMIZE.name:
            _link(path, target.work / "ledger" / path.name)
    if not own:
        shutil.copyfile(source.work / "settings.json", target.work / "settings.json")
    plain = json.loads((source.work / "run.json").read_text()) | {"out": target.out}
    replace_file(identity, lambda path: path.write_text(json.dumps(plain, indent=2)))


def _may_be_seen(source: Ledger, part: int, access: Version) -> bool:
    """Whether a part shows nobody about whom another audience is told something else."""
    faces = source.read_table(ANONYMIZE, "faces", part).select(["path", "verdict"]).to_pylist()
    kept = {row["path"] for row in faces if row["verdict"] == "kept"}
    placed = source.read_table(ANONYMIZE, "placed", part).to_pylist()
    return all(row["path"] not in kept or same_access(row["access"], access(row["image_id"], row["path"])) for row in placed)


def _common(first: Ledger, other: Ledger) -> list[str]:
    """Published files that are the same in both."""
    if first.out == other.out:
        return [name for table in ANONYMIZE.tables for name in first.files(table)]
    digests = [
        {entry["file"]: entry["sha256"] for marker in (ledger.work / "ledger" / ANONYMIZE.name).glob("*.json") for entry in _files(marker)}
        for ledger in (first, other)
    ]
    return [name for name, digest in digests[1].items() if digests[0].get(name) == digest]


def _files(marker: Path) -> list[dict[str, Any]]:
    return list(json.loads(marker.read_text())["files"])


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _link(source: Path, target: Path) -> None:
    """Makes a file or folder the same as another one, by hard links if the file system has them; removes it if that one is not there.

    Files of WORK are never changed in place, so neither run sees what the other one does to its own.
    """
    _remove(target)
    if source.is_dir():
        shutil.copytree(source, target, copy_function=linked)
    elif source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        linked(str(source), str(target))
