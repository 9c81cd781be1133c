"""Choosing among identities by their results: each is put onto the face and looked at, the least like the original is taken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from mfmc_ray.faces.faces import F32, Faces, Image
from mfmc_ray.faces.mesh import eye_opening, five_points, mouth_opening, pose, smile
from mfmc_ray.faces.pack import Pack
from mfmc_ray.identities.pool import GROWN, Wanted
from mfmc_ray.identities.sample import Identity
from mfmc_ray.pipeline.check import Checked, OutputCheck
from mfmc_ray.pipeline.unfit import LEAST_MESH_SCORE
from mfmc_ray.pipeline.window import REACH
from mfmc_ray.swap.cover import GLASSES, Covered
from mfmc_ray.swap.outline import Head, Outline, outlined
from mfmc_ray.swap.protocol import Order, Patch, Swapper
from mfmc_ray.swap.redact import Cover, before

ENOUGH = 0.06
"""The room (see `Checked.room`) that is wanted below every threshold, so that encoding the picture does not use it up."""
STRANGER = 0.0
"""To be less like the original than this (see `Checked.likeness`) is worth nothing more; down to it the least alike of all is taken.
To be below the threshold is not enough: in a gallery the original would often still be the nearest."""
STRONGEST, FARTHEST = 1.2, 1.5
"""Exchange of shape in the last of the first `CHOICE` attempts, of which three have 1, and in those after them."""
OLDER = 8.0
"""Years that a child is older in every second of those after them: fakes as young as children are like many of them to recognizers."""
YEAR_COST, SEX_COST = 0.012, 0.8
"""What a year of age and the other sex cost in units of `Checked.likeness`, when the best of several results is chosen."""
FACE_COST = 0.25
"""What it costs, in the same units, that mouth, eyes, smile and head are seen as far off the photo's as they mostly are (`USUALLY_OFF`)."""
USUALLY_OFF = (0.055, 0.03, 0.3, 3.0)
"""About the mean errors of mouth opening, eye opening, smile and pitch (degrees); eyes count half as much again."""
NOTHING_LESS = 0.02
"""A cost that is lower by no more than this is the same: renderers differ by a level of 255 here and there, which is 0.005 (measured)."""
CLOSE = 0.12
"""A result that costs no more than this is good enough."""
CHOICE = 16
"""Of how many attempts the best is taken; only if none passes with room enough are there more."""
FINALISTS = 6
"""How many good results are looked at by every recognizer."""
OUTLINES = 2
"""Of how many outlines of the head, those least like the original to the first recognizer, all recognizers see a result."""
HOLDS, TIGHT, FAILS = range(3)
"""Whether a result passes all recognizers with room enough, with too little, or not; the first part of `Try.price`."""
NEAREST = 3
"""Of how many results outlines are tried: on another head it may be another fake that is least like the original."""
LEAST_COVER = 0.3
"""Of the face's area; what shows less of the fake is no replacement."""
LARGEST_SHIFT = 0.3
"""How far, in √areas of the face's box, a result's mesh may be from the face's on the average: what is further is on another face."""


@dataclass(frozen=True, eq=False)
class Sitter:
    """A face that is to be replaced.

    Attributes:
        mesh: float32 (468, 3), px of its picture.
        wanted: what it is to be read as.
        covered: what lies before it.
        originals: recognizer → float32 (1, d), its embedding.
        covers: of faces beside it, which lie over its picture when it is published, if not over what is drawn of it, and change what
            recognizers see of it.
        others: float32 (n, 4), px, the boxes of other faces.
    """

    mesh: F32
    wanted: Wanted
    covered: Covered
    originals: Mapping[str, F32]
    covers: tuple[Cover, ...] = ()
    others: F32 = field(default_factory=lambda: np.zeros((0, 4), np.float32))

    @classmethod
    def of(cls, faces: Faces, i: int, covered: Covered) -> Sitter:
        """Face i, as it was scanned."""
        originals = {name: v[i : i + 1] for name, v in faces.embeddings.items()}
        return cls(faces.need("meshes")[i], Wanted.of(faces, i), covered, originals, others=np.delete(faces.boxes, i, 0))

    def beside(self, covers: Sequence[Cover]) -> Sitter:
        """The same with those of these covers that are near it."""
        low, high = self.mesh[:, :2].min(0), self.mesh[:, :2].max(0)
        reach = REACH * float((high - low).max())
        near = [one for one in covers if (np.array(one.area[:2]) < high + reach).all() and (np.array(one.area[2:]) > low - reach).all()]
        return replace(self, covers=tuple(near))


@dataclass(frozen=True)
class Try:
    """A face with an identity put on.

    Attributes:
        patch: with the outline of the head.
        points: float32 (1, 5, 2), px.
        seen: its embedding by the first recognizer, float32 (1, d).
        likeness: by that one; see `Checked.likeness`.
        misread: what it costs to look older, younger or otherwise wrong.
        plain: without the outline of the head; None: it is not needed any more.
        contorted: what it costs that expression and pose are seen otherwise; None: nobody has looked yet.
        checked: what all say; of the best.
        price: of the best: whether it holds (`HOLDS`, `TIGHT`, `FAILS`), and what there is against it now that all have looked.
    """

    identity: Identity
    patch: Patch
    points: F32
    seen: Mapping[str, F32]
    likeness: float
    misread: float
    plain: Patch | None = None
    contorted: float | None = None
    checked: Checked | None = None
    price: tuple[int, float] = (FAILS, np.inf)

    @property
    def cost(self) -> float:
        """What there is against it before the other recognizers have looked."""
        return max(self.likeness, STRANGER) + self.misread


class Chooser:
    """Args:
    swapper: puts identities onto faces.
    check: looks at the results.
    attempts: identities that are tried on a face at most.
    """

    def __init__(self, swapper: Swapper, check: OutputCheck, attempts: int) -> None:
        self.swapper, self.check, self.attempts = swapper, check, attempts

    def __call__(
        self,
        canvas: Image,
        sitter: Sitter,
        identities: Sequence[Identity],
    ) -> tuple[Try | None, int, str]:
        """The best result, the number of attempts, and, if there is none, the reason.

        Args:
            canvas: uint8 (h, w, 3) RGB; as it was when this returns.
            sitter: the face in it.
            identities: in the order in which to try them.
        """
        head, count, reason = Head.of(canvas, sitter.mesh), 0, "no_identity"
        best: Try | None = None
        near: list[Try] = []
        for start in range(0, min(self.attempts, len(identities)), CHOICE):
            some = identities[start : min(start + CHOICE, self.attempts)]
            tries, nothing = self._tries(canvas, sitter, head, some, start > 0)
            count += len(tries)
            if not tries:
                reason = nothing
                break
            found = self._priced(canvas, tries, sitter)
            best = _cheapest(found, best)
            near = sorted([*near, *found], key=lambda one: one.price)[:NEAREST]
            if best.price[0] == HOLDS:
                near = [one for one in near if one.price[0] == HOLDS]
                break
        if best is None:
            return None, count, reason
        best = _cheapest(self._outlined(canvas, near, sitter, head), best)
        assert best.checked is not None
        verdict = best.checked.verdict
        return (replace(best, plain=None), count, "") if verdict.passed else (None, count, verdict.reason or reason)

    def _tries(
        self,
        canvas: Image,
        sitter: Sitter,
        head: Head,
        identities: Sequence[Identity],
        last: bool,
    ) -> tuple[list[Try], str]:
        """The face with each of these identities, looked at by the first recognizer; fewer once some are good. If there is none: why.

        The `last` exchange most of the shape, show a child older every second time, and do without the rims of glasses, which are much of
        what a recognizer knows a face by; temples then end at the mask.
        """
        tries: list[Try] = []
        rims = sitter.covered.glasses < GLASSES or not last
        age, older = sitter.wanted.age, OLDER if last and sitter.wanted.age <= GROWN else 0.0
        orders = []
        for k, identity in enumerate(identities):
            strength = FARTHEST if last else float(np.interp(k, (2, CHOICE - 1), (1, STRONGEST)))
            orders.append(Order(canvas, sitter.mesh, identity, age + k % 2 * older, strength, rims, sitter.covered))
        for order, swapped in self._swapped(orders):
            if swapped is None or misplaced(swapped, sitter.mesh, canvas.shape):
                continue
            if not swapped.cover >= LEAST_COVER:
                return tries, "mostly_hidden"
            patch = dressed(canvas, swapped, sitter, order.identity, head)
            tries.append(self._try(canvas, sitter, order.identity, patch, swapped))
            if sum(one.cost < CLOSE for one in tries) >= FINALISTS:
                break
        return tries, "swap_failed"

    def _try(self, canvas: Image, sitter: Sitter, identity: Identity, patch: Patch, plain: Patch) -> Try:
        with worn(canvas, patch, sitter.covers):
            points = self.check.points(canvas, patch.mesh)[None]
            seen, likeness = self.check.glance(canvas, points, sitter.originals)
            cost = misread(self.check.pack, canvas, patch.mesh, sitter.wanted)
        return Try(identity, patch, points, seen, likeness, cost, plain)

    def _outlined(self, canvas: Image, near: Sequence[Try], sitter: Sitter, head: Head) -> list[Try]:
        """Some results with others of several outlines of the head. If they hold, the first shows which are least like the original."""
        outlines, found = Outline.choices(head.hairline, head.frontal), list[Try]()
        for one in near:
            plain = one.plain
            assert plain is not None
            patches = [(outline, outlined(canvas, plain, head, outline, sitter.others)) for outline in outlines]
            tries = [(outline, self._try(canvas, sitter, one.identity, patch, plain)) for outline, patch in patches if patch is not plain]
            tries = [(outline, replace(another, contorted=self._contorted(canvas, another, sitter))) for outline, another in tries]
            # rounded: two renderers differ by a level here and there, and should take the same
            tries.sort(key=lambda pair: round(pair[1].likeness + pair[1].misread + (pair[1].contorted or 0.0), 2))
            if one.price[0] == HOLDS:
                tries = tries[:OUTLINES]
                outlines = [outline for outline, _ in tries]
            found += self._priced(canvas, [another for _, another in tries], sitter)
        return found

    def _swapped(self, orders: Sequence[Order]) -> Iterator[tuple[Order, Patch | None]]:
        """Each order with what came of it, made as many at a time as the swapper likes: the last ones may not be asked for."""
        for start in range(0, len(orders), self.swapper.at_once):
            some = orders[start : start + self.swapper.at_once]
            yield from zip(some, self.swapper.swap_many(some), strict=True)

    def _priced(self, canvas: Image, tries: Sequence[Try], sitter: Sitter) -> list[Try]:
        """Those that all guard recognizers have looked at, with what they say: until the first few hold.

        What it costs to be like the original is the mean over the recognizers: one that took no part agrees with that best. Expression and
        pose are read again, too: some textures are seen as an opener mouth, or a lower head, than they are drawn on. What does not pass
        costs what it lacks.
        """
        priced: list[Try] = []
        holding = 0
        ranked = sorted(tries, key=lambda one: one.cost)
        while ranked and holding < FINALISTS:
            # as many as are looked at in any case
            some, ranked = ranked[: FINALISTS - holding], ranked[FINALISTS - holding :]
            for one, checked in zip(some, self._certified(canvas, some, sitter), strict=True):
                if checked.verdict.passed:
                    contorted = self._contorted(canvas, one, sitter) if one.contorted is None else one.contorted
                    price = TIGHT if checked.room <= ENOUGH else HOLDS, checked.alike + one.misread + contorted
                else:
                    price = FAILS, -checked.room
                priced.append(replace(one, checked=checked, price=price))
                holding += price[0] == HOLDS
        return priced

    def _contorted(self, canvas: Image, one: Try, sitter: Sitter) -> float:
        """What it costs that expression and pose are seen as others than the photo's."""
        mesh = one.patch.mesh[:, :2]
        box = np.concatenate([mesh.min(0), mesh.max(0)])[None].astype(np.float32)
        with worn(canvas, one.patch, sitter.covers):
            after, scores = self.check.pack.mesh.fit(canvas, box, one.points)
        if not scores[0] >= LEAST_MESH_SCORE:
            return FACE_COST * len(USUALLY_OFF)
        off = np.abs(expression(after) - expression(sitter.mesh[None]))[0]
        return FACE_COST * float((off / USUALLY_OFF).mean())

    def _certified(self, canvas: Image, tries: Sequence[Try], sitter: Sitter) -> list[Checked]:
        """What every recognizer says of these, together."""
        looks = []
        for one in tries:
            with worn(canvas, one.patch, sitter.covers):
                looks.append(self.check.crops(canvas, one.points, tuple(one.seen)))
        return self.check.certify(
            np.concatenate([one.points for one in tries]),
            {name: np.concatenate([look[name] for look in looks]) for name in looks[0]},
            {name: np.repeat(vector, len(tries), 0) for name, vector in sitter.originals.items()},
            {name: np.concatenate([one.seen[name] for one in tries]) for name in tries[0].seen},
        )


def _cheapest(tries: Iterable[Try], best: Try | None) -> Try:
    """The one of the lowest price; the earlier one of those that differ by next to nothing, `best` before all."""
    for one in tries:
        if best is None or one.price < (best.price[0], best.price[1] - NOTHING_LESS):
            best = one
    assert best is not None
    return best


def dressed(canvas: Image, patch: Patch, sitter: Sitter, identity: Identity, head: Head) -> Patch:
    """A patch with the identity's outline of the head as well.

    Args:
        canvas: uint8 (h, w, 3) RGB, what the patch is for.
        patch: the sitter's face with the identity.
        sitter: the face.
        identity: that it shows.
        head: the sitter's.
    """
    return outlined(canvas, patch, head, Outline.of(identity.seed, head.hairline, head.frontal), sitter.others)


def misread(pack: Pack, image: Image, mesh: F32, wanted: Wanted) -> float:
    """What it costs that a face is read as older, younger or of the other sex than wanted, in units of `Checked.likeness`."""
    found = pack.estimate(image, mesh[None])
    sex = SEX_COST * abs(float(found.sexes[0]) - wanted.man) if wanted.age > GROWN else 0.0
    return sex + abs(float(found.ages[0]) - wanted.age) * YEAR_COST


def expression(meshes: F32) -> F32:
    """Mouth opening, eye opening, smile and pitch of meshes (n, 468, 3): float32 (n, 4), see `faces/mesh.py`."""
    return np.stack([mouth_opening(meshes), eye_opening(meshes).mean(1), smile(meshes), pose(meshes)[:, 1]], 1)


def misplaced(patch: Patch, mesh: F32, shape: Sequence[int]) -> bool:
    """Whether a result is not about the face with this mesh (468, 3), px of a picture of this shape (h, w, …).

    Its mesh must be where the face's is, and its window must hold the face's five points, as far as they are in the picture.
    """
    low, high = mesh[:, :2].min(0), mesh[:, :2].max(0)
    off = float(np.linalg.norm(patch.mesh[:, :2] - mesh[:, :2], axis=1).mean())
    if not off <= LARGEST_SHIFT * float(np.sqrt(np.prod(high - low))):
        return True
    start, size = np.array([patch.x, patch.y]), np.array(patch.pixels.shape[1::-1])
    points = np.clip(five_points(mesh), 0, np.array(shape[1::-1]) - 1)
    return not ((points >= start - 1) & (points <= start + size)).all()


@contextmanager
def worn(canvas: Image, patch: Patch, covers: Sequence[Cover] = ()) -> Iterator[None]:
    """The canvas with a patch on it, and over that some covers; taken off again."""
    height, width = patch.pixels.shape[:2]
    windows = [(slice(patch.y, patch.y + height), slice(patch.x, patch.x + width)), *(cover.window for cover in covers)]
    kept = [(window, canvas[window].copy()) for window in windows]
    patch.paste(canvas)
    for cover in covers:
        cover.paste(canvas, before(patch, cover))
    try:
        yield
    finally:
        for window, pixels in kept:
            canvas[window] = pixels
