"""A reviewer's session: the queue as it was at the beginning, and what is decided about it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mfmc_ray.review.concerns import GAPS, KINDS, swappable
from mfmc_ray.review.decisions import APPROVE, REDACT, RESWAP, UNDO, append
from mfmc_ray.review.queue import Item, Queue

ALL = "all"
FRESH_SECONDS = 2.0
"""For so long OUT is taken to be what it was."""


class ChangedError(Exception):
    """OUT is not any more what the session began with."""


class WrongError(ValueError):
    """A request that makes no sense; the message says which."""


class Session:
    """Args:
    work: the private folder.
    queue: what is to be looked at.
    pictures: number and item → view → JPEG.
    unchanged: whether OUT still holds what the queue was made from.
    shows_originals: whether `pictures` shows originals, too.
    """

    def __init__(
        self,
        work: Path,
        queue: Queue,
        pictures: Callable[[int, Item], Mapping[str, bytes]],
        unchanged: Callable[[], bool] = lambda: True,
        *,
        shows_originals: bool = True,
    ) -> None:
        self.work, self.queue, self._pictures, self._unchanged = work, queue, pictures, unchanged
        self.shows_originals = shows_originals
        self.decided: dict[int, str] = {}
        self._rows: list[tuple[int, str, str | None]] = []  # item, its row, what stood before
        self._by_kind: dict[str, list[int]] = {ALL: list(range(len(queue.items)))}
        for number, item in enumerate(queue.items):
            for kind, _ in item.words:
                self._by_kind.setdefault(kind, []).append(number)
        self._lock, self._looked = threading.Lock(), 0.0

    @property
    def kinds(self) -> list[tuple[str, int]]:
        """Kinds of concern and how many of the queued faces have them."""
        return [(kind, len(self._by_kind[kind])) for kind in (ALL, *KINDS) if self._by_kind.get(kind)]

    @property
    def counts(self) -> Counter[str]:
        """Decision → faces decided about in this session."""
        return Counter(self.decided.values())

    def state(self) -> dict[str, Any]:
        """How far it is, as plain data."""
        counts = self.counts
        return {
            "left": len(self.queue.items) - len(self.decided),
            "queued": len(self.queue.items),
            "beyond": self.queue.open - len(self.queue.items),
            "approved": counts[APPROVE],
            "waiting": sum(self.queue.waiting.values()) + counts[REDACT] + counts[RESWAP],
            "undo": bool(self._rows),
        }

    def some(self, kind: str, start: int, count: int) -> dict[str, Any]:
        """A piece of the queue, as plain data.

        Raises:
            WrongError: there is no such kind.
        """
        if kind not in self._by_kind and kind not in KINDS:
            raise WrongError("kind")
        numbers = self._by_kind.get(kind, [])
        return {"items": [self._plain(n) for n in numbers[start : start + count]], "total": len(numbers)}

    def picture(self, number: int, view: str) -> bytes | None:
        """A JPEG; None if it cannot be shown.

        Raises:
            WrongError: there is no such item.
            ChangedError: OUT has changed.
        """
        item = self._item(number)
        self._check()
        return self._pictures(number, item).get(view)

    def decide(self, number: int, decision: str) -> dict[str, Any]:
        """Decides about an item, and writes it down; `state` and the item's `number`.

        Raises:
            WrongError: there is no such item or decision, or no other fake could be tried.
            ChangedError: OUT has changed.
        """
        item = self._item(number)
        if decision not in (APPROVE, REDACT, RESWAP) or (decision == RESWAP and not swappable(item.face)):
            raise WrongError("decision")
        self._check()
        with self._lock:
            row = append(self.work, decision, item.face)
            self._rows.append((number, row.row, self.decided.get(number)))
            self.decided[number] = decision
            return {**self.state(), "number": number, "decision": decision}

    def undo(self) -> dict[str, Any]:
        """Makes this session's last decision void; as `decide`, `decision` is what stands now.

        Raises:
            WrongError: there is none.
        """
        with self._lock:
            if not self._rows:
                raise WrongError("nothing to undo")
            number, row, before = self._rows[-1]
            append(self.work, UNDO, undoes=row)
            self._rows.pop()
            if before is None:
                del self.decided[number]
            else:
                self.decided[number] = before
            return {**self.state(), "number": number, "decision": before}

    def _check(self) -> None:
        if time.monotonic() - self._looked > FRESH_SECONDS:
            if not self._unchanged():
                raise ChangedError
            self._looked = time.monotonic()

    def _item(self, number: int) -> Item:
        if not 0 <= number < len(self.queue.items):
            raise WrongError("number")
        return self.queue.items[number]

    def _plain(self, number: int) -> dict[str, Any]:
        item = self.queue.items[number]
        face = item.face
        return {
            "number": number,
            "image": face["image_id"][:12],
            "path": face["path"],
            "face_no": face["face_no"],
            "verdict": face["verdict"],
            "reason": face["reason"] or face["access_reason"],
            "words": [list(pair) for pair in item.words],
            "facts": _facts(face),
            "swappable": swappable(face),
            "decision": self.decided.get(number),
        }


def _facts(face: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """What is known of a face, for people: names and values."""

    def cosine(value: float | None) -> str:
        return "–" if value is None else f"{value:.3f}"

    facts = [("verdict", face["verdict"])]
    if face["verdict"] == "replaced":
        facts += [
            ("cosine to its original", cosine(face["similarity_to_original"])),
            ("to the nearest known face", f"{cosine(face['max_similarity_to_known'])}, threshold {cosine(face['threshold'])}"),
            ("fakes tried", str(face["attempts"])),
            ("read as", " → ".join(f"{face[f'sex_{when}']}, {face[f'age_{when}'] or 0:.0f} years" for when in ("before", "after"))),
        ]
        turned = [name for name in GAPS if name in ("yaw", "pitch", "roll")]
        gaps = [f"{name} {(face[f'{name}_after'] or 0) - (face[f'{name}_before'] or 0):+.0f}°" for name in turned]
        facts.append(("pose changed by", ", ".join(gaps)))
    elif face["verdict"] == "redacted":
        facts.append(("rule", str(face["reason"])))
    else:
        facts.append(("allowed by", str(face["access_reason"])))
    x0, y0, x1, y1 = face["box"]
    return [*facts, ("size", f"{x1 - x0:.0f} × {y1 - y0:.0f} px")]
