"""16 bits a sample: kept outside the faces, scaled inside."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace

import cv2
import numpy as np
import pytest
import tifffile
from bad_images import png_chunk, profile, save, sideways_exif
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from skimage.data import astronaut

from mfmc_ray import deep
from mfmc_ray.codec import XMP, decode, encode
from mfmc_ray.orientation import turned
from mfmc_ray.published import Published
from mfmc_ray.scrub import scrub

ICC = profile()
NOISE = np.random.default_rng(0)
RGB = astronaut()[40:171, 150:290].astype(np.uint16) * 256 + NOISE.integers(0, 256, (131, 140, 3), np.uint16)
GREY = np.ascontiguousarray(RGB[..., 1])
ALPHA = np.ascontiguousarray(65535 - RGB[..., 2])


def read(data: bytes) -> NDArray[np.uint16]:
    """The samples of a file by readers that are not ours: tifffile and OpenCV (RGB, without LA)."""
    if data[:2] == b"II":
        return np.asarray(tifffile.imread(io.BytesIO(data)))
    seen = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert seen is not None
    return np.asarray(seen if seen.ndim == 2 else seen[..., [2, 1, 0, 3][: seen.shape[2]]])


def sources() -> dict[str, tuple[bytes, NDArray[np.uint16]]]:
    """Files, and their samples."""

    def tiff(pixels: NDArray[np.uint16], **options: object) -> bytes:
        out = io.BytesIO()
        with tifffile.TiffWriter(out, byteorder=options.pop("byteorder", "<")) as writer:  # type: ignore[arg-type]
            writer.write(pixels, metadata=None, iccprofile=ICC if pixels.ndim == 3 else None, **options)
        return out.getvalue()

    rgba = np.dstack([RGB, ALPHA])
    return {
        "rgb.png": (cv2.imencode(".png", RGB[..., ::-1])[1].tobytes(), RGB),
        "rgba.png": (cv2.imencode(".png", rgba[..., [2, 1, 0, 3]])[1].tobytes(), rgba),
        "grey.png": (save(Image.fromarray(GREY), "PNG"), GREY),
        "grey_12_bits.png": (save(Image.fromarray(GREY >> 4), "PNG"), GREY >> 4),
        "rgb.tif": (tiff(RGB, photometric="rgb", compression="zlib"), RGB),
        "rgba.tif": (tiff(rgba, photometric="rgb", extrasamples=["unassalpha"]), rgba),
        "big-endian.tif": (tiff(RGB, photometric="rgb", byteorder=">"), RGB),
        "grey.tif": (tiff(GREY, photometric="minisblack"), GREY),
        "grey_big-endian.tif": (tiff(GREY, photometric="minisblack", byteorder=">"), GREY),
    }


SOURCES = sources()


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_outside_the_faces_all_bits_stay(name: str) -> None:
    data, samples = SOURCES[name]
    decoded = decode(data)
    assert decoded.deep is not None
    pixels = decoded.pixels.copy()
    pixels[30:80, 40:90] = 255 - pixels[30:80, 40:90]
    out, kind = encode(pixels, decoded)
    assert kind == ("PNG" if name.endswith("png") else "TIFF")
    after = read(out)
    assert after.dtype == np.uint16
    assert after.shape == samples.shape
    untouched = np.ones(samples.shape[:2], bool)
    untouched[30:80, 40:90] = False
    assert np.array_equal(after[untouched], samples[untouched])
    face = after[30:80, 40:90].reshape(50, 50, -1)
    top = 4095 if name == "grey_12_bits.png" else 65535
    expected = np.rint(pixels[30:80, 40:90, : min(face.shape[2], 3)].astype(float) * top / 255)
    other = pixels[30:80, 40:90, 0] != decoded.pixels[30:80, 40:90, 0]
    assert np.abs(face[..., : min(face.shape[2], 3)] - expected)[other].max() <= 1
    again = decode(out)
    assert np.array_equal(again.pixels, pixels)
    assert again.icc == decoded.icc
    assert (decoded.alpha is None) == (again.alpha is None)
    assert Image.open(io.BytesIO(out)).info["xmp"] == XMP
    np.testing.assert_array_equal(Published(replace(decoded, pixels=pixels), 98)[20:90, 30:100], pixels[20:90, 30:100])
    assert scrub(encode(pixels, decoded, xmp=None)[0]) == encode(pixels, decoded, xmp=None)[0]


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_without_faces_nothing_changes(name: str) -> None:
    data, samples = SOURCES[name]
    assert np.array_equal(read(scrub(data)), samples)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["rgb.png", "grey.png", "rgb.tif", "grey.tif"])
def test_a_turned_picture_keeps_its_bits_upright(name: str, orientation: int) -> None:
    data, samples = SOURCES[name]
    if name.endswith("png"):
        tags = sideways_exif(orientation).tobytes()[6:]
        data = data[:33] + png_chunk(b"eXIf", tags) + data[33:]
    else:
        out = io.BytesIO()
        with tifffile.TiffWriter(out) as writer:
            kind = "rgb" if samples.ndim == 3 else "minisblack"
            writer.write(samples, metadata=None, photometric=kind, extratags=[(274, 3, 1, orientation, True)])
        data = out.getvalue()
    decoded = decode(data)
    assert decoded.deep is not None
    after = read(encode(decoded.pixels, decoded)[0])
    assert np.array_equal(after, turned(samples, orientation))


def test_grey_with_transparency() -> None:
    lines = np.dstack([GREY, ALPHA]).astype(">u2").view(np.uint8).reshape(131, -1)
    header = struct.pack(">IIBBBBB", 140, 131, 16, 4, 0, 0, 0)
    body = zlib.compress(np.hstack([np.zeros((131, 1), np.uint8), lines]).tobytes())
    source = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")
    decoded = decode(source)
    assert decoded.deep is not None
    assert np.array_equal(decoded.deep.samples, np.dstack([GREY, ALPHA]))
    out, _ = encode(decoded.pixels, decoded)
    again = decode(out)
    assert again.deep is not None
    assert np.array_equal(again.deep.samples, decoded.deep.samples)
    assert np.array_equal(again.pixels, decoded.pixels)


def test_what_would_be_shown_otherwise_has_8_bits() -> None:
    """The only bright part of a dark sensor's picture is gone: by its range alone it would be shown brighter than it is."""
    dark = GREY >> 6
    dark[:] = np.minimum(dark, 300)
    dark[50:60, 50:60] = 1000
    decoded = decode(save(Image.fromarray(dark), "PNG"))
    assert decoded.deep is not None
    assert decoded.deep.top == 1023
    pixels = decoded.pixels.copy()
    pixels[50:60, 50:60] = 10
    out, _ = encode(pixels, decoded)
    assert Image.open(io.BytesIO(out)).mode == "L"
    assert np.array_equal(decode(out).pixels, pixels)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP"])
def test_8_bits_are_not_deep(kind: str) -> None:
    assert decode(save(Image.fromarray(astronaut()), kind)).deep is None


def test_samples_that_are_not_what_pillow_read_are_not_used() -> None:
    data, _ = SOURCES["rgb.png"]
    decoded, image = decode(data), Image.open(io.BytesIO(data))
    assert deep.read(data, image, decoded.pixels, None, 1, grey=False) is not None
    assert deep.read(data, image, 255 - decoded.pixels, None, 1, grey=False) is None
    assert deep.read(data, image, decoded.pixels, None, 3, grey=False) is None
    assert deep.read(data, image, decoded.pixels, decoded.pixels[..., 0], 1, grey=False) is None


@given(
    samples=st.integers(0, 2**32 - 1).map(
        lambda seed: np.random.default_rng(seed).integers(0, 65536, (seed % 70 + 1, seed % 13 + 1, seed % 4 + 1), np.uint16)
    )
)
@settings(max_examples=60, deadline=None)
def test_a_png_is_read_as_it_was_written(samples: NDArray[np.uint16]) -> None:
    data = deep.png(samples, [(b"gAMA", struct.pack(">I", 45_455))])
    assert scrub(data) == data
    if samples.shape[2] != 2:
        assert np.array_equal(np.atleast_3d(read(data)), samples)
