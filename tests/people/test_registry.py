"""The folder of enrolled people: what it keeps, what it forgets, and what it refuses."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mfmc_ray.faces.pack import DIMENSIONS
from mfmc_ray.people.registry import FILE, PeopleError, Photo, Registry, changing, person_id
from mfmc_ray.runlock import BusyError


def photo(person: str, number: int) -> Photo:
    rng = np.random.default_rng(number)
    vectors = {name: rng.standard_normal(dim).astype(np.float32) for name, dim in DIMENSIONS.items()}
    return Photo(person, f"{number:064x}", {name: v / np.linalg.norm(v) for name, v in vectors.items()}, 80.0, 0.5, -3.0)


def enrolled(folder: Path) -> Registry:
    with changing(folder):
        registry = Registry.open(folder, new=True).adding([photo("zoë", 1), photo("ada", 2), photo("zoë", 3)])
        registry.write()
    return registry


def test_what_was_enrolled_is_read_again(tmp_path: Path) -> None:
    (folder := tmp_path / "people").mkdir()
    written, read = enrolled(folder), Registry.open(folder)
    assert read.people() == ("ada", "zoë")
    assert read.photos == written.photos
    assert read.digest == written.digest
    assert read.owners().tolist() == [0, 1, 1]
    for name, dim in DIMENSIONS.items():
        assert read.vectors(name).shape == (3, dim)
        np.testing.assert_array_equal(read.vectors(name), written.vectors(name))
    assert len({read.salt("ada"), read.salt("zoë")}) == 2
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / FILE).stat().st_mode) == 0o600


def test_known_ids_say_neither_who_nor_which_photo(tmp_path: Path) -> None:
    ids = enrolled(tmp_path).known_ids()
    assert len(set(ids)) == 3
    assert all(name.startswith("person:") and name.endswith(":0") for name in ids)
    again = Registry(tmp_path).adding([photo("zoë", 1), photo("ada", 2)])
    assert not set(ids) & set(again.known_ids())  # another salt


def test_who_is_removed_leaves_nothing(tmp_path: Path) -> None:
    before = enrolled(tmp_path)
    held = (tmp_path / FILE).open("rb")  # the file as it was, which a name points at no more
    with changing(tmp_path):
        Registry.open(tmp_path).without({"zoë"}).write()
    after = Registry.open(tmp_path)
    assert after.people() == ("ada",)
    assert after.salt("ada") == before.salt("ada")
    needles = [before.salt("zoë"), "zoë".encode(), before.photos[1].photo_id.encode(), before.photos[1].vectors["sface"].tobytes()[:32]]
    with held:
        old = held.read()
    for data in (old, *(path.read_bytes() for path in tmp_path.iterdir())):
        assert not any(needle in data for needle in needles)
    assert before.digest != after.digest


def test_a_photo_is_enrolled_once(tmp_path: Path) -> None:
    registry = enrolled(tmp_path)
    assert registry.adding([photo("ada", 2)]).digest == registry.digest


def test_an_open_file_is_closed(tmp_path: Path) -> None:
    enrolled(tmp_path)
    tmp_path.chmod(0o755)
    (tmp_path / FILE).chmod(0o644)
    Registry.open(tmp_path)
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_one_at_a_time(tmp_path: Path) -> None:
    with changing(tmp_path), pytest.raises(BusyError), changing(tmp_path):
        pass


@pytest.mark.parametrize("name", ["ada", "Ada Lovelace", "p-0042", "a.b@c.org", "Zoë", "李", "7", "x_y+z"])
def test_ids_that_can_be(name: str) -> None:
    assert person_id(f" {name} ") == name


def test_an_id_is_the_same_however_it_is_composed() -> None:
    assert person_id("Zoe\u0308") == "Zoë"


@pytest.mark.parametrize("name", ["", " ", "a/b", "group:x", "a,b", "a\nb", "a*", ".hidden", "-x", "a\u202eb", "x" * 101, "..", "a\0"])
def test_ids_that_cannot_be(name: str) -> None:
    with pytest.raises(PeopleError, match="cannot be a person's id"):
        person_id(name)


def test_what_cannot_be_used_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PeopleError, match="mfmc people enroll"):
        Registry.open(tmp_path)
    with pytest.raises(PeopleError, match="local"):
        Registry.open("s3://bucket/people")
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(PeopleError, match="not empty"):
        Registry.open(tmp_path, new=True)
    (tmp_path / FILE).write_bytes(b"PAR1 not")
    with pytest.raises(PeopleError, match="cannot be read"):
        Registry.open(tmp_path)
    folder = tmp_path / "p"
    folder.mkdir()
    enrolled(folder)
    table = pq.read_table(folder / FILE)
    pq.write_table(table.drop_columns(["embedding_dlib"]), folder / FILE)
    with pytest.raises(PeopleError, match="other columns"):
        Registry.open(folder)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    registry = enrolled(tmp_path)
    other = Registry(tmp_path, registry.photos, registry.salts, {**registry.models, "dlib": "0" * 64})
    with pytest.raises(PeopleError, match="other weights of dlib"):
        other.vectors("dlib")
    other.check(["sface"])
