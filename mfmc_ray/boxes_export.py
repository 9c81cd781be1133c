"""Writing the boxes of a published result in the formats in which they can be brought back, too."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from mfmc_ray.boxes import BoxesError
from mfmc_ray.places import replace_file

FORMATS = ("coco", "img2dataset", "parquet")
_IMAGES = ["image_id", "path", "width", "height"]
_FACES = ["image_id", "path", "face_no", "box", "verdict"]
IMG2DATASET = pa.schema(
    [
        *((name, pa.string()) for name in ("image_id", "path", "key")),
        *((name, pa.int32()) for name in ("width", "height")),
        ("face_bboxes", pa.list_(pa.list_(pa.float32()))),
    ]
)


def export(out: str, target: Path, kind: str, storage_options: Mapping[str, Any] | None = None) -> tuple[int, int]:
    """Writes the boxes of all images that were looked at.

    Args:
        out: the published folder or prefix.
        target: the file to write.
        kind: of `FORMATS`.
        storage_options: for fsspec.

    Returns:
        how many images and faces are in it.

    Raises:
        BoxesError: `out` holds no result.
    """
    try:
        fs, place = fsspec.core.url_to_fs(out, **(storage_options or {}))
        images, faces = (_read(fs, f"{place.rstrip('/')}/{name}", columns) for name, columns in (("images", _IMAGES), ("faces", _FACES)))
    except (OSError, pa.ArrowException) as error:
        raise BoxesError(f"{out}: no published result could be read there: {error}") from error
    rows = [row for row in images.to_pylist() if row["width"]]
    mine: dict[str, list[dict[str, Any]]] = {}
    for face in faces.to_pylist():
        mine.setdefault(face["path"], []).append(face)
    count = sum(len(mine.get(row["path"], ())) for row in rows)
    if kind == "coco":
        replace_file(target, lambda path: path.write_text(json.dumps(coco(rows, mine), indent=1)))
    elif kind == "img2dataset":
        replace_file(target, lambda path: pq.write_table(pa.Table.from_pylist(list(_img2dataset(rows, mine)), schema=IMG2DATASET), path))
    elif kind == "parquet":
        replace_file(target, lambda path: pq.write_table(faces, path))
    else:
        raise BoxesError(f"unknown format {kind!r}; there are: {', '.join(FORMATS)}")
    return len(rows), count


def coco(images: list[dict[str, Any]], faces: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Boxes as COCO has them (https://cocodataset.org/#format-data): one category, face.

    Args:
        images: with `path`, `width` and `height`, px.
        faces: path → rows with `box`, x0 y0 x1 y1 px, and `verdict`.
    """
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(images, 1):
        for face in faces.get(image["path"], ()):
            x0, y0, x1, y1 = (round(float(v), 2) for v in face["box"])
            bbox = [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)]
            one = {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "bbox": bbox, "area": round(bbox[2] * bbox[3], 2)}
            annotations.append({**one, "iscrowd": 0, "verdict": face["verdict"]})
    listed = [
        {"id": number, "file_name": image["path"], "width": image["width"], "height": image["height"]}
        for number, image in enumerate(images, 1)
    ]
    return {"images": listed, "annotations": annotations, "categories": [{"id": 1, "name": "face", "supercategory": "person"}]}


def _img2dataset(images: list[dict[str, Any]], faces: Mapping[str, list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    for image in images:
        size = [image["width"], image["height"]] * 2
        boxes = [[v / side for v, side in zip(face["box"], size, strict=True)] for face in faces.get(image["path"], ())]
        name = image["path"].rpartition("/")[2]
        yield {**image, "key": name.rpartition(".")[0] or name, "face_bboxes": boxes}


def _read(fs: Any, folder: str, columns: list[str]) -> pa.Table:
    files = sorted(fs.glob(f"{folder}/*.parquet"))
    if not files:
        raise FileNotFoundError(f"no Parquet file in {folder.rpartition('/')[2]}/")
    return pa.concat_tables([pq.read_table(file, columns=columns, filesystem=fs) for file in files])
