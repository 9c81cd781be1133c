"""The pseudonym key: made once, for its owner only, and destroyed for good."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mfmc_ray.cli import app
from mfmc_ray.key import destroy, obtain, state
from mfmc_ray.places import LedgerError

PATH = "pseudonym.key"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_it_is_made_once_and_for_its_owner_only(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        key = obtain(tmp_path)
        assert obtain(tmp_path) == key
    finally:
        os.umask(before)
    assert len(key) == 32
    assert len(set(key)) > 8
    assert mode(tmp_path / PATH) == 0o600
    assert mode(tmp_path / "pseudonym.notes") & 0o077 == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [PATH, "pseudonym.notes"]
    (note,) = state(tmp_path).notes
    assert note.endswith(" made")
    (tmp_path / "other").mkdir()
    assert obtain(tmp_path / "other") != key


def test_a_key_that_others_could_read_is_closed_and_that_is_noted(tmp_path: Path) -> None:
    key = obtain(tmp_path)
    (tmp_path / PATH).chmod(0o644)
    assert obtain(tmp_path) == key
    assert mode(tmp_path / PATH) == 0o600
    assert state(tmp_path).notes[-1].endswith("was open to others (mode 644), closed")


@pytest.mark.parametrize("damage", ["short", "long", "empty", "folder", "link"])
def test_what_is_no_key_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / PATH
    if damage == "folder":
        path.mkdir()
    elif damage == "link":
        (tmp_path / "elsewhere").write_bytes(bytes(32))
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.write_bytes(bytes({"short": 31, "long": 33, "empty": 0}[damage]))
    with pytest.raises(LedgerError, match=PATH):
        obtain(tmp_path)


def test_a_crash_while_it_was_made_leaves_nothing_that_counts(tmp_path: Path) -> None:
    (tmp_path / f".{PATH}.tmp").write_bytes(b"half of it")
    assert len(obtain(tmp_path)) == 32
    assert not (tmp_path / f".{PATH}.tmp").exists()


def test_its_bytes_are_overwritten_and_the_next_one_is_another(tmp_path: Path) -> None:
    key = obtain(tmp_path)
    (tmp_path / "kept").hardlink_to(tmp_path / PATH)  # the same bytes on the disk
    assert destroy(tmp_path)
    assert (tmp_path / "kept").read_bytes() == bytes(32)
    assert not destroy(tmp_path)
    assert not state(tmp_path).there
    assert obtain(tmp_path) != key
    assert [note.partition(" ")[2] for note in state(tmp_path).notes] == ["made", "destroyed", "made"]


def test_a_link_is_removed_and_what_it_points_to_stays(tmp_path: Path) -> None:
    (tmp_path / "letter").write_bytes(b"not a key")
    (tmp_path / PATH).symlink_to(tmp_path / "letter")
    assert destroy(tmp_path)
    assert (tmp_path / "letter").read_bytes() == b"not a key"


def test_the_command(tmp_path: Path) -> None:
    out, work = tmp_path / "out", tmp_path / "out-work"
    work.mkdir()
    key = obtain(work)
    runner = CliRunner()
    shown = runner.invoke(app, ["key", "show", str(out)])
    assert f"{work}: a key, mode 600" in shown.output
    assert "made" in shown.output
    assert key.hex() not in shown.output
    assert isinstance(runner.invoke(app, ["key", "destroy", str(out), "--yes"]).exception, LedgerError)  # no run
    (work / "run.json").write_text("{}")
    assert runner.invoke(app, ["key", "destroy", str(out)], input="n\n").exit_code == 1
    assert obtain(work) == key
    done = runner.invoke(app, ["key", "destroy", str(out), "--yes"])
    assert done.exit_code == 0
    assert "destroyed" in done.output
    assert sorted(path.name for path in work.iterdir()) == ["pseudonym.notes", "run.guard", "run.json"]
    assert f"{work}: no key" in runner.invoke(app, ["key", "show", str(out)]).output
