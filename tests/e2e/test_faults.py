"""Stores and disks that fail during a run: it goes on, or it ends with a sentence; a row for every image, once, in the end."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bad_images import save
from faulty_s3 import KINDS, FaultyS3, faulty
from PIL import Image
from s3 import S3, s3, s3_endpoint  # noqa: F401 (fixtures)
from skimage.data import astronaut, coffee

IMAGES = 24
SMALL = ("--identities", "8", "--attempts", "2", "--actors", "2")


@pytest.fixture(scope="module")
def photos() -> dict[str, bytes]:
    """Two with a face, the others cut from a picture without one."""
    face, cup = Image.fromarray(astronaut()).crop((100, 0, 356, 256)), coffee()
    found = {f"face{i}.jpg": save(face, "JPEG", quality=80 + i) for i in range(2)}
    for i in range(IMAGES - 2):
        found[f"cup{i:02d}.jpg"] = save(Image.fromarray(np.ascontiguousarray(cup[i * 8 : i * 8 + 96, :96])), "JPEG", quality=90)
    return found


@pytest.fixture(scope="module")
def key() -> bytes:
    """Of both runs: who has it repeats the random choices."""
    return bytes(range(32))


@pytest.fixture(scope="module")
def faultless(mfmc: Any, tmp_path_factory: pytest.TempPathFactory, photos: dict[str, bytes], key: bytes) -> pa.Table:
    """The images of a run in which nothing failed."""
    folder = tmp_path_factory.mktemp("faultless")
    (folder / "in").mkdir()
    for name, data in photos.items():
        (folder / "in" / name).write_bytes(data)
    work_with(folder / "work", key)
    done = mfmc("anonymize", folder / "in", folder / "out", "--work", folder / "work", *SMALL)
    assert done.returncode == 0, done.stderr
    return pq.read_table(folder / "out" / "images")


@pytest.fixture
def proxy(s3: S3) -> Iterator[FaultyS3]:  # noqa: F811
    with faulty(s3.endpoint, rate=0.0, seed=3, kinds=tuple(kind for kind in KINDS if kind not in ("stall", "slow"))) as one:
        yield one


def work_with(work: Path, key: bytes) -> None:
    work.mkdir(mode=0o700)
    (work / "pseudonym.key").write_bytes(key)


def options_of(proxy: FaultyS3, **more: Any) -> str:
    return json.dumps({"key": "test", "secret": "test", "endpoint_url": proxy.endpoint, **more})


def said(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence of a run that ended."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("mfmc: ")]
    return line


def test_a_store_that_fails_and_goes_down_gives_what_a_good_one_gives(
    mfmc: Any,
    tmp_path: Path,
    s3: S3,  # noqa: F811
    proxy: FaultyS3,
    photos: dict[str, bytes],
    faultless: pa.Table,
    key: bytes,
) -> None:
    store = s3.filesystem()
    for name, data in photos.items():
        store.pipe_file(f"{s3.bucket}/in/{name}", data)
    work_with(tmp_path / "work", key)
    command = ("anonymize", s3.url("in"), s3.url("out"), "--work", tmp_path / "work", *SMALL)
    # down in the middle of the scan: no rows for what could not be read
    proxy.only, proxy.down_after = "/in/cup", 10
    line = said(mfmc(*command, "--storage-options", options_of(proxy, patience=1)))
    assert "does not answer" in line
    assert "run the same command again to resume" in line
    assert "503" in line
    rows = [row for file in sorted((tmp_path / "work" / "scan").glob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    assert len(rows) < IMAGES
    assert all(row["reason"] is None for row in rows)
    # up again, and failing now and then
    proxy.only, proxy.always, proxy.down_after, proxy.rate = "", None, None, 0.12
    done = mfmc(*command, "--storage-options", options_of(proxy))
    assert done.returncode == 0, done.stderr
    assert "Resuming" in done.stderr
    assert sum(proxy.injected.values()) > 4
    files = [name for name in store.find(f"{s3.bucket}/out") if "/images/" in name]
    images = pa.concat_tables([pq.read_table(pa.BufferReader(store.cat_file(name))) for name in files])
    assert sorted(images["path"].to_pylist()) == sorted(photos)
    assert images.sort_by("path").equals(faultless.sort_by("path"))
    assert not [name for name in store.find(f"{s3.bucket}/out") if name.rpartition("/")[2].startswith(".")]


def test_what_cannot_be_used_is_told_before_the_work(mfmc: Any, tmp_path: Path, s3: S3, proxy: FaultyS3) -> None:  # noqa: F811
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"x")
    command = ("scan", tmp_path / "in", "s3://no-such-bucket/out", "--work", tmp_path / "work", "--storage-options")
    assert "s3://no-such-bucket/out: the bucket was not found" in said(mfmc(*command, json.dumps(s3.options)))
    proxy.always = "ExpiredToken"
    line = said(mfmc("scan", s3.url("in"), tmp_path / "out", "--storage-options", options_of(proxy)))
    assert "have expired (ExpiredToken 403): renew them, then run the same command again" in line
    assert not (tmp_path / "out").exists()
