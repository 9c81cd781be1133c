"""What a reviewer sees of a face: its crop as published, the original's beside it, and the whole picture with its box."""

from __future__ import annotations

import contextlib
import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pyarrow.parquet as pq

from mfmc_ray.codec import CodecError, decode
from mfmc_ray.evaluate.sheets import face_crop, thumbnail
from mfmc_ray.faces.faces import Image
from mfmc_ray.ledger import Ledger
from mfmc_ray.reading import SourceError, escape, open_unit
from mfmc_ray.retry import StoreError
from mfmc_ray.review.queue import Item
from mfmc_ray.sources import SourceReader
from mfmc_ray.stage import part_file

FACE_PX, PICTURE_PX = 360, 1000
KEPT = 256
"""Faces whose pictures are kept at hand, about 100 kB each."""
VIEWS = ("after", "before", "whole")
_MARK = (255, 196, 0)

Originals = Callable[[str], Image]


class Pictures:
    """Makes the pictures of faces, each face's once.

    Args:
        ledger: of the run.
        storage_options: for fsspec, of a remote OUT.
        originals: image_id → the original, upright; None: no originals are shown. What raises OSError, ValueError or KeyError is left out.
        max_pixels: larger pictures are not decoded.
    """

    def __init__(self, ledger: Ledger, storage_options: Mapping[str, Any], originals: Originals | None, max_pixels: int) -> None:
        self._out, self._options = ledger.out, dict(storage_options)
        self._originals, self._max_pixels = originals, max_pixels
        self._reader = SourceReader(storage_options)
        self._rows: dict[int, dict[tuple[str, str], tuple[int, int]]] = {}
        self._made: OrderedDict[int, dict[str, bytes]] = OrderedDict()
        self._lock = threading.Lock()  # readers are for one thread, and a browser asks for several pictures at once

    def __call__(self, number: int, item: Item) -> Mapping[str, bytes]:
        """View → JPEG of the item with this number; what cannot be shown is not there."""
        with self._lock:
            if number not in self._made:
                self._made[number] = self._views(item)
                if len(self._made) > KEPT:
                    self._made.popitem(last=False)
            self._made.move_to_end(number)
            return self._made[number]

    def _views(self, item: Item) -> dict[str, bytes]:
        box, views = item.face["box"], {}
        published = self._published(item)
        if published is not None:
            views["after"] = jpeg(face_crop(published, box, side=FACE_PX))
            views["whole"] = jpeg(_marked(published, box))
        original = None
        if self._originals is not None:
            with contextlib.suppress(OSError, ValueError, KeyError):
                original = self._originals(item.face["image_id"])
        if original is not None:
            views["before"] = jpeg(face_crop(original, box, side=FACE_PX))
        return views

    def _published(self, item: Item) -> Image | None:
        unit = escape(f"{self._out}/{part_file('images', item.part)}")
        try:
            if item.part not in self._rows:
                self._rows[item.part] = self._places(unit)
            group, index = self._rows[item.part][item.face["image_id"], item.face["path"]]
            data = self._reader.read(unit, {"kind": "parquet", "column": "image", "group": group, "index": index})
            return decode(data, self._max_pixels).pixels
        except (SourceError, CodecError, StoreError, OSError, KeyError):
            return None

    def _places(self, unit: str) -> dict[tuple[str, str], tuple[int, int]]:
        """(image_id, path) → row group and row in it, of a published part."""
        found = {}
        with open_unit(unit, self._options) as file:
            parquet = pq.ParquetFile(file)
            for group in range(parquet.num_row_groups):
                table = parquet.read_row_group(group, columns=["image_id", "path"])
                for index, name in enumerate(zip(*(column.to_pylist() for column in table.columns), strict=True)):
                    found[name] = group, index
        return found


def jpeg(image: Image) -> bytes:
    """uint8 (h, w, 3) RGB as a JPEG."""
    file = io.BytesIO()
    PIL.Image.fromarray(np.ascontiguousarray(image)).save(file, "JPEG", quality=85)
    return file.getvalue()


def _marked(image: Image, box: Sequence[float]) -> Image:
    small = thumbnail(image, PICTURE_PX).copy()
    scale = small.shape[1] / image.shape[1]
    x0, y0, x1, y1 = (round(v * scale) for v in box)
    for colour, width in (((0, 0, 0), 4), (_MARK, 2)):
        cv2.rectangle(small, (x0 - 3, y0 - 3), (x1 + 3, y1 + 3), colour, width)
    return small
