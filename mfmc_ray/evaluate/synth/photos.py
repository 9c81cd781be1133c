"""Photos of a person: one style of the generator in other poses, expressions and lights, with an identity on it, as cameras show it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import PIL.Image

from mfmc_ray.evaluate.people import CUT_SIDE, cut_out
from mfmc_ray.evaluate.scenes import compose_scene, lit
from mfmc_ray.evaluate.synth.studio import SIDE, Person, Studio, person_id, small, style_of
from mfmc_ray.faces.faces import F32, Image
from mfmc_ray.faces.mesh import pose
from mfmc_ray.label import label

TRAINED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""The digital source type of a picture that a trained model made (IPTC NewsCodes)."""
XMP = label(TRAINED)
TRIES = 8
"""Looks tried for a photo, until its face is found."""
_MIXED, _MIXED_FINE = 0.22, 0.25
"""How far the coarse and the fine layers move towards another person's: hair, clothes and background, light and colours."""
_ELSEWHERE = 3  # every third photo shows the person from farther off, in a scene
_GARMENTS = ((58, 74, 104), (122, 52, 56), (62, 92, 78), (176, 140, 92), (96, 112, 138), (44, 46, 52))  # RGB


@dataclass(frozen=True)
class Look:
    """How somebody looks in a photo, in standard deviations between portraits; `head` is the seed of what is mixed in, `shade` by how many
    degrees of ITA the skin is lighter than it is."""

    head: int
    yaw: float
    pitch: float
    smile: float
    mouth: float
    side: float
    bright: float
    shade: float


@dataclass(frozen=True)
class Taken:
    """A portrait for a photo: pixels (SIDE, SIDE, 3), exposed for the face as cameras do, and the box of the face, px."""

    image: Image
    box: F32


@dataclass(frozen=True)
class Camera:
    """What a camera makes of a picture.

    Attributes:
        roll: degrees.
        zoom: the share of the picture's side that is in the photo.
        x, y: where, 0–1.
        exposure: factor on mid-tones.
        warmth: factor on red over blue.
        blur: σ, px of the photo.
        noise: σ, 0–255.
        quality: of the JPEG.
    """

    roll: float
    zoom: float
    x: float
    y: float
    exposure: float
    warmth: float
    blur: float
    noise: float
    quality: int


def drawn_look(rng: np.random.Generator, calm: bool) -> Look:
    """A random look; a calm one is nearly that of a passport."""
    reach = 0.3 if calm else 1.0
    yaw, pitch, smile, mouth, side, bright = (rng.uniform(-1, 1, 6) * reach * (2.2, 1.2, 1.2, 0.8, 1.3, 1.0)).tolist()
    return Look(int(rng.integers(2**40)), yaw, pitch, smile, mouth, side, bright, float(rng.uniform(-4, 4)))


def drawn_camera(rng: np.random.Generator) -> Camera:
    """A random camera."""
    roll, zoom = float(rng.uniform(-9, 9)), float(rng.uniform(0.92, 1.0))
    x, y = (float(v) for v in rng.uniform(0, 1, 2))
    exposure, warmth = (float(np.exp(v)) for v in rng.uniform((-0.04, -0.05), (0.04, 0.05)))
    blur = float(rng.choice([0.0, 0.0, 0.5, 0.9]))
    return Camera(roll, zoom, x, y, exposure, warmth, blur, float(rng.uniform(0.5, 3.5)), int(rng.integers(72, 96)))


def take(studio: Studio, person: Person, look: Look) -> Taken | None:
    """The person with this look; None if not exactly one face is seen."""
    style, other = style_of(person), studio.generator.style(look.head)
    posed = studio.latent.moved(style, {"yaw": look.yaw, "pitch": look.pitch, "smile": look.smile})
    coarse = (1 - _MIXED) * posed + _MIXED * other
    middle = studio.latent.moved(style, {"yaw": look.yaw / 2, "smile": look.smile, "mouth": look.mouth, "side": look.side})
    fine = studio.latent.moved(style, {"side": look.side, "bright": look.bright})
    fine = (1 - _MIXED_FINE) * fine + _MIXED_FINE * other
    # colours come with what is mixed in, and skin with them
    tones = [studio.latent.read(s)["tone"] for s in (style, fine)]
    fine = studio.latent.moved(fine, {"tone": (tones[0] - tones[1]) / studio.latent.spread("tone")})
    image = small(studio.generator.render(middle, coarse.astype(np.float32), fine))
    seen = studio.face(image)
    if seen is None:
        return None
    image = studio.worn(image, seen, person)
    exposure = studio.exposure(image, seen, person.ita + look.shade)
    return Taken(np.asarray(lit(image.astype(np.float32), exposure) + 0.5, np.uint8), seen.box)


def _in_scene(person: F32, box: F32, rng: np.random.Generator) -> Image:
    """Somebody who was cut out, in another place: uint8 (side, side, 3), head and shoulders."""
    size = float(rng.uniform(190, 260))
    scene, (place,) = compose_scene([person], size, rng, level=False)
    x0, y0, x1, _ = place.box(box)
    side = min(int(rng.uniform(2.4, 3.2) * (x1 - x0)), *scene.shape[:2])
    left = int(np.clip((x0 + x1) / 2 - side * rng.uniform(0.4, 0.6), 0, scene.shape[1] - side))
    top = int(np.clip(y0 - side * rng.uniform(0.22, 0.3), 0, len(scene) - side))
    return scene[top : top + side, left : left + side]


def shot(image: Image, camera: Camera, size: int, rng: np.random.Generator) -> Image:
    """A picture as this camera shows it, its longer side `size` px: uint8 (h, w, 3) RGB."""
    height, width = image.shape[:2]
    scale = size / (camera.zoom * max(height, width))
    out = round(camera.zoom * width * scale), round(camera.zoom * height * scale)
    if scale < 1:  # or the warp would alias
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.45 / scale), np.uint8)
    turn: Any = cv2.getRotationMatrix2D((width / 2, height / 2), -camera.roll, scale)
    centre = (camera.zoom + np.array([camera.x, camera.y]) * 2 * (1 - camera.zoom)) / 2 * (width, height)
    turn[:, 2] += np.array(out) / 2 - turn @ np.array([*centre, 1])
    pixels: Any = cv2.warpAffine(image, turn, out, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101).astype(np.float32)
    if camera.blur:
        pixels = cv2.GaussianBlur(pixels, (0, 0), camera.blur * size / 512)
    warm = np.array([camera.warmth**0.5, 1, camera.warmth**-0.5], np.float32)
    pixels = lit(pixels * warm, camera.exposure) + rng.normal(0, camera.noise, (*pixels.shape[:2], 1)).astype(np.float32)
    return np.asarray(np.clip(pixels + 0.5, 0, 255), np.uint8)


def encoded(image: Image, quality: int) -> bytes:
    """A JPEG file that says that a trained model made it."""
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, "JPEG", quality=quality, xmp=XMP)
    return file.getvalue()


def cut(taken: Taken, garment: int) -> tuple[F32, F32]:
    """The person without the background, as `cut_out`, and the box of the face in px of its portrait."""
    large = np.asarray(cv2.resize(taken.image, (1024, 1024), interpolation=cv2.INTER_CUBIC), np.uint8)
    return cut_out(large, _GARMENTS[garment % len(_GARMENTS)]), np.asarray(taken.box * (CUT_SIDE / SIDE), np.float32)


def photo(studio: Studio, person: Person, number: int, size: int) -> tuple[bytes, dict[str, Any]]:
    """Photo number so-and-so of a person.

    Returns:
        The file, and what is true of it: rows of `tables.PHOTOS` without the path, with `box`.

    Raises:
        RuntimeError: no look was found in which the face is.
    """
    for n in range(TRIES):
        rng = np.random.default_rng([0x70686F74, studio.seed, person.number, number, n])
        look, camera = drawn_look(rng, number == 0 or n == TRIES - 1), drawn_camera(rng)
        taken = take(studio, person, look)
        if taken is None:
            continue
        image, elsewhere = taken.image, number % _ELSEWHERE == _ELSEWHERE - 1
        if elsewhere:
            image = _in_scene(*cut(taken, person.number + number), rng)
        image = shot(image, camera, size, rng)
        data = encoded(image, camera.quality)
        seen = studio.face(decoded(data))
        if seen is None:
            continue
        yaw, pitch, roll = (float(v) for v in pose(seen.mesh[None])[0])
        about = {"person": person_id(person.number), "head_seed": look.head, "place": "scene" if elsewhere else "portrait"}
        about |= {"yaw": yaw, "pitch": pitch, "roll": roll, "smile": look.smile, "side_light": look.side, "exposure": camera.exposure}
        about |= {"warmth": camera.warmth, "blur": camera.blur, "noise": camera.noise, "quality": camera.quality}
        about |= {"width": image.shape[1], "height": image.shape[0], "box": [float(v) for v in seen.box]}
        return data, about
    raise RuntimeError(f"no photo {number} of person {person.number} shows a face")


def decoded(data: bytes) -> Image:
    """The pixels of a file that was just made: uint8 (h, w, 3) RGB."""
    return np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB"))
