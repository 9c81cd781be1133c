from __future__ import annotations

import numpy as np
import pytest
import skimage.data

from mfmc_ray.evaluate.sheets import contact_sheet, face_crop, faces_sheet, thumbnail

RED, BLUE = (200, 30, 30), (30, 30, 200)


def picture(height: int, width: int, colour: tuple[int, int, int] = RED) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


@pytest.mark.parametrize(("shape", "wanted"), [((100, 200), (40, 80)), ((200, 100), (80, 40)), ((30, 20), (30, 20)), ((1, 5000), (1, 80))])
def test_thumbnail_fits_and_never_enlarges(shape: tuple[int, int], wanted: tuple[int, int]) -> None:
    assert thumbnail(picture(*shape), 80).shape[:2] == wanted


@pytest.mark.parametrize(
    "box",
    [(80, 60, 120, 110), (-30, -30, 20, 20), (180, 130, 260, 200), (0, 0, 200, 150), (500, 500, 600, 600), (10, 10, 10, 10)],
    ids=["inside", "over the corner", "over the other", "all of it", "outside", "empty"],
)
def test_face_crop_is_always_a_tile(box: tuple[float, float, float, float]) -> None:
    tile = face_crop(picture(150, 200), box, side=64)
    assert tile.shape == (64, 64, 3)
    assert tile.dtype == np.uint8


def test_face_crop_shows_the_box_in_the_middle_with_a_margin() -> None:
    image = picture(300, 400)
    image[100:150, 150:200] = BLUE
    tile = face_crop(image, (150, 100, 200, 150), margin=0.5, side=100)
    blue = (tile == BLUE).all(axis=2)
    assert blue[30:70, 30:70].all()
    assert not blue[:22].any()
    assert not blue[:, 78:].any()


def test_face_crop_moves_into_the_picture_instead_of_padding() -> None:
    tile = face_crop(picture(300, 400), (0, 0, 60, 60), side=80)
    assert (tile == RED).all()


def test_contact_sheet_places_tiles_in_rows() -> None:
    sheet = contact_sheet([picture(50, 50, RED), picture(50, 50, BLUE), picture(80, 40, RED)], columns=2, tile_px=50)
    assert sheet.shape == (2 * 60 + 10, 2 * 60 + 10, 3)
    assert tuple(sheet[35, 35]) == RED
    assert tuple(sheet[35, 95]) == BLUE
    assert tuple(sheet[95, 35]) == RED
    assert (sheet[70:, 70:] == sheet[0, 0]).all()


def test_captions_are_drawn_and_kept_to_the_width() -> None:
    tiles = [picture(60, 60)] * 2
    plain, captioned = (
        contact_sheet(tiles, tile_px=60, labels=["", ""]),
        contact_sheet(tiles, tile_px=60, labels=["a/very/long/path\n/x.jpg", ""]),
    )
    changed = (plain != captioned).any(axis=2)
    assert changed[70:, :75].any()
    assert not changed[:, 75:].any()
    assert not changed[:70].any()


def test_labels_must_be_as_many_as_tiles() -> None:
    with pytest.raises(ValueError, match="1 labels for 2 tiles"):
        contact_sheet([picture(5, 5)] * 2, labels=["a"])


def test_no_tiles_is_an_empty_sheet() -> None:
    assert contact_sheet([]).ndim == 3


def test_faces_sheet_crops_the_face() -> None:
    image = skimage.data.astronaut()
    sheet = faces_sheet([(image, (180, 70, 260, 180))], tile_px=100, labels=["0.31"])
    assert np.array_equal(sheet[10:110, 10:110], face_crop(image, (180, 70, 260, 180), side=100))
