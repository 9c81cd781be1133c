"""The queue: the published faces that a reviewer should look at first, without those that were decided about already."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mfmc_ray.review import concerns
from mfmc_ray.review.decisions import APPROVE, REDACT, RESWAP, RULE, Reviews, Row, result_of


class Seen(Protocol):
    """What is known of who is who: `people.sightings.Sightings`."""

    def of(self, image_id: str | None) -> tuple[Any, ...]:
        """One sighting for each face of an image, or none."""
        ...


@dataclass(frozen=True)
class Item:
    """A published face to be looked at.

    Attributes:
        face: its row, `concerns.COLUMNS`.
        part: number of the published part that it is in.
        risk: from 0, see `concerns.risk`.
        words: (kind, text) of its concerns, the heaviest first.
    """

    face: dict[str, Any]
    part: int
    risk: float
    words: tuple[tuple[str, str], ...]


@dataclass
class Queue:
    """Faces to be looked at, the riskiest first.

    Attributes:
        items: the queue.
        faces: how many faces are published.
        open: how many of them nobody has decided about.
        decided: decision → how many faces it stands for.
        waiting: decisions that no run has honoured yet, likewise.
    """

    items: list[Item] = field(default_factory=list)
    faces: int = 0
    open: int = 0
    decided: Counter[str] = field(default_factory=Counter)
    waiting: Counter[str] = field(default_factory=Counter)


def queue_of(
    parts: Iterable[tuple[int, pa.Table]], reviews: Reviews, usual: Mapping[str, float], *, most: int, seen: Seen | None = None
) -> Queue:
    """The queue of a published result.

    Args:
        parts: number and faces (`concerns.COLUMNS` at least) of each published part, one after the other.
        reviews: what was decided.
        usual: guard recognizer → the median cosine of two strangers.
        most: faces that are queued.
        seen: who was recognised.
    """
    queue, heap, order = Queue(), [], itertools.count()  # type: tuple[Queue, list[Any], itertools.count[int]]
    for part, table in parts:
        table = table.select(concerns.COLUMNS).combine_chunks()
        left, again = _undecided(table, reviews, queue)
        queue.faces += table.num_rows
        queue.open += len(left)
        table = table.take(pa.array(left, pa.int64()))
        if not len(left):
            continue
        found = concerns.weights(table, usual, _ambiguous(table, seen))
        found[concerns.AGAIN] = np.where(np.isin(left, list(again)), concerns.AGAIN_WEIGHT, 0.0)
        risks = concerns.risk(found)
        for i in concerns.largest(risks, most):
            entry = (risks[i], -next(order))
            if len(heap) == most and entry < heap[0][:2]:
                break
            face = table.slice(i, 1).to_pylist()[0]
            words = concerns.words(face, {kind: float(v[i]) for kind, v in found.items()}, usual)
            item = Item(face, part, float(risks[i]), tuple(words))
            (heapq.heappush if len(heap) < most else heapq.heappushpop)(heap, (*entry, item))
    queue.items = [item for *_, item in sorted(heap, reverse=True)]
    return queue


def _undecided(table: pa.Table, reviews: Reviews, queue: Queue) -> tuple[list[int], set[int]]:
    """The rows that are to be looked at, and those of them that are what came of a re-swap; counts the others."""
    touched = np.asarray(pc.is_in(table["image_id"], pa.array(list(reviews.images), pa.string())), bool)
    left, again = set(np.flatnonzero(~touched).tolist()), set()
    for i in np.flatnonzero(touched).tolist():
        face = table.slice(i, 1).to_pylist()[0]
        row = reviews.last(face["image_id"], face["face_no"], face["box"])
        state = _state(face, row)
        if row is None or state == _OPEN:
            left.add(i)
            if row is not None and row.decision == RESWAP:
                again.add(i)
            continue
        queue.decided[row.decision] += 1
        if state == _WAITING:
            queue.waiting[row.decision] += 1
    return sorted(left), again


_OPEN, _DONE, _WAITING = "open", "done", "waiting"


def _state(face: Mapping[str, Any], row: Row | None) -> str:
    """Whether a face is to be looked at, was decided about for good, or waits for the next run."""
    if row is None:
        return _OPEN
    if row.decision == REDACT:
        return _DONE if (face["verdict"], face["reason"]) == ("redacted", RULE) else _WAITING
    same = row.result == result_of(face)
    if row.decision == APPROVE:
        return _DONE if same else _OPEN
    return _WAITING if same else _OPEN


def _ambiguous(table: pa.Table, seen: Seen | None) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
    if seen is None:
        return None
    found = np.zeros(table.num_rows, bool)
    for i, (image, number) in enumerate(zip(table["image_id"].to_pylist(), table["face_no"].to_pylist(), strict=True)):
        sightings = seen.of(image)
        found[i] = number < len(sightings) and sightings[number].reason == "ambiguous"
    return found
