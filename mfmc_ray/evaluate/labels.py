"""Who is in the pictures: a folder for each person, or a table. What groups they are in, a table may say, too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mfmc_ray.access.decide import AccessError
from mfmc_ray.access.tables import Cells, Layout, load, name_of, wrong
from mfmc_ray.evaluate.faces_note import age_band
from mfmc_ray.evaluate.pair import I64
from mfmc_ray.evaluate.pairing import main_face, matched
from mfmc_ray.faces.detect import overlap

FOLDERS = "folders"
"""The value of --labels for which each person's photos have a folder of their own."""
GROUPS = ("sex", "age", "tone")
LAYOUT = Layout(
    "--labels",
    ("path", "person"),
    ("x0", "y0", "x1", "y1", *GROUPS),
    unread=("note", "class", "image_id", "face_no", "seed", "age_band", "split"),
    wanted="the columns path and person, and for photos of several people x0, y0, x1, y1 (px); sex, age and tone if they are known",
)


@dataclass(frozen=True)
class Label:
    """A row of a table.

    Attributes:
        path: of the image in the collection.
        person: who.
        box: x0 y0 x1 y1, px of the upright original; None: the person that the photo is of.
        groups: of `GROUPS`, what is said.
    """

    path: str
    person: str
    box: tuple[float, ...] | None
    groups: Mapping[str, str]


def read(place: str, storage_options: Mapping[str, Any] | None = None) -> list[Label]:
    """The labels of a CSV or Parquet table.

    Raises:
        AccessError: it cannot be read, or a row cannot be used.
    """
    return load(place, storage_options, LAYOUT, _row)


def of_folders(images: pa.Table) -> list[Label]:
    """Labels of a collection in which each person's photos have a folder of their own; photos beside the folders are nobody's."""
    paths = images["path"].to_pylist()
    return [Label(path, path.rpartition("/")[0].partition("/")[0], None, {}) for path in paths if "/" in path]


def assign(labels: Sequence[Label], faces: pa.Table, images: pa.Table) -> tuple[I64, dict[str, list[str]]]:
    """Who each face is, and what the labels say of its groups.

    A label with a box is about the face there (IoU 0.3), one without about the photo's main face.

    Args:
        labels: of `read` or `of_folders`.
        faces: rows of `faces_note.FACES`.
        images: rows of `faces_note.IMAGES`.

    Returns:
        int64 (n,), people from 0, −1 for faces that no label is about; and group → n labels, "" where nothing is said.
    """
    numbers = {name: i for i, name in enumerate(sorted({label.person for label in labels}))}
    person, groups = np.full(faces.num_rows, -1, np.int64), {name: [""] * faces.num_rows for name in GROUPS}
    rows: dict[str, list[int]] = {}
    for i, path in enumerate(faces["path"].to_pylist()):
        rows.setdefault(path, []).append(i)
    sizes = dict(zip(images["path"].to_pylist(), zip(images["width"].to_pylist(), images["height"].to_pylist(), strict=True), strict=True))
    boxes = np.array(faces["box"].to_pylist(), np.float32).reshape(-1, 4)
    by_path: dict[str, list[Label]] = {}
    for label in labels:
        by_path.setdefault(label.path, []).append(label)
    for path, some in by_path.items():
        mine = rows.get(path, [])
        placed = [label for label in some if label.box is not None]
        found: list[tuple[int, Label]] = []
        if placed and mine:
            iou = overlap(np.array([label.box for label in placed], np.float32), boxes[mine])[0]
            found = [(mine[face], placed[row]) for row, face in matched(iou)]
        whole = [label for label in some if label.box is None]
        if len(whole) == 1 and mine:  # of two names for one face neither is known to be right
            found.append((mine[main_face(boxes[mine], *sizes[path])], whole[0]))
        for i, label in found:
            person[i] = numbers[label.person]
            for name, value in label.groups.items():
                groups[name][i] = value
    return person, {name: values for name, values in groups.items() if any(values)}


def _row(number: int, cells: Cells) -> Label:
    path = cells["path"]
    if not isinstance(path, str) or not path:
        raise AccessError("no path; wanted that of the image in the collection")
    given = [cells.get(name) for name in ("x0", "y0", "x1", "y1")]
    box = None
    if any(value not in (None, "") for value in given):
        try:
            box = tuple(float(value) for value in given)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise wrong("box", given, "wanted x0, y0, x1 and y1 in px") from None
        if not all(map(math.isfinite, box)) or box[0] >= box[2] or box[1] >= box[3]:
            raise wrong("box", given, "wanted x0 < x1 and y0 < y1")
    groups = {name: str(cells[name]).strip() for name in GROUPS if cells.get(name) not in (None, "")}
    if "age" in groups and groups["age"].replace(".", "", 1).isdigit():
        groups["age"] = age_band(float(groups["age"]))
    return Label(path, name_of(cells["person"], "person"), box, groups)
