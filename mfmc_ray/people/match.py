"""Who of the enrolled people a face is: by all recognizers together, at a strict threshold, or nobody.

A person's score for a recognizer is the mean cosine of the face to the person's photos; what it is worth is said by the recognizer's
calibration, as the false-match rate at that cosine. The *evidence* for a person is how small the product of these rates is: −log₁₀ of it.
A face is a person if the evidence reaches the threshold, no recognizer speaks against it, and nobody else, neither another person nor
another face of the image, comes near.

Measured on 520 news photos of 130 people (`benchmarks/recognition.py` prints all of what follows): 30 random choices of one, two or three
photos of everybody to be enrolled, all other photos against all people. Strangers' evidence has an exponential tail. Fitted to the most
similar 0.02–0.2 %, it has a false-match rate of 1e-6 at 8.8–9.2, 7.8–8.4 and 7.3–8.0 with one, two and three photos: `THRESHOLDS`. The
highest evidence seen, of 3 million comparisons, is 7.8, 7.2 and 6.8. Missed are 6.2 %, 3.3 % and 2.5 %.

Tried, and not better at the same rate: the highest cosine instead of the mean, mirrored photos, normalising by how like the face is to 200
other faces. A threshold for each recognizer that finds nobody wrong misses 10–12 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mfmc_ray.faces.faces import F32
from mfmc_ray.known.calibration import Calibration, Curve
from mfmc_ray.known.search import usable
from mfmc_ray.people.registry import Registry
from mfmc_ray.people.sightings import AMBIGUOUS, RECOGNISED, UNKNOWN, UNUSABLE, Sighting

F64 = NDArray[np.float64]

THRESHOLDS: Mapping[int, tuple[float, float, float]] = {1: (6.0, 6.0, 6.0), 2: (9.0, 8.2, 7.8)}
"""Number of recognizers → evidence from which a face is a person with one, two, and more enrolled photos: where the false-match rate is
`RATE`. Of one recognizer the evidence is the rate itself; with more than two their number is taken for two."""
RATE = 1e-6
"""How often a stranger's face is taken for one given person."""
CROWD, RISE = 100, 1.3
"""Of more people than this the threshold is higher, by so much for ten times as many: the evidence that a tenth of the rate takes with one
photo. So a stranger is taken for any of them with `CROWD` × `RATE` at most."""
DOUBT = 0.05
"""A recognizer with a higher false-match rate speaks against a person. No match that was measured is lost by it."""
MARGIN = 3.0
"""Evidence by which the best person must be ahead of any other, and the face ahead of any other face of the image. Of the measured faces
that reach their threshold 0.06 %, 0 and 0.2 % are not so far ahead of all other 129 people."""
SMALL, MORE = 28.0, 1.0
"""Faces whose √area in px is below this need so much more evidence: of photos shrunk to 20 px a rate of 1e-6 is at 0.6–1.1 more, to 28 px
at 0.2 more. With two photos enrolled 5 % of 40 px, 9 % of 28 px and 42 % of 20 px are missed."""
LEAST_MESH = 0.5
"""Belief of the face mesh below which it is no face that anybody is recognised by. Of 520 faces none has less than 0.97."""
_PAIRS = 1 << 22  # held at a time


class Matcher:
    """Compares faces with the enrolled people.

    Args:
        registry: the people.
        calibration: of the recognizers.
        recognizers: names; all of them must agree.

    Raises:
        PeopleError: the people were enrolled with other recognizers.
        CalibrationError: a recognizer has no calibration.
    """

    def __init__(self, registry: Registry, calibration: Calibration, recognizers: Sequence[str]) -> None:
        self.people = registry.people()
        self.recognizers = tuple(recognizers)
        self._curves = {name: calibration.curve(name) for name in recognizers}
        owners = registry.owners()
        photos = np.bincount(owners, minlength=len(self.people))
        self._means: dict[str, F64] = {}
        for name in recognizers:
            sums = np.zeros((len(self.people), registry.vectors(name).shape[1]))
            np.add.at(sums, owners, registry.vectors(name).astype(np.float64))
            self._means[name] = sums / photos[:, None]
        by_photos = THRESHOLDS[min(2, len(self.recognizers))]
        rise = RISE * max(0.0, np.log10(max(1, len(self.people)) / CROWD))
        self.thresholds: F64 = np.array([by_photos[min(n, 3) - 1] for n in photos], np.float64) + rise
        """float64 (people,): the evidence from which a face is that person."""

    def wrong(self, faces: int) -> float:
        """How many of so many strangers' faces are expected to be taken for one of the people."""
        return faces * min(len(self.people), CROWD) * RATE

    def cosines(self, vectors: Mapping[str, F32]) -> dict[str, F64]:
        """recognizer → float64 (n, people): the mean cosine to each person's photos; the same bits in any batch.

        Args:
            vectors: recognizer → float32 (n, d), unit length.
        """
        return {name: np.round(vectors[name].astype(np.float64) @ means.T, 9) for name, means in self._means.items()}

    def evidence(self, cosines: Mapping[str, F64]) -> tuple[F64, NDArray[np.bool_]]:
        """The evidence that faces are people, of their cosines in any shape, and whether no recognizer speaks against it."""
        each = [evidence(self._curves[name], cosines[name]) for name in self.recognizers]
        return np.sum(each, axis=0), np.min(each, axis=0) >= -np.log10(DOUBT)

    def nearest(self, vectors: Mapping[str, F32], *, but: str) -> str | None:
        """The person, other than one, whom a photo would be recognised as; None if there is none.

        Args:
            vectors: recognizer → float32 (d,).
            but: the person who does not count.
        """
        if not self.people:
            return None
        total, alike = self.evidence(self.cosines({name: vectors[name][None] for name in self.recognizers}))
        others = np.array([person != but for person in self.people])
        reached = (total[0] >= self.thresholds) & alike[0] & others
        return self.people[int(np.argmax(np.where(reached, total[0], -np.inf)))] if reached.any() else None

    def likely(self, vectors: Mapping[str, F32]) -> NDArray[np.bool_]:
        """bool (n,): faces that may be somebody; all others are `UNKNOWN`, whatever else is in their image."""
        n = len(vectors[self.recognizers[0]])
        found = np.zeros(n, bool)
        if not self.people:
            return found
        means = {name: np.ascontiguousarray(array.T, np.float32) for name, array in self._means.items()}
        least = {name: curve.cosine(DOUBT) - _SLACK for name, curve in self._curves.items()}
        step = max(1, _PAIRS // len(self.people))
        for start in range(0, n, step):
            some = {name: vectors[name][start : start + step] @ means[name] for name in self.recognizers}
            who, person = np.nonzero(np.all([some[name] >= least[name] for name in self.recognizers], axis=0))
            total, _ = self.evidence({name: some[name][who, person].astype(np.float64) + _SLACK for name in self.recognizers})
            found[start + who[total >= self.thresholds[person]]] = True
        return found

    def __call__(self, vectors: Mapping[str, F32], sizes: F32, usable: NDArray[np.bool_]) -> tuple[Sighting, ...]:
        """Who the faces of one image are.

        Args:
            vectors: recognizer → float32 (n, d), unit length where `usable`.
            sizes: float32 (n,), √area of the boxes, px.
            usable: bool (n,), whether a face has embeddings and is one.
        """
        n, first = len(usable), self.recognizers[0]
        if not self.people or not usable.any():
            return tuple(Sighting(None, -1.0, 0.0, UNKNOWN if ok else UNUSABLE) for ok in usable)
        cosines = self.cosines(vectors)
        total, alike = self.evidence(cosines)
        total = np.where(usable[:, None], total, -np.inf)
        reached = alike & (total >= self.thresholds + np.where(sizes < SMALL, MORE, 0.0)[:, None])
        seen = []
        for i in range(n):
            if not usable[i]:
                seen.append(Sighting(None, -1.0, 0.0, UNUSABLE))
                continue
            best = int(np.argmax(total[i]))
            second = np.delete(cosines[first][i], best).max(initial=-1.0)
            about = round(float(cosines[first][i, best]), 6), round(float(cosines[first][i, best] - second), 6)
            if not reached[i].any():
                seen.append(Sighting(None, *about, UNKNOWN))
                continue
            rivals = np.append(np.delete(total[i], best), np.delete(total[:, best], i))
            clear = reached[i, best] and not (rivals > total[i, best] - MARGIN).any() and not np.delete(reached[:, best], i).any()
            seen.append(Sighting(self.people[best], *about, RECOGNISED) if clear else Sighting(None, *about, AMBIGUOUS))
        return tuple(seen)


def fit(vectors: Mapping[str, F32], sizes: F32, mesh_scores: F32, min_size: float) -> NDArray[np.bool_]:
    """Which faces anybody can be recognised by: bool (n,).

    Args:
        vectors: recognizer → float32 (n, d).
        sizes: float32 (n,), √area of the boxes, px.
        mesh_scores: float32 (n,), 0–1.
        min_size: px; smaller ones are nobody.
    """
    there = np.all([usable(array) for array in vectors.values()], axis=0) if vectors else np.zeros(len(sizes), bool)
    return np.asarray(there & (sizes >= min_size) & (mesh_scores >= LEAST_MESH))


_SLACK = 1e-4  # of a cosine in float32


def evidence(curve: Curve, cosines: F64) -> F64:
    """−log₁₀ of the false-match rate at each cosine, as `Curve.at` has it."""
    x, y = curve.cosines, -np.log10(curve.rates[0])
    beyond = y[-1] + (y[-1] - y[-2]) / (x[-1] - x[-2]) * (cosines - x[-1])
    return np.asarray(np.where(cosines > x[-1], beyond, np.interp(cosines, x, y)), np.float64)
