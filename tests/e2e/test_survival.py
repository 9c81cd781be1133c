"""A run that is killed: what is visible then, and what the same command makes of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from many_photos import write_photos

OWN_RAY = True

PICTURES = 32
PARTS = 4  # of 8 files
SETTINGS = ("--identities", "6", "--attempts", "2", "--actors", "1")


def rows(folder: Path, *columns: str) -> list[dict[str, Any]]:
    """All rows of a table's visible files, each of which has to be whole."""
    return [row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file, columns=list(columns)).to_pylist()]


def state(out: Path, names: list[str]) -> dict[str, tuple[int, str]]:
    return {name: ((out / name).stat().st_mtime_ns, hashlib.sha256((out / name).read_bytes()).hexdigest()) for name in names}


def assert_consistent(out: Path) -> None:
    """Whatever is visible can be used: pictures have their faces' rows, and no picture shows more than its row says."""
    faces = Counter(row["path"] for row in rows(out / "faces", "path"))
    for row in rows(out / "images", "path", "faces", "verdict", "image"):
        assert row["verdict"] in ("anonymized", "unchanged")
        assert row["image"]["bytes"]
        assert faces[row["path"]] == row["faces"]
        assert (row["verdict"] == "anonymized") == (row["faces"] > 0)


def wait_for(what: Any, process: Any, seconds: float = 120) -> None:
    """Until it is so, while the run goes on."""
    end = time.monotonic() + seconds
    while not what():
        assert process.poll() is None, "the run ended too early"
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"), PICTURES)


def test_a_killed_run_shows_nothing_unfinished_and_goes_on(mfmc: Any, photos: Path, tmp_path: Path) -> None:
    out, work = tmp_path / "out", tmp_path / "work"
    command = ("anonymize", photos, out, "--work", work, *SETTINGS)
    process = mfmc.start(*command)
    wait_for((work / "run.lock").exists, process)
    second = mfmc(*command)  # while the first is at it
    assert second.returncode == 1
    assert f"process {process.pid} on" in second.stderr
    assert "Traceback" not in second.stderr

    # once the second part appears, the first is committed and the others are not begun
    wait_for(lambda: len(list((out / "images").glob("*.parquet"))) >= 2, process)
    children = psutil.Process(process.pid).children(recursive=True)
    agents = [
        child for child in children if child.name().endswith("Agent")
    ]  # Ray's, which do no work: they look for their node a minute long
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs([child for child in children if child not in agents], timeout=30)
    for agent in agents:
        with contextlib.suppress(psutil.NoSuchProcess):
            agent.kill()
    assert len(children) > len(agents)
    assert not alive, f"they outlive the killed run and may write: {[worker.name() for worker in alive]}"

    assert list((work / "ray" / "s").glob("session_2*"))  # Ray's logs, which the next command removes
    link = Path((work / "elsewhere").read_text())
    assert os.path.lexists(link)
    visible = sorted((out / "images").glob("*.parquet"))
    assert 2 <= len(visible) < PARTS
    assert not (out / "manifest.json").exists()
    assert_consistent(out)
    committed = [json.loads(marker.read_text()) for marker in sorted((work / "ledger" / "anonymize").glob("part-*.json"))]
    assert committed
    names = [file["file"] for marker in committed for file in marker["files"]]
    before = state(out, names)
    assert [digest for _, digest in before.values()] == [file["sha256"] for marker in committed for file in marker["files"]]
    unfinished = mfmc("audit", out, "--work", work)
    assert unfinished.returncode == 1
    assert "Traceback" not in unfinished.stderr
    scanned = {file: file.stat().st_mtime_ns for file in (work / "scan").iterdir()}

    again = mfmc(*command)
    assert again.returncode == 0, again.stderr
    assert not (work / "ray").exists()
    assert not os.path.lexists(link)
    assert "Resuming" in again.stderr
    assert "Scanning" not in again.stderr
    assert "Certifying" not in again.stderr
    assert f"of {8 * (PARTS - len(committed))} images" in again.stderr  # the rest, and only that
    assert state(out, names) == before
    assert {file: file.stat().st_mtime_ns for file in (work / "scan").iterdir()} == scanned
    assert_consistent(out)
    found = rows(out / "images", "path", "verdict")
    assert sorted(row["path"] for row in found) == [f"{i:02}.jpg" for i in range(PICTURES)]
    assert Counter(row["verdict"] for row in found) == {"anonymized": 24, "unchanged": 8}
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["counts"]["images"] == {"anonymized": 24, "unchanged": 8}
    assert sum(manifest["counts"]["faces"].values()) == len(rows(out / "faces", "path"))
    everything = [path.name for path in out.rglob("*") if path.is_file()]
    assert not [name for name in everything if name.startswith(".") or name.endswith(".tmp")]

    # nothing is left to do: nothing changes
    whole = state(out, [str(path.relative_to(out)) for path in out.glob("*/part-*.parquet")])
    idle = mfmc(*command)
    assert idle.returncode == 0, idle.stderr
    assert "Anonymizing" not in idle.stderr
    assert {name: digest for name, (_, digest) in state(out, list(whole)).items()} == {name: digest for name, (_, digest) in whole.items()}
