"""Kept faces beside swapped ones."""

from __future__ import annotations

import numpy as np

from mfmc_ray.swap.keep import area_of, restore
from mfmc_ray.swap.redact import cover_of

RNG = np.random.default_rng(0)
BEFORE = RNG.integers(0, 256, (120, 160, 3), dtype=np.uint8)
CHANGED = RNG.integers(0, 256, (120, 160, 3), dtype=np.uint8)
KEPT = np.array([20, 30, 60, 80], np.float32)


def restored(kept: list[list[float]], others: list[tuple[int, int, int, int]]) -> np.ndarray:
    canvas = CHANGED.copy()
    restore(canvas, BEFORE, np.array(kept, np.float32).reshape(-1, 4), others)
    return canvas


def test_the_box_is_the_original_s_and_what_is_far_is_not_touched() -> None:
    canvas = restored([KEPT.tolist()], [])
    np.testing.assert_array_equal(canvas[30:81, 20:61], BEFORE[30:81, 20:61])
    outside = np.ones(canvas.shape[:2], bool)
    x0, y0, x1, y1 = cover_of(KEPT, canvas.shape)
    outside[y0:y1, x0:x1] = False
    np.testing.assert_array_equal(canvas[outside], CHANGED[outside])


def test_towards_its_margin_it_fades() -> None:
    canvas = np.zeros((120, 160, 3), np.uint8)
    restore(canvas, np.full_like(canvas, 200), KEPT[None], [])
    x0, _, x1, _ = cover_of(KEPT, canvas.shape)
    row = canvas[50, x0 - 1 : x1 + 1, 0].astype(int)
    assert row[0] == row[-1] == 0
    assert np.abs(np.diff(row)).max() < 60  # 200 at once would be a seam
    assert (np.diff(row[: len(row) // 2]) >= 0).all()


def test_nothing_comes_back_where_another_face_is() -> None:
    other = (50, 0, 160, 60)
    canvas = restored([KEPT.tolist()], [other])
    np.testing.assert_array_equal(canvas[0:60, 50:160], CHANGED[0:60, 50:160])
    np.testing.assert_array_equal(canvas[30:81, 20:50], BEFORE[30:81, 20:50])
    np.testing.assert_array_equal(canvas[60:81, 20:61], BEFORE[60:81, 20:61])
    np.testing.assert_array_equal(restored([KEPT.tolist()], [(0, 0, 160, 120)]), CHANGED)


def test_boxes_may_reach_beyond_the_border() -> None:
    canvas = restored([[-30, -40, 25, 30], [140, 100, 300, 300]], [(-50, -50, 5, 5)])
    np.testing.assert_array_equal(canvas[5:31, 5:26], BEFORE[5:31, 5:26])
    np.testing.assert_array_equal(canvas[:5, :5], CHANGED[:5, :5])
    np.testing.assert_array_equal(canvas[100:, 140:], BEFORE[100:, 140:])


def test_overlapping_kept_faces_are_both_there() -> None:
    canvas = restored([[20, 30, 60, 80], [50, 30, 90, 80]], [])
    np.testing.assert_array_equal(canvas[30:81, 20:91], BEFORE[30:81, 20:91])


def test_the_area_of_a_face_holds_its_cover_and_its_meshes() -> None:
    shape = (120, 160, 3)
    assert area_of(KEPT, [], shape) == cover_of(KEPT, shape)
    nowhere = np.full((468, 3), np.nan, np.float32)
    assert area_of(KEPT, [nowhere], shape) == cover_of(KEPT, shape)
    mesh = nowhere.copy()
    mesh[:2] = [[2.5, 40, 0], [500, 90.5, 0]]
    x0, y0, x1, y1 = area_of(KEPT, [nowhere, mesh], shape)
    assert (x0, y0, x1, y1) == (2, cover_of(KEPT, shape)[1], 160, 92)
