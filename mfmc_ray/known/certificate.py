"""Certificates: what is shown about a face, and the guard that issues them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfmc_ray.known.calibration import Calibration
from mfmc_ray.known.index import KnownFaces
from mfmc_ray.known.search import F32, F64, ExactSearch, Search, cosines, shown_below, usable

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "unusable_embedding": "a recognizer gave no finite vector of unit length for the face or its original, so nothing can be shown",
        "similar_to_original": "the face is not shown to be dissimilar from the one it replaces",
        "similar_to_known": "the face is not shown to be dissimilar from every known face",
    }
)
"""Why a face does not pass, the gravest first."""


@dataclass(frozen=True)
class Certificate:
    """What one guard recognizer shows about a face: the fields of `tables.CERTIFICATE`, and whether it passed.

    Attributes:
        recognizer: its name.
        max_similarity: cosine, −1…1: the highest to any known face; −1 when nobody is known, NaN for an unusable embedding.
        nearest_known: the known_id of that face; None when there is none.
        threshold: cosine.
        false_match_rate: of two strangers at the threshold, 0–1.
        generation: of the known-face index.
        index_digest: sha-256 of the index, hex.
        search: "exact".
        passed: max_similarity + rounding bound < threshold.
    """

    recognizer: str
    max_similarity: float
    nearest_known: str | None
    threshold: float
    false_match_rate: float
    generation: int
    index_digest: str
    search: str
    passed: bool

    @classmethod
    def issued(
        cls, known: KnownFaces, recognizer: str, similarity: float, nearest: str | None, threshold: float, rate: float, passed: bool
    ) -> Certificate:
        """By an exact search among these known faces."""
        return cls(recognizer, similarity, nearest, threshold, rate, known.generation, known.digest, "exact", passed)

    def row(self) -> dict[str, Any]:
        """The fields of `tables.CERTIFICATE`."""
        fields = asdict(self)
        del fields["passed"]
        return fields


@dataclass(frozen=True)
class Verdict:
    """What the guard says of one face.

    Attributes:
        passed: every recognizer shows it to be dissimilar from every known face and, if there is one, from its original.
        reason: None if it passed, else the gravest key of `REASONS`.
        certificates: one per guard recognizer.
        similarity_to_original: recognizer → cosine, NaN for an unusable embedding; empty when no originals were given.
    """

    passed: bool
    reason: str | None
    certificates: tuple[Certificate, ...]
    similarity_to_original: Mapping[str, float]


class Guard:
    """Decides whether faces are dissimilar enough, for every guard recognizer.

    A face's own original is held against the recognizer's strict threshold (`Calibration.strict_threshold`), or the one given if that is
    lower: a threshold that was raised for a large index never brings a face nearer to the person it replaces.

    Args:
        known: the known faces; their recognizers are the guard recognizers.
        thresholds: recognizer → the cosine that a face must stay below, to each known face.
        calibration: gives the false-match rates and strict thresholds.
        searches: recognizer → a search among all known faces, in their order, when their vectors are elsewhere; these recognizers are then
            the guard recognizers, and the vectors in `known` are not used.

    Raises:
        ValueError: when there is no guard recognizer, a threshold is missing or no cosine, a known vector is no embedding, or a search is
            among more or fewer faces.
        CalibrationError: for a recognizer that was not calibrated.
    """

    def __init__(
        self,
        known: KnownFaces,
        thresholds: Mapping[str, float],
        calibration: Calibration,
        searches: Mapping[str, Search] | None = None,
    ) -> None:
        names = list(known.vectors if searches is None else searches)
        if not names or set(thresholds) != set(names):
            raise ValueError(f"wanted a threshold for each of the index's recognizers {sorted(names)}, got {sorted(thresholds)}")
        for name, threshold in thresholds.items():
            if not -1 < threshold <= 1:
                raise ValueError(f"the {name} threshold must be a cosine above −1 and at most 1, not {threshold}")
        self._known = known
        self.calibration = calibration
        self._searches = dict(searches or {name: ExactSearch(vectors) for name, vectors in known.vectors.items()})
        for name, search in self._searches.items():
            if len(search) != len(known):
                raise ValueError(f"the {name} search is among {len(search)} known faces, not among all {len(known)}")
        self._thresholds = {name: float(thresholds[name]) for name in names}
        self._original_thresholds = {name: min(t, calibration.strict_threshold(name)) for name, t in self._thresholds.items()}
        self._rates = {name: calibration.fmr(name, t) for name, t in self._thresholds.items()}

    @property
    def recognizers(self) -> tuple[str, ...]:
        """The guard recognizers."""
        return tuple(self._searches)

    def threshold(self, name: str) -> float:
        """The cosine that a face must stay below to each known face, for this recognizer."""
        return self._thresholds[name]

    def clear(self, name: str, vectors: F32) -> NDArray[np.bool_]:
        """Whether faces (n, d) are below one recognizer's threshold to every known face: bool (n,). What is not cannot pass `certify`."""
        good = usable(vectors)
        good[good] = shown_below(
            self._searches[name].top1(np.ascontiguousarray(vectors[good]))[0], self._thresholds[name], vectors.shape[1]
        )
        return good

    def certify(self, embeddings: Mapping[str, F32], originals: Mapping[str, F32] | None = None) -> list[Verdict]:
        """Checks n faces against all known faces and each against its original.

        Args:
            embeddings: for every guard recognizer float32 (n, d). A row that is not finite or not of unit length does not pass.
            originals: the same of the faces they replace; None for faces that replace nobody (an identity's neutral rendering).

        Returns:
            n verdicts.

        Raises:
            ValueError: when a recognizer is missing or an array has another type or shape.
        """
        n = self._count(embeddings, originals)
        certificates: list[list[Certificate]] = []
        near: dict[str, F64] = {}
        unusable, like_original, like_known = (np.zeros(n, bool) for _ in range(3))
        for name, search in self._searches.items():
            dim = search.dim
            good = usable(embeddings[name])
            similarity, rows = np.full(n, np.nan, np.float32), np.full(n, -1, np.int64)
            similarity[good], rows[good] = search.top1(np.ascontiguousarray(embeddings[name][good]))
            clear = shown_below(similarity, self._thresholds[name], dim)
            like_known |= ~clear
            if originals is not None:
                good &= usable(originals[name])
                near[name] = np.where(good, cosines(embeddings[name], originals[name]), np.nan)
                like_original |= ~shown_below(near[name], self._original_thresholds[name], dim)
            unusable |= ~good
            certificates.append([self._certificate(name, float(similarity[i]), int(rows[i]), bool(clear[i])) for i in range(n)])
        verdicts = []
        for i in range(n):
            failed = dict(zip(REASONS, (unusable[i], like_original[i], like_known[i]), strict=True))
            reason = next((key for key, value in failed.items() if value), None)
            verdicts.append(
                Verdict(
                    reason is None, reason, tuple(c[i] for c in certificates), {name: float(cosine[i]) for name, cosine in near.items()}
                )
            )
        return verdicts

    def _count(self, embeddings: Mapping[str, F32], originals: Mapping[str, F32] | None) -> int:
        n = -1
        for what, arrays in (("embeddings", embeddings), ("originals", originals)):
            if arrays is None:
                continue
            for name, search in self._searches.items():
                if name not in arrays:
                    raise ValueError(f"the {what} of the guard recognizer {name!r} are missing")
                n = len(arrays[name]) if n < 0 else n
                if arrays[name].dtype != np.float32 or arrays[name].shape != (n, search.dim):
                    got = f"{arrays[name].dtype} {arrays[name].shape}"
                    raise ValueError(f"the {what} of {name} must be float32 ({n}, {search.dim}), not {got}")
        return n

    def _certificate(self, name: str, similarity: float, row: int, passed: bool) -> Certificate:
        nearest = self._known.known_id(row)
        return Certificate.issued(self._known, name, similarity, nearest, self._thresholds[name], self._rates[name], passed)


def terms_of(thresholds: Mapping[str, float], calibration: Calibration) -> str:
    """What stands for the thresholds and false-match curves that certificates were issued by: sha-256, hex."""
    curves = {name: calibration.curves[name].digest for name in thresholds}
    return hashlib.sha256(json.dumps([dict(thresholds), curves], sort_keys=True).encode()).hexdigest()
