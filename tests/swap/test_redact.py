import numpy as np
import pytest

from mfmc_ray.swap.protocol import Patch
from mfmc_ray.swap.redact import Cover, Fronts, before, cover_of, redact


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


def patch_at(x: int, y: int, image: np.ndarray, front: np.ndarray | None) -> Patch:
    """Of 20 × 30 px, white where it shows."""
    pixels = image[y : y + 20, x : x + 30].copy()
    if front is not None:
        pixels[front] = 255
    return Patch(x, y, pixels, np.zeros((468, 3), np.float32), 1.0, front)


def test_covers_give_way_to_faces_before_them_and_to_nothing_else() -> None:
    image = np.random.default_rng(0).integers(0, 200, (80, 90, 3), dtype=np.uint8)
    front, fronts = np.zeros((20, 30), bool), Fronts()
    front[5:15, 10:30] = True
    patch, cover = patch_at(20, 10, image, front), Cover((40, 5, 80, 30), (1, 2, 3))
    fronts.add(0, image, patch)
    patch.paste(image)
    for spared in (fronts.within(cover.area), before(patch, cover)):
        assert spared is not None
        drawn = image.copy()
        cover.paste(drawn, spared)
        shown = np.zeros((80, 90), bool)
        shown[15:25, 40:50] = True
        window = drawn[cover.window]
        assert (window[shown[cover.window]] == 255).all()
        assert (window[~shown[cover.window]] == cover.colour).all()
    assert not fronts.within((60, 40, 85, 70)).any()
    # one that is drawn over it later takes away what it changes, and shows nothing for certain
    over = patch_at(25, 20, image, None)
    over.pixels[:3] //= 2
    fronts.add(1, image, over)
    assert np.flatnonzero(fronts.within(cover.area).any(1)).tolist() == [10, 11, 12, 13, 14, 18, 19]
    fronts.drop(0)
    assert not fronts.within(cover.area).any()
    assert before(over, cover) is None
