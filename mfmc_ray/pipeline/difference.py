"""What of a listing is not scanned yet, and what was scanned and is not listed any more: the parts of a scan.

The scan's own rows say what was scanned: each names its unit with size and version as they were listed. So there is no other list that
could differ from them, and a killed run or night goes on from whatever it has committed.
"""

from __future__ import annotations

import contextlib
import hashlib
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import numpy as np

from mfmc_ray.boxes import Boxes
from mfmc_ray.pipeline.before import Before, Scanned, scanned
from mfmc_ray.pipeline.listing import ROW, ROWS, Units
from mfmc_ray.sources import Unit, read_unit

__all__ = ["Difference", "Scanned", "difference", "part_size", "scan_parts", "scanned", "unit_of"]

RACY_NS = 2_000_000_000
"""A file that was modified less than this before it was listed may have been modified again within its time stamp's grain."""
_MTIME_DIGITS = 18  # an mtime in ns is a number of 19 digits; an etag hardly is
_SINCE, _UNTIL = 1e8, 1e11  # seconds since 1970 of anything that has been modified
_READERS = 8


class Moves(Sequence[tuple[str, ROW]]):
    """Units that are elsewhere now.

    Args:
        names: as they were; None of one that has only another path.
        units: as they are.
    """

    def __init__(self, names: Sequence[str | None], units: Units) -> None:
        self._names, self.units = names, units

    def __len__(self) -> int:
        return len(self.units)

    def __iter__(self) -> Iterator[tuple[str, ROW]]:
        return ((unit["unit"] if name is None else name, unit) for name, unit in zip(self._names, self.units, strict=True))

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]


@dataclass
class Difference:
    """How a listing differs from what was scanned.

    Attributes:
        new: were not there.
        changed: have another size or version.
        unsure: have the same, and are read all the same: their images could not be read last time, or size and version prove nothing.
        moved: (as it was, as it is): the same content under another name, or under another path because the collection's root is another.
        gone: were there.
        same: how many are as they were.
    """

    new: Sequence[ROW] = ()
    changed: Sequence[ROW] = ()
    unsure: Sequence[ROW] = ()
    moved: Sequence[tuple[str, ROW]] = ()
    gone: Sequence[str] = ()
    same: int = 0

    def __bool__(self) -> bool:
        return any(len(some) for some in (self.new, self.changed, self.unsure, self.moved, self.gone))

    @property
    def to_read(self) -> int:
        """Units that are read."""
        return len(self.new) + len(self.changed) + len(self.unsure)


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
    before = Before.of(before)
    found = {kind: array("q") for kind in ("new", "changed", "unsure", "moved", "same")}
    seen = np.zeros(before.rows, bool)
    listing, first = iter(units), 0
    while some := list(islice(listing, ROWS)):
        rows = before.rows_of([unit["unit"] for unit in some])
        there = [row for row in rows if row >= 0]
        seen[there] = True
        olds = before.at(there)
        for number, (unit, row) in enumerate(zip(some, rows, strict=True), first):
            found[_kind(unit, next(olds), again, boxes) if row >= 0 else "new"].append(number)
        first += len(some)
    new = found["new"]
    gone: Sequence[str] = before.left(seen)
    names: list[str | None] = [None] * len(found["moved"])
    if new and len(gone) and boxes is None:
        moved = dict(_moved(Units(units, new), gone, before, storage_options or {}))
        found["moved"].extend(moved)
        names += moved.values()
        new = array("q", (number for number in new if number not in moved))
        left = set(moved.values())
        gone = [name for name in gone if name not in left] if moved else gone
    some_units = {kind: Units(units, found[kind]) for kind in ("changed", "unsure", "moved")}
    return Difference(
        Units(units, new), some_units["changed"], some_units["unsure"], Moves(names, some_units["moved"]), gone, len(found["same"])
    )


def _kind(unit: ROW, old: Scanned, again: bool, boxes: Boxes | None) -> str:
    """What has become of a unit that was scanned."""
    if old.reboxed or (old.size, old.version) != (unit["size"], unit["version"]):
        return "changed"
    if not _lies_at(old, unit["path"]):
        # its rows get the time of this listing, which would prove it
        return "changed" if boxes is not None or None in old.images or not _proves(old) else "moved"
    return "unsure" if again and (old.retry or not _proves(old)) else "same"


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
        for `ScanWorker`: `part`, `units` to be read (as of `Units.plain`), `drop` (units whose rows go), `moved` (old unit → new), and
        `committed`, whether the part has rows already.
    """
    parts: dict[int, dict[str, Any]] = {}
    numbers, before = set(done), Before.of(before)
    listing = found.new.listing if isinstance(found.new, Units) else found.new

    def part_of(number: int) -> dict[str, Any]:
        empty = {"part": number, "units": array("q"), "drop": [], "moved": {}, "committed": number in numbers}
        return parts.setdefault(number, empty)

    for name in found.gone:
        part_of(before.part(name))["drop"].append(name)
    for name, unit in found.moved:
        part_of(before.part(name))["moved"][name] = unit
    for some in (found.changed, found.unsure):
        for number, unit in zip(_numbers(some), some, strict=True):
            part_of(before.part(unit["unit"]))["units"].append(number)
    new, are_files, size = _numbers(found.new), _are_files(found.new), part_size(total)
    if fill and numbers:
        files = deque(number for number, is_file in zip(new, are_files, strict=True) if is_file)
        held = before.held()
        held.subtract(before.part(name) for name in found.gone)
        shards = before.shards()
        room = [number for number in numbers if held[number] < size and number not in shards]
        for number in sorted(room, key=lambda n: (n not in parts, held[n], n))[: len(parts) + 1]:
            part_of(number)["units"].extend(files.popleft() for _ in range(min(len(files), size - held[number])))
        rest = [number for number, is_file in zip(new, are_files, strict=True) if not is_file]
        new, are_files = [*files, *rest], [True] * len(files) + [False] * len(rest)
    free = (number for number in range(len(numbers) + len(new) + 1) if number not in numbers)
    for group in _grouped(new, are_files, size):
        part_of(next(free))["units"].extend(group)
    some_parts = ({**part, "units": Units(listing, part["units"]).plain()} for part in parts.values())
    return [part for part in some_parts if part["units"] or part["drop"] or part["moved"]]


def _numbers(units: Sequence[ROW]) -> list[int]:
    return units.numbers.tolist() if isinstance(units, Units) else []


def _are_files(units: Sequence[ROW]) -> list[bool]:
    return units.are_files.tolist() if isinstance(units, Units) else []


def part_size(total: int) -> int:
    """Files in a part of a scan, of so many listed; a shard is a part by itself."""
    return 8 if total < 400 else 32 if total < 10_000 else 128


def _grouped(units: Sequence[int], are_files: Sequence[bool], size: int) -> Iterator[list[int]]:
    """Units in parts that depend on the listing only: a shard by itself, files in runs."""
    group: list[int] = []
    for unit, is_file in zip(units, are_files, strict=True):
        if not is_file:
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


def _moved(new: Units, gone: Iterable[str], before: Before, storage_options: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    """Pairs of a new unit's number and one that has gone, with the same images in the same order."""
    left: dict[tuple[str | None, ...], list[str]] = {}
    sizes: set[int | None] = set()
    names = iter(gone)
    while some_names := list(islice(names, ROWS)):
        for name, old in zip(some_names, before.at(before.rows_of(some_names)), strict=True):
            if old.images and None not in old.images:
                left.setdefault(old.images, []).append(name)
                sizes.add(old.size)
    candidates = ((number, unit) for number, unit in zip(new.numbers.tolist(), new, strict=True) if unit["size"] in sizes)
    with ThreadPoolExecutor(_READERS) as readers:
        while some := list(islice(candidates, ROWS)):
            for (number, _), images in zip(some, readers.map(lambda one: _images(one[1], storage_options), some), strict=True):
                if same := left.get(images):
                    yield number, same.pop()


def _images(unit: ROW, storage_options: Mapping[str, Any]) -> tuple[str | None, ...]:
    """The image_ids in a unit."""
    sources = read_unit(unit_of(unit), storage_options)
    return tuple(None if source.data is None else hashlib.sha256(source.data).hexdigest() for source in sources)


def unit_of(row: ROW) -> Unit:
    """A listed unit as `sources` takes it."""
    return Unit(row["unit"], row["kind"], row["size"], row["version"], row["path"])
