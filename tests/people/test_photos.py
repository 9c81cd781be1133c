"""Photos as they are given: in folders or by a table."""

from __future__ import annotations

from pathlib import Path

import pytest
from skimage.data import astronaut

from mfmc_ray.access.decide import AccessError
from mfmc_ray.collection import CollectionError
from mfmc_ray.people.photos import listed
from mfmc_ray.people.quality import RefusedError
from mfmc_ray.people.registry import PeopleError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    import cv2

    for name in ("ada/1.jpg", "ada/old/2.jpg", "bob smith/x.png", "loose.jpg"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "photos" / name), astronaut()[:40, :40])
    (tmp_path / "photos/ada/notes.txt").write_text("")
    return tmp_path / "photos"


def test_a_folder_for_each_person(folder: Path) -> None:
    found = {(photo.person, photo.name) for photo in listed(str(folder))}
    assert found == {("ada", "ada/1.jpg"), ("ada", "ada/old/2.jpg"), ("bob smith", "bob smith/x.png"), ("", "loose.jpg")}
    assert {photo.name: photo.read() for photo in listed(str(folder))}["ada/1.jpg"] == (folder / "ada/1.jpg").read_bytes()


def test_a_table(folder: Path) -> None:
    table = folder.parent / "photos.csv"
    table.write_text(f"person,path,note\nada,photos/ada/1.jpg,\nbob,{folder}/bob smith/x.png,hi\nzoe,photos/100%25.jpg,\n")
    one, two, gone = listed(str(table))
    assert (one.person, one.read()) == ("ada", (folder / "ada/1.jpg").read_bytes())
    assert (two.person, two.read()) == ("bob", (folder / "bob smith/x.png").read_bytes())
    with pytest.raises(RefusedError, match="vanished"):
        gone.read()


def test_what_is_neither_says_so(folder: Path) -> None:
    with pytest.raises(PeopleError, match=r"PHOTOS/PERSON/photo\.jpg"):
        listed(str(folder / "bob smith"))
    with pytest.raises(CollectionError):
        listed(str(folder / "nowhere"))
    (folder / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(PeopleError, match="parquet files among the photos"):
        listed(str(folder))
    table = folder / "t.csv"
    table.write_text("path,person\na.jpg,ada\n,bob\nb.jpg,\n")
    with pytest.raises(AccessError, match=r"row 2: .*; row 3: no person"):
        listed(str(table))
    table.write_text("file,person\na.jpg,ada\n")
    with pytest.raises(AccessError, match="column"):
        listed(str(table))
