"""Small copies of public datasets' layouts, with a public-domain photo in them, and with what lies about in real copies."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from skimage.data import astronaut, coffee

SIDE = 240
"""px, of each picture."""
FACE = [75, 52, 100, 132]
"""x y width height of the astronaut's face, px."""
WALL = [4, 8, 40, 44]
"""A box in which no face is."""


def photo(number: int, kind: str = "JPEG") -> bytes:
    """The astronaut; another number, another file."""
    return _encoded(np.array(astronaut())[10 : 10 + SIDE, 100 : 100 + SIDE], number, kind)


def nobody(number: int, kind: str = "JPEG") -> bytes:
    """A cup."""
    return _encoded(np.array(coffee())[:SIDE, :SIDE], number, kind)


def _encoded(pixels: Any, number: int, kind: str) -> bytes:
    pixels[-16:, -16:] = number * 7 % 256
    made = io.BytesIO()
    Image.fromarray(pixels).save(made, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return made.getvalue()


def put(path: Path, data: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def junk(folder: Path) -> None:
    """What archives made on other systems bring along."""
    put(folder / ".DS_Store", b"\0\0\0\1Bud1")
    put(folder / "Thumbs.db", b"\xd0\xcf\x11\xe0")
    put(folder / "desktop.ini", "[.ShellClassInfo]")
    put(folder / "__MACOSX" / "._a.jpg", b"\0\5\x16\7")
    put(folder / "__MACOSX" / "deep" / "a.jpg", b"\0\5\x16\7")


def lfw(folder: Path) -> None:
    """A folder for each person."""
    put(folder / "Ada_Lovelace" / "Ada_Lovelace_0001.jpg", photo(1))
    put(folder / "Ada_Lovelace" / "Ada_Lovelace_0002.JPG", photo(2))
    put(folder / "more" / "Bob" / "Bob_0001.jpeg", photo(3))
    put(folder / "more" / "Bob" / "Bob_0002.png", nobody(1, "PNG"))
    put(folder / "more" / "Bob" / "Thumbs.db", b"\xd0\xcf\x11\xe0")
    put(folder / "pairs.txt", "10\t300\nAda_Lovelace\t1\t2\n")
    put(folder / "lfw_allnames.csv", "name,images\nAda_Lovelace,2\nBob,2\n")
    put(folder / "README", "Labeled Faces in the Wild")
    junk(folder)


def widerface(folder: Path) -> None:
    """Pictures by event, in two parts, with the distributed labels beside them."""
    for split, numbers in (("train", (1, 2)), ("val", (3,))):
        lines = []
        for number in numbers:
            name = f"0--Parade/0_Parade_{number}.jpg"
            put(folder / f"WIDER_{split}" / "images" / name, photo(number))
            lines += [name, "2", f"{' '.join(map(str, FACE))} 0 0 0 0 0 0 ", f"{' '.join(map(str, WALL))} 2 0 1 1 2 1 "]
        name = f"1--Handshaking/1_none_{split}.jpg"
        put(folder / f"WIDER_{split}" / "images" / name, nobody(len(numbers)))
        lines += [name, "0", "0 0 0 0 0 0 0 0 0 0 "]
        put(folder / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt", "\n".join(lines) + "\n")
        put(folder / "wider_face_split" / f"wider_face_{split}.mat", b"MATLAB 5.0")
    put(folder / "wider_face_split" / "wider_face_test_filelist.txt", "0--Parade/9.jpg\n")
    put(folder / "wider_face_split" / "readme.txt", "Attached the mappings between attribute names and label values.\n")
    junk(folder)


def coco(folder: Path) -> None:
    """Pictures by split, with annotations of things, captions and, in a file of their own, faces."""
    images = []
    for number, (split, data) in enumerate((("train2017", photo(1)), ("train2017", nobody(1)), ("val2017", photo(2))), 1):
        name = f"{number:012d}.jpg"
        put(folder / split / name, data)
        images.append({"id": number, "file_name": name, "width": SIDE, "height": SIDE, "coco_url": f"http://images.example/{name}"})
    of = {"iscrowd": 0, "area": 1}
    things = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 500, 500], **of}]
    categories = [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}]
    files: dict[str, dict[str, Any]] = {
        "instances_train2017.json": {"images": images[:2], "annotations": things, "categories": categories},
        "captions_train2017.json": {"images": images[:2], "annotations": [{"id": 1, "image_id": 1, "caption": ""}]},
        "faces.json": {
            "images": images,
            "annotations": [
                {"id": 1, "image_id": 1, "category_id": 1, "bbox": FACE, **of},
                {"id": 2, "image_id": 3, "category_id": 1, "bbox": WALL, **of},
                {"id": 3, "image_id": 3, "category_id": 1, "bbox": [5, 5, 0, 3], **of},
            ],
            "categories": [{"id": 1, "name": "face"}],
        },
    }
    for name, plain in files.items():
        put(folder / "annotations" / name, json.dumps({"info": {}, "licenses": [], **plain}))
    junk(folder)


def hf_parquet(folder: Path) -> None:
    """Shards as `datasets` writes them, one of three missing; labels beside the pictures; and one of another tool's."""
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cup", "person"]), "caption": datasets.Value("string")}
    )
    for shard in (0, 2):
        rows = {
            "image": [
                {"bytes": photo(10 + shard), "path": "0001.jpg"},
                {"bytes": nobody(10 + shard, "PNG"), "path": None},
                {"bytes": photo(20 + shard), "path": "0001.jpg"},
            ],
            "label": [1, 0, 1],
            "caption": ["", "a cup", None],
        }
        path = folder / "data" / f"train-{shard:05d}-of-00003.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_dict(rows, features=features).to_parquet(str(path))
    pq.write_table(pa.table({"img": [photo(5), None], "label": [1, 0]}), folder / "data" / "extra.PARQUET")
    pq.write_table(pa.table({"file_name": ["a"], "label": [1]}), folder / "labels.parquet")
    put(folder / "README.md", "---\nlicense: cc0-1.0\n---\n")
    put(folder / "dataset_infos.json", "{}")
    junk(folder)


def _member(tar: tarfile.TarFile, name: str, data: bytes | str) -> None:
    data = data.encode() if isinstance(data, str) else data
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _record(key: str, good: bool, boxes: list[list[float]] | None) -> dict[str, Any]:
    return {
        "key": key,
        "url": f"http://images.example/{key}",
        "caption": "" if good else None,
        "status": "success" if good else "failed_to_download",
        "error_message": None if good else "HTTP Error 404: Not Found",
        "width": SIDE if good else None,
        "height": SIDE if good else None,
        "exif": "{}" if good else None,
        "sha256": None,
        "face_bboxes": boxes,
    }


RECORD = pa.schema(
    [
        *((name, pa.string()) for name in ("key", "url", "caption", "status", "error_message")),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("exif", pa.string()),
        ("sha256", pa.string()),
        ("face_bboxes", pa.list_(pa.list_(pa.float64()))),
    ]
)


def _relative(box: list[int]) -> list[float]:
    x, y, width, height = box
    return [x / SIDE, y / SIDE, (x + width) / SIDE, (y + height) / SIDE]


def img2dataset(folder: Path, kind: str = "webdataset") -> None:
    """Two shards of three, of which the one between is missing, in one of img2dataset's formats; the third sample was not downloaded."""
    for shard in (0, 2):
        keys = [f"{shard:05d}{i:04d}" for i in range(3)]
        data = [photo(shard + 30), nobody(shard + 30), None]
        records = [
            _record(keys[0], True, [_relative(FACE), _relative(WALL)]),
            _record(keys[1], True, []),
            _record(keys[2], False, None),
        ]
        folder.mkdir(parents=True, exist_ok=True)
        put(folder / f"{shard:05d}_stats.json", json.dumps({"count": 3, "successes": 2, "failed_to_download": 1}))
        table = pa.Table.from_pylist(records, RECORD)
        if kind == "parquet":
            table = table.append_column("jpg", pa.array(data, pa.binary())).append_column("txt", pa.array(["", "", None]))
        pq.write_table(table, folder / f"{shard:05d}.parquet")
        samples = [
            (f"{key}.{extension}", content)
            for key, picture, record in zip(keys, data, records, strict=True)
            if picture is not None
            for extension, content in (("jpg", picture), ("txt", ""), ("json", json.dumps(record)))
        ]
        if kind == "webdataset":
            with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
                for name, content in samples:
                    _member(tar, name, content)
        elif kind == "files":
            for name, content in samples:
                put(folder / f"{shard:05d}" / name, content)
    junk(folder)


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "lfw": lfw,
    "widerface": widerface,
    "coco": coco,
    "hf-parquet": hf_parquet,
    "laion-img2dataset": img2dataset,
}
