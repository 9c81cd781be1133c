"""What a run leaves where: nothing private in OUT, in what it prints, or outside WORK; nothing at all once it has ended."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import socket
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bad_images import SECRET, save, told_images
from leaks import Secrets, findings, vectors_of
from PIL import Image
from skimage.data import astronaut, coffee

from mfmc_ray.faces.store import cache_dir
from mfmc_ray.private import files_below
from mfmc_ray.tables import FACES, IDENTITIES, IMAGES

OWN_RAY = True

TABLES = {"images": IMAGES, "faces": FACES, "identities": IDENTITIES}
PERSON = "Ada_Needle"
"""A folder's name: published with the path, and printed nowhere."""
EVIL = '"><img src=x onerror=alert(1)><script>alert(2)<.jpg'
STORAGE_SECRET = "secret-of-the-store"


@dataclass
class Ran:
    """A finished run, and what was seen of it while it ran."""

    folder: Path
    result: Any = None
    strays: set[str] = field(default_factory=set)
    log_lines: int = 0
    named_in_logs: set[str] = field(default_factory=set)
    link: Path | None = None
    open_folders: set[str] = field(default_factory=set)

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def work(self) -> Path:
        return self.folder / ("a-long-name-" * 8) / "work"

    def watch(self, process: Any) -> None:
        """Looks, until it ends, at the folders in which a run should leave nothing and at Ray's logs."""
        while process.poll() is None:
            for trap in ("home", "tmp", "cwd"):
                for place, folders, files in os.walk(self.folder / trap):
                    self.strays |= {os.path.relpath(Path(place) / name, self.folder) for name in (*folders, *files)}
            for path in files_below(self.work / "ray"):
                try:
                    if path.is_file() and "/logs/" in str(path):
                        data = path.read_bytes()
                        self.log_lines += data.count(b"\n")
                        if PERSON.encode() in data:
                            self.named_in_logs.add(path.name)
                except OSError:
                    continue
            note = self.work / "elsewhere"
            try:
                self.link = self.link or Path(note.read_text())
                self.open_folders |= {str(f) for f in (self.link, self.work, self.work / "ray") if f.stat().st_mode & 0o077}
            except (OSError, ValueError):
                pass
            time.sleep(0.2)


@pytest.fixture(scope="module")
def ran(mfmc: Any, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A few pictures that tell, a gallery, folders of its own for whatever writes to HOME, TMPDIR or the working folder, and no umask."""
    run = Ran(tmp_path_factory.mktemp("hygiene"))
    photos, gallery = run.folder / "photos" / PERSON, run.folder / "gallery" / PERSON
    for folder in (photos, gallery, *(run.folder / trap for trap in ("home", "tmp", "cwd"))):
        folder.mkdir(parents=True)
    face = Image.fromarray(np.ascontiguousarray(astronaut()[20:220, 130:330]))
    (photos / "told.jpg").write_bytes(told_images(face)["told.jpg"])
    (photos / "cup.jpg").write_bytes(told_images(Image.fromarray(np.ascontiguousarray(coffee()[:128, :128])))["told.jpg"])
    (photos / EVIL).write_bytes(save(face, "JPEG")[:2000])
    (gallery / "seen.jpg").write_bytes(save(face.crop((20, 0, 180, 180)), "JPEG"))
    given = ["anonymize", run.folder / "photos", run.out, "--work", run.work, "--known", run.folder / "gallery"]
    options = ["--storage-options", json.dumps({"secret": STORAGE_SECRET}), "--identities", "6", "--attempts", "4", "--actors", "1"]
    environment = {"HOME": str(run.folder / "home"), "TMPDIR": str(run.folder / "tmp"), "MFMC_MODELS_DIR": str(cache_dir())}
    environment |= dict.fromkeys(("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "ORT_DISABLE_TELEMETRY"), "")
    process = mfmc.start(*given, *options, environment=environment, cwd=run.folder / "cwd", umask=0)
    run.watch(process)
    run.result = mfmc.finish(process)
    assert run.result.returncode == 0, run.result.stderr
    return run


@pytest.fixture(scope="module")
def secrets(ran: Ran) -> Secrets:
    """What must not be in OUT."""
    key = (ran.work / "pseudonym.key").read_bytes()
    originals = {path.name: path.read_bytes() for path in (ran.folder / "photos" / PERSON).iterdir() if path.name != "cup.jpg"}
    thumbnails = [m.start() for m in re.finditer(rb"\xff\xd8\xff", originals["told.jpg"])][1:]
    texts = {
        "the key": key,
        "the key as hex": key.hex().encode(),
        "the key in base64": base64.b64encode(key).rstrip(b"="),
        "the key in url-safe base64": base64.urlsafe_b64encode(key).rstrip(b"="),
        "metadata": SECRET,
        "a path": str(ran.folder).encode(),
        "the home folder": str(Path.home()).encode() + b"/",
        "a store's secret": STORAGE_SECRET.encode(),
        **{f"the original {name}": data for name, data in originals.items()},
        **{f"thumbnail {i}": originals["told.jpg"][at : at + 200] for i, at in enumerate(thumbnails)},
    }
    assert len(thumbnails) >= 2
    if len(socket.gethostname()) >= 6:  # chance spells shorter ones
        texts["the host's name"] = socket.gethostname().encode()
    return Secrets(vectors_of(ran.work), texts)


def test_nothing_private_is_published(ran: Ran, secrets: Secrets) -> None:
    assert sorted({v.shape[1] for v in secrets.vectors}) == [128, 3 * 468]
    assert {path.parent.name for path in ran.work.rglob("*.parquet")} >= {"scan", "gallery-0", "known", "pool", "published"}
    verdicts = {row["verdict"] for row in pq.read_table(ran.out / "images").to_pylist()}
    assert verdicts == {"anonymized", "unchanged", "failed"}
    assert {"replaced"} <= set(pq.read_table(ran.out / "faces")["verdict"].to_pylist())
    assert findings(ran.out, secrets, TABLES) == []


PLANTED = {
    "a vector as <f4": lambda v, key: v[3, 20:28].astype("<f4").tobytes(),
    "a vector as >f4": lambda v, key: b"x" + v[3, 21:29].astype(">f4").tobytes(),
    "a vector as <f8": lambda v, key: v[0].astype("<f8").tobytes(),
    "a vector as <f2": lambda v, key: v[1, 8:16].astype("<f2").tobytes(),
    "a vector as decimals": lambda v, key: json.dumps([round(float(x), 4) for x in v[2, 40:44]]).encode(),
    "the key as hex": lambda v, key: key.hex().encode(),
    "the key in base64": lambda v, key: base64.b64encode(key),
    "metadata": lambda v, key: SECRET,
}


@pytest.mark.parametrize("what", PLANTED)
def test_what_is_planted_in_a_file_is_found(ran: Ran, secrets: Secrets, tmp_path: Path, what: str) -> None:
    vectors = next(v for v in secrets.vectors if v.shape[1] == 128 and len(v) > 4)
    (tmp_path / "planted.txt").write_bytes(b"Some text, 3 1 4.\n" + PLANTED[what](vectors, secrets.texts["the key"]) + b"\nand more")
    assert f"planted.txt: {what}" in findings(tmp_path, secrets, TABLES)


def test_what_is_planted_in_a_table_is_found(ran: Ran, secrets: Secrets, tmp_path: Path) -> None:
    shutil.copytree(ran.out, tmp_path / "out")
    (file,) = (tmp_path / "out" / "faces").iterdir()
    table = pq.read_table(file)
    vectors = next(v for v in secrets.vectors if v.shape[1] == 128)
    rows = pa.array([vectors[0].tolist()] * len(table), pa.list_(pa.float32(), 128))
    pq.write_table(table.append_column("extra", rows), file, compression="zstd")
    found = findings(tmp_path / "out", secrets, TABLES)
    assert f"faces/{file.name}: columns that tables.py does not have" in found
    assert f"faces/{file.name}: extra has 128 numbers" in found
    # in the columns there are, where a dictionary and compression hide the bytes
    points = pa.array([vectors[0, :10].tolist()] * len(table), table.schema.field("points").type)
    hidden = table.set_column(table.schema.get_field_index("points"), table.schema.field("points"), points)
    pq.write_table(hidden.cast(FACES), file, compression="zstd")
    assert f"faces/{file.name}: a vector as <f4" in findings(tmp_path / "out", secrets, TABLES)


def test_nothing_is_written_outside_its_folders(ran: Ran) -> None:
    """No library writes into HOME (onnxruntime's telemetry did), TMPDIR or the working folder, not even for a while."""
    assert ran.strays == set()


def test_nothing_is_left_of_what_only_the_run_needs(ran: Ran) -> None:
    left = {path.name for path in ran.work.iterdir()}
    assert left <= {
        *("calibration-used", "gallery-0", "known", "ledger", "listing", "pool", "pseudonym.key", "pseudonym.notes", "published", "report"),
        *(
            "run.guard",
            "run.json",
            "scan",
            "settings.json",
            "times.json",
            "models.json",
            "galleries.json",
            "people.json",
            "access.json",
            "placed",
        ),
    }
    assert not [path for path in (*ran.work.rglob("*"), *ran.out.rglob("*")) if path.name.endswith(".tmp")]
    assert ran.link is not None  # WORK's path is too long for sockets
    assert not os.path.lexists(ran.link)


def test_names_are_printed_only_when_asked_for(ran: Ran, mfmc: Any) -> None:
    for printed in (ran.result.stdout, ran.result.stderr):
        assert PERSON not in printed
        assert STORAGE_SECRET not in printed
        assert "Traceback" not in printed
    assert ran.log_lines > 20
    assert ran.named_in_logs == set()
    # that names are published is said, to who runs it and to who reads it
    (notice,) = json.loads((ran.out / "manifest.json").read_text())["notices"]
    assert "Paths are published as they are" in notice
    assert " ".join(notice.split()) in " ".join(ran.result.stderr.split())
    assert "Paths are published as they are" in (ran.out / "README.md").read_text()


def test_private_files_are_private(ran: Ran) -> None:
    """Whatever the umask, here none at all."""
    assert stat.S_IMODE(ran.work.stat().st_mode) == 0o700
    assert stat.S_IMODE((ran.work / "pseudonym.key").stat().st_mode) == 0o600
    assert ran.open_folders == set()
    key = (ran.work / "pseudonym.key").read_bytes()
    assert [path.name for path in ran.work.rglob("*") if path.is_file() and key in path.read_bytes()] == ["pseudonym.key"]
    assert not [path for path in ran.work.rglob("*") if path.is_file() and STORAGE_SECRET.encode() in path.read_bytes()]


def test_names_cannot_do_anything_in_the_report(ran: Ran) -> None:
    for page in (ran.out / "report" / "index.html", ran.work / "report" / "index.html"):
        text = page.read_text()
        assert "onerror=alert(1)&gt;" in text  # it is shown
        assert "<img src=x" not in text
        assert "<script" not in text
        assert "default-src 'none'" in text
