"""Boxes that the user brings: where faces are, from labels or from another detector. docs/boxes.md has the formats.

COCO (https://cocodataset.org/#format-data) and WIDER FACE give x, y, width and height in px; img2dataset's `face_bboxes` are x0 y0 x1 y1
relative to the image's width and height; a table may also have boxes in px. All are of the upright image. `box_files` reads the files.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mfmc_ray.box_files import CORNERS, NAMED_ERRORS, NAMES, BoxesError, read_boxes
from mfmc_ray.faces.faces import F32

__all__ = ["Boxes", "BoxesError"]

_IMAGE_ID = re.compile(r"[0-9a-fA-F]{64}")
_LARGEST = 1_000_000  # px
_SLACK = 0.5  # of a side: relative boxes may reach so far beyond the border


@dataclass(frozen=True)
class Boxes:
    """Where the faces of some images are.

    Attributes:
        images: image_id, path, path without extension, or key (an image's file name without folder and extension) → float32 (n, 4), x0 y0
            x1 y1.
        keys: whether images are named by key.
        relative: whether the boxes are relative to the image's width and height; px otherwise.
        instead: whether an image that is named by its bytes or its whole path has no other faces; every other one is looked at all the
            same: two images may have the same key, the same name but for the extension, or the same end of the path.
        tails: whether images are also named by the end of their path, as datasets do whose labels do not say in which folder the images
            are.
        digest: sha-256, hex, over all of it.
    """

    images: Mapping[str, F32]
    keys: bool = False
    relative: bool = False
    instead: bool = False
    tails: bool = False
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
        """The boxes in a Parquet, JSON, CSV or WIDER FACE file, in the Parquet files of a folder, or in whatever a pattern matches.

        Args:
            place: a local path or a URL that fsspec opens. With a pattern (`*`, `{a,b}`) files in which there are no boxes of faces are
                passed over, and there may be none.
            storage_options: for fsspec, of a URL.
            instead: as the attribute.

        Raises:
            BoxesError: it cannot be read, or some row cannot be used; then none is.
        """
        rows = read_boxes(place, storage_options)
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
        relative = any(kind == "relative" for _, kind in kinds)
        names = {by for by, _ in kinds}
        return cls(arrays, "key" in names, relative, instead, "file_name" in names)

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

    def alone(self, image_id: str | None, path: str) -> bool:
        """Whether the image has its boxes and no other faces: with `instead`, if the file names it beyond doubt."""
        return self.instead and (path in self.images or (image_id is not None and image_id in self.images))

    def version(self, image_id: str | None, path: str) -> str | None:
        """sha-256, hex, over an image's boxes and whether they are all; None if the file does not name it."""
        found = self._named(image_id, path)
        if found is None:
            return None
        return hashlib.sha256(self._kind + str(self.alone(image_id, path)).encode() + found.tobytes()).hexdigest()

    def _named(self, image_id: str | None, path: str) -> F32 | None:
        found = [self.images[name] for name in self._names(image_id, path) if name in self.images]
        if not found and self.tails:
            parts = path.split("/")
            ends = ("/".join(parts[i:]) for i in range(1, len(parts)))
            found = next(([self.images[name]] for end in ends for name in (end, _stem(end)) if name in self.images), [])
        return np.concatenate(found) if found else None

    def _names(self, image_id: str | None, path: str) -> list[str]:
        names = [image_id, path, _stem(path)]
        if self.keys:
            names.append(_stem(path.rpartition("/")[2]))
        return [name for name in dict.fromkeys(names) if name is not None]


def _stem(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    return folder + slash + (name.rpartition(".")[0] or name)


def _image(row: Mapping[str, Any]) -> tuple[str, str]:
    named_by = next((name for name in NAMES if row.get(name) not in (None, "")), None)
    if named_by is None:
        raise BoxesError(f"it names no image; wanted one of the columns {', '.join(NAMES)}")
    name = str(row[named_by]).removeprefix("./")
    if name.startswith(("/", "../")) or "://" in name:
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
