"""Stores that fail: everything comes whole, or it is said that it does not."""

from __future__ import annotations

import hashlib
import os
import pickle
import random
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faulty_s3 import KINDS, FaultyS3, faulty
from s3 import S3, s3, s3_endpoint  # noqa: F401 (fixtures)

from mfmc_ray import retry, stores
from mfmc_ray.collection import Collection, CollectionError
from mfmc_ray.ledger import Ledger, Stage
from mfmc_ray.places import LocalPlace, RemotePlace
from mfmc_ray.retry import StoreError
from mfmc_ray.sources import SourceError, SourceReader, read_unit
from mfmc_ray.stores import Store, root_of

TABLE = pa.table({"x": pa.array([1, 2, 3], pa.int64())})
STAGE = Stage("s", ("s",))


@pytest.fixture
def proxy(s3: S3) -> Iterator[FaultyS3]:  # noqa: F811
    with faulty(s3.endpoint, rate=0.0, stall=1.5) as one:
        yield one


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(stores, "PROBE_SECONDS", 0.5)


def options(proxy: FaultyS3, **more: Any) -> dict[str, Any]:
    """So that nothing but ours tries again."""
    config = {"read_timeout": 1.0, "retries": {"total_max_attempts": 1}}
    return {"key": "test", "secret": "test", "endpoint_url": proxy.endpoint, "config_kwargs": config, "patience": 20, **more}


def noise(n: int, seed: int = 0) -> bytes:
    return b"\xff\xd8\xff" + random.Random(seed).randbytes(n)


def put(bucket: S3, name: str, data: bytes) -> None:
    """Without a checksum that the store would give back: older objects have none."""
    import s3fs

    fs = s3fs.S3FileSystem(**bucket.options, config_kwargs={"request_checksum_calculation": "when_required"})
    fs.pipe_file(f"{bucket.bucket}/{name}", data)


@pytest.mark.parametrize("kind", KINDS)
def test_every_fault_is_outlasted(s3: S3, proxy: FaultyS3, tmp_path: Path, kind: str) -> None:  # noqa: F811
    images = {f"{i}.jpg": noise(3000, i) for i in range(4)}
    for name, data in images.items():
        put(s3, f"in/{name}", data)
    proxy.kinds, proxy.rate = (kind,), 0.2 if kind == "stall" else 0.35
    place = RemotePlace(s3.url("out"), tmp_path, options(proxy))
    while not proxy.injected[kind]:  # a seed cannot promise that
        units = list(Collection.open(s3.url("in"), options(proxy)).units())
        found = {unit.path: source.data for unit in units for source in read_unit(unit, options(proxy))}
        assert found == images
        size, digest = place.replace("a/b", lambda path: path.write_bytes(images["0.jpg"]) and None)
        assert place.read("a/b") == images["0.jpg"]
        assert (place.sizes("a"), hashlib.sha256(place.read("a/b")).hexdigest()) == ({"b": size}, digest)
        place.remove("a/b")
        assert place.names() == []


def test_shards_come_whole(s3: S3, proxy: FaultyS3, tmp_path: Path) -> None:  # noqa: F811
    members = {f"{i}.jpg": noise(5_000, i) for i in range(15)}
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for name, data in members.items():
            (tmp_path / name).write_bytes(data)
            tar.add(tmp_path / name, name)
    pq.write_table(pa.table({"image": list(members.values())}), tmp_path / "p.parquet", row_group_size=5, compression="none")
    for name in ("t.tar", "p.parquet"):
        put(s3, f"in/{name}", (tmp_path / name).read_bytes())
    units = {u.kind: u for u in Collection.open(s3.url("in"), options(proxy)).units()}
    proxy.kinds, proxy.rate = ("cut", "short", "500"), 0.6
    for kind in ("tar", "parquet"):
        sources = list(read_unit(units[kind], options(proxy)))
        assert [s.data for s in sources] == list(members.values())
        reader = SourceReader(options(proxy))
        assert [reader.read(s.unit, s.locator, path=s.path) for s in sources[::-1]] == list(members.values())[::-1]
    assert sum(proxy.injected.values()) > 5
    proxy.only, proxy.always = "/in/", "down"
    for unit in units.values():
        with pytest.raises(StoreError, match="does not answer"):
            list(read_unit(unit, options(proxy, patience=0.3)))


def test_a_listing_of_many_pages_is_whole(s3: S3, proxy: FaultyS3) -> None:  # noqa: F811
    names = [f"in/{'ab'[i % 2]}/{i:03d}.jpg" for i in range(60)]
    for name in names:
        put(s3, name, b"x")
    proxy.page, proxy.kinds, proxy.rate = 7, ("cut", "500", "reset", "short"), 0.15
    for what in ("in", "in/*/*.jpg", "in/**/*.jpg", "in/[ab]"):
        units = list(Collection.open(s3.url(what), options(proxy, patience=60)).units())
        assert sorted(u.unit for u in units) == sorted(s3.url(name) for name in names), what
    assert sum(proxy.injected.values()) > 3


def test_an_empty_answer_is_no_empty_folder(s3: S3, proxy: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    put(s3, "in/a.jpg", b"x")
    proxy.kinds, proxy.rate = ("cut",), 1.0
    monkeypatch.setattr(proxy, "share", lambda: 0.0)
    with pytest.raises(StoreError, match="half of what it is asked"):
        RemotePlace(s3.url("in"), Path(), options(proxy)).names()


def test_a_store_that_is_down_is_not_empty(s3: S3, proxy: FaultyS3, tmp_path: Path) -> None:  # noqa: F811
    ledger = Ledger(s3.url("out"), str(tmp_path), options(proxy, patience=0.2))
    ledger.commit_part(STAGE, 0, {"s": TABLE}, {})
    proxy.always = "down"
    for act in (lambda: ledger.recover(STAGE), lambda: ledger.files("s"), lambda: ledger.remove("s/part-00000.parquet")):
        with pytest.raises(StoreError, match=r"does not answer .*503.*; run the same command again to resume"):
            act()
    with pytest.raises(StoreError):
        ledger.begin("c", "i")
    proxy.always = None
    assert ledger.recover(STAGE) == {0: {}}
    s3.filesystem().rm(s3.bucket, recursive=True)
    with pytest.raises(StoreError, match="bucket was not found"):
        ledger.recover(STAGE)
    assert ledger.done(STAGE) == {0: {}}


def test_one_object_or_the_store(s3: S3, proxy: FaultyS3) -> None:  # noqa: F811
    for name in ("a.jpg", "b.jpg"):
        put(s3, f"in/{name}", noise(100))
    given = options(proxy, patience=0.3)
    a, b = Collection.open(s3.url("in"), given).units()
    s3.filesystem().rm(f"{s3.bucket}/in/b.jpg")
    assert [s.error for s in read_unit(b, given)] == ["vanished"]
    for code, error in (("AccessDenied", "no_permission"), ("InternalError", "unreadable: the store does not give it")):
        proxy.always, proxy.only = code, "a.jpg"
        assert [s.error for s in read_unit(a, given)] == [error]
        with pytest.raises(SourceError, match=error):
            SourceReader(given).read(a.unit, {"kind": "file"}, path=a.path)
    proxy.kinds, proxy.rate, proxy.always = ("cut",), 1.0, None
    assert [s.error for s in read_unit(a, options(proxy, patience=9))] == ["unreadable: fewer bytes came than there are"]
    proxy.rate, proxy.only = 0.0, ""
    for code in ("down", "AccessDenied", "ExpiredToken", "InternalError"):
        proxy.always = code
        with pytest.raises(StoreError):
            list(read_unit(a, given))
        with pytest.raises(StoreError):
            SourceReader(given).read(a.unit, {"kind": "file"}, path=a.path, size=a.size)
    proxy.always = None
    s3.filesystem().rm(s3.bucket, recursive=True)
    with pytest.raises(StoreError, match="bucket was not found"):
        list(read_unit(a, given))
    with pytest.raises(SourceError, match="vanished"):  # of a finished run
        SourceReader(given).read(a.unit, {"kind": "file"})


def test_an_object_that_changed_is_read_whole(s3: S3, proxy: FaultyS3) -> None:  # noqa: F811
    put(s3, "in/a.jpg", noise(100))
    (unit,) = Collection.open(s3.url("in"), options(proxy)).units()
    for size in (50, 200, 0):
        put(s3, "in/a.jpg", noise(200)[:size])
        assert [s.data for s in read_unit(unit, options(proxy))] == [noise(200)[:size]]


def test_large_objects_have_no_holes(s3: S3, proxy: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(stores, "CHUNK", 1000)
    put(s3, "a", noise(20_500))
    proxy.kinds, proxy.rate = ("cut", "short"), 0.3
    assert Store(s3.url("a"), options(proxy)).read(f"{s3.bucket}/a") == noise(20_500)
    assert sum(proxy.injected.values()) > 2


def test_what_a_killed_upload_left_is_given_up(s3: S3, tmp_path: Path) -> None:  # noqa: F811
    fs = s3.filesystem()
    for name in ("out/s/part-00007.parquet", "elsewhere/x"):
        fs.call_s3("create_multipart_upload", Bucket=s3.bucket, Key=name)
    Ledger(s3.url("out"), str(tmp_path), s3.options).recover(STAGE)
    assert [upload["Key"] for upload in fs.list_multipart_uploads(s3.bucket)] == ["elsewhere/x"]


REFUSALS = [("ExpiredToken", "have expired.*renew them"), ("InvalidAccessKeyId", "are wrong"), ("AccessDenied", "no permission")]


@pytest.mark.parametrize(("code", "words"), REFUSALS)
def test_refusals_are_told_at_once(s3: S3, proxy: FaultyS3, tmp_path: Path, code: str, words: str) -> None:  # noqa: F811
    put(s3, "in/a.jpg", b"x")
    proxy.always = code
    with pytest.raises(CollectionError, match=words):
        Collection.open(s3.url("in"), options(proxy))
    assert proxy.requests <= 4
    with pytest.raises(StoreError, match=words if code != "AccessDenied" else "cannot be written to"):
        Ledger(s3.url("out"), str(tmp_path), options(proxy)).probe()


def test_an_endpoint_where_nobody_is(proxy: FaultyS3, s3: S3) -> None:  # noqa: F811
    proxy.close()
    with pytest.raises(CollectionError, match=r"does not answer \(EndpointConnectionError: Could not connect to the endpoint"):
        Collection.open(s3.url("in"), options(proxy, patience=0.2))


def test_no_credentials(s3: S3, tmp_path: Path) -> None:  # noqa: F811
    """In a process of its own: botocore remembers what it found."""
    code = "import sys; from mfmc_ray.collection import Collection; Collection.open(sys.argv[1], {'endpoint_url': sys.argv[2]})"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment = kept | {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    done = subprocess.run(
        [sys.executable, "-c", code, s3.url("in"), s3.endpoint], env=environment, capture_output=True, text=True, check=False
    )
    assert "no credentials for s3://" in done.stderr.splitlines()[-1]
    assert "AWS_ACCESS_KEY_ID" in done.stderr.splitlines()[-1]


def test_a_place_goes_to_the_workers(s3: S3, tmp_path: Path) -> None:  # noqa: F811
    place = pickle.loads(pickle.dumps(RemotePlace(s3.url("out"), tmp_path, s3.options)))
    assert place.store.fs.retries == 1
    assert place.names() == []


# ---- local folders


def test_the_root_or_one_file(tmp_path: Path) -> None:
    root = tmp_path / "in"
    (root / "sub").mkdir(parents=True)
    for name in ("a.jpg", "sub/b.jpg"):
        (root / name).write_bytes(noise(100))
    a, b = Collection.open(str(root)).units()
    shutil.rmtree(root / "sub")
    assert [s.error for s in read_unit(b)] == ["vanished"]
    (root / "a.jpg").unlink()
    reader = SourceReader()
    for empty in (True, False):
        with pytest.raises(StoreError, match="is it mounted" if empty else "not there any more"):
            list(read_unit(a))
        with pytest.raises(StoreError):
            reader.read(b.unit, {"kind": "file"}, path=b.path)
        with pytest.raises(SourceError, match="vanished"):  # of a finished run
            reader.read(b.unit, {"kind": "file"})
        if empty:
            root.rmdir()


@pytest.mark.parametrize(
    ("unit", "path", "root"),
    [
        ("/d/in/a.jpg", "a.jpg", "/d/in"),
        ("s3://b/in/x/a.tar", "x/a.tar/m/1.jpg", "s3://b/in"),
        ("/in/a/a", "a/a", "/in"),
        ("/in/b", "a", None),
    ],
)
def test_root_of(unit: str, path: str, root: str | None) -> None:
    assert root_of(unit, path) == root


def test_a_full_disk_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    place = LocalPlace(tmp_path)

    def full(path: Path) -> None:
        path.write_bytes(b"begun")
        with open("/dev/full", "wb") as file:  # noqa: PTH123
            file.write(bytes(10))

    with pytest.raises(StoreError, match=rf"no space left in {tmp_path} \(5\.0 MB wanted, .* MB free\): make room, then run the same"):
        place.replace("a", full, 5_000_000)
    assert list(tmp_path.iterdir()) == []


def test_a_small_disk_fills_up_and_is_made_larger(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", out], check=False, stderr=subprocess.DEVNULL).returncode
    ):
        pytest.skip("needs to mount a file system")
    try:
        ledger = Ledger(str(out), str(tmp_path / "work"))
        ledger.probe()
        blob = pa.table({"x": [noise(100_000)]})
        ledger.commit_part(STAGE, 0, {"s": TABLE}, {})
        with pytest.raises(StoreError, match=r"no space left in .*out/s \(0\.1 MB wanted"):
            ledger.commit_part(STAGE, 1, {"s": blob}, {})
        assert [p.name for p in (out / "s").iterdir()] == ["part-00000.parquet"]
        subprocess.run(["mount", "-o", "remount,size=1m", out], check=True)
        assert ledger.recover(STAGE) == {0: {}}
        ledger.commit_part(STAGE, 1, {"s": blob}, {})
        subprocess.run(["mount", "-o", "remount,ro", out], check=True)
        with pytest.raises(StoreError, match=r"cannot be written to \(Read-only file system\): make it writable"):
            ledger.probe()
    finally:
        subprocess.run(["umount", out], check=True)


def test_work_has_room_for_what_a_run_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mfmc_ray.ledger.LEAST_WORK", 1 << 60)
    with pytest.raises(StoreError, match=rf"no space left in {tmp_path}/work \([0-9.]+ MB wanted, [0-9.]+ MB free\)"):
        Ledger(str(tmp_path / "out"), str(tmp_path / "work")).probe()


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written to"):
        Ledger(str(tmp_path / "file" / "out"), str(tmp_path / "work")).probe()


def test_a_few_images_of_a_shard_cost_little_more_than_they_have(s3: S3, tmp_path: Path) -> None:  # noqa: F811
    """And one process has one file system, so that its connections are used again."""
    images = [noise(20_000, i) for i in range(1000)]
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for i, data in enumerate(images):
            (tmp_path / "x").write_bytes(data)
            tar.add(tmp_path / "x", f"{i}.jpg")
    pq.write_table(pa.table({"image": images}), tmp_path / "p.parquet", row_group_size=50, compression="none", data_page_size=100_000)
    for name in ("t.tar", "p.parquet"):
        put(s3, f"in/{name}", (tmp_path / name).read_bytes())
    store = Store(s3.url("in"), s3.options)
    assert store.fs is Store(s3.url("in/t.tar"), dict(s3.options)).fs
    read: list[int] = []

    def note(parsed: dict[str, Any], **_: Any) -> None:
        read.append(int(parsed["ContentLength"]))

    store.fs.s3.meta.events.register("after-call.s3.GetObject", note, unique_id="note")
    # a row group has 1 MB, and pages are read whole; with blocks of one size each took 8 MB
    for unit, most in zip(Collection.open(s3.url("in"), s3.options).units(), (1_400_000, 100_000), strict=True):
        read.clear()
        sources = list(read_unit(unit, s3.options))
        assert sum(read) < 1.2 * unit.size  # once, in blocks that grow
        assert len(read) < 20
        read.clear()
        reader = SourceReader(s3.options)
        assert [reader.read(s.unit, s.locator) for s in sources[::200]] == images[::200]
        assert sum(read) < 5 * most, unit.kind
    store.fs.s3.meta.events.unregister("after-call.s3.GetObject", unique_id="note")
