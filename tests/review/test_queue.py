"""Which faces a reviewer sees first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from made_result import USUAL, covered, face, faces_table, kept

from mfmc_ray.people.sightings import Sighting, Sightings
from mfmc_ray.review import concerns
from mfmc_ray.review.concerns import room, swappable, weights
from mfmc_ray.review.decisions import APPROVE, REDACT, RESWAP, Reviews, append
from mfmc_ray.review.queue import Queue, queue_of


def queued(*rows: dict[str, object], reviews: Reviews | None = None, most: int = 100, seen: Sightings | None = None) -> Queue:
    half = len(rows) // 2
    parts = enumerate(faces_table(*some) for some in (rows[:half], rows[half:]))
    return queue_of(parts, reviews or Reviews(), USUAL, most=most, seen=seen)


def order(queue: Queue) -> list[int]:
    return [int(item.face["path"][:3]) for item in queue.items]


def test_the_riskiest_come_first_with_words() -> None:
    rows = [
        face(0),
        face(1, room=0.02),
        covered(2),
        kept(3),
        face(4, age_after=85.0),
        face(5, sex_after="man"),
        face(6, room=0.06),
        covered(7, reason="similar_to_known", attempts=24, box=[0, 0, 300, 300]),
    ]
    queue = queued(*rows)
    assert order(queue)[:3] == [4, 1, 5]
    assert order(queue)[-1] == 0
    assert (queue.faces, queue.open) == (8, 8)
    words = {int(item.face["path"][:3]): dict(item.words) for item in queue.items}
    assert words[0] == {}
    assert words[1] == {"close": "close to a known face: dlib 0.921, the limit is 0.923"}
    assert words[2] == {"covered": "covered: too small"}
    assert words[3] == {"kept": "shown as it is, allowed by approvals:7"}
    assert words[4] == {"odd": "looks different: age 40 → 85"}
    assert words[5] == {"odd": "looks different: woman → man"}
    assert words[7] == {"covered": "covered after 24 fakes: similar to known"}
    assert [item.part for item in queue.items if item.face["path"] == "007.jpg"] == [1]


def test_how_near_is_reckoned_on_each_guards_own_scale() -> None:
    table = faces_table(
        face(0, room=0.3), face(1, room=0.3, similarity_to_original=0.35), face(2, certificates=[], threshold=None), kept(3)
    )
    np.testing.assert_allclose(room(table, USUAL), [0.3, (0.363 - 0.35) / 0.263, np.nan, np.nan], rtol=1e-4)
    assert weights(table, USUAL)["close"].tolist() == pytest.approx([0, 0.6705, 1, 0], abs=1e-3)  # what is not recorded may be anything


def test_only_so_many_are_queued_of_several_parts() -> None:
    rows = [face(i, room=0.001 * ((i * 7) % 50)) for i in range(50)]
    everyone = order(queued(*rows))
    few = queued(*rows, most=9)
    assert order(few) == everyone[:9]
    assert (few.faces, few.open, len(few.items)) == (50, 50, 9)


def test_what_was_decided_about_leaves_until_the_result_is_another(tmp_path: Path) -> None:
    rows = [face(0, room=0.01), face(1), face(2), kept(3), covered(4, reason="review")]
    append(tmp_path, APPROVE, rows[0])
    append(tmp_path, RESWAP, rows[1])
    append(tmp_path, REDACT, rows[2])
    append(tmp_path, REDACT, face(4))
    queue = queued(*rows, reviews=Reviews.load(tmp_path))
    assert order(queue) == [3]
    assert queue.decided == {APPROVE: 1, RESWAP: 1, REDACT: 2}
    assert queue.waiting == {RESWAP: 1, REDACT: 1}
    # the next run has been: the third is covered, others wear other fakes
    rows = [face(0, identity_id="b"), face(1, identity_id="b"), covered(2, reason="review"), kept(3), covered(4, reason="review")]
    queue = queued(*rows, reviews=Reviews.load(tmp_path))
    assert order(queue) == [1, 3, 0]
    assert queue.items[0].words == (("again", "another fake was asked for: this is it"),)
    assert not queue.waiting


def test_ambiguous_people_are_noticed() -> None:
    unknown, ambiguous = Sighting(None, 0.1, 0.0, "unknown"), Sighting(None, 0.5, 0.01, "ambiguous")
    seen = Sightings({face(1)["image_id"]: (unknown, ambiguous)}, "")
    queue = queued(face(0), face(1, 0), face(1, 1), face(2), seen=seen)
    assert (queue.items[0].face["path"], queue.items[0].face["face_no"]) == ("001.jpg", 1)
    assert [kind for kind, _ in queue.items[0].words] == ["ambiguous"]


def test_no_other_fake_is_promised_where_a_rule_forbids_any() -> None:
    assert not swappable(covered(0, reason="no_mesh"))
    assert all(swappable(row) for row in (face(0), kept(0), covered(0, reason="review"), covered(0, reason="similar_to_known", attempts=3)))


def test_nothing_published_is_an_empty_queue() -> None:
    assert queued().items == []
    assert queue_of([(0, pa.Table.from_pylist([], schema=faces_table().schema))], Reviews(), USUAL, most=5).faces == 0
    assert concerns.KINDS[0] == "close"
