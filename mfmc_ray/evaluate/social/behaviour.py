"""What the users of a made-up network do under each access model, as rows of the access tables, and what that asks of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mfmc_ray.access.explicit import Consent
from mfmc_ray.access.groups import GROUP, VIEWER, Member, Party
from mfmc_ray.access.proxy import Tag, Trust
from mfmc_ray.access.rules import Rule
from mfmc_ray.config import EVERYONE
from mfmc_ray.evaluate.social.network import FRIENDS, OPEN, Habits, Network, Photo, name_of
from mfmc_ray.people.sightings import RECOGNISED, UNKNOWN, Sighting, Sightings

CONTENT = 0.5
"""Who decides about being seen by all who see a photo at once wants it if they would like it of this share of them."""


@dataclass(frozen=True)
class Behaviour:
    """How likely people do what they can.

    Attributes:
        tag: who uploads a photo tags a user in it (whatever that one would like).
        tag_self: somebody in a photo of another one's tags themselves, if they want to be seen in it.
        trust: somebody lets a friend's tags count; nobody's else.
        untag: who is tagged by another and does not want to be seen has that denied.
        answer: who is asked about a photo answers; nobody is seen who does not.
        rules: somebody writes down by whom they want to be seen.
        notice: who has done so notices a delicate photo of theirs, and denies it.
        missed: an enrolled person's face is not recognised.
        mistaken: a face is taken for one given other person who is enrolled.
    """

    tag: float = 0.6
    tag_self: float = 0.15
    trust: float = 0.7
    untag: float = 0.3
    answer: float = 0.7
    rules: float = 0.8
    notice: float = 0.5
    missed: float = 0.0
    mistaken: float = 0.0


MEASURED = {"missed": 0.032, "mistaken": 1e-6}
"""Recognition with two enrolled photos each, as people/match.py has measured it."""


@dataclass
class Said:
    """What users said, as rows of tables, and what it took.

    Attributes:
        shown_to_tag: (photo, user) who saw an original of another one's to tag themselves in it.
        asked: (photo, user, whether it is them) who was shown a face out of an original and asked.
    """

    tags: list[Tag] = field(default_factory=list)
    trust: list[Trust] = field(default_factory=list)
    consents: list[Consent] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    groups: list[Member] = field(default_factory=list)
    shown_to_tag: list[tuple[int, int]] = field(default_factory=list)
    asked: list[tuple[int, int, bool]] = field(default_factory=list)


def assumed(pairs: Sequence[str]) -> tuple[Habits, Behaviour]:
    """Habits and behaviour with some values changed.

    Args:
        pairs: "NAME=VALUE", a share of 0–1 each.

    Raises:
        ValueError: there is no such name, or the value is no share.
    """
    kinds = {name: kind for kind in (Habits, Behaviour) for name in (one.name for one in dataclasses.fields(kind))}
    given: dict[type, dict[str, float]] = {Habits: {}, Behaviour: {}}
    for pair in pairs:
        name, _, text = pair.partition("=")
        try:
            value = float(text)
            given[kinds[name]][name] = value
        except (KeyError, ValueError):
            raise ValueError(f"{pair!r}: wanted NAME=VALUE, and a name out of {', '.join(sorted(kinds))}") from None
        if not 0 <= value <= 1:
            raise ValueError(f"{pair!r}: wanted a share of 0 to 1")
    return Habits(**given[Habits]), Behaviour(**given[Behaviour])


def recognised(network: Network, behaviour: Behaviour, rng: np.random.Generator) -> Sightings:
    """Who is recognised in the photos, with the errors that recognition makes."""
    unknown = Sighting(None, 0.1, 0.0, UNKNOWN)
    enrolled = np.flatnonzero(network.enrolled)
    images = {}
    for photo in network.photos:
        seen = []
        for person in photo.people:
            wrong = [int(other) for other in enrolled if other != person and other not in photo.people]
            if rng.random() < 1 - (1 - behaviour.mistaken) ** len(wrong):
                found: int | None = int(rng.choice(wrong))
            else:
                found = person if person is not None and network.enrolled[person] and rng.random() >= behaviour.missed else None
            seen.append(unknown if found is None else Sighting(name_of(found), 0.7, 0.5, RECOGNISED))
        images[photo.image_id] = tuple(seen)
    return Sightings(images, "")


def said(network: Network, sightings: Sightings, behaviour: Behaviour, rng: np.random.Generator) -> Said:
    """What everybody does under each of the models, side by side."""
    found = Said()
    for user, name in enumerate(network.names):
        for friend in np.flatnonzero(network.friends[user]).tolist():
            found.groups.append(Member(len(found.groups) + 1, f"friends of {name}", Party(VIEWER, name_of(friend))))
            if rng.random() < behaviour.trust:
                found.trust.append(Trust(len(found.trust) + 1, name, Party(VIEWER, name_of(friend)), True))
        if rng.random() < behaviour.rules:
            _rules(network, user, behaviour, rng, found)
    for number, photo in enumerate(network.photos):
        _tags(network, number, photo, behaviour, rng, found)
        _consents(network, number, photo, sightings, behaviour, rng, found)
    return found


def _rules(network: Network, user: int, behaviour: Behaviour, rng: np.random.Generator, found: Said) -> None:
    """One rule for what a user would like, and a denial of each delicate photo that they notice."""
    name, attitude = name_of(user), network.attitudes[user]
    if attitude in (OPEN, FRIENDS):
        audience = Party(EVERYONE) if attitude == OPEN else Party(GROUP, f"friends of {name}")
        found.rules.append(Rule(len(found.rules) + 1, name, audience, None, True))
        for photo in network.photos:
            if photo.delicate and user in photo.people and rng.random() < behaviour.notice:
                found.rules.append(Rule(len(found.rules) + 1, name, Party(EVERYONE), photo.image_id, False))


def _tags(network: Network, number: int, photo: Photo, behaviour: Behaviour, rng: np.random.Generator, found: Said) -> None:
    for person in (person for person in photo.people if person is not None):
        by, wants = photo.owner, network.content(photo, person) >= CONTENT
        mine = person == photo.owner
        if rng.random() < behaviour.tag and (not mine or wants):
            found.tags.append(Tag(len(found.tags) + 1, photo.image_id, name_of(person), name_of(by), True))
            if not mine and not wants and rng.random() < behaviour.untag:
                found.tags.append(Tag(len(found.tags) + 1, photo.image_id, name_of(person), name_of(person), False))
        elif not mine and wants and rng.random() < behaviour.tag_self:
            found.tags.append(Tag(len(found.tags) + 1, photo.image_id, name_of(person), name_of(person), True))
            found.shown_to_tag.append((number, person))


def _consents(
    network: Network, number: int, photo: Photo, sightings: Sightings, behaviour: Behaviour, rng: np.random.Generator, found: Said
) -> None:
    """Whoever is recognised is asked, and approves if they would like it; a face that is not theirs nobody approves."""
    names = {name: user for user, name in enumerate(network.names)}
    for person, seen in zip(photo.people, sightings.of(photo.image_id), strict=True):
        if seen.person is None:
            continue
        user = names[seen.person]
        found.asked.append((number, user, user == person))
        if rng.random() < behaviour.answer:
            allow = user == person and network.content(photo, user) >= CONTENT
            found.consents.append(Consent(len(found.consents) + 1, photo.image_id, seen.person, allow))
