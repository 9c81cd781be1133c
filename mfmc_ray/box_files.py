"""Reading files of boxes: COCO, WIDER FACE, img2dataset's Parquet, tables. Their rows come as plain column → value; `boxes` judges them.

WIDER FACE (http://shuoyang1213.me/WIDERFACE, `wider_face_train_bbx_gt.txt`) has for each image a line with its path, one with the number of
its faces, and one for each of them: x y width height in px and six attributes.
"""

from __future__ import annotations

import csv
import glob
import io
import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from mfmc_ray.collection import braces

Row = dict[str, Any]
NAMES = ("image_id", "path", "file_name", "image", "key")
"""Columns that name an image, the first that is there counts."""
CORNERS = ("x0", "y0", "x1", "y1")
COLUMNS = ("boxes", "box", "bbox", "face_bboxes")
"""Columns that hold boxes; `CORNERS` together do, too."""
NAMED_ERRORS = 10
_WIDER = re.compile(r"\s*[^\n]+\.\w+[ \t]*\r?\n[ \t]*\d+[ \t]*\r?\n")
_FACES = re.compile(rb'"name"\s*:\s*"[^"]*face|"face_box"', re.IGNORECASE)


class BoxesError(ValueError):
    """A file of boxes cannot be used; the message says where and what would do."""


class _NoFacesError(BoxesError):
    """It is a file of something else, or of boxes of something else."""


def is_pattern(place: str) -> bool:
    return glob.has_magic(place) or len(braces(place)) > 1


def read_boxes(place: str, storage_options: Mapping[str, Any] | None) -> Iterable[Row]:
    """The rows of a file, of the Parquet files of a folder, or of whatever of a pattern has boxes of faces.

    Raises:
        BoxesError: it cannot be read; not of a pattern's files in which there are no boxes of faces, nor if nothing matches.
    """
    name = place.rstrip("/").rpartition("/")[2]
    try:
        fs, path = fsspec.core.url_to_fs(place, **(storage_options or {}))
        if is_pattern(place) and not fs.exists(path):
            files = sorted({file for pattern in braces(path) for file in fs.glob(pattern) if not _is_junk(file)})
            return [row for file in files for row in _if_faces(fs, file)]
        if fs.isdir(path):
            files = sorted(fs.glob(path.rstrip("/") + "/*.parquet"))
            if not files:
                raise BoxesError(f"{place}: no Parquet file is in this folder")
            return [row for file in files for row in _table(fs.open(file, "rb"))]
        return _parsed(fs, path)
    except FileNotFoundError as error:
        raise BoxesError(f"{place}: not found; --boxes wants a Parquet, JSON, CSV or WIDER FACE file") from error
    except BoxesError as error:
        raise type(error)(f"{name}: {error}") if name not in str(error) else error from error
    except ImportError as error:
        raise BoxesError(f"{place}: a package for this kind of URL is missing; for s3:// pip install mfmc-ray[s3] ({error})") from error
    except Exception as error:  # stores raise what they like
        raise BoxesError(f"{place}: cannot be read: {type(error).__name__}: {error}") from error


def _is_junk(file: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in file.split("/")[-3:])


def _if_faces(fs: Any, file: str) -> Iterable[Row]:
    """A file's rows; none if it is no file of boxes of faces."""
    try:
        return _parsed(fs, file, sure=False)
    except _NoFacesError:
        return []
    except BoxesError as error:
        raise BoxesError(f"{posixpath.basename(file)}: {error}") from error


def _parsed(fs: Any, path: str, sure: bool = True) -> Iterable[Row]:
    """The rows of a file.

    Args:
        fs: its file system.
        path: its name there.
        sure: whether it is known to be about faces.
    """
    try:
        with fs.open(path, "rb") as file:
            if file.read(4) == b"PAR1":
                return _table(file)
            file.seek(0)
            data = bytes(file.read())
        if not sure and b'"annotations"' in data and not _FACES.search(data):
            raise _NoFacesError("no boxes of faces")  # seen before it is parsed: some have 500 MB
        text = data.decode("utf-8-sig")
        if text.lstrip().startswith(("{", "[")):
            return _json(text, sure)
        if _WIDER.match(text):
            return list(_wider(text))
        rows: list[Row] = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
        if not sure and not (rows and _has_boxes(rows[0].keys())):
            raise _NoFacesError("no boxes")
        return rows
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, FileNotFoundError) or not isinstance(error, pa.ArrowException):
            raise
        raise BoxesError(f"a damaged Parquet file ({error})") from error
    except (UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
        raise BoxesError(f"neither Parquet nor JSON, CSV or WIDER FACE in UTF-8 ({error})") from error


def _has_boxes(columns: Iterable[str]) -> bool:
    there = set(columns)
    return bool(there & set(NAMES)) and (bool(there & set(COLUMNS)) or there >= set(CORNERS))


def _table(file: Any) -> list[Row]:
    """The columns that count: beside them there may be pictures."""
    parquet = pq.ParquetFile(file)
    schema = parquet.schema_arrow
    if not _has_boxes(schema.names):
        raise _NoFacesError(f"it has no boxes; wanted a column that names an image and {', '.join(COLUMNS)}, or x0, y0, x1 and y1")
    wanted = [name for name in (*NAMES, *COLUMNS, *CORNERS) if name in schema.names]
    if "image" in wanted and not pa.types.is_string(schema.field("image").type):
        wanted.remove("image")  # a column of pictures
    rows: list[Row] = parquet.read(columns=wanted).to_pylist()
    return rows


def _json(text: str, sure: bool) -> Iterable[Row]:
    """COCO, a list of rows, or a row on each line."""
    try:
        plain = json.loads(text)
    except json.JSONDecodeError:
        plain = [json.loads(line) for line in text.splitlines() if line.strip()]
    if isinstance(plain, dict) and "annotations" in plain:
        return list(_coco(plain, sure))
    rows = plain if isinstance(plain, list) else [plain]
    if not all(isinstance(row, dict) for row in rows):
        raise (BoxesError if sure else _NoFacesError)("wanted COCO, a list of objects, or an object on each line")
    if not sure and not (rows and _has_boxes(rows[0])):
        raise _NoFacesError("no boxes")
    return rows


def _coco(plain: Mapping[str, Any], sure: bool) -> Iterator[Row]:
    """Rows of a COCO file. Of several categories those called face count, and COCO-WholeBody's `face_box`; an image without annotations has
    no faces, and a box without area (some sets have such) is none."""
    try:
        files = {image["id"]: str(image["file_name"]) for image in plain["images"]}
        names = {category["id"]: str(category["name"]).lower() for category in plain.get("categories", ())}
        faces = {number for number, name in names.items() if "face" in name}
        body = any("face_box" in one for one in plain["annotations"])
        if (len(names) > 1 or not sure) and not faces and not body:
            raise _NoFacesError(f"none of the categories is called face: {', '.join(sorted(names.values())[:NAMED_ERRORS])}")
        counted = faces or set(names)
        yield from ({"file_name": name, "boxes": []} for name in files.values())
        for one in plain["annotations"]:
            if body and not one.get("face_valid", "face_box" in one):
                continue
            if body or not counted or one.get("category_id") in counted:
                if one["image_id"] not in files:
                    raise BoxesError(f"annotation {one.get('id')} is of an image {one['image_id']!r} that is not in images")
                box = one["face_box" if body else "bbox"]
                if not _is_empty(box):
                    yield {"file_name": files[one["image_id"]], "bbox": box}
    except (KeyError, TypeError) as error:
        raise BoxesError(f"no COCO file: {error} is missing or of another kind; see docs/boxes.md") from error


def _wider(text: str) -> Iterator[Row]:
    """Rows of a WIDER FACE file. Faces that it calls invalid (small or blurred) are faces; those without area are none."""
    lines = [line.strip() for line in text.splitlines()]
    at = 0
    while at < len(lines):
        name = lines[at]
        at += 1
        if not name:
            continue
        yield {"file_name": name, "boxes": []}
        try:
            count = int(lines[at])
            boxes = [[float(v) for v in line.split()[:4]] for line in lines[at + 1 : at + 1 + count]]
            if len(boxes) != count or any(len(box) != 4 for box in boxes):
                raise ValueError
        except (IndexError, ValueError):
            raise BoxesError(f"line {at + 1}: wanted the number of faces of {name!r}, and as many lines with x y width height") from None
        at += 1 + count
        if count == 0 and at < len(lines) and re.fullmatch(r"(0\s*)+", lines[at]):
            at += 1  # it writes a line of zeros for none
        yield from ({"file_name": name, "bbox": box} for box in boxes if not _is_empty(box))


def _is_empty(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and 0 in box[2:]
