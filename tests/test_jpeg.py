"""JPEGs with faces: what was not touched is as before, in every sampling, orientation and size."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from bad_images import profile, save, sideways_exif
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from skimage.data import astronaut, chelsea, coffee

from mfmc_ray.codec import decode, encode
from mfmc_ray.jpeg import subsampled
from mfmc_ray.orientation import back, turn, turned

ICC = profile()
PHOTOS = (astronaut(), coffee(), chelsea())


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float(10 * np.log10(255**2 / max(np.square(a.astype(float) - b).mean(), 1e-9)))


def painted(pixels: NDArray[np.uint8], box: tuple[int, int, int, int]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The picture with another in a rectangle, and what is more than a unit (16 px) and an interpolation away from it."""
    y0, y1, x0, x1 = box
    changed = pixels.copy()
    changed[y0:y1, x0:x1] = chelsea()[:300, :451][: y1 - y0, : x1 - x0]
    away = np.ones(pixels.shape[:2], bool)
    away[max(0, y0 - 36) : y1 + 36, max(0, x0 - 36) : x1 + 36] = False
    return changed, away


@st.composite
def jpegs(draw: st.DrawFn) -> tuple[bytes, int]:
    """A JPEG of any size, sampling and orientation, and its sampling."""
    photo = PHOTOS[draw(st.integers(0, 2))]
    height, width = draw(st.integers(200, 300)), draw(st.integers(200, 400))
    image = Image.fromarray(np.ascontiguousarray(photo[-height:, -width:]))
    grey, subsampling = draw(st.booleans()), draw(st.sampled_from([0, 1, 2]))
    data = save(
        image.convert("L") if grey else image,
        "JPEG",
        quality=draw(st.sampled_from([30, 50, 75, 90, 95])),
        subsampling=subsampling,
        progressive=draw(st.booleans()),
        exif=sideways_exif(draw(st.integers(1, 8))),
        icc_profile=None if grey else ICC,
    )
    return data, subsampling


@given(jpeg=jpegs())
@settings(max_examples=120, deadline=None)
@example((save(Image.fromarray(astronaut()), "JPEG", quality=30, subsampling=2, icc_profile=ICC), 2))
@example((save(Image.fromarray(coffee()), "JPEG", quality=95, subsampling=2, icc_profile=ICC), 2))
def test_outside_the_faces_a_jpeg_is_as_before(jpeg: tuple[bytes, int]) -> None:
    source, _ = jpeg
    decoded = decode(source)
    changed, away = painted(decoded.pixels, (60, 120, 60, 120))
    data, kind = encode(changed, decoded)
    before, after = opened(source), opened(data)
    assert kind == after.format == "JPEG"
    assert after.info.get("icc_profile") == before.info.get("icc_profile")
    assert after.info.get("progressive") == before.info.get("progressive")
    if not decoded.grey:  # a single component is coded alike whatever its sampling
        assert [layer[1:3] for layer in after.layer] == [layer[1:3] for layer in before.layer]
    sideways = decoded.orientation >= 5 and decoded.stored_in == 1
    for n, table in before.quantization.items():
        expected = np.reshape(table, (8, 8))
        assert np.array_equal(np.reshape(after.quantization[n], (8, 8)), expected.T if sideways else expected)
    again = decode(data)
    assert again.pixels.shape == decoded.pixels.shape
    assert psnr(again.pixels[away], decoded.pixels[away]) >= 45
    assert psnr(again.pixels[70:110, 70:110], changed[70:110, 70:110]) > 22  # the new face is there


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(160, 96), (165, 101), (168, 104)])
def test_a_jpeg_is_upright_or_says_how_it_is_stored(size: tuple[int, int], orientation: int, subsampling: int) -> None:
    source = save(Image.fromarray(astronaut()).resize(size), "JPEG", quality=80, subsampling=subsampling, exif=sideways_exif(orientation))
    decoded = decode(source)
    data, _ = encode(decoded.pixels, decoded)
    image = opened(data)
    tags = dict(image.getexif())
    assert tags == ({} if decoded.stored_in == 1 else {0x0112: orientation})
    if size == (160, 96):  # whole units
        assert tags == {} or (subsampling == 1 and orientation >= 5)
    assert psnr(decode(data).pixels, decoded.pixels) >= 45


@pytest.mark.parametrize("factor", [cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411])
def test_a_sampling_that_cannot_be_written_keeps_all_chroma(factor: int) -> None:
    options = [cv2.IMWRITE_JPEG_QUALITY, 85, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor]
    decoded = decode(cv2.imencode(".jpg", astronaut()[..., ::-1], options)[1].tobytes())
    assert decoded.jpeg is None
    data, kind = encode(decoded.pixels, decoded)
    assert kind == "JPEG"
    assert psnr(decode(data).pixels, decoded.pixels) >= 45


def test_a_cmyk_jpeg_becomes_rgb() -> None:
    for photo in PHOTOS:
        decoded = decode(save(Image.fromarray(photo).convert("CMYK"), "JPEG", quality=85))
        data, kind = encode(decoded.pixels, decoded)
        assert (kind, opened(data).mode) == ("JPEG", "RGB")
        assert psnr(decode(data).pixels, decoded.pixels) >= 45


@pytest.mark.parametrize("quality", [30, 75, 95])
@pytest.mark.parametrize("photo", range(3))
def test_outside_the_faces_a_lossy_webp_is_as_before(photo: int, quality: int) -> None:
    decoded = decode(save(Image.fromarray(PHOTOS[photo]), "WEBP", quality=quality))
    assert not decoded.lossless
    changed, away = painted(decoded.pixels, (60, 120, 60, 120))
    data, kind = encode(changed, decoded)
    assert kind == "WEBP"
    again = decode(data).pixels
    assert psnr(again[away], decoded.pixels[away]) >= 45
    assert psnr(again[70:110, 70:110], changed[70:110, 70:110]) > 40


@pytest.mark.parametrize("subsampling", [1, 2])
def test_chroma_survives_halving_and_interpolating(subsampling: int) -> None:
    """Plainly coded, a decoded picture's chroma is blurred a little more; that is what the filter is for."""
    decoded = decode(save(Image.fromarray(coffee()), "JPEG", quality=95, subsampling=subsampling))
    plain = save(Image.fromarray(decoded.pixels), "JPEG", qtables=decoded_tables(decoded), subsampling=subsampling)
    better = psnr(decode(encode(decoded.pixels, decoded)[0]).pixels, decoded.pixels)
    assert better > psnr(decode(plain).pixels, decoded.pixels) + 3


def decoded_tables(decoded: object) -> list[list[int]]:
    return [list(table) for table in decoded.jpeg.tables]  # type: ignore[attr-defined]


@given(y0=st.integers(0, 9), x0=st.integers(0, 9), height=st.integers(3, 12), width=st.integers(3, 12), subsampling=st.sampled_from([1, 2]))
@settings(max_examples=60, deadline=None)
def test_a_part_has_the_same_chroma_as_the_whole(y0: int, x0: int, height: int, width: int, subsampling: int) -> None:
    """Bit for bit, but for the outermost 8 px: what is published is looked at in parts."""
    photo = astronaut()[:360, :360]
    part = photo[16 * y0 : 16 * (y0 + height), 16 * x0 : 16 * (x0 + width)]
    inside = subsampled(np.ascontiguousarray(part), subsampling)[8:-8, 8:-8]
    whole = subsampled(photo, subsampling)[16 * y0 : 16 * (y0 + height), 16 * x0 : 16 * (x0 + width)]
    assert np.array_equal(inside, whole[8 : part.shape[0] - 8, 8 : part.shape[1] - 8])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_an_array_is_turning_a_picture(orientation: int) -> None:
    image = Image.fromarray(coffee()[:30, :40])
    upright = np.asarray(turn(image, orientation))
    assert np.array_equal(turned(np.asarray(image), orientation), upright)
    assert np.array_equal(turned(upright, back(orientation)), np.asarray(image))
