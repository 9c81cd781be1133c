"""Nights: what changed is brought into OUT, and nothing else; whatever kills them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from bad_images import save
from PIL import Image
from skimage.data import astronaut, coffee

from mfmc_ray.scrub import scrub

PICTURES = 20
RACY_NS = 2_200_000_000  # of age from which on a file's time stamp proves something


def picture(i: int, rng: np.random.Generator) -> bytes:
    """A cup, or now and then a face."""
    x, y = rng.integers(-12, 12, 2)
    source = astronaut()[40 + y : 168 + y, 160 + x : 288 + x] if i % 4 == 0 else coffee()[100 + y : 228 + y, 200 + x : 328 + x]
    return save(Image.fromarray(np.clip(source * rng.uniform(0.8, 1.1), 0, 255).astype(np.uint8)), "JPEG", quality=92)


def settle(folder: Path) -> None:
    """Makes files that were written just now old enough for their time stamps to prove something."""
    for path in folder.iterdir():
        if (stamp := path.stat().st_mtime_ns) > time.time_ns() - RACY_NS:
            os.utime(path, ns=(stamp, stamp - RACY_NS))


def rows(folder: Path, *columns: str) -> list[dict[str, Any]]:
    return [row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file, columns=list(columns) or None).to_pylist()]


def content(out: Path) -> dict[str, str]:
    return {str(file.relative_to(out)): hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(out.glob("*/part-*.parquet"))}


def differs(out: Path, before: dict[str, str]) -> bool:
    """Whether the content is another one, also while a command works on it."""
    try:
        return content(out) != before
    except FileNotFoundError:  # a part that is gone by the time that it is read
        return True


def assert_up_to_date(photos: Path, out: Path) -> None:
    """Each file of the collection has one row, and each row its faces."""
    found = rows(out / "images", "image_id", "path", "faces", "verdict")
    wanted = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in photos.iterdir()}
    assert sorted(row["path"] for row in found) == sorted(wanted)
    assert {row["path"]: row["image_id"] for row in found} == wanted
    faces = Counter((row["image_id"], row["path"]) for row in rows(out / "faces", "image_id", "path"))
    assert faces == {(row["image_id"], row["path"]): row["faces"] for row in found if row["faces"]}


def shown(out: Path) -> dict[str, bytes]:
    """The published pictures by path."""
    return {row["path"]: row["image"]["bytes"] for row in rows(out / "images", "path", "image") if row["image"]}


def holds(out: Path, needle: bytes) -> list[str]:
    """The files anywhere under OUT that hold these bytes."""
    return [str(path.relative_to(out)) for path in out.rglob("*") if path.is_file() and needle in path.read_bytes()]


class Nights:
    """A collection, its result, and the file with its settings."""

    def __init__(self, mfmc: Any, folder: Path) -> None:
        self.mfmc, self.photos, self.out, self.work = mfmc, folder / "photos", folder / "out", folder / "work"
        self.config, self.rng = folder / "nightly.yaml", np.random.default_rng(0)
        self.photos.mkdir()
        for i in range(PICTURES):
            (self.photos / f"{i:02}.jpg").write_bytes(picture(i, self.rng))
        self.write()

    def write(self, **settings: Any) -> None:
        plain = {"input": str(self.photos), "out": str(self.out), "work": str(self.work)}
        plain |= {"swap": {"identities": 12, "attempts": 4}, "ray": {"actors": 1}}
        self.config.write_text(json.dumps(plain | settings))  # JSON is YAML

    def __call__(self, *options: str) -> Any:
        return self.mfmc("nightly", "--config", self.config, *options)


@pytest.fixture(scope="module")
def nights(mfmc: Any, tmp_path_factory: pytest.TempPathFactory) -> Nights:
    """After the first night."""
    nights = Nights(mfmc, tmp_path_factory.mktemp("nights"))
    settle(nights.photos)
    done = nights()
    assert done.returncode == 0, done.stderr
    assert "first run" in done.stdout
    assert_up_to_date(nights.photos, nights.out)
    return nights


def test_only_what_changed_is_done_though_the_night_is_killed(nights: Nights) -> None:
    photos, out, work = nights.photos, nights.out, nights.work
    before, scans = content(out), {path.name: path.stat().st_mtime_ns for path in (work / "scan").iterdir()}
    deleted, withface = (photos / "09.jpg").read_bytes(), shown(out)["08.jpg"]
    assert holds(out, scrub(deleted))
    assert holds(out, withface)
    (photos / "09.jpg").unlink()
    (photos / "08.jpg").unlink()  # one with a face
    (photos / "10.jpg").rename(photos / "moved.jpg")
    (photos / "11.jpg").touch()  # the same content
    (photos / "12.jpg").write_bytes(picture(0, nights.rng))  # another face under the same name
    (photos / "new.jpg").write_bytes(picture(1, nights.rng))
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff and no more")
    settle(photos)

    plan = nights("--plan")
    assert plan.returncode == 0, plan.stderr
    for line in ("new images", "changed images", "moved images", "deleted images", "About 0:"):
        assert line in plan.stdout
    assert content(out) == before
    assert (out / "manifest.json").exists()

    process = nights.mfmc.start("nightly", "--config", nights.config)
    end = time.monotonic() + 300
    while (out / "manifest.json").exists():  # it goes before anything in OUT is touched
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGSTOP)  # on a slow machine it would otherwise be done before the second one looks
    second = nights()  # two at once
    process.send_signal(signal.SIGCONT)
    assert second.returncode == 75
    assert f"process {process.pid} on" in second.stderr
    while not differs(out, before):  # until it is in the middle of it
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    for child in children:
        if psutil.pid_exists(child.pid) and "Agent" in child.name():
            child.kill()
    psutil.wait_procs(children, timeout=30)

    again = nights()
    assert again.returncode == 0, again.stderr
    assert_up_to_date(photos, out)
    assert not holds(out, scrub(deleted))
    assert not holds(out, withface)
    assert not holds(out, b"09.jpg")  # its name is gone as well
    after = content(out)
    assert {name for name in before if name.endswith("part-00000.parquet") and name.startswith("images")} <= after.keys()
    assert after["images/part-00000.parquet"] == before["images/part-00000.parquet"]  # nothing in it changed
    assert (work / "scan/part-00000.parquet").stat().st_mtime_ns == scans["part-00000.parquet"]
    assert {row["path"]: row["verdict"] for row in rows(out / "images", "path", "verdict")}["broken.jpg"] == "failed"
    summary = json.loads(sorted((work / "nights").glob("*.json"))[-1].read_text())
    assert summary["counts"] == json.loads((out / "manifest.json").read_text())["counts"]
    assert "The last nights" in sorted((work / "nights").glob("*.html"))[-1].read_text()
    audit = nights.mfmc("audit", out, "--work", work)
    assert audit.returncode == 0, audit.stdout

    idle = nights()
    assert (idle.returncode, idle.stdout.strip()) == (0, "Nothing has changed.")
    assert content(out) == after


def test_a_night_that_is_killed_after_it_published_still_gets_its_audit_and_summary(nights: Nights) -> None:
    before, summaries = content(nights.out), {path.name for path in (nights.work / "nights").iterdir()}
    (nights.photos / "14.jpg").rename(nights.photos / "late.jpg")
    settle(nights.photos)
    process = nights.mfmc.start("nightly", "--config", nights.config, "--audit", "all")
    end = time.monotonic() + 300
    while not (nights.work / "ledger/finished.json").exists() or not differs(nights.out, before):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    process.kill()  # while it audits
    process.wait()
    assert {path.name for path in (nights.work / "nights").glob("*.json")} <= summaries

    done = nights("--audit", "all")
    assert done.returncode == 0, done.stdout + done.stderr
    assert_up_to_date(nights.photos, nights.out)
    new = {path.name for path in (nights.work / "nights").glob("*.json")} - summaries
    (summary,) = (json.loads((nights.work / "nights" / name).read_text()) for name in new)
    assert summary["audit"] is True
    assert nights("--audit", "all").stdout.strip() == "Nothing has changed."


def test_a_known_face_reopens_what_resembles_it(nights: Nights, tmp_path: Path) -> None:
    """Somebody who looks like a published fake becomes known: in a gallery that the settings name from now on, and then no more."""
    fakes = [row for row in rows(nights.out / "faces") if row["verdict"] == "replaced"]
    files = shown(nights.out)
    assert fakes
    (tmp_path / "gallery").mkdir()
    for row in fakes:
        (tmp_path / "gallery" / row["path"]).write_bytes(files[row["path"]])
    settle(tmp_path / "gallery")
    before = rows(nights.out / "images", "path", "image")
    nights.write(guard={"galleries": [str(tmp_path / "gallery")]})
    done = nights("--audit", "all")
    assert done.returncode == 0, done.stdout + done.stderr
    assert_up_to_date(nights.photos, nights.out)
    summary = json.loads(sorted((nights.work / "nights").glob("*.json"))[-1].read_text())
    assert summary["reopened"]["faces"] >= len(fakes)
    assert summary["audit"] is True
    changed = {path for path, file in shown(nights.out).items() if file != files[path]}
    assert changed == {row["path"] for row in fakes}
    known = summary["known_faces"]
    shutil.rmtree(tmp_path / "gallery")
    nights.write()
    done = nights()
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(sorted((nights.work / "nights").glob("*.json"))[-1].read_text())
    assert summary["known_faces"] == known - len(fakes)
    assert len(rows(nights.out / "images", "path")) == len(before)


def test_a_night_that_would_take_too_long_does_not_start(nights: Nights) -> None:
    before = content(nights.out)
    nights.write(swap={"identities": 12, "attempts": 5}, nightly={"max_hours": 0.001})
    late = nights()
    assert late.returncode == 3
    assert "swap.attempts" in late.stdout
    assert content(nights.out) == before
    assert (nights.out / "manifest.json").exists()
    nights.write(nightly={"max_deleted": 0.01})
    gone = nights.photos / "13.jpg"
    kept = gone.read_bytes()
    gone.unlink()
    missing = nights()
    assert missing.returncode == 3
    assert "max_deleted" in missing.stdout
    assert content(nights.out) == before
    gone.write_bytes(kept)
    nights.write()
    wrong = nights.mfmc("nightly", "--config", nights.config.with_name("absent.yaml"))
    assert wrong.returncode == 2
