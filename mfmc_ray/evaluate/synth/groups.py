"""Group photos: who stands in them with whom, who tagged whom, and the pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mfmc_ray.evaluate.scenes import compose_scene
from mfmc_ray.evaluate.synth.photos import TRIES, Camera, cut, decoded, drawn_camera, drawn_look, encoded, shot, take
from mfmc_ray.evaluate.synth.studio import Person, Studio, person_id
from mfmc_ray.faces.detect import overlap
from mfmc_ray.faces.faces import F32, Faces, Image

SIZES = (3, 2, 4, 5, 2, 6, 3, 4)
"""People in the groups, one after the other; never more than there are."""
CIRCLE = 8
"""People who know each other."""
_FACE_SIZES = (120, 160, 100, 90, 150, 80, 130, 110)  # px, √area of the boxes, with --size 512
_TAGGED, _UNTAGGED, _TRUSTED, _AGREED = 0.8, 0.08, 0.7, 0.6
_SAME = 0.3  # IoU


@dataclass(frozen=True)
class Group:
    """A group photo before it is made.

    Attributes:
        number: from 0.
        people: their numbers, from left to right, the back row first.
        by: the number of who put it online: somebody of their circle, who need not be in it.
    """

    number: int
    people: tuple[int, ...]
    by: int


def circles(people: int, seed: int) -> list[list[int]]:
    """Who knows whom: each person is in one circle."""
    order = np.random.default_rng([0x63697263, seed]).permutation(people).tolist()
    return [order[i : i + CIRCLE] for i in range(0, people, CIRCLE)]


def planned(groups: int, people: int, seed: int) -> list[Group]:
    """So many groups, of people of one circle each; the circles take turns."""
    rng = np.random.default_rng([0x67726F75, seed])
    able = [circle for circle in circles(people, seed) if len(circle) > 1] or circles(people, seed)
    found = []
    for number in range(groups):
        circle = able[number % len(able)]
        some = rng.permutation(circle)[: SIZES[number % len(SIZES)]].tolist()
        found.append(Group(number, tuple(some), int(rng.choice(circle))))
    return found


def group_photo(studio: Studio, group: Group, people: Mapping[int, Person], size: int) -> tuple[bytes, dict[str, Any], list[F32]]:
    """The picture of a group.

    Returns:
        The file, rows of `tables.PHOTOS` without the path, and the box of each of the people, px.

    Raises:
        RuntimeError: the faces could not be found in it.
    """
    best: tuple[int, bytes, dict[str, Any], list[F32]] | None = None
    cuts = [_cut(studio, people[number], group.number, i) for i, number in enumerate(group.people)]
    for n in range(TRIES):
        rng = np.random.default_rng([0x67726F75, studio.seed, group.number, n])
        face = _FACE_SIZES[group.number % len(_FACE_SIZES)] * size / 512
        scene, places = compose_scene([one for one, _ in cuts], face, rng, level=False)
        expected = np.stack([place.box(box) for place, (_, box) in zip(places, cuts, strict=True)])
        scene, origin = _around(scene, expected, face)
        expected = np.asarray(expected - np.tile(origin, 2), np.float32)
        camera = drawn_camera(rng)
        data = encoded(shot(scene, _steady(camera), max(scene.shape[:2]), rng), camera.quality)
        image = decoded(data)
        boxes, missed = _matched(studio.detector.detect(image), list(expected))
        about = {"person": None, "head_seed": None, "place": "group", "exposure": camera.exposure, "warmth": camera.warmth}
        about |= {"blur": camera.blur, "noise": camera.noise, "quality": camera.quality, "width": image.shape[1], "height": image.shape[0]}
        if best is None or missed < best[0]:
            best = missed, data, about, boxes
        if not missed:
            break
    if best is None:
        raise RuntimeError(f"group {group.number} could not be made")
    return best[1:]


def _around(scene: Image, faces: F32, face: float) -> tuple[Image, F32]:
    """The part of a scene that its people are in, and its upper left corner (x, y), px; `face` is the size of the faces (n, 4)."""
    left, right = max(0, int(faces[:, 0].min() - 1.4 * face)), min(scene.shape[1], int(faces[:, 2].max() + 1.4 * face))
    top = max(0, int(faces[:, 1].min() - 1.1 * face))
    return np.ascontiguousarray(scene[top:, left:right]), np.array([left, top], np.float32)


def _steady(camera: Camera) -> Camera:
    """Without turn and cut: nobody is at the border's mercy, and boxes stay where they are."""
    return replace(camera, roll=0.0, zoom=1.0)


def _cut(studio: Studio, person: Person, group: int, place: int) -> tuple[F32, F32]:
    for n in range(TRIES):
        rng = np.random.default_rng([0x74616B65, studio.seed, group, place, n])
        taken = take(studio, person, drawn_look(rng, n == TRIES - 1))
        if taken is not None:
            return cut(taken, person.number + group)
    raise RuntimeError(f"no picture of person {person.number} for a group shows a face")


def _matched(faces: Faces, expected: Sequence[F32]) -> tuple[list[F32], int]:
    """The boxes that were found for those expected, or these, and how many were not found."""
    if len(faces) == 0:
        return list(expected), len(expected)
    iou = overlap(np.stack(expected), faces.boxes)[0]
    found, missed = [], 0
    for i, box in enumerate(expected):
        k = int(np.argmax(iou[i]))
        ours = iou[i, k] > _SAME and int(np.argmax(iou[:, k])) == i
        found.append(faces.boxes[k] if ours else box)
        missed += not ours
    return found, missed


def said(
    photos: Sequence[Mapping[str, Any]], faces: Mapping[str, Sequence[str]], people: int, seed: int
) -> dict[str, list[dict[str, Any]]]:
    """What people say about the photos: rows of the access tables `tags`, `trust` and `consents` (docs/access.md).

    Who put a photo online tags those in it, mostly; some untag themselves. Most people trust those of their circle, some agree to be seen.

    Args:
        photos: rows with `path` and `by`.
        faces: path → who is in it.
        people: how many.
        seed: of the collection.
    """
    rng = np.random.default_rng([0x73616964, seed])
    tags, consents = [], []
    for photo in photos:
        path = photo["path"]
        for person in faces[path]:
            if rng.random() < _TAGGED:
                tags.append({"image": path, "person": person, "by": photo["by"], "allow": True})
            if rng.random() < _UNTAGGED:
                tags.append({"image": path, "person": person, "by": person, "allow": False})
            if rng.random() < _AGREED:
                consents.append({"image": path, "person": person, "allow": bool(rng.random() < 0.9)})
    trust = [
        {"person": person_id(one), "trusts": person_id(other), "allow": True}
        for circle in circles(people, seed)
        for one in sorted(circle)
        for other in sorted(circle)
        if one != other and rng.random() < _TRUSTED
    ]
    return {"tags": tags, "trust": trust, "consents": consents}
