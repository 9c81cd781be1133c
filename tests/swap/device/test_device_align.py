"""Aligned crops in batches against `faces.align`."""

# ruff: noqa: E402

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

torch = pytest.importorskip("torch", reason="what draws on a GPU wants torch")
if int(cv2.__version__.split(".")[0]) < 5:
    pytest.skip("OpenCV 4 rounds coordinates to 1/32 px", allow_module_level=True)

from mfmc_ray.faces.align import ARCFACE_TEMPLATE, chips
from mfmc_ray.swap.device.align import align_crops

PHOTO = np.ascontiguousarray(data.astronaut())


def points(width: float, angle: float, x: float, y: float) -> np.ndarray:
    """Five points of a face `width` px wide, turned by an angle (radians), around x, y: float32 (5, 2)."""
    off = (ARCFACE_TEMPLATE - ARCFACE_TEMPLATE.mean(0)) * (width / 112)
    c, s = np.cos(angle), np.sin(angle)
    return (off @ np.array([[c, s], [-s, c]]) + (x, y)).astype(np.float32)


face = st.tuples(st.floats(15, 900), st.floats(-3.1, 3.1), st.floats(-20, 530), st.floats(-20, 530))


@settings(max_examples=12, deadline=None, derandomize=True)
@given(faces=st.lists(face, min_size=1, max_size=4), size=st.sampled_from((112, 160)))
def test_crops_are_those_of_chips(faces: list[tuple[float, float, float, float]], size: int) -> None:
    five = np.stack([points(*one) for one in faces])
    wanted, found = chips(PHOTO, five, size), align_crops([PHOTO] * len(faces), five, "cpu", size=size)
    off = np.abs(wanted.astype(int) - found)
    assert off.max() <= 2
    assert off.mean() < 0.02


def test_regions_and_nothing_to_see() -> None:
    five = np.stack([points(100, 0.1, 230, 120), points(100, 0, 3000, 3000)])
    cut = five[:1] - np.array([100, 20], np.float32)
    found = align_crops([np.ascontiguousarray(PHOTO[20:300, 100:400]), PHOTO], np.concatenate([cut, five[1:]]), "cpu")
    assert np.abs(found[0].astype(int) - chips(PHOTO, five[:1])[0]).max() <= 1
    assert not found[1].any()
    assert align_crops([], np.zeros((0, 5, 2), np.float32), "cpu").shape == (0, 112, 112, 3)
