"""For `kills.py`: a collection that changes, and what a plain reader of OUT must find at any moment and at the end."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from skimage.data import astronaut, coffee

from mfmc_ray.scrub import scrub

Rng = np.random.Generator
SIDE, FACE = 128, (64, 66)  # px of a picture; where the face's middle is if it is not shifted
LEAST_CHANGE = 6.0
"""Mean absolute difference, of 255, that a face at least has from its original."""


class BrokenError(AssertionError):
    """What must never be seen was seen."""


@dataclass
class Collection:
    """A folder of small pictures, each unlike all others: three of four show a face.

    Attributes:
        ever: sha-256 → original, of all that were ever in it.
        faces: sha-256 → where the middle of the face is, (x, y) in px.
        gone: what must not be found in OUT when a command has ended: (what it is, bytes).
    """

    folder: Path
    rng: Rng
    ever: dict[str, bytes] = field(default_factory=dict)
    faces: dict[str, tuple[int, int]] = field(default_factory=dict)
    gone: list[tuple[str, bytes]] = field(default_factory=list)
    made: int = 0

    def fill(self, pictures: int) -> None:
        self.folder.mkdir(parents=True)
        for _ in range(pictures):
            self._write(self._name())

    def change(self, out: Path) -> dict[str, int]:
        """New, changed, deleted and moved pictures, of each a random number; how many there are of each."""
        shown = {row["path"]: row["image"]["bytes"] for row in table(out / "images", "path", "image")}
        names = [path.name for path in self.folder.iterdir()]
        self.rng.shuffle(names)
        counts = {kind: int(self.rng.integers(1, 4)) for kind in ("deleted", "changed", "moved", "new")}
        for kind in ("deleted", "changed", "moved"):
            for name in [names.pop() for _ in range(counts[kind])]:
                path = self.folder / name
                if kind != "changed":
                    self.gone.append((f"the name of {kind} {name}", name.encode()))
                if kind == "moved":
                    path.rename(self.folder / self._name())
                    continue
                self.gone += [(f"{kind} {name}, published", shown[name]), (f"{kind} {name}", scrub(path.read_bytes()))]
                path.unlink()
                if kind == "changed":
                    self._write(name)
        for _ in range(counts["new"]):
            self._write(self._name())
        return counts

    def wanted(self) -> dict[str, str]:
        """path → sha-256 of what is in it now."""
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in self.folder.iterdir()}

    def _name(self) -> str:
        self.made += 1
        return f"picture-{self.made:04}.jpg"

    def _write(self, name: str) -> None:
        x, y = (int(n) for n in self.rng.integers(-12, 12, 2))
        has_face = self.rng.random() < 0.75
        whole, left, top = (astronaut(), 160 + x, 40 + y) if has_face else (coffee(), 200 + x, 100 + y)
        pixels = np.clip(whole[top : top + SIDE, left : left + SIDE] * self.rng.uniform(0.8, 1.1), 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=92)
        digest = hashlib.sha256(file.getvalue()).hexdigest()
        if digest in self.ever:
            self._write(name)
            return
        self.ever[digest] = file.getvalue()
        if has_face:
            self.faces[digest] = FACE[0] - x, FACE[1] - y
        (self.folder / name).write_bytes(file.getvalue())


def files(folder: Path) -> list[tuple[Path, bytes]]:
    """The visible Parquet files of a folder, as somebody reads them who does not know of the run."""
    found = []
    for path in sorted(folder.glob("*.parquet")):
        try:
            found.append((path, path.read_bytes()))
        except FileNotFoundError:  # a part of which nothing was left
            continue
    return found


def table(folder: Path, *columns: str) -> list[dict[str, Any]]:
    """All rows of a table."""
    return [row for _, data in files(folder) for row in pq.read_table(io.BytesIO(data), columns=list(columns)).to_pylist()]


def digests(work: Path, stage: str) -> dict[str, dict[str, str]]:
    """part → file → SHA-256 of what is committed; what a part is just becoming counts."""
    found = {}
    for marker in sorted((work / "ledger" / stage).glob("part-*.json")):
        plain = json.loads(marker.read_bytes())
        plain = plain.get("next") or plain
        found[marker.stem] = {entry["file"]: entry["sha256"] for entry in [*plain["files"], *plain.get("kept", ())]}
    return found


def settled(work: Path) -> set[str]:
    """Names of the published files' parts that are committed and not becoming anything else."""
    markers = (work / "ledger" / "anonymize").glob("part-*.json")
    return {marker.stem for marker in markers if not json.loads(marker.read_bytes()).get("next")}


def check_visible(collection: Collection, out: Path, work: Path | None) -> int:
    """What may be said of OUT at any moment; how many pictures were looked at.

    Args:
        collection: where the originals are.
        out: the published folder.
        work: given when nobody works on it: then the faces of a part that is committed must be those of its images.

    Raises:
        BrokenError: it is not so.
    """
    seen: Counter[str] = Counter()
    still = settled(work) if work is not None else set()
    faces: Counter[tuple[str, str]] = Counter()
    for path, data in files(out / "faces"):
        for row in _rows(path, data, "path"):
            faces[path.stem, row["path"]] += 1
    for path, data in files(out / "images"):
        for row in _rows(path, data, "image_id", "path", "faces", "verdict", "image"):
            seen[row["path"]] += 1
            _check_picture(collection, row)
            if path.stem in still and faces[path.stem, row["path"]] != row["faces"]:
                raise BrokenError(
                    f"{row['path']} in {path.name} has {row['faces']} faces, and {faces[path.stem, row['path']]} rows of faces"
                )
    if twice := [path for path, count in seen.items() if count > 1]:
        raise BrokenError(f"rows twice: {twice}")
    for path in out.rglob("*"):
        if path.is_file():
            _check_bytes(collection, path)
    return len(seen)


def check_end(collection: Collection, out: Path, work: Path) -> None:
    """What may be said when the command has ended well.

    Raises:
        BrokenError: it is not so.
    """
    check_visible(collection, out, work)
    images = table(out / "images", "image_id", "path", "faces", "verdict")
    paths, wanted = sorted(row["path"] for row in images), collection.wanted()
    if paths != sorted(wanted):
        raise BrokenError(f"lost: {sorted(wanted.keys() - set(paths))}; too many: {sorted(set(paths) - wanted.keys())}")
    if other := [row["path"] for row in images if row["image_id"] != wanted[row["path"]]]:
        raise BrokenError(f"not what is in the collection now: {other}")
    faces = Counter((row["image_id"], row["path"]) for row in table(out / "faces", "image_id", "path"))
    if faces != {(row["image_id"], row["path"]): row["faces"] for row in images if row["faces"]}:
        raise BrokenError("rows of faces are lost, doubled, or of other images")
    counts = json.loads((out / "manifest.json").read_text())["counts"]
    if counts["images"] != Counter(row["verdict"] for row in images) or sum(counts["faces"].values()) != sum(faces.values()):
        raise BrokenError(f"the manifest counts something else: {counts}")
    for path in out.rglob("*"):
        if path.is_file():
            if path.name.startswith(".") or path.name.endswith(".tmp"):
                raise BrokenError(f"left in OUT: {path}")
            data = path.read_bytes()
            for what, needle in collection.gone:
                if needle in data:
                    raise BrokenError(f"{what} is still in {path.relative_to(out)}")


def _rows(path: Path, data: bytes, *columns: str) -> list[dict[str, Any]]:
    try:
        return pq.read_table(io.BytesIO(data), columns=list(columns)).to_pylist()  # type: ignore[no-any-return]
    except Exception as error:
        raise BrokenError(f"{path} is visible and not whole: {error}") from error


def _check_picture(collection: Collection, row: dict[str, Any]) -> None:
    original = collection.ever[row["image_id"]]
    if row["verdict"] not in ("anonymized", "unchanged") or (row["verdict"] == "anonymized") != (row["image_id"] in collection.faces):
        raise BrokenError(f"{row['path']} is {row['verdict']}")
    published = row["image"]["bytes"]
    if row["verdict"] == "unchanged":
        return
    if published in (original, scrub(original)):
        raise BrokenError(f"{row['path']} is the original")
    if (change := change_of(collection, row["image_id"], published)) < LEAST_CHANGE:
        raise BrokenError(f"the face in {row['path']} differs from the original by {change:.1f} only")


def change_of(collection: Collection, image_id: str, published: bytes) -> float:
    """Mean absolute difference, of 255, from the original where its face is."""
    x, y = collection.faces[image_id]
    pair = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32) for data in (published, collection.ever[image_id])]
    before, after = (pixels[max(0, y - 24) : y + 24, max(0, x - 24) : x + 24] for pixels in pair)
    return float(np.abs(before - after).mean())


def _check_bytes(collection: Collection, path: Path) -> None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    for digest in collection.faces:
        original = collection.ever[digest]
        if original[-512:] in data or original in data:  # the end of a JPEG is what was photographed, whatever became of its head
            raise BrokenError(f"an original is in {path}")
