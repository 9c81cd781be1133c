from __future__ import annotations

import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from s3 import S3, s3, s3_endpoint  # noqa: F401 (fixtures)

from mfmc_ray import ledger as module
from mfmc_ray import parquet, runlock
from mfmc_ray.ledger import Ledger, LedgerError, Stage
from mfmc_ray.parquet import write_parquet
from mfmc_ray.tables import FACES, IMAGES, scan_schema

ANONYMIZE = Stage("anonymize", ("faces", "images"))
SCAN = Stage("scan", ("scan",), private=True)


def images(part: int, rows: int = 3) -> pa.Table:
    row = {"verdict": "unchanged", "width": part, "height": 1, "format": "JPEG", "faces": 1, "path": "p"}
    return pa.Table.from_pylist(
        [{**row, "image_id": f"{part}-{i}", "image": {"bytes": bytes([part, i % 256]) * 500, "path": "p"}} for i in range(rows)], IMAGES
    )


def tables(part: int, rows: int = 3) -> dict[str, pa.Table]:
    return {"images": images(part, rows), "faces": pa.Table.from_pylist([{"image_id": f"{part}-0"}], FACES)}


def listing(folder: Path) -> set[str]:
    return {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}


@pytest.fixture(params=["local", "s3"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    if request.param == "local":
        yield Ledger(str(tmp_path / "out"), str(tmp_path / "work"))
    else:
        bucket: S3 = request.getfixturevalue("s3")
        yield Ledger(bucket.url("some/out"), str(tmp_path / "work"), bucket.options)


def out_files(ledger: Ledger) -> dict[str, bytes]:
    if "://" not in ledger.out:
        root = Path(ledger.out)
        return {n: (root / n).read_bytes() for n in listing(root)} if root.exists() else {}
    remote: Any = ledger.public
    remote.store.fs.invalidate_cache()
    return {n.removeprefix(remote.root + "/"): remote.store.fs.cat_file(n) for n in remote.store.fs.find(remote.root)}


def test_parts_resume_and_are_the_same_again(ledger: Ledger) -> None:
    assert ledger.begin("c", "i") is False
    assert ledger.recover(ANONYMIZE) == {}
    worker: Ledger = pickle.loads(pickle.dumps(ledger))
    for part in (0, 2):
        worker.commit_part(ANONYMIZE, part, tables(part), {"images": 3, "part": part})
    first = out_files(ledger)
    assert set(first) == {f"{t}/part-0000{p}.parquet" for t in ("faces", "images") for p in (0, 2)}
    assert ledger.begin("c", "i") is True
    assert ledger.recover(ANONYMIZE) == ledger.done(ANONYMIZE) == {0: {"images": 3, "part": 0}, 2: {"images": 3, "part": 2}}
    ledger.commit_part(ANONYMIZE, 2, tables(2), {"images": 3, "part": 2})
    assert out_files(ledger) == first
    marker = json.loads((ledger.work / "ledger/anonymize/part-00002.json").read_text())
    assert marker["files"][1] == {
        "file": "images/part-00002.parquet",
        "rows": 3,
        "bytes": len(first["images/part-00002.parquet"]),
        "sha256": hashlib.sha256(first["images/part-00002.parquet"]).hexdigest(),
    }
    with pytest.raises(ValueError, match="commits faces, images, not images"):
        ledger.commit_part(ANONYMIZE, 1, {"images": images(1)}, {})


def test_recover_removes_what_was_not_committed(ledger: Ledger) -> None:
    ledger.begin("c", "i")
    for part in range(4):
        ledger.commit_part(ANONYMIZE, part, tables(part), {"part": part})
    public = ledger.public
    (ledger.work / "ledger/anonymize/part-00000.json").unlink()  # killed before the marker
    public.remove("images/part-00001.parquet")
    ledger.commit("faces", 2, tables(2)["faces"].slice(0, 0))  # another size than the marker says
    ledger.commit("images", 7, images(7))
    ledger.write_text("images/.part-00008.parquet.0.tmp", "half")
    ledger.write_text("images/notes.txt", "a user's")
    assert ledger.recover(ANONYMIZE) == {3: {"part": 3}}
    assert set(out_files(ledger)) == {"faces/part-00003.parquet", "images/part-00003.parquet", "images/notes.txt"}
    (ledger.work / "ledger/anonymize/part-00003.json").write_text("{half")
    assert ledger.recover(ANONYMIZE) == {}
    assert set(out_files(ledger)) == {"images/notes.txt"}


def test_a_failing_writer_shows_nothing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.begin("c", "i")

    def fail(table: pa.Table, path: Path) -> None:
        path.write_bytes(b"half a file")
        raise MemoryError

    monkeypatch.setattr(module, "write_parquet", fail)
    with pytest.raises(MemoryError):
        ledger.commit("images", 0, images(0))
    assert out_files(ledger) == {}
    assert not [f for f in listing(ledger.work) if f.endswith(".tmp")]


def test_private_stages_stay_in_work(ledger: Ledger) -> None:
    ledger.begin("c", "i")
    table = pa.Table.from_pylist([{"image_id": "x", "path": "x.jpg", "faces": []}], scan_schema({"sface": 4}))
    ledger.commit_part(SCAN, 0, {"scan": table}, {})
    assert out_files(ledger) == {}
    assert pq.read_table(ledger.work / "scan/part-00000.parquet").equals(table)
    (ledger.work / "ledger/scan/part-00000.json").unlink()
    ledger.recover(SCAN)
    assert not (ledger.work / "scan/part-00000.parquet").exists()
    assert ledger.work.stat().st_mode & 0o077 == 0


def test_small_files(ledger: Ledger) -> None:
    ledger.write_json("manifest.json", {"é": 1})
    ledger.write_text("report/index.html", "<p>é")
    found = out_files(ledger)
    assert json.loads(found["manifest.json"]) == {"é": 1}
    assert found["report/index.html"].decode() == "<p>é"


def test_another_run_is_refused_and_restart_wipes_only_ours(ledger: Ledger) -> None:
    ledger.begin("c", "i")
    ledger.commit_part(ANONYMIZE, 0, tables(0), {})
    ledger.commit_part(SCAN, 0, {"scan": pa.table({"x": [1]})}, {})
    ledger.write_json("manifest.json", {})
    ledger.write_text("mine.txt", "a user's")
    for config, found, named in (("d", "i", "other settings:"), ("c", "j", "other input files:"), ("d", "j", "settings and input files")):
        with pytest.raises(LedgerError, match=rf"{named}.*--restart"):
            ledger.begin(config, found)
    assert ledger.begin("d", "j", restart=True) is False
    assert set(out_files(ledger)) == {"mine.txt"}
    assert ledger.recover(ANONYMIZE) == ledger.recover(SCAN) == {}
    assert not (ledger.work / "scan/part-00000.parquet").exists()
    assert ledger.begin("d", "j") is True


def test_out_that_is_not_ours_is_never_touched(ledger: Ledger, tmp_path: Path) -> None:
    ledger.write_text("images/part-00000.parquet", "precious")
    for restart in (False, True):
        with pytest.raises(LedgerError, match="not empty"):
            ledger.begin("c", "i", restart=restart)
    empty = Ledger(str(tmp_path / "other"), str(ledger.work))
    empty.begin("c", "i")
    with pytest.raises(LedgerError, match=r"other OUT \(it was .*other"):
        ledger.begin("c", "i")
    with pytest.raises(LedgerError, match="not empty"):
        ledger.begin("c", "i", restart=True)
    assert out_files(ledger) == {"images/part-00000.parquet": b"precious"}


@pytest.mark.parametrize("work", ["out", "out/work", "link/work", "out/../out/x/y"])
def test_work_in_out_is_refused(tmp_path: Path, work: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "out")
    with pytest.raises(LedgerError, match="is in OUT"):
        Ledger(str(tmp_path / "out"), str(tmp_path / work))
    Ledger(str(tmp_path / "out"), str(tmp_path / "out-work"))
    with pytest.raises(LedgerError, match="must be a local folder"):
        Ledger(str(tmp_path / "out"), "s3://bucket/work")


@pytest.mark.parametrize(
    ("out", "work", "root", "message"),
    [
        ("/d/in/out", "/d/work", "/d/in", "OUT .* is in the input"),
        ("/d/in", "/d/work", "/d/in", "OUT .* is in the input"),
        ("/d/out", "/d/in/work", "/d/in", "WORK .* is in the input"),
        ("/d/out", "/d/work", "/d/out/in", "the input .* is in OUT"),
        ("/d/out", "/d/work", "/d/outer", None),
        ("/d/out", "/d/work", "s3://b/in", None),
    ],
)
def test_input_and_out_must_be_apart(out: str, work: str, root: str, message: str | None) -> None:
    ledger = Ledger(out, work)
    if message is None:
        ledger.check_input(root)
    else:
        with pytest.raises(LedgerError, match=message):
            ledger.check_input(root)


def test_remote_input_and_out_must_be_apart(tmp_path: Path, s3: S3) -> None:  # noqa: F811
    ledger = Ledger("s3://b/data/out", str(tmp_path), s3.options)
    ledger.check_input("s3://b/data/in")
    with pytest.raises(LedgerError, match="is in the input"):
        ledger.check_input("s3://b/data")
    with pytest.raises(LedgerError, match="is in OUT"):
        ledger.check_input("s3://b/data/out/in")


def test_plain_readers_see_only_whole_files(tmp_path: Path) -> None:
    duckdb, datasets = pytest.importorskip("duckdb"), pytest.importorskip("datasets")
    ledger = Ledger(str(tmp_path / "out"), str(tmp_path / "work"))
    ledger.begin("c", "i")
    for part in range(2):
        ledger.commit_part(ANONYMIZE, part, tables(part), {}, {"generation": "1"})
    whole = (tmp_path / "out/images/part-00000.parquet").read_bytes()
    (tmp_path / "out/images/.part-00002.parquet.abc.tmp").write_bytes(whole[: len(whole) // 2])
    folder = tmp_path / "out/images"
    assert pads.dataset(folder).count_rows() == 6
    assert duckdb.sql(f"select count(*) from '{folder}/*.parquet'").fetchall() == [(6,)]
    loaded = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(loaded) == 6
    assert isinstance(loaded.features["image"], datasets.Image)
    assert pq.read_schema(folder / "part-00000.parquet").metadata[b"generation"] == b"1"


def test_parquet_settings(tmp_path: Path) -> None:
    write_parquet(images(1, 300), tmp_path / "x.parquet")
    assert pq.read_table(tmp_path / "x.parquet").equals(images(1, 300))
    meta = pq.ParquetFile(tmp_path / "x.parquet").metadata
    assert [meta.row_group(i).num_rows for i in range(meta.num_row_groups)] == [128, 128, 44]
    columns = {meta.row_group(0).column(i).path_in_schema: meta.row_group(0).column(i) for i in range(meta.num_columns)}
    blob, word = columns["image.bytes"], columns["verdict"]
    assert (blob.compression, "RLE_DICTIONARY" in blob.encodings, blob.is_stats_set) == ("UNCOMPRESSED", False, False)
    assert (word.compression, "RLE_DICTIONARY" in word.encodings, word.is_stats_set) == ("SNAPPY", True, True)


def test_row_groups_of_large_images_are_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "GROUP_BYTES", 3000)
    write_parquet(images(1, 10), tmp_path / "x.parquet")
    assert pq.ParquetFile(tmp_path / "x.parquet").metadata.row_group(0).num_rows == 2


@pytest.mark.parametrize("schema", [FACES, scan_schema({"sface": 4, "dlib": 3}), pa.schema([("x", pa.int32())])])
def test_every_table_can_be_written_empty_and_full(tmp_path: Path, schema: pa.Schema) -> None:
    table = schema.empty_table()
    write_parquet(table, tmp_path / "empty.parquet")
    assert pq.read_schema(tmp_path / "empty.parquet").equals(schema)
    nulls = pa.Table.from_arrays([pa.nulls(3, f.type) for f in schema], schema=schema)
    write_parquet(nulls, tmp_path / "nulls.parquet")
    assert pq.read_table(tmp_path / "nulls.parquet").equals(nulls)


KILLED = """
import os, signal, sys
import pyarrow as pa
from mfmc_ray.ledger import Ledger, Stage
count = 0
def dies(real):
    def call(*args, **kwargs):
        global count
        count += 1
        if count == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call
ledger = Ledger(sys.argv[1], sys.argv[2])
ledger.begin("c", "i")
stage = Stage("anonymize", ("faces", "images"))
part = {"faces": pa.table({"x": [1, 2]}), "images": pa.table({"x": list(range(50))})}
ledger.commit_part(stage, 0, part, {"n": 0})
os.fsync, os.replace, os.unlink, os.open = dies(os.fsync), dies(os.replace), dies(os.unlink), dies(os.open)
ledger.commit_part(stage, 0, part, {"n": 0})
ledger.commit_part(stage, 1, part, {"n": 1})
"""


@pytest.mark.parametrize("call", [2, 3, 7, 11, 16, 20, 24])
def test_killed_while_committing(tmp_path: Path, call: int) -> None:
    """kill -9 before the n-th system call: what is visible is whole, and a second run makes it complete.

    Part 0 is written once, then again, then part 1; each takes 13 calls: unlink the marker, then fsync, replace and sync the folder for
    each of faces, images and marker.
    """
    out, work = tmp_path / "out", tmp_path / "work"
    arguments = [sys.executable, "-c", KILLED, str(out), str(work), str(call)]
    assert subprocess.run(arguments, capture_output=True, check=False).returncode == -signal.SIGKILL
    for file in out.rglob("*.parquet"):
        if not file.name.startswith("."):
            pq.read_table(file).validate(full=True)
    ledger, stage = Ledger(str(out), str(work)), ANONYMIZE
    done = ledger.recover(stage)
    assert listing(out) == {f"{t}/part-{p:05d}.parquet" for t in ("faces", "images") for p in done}
    assert not [f for f in listing(work) if "parquet" in f]
    for part in {0, 1} - set(done):
        ledger.commit_part(stage, part, {"faces": pa.table({"x": [1, 2]}), "images": pa.table({"x": list(range(50))})}, {"n": part})
    assert ledger.done(stage) == {0: {"n": 0}, 1: {"n": 1}}
    assert pads.dataset(out / "images").count_rows() == 100


HOLDER = """
import sys, time
from mfmc_ray.ledger import Ledger
with Ledger(sys.argv[1], sys.argv[2]).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def holder(tmp_path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "out"), str(tmp_path / "work")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_lock_names_its_holder_and_outlives_no_process(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "out"), str(tmp_path / "work"))
    process = holder(tmp_path)
    try:
        with pytest.raises(LedgerError, match=rf"process {process.pid} on .* is working on"), ledger.lock():
            pass
        # its process lives: however old the lease is (a suspended machine), it is held
        os.utime(tmp_path / "work/run.lock", (0, 0))
        with pytest.raises(LedgerError), ledger.lock():
            pass
    finally:
        process.kill()
        process.wait()
    with ledger.lock() as lock:
        assert lock.held()
        with pytest.raises(LedgerError, match=f"process {os.getpid()}"), ledger.lock():
            pass
    assert listing(tmp_path / "work") == {"run.guard"}
    with ledger.lock():
        pass


@pytest.mark.parametrize(("age", "free"), [(60, False), (300, True)])
def test_lock_of_another_machine_ends_with_its_lease(tmp_path: Path, age: int, free: bool) -> None:
    ledger = Ledger(str(tmp_path / "out"), str(tmp_path / "work"))
    (tmp_path / "work").mkdir()
    lock = tmp_path / "work/run.lock"
    lock.write_text(json.dumps({"token": "x", "pid": os.getpid(), "host": "node-7", "process": "other-boot pid:[1] 5"}))
    os.utime(lock, (time.time() - age,) * 2)
    if free:
        with ledger.lock() as own:
            assert own.held()
    else:
        with pytest.raises(LedgerError, match="on node-7"), ledger.lock():
            pass
        assert lock.exists()


def test_lock_of_one_who_was_killed_while_writing_it_is_nobodys(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "out"), str(tmp_path / "work"))
    (tmp_path / "work").mkdir()
    (tmp_path / "work/run.lock").write_bytes(b"")
    with ledger.lock() as lock:
        assert lock.held()


def test_lock_is_kept_fresh_and_a_lost_one_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runlock, "LEASE_SECONDS", 0.3)
    ledger = Ledger(str(tmp_path / "out"), str(tmp_path / "work"))
    file = tmp_path / "work/run.lock"
    with ledger.lock() as lock:
        os.utime(file, (0, 0))
        time.sleep(0.3)
        assert time.time() - file.stat().st_mtime < 1
        file.write_text(json.dumps({"token": "another's"}))
        assert not lock.held()
    assert file.exists()


def test_only_one_of_many_gets_the_lock(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import sys, time
        from mfmc_ray.ledger import Ledger, LedgerError
        ledger = Ledger(sys.argv[1], sys.argv[2])
        time.sleep(max(0, float(sys.argv[3]) - time.time()))
        try:
            with ledger.lock():
                print("held", flush=True)
                sys.stdin.read()
        except LedgerError:
            print("refused", flush=True)
    """)
    (tmp_path / "work").mkdir()
    stale = {"token": "x", "pid": 1, "host": "gone", "process": "other"}
    (tmp_path / "work/run.lock").write_text(json.dumps(stale))
    os.utime(tmp_path / "work/run.lock", (0, 0))
    command = [sys.executable, "-c", script, str(tmp_path / "out"), str(tmp_path / "work"), str(time.time() + 3)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = sorted(p.stdout.readline().strip() for p in processes if p.stdout)  # nobody lets go before all have said it
    for p in processes:
        p.communicate()
    assert said == ["held", "refused", "refused", "refused"]


def test_a_published_part_can_have_private_tables_and_be_renewed_in_part(ledger: Ledger) -> None:
    stage = Stage("anonymize", ("faces", "images"), kept=("published",))
    ledger.begin("c", "i")
    private = pa.table({"embedding": [[1.0, 2.0]]})
    with pytest.raises(ValueError, match="published"):
        ledger.commit_part(stage, 0, tables(0), {"n": 0})
    for part in (0, 1):
        ledger.commit_part(stage, part, {**tables(part), "published": private}, {"n": part})
    assert (ledger.work / "published/part-00000.parquet").is_file()
    assert not [name for name in out_files(ledger) if "published" in name]
    before = out_files(ledger)
    ledger.renew_part(stage, 1, {"faces": tables(7)["faces"]}, {"n": 8})
    after = out_files(ledger)
    assert {name for name in after if after[name] != before[name]} == {"faces/part-00001.parquet"}
    assert ledger.recover(stage) == {0: {"n": 0}, 1: {"n": 8}}
    with pytest.raises(ValueError, match="not committed"):
        ledger.renew_part(stage, 2, {"faces": tables(7)["faces"]}, {"n": 8})
    (ledger.work / "published/part-00001.parquet").unlink()
    assert ledger.recover(stage) == {0: {"n": 0}}
    assert sorted(out_files(ledger)) == ["faces/part-00000.parquet", "images/part-00000.parquet"]
    (ledger.work / "published/part-00005.parquet").write_bytes(b"left by a crash")
    ledger.recover(stage)
    assert listing(ledger.work / "published") == {"part-00000.parquet"}


def test_a_part_of_an_older_version_that_lacks_a_table_is_done_again(ledger: Ledger) -> None:
    """Version 0.1 kept no embeddings of published faces: its parts cannot be renewed, and are no parts of this version's stage."""
    ledger.begin("c", "i")
    ledger.commit_part(ANONYMIZE, 0, tables(0), {"n": 0})
    assert ledger.recover(Stage("anonymize", ("faces", "images"), kept=("published",))) == {}
    assert not out_files(ledger)


def test_a_changed_table_is_not_read(ledger: Ledger) -> None:
    """Or renewing a part would put the run's own mark on what somebody else has written."""
    ledger.begin("c", "i")
    ledger.commit_part(ANONYMIZE, 0, tables(0), {})
    assert ledger.read_table(ANONYMIZE, "faces", 0).equals(tables(0)["faces"])
    ledger.commit("faces", 0, tables(7)["faces"])
    for part, table in ((0, "faces"), (1, "faces")):
        with pytest.raises(LedgerError, match="not what was committed"):
            ledger.read_table(ANONYMIZE, table, part)


RENEWED = """
import os, signal, sys
import pyarrow as pa
from mfmc_ray.ledger import Ledger, Stage
count = 0
def dies(real):
    def call(*args, **kwargs):
        global count
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call
table = pa.table({"x": [2]})  # with what pyarrow imports for it
for last in range(1, int(sys.argv[2])):
    if pid := os.fork():
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(code, flush=True)
        if code == 0:
            break
        continue
    ledger = Ledger(f"{sys.argv[1]}/{last}/out", f"{sys.argv[1]}/{last}/work")
    os.fsync, os.replace, os.unlink, os.open = dies(os.fsync), dies(os.replace), dies(os.unlink), dies(os.open)
    ledger.renew_part(Stage("scan", ("scan",), private=True), 0, {"scan": table}, {"n": 2})
    break
"""
"""Renews a part in a process for each call that it is to be killed before."""


def test_killed_while_renewing_a_private_part(tmp_path: Path) -> None:
    """kill -9 before any system call: the part is what it was or what it becomes. (Its photos may be gone, so it could not be repeated.)"""
    most = 30
    ledgers = [Ledger(str(tmp_path / f"{call}/out"), str(tmp_path / f"{call}/work")) for call in range(1, most)]
    for ledger in ledgers:
        ledger.begin("c", "i")
        ledger.commit_part(SCAN, 0, {"scan": pa.table({"x": [1]})}, {"n": 1})
    script = [sys.executable, "-c", RENEWED, str(tmp_path), str(most)]
    codes = subprocess.run(script, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    assert codes == [str(-signal.SIGKILL)] * (len(codes) - 1) + ["0"]
    seen = []
    for ledger in ledgers[: len(codes)]:
        done = ledger.recover(SCAN)
        value = ledger.read_table(SCAN, "scan", 0)["x"][0].as_py()
        assert done == {0: {"n": value}}
        assert listing(ledger.work / "scan") == {"part-00000.parquet"}
        seen.append(value)
    assert seen == sorted(seen)
    assert set(seen) == {1, 2}


def test_a_restart_leaves_nothing_of_the_run_before(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a restart that was killed is not taken for the new run, whose index would be the old one's."""
    ledger.begin("c", "i")
    mine = [
        "known/generation-00000.json",
        "scan/part-00000.parquet",
        "gallery-3/part-00000.parquet",
        "galleries.json",
        "audit/part-00000.npz",
    ]
    for name in [*mine, "changes/generation-00001.json", "notes.txt"]:
        (ledger.work / name).parent.mkdir(exist_ok=True)
        (ledger.work / name).write_text("x")

    def dies(name: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ledger.public, "remove", dies)
        with pytest.raises(KeyboardInterrupt):
            ledger.begin("c", "i", restart=True)
    with pytest.raises(LedgerError, match="--restart"):
        ledger.begin("c", "i")
    ledger.begin("c", "i", restart=True)
    assert listing(ledger.work) == {"changes/generation-00001.json", "notes.txt", "run.json"}


def test_recover_removes_nothing_from_an_out_that_is_not_its_own(tmp_path: Path) -> None:
    """Settings that name another dataset, which has parts of the same names."""
    theirs, ledger = Ledger(str(tmp_path / "b"), str(tmp_path / "b-work")), Ledger(str(tmp_path / "a"), str(tmp_path / "a-work"))
    for one, rows in ((theirs, 5), (ledger, 3)):
        one.begin("c", "i")
        one.commit_part(ANONYMIZE, 0, tables(0, rows), {})
    before = out_files(theirs)
    with pytest.raises(LedgerError, match="another OUT"):
        Ledger(theirs.out, str(ledger.work)).recover(ANONYMIZE)
    assert out_files(theirs) == before
    assert ledger.recover(ANONYMIZE) == {0: {}}


def test_a_part_renewed_over_a_half_done_renewal_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker dies while files take their places; the next one, which is given the part, before it has written any."""
    ledger = Ledger(str(tmp_path / "out"), str(tmp_path / "work"))
    ledger.begin("c", "i")
    ledger.commit_part(SCAN, 0, {"scan": pa.table({"x": [1]})}, {"n": 1})
    real = type(ledger._private).replace

    def dies(at: str) -> Any:
        def replace(place: Any, name: str, *rest: Any) -> Any:
            if name.startswith(at):
                raise KeyboardInterrupt
            return real(place, name, *rest)

        return replace

    for at in ("scan/", "next/"):
        with monkeypatch.context() as patch:
            patch.setattr(type(ledger._private), "replace", dies(at))
            with pytest.raises(KeyboardInterrupt):
                ledger.renew_part(SCAN, 0, {"scan": pa.table({"x": list(range(1000))})}, {"n": 2})
    assert ledger.recover(SCAN) == {0: {"n": 2}}
    assert ledger.read_table(SCAN, "scan", 0).num_rows == 1000
