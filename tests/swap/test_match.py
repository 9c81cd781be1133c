import cv2
import numpy as np
import pytest

from mfmc_ray.swap.match import (
    CONTRAST_GAIN,
    LEAST_SHADE,
    as_colourful_as,
    as_shaded_as,
    as_sharp_as,
    brow_gain,
    contrast_gain,
    grain,
    luma,
    median,
)

RNG = np.random.default_rng(0)
ALL = np.ones((120, 120), np.float32)


def noise(strength: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.repeat(strength * RNG.standard_normal((120, 120, 1), dtype=np.float32), 3, 2)


def curvature(page: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> float:
    return float(np.median(np.abs(cv2.Laplacian(luma(page), cv2.CV_32F, ksize=1))))


@pytest.mark.parametrize(("darkness", "low", "high"), [(0.05, 0.3, 0.3), (0.3, 0.6, 0.65), (0.6, 0.95, 1.05), (3.0, 1.3, 1.3)])
def test_brows_follow_the_darkness_of_the_photo(darkness: float, low: float, high: float) -> None:
    gain = brow_gain(np.full((120, 120, 3), -0.6, np.float32), np.full((120, 120, 3), -darkness, np.float32), ALL)
    assert low - 1e-6 <= gain <= high + 1e-6


@pytest.mark.parametrize(("contrast", "gain"), [(0.01, CONTRAST_GAIN[0]), (0.15, 0.71), (0.3, 1.0), (2.0, CONTRAST_GAIN[1])])
def test_a_washed_out_photo_gets_a_faint_face(contrast: float, gain: float) -> None:
    assert contrast_gain(noise(0.3), noise(contrast), ALL) == pytest.approx(gain, rel=0.05)


def test_detail_is_blurred_down_to_a_soft_photo() -> None:
    soft = np.asarray(cv2.GaussianBlur(noise(0.3), (0, 0), 2), np.float32)
    assert curvature(as_sharp_as(noise(0.3), soft, ALL, 120.0)) < 2 * curvature(soft)


def test_noise_makes_a_large_blurred_photo_no_sharper() -> None:
    blurred = np.asarray(cv2.GaussianBlur(noise(0.3), (0, 0), 5), np.float32)
    detail = noise(0.3)
    got = [as_sharp_as(detail, photo, ALL, 240.0) for photo in (blurred, blurred + noise(0.002))]
    assert curvature(got[1]) < 2 * curvature(got[0])
    assert curvature(got[0]) < 0.1 * curvature(detail)


def hill(height: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    y, x = np.mgrid[-1:1:120j, -1:1:120j]
    return np.repeat((height * np.exp(-8 * (x**2 + y**2)))[:, :, None], 3, 2).astype(np.float32)


@pytest.mark.parametrize("side", [1, -1])
def test_a_flat_photo_gets_no_painted_highlight(side: int) -> None:
    painted, width = side * hill(0.5), 120.0
    flat, lively = (side * as_shaded_as(painted, side * hill(height), ALL, width) for height in (0.05, 0.6))
    assert flat.max() < 0.15
    assert lively.max() > 0.3
    faint = hill(LEAST_SHADE / 3)
    np.testing.assert_allclose(as_shaded_as(faint, hill(0.3), ALL, width), faint, atol=0.002)
    np.testing.assert_array_equal(as_shaded_as(painted, hill(0.1), 0 * ALL, width), painted)  # nothing to go by


@pytest.mark.parametrize(("flatter", "kept"), [(0.0, LEAST_SHADE / 0.141), (0.4, 0.32), (0.6, 0.48), (1.0, 0.8), (2.0, 1.0)])
def test_skin_is_as_even_as_the_photo_s(flatter: float, kept: float) -> None:
    """Folds as fine as features, which no highlight is."""
    folds = np.repeat(np.tile(0.2 * np.sin(np.arange(120, dtype=np.float32) * 1.2), (120, 1))[:, :, None], 3, 2)
    skin = ALL.copy()
    skin[:, :60] = 0
    got = as_shaded_as(folds, flatter * folds, skin, 60.0)
    np.testing.assert_array_equal(got[:, :60], folds[:, :60])  # eyes and mouth keep theirs
    assert got[:, 60:].std() / folds[:, 60:].std() == pytest.approx(kept, rel=0.06)


def test_hair_over_a_face_is_no_contrast_of_it() -> None:
    photo = hill(0.2)
    with_hair = photo.copy()
    with_hair[:30] = -3.0
    gains = [contrast_gain(hill(0.4), one, ALL) for one in (photo, with_hair)]
    assert gains[1] <= CONTRAST_GAIN[1]
    assert contrast_gain(hill(0.4), np.clip(with_hair, -0.6, 0.6), ALL) == pytest.approx(gains[1])


def test_a_smooth_texture_gets_the_grain_of_the_photo() -> None:
    photo, smooth = noise(0.015), np.zeros((120, 120, 3), np.float32)
    got = grain(smooth, photo, ALL, 300, 7)
    assert curvature(got) == pytest.approx(curvature(photo), rel=0.25)
    np.testing.assert_array_equal(got, grain(smooth, photo, ALL, 300, 7))


@pytest.mark.parametrize(("width", "share"), [(30, 0.0), (40, 0.0), (80, 0.5), (120, 1.0), (900, 1.0)])
def test_small_faces_get_less_grain(width: float, share: float) -> None:
    photo, smooth = noise(0.015), np.zeros((120, 120, 3), np.float32)
    assert curvature(grain(smooth, photo, ALL, width, 7)) == pytest.approx(share * curvature(photo), rel=0.25)


def test_a_clean_photo_gets_no_grain() -> None:
    detail = noise(0.02)
    np.testing.assert_array_equal(grain(detail, np.zeros_like(detail), ALL, 300, 7), detail)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0.0), (0.3, 0.33), (2.0, 1.0)])
def test_a_faded_photo_gets_no_more_colour_than_it_has(share: float, expected: float) -> None:
    detail = 0.2 * RNG.standard_normal((120, 120, 3), dtype=np.float32)
    grey = luma(detail)[:, :, None]
    got = as_colourful_as(detail, grey + share * (detail - grey), ALL)
    np.testing.assert_allclose(got, grey + expected * (detail - grey), atol=1e-4)


@pytest.mark.parametrize("count", [2, 3, 200, 201])
def test_medians_are_those_of_numpy(count: int) -> None:
    values = RNG.standard_normal((3, count), dtype=np.float32)
    np.testing.assert_array_equal(median(values), np.median(values, 1))
