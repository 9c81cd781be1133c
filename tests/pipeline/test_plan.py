"""What was scanned against what is published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mfmc_ray.faces.pack import DIMENSIONS
from mfmc_ray.ledger import Ledger, LedgerError
from mfmc_ray.pipeline.plan import Plan, images_in, plan_parts, ranges
from mfmc_ray.pipeline.workers import ANONYMIZE, SCAN
from mfmc_ray.tables import FACES, IMAGES, PLACED, published_schema, scan_schema

GUARDS = {name: DIMENSIONS[name] for name in ("sface", "dlib")}
MADE = "made"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path / "out"), str(tmp_path / "work"))


def scan(ledger: Ledger, part: int, *images: tuple[str, str] | tuple[str, str, str]) -> None:
    """(path, image_id) or (path, image_id, reason) of each."""
    rows = [dict(zip(("path", "image_id", "reason"), image, strict=False)) | {"source_bytes": 5} for image in images]
    ledger.commit_part(SCAN, part, {"scan": pa.Table.from_pylist(rows, schema=scan_schema(GUARDS))}, {"images": len(rows)})


def publish(ledger: Ledger, part: int, *images: dict[str, Any], made: str = MADE) -> None:
    rows = [{"verdict": "anonymized", "access": "", **image} for image in images]
    tables = {
        "images": pa.Table.from_pylist(rows, schema=IMAGES),
        "faces": FACES.empty_table(),
        "published": published_schema(GUARDS).empty_table(),
        "placed": pa.Table.from_pylist(rows, schema=PLACED),
    }
    ledger.commit_part(ANONYMIZE, part, tables, {"images": len(rows), "made": made})


def plan(ledger: Ledger, *, made: str = MADE, night: bool = True, access: dict[str, str] | None = None, rows: int = 4) -> Plan:
    return plan_parts(ledger, rows, made=made, access=lambda image, path: (access or {}).get(path, ""), night=night)


def test_everything_is_new_at_first_and_nothing_afterwards(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="nothing was scanned"):
        plan(ledger)
    scan(ledger, 0, ("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"), ("e", "5"))
    scan(ledger, 1, ("f", "6"))
    first = plan(ledger, night=False)
    assert [part["rows"] for part in first.new] == [[[0, 0, 4]], [[0, 4, 5]], [[1, 0, 1]]]  # no part reaches over the end of a scan's
    assert [part["part"] for part in first.new] == [0, 1, 2]
    assert (images_in(first.new), first.counts) == (6, {"new": 6, "deleted": 0})
    publish(ledger, 1, {"path": "e", "image_id": "5"})  # a run that was killed: parts are done in any order
    again = plan(ledger, night=False)
    assert [(part["part"], part["rows"]) for part in again.new] == [(0, [[0, 0, 4]]), (2, [[1, 0, 1]])]
    assert not again.changed
    publish(ledger, 0, *({"path": path, "image_id": image} for path, image in (("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"))))
    publish(ledger, 2, {"path": "f", "image_id": "6"})
    done = plan(ledger)
    assert not done.new
    assert not done.changed
    assert not done.gone
    assert len(done.kept) == 3


def test_deleted_changed_and_moved_images_change_their_parts_only(ledger: Ledger) -> None:
    scan(ledger, 0, ("a", "1"), ("b", "changed"), ("moved", "3"))
    publish(ledger, 0, {"path": "a", "image_id": "1"}, {"path": "b", "image_id": "2"})
    publish(ledger, 1, {"path": "c", "image_id": "3"}, {"path": "deleted", "image_id": "4"})
    publish(ledger, 2, {"path": "deleted too", "image_id": "5"})
    found = plan(ledger)
    changed = {part["part"]: part for part in found.changed}
    assert changed.keys() == {0, 1}
    assert (changed[0]["redo"], changed[0]["moved"]) == (["b"], {})
    assert (changed[1]["redo"], changed[1]["moved"], changed[1]["rows"]) == ([], {"moved": "c"}, [[0, 2, 3]])
    assert found.gone == [2]
    assert found.counts == {"changed": 1, "moved": 1, "deleted": 2, "new": 0}


def test_an_approval_does_not_move_with_the_image(ledger: Ledger) -> None:
    scan(ledger, 0, ("new name", "1"))
    publish(ledger, 0, {"path": "old name", "image_id": "1", "access": "a row about the old name"})
    found = plan(ledger)
    assert found.gone == [0]
    assert images_in(found.new) == 1


@pytest.mark.parametrize(
    ("row", "arguments", "why"),
    [
        ({}, {"access": {"a": "approvals:3"}}, "access"),
        ({"access": "approvals:3"}, {}, "access"),  # withdrawn
        ({}, {"made": "otherwise"}, "settings"),
        ({"verdict": "unchanged"}, {"made": "otherwise"}, None),  # no face was made in any way
        ({"verdict": "failed", "reason": "vanished"}, {}, "retried"),
        ({"verdict": "failed", "reason": "vanished"}, {"night": False}, None),
    ],
)
def test_why_an_image_is_done_anew(ledger: Ledger, row: dict[str, Any], arguments: dict[str, Any], why: str | None) -> None:
    scan(ledger, 0, ("a", "1"))
    publish(ledger, 0, {"path": "a", "image_id": "1"} | row)
    found = plan(ledger, **arguments)
    assert [part["redo"] for part in found.changed] == ([["a"]] if why else [])
    assert [why for why, count in found.counts.items() if count] == ([why] if why else [])


def test_an_image_that_still_fails_the_same_way_is_left_alone(ledger: Ledger) -> None:
    scan(ledger, 0, ("a", "1", "truncated"), ("b", "2", "corrupt"))
    publish(
        ledger,
        0,
        {"path": "a", "image_id": "1", "verdict": "failed", "reason": "truncated"},
        {"path": "b", "image_id": "2", "verdict": "failed", "reason": "truncated"},
    )
    assert [part["redo"] for part in plan(ledger).changed] == [["b"]]


def test_a_duplicate_of_a_deleted_image_does_not_go_on_naming_it(ledger: Ledger) -> None:
    scan(ledger, 0, ("b", "1"), ("c", "1"))
    publish(
        ledger, 0, {"path": "b", "image_id": "1", "reason": "duplicate of a"}, {"path": "c", "image_id": "1", "reason": "duplicate of a"}
    )
    (part,) = plan(ledger).changed
    assert part["redo"] == []
    assert part["reasons"] == {"c": "duplicate of b"}


def test_new_images_fill_the_gaps_of_parts_at_night_only(ledger: Ledger) -> None:
    scan(ledger, 0, ("a", "1"), ("b", "2"), ("new 1", "3"), ("new 2", "4"), ("new 3", "5"), ("new 4", "6"))
    publish(ledger, 0, {"path": "a", "image_id": "1"})
    publish(ledger, 1, {"path": "b", "image_id": "2"}, {"path": "gone", "image_id": "7"})
    found = plan(ledger)
    assert not found.new
    assert sum(part["fresh"] for part in found.changed) == 4
    assert all(images_in([part]) <= 4 for part in found.changed)
    resumed = plan(ledger, night=False)
    assert images_in(resumed.new) == 4
    assert [part["part"] for part in resumed.changed] == [1]  # for what is gone must go


def test_ranges() -> None:
    assert list(ranges([])) == []
    assert list(ranges([(0, 1), (0, 2), (0, 4), (1, 5), (1, 6)])) == [[0, 1, 3], [0, 4, 5], [1, 5, 7]]
