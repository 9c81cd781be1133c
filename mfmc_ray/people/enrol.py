"""Enrolling people: each photo by itself, then against the person's other photos, then against everybody else's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mfmc_ray.faces.faces import F32
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.people.match import F64, Matcher, evidence
from mfmc_ray.people.photos import PhotoFile
from mfmc_ray.people.quality import Look, RefusedError
from mfmc_ray.people.registry import PeopleError, Photo, Registry, person_id

ALIKE = 5.0
"""Evidence (see `match`) that two photos of a person must give for each other. Of 780 pairs of photos of the same person 1.2 % give less,
most of them with dark glasses, caps or faces turned away; of 134 160 pairs of strangers' photos 0.1 % give more."""
SAME_PHOTO = 0.94
"""Cosine of the first recognizer from which a photo is another one over again, which teaches nothing and would count as a second one. Of 80
photos encoded anew at quality 60, at half the size or mirrored, 99 % keep 0.94; two different photos of a person have 0.91 at most."""


@dataclass(frozen=True)
class Refusal:
    """A photo that was not enrolled.

    Attributes:
        person: whose it was said to be.
        name: the photo, as the user calls it.
        reason: a code of `RefusedError`, or bad_id | nobodys | duplicate | unlike_own | like_other.
        text: the reason, in words.
    """

    person: str
    name: str
    reason: str
    text: str


@dataclass
class Enrolment:
    """What became of photos.

    Attributes:
        registry: with those that were accepted; not written yet.
        accepted: those.
        refused: the others.
        unchanged: how many were enrolled before.
    """

    registry: Registry
    accepted: list[Photo] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    unchanged: int = 0


@dataclass(frozen=True)
class _Candidate:
    name: str
    photo: Photo


def enrol(
    registry: Registry,
    files: Sequence[PhotoFile],
    examine: Callable[[bytes], Look],
    calibration: Calibration,
    progress: Callable[[Iterable[PhotoFile]], Iterable[PhotoFile]] = lambda some: some,
) -> Enrolment:
    """Enrols the photos that are fit for it.

    Args:
        registry: who is enrolled so far.
        files: the photos.
        examine: looks at one (`quality.Examiner`).
        calibration: of the registry's recognizers.
        progress: is given the photos in the order in which they are looked at, and gives them back.

    Raises:
        PeopleError: the people were enrolled with other weights.
        CalibrationError, StoreError: a recognizer has no calibration; the photos' store does not answer.
    """
    registry.check(list(registry.models))
    done = Enrolment(registry)
    wanted: dict[str, list[_Candidate]] = {}
    owners = {photo.photo_id: photo.person for photo in registry.photos}
    there = {(photo.person, photo.photo_id) for photo in registry.photos}
    for file in progress(sorted(files, key=lambda file: (file.person, file.name))):
        try:
            person = _person(file)
            data = file.read()
            key = hashlib.sha256(data).hexdigest()
            if (person, key) in there:
                done.unchanged += 1
                continue
            if (owner := owners.setdefault(key, person)) != person:
                raise RefusedError("like_other", f"the same photo is there for {owner!r}, too")
            if any(key == one.photo.photo_id for one in wanted.get(person, ())):
                raise RefusedError("duplicate", "the same photo is there twice")
            look = examine(data)
        except RefusedError as error:
            done.refused.append(Refusal(file.person, file.name, error.reason, str(error)))
            continue
        photo = Photo(person, key, look.vectors, look.size, look.sharpness, look.yaw)
        wanted.setdefault(person, []).append(_Candidate(file.name, photo))
    for person, candidates in sorted(wanted.items()):
        _add(done, person, candidates, calibration)
    done.refused.sort(key=lambda refusal: (refusal.person, refusal.name))
    return done


def _person(file: PhotoFile) -> str:
    if not file.person:
        raise RefusedError("nobodys", "it is in no person's folder")
    try:
        return person_id(file.person)
    except PeopleError as error:
        raise RefusedError("bad_id", str(error)) from error


def _add(done: Enrolment, person: str, candidates: Sequence[_Candidate], calibration: Calibration) -> None:
    """Enrols one person's photos, as far as they agree with each other and are nobody else's."""

    def refuse(some: Iterable[_Candidate], reason: str, text: str) -> None:
        done.refused += [Refusal(person, one.name, reason, text) for one in some]

    names = list(done.registry.models)
    held = [photo.vectors for photo in done.registry.photos if photo.person == person]
    new: list[_Candidate] = []
    for one in candidates:
        earlier = [*held, *(other.photo.vectors for other in new)]
        if any(float(one.photo.vectors[names[0]] @ vectors[names[0]]) >= SAME_PHOTO for vectors in earlier):
            refuse([one], "duplicate", "it is nearly the same as another photo of this person, and adds nothing")
        else:
            new.append(one)
    if held and new:
        mean = {name: np.mean([vectors[name] for vectors in held], axis=0)[None] for name in names}
        alike = alikeness(calibration, names, [one.photo.vectors for one in new], mean)[:, 0] >= ALIKE
        refuse((one for one, ok in zip(new, alike, strict=True) if not ok), "unlike_own", "it is not like this person's enrolled photos")
        new = [one for one, ok in zip(new, alike, strict=True) if ok]
    elif len(new) > 1:
        group = agreeing([one.photo.vectors for one in new], calibration, names)
        if 2 * len(group) <= len(new):
            refuse(new, "unlike_own", f"the {len(new)} photos of this person that are fit are not like each other: whose are they?")
            return
        refuse((one for i, one in enumerate(new) if i not in group), "unlike_own", "it is not like the other photos of this person")
        new = [one for i, one in enumerate(new) if i in group]
    matcher = Matcher(done.registry, calibration, names)
    for one in new:
        if (other := matcher.nearest(one.photo.vectors, but=person)) is not None:
            text = f"it is like {other!r}, who is enrolled: the same person, or one who looks alike, of whom none would be recognised"
            refuse([one], "like_other", text)
        else:
            done.accepted.append(one.photo)
            done.registry = done.registry.adding([one.photo])


def agreeing(photos: Sequence[Mapping[str, F32]], calibration: Calibration, names: Sequence[str]) -> set[int]:
    """The photo that is like most others, and those that it is like: their places.

    Args:
        photos: recognizer → float32 (d,), of each.
        calibration: of the recognizers.
        names: of the recognizers.
    """
    every = {name: np.array([vectors[name] for vectors in photos]) for name in names}
    found = alikeness(calibration, names, photos, every)
    like: NDArray[np.bool_] = found >= ALIKE
    np.fill_diagonal(like, True)
    best = max(range(len(photos)), key=lambda i: (like[i].sum(), found[i].sum()))
    return set(np.flatnonzero(like[best]).tolist())


def alikeness(calibration: Calibration, names: Sequence[str], photos: Sequence[Mapping[str, F32]], others: Mapping[str, F32]) -> F64:
    """float64 (n, m): the evidence that n photos and m others are of the same person; the others as recognizer → float32 (m, d)."""
    each = [evidence(calibration.curve(name), np.array([v[name] for v in photos], np.float64) @ others[name].T) for name in names]
    return np.asarray(np.sum(each, axis=0), np.float64)
