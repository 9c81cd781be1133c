"""The private folder's hygiene."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from mfmc_ray.places import LedgerError
from mfmc_ray.private import complaints, private_folder, scratch, short_link, tidy


@pytest.mark.parametrize(("mode", "words"), [(0o755, "can be read by"), (0o750, "can be read by"), (0o770, "read and changed")])
def test_a_folder_that_others_can_open_is_complained_about(tmp_path: Path, mode: int, words: str) -> None:
    tmp_path.chmod(mode)
    (complaint,) = complaints(tmp_path)
    assert words in complaint
    assert f"mode {mode:o}" in complaint
    tmp_path.chmod(0o700)
    assert complaints(tmp_path) == []
    assert complaints(tmp_path / "none") == []


def test_tidy_removes_what_a_killed_run_leaves_and_nothing_else(tmp_path: Path) -> None:
    keep = ["scan/part-00000.parquet", "pseudonym.key", "mine.tmp", "notes/.draft.tmp", "ray.txt", "known/generation-00001.parquet"]
    gone = [
        *("ray/s/session_1/logs/a.log", "ray-spill/object", "staging/x.parquet"),
        f"scan/.part-00001.parquet.{'0a' * 16}.tmp",
        *("known/generation-00002.parquet.tmp", "ledger/finished.json.tmp"),
    ]
    for name in (*keep, *gone):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    link = short_link(tmp_path, tmp_path / "scan")
    assert stat.S_IMODE(link.parent.stat().st_mode) == 0o700
    assert link.resolve() == (tmp_path / "scan").resolve()
    assert len(os.fsencode(link)) < 24
    tidy(tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == sorted(keep)
    assert not os.path.lexists(link.parent)
    tidy(tmp_path)  # again
    tidy(tmp_path / "none")


def test_a_note_that_came_with_a_copied_folder_removes_nothing(tmp_path: Path) -> None:
    ours, elsewhere = short_link(tmp_path, tmp_path), tmp_path / "mfmc-photos"
    elsewhere.mkdir(mode=0o700)
    (elsewhere / "s").write_text("a letter")
    for claimed in (str(elsewhere), "/tmp", f"{ours.parent}/..", "\0", ""):
        (tmp_path / "elsewhere").write_text(claimed)
        tidy(tmp_path)
    assert (elsewhere / "s").read_text() == "a letter"
    assert ours.is_symlink()
    copy = tmp_path.with_name("copy")  # of a folder that is in use
    copy.mkdir()
    (copy / "elsewhere").write_text(str(ours.parent))
    tidy(copy)
    assert ours.is_symlink()
    ours.parent.chmod(0o755)  # not as they are made
    (tmp_path / "elsewhere").write_text(str(ours.parent))
    tidy(tmp_path)
    assert ours.is_symlink()
    ours.parent.chmod(0o700)
    (ours.parent / "letter").write_text("somebody's")
    (tmp_path / "elsewhere").write_text(str(ours.parent))
    tidy(tmp_path)
    assert [path.name for path in ours.parent.iterdir()] == ["letter"]
    (ours.parent / "letter").unlink()
    ours.parent.rmdir()


def test_scratch_is_private_and_removed(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = scratch(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    tidy(tmp_path)
    assert not folder.exists()


def test_a_private_folder_is_nobody_else_s(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    (out / "images").mkdir(parents=True)
    (out / "manifest.json").touch()
    before = os.umask(0o022)
    try:
        made = private_folder(str(tmp_path / "new" / "work"), "comparison", str(photos))
    finally:
        os.umask(before)
    assert [stat.S_IMODE(one.stat().st_mode) for one in (made, made.parent)] == [0o700, 0o700]
    made.chmod(0o755)
    private_folder(str(tmp_path / "new" / "work"), "comparison", str(photos))
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    (tmp_path / "link").symlink_to(out)
    for work, root, said in (
        ("s3://bucket/work", photos, "local folder"),
        (photos / "work", photos, "read as input"),
        (out, photos, "published"),
        (tmp_path / "link" / "work", photos, "published"),
        (tmp_path / "w", tmp_path / "w" / "comparison" / "photos", "written and removed"),
    ):
        with pytest.raises(LedgerError, match=said):
            private_folder(str(work), "comparison", str(root))
    assert not (photos / "work").exists()
