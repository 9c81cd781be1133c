"""A listing that is read from its file is the listing; what is decided from it is what would be decided from a list."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfmc_ray import collection
from mfmc_ray.collection import Collection
from mfmc_ray.pipeline import before as before_module
from mfmc_ray.pipeline import listing
from mfmc_ray.pipeline.before import Before, Scanned
from mfmc_ray.pipeline.difference import difference, scan_parts
from mfmc_ray.pipeline.listing import Digest, Listing, Units, listed, rows_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(23):
        path = tmp_path / "in" / "cab"[i % 3] / f"{i * 7 % 23:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\xff\xd8\xff" + bytes([i]))
    (tmp_path / "in" / "shard.tar").write_bytes(b"x")
    return tmp_path / "in"


def write(folder: Path, path: Path, digest: Digest | None = None) -> Listing:
    return Listing.write(path, Collection.open(str(folder)), digest or Digest())


def undated(units: Any) -> list[dict[str, Any]]:
    return [{name: value for name, value in unit.items() if name != "listed"} for unit in units]


def test_it_is_the_same_from_a_file(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "ROWS", 5)
    wanted = undated(listed(Collection.open(str(folder))))
    digest = Digest()
    found = write(folder, tmp_path / "work" / "a.parquet", digest)
    assert len(found) == 24
    assert undated(found) == wanted
    assert undated(found[3:9]) == wanted[3:9]
    assert undated([found[-1]]) == wanted[-1:]
    assert [units.are_files.tolist() for units in (Units(found, [0, 1]), Units(list(found), [0, 1]))] == [[False, True]] * 2
    some = Units(found, [2, 3, 4, 9, 17, 18])
    assert some.plain() == {"listing": str(tmp_path / "work" / "a.parquet"), "rows": [[2, 5], [9, 10], [17, 19]]}
    assert undated(rows_of(some.plain())) == [wanted[i] for i in (2, 3, 4, 9, 17, 18)]
    assert undated(rows_of(Units(list(found), [4]).plain())) == [wanted[4]]
    write(folder, tmp_path / "work" / "b.parquet", digest)
    # runs that older versions have begun are the same runs
    assert digest.value() == hashlib.sha256(json.dumps([wanted, wanted], sort_keys=True).encode()).hexdigest()
    assert Digest().value() == hashlib.sha256(b"[]").hexdigest()
    one = Digest(several=False)
    write(folder, tmp_path / "work" / "a.parquet", one)
    assert one.value() == hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()


def test_a_large_folder_is_in_the_order_of_a_small_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("é.jpg", "e\udce9.jpg", "z.jpg", "Z.JPG", "_.jpg"):
        (folder / name).write_bytes(b"\xff\xd8\xff")
    wanted = list(Collection.open(str(folder)).units())
    assert len(wanted) == 29
    monkeypatch.setattr(collection, "_MANY", 3)
    assert list(Collection.open(str(folder)).units()) == wanted


def test_patterns_may_name_a_file_twice(folder: Path) -> None:
    def repeats(pattern: str) -> bool:
        found = Collection.open(str(folder) + pattern)
        assert len(listed(found)) == len({unit.unit for unit in found.units()})
        return found.may_repeat

    assert repeats("/{a,}")
    assert repeats("/{a/*,a/*.jpg}")
    assert not repeats("/*")
    assert not repeats("")


def test_names_with_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(before_module, "hash", lambda name: len(name), raising=False)
    rows = {
        name: Scanned(i, i, "v", 0, (f"{i:064x}", None, "odd"), False, f"in/{name}") for i, name in enumerate(("a", "b", "cc", "dd", "e"))
    }
    before = Before.of(rows)
    assert before == rows
    assert {name: before[name].path for name in before} == {name: f"in/{name}" for name in rows}
    assert [before.get(name) for name in ("x", "yyy")] == [None, None]
    twice = Before([before_module._packed(list(rows.items())), before_module._packed([("a", Scanned(9, 1, "w", 0, (), True))])])
    assert (len(twice), twice["a"].part, list(twice)) == (5, 9, ["b", "cc", "dd", "e", "a"])


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.integers(0, 23), st.integers(0, 3)), st.booleans(), st.booleans())
def test_a_difference_from_a_file_is_that_from_a_list(folder_of: Path, was: dict[int, int], again: bool, fill: bool) -> None:
    from_file, plain = write(folder_of, folder_of.parent / "work" / "a.parquet"), listed(Collection.open(str(folder_of)))
    before = {}
    for i, how in was.items():
        unit = plain[i] if i < len(plain) else {**plain[0], "unit": "gone", "size": 4}
        version = "other" if how == 1 else unit["version"]
        root = "elsewhere/" if how == 2 else ""
        before[unit["unit"]] = Scanned(i % 4, unit["size"], version, 2**62, (f"{i:064x}",), how == 3, root + unit["path"])
    found = [difference(units, before, again=again) for units in (from_file, plain)]
    for name in ("new", "changed", "unsure"):
        assert undated(getattr(found[0], name)) == undated(getattr(found[1], name))
    assert [old for old, _ in found[0].moved] == [old for old, _ in found[1].moved]
    assert (list(found[0].gone), found[0].same) == (list(found[1].gone), found[1].same)
    done = {old.part for old in before.values()}
    parts = [scan_parts(one, before, done, 24, fill=fill) for one in found]
    told = [
        [{**part, "units": [unit["unit"] for unit in rows_of(part["units"])], "moved": list(part["moved"])} for part in some]
        for some in parts
    ]
    assert told[0] == told[1]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("listing") / "in"
    made.mkdir()
    for i in range(22):
        (made / f"{i:02}.jpg").write_bytes(b"\xff\xd8\xff" + bytes([i]))
    (made / "s.tar").write_bytes(b"x")
    return made
