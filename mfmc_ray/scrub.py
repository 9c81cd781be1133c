"""Cut metadata out of image files without touching their coded pixels.

Each format's function copies only what it understands and needs to show the picture (an allow-list); what it cannot follow it refuses.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from mfmc_ray import tiff
from mfmc_ray.codec import MAX_PIXELS, CodecError, decode, fitting_profile, is_profile, open_image, png_chunks, riff_chunks
from mfmc_ray.jpeg import SCAN_END
from mfmc_ray.orientation import exif as orientation_exif
from mfmc_ray.orientation import orientation_of, turn

_MARKER = re.compile(rb"\xff+[^\x00\xff]")
_EOI, _SOS, _COM = 0xD9, 0xDA, 0xFE
_CODING = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA, 0xC4, 0xCC, _SOS, 0xDB, 0xDD})  # frames that Pillow decodes, DHT, DAC, SOS, DQT, DRI

# The ancillary PNG chunks that decide how a picture looks, with the lengths they may have.
_PNG_KEPT = {
    b"gAMA": range(4, 5),
    b"cHRM": range(32, 33),
    b"sRGB": range(1, 2),
    b"iCCP": range(1 << 31),
    b"cICP": range(4, 5),
    b"mDCV": range(24, 25),
    b"cLLI": range(8, 9),
    b"sBIT": range(1, 5),
    b"bKGD": range(1, 7),
    b"tRNS": range(1, 257),
    b"pHYs": range(9, 10),
}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))  # x, y, dx, dy of each pass

# How a decoded mode is held by PNG without loss.
_PNG_MODES = {"1": "1", "L": "L", "LA": "LA", "P": "P", "PA": "RGBA", "RGB": "RGB", "RGBA": "RGBA", "I;16": "I;16", "I;16B": "I;16"}


def scrub(data: bytes, max_pixels: int = MAX_PIXELS) -> bytes:
    """The same picture without metadata; the very same bytes if there is none.

    JPEG, PNG, WebP, TIFF, GIF and plain BMP keep their coded pixels, their ICC profile and other colour information, and an orientation
    other than 1 as a tag with nothing else beside it. All else goes: EXIF, XMP, IPTC, comments, thumbnails, previews, further pictures of
    an MPO, whatever follows the picture's end. Other formats, and TIFFs that `tiff.cut` does not follow, become PNG, upright, if PNG holds
    their pixels exactly. What was changed has been decoded again and compared with the source. (What a colour profile says, and bytes
    hidden within coded pixels, are not looked at.)

    Args:
        data: the file's bytes.
        max_pixels: as of `codec.decode`.

    Raises:
        CodecError: if it is not a single picture that can be decoded and followed to its end; `unsupported_format` if PNG cannot hold it.
    """
    source = decode(data, max_pixels)
    cut = _CUTTERS.get(source.format)
    try:
        out = cut(data, source.orientation) if cut else None
        if out is None:
            out = _as_png(data, max_pixels)
    except CodecError:
        raise
    except (IndexError, KeyError, ValueError, struct.error, zlib.error) as error:
        raise CodecError("corrupt", f"the {source.format} cannot be followed to its end: {error}") from error
    if out != data:
        result = decode(out, max_pixels)
        if not (np.array_equal(source.pixels, result.pixels) and _same(source.alpha, result.alpha)):
            raise CodecError("corrupt", f"without its metadata the {source.format} would show another picture")
    return out


def _same(a: NDArray[np.uint8] | None, b: NDArray[np.uint8] | None) -> bool:
    return a is b if a is None or b is None else np.array_equal(a, b)


def _jpeg(data: bytes, orientation: int) -> bytes:
    """ITU-T T.81 annex B; JFIF 1.02; Exif 2.3; ICC.1 annex B.4. What frame, scan and table segments hold, libjpeg has checked."""
    kept = [b"\xff\xd8"]
    profile: list[tuple[int, bytes]] = []  # where in `kept`, and the segment's payload
    jfif = 0  # likewise
    at = 2
    while True:
        match = _MARKER.match(data, at)
        if not match:
            raise CodecError("corrupt", f"the JPEG has no marker at byte {at}")
        marker = data[match.end() - 1]
        if marker == _EOI:
            kept.append(data[at : match.end()])
            break
        if marker not in _CODING and marker != _COM and not 0xE0 <= marker <= 0xEF:
            raise CodecError("corrupt", f"the JPEG has a marker {marker:#x} where none belongs")
        end = match.end() + struct.unpack_from(">H", data, match.end())[0]
        body = data[match.end() + 2 : end]
        if end > len(data) or end < match.end() + 2:
            raise CodecError("truncated", "the JPEG ends within a segment")
        if marker == _SOS:
            found = SCAN_END.search(data, end)
            end = found.start() if found else len(data)
        if marker in _CODING:
            kept.append(data[at:end])
        elif marker == 0xE0 and body[:5] == b"JFIF\0" and len(body) >= 14 and not jfif:
            jfif = len(kept)
            thumbnail = len(body) > 14 or any(body[12:14])
            kept.append(b"\xff\xe0\0\x10" + body[:12] + b"\0\0" if thumbnail else data[at:end])
        elif marker == 0xEE and body[:5] == b"Adobe" and len(body) >= 12:  # which colours the components are
            kept.append(b"\xff\xee\0\x0e" + body[:12] if len(body) > 12 else data[at:end])
        elif marker == 0xE2 and body[:12] == b"ICC_PROFILE\0" and len(body) >= 14:
            profile.append((len(kept), body))
            kept.append(data[at:end])
        at = end
    parts = sorted(body[12:] for _, body in profile)
    whole = all((part[0], part[1]) == (n, len(parts)) for n, part in enumerate(parts, 1)) and is_profile(b"".join(p[2:] for p in parts))
    for place, _ in profile if not whole else ():
        kept[place] = b""
    if exif := orientation_exif(orientation):
        kept.insert(2 if jfif == 1 else 1, struct.pack(">2sH6s", b"\xff\xe1", 8 + len(exif), b"Exif\0\0") + exif)
    return b"".join(kept)


def _png(data: bytes, orientation: int) -> bytes:
    """W3C PNG, third edition."""
    chunks = png_chunks(data)
    kinds = [kind for kind, _ in chunks]
    first = kinds.index(b"IDAT")
    pixels = kinds.count(b"IDAT")
    if kinds[0] != b"IHDR" or kinds.count(b"IHDR") != 1 or kinds.count(b"PLTE") > 1 or set(kinds[first : first + pixels]) != {b"IDAT"}:
        raise CodecError("corrupt", "the PNG's chunks are not in order")
    _check_deflated(chunks[0][1], [body for kind, body in chunks if kind == b"IDAT"])
    exif = orientation_exif(orientation)
    kept, at, seen = [data[:8]], 8, set()
    for n, (kind, body) in enumerate(chunks):
        whole = data[at : at + 12 + len(body)]
        at += len(whole)
        if kind in (b"IHDR", b"PLTE", b"IDAT") or (kind == b"IEND" and not body):
            keep = True
        elif not kind[0] & 0x20:
            raise CodecError("corrupt", f"the PNG has a critical chunk {kind!r} that is not known")
        else:
            keep = n < first and kind not in seen and len(body) in _PNG_KEPT.get(kind, ()) and (kind != b"iCCP" or _is_iccp(body))
            seen.add(kind)
        if keep:
            if zlib.crc32(kind + body) != int.from_bytes(whole[-4:], "big"):
                raise CodecError("corrupt", f"the PNG's chunk {kind!r} does not have its checksum")
            kept.append(whole)
        if kind == b"IHDR" and exif:
            kept.append(struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif)))
    return b"".join(kept)


def _is_iccp(body: bytes) -> bool:
    name, _, rest = body.partition(b"\0")
    inflater = zlib.decompressobj()
    try:
        icc = inflater.decompress(rest[1:], 1 << 24)
    except zlib.error:
        return False
    return 0 < len(name) < 80 and rest[:1] == b"\0" and inflater.eof and not inflater.unused_data and is_profile(icc)


def _check_deflated(header: bytes, parts: list[bytes]) -> None:
    """Refuse pixel data that holds more than the pixels: the rest of a picture that was cropped in place, for one."""
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    wanted = 0
    for x, y, dx, dy in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - x) // dx), -(-(height - y) // dy)
        wanted += rows * (1 + -(-columns * bits // 8)) if columns > 0 and rows > 0 else 0
    inflater = zlib.decompressobj()
    got = 0
    for part in parts:
        while part and got <= wanted and not inflater.eof:
            got += len(inflater.decompress(part, 1 << 20))
            part = inflater.unconsumed_tail
        if part or inflater.unused_data:
            raise CodecError("corrupt", "the PNG's pixel data go on after the last pixel")
    if got != wanted or not inflater.eof:
        raise CodecError("corrupt", "the PNG's pixel data do not end with the last pixel")


def _webp(data: bytes, orientation: int) -> bytes:
    """RFC 9649."""
    chunks = riff_chunks(data)
    kinds = [kind for kind, _ in chunks]
    if b"ANIM" in kinds or b"ANMF" in kinds:
        raise CodecError("animated", "this WebP is made as an animation")
    if kinds.count(b"VP8 ") + kinds.count(b"VP8L") != 1 or max(map(kinds.count, (b"VP8X", b"ALPH", b"ICCP"))) > 1:
        raise CodecError("corrupt", "the WebP's chunks are not in order")
    kept = [(kind, body) for kind, body in chunks if kind in (b"VP8 ", b"VP8L", b"VP8X", b"ALPH") or (kind == b"ICCP" and is_profile(body))]
    exif = orientation_exif(orientation)
    if kinds[0] == b"VP8X":
        flags, size = kept[0][1][0], kept[0][1][4:10]
        flags = (flags & 0x10) | (0x20 if any(kind == b"ICCP" for kind, _ in kept) else 0) | (0x08 if exif else 0)
        kept[0] = (b"VP8X", bytes([flags, 0, 0, 0]) + size)
        kept += [(b"EXIF", exif)] if exif else []
    else:
        kept = kept[:1]
    body = b"WEBP" + b"".join(kind + struct.pack("<I", len(part)) + part + b"\0" * (len(part) % 2) for kind, part in kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _gif(data: bytes, orientation: int) -> bytes:
    """The GIF89a specification."""

    def table(flags: int) -> int:
        return 3 << ((flags & 7) + 1) if flags & 0x80 else 0

    def after_blocks(at: int) -> int:
        while data[at]:
            at += 1 + data[at]
        return at + 1

    at = 13 + table(data[10])
    kept, control, image = [data[:at]], b"", False
    while data[at] != 0x3B:
        if data[at] == 0x21:
            end = after_blocks(at + 2)
            if data[at + 1] == 0xF9 and end - at == 8:
                control = data[at:end]
        elif data[at] == 0x2C:
            if image:
                raise CodecError("animated", "this GIF holds several frames")
            end = after_blocks(at + 11 + table(data[at + 9]))
            kept += [control, data[at:end]]
            image = True
        else:
            raise CodecError("corrupt", f"the GIF has no block at byte {at}")
        at = end
    return b"".join([*kept, b";"])


def _bmp(data: bytes, orientation: int) -> bytes | None:
    """The plain Windows bitmap: a header of 40 bytes, palette, uncompressed rows of 1–24 bits, nothing between; None for any other."""
    offset, header, width, height, _, bits, compression, _, _, _, colours = struct.unpack_from("<IIiiHHIIiiI", data, 10)
    palette = 4 * (colours or 1 << bits) if bits <= 8 else 0
    if header != 40 or compression != 0 or bits not in (1, 4, 8, 24) or offset != 54 + palette:
        return None
    end = offset + (width * bits + 31) // 32 * 4 * abs(height)
    return struct.pack("<2sIHHI", b"BM", end, 0, 0, offset) + data[14:end]


def _tiff(data: bytes, orientation: int) -> bytes | None:
    with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:  # once loaded it is upright, and says so
        orientation = orientation_of(image)
        image.load()
        return tiff.cut(data, image.mode, orientation, profile=is_profile(image.info.get("icc_profile") or b""))


def _as_png(data: bytes, max_pixels: int) -> bytes:
    image, orientation = open_image(data, max_pixels)
    mode = _PNG_MODES.get(image.mode)
    if mode is None or (mode != "I;16" and _bits(image, data) > 8):
        raise CodecError("unsupported_format", f"PNG cannot hold this {image.format} exactly; convert it to JPEG, PNG or WebP")
    icc = image.info.get("icc_profile")
    image = turn(image, orientation).convert(mode)
    image.info = {}
    out = io.BytesIO()
    image.save(out, "PNG", icc_profile=fitting_profile(icc, mode in ("1", "L", "LA", "I;16")))
    return out.getvalue()


def _bits(image: Image.Image, data: bytes) -> int:
    """Bits of a sample in the file, 16 for any number above 8: Pillow reads colour with 8."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return int(max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))))
    if image.format == "JPEG2000":  # the SIZ segment's component table
        at = data.index(b"\xff\x4f\xff\x51")
        count = int.from_bytes(data[at + 40 : at + 42], "big")
        return max((size & 0x7F) + 1 for size in data[at + 42 : at + 42 + 3 * count : 3])
    if image.format == "AVIF":  # high_bitdepth in the configuration of any of its AV1 streams
        return 16 if any(found[1][2] & 0x40 for found in re.finditer(rb"av1C(....)", data, re.DOTALL)) else 8
    if image.format == "PPM" and data[:2] in (b"P3", b"P6"):
        return 16 if int(re.sub(rb"#[^\n]*", b"", data[:4096]).split()[3]) > 255 else 8
    return 8


_CUTTERS: dict[str, Callable[[bytes, int], bytes | None]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "WEBP": _webp,
    "TIFF": _tiff,
    "GIF": _gif,
    "BMP": _bmp,
}
