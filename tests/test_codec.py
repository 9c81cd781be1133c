"""Decoding and encoding: every mode, every orientation, every kind of broken file."""

from __future__ import annotations

import dataclasses
import io
import pickle
import struct
import zlib
from xml.etree import ElementTree

import numpy as np
import pytest
from bad_images import SECRET, bad_images, huge_jpeg, png_chunk, profile, save, sideways_exif, told_images
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps
from skimage.data import astronaut

from mfmc_ray.codec import WITHHELD, XMP, CodecError, Decoded, decode, encode
from mfmc_ray.tiff import DESCRIBING, XMP_TAG

FACE = Image.fromarray(astronaut())
SMALL = FACE.crop((170, 60, 170 + 96, 60 + 64))
GREY = np.asarray(FACE.convert("L"))
BAD = bad_images()
REASONS = {
    "empty.jpg": "empty",
    "text.jpg": "not_an_image",
    "truncated.jpg": "truncated",
    "truncated.png": "truncated",
    "corrupt.jpg": "corrupt",
    "animated.gif": "animated",
    "animated.webp": "animated",
    "bomb.png": "too_large",
}


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Mean absolute difference in levels."""
    return float(np.abs(a.astype(int) - b).mean())


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float(10 * np.log10(255**2 / max(np.square(a.astype(float) - b).mean(), 1e-9)))


def two_frames(kind: str) -> bytes:
    return save(SMALL, kind, save_all=True, append_images=[ImageOps.mirror(SMALL)])


def sixteen_bit_rgb() -> bytes:
    rows = (astronaut().astype(">u2") * 257).view(np.uint8).reshape(512, -1)
    lines = np.hstack([np.zeros((512, 1), np.uint8), rows]).tobytes()
    header = struct.pack(">IIBBBBB", 512, 512, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(lines)) + png_chunk(b"IEND", b"")


@pytest.mark.parametrize("name", sorted(BAD))
def test_bad_images_are_decoded_or_refused_with_their_reason(name: str) -> None:
    if name in REASONS:
        with pytest.raises(CodecError) as caught:
            decode(BAD[name])
        assert caught.value.reason == REASONS[name]
        assert len(str(caught.value)) > 15
    else:
        decoded = decode(BAD[name])
        assert decoded.pixels.dtype == np.uint8
        assert decoded.pixels.shape == (decoded.height, decoded.width, 3)
        assert decoded.pixels.flags.writeable
        assert decoded.pixels.flags.c_contiguous
        if name != "one_pixel.png":
            expected = FACE.convert("L").convert("RGB") if decoded.grey else FACE
            assert difference(decoded.pixels, np.asarray(expected)) < 3


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "truncated"),
        (BAD["really_a_png.jpg"][:20], "truncated"),
        (BAD["really_a_png.jpg"][:-12], "truncated"),
        (save(SMALL, "WEBP")[:500], "truncated"),
        (save(SMALL, "WEBP")[:18], "truncated"),
        (save(SMALL, "BMP")[:500], "truncated"),
        (save(SMALL, "TIFF")[:500], "truncated"),
        (save(SMALL, "GIF")[:1500], "truncated"),
        (save(SMALL, "AVIF")[:100], "corrupt"),
        (b"GIF89a", "corrupt"),
        (b"BM" + bytes(60), "corrupt"),
        (BAD["really_a_png.jpg"][:5000] + b"face" + BAD["really_a_png.jpg"][5004:], "corrupt"),
        (two_frames("PNG"), "animated"),
        (two_frames("TIFF"), "animated"),
        (two_frames("AVIF"), "animated"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\nshowpage\n", "unsupported_format"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), "unsupported_format"),
        (b"8BPS\0\1" + bytes(100), "unsupported_format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_format"),
        (b"\n", "not_an_image"),
        (bytes(1000), "not_an_image"),
    ],
)
def test_more_files_that_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(CodecError) as caught:
        decode(data)
    assert caught.value.reason == reason


def test_the_reasons_that_withhold() -> None:
    assert {"animated", "too_large", "unsupported_format"} == WITHHELD


def test_an_error_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(CodecError("corrupt", "it is broken")))
    assert (error.reason, str(error)) == ("corrupt", "it is broken")


def test_a_picture_is_measured_before_it_is_decoded() -> None:
    data = save(SMALL, "PNG")
    assert decode(data, max_pixels=96 * 64).width == 96
    with pytest.raises(CodecError, match="96 × 64") as caught:
        decode(data, max_pixels=96 * 64 - 1)
    assert caught.value.reason == "too_large"


@pytest.mark.filterwarnings("error")
def test_a_huge_picture_is_decoded_without_a_warning() -> None:
    decoded = decode(huge_jpeg())
    assert decoded.pixels.shape == (9_000, 12_000, 3)
    assert difference(decoded.pixels[512:1024, 512:1024], astronaut()) < 3


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("PPM", {}),
        ("JPEG2000", {}),
    ],
)
def test_lossless_formats_decode_exactly(kind: str, options: dict[str, object]) -> None:
    decoded = decode(save(FACE, kind, **options))
    assert decoded.format == kind
    assert np.array_equal(decoded.pixels, astronaut())
    assert decoded.alpha is None


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_orientation_is_applied_as_pillow_applies_it(kind: str, orientation: int) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    data = save(SMALL, kind, exif=sideways_exif(orientation), **options)
    expected = ImageOps.exif_transpose(opened(data)).convert("RGB")
    decoded = decode(data)
    assert np.array_equal(decoded.pixels, np.asarray(expected))
    assert (decoded.width, decoded.height) == expected.size == (SMALL.size if orientation < 5 else SMALL.size[::-1])


def test_orientation_turns_transparency_too_and_is_not_applied_twice() -> None:
    source = SMALL.copy()
    source.putalpha(SMALL.convert("L"))
    decoded = decode(save(source, "PNG", exif=sideways_exif(6)))
    assert decoded.alpha is not None
    assert np.array_equal(decoded.alpha, np.asarray(SMALL.convert("L").transpose(Image.Transpose.ROTATE_270)))
    data, _ = encode(decoded.pixels, decoded)
    assert not opened(data).getexif()
    again = decode(data)
    assert np.array_equal(again.pixels, decoded.pixels)
    assert again.alpha is not None
    assert np.array_equal(again.alpha, decoded.alpha)


def test_broken_exif_is_no_orientation() -> None:
    decoded = decode(save(SMALL, "JPEG", exif=b"Exif\0\0 this is not EXIF"))
    assert decoded.orientation == 1


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (FACE.convert("1"), "PNG"),
        (FACE.convert("L"), "PNG"),
        (FACE.convert("LA"), "PNG"),
        (Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"),
        (Image.fromarray(GREY.astype(np.uint16) * 257), "TIFF"),
        (Image.fromarray(GREY.astype(np.int32) * 1_000_000), "TIFF"),
        (Image.fromarray(GREY.astype(np.float32) / 255), "TIFF"),
        (Image.fromarray(GREY.astype(np.float32)), "TIFF"),
        (Image.fromarray(GREY.astype(np.float32) * 40 - 5000), "TIFF"),
        (FACE.convert("L"), "JPEG"),
    ],
)
def test_grey_sources_are_scaled_not_clipped_and_stay_grey(image: Image.Image, kind: str) -> None:
    decoded = decode(save(image, kind))
    assert decoded.grey
    expected = np.asarray(image.convert("L")) if image.mode == "1" else GREY
    assert np.abs(decoded.pixels.astype(int) - expected[..., None]).max() <= (0 if kind != "JPEG" else 60)
    assert difference(decoded.pixels, np.repeat(expected[..., None], 3, 2)) < 3
    data, written = encode(decoded.pixels, decoded)
    assert written == kind
    assert opened(data).mode == {"LA": "LA", "I;16": "I;16"}.get(image.mode, "L")
    assert difference(decode(data).pixels, decoded.pixels) < 0.5


@pytest.mark.parametrize("bits", [9, 10, 12])
def test_a_sensor_of_few_bits_in_sixteen_is_not_black(bits: int) -> None:
    values = np.rint(GREY.astype(float) / GREY.max() * (2**bits - 1)).astype(np.uint16)
    decoded = decode(save(Image.fromarray(values), "PNG"))
    assert np.abs(decoded.pixels[..., 0] - GREY.astype(float) * 255 / GREY.max()).max() <= 1


def test_colour_of_sixteen_bits() -> None:
    decoded = decode(sixteen_bit_rgb())
    assert np.array_equal(decoded.pixels, astronaut())


@pytest.mark.parametrize(
    ("image", "kind", "tolerance"),
    [
        (FACE.convert("P", palette=Image.Palette.ADAPTIVE), "PNG", 8),
        (FACE.convert("P", palette=Image.Palette.ADAPTIVE), "GIF", 8),
        (FACE.convert("CMYK"), "JPEG", 3),
        (FACE.convert("CMYK"), "TIFF", 1),
        (
            ImageCms.applyTransform(
                FACE, ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
            ),
            "TIFF",
            2,
        ),
    ],
)
def test_colour_spaces_become_rgb(image: Image.Image, kind: str, tolerance: float) -> None:
    decoded = decode(save(image, kind))
    assert not decoded.grey
    assert difference(decoded.pixels, astronaut()) < tolerance
    data, written = encode(decoded.pixels, decoded)
    assert written == ("PNG" if kind == "GIF" else kind)
    assert opened(data).mode == "RGB"


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {}), ("AVIF", {"quality": 95})]
)
def test_a_face_under_full_transparency_is_seen(kind: str, options: dict[str, object]) -> None:
    hidden = np.dstack([astronaut(), np.zeros((512, 512), np.uint8)])
    decoded = decode(save(Image.fromarray(hidden), kind, **options))
    assert decoded.alpha is not None
    assert not decoded.alpha.any()
    assert difference(decoded.pixels, astronaut()) < 3


def test_palette_and_key_colour_transparency() -> None:
    palette = SMALL.convert("P", palette=Image.Palette.ADAPTIVE)
    index = int(np.asarray(palette)[0, 0])
    for data in (save(palette, "PNG", transparency=index), save(palette, "GIF", transparency=index)):
        decoded = decode(data)
        assert decoded.alpha is not None
        assert np.array_equal(decoded.alpha == 0, np.asarray(palette) == index)
        assert np.array_equal(decoded.pixels, np.asarray(palette.convert("RGB")))
    red, green, blue = (int(v) for v in np.asarray(SMALL)[0, 0])
    decoded = decode(save(SMALL, "PNG", transparency=(red, green, blue)))
    assert decoded.alpha is not None
    assert np.array_equal(decoded.alpha == 0, (np.asarray(SMALL) == (red, green, blue)).all(-1))
    deep = np.asarray(SMALL.convert("L")).astype(np.uint16) * 257
    decoded = decode(save(Image.fromarray(deep), "PNG", transparency=int(deep[0, 0])))
    assert decoded.alpha is not None
    assert np.array_equal(decoded.alpha == 0, deep == deep[0, 0])


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparency_is_kept(kind: str, mode: str) -> None:
    source = FACE.convert(mode)
    source.putalpha(Image.fromarray(GREY))
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    decoded = decode(save(source, kind, **options))
    data, written = encode(decoded.pixels, decoded)
    again = decode(data)
    assert written == kind
    assert again.alpha is not None
    assert np.array_equal(again.alpha, GREY)
    assert np.array_equal(again.pixels, decoded.pixels)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("quality", [60, 92])
def test_a_jpeg_keeps_its_tables_and_sampling(quality: int, subsampling: int, progressive: bool) -> None:
    source = save(FACE, "JPEG", quality=quality, subsampling=subsampling, progressive=progressive)
    decoded = decode(source)
    changed = decoded.pixels.copy()
    changed[100:200, 150:250] = 128
    data, written = encode(changed, decoded)
    before, after = opened(source), opened(data)
    assert written == after.format == "JPEG"
    assert after.quantization == before.quantization
    assert after.layer == before.layer
    assert ("progressive" in after.info) == progressive
    again = decode(data).pixels
    untouched = np.ones((512, 512), bool)
    untouched[80:220, 130:270] = False
    # Twice through the same tables: the loss is that of rounding, far from a second compression's.
    assert psnr(again[untouched], decoded.pixels[untouched]) > 40
    assert psnr(again[110:190, 160:240], changed[110:190, 160:240]) > 40


@pytest.mark.parametrize("subsampling", [0, 2])
def test_a_sideways_jpeg_keeps_its_tables_turned(subsampling: int) -> None:
    lopsided = [[1 + 3 * x for _ in range(8) for x in range(8)]] * 2  # columns are coarser than rows
    decoded = decode(save(FACE, "JPEG", qtables=lopsided, subsampling=subsampling, exif=sideways_exif(6)))
    data, _ = encode(decoded.pixels, decoded)
    after = opened(data)
    assert after.quantization[0] == [1 + 3 * y for y in range(8) for _ in range(8)]
    assert {0: (1, 1), 2: (2, 2)}[subsampling] == after.layer[0][1:3]
    assert psnr(decode(data).pixels, decoded.pixels) > 40


def test_an_rgb_jpeg_and_tables_in_any_slot() -> None:
    decoded = decode(save(FACE, "JPEG", qtables=[[2] * 64, [3] * 64, [4] * 64], keep_rgb=True, subsampling=0))
    data, _ = encode(decoded.pixels, decoded)
    after = opened(data)
    assert [layer[0] for layer in after.layer] == list(b"RGB")
    assert [after.quantization[layer[3]][0] for layer in after.layer] == [2, 3, 4]
    assert psnr(decode(data).pixels, decoded.pixels) > 50


def test_a_lossy_webp_stays_lossy_and_a_lossless_one_lossless() -> None:
    for lossless in (False, True):
        decoded = decode(save(FACE, "WEBP", lossless=lossless, icc_profile=profile()))
        data, written = encode(decoded.pixels, decoded)
        assert written == "WEBP"
        assert (b"VP8L" in data) == lossless == decoded.lossless
        assert np.array_equal(decode(data).pixels, decoded.pixels) == lossless


@pytest.mark.parametrize(
    ("image", "kind", "space", "kept"),
    [
        (FACE, "JPEG", b"RGB ", True),
        (FACE, "PNG", b"RGB ", True),
        (FACE, "WEBP", b"RGB ", True),
        (FACE, "TIFF", b"RGB ", True),
        (FACE.convert("L"), "JPEG", b"GRAY", True),
        (FACE.convert("L"), "PNG", b"GRAY", True),
        (FACE.convert("L"), "PNG", b"RGB ", False),
        (FACE.convert("CMYK"), "JPEG", b"CMYK", False),
    ],
)
def test_a_colour_profile_stays_where_it_fits(image: Image.Image, kind: str, space: bytes, kept: bool) -> None:
    icc = profile(space)
    decoded = decode(save(image, kind, icc_profile=icc))
    assert decoded.icc == icc
    data, _ = encode(decoded.pixels, decoded)
    assert opened(data).info.get("icc_profile") == (icc if kept else None)


def test_other_colour_chunks_of_a_png_stay() -> None:
    png = save(FACE, "PNG")
    colour = png_chunk(b"gAMA", struct.pack(">I", 100_000)) + png_chunk(b"cICP", b"\x09\x10\0\1")
    decoded = decode(png[:33] + colour + png[33:])
    data, _ = encode(decoded.pixels, decoded)
    assert opened(data).info["gamma"] == 1.0
    assert png_chunk(b"cICP", b"\x09\x10\0\1") in data


@pytest.mark.parametrize("name", sorted(told_images(SMALL)))
def test_nothing_of_the_sources_metadata_is_written_but_the_label(name: str) -> None:
    source = told_images(SMALL, 6)[name]
    assert source.count(SECRET) > (0 if name in ("told.bmp", "told.jp2", "told.ppm", "told.tif") else 1)
    decoded = decode(source)
    for synthetic in (True, False):
        data, kind = encode(decoded.pixels, decoded, xmp=XMP if synthetic else None)
        assert SECRET not in data
        assert SECRET[:6] not in data
        image = opened(data)
        image.load()
        assert not set(image.getexif()) - ({*DESCRIBING, XMP_TAG} if kind == "TIFF" else set())
        assert "comment" not in image.info
        known = {"icc_profile", "jfif", "jfif_version", "jfif_unit", "jfif_density", "loop", "background", "timestamp", "duration"}
        known |= {"compression", "dpi", "resolution"} if kind == "TIFF" else set()
        label_keys = {"xmp", "XML:com.adobe.xmp"} if kind == "PNG" else {"xmp"}
        assert set(image.info) - known == (label_keys if synthetic else set())
        if synthetic:
            label = b"http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
            assert label in image.info["xmp"]
            assert data.count(label) == 1


def test_the_label_is_xmp() -> None:
    decoded = decode(save(SMALL, "JPEG"))
    packet = ElementTree.fromstring(opened(encode(decoded.pixels, decoded)[0]).info["xmp"].decode())
    path = "{*}RDF/{*}Description/{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"
    assert packet.findtext(path) == "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"


def test_pixels_of_another_size_or_type_are_a_mistake_of_the_caller() -> None:
    decoded = decode(save(SMALL, "PNG"))
    for pixels in (decoded.pixels[:-1], decoded.pixels.astype(np.float32), decoded.pixels[..., 0]):
        with pytest.raises(ValueError, match="wanted uint8"):
            encode(pixels, decoded)


FUZZED = [data for _, data in sorted(told_images(SMALL, 6).items())] + [
    save(SMALL, "JPEG", progressive=True),
    save(SMALL.convert("P"), "GIF"),
]


@given(
    data=st.sampled_from(FUZZED),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), max_size=12),
    early=st.booleans(),
    keep=st.floats(0, 1),
)
@settings(max_examples=300, deadline=None)
def test_broken_bytes_raise_codec_errors_only(data: bytes, flips: list[tuple[float, int]], early: bool, keep: float) -> None:
    mutated = bytearray(data)
    for at, bit in flips:  # most of what can go wrong is in the first bytes
        mutated[int(at * (200 if early else len(mutated)))] ^= 1 << bit
    try:
        result = decode(bytes(mutated[: int(keep * len(mutated)) + 1]), max_pixels=1_000_000)
    except CodecError:
        return
    assert isinstance(result, Decoded)
    assert result.pixels.shape == (result.height, result.width, 3)
    encode(result.pixels, result)


def test_a_progressive_jpeg_with_the_finest_tables_is_written() -> None:
    """Pillow's buffer is too small for it."""
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    coarse = io.BytesIO()
    Image.fromarray(noise).save(coarse, "JPEG", quality=50, progressive=True, subsampling=0)
    source = decode(coarse.getvalue())
    assert source.jpeg is not None
    finest = dataclasses.replace(source, jpeg=dataclasses.replace(source.jpeg, tables=((1,) * 64, (1,) * 64)))
    data, kind = encode(noise, finest)
    assert kind == "JPEG"
    assert np.abs(decode(data).pixels.astype(int) - noise).mean() < 1
