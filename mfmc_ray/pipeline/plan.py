"""Which parts of OUT there are to do: what was scanned, compared with what has been published.

A published part's private table (`tables.PLACED`) says which images are in it and on what grounds, the scan says which should be. Every
part is described by all that is to be in it, so a part may be done again at any time, and a killed run or night is planned anew from
whatever it has committed.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow.parquet as pq

from mfmc_ray.ledger import Ledger, LedgerError
from mfmc_ray.pipeline.pseudonyms import same_access
from mfmc_ray.pipeline.watch import KILLS_DECODER, TOO_SLOW
from mfmc_ray.pipeline.workers import ANONYMIZE, SCAN

PART_BYTES = 256 << 20
"""Source bytes of one output part at most, so that a part fits into a worker's memory."""
QUARANTINED = (KILLS_DECODER, TOO_SLOW)
Part = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """An image that was scanned: where its row is, and what decides whether what was published of it still is right."""

    path: str
    image_id: str | None
    failed: str | None
    size: int
    part: int
    row: int
    boxes: str | None = None


@dataclass
class Plan:
    """What is to be done to OUT.

    A part is a dictionary: `part`, its number; `rows`, the images that are to be in it, as [part of the scan, first row, after the last];
    `reasons`, path → "duplicate of …"; and of a committed part `redo`, paths that are done anew although they are there; `moved`, new path
    → old; `fresh`, how many images have to be done; `summary`, as committed.

    Attributes:
        new: parts that are not there.
        changed: committed parts that are to hold something else.
        kept: committed parts that hold what they should.
        gone: numbers of committed parts of which nothing is left.
        counts: images by what happens to them: new, changed, moved, deleted, access, pseudonyms, settings, retried.
    """

    new: list[Part] = field(default_factory=list)
    changed: list[Part] = field(default_factory=list)
    kept: list[Part] = field(default_factory=list)
    gone: list[int] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def plan_parts(
    ledger: Ledger,
    rows_per_part: int,
    *,
    made: str,
    access: Callable[[str | None, str], str],
    night: bool = False,
) -> Plan:
    """Compares what was scanned with what is published.

    Args:
        ledger: the folders.
        rows_per_part: images in a part at most.
        made: digest of the settings that decide what becomes of a face; a part that was made with others is done anew.
        access: (image_id, path) → what the access model and pseudonyms have to say of the image, `pseudonyms.version_of`.
        night: what is committed may change: images that failed only after they had been scanned are done again, and new ones go into the
            gaps of parts that are there. A resumed run leaves these as they are.

    Raises:
        LedgerError: nothing was scanned.
    """
    wanted = list(_wanted(ledger))
    if not wanted and not ledger.done(SCAN):
        raise LedgerError("nothing was scanned yet; run `mfmc scan` first")
    plan, duplicates, at = Plan(), _duplicates(wanted), {image.path: image for image in wanted}
    parts: dict[int, _Part] = {}
    placed: set[str] = set()
    left: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for number, summary in sorted(ledger.done(ANONYMIZE).items()):
        part = parts[number] = _Part(number, summary)
        table = pq.read_table(ledger.work / "placed" / f"part-{number:05d}.parquet")
        for row in table.to_pylist():
            image = at.get(row["path"])
            if image is None:
                part.lost.append(row)
                left.setdefault(row["image_id"], []).append((number, row))
                continue
            placed.add(row["path"])
            part.images.append(image)
            why = _outdated(row, image, part.remade(made), access, night)
            if why:
                part.redo.append(row["path"])
                plan.counts[why] += 1
            elif image.failed is None and _duplicate(row["reason"]) != duplicates.get(row["path"]):
                part.touched = True
    missing = []
    for image in wanted:
        if image.path in placed:
            continue
        places = left.get(image.image_id or "", [])
        # what is right for an image need not be right under its new name
        fits = [k for k, (number, row) in enumerate(places) if not _outdated(row, image, parts[number].remade(made), access, night)]
        if fits:
            number, row = places.pop(fits[0])
            parts[number].moved[image.path] = row["path"]
            parts[number].images.append(image)
            plan.counts["moved"] += 1
        else:
            missing.append(image)
    plan.counts["new"] = len(missing)
    plan.counts["deleted"] = sum(len(part.lost) - len(part.moved) for part in parts.values())
    if night:
        _fill([part for part in parts.values() if part.images], missing, rows_per_part)
    held = {image.path for part in parts.values() for image in part.images}
    rest = [image for image in missing if image.path not in held]
    for part in parts.values():
        if not part.images:
            plan.gone.append(part.number)
        else:
            (plan.changed if part.changes else plan.kept).append(part.plain(duplicates))
    free = (number for number in range(len(parts) + len(rest) + 1) if number not in parts)
    plan.new = [_Part(next(free), None, images=some).plain(duplicates) for some in _sliced(rest, rows_per_part)]
    return plan


def images_in(parts: Sequence[Part]) -> int:
    """How many images parts hold."""
    return sum(stop - start for part in parts for _, start, stop in part["rows"])


def ranges(rows: Sequence[tuple[int, int]]) -> Iterator[list[int]]:
    """(part, row) in order as [part, first row, after the last]."""
    start = 0
    for i in range(1, len(rows) + 1):
        if i == len(rows) or rows[i] != (rows[i - 1][0], rows[i - 1][1] + 1):
            yield [rows[start][0], rows[start][1], rows[i - 1][1] + 1]
            start = i


@dataclass
class _Part:
    """A part of OUT in the making."""

    number: int
    summary: dict[str, Any] | None
    images: list[Wanted] = field(default_factory=list)
    lost: list[dict[str, Any]] = field(default_factory=list)
    redo: list[str] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)
    added: int = 0
    touched: bool = False

    @property
    def changes(self) -> bool:
        return bool(self.lost or self.redo or self.moved or self.added or self.touched)

    def remade(self, made: str) -> bool:
        """Whether it was made with other settings than these."""
        return self.summary is not None and self.summary.get("made") != made

    def plain(self, duplicates: dict[str, str]) -> Part:
        reasons = {image.path: duplicates[image.path] for image in self.images if image.path in duplicates}
        part = {"part": self.number, "rows": list(ranges([(image.part, image.row) for image in self.images])), "reasons": reasons}
        if self.summary is not None:
            part |= {"redo": self.redo, "moved": self.moved, "fresh": len(self.redo) + self.added, "summary": self.summary}
        return part


def _wanted(ledger: Ledger) -> Iterator[Wanted]:
    for number in sorted(ledger.done(SCAN)):
        names = ["path", "image_id", "reason", "source_bytes", "boxes"]
        table = pq.read_table(ledger.work / "scan" / f"part-{number:05d}.parquet", columns=names)
        for row, (path, image, reason, size, boxes) in enumerate(zip(*(column.to_pylist() for column in table.columns), strict=True)):
            yield Wanted(path, image, reason, size or 0, number, row, boxes)


def _duplicates(wanted: Sequence[Wanted]) -> dict[str, str]:
    """path → "duplicate of …", of images that another path has, too."""
    first: dict[str, str] = {}
    found = {}
    for image in wanted:
        if image.image_id is not None and first.setdefault(image.image_id, image.path) != image.path:
            found[image.path] = f"duplicate of {first[image.image_id]}"
    return found


def _duplicate(reason: str | None) -> str | None:
    return reason if reason is not None and reason.startswith("duplicate of ") else None


def _outdated(row: dict[str, Any], image: Wanted, remade: bool, access: Callable[[str | None, str], str], retry: bool) -> str | None:
    """Why an image is to be done anew, though it is there."""
    if row["image_id"] != image.image_id or row["boxes"] != image.boxes or (image.failed is not None and row["reason"] != image.failed):
        return "changed"
    if (now := access(image.image_id, image.path)) != row["access"]:
        return "pseudonyms" if same_access(now, row["access"]) else "access"
    if remade and row["verdict"] != "unchanged":
        return "settings"
    if retry and image.failed is None and row["verdict"] in ("failed", "withheld") and row["reason"] not in QUARANTINED:
        return "retried"
    return None


def _fill(parts: Sequence[_Part], images: Sequence[Wanted], rows_per_part: int) -> None:
    """Puts new images into parts that are written anyway, and into the smallest besides, a few into each: they are done side by side."""
    changing = [part for part in parts if part.changes]
    smallest = sorted((part for part in parts if not part.changes), key=lambda part: len(part.images))
    targets = changing + smallest[: max(0, _BESIDES - len(changing))]
    todo = deque(images)
    while todo and targets:
        targets = [part for part in targets if len(part.images) < rows_per_part and sum(i.size for i in part.images) < PART_BYTES]
        for part in targets:
            for _ in range(min(_AT_ONCE, len(todo), rows_per_part - len(part.images))):
                part.images.append(todo.popleft())
                part.added += 1


_BESIDES, _AT_ONCE = 4, 4


def _sliced(images: Sequence[Wanted], rows_per_part: int) -> Iterator[list[Wanted]]:
    """Images in parts, none of which reaches over the end of a part of the scan."""
    some: list[Wanted] = []
    for image in images:
        full = len(some) >= rows_per_part or sum(i.size for i in some) + image.size > PART_BYTES
        if some and (full or some[-1].part != image.part):
            yield some
            some = []
        some.append(image)
    if some:
        yield some
