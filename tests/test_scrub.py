"""Scrubbing: metadata goes, pixels stay, and what cannot be followed is refused."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from bad_images import (
    SECRET,
    bad_images,
    jpeg_segment,
    png_chunk,
    profile,
    riff_chunk,
    save,
    sideways_exif,
    telling_exif,
    told_images,
)
from hypothesis import given, settings
from mutants import damaged
from PIL import Image, ImageOps
from skimage.data import astronaut

from mfmc_ray.codec import CodecError, decode
from mfmc_ray.scrub import scrub
from mfmc_ray.tiff import DESCRIBING

FACE = Image.fromarray(astronaut())
SMALL = FACE.crop((170, 60, 170 + 96, 60 + 65))
TOLD = told_images(SMALL)
BAD = bad_images()
JPEG, PNG, WEBP, GIF = save(SMALL, "JPEG"), save(SMALL, "PNG"), save(SMALL, "WEBP"), save(SMALL, "GIF")


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def kinds(data: bytes) -> set[bytes]:
    """The kinds of a PNG's chunks, and b"rest" for whatever follows IEND."""
    found, at = set(), 8
    while b"IEND" not in found:
        length, kind = struct.unpack_from(">I4s", data, at)
        found.add(kind)
        at += 12 + length
    return found | ({b"rest"} if at < len(data) else set())


def transparent() -> Image.Image:
    image = SMALL.copy()
    image.putalpha(SMALL.convert("L"))
    return image


def interlaced(picture: Image.Image) -> bytes:
    """Pillow writes no interlaced PNG."""
    pixels = np.asarray(picture)
    lines = b""
    for x, y, dx, dy in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)):
        lines += b"".join(b"\0" + row.tobytes() for row in pixels[y::dy, x::dx])
    header = struct.pack(">IIBBBBB", *picture.size, 8, 2, 0, 0, 1)
    return PNG[:8] + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(lines)) + png_chunk(b"IEND", b"")


def clean_files() -> dict[str, bytes]:
    grey, icc = SMALL.convert("L"), profile()
    palette = SMALL.convert("P", palette=Image.Palette.ADAPTIVE)
    colour = png_chunk(b"gAMA", struct.pack(">I", 45_455)) + png_chunk(b"cHRM", bytes(32)) + png_chunk(b"sRGB", b"\0")
    return {
        "baseline.jpg": JPEG,
        "progressive.jpg": save(SMALL, "JPEG", progressive=True),
        "optimised.jpg": save(SMALL, "JPEG", optimize=True, subsampling=0),
        "restarts.jpg": save(SMALL, "JPEG", restart_marker_blocks=3),
        "grey.jpg": save(grey, "JPEG"),
        "cmyk.jpg": save(SMALL.convert("CMYK"), "JPEG"),
        "rgb.jpg": save(SMALL, "JPEG", keep_rgb=True),
        "profile.jpg": save(SMALL, "JPEG", icc_profile=icc, dpi=(300, 300)),
        "profile_in_parts.jpg": save(SMALL, "JPEG", icc_profile=struct.pack(">I", 150_000) + icc[4:] + bytes(150_000 - len(icc))),
        "turned.jpg": save(SMALL, "JPEG", exif=sideways_exif(6)),
        "filled.jpg": JPEG[:20] + b"\xff\xff" + JPEG[20:],
        "rgb.png": PNG,
        "interlaced.png": interlaced(SMALL),
        "bits.png": save(SMALL.convert("1"), "PNG"),
        "grey.png": save(grey, "PNG"),
        "sixteen_bit.png": BAD["sixteen_bit.png"],
        "alpha.png": save(transparent(), "PNG"),
        "palette.png": save(palette, "PNG", transparency=3, bits=8),
        "key.png": save(SMALL, "PNG", transparency=(1, 2, 3)),
        "profile.png": save(SMALL, "PNG", icc_profile=icc, dpi=(300, 300)),
        "colour.png": PNG[:33] + colour + PNG[33:],
        "one_pixel.png": BAD["one_pixel.png"],
        "lossy.webp": WEBP,
        "lossless.webp": save(SMALL, "WEBP", lossless=True),
        "alpha.webp": save(transparent(), "WEBP"),
        "profile.webp": save(SMALL, "WEBP", icc_profile=icc),
        "89.gif": GIF,
        "transparent.gif": save(palette, "GIF", transparency=3),
        "interlaced.gif": save(grey, "GIF", interlace=True),
        "rgb.bmp": save(SMALL, "BMP"),
        "palette.bmp": save(palette, "BMP"),
        "bits.bmp": save(SMALL.convert("1"), "BMP"),
    }


CLEAN = clean_files()


@pytest.mark.parametrize("name", sorted(CLEAN))
def test_a_file_without_metadata_is_returned_as_it_is(name: str) -> None:
    assert scrub(CLEAN[name]) == CLEAN[name]


@pytest.mark.parametrize("name", sorted(TOLD))
def test_metadata_goes_and_pixels_stay(name: str) -> None:
    before = decode(TOLD[name])
    out = scrub(TOLD[name])
    after = decode(out)
    assert SECRET not in out
    assert SECRET[:6] not in out
    assert len(out) < len(TOLD[name]) or after.format != before.format
    assert np.array_equal(after.pixels, before.pixels)
    assert after.icc == before.icc
    assert scrub(out) == out
    image = opened(out)
    assert not set(image.getexif()) - (DESCRIBING if image.format == "TIFF" else set())
    assert "xmp" not in image.info
    assert "comment" not in image.info


@pytest.mark.filterwarnings("ignore:Image appears to be a malformed MPO")  # its index is the secret
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["told.jpg", "told.png", "told.webp", "told.avif"])
def test_only_an_orientation_is_left_of_exif(name: str, orientation: int) -> None:
    source = told_images(SMALL, orientation)[name]
    out = scrub(source)
    assert SECRET not in out
    image = opened(out)
    assert dict(image.getexif()) == ({0x0112: orientation} if orientation > 1 and name != "told.avif" else {})
    assert len(image.info.get("exif", b"")) <= 32
    shown = ImageOps.exif_transpose(image).convert("RGB")
    assert np.array_equal(np.asarray(shown), np.asarray(ImageOps.exif_transpose(opened(source)).convert("RGB")))
    assert np.array_equal(decode(out).pixels, decode(source).pixels)
    assert scrub(out) == out


def bmp_with_gap() -> bytes:
    data = save(SMALL, "BMP")
    return data[:10] + struct.pack("<I", 54 + len(SECRET)) + data[14:54] + SECRET + data[54:]


def test_a_bmp_of_another_layout_becomes_a_png() -> None:
    for data in (bmp_with_gap(), save(SMALL.convert("RGBA"), "BMP")):
        out = scrub(data)
        assert SECRET not in out
        assert decode(out).format == "PNG"
        assert np.array_equal(decode(out).pixels, np.asarray(SMALL))


SCAN = JPEG.index(b"\xff\xda")
DATA = PNG.index(b"IDAT") - 4
PIXELS = zlib.decompress(PNG[DATA + 8 : -16])
APNG = save(SMALL, "PNG", save_all=True, append_images=[ImageOps.mirror(SMALL)])
ONE_FRAME = riff_chunk(b"ANMF", bytes(6) + struct.pack("<I", 95)[:3] + struct.pack("<I", 64)[:3] + bytes(4) + WEBP[12:])
ANIMATION = (
    riff_chunk(b"VP8X", b"\2\0\0\0" + struct.pack("<I", 95)[:3] + struct.pack("<I", 64)[:3]) + riff_chunk(b"ANIM", bytes(6)) + ONE_FRAME
)


def with_data(deflated: bytes) -> bytes:
    return PNG[:DATA] + png_chunk(b"IDAT", deflated) + PNG[-12:]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (BAD["empty.jpg"], "empty"),
        (BAD["text.jpg"], "not_an_image"),
        (BAD["truncated.jpg"], "truncated"),
        (BAD["truncated.png"], "truncated"),
        (BAD["corrupt.jpg"], "corrupt"),
        (BAD["animated.gif"], "animated"),
        (BAD["animated.webp"], "animated"),
        (BAD["bomb.png"], "too_large"),
        (APNG, "animated"),
        (b"RIFF" + struct.pack("<I", 4 + len(ANIMATION)) + b"WEBP" + ANIMATION, "animated"),
        # Pillow reads the rest; nobody knows what is in them
        (JPEG[:SCAN] + SECRET + JPEG[SCAN:], "corrupt"),
        (JPEG[:SCAN] + jpeg_segment(0xDD, b"\0\0" + SECRET) + JPEG[SCAN:], "corrupt"),
        (JPEG[:SCAN] + jpeg_segment(0xC4, b"\x13" + bytes(16) + SECRET) + JPEG[SCAN:], "corrupt"),
        (JPEG[:SCAN] + b"\xff\xd0" + JPEG[SCAN:], "corrupt"),
        (with_data(zlib.compress(PIXELS) + SECRET), "corrupt"),
        (with_data(zlib.compress(PIXELS + SECRET)), "corrupt"),
        (PNG[:DATA] + png_chunk(b"SECR", SECRET) + PNG[DATA:], "corrupt"),
        (PNG[:-12] + png_chunk(b"tEXt", SECRET) + png_chunk(b"IDAT", SECRET) + PNG[-12:], "corrupt"),
        (PNG[:-12] + png_chunk(b"IEND", SECRET), "corrupt"),
        (GIF[:-1], "corrupt"),
        (GIF[:-1] + SECRET + b";", "corrupt"),
        (WEBP[:4] + struct.pack("<I", len(WEBP) - 8 + 8) + WEBP[8:] + b"VP8 " + bytes(4), "corrupt"),
        (b"P6 1 1 65535\n" + bytes(6), "unsupported_format"),
    ],
)
def test_what_cannot_be_followed_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(CodecError) as caught:
        scrub(data)
    assert caught.value.reason == reason


def test_a_colour_profile_that_is_none_is_cut() -> None:
    name = b"icc\0\0" + zlib.compress(SECRET)
    for data in (
        save(SMALL, "JPEG", icc_profile=SECRET * 10),
        save(SMALL, "WEBP", icc_profile=SECRET * 10),
        PNG[:33] + png_chunk(b"iCCP", name) + PNG[33:],
        PNG[:33] + png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(profile()) + SECRET) + PNG[33:],
    ):
        out = scrub(data)
        assert SECRET not in out
        assert opened(out).info.get("icc_profile") is None
        assert np.array_equal(decode(out).pixels, decode(data).pixels)


def test_only_known_chunks_are_left_of_a_png() -> None:
    assert kinds(TOLD["told.png"]) >= {b"tEXt", b"eXIf", b"prVt", b"rest"}
    assert kinds(scrub(TOLD["told.png"])) == {b"IHDR", b"iCCP", b"IDAT", b"IEND"}


def test_known_chunks_are_left_only_once_and_in_their_place() -> None:
    gamma = png_chunk(b"gAMA", struct.pack(">I", 45_455))
    assert scrub(PNG[:33] + gamma + gamma + PNG[33:-12] + gamma + PNG[-12:]) == PNG[:33] + gamma + PNG[33:]
    assert scrub(PNG[:33] + png_chunk(b"pHYs", bytes(9) + SECRET) + PNG[33:]) == PNG


def test_the_flags_of_a_webp_say_what_is_left() -> None:
    assert opened(TOLD["told.webp"]).info.keys() >= {"exif", "xmp", "icc_profile"}
    assert TOLD["told.webp"][20] == 0x2C
    assert scrub(TOLD["told.webp"])[20] == 0x20
    assert scrub(told_images(SMALL, 6)["told.webp"])[20] == 0x28
    assert scrub(save(transparent(), "WEBP", xmp=SECRET))[20] == 0x10


def test_a_short_comment_is_not_taken_for_a_gifs_control_block() -> None:
    table = 13 + 3 * (2 << (GIF[10] & 7))
    assert scrub(GIF[:table] + b"!\xfe\4FACE\0" + GIF[table:]) == GIF


def test_an_orientation_that_only_xmp_knows_is_kept() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6">' + SECRET + b"</x:xmpmeta>"
    source = save(SMALL, "JPEG", xmp=xmp)
    out = scrub(source)
    assert SECRET not in out
    assert opened(out).getexif()[0x0112] == 6
    assert np.array_equal(decode(out).pixels, np.asarray(ImageOps.exif_transpose(opened(source))))


def test_the_second_picture_of_a_phone_is_cut_off() -> None:
    second = ImageOps.mirror(SMALL)
    source = save(SMALL, "MPO", save_all=True, append_images=[second], exif=telling_exif(3))
    assert opened(source).n_frames == 2
    decoded = decode(source)
    assert decoded.format == "JPEG"
    out = scrub(source)
    assert out.count(b"\xff\xd8\xff") == 1
    assert opened(out).format == "JPEG"
    assert np.array_equal(decode(out).pixels, decoded.pixels)


def test_a_cropped_screenshot_does_not_keep_what_was_cropped() -> None:
    """CVE-2023-21036: the old file's end stays behind the new one's."""
    old = save(FACE, "PNG")
    new = save(SMALL, "PNG")
    assert scrub(new + old[len(new) :]) == new


@pytest.mark.parametrize("folder", ["no_faces", "official_portraits", "scenes"])
def test_photos_as_they_come(shared_data: Path, folder: str) -> None:
    files = sorted(path for path in (shared_data / folder).rglob("*") if path.suffix in (".jpg", ".jpeg", ".png"))[:30]
    assert files
    for path in files:
        data = path.read_bytes()
        out = scrub(data)
        assert len(out) <= len(data)
        assert np.array_equal(decode(out).pixels, decode(data).pixels), path.name


FUZZED = [*(data for _, data in sorted(told_images(SMALL, 6).items())), *(CLEAN[name] for name in sorted(CLEAN))]


@given(damaged(FUZZED, 200, 8))  # most of what can go wrong is in the first bytes
@settings(max_examples=300, deadline=None)
def test_broken_bytes_raise_codec_errors_only(mutated: tuple[bytes, bool]) -> None:
    broken, _ = mutated
    try:
        out = scrub(broken, max_pixels=1_000_000)
    except CodecError:
        return
    assert np.array_equal(decode(out).pixels, decode(broken).pixels)
    assert scrub(out) == out
