"""What the access models come to in a network: who sees whom, what it asks of people, what originals are shown, how long it takes.

An *exposure* is a face in a photo and a user who sees that photo, other than the face's own. It is wanted if whose face it is would like
to be seen by that user; it is made if the face is as it is in the picture that this user gets. Decisions are those of the access models
themselves.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from mfmc_ray.access.combined import Combined
from mfmc_ray.access.decide import AccessModel, PersonModel, ReplaceAll, decisions
from mfmc_ray.access.explicit import Explicit
from mfmc_ray.access.groups import VIEWER, Groups, Party
from mfmc_ray.access.proxy import Proxy
from mfmc_ray.access.rules import Rules
from mfmc_ray.config import EVERYONE
from mfmc_ray.evaluate.social.behaviour import Said
from mfmc_ray.evaluate.social.network import Mask, Network, Photo
from mfmc_ray.faces.faces import Faces
from mfmc_ray.people.sightings import Sightings

AS_IS, NONE, PROXY, EXPLICIT, RULES, RULES_EACH = "as they are", "none", "proxy", "explicit", "rules, everyone", "rules, each viewer"
MODELS = (AS_IS, NONE, PROXY, EXPLICIT, RULES, RULES_EACH)
"""Nothing is done to faces; nobody is approved; the three models, `rules` with one release for everyone and with one for each viewer."""
PHOTO_BYTES, FACE_BYTES = 400_000, 20_000
"""Of an original, and of one face cut out of it, where there are no pictures to measure."""


@dataclass(frozen=True)
class Figures:
    """What one model came to. Shares are of 0–1; None if there is nothing that they could be a share of.

    Attributes:
        model: one of `MODELS`.
        photos, faces: how many there are.
        disclosed: share of the faces that somebody sees as they are.
        exposures: how many could be made.
        wanted, met: share of the exposures that are wanted, and of those the share that is made.
        unwanted, of_friends, of_their_friends, of_others: share of the unwanted ones that is made: all, and by who looks: friends, friends
            of friends, others.
        bystanders: share of the faces of people who are no users that somebody sees as they are.
        wrong: faces that somebody sees because they were taken for somebody else's.
        asked: questions that somebody has to answer, per photo.
        acts: rows that users write (tags, trust, answers, rules), per photo.
        shown: originals, or faces out of them, that are shown for deciding to somebody other than who uploaded them, per 100 photos.
        shown_bytes: bytes of these, per photo.
        shown_wrongly: of these, faces that are shown to somebody else than whose they are.
        pictures: different pictures that are made of a photo, mean.
        milliseconds: CPU time that deciding takes, per photo, for all who see it.
    """

    model: str
    photos: int
    faces: int
    disclosed: float
    exposures: int
    wanted: float | None
    met: float | None
    unwanted: float | None
    of_friends: float | None
    of_their_friends: float | None
    of_others: float | None
    bystanders: float | None
    wrong: int
    asked: float
    acts: float
    shown: float
    shown_bytes: float
    shown_wrongly: int
    pictures: float
    milliseconds: float


def figures_of(network: Network, said: Said, sightings: Sightings) -> list[Figures]:
    """What each model comes to, in the order of `MODELS`."""
    groups = Groups.of(said.groups)
    proxy, explicit = Proxy.of(said.tags, said.trust, groups), Explicit.of(said.consents)
    rules = Rules.of(said.rules, Party(EVERYONE), groups)
    return [
        _figures(AS_IS, network, said, sightings, [np.ones((len(p.people), len(network)), bool) for p in network.photos], 0.0),
        *(
            _figures(name, network, said, sightings, *_one_release(network, model))
            for name, model in (
                (NONE, ReplaceAll()),
                (PROXY, _bound(proxy, sightings)),
                (EXPLICIT, _bound(explicit, sightings)),
                (RULES, _bound(rules, sightings)),
            )
        ),
        _figures(RULES_EACH, network, said, sightings, *_release_each(network, said, groups, sightings)),
    ]


def mean(runs: Sequence[Sequence[Figures]]) -> list[Figures]:
    """The mean of several networks' figures, model by model; counts are sums."""
    found = []
    for same in zip(*runs, strict=True):
        plain = [asdict(one) for one in same]
        values: dict[str, object] = {"model": same[0].model}
        for name, first in plain[0].items():
            given = [one[name] for one in plain if one[name] is not None]
            if name != "model":
                values[name] = sum(given) if isinstance(first, int) else float(np.mean(given)) if given else None
        found.append(Figures(**values))  # type: ignore[arg-type]
    return found


def _bound(model: PersonModel, sightings: Sightings) -> AccessModel:
    return Combined((model,)).bound(sightings)


def _one_release(network: Network, model: AccessModel) -> tuple[list[Mask], float]:
    """What everybody sees, bool (faces, viewers) of each photo, and the seconds that it took."""
    started = time.process_time()
    kept = [kept_in(model, photo) for photo in network.photos]
    seconds = time.process_time() - started
    return [np.repeat(one[:, None], len(network), 1) for one in kept], seconds


def _release_each(network: Network, said: Said, groups: Groups, sightings: Sightings) -> tuple[list[Mask], float]:
    """The same with a picture for each who sees the photo."""
    seen = [network.viewers(photo) for photo in network.photos]
    kept = [np.zeros((len(photo.people), len(network)), bool) for photo in network.photos]
    started = time.process_time()
    for viewer, name in enumerate(network.names):
        model = _bound(Rules.of(said.rules, Party(VIEWER, name), groups), sightings)
        for number, photo in enumerate(network.photos):
            if seen[number][viewer]:
                kept[number][:, viewer] = kept_in(model, photo)
    return kept, time.process_time() - started


def kept_in(model: AccessModel, photo: Photo) -> Mask:
    """bool (faces,): who stays in a photo."""
    n = len(photo.people)
    # models that go by people look at nothing of a face
    faces = Faces(np.zeros((n, 4), np.float32), np.zeros((n, 5, 2), np.float32), np.ones(n, np.float32), ("made up",) * n)
    return np.array([one.keep for one in decisions(model, photo.image_id, photo.path, faces)], bool)


def _figures(model: str, network: Network, said: Said, sightings: Sightings, kept: Sequence[Mask], seconds: float) -> Figures:
    photos = network.photos
    faces = [person for photo in photos for person in photo.people]
    made, wanted, relation, somebody = _exposures(network, kept)
    others = [bool(some) for person, some in zip(faces, somebody, strict=True) if person is None]
    unwanted = made[~wanted]
    by = [_share(unwanted[relation[~wanted] == kind]) for kind in range(3)]
    acts, asked, shown, shown_bytes, wrongly = _asks(model, said)
    names = network.names
    taken = [one.person for photo in photos for one in sightings.of(photo.image_id)]
    wrong = sum(
        bool(some) and name is not None and (person is None or names[person] != name)
        for some, name, person in zip(somebody, taken, faces, strict=True)
    )
    return Figures(
        model=model,
        photos=len(photos),
        faces=len(faces),
        disclosed=float(np.mean(somebody)) if faces else 0.0,
        exposures=len(made),
        wanted=_share(wanted),
        met=_share(made[wanted]),
        unwanted=_share(unwanted),
        of_friends=by[0],
        of_their_friends=by[1],
        of_others=by[2],
        bystanders=_share(np.array(others, bool)),
        wrong=0 if model == AS_IS else int(wrong),
        asked=asked / len(photos),
        acts=acts / len(photos),
        shown=100 * shown / len(photos),
        shown_bytes=shown_bytes / len(photos),
        shown_wrongly=wrongly,
        pictures=float(np.mean([len(np.unique(k[:, network.viewers(p)].T, axis=0)) for k, p in zip(kept, photos, strict=True)])),
        milliseconds=1000 * seconds / len(photos),
    )


def _exposures(network: Network, kept: Sequence[Mask]) -> tuple[Mask, Mask, NDArray[np.intp], list[bool]]:
    """Of all exposures whether they are made, whether they are wanted, and who looks (0 a friend, 1 a friend of one, 2 another); of all
    faces whether somebody sees them."""
    made, wanted, relation, somebody = [], [], [], []
    for number, person, face in _faces(network):
        photo = network.photos[number]
        viewers = network.viewers(photo)
        if person is not None:
            viewers[person] = False
        seen = kept[number][face]
        made.append(seen[viewers])
        wanted.append(network.wishes(photo, person)[viewers])
        kind = np.full(len(network), 2)
        if person is not None:
            kind[network.friends[person]], kind[network.friends_of_friends[person]] = 0, 1
        relation.append(kind[viewers])
        somebody.append(bool(seen[viewers].any()))
    return np.concatenate(made), np.concatenate(wanted), np.concatenate(relation), somebody


def _faces(network: Network) -> Iterator[tuple[int, int | None, int]]:
    """Photo, person and place in the photo of each face."""
    for number, photo in enumerate(network.photos):
        for face, person in enumerate(photo.people):
            yield number, person, face


def _asks(model: str, said: Said) -> tuple[int, int, int, int, int]:
    """Rows that are written, questions, originals shown for deciding, their bytes, and faces shown to others than whose they are."""
    if model == PROXY:
        return len(said.tags) + len(said.trust), 0, len(said.shown_to_tag), len(said.shown_to_tag) * PHOTO_BYTES, 0
    if model == EXPLICIT:
        wrongly = sum(not theirs for _, _, theirs in said.asked)
        return len(said.consents), len(said.asked), len(said.asked), len(said.asked) * FACE_BYTES, wrongly
    if model in (RULES, RULES_EACH):
        return len(said.rules), 0, 0, 0, 0
    return 0, 0, 0, 0, 0


def _share(some: Mask) -> float | None:
    return float(some.mean()) if some.size else None
