"""Certificates brought up to a newer generation of the known-face index, at the cost of what was added to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mfmc_ray.known.calibration import Calibration
from mfmc_ray.known.certificate import Certificate
from mfmc_ray.known.index import KnownFaces, known_rows
from mfmc_ray.known.search import F32, I64, ExactSearch, shown_below, usable

SLICE = 1 << 17
"""Known faces that are held at a time."""
_HELD = 4  # slices


class Renewal:
    """Renews certificates of faces whose embeddings are known.

    What a face's certificate says of an earlier generation stays true of its known faces, so only those added since are compared:
    q faces × ΔN additions instead of q × N. A face whose nearest known face has been removed is compared with all of them again, and so
    is one whose certificate does not name this index by its digest: of another index (restored, or built anew) it says nothing.

    Args:
        folder: of the index.
        recognizers: guard recognizer → dimension.
        known: the known faces, of the newest generation; their vectors are not used, and may be absent.
        thresholds: guard recognizer → the cosine that a face must stay below.
        calibration: gives the false-match rates.
    """

    def __init__(
        self, folder: Path, recognizers: Mapping[str, int], known: KnownFaces, thresholds: Mapping[str, float], calibration: Calibration
    ) -> None:
        self._folder, self._recognizers, self._known = folder, dict(recognizers), known
        self._thresholds = dict(thresholds)
        self._rates = {name: calibration.fmr(name, t) for name, t in self._thresholds.items()}
        self._slices: dict[int, dict[str, ExactSearch]] = {}

    def __call__(self, embeddings: Mapping[str, F32], certificates: Sequence[Sequence[Mapping[str, Any]]]) -> list[tuple[Certificate, ...]]:
        """New certificates for n faces; whoever has one that did not pass no longer holds.

        Args:
            embeddings: for every guard recognizer float32 (n, d): what the certificates were issued for.
            certificates: n lists of rows of `tables.CERTIFICATE`, one for each guard recognizer.

        Returns:
            n tuples, in the order of the guard recognizers.

        Raises:
            ValueError: when an embedding is none.
            KnownIndexError: when the index cannot be read.
        """
        renewed: list[list[Certificate]] = [[] for _ in certificates]
        for name, dim in self._recognizers.items():
            vectors = np.ascontiguousarray(embeddings[name], np.float32)
            if vectors.shape != (len(certificates), dim) or not usable(vectors).all():
                raise ValueError(f"wanted {len(certificates)} {name} embeddings, finite and of unit length")
            best, nearest, starts = self._before(name, certificates)
            for start in np.unique(starts):
                mine = np.flatnonzero(starts == start)
                for first, search in self._since(int(start)):
                    similarity, rows = search[name].top1(np.ascontiguousarray(vectors[mine]))
                    for i, cosine, row in zip(mine, similarity, rows, strict=True):
                        if row >= 0 and cosine > best[i]:
                            best[i], nearest[i] = cosine, self._known.known_id(first + int(row))
            passed = shown_below(best, self._thresholds[name], dim)
            threshold, rate = self._thresholds[name], self._rates[name]
            for k, some in enumerate(renewed):
                some.append(Certificate.issued(self._known, name, float(best[k]), nearest[k], threshold, rate, bool(passed[k])))
        return [tuple(some) for some in renewed]

    def _before(self, name: str, certificates: Sequence[Sequence[Mapping[str, Any]]]) -> tuple[F32, list[str | None], I64]:
        """The highest cosines so far, whose they are, and the row of the index from which on nothing was compared yet."""
        best, starts = np.full(len(certificates), -1, np.float32), np.zeros(len(certificates), np.int64)
        nearest: list[str | None] = [None] * len(certificates)
        bounds = (*self._known.starts, len(self._known))
        for i, some in enumerate(certificates):
            old = next((c for c in some if c["recognizer"] == name), None)
            if old is None or self._known.is_forgotten(old["nearest_known"]) or not np.isfinite(old["max_similarity"]):
                continue
            generation, digests = old["generation"], self._known.digests
            if not 0 <= generation < len(digests) or digests[generation] != old["index_digest"]:
                continue
            best[i], nearest[i], starts[i] = old["max_similarity"], old["nearest_known"], bounds[generation + 1]
        return best, nearest, starts

    def _since(self, start: int) -> Iterator[tuple[int, dict[str, ExactSearch]]]:
        """The rows from `start` on in slices: the first row of each, and recognizer → its search."""
        for first in range(start, len(self._known), SLICE):
            if first not in self._slices:
                while len(self._slices) >= _HELD:
                    del self._slices[next(iter(self._slices))]
                rows = known_rows(self._folder, self._recognizers, first, min(first + SLICE, len(self._known)))
                self._slices[first] = {name: ExactSearch(vectors) for name, vectors in rows.vectors.items()}
            yield first, self._slices[first]
