"""The watch without Ray: what a dead process leaves behind, and what the next one makes of it. The processes die for real."""

from __future__ import annotations

import ctypes
import faulthandler
import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from bad_images import bad_images, save
from made_stages import units
from PIL import Image
from poison import NobodyThere

from mfmc_ray.pipeline import scan as scan_module
from mfmc_ray.pipeline.scan import ScanStage
from mfmc_ray.pipeline.watch import FACES, PIXELS, Watch
from mfmc_ray.tables import UNITS


def segfault() -> None:
    ctypes.string_at(0)


def hang_with_the_interpreter() -> None:
    """As native code that never comes back and lets no other thread of Python's run."""
    ctypes.PyDLL(None).sleep(1000)


def in_a_process(work: Callable[[], None]) -> int:
    """Runs it in a process of its own; the exit code."""

    def quietly() -> None:
        faulthandler.disable()
        work()

    process = multiprocessing.get_context("fork").Process(target=quietly)
    process.start()
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode


def dies_at(folder: Path, key: str, death: Callable[[], None], seconds: float = 0.0) -> int:
    def work() -> None:
        watch = Watch(folder, "scan")
        with watch.part(3):
            with watch.at("fine" * 30):
                pass
            with watch.at(key, seconds, path="a/b.jpg"):
                death()

    return in_a_process(work)


def test_the_image_that_a_worker_died_over_is_blamed_and_after_two_tries_in_quarantine(tmp_path: Path) -> None:
    key, watch = "ab" * 32, Watch(tmp_path, "scan")
    assert not watch.blame(3)  # nobody died
    assert dies_at(tmp_path, key, segfault) == -signal.SIGSEGV
    assert not watch.blame(2)  # another part
    assert watch.blame(3)
    assert watch.reason(key) is None
    assert not watch.blame(3)  # once for each death
    dies_at(tmp_path, key, lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert watch.blame(3)
    assert watch.reason(key) == "kills_decoder"
    assert Watch(tmp_path, "gallery-0", group="scan").reason(key) == "kills_decoder"
    assert Watch(tmp_path, "anonymize").reason(key) is None
    record = json.loads((tmp_path / "quarantine" / f"scan-{key}.json").read_text())
    assert (record["path"], record["pass"]) == ("a/b.jpg", "scan")
    dies_at(tmp_path, key, segfault)
    assert not watch.blame(3)  # who does not heed the quarantine gets no further


def test_native_code_that_holds_the_interpreter_is_ended_when_its_time_is_over(tmp_path: Path) -> None:
    watch = Watch(tmp_path, "scan")
    for _ in range(2):
        assert dies_at(tmp_path, "slow", hang_with_the_interpreter, 0.2) == 1
        assert watch.blame(3)
    assert watch.reason("slow") == "too_slow"
    (record,) = (tmp_path / "quarantine").iterdir()
    assert "in hang_with_the_interpreter" in json.loads(record.read_text())["trace"]


def test_a_part_that_ends_well_acquits_and_leaves_nothing(tmp_path: Path) -> None:
    watch = Watch(tmp_path, "scan")
    dies_at(tmp_path, "big", segfault)
    assert watch.blame(3)
    with watch.part(3), watch.at("big", 60):
        pass
    assert list((tmp_path / "watch").iterdir()) == []
    dies_at(tmp_path, "big", segfault)
    assert watch.blame(3)
    assert watch.reason("big") is None  # the first time again


def test_a_death_between_images_or_before_the_first_blames_none(tmp_path: Path) -> None:
    def between() -> None:
        watch = Watch(tmp_path, "scan")
        with watch.part(3):
            with watch.at("fine"):
                pass
            segfault()

    assert in_a_process(between) == -signal.SIGSEGV
    assert not Watch(tmp_path, "scan").blame(3)
    dies_at(tmp_path, "stopped", segfault)

    def again() -> None:
        with Watch(tmp_path, "scan").part(3):
            segfault()

    in_a_process(again)
    assert not Watch(tmp_path, "scan").blame(3)


def test_an_exception_is_no_death(tmp_path: Path) -> None:
    watch = Watch(tmp_path, "scan")
    with pytest.raises(OSError, match="full"), watch.part(3), watch.at("fine", 0.01):
        raise OSError("disk full")
    assert not watch.blame(3)


def test_damaged_notes_blame_none_and_a_damaged_record_still_holds(tmp_path: Path) -> None:
    watch = Watch(tmp_path, "scan")
    dies_at(tmp_path, "x", segfault)
    (tmp_path / "watch" / "scan-00003.at").write_bytes(b'{"key": \n')
    assert not watch.blame(3)
    for _ in range(2):
        dies_at(tmp_path, "x", segfault)
        assert watch.blame(3)
    (record,) = (tmp_path / "quarantine").iterdir()
    record.write_text("")
    assert watch.reason("x") == "kills_decoder"


def test_large_images_and_crowds_have_more_time() -> None:
    watch = Watch(seconds=60.0)
    assert watch.allowed() == 60
    assert watch.allowed(2 * PIXELS, 3 * FACES) == 360
    assert Watch(seconds=0.0).allowed(PIXELS, FACES) == 0  # any time


POISON = b"poison"


@pytest.fixture
def poisonous(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that dies over some bytes, as the real one may with bytes that nobody knows yet."""
    real = scan_module.decode

    def decode(data: bytes, max_pixels: int) -> object:
        if data.endswith(POISON):
            segfault()
        return real(data, max_pixels)

    monkeypatch.setattr(scan_module, "decode", decode)


def scanned(folder: Path, work: Path) -> pa.Table:
    """The folder's rows, by as many processes as it takes."""

    def try_once() -> None:
        watch = Watch(work, "scan", 60)
        with watch.part(0):
            table = ScanStage(NobodyThere(), 178_956_970, watch=watch)(units(folder))  # type: ignore[arg-type]
            with pa.ipc.new_file(work / "table", table.schema) as file:
                file.write(table)

    deaths = 0
    while in_a_process(try_once):
        deaths += 1
        assert Watch(work, "scan").blame(0), deaths
    with pa.ipc.open_file(work / "table") as file:
        return file.read_all().replace_schema_metadata({b"deaths": str(deaths).encode()})


@pytest.mark.usefixtures("poisonous")
def test_poisoned_images_cost_themselves_only(tmp_path: Path) -> None:
    folder, work = tmp_path / "in", tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    good = save(Image.new("RGB", (20, 10), "red"), "JPEG")
    for name in ("a.jpg", "z.jpg"):
        (folder / name).write_bytes(good)
    for name in ("b.jpg", "c.jpg", "copy of c.jpg"):
        (folder / name).write_bytes(good + name[-5:].encode() + POISON)
    (folder / "d.jpg").write_bytes(bad_images()["truncated.jpg"])
    table = scanned(folder, work)
    reasons = dict(zip(table["path"].to_pylist(), table["reason"].to_pylist(), strict=True))
    killer = "kills_decoder"
    assert reasons == {"a.jpg": None, "z.jpg": None, "b.jpg": killer, "c.jpg": killer, "copy of c.jpg": killer, "d.jpg": "truncated"}
    assert all(row["image_id"] for row in table.select(["image_id"]).to_pylist())
    assert table.schema.metadata[b"deaths"] == b"4"  # two for each content
    assert scanned(folder, work).schema.metadata[b"deaths"] == b"0"
    (folder / "b.jpg").write_bytes(good)  # mended
    assert dict(zip(*(scanned(folder, work)[name].to_pylist() for name in ("path", "reason")), strict=True))["b.jpg"] is None


def test_of_a_shard_that_kills_its_reader_what_came_before_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"unit": "a.tar", "path": "a.tar", "kind": "tar", "size": 9, "version": "1", "part": 0}]
    real = scan_module.read_unit
    good = tmp_path / "good.jpg"
    good.write_bytes(save(Image.new("RGB", (20, 10)), "JPEG"))

    def read_unit(unit: scan_module.Unit, options: object) -> object:
        for _ in range(3):
            yield from real(scan_module.Unit(str(good), "file", good.stat().st_size, "", "a.tar/x.jpg"))
        segfault()

    monkeypatch.setattr(scan_module, "read_unit", read_unit)

    def try_once() -> None:
        watch = Watch(tmp_path, "scan", 60)
        with watch.part(0):
            stage = ScanStage(NobodyThere(), 1000, watch=watch)  # type: ignore[arg-type]
            reasons = stage(pa.Table.from_pylist(rows, schema=UNITS))["reason"].to_pylist()
            (tmp_path / "reasons").write_text(json.dumps(reasons))

    while in_a_process(try_once):
        assert Watch(tmp_path, "scan").blame(0)
    assert json.loads((tmp_path / "reasons").read_text()) == [None, None, None, "kills_decoder"]
