"""The search on a GPU, which cannot be had here: FAISS's GPU functions are stood in for by ones that multiply on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hard_vectors import answers_alike, hard
from numpy.typing import NDArray

from mfmc_ray.known import gpu
from mfmc_ray.known.search import ExactSearch

F32 = NDArray[np.float32]


class FakeFaiss:
    """`knn_gpu` as faiss 1.15's: scores descending, in an order among equals that nobody promised, at most 2048."""

    METRIC_INNER_PRODUCT = 0

    def __init__(self, error: float = 0.0) -> None:
        self.calls: list[tuple[int, int]] = []
        self.error = error

    def get_num_gpus(self) -> int:
        return 1

    def StandardGpuResources(self) -> object:  # noqa: N802
        return self

    def knn_gpu(self, res: Any, xq: F32, xb: F32, k: int, *, metric: int, **limits: int) -> tuple[F32, NDArray[np.int64]]:
        assert res is self
        assert metric == self.METRIC_INNER_PRODUCT
        assert set(limits) == {"vectorsMemoryLimit", "queriesMemoryLimit"}
        assert k <= min(2048, len(xb))
        self.calls.append((len(xq), k))
        # summed backwards: a GPU's roundings are other ones
        scores = (xq[:, ::-1] @ xb[:, ::-1].T) * np.float32(1 + self.error)
        rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, rows, 1), rows[:, :]


class Alone:
    """`ExactSearch` on the GPU, compared with itself on the CPU."""

    def __init__(self, known: F32, fake: FakeFaiss, monkeypatch: pytest.MonkeyPatch) -> None:
        self.search, self.fake, self.monkeypatch = ExactSearch(known), fake, monkeypatch

    @property
    def dim(self) -> int:
        return self.search.dim

    def __len__(self) -> int:
        return len(self.search)

    def top1(self, queries: F32) -> Any:
        with self.monkeypatch.context() as patch:
            patch.setattr(gpu, "faiss", self.fake)
            return self.search.top1(queries)

    def above(self, queries: F32, threshold: float) -> Any:
        with self.monkeypatch.context() as patch:
            patch.setattr(gpu, "faiss", self.fake)
            return self.search.above(queries, threshold)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeFaiss:
    made = FakeFaiss()
    monkeypatch.setattr(gpu, "_resources", made.StandardGpuResources)
    return made


@pytest.mark.parametrize("d", [3, 128, 512])
@pytest.mark.parametrize("n", [1, 2, 50, 3000])
def test_answers_are_those_of_a_cpu(n: int, d: int, fake: FakeFaiss, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, known = hard(n + d, 10, n, d, 0.4)
    answers_alike(Alone(known, fake, monkeypatch), known, queries)
    assert (10, min(2, n)) in fake.calls
    assert max(k for _, k in fake.calls) == min(n, 2048)


def test_products_that_are_not_float32_are_noticed(fake: FakeFaiss, monkeypatch: pytest.MonkeyPatch) -> None:
    """TF32 keeps ten bits: errors of 2⁻¹¹."""
    queries, known = hard(0, 10, 100, 128)
    fake.error = 2.0**-11
    search = Alone(known, fake, monkeypatch)
    with pytest.raises(RuntimeError, match="does not multiply in float32"):
        search.top1(queries)
    with pytest.raises(RuntimeError, match="does not multiply in float32"):
        search.above(queries, 0.3)


def test_a_search_without_a_neighbour_fails(fake: FakeFaiss, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, known = hard(0, 2, 10, 16)
    monkeypatch.setattr(fake, "knn_gpu", lambda *_, **__: (np.full((2, 2), -np.inf, np.float32), np.full((2, 2), -1, np.int64)))
    with pytest.raises(RuntimeError, match="no nearest known face"):
        Alone(known, fake, monkeypatch).top1(queries)


@pytest.mark.parametrize("installed", [None, object()])
def test_without_faiss_or_its_gpu_part_it_is_a_cpu(installed: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "faiss", installed)
    assert not gpu.available()
    queries, known = hard(0, 2, 10, 16)
    assert ExactSearch(known).top1(queries)[1].shape == (2,)
