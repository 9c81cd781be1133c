"""Image files: decode to upright RGB, encode like the source but without its metadata."""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Imported by name because `Image.open` would otherwise import every plugin to find these.
from PIL import (
    AvifImagePlugin,  # noqa: F401
    Image,
    Jpeg2KImagePlugin,  # noqa: F401
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from mfmc_ray import deep, tiff
from mfmc_ray.bombs import bomb
from mfmc_ray.deep import Deep
from mfmc_ray.jpeg import JpegCoding, coded, coding_of, samples, subsampled, ycc
from mfmc_ray.label import XMP
from mfmc_ray.orientation import back, exif, orientation_of, turn, turned

MAX_PIXELS = 178_956_970
"""Pillow's own limit against decompression bombs."""

WITHHELD: frozenset[str] = frozenset({"animated", "too_large", "unsupported_format"})
"""The reasons of a `CodecError` that mean "a picture, but policy keeps it back"; any other means that the file is broken."""

# Only these are opened, whatever the file's name says: among Pillow's others are some that run outside programs (EPS: Ghostscript), are
# stubs, or know no signature and take any bytes for theirs (TGA). Pillow's JPEG reader also opens MPO.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")

_SIGNATURE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n|RIFF....WEBP|GIF8|BM|(II|MM)(\*\0|\0\*|\+\0|\0\+)|....ftypavi[fs]"
    rb"|\0\0\0\x0cjP  |\xff\x4f\xff\x51|P[1-6fFy]\s",
    re.DOTALL,
)
# HEIF, JPEG XL, PSD, EPS, PDF, icons, SVG, and the raw files of Canon, Fuji, Panasonic and Olympus
_FOREIGN = re.compile(
    rb"....ftyp(hei|hev|mif1|msf1|crx)|\xff\x0a|\0\0\0\x0cJXL |8BPS|%!PS|\xc5\xd0\xd3\xc6|%PDF|\0\0[\1\2]\0"
    rb"|\s*(<\?xml[^>]*>\s*)?<svg|FUJIFILM|IIU\0|IIR[OS]",
    re.DOTALL,
)
_CUT_SHORT = re.compile(r"truncat|incomplete|not enough|only got", re.IGNORECASE)

_GREY = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N", "F"})
_PNG_COLOUR = frozenset({b"gAMA", b"cHRM", b"sRGB", b"cICP"})

LOSS = 46.0
"""dB, peak signal to noise, of a lossy WebP to the pixels it was made of, below which it is written without loss instead."""


class CodecError(ValueError):
    """A file that is not decoded, written or scrubbed.

    Attributes:
        reason: a short code for the `reason` column: `empty`, `not_an_image`, `truncated`, `corrupt`, one of `WITHHELD`, or
            what `pipeline.watch` says of an image in quarantine.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)  # both, so that it can be pickled
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[1])


@dataclass(frozen=True, eq=False)
class Decoded:
    """A decoded picture and what `encode` needs to write it as it was.

    Attributes:
        pixels: uint8 (height, width, 3), RGB, upright, C-contiguous and writable. Colour under transparency is there, not composited.
        format: Pillow's name of the file's format (an MPO is a JPEG).
        width, height: pixels, upright.
        orientation: the EXIF orientation, 1–8, that was applied to `pixels` and `alpha`.
        grey: the source has no colour.
        alpha: uint8 (height, width), upright, or None if the source has no transparency.
        icc: the source's ICC profile (not applied), or None.
        jpeg: for a JPEG whose coding can be repeated.
        lossless: for a WebP, whether its pixels were coded without loss.
        png_colour: for a PNG, its other colour space chunks as (kind, payload).
        deep: for a PNG or TIFF of 16 bits, its samples as they were, 2 bytes each.
        file: for a JPEG whose coding can be repeated, its bytes: RGB does not tell exactly what it holds.
    """

    pixels: NDArray[np.uint8]
    format: str
    width: int
    height: int
    orientation: int
    grey: bool
    alpha: NDArray[np.uint8] | None
    icc: bytes | None
    jpeg: JpegCoding | None = None
    lossless: bool = False
    png_colour: tuple[tuple[bytes, bytes], ...] = ()
    deep: Deep | None = None
    file: bytes | None = None

    @property
    def stored_in(self) -> int:
        """The EXIF orientation (1–8) that `encode` stores it in."""
        return self.jpeg.orientation if self.jpeg else 1


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decode an image file, whatever it is named.

    Args:
        data: the file's bytes.
        max_pixels: pictures whose header claims more pixels are not decoded.

    Raises:
        CodecError: and nothing else, whatever the bytes are.
    """
    with _only_codec_errors(data):
        image, orientation = open_image(data, max_pixels)
        rgb, alpha = _planes(image)
        rgb = turn(rgb, orientation)
        alpha = turn(alpha, orientation) if alpha else None
        name = "JPEG" if image.format == "MPO" else str(image.format)
        icc = image.info.get("icc_profile")
        coding = coding_of(image, orientation) if isinstance(image, JpegImagePlugin.JpegImageFile) else None
        pixels, clear = np.array(rgb), None if alpha is None else np.array(alpha)
        grey = image.mode in _GREY or (name == "PNG" and data[25] == 4)  # grey with transparency and 16 bits is RGBA to Pillow
        return Decoded(
            pixels=pixels,
            format=name,
            width=rgb.width,
            height=rgb.height,
            orientation=orientation,
            grey=grey,
            alpha=clear,
            icc=icc if isinstance(icc, bytes) and icc else None,
            jpeg=coding,
            file=data if coding else None,
            lossless=name == "WEBP" and any(kind == b"VP8L" for kind, _ in riff_chunks(data)),
            # this also finds the end of a PNG, which Pillow does not miss
            png_colour=tuple((kind, body) for kind, body in png_chunks(data) if kind in _PNG_COLOUR) if name == "PNG" else (),
            deep=deep.read(data, image, pixels, clear, orientation, grey=grey),
        )


def encode(
    pixels: NDArray[np.uint8],
    like: Decoded,
    *,
    quality: int = 98,
    xmp: bytes | None = XMP,
    stored: NDArray[np.uint8] | None = None,
) -> tuple[bytes, str]:
    """Write pixels in the format of the picture they came from: JPEG, PNG, TIFF and WebP stay what they are, anything else becomes PNG.

    A JPEG keeps its quantisation tables and chroma subsampling, so what was not touched is hardly changed; where turning it upright would
    move the borders of its blocks, it is stored as it was, with its orientation. PNG and TIFF are without loss, and of 16 bits where the
    source is, the untouched samples as they were. A WebP without loss stays so; one with loss becomes so where it could not stay within
    `LOSS` otherwise. Grey stays grey, transparency stays. CMYK becomes RGB, and floats and 32 bits become 8. Of the source's metadata only
    a fitting colour space is kept.

    Args:
        pixels: uint8 (height, width, 3), RGB, upright, of the size of `like`.
        like: the decoded source.
        quality: 1–100, for a JPEG whose source's coding cannot be repeated.
        xmp: the label to put in (`label`), or None.
        stored: of a JPEG, the pixels as `jpeg_samples` gives them, if they are at hand: the source is decoded twice for them.

    Returns:
        The file and its format's name.

    Raises:
        ValueError: when the pixels do not have the source's size or are not uint8.
    """
    if pixels.dtype != np.uint8 or pixels.shape != (like.height, like.width, 3):
        raise ValueError(f"wanted uint8 pixels of shape {(like.height, like.width, 3)}, not {pixels.dtype} {pixels.shape}")
    icc = fitting_profile(like.icc, like.grey)
    if like.format == "JPEG":
        image = _jpeg_image(jpeg_samples(pixels, like) if stored is None else stored, like)
        options = {"icc_profile": icc, "xmp": xmp, "exif": b"Exif\0\0" + exif(like.stored_in) if like.stored_in > 1 else b""}
        try:
            return coded(image, like.jpeg, quality, progressive=like.jpeg is not None and like.jpeg.progressive, **options), "JPEG"
        except OSError:  # with very fine tables Pillow's buffer for progressive files is too small; the pixels are the same without
            return coded(image, like.jpeg, quality, **options), "JPEG"
    if like.format == "WEBP":
        return _webp(pixels, like, icc, xmp), "WEBP"
    samples = like.deep.changed(pixels) if like.deep else None
    if like.format == "TIFF":
        shown = np.atleast_3d(np.asarray(_stored(pixels, like, alpha=True)))
        return tiff.written(shown if samples is None else samples, icc=icc, xmp=xmp), "TIFF"
    if samples is not None:
        chunks = list(like.png_colour)
        if icc:
            chunks.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc)))
        if xmp:
            chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))
        return deep.png(samples, chunks), "PNG"
    info = PngImagePlugin.PngInfo()
    for kind, body in like.png_colour:
        info.add(kind, body)
    if xmp:
        info.add_itxt("XML:com.adobe.xmp", xmp)
    out = io.BytesIO()
    _stored(pixels, like, alpha=True).save(out, "PNG", icc_profile=icc, pnginfo=info)
    return out.getvalue(), "PNG"


def jpeg_samples(pixels: NDArray[np.uint8], like: Decoded) -> NDArray[np.uint8]:
    """Pixels as they are put into a JPEG: in the orientation that it is stored in (`Decoded.stored_in`), and as YCbCr if it has that.

    Args:
        pixels: uint8 (height, width, 3), RGB, upright, of the size of `like`.
        like: as for `encode`; the format is JPEG.

    Returns:
        uint8 (height, width, 3); of grey, as RGB.
    """
    stored = turned(pixels, back(like.stored_in))
    if like.file is None or like.grey or (like.jpeg and like.jpeg.rgb):
        return stored
    return samples(stored, like.file, like.orientation if like.stored_in == 1 else 1)


def encode_part(part: NDArray[np.uint8], like: Decoded, *, quality: int = 98) -> bytes:
    """Part of a JPEG as a baseline JPEG of its own, with nothing but pixels in it.

    A JPEG is coded in units (MCU) of 8 × 8 to 16 × 16 px, none of which depends on another, and whether progressive or not decodes to the
    same. Before that, `jpeg.subsampled` weighs the chroma of neighbours up to 8 px away. So a part whose corners lie on multiples of 16 px
    or on the picture's border has, but for its outermost units at a border that is not the picture's, the same coefficients as it has in
    what `encode` writes of the whole picture.

    Args:
        part: uint8 (height, width, 3), of `jpeg_samples`.
        like, quality: as for `encode`; the format is JPEG.
    """
    return coded(_jpeg_image(part, like), like.jpeg, quality)


def _jpeg_image(part: NDArray[np.uint8], like: Decoded) -> Image.Image:
    """Some of `jpeg_samples` as a picture that Pillow codes as they are meant."""
    if like.file is None or like.grey or (like.jpeg and like.jpeg.rgb):
        return _stored(part, like)
    return Image.fromarray(np.ascontiguousarray(part), "YCbCr")


def _webp(pixels: NDArray[np.uint8], like: Decoded, icc: bytes | None, xmp: bytes | None) -> bytes:
    """A WebP as `encode` writes it."""

    def saved(lossless: bool) -> bytes:
        image = _stored(pixels, like, alpha=True)
        if not lossless:
            sharp = Image.fromarray(subsampled(ycc(np.asarray(image.convert("RGB"))), 2), "YCbCr").convert("RGB")
            if like.alpha is not None:
                sharp.putalpha(Image.fromarray(like.alpha))
            image = sharp
        out = io.BytesIO()
        # exact: what is under transparency would be thrown away
        image.save(out, "WEBP", icc_profile=icc, xmp=xmp or b"", quality=80 if lossless else 100, lossless=lossless, exact=True)
        return out.getvalue()

    if not like.lossless:
        file = saved(False)
        with Image.open(io.BytesIO(file), formats=("WEBP",)) as image:
            off = np.asarray(image.convert("RGB")).astype(np.int16) - pixels
        if 10 * np.log10(255**2 / max(float(np.square(off, dtype=np.float32).mean()), 1e-9)) >= LOSS:
            return file
    return saved(True)


def open_image(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[Image.Image, int]:
    """The loaded picture in the file's own mode, not turned, and its EXIF orientation (1–8).

    Raises:
        CodecError: and nothing else, whatever the bytes are.
    """
    if not data:
        raise CodecError("empty", "the file is empty")
    if found := bomb(data):
        raise CodecError("too_large", f"a bomb: {found}")
    with _only_codec_errors(data):
        # Pillow refuses at twice its own limit; whoever sets a higher one here means it.
        if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
            Image.MAX_IMAGE_PIXELS = max_pixels
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > max_pixels:
            raise CodecError("too_large", f"{image.width} × {image.height} pixels are more than the limit of {max_pixels}")
        # Any picture in the file may hold a face. Those after an MPO's first are cut off instead.
        if image.format != "MPO" and getattr(image, "is_animated", False):
            raise CodecError("animated", f"this {image.format} holds several pictures (frames or pages); split it into single pictures")
        image.load()
        return image, orientation_of(image)


def is_profile(icc: bytes) -> bool:
    """Whether these are an ICC profile and nothing after it (ICC.1, 7.2: size and signature; up to 3 bytes of padding)."""
    return len(icc) >= 132 and icc[36:40] == b"acsp" and 0 <= len(icc) - int.from_bytes(icc[:4], "big") < 4


def fitting_profile(icc: bytes | None, grey: bool) -> bytes | None:
    """The ICC profile if it is one that describes grey or RGB pixels, whichever these are: that of a CMYK source does not."""
    return icc if icc and is_profile(icc) and icc[16:20] == (b"GRAY" if grey else b"RGB ") else None


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """The chunks of a PNG up to IEND as (kind, payload); checksums are not looked at.

    Raises:
        CodecError: `truncated` if it ends before IEND.
    """
    chunks: list[tuple[bytes, bytes]] = []
    at = 8
    while not chunks or chunks[-1][0] != b"IEND":
        if at + 12 > len(data):
            raise CodecError("truncated", "the PNG ends before its IEND chunk")
        length, kind = struct.unpack_from(">I4s", data, at)
        if at + 12 + length > len(data):
            raise CodecError("truncated", f"the PNG ends within its {kind!r} chunk")
        chunks.append((kind, data[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def riff_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """The chunks of a WebP within its declared size as (kind, payload).

    Raises:
        CodecError: `truncated` if the file is shorter than it declares, `corrupt` if a chunk reaches beyond the declared size.
    """
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise CodecError("truncated", "the WebP is shorter than it says")
    chunks: list[tuple[bytes, bytes]] = []
    at = 12
    while at < end:
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if at + 8 + size > end:
            raise CodecError("corrupt", "a chunk of the WebP reaches beyond its end")
        chunks.append((data[at : at + 4], data[at + 8 : at + 8 + size]))
        at += 8 + size + size % 2
    return chunks


def _stored(pixels: NDArray[np.uint8], like: Decoded, *, alpha: bool = False) -> Image.Image:
    """Pixels in the mode that `encode` stores, with transparency if there is any and it is wanted."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image = image.convert("L") if like.grey else image
    if alpha and like.alpha is not None:
        image.putalpha(Image.fromarray(like.alpha))
    return image


@contextmanager
def _only_codec_errors(data: bytes) -> Iterator[None]:
    """Turn whatever Pillow raises over broken bytes into a CodecError, and silence its warnings about them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except CodecError:
        raise
    except (Image.DecompressionBombError, MemoryError) as error:
        raise CodecError("too_large", f"the picture does not fit into memory or its limit: {error}") from error
    except UnidentifiedImageError as error:
        if _SIGNATURE.match(data):
            if _ends_early(data):
                raise CodecError("truncated", "the file ends within its header") from error
            raise CodecError("corrupt", "the file begins like a picture but its header is broken or of an unknown variant") from error
        if _FOREIGN.match(data):
            raise CodecError(
                "unsupported_format", f"a picture or document of a format that is not read; convert it to one of {FORMATS}"
            ) from error
        raise CodecError("not_an_image", "the file is not a picture") from error
    except Exception as error:  # plugins raise nearly anything: OSError, SyntaxError, struct.error, OverflowError, RecursionError, …
        short = _CUT_SHORT.search(str(error)) or (data[:4] == b"RIFF" and _ends_early(data))
        raise CodecError("truncated" if short else "corrupt", f"the picture cannot be decoded: {error}") from error


def _ends_early(data: bytes) -> bool:
    """Whether a file that cannot be read lacks its end, as far as its first bytes tell how to know."""
    if data[:4] == b"RIFF":
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    end = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PN": b"IEND"}.get(data[:3], b"")
    return end not in data


def _planes(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The picture as 8-bit RGB without regard to transparency, and its alpha plane."""
    if image.mode in ("RGBa", "La"):
        image = image.convert(image.mode.upper())
    if image.mode[0] in "IF":
        values = np.asarray(image)
        clear = image.info.get("transparency")
        alpha = Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)) if isinstance(clear, int) else None
        return Image.fromarray(_eight_bits(values)).convert("RGB"), alpha
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    return image.convert("RGB"), alpha


def _eight_bits(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Grey values of more than 8 bits scaled to 0–255: from the usual range that they fit into, or else from their own."""
    grey = np.nan_to_num(values.astype(np.float32), posinf=0, neginf=0)
    low, high = float(grey.min()), float(grey.max())
    # Sensors of 10 or 12 bits are often stored in 16: taken for 16 they would be black, and no face be found in them.
    tops = (1.0, 255.0, 65535.0) if values.dtype.kind == "f" else (255.0, 511.0, 1023.0, 2047.0, 4095.0, 65535.0)
    top = next((top for top in tops if low >= 0 and high <= top), None)
    low, high = (0.0, top) if top else (low, high)
    return np.asarray(np.rint((grey - low) * (255 / max(high - low, 1e-30))), np.uint8)
