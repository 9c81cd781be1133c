"""Compressed copies give the answers of the originals, bit for bit, and the bound that this rests on holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hard_vectors import answers_alike, hard, unit
from hypothesis import given, settings
from hypothesis import strategies as st

from mfmc_ray.known import products
from mfmc_ray.known.compressed import Codec, CompressedSearch, decoding_bound
from mfmc_ray.known.search import rounding_bound

codecs = st.sampled_from(["fp16", "int8"])
seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.integers(1, 12), st.integers(1, 400), st.sampled_from([1, 3, 127, 128, 512]), codecs, st.sampled_from([0.0, 0.4, 0.99]))
@settings(max_examples=60, deadline=None)
def test_answers_are_those_of_the_originals(seed: int, q: int, n: int, d: int, codec: Codec, nearness: float) -> None:
    queries, known = hard(seed, q, n, d, nearness)
    answers_alike(CompressedSearch(known, codec), known, queries)


@given(seeds, codecs)
@settings(max_examples=10, deadline=None)
def test_over_several_blocks(seed: int, codec: Codec) -> None:
    queries, known = hard(seed, 20, 200, 16, 0.4)
    known = np.ascontiguousarray(np.tile(known, (products.BLOCK * 5 // 2 // len(known), 1)))
    answers_alike(CompressedSearch(known, codec), known, queries)


@given(seeds, st.sampled_from([1, 3, 128, 512]), codecs, st.floats(0, 9e-4))
@settings(max_examples=60, deadline=None)
def test_the_bound_holds(seed: int, d: int, codec: Codec, stretch: float) -> None:
    """Against float64, with queries in the direction of the residual, which is the worst."""
    rng = np.random.default_rng(seed)
    _, known = hard(seed, 1, 20, d, 0.0)
    known *= rng.uniform(1 - stretch, 1 + stretch, (len(known), 1)).astype(np.float32)
    search = CompressedSearch(known, codec)
    ((_, load, bound),) = search._blocks(search._deviation)
    decoded = load()
    lost = decoded.astype(np.float64) - known
    residual = np.linalg.norm(lost, axis=1)
    assert decoding_bound(d, float(residual.max()), search._deviation) <= bound <= 0.05
    queries = np.concatenate([unit(lost[residual > 0]), unit(-lost[residual > 0]), unit(rng.standard_normal((20, d)))])
    exact = queries.astype(np.float64) @ known.astype(np.float64).T
    exact /= np.outer(np.linalg.norm(queries.astype(np.float64), axis=1), np.linalg.norm(known.astype(np.float64), axis=1))
    error = np.abs((queries @ decoded.T).astype(np.float64) - exact)
    assert error.max() <= bound
    if residual.max() > 100 * rounding_bound(d, search._deviation):
        assert error.max() > bound / 2  # and is no larger than it must be


@pytest.mark.parametrize(("codec", "size"), [("fp16", 2 * 512), ("int8", 512 + 4)])
def test_what_it_holds(codec: Codec, size: int, tmp_path: Path) -> None:
    """The originals stay in their file; only the copies are held."""
    queries, known = hard(0, 5, 6000, 512, 0.4)
    np.save(tmp_path / "known.npy", known)
    mapped = np.load(tmp_path / "known.npy", mmap_mode="r")
    search = CompressedSearch(mapped, codec)
    assert search.known is mapped
    assert len(known) * size <= search.nbytes <= len(known) * size * 1.001
    answers_alike(search, known, queries)


def test_nobody_known_and_what_is_refused() -> None:
    queries, known = hard(0, 3, 20, 16)
    for codec in ("fp16", "int8"):
        answers_alike(CompressedSearch(known[:0], codec), known[:0], queries)
        answers_alike(CompressedSearch(known, codec), known, queries[:0])
    with pytest.raises(ValueError, match="codec"):
        CompressedSearch(known, "fp8")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unit length"):
        CompressedSearch(known * np.float32(2))
    for bad, says in ((queries * np.float32(2), "unit length"), (np.ascontiguousarray(queries[:, :8]), "dimension|unit length")):
        with pytest.raises(ValueError, match=says):
            CompressedSearch(known).top1(bad)
    with pytest.raises(ValueError, match="finite"):
        CompressedSearch(known).above(queries, np.inf)
