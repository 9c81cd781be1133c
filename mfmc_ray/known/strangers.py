"""Which faces are of one person, when nobody has said who is who: exact search for pairs that are surely alike, joined with care.

A pair of faces is compared by the recognizers together: the weighted sum of their cosines, where a recognizer weighs the more, the less its
cosine has to rise for the false-match rate to fall by a power of ten. That sum is the cosine of the embeddings put one after the other, so
one exact search finds every pair that counts. (On 520 labelled news photos and 257 other faces, at the rate where no two strangers were
taken for one, it found 96 % of the true pairs; SFace alone 95 %, dlib alone 62 %.)

Two faces are linked where that cosine reaches a false-match rate of `RATE` / n among n faces. Links are followed from the surest on
(single linkage, which finds a person's odd photos by way of others); what they would join must be alike on the average, too, by `SLACK`
times that rate: so strangers form no chains. The mean over several pairs is surer than one: of k pairs it is a link itself where it reaches
k times the rate (up to `MEANS`; at equal false-match rates the mean over two and three photos needed 2.3 and 5 times that of one). Two
faces of one picture are never joined, nor two groups that were there before.

On those photos all of the people were told apart; of a person's four photos 97 % were in the largest group, on the average.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mfmc_ray.known.calibration import Calibration
from mfmc_ray.known.search import F32, I64, ExactSearch, cosines

RATE = 0.01
"""False matches that are expected among n comparisons at the threshold of a link, were the recognizers' errors the same ones; they are
not quite: on the photos above it was a tenth of that."""
SLACK = 10.0
MEANS = 5
LINKS = 32
"""Of each face the nearest so many others are looked at."""
_LEAST = 100
"""Among fewer faces the threshold is that of so many."""
_AT_ONCE = 1024


def joint(vectors: Mapping[str, F32], calibration: Calibration) -> F32:
    """Faces as all recognizers together see them: float32 (n, Σd), unit length; a cosine of two is the weighted sum of theirs.

    Args:
        vectors: recognizer → float32 (n, d), unit length.
        calibration: of these recognizers.
    """
    weights = _weights(tuple(vectors), calibration)
    return np.ascontiguousarray(np.hstack([np.sqrt(weights[name]) * v for name, v in vectors.items()]), np.float32)


def joint_threshold(recognizers: tuple[str, ...], calibration: Calibration, rate: float) -> float:
    """The cosine of `joint` vectors that all recognizers have at this false-match rate, each by itself.

    The rate of both together is lower, as far as they err on different pairs.
    """
    weights = _weights(recognizers, calibration)
    return min(1.0, sum(weights[name] * calibration.threshold_for(name, rate) for name in recognizers))


def gather(vectors: Mapping[str, F32], pictures: I64, calibration: Calibration, groups: I64 | None = None, first: int = 0) -> I64:
    """Which faces are of one person: int64 (n,), the number of each face's group.

    Args:
        vectors: recognizer → float32 (n, d), unit length, usable.
        pictures: int64 (n,): the picture that each face is in.
        calibration: of these recognizers.
        groups: int64 (n,): the group that a face is in already, from 0; −1 for none. Such faces stay where they are.
        first: number of the first new group, if `groups` has none as high; others follow in the order of their first faces.
    """
    n = len(pictures)
    groups = np.full(n, -1, np.int64) if groups is None else groups
    new = np.flatnonzero(groups < 0)
    if not len(new):
        return groups.copy()
    names, rate = tuple(vectors), RATE / max(n, _LEAST)
    least = joint_threshold(names, calibration, SLACK * rate)
    means = [joint_threshold(names, calibration, k * rate) for k in range(1, MEANS + 1)]
    faces = joint(vectors, calibration)
    found = _Groups(faces, pictures, groups)
    links = _links(faces, new, means[-1])
    while found.join(links, means, least):
        pass  # what was too unlike a single face need not be too unlike its group
    return found.numbers(first)


Link = tuple[int, int, float]


class _Groups:
    """Groups of faces that grow: a face stands for each, with the sum of their vectors and the pictures they are in."""

    def __init__(self, faces: F32, pictures: I64, groups: I64) -> None:
        self._groups, self._of = groups, np.arange(len(faces))
        self._sums, self._pictures = dict(enumerate(faces.astype(np.float64))), {i: {int(p)} for i, p in enumerate(pictures)}
        self._members = {i: [i] for i in range(len(faces))}
        for group in np.unique(groups[groups >= 0]):
            first, *others = map(int, np.flatnonzero(groups == group))
            for other in others:
                self._merge(first, other)

    def join(self, links: list[Link], means: list[float], least: float) -> bool:
        """Follows links, the surest first, where nothing is against it; whether it followed any. Those that are done with are taken out.

        Args:
            links: two faces and their cosine.
            means: the mean cosine of one, two, … pairs that joins groups.
            least: that of groups that a surest link joins, one that reaches the first of these.
        """
        left, some = [], False
        for link in links:
            a, b = (int(self._of[i]) for i in link[:2])
            if a == b or not self._may_meet(a, b):
                continue
            pairs = len(self._members[a]) * len(self._members[b])
            mean = float(self._sums[a] @ self._sums[b]) / pairs
            if mean < means[min(pairs, len(means)) - 1] and not (link[2] >= means[0] and mean >= least):
                left.append(link)
                continue
            self._merge(*((b, a) if self._groups[b] >= 0 else (a, b)))
            some = True
        links[:] = left
        return some

    def numbers(self, first: int) -> I64:
        """The number of each face's group."""
        found, number = self._groups.copy(), max(first, int(self._groups.max(initial=-1)) + 1)
        for i in range(len(found)):
            if found[i] >= 0:
                continue
            members = self._members[int(self._of[i])]
            old = max(int(self._groups[k]) for k in members)
            found[members] = number if old < 0 else old
            number += old < 0
        return found

    def _may_meet(self, a: int, b: int) -> bool:
        return not (self._groups[a] >= 0 and self._groups[b] >= 0) and self._pictures[a].isdisjoint(self._pictures[b])

    def _merge(self, a: int, b: int) -> None:
        """b's faces go to a."""
        self._of[self._members[b]] = a
        self._members[a] += self._members.pop(b)
        self._sums[a] = self._sums[a] + self._sums.pop(b)
        self._pictures[a] |= self._pictures.pop(b)


def _links(faces: F32, new: NDArray[np.intp], threshold: float) -> list[Link]:
    """Pairs of a new face and another one whose cosine reaches the threshold, and the cosine, the surest first."""
    search = ExactSearch(faces)
    best: dict[tuple[int, int], float] = {}
    for start in range(0, len(new), _AT_ONCE):
        some = new[start : start + _AT_ONCE]
        for i, rows in zip(map(int, some), search.above(np.ascontiguousarray(faces[some]), threshold), strict=True):
            rows = rows[rows != i]
            alike = cosines(np.broadcast_to(faces[i], (len(rows), faces.shape[1])), faces[rows])
            for k in np.argsort(-alike, kind="stable")[:LINKS]:
                if alike[k] >= threshold:
                    other = int(rows[k])
                    best[min(i, other), max(i, other)] = float(alike[k])
    return [(*pair, cosine) for pair, cosine in sorted(best.items(), key=lambda item: (-item[1], item[0]))]


def _weights(recognizers: tuple[str, ...], calibration: Calibration) -> dict[str, float]:
    """recognizer → its share in the sum: one over what its cosine rises by from a false-match rate of 1e-3 to 1e-5."""
    rises = {name: calibration.threshold_for(name, 1e-5) - calibration.threshold_for(name, 1e-3) for name in recognizers}
    total = sum(1 / rise for rise in rises.values())
    return {name: 1 / rise / total for name, rise in rises.items()}
