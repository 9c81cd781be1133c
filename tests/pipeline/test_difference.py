"""What a listing has that a scan has not, and the other way round."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfmc_ray.collection import Collection
from mfmc_ray.faces.pack import DIMENSIONS
from mfmc_ray.ledger import Ledger, LedgerError
from mfmc_ray.pipeline.difference import Scanned, difference, part_size, scan_parts, scanned
from mfmc_ray.pipeline.listing import listed
from mfmc_ray.pipeline.workers import SCAN, _renamed
from mfmc_ray.tables import scan_schema

SCHEMA = scan_schema({name: DIMENSIONS[name] for name in ("sface", "dlib")})
HOUR = 3_600_000_000_000


def unit(name: str, size: int = 3, version: str = "etag", listed: int = 0) -> dict[str, Any]:
    return {"unit": name, "path": name, "kind": "file", "size": size, "version": version, "listed": listed}


def as_scanned(part: int, content: str = "x", size: int = 3, version: str = "etag", listed: int = 0, retry: bool = False) -> Scanned:
    return Scanned(part, size, version, listed, (hashlib.sha256(content.encode()).hexdigest(),), retry)


def names(units: list[dict[str, Any]]) -> list[str]:
    return [one["unit"] for one in units]


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        (as_scanned(0), unit("a"), "same"),
        (as_scanned(0), unit("a", size=4), "changed"),
        (as_scanned(0), unit("a", version="other"), "changed"),
        (as_scanned(0, version=""), unit("a", version=""), "unsure"),  # the store tells no version
        (as_scanned(0, retry=True), unit("a"), "unsure"),
        # an mtime proves nothing if the file was modified as it was listed: it may have been again, within the clock's grain
        (as_scanned(0, version=str(10**18), listed=10**18 + 1), unit("a", version=str(10**18)), "unsure"),
        (as_scanned(0, version=str(10**18), listed=10**18 + HOUR), unit("a", version=str(10**18)), "same"),
        (as_scanned(0, version="a" * 32, listed=10**18), unit("a", version="a" * 32), "same"),
        # stores without etags give a date, or seconds
        (as_scanned(0, version="2001-09-09 01:46:40+00:00", listed=10**18 + 1), unit("a", version="2001-09-09 01:46:40+00:00"), "unsure"),
        (as_scanned(0, version="2001-09-09 01:46:40+00:00", listed=10**18 + HOUR), unit("a", version="2001-09-09 01:46:40+00:00"), "same"),
        (as_scanned(0, version="1000000000.5", listed=10**18 + 10**9), unit("a", version="1000000000.5"), "unsure"),
    ],
)
def test_what_has_become_of_a_unit(old: Scanned, new: dict[str, Any], kind: str) -> None:
    found = difference([new], {"a": old}, again=True)
    assert {name: names(getattr(found, name)) for name in ("new", "changed", "unsure")} == {
        name: ["a"] if name == kind else [] for name in ("new", "changed", "unsure")
    }
    assert found.same == (kind == "same")
    assert bool(found) == (kind != "same")
    assert bool(difference([new], {"a": old})) == (kind == "changed")  # a resumed run reads nothing for the second time


def test_moved_is_what_has_the_same_content_elsewhere(tmp_path: Path) -> None:
    def listing() -> list[dict[str, Any]]:
        return listed(Collection.open(str(tmp_path)))

    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / name).write_bytes(name[:1].encode() * 3)
    before = {one["unit"]: as_scanned(i, Path(one["unit"]).stem * 3) for i, one in enumerate(listing())}
    (tmp_path / "a.jpg").rename(tmp_path / "moved.jpg")
    (tmp_path / "b.jpg").unlink()
    (tmp_path / "other.jpg").write_bytes(b"ooo")  # of the same size
    found = difference(listing(), before, again=True)
    assert [(Path(old).name, Path(new["unit"]).name) for old, new in found.moved] == [("a.jpg", "moved.jpg")]
    assert [Path(one).name for one in found.gone] == ["b.jpg"]
    assert [Path(one["unit"]).name for one in found.new] == ["other.jpg"]


def test_another_root_gives_the_same_file_another_path(tmp_path: Path) -> None:
    """`photos/a.jpg` must not go on as `a.jpg` beside the new root's own: approvals name paths, and one of the two rows would be lost."""
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"aaa")
    os.utime(folder / "a.jpg", (10**9, 10**9))
    (old,) = listed(Collection.open(str(folder)))
    ledger = Ledger(str(tmp_path / "out"), str(tmp_path / "work"))
    stamp = {f"unit_{name}": old[name] for name in ("size", "version", "listed")}
    row = {"path": old["path"], "unit": old["unit"], "image_id": hashlib.sha256(b"aaa").hexdigest(), **stamp}
    ledger.commit_part(SCAN, 0, {"scan": pa.Table.from_pylist([row], schema=SCHEMA)}, {})
    assert not difference([old], scanned(ledger, SCAN))
    (tmp_path / "a.jpg").write_bytes(b"bbb")
    new = listed(Collection.open(str(tmp_path)))
    found = difference([unit for unit in new if unit["path"].endswith("a.jpg")], scanned(ledger, SCAN))
    assert [(was, unit["path"]) for was, unit in found.moved] == [(old["unit"], "photos/a.jpg")]
    assert [unit["path"] for unit in found.new] == ["a.jpg"]
    unread = {old["unit"]: Scanned(0, old["size"], old["version"], old["listed"], (None,), False, "a.jpg")}
    assert [unit["path"] for unit in difference(new, unread).changed] == ["photos/a.jpg"]
    racy = {old["unit"]: Scanned(0, old["size"], old["version"], 10**18 + 1, ("1",), False, "a.jpg")}
    assert [unit["path"] for unit in difference(new, racy).changed] == ["photos/a.jpg"]
    (part, _) = scan_parts(found, scanned(ledger, SCAN), {0}, 2)
    table = _renamed(ledger.read_table(SCAN, "scan", 0), part["moved"])
    assert table["path"].to_pylist() == ["photos/a.jpg"]
    assert _renamed(table, part["moved"]).equals(table)  # a worker may be given the part twice


def test_nights_fill_gaps_and_leave_no_small_parts() -> None:
    """300 nights of one new and one deleted image make no more parts than there were."""
    size = part_size(40)
    before = {f"{i:03}": as_scanned(i // size, str(i)) for i in range(40)}
    for night in range(40, 340):
        listing = [unit(f"{i:03}") for i in range(night - 39, night + 1)]
        found = difference(listing, before, again=True)
        parts = scan_parts(found, before, {old.part for old in before.values()}, 40, fill=True)
        assert sum(len(part["units"]) for part in parts) == 1
        for part in parts:
            for name in part["drop"]:
                del before[name]
            for one in part["units"]:
                before[one["unit"]] = as_scanned(part["part"], one["unit"])
    assert len(before) == 40
    assert len({old.part for old in before.values()}) <= -(-40 // size) + 1


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 30), min_size=1), st.sets(st.integers(0, 30)), st.booleans())
def test_parts_bring_a_scan_up_to_date(now: set[int], scan: set[int], fill: bool) -> None:
    """Whatever was scanned: afterwards every listed unit is in one part, and no other is."""
    before = {str(i): as_scanned(i % 3, str(i)) for i in scan}
    found = difference([unit(str(i)) for i in sorted(now)], before, again=True)
    after = {name: old.part for name, old in before.items()}
    done = {old.part for old in before.values()}
    parts = scan_parts(found, before, done, len(now), fill=fill)
    assert len({part["part"] for part in parts}) == len(parts)
    for part in parts:
        assert part["committed"] == (part["part"] in done)
        for name in part["drop"]:
            assert after.pop(name) == part["part"]
        for one in part["units"]:
            assert one["unit"] not in after
            after[one["unit"]] = part["part"]
    assert after.keys() == {str(i) for i in now}


def test_what_was_scanned_is_in_the_rows(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "out"), str(tmp_path / "work"))
    stamp = {"unit_size": 3, "unit_version": "v", "unit_listed": 7}
    rows = [
        {"path": "a", "unit": "a", "image_id": "1", **stamp},
        {"path": "s/1", "unit": "s.tar", "image_id": "2", **stamp},
        {"path": "s/2", "unit": "s.tar", "image_id": None, "reason": "unreadable: x", **stamp},
        {"path": "c", "unit": "c", "image_id": "3", "reason": "truncated", **stamp},
    ]
    empty = [{"unit": "e.tar", "path": "e.tar", "kind": "tar", "size": 9, "version": "w", "listed": 8}]
    ledger.commit_part(SCAN, 4, {"scan": pa.Table.from_pylist(rows, schema=SCHEMA)}, {"empty": empty})
    assert scanned(ledger, SCAN) == {
        "a": Scanned(4, 3, "v", 7, ("1",), False),
        "s.tar": Scanned(4, 3, "v", 7, ("2", None), True),
        "c": Scanned(4, 3, "v", 7, ("3",), False),
        "e.tar": Scanned(4, 9, "w", 8, (), False),
    }


def test_a_scan_of_an_older_version_is_refused(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "out"), str(tmp_path / "work"))
    ledger.commit_part(SCAN, 0, {"scan": pa.table({"unit": ["a"], "image_id": ["1"], "reason": ["x"]})}, {})
    with pytest.raises(LedgerError, match="older version"):
        scanned(ledger, SCAN)


def test_a_listing_says_when_it_was_made(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    os.utime(tmp_path / "a.jpg", (1, 1))
    (one,) = listed(Collection.open(str(tmp_path)))
    assert (one["size"], one["version"]) == (1, "1000000000")
    assert abs(one["listed"] - time.time_ns()) < HOUR


def test_a_file_that_two_patterns_name_is_listed_once(tmp_path: Path) -> None:
    for name in ("a1.jpg", "ab1.jpg"):
        (tmp_path / name).write_bytes(b"x")
    assert [unit["path"] for unit in listed(Collection.open(f"{tmp_path}/{{a,ab}}*.jpg"))] == ["a1.jpg", "ab1.jpg"]
