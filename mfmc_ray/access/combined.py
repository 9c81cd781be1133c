"""The access model that settings name, with approvals and lists beside it: what any of them denies is denied, whatever others allow."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mfmc_ray.access.approvals import Approvals
from mfmc_ray.access.decide import NOTHING, AccessError, AccessModel, Decision, Effects, PersonModel, ReplaceAll, merged
from mfmc_ray.access.explicit import Explicit
from mfmc_ray.access.groups import GROUP, VIEWER, Groups, Party
from mfmc_ray.access.lists import ALWAYS, NEVER, PeopleList
from mfmc_ray.access.proxy import Proxy
from mfmc_ray.access.rules import Rules
from mfmc_ray.config import EVERYONE, AccessConfig, ConfigError, RunConfig
from mfmc_ray.faces.faces import Faces
from mfmc_ray.people.sightings import RECOGNISED, Sightings

TABLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "none": ((), ()),
    "proxy": (("tags", "trust"), ("groups",)),
    "explicit": (("consents",), ()),
    "rules": (("rules",), ("groups",)),
}
"""Access model → the tables that it needs, and those that it may have, as settings."""


@dataclass(frozen=True)
class Combined:
    """What several tables say of a face: about the person who was recognised, and about the box.

    Attributes:
        persons: what goes by people; the first that allows a face is named.
        approvals: what goes by boxes; None: no table.
        seen: image_id → the person whom each face was recognised as, in the scan's order, of images in which somebody was; None before it
            is known. Then nobody is kept, not by approvals either, for whoever is denied is not known.
    """

    persons: tuple[PersonModel, ...]
    approvals: Approvals | None = None
    seen: Mapping[str, tuple[str | None, ...]] | None = None

    @property
    def digest(self) -> str:
        """sha-256, hex, over the digests of all parts."""
        parts = [model.digest for model in self.persons] + ([self.approvals.digest] if self.approvals is not None else [])
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def bound(self, sightings: Sightings) -> Combined:
        """The same with these people recognised."""
        seen = {
            image: tuple(one.person if one.reason == RECOGNISED else None for one in some)
            for image, some in sightings.images.items()
            if any(one.person is not None and one.reason == RECOGNISED for one in some)
        }
        return Combined(self.persons, self.approvals, seen)

    def decide(self, image_id: str, path: str, faces: Faces) -> list[Decision]:
        """One decision a face, in order.

        Raises:
            AccessError: people were recognised in another number of faces, so it is not known in which.
        """
        if self.seen is None:
            return [NOTHING] * len(faces)
        said = self._said(image_id, path)
        if said and len(said) != len(faces):
            raise AccessError(f"people were recognised among {len(said)} faces, but there are {len(faces)}")
        boxes = self.approvals.decide(image_id, path, faces) if self.approvals is not None else [NOTHING] * len(faces)
        return [merged(pair) for pair in zip(said or [NOTHING] * len(faces), boxes, strict=True)]

    def version(self, image_id: str | None, path: str) -> str:
        """sha-256, hex, over what is said of the recognised people in an image, and the approvals of it; "" if there is neither."""
        rows = self.approvals.version(image_id, path) if self.approvals is not None else ""
        said = self._said(image_id or "", path)
        kept = [(i, one.reason) for i, one in enumerate(said) if one.keep]
        # without approvals a denial changes nothing for who is not kept
        denied = [i for i, one in enumerate(said) if one.denied] if rows else []
        if not kept and not denied:
            return rows if self.seen is not None else ""
        return hashlib.sha256(json.dumps([rows, kept, denied]).encode()).hexdigest()

    def effects(self) -> list[Effects]:
        """Of all tables."""
        found: list[Effects] = [one for model in self.persons for one in model.effects(self._people_in)]
        return found + list(self.approvals.effects() if self.approvals is not None else ())

    def _said(self, image_id: str, path: str) -> list[Decision]:
        """One decision a face by who it was recognised as; none if nobody was recognised."""
        return [
            NOTHING if person is None else merged(model.says(person, image_id, path) for model in self.persons)
            for person in (self.seen or {}).get(image_id, ())
        ]

    def _people_in(self, image_id: str | None) -> Collection[str]:
        return {person for person in (self.seen or {}).get(image_id or "", ()) if person is not None}


def access_model(config: RunConfig) -> AccessModel:
    """The model that these settings name. All tables are read and checked; nobody is recognised yet: `AccessModel.bound`.

    Raises:
        ConfigError: the settings do not fit each other.
        AccessError: a table cannot be read or used.
        StoreError: a table's store does not answer.
    """
    check(config.access)
    access, options = config.access, config.storage_options
    approvals = Approvals.load(access.approvals, options) if access.approvals else None
    persons: list[PersonModel] = []
    if access.model != "none":
        persons.append(_model(config, Groups.load(access.groups, options) if access.groups else Groups()))
    for kind, place in ((ALWAYS, access.always), (NEVER, access.never)):
        if place:
            persons.append(PeopleList.load(kind, place, options))
    if persons:
        return Combined(tuple(persons), approvals)
    return ReplaceAll() if approvals is None else approvals


def check(access: AccessConfig) -> None:
    """Refuses settings that do not go together.

    Raises:
        ConfigError: a model without its tables, tables of another model, or people that nobody is recognised by.
    """
    if access.model not in TABLES:
        raise ConfigError(f"access.model (--access) wants {', '.join(TABLES)}, not {access.model!r}")
    mine, optional = TABLES[access.model]
    if missing := [name for name in mine if getattr(access, name) is None]:
        named = " and ".join(f"--{name} FILE (access.{name})" for name in missing)
        raise ConfigError(f"--access {access.model} wants {named}; docs/access.md has the columns")
    for name in ("tags", "trust", "consents", "rules", "groups"):
        if getattr(access, name) is not None and name not in (*mine, *optional):
            owners = [model for model, (needed, others) in TABLES.items() if name in (*needed, *others)]
            raise ConfigError(
                f"--{name} (access.{name}) is a table of --access {' and '.join(owners)}, but the model is {access.model}: "
                "leave out the table, or give that model"
            )
    if access.audience != EVERYONE and access.model != "rules":
        raise ConfigError(f"--audience (access.audience) is for --access rules, but the model is {access.model}: leave it out")
    by_people = [f"--{name}" for name in (ALWAYS, NEVER) if getattr(access, name) is not None]
    if access.people is None and (access.model != "none" or by_people):
        what = by_people[0] if access.model == "none" else f"--access {access.model}"
        raise ConfigError(f"{what} wants --people FOLDER (access.people): whom faces are recognised as; `mfmc people enroll` makes it")


def _model(config: RunConfig, groups: Groups) -> PersonModel:
    access, options = config.access, config.storage_options
    if access.model == "proxy":
        return Proxy.load(access.tags or "", access.trust or "", groups, options)
    if access.model == "explicit":
        return Explicit.load(access.consents or "", options)
    return Rules.load(access.rules or "", audience_of(access), groups, options)


def audience_of(access: AccessConfig) -> Party:
    """Whom a release is for.

    Raises:
        ConfigError: nobody is named.
    """
    try:
        return Party.parse(access.audience, "--audience", GROUP, EVERYONE, VIEWER)
    except AccessError as error:
        raise ConfigError(f"access.audience: {error}") from error
