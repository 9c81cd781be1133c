"""The search against float64 brute force, on vectors made to be hard."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np
import pytest
from hard_vectors import hard
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mfmc_ray.known import products
from mfmc_ray.known.search import ExactSearch, above, cosines, rounding_bound, shown_below, top1, usable

F32 = NDArray[np.float32]


def unit(vectors: NDArray[np.floating]) -> F32:
    wide = np.asarray(vectors, np.float64)
    return np.ascontiguousarray(wide / np.linalg.norm(wide, axis=-1, keepdims=True), np.float32)


def random_unit(seed: int, n: int, d: int) -> F32:
    return unit(np.random.default_rng(seed).standard_normal((n, d)))


def at_cosine(query: F32, cosine: NDArray[np.float64], seed: int) -> F32:
    """Vectors at these cosines to the query, up to the rounding to float32."""
    q = query.astype(np.float64) / np.linalg.norm(query.astype(np.float64))
    away = np.random.default_rng(seed).standard_normal((len(cosine), len(q)))
    away -= np.outer(away @ q, q)
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    return unit(cosine[:, None] * q + np.sqrt(1 - cosine[:, None] ** 2) * away)


def brute(queries: F32, known: F32) -> NDArray[np.float64]:
    q, x = queries.astype(np.float64), known.astype(np.float64)
    return (q @ x.T) / np.outer(np.linalg.norm(q, axis=1), np.linalg.norm(x, axis=1))


sizes = st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 300), st.sampled_from([1, 2, 3, 8, 127, 128, 512]))


@given(sizes, st.floats(0, 9e-4))
@settings(max_examples=60, deadline=None)
def test_top1_is_brute_force(size: tuple[int, int, int, int], stretch: float) -> None:
    seed, q, n, d = size
    queries, known = random_unit(seed, q, d), random_unit(seed + 1, n, d)
    # lengths off by what is just allowed: the cosine must not follow the length
    known *= np.random.default_rng(seed).uniform(1 - stretch, 1 + stretch, (n, 1)).astype(np.float32)
    similarity, row = top1(queries, known)
    exact = brute(queries, known)
    assert similarity.dtype == np.float32
    assert row.dtype == np.int64
    np.testing.assert_allclose(similarity, exact.max(axis=1), atol=1e-7)
    np.testing.assert_allclose(exact[np.arange(q), row], exact.max(axis=1), atol=1e-12)


@given(sizes, st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_equals_go_to_the_lowest_row(size: tuple[int, int, int, int], copies: int) -> None:
    """Copies of a vector lie in different blocks of the multiplication, where float32 may round them differently."""
    seed, q, n, d = size
    rng = np.random.default_rng(seed)
    queries, known = random_unit(seed, q, d), random_unit(seed + 1, n, d)
    known = np.ascontiguousarray(np.concatenate([known] * (copies + 1))[rng.permutation(n * (copies + 1))])
    _, row = top1(queries, known)
    winners = known[row]
    for i in range(q):
        assert row[i] == np.flatnonzero((known == winners[i]).all(axis=1))[0]


@given(st.integers(0, 2**32 - 1), st.sampled_from([8, 128, 512]), st.floats(-0.9, 0.9))
@settings(max_examples=40, deadline=None)
def test_rivals_within_rounding_are_told_apart(seed: int, d: int, cosine: float) -> None:
    """All known faces are nearer to each other than float32 products can tell: the nearest is still the true one."""
    query = random_unit(seed, 1, d)
    offsets = np.random.default_rng(seed).uniform(-1, 1, 200) * rounding_bound(d) / 2
    known = at_cosine(query[0], cosine + offsets, seed + 1)
    similarity, row = top1(query, known)
    exact = brute(query, known)[0]
    assert exact[row[0]] >= exact.max() - 1e-13
    assert abs(similarity[0] - exact.max()) <= 2.0**-24


@given(st.integers(0, 2**32 - 1), st.integers(1, 64), st.integers(2, 400), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_batches_and_shards_change_nothing(seed: int, q: int, n: int, parts: int) -> None:
    queries, known = random_unit(seed, q, 128), random_unit(seed + 1, n, 128)
    known[n // 2 :] = known[: n - n // 2]
    similarity, row = top1(queries, known)
    for i in range(q):
        one = top1(queries[i : i + 1], known)
        assert (one[0][0], one[1][0]) == (similarity[i], row[i])
    best = np.full(q, -2, np.float32)
    where = np.full(q, -1, np.int64)
    start = 0
    for shard in np.array_split(known, parts):
        s, r = top1(queries, np.ascontiguousarray(shard))
        better = s > best
        best[better], where[better] = s[better], r[better] + start
        start += len(shard)
    np.testing.assert_array_equal(best, similarity)


@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 128, 512]), st.floats(-0.5, 0.95))
@settings(max_examples=50, deadline=None)
def test_above_at_the_threshold(seed: int, d: int, threshold: float) -> None:
    """Cosines a few roundings around the threshold, on both sides of it."""
    query = random_unit(seed, 2, d)
    steps = np.concatenate([np.linspace(-4, 4, 161), [0, 0]]) * rounding_bound(d)
    known = np.concatenate([at_cosine(q, threshold + steps, seed + i) for i, q in enumerate(query)])
    exact = brute(query, known)
    similarity, _ = top1(query, known)
    for i, rows in enumerate(above(query, known, threshold)):
        found = set(rows.tolist())
        assert rows.tolist() == sorted(found)
        assert set(np.flatnonzero(exact[i] >= threshold)) <= found, "a face at or above the threshold was not reported"
        assert all(exact[i, r] >= threshold - rounding_bound(d) - 1e-7 for r in found)
        assert (len(rows) == 0) == bool(shown_below(similarity[i : i + 1], threshold, d)[0])


@given(sizes, st.floats(-0.5, 0.95))
@settings(max_examples=40, deadline=None)
def test_above_is_brute_force(size: tuple[int, int, int, int], threshold: float) -> None:
    seed, q, n, d = size
    queries, known = random_unit(seed, q, d), random_unit(seed + 1, n, d)
    expected = brute(queries, known) + rounding_bound(d) >= threshold
    clear = np.abs(brute(queries, known) + rounding_bound(d) - threshold) > 2e-7
    for i, rows in enumerate(above(queries, known, threshold)):
        found = np.zeros(n, bool)
        found[rows] = True
        np.testing.assert_array_equal(found[clear[i]], expected[i][clear[i]])


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 16, 128, 512, 1024]), st.floats(0, 1e-3))
@settings(max_examples=80, deadline=None)
def test_rounding_bound_holds_for_any_order(seed: int, d: int, deviation: float) -> None:
    """Nearly parallel vectors summed in the worst order, one after the other, and by BLAS."""
    x, y = random_unit(seed, 1, d), random_unit(seed + 1, 1, d)
    y = unit(x + 0.01 * y)
    x *= np.float32(1 - deviation)
    y *= np.float32(1 + deviation)
    exact = brute(x, y)[0, 0]
    products = np.sort(x[0] * y[0])[::-1]
    bound = rounding_bound(d, deviation + 1e-7)
    assert abs(float(np.add.accumulate(products, dtype=np.float32)[-1]) - exact) <= bound
    assert abs(float((x @ y.T)[0, 0]) - exact) <= bound


@pytest.mark.parametrize("d", [128, 512, 2048])
def test_rounding_bound_is_not_twice_too_large(d: int) -> None:
    """Two unit vectors whose later products are each just too small to change a float32 sum of 3/4: the sum loses all of them."""
    small = 0.49 * 2.0**-24
    x, y = np.full((2, 1, d), np.sqrt(small))
    x[0, 0] = y[0, 0] = np.sqrt(0.75)
    x[0, -2:], y[0, -2:] = (np.sqrt(0.25 - (d - 3) * small), 0), (0, np.sqrt(0.25 - (d - 3) * small))
    a, b = unit(x), unit(y)
    lost = abs(float(np.add.accumulate(a[0] * b[0], dtype=np.float32)[-1]) - brute(a, b)[0, 0])
    assert 0.4 * rounding_bound(d) < lost <= rounding_bound(d)


@pytest.mark.parametrize("dim", [0, -1, 1 << 24])
def test_rounding_bound_refuses_dimension(dim: int) -> None:
    with pytest.raises(ValueError, match="dimension"):
        rounding_bound(dim)


def test_nothing_known_and_no_queries() -> None:
    queries = random_unit(0, 3, 16)
    similarity, row = top1(queries, np.zeros((0, 16), np.float32))
    assert similarity.tolist() == [-1, -1, -1]
    assert row.tolist() == [-1, -1, -1]
    assert [len(r) for r in above(queries, np.zeros((0, 16), np.float32), -0.99)] == [0, 0, 0]
    assert [len(a) for a in top1(np.zeros((0, 16), np.float32), queries)] == [0, 0]
    assert above(np.zeros((0, 16), np.float32), queries, 0.5) == []


def _spoiled(value: float) -> F32:
    vectors = random_unit(1, 5, 16)
    vectors[3, 7] = value
    return vectors


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (_spoiled(np.nan), "row 3"),
        (_spoiled(np.inf), "row 3"),
        (_spoiled(-3e38), "row 3"),
        (random_unit(1, 5, 16) * np.float32(1.002), "unit length"),
        (random_unit(1, 5, 16) * np.float32(0.998), "unit length"),
        (np.zeros((5, 16), np.float32), "unit length"),
        (random_unit(1, 5, 16).astype(np.float64), "float32"),
        (random_unit(1, 5, 16)[0], "float32"),
        (np.zeros((5, 0), np.float32), "float32"),
        (random_unit(1, 5, 32)[:, ::2], "C-contiguous"),
        ([[1.0, 0.0]], "list"),
    ],
)
def test_refuses_what_is_no_embedding(bad: F32, says: str) -> None:
    good = random_unit(0, 2, 16)
    for queries, known in ((bad, good), (good, bad)):
        with pytest.raises(ValueError, match=says):
            top1(queries, known)
        with pytest.raises(ValueError, match=says):
            above(queries, known, 0.3)


def test_refuses_other_dimension_and_threshold() -> None:
    search = ExactSearch(random_unit(0, 2, 16))
    with pytest.raises(ValueError, match="dimension 8"):
        search.top1(random_unit(0, 2, 8))
    with pytest.raises(ValueError, match="finite"):
        search.above(random_unit(0, 2, 16), np.nan)


def test_reads_read_only_arrays_in_place() -> None:
    """Arrays from Ray's object store are read-only."""
    known, queries = random_unit(0, 50, 128), random_unit(1, 4, 128)
    expected = top1(queries, known)
    for array in (known, queries):
        array.flags.writeable = False
    search = ExactSearch(known)
    assert search.known is known
    np.testing.assert_array_equal(search.top1(queries), expected)
    assert [len(r) for r in search.above(queries, -1)] == [50] * 4


def test_nan_is_never_below() -> None:
    assert shown_below(np.array([np.nan, 0.3, 0.3629999]), 0.363, 128).tolist() == [False, True, False]
    assert np.isnan(cosines(_spoiled(np.nan), random_unit(1, 5, 16))).tolist() == [False, False, False, True, False]
    assert np.isnan(cosines(np.zeros((1, 4), np.float32), random_unit(1, 1, 4)))[0]
    assert usable(_spoiled(np.nan)).tolist() == [True, True, True, False, True]
    assert not usable(np.zeros((1, 4), np.float32))[0]


def test_reads_a_memory_mapped_file_in_place(tmp_path: Path) -> None:
    """200 MB that are never copied: not when the search is made, nor by a search."""
    path = tmp_path / "known.npy"
    mapped = np.lib.format.open_memmap(path, "w+", np.float32, (100_000, 512))
    some = random_unit(0, 5000, 512)
    for start in range(0, len(mapped), len(some)):
        mapped[start : start + len(some)] = some
    mapped[70_123] = query = random_unit(1, 1, 512)[0]
    mapped.flush()
    known = np.load(path, mmap_mode="r")
    tracemalloc.start()
    try:
        search = ExactSearch(known)
        assert search.known is known
        similarity, row = search.top1(np.stack([query, some[7]]))
        rows = search.above(query[None], 0.5)
        assert tracemalloc.get_traced_memory()[1] < known.nbytes / 8
    finally:
        tracemalloc.stop()
    assert row.tolist() == [70_123, 7]
    np.testing.assert_allclose(similarity, 1, atol=1e-6)
    assert [r.tolist() for r in rows] == [[70_123]]


def test_crowds_of_equals_are_settled_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """More rows in question than are kept at a time."""
    monkeypatch.setattr(products, "_PAIRS", 100)
    monkeypatch.setattr(products, "BLOCK", 64)
    queries, known = random_unit(0, 600, 16), random_unit(1, 1000, 16)
    known[300:] = known[np.random.default_rng(2).integers(200, 300, 700)]
    similarity, row = top1(queries, known)
    exact = brute(queries, known)
    np.testing.assert_allclose(similarity, exact.max(axis=1), atol=1e-7)
    assert (row < 300).all()
    for i, r in enumerate(row):
        assert (known[r] == known[exact[i].argmax()]).all()


@pytest.mark.parametrize("count", [2, 3, 7])
def test_threads_change_nothing(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever thread is faster: crowds of equals and of rivals within rounding, in many small blocks."""
    monkeypatch.setattr(products, "BLOCK", 16)
    monkeypatch.setattr(products, "_QUERIES", 8)
    queries, known = hard(5, 20, 3000, 128)
    monkeypatch.setattr(products, "threads", lambda queries, rows: 1)
    search = ExactSearch(known)
    similarity, row = search.top1(queries)
    similar = search.above(queries, float(np.median(similarity)))
    monkeypatch.setattr(products, "threads", lambda queries, rows: count)
    for _ in range(5):
        got = search.top1(queries)
        np.testing.assert_array_equal(got[0].view(np.int32), similarity.view(np.int32))
        np.testing.assert_array_equal(got[1], row)
        for one, other in zip(search.above(queries, float(np.median(similarity))), similar, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_thread_that_fails_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "threads", lambda queries, rows: 2)

    def broken(known: F32, bound: float) -> Iterator[products.Block]:
        yield 0, lambda: known[:2], bound
        raise OSError("the mapped file is gone")

    monkeypatch.setattr(products, "in_place", broken)
    search = ExactSearch(random_unit(1, 10, 8))
    for ask in (search.top1, lambda queries: search.above(queries, 0.1)):
        with pytest.raises(OSError, match="is gone"):
            ask(random_unit(2, 3, 8))


@pytest.mark.parametrize("d", [128, 512])
def test_agrees_with_faiss(d: int) -> None:
    queries, known = random_unit(3, 50, d), random_unit(4, 5000, d)
    scores, rows = faiss.knn(queries, known, 1, faiss.METRIC_INNER_PRODUCT)
    similarity, row = top1(queries, known)
    np.testing.assert_array_equal(row, rows[:, 0])
    np.testing.assert_allclose(similarity, scores[:, 0], atol=rounding_bound(d))
