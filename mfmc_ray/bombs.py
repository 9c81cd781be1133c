"""Files made to choke whoever reads them: known by how many pieces they have, before they are decoded.

Decoders put a limit on pixels, but keep every chunk, segment and comment, at tens of bytes of memory for each, and go through all pixels
once for each scan of a progressive JPEG. What slips through here only costs its worker's time, see `pipeline.watch`.
"""

from __future__ import annotations

import re

PIECES = 1 << 18
"""Chunks of a PNG or WebP, segments of a JPEG, comments of a GIF. A picture of a gigabyte in chunks of 8 KiB has half as many."""
SCANS = 256
"""Of a JPEG. Encoders write about ten; a coefficient has at most 14 bits to be refined, and there are 64 of them, so a file that needs
more is imaginable, but no encoder makes it."""

_MARKER = re.compile(rb"\xff+[^\x00\xff]")
_SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_EOI, _SOS = 0xD9, 0xDA


def bomb(data: bytes) -> str | None:
    """What is wrong with a file that has far more pieces than any picture; None if nothing is, or if it is no picture."""
    if data[:4] == b"\x89PNG":
        return _too_many(_chunks(data, 8, "big", 12), "chunks")
    if data[:4] == b"RIFF":
        return _too_many(_chunks(data, 12, "little", 8), "chunks")
    if data[:4] == b"GIF8":  # two bytes are also in the pixels, by chance
        return _too_many(data.count(b"!\xfe") - len(data) // 16_384, "comments")
    if data[:2] == b"\xff\xd8":
        segments, scans = _segments(data)
        return _too_many(segments, "segments") or (f"a JPEG of more than {SCANS} scans" if scans > SCANS else None)
    return None


def _too_many(pieces: int, what: str) -> str | None:
    return f"more than {PIECES} {what}" if pieces > PIECES else None


def _chunks(data: bytes, at: int, order: str, frame: int) -> int:
    """How many chunks, each of a length, a kind (or the other way round) and, in a PNG, a checksum: at most one more than `PIECES`."""
    count, where = 0, at if order == "big" else at + 4
    while where + 4 <= len(data) and count <= PIECES:
        length = int.from_bytes(data[where : where + 4], "big" if order == "big" else "little")
        where += frame + length + (length % 2 if order == "little" else 0)
        count += 1
    return count


def _segments(data: bytes) -> tuple[int, int]:
    """How many segments and scans of a JPEG's first picture; each at most one more than is allowed."""
    count = scans = 0
    at, many = 2, data.count(b"\xff\xda") > SCANS  # else the end of the first scan need not be looked for
    while count <= PIECES and scans <= SCANS and (match := _MARKER.match(data, at)):
        count, marker = count + 1, data[match.end() - 1]
        at = match.end() + int.from_bytes(data[match.end() : match.end() + 2], "big")
        if marker == _EOI:
            break
        if marker == _SOS:
            scans += 1
            found = _SCAN_END.search(data, at) if many else None
            if found is None:
                break
            at = found.start()
    return count, scans
