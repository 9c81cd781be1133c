"""A picture with its faces marked, and below it a line for each: what becomes of it, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from mfmc_ray.faces.faces import Image

LEAST_SIDE, MOST_SIDE = 900, 1800
"""px of the longer side, between which the picture is scaled, so that the labels can be read."""
COLOURS = {"kept": (46, 160, 96), "replaced": (52, 128, 196), "redacted": (208, 84, 60)}
_PAPER, _INK, _WHITE = (250, 250, 248), (40, 43, 48), (255, 255, 255)
_FONT, _LINE, _PAD = 18, 28, 14  # px


@dataclass(frozen=True)
class Mark:
    """A face: its box (x0 y0 x1 y1, px), its verdict, and what is said of it below the picture."""

    box: tuple[float, float, float, float]
    verdict: str
    line: str


def draw(image: Image, marks: Sequence[Mark], heading: str) -> Image:
    """The picture with boxes, numbered from 0, and lines below it.

    Args:
        image: uint8 (h, w, 3) RGB.
        marks: the faces, in order.
        heading: of the lines.
    """
    side = max(image.shape[:2])
    scale = min(max(side, LEAST_SIDE), MOST_SIDE) / side
    picture = PIL.Image.fromarray(image).resize((max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))))
    font = PIL.ImageFont.load_default(size=_FONT)
    lines = [heading, *(f"{i}  {mark.line}" for i, mark in enumerate(marks))]
    width = max(picture.width, *(round(font.getlength(line)) + 2 * _PAD for line in lines))
    sheet = PIL.Image.new("RGB", (width, picture.height + len(lines) * _LINE + 2 * _PAD), _PAPER)
    sheet.paste(picture, (0, 0))
    canvas = PIL.ImageDraw.Draw(sheet)
    taken: list[tuple[float, float, float, float]] = []
    for mark in marks:
        x0, y0, x1, y1 = (v * scale for v in mark.box)
        canvas.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=_WHITE, width=5)
        canvas.rectangle((x0, y0, x1, y1), outline=COLOURS[mark.verdict], width=3)
    for i, mark in enumerate(marks):
        x0, y0, _, _ = (v * scale for v in mark.box)
        text = f"{i} {mark.verdict}"
        wide = font.getlength(text) + 12
        x, y = max(0.0, min(x0, picture.width - wide)), max(0.0, y0 - 24)
        while any(x < b[2] and x + wide > b[0] and y < b[3] and y + 24 > b[1] for b in taken) and y + 48 < picture.height:
            y += 24  # not over another one's
        taken.append((x, y, x + wide, y + 24))
        canvas.rectangle(taken[-1], fill=COLOURS[mark.verdict])
        canvas.text((x + 6, y + 2), text, fill=_WHITE, font=font)
    for k, line in enumerate(lines):
        y = picture.height + _PAD + k * _LINE
        colour = _INK if k == 0 else COLOURS[marks[k - 1].verdict]
        canvas.text((_PAD, y), line, fill=colour, font=font)
    return np.asarray(sheet, np.uint8)
