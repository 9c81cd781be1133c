"""Wearing: a given identity is put onto a face, varied step by step until it holds.

A hill climb: of each step's result the guard says how near it comes to whoever it is nearest to; steps that lead away are kept, others are
taken back (an evolution strategy with one parent and one child, Rechenberg 1973).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mfmc_ray.faces.faces import Image
from mfmc_ray.identities.casting import identity_of
from mfmc_ray.identities.model import load_model
from mfmc_ray.identities.sample import Identity
from mfmc_ray.identities.variation import varied
from mfmc_ray.pipeline.check import Checked, OutputCheck
from mfmc_ray.pipeline.choice import CLOSE, ENOUGH, LEAST_COVER, STRANGER, STRONGEST, Sitter, Try, dressed, misplaced, misread, worn
from mfmc_ray.pipeline.pseudonyms import Assigned
from mfmc_ray.swap.cover import GLASSES
from mfmc_ray.swap.outline import Head
from mfmc_ray.swap.protocol import SwapError, Swapper

ROOM = 10.0
"""What lacking room (`Checked.room`) costs beside likeness to the original (`Checked.likeness`): it must be there before all else."""
BETTER = 4
"""Steps that are still taken once a result holds, to make it less like the original."""
FIRST, OTHERS = 16, 8
"""Attempts with a person's first identity, and with each other one."""


@dataclass(frozen=True)
class Worn:
    """How an identity was put onto a face.

    Attributes:
        best: the best result, if one passes; not yet on the canvas.
        attempts: results that were looked at.
        reason: why none passes.
        steps: of the best result, whether it passes or not (`variation.varied`).
        room: of the best result; see `Checked.room`.
    """

    best: Try | None
    attempts: int
    reason: str
    steps: tuple[int, ...]
    room: float


class Wearer:
    """Args:
    swapper: puts identities onto faces.
    check: looks at the results.
    """

    def __init__(self, swapper: Swapper, check: OutputCheck) -> None:
        self.swapper, self.check, self.model = swapper, check, load_model()

    def __call__(
        self,
        canvas: Image,
        sitter: Sitter,
        identity: Identity,
        attempts: int,
        steps: Sequence[int] = (),
    ) -> Worn:
        """Puts an identity onto a face, in at most so many attempts.

        Args:
            canvas: uint8 (h, w, 3) RGB; as it was when this returns.
            sitter: the face in it.
            identity: that it is to wear.
            attempts: 1 or more.
            steps: to begin with: what has held before.
        """
        head = Head.of(canvas, sitter.mesh)
        best: tuple[Try, Checked] | None = None
        taken, cost, held, number = tuple(steps), np.inf, 0, 0
        first = max(steps, default=0)
        for number in range(1, attempts + 1):
            path = (*taken, first + number - 1) if number > 1 else taken
            stepped = varied(self.model, identity, path)
            found = self._try(canvas, sitter, head, stepped, min(1.0, max(path, default=0) / attempts))
            if isinstance(found, str):
                return Worn(None, number, found, (), -np.inf)
            some, checked = found
            new = ROOM * max(0.0, ENOUGH - checked.room) + max(checked.likeness, STRANGER) + some.misread
            if new < cost:
                best, taken, cost = found, path, new
            held += best is not None and best[1].room > ENOUGH
            if held and (held > BETTER or cost < CLOSE or steps):  # what has held before has been made better then
                break
        if best is None:  # what a recognizer makes no embedding of leaves no room
            return Worn(None, number, "unusable_embedding", (), -np.inf)
        one, checked = best
        kept = replace(one, identity=identity, checked=checked) if checked.verdict.passed else None
        return Worn(kept, number, checked.verdict.reason or "", taken, checked.room)

    def _try(
        self,
        canvas: Image,
        sitter: Sitter,
        head: Head,
        identity: Identity,
        late: float,
    ) -> tuple[Try, Checked] | str:
        """One result, and what all recognizers say of it; the reason if it hardly shows. `late` goes from 0 to 1."""
        strength = float(np.interp(late, (0.2, 1), (1, STRONGEST)))
        covered, age = sitter.covered, sitter.wanted.age
        rims = covered.glasses < GLASSES or late < 0.5
        try:
            patch = self.swapper.swap(canvas, sitter.mesh, identity, age=age, strength=strength, keep_rims=rims, covered=covered)
        except SwapError:
            return "swap_failed"
        if misplaced(patch, sitter.mesh, canvas.shape):
            return "swap_failed"
        if not patch.cover >= LEAST_COVER:
            return "mostly_hidden"
        patch = dressed(canvas, patch, sitter, identity, head)
        with worn(canvas, patch, sitter.covers):
            points = self.check.points(canvas, patch.mesh)[None]
            (checked,) = self.check.certify(points, self.check.crops(canvas, points), sitter.originals)
            cost = misread(self.check.pack, canvas, patch.mesh, sitter.wanted)
        return Try(identity, patch, points, {}, checked.likeness, cost), checked


class Wardrobe:
    """Puts onto a face what its person wears.

    Args:
        wearer: puts identities onto faces.
        assigned: who wears what.
        attempts: on a face at most.
    """

    def __init__(self, wearer: Wearer, assigned: Assigned, attempts: int) -> None:
        self.wearer, self.assigned, self.attempts = wearer, assigned, attempts

    def __call__(
        self,
        face: tuple[str, int],
        canvas: Image,
        sitter: Sitter,
        but: Collection[str],
    ) -> tuple[Try | None, int, str]:
        """The best result with the first identity of the person that holds, the number of attempts, and, if there is none, the reason.

        Args:
            face: image_id and face_no.
            canvas, sitter: as of `Wearer`.
            but: identity_ids that it may not wear.
        """
        names, steps = self.assigned.of(*face)
        count, reason = 0, "no_pseudonym"
        for number, name in enumerate(names):
            most = min(OTHERS if number else FIRST, self.attempts - count)
            if name in but or most < 1:
                continue
            identity = identity_of(self.wearer.model, name)
            found = self.wearer(canvas, sitter, identity, most, () if number else steps)
            count, reason = count + found.attempts, found.reason
            if found.best is not None:
                return found.best, count, ""
        return None, count, reason
