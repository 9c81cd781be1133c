"""Bad files at scale: whatever the bytes are, there is a picture or a reason, soon and in little memory."""

from __future__ import annotations

import resource
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pytest
from bad_images import SECRET, jpeg_segment, png_chunk, riff_chunk, save
from mutants import mutants, seeds
from PIL import Image

from mfmc_ray.bombs import PIECES, SCANS, bomb
from mfmc_ray.codec import CodecError, decode, encode
from mfmc_ray.scrub import scrub

REASONS = {"empty", "not_an_image", "truncated", "corrupt", "animated", "too_large", "unsupported_format"}
T = TypeVar("T")
SEEDS = seeds()
SMALL = Image.new("RGB", (40, 30), "navy")
MOST = 4_000_000
"""Pixels; so that a lie about the size costs no time here."""


def reason_or(made: Callable[[bytes, int], T], data: bytes) -> T | str:
    try:
        return made(data, MOST)
    except CodecError as error:
        return error.reason


def test_of_each_of_many_mutated_files_there_is_a_picture_or_a_reason() -> None:
    outcomes: Counter[str] = Counter()
    for name, data in mutants(1_500):
        picture = reason_or(decode, data)
        if isinstance(picture, str):
            outcomes[picture] += 1
            continue
        assert picture.pixels.shape == (picture.height, picture.width, 3), name
        assert decode(encode(picture.pixels, picture)[0]).pixels.shape == picture.pixels.shape, name
        out = reason_or(scrub, data)
        if isinstance(out, str):
            outcomes[f"scrub: {out}"] += 1
            continue
        outcomes["published"] += 1
        assert np.array_equal(decode(out).pixels, picture.pixels), name
        assert scrub(out) == out, name  # nothing is left to cut
    assert sum(outcomes.values()) == 1_500
    assert {reason.removeprefix("scrub: ") for reason in outcomes} <= REASONS | {"published"}
    assert min(outcomes[reason] for reason in ("published", "corrupt", "truncated", "animated", "too_large")) >= 20, outcomes


@pytest.mark.parametrize("name", sorted(SEEDS))
def test_another_file_after_a_picture_is_not_published(name: str) -> None:
    for other in ("told.jpg", "told.png", "told.gif", "told.bmp"):
        try:
            out = scrub(SEEDS[name] + SEEDS[other])
        except CodecError:
            continue
        assert SECRET not in out
        assert SEEDS[other][:12] not in out[12:]


def with_png_chunks(count: int, kind: bytes, body: bytes = b"") -> bytes:
    png = save(SMALL, "PNG")
    at = png.index(b"IDAT") - 4
    return png[:at] + png_chunk(kind, body) * count + png[at:]


def with_riff_chunks(count: int) -> bytes:
    webp = save(SMALL, "WEBP") + riff_chunk(b"UNKN", b"") * count
    return b"RIFF" + struct.pack("<I", len(webp) - 8) + webp[8:]


def with_segments(count: int) -> bytes:
    jpeg = save(SMALL, "JPEG")
    return jpeg[:2] + jpeg_segment(0xFE, b"") * count + jpeg[2:]


def with_comments(count: int) -> bytes:
    gif = save(SMALL.convert("P"), "GIF")
    at = 13 + 3 * (2 << (gif[10] & 7))
    return gif[:at] + b"!\xfe\x01x\0" * count + gif[at:]


def with_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan comes over and over."""
    jpeg = save(SMALL, "JPEG", progressive=True)
    return jpeg[:-2] + jpeg[jpeg.rindex(b"\xff\xda") : -2] * count + b"\xff\xd9"


BOMBS = {
    "chunks.png": lambda: with_png_chunks(PIECES, b"prVt"),
    "notes.png": lambda: with_png_chunks(PIECES, b"tEXt", b"a\0b"),
    "data.png": lambda: with_png_chunks(PIECES, b"IDAT"),
    "chunks.webp": lambda: with_riff_chunks(PIECES),
    "segments.jpg": lambda: with_segments(PIECES),
    "comments.gif": lambda: with_comments(PIECES + 200),
    "scans.jpg": lambda: with_scans(SCANS),
}


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_a_file_of_far_too_many_pieces_is_not_decoded(name: str) -> None:
    with pytest.raises(CodecError, match="a bomb: ") as caught:
        decode(BOMBS[name]())
    assert caught.value.reason == "too_large"


@pytest.mark.parametrize(
    "data", [with_png_chunks(2000, b"tEXt", b"a\0b"), with_riff_chunks(2000), with_segments(2000), with_comments(2000), with_scans(100)]
)
def test_a_file_of_many_pieces_is_decoded(data: bytes) -> None:
    assert decode(data).width == 40


def test_what_looks_like_scans_in_a_film_after_the_picture_does_not_count() -> None:
    jpeg = save(SMALL, "JPEG", progressive=True)
    assert bomb(jpeg + b"\xff\xda\0\x02" * 1000) is None
    assert bomb(jpeg[:2] + jpeg_segment(0xE1, b"\xff\xda\0\x02" * 1000) + jpeg[2:]) is None


def lying_jpeg() -> bytes:
    jpeg = bytearray(save(SMALL, "JPEG"))
    struct.pack_into(">HH", jpeg, jpeg.index(b"\xff\xc0") + 5, 65_500, 65_500)
    return bytes(jpeg)


def lying_j2k() -> bytes:
    stream = bytearray(save(SMALL, "JPEG2000", no_jp2=True))
    at = stream.index(b"\xff\x51")
    struct.pack_into(">II", stream, at + 6, 13_000, 13_000)
    struct.pack_into(">II", stream, at + 22, 1, 1)  # tiles of one pixel
    return bytes(stream)


@pytest.mark.parametrize(
    "data",
    [
        with_png_chunks(1, b"iCCP", b"x\0\0" + zlib.compress(bytes(200 << 20))),
        with_png_chunks(1, b"zTXt", b"x\0\0" + zlib.compress(bytes(200 << 20))),
        with_png_chunks(100, b"zTXt", b"x\0\0" + zlib.compress(bytes(1 << 20))),
        lying_jpeg(),
        lying_j2k(),
        b"P6 2147483647 1 255\n",
        b"P6 13000 13000 255\n",
        b"P6 " + b"9" * 1_000_000,
        save(SMALL, "BMP")[:18] + struct.pack("<ii", 2**31 - 1, 1) + save(SMALL, "BMP")[26:],
        save(SMALL, "GIF")[:6] + b"\xff\xff\xff\xff" + save(SMALL, "GIF")[10:],
    ],
    ids=["profile", "note", "notes", "jpeg", "tiles", "one row", "no pixels", "digits", "bmp", "gif"],
)
def test_a_small_file_that_says_it_is_huge_is_refused_in_little_memory(data: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CodecError):
        decode(data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB
