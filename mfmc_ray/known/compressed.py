"""Exact search among compressed copies: the answers of `ExactSearch`, bit for bit, with a half or a quarter of its memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mfmc_ray.known import products
from mfmc_ray.known.search import (
    EXACT_ERROR,
    F32,
    F64,
    I64,
    UNIT_ROUNDOFF,
    checked,
    exact_among,
    found,
    least_cosine,
    rounding_bound,
    similar,
)

Codec = Literal["fp16", "int8"]
LEVELS = 127  # of int8, on either side of zero


def decoding_bound(dim: int, residual: float, deviation: float = 4 * UNIT_ROUNDOFF) -> float:
    """The most by which the float32 product of a decoded vector and a query can differ from the cosine of the original and the query.

    Proof. Let x be the original, x̂ what is decoded (a float32 vector), y the query, s the computed product of x̂ and y, c the cosine of x
    and y, ρ = ‖x̂ − x‖, and both lengths of x and y within δ of 1. Then

        |s − c| ≤ |s − x̂·y| + |x̂·y − x·y| + |x·y − c|.

    The second term is |(x̂ − x)·y| ≤ ρ‖y‖ ≤ ρ(1 + δ) by Cauchy–Schwarz. For the first, the sum of d products in any order errs by at most
    γ_d Σ|x̂_i y_i| ≤ γ_d ‖x̂‖‖y‖ ≤ γ_d (1 + δ + ρ)(1 + δ), γ_d = d u / (1 − d u), u = 2⁻²⁴, and by underflow (see `rounding_bound`): that is
    at most `rounding_bound`'s share of it and γ_d ρ(1 + δ) more. The third term is `rounding_bound`'s, too. So the bound is that of
    `rounding_bound` plus (1 + γ_d) ρ (1 + δ). It does not matter how x̂ came about: not the codec, only ρ enters, and ρ is measured.

    Args:
        dim: d.
        residual: ρ ≥ 0.
        deviation: δ.

    Raises:
        ValueError: for a dimension out of range.
    """
    gamma = dim * UNIT_ROUNDOFF / (1 - dim * UNIT_ROUNDOFF)
    return rounding_bound(dim, deviation) + (1 + gamma) * residual * (1 + deviation)


class CompressedSearch:
    """A `Search` that holds compressed copies in memory and reads the originals for its candidates only.

    A block is decoded, multiplied in float32 and looked at in the cache. Every row whose cosine could matter within `decoding_bound`, with
    the largest residual of its block, is compared exactly, from the originals.

    Args:
        known: float32 (n, d), as for `ExactSearch`; best a `numpy.memmap`. Read once now; not to be changed afterwards.
        codec: "fp16": half-precision floats, 2·d bytes a vector, few candidates. "int8": the largest component is 127, d + 4 bytes.

    Raises:
        ValueError: as of `ExactSearch`, or for an unknown codec.
    """

    def __init__(self, known: F32, codec: Codec = "fp16") -> None:
        if codec not in ("fp16", "int8"):
            raise ValueError(f"the codec must be fp16 or int8, not {codec!r}")
        self._deviation = checked(known, "known faces")
        self.known = known
        self._codes: NDArray[np.float16] | NDArray[np.int8] = np.empty(known.shape, np.float16 if codec == "fp16" else np.int8)
        self._scales = np.empty(len(known) if codec == "int8" else 0, np.float32)
        self._residuals = np.array([self._encoded(first) for first in range(0, len(known), products.BLOCK)])

    @property
    def dim(self) -> int:
        """The dimension of the vectors."""
        return int(self.known.shape[1])

    def __len__(self) -> int:
        return len(self.known)

    @property
    def nbytes(self) -> int:
        """Memory of the copies."""
        return self._codes.nbytes + self._scales.nbytes + self._residuals.nbytes

    def top1(self, queries: F32) -> tuple[F32, I64]:
        """As `ExactSearch.top1`."""
        deviation = self._checked(queries)
        if len(queries) == 0 or len(self) == 0:
            return np.full(len(queries), -1, np.float32), np.full(len(queries), -1, np.int64)
        similarity, row = found(*products.nearest(queries, len(self), self._blocks(deviation), exact_among(queries, self.known)))
        return similarity.astype(np.float32), row

    def above(self, queries: F32, threshold: float) -> list[I64]:
        """As `ExactSearch.above`."""
        deviation, least = self._checked(queries), least_cosine(threshold, self.dim)
        if len(queries) == 0:
            return []
        return similar(queries, self.known, products.within(queries, len(self), self._blocks(deviation), least), threshold)

    def _checked(self, queries: F32) -> float:
        return max(self._deviation, checked(queries, "queries", self.dim))

    def _encoded(self, first: int) -> float:
        """Encodes a block; the largest residual in it, rounded up."""
        rows = slice(first, first + products.BLOCK)
        block = np.asarray(self.known[rows])
        if self._codes.dtype == np.int8:
            self._scales[rows] = np.abs(block).max(axis=1) / np.float32(LEVELS)  # > 0: the lengths are near 1
            self._codes[rows] = np.clip(np.rint(block / self._scales[rows, None]), -LEVELS, LEVELS)
        else:
            self._codes[rows] = block  # no component is larger than 1.001
        difference = self._decoded(first, np.empty_like(block)).astype(np.float64) - block
        residuals: F64 = np.sqrt(np.square(difference).sum(axis=1))
        return float(residuals.max()) * (1 + 1e-9)

    def _decoded(self, first: int, room: F32) -> F32:
        codes = self._codes[first : first + products.BLOCK]
        block = room[: len(codes)]
        np.copyto(block, codes)
        if self._codes.dtype == np.int8:
            block *= self._scales[first : first + products.BLOCK, None]
        return block

    def _blocks(self, deviation: float) -> Iterator[products.Block]:
        rooms = threading.local()  # a thread is done with a block before it takes another

        def decoded(first: int) -> F32:
            if not hasattr(rooms, "room"):
                rooms.room = np.empty((min(len(self), products.BLOCK), self.dim), np.float32)
            return self._decoded(first, rooms.room)

        for first, residual in zip(range(0, len(self), products.BLOCK), self._residuals, strict=True):
            yield first, partial(decoded, first), decoding_bound(self.dim, float(residual), deviation) + EXACT_ERROR
