"""The studio: the models that make people and look at them, and the casting of a person of a class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import cv2
import numpy as np

from mfmc_ray.evaluate.people import PersonGenerator
from mfmc_ray.evaluate.scenes import lit
from mfmc_ray.evaluate.synth.classes import ADULT, SURE, Wish, class_of
from mfmc_ray.evaluate.synth.latent import Latent
from mfmc_ray.faces.attributes import AttributeHead, skin_colour
from mfmc_ray.faces.detect import YuNet
from mfmc_ray.faces.embed import SFaceEmbedder
from mfmc_ray.faces.faces import F32, Image
from mfmc_ray.faces.mesh import FaceMesh
from mfmc_ray.identities.features import Features
from mfmc_ray.identities.model import load_model
from mfmc_ray.identities.sample import Identity, sample
from mfmc_ray.identities.traits import beard_of
from mfmc_ray.swap.cover import GLASSES
from mfmc_ray.swap.render import MorphSwapper

SIDE = 640
"""px: at which portraits are looked at and faces are exchanged."""
TRIES = 7
"""Portraits made of a seed until it is read as wanted; then another seed is taken."""
SEEDS = 12
FEATURES, SHAPE, OPACITY = 0.3, 0.6, 0.6
"""How much of an identity is worn: of its moved features, of its shape, and over the head's own face. All of it shows patches and
second brows on many faces; this much seldom, and holds a person's photos together all the same."""
GROWN = 18.0
"""Years of a style, see `Latent.read`, below which nobody is taken whatever their portrait is read as: in the dark the network takes
a boy for 30."""
_TRUNCATION = 0.85
_BARE = {"glasses": -2.5, "yaw": 0.0, "pitch": 0.0, "side": 0.0, "mouth": 0.12}
"""A base portrait looks straight ahead in even light, mouth nearly closed, without glasses."""
_BEARDLESS = 0.1
_DARK_HAIR = {4: 70.0, 5: 50.0}  # band of skin tone → brightness of the hair
_DAMPED = 0.8


class UnfilledError(RuntimeError):
    """Nobody of a class could be generated."""


@dataclass(frozen=True)
class Seen:
    """A face of a portrait, at `SIDE` px: box (4,), points (5, 2), mesh (468, 3)."""

    box: F32
    points: F32
    mesh: F32


@dataclass(frozen=True)
class Person:
    """Somebody who does not exist.

    Attributes:
        number: from 0.
        seed: of the generator.
        style: 512 numbers, the base portrait's.
        man, age, ita, beard: as the base portrait is read.
        looks: SFace's embedding of it, 128 numbers.
        identity: seed of the sampled identity that is worn; None: none.
        worn_age: how old that is drawn, years.
    """

    number: int
    seed: int
    style: list[float]
    man: float
    age: float
    ita: float
    beard: float
    looks: list[float]
    identity: int | None = None
    worn_age: float | None = None

    def plain(self) -> dict[str, Any]:
        """JSON data; `Person(**…)` is the person again."""
        return asdict(self)


class Studio:
    """Makes portraits of people and looks at them; all of it on one thread. About 1.5 GB.

    Args:
        seed: of the collection.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.generator, self.latent, self.detector = PersonGenerator(), Latent(), YuNet(min_score=0.6)
        self._mesh, self._attributes, self._looks = FaceMesh(), AttributeHead(threads=1), SFaceEmbedder()
        self.model = load_model()
        self.swapper = MorphSwapper(self.model)

    def cast(self, number: int, wish: Wish, attempt: int = 0) -> Person:
        """Person number so-and-so, read as wished; another attempt gives somebody else.

        The portrait is made, looked at, and its style moved by what is amiss, until it is right.

        Raises:
            UnfilledError: no seed can be made to look so.
        """
        for seed in (_seed(self.seed, number, attempt * SEEDS + n) for n in range(SEEDS)):
            found = self._tried(number, seed, wish)
            if found is not None:
                return found
        raise UnfilledError(f"no portrait of person {number} is read as {wish}: give another --seed")

    def _tried(self, number: int, seed: int, wish: Wish) -> Person | None:
        base = self.generator.style(seed, _TRUNCATION)
        aims = _BARE | wish.aims()
        before = self.latent.read(base)
        if wish.sex == 0 or (wish.sex is None and before["man"] < 0):
            aims["beard"] = _BEARDLESS
        if wish.age is None:
            aims["age"] = float(np.clip(before["age"], ADULT + 2, 74.0))
        if wish.tone in _DARK_HAIR:
            aims["hair"] = min(before["hair"], _DARK_HAIR[wish.tone])
        for _ in range(TRIES):
            style = self.latent.towards(base, aims)
            if self.latent.read(style)["age"] < GROWN:
                return None
            image = small(self.generator.render(style))
            seen = self.face(image)
            if seen is None:
                return None
            found = self._attributes.estimate(image, seen.mesh[None])
            man, age, ita = float(found.sexes[0]), float(found.ages[0]), float(found.tones[0])
            bare = self.swapper.covered(image, seen.mesh, hands=False).glasses < GLASSES
            if bare and wish.granted(man, age, ita):
                looks = self._looks.embed(image, seen.points[None])[0]
                beard = beard_of(self.model.surface, image, seen.mesh)
                return Person(number, seed, style[0].tolist(), man, age, ita, beard, looks.tolist())
            if not bare:
                aims["glasses"] -= 1.5
            for name, off in _amiss(wish, man, age, ita).items():
                aims[name] += off
            if wish.age is None and age < ADULT:
                aims["age"] += 4.0
            if wish.sex is None and class_of(man, 30.0, ita) is None:
                return None
        return None

    def settle(self, person: Person, wish: Wish) -> Person:
        """The person, of whom the identity that is worn has changed what is read, read as wished again.

        If that cannot be had the identity is not worn.
        """
        style = style_of(person)
        for _ in range(TRIES):
            if self.latent.read(style)["age"] < GROWN:
                break
            image = small(self.generator.render(style))
            seen = self.face(image)
            image = image if seen is None else self.worn(image, seen, person)
            seen = self.face(image)
            if seen is None:
                break
            found = self._attributes.estimate(image, seen.mesh[None])
            man, age, ita = float(found.sexes[0]), float(found.ages[0]), float(found.tones[0])
            if wish.granted(man, age, ita):
                looks = self._looks.embed(image, seen.points[None])[0]
                return replace(person, style=style[0].tolist(), man=man, age=age, ita=ita, looks=looks.tolist())
            off = _amiss(wish, man, age, ita)
            style = self.latent.moved(style, {name: value / self.latent.spread(name) for name, value in off.items()})
        return replace(person, identity=None)

    def exposure(self, image: Image, seen: Seen, ita: float) -> float:
        """The factor on mid-tones, 0.6–1.6, with which the skin of a face is of this ITA in degrees, or nearly."""
        colour = skin_colour(image, seen.mesh[None])
        if not np.isfinite(colour).all():
            return 1.0
        skin = np.asarray(cv2.cvtColor(colour[None], cv2.COLOR_LAB2RGB), np.float32) * 255
        factors = np.geomspace(0.6, 1.6, 61)
        shades = np.concatenate([lit(skin, float(factor)) for factor in factors], axis=1)
        tones = self._attributes.tones(cv2.cvtColor(shades / 255, cv2.COLOR_RGB2LAB)[0])
        return float(factors[int(np.argmin(np.abs(tones - ita)))])

    def face(self, image: Image) -> Seen | None:
        """The only face of a picture; None if there is none, or another one beside it of half its size."""
        faces = self.detector.detect(image)
        if len(faces) == 0:
            return None
        i = int(np.argmax(np.where(faces.sizes > 0.5 * faces.sizes.max(), faces.scores, 0)))
        middle = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
        beside = ((middle < faces.boxes[i, :2]) | (middle > faces.boxes[i, 2:])).any(1)
        if (faces.sizes[beside] > 0.5 * faces.sizes[i]).any():
            return None
        meshes, _ = self._mesh.fit(image, faces.boxes[[i]], faces.points[[i]])
        return Seen(faces.boxes[i], faces.points[i], meshes[0])

    def worn(self, image: Image, seen: Seen, person: Person) -> Image:
        """The portrait (SIDE, SIDE, 3) with the person's identity on it; as it is if there is none."""
        if person.identity is None:
            return image
        identity = calm(sample(self.model, person.identity))
        swapped = image.copy()
        self.swapper.swap(swapped, seen.mesh, identity, age=person.worn_age, strength=SHAPE).paste(swapped)
        return np.asarray(cv2.addWeighted(image, 1 - OPACITY, swapped, OPACITY, 0), np.uint8)


def _amiss(wish: Wish, man: float, age: float, ita: float) -> dict[str, float]:
    """`Latent` name → by how much to move somebody who is read as these towards what is wished."""
    aims = wish.aims()
    found = {name: _DAMPED * (aims[name] - value) for name, value in (("age", age), ("tone", ita)) if name in aims}
    if "man" in aims and (man > SURE) != (aims["man"] > 0):
        found["man"] = 2.0 if aims["man"] > 0 else -2.0
    return found


def calm(identity: Identity) -> Identity:
    """The identity with less of its features' displacements."""
    features = Features((FEATURES * identity.features.both).astype(np.float32), (FEATURES * identity.features.uneven).astype(np.float32))
    return replace(identity, features=features)


def small(portrait: Image) -> Image:
    """A generated portrait at `SIDE` px."""
    return np.asarray(cv2.resize(portrait, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def style_of(person: Person) -> F32:
    """float32 (1, 512)."""
    return np.array([person.style], np.float32)


def person_id(number: int) -> str:
    """What person `number` is called."""
    return f"p{number:04d}"


def classed(person: Person) -> Mapping[str, str]:
    """`sex`, `age_band` and `tone` in words."""
    found = class_of(person.man, person.age, person.ita)
    if found is None:  # nobody is cast who is of none
        raise UnfilledError(f"person {person.number} is of no class")
    return found.values()


def _seed(*parts: int) -> int:
    """A seed of the generator, other parts another one."""
    return int(np.random.default_rng([0x73796E74, *parts]).integers(2**40))
