"""TIFF files: their metadata cut out around the coded pixels, and pixels written anew."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mfmc_ray.jpeg import SCAN_END

XMP_TAG, ICC_TAG, C2PA_TAG, ORIENTATION_TAG = 700, 34675, 52545, 274

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}  # bytes of a kind's value
_CODES = {1: "B", 3: "H", 4: "I", 16: "Q"}
_BYTE, _SHORT, _LONG, _UNDEFINED, _LONG8 = 1, 3, 4, 7, 16
_STRIPS, _TILES = (273, 279), (324, 325)  # where they are, and their lengths
# What says how the pixels are coded and shown: how many numbers at most. None: of its own length, see `_fits`.
_NUMBERS: dict[int, int | None] = {
    254: 1, 255: 1, 256: 1, 257: 1, 258: None, 259: 1, 262: 1, 266: 1, ORIENTATION_TAG: 1, 277: 1, 278: 1, 282: 1, 283: 1, 284: 1,
    296: 1, 317: 1, 318: 2, 319: 6, 320: None, 322: 1, 323: 1, 332: 1, 334: 1, 338: None, 339: None, 529: 3, 530: 2, 531: 1, 532: 6,
}  # fmt: skip
DESCRIBING = frozenset({*_NUMBERS, *_STRIPS, *_TILES, 347, ICC_TAG})
"""The tags that a file without metadata may have."""

_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "LAB", "YCbCr", "I;16", "I;16B", "I;16N", "I;16L", "I", "F"})
_NONE, _LZW, _JPEG, _DEFLATE, _OLD_DEFLATE, _PACKBITS = 1, 5, 7, 8, 32946, 32773
_JPEG_CODING = frozenset({0xC0, 0xC1, 0xC2, 0xC4, 0xDA, 0xDB, 0xDD})
_JPEG_TABLES = frozenset({0xC4, 0xDB})
_STRIP_BYTES = 1 << 20


class _Unusual(Exception):  # noqa: N818 (not an error: a decision)
    """A TIFF that is not followed here."""


@dataclass(frozen=True)
class Entry:
    """A tag's value: the kind of its numbers, how many, and their bytes in the file's order."""

    kind: int
    count: int
    value: bytes


@dataclass(frozen=True)
class _Directory:
    """The first directory of a TIFF.

    Attributes:
        order: "<" or ">".
        big: whether it is a BigTIFF.
        entries: by tag.
        extents: start and end of what was read, bytes.
        last: no directory follows.
        padded: the bytes of values shorter than their field are zeros, and the tags ascend, each once.
    """

    order: str
    big: bool
    entries: dict[int, Entry]
    extents: list[tuple[int, int]]
    last: bool
    padded: bool

    def numbers(self, tag: int, *default: int) -> tuple[int, ...]:
        """The integers of a tag."""
        if tag not in self.entries:
            return default
        entry = self.entries[tag]
        if entry.kind not in _CODES:
            raise _Unusual(f"tag {tag} has no integers")
        return struct.unpack(f"{self.order}{entry.count}{_CODES[entry.kind]}", entry.value)

    def number(self, tag: int, default: int) -> int:
        """The only integer of a tag."""
        values = self.numbers(tag, default)
        if len(values) != 1:
            raise _Unusual(f"tag {tag} has {len(values)} numbers")
        return values[0]


def cut(data: bytes, mode: str, orientation: int, *, profile: bool, keep: Iterable[int] = ()) -> bytes | None:
    """The TIFF with the tags alone that describe its pixels, its orientation and its ICC profile; strips and tiles are copied as they are.

    Nothing but what is copied is left: EXIF, GPS, XMP, IPTC, Photoshop's resources, makers' and private tags, further directories, previews
    in sub-directories, and bytes that no tag points to are gone. (TIFF 6.0; the BigTIFF design; Adobe's technical notes 1 and 2.)

    Args:
        data: the file's bytes.
        mode: Pillow's, of the decoded picture.
        orientation: 1–8, as it is to be shown.
        profile: whether to keep the ICC profile.
        keep: further tags to keep.

    Returns:
        The very same bytes if there is nothing to cut. None for a TIFF that is not followed here: of another compression than none, LZW,
        Deflate, PackBits or JPEG, with samples that are not shown, or with bytes after the end of its coded pixels.

    Raises:
        ValueError, struct.error, zlib.error: for a broken file.
    """
    try:
        source = _directory(data)
        strips, tags = _pixels(data, source, mode)
    except _Unusual:
        return None
    kept = {}
    for tag, entry in source.entries.items():
        if tag in keep or (tag in DESCRIBING and _fits(source, tag, entry) and (tag != ICC_TAG or profile)):
            kept[tag] = entry
    kept.pop(ORIENTATION_TAG, None)
    if orientation != 1 or source.entries.get(ORIENTATION_TAG) == _entry(source.order, _SHORT, 1):
        kept[ORIENTATION_TAG] = _entry(source.order, _SHORT, orientation)
    if kept == source.entries and source.last and source.padded and _nothing_else(data, source.extents):
        return data
    return _built(source.order, source.big, kept, strips, tags)


def value(data: bytes, tag: int) -> bytes:
    """The bytes of a tag's value in the first directory; empty if it is not there."""
    try:
        return _directory(data).entries[tag].value
    except (_Unusual, KeyError):
        return b""


def written(pixels: NDArray[np.uint8] | NDArray[np.uint16], *, icc: bytes | None, xmp: bytes | None) -> bytes:
    """Pixels as a TIFF, without loss (Deflate, horizontal differences), as `cut` would leave it but for the XMP.

    Args:
        pixels: uint8 or uint16 (height, width, channels): 1 grey, 3 RGB, and one more for transparency (not premultiplied).
        icc, xmp: a profile and a packet to put in.
    """
    height, width, channels = pixels.shape
    bits = pixels.itemsize * 8
    rows = max(1, _STRIP_BYTES // (width * channels * pixels.itemsize))
    strips = []
    for top in range(0, height, rows):
        part = pixels[top : top + rows].copy()
        part[:, 1:] -= pixels[top : top + rows, :-1]  # modulo 2**bits
        strips.append(zlib.compress(part.astype(part.dtype.newbyteorder("<")).tobytes()))
    shorts = {
        258: [bits] * channels, 259: [_DEFLATE], 262: [1 if channels < 3 else 2], 277: [channels], 284: [1], 317: [2],
    }  # fmt: skip
    if channels in (2, 4):
        shorts[338] = [2]
    entries = {tag: _entry("<", _SHORT, *values) for tag, values in shorts.items()}
    entries |= {256: _entry("<", _LONG, width), 257: _entry("<", _LONG, height), 278: _entry("<", _LONG, rows)}
    if xmp:
        entries[XMP_TAG] = Entry(_BYTE, len(xmp), xmp)
    if icc:
        entries[ICC_TAG] = Entry(_UNDEFINED, len(icc), icc)
    return _built("<", False, entries, strips, _STRIPS)


def _entry(order: str, kind: int, *values: int) -> Entry:
    return Entry(kind, len(values), struct.pack(f"{order}{len(values)}{_CODES[kind]}", *values))


def _directory(data: bytes) -> _Directory:
    order = {b"II": "<", b"MM": ">"}.get(data[:2], "")
    if not order:
        raise _Unusual("no TIFF")
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    if big:
        size, zero, at = struct.unpack_from(order + "HHQ", data, 4)
        if (size, zero) != (8, 0):
            raise _Unusual("offsets of another size")
        (length,) = struct.unpack_from(order + "Q", data, at)
        start, step, word, field = at + 8, 20, "Q", 8
    else:
        (at,) = struct.unpack_from(order + "I", data, 4)
        (length,) = struct.unpack_from(order + "H", data, at)
        start, step, word, field = at + 2, 12, "I", 4
    end = start + step * length
    (following,) = struct.unpack_from(order + word, data, end)
    entries: dict[int, Entry] = {}
    extents = [(0, 16 if big else 8), (at, end + field)]
    padded, before = True, -1
    for place in range(start, end, step):
        tag, kind, count = struct.unpack_from(f"{order}HH{word}", data, place)
        size = _SIZES.get(kind, 0) * count
        inline = place + step - field
        if kind not in _SIZES or tag in entries or size > len(data):
            raise _Unusual(f"tag {tag}")
        padded &= tag > before
        before = tag
        if size <= field:
            value = data[inline : inline + size]
            padded &= not any(data[inline + size : inline + field])
        else:
            (inline,) = struct.unpack_from(order + word, data, inline)
            value = data[inline : inline + size]
            extents.append((inline, inline + size))
        if len(value) != size:
            raise ValueError("the TIFF ends within a value")
        entries[tag] = Entry(kind, count, value)
    return _Directory(order, big, entries, extents, following == 0, padded)


def _fits(source: _Directory, tag: int, entry: Entry) -> bool:
    """Whether a describing tag holds no more than it should."""
    if tag in (*_STRIPS, *_TILES, 347, ICC_TAG):
        return True
    most = _NUMBERS[tag]
    if most is None:
        most = 3 << source.numbers(258, 1)[0] if tag == 320 else source.number(277, 1)
    return entry.kind not in (2, _UNDEFINED) and 0 < entry.count <= most


def _pixels(data: bytes, source: _Directory, mode: str) -> tuple[list[bytes], tuple[int, int]]:
    """The strips or tiles, none of which holds more than its pixels, and their tags."""
    tiled = _TILES[0] in source.entries
    tags = _TILES if tiled else _STRIPS
    samples, bits = source.number(277, 1), set(source.numbers(258, 1))
    width, height = source.number(256, 0), source.number(257, 0)
    bands = {"1": 1, "P": 1, "F": 1, "LA": 2, "PA": 2, "RGBA": 4, "CMYK": 4, "RGB": 3, "LAB": 3, "YCbCr": 3}.get(mode, 1)
    if mode not in _MODES or samples != bands or len(bits) != 1 or (tiled and _STRIPS[0] in source.entries):
        raise _Unusual("samples that are not shown")
    starts, lengths = source.numbers(tags[0]), source.numbers(tags[1])
    planar = source.number(284, 1) == 2
    per_pixel = bits.pop() * (1 if planar else samples)
    if tiled:
        columns, rows = source.number(322, 0), source.number(323, 0)
        pieces = -(-width // max(columns, 1)) * -(-height // max(rows, 1))
        wanted = [rows * -(-columns * per_pixel // 8)] * pieces
    else:
        rows = max(1, min(source.number(278, height), height))
        line = -(-width * per_pixel // 8)
        wanted = [line * min(rows, height - top) for top in range(0, height, rows)]
    wanted *= samples if planar else 1
    if not len(starts) == len(lengths) == len(wanted) or sum(lengths) > len(data):
        raise _Unusual("another number of strips")
    compression = source.number(259, 1)
    if (source.number(262, 1) == 6 and compression != _JPEG) or source.number(266, 1) != 1:
        raise _Unusual("its strips are of another length, or its bits in another order")
    if 347 in source.entries:
        _check_jpeg(source.entries[347].value, _JPEG_TABLES)
    strips = []
    for start, length, size in zip(starts, lengths, wanted, strict=True):
        strip = data[start : start + length]
        if len(strip) != length:
            raise ValueError("the TIFF ends within its pixels")
        _check_strip(strip, size, compression)
        source.extents.append((start, start + length))
        strips.append(strip)
    return strips, tags


def _check_strip(strip: bytes, size: int, compression: int) -> None:
    """Refuses a strip that does not end with its pixels; `size` is theirs in bytes, not coded."""
    if compression == _NONE:
        ends = len(strip) == size
    elif compression in (_DEFLATE, _OLD_DEFLATE):
        inflater = zlib.decompressobj()
        got, rest = 0, strip
        while rest and got <= size and not inflater.eof:
            got += len(inflater.decompress(rest, _STRIP_BYTES))
            rest = inflater.unconsumed_tail
        ends = got == size and inflater.eof and not inflater.unused_data
    elif compression == _LZW:
        ends = _lzw_end(strip) == len(strip)
    elif compression == _PACKBITS:
        ends = _packbits_size(strip) == size
    elif compression == _JPEG:
        _check_jpeg(strip, _JPEG_CODING)
        ends = True
    else:
        ends = False
    if not ends:
        raise _Unusual("a strip that does not end with its pixels")


def _lzw_end(strip: bytes) -> int:
    """Where an LZW stream has its end code, bytes; −1 if nowhere. (TIFF 6.0, section 13.)

    What a code means is of no interest, only how many bits it has, and that depends on how many codes there were since the last clear code.
    """
    widths = np.repeat([9, 10, 11, 12], [254, 512, 1024, 2306])
    offsets = np.concatenate([[0], np.cumsum(widths)])
    stream = np.frombuffer(strip + bytes(4), np.uint8).astype(np.uint32)
    at, end = 0, len(strip) * 8
    while at < end:
        places = at + offsets[:-1]
        places = places[places < end]
        byte, width = places >> 3, widths[: len(places)]
        window = stream[byte] << 16 | stream[byte + 1] << 8 | stream[byte + 2]
        codes = window >> (24 - (places & 7) - width).astype(np.uint32) & ((1 << width) - 1).astype(np.uint32)
        stops = np.flatnonzero((codes == 256) | (codes == 257))
        if not len(stops):
            return -1
        at += int(offsets[stops[0] + 1])
        if codes[stops[0]] == 257:
            return -(-at // 8)
    return -1


def _packbits_size(strip: bytes) -> int:
    """Bytes that a PackBits stream decodes to; −1 if it does not end with a run. (TIFF 6.0, section 9.)"""
    at = size = 0
    while at < len(strip):
        run = strip[at]
        size += run + 1 if run < 128 else 257 - run if run > 128 else 0
        at += run + 2 if run < 128 else 2 if run > 128 else 1
    return size if at == len(strip) else -1


def _check_jpeg(strip: bytes, allowed: frozenset[int]) -> None:
    """Refuses a JPEG stream with other segments than these, or that goes on after its end."""
    at = 2
    while strip[:2] == b"\xff\xd8" and strip[at : at + 1] == b"\xff":
        marker = strip[at + 1]
        if marker == 0xD9:
            if at + 2 == len(strip):
                return
            break
        if marker not in allowed:
            break
        at += 2 + int.from_bytes(strip[at + 2 : at + 4], "big")
        if marker == 0xDA:
            found = SCAN_END.search(strip, at)
            at = found.start() if found else len(strip)
    raise _Unusual("a JPEG stream with more than pixels")


def _nothing_else(data: bytes, extents: list[tuple[int, int]]) -> bool:
    """Whether all that is outside these extents is zeros."""
    at = 0
    for start, end in sorted(extents):
        if data[at:start].strip(b"\0"):
            return False
        at = max(at, end)
    return not data[at:].strip(b"\0")


def _built(order: str, big: bool, entries: Mapping[int, Entry], strips: list[bytes], tags: tuple[int, int]) -> bytes:
    """The file: its header, the directory, the values that do not fit into it, and the strips, each at an even place."""
    word, kind, field = ("Q", _LONG8, 8) if big else ("I", _LONG, 4)
    lengths = [len(strip) for strip in strips]
    entries = dict(entries) | {tags[0]: _entry(order, kind, *lengths), tags[1]: _entry(order, kind, *lengths)}
    header = 16 if big else 8
    directory = (8 if big else 2) + len(entries) * (20 if big else 12) + field
    places: dict[int, int] = {}
    at = header + directory + directory % 2
    for tag, entry in sorted(entries.items()):
        if len(entry.value) > field:
            places[tag] = at
            at += len(entry.value) + len(entry.value) % 2
    starts = []
    for length in lengths:
        starts.append(at)
        at += length + length % 2
    entries[tags[0]] = _entry(order, kind, *starts)
    out = bytearray(at)
    if big:
        struct.pack_into(order + "2sHHHQQ", out, 0, b"II" if order == "<" else b"MM", 43, 8, 0, header, len(entries))
    else:
        struct.pack_into(order + "2sHIH", out, 0, b"II" if order == "<" else b"MM", 42, header, len(entries))
    at = header + (8 if big else 2)
    for tag, entry in sorted(entries.items()):
        struct.pack_into(f"{order}HH{word}", out, at, tag, entry.kind, entry.count)
        at += 4 + field
        if tag in places:
            struct.pack_into(order + word, out, at, places[tag])
            out[places[tag] : places[tag] + len(entry.value)] = entry.value
        else:
            out[at : at + len(entry.value)] = entry.value
        at += field
    for start, strip in zip(starts, strips, strict=True):
        out[start : start + len(strip)] = strip
    return bytes(out)
