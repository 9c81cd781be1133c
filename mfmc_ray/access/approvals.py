"""Approvals: a table whose rows name a face by its image and its box, and say whether it may stay as it is.

docs/access.md has the schema. A face is kept if a row allows it and none denies it. Each row is matched by itself: whether it approves a
face depends on no other row that approves, so that without a row never more is disclosed than with it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mfmc_ray.access.decide import AccessError, Decision
from mfmc_ray.faces.detect import overlap
from mfmc_ray.faces.faces import F32, Faces
from mfmc_ray.people.sightings import Sightings
from mfmc_ray.places import is_remote

SAME_IOU = 0.5
"""An approval is about the one face whose box shares this much of the union with the row's."""
DENIED_IOU, DENIED_INSIDE = 0.25, 0.7
"""A denial reaches further: every face that shares this much of the union, or of the smaller box, with the row's."""
CORNERS = ("x0", "y0", "x1", "y1")
COLUMNS = ("image", *CORNERS, "box", "allow", "row", "person")
NAMED_ERRORS = 10
"""Rows that cannot be used are all counted, and so many of them named."""
_LARGEST = 1_000_000  # px; float32 computes areas of such boxes
_IMAGE_ID = re.compile(r"[0-9a-fA-F]{64}")
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False, "": False}


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
        """The table in a CSV or Parquet file.

        Args:
            path: a local path or a URL that fsspec opens.
            storage_options: for fsspec, of a URL.

        Raises:
            AccessError: it cannot be read, or some row cannot be used; then none is.
        """
        name = path.rpartition("/")[2]
        found: dict[str, list[Row]] = {}
        faults: list[str] = []
        numbers: set[int] = set()
        for place, plain in enumerate(_rows(_read(path, storage_options), name), 1):
            try:
                image, row = _row(plain, place)
                if row.number in numbers:
                    raise AccessError(f"another row has the number {row.number}, too")
            except AccessError as error:
                faults.append(f"row {place}: {error}")
                continue
            numbers.add(row.number)
            found.setdefault(image, []).append(row)
        if faults:
            more = f"; and {len(faults) - NAMED_ERRORS} more rows" if len(faults) > NAMED_ERRORS else ""
            raise AccessError(f"{name}: {'; '.join(faults[:NAMED_ERRORS])}{more}")
        return cls({image: tuple(rows) for image, rows in found.items()})

    def __len__(self) -> int:
        return sum(len(rows) for rows in self.images.values())

    def rows_of(self, image_id: str, path: str) -> list[Row]:
        """The rows about an image, by its id or its path, in the order of their numbers."""
        # 64 hexadecimal digits are an id whatever a file is called
        named = {image_id} if _IMAGE_ID.fullmatch(path) else {image_id, path}
        return sorted((row for name in named for row in self.images.get(name, ())), key=lambda row: row.number)

    def decide(self, image_id: str, path: str, faces: Faces) -> list[Decision]:
        """One decision a face: kept if a row approves it and none denies it; the reason is "approvals:" and that row's number."""
        rows = self.rows_of(image_id, path)
        reached = reaches(rows, faces.boxes)
        decided = []
        for i in range(len(faces)):
            mine = [row for row, faces_of_row in zip(rows, reached, strict=True) if faces_of_row[i]]
            keep = bool(mine) and all(row.allow for row in mine)
            decided.append(Decision(keep, f"approvals:{mine[0].number}" if keep else None))
        return decided

    def version(self, image_id: str | None, path: str) -> str:
        """sha-256, hex, over the rows about an image; "" without any."""
        rows = self.rows_of(image_id or "", path)
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest() if rows else ""

    def bound(self, sightings: Sightings) -> Approvals:
        """Itself: its rows are about boxes, whoever it is."""
        return self


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


def _read(path: str, storage_options: Mapping[str, Any] | None) -> bytes:
    try:
        if not is_remote(path):
            return Path(path.removeprefix("file://")).expanduser().read_bytes()
        fs, place = fsspec.core.url_to_fs(path, **(storage_options or {}))
        return bytes(fs.cat_file(place))
    except FileNotFoundError as error:
        raise AccessError(f"{path}: not found; --approvals wants a CSV or Parquet file") from error
    except ImportError as error:
        raise AccessError(f"{path}: a package for this kind of URL is missing; for s3:// pip install mfmc-ray[s3] ({error})") from error
    except Exception as error:  # stores raise what they like
        raise AccessError(f"{path}: cannot be read: {type(error).__name__}: {error}") from error


def _rows(data: bytes, name: str) -> Iterator[dict[str, Any]]:
    """The rows as column → value: text from a CSV, what it is from Parquet."""
    if data.startswith(b"PAR1"):
        try:
            table = pq.read_table(pa.BufferReader(data))
            _check_columns(table.column_names, name)
            rows: list[dict[str, Any]] = table.drop_columns([n for n in table.column_names if n == "person"]).to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise AccessError(f"{name}: a damaged Parquet file ({error})") from error
        yield from rows
        return
    try:
        lines = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        columns = [column.strip() for column in next(lines, [])]
        _check_columns(columns, name)
        place = 0
        for cells in lines:
            if not cells:
                continue
            place += 1
            if len(cells) != len(columns):
                raise AccessError(f"{name}: row {place}: {len(cells)} cells, but {len(columns)} columns")
            yield dict(zip(columns, cells, strict=True))
    except UnicodeDecodeError as error:
        raise AccessError(f"{name}: neither Parquet nor a CSV in UTF-8") from error
    except csv.Error as error:
        raise AccessError(f"{name}: line {lines.line_num} is no CSV: {error}") from error


def _check_columns(columns: Sequence[str], name: str) -> None:
    if unknown := [column for column in columns if column not in COLUMNS]:
        raise AccessError(f"{name}: unknown column {unknown[0]!r}; there may be: {', '.join(COLUMNS)}")
    if doubled := [column for column in columns if columns.count(column) > 1]:
        raise AccessError(f"{name}: the column {doubled[0]!r} is there twice")
    corners = [column for column in CORNERS if column in columns]
    if "image" not in columns or ("box" in columns) == bool(corners) or len(corners) not in (0, 4):
        raise AccessError(f"{name}: wanted the column image, and either x0, y0, x1 and y1 or, in Parquet, box")


def _row(plain: Mapping[str, Any], place: int) -> tuple[str, Row]:
    """The image that a row names, and the row.

    Raises:
        AccessError: something in it cannot be used.
    """
    return _image(plain["image"]), Row(_number(plain, place), _allow(plain), _box(plain))


def _image(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise AccessError("no image; wanted its image_id (sha-256, 64 hexadecimal digits) or its path in the collection")
    if _IMAGE_ID.fullmatch(value):
        return value.lower()
    if value.startswith(("/", "./", "../")) or "://" in value:
        raise AccessError(f"image {value!r}: wanted an image_id, or the path relative to the collection, as OUT's column path has it")
    return value


def _box(plain: Mapping[str, Any]) -> tuple[float, float, float, float]:
    values = plain["box"] if "box" in plain else [plain[name] for name in CORNERS]
    if isinstance(values, str):
        raise AccessError("box is text; wanted a list of four numbers, or the columns x0, y0, x1 and y1")
    try:
        x0, y0, x1, y1 = (float(value) for value in values)
    except (TypeError, ValueError):
        raise AccessError(f"box {_short(values)}: wanted four numbers") from None
    if not all(math.isfinite(v) and abs(v) <= _LARGEST for v in (x0, y0, x1, y1)):
        raise AccessError(f"box {_short(values)}: wanted px of the upright image")
    if not (x0 < x1 and y0 < y1):
        raise AccessError(f"box {_short(values)}: wanted x0 < x1 and y0 < y1")
    return x0, y0, x1, y1


def _allow(plain: Mapping[str, Any]) -> bool:
    value = plain.get("allow", True)
    if value is None or isinstance(value, bool):
        return bool(value)
    word = str(value).strip().lower()
    if word not in _WORDS:
        raise AccessError(f"allow {_short(value)}: wanted true or false")
    return _WORDS[word]


def _number(plain: Mapping[str, Any], place: int) -> int:
    if "row" not in plain:
        return place
    text = str(plain["row"]).strip()
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise AccessError(f"row {_short(plain['row'])}: wanted a whole number, one for each row")
    return int(text)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
