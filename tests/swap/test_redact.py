import numpy as np
import pytest

from mfmc_ray.swap.redact import Cover, cover_of, redact


@pytest.mark.parametrize("box", [(20, 30, 60, 80), (-15, -10, 30, 40), (90, 70, 140, 130), (50, 50, 50.5, 50.5)])
def test_the_cover_holds_the_box_and_stays_inside(box: tuple[float, ...]) -> None:
    x0, y0, x1, y1 = cover_of(np.array(box, np.float32), (100, 120, 3))
    assert 0 <= x0 < x1 <= 120
    assert 0 <= y0 < y1 <= 100
    assert x0 <= max(box[0], 0)
    assert x1 >= min(box[2], 120)


def test_nothing_of_the_covered_pixels_shows() -> None:
    rng = np.random.default_rng(0)
    one = rng.integers(0, 255, (80, 90, 3), dtype=np.uint8)
    two = one.copy()
    two[20:50, 30:60] = rng.integers(0, 255, (30, 30, 3), dtype=np.uint8)
    area = (30, 20, 60, 50)
    redact(one, area)
    redact(two, area)
    np.testing.assert_array_equal(one, two)
    assert len(np.unique(one[20:50, 30:60].reshape(-1, 3), axis=0)) == 1


def test_a_picture_that_is_all_face_is_covered_grey() -> None:
    image = np.full((10, 10, 3), 7, np.uint8)
    redact(image, (0, 0, 10, 10))
    assert (image == 128).all()


def test_a_cover_is_what_redaction_draws() -> None:
    image = np.random.default_rng(0).integers(0, 255, (80, 90, 3), dtype=np.uint8)
    cover, drawn = Cover.of(image, (30, 20, 60, 50)), image.copy()
    redact(image, (30, 20, 60, 50))
    cover.paste(drawn)
    np.testing.assert_array_equal(drawn, image)
    assert (drawn[cover.window] == cover.colour).all()
