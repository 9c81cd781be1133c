"""Giving each person of a collection fake identities that nobody else wears, and noting them."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from mfmc_ray.identities.casting import CHOICE, Casting
from mfmc_ray.identities.pool import Pool
from mfmc_ray.ledger import Ledger
from mfmc_ray.pipeline.fitting import FITTING, MOST_FACES, Fitted, read_fitted
from mfmc_ray.pipeline.persons import Person, Scanned
from mfmc_ray.pipeline.pseudonyms import Book, Face, Pseudonym
from mfmc_ray.pipeline.workers import ANONYMIZE

RESERVES = 1
"""Further identities of a person, for photos on which the first one does not hold."""
CANDIDATES = 6
"""Identities that are tried on a person at most."""
EACH = 1.5
"""Identities in the pool for each person."""
GROWTH, GROWTHS = 3, 2
"""By how many identities a pool grows for each person who finds nothing in it, and how often."""
PART_FACES = 24
"""Faces of a part of the fitting, at least."""


def pool_for(people: int) -> int:
    """How many identities a run needs for so many people, unless a number is asked for."""
    return math.ceil(EACH * people) + CHOICE


@dataclass
class _Cast:
    """What a person gets: `identities`, the first one first; `line`, what comes into question, in order."""

    person: Person
    identities: list[str]
    line: list[str] = field(default_factory=list)
    steps: dict[Face, tuple[int, ...]] = field(default_factory=dict)


class Assigner:
    """Args:
    ledger: the folders.
    key: of the run.
    folder: where the key is, and what is noted.
    scanned: the faces.
    holding: identity_ids that hold; those that somebody wore and that do no more are gone.
    pool_of: the pool with so many identities at least, or as many as there can be.
    fit: has parts of `FittingWorker` done.
    """

    def __init__(
        self,
        ledger: Ledger,
        key: bytes,
        folder: Path,
        scanned: Scanned,
        holding: Callable[[], Set[str]],
        pool_of: Callable[[int], Pool],
        fit: Callable[[list[dict[str, Any]]], None],
    ) -> None:
        self.ledger, self.key, self.folder, self.scanned = ledger, key, folder, scanned
        self.holding, self.pool_of, self.fit = holding, pool_of, fit

    def __call__(self, people: Sequence[Person], book: Book) -> Book:
        """Everybody's pseudonyms, as they are noted now.

        Who has an identity keeps it, as long as it holds. People who need one draw from those that nobody has or had; where there are
        several photos, identities are tried on them. Whoever finds none is covered.

        Args:
            people: everybody, in the order in which they may choose.
            book: what was noted last time.
        """
        pool = self.pool_of(pool_for(len(people)))
        there, holding = {person.name for person in people}, self.holding()
        retired = book.retired | {name for one in book.people if one.name not in there for name in one.identities}
        casts = [self._kept(person, holding) for person in people]
        casting = Casting(pool, self.key, retired | {name for cast in casts for name in cast.identities})
        needy = [cast for cast in casts if cast.identities[:1] != _first(cast.person) or not cast.identities]
        casting = self._lined_up(needy, casting)
        self._try([cast for cast in needy if len(cast.person.rows) > 1 and cast.line], casting)
        for cast in casts:
            if 0 < len(cast.identities) <= RESERVES:
                more = self._drawn(cast, casting)[: RESERVES + 1 - len(cast.identities)]
                casting.take(more)
                cast.identities += more
        before, book = book, Book(tuple(self._noted(cast) for cast in casts), frozenset(retired))
        if book != before:
            book.write(self.folder, self.key)
        for part in self.ledger.done(FITTING):
            self.ledger.remove_part(FITTING, part)
        return book

    def _kept(self, person: Person, holding: Set[str]) -> _Cast:
        """What a person has, in so far as it holds."""
        old = person.before
        if old is None:
            return _Cast(person, [])
        return _Cast(person, [name for name in old.identities if name in holding], steps=dict(zip(old.faces, old.steps, strict=True)))

    def _lined_up(self, needy: Sequence[_Cast], casting: Casting) -> Casting:
        """Gives everybody something of their own, and a line of what else comes into question; the pool grows until it is enough."""
        for growth in range(GROWTHS + 1):
            for cast in needy:
                if cast.line:
                    continue
                cast.steps.clear()  # of an identity that is gone
                cast.line = cast.identities + self._drawn(cast, casting)
                cast.identities = cast.identities or cast.line[:1]
                casting.take(cast.identities)
            short = sum(not cast.line for cast in needy)
            if not short or growth == GROWTHS:
                break
            pool = self.pool_of(casting.size + GROWTH * short)
            if len(pool) <= casting.size:
                break
            casting = Casting(pool, self.key, casting.taken)
        return casting

    def _drawn(self, cast: _Cast, casting: Casting) -> list[str]:
        rows = cast.person.rows
        choice = casting.choice(self.scanned.wanted(rows), {name: v[rows] for name, v in self.scanned.vectors.items()})
        return casting.drawn(cast.person.name, choice)

    def _try(self, casts: Sequence[_Cast], casting: Casting) -> None:
        """Tries identities on the photos of people, and gives each the one that holds on most."""
        done = read_fitted(self.ledger)
        orders = []
        for cast in casts:
            if cast.person.name not in done:
                others = [name for name in cast.line if casting.is_free(name)]
                orders.append(self._order(cast, [*cast.identities, *others][:CANDIDATES]))
        if orders:
            first = max(self.ledger.done(FITTING), default=-1) + 1
            self.fit([{"part": first + k, "people": some} for k, some in enumerate(_parts(orders))])
            done = read_fitted(self.ledger)
        for cast in casts:
            fitted = sorted(done.get(cast.person.name, []), key=lambda one: -one.holds)
            best = next((one for one in fitted if one.identity_id in cast.identities or casting.is_free(one.identity_id)), None)
            if best is not None:
                self._settle(cast, best, casting)

    def _settle(self, cast: _Cast, best: Fitted, casting: Casting) -> None:
        before = set(cast.person.before.identities) if cast.person.before else set()
        for name in cast.identities:
            if name != best.identity_id and name not in before:  # nobody has seen it
                casting.release(name)
        others = [name for name in cast.identities if name != best.identity_id and name in before]
        cast.identities = [best.identity_id, *others]
        casting.take([best.identity_id])
        cast.steps = {face: steps for face, steps in best.steps.items() if best.rooms[face] > 0}

    def _order(self, cast: _Cast, candidates: Sequence[str]) -> dict[str, Any]:
        """What `FittingWorker` is told of a person."""
        rows = cast.person.rows
        some = rows[np.unique(np.linspace(0, len(rows) - 1, min(MOST_FACES, len(rows))).round().astype(int))]
        faces = [[*self.scanned.faces[row], *self.scanned.places[row].tolist()] for row in some]
        return {"name": cast.person.name, "candidates": list(candidates), "faces": faces}

    def _noted(self, cast: _Cast) -> Pseudonym:
        faces = tuple(self.scanned.faces[row] for row in cast.person.rows)
        return Pseudonym(
            cast.person.name, cast.person.enrolled, tuple(cast.identities), faces, tuple(cast.steps.get(face, ()) for face in faces)
        )


def _first(person: Person) -> list[str]:
    """What a person wore first of all last time; nothing if that was nothing."""
    return list(person.before.identities[:1]) if person.before else []


def by_use(people: Sequence[Person], ledger: Ledger) -> list[Person]:
    """The same people; where photos were added to somebody's, the identity that most of those before wear is now their first one.

    It was not if the first one did not hold on a photo that was alone then.
    """

    def grown(one: Person) -> bool:
        return one.before is not None and len(one.before.identities) > 1 and len(one.rows) > len(one.before.faces)

    if not any(map(grown, people)):
        return list(people)
    owner = {face: one.name for one in people if grown(one) and one.before for face in one.before.faces}
    uses: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for part in ledger.done(ANONYMIZE):
        table = pq.read_table(ledger.work / "published" / f"part-{part:05d}.parquet", columns=["image_id", "face_no", "identity_id"])
        for image, number, name in zip(*(column.to_pylist() for column in table.columns), strict=True):
            if (image, number) in owner:
                uses[owner[image, number]][name] += 1
    found = []
    for one in people:
        old = one.before
        if old is not None and one.name in uses:
            first = max(old.identities, key=lambda name: uses[one.name][name])  # of equal ones the first
            if first != old.identities[0]:
                order = (first, *(name for name in old.identities if name != first))
                one = replace(one, before=replace(old, identities=order, steps=((),) * len(old.faces)))
        found.append(one)
    return found


def _parts(orders: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """People in parts of a few faces."""
    some: list[dict[str, Any]] = []
    for order in orders:
        some.append(order)
        if sum(len(one["faces"]) for one in some) >= PART_FACES:
            yield some
            some = []
    if some:
        yield some
