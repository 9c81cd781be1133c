"""Synthetic collections: group pictures composed from generated portraits, and the demo's collection."""

from __future__ import annotations

import io
import itertools
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import skimage.data
from PIL import ExifTags

from mfmc_ray.evaluate.people import CUT_SIDE, NOTICE, PersonGenerator, cut_out
from mfmc_ray.faces.faces import F32, Image

_FACE = 0.57  # √area of the face's box in the generator's framing, in portrait sides
_PORTRAIT_SIDES = (300, 1024, 384, 640, 480, 800)  # px
_FACE_SIZES = (150, 90, 190, 70, 120, 62, 105, 170)  # px, √area of the box, of the groups one after the other
_LEAST_SCENE = (480, 720)  # px, height and width
_GROUP_SIZES = (3, 5, 2, 6, 4, 6, 5, 3)  # people
_GARMENTS = (
    (58, 74, 104),
    (122, 52, 56),
    (214, 210, 200),
    (62, 92, 78),
    (44, 46, 52),
    (176, 140, 92),
    (96, 112, 138),
    (140, 96, 116),
)  # RGB
# Seeds whose people do not resemble each other (SFace cosine < 0.38; of the first 90, each that was unlike all before it): with look-alikes
# an enrolled person's approval would rightly be refused as ambiguous.
_PEOPLE = (0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 17, 20, 24, 25, 27, 28, 33, 42, 44, 47, 50, 52, 54, 55, 66, 71, 77, 79, 85, 87, 89)
LOOKS = 1_000_000
"""From one collection's seeds of the generator to the next one's; those of other looks follow those of the people."""
_ENROLLED = 4  # people of the collection with gallery pictures

Progress = Callable[[int, int], None]
_samples: Any = skimage.data  # its functions carry no types


@dataclass(frozen=True)
class DemoCollection:
    """Where the demo's pictures are.

    Attributes:
        photos: the collection to anonymize.
        known: the enrolment gallery, one folder a person; the pictures in it are others than the collection's.
        people: photo (relative to `photos`, "/" between) → the people in it, a group's back row first; `known/<person>` has the same names.
        stranger: the one in `known` who is in no photo.
    """

    photos: Path
    known: Path
    people: dict[str, tuple[str, ...]]
    stranger: str


def make_demo_collection(
    folder: str | Path, *, portraits: int = 24, groups: int = 8, seed: int = 0, progress: Progress | None = None
) -> DemoCollection:
    """Writes a small collection of people who do not exist, with all that a real one has: groups, rotated and damaged files, other formats.

    `folder/photos/portraits` are 300–1024 px JPEG, PNG and WebP (some grey, dark, tilted, with an EXIF orientation, with names in the
    metadata), `photos/groups` 2–6 people with faces of 60–200 px, `photos/other` NASA's portrait of Eileen Collins (public domain, the one
    real person) and pictures without a face from scikit-image (CC0 or public domain), `photos/broken` files that are no pictures,
    `folder/known/<person>` the gallery. The people come from NON-COMMERCIAL weights; `folder/README.md` says so. The same arguments give
    the same bytes.

    Args:
        folder: made if absent; files of an earlier call are overwritten.
        portraits: pictures of one person, each of another one.
        groups: pictures of several.
        seed: of people, poses and layouts. With 0 and up to 30 portraits, no two people resemble each other.
        progress: called with (pictures generated, pictures to generate).

    Raises:
        ValueError: if there are groups but fewer than 6 portraits to take the people from.
    """
    if groups and portraits < max(_GROUP_SIZES):
        raise ValueError(f"a group picture needs up to {max(_GROUP_SIZES)} people: ask for at least that many portraits, not {portraits}")
    root = Path(folder)
    photos, known = root / "photos", root / "known"
    for part in ("portraits", "groups", "other", "broken"):
        (photos / part).mkdir(parents=True, exist_ok=True)

    rng = np.random.default_rng(seed)
    sizes = list(itertools.islice(itertools.cycle(_GROUP_SIZES), groups))
    takes = max(-(-sum(sizes) // 2), *sizes, 0)  # a picture of a person stands in at most two groups
    enrolled = min(_ENROLLED, portraits)
    steps = itertools.count(1)
    total = portraits + takes + enrolled + 1

    def tick() -> None:
        if progress is not None:
            progress(next(steps), total)

    generator = PersonGenerator()
    first = seed * LOOKS
    face = partial(portrait_seed, seed=seed)
    people: dict[str, tuple[str, ...]] = {}

    for n in range(portraits):
        name = f"portraits/{n:03d}{_SUFFIXES.get(n % 12, '.jpg')}"
        (photos / name).write_bytes(_portrait_file(generator.portrait(face(n)), n, rng))
        people[name] = (person_name(n),)
        tick()

    cast = _cast(portraits, takes, rng)
    looks = []
    for take, person in enumerate(cast):
        looks.append(cut_out(generator.variation(face(person), first + 100_000 + take), _GARMENTS[take % len(_GARMENTS)]))
        tick()
    for n, chosen in enumerate(_casting(cast, sizes, rng)):
        name = f"groups/{n:03d}.jpg"
        scene = compose_group([looks[take] for take in chosen], _FACE_SIZES[n % len(_FACE_SIZES)], rng)
        (photos / name).write_bytes(_encode(scene, quality=92))
        people[name] = tuple(person_name(cast[take]) for take in chosen)

    stranger = person_name(portraits)
    for n in [*range(enrolled), portraits]:
        _enrol(known / person_name(n), generator.variation(face(n), first + 200_000 + n), rng)
        tick()

    _write_others(photos)
    _write_broken(photos)
    (root / "README.md").write_text(_README)
    return DemoCollection(photos, known, people, stranger)


def portrait_seed(person: int, seed: int = 0) -> int:
    """The generator's seed of person number so-and-so; with 0 the first 31 do not resemble each other."""
    return seed * LOOKS + (_PEOPLE[person] if person < len(_PEOPLE) else 100 + person)


def person_name(number: int) -> str:
    """What person `number` of a demo is called."""
    return f"person-{number:02d}"


_SUFFIXES = {2: ".png", 9: ".webp"}


def _portrait_file(image: Image, n: int, rng: np.random.Generator) -> bytes:
    """One of twelve treatments that a real collection's pictures have had."""
    side = _PORTRAIT_SIDES[n % len(_PORTRAIT_SIDES)]
    treatment = n % 12
    if treatment == 11:
        image = _tilt(image, float(rng.choice([-1, 1]) * rng.uniform(15, 30)))
    margin = int(rng.uniform(0, 0.12) * len(image))
    x, y = (int(v) for v in rng.integers(0, margin + 1, 2))
    image = image[y : y + len(image) - margin, x : x + len(image) - margin]
    tall = n % 4 != 1  # the others stay square
    if tall:
        cut = len(image) // 10
        image = image[:, cut : image.shape[1] - cut]
    image = _shrink(image, int(side * image.shape[1] / len(image)), side)
    if treatment == 3:
        return _encode(PIL.Image.fromarray(image).convert("L"))
    if treatment == 5:
        return _encode(_expose(image, 0.35))
    if treatment == 8:
        return _encode(_expose(image, 1.5))
    if treatment == 7:
        exif = PIL.Image.Exif()
        exif[ExifTags.Base.Orientation] = 6  # shown a quarter turn clockwise of what is stored
        return _encode(np.rot90(image), exif=exif)
    if treatment == 4:
        exif = PIL.Image.Exif()
        exif[ExifTags.Base.ImageDescription] = f"{person_name(n)} at home"
        exif[ExifTags.Base.Make], exif[ExifTags.Base.DateTime] = "Camera", "2026:08:14 18:03:22"
        exif[ExifTags.IFD.GPSInfo] = {1: "N", 2: (47.0, 22.0, 1.0), 3: "E", 4: (8.0, 32.0, 30.0)}
        return _encode(image, exif=exif, xmp=_XMP.format(name=person_name(n)).encode())
    return _encode(image, {2: "PNG", 9: "WEBP"}.get(treatment, "JPEG"))


_XMP = (
    '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"><Iptc4xmpExt:PersonInImage><rdf:Bag><rdf:li>{name}</rdf:li></rdf:Bag>'
    '</Iptc4xmpExt:PersonInImage></rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)


def _cast(people: int, takes: int, rng: np.random.Generator) -> list[int]:
    """Who is in each picture taken for the groups: everybody about equally often."""
    order = itertools.chain.from_iterable(rng.permutation(people) for _ in range(-(-takes // people)))
    return [int(person) for person in itertools.islice(order, takes)]


def _casting(cast: Sequence[int], sizes: Sequence[int], rng: np.random.Generator) -> Iterator[list[int]]:
    """For each group the takes that stand in it: each take at most twice, nobody twice in a group."""
    left = [2] * len(cast)
    for size in sizes:
        order = sorted(range(len(cast)), key=lambda take: (-left[take], rng.random()))
        chosen: list[int] = []
        for take in order:
            if left[take] and len(chosen) < size and cast[take] not in {cast[c] for c in chosen}:
                chosen.append(take)
                left[take] -= 1
        yield chosen


@dataclass(frozen=True)
class Place:
    """Where a cut-out stands in a scene.

    Attributes:
        x, y: px of the scene, the upper end of its middle line.
        scale: px of the scene for one of the cut-out.
    """

    x: float
    y: float
    scale: float

    def box(self, box: F32) -> F32:
        """Where a box x0 y0 x1 y1 in px of the portrait, `CUT_SIDE` wide, lies in the scene: float32 (4,), px."""
        shift = np.array([self.x - self.scale * CUT_SIDE / 2, self.y] * 2)
        return np.asarray(self.scale * box + shift, np.float32)


def compose_group(people: Sequence[F32], face_size: float, rng: np.random.Generator) -> Image:
    """The picture of `compose_scene`."""
    return compose_scene(people, face_size, rng)[0]


def compose_scene(people: Sequence[F32], face_size: float, rng: np.random.Generator, *, level: bool = True) -> tuple[Image, list[Place]]:
    """A group picture: up to three people in a row, more in two rows, the front one covering the other.

    Args:
        people: 1–6 cut-outs, from left to right, the back row first.
        face_size: px, about, √area of the boxes of the faces.
        rng: decides background, places and light.
        level: light them as if all had been in the same light; it takes dark skin for a shadow.

    Returns:
        uint8 (h, w, 3) RGB, and where each of the people is.
    """
    side = face_size / _FACE
    back = len(people) // 2 if len(people) > 3 else 0
    rows = [people[:back], people[back:]] if back else [people]
    spacing = 0.86 * side
    tall = side * (1.62 + (0.78 if back else 0))
    height = max(round(tall), _LEAST_SCENE[0])
    width = round(max(_LEAST_SCENE[1], max(len(row) for row in rows) * spacing + 0.9 * side, height * rng.uniform(1.2, 1.4)))
    scene = _background(height, width, rng)
    tones = [float(np.median(p[270:330, p.shape[1] // 2 - 60 : p.shape[1] // 2 + 60, :3])) for p in people]
    target = float(np.mean(tones))
    stagger = bool(back) and len(rows[0]) == len(rows[1])
    places: dict[int, Place] = {}
    slots = [(row, place) for row in range(len(rows)) for place in rng.permutation(len(rows[row]))]
    for row, place in slots:
        person = rows[row][place]
        scale = side / CUT_SIDE * rng.uniform(0.93, 1.05) * (0.92 if back and row == 0 else 1)
        tone = tones[place + (back if row else 0)]
        person = _resize(person, scale)
        if level:
            person[..., :3] = lit(person[..., :3], float(np.clip((target / tone) ** 0.6, 0.7, 1.5)))
        middle = (len(rows[row]) - 1) / 2
        x = width / 2 + (place - middle) * spacing + stagger * (0.25 if row else -0.25) * spacing
        y = height - tall + side * (0.14 + (0.78 if row else 0)) + rng.uniform(-0.05, 0.05) * side
        left = round(x - person.shape[1] / 2 + rng.uniform(-0.05, 0.05) * side)
        _paste(scene, person, left, round(y))
        places[place + (back if row else 0)] = Place(left + person.shape[1] / 2, round(y), scale)
    grain = rng.normal(0, 2.0, (height, width, 1)).astype(np.float32)
    return np.asarray(np.clip(scene + grain + 0.5, 0, 255), np.uint8), [places[i] for i in range(len(people))]


def _resize(person: F32, scale: float) -> F32:
    size = round(person.shape[1] * scale), round(person.shape[0] * scale)
    return np.asarray(cv2.resize(person, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC), np.float32).clip(0, None)


def _paste(scene: F32, person: F32, x: int, y: int) -> None:
    """Puts a person and a soft shadow into the scene, cut at its border."""
    height, width = scene.shape[:2]
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + person.shape[1], width), min(y + person.shape[0], height)
    shown = person[y0 - y : y1 - y, x0 - x : x1 - x]
    alpha = np.clip(shown[..., 3:], 0, 1)
    shadow: Any = np.zeros((height, width), np.float32)
    shadow[y0:y1, x0:x1] = alpha[..., 0]
    blur = person.shape[1] * 0.04
    shift = np.array([[1, 0, blur * 0.6], [0, 1, blur * 0.8]], np.float32)
    shadow = cv2.GaussianBlur(cv2.warpAffine(shadow, shift, (width, height), borderMode=cv2.BORDER_REPLICATE), (0, 0), blur)
    scene *= 1 - 0.45 * shadow[..., None]
    scene[y0:y1, x0:x1] = scene[y0:y1, x0:x1] * (1 - alpha) + shown[..., :3] * alpha


def _background(height: int, width: int, rng: np.random.Generator) -> F32:
    """A room's wall, a brick wall or a garden, out of focus."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / np.float32(height)
    blur = height / 90
    kind = rng.integers(3)
    if kind == 0:
        wall = np.array([(196, 188, 172), (158, 172, 182), (188, 172, 160), (150, 165, 150)], np.float32)[rng.integers(4)]
        picture = np.where((y > 0.72)[..., None], wall * 0.72, wall)  # the lower part of the wall is panelled
        picture = np.where((np.abs(y - 0.72) < 0.012)[..., None], wall * 1.12, picture)
    elif kind == 1:
        brick = np.rot90(cv2.resize(_samples.brick(), (int(height * 0.8),) * 2, interpolation=cv2.INTER_AREA))
        tiled = np.tile(brick, (2, width // len(brick) + 1))[:height, :width, None].astype(np.float32)
        picture = tiled / 140 * np.array([168, 122, 102], np.float32)
    else:
        hedge = cv2.resize(rng.normal(0, 1, (24, 36)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
        sky, leaf = np.array([196, 214, 232], np.float32), np.array([84, 118, 66], np.float32)
        edge = np.clip((y - 0.22) * 9 + 0.5 * hedge[..., 0], 0, 1)[..., None]
        picture = sky * (1 - edge) + leaf * (1 + 0.28 * hedge) * edge
        blur = height / 45
    light = 1.08 - 0.32 * ((x / x.max() - rng.uniform(0.25, 0.75)) ** 2 + (y - 0.3) ** 2)
    return np.asarray(cv2.GaussianBlur((picture * light[..., None]).clip(0, 255).astype(np.float32), (0, 0), blur), np.float32)


def _shrink(image: Image, width: int, height: int) -> Image:
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _expose(image: Image, gain: float) -> Image:
    return np.asarray(lit(image.astype(np.float32), gain) + 0.5, np.uint8)


def lit(image: F32, gain: float) -> F32:
    """Brighter or darker as a camera would: mid-tones move by `gain`, white does not burn out at once."""
    unit = np.clip(image / 255, 0, 1)
    lit = gain * unit / (1 + (gain - 1) * unit) if gain > 1 else gain * unit
    return np.asarray(lit * 255, np.float32)


def _tilt(image: Image, degrees: float) -> Image:
    side = len(image)
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), degrees, 1)
    return np.asarray(cv2.warpAffine(image, turn, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101), np.uint8)


def _enrol(folder: Path, image: Image, rng: np.random.Generator) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    side = _shrink(image, 640, 640)
    x, y = (int(v) for v in rng.integers(0, 80, 2))
    views = (
        side,
        _expose(side[y : y + 560, x : x + 560][:, ::-1], 0.75),
        _tilt(_shrink(image, 360, 360), 8),
    )
    for n, view in enumerate(views):
        (folder / f"{n}.jpg").write_bytes(_encode(view))


def _write_others(photos: Path) -> None:
    """Real pictures that ship with scikit-image: one public-domain portrait, and some without a face."""
    (photos / "other" / "astronaut.jpg").write_bytes(_encode(_samples.astronaut()))
    for name in ("chelsea", "coffee", "rocket", "hubble_deep_field"):
        (photos / "other" / f"{name}.jpg").write_bytes(_encode(getattr(_samples, name)()))
    (photos / "other" / "brick.png").write_bytes(_encode(_samples.brick(), "PNG"))


def _write_broken(photos: Path) -> None:
    whole = (photos / "other" / "coffee.jpg").read_bytes()
    (photos / "broken" / "truncated.jpg").write_bytes(whole[: len(whole) // 3])
    (photos / "broken" / "empty.jpg").write_bytes(b"")
    (photos / "broken" / "text.jpg").write_text("This is not a picture.\n")


def _encode(image: Image | PIL.Image.Image, kind: str = "JPEG", quality: int = 90, **options: object) -> bytes:
    picture = image if isinstance(image, PIL.Image.Image) else PIL.Image.fromarray(np.ascontiguousarray(image))
    file = io.BytesIO()
    picture.save(file, kind, quality=quality, **options)
    return file.getvalue()


_README = textwrap.dedent(
    f"""\
    # A demo collection of people who do not exist

    Made by `mfmc demo`. `photos/` is the collection, `known/` the gallery of enrolled people.

    - `photos/portraits`, `photos/groups` and `known`: {NOTICE}
    - `photos/other/astronaut.jpg`: Eileen Collins, NASA, public domain; the only real person.
    - `photos/other`, the rest: scikit-image's example pictures (CC0 or public domain), without faces.
    - `photos/broken`: files that are no pictures, to see what becomes of them.
    """
)
