"""Approvals: a table whose rows name a face by its image and its box, and say whether it may stay as it is.

docs/access.md has the schema. A face is kept if a row allows it and none denies it. Each row is matched by itself: whether it approves a
face depends on no other row that approves, so that without a row never more is disclosed than with it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfmc_ray.access.decide import AccessError, Decision
from mfmc_ray.access.effects import told
from mfmc_ray.access.tables import Cells, Layout, allow_of, image_of, load, names_of, wrong
from mfmc_ray.faces.detect import overlap
from mfmc_ray.faces.faces import F32, Faces
from mfmc_ray.people.sightings import Sightings

SAME_IOU = 0.5
"""An approval is about the one face whose box shares this much of the union with the row's."""
DENIED_IOU, DENIED_INSIDE = 0.25, 0.7
"""A denial reaches further: every face that shares this much of the union, or of the smaller box, with the row's."""
CORNERS = ("x0", "y0", "x1", "y1")
_LARGEST = 1_000_000  # px; float32 computes areas of such boxes


def _has_boxes(columns: Sequence[str]) -> bool:
    corners = [column for column in CORNERS if column in columns]
    return ("box" in columns) != bool(corners) and len(corners) in (0, 4)


LAYOUT = Layout(
    "--approvals",
    ("image",),
    (*CORNERS, "box", "allow"),
    unread=("person", "note"),
    wanted="the column image, and either x0, y0, x1 and y1 or, in Parquet, box",
    fits=_has_boxes,
)


class Row(NamedTuple):
    """One row of the table.

    Attributes:
        number: how it is named where it keeps a face: what the column `row` says, or its place, from 1.
        allow: whether it approves or denies.
        box: x0 y0 x1 y1, px of the upright image.
    """

    number: int
    allow: bool
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Approvals:
    """The rows of an approvals table, an access model.

    Attributes:
        images: image_id or path → its rows, in the table's order.
        digest: sha-256, hex, over all that decisions depend on: images, boxes, who allows, numbers; not over persons, whom it would give
            away to whoever guesses.
    """

    images: Mapping[str, tuple[Row, ...]]
    digest: str = field(default="")

    def __post_init__(self) -> None:
        plain = json.dumps(sorted((name, rows) for name, rows in self.images.items()))
        object.__setattr__(self, "digest", hashlib.sha256(f"approvals 1 {plain}".encode()).hexdigest())

    @classmethod
    def load(cls, path: str, storage_options: Mapping[str, Any] | None = None) -> Approvals:
        """The table in a CSV or Parquet file; arguments and errors as of `tables.load`."""
        found: dict[str, list[Row]] = {}
        for image, row in load(path, storage_options, LAYOUT, _row):
            found.setdefault(image, []).append(row)
        return cls({image: tuple(rows) for image, rows in found.items()})

    def __len__(self) -> int:
        return sum(len(rows) for rows in self.images.values())

    def rows_of(self, image_id: str, path: str) -> list[Row]:
        """The rows about an image, by its id or its path, in the order of their numbers."""
        rows = (row for name in names_of(image_id, path) for row in self.images.get(name, ()))
        return sorted(rows, key=lambda row: row.number)

    def decide(self, image_id: str, path: str, faces: Faces) -> list[Decision]:
        """One decision a face: kept if a row approves it and none denies it; the reason is "approvals:" and that row's number."""
        rows = self.rows_of(image_id, path)
        reached = reaches(rows, faces.boxes)
        decided = []
        for i in range(len(faces)):
            mine = [row for row, faces_of_row in zip(rows, reached, strict=True) if faces_of_row[i]]
            denials = [row.number for row in mine if not row.allow]
            keep = bool(mine) and not denials
            denied = f"approvals:{denials[0]}" if denials else None
            decided.append(Decision(keep, f"approvals:{mine[0].number}" if keep else None, denied))
        return decided

    def version(self, image_id: str | None, path: str) -> str:
        """sha-256, hex, over the rows about an image; "" without any."""
        rows = self.rows_of(image_id or "", path)
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest() if rows else ""

    def bound(self, sightings: Sightings) -> Approvals:
        """Itself: its rows are about boxes, whoever it is."""
        return self

    def effects(self) -> list[BoxEffects]:
        """The table's."""
        return [BoxEffects(self)]


class BoxEffects:
    """Which approvals have no effect. Denials may be there for every face, and nobody misses what they are about."""

    def __init__(self, approvals: Approvals) -> None:
        self._approvals = approvals
        self._there: set[int] = set()
        self._named: set[int] = set()

    def see(self, image_id: str | None, path: str, boxes: Callable[[], F32]) -> None:
        """As of `Effects`."""
        rows = self._approvals.rows_of(image_id or "", path)
        if rows:
            self._there.update(row.number for row in rows)
            self._named.update(rows[k].number for k in np.flatnonzero(reaches(rows, boxes()).any(1)))

    def lines(self, enrolled: Collection[str] | None) -> list[str]:
        """As of `Effects`."""
        every = {row.number for rows in self._approvals.images.values() for row in rows if row.allow}
        return told(
            "Approvals",
            (every - self._there, "for images that are not in the collection"),
            ((every & self._there) - self._named, "for no face, or for several that it could be: nobody is kept by them"),
        )


def reaches(rows: Sequence[Row], boxes: F32) -> NDArray[np.bool_]:
    """Which faces each row is about: bool (rows, n).

    Args:
        rows: of one image.
        boxes: float32 (n, 4), x0 y0 x1 y1 px, of all its faces.

    Returns:
        Of a row that approves one face or none: with several that it could mean, it means nobody. Of a denial all that it could mean.
    """
    if not rows or not len(boxes):
        return np.zeros((len(rows), len(boxes)), bool)
    iou, inside = overlap(np.array([row.box for row in rows], np.float32), boxes)
    allow = np.array([row.allow for row in rows])
    same = iou >= SAME_IOU
    one = same & (same.sum(1) == 1)[:, None]
    return np.asarray(np.where(allow[:, None], one, (iou >= DENIED_IOU) | (inside >= DENIED_INSIDE)), bool)


def _row(number: int, cells: Cells) -> tuple[str, Row]:
    """The image that a row names, and the row.

    Raises:
        AccessError: something in it cannot be used.
    """
    return image_of(cells), Row(number, allow_of(cells), _box(cells))


def _box(cells: Cells) -> tuple[float, float, float, float]:
    values = cells["box"] if "box" in cells else [cells[name] for name in CORNERS]
    if isinstance(values, str):
        raise AccessError("box is text; wanted a list of four numbers, or the columns x0, y0, x1 and y1")
    try:
        x0, y0, x1, y1 = (float(value) for value in values)
    except (TypeError, ValueError):
        raise wrong("box", values, "wanted four numbers") from None
    if not all(math.isfinite(v) and abs(v) <= _LARGEST for v in (x0, y0, x1, y1)):
        raise wrong("box", values, "wanted px of the upright image")
    if not (x0 < x1 and y0 < y1):
        raise wrong("box", values, "wanted x0 < x1 and y0 < y1")
    return x0, y0, x1, y1
