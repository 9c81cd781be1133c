"""Things drawn before mouths on textures of faces: masks, scarves, hands, microphones, food; and worse photos of them.

Textures are uint8 (PAGE, PAGE, 3) RGB.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mfmc_ray.swap.cover import PAGE

COVERED, FREE = 0.7, 0.1
"""Shares of the lips behind something that is drawn: from the first on a mouth is covered, up to the second it is not."""
ZOOM = 2

F32 = NDArray[np.float32]
Texture = NDArray[np.uint8]
Rng = np.random.Generator


def clouds(rng: Rng, across: float, down: float) -> F32:
    """Smooth noise (side, side) of a deviation of about 1, with lumps so many texels wide and high."""
    coarse = tuple(max(4, round(PAGE / max(one, 0.5))) for one in (across, down))
    noise = rng.standard_normal(coarse[::-1]).astype(np.float32)
    return np.asarray(1.2 * cv2.resize(noise, (PAGE * ZOOM, PAGE * ZOOM), interpolation=cv2.INTER_CUBIC), np.float32)


def filled(points: NDArray[np.float64]) -> F32:
    page = np.zeros((PAGE * ZOOM, PAGE * ZOOM), np.uint8)
    cv2.fillPoly(page, [np.round(points * ZOOM).astype(np.int32)], 1)
    return page.astype(np.float32)


def skin_of(page: F32) -> F32:
    """A face's colour, (3,), of a page (side, side, 3)."""
    return np.asarray(np.median(page[20 * ZOOM : 44 * ZOOM, 54 * ZOOM : 74 * ZOOM].reshape(-1, 3), 0), np.float32)


def cloth_colour(rng: Rng, skin: F32) -> F32:
    """Masks are blue, green, white, black, grey, pink, like skin, or anything."""
    usual = np.array([[150, 195, 225], [120, 190, 180], [235, 235, 235], [30, 30, 33], [110, 110, 115], [225, 175, 190]], np.float32)
    kind = rng.random()
    if kind < 0.6:
        chosen = usual[rng.choice(6, p=[0.22, 0.14, 0.26, 0.22, 0.1, 0.06])] * rng.uniform(0.75, 1.15)
    elif kind < 0.78:
        chosen = skin * rng.uniform(0.6, 1.35)
    else:
        chosen = rng.uniform(10, 245, 3)
    bright = float(np.clip(skin.mean() / 150, 0.35, 1.15)) ** rng.uniform(0.3, 1)
    return np.asarray(np.clip(chosen * rng.uniform(0.93, 1.07, 3) * bright, 3, 250), np.float32)


def lit(page: F32, how: float) -> F32:
    """The face's own light and shade, (side, side, 1), about 1."""
    small = cv2.GaussianBlur(cv2.resize(page, (32, 32), interpolation=cv2.INTER_AREA).mean(2), (0, 0), 3)
    light = cv2.resize(small, page.shape[1::-1], interpolation=cv2.INTER_LINEAR) + 8
    return np.asarray((light / np.median(light))[:, :, None] ** how, np.float32)


def painted(rng: Rng, base: F32) -> F32:
    """A piece of cloth (side, side, 3) of this colour, perhaps with a pattern."""
    side = PAGE * ZOOM
    cloth = np.broadcast_to(base, (side, side, 3)).astype(np.float32).copy()
    kind, other = rng.random(), rng.uniform(5, 245, 3).astype(np.float32)
    if kind < 0.12:  # blotches
        level = clouds(rng, rng.uniform(1.5, 6), rng.uniform(1.5, 6))
        cloth = np.where((level > rng.uniform(0, 1))[:, :, None], other, cloth)
    elif kind < 0.18:  # stripes
        y, x = np.mgrid[:side, :side] / ZOOM
        turn = rng.uniform(0, np.pi)
        stripe = np.sin((x * np.cos(turn) + y * np.sin(turn)) * rng.uniform(0.4, 2)) > rng.uniform(-0.5, 0.8)
        cloth = np.where(stripe[:, :, None], other, cloth)
    elif kind < 0.26:  # writing or a badge
        x, y, w, h = rng.uniform(35, 90), rng.uniform(75, 115), rng.uniform(6, 26), rng.uniform(1.5, 10)
        shape = np.zeros((side, side), np.uint8)
        cv2.ellipse(shape, (int(x * ZOOM), int(y * ZOOM)), (int(w * ZOOM), int(h * ZOOM)), rng.uniform(-20, 20), 0, 360, 1, -1)
        if rng.random() < 0.5:
            shape[:, :: int(rng.integers(3, 8))] = 0
        cloth = np.where((shape > 0)[:, :, None], other, cloth)
    elif kind < 0.34:  # a valve
        x, y, r = rng.uniform(50, 95), rng.uniform(80, 108), rng.uniform(5, 10)
        shape = np.zeros((side, side), np.uint8)
        cv2.circle(shape, (int(x * ZOOM), int(y * ZOOM)), int(r * ZOOM), 1, -1)
        cloth = np.where((shape > 0)[:, :, None], base * rng.uniform(0.6, 1.3), cloth)
    return cloth


def mask(page: F32, rng: Rng, worn: bool) -> tuple[F32, F32]:
    """A mask or scarf, its colours (side, side, 3) and where it is (side, side); under the chin if it is not worn."""
    side, scarf = PAGE * ZOOM, rng.random() < 0.2
    middle = 63.5 + rng.uniform(-5, 5)
    x = np.linspace(-4, 132, 60)
    off = np.abs(x - middle) / 64
    top = rng.choice([rng.uniform(46, 66), rng.uniform(66, 78)], p=[0.75, 0.25]) if worn else rng.uniform(112, 122)
    drop = rng.uniform(0, 30) if worn else rng.uniform(-25, 5)
    edge = top + drop * off ** rng.uniform(1, 2.5) + rng.uniform(-6, 6) * (x - middle) / 64
    if rng.random() < 0.5 and worn and not scarf:
        edge += rng.uniform(0, 6) * np.exp(-(((x - middle) / 10) ** 2))
    bottom = rng.uniform(116, 140) if worn else 140.0
    sides = (rng.uniform(-4, 12), rng.uniform(116, 132)) if not scarf else (-4, 132)
    chin = bottom - rng.uniform(0, 22) * off**2
    keep = (x >= sides[0]) & (x <= sides[1])
    outline = np.concatenate([np.stack([x, edge], 1)[keep], np.stack([x, np.maximum(chin, edge + 2)], 1)[keep][::-1]])
    where = filled(outline)
    y, xx = np.mgrid[:side, :side].astype(np.float32) / ZOOM
    shade = np.ones((side, side), np.float32)
    u = (xx - middle) / 64
    shade *= 1 - rng.uniform(0, 0.45) * u**2  # round
    shade *= 1 + rng.uniform(-0.25, 0.15) * np.clip((y - 95) / 30, -1, 1)
    if rng.random() < 0.4:  # a seam or ridge in the middle
        shade *= 1 + rng.uniform(-0.2, 0.2) * np.exp(-((u * 64 / rng.uniform(1, 5)) ** 2)) + rng.uniform(-0.15, 0.15) * np.tanh(u * 12)
    if rng.random() < 0.55:  # folds
        bend = rng.uniform(-8, 8)
        for level in rng.uniform(top + 5, bottom, rng.integers(1, 5)):
            off_fold = (y - level - bend * u**2) / rng.uniform(0.6, 2)
            shade *= 1 - rng.uniform(0.05, 0.3) * np.exp(-(off_fold**2)) + rng.uniform(-0.08, 0.08) * np.tanh(off_fold)
    shade *= np.exp(rng.uniform(0, 0.12) * clouds(rng, rng.uniform(2, 10), rng.uniform(1.5, 5)))
    if scarf or rng.random() < 0.2:  # knitted, woven
        turn, fine = rng.uniform(0, np.pi), rng.uniform(0.8, 3)
        shade *= 1 + rng.uniform(0, 0.18) * np.sin((xx * np.cos(turn) + y * np.sin(turn)) * fine + 1.5 * clouds(rng, 8, 8))
    cloth = painted(rng, cloth_colour(rng, skin_of(page))) * shade[:, :, None] * lit(page, rng.uniform(0.3, 1.1))
    if worn and rng.random() < 0.6:
        line = np.zeros((side, side), np.uint8)
        for at, left in ((sides[0], True), (sides[1], False)):
            start = float(np.interp(at, x, edge))
            for _ in range(int(rng.integers(1, 3))):
                end = (-6 if left else 134, rng.uniform(40, 80))
                ends = [(int(a * ZOOM), int(b * ZOOM)) for a, b in ((at + (2 if left else -2), start + 2), end)]
                cv2.line(line, *ends, 1, int(rng.integers(1, 5)))
        strap = (line > 0) & (where == 0)
        cloth[strap] = np.clip(cloth_colour(rng, skin_of(page)), 0, 255)
        where = np.maximum(where, strap)
    return cloth, where


def hand(page: F32, rng: Rng, at: tuple[float, float]) -> tuple[F32, F32]:
    """Fingers, of the face's colour or so, side by side."""
    side = PAGE * ZOOM
    skin = skin_of(page) * rng.uniform(0.75, 1.25) * rng.uniform(0.95, 1.05, 3).astype(np.float32)
    y, x = np.mgrid[:side, :side].astype(np.float32) / ZOOM
    turn, thick = rng.uniform(-np.pi, np.pi), rng.uniform(6, 12)
    if rng.random() < 0.6:
        turn = np.pi / 2 + rng.normal(0, 0.6)  # from below
    along, aside = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    fingers = int(rng.integers(2, 6))
    colour, where = np.zeros((side, side, 3), np.float32), np.zeros((side, side), np.float32)
    for k in rng.permutation(fingers):
        centre = np.array(at) + aside * (k - (fingers - 1) / 2) * thick * rng.uniform(1.5, 2.1)
        tip = centre - along * (rng.uniform(5, 20) + thick)
        u, v = (x - tip[0]) * along[0] + (y - tip[1]) * along[1], (x - tip[0]) * aside[0] + (y - tip[1]) * aside[1]
        far = np.where(u < 0, np.hypot(u, v), np.abs(v)) / thick
        finger, bend = far < 1, rng.uniform(0, 1)
        far = np.minimum(far, 1)
        tone = skin * (1 - rng.uniform(0.25, 0.6) * (far**2 * (bend + (1 - bend) * far**2))[:, :, None])
        tone *= 1 - rng.uniform(0, 0.2) * np.exp(-(((u - rng.uniform(10, 25)) / 1.5) ** 2))[:, :, None]
        colour, where = np.where(finger[:, :, None], tone, colour), np.maximum(where, finger)
    return colour * lit(page, rng.uniform(0, 0.8)), where


def thing(page: F32, rng: Rng, at: tuple[float, float]) -> tuple[F32, F32]:
    """A microphone, bread, cup, telephone: something round or square, perhaps with a handle."""
    side = PAGE * ZOOM
    w, h, turn = rng.uniform(12, 34), rng.uniform(12, 30), rng.uniform(-40, 40)
    shape = np.zeros((side, side), np.uint8)
    centre = (int(at[0] * ZOOM), int(at[1] * ZOOM))
    if rng.random() < 0.65:
        cv2.ellipse(shape, centre, (int(w * ZOOM), int(h * ZOOM)), turn, 0, 360, 1, -1)
    else:
        corners = cv2.boxPoints((centre, (2 * w * ZOOM, 2 * h * ZOOM), turn))
        cv2.fillConvexPoly(shape, np.round(corners).astype(np.int32), 1)
    if rng.random() < 0.5:
        end = (int((at[0] + rng.normal(0, 30)) * ZOOM), side + 10)
        cv2.line(shape, centre, end, 1, int(rng.uniform(6, 24) * ZOOM))
    usual = np.array([[25, 25, 28], [150, 150, 155], [200, 150, 80], [120, 70, 35], [235, 230, 220], [200, 60, 45]], np.float32)
    base = usual[rng.integers(6)] * rng.uniform(0.6, 1.2) if rng.random() < 0.8 else rng.uniform(5, 245, 3).astype(np.float32)
    bright = float(np.clip(skin_of(page).mean() / 150, 0.4, 1.1))
    y, x = np.mgrid[:side, :side].astype(np.float32) / ZOOM
    round_ = 1 + rng.uniform(-0.5, 0.1) * ((x - at[0]) ** 2 / w**2 + (y - at[1]) ** 2 / h**2).clip(0, 1.5)
    grain = np.exp(rng.uniform(0, 0.25) * clouds(rng, rng.uniform(0.5, 4), rng.uniform(0.5, 4)))
    colour = painted(rng, np.asarray(base * bright, np.float32)) * (round_ * grain)[:, :, None]
    return colour * lit(page, rng.uniform(0, 0.8)), shape.astype(np.float32)


def with_object(texture: Texture, rng: Rng, lips: NDArray[np.bool_], over: bool) -> Texture:
    """The texture with something drawn over the mouth, or near it."""
    page = cv2.resize(texture, (PAGE * ZOOM, PAGE * ZOOM), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    for _ in range(12):
        kind = rng.random()
        if kind < (0.6 if over else 0.35):
            colour, where = mask(page, rng, over)
        else:
            if over:
                at = (63.5 + rng.normal(0, 6), 94 + rng.normal(0, 6))
            else:
                turn = rng.uniform(-0.4, np.pi + 0.4)
                at = (63.5 + np.cos(turn) * rng.uniform(38, 66), 88 + np.sin(turn) * rng.uniform(34, 50))
            colour, where = (hand if kind < 0.82 else thing)(page, rng, at)
        share = float(np.asarray(cv2.resize(where, (PAGE, PAGE), interpolation=cv2.INTER_AREA))[lips].mean())
        if (share >= COVERED) if over else (share <= FREE):
            break
    else:
        return texture if not over else with_object(texture, rng, lips, over)
    shadow = np.roll(where, (int(rng.uniform(-3, 3) * ZOOM), int(rng.uniform(-3, 3) * ZOOM)), (0, 1))
    page *= 1 - rng.uniform(0, 0.4) * cv2.GaussianBlur(shadow, (0, 0), rng.uniform(1, 3) * ZOOM)[:, :, None]
    soft = cv2.GaussianBlur(where, (0, 0), rng.uniform(0.3, 1) * ZOOM)[:, :, None]
    page = page * (1 - soft) + np.clip(colour, 0, 255) * soft
    return np.asarray(np.clip(cv2.resize(page, (PAGE, PAGE), interpolation=cv2.INTER_AREA), 0, 255), np.uint8)


def with_beard(texture: Texture, rng: Rng, lips: NDArray[np.bool_]) -> Texture:
    """The texture with a beard around the lips."""
    y, x = np.mgrid[:PAGE, :PAGE].astype(np.float32)
    u = np.abs(x - 63.5)
    level = rng.uniform(72, 82) + rng.uniform(0, 12) * np.exp(-(((u - 32) / 12) ** 2)) - rng.uniform(0, 25) * np.clip((u - 40) / 24, 0, 1)
    if rng.random() < 0.3:
        level = np.where(u > rng.uniform(22, 34), 200, level)
    strand = cv2.GaussianBlur(rng.standard_normal((PAGE, PAGE)).astype(np.float32), (0, 0), 0.8)
    strand = strand / strand.std()
    free = cv2.dilate(lips.astype(np.uint8), np.ones((3, 3), np.uint8)) if rng.random() < 0.8 else lips.astype(np.uint8) * 0
    beard = cv2.GaussianBlur(((y > level) & (free == 0)).astype(np.float32), (0, 0), rng.uniform(1, 3))
    beard = (beard * rng.uniform(0.4, 0.95))[:, :, None]
    colours = np.array([[25, 20, 18], [60, 40, 28], [120, 80, 50], [150, 148, 145], [210, 208, 205]], np.float32)
    hair = (
        colours[rng.integers(5)]
        * float(np.clip(skin_of_small(texture) / 150, 0.3, 1.1))
        * np.exp(rng.uniform(0.1, 0.4) * strand)[:, :, None]
    )
    return np.asarray(np.clip(texture * (1 - beard) + hair * beard, 0, 255), np.uint8)


def skin_of_small(texture: Texture) -> float:
    return float(np.median(texture[20:44, 54:74]))


def with_open_mouth(texture: Texture, rng: Rng) -> Texture:
    """The texture with a dark or toothy mouth, which sings or laughs."""
    at, (w, h) = (int(63.5 + rng.uniform(-3, 3)), int(96 + rng.uniform(-5, 5))), (int(rng.uniform(8, 20)), int(rng.uniform(3, 13)))
    page, inner = texture.astype(np.float32), np.zeros((PAGE, PAGE), np.float32)
    cv2.ellipse(inner, at, (w, h), rng.uniform(-8, 8), 0, 360, 1, -1)
    rim = cv2.GaussianBlur(cv2.dilate(inner, np.ones((5, 5))), (0, 0), 1)[:, :, None] * rng.uniform(0.2, 0.9)
    page = page * (1 - rim) + rim * page * rng.uniform([0.7, 0.4, 0.4], [1.1, 0.8, 0.8])
    soft = cv2.GaussianBlur(inner, (0, 0), rng.uniform(0.6, 1.5))[:, :, None]
    dark = np.broadcast_to(skin_of_small(texture) * rng.uniform(0.1, 0.5) * np.array([1, 0.6, 0.55]), page.shape).copy()
    teeth = int(at[1] - h + rng.uniform(0.3, 1.6) * h)
    if rng.random() < 0.6:
        dark[:teeth] = skin_of_small(texture) * rng.uniform(0.8, 1.5)
    return np.asarray(np.clip(page * (1 - soft) + dark * soft, 0, 255), np.uint8)


def turned(texture: Texture, rng: Rng) -> Texture:
    """The texture of a face that looks to the right, in profile or nearly: what is behind it shows beyond its outline."""
    side = PAGE
    y, x = np.mgrid[:side, :side].astype(np.float32)
    outline = rng.uniform(36, 92) + rng.uniform(-2, 8) * np.exp(-(((y - 70) / 9) ** 2)) + rng.uniform(-8, 12) * ((y - 80) / 50) ** 2
    outline = np.asarray(outline + rng.uniform(-3, 4) * np.exp(-(((y - 96) / 8) ** 2)), np.float32)
    middle, near = rng.uniform(60, 74), np.clip(x / outline, 0, 1) ** rng.uniform(0.8, 1.3)
    texture = np.asarray(cv2.remap(texture, np.asarray(middle * near, np.float32), y, cv2.INTER_LINEAR), np.uint8)
    level = cv2.resize(clouds(rng, rng.uniform(4, 30), rng.uniform(2, 20)), (side, side), interpolation=cv2.INTER_AREA)[:, :, None]
    one, other = rng.uniform(0, 250, 3) ** rng.uniform(0.7, 1), rng.uniform(0, 250, 3)
    mix = np.clip(0.5 + rng.uniform(0, 0.7) * level, 0, 1)
    behind = one * mix + other * (1 - mix)
    beyond = np.clip((x - outline) / rng.uniform(1, 8) + 0.5, 0, 1)[:, :, None]
    return np.asarray(np.clip(texture * (1 - beyond) + behind * beyond, 0, 255), np.uint8)


def recoloured(texture: Texture, rng: Rng) -> Texture:
    """A masked face with the lower part in another colour."""
    y, x = np.mgrid[:PAGE, :PAGE].astype(np.float32)
    ramp = 1 / (1 + np.exp(-(y - rng.uniform(54, 66) - rng.uniform(0, 16) * ((x - 63.5) / 64) ** 2) / 2))[:, :, None]
    gain = np.exp(rng.uniform(-1.6, 0.3) + rng.uniform(-0.25, 0.25, 3))
    return np.asarray(np.clip(texture * (1 - ramp + ramp * gain), 0, 255), np.uint8)


# ---- how it is photographed


def photographed(texture: Texture, rng: Rng) -> Texture:
    """The texture as a worse photo in other light and a mesh that is a little off would give it."""
    page = texture.astype(np.float32)
    y, x = np.mgrid[:PAGE, :PAGE].astype(np.float32) / PAGE - 0.5
    if rng.random() < 0.5:  # light from a side, soft or hard
        turn, hard = rng.normal(0, 0.7) + rng.choice([0, np.pi]), rng.choice([1.0, 3.0, 12.0])
        side = np.tanh(hard * (x * np.cos(turn) + y * np.sin(turn) + rng.uniform(-0.25, 0.25)))
        page *= np.exp(rng.uniform(0, 0.7) * side / (1 if hard > 1 else 0.5))[:, :, None]
    page *= rng.uniform(0.45, 1.25) * np.exp(rng.normal(0, 0.09, 3))
    page = 255 * np.clip(page / 255, 0, 1) ** rng.uniform(0.75, 1.4)
    if (kind := rng.random()) < 0.2:
        grey = page @ np.array([0.299, 0.587, 0.114])
        page = grey[:, :, None] * (np.ones(3) if kind < 0.13 else np.array([1.07, 0.98, rng.uniform(0.6, 0.9)]))
    turn, grown = rng.normal(0, 3), rng.uniform(0.94, 1.06)
    move = cv2.getRotationMatrix2D((63.5, 63.5), turn, grown) + np.array([[0, 0, rng.normal(0, 1.8)], [0, 0, rng.normal(0, 1.8)]])
    page = cv2.warpAffine(page.astype(np.float32), move, (PAGE, PAGE), borderMode=cv2.BORDER_REPLICATE)
    side = int(np.exp(rng.uniform(np.log(20), np.log(150))))
    if side < PAGE:
        page = cv2.resize(page, (side, side), interpolation=cv2.INTER_AREA)
    if rng.random() < 0.3:
        page = cv2.GaussianBlur(page, (0, 0), rng.uniform(0.4, 1.3))
    page += rng.normal(0, rng.choice([0, 2, 5]), page.shape).astype(np.float32)
    small = np.asarray(np.clip(page, 0, 255), np.uint8)
    if rng.random() < 0.6:
        small = cv2.imdecode(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, int(rng.uniform(35, 95))])[1], cv2.IMREAD_COLOR)
    return np.asarray(cv2.resize(small, (PAGE, PAGE), interpolation=cv2.INTER_LINEAR), np.uint8)
