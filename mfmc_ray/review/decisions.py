"""What reviewers have decided about published faces: rows in WORK/reviews, without pixels; the last one of a face counts.

A row is one line of JSON, `Row`'s fields. It is on the disk before the reviewer sees the next face. `approve` says that the result may be
as it is, `redact` that the face is to be covered, `reswap` that it is to wear another fake, and `undo` that an earlier row is void.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mfmc_ray.faces.detect import overlap
from mfmc_ray.faces.faces import F32

FOLDER, FILE = "reviews", "decisions.jsonl"
APPROVE, REDACT, RESWAP, UNDO = "approve", "redact", "reswap", "undo"
DECISIONS = (APPROVE, REDACT, RESWAP, UNDO)
RULE = "review"
"""The reason of a face that is covered because a reviewer said so."""
SAME_IOU = 0.9
"""A face with the number of a row is the row's if their boxes share this much of the union: another scan may number others so."""
REACHED_IOU, REACHED_INSIDE = 0.25, 0.7
"""If none has, the row is about every face that shares this much of the union, or of the smaller box, as a denial of the approvals is."""
_RESULT = ("verdict", "reason", "identity_id", "similarity_to_original", "age_after", "yaw_after", "pitch_after", "roll_after")


class ReviewError(ValueError):
    """The decisions cannot be read or honoured; the message says what would do."""


class LostFaceError(ReviewError):
    """A face that a reviewer has redacted is not found any more, so that it cannot be covered."""


@dataclass(frozen=True)
class Row:
    """One decision.

    Attributes:
        row: its name, that no other row has.
        time: when, ISO 8601 with the zone.
        decision: one of `DECISIONS`.
        image_id, face_no, box: the face, as in `tables.FACES`.
        verdict, identity_id, result: what had become of it when it was decided about; `result` as of `result_of`.
        undoes: the row that an `undo` makes void.
    """

    row: str
    time: str
    decision: str
    image_id: str = ""
    face_no: int = -1
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    verdict: str = ""
    identity_id: str | None = None
    result: str = ""
    undoes: str | None = None


@dataclass(frozen=True)
class Order:
    """What the next run has to do about a face that was decided about.

    Attributes:
        redact: it is covered.
        replace: it does not stay as it is, though an access table allows it.
        rejected: identity_ids that it does not wear again.
        rounds: how often another fake was asked for; each has a random order of its own.
    """

    redact: bool = False
    replace: bool = False
    rejected: frozenset[str] = frozenset()
    rounds: int = 0


@dataclass(frozen=True)
class Reviews:
    """All decisions that stand.

    Attributes:
        images: image_id → its rows, in the order in which they were made.
    """

    images: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)

    @classmethod
    def load(cls, work: Path) -> Reviews:
        """Those of a private folder; none if nobody has decided yet.

        Raises:
            ReviewError: a row cannot be read: what it says of a face is unknown, so nothing is done.
        """
        return cls.of(_read(work))

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Reviews:
        """Those of rows in the order in which they were made; what was undone is left out."""
        void = {row.undoes for row in rows if row.decision == UNDO}
        images: dict[str, list[Row]] = {}
        for row in rows:
            if row.decision != UNDO and row.row not in void:
                images.setdefault(row.image_id, []).append(row)
        return cls({image: tuple(some) for image, some in images.items()})

    def __len__(self) -> int:
        return sum(len(rows) for rows in self.images.values())

    def orders(self, image_id: str, boxes: F32) -> list[Order]:
        """What is to be done about each face of an image.

        Args:
            image_id: of the image.
            boxes: float32 (n, 4) px, of its faces as the scan has them now.

        Raises:
            LostFaceError: a redaction is about none of them.
        """
        rows = self.images.get(image_id, ())
        if not rows:
            return [Order()] * len(boxes)
        faces = _grouped(rows)
        reached = [_reaches(face, boxes) for face in faces]
        lost = [face for face, (some, _) in zip(faces, reached, strict=True) if face.redact and not some]
        if lost:
            raise LostFaceError(f"face {lost[0].face_no} of image {image_id} was redacted by a reviewer and is not found any more")
        found = []
        for i in range(len(boxes)):
            mine = [(face, exact) for face, (some, exact) in zip(faces, reached, strict=True) if i in some]
            # who decides about a face that another scan found decides anew
            since = max((face.at for face, exact in mine if exact), default=-1)
            found.append(
                Order(
                    redact=any(face.redact for face, exact in mine if exact or face.at > since),
                    replace=any(face.rounds for face, _ in mine),
                    rejected=frozenset().union(*(face.rejected for face, _ in mine)),
                    rounds=sum(face.rounds for face, _ in mine),
                )
            )
        return found

    def version(self, image_id: str) -> str:
        """What stands for everything that the next run has to do about an image's faces: sha-256, hex; "" if that is nothing."""
        faces = sorted((face for face in _grouped(self.images.get(image_id, ())) if face.redact or face.rounds), key=lambda face: face.at)
        plain = [[face.face_no, face.box, face.redact, sorted(face.rejected), face.rounds] for face in faces]
        return hashlib.sha256(json.dumps(plain).encode()).hexdigest() if plain else ""

    def last(self, image_id: str, face_no: int, box: Sequence[float]) -> Row | None:
        """The decision that counts of exactly this face; None if there is none."""
        rows = [row for row in self.images.get(image_id, ()) if row.face_no == face_no and _same(row.box, box)]
        return rows[-1] if rows else None


def append(work: Path, decision: str, face: Mapping[str, Any] | None = None, undoes: str | None = None) -> Row:
    """Adds a row; it is on the disk when this returns.

    Args:
        work: the private folder.
        decision: one of `DECISIONS`.
        face: row of `tables.FACES` that it is about; None for an undo.
        undoes: the row that an undo makes void.

    Raises:
        OSError: it could not be written.
    """
    about: dict[str, Any] = {}
    if face is not None:
        x0, y0, x1, y1 = (float(v) for v in face["box"])
        about = {name: face[name] for name in ("image_id", "face_no", "verdict", "identity_id")}
        about |= {"box": (x0, y0, x1, y1), "result": result_of(face)}
    row = Row(secrets.token_hex(8), datetime.now(UTC).isoformat(timespec="seconds"), decision, undoes=undoes, **about)
    with _opened(work) as file:
        file.write(json.dumps(asdict(row)).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return row


def result_of(face: Mapping[str, Any]) -> str:
    """What stands for the published result of a row of `tables.FACES`: other certificates of the same pixels leave it as it is."""
    # as the float32 that the tables hold, so that one number is one text
    values = [struct.pack("<f", value).hex() if isinstance(value, float) else value for value in (face[name] for name in _RESULT)]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


@dataclass
class _Face:
    """What all rows about one face come to, as it was numbered and boxed when it was decided about.

    Attributes:
        at: place of the row that last changed what is to be done, in the image's rows.
    """

    face_no: int
    box: tuple[float, float, float, float]
    redact: bool = False
    rounds: int = 0
    rejected: set[str] = field(default_factory=set)
    at: int = -1

    def take(self, row: Row, at: int) -> None:
        # that a redaction is approved leaves it one
        redact = row.decision == REDACT or (row.decision == APPROVE and self.redact and row.verdict == "redacted")
        if redact != self.redact or row.decision == RESWAP:
            self.at = at
        self.redact = redact
        if row.decision == RESWAP:
            self.rounds += 1
            self.rejected |= {row.identity_id} if row.identity_id else set()


def _grouped(rows: Sequence[Row]) -> list[_Face]:
    faces: list[_Face] = []
    for at, row in enumerate(rows):
        face = next((face for face in faces if face.face_no == row.face_no and _same(face.box, row.box)), None)
        if face is None:
            face = _Face(row.face_no, row.box)
            faces.append(face)
        face.take(row, at)
    return faces


def _reaches(face: _Face, boxes: F32) -> tuple[set[int], bool]:
    """The faces that what was decided about one is about now, and whether it is surely that one."""
    if not len(boxes):
        return set(), False
    if 0 <= face.face_no < len(boxes) and _same(face.box, boxes[face.face_no]):
        return {face.face_no}, True
    iou, inside = overlap(np.array([face.box], np.float32), boxes)
    return {int(i) for i in np.flatnonzero((iou[0] >= REACHED_IOU) | (inside[0] >= REACHED_INSIDE))}, False


def _same(box: Sequence[float] | F32, other: Sequence[float] | F32) -> bool:
    iou, _ = overlap(np.array([box], np.float32), np.array([other], np.float32))
    return bool(iou[0, 0] >= SAME_IOU)


@contextlib.contextmanager
def _opened(work: Path) -> Iterator[BinaryIO]:
    """The file, to be added to by nobody else meanwhile; what a crash has left of a line is taken off, for nobody was told of it."""
    folder = work / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    with os.fdopen(os.open(folder / FILE, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
        with contextlib.suppress(OSError):  # some shared mounts have no flock
            fcntl.flock(file, fcntl.LOCK_EX)
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)
        file.seek(whole)
        yield file


def _read(work: Path) -> list[Row]:
    path = work / FOLDER / FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ReviewError(f"{path} cannot be read: {error.strerror}") from error
    found = []
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), 1):
        try:
            found.append(_row(json.loads(line)))
        except (ValueError, TypeError, KeyError) as error:
            raise ReviewError(f"{path}: line {number} is no decision; take it out, or give the file back as it was") from error
    return found


def _row(plain: Any) -> Row:
    row = Row(**{**plain, "box": tuple(float(v) for v in plain.get("box", Row.box))})
    if row.decision not in DECISIONS or len(row.box) != 4 or not isinstance(row.face_no, int):
        raise ValueError(row.decision)
    return row
