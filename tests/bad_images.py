"""Files that a collection should not hold but does, made in memory."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image, ImageCms, TiffImagePlugin
from skimage.data import astronaut


def save(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The file of a picture."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def sideways_exif(orientation: int) -> Image.Exif:
    """EXIF with this orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def jpeg_segment(marker: int, body: bytes) -> bytes:
    """A JPEG segment."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def riff_chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a WebP."""
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def bad_images() -> dict[str, bytes]:
    """File name → bytes. Astronaut Eileen Collins' face is in each one that can be decoded, but for the 1×1 PNG."""
    face = Image.fromarray(astronaut())
    grey = np.asarray(face.convert("L"))
    jpeg, png = save(face, "JPEG", quality=90), save(face, "PNG")
    frames = [face, face.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    animation = {"save_all": True, "append_images": frames[1:], "duration": 100}
    scan = jpeg.index(b"\xff\xda") + 14
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(bytes(10_000))) + png_chunk(b"IEND", b"")
    return {
        "empty.jpg": b"",
        "text.jpg": b"This is not the picture you are looking for.\n" * 20,
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "truncated.png": png[: len(png) // 2],
        "corrupt.jpg": jpeg[:scan] + np.random.default_rng(0).bytes(len(jpeg) - scan - 2) + b"\xff\xd9",
        "one_pixel.png": save(Image.new("RGB", (1, 1), (200, 150, 120)), "PNG"),
        "cmyk.jpg": save(face.convert("CMYK"), "JPEG", quality=90),
        "sixteen_bit.png": save(Image.fromarray(grey.astype(np.uint16) * 257), "PNG"),
        "grey.jpg": save(face.convert("L"), "JPEG", quality=90),
        "transparent.png": save(Image.fromarray(np.dstack([astronaut(), 255 - grey])), "PNG"),
        "animated.gif": save(face, "GIF", **animation),
        "animated.webp": save(face, "WEBP", **animation),
        # turned by 90° counter-clockwise, to be shown turned back
        "sideways.jpg": save(face.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=90, exif=sideways_exif(6)),
        "really_a_png.jpg": png,
        "bomb.png": b"\x89PNG\r\n\x1a\n" + bomb,
    }


def huge_jpeg() -> bytes:
    """A JPEG of 12,000 × 9,000 pixels full of faces."""
    tiles = np.tile(astronaut(), (9_000 // 512 + 1, 12_000 // 512 + 1, 1))[:9_000, :12_000]
    return save(Image.fromarray(np.ascontiguousarray(tiles)), "JPEG", quality=90)


SECRET = b"EILEEN COLLINS 28.5721N 80.6480W"
"""What `told_images` tell in every place where their format has room for it."""

_XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">' + SECRET + b"</x:xmpmeta>"


def profile(space: bytes = b"RGB ") -> bytes:
    """An ICC profile, as far as its header: Pillow's sRGB, or the same claiming to be of another colour space."""
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return icc[:16] + space + icc[20:]


def telling_exif(orientation: int = 1) -> bytes:
    """EXIF ("Exif", two zeros, a TIFF structure) with a name, a maker's note, and the face itself as its thumbnail."""
    thumbnail = save(Image.fromarray(astronaut()).resize((96, 96)), "JPEG", comment=SECRET)
    exif = sideways_exif(orientation)
    exif[0x010E] = SECRET.decode()
    exif.get_ifd(0x8769)[0x927C] = SECRET
    first = exif.tobytes()
    tiff = bytearray(first[6:])
    count = struct.unpack_from(">H", tiff, 8)[0]
    struct.pack_into(">I", tiff, 10 + 12 * count, len(tiff))  # where the second directory is, the thumbnail's
    tiff += struct.pack(">HHHIIHHIII", 2, 0x0201, 4, 1, len(tiff) + 30, 0x0202, 4, 1, len(thumbnail), 0) + thumbnail
    return first[:6] + bytes(tiff)


def told_images(picture: Image.Image, orientation: int = 1) -> dict[str, bytes]:
    """File name → a picture with SECRET in all its metadata, with that EXIF orientation where the format has one, and an ICC profile."""
    exif, icc = telling_exif(orientation), profile()
    thumbnail = save(picture.resize((10, 10)), "JPEG", comment=SECRET)
    jpeg = save(picture, "JPEG", quality=90, icc_profile=icc)
    told = b"".join(
        [
            jpeg_segment(0xE0, b"JFIF\0\1\2\0\0\1\0\1\2\1" + SECRET[:6]),  # a thumbnail of 2 × 1 pixels
            jpeg_segment(0xE0, b"JFXX\0\x10" + thumbnail),
            jpeg_segment(0xE1, exif),
            jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + _XMP),
            jpeg_segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(40) + _XMP),
            jpeg_segment(0xE2, b"MPF\0" + SECRET),
            jpeg_segment(0xE2, b"FPXR\0" + SECRET),
            jpeg_segment(0xEB, b"JP\0\1" + SECRET),  # C2PA
            jpeg_segment(0xED, b"Photoshop 3.0\0008BIM\x04\x04\0\0" + struct.pack(">I", len(SECRET)) + SECRET),
            jpeg_segment(0xEE, b"Adobe\0\x64\0\0\0\0\1" + SECRET),
            jpeg_segment(0xEF, SECRET),
            jpeg_segment(0xFE, SECRET),
        ]
    )
    scan = jpeg.index(b"\xff\xda")
    jpeg = b"\xff\xd8" + told + jpeg[20:scan] + jpeg_segment(0xFE, SECRET) + jpeg[scan:]

    png = save(picture, "PNG", icc_profile=icc)
    data = png.index(b"IDAT") - 4
    notes = b"".join(
        [
            png_chunk(b"tEXt", b"Author\0" + SECRET),
            png_chunk(b"zTXt", b"Author\0\0" + zlib.compress(SECRET, 0)),
            png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + _XMP),
            png_chunk(b"tIME", b"\x07\xcf\7\x17\4\x1f\0"),
            png_chunk(b"sPLT", SECRET + b"\0\x08"),
            png_chunk(b"caBX", SECRET),
            png_chunk(b"prVt", SECRET),
        ]
    )
    png = png[:33] + png_chunk(b"eXIf", exif[6:]) + png[33:data] + notes + png[data:-12] + notes + png[-12:] + SECRET + png

    webp = save(picture, "WEBP", lossless=True, icc_profile=icc, exif=exif, xmp=_XMP)
    webp += riff_chunk(b"UNKN", SECRET)
    webp = b"RIFF" + struct.pack("<I", len(webp) - 8) + webp[8:] + SECRET

    gif = save(picture, "GIF", comment=SECRET)
    end = 13 + 3 * (2 << (gif[10] & 7))
    block = bytes([len(SECRET)]) + SECRET + b"\0"
    extensions = b"!\xff\x0bXMP DataXMP" + block + b"!\x01\x0c" + bytes(12) + block
    bmp = save(picture, "BMP")
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270], tags[700] = SECRET.decode(), _XMP
    return {
        "told.jpg": jpeg + SECRET + jpeg,
        "told.png": png,
        "told.webp": webp,
        "told.gif": gif[:end] + extensions + gif[end:-1] + extensions + b";" + SECRET,
        "told.bmp": bmp[:6] + SECRET[:4] + bmp[10:] + SECRET,
        "told.tif": save(picture, "TIFF", tiffinfo=tags, icc_profile=icc),
        "told.avif": save(picture, "AVIF", quality=90, exif=exif, xmp=_XMP, icc_profile=icc),
        "told.jp2": save(picture, "JPEG2000", comment=SECRET.decode()),
        "told.ppm": save(picture, "PPM").replace(b"\n", b"\n# " + SECRET + b"\n", 1),
    }
