"""Contact sheets: grids of small pictures with captions."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from mfmc_ray.faces.faces import F32, Image

_GAP = 10  # px
_CAPTION, _LINE = 20, 15  # px: a caption of one line, each further one
_PAPER, _INK, _HOLLOW = (250, 250, 248), (70, 72, 76), (226, 226, 222)


def thumbnail(image: Image, side: int) -> Image:
    """The picture scaled down (never up) so that its longer side is at most `side` px."""
    scale = side / max(image.shape[:2])
    if scale >= 1:
        return image
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def face_crop(image: Image, box: Sequence[float] | F32, *, margin: float = 0.35, side: int = 160) -> Image:
    """A face with its surroundings as a square tile.

    Args:
        image: uint8 (h, w, 3) RGB.
        box: x0 y0 x1 y1 in px; may reach beyond the border.
        margin: added on each side, in box sides; less where the picture has no more.
        side: px, of the tile.

    Returns:
        uint8 (side, side, 3); grey where the picture is smaller than the face.
    """
    x0, y0, x1, y1 = (float(v) for v in box)
    height, width = image.shape[:2]
    face = max(x1 - x0, y1 - y0, 1)
    half = min(face * (0.5 + margin), max(face, min(height, width)) / 2)
    scale = side / (2 * half)
    # moved into the picture where it is large enough
    left, top = (
        min(max(c - half, 0), n - 2 * half) if n >= 2 * half else c - half for c, n in (((x0 + x1) / 2, width), ((y0 + y1) / 2, height))
    )
    # only what the tile shows is scaled, with area averaging: a plain warp would alias large faces
    crop = image[max(0, round(top)) : min(height, round(top + 2 * half)), max(0, round(left)) : min(width, round(left + 2 * half))]
    tile = np.full((side, side, 3), _HOLLOW, np.uint8)
    if crop.size == 0:
        return tile
    y, x = (max(0, round((max(0, round(v)) - v) * scale)) for v in (top, left))
    h, w = (min(max(1, round(n * scale)), side - at) for n, at in zip(crop.shape[:2], (y, x), strict=True))
    if h > 0 and w > 0:
        tile[y : y + h, x : x + w] = cv2.resize(crop, (w, h), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    return tile


def contact_sheet(
    tiles: Sequence[Image], columns: int = 6, tile_px: int = 160, labels: Sequence[str | tuple[str, ...]] | None = None
) -> Image:
    """A grid of pictures on light paper, each fitted into a square, with a caption below.

    Args:
        tiles: uint8 (h, w, 3) RGB of any sizes.
        columns: at least 1.
        tile_px: side of a square, px.
        labels: as many as tiles, one line or several, each shortened to the tile's width; None: no captions.

    Returns:
        uint8 (h, w, 3) RGB; an empty sheet for no tiles.

    Raises:
        ValueError: if there are not as many labels as tiles.
    """
    if labels is not None and len(labels) != len(tiles):
        raise ValueError(f"{len(labels)} labels for {len(tiles)} tiles: give one for each")
    columns = max(1, min(columns, len(tiles) or 1))
    rows = -(-len(tiles) // columns)
    captions = [(label,) if isinstance(label, str) else label for label in labels or ()]
    lines = max((len(caption) for caption in captions), default=1)
    step_x, step_y = tile_px + _GAP, tile_px + _GAP + (_CAPTION + (lines - 1) * _LINE if labels is not None else 0)
    sheet = PIL.Image.new("RGB", (columns * step_x + _GAP, rows * step_y + _GAP), _PAPER)
    draw = PIL.ImageDraw.Draw(sheet)
    font = PIL.ImageFont.load_default(size=12)
    for n, tile in enumerate(tiles):
        x, y = _GAP + n % columns * step_x, _GAP + n // columns * step_y
        small = thumbnail(tile, tile_px)
        at = x + (tile_px - small.shape[1]) // 2, y + (tile_px - small.shape[0]) // 2
        sheet.paste(PIL.Image.fromarray(small), at)
        for k, line in enumerate(captions[n] if captions else ()):
            draw.text((x + tile_px / 2, y + tile_px + 4 + k * _LINE), _shorten(line, tile_px, font), fill=_INK, font=font, anchor="ma")
    return np.asarray(sheet, np.uint8)


def faces_sheet(
    faces: Sequence[tuple[Image, Sequence[float] | F32]], columns: int = 8, tile_px: int = 128, labels: Sequence[str] | None = None
) -> Image:
    """A contact sheet of the faces in these pictures: pairs of a picture and a box (x0 y0 x1 y1, px)."""
    return contact_sheet([face_crop(image, box, side=tile_px) for image, box in faces], columns, tile_px, labels)


def _shorten(text: str, width: float, font: PIL.ImageFont.ImageFont | PIL.ImageFont.FreeTypeFont) -> str:
    text = "".join(c if c.isprintable() else "·" for c in text)[-200:]
    if font.getlength(text) <= width:
        return text
    while text and font.getlength("…" + text) > width:
        text = text[1:]  # the end of a path says more than its beginning
    return "…" + text
