"""What of a listing is not scanned yet, and what was scanned and is not listed any more: the parts of a scan.

The scan's own rows say what was scanned: each names its unit with size and version as they were listed. So there is no other list that
could differ from them, and a killed run or night goes on from whatever it has committed.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow.parquet as pq

from mfmc_ray.boxes import Boxes
from mfmc_ray.ledger import Ledger, LedgerError, Stage
from mfmc_ray.sources import Unit, read_unit

ROW = dict[str, Any]
RACY_NS = 2_000_000_000
"""A file that was modified less than this before it was listed may have been modified again within its time stamp's grain."""
PASSING = frozenset({"vanished", "unreadable", "no_permission", "damaged_tar", "damaged_parquet"})
"""Reasons of images that are worth another try."""
_MTIME_DIGITS = 18  # an mtime in ns is a number of 19 digits; an etag hardly is
_SINCE, _UNTIL = 1e8, 1e11  # seconds since 1970 of anything that has been modified
_READERS = 8


@dataclass(frozen=True)
class Scanned:
    """A unit as it was scanned.

    Attributes:
        part: of the scan.
        size, version, listed: as in `tables.UNITS`; None of an older version's rows.
        images: image_id of each of its images; None of one that could not be read.
        retry: whether an image failed for a reason that may have passed.
        path: of its first image, in the collection as it was then; "" without any.
        reboxed: whether the user has given other boxes for one of its images since.
    """

    part: int
    size: int | None
    version: str | None
    listed: int | None
    images: tuple[str | None, ...]
    retry: bool
    path: str = field(default="", compare=False)
    reboxed: bool = False


@dataclass
class Difference:
    """How a listing differs from what was scanned. Units are as `plan.listed` gives them.

    Attributes:
        new: were not there.
        changed: have another size or version.
        unsure: have the same, and are read all the same: their images could not be read last time, or size and version prove nothing.
        moved: (as it was, as it is): the same content under another name, or under another path because the collection's root is another.
        gone: were there.
        same: how many are as they were.
    """

    new: list[ROW] = field(default_factory=list)
    changed: list[ROW] = field(default_factory=list)
    unsure: list[ROW] = field(default_factory=list)
    moved: list[tuple[str, ROW]] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    same: int = 0

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.unsure or self.moved or self.gone)


def scanned(ledger: Ledger, stage: Stage, boxes: Boxes | None = None) -> dict[str, Scanned]:
    """unit → what was scanned of it, from the committed parts of a scan, as against the boxes that the user gives now."""
    found: dict[str, Scanned] = {}
    for part, summary in ledger.done(stage).items():
        for unit in summary.get("empty", ()):
            found[unit["unit"]] = Scanned(part, unit["size"], unit["version"], unit["listed"], (), False)
        file = pq.ParquetFile(ledger.work / stage.tables[0] / f"part-{part:05d}.parquet")
        columns = ("unit", "image_id", "reason", "boxes", "path", "unit_size", "unit_version", "unit_listed")
        if not set(columns) <= set(file.schema_arrow.names):
            raise LedgerError(f"WORK ({ledger.work}) was made by an older version of mfmc-ray; start anew with --restart")
        images: dict[str, list[str | None]] = {}
        retry: set[str] = set()
        reboxed: set[str] = set()
        first: dict[str, tuple[Any, ...]] = {}
        for batch in file.iter_batches(columns=list(columns)):
            for unit, image, reason, given, path, *listed in zip(*(batch.column(name).to_pylist() for name in columns), strict=True):
                images.setdefault(unit, []).append(image)
                first.setdefault(unit, (path, *listed))
                if reason is not None and reason.split(":")[0] in PASSING:
                    retry.add(unit)
                if image is not None and given != (boxes.version(image, path) if boxes else None):
                    reboxed.add(unit)
        for unit, ids in images.items():
            path, size, version, at = first[unit]
            found[unit] = Scanned(part, size, version, at, tuple(ids), unit in retry, path, unit in reboxed)
    return found


def difference(
    units: Sequence[ROW],
    before: Mapping[str, Scanned],
    storage_options: Mapping[str, Any] | None = None,
    *,
    again: bool = False,
    boxes: Boxes | None = None,
) -> Difference:
    """Compares a listing with what was scanned.

    Args:
        units: the listing.
        before: of `scanned`.
        storage_options: for fsspec; a new unit of a size that has gone is read, to see whether it was moved.
        again: also read what seems to be the same and may not be. A resumed run does not.
        boxes: that the user gives. Under another path an image may have others, so no unit counts as moved then.
    """
    result = Difference()
    for unit in units:
        old = before.get(unit["unit"])
        if old is None:
            result.new.append(unit)
        elif old.reboxed or (old.size, old.version) != (unit["size"], unit["version"]):
            result.changed.append(unit)
        elif not _lies_at(old, unit["path"]):
            if boxes is not None or None in old.images or not _proves(old):  # its rows get the time of this listing, which would prove it
                result.changed.append(unit)
            else:
                result.moved.append((unit["unit"], unit))
        elif again and (old.retry or not _proves(old)):
            result.unsure.append(unit)
        else:
            result.same += 1
    names = {unit["unit"] for unit in units}
    result.gone = [unit for unit in before if unit not in names]
    if result.gone and result.new and boxes is None:
        moved = list(_moved(result, before, storage_options or {}))
        arrived = {unit["unit"] for _, unit in moved}
        left = {unit for unit, _ in moved}
        result.moved += moved
        result.new = [unit for unit in result.new if unit["unit"] not in arrived]
        result.gone = [unit for unit in result.gone if unit not in left]
    return result


def scan_parts(
    found: Difference, before: Mapping[str, Scanned], done: Iterable[int], total: int, *, fill: bool = False
) -> list[dict[str, Any]]:
    """The parts of a scan that bring it up to date.

    Args:
        found: the difference.
        before: of `scanned`.
        done: the committed parts.
        total: units listed; decides how many files make a part.
        fill: put new files into the gaps of parts that are written anyway, and of the emptiest one, so that nights leave no small parts.

    Returns:
        for `ScanWorker`: `part`, `units` to be read, `drop` (units whose rows go), `moved` (old unit → new), and `committed`, whether the
        part has rows already.
    """
    parts: dict[int, dict[str, Any]] = {}
    numbers = set(done)

    def part_of(number: int) -> dict[str, Any]:
        empty = {"part": number, "units": [], "drop": [], "moved": {}, "committed": number in numbers}
        return parts.setdefault(number, empty)

    for name in found.gone:
        part_of(before[name].part)["drop"].append(name)
    for name, unit in found.moved:
        part_of(before[name].part)["moved"][name] = unit
    for unit in (*found.changed, *found.unsure):
        part_of(before[unit["unit"]].part)["units"].append(unit)
    new, size = found.new, part_size(total)
    if fill and numbers:
        files = deque(unit for unit in new if unit["kind"] == "file")
        held = Counter(old.part for old in before.values())
        held.subtract(before[name].part for name in found.gone)
        shards = {old.part for old in before.values() if len(old.images) != 1}
        room = [number for number in numbers if held[number] < size and number not in shards]
        for number in sorted(room, key=lambda n: (n not in parts, held[n], n))[: len(parts) + 1]:
            part_of(number)["units"] += [files.popleft() for _ in range(min(len(files), size - held[number]))]
        new = [*files, *(unit for unit in new if unit["kind"] != "file")]
    free = (number for number in range(len(numbers) + len(new) + 1) if number not in numbers)
    for group in _grouped(new, size):
        part_of(next(free))["units"] += group
    return [part for part in parts.values() if part["units"] or part["drop"] or part["moved"]]


def part_size(total: int) -> int:
    """Files in a part of a scan, of so many listed; a shard is a part by itself."""
    return 8 if total < 400 else 32 if total < 10_000 else 128


def _grouped(units: Sequence[ROW], size: int) -> Iterator[list[ROW]]:
    """Units in parts that depend on the listing only: a shard by itself, files in runs."""
    group: list[ROW] = []
    for unit in units:
        if unit["kind"] != "file":
            yield [unit]
            continue
        group.append(unit)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _lies_at(old: Scanned, path: str) -> bool:
    """Whether a unit has this path in the collection: with another root it has not, and approvals and OUT go by paths."""
    return not old.path or old.path == path or old.path.startswith(path + "/")


def _proves(old: Scanned) -> bool:
    """Whether an equal size and version prove that the content is equal."""
    if not old.version or old.listed is None:
        return False
    modified = _time_ns(old.version)
    return modified is None or modified <= old.listed - RACY_NS


def _time_ns(version: str) -> int | None:
    """A version that is a time, which proves less than an etag: ns since 1970. Stores give it as a number or as a date."""
    if version.isdigit() and len(version) >= _MTIME_DIGITS:
        return int(version)
    with contextlib.suppress(ValueError):
        date = datetime.fromisoformat(version)
        return int((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() * 1e9)
    with contextlib.suppress(ValueError):
        seconds = float(version)
        return int(seconds * 1e9) if _SINCE <= seconds < _UNTIL else None
    return None


def _moved(found: Difference, before: Mapping[str, Scanned], storage_options: Mapping[str, Any]) -> Iterator[tuple[str, ROW]]:
    """Pairs of a unit that has gone and a new one with the same images in the same order."""
    left: dict[tuple[str | None, ...], list[str]] = {}
    for name in found.gone:
        if before[name].images and None not in before[name].images:
            left.setdefault(before[name].images, []).append(name)
    sizes = {before[name].size for names in left.values() for name in names}
    candidates = [unit for unit in found.new if unit["size"] in sizes]
    with ThreadPoolExecutor(_READERS) as readers:
        for unit, images in zip(candidates, readers.map(lambda u: _images(u, storage_options), candidates), strict=True):
            if names := left.get(images):
                yield names.pop(), unit


def _images(unit: ROW, storage_options: Mapping[str, Any]) -> tuple[str | None, ...]:
    """The image_ids in a unit."""
    sources = read_unit(unit_of(unit), storage_options)
    return tuple(None if source.data is None else hashlib.sha256(source.data).hexdigest() for source in sources)


def unit_of(row: ROW) -> Unit:
    """A listed unit as `sources` takes it."""
    return Unit(row["unit"], row["kind"], row["size"], row["version"], row["path"])
