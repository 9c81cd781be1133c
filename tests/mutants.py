"""Mutated image files, made in memory: a seeded mutator over small files of every format that is read."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from bad_images import SECRET, jpeg_segment, png_chunk, profile, riff_chunk, save, sideways_exif, telling_exif, told_images
from hypothesis import strategies as st
from PIL import Image
from skimage.data import astronaut

from mfmc_ray.codec import png_chunks, riff_chunks

SMALL = Image.fromarray(astronaut()[60:124, 170:250])
"""80 × 64 px of a face."""
NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


def seeds(picture: Image.Image = SMALL) -> dict[str, bytes]:
    """File name → a file of the picture, most with metadata, some with several pictures."""
    grey, other = picture.convert("L"), picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    palette = picture.convert("P", palette=Image.Palette.ADAPTIVE)
    alpha = picture.copy()
    alpha.putalpha(grey)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    several = {"save_all": True, "append_images": [other]}
    pages = save(picture.copy(), "TIFF", **several)  # before anything else: how it was saved as a JPEG clings to a picture
    pixels = " ".join(map(str, np.asarray(picture).reshape(-1))).encode()
    return {
        **told_images(picture, 6),
        "progressive.jpg": save(picture, "JPEG", progressive=True, icc_profile=profile()),
        "restarts.jpg": save(picture, "JPEG", restart_marker_blocks=3, exif=sideways_exif(3)),
        "grey.jpg": save(grey, "JPEG"),
        "cmyk.jpg": save(picture.convert("CMYK"), "JPEG"),
        "mpo.jpg": save(picture, "MPO", **several),
        "alpha.png": save(alpha, "PNG"),
        "palette.png": save(palette, "PNG", transparency=3),
        "deep.png": save(deep, "PNG"),
        "bits.png": save(picture.convert("1"), "PNG"),
        "animated.png": save(picture, "PNG", **several),
        "lossy.webp": save(picture, "WEBP"),
        "alpha.webp": save(alpha, "WEBP"),
        "animated.webp": save(picture, "WEBP", **several),
        "interlaced.gif": save(grey, "GIF", interlace=True),
        "animated.gif": save(picture, "GIF", **several),
        "palette.bmp": save(palette, "BMP"),
        "lzw.tif": save(picture, "TIFF", compression="tiff_lzw"),
        "deflate.tif": save(alpha, "TIFF", compression="tiff_deflate"),
        "jpeg.tif": save(picture, "TIFF", compression="jpeg"),
        "fax.tif": save(picture.convert("1"), "TIFF", compression="group4"),
        "deep.tif": save(deep, "TIFF"),
        "pages.tif": pages,
        "tiles.jp2": save(picture, "JPEG2000", tile_size=(32, 32)),
        "stream.j2k": save(picture, "JPEG2000", no_jp2=True, quality_layers=[20]),
        "alpha.avif": save(alpha, "AVIF", quality=60, speed=10),
        "grey.pgm": save(grey, "PPM"),
        "bits.pbm": save(picture.convert("1"), "PPM"),
        "text.ppm": b"P3 %d %d 255\n" % picture.size + pixels,
    }


def mutants(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """`count` names and mutated files; the same ones for the same seed."""
    files = seeds()
    names, kinds = sorted(files), list(MUTATIONS)
    rng = np.random.default_rng(seed)
    for number in range(count):
        name, kind = names[number % len(names)], kinds[number // len(names) % len(kinds)]
        data = MUTATIONS[kind](files[name], rng, files[names[rng.integers(len(names))]])
        while rng.random() < 0.25:  # some are hit more than once
            data = MUTATIONS[kinds[rng.integers(len(kinds))]](data, rng, files[names[rng.integers(len(names))]])
        stem, _, suffix = name.partition(".")
        yield f"{number:06d}-{kind}-{stem}.{suffix}", data


Rng = np.random.Generator


def _place(data: bytes, rng: Rng, room: int = 1) -> int:
    """A place that has so many bytes after it; half of the time in the header."""
    most = max(1, len(data) - room)
    return int(rng.integers(min(most, 200) if rng.random() < 0.5 else most))


def _flip(data: bytes, rng: Rng, _: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.integers(1, 16)):
        if changed:
            changed[_place(data, rng)] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _number(data: bytes, rng: Rng, _: bytes) -> bytes:
    """An integer of 1, 2 or 4 bytes is one at which programs err."""
    width, order = (1, 2, 4)[rng.integers(3)], ("big", "little")[rng.integers(2)]
    at, value = _place(data, rng, width), NUMBERS[rng.integers(len(NUMBERS))] & ((1 << 8 * width) - 1)
    return data[:at] + value.to_bytes(width, order) + data[at + width :]


def _truncate(data: bytes, rng: Rng, _: bytes) -> bytes:
    return data[: _place(data, rng)]


def _cut(data: bytes, rng: Rng, _: bytes) -> bytes:
    at = _place(data, rng)
    return data[:at] + data[at + int(rng.integers(1, 200)) :]


def _repeat(data: bytes, rng: Rng, _: bytes) -> bytes:
    at = _place(data, rng)
    return data[:at] + data[at : at + int(rng.integers(1, 64))] * int(rng.integers(2, 200)) + data[at:]


def _insert(data: bytes, rng: Rng, _: bytes) -> bytes:
    at = _place(data, rng)
    return data[:at] + rng.bytes(int(rng.integers(1, 300))) + data[at:]


def _splice(data: bytes, rng: Rng, other: bytes) -> bytes:
    """The head of one file and the rest of another, of any format."""
    return data[: _place(data, rng)] + other[_place(other, rng) :]


def _two_in_one(data: bytes, rng: Rng, other: bytes) -> bytes:
    """Another file after, before or within it."""
    at = (len(data), 0, _place(data, rng))[rng.integers(3)]
    return data[:at] + other + data[at:]


def _dimensions(data: bytes, rng: Rng, _: bytes) -> bytes:
    """Another width and height, up to the largest that can be said; checksums are right."""
    sizes = (0, 1, 17, 64, 80, 255, 256, 13_000, 16_383, 32_767, 65_535, 1 << 24, (1 << 31) - 1, (1 << 32) - 1)
    width, height = (sizes[rng.integers(len(sizes))] if rng.random() < 0.7 else int(rng.integers(1, 400)) for _ in "wh")
    if data.startswith(_PNG):
        return data[:8] + png_chunk(b"IHDR", struct.pack(">II", width, height) + data[24:29]) + data[33:]
    if data.startswith(_JPEG):
        at = next((at for at in (data.find(bytes([0xFF, m])) for m in (0xC0, 0xC2)) if at > 0), -1)
        return data[: at + 5] + struct.pack(">HH", height & 0xFFFF, width & 0xFFFF) + data[at + 9 :]
    if data.startswith(b"GIF8"):
        at = data.find(b"\x2c") + 5 if rng.random() < 0.5 else 6
        return data[:at] + struct.pack("<HH", width & 0xFFFF, height & 0xFFFF) + data[at + 4 :]
    if data.startswith(b"BM"):
        return data[:18] + struct.pack("<II", width, height) + data[26:]
    if data.startswith(b"RIFF"):
        at = data.find(b"\x9d\x01\x2a")
        if at > 0 and rng.random() < 0.7:
            return data[: at + 3] + struct.pack("<HH", width & 0x3FFF, height & 0x3FFF) + data[at + 7 :]
        return data[:24] + struct.pack("<I", width)[:3] + struct.pack("<I", height)[:3] + data[30:]
    if data[:1] == b"P":
        return data[:2] + f" {width} {height} ".encode() + data[9:]
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _directory(data, rng, {256: width, 257: height})
    for at in (data.find(b"ispe") + 8, data.find(b"\xff\x51") + 6, data.find(b"ihdr") + 4):
        if at > 8:
            return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]
    return data


def _directory(data: bytes, rng: Rng, wanted: dict[int, int]) -> bytes:
    """A TIFF with other values of some tags, or else an entry of its directory changed at random."""
    order = "<" if data[:2] == b"II" else ">"
    changed = bytearray(data)
    try:
        start = struct.unpack_from(order + "I", data, 4)[0]
        count = struct.unpack_from(order + "H", data, start)[0]
        places = [start + 2 + 12 * i for i in range(count)]
        if wanted:
            for at in places:
                if (tag := struct.unpack_from(order + "H", data, at)[0]) in wanted:
                    struct.pack_into(order + "HII", changed, at + 2, 4, 1, wanted[tag])
            return bytes(changed)
        at = places[rng.integers(len(places))]
        offset, kind = ((0, "H"), (2, "H"), (4, "I"), (8, "I"))[rng.integers(4)]
        value = NUMBERS[rng.integers(len(NUMBERS))] if rng.random() < 0.5 else int(rng.integers(1 << 16))
        struct.pack_into(order + kind, changed, at + offset, value & (0xFFFF if kind == "H" else 0xFFFFFFFF))
        if rng.random() < 0.3:  # what follows the directory is itself: pages without end
            struct.pack_into(order + "I", changed, places[-1] + 12, start)
    except (struct.error, IndexError, ValueError):
        pass
    return bytes(changed)


def _segments(data: bytes, rng: Rng, other: bytes) -> bytes:
    """Chunks or segments repeated, left out, in another order, with lies about their length, foreign or full of nothing."""
    try:
        if data.startswith(_PNG):
            return _png(data, rng, other)
        if data.startswith(_JPEG):
            return _jpeg(data, rng, other)
        if data.startswith(b"RIFF"):
            chunks = [riff_chunk(kind, body) for kind, body in riff_chunks(data)]
            body = b"WEBP" + b"".join(_shuffled(chunks, rng, riff_chunk(b"EXIF", other[:2000])))
            return b"RIFF" + struct.pack("<I", len(body)) + body
    except (ValueError, struct.error):
        return _number(data, rng, other)
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _directory(data, rng, {})
    return _number(data, rng, other)


def _shuffled(parts: list[bytes], rng: Rng, foreign: bytes) -> list[bytes]:
    parts = list(parts)
    for _ in range(rng.integers(1, 4)):
        i, j = int(rng.integers(len(parts))), int(rng.integers(len(parts)))
        match rng.integers(5):
            case 0:
                parts[i], parts[j] = parts[j], parts[i]
            case 1:
                parts[i:i] = [parts[j]] * int(rng.integers(1, 300))
            case 2 if len(parts) > 1:
                del parts[i]
            case 3:
                parts.insert(i, foreign)
            case _:
                at, lie = int(rng.integers(8)), NUMBERS[rng.integers(len(NUMBERS))].to_bytes(4, "big")
                parts[i] = parts[i][:at] + lie + parts[i][at + 4 :]
    return parts


def _png(data: bytes, rng: Rng, other: bytes) -> bytes:
    chunks = png_chunks(data)
    foreign = (
        png_chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(int(rng.integers(1, 4 << 20))))),
        png_chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(int(rng.integers(1, 4 << 20))))),
        png_chunk(b"IDAT", other[:5000]),
        png_chunk(b"acTL", struct.pack(">II", int(rng.integers(5)), 0)),
        png_chunk(b"eXIf", telling_exif(int(rng.integers(9)))[6:]),
        png_chunk(bytes(rng.integers(65, 123, 4).tolist()), SECRET),
    )[rng.integers(6)]
    return _PNG + b"".join(_shuffled([png_chunk(kind, body) for kind, body in chunks], rng, foreign))


def _jpeg(data: bytes, rng: Rng, other: bytes) -> bytes:
    """The segments before the scan."""
    parts, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        end = at + 2 + struct.unpack_from(">H", data, at + 2)[0]
        parts.append(data[at:end])
        at = end
    if not parts:
        return data
    foreign = jpeg_segment(int(rng.integers(0xC0, 0x100)), other[:2000] if rng.random() < 0.5 else rng.bytes(int(rng.integers(0, 80))))
    scan = data[at:]
    if rng.random() < 0.2 and len(scan) > 20:  # many scans
        scan = scan[:-2] * int(rng.integers(2, 100)) + scan[-2:]
    return data[:2] + b"".join(_shuffled(parts, rng, foreign)) + scan


MUTATIONS: dict[str, Callable[[bytes, Rng, bytes], bytes]] = {
    "flip": _flip,
    "number": _number,
    "truncate": _truncate,
    "cut": _cut,
    "repeat": _repeat,
    "insert": _insert,
    "splice": _splice,
    "two": _two_in_one,
    "size": _dimensions,
    "segments": _segments,
}


@st.composite
def damaged(draw: st.DrawFn, sources: Sequence[bytes], head: int, most: int) -> tuple[bytes, bool]:
    """A file with up to `most` flipped bits, all in its first `head` bytes or anywhere, and perhaps cut short; whether any is flipped."""
    data = bytearray(draw(st.sampled_from(sources)))
    early, flips = draw(st.booleans()), draw(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), max_size=most))
    for at, bit in flips:
        data[int(at * min(head if early else len(data), len(data)))] ^= 1 << bit
    return bytes(data[: int(draw(st.floats(0.2, 1) | st.just(1.0)) * len(data))]), bool(flips)
