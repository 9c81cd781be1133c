import cv2
import numpy as np
import pytest
from skimage.feature import hog

from mfmc_ray.swap.glasses import GlassesReader, gradients


def page(seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (128, 128, 3)).astype(np.float32)
    return np.clip(cv2.GaussianBlur(noise, (0, 0), 2) * 2 - 60, 60, 255).astype(np.uint8)


def test_gradients_do_not_see_how_bright_a_face_is() -> None:
    light = page()
    dark = (light.astype(np.float32) * 0.5 - 8).clip(0).astype(np.uint8)  # log(x + 16) less a constant
    found = [gradients(one) for one in (light, dark, page(1))]
    assert found[0].dtype == np.float32
    alike = np.corrcoef(found)
    assert alike[0, 1] > 0.85  # but for rounding
    assert alike[0, 2] < 0.5


def test_gradients_are_those_of_a_library() -> None:
    for seed in range(5):
        grey = cv2.cvtColor(page(seed)[26:66, 6:122], cv2.COLOR_RGB2GRAY).astype(np.float32)
        usual = hog(np.log(grey + 16), orientations=8, pixels_per_cell=(4, 4), cells_per_block=(2, 2))
        np.testing.assert_allclose(gradients(page(seed)), usual, atol=2e-3)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_blank_page_has_odds(level: int) -> None:
    assert np.isfinite(GlassesReader()(np.full((128, 128, 3), level, np.uint8)))


def test_only_the_eyes_count() -> None:
    one, other = page(), page(1)
    other[26:66, 6:122] = one[26:66, 6:122]
    assert GlassesReader()(one) == GlassesReader()(other)
