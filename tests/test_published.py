"""Windows of a picture as published, against the decoded file: bit for bit, in every mode."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from bad_images import save, sideways_exif
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.data import astronaut, chelsea, coffee

from mfmc_ray import published
from mfmc_ray.codec import Decoded, decode, encode
from mfmc_ray.published import Published, PublishedError

PHOTOS = (astronaut(), coffee(), chelsea())
CMYK, GREY, RGB_CODED = "CMYK", "L", "RGB as such"


def drawn_over(like: Decoded, photo: np.ndarray) -> Decoded:
    """The picture with another one's pixels in it: what a JPEG decodes to is nearly unchanged when it is encoded again."""
    pixels = like.pixels.copy()
    other = np.ascontiguousarray(photo[::-1, ::-1][: like.height, : like.width])
    pixels[: other.shape[0], : other.shape[1] // 2 + 1] = other[:, : other.shape[1] // 2 + 1]
    return replace(like, pixels=pixels)


@st.composite
def jpegs(draw: st.DrawFn) -> Decoded:
    """What a re-encoded JPEG of any kind decodes to, with something drawn over it."""
    number = draw(st.integers(0, len(PHOTOS) - 1))
    height, width = draw(st.integers(1, 300)), draw(st.integers(1, 300))
    top, left = draw(st.integers(0, 299 - min(height, 299))), draw(st.integers(0, 299 - min(width, 299)))
    image = Image.fromarray(np.ascontiguousarray(PHOTOS[number][top : top + height, left : left + width]))
    mode = draw(st.sampled_from(["YCbCr", GREY, RGB_CODED, CMYK]))
    options: dict[str, object] = {"progressive": draw(st.booleans()), "exif": sideways_exif(draw(st.integers(1, 8)))}
    if draw(st.booleans()):
        options["quality"] = draw(st.integers(1, 95))
    else:
        # with finer tables, Pillow's buffer for progressive files can be too small
        table = st.lists(st.integers(3, 255), min_size=64, max_size=64)
        options["qtables"] = draw(st.lists(table, min_size=1, max_size=2))
    options |= {"keep_rgb": True} if mode == RGB_CODED else {"subsampling": draw(st.sampled_from([0, 1, 2]))}
    image = image.convert(mode) if mode in (CMYK, GREY) else image
    return drawn_over(decode(save(image, "JPEG", **options)), PHOTOS[number - 1])


@given(picture=jpegs(), quality=st.integers(1, 100), data=st.data())
@settings(max_examples=250, deadline=None)
def test_windows_of_a_jpeg_are_what_the_file_decodes_to(picture: Decoded, quality: int, data: st.DataObject) -> None:
    seen = Published(picture, quality)
    file, _ = encode(picture.pixels, picture, quality=quality)
    whole = decode(file).pixels
    for _ in range(data.draw(st.integers(1, 4))):
        y0, x0 = data.draw(st.integers(0, picture.height - 1)), data.draw(st.integers(0, picture.width - 1))
        y1, x1 = data.draw(st.integers(y0 + 1, picture.height)), data.draw(st.integers(x0 + 1, picture.width))
        np.testing.assert_array_equal(seen[y0:y1, x0:x1], whole[y0:y1, x0:x1])
    assert seen.file() == (file, "JPEG")


@pytest.mark.parametrize("growth", [0.0, 0.3])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_no_pixel_of_a_jpeg_depends_on_the_window(
    subsampling: int, progressive: bool, growth: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "_GROWTH", growth)
    image = Image.fromarray(astronaut()[:203, 90:331])
    picture = drawn_over(decode(save(image, "JPEG", quality=60, subsampling=subsampling, progressive=progressive)), chelsea())
    whole = decode(encode(picture.pixels, picture)[0]).pixels
    for y0 in range(0, 203, 7):
        for x0 in range(0, 241, 29):
            np.testing.assert_array_equal(Published(picture, 95)[y0 : y0 + 7, x0 : x0 + 29], whole[y0 : y0 + 7, x0 : x0 + 29])


def test_the_test_would_see_a_window_without_its_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "_MARGIN", 0)
    monkeypatch.setattr(published, "_GROWTH", 0.0)
    picture = decode(save(Image.fromarray(astronaut()), "JPEG", quality=60, subsampling=2))
    whole = decode(encode(picture.pixels, picture)[0]).pixels
    assert not np.array_equal(Published(picture, 95)[96:160, 192:256], whole[96:160, 192:256])


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("PNG", "RGB", {}),
        ("PNG", "L", {}),
        ("PNG", "LA", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "P", {}),
        ("PNG", "1", {}),
        ("PNG", "I;16", {}),
        ("WEBP", "RGB", {"lossless": True}),
        ("WEBP", "RGBA", {"lossless": True, "exact": True}),
        ("WEBP", "RGB", {"quality": 70}),
        ("WEBP", "RGBA", {"quality": 70}),
        ("TIFF", "RGB", {}),
        ("GIF", "P", {}),
    ],
)
def test_windows_of_other_formats(kind: str, mode: str, options: dict[str, object]) -> None:
    image = Image.fromarray(astronaut()[40:203, 90:331])
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        alpha = image.convert("L")
        image = image.convert(mode)
        if mode.endswith("A"):
            image.putalpha(alpha)
    picture = drawn_over(decode(save(image, kind, **options)), chelsea())
    file = encode(picture.pixels, picture, quality=80)
    whole = decode(file[0]).pixels
    seen = Published(picture, 80)
    for y0, y1, x0, x1 in ((0, 10, 0, 10), (33, 120, 17, 201), (100, 163, 200, 241), (0, 163, 0, 241)):
        np.testing.assert_array_equal(seen[y0:y1, x0:x1], whole[y0:y1, x0:x1])
    assert seen.file() == file


def test_slices_are_as_an_array_takes_them() -> None:
    picture = decode(save(Image.fromarray(astronaut()), "JPEG"))
    seen, whole = Published(picture, 95), decode(encode(picture.pixels, picture)[0]).pixels
    assert seen.shape == whole.shape
    for at in (np.s_[:, :], np.s_[500:600, -20:], np.s_[-30:-10, 3:9], np.s_[7:7, 3:9], np.s_[9:3, 3:9]):
        np.testing.assert_array_equal(seen[at], whole[at])
    with pytest.raises(ValueError, match="without steps"):
        seen[::2, :]


def test_only_the_surroundings_of_what_is_read_are_coded(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    original = published.encode_part

    def noted(pixels: np.ndarray, *args: object, **options: object) -> bytes:
        sizes.append(pixels.shape[:2])
        return original(pixels, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(published, "encode_part", noted)
    seen = Published(decode(save(Image.fromarray(astronaut()), "JPEG")), 95)
    seen[200:300, 200:300]
    seen[190:310, 180:300]
    assert len(sizes) == 1
    assert max(sizes[0]) <= 100 * 1.6 + 4 * 16


def test_a_file_that_is_coded_otherwise_than_its_windows_is_not_published(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = decode(save(Image.fromarray(astronaut()), "JPEG", quality=80))
    other = decode(save(Image.fromarray(astronaut()), "JPEG", quality=81))
    seen = Published(picture, 95)
    seen[0:10, 0:10]
    monkeypatch.setattr(published, "encode", lambda pixels, _, quality, xmp, stored: encode(pixels, other, quality=quality, xmp=xmp))
    with pytest.raises(PublishedError):
        seen.file()


def test_published_pixels_cannot_be_taken_for_an_array() -> None:
    """OpenCV would read past the windows; it refuses."""
    import cv2

    seen = Published(decode(save(Image.fromarray(astronaut()), "JPEG")), 95)
    with pytest.raises(cv2.error):
        cv2.resize(seen, (10, 10))  # type: ignore[call-overload]
