"""Reviewers' decisions: kept durably, and what the next run has to do about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfmc_ray.access.decide import Decision, ReplaceAll, decisions
from mfmc_ray.faces.faces import Faces
from mfmc_ray.review.decisions import (
    APPROVE,
    FILE,
    FOLDER,
    REDACT,
    RESWAP,
    UNDO,
    LostFaceError,
    Order,
    ReviewError,
    Reviews,
    append,
    result_of,
)
from mfmc_ray.review.reviewed import Reviewed

IMAGE = "a" * 64
BOX, FAR = [10.0, 10.0, 60.0, 70.0], [200.0, 10.0, 250.0, 70.0]


def face(number: int = 0, box: list[float] = BOX, verdict: str = "replaced", identity: str | None = "one", **more: Any) -> dict[str, Any]:
    look = dict.fromkeys(("similarity_to_original", "age_after", "yaw_after", "pitch_after", "roll_after"), 0.25)
    plain = {"image_id": IMAGE, "face_no": number, "box": box, "verdict": verdict, "identity_id": identity, "reason": None}
    return plain | look | more


def faces(*boxes: list[float]) -> Faces:
    n = len(boxes)
    return Faces(np.array(boxes, np.float32).reshape(n, 4), np.zeros((n, 5, 2), np.float32), np.ones(n, np.float32), ("x",) * n)


class KeepAll:
    digest = "all"

    def decide(self, image_id: str, path: str, faces: Faces) -> list[Decision]:
        return [Decision(keep=True, reason="table:1")] * len(faces)

    def version(self, image_id: str | None, path: str) -> str:
        return "1"


def orders(work: Path, *boxes: list[float]) -> list[Order]:
    return Reviews.load(work).orders(IMAGE, faces(*boxes).boxes)


def test_the_last_decision_of_a_face_counts(tmp_path: Path) -> None:
    assert len(Reviews.load(tmp_path)) == 0
    assert orders(tmp_path, BOX) == [Order()]
    append(tmp_path, REDACT, face())
    assert orders(tmp_path, BOX, FAR) == [Order(redact=True), Order()]
    append(tmp_path, APPROVE, face())  # he has thought better of it
    assert orders(tmp_path, BOX) == [Order()]
    append(tmp_path, RESWAP, face(identity="two"))
    append(tmp_path, RESWAP, face(identity="three"))
    assert orders(tmp_path, BOX) == [Order(replace=True, rejected=frozenset({"two", "three"}), rounds=2)]
    append(tmp_path, APPROVE, face(identity="four"))  # what came out of it: the others stay rejected
    assert orders(tmp_path, BOX)[0].rejected == {"two", "three"}
    assert Reviews.load(tmp_path).last(IMAGE, 0, BOX).identity_id == "four"  # type: ignore[union-attr]
    assert Reviews.load(tmp_path).last(IMAGE, 1, BOX) is None


def test_to_approve_a_redaction_leaves_it(tmp_path: Path) -> None:
    append(tmp_path, REDACT, face())
    version = Reviews.load(tmp_path).version(IMAGE)
    append(tmp_path, APPROVE, face(verdict="redacted", identity=None, reason="review"))
    assert orders(tmp_path, BOX)[0].redact
    assert Reviews.load(tmp_path).version(IMAGE) == version
    append(tmp_path, RESWAP, face(verdict="redacted", identity=None, reason="review"))
    assert orders(tmp_path, BOX) == [Order(replace=True, rounds=1)]


def test_what_is_undone_was_never_decided(tmp_path: Path) -> None:
    append(tmp_path, REDACT, face())
    row = append(tmp_path, RESWAP, face())
    append(tmp_path, UNDO, undoes=row.row)
    assert orders(tmp_path, BOX) == [Order(redact=True)]
    assert len(Reviews.load(tmp_path)) == 1


def test_only_what_is_to_be_done_makes_another_version(tmp_path: Path) -> None:
    versions = [Reviews.load(tmp_path).version(IMAGE)]
    for decision in (APPROVE, RESWAP, APPROVE, REDACT):
        append(tmp_path, decision, face())
        versions.append(Reviews.load(tmp_path).version(IMAGE))
    assert versions[0] == versions[1] == ""
    assert versions[2] == versions[3]
    assert len(set(versions)) == 3
    assert Reviews.load(tmp_path).version("b" * 64) == ""


def test_another_scan_may_number_and_box_faces_otherwise(tmp_path: Path) -> None:
    append(tmp_path, REDACT, face(1))
    shifted = [20.0, 15.0, 66.0, 80.0]
    assert [order.redact for order in orders(tmp_path, BOX, FAR)] == [True, False]  # found by its box
    assert [order.redact for order in orders(tmp_path, FAR, shifted)] == [False, True]
    assert [order.redact for order in orders(tmp_path, BOX, shifted, FAR)] == [True, True, False]  # all that it could be
    for boxes in ([FAR], []):
        with pytest.raises(LostFaceError):
            orders(tmp_path, *boxes)
    append(tmp_path, RESWAP, face(1, shifted))  # about the face that is there now
    assert [order.redact for order in orders(tmp_path, FAR, shifted)] == [False, False]


def test_an_image_that_has_lost_a_redacted_face_is_not_decided_about(tmp_path: Path) -> None:
    append(tmp_path, REDACT, face())
    with pytest.raises(LostFaceError):
        decisions(Reviewed(ReplaceAll(), Reviews.load(tmp_path)), IMAGE, "x.jpg", faces())


def test_what_a_table_allows_is_taken_away(tmp_path: Path) -> None:
    append(tmp_path, REDACT, face(0, verdict="kept", identity=None))
    append(tmp_path, RESWAP, face(1, FAR, verdict="kept", identity=None))
    third = [400.0, 0.0, 450.0, 50.0]
    append(tmp_path, APPROVE, face(2, third, verdict="kept", identity=None))
    model = Reviewed(KeepAll(), Reviews.load(tmp_path))
    decided = decisions(model, IMAGE, "x.jpg", faces(BOX, FAR, third))
    assert [(one.keep, one.reason, one.redact) for one in decided] == [
        (False, None, True),
        (False, None, False),
        (True, "table:1", False),
    ]
    assert (model.digest, model.version("b" * 64, "x.jpg")) == ("all", "1")
    assert model.version(IMAGE, "x.jpg") not in ("", "1")


def test_a_redaction_wins_over_whatever_a_model_says() -> None:
    class Both(KeepAll):
        def decide(self, image_id: str, path: str, faces: Faces) -> list[Decision]:
            return [Decision(keep=True, reason="table:1", redact=True)] * len(faces)

    (one,) = decisions(Both(), IMAGE, "x.jpg", faces(BOX))
    assert (one.keep, one.reason, one.redact) == (False, None, True)


def test_rows_are_private_whole_and_hold_no_person(tmp_path: Path) -> None:
    append(tmp_path, REDACT, face())
    file = tmp_path / FOLDER / FILE
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    (row,) = [json.loads(line) for line in file.read_text().splitlines()]
    assert set(row) == {"row", "time", "decision", "image_id", "face_no", "box", "verdict", "identity_id", "result", "undoes"}
    with file.open("ab") as torn:  # killed while writing
        torn.write(b'{"row": "12", "deci')
    assert len(Reviews.load(tmp_path)) == 1
    append(tmp_path, APPROVE, face())
    assert len(file.read_bytes().splitlines()) == 2
    with file.open("ab") as by_hand:
        by_hand.write(json.dumps({"row": "mine", "time": "", "decision": "undo", "undoes": row["row"]}).encode() + b"\n")
    assert [one.decision for one in Reviews.load(tmp_path).images[IMAGE]] == [APPROVE]
    with file.open("ab") as damaged:
        damaged.write(b"{}\n")
    with pytest.raises(ReviewError, match="line 4 is no decision"):
        Reviews.load(tmp_path)


def test_the_result_is_the_same_under_other_certificates() -> None:
    before = face(max_similarity_to_known=0.1, threshold=0.3)
    assert result_of(before) == result_of(before | {"max_similarity_to_known": 0.2, "threshold": 0.4})
    assert result_of(before) == result_of(before | {"age_after": float(np.float32(0.25))})
    assert result_of(before) != result_of(before | {"similarity_to_original": 0.2500001})
    assert result_of(before) != result_of(before | {"identity_id": "two"})


DECIDED = st.tuples(st.sampled_from((APPROVE, REDACT, RESWAP)), st.integers(0, 2), st.sampled_from(("kept", "replaced")))


@settings(deadline=None)
@given(st.lists(DECIDED, max_size=8))
def test_nobody_is_shown_whom_the_tables_do_not_show(given: list[tuple[str, int, str]]) -> None:
    from mfmc_ray.review.decisions import Row

    boxes = [BOX, [80.0, 10.0, 130.0, 70.0], FAR]
    rows = [
        Row(str(n), "", decision, IMAGE, number, tuple(boxes[number]), verdict, None, "")  # type: ignore[arg-type]
        for n, (decision, number, verdict) in enumerate(given)
    ]
    reviews = Reviews.of(rows)
    none = decisions(Reviewed(ReplaceAll(), reviews), IMAGE, "x.jpg", faces(*boxes))
    assert not any(one.keep for one in none)
    kept = decisions(Reviewed(KeepAll(), reviews), IMAGE, "x.jpg", faces(*boxes))
    last = {number: decision for decision, number, _ in given}
    swapped = {number for decision, number, _ in given if decision == RESWAP}
    assert [one.keep for one in kept] == [last.get(n) != REDACT and n not in swapped for n in range(3)]
    assert [one.redact for one in kept] == [last.get(n) == REDACT for n in range(3)]
