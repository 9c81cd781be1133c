"""Boxes that the user brings: where faces are, from labels or from another detector. docs/boxes.md has the formats.

COCO (https://cocodataset.org/#format-data) gives x, y, width and height in px; img2dataset's `face_bboxes` are x0 y0 x1 y1 relative to the
image's width and height; a table may also have boxes in px. All are of the upright image.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mfmc_ray.faces.faces import F32

NAMES = ("image_id", "path", "file_name", "image", "key")
"""Columns that name an image, the first that is there counts."""
CORNERS = ("x0", "y0", "x1", "y1")
NAMED_ERRORS = 10
_IMAGE_ID = re.compile(r"[0-9a-fA-F]{64}")
_LARGEST = 1_000_000  # px
_SLACK = 0.5  # of a side: relative boxes may reach so far beyond the border


class BoxesError(ValueError):
    """A file of boxes cannot be used; the message says where and what would do."""


@dataclass(frozen=True)
class Boxes:
    """Where the faces of some images are.

    Attributes:
        images: image_id, path, path without extension, or key (an image's file name without folder and extension) → float32 (n, 4), x0 y0
            x1 y1.
        keys: whether images are named by key.
        relative: whether the boxes are relative to the image's width and height; px otherwise.
        instead: whether an image that is named has no other faces; an image that is not named is looked at all the same.
        digest: sha-256, hex, over all of it.
    """

    images: Mapping[str, F32]
    keys: bool = False
    relative: bool = False
    instead: bool = False
    digest: str = field(default="")

    def __post_init__(self) -> None:
        told = hashlib.sha256(self._kind)
        for name in sorted(self.images):
            told.update(name.encode() + b"\0" + self.images[name].tobytes())
        object.__setattr__(self, "digest", told.hexdigest())

    @property
    def _kind(self) -> bytes:
        return f"boxes 1 {self.keys} {self.relative} {self.instead}".encode()

    @classmethod
    def load(cls, place: str, storage_options: Mapping[str, Any] | None = None, *, instead: bool = False) -> Boxes:
        """The boxes in a Parquet, JSON or CSV file, or in the Parquet files of a folder.

        Args:
            place: a local path or a URL that fsspec opens.
            storage_options: for fsspec, of a URL.
            instead: as the attribute.

        Raises:
            BoxesError: it cannot be read, or some row cannot be used; then none is.
        """
        rows = _rows(place, storage_options)
        name = place.rstrip("/").rpartition("/")[2]
        found: dict[str, list[list[float]]] = {}
        kinds: set[tuple[str, str]] = set()
        faults = []
        for number, row in enumerate(rows, 1):
            try:
                image, named_by = _image(row)
                boxes, kind = _boxes(row)
            except BoxesError as error:
                faults.append(f"row {number}: {error}")
                continue
            kinds.add((named_by, kind))
            found.setdefault(image, []).extend(boxes)
        if faults:
            more = f"; and {len(faults) - NAMED_ERRORS} more rows" if len(faults) > NAMED_ERRORS else ""
            raise BoxesError(f"{name}: {'; '.join(faults[:NAMED_ERRORS])}{more}")
        if len({kind for _, kind in kinds}) > 1:
            raise BoxesError(f"{name}: some boxes are relative and some in px; give one kind")
        arrays = {image: np.array(boxes, np.float32).reshape(-1, 4) for image, boxes in found.items()}
        return cls(arrays, any(by == "key" for by, _ in kinds), any(kind == "relative" for _, kind in kinds), instead)

    def of(self, image_id: str | None, path: str, width: int, height: int) -> F32 | None:
        """The boxes of an image, float32 (n, 4), px of the upright image; None if the file does not name it.

        Args:
            image_id: sha-256 of its bytes, hex.
            path: in the collection.
            width, height: px, upright.
        """
        found = self._named(image_id, path)
        if found is None:
            return None
        return found * np.array([width, height] * 2, np.float32) if self.relative else found

    def version(self, image_id: str | None, path: str) -> str | None:
        """sha-256, hex, over an image's boxes; None if the file does not name it."""
        found = self._named(image_id, path)
        return None if found is None else hashlib.sha256(self._kind + found.tobytes()).hexdigest()

    def _named(self, image_id: str | None, path: str) -> F32 | None:
        names = [image_id, path, _stem(path)]
        if self.keys:
            names.append(_stem(path.rpartition("/")[2]))
        found = [self.images[name] for name in dict.fromkeys(names) if name is not None and name in self.images]
        return np.concatenate(found) if found else None


def _stem(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    return folder + slash + (name.rpartition(".")[0] or name)


def _rows(place: str, storage_options: Mapping[str, Any] | None) -> Iterable[dict[str, Any]]:
    """The rows as column → value, whatever the format."""
    name = place.rstrip("/").rpartition("/")[2]
    try:
        fs, path = fsspec.core.url_to_fs(place, **(storage_options or {}))
        if fs.isdir(path):
            files = sorted(fs.glob(path.rstrip("/") + "/*.parquet"))
            if not files:
                raise BoxesError(f"{place}: no Parquet file is in this folder")
            return [row for file in files for row in _table(pq.read_table(file, filesystem=fs, columns=None))]
        data = bytes(fs.cat_file(path))
    except FileNotFoundError as error:
        raise BoxesError(f"{place}: not found; --boxes wants a Parquet, JSON or CSV file") from error
    except BoxesError:
        raise
    except ImportError as error:
        raise BoxesError(f"{place}: a package for this kind of URL is missing; for s3:// pip install mfmc-ray[s3] ({error})") from error
    except Exception as error:  # stores raise what they like
        raise BoxesError(f"{place}: cannot be read: {type(error).__name__}: {error}") from error
    try:
        if data.startswith(b"PAR1"):
            return _table(pq.read_table(pa.BufferReader(data)))
        text = data.decode("utf-8-sig")
        if text.lstrip().startswith(("{", "[")):
            return _json(text)
        return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except (OSError, pa.ArrowException) as error:
        raise BoxesError(f"{name}: a damaged Parquet file ({error})") from error
    except (UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
        raise BoxesError(f"{name}: neither Parquet nor JSON or CSV in UTF-8 ({error})") from error


def _table(table: pa.Table) -> list[dict[str, Any]]:
    wanted = [name for name in (*NAMES, "boxes", "box", "bbox", "face_bboxes", *CORNERS) if name in table.column_names]
    if "image" in wanted and not pa.types.is_string(table.schema.field("image").type):
        wanted.remove("image")  # a column of pictures
    rows: list[dict[str, Any]] = table.select(wanted).to_pylist()
    return rows


def _json(text: str) -> Iterable[dict[str, Any]]:
    """COCO, a list of rows, or a row on each line."""
    try:
        plain = json.loads(text)
    except json.JSONDecodeError:
        plain = [json.loads(line) for line in text.splitlines() if line.strip()]
    if isinstance(plain, dict) and "annotations" in plain:
        return list(_coco(plain))
    rows = plain if isinstance(plain, list) else [plain]
    if not all(isinstance(row, dict) for row in rows):
        raise BoxesError("wanted COCO, a list of objects, or an object on each line")
    return rows


def _coco(plain: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows of a COCO file. Of several categories those called face count; an image without annotations has no faces."""
    try:
        files = {image["id"]: str(image["file_name"]) for image in plain["images"]}
        names = {category["id"]: str(category["name"]).lower() for category in plain.get("categories", ())}
        faces = {number for number, name in names.items() if "face" in name}
        if len(names) > 1 and not faces:
            raise BoxesError(f"none of the categories is called face: {', '.join(sorted(names.values())[:NAMED_ERRORS])}")
        counted = faces or set(names)
        yield from ({"file_name": name, "boxes": []} for name in files.values())
        for one in plain["annotations"]:
            if not counted or one.get("category_id") in counted:
                if one["image_id"] not in files:
                    raise BoxesError(f"annotation {one.get('id')} is of an image {one['image_id']!r} that is not in images")
                yield {"file_name": files[one["image_id"]], "bbox": one["bbox"]}
    except (KeyError, TypeError) as error:
        raise BoxesError(f"no COCO file: {error} is missing or of another kind; see docs/boxes.md") from error


def _image(row: Mapping[str, Any]) -> tuple[str, str]:
    named_by = next((name for name in NAMES if row.get(name) not in (None, "")), None)
    if named_by is None:
        raise BoxesError(f"it names no image; wanted one of the columns {', '.join(NAMES)}")
    name = str(row[named_by])
    if name.startswith(("/", "./", "../")) or "://" in name:
        raise BoxesError(f"image {name!r}: wanted an image_id, or the path relative to the collection")
    return name.lower() if _IMAGE_ID.fullmatch(name) else name, named_by


def _boxes(row: Mapping[str, Any]) -> tuple[list[list[float]], str]:
    """A row's boxes as x0 y0 x1 y1, and what they are in: px or relative."""
    if "boxes" in row:
        return [_box(one) for one in _listed(row["boxes"])], "px"
    if "box" in row:
        return [_box(row["box"])], "px"
    if "bbox" in row:
        x, y, width, height = _numbers(row["bbox"])
        return [_box([x, y, x + width, y + height])], "px"
    if "face_bboxes" in row:
        some = _listed(row["face_bboxes"])
        several = [some] if some and not isinstance(some[0], (list, tuple)) else some
        found = [_box(one) for one in several]
        if any(abs(v) > 1 + _SLACK for box in found for v in box):
            raise BoxesError("face_bboxes are relative to width and height, 0–1; give boxes in px as box or boxes")
        return found, "relative"
    if all(name in row for name in CORNERS):
        return [_box([row[name] for name in CORNERS])], "px"
    raise BoxesError("it has no boxes; wanted boxes, box, bbox, face_bboxes, or x0, y0, x1 and y1")


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            raise BoxesError(f"boxes {value[:60]!r}: wanted a list") from None
    if not isinstance(value, list):
        raise BoxesError("wanted a list of boxes")
    return value


def _numbers(value: Any) -> list[float]:
    try:
        numbers = [float(v) for v in _listed(value)]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != 4 or not all(math.isfinite(v) and abs(v) <= _LARGEST for v in numbers):
        raise BoxesError(f"box {str(value)[:60]}: wanted four numbers")
    return numbers


def _box(value: Any) -> list[float]:
    x0, y0, x1, y1 = _numbers(value)
    if not (x0 < x1 and y0 < y1):
        raise BoxesError(f"box {str(value)[:60]}: wanted x0 < x1 and y0 < y1")
    return [x0, y0, x1, y1]
