"""`mfmc people` as it is typed, with real faces."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from mfmc_ray.cli import app
from mfmc_ray.people.quality import Examiner
from mfmc_ray.people.registry import FILE, PeopleError


def mfmc(*words: object) -> Result:
    return CliRunner().invoke(app, ["people", *map(str, words)], env={"COLUMNS": "200"}, catch_exceptions=False)


def test_enroll_list_remove(shared_data: Path, tmp_path: Path, examiner: Examiner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mfmc_ray.people.quality.Examiner", lambda: examiner)  # loads its models once
    photos, people = tmp_path / "photos", tmp_path / "people"
    first, _, second, *_ = sorted((shared_data / "people").iterdir())
    for name, owner, number in (("p-1/a.jpg", first, 0), ("p-1/b.jpg", first, 1), ("p-1/wrong.jpg", second, 0), ("p-2/a.jpg", second, 1)):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(sorted(owner.iterdir())[number], photos / name)
    (photos / "p-2/broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    tried = mfmc("enroll", people, photos, "--dry-run")
    assert tried.exit_code == 1
    assert "3 photos of 2 people would be enrolled. 2 refused." in tried.stdout
    assert not (people / FILE).exists()
    done = mfmc("enroll", people, photos)
    assert done.exit_code == 1
    assert "3 photos of 2 people enrolled. 2 refused." in done.stdout
    assert "p-1/wrong.jpg: it is not like the other photos of this person" in done.stdout
    assert "p-2/broken.jpg: cannot be read as a picture" in done.stdout
    assert "1 people have one photo only" in done.stdout
    (photos / "p-1/wrong.jpg").unlink()
    (photos / "p-2/broken.jpg").unlink()
    again = mfmc("enroll", people, photos)
    assert again.exit_code == 0
    assert "0 photos of 0 people enrolled; 3 were enrolled before. 0 refused." in again.stdout
    rows = json.loads(mfmc("list", people, "--json").stdout)
    assert [(row["person"], row["photos"]) for row in rows] == [("p-1", 2), ("p-2", 1)]
    assert rows[0]["smallest_px"] > 80
    assert "p-1" in mfmc("list", people).stdout
    table = tmp_path / "consents.csv"
    table.write_text("image,person\na.jpg,p-2\nb.jpg,p-1\n")
    gone = mfmc("remove", people, "p-2", "--yes", "--tables", table)
    assert gone.exit_code == 0
    assert "1 people (1 photos) removed; 1 are enrolled." in gone.stdout
    assert table.read_text() == "image,person\nb.jpg,p-1\n"
    for path in people.iterdir():
        assert b"p-2" not in path.read_bytes()
    with pytest.raises(PeopleError, match="nobody of the id 'p-2'"):
        mfmc("remove", people, "p-2", "--yes")
    assert CliRunner().invoke(app, ["people", "remove", str(people), "p-1"], input="n\n").exit_code == 1
    assert "p-1" in mfmc("list", people).stdout


def test_wrong_usage_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PeopleError, match="mfmc people enroll"):
        mfmc("list", tmp_path / "nowhere")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "x.jpg").write_bytes(b"")
    with pytest.raises(PeopleError, match="no photo is in a person's folder"):
        mfmc("enroll", tmp_path / "people", tmp_path / "photos")
    assert not (tmp_path / "people").exists()
