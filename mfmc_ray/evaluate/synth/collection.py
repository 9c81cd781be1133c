"""A synthetic collection made part by part, and put together. No Ray in here."""

from __future__ import annotations

import hashlib
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from mfmc_ray.evaluate.people import NOTICE
from mfmc_ray.evaluate.synth.classes import AGES, SEXES, TONES, Wish
from mfmc_ray.evaluate.synth.groups import Group, group_photo, planned, said
from mfmc_ray.evaluate.synth.photos import photo
from mfmc_ray.evaluate.synth.settings import Making, Settings, too_alike, worn_by
from mfmc_ray.evaluate.synth.studio import Person, Studio, classed, person_id
from mfmc_ray.evaluate.synth.tables import write
from mfmc_ray.identities.model import load_model

ENROLLED = 3
"""Portraits of each person that the table `enrol` names."""
ROUNDS = 6
"""Times that people are cast, those who are too much alike anew."""
Row = dict[str, Any]
Run = Callable[[Sequence[Row], str, int | None], None]


class Maker:
    """Does one part: casts a person, or takes somebody's photos, or a group's.

    Args:
        making: the collection.
        settings: of it.
    """

    def __init__(self, making: Making, settings: Settings) -> None:
        self.making, self.settings = making, settings
        self.studio = Studio(settings.seed)

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        """Does the part if it is not done; how many `images` and `faces` it has."""
        name = part["name"]
        if not self.making.has(name):
            self.making.done(name, *getattr(self, f"_{part['kind']}")(**part["what"]))
        rows = self.making.rows(name)
        if part["kind"] in ("cast", "settle"):
            return {"images": 1, "faces": 1}
        return {"images": len(rows), "faces": sum(len(row["faces"]) for row in rows)}

    def _cast(self, number: int, wish: Mapping[str, Any], attempt: int) -> tuple[Row, dict[str, bytes]]:
        return self.studio.cast(number, _wish(wish), attempt).plain(), {}

    def _settle(self, person: Mapping[str, Any], wish: Mapping[str, Any]) -> tuple[Row, dict[str, bytes]]:
        return self.studio.settle(Person(**person), _wish(wish)).plain(), {}

    def _person(self, person: Mapping[str, Any]) -> tuple[list[Row], dict[str, bytes]]:
        one, rows, files = Person(**person), [], {}
        for number in range(self.settings.photos):
            data, about = photo(self.studio, one, number, self.settings.size)
            path = f"people/{person_id(one.number)}/{number:02d}.jpg"
            faces = [{"person": person_id(one.number), "box": about.pop("box")}]
            files["photos/" + path] = data
            rows.append(about | {"path": path, "image_id": hashlib.sha256(data).hexdigest(), "by": person_id(one.number), "faces": faces})
        return rows, files

    def _group(self, number: int, people: Sequence[Mapping[str, Any]], by: int) -> tuple[list[Row], dict[str, bytes]]:
        cast = {one.number: one for one in (Person(**person) for person in people)}
        data, about, boxes = group_photo(self.studio, Group(number, tuple(cast), by), cast, self.settings.size)
        path = f"groups/{number:03d}.jpg"
        faces = [{"person": person_id(one), "box": [float(v) for v in box]} for one, box in zip(cast, boxes, strict=True)]
        row = about | {"path": path, "image_id": hashlib.sha256(data).hexdigest(), "by": person_id(by), "faces": faces}
        return [row], {"photos/" + path: data}


def make(making: Making, settings: Settings, run: Run) -> tuple[Row, int]:
    """Makes a collection, or what is left of it to make.

    Args:
        making: it was begun.
        settings: of it.
        run: has parts done that are not yet done; is told what that is called, and how many images are in them, if it is known.

    Returns:
        What `collection.json` says, and how many people look a little like another one.
    """
    wishes = settings.wishes()
    attempts = [0] * len(wishes)
    for _ in range(ROUNDS):
        parts = [cast_part(number, wish, attempts[number]) for number, wish in enumerate(wishes)]
        run([part for part in parts if not making.has(part["name"])], "Casting people", None)
        people = [Person(**making.rows(part["name"])) for part in parts]
        alike = too_alike(people)
        if not alike:
            break
        for number in alike:
            attempts[number] += 1
    if settings.wear:
        wearing = [replace(one, identity=seed, worn_age=one.age) for one, seed in zip(people, worn_by(load_model(), people), strict=True)]
        parts = [settle_part(one, wish) for one, wish in zip(wearing, wishes, strict=True)]
        run([part for part in parts if not making.has(part["name"])], "Dressing people", None)
        people = [Person(**making.rows(part["name"])) for part in parts]
    groups = planned(settings.groups, len(people), settings.seed)
    parts = [part for part in photo_parts(people, groups) if not making.has(part["name"])]
    run(parts, "Taking photos", sum(settings.photos if part["kind"] == "person" else 1 for part in parts))
    return complete(making, settings, people, groups), len(alike)


def cast_part(number: int, wish: Wish, attempt: int) -> Row:
    """The part that casts a person."""
    return {"name": f"cast-{number:04d}-{attempt}", "kind": "cast", "what": {"number": number, "wish": asdict(wish), "attempt": attempt}}


def settle_part(person: Person, wish: Wish) -> Row:
    """The part that puts the identity on a person."""
    return {"name": f"settle-{person.number:04d}", "kind": "settle", "what": {"person": person.plain(), "wish": asdict(wish)}}


def _wish(plain: Mapping[str, Any]) -> Wish:
    return Wish(plain["sex"], plain["age"], plain["tone"], tuple(plain["at"]))


def photo_parts(people: Sequence[Person], groups: Sequence[Group]) -> list[Row]:
    """The parts that take all photos."""
    parts = [{"name": f"person-{one.number:04d}", "kind": "person", "what": {"person": one.plain()}} for one in people]
    for group in groups:
        what = {"number": group.number, "people": [people[i].plain() for i in group.people], "by": group.by}
        parts.append({"name": f"group-{group.number:03d}", "kind": "group", "what": what})
    return parts


def complete(making: Making, settings: Settings, people: Sequence[Person], groups: Sequence[Group]) -> Row:
    """Writes the tables, README and `collection.json` once all parts are done; what is in the latter."""
    of = {person_id(one.number): _class(one, settings) for one in people}
    rows: list[Row] = [row for part in photo_parts(people, groups) for row in making.rows(part["name"])]
    in_photo = {row["path"]: [face["person"] for face in row["faces"]] for row in rows}
    photos = [row | {"people": len(row["faces"])} for row in rows]
    faces = [_face(row, face, of[face["person"]]) for row in rows for face in row["faces"]]
    enrol: Counter[str] = Counter()
    enrolled = []
    for row in rows:
        if row["place"] == "portrait" and enrol[row["person"]] < ENROLLED:
            enrol[row["person"]] += 1
            enrolled.append({"path": f"../photos/{row['path']}", "person": row["person"]})
    shown = Counter(face["person"] for face in faces)
    about_people = [
        {"person_id": name, "seed": one.seed, "identity_id": None if one.identity is None else f"mfmc-{one.identity:012d}", **of[name]}
        | {"age": one.age, "man": one.man, "ita": one.ita, "photos": shown[name]}
        for name, one in zip(of, people, strict=True)
    ]
    tables = {"people": about_people, "photos": photos, "faces": faces, "enrol": enrolled}
    write(making.path("tables"), tables | said(photos, in_photo, len(people), settings.seed))
    making.path("README.md").write_text(_README.format(notice=textwrap.fill(NOTICE, 118)))
    classes = Counter(row["class"] for row in of.values())
    counts = {"people": len(people), "photos": len(photos), "groups": len(groups), "faces": len(faces)}
    about = {
        "notice": NOTICE,
        "commercial": False,
        "settings": settings.plain(),
        "counts": counts,
        "classes": dict(sorted(classes.items())),
    }
    making.end(about)
    return about


def _face(row: Row, face: Row, about: Mapping[str, str]) -> Row:
    corners = dict(zip(("x0", "y0", "x1", "y1"), face["box"], strict=True))
    return {"path": row["path"], "image_id": row["image_id"], "person": face["person"], "age": about["age_band"], **about, **corners}


def _class(person: Person, settings: Settings) -> dict[str, str]:
    found = dict(classed(person))
    parts = {"sex": found["sex"], "age": found["age_band"], "tone": found["tone"]}
    return found | {"class": " / ".join(value for part, value in parts.items() if part in settings.by)}


def class_table(about: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Sex and age band against skin tone: rows of text, the heading first; "" where classes are made of fewer parts."""
    heading = ("", *TONES, "all")
    counts = Counter({tuple(name.split(" / ")): n for name, n in about["classes"].items()})
    if any(len(key) != 3 for key in counts):
        return [("class", "people"), *((" / ".join(key), str(n)) for key, n in sorted(counts.items()))]
    ages = [f"{low:.0f}-{high - 1:.0f}" for low, high in AGES[:-1]] + [f"{AGES[-1][0]:.0f}+"]
    rows = []
    for sex in SEXES:
        for age in ages:
            some = [counts[sex, age, tone] for tone in TONES]
            rows.append((f"{sex}, {age}", *map(str, some), str(sum(some))))
    return [heading, *rows]


_README = """# People who do not exist

Made by `mfmc synth`; `collection.json` has the options. Nobody in these pictures exists.

{notice}
That holds for every picture in here, and for whatever is made of them.

- `photos/people/<person>/`: photos of one person each
- `photos/groups/`: several people in one picture
- `tables/people.parquet`: who there is, with class, and age, sex and skin tone (ITA) as networks read them
- `tables/photos.parquet`, `tables/faces.parquet`: every photo; every face with its box (px) and who it is
- `tables/tags.parquet`, `trust.parquet`, `consents.parquet`: what the people say about photos, as the access models want it
- `tables/enrol.parquet`: portraits to enrol

    mfmc people enroll people/ tables/enrol.parquet
    mfmc anonymize photos/ out/ --people people/ --access proxy --tags tables/tags.parquet --trust tables/trust.parquet
    mfmc anonymize photos/ out/ --boxes tables/faces.parquet --people people/ --access explicit --consents tables/consents.parquet
    mfmc evaluate photos/ out/ --labels tables/faces.parquet
"""
