"""Who is it? A face is held against a gallery of originals, and the gallery's people are ranked by their most similar photo.

Two questions are asked of an output face. `other_photos`: the gallery has all originals but those of its own photo; what is found is the
person. `same_photo`: it has its own original, too, with the same pose, light and hair: the strongest attack that a recognizer alone allows.

Chance is measured: what the same answers would hit if the probes' names were dealt out among them at random. It is 1 / people for answers
that favour nobody, and more if some people are named more often than others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mfmc_ray.faces.faces import F32

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

RANKS = (1, 5)
_CHUNK = 1 << 24  # cosines held at a time


@dataclass(frozen=True)
class Answers:
    """What was answered to n probes.

    Attributes:
        ranks: int64 (n,), where the right person came, from 1; 0: not asked (nobody knows who it is, or there is no photo to find).
        named: int64 (n, 5): the people ranked first to fifth, −1 beyond the gallery's people.
        people: in the gallery.
    """

    ranks: I64
    named: I64
    people: int

    @property
    def asked(self) -> NDArray[np.bool_]:
        """bool (n,)."""
        return np.asarray(self.ranks > 0)

    def hits(self, k: int) -> F64:
        """float64 (n,): 1 where the right person is among the first k, 0 where not, NaN where it was not asked."""
        return np.where(self.asked, (self.ranks <= k) & self.asked, np.nan).astype(np.float64)

    def chance(self, person: I64, k: int, strata: Sequence[str] | None = None) -> float | None:
        """The share of hits at rank k if the probes' names were dealt out anew, among all of them or within strata; None without probes.

        Args:
            person: int64 (n,): of the probes.
            k: rank.
            strata: n labels, such as the sex that a fake keeps.
        """
        asked = np.flatnonzero(self.asked)
        if not len(asked):
            return None
        labels = np.zeros(len(asked), np.int64) if strata is None else np.unique(np.array(strata, np.str_)[asked], return_inverse=True)[1]
        expected = 0.0
        for label in np.unique(labels):
            mine = asked[labels == label]
            size = int(max(person.max(), self.named.max())) + 1
            named = np.bincount(self.named[mine, :k][self.named[mine, :k] >= 0], minlength=size)
            true = np.bincount(person[mine], minlength=size)
            expected += float(named @ true) / len(mine)  # of len(mine) probes
        return expected / len(asked)


def identify(
    probes: F32, probe_person: I64, probe_image: I64, gallery: F32, gallery_person: I64, gallery_image: I64, *, same_photo: bool = False
) -> Answers:
    """Asks who each probe is.

    Args:
        probes: float32 (n, d), unit length; rows of NaN are not asked.
        probe_person, probe_image: int64 (n,); person −1: unknown, not asked.
        gallery: float32 (m, d), unit length.
        gallery_person, gallery_image: int64 (m,); who is unknown is left out.
        same_photo: whether photos of the probe's own image stay in.
    """
    known = np.flatnonzero((gallery_person >= 0) & np.isfinite(gallery).all(1))
    known = known[np.argsort(gallery_person[known], kind="stable")]
    vectors, persons, images = gallery[known], gallery_person[known], gallery_image[known]
    people, starts = np.unique(persons, return_index=True)
    ranks, named = np.zeros(len(probes), np.int64), np.full((len(probes), max(RANKS)), -1, np.int64)
    ask = np.flatnonzero((probe_person >= 0) & np.isfinite(probes).all(1))
    step = max(1, _CHUNK // max(1, len(known)))
    for start in range(0, len(ask) if len(people) else 0, step):
        rows = ask[start : start + step]
        cosines = probes[rows] @ vectors.T
        if not same_photo:
            cosines[probe_image[rows, None] == images[None]] = -np.inf
        best = np.maximum.reduceat(cosines, starts, axis=1)  # each person's most similar photo
        own = np.searchsorted(people, probe_person[rows])
        there = (own < len(people)) & (people[np.minimum(own, len(people) - 1)] == probe_person[rows])
        mine = best[np.arange(len(rows)), np.minimum(own, len(people) - 1)]
        there &= np.isfinite(mine)
        ranks[rows] = np.where(there, 1 + (best > mine[:, None]).sum(1), 0)
        k = min(max(RANKS), len(people))
        first = np.argpartition(-best, k - 1, axis=1)[:, :k]
        order = np.take_along_axis(first, np.argsort(-np.take_along_axis(best, first, 1), axis=1, kind="stable"), 1)
        named[rows, :k] = np.where(np.isfinite(np.take_along_axis(best, order, 1)), people[order], -1)
    return Answers(ranks, named, len(people))
