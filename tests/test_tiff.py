"""TIFFs: metadata is cut out around the coded pixels; what is not followed is written anew without loss, or refused."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from bad_images import SECRET, profile, save, sideways_exif, telling_exif
from hypothesis import given, settings
from hypothesis import strategies as st
from mutants import damaged
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin
from skimage.data import astronaut

from mfmc_ray import tiff
from mfmc_ray.codec import CodecError, decode, encode
from mfmc_ray.label import LABELS, XMP
from mfmc_ray.pipeline.inspection import MetadataCheck
from mfmc_ray.scrub import scrub

FACE = Image.fromarray(astronaut())
ICC = profile()  # once: it holds its time
SMALL = FACE.crop((170, 60, 170 + 96, 60 + 65))
RGB = np.asarray(SMALL)
DEEP = RGB.astype(np.uint16) * 251 + 7
GREY = np.asarray(SMALL.convert("L"))


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def made(pixels: NDArray[Any], **options: Any) -> bytes:
    """A file of tifffile's, with nothing but what describes the pixels."""
    out = io.BytesIO()
    big = {name: options.pop(name) for name in ("bigtiff", "byteorder") if name in options}
    with tifffile.TiffWriter(out, **big) as writer:
        writer.write(pixels, metadata=None, software="", description=None, **options)
    return out.getvalue()


def told(pixels: NDArray[Any], **options: Any) -> bytes:
    """The same with SECRET in EXIF, GPS, XMP, IPTC, Photoshop's resources, private tags, a preview in a sub-directory and at the end."""
    out = io.BytesIO()
    big = {name: options.pop(name) for name in ("bigtiff", "byteorder") if name in options}
    tags = [(tag, 7, len(SECRET), SECRET, True) for tag in (33723, 34377, 37500, 37724, 50341, 65000)]
    tags += [(tag, 2, 0, SECRET.decode(), True) for tag in (269, 271, 272, 315, 316, 333, 33432, 42112)] + [(700, 1, len(XMP), XMP, True)]
    tags += [(34675, 7, len(ICC), ICC, True)]
    with tifffile.TiffWriter(out, **big) as writer:
        writer.write(
            pixels,
            metadata=None,
            software=SECRET.decode(),
            description=SECRET.decode(),
            datetime=True,
            extratags=tags,
            subifds=1,
            **options,
        )
        # the whole face, as it is, and words in its own directory
        writer.write(pixels, metadata=None, subfiletype=1, description=SECRET.decode())
    return out.getvalue() + SECRET


KINDS: dict[str, tuple[NDArray[Any], dict[str, Any]]] = {
    "strips": (RGB, {"photometric": "rgb", "rowsperstrip": 7}),
    "one strip": (RGB, {"photometric": "rgb"}),
    "big-endian": (RGB, {"photometric": "rgb", "byteorder": ">"}),
    "BigTIFF": (RGB, {"photometric": "rgb", "bigtiff": True}),
    "tiles": (RGB, {"photometric": "rgb", "tile": (32, 48)}),
    "tiles, deflated": (RGB, {"photometric": "rgb", "tile": (32, 48), "compression": "zlib", "predictor": True}),
    "deflated": (RGB, {"photometric": "rgb", "compression": "zlib", "predictor": True, "rowsperstrip": 16}),
    "16 bits": (DEEP, {"photometric": "rgb"}),
    "16 bits, deflated": (DEEP, {"photometric": "rgb", "compression": "zlib", "predictor": True}),
    "grey": (GREY, {"photometric": "minisblack"}),
    "grey, white is 0": (GREY, {"photometric": "miniswhite"}),
    "16-bit grey": (DEEP[..., 1], {"photometric": "minisblack", "byteorder": ">"}),
    "floats": (GREY.astype(np.float32) / 255, {"photometric": "minisblack"}),
    "CMYK": (np.asarray(SMALL.convert("CMYK")), {"photometric": "separated"}),
    "transparent": (np.dstack([RGB, GREY]), {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    "planes": (np.ascontiguousarray(np.moveaxis(RGB, 2, 0)), {"photometric": "rgb", "planarconfig": "separate"}),
}


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_tiff_without_metadata_is_returned_as_it_is(name: str) -> None:
    pixels, options = KINDS[name]
    data = made(pixels, **options)
    assert scrub(data) == data


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits", "jpeg"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK", "P", "1", "I;16"])
def test_a_tiff_of_pillows_is_returned_as_it_is(mode: str, compression: str) -> None:
    if compression == "jpeg" and mode not in ("L", "RGB", "CMYK"):
        pytest.skip("JPEG has no such pixels")
    image = Image.fromarray(DEEP[..., 1]) if mode == "I;16" else SMALL.convert(mode)
    if mode == "RGBA":
        image.putalpha(SMALL.convert("L"))
    for orientation in (1, 6):
        data = save(image, "TIFF", compression=compression, exif=sideways_exif(orientation), icc_profile=ICC)
        assert scrub(data) == data


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (512, 512)])
def test_the_end_of_an_lzw_stream_is_found(size: tuple[int, int]) -> None:
    """Noise and photos: few and many codes between two clear codes."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8))
    for image in (noise, FACE.resize(size), Image.new("RGB", size)):
        data = save(image, "TIFF", compression="tiff_lzw")
        assert scrub(data) == data


@pytest.mark.parametrize("name", sorted(KINDS))
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_metadata_goes_and_the_coded_pixels_stay(name: str, orientation: int) -> None:
    pixels, options = KINDS[name]
    source = told(pixels, **options)
    # tifffile writes no orientation: the tag that stands for it becomes it
    order = options.get("byteorder", "<")
    with tifffile.TiffFile(io.BytesIO(source)) as file:
        tag = file.pages[0].tags["HostComputer"]
        before = file.pages[0].asarray()
        at = tag.offset
    short = struct.pack(order + "HH", 274, 3) + struct.pack(order + ("Q" if options.get("bigtiff") else "I"), 1)
    source = source[:at] + short + struct.pack(order + "H", orientation) + source[at + len(short) + 2 :]
    assert source.count(SECRET) > 10
    out = scrub(source)
    assert SECRET not in out
    assert b"xpacket" not in out
    assert len(out) < len(source) - pixels.nbytes // 20
    with tifffile.TiffFile(io.BytesIO(out)) as file:
        (page,) = file.pages
        assert np.array_equal(page.asarray(), before)
        assert page.asarray().dtype == pixels.dtype
        assert {tag.code for tag in page.tags} <= tiff.DESCRIBING
        assert page.tags[34675].value == ICC
        assert page.subifds is None
        if orientation != 1:
            assert page.tags[274].value == orientation
        assert file.byteorder == order
        assert file.is_bigtiff == options.get("bigtiff", False)
    assert np.array_equal(decode(out).pixels, decode(source).pixels)
    assert scrub(out) == out


def test_exif_gps_and_thumbnail_of_a_camera_go() -> None:
    exif = Image.Exif()
    exif.load(telling_exif(6))
    exif.get_ifd(0x8825)[29] = SECRET.decode()
    exif.get_ifd(0x8769)[0x9286] = SECRET
    source = save(SMALL, "TIFF", exif=exif)
    assert source.count(SECRET) >= 3
    out = scrub(source)
    assert SECRET not in out
    assert SECRET[:6] not in out
    assert opened(out).tag_v2[274] == 6
    assert np.array_equal(decode(out).pixels, RGB.swapaxes(0, 1)[:, ::-1])


def test_an_orientation_that_only_xmp_knows_becomes_a_tag() -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[700] = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6">' + SECRET + b"</x:xmpmeta>"
    source = save(SMALL, "TIFF", tiffinfo=tags)
    out = scrub(source)
    assert SECRET not in out
    assert opened(out).tag_v2[274] == 6
    assert np.array_equal(decode(out).pixels, decode(source).pixels)


def test_a_colour_profile_that_is_none_is_cut() -> None:
    out = scrub(save(SMALL, "TIFF", icc_profile=SECRET * 10))
    assert SECRET not in out
    assert tiff.ICC_TAG not in opened(out).tag_v2


def test_bytes_between_what_the_tags_point_to_are_cut() -> None:
    clean = made(RGB, photometric="rgb")
    assert scrub(clean + bytes(9)) == clean + bytes(9)
    assert scrub(clean + SECRET).startswith(b"II*\0")
    assert SECRET not in scrub(clean + SECRET)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "raw"])
def test_bytes_after_the_pixels_of_a_strip_are_not_kept(compression: str) -> None:
    """A strip that is longer than its pixels is not copied: the picture becomes a PNG."""
    clean = save(SMALL, "TIFF", compression=compression)
    longer = _longer_strip(clean, SECRET)
    assert np.array_equal(decode(longer).pixels, decode(clean).pixels)
    out = scrub(longer)
    assert SECRET not in out
    assert decode(out).format == "PNG"
    assert np.array_equal(decode(out).pixels, decode(clean).pixels)


def _longer_strip(data: bytes, more: bytes) -> bytes:
    """The first strip moved to the end, with more bytes after it."""
    (at,) = struct.unpack_from("<I", data, 4)
    out = bytearray(data)
    places = {struct.unpack_from("<H", data, at + 2 + 12 * n)[0]: at + 10 + 12 * n for n in range(struct.unpack_from("<H", data, at)[0])}
    start, length = (struct.unpack_from("<I", data, places[tag])[0] for tag in (273, 279))
    struct.pack_into("<I", out, places[273], len(data) + len(data) % 2)
    struct.pack_into("<I", out, places[279], length + len(more))
    return bytes(out) + bytes(len(data) % 2) + data[start : start + length] + more


def test_a_comment_within_a_jpeg_strip_is_not_kept() -> None:
    clean = save(SMALL, "TIFF", compression="jpeg")
    with tifffile.TiffFile(io.BytesIO(clean)) as file:
        start, length = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    strip = clean[start : start + length]
    comment = struct.pack(">BBH", 0xFF, 0xFE, len(SECRET) + 2) + SECRET
    padded = clean[:start] + strip[:2] + comment + strip[2:] + clean[start + length :]
    assert start + length <= len(clean)
    # everything after the strip moves: only a file that ends with its strip can be patched so
    moved = _longer_strip(padded if start + length == len(clean) else clean + bytes(len(clean) % 2), b"")
    with tifffile.TiffFile(io.BytesIO(moved)) as file:
        at = file.pages[0].dataoffsets[0]
        counts = file.pages[0].tags[279].valueoffset
    changed = bytearray(moved[:at] + strip[:2] + comment + strip[2:])
    struct.pack_into("<I", changed, counts, length + len(comment))
    assert np.array_equal(decode(bytes(changed)).pixels, decode(clean).pixels)
    out = scrub(bytes(changed))
    assert SECRET not in out
    assert np.array_equal(decode(out).pixels, decode(clean).pixels)


def test_samples_that_are_not_shown_are_not_let_through() -> None:
    hidden = np.dstack([RGB, 255 - GREY])
    for source, shown in (
        (made(hidden, photometric="rgb", extrasamples=["unspecified"]), RGB),
        (made(np.dstack([hidden, GREY]), photometric="rgb", extrasamples=["unassalpha", "unspecified"]), hidden),
    ):
        out = scrub(source)
        assert decode(out).format == "PNG"
        assert np.array_equal(np.asarray(opened(out)), shown)
    with pytest.raises(CodecError) as caught:
        scrub(made(hidden.astype(np.uint16), photometric="rgb", extrasamples=["unspecified"]))
    assert caught.value.reason == "unsupported_format"


def test_a_big_endian_bigtiff_is_cut_though_pillow_cannot_read_it() -> None:
    options = {"photometric": "rgb", "bigtiff": True, "byteorder": ">", "rowsperstrip": 9}
    clean = made(DEEP, **options)
    assert tiff.cut(clean, "RGB", 1, profile=True) == clean
    out = tiff.cut(told(DEEP, **options), "RGB", 1, profile=True)
    assert out is not None
    assert SECRET not in out
    with tifffile.TiffFile(io.BytesIO(out)) as file:
        assert np.array_equal(file.pages[0].asarray(), DEEP)
    with pytest.raises(CodecError):
        scrub(clean)


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_a_fax_becomes_a_png(compression: str) -> None:
    image = SMALL.convert("1")
    out = scrub(save(image, "TIFF", compression=compression))
    assert decode(out).format == "PNG"
    assert np.array_equal(np.asarray(opened(out)), np.asarray(image))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_pixels_are_written_and_read_back(kind: type, channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (700, 301, channels), kind)
    data = tiff.written(pixels, icc=ICC, xmp=XMP)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        (page,) = file.pages
        assert np.array_equal(np.atleast_3d(page.asarray()), pixels)
        assert page.tags[700].value == XMP
        assert page.tags[34675].value == ICC
    if (kind, channels) != (np.uint16, 2):  # Pillow does not know those
        assert opened(data).info["xmp"] == XMP
        assert opened(data).info["icc_profile"] == ICC
    if channels in (1, 3):
        seen = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(np.atleast_3d(seen)[..., ::-1], pixels)
    plain = tiff.written(pixels, icc=ICC, xmp=None)
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels] if kind == np.uint8 or channels > 1 else "I;16"
    assert tiff.cut(plain, mode, 1, profile=True) == plain
    assert tiff.cut(data, mode, 1, profile=True) == plain


SOURCES = [told(*KINDS[name][:1], **KINDS[name][1]) for name in sorted(KINDS)]
SOURCES += [save(SMALL, "TIFF", compression=kind, tiffinfo={315: SECRET.decode()}) for kind in ("tiff_lzw", "packbits", "jpeg")]


@given(damaged(SOURCES, 600, 6))
@settings(max_examples=300, deadline=None)
def test_broken_tiffs_raise_codec_errors_only(mutated: tuple[bytes, bool]) -> None:
    broken, flipped = mutated
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            out = scrub(broken, max_pixels=1_000_000)
        except CodecError:
            return
        assert np.array_equal(decode(out).pixels, decode(broken).pixels)
        assert scrub(out) == out
    if not flipped:
        assert SECRET not in out


@given(cut=st.integers(0, 40), level=st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_a_strip_is_followed_to_its_very_end(cut: int, level: int) -> None:
    raw = RGB.tobytes()
    strip = zlib.compress(raw, level)
    tiff._check_strip(strip, len(raw), 8)
    for broken in (strip + bytes(cut + 1), strip[: -cut - 1]):
        with pytest.raises(tiff._Unusual):
            tiff._check_strip(broken, len(raw), 8)


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_audit_finds_what_a_tiff_holds_beside_its_label(orientation: int) -> None:
    check = MetadataCheck()
    source = decode(save(FACE, "TIFF", exif=sideways_exif(orientation), icc_profile=ICC))
    for xmp in LABELS:
        file, _ = encode(source.pixels, source, xmp=xmp)
        assert check.fault(file, 10**6, labelled=True) is None
        assert check.fault(file, 10**6, labelled=False) is not None
        assert check.fault(file + SECRET, 10**6, labelled=True) is not None
    for data in (save(FACE, "TIFF", tiffinfo={315: SECRET.decode()}), told(RGB, photometric="rgb")):
        assert check.fault(data, 10**6, labelled=False) is not None
        assert check.fault(scrub(data), 10**6, labelled=False) is None
