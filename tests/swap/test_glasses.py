import cv2
import numpy as np
import pytest
from skimage.feature import hog

from mfmc_ray.swap.glasses import GlassesReader, gradients, weights_of


def page(seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (128, 128, 3)).astype(np.float32)
    return np.clip(cv2.GaussianBlur(noise, (0, 0), 2) * 2 - 60, 60, 255).astype(np.uint8)


def test_gradients_do_not_see_how_bright_a_face_is() -> None:
    light = page()
    dark = (light.astype(np.float32) * 0.5 - 8).clip(0).astype(np.uint8)  # log(x + 16) less a constant
    found = [gradients(one).ravel() for one in (light, dark, page(1))]
    assert found[0].dtype == np.float32
    alike = np.corrcoef(found)
    assert alike[0, 1] > 0.85  # but for rounding
    assert alike[0, 2] < 0.5


def test_gradients_are_those_of_a_library() -> None:
    for seed in range(5):
        for found, half in zip(gradients(page(seed)), (page(seed), page(seed)[:, ::-1]), strict=True):
            grey = cv2.cvtColor(np.ascontiguousarray(half[26:66, 6:74]), cv2.COLOR_RGB2GRAY).astype(np.float32)
            usual = hog(np.log(grey + 16), orientations=8, pixels_per_cell=(4, 4), cells_per_block=(2, 2))
            np.testing.assert_allclose(found, usual, atol=2e-3)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_blank_page_has_odds(level: int) -> None:
    assert np.isfinite(GlassesReader()(np.full((128, 128, 3), level, np.uint8)))


def test_only_the_eyes_count() -> None:
    one, other = page(), page(1)
    other[26:66, 6:122] = one[26:66, 6:122]
    assert GlassesReader()(one) == GlassesReader()(other)


def test_a_mirrored_face_wears_the_same() -> None:
    reader, seen = GlassesReader(), np.random.default_rng(0).random((128, 128)) < 0.7
    assert reader(page()) == pytest.approx(reader(page()[:, ::-1]))
    assert reader(page(), seen) == pytest.approx(reader(page()[:, ::-1], seen[:, ::-1]))


def test_a_half_that_is_not_seen_hardly_counts() -> None:
    reader, seen = GlassesReader(), np.zeros((128, 128), bool)
    seen[:, :64] = True
    np.testing.assert_allclose(weights_of(seen), [0.98, 0.02], atol=0.001)
    np.testing.assert_allclose(weights_of(~seen), [0.02, 0.98], atol=0.001)
    np.testing.assert_allclose(weights_of(np.ones((128, 128), bool)), 0.5)
    halves = [reader(np.concatenate([half, half[:, ::-1]], 1)) for half in (page()[:, :64], page()[:, :63:-1])]
    # the band of a half reaches over the bridge of the nose
    assert reader(page(), seen) == pytest.approx(0.98 * halves[0] + 0.02 * halves[1], abs=0.5)
