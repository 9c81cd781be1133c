"""Filters in batches against OpenCV's, on random pictures of different sizes."""

# ruff: noqa: E402

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="what draws on a GPU wants torch")

from mfmc_ray.swap.device import filters
from mfmc_ray.swap.device.filters import Span
from mfmc_ray.swap.device.warp import apply

CPU = torch.device("cpu")
sizes = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=3)
quick = settings(max_examples=40, deadline=None, derandomize=True)


def pictures(sizes: list[tuple[int, int]]) -> tuple[list[np.ndarray], "torch.Tensor", Span]:
    """Pictures, pages with random numbers beyond them, and where they are."""
    rng = np.random.default_rng(1)
    images = [rng.standard_normal((h, w, 2), dtype=np.float32) for h, w in sizes]
    held = rng.standard_normal((len(sizes), 64, 66, 2), dtype=np.float32)
    for page, one in zip(held, images, strict=True):
        page[: one.shape[0], : one.shape[1]] = one
    height, width = (torch.tensor(v) for v in zip(*sizes, strict=True))
    return images, torch.from_numpy(held).permute(0, 3, 1, 2), Span.of(height, width)


def worst(images: list[np.ndarray], found: "torch.Tensor") -> float:
    values = found.permute(0, 2, 3, 1).numpy()
    return max(float(np.abs(one[: i.shape[0], : i.shape[1]] - i).max()) for one, i in zip(values, images, strict=True))


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), sigma).reshape(image.shape)


@quick
@given(sizes=sizes, sigma=st.floats(0.3, 12))
def test_blurs_are_gaussian_blur(sizes: list[tuple[int, int]], sigma: float) -> None:
    images, pages, span = pictures(sizes)
    sigmas = [sigma / (1 + i) for i in range(len(images))]
    wanted = [blurred(image, s) for image, s in zip(images, sigmas, strict=True)]
    assert worst(wanted, filters.blur(pages, filters.kernels(sigmas, CPU), span)) < 2e-5
    rows, columns = (filters.gauss_rows([size[k] for size in sizes], sigmas, (64, 66)[k], CPU) for k in range(2))
    assert worst(wanted, apply(rows, pages, columns)) < 2e-5


def test_no_blur_changes_nothing() -> None:
    _, pages, span = pictures([(20, 30), (40, 10)])
    kernel = filters.kernels([0.0, 2.0], CPU)
    np.testing.assert_array_equal(filters.blur(pages, kernel, span)[0, :, :20, :30], pages[0, :, :20, :30])


@quick
@given(sizes=sizes)
def test_laplacian(sizes: list[tuple[int, int]]) -> None:
    images, pages, span = pictures(sizes)
    wanted = [cv2.Laplacian(image, cv2.CV_32F, ksize=1).reshape(image.shape) for image in images]
    assert worst(wanted, filters.laplacian(pages, span)) < 1e-5


def test_a_span_anywhere_has_its_own_border() -> None:
    image = np.random.default_rng(2).standard_normal((30, 40)).astype(np.float32)
    span = Span(*(torch.tensor([v]) for v in (5, 21, 9, 33)))
    cut = np.ascontiguousarray(image[5:22, 9:34])
    page = torch.from_numpy(image)[None, None]
    found = filters.blur(page, filters.kernels([1.7], CPU), span)[0, 0, 5:22, 9:34].numpy()
    assert np.abs(found - cv2.GaussianBlur(cut, (0, 0), 1.7)).max() < 1e-5
    assert span.inside(30, 40).sum() == cut.size


@quick
@given(count=st.integers(1, 50))
def test_medians(count: int) -> None:
    rng = np.random.default_rng(count)
    values, some = rng.standard_normal((3, 50), dtype=np.float32), rng.permuted(np.tile(np.arange(50) < count, (3, 1)), axis=1)
    wanted = [np.median(row[mine]) for row, mine in zip(values, some, strict=True)]
    np.testing.assert_allclose(filters.median(torch.from_numpy(values), torch.from_numpy(some)), wanted, rtol=1e-6)
    assert torch.isnan(filters.median(torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.bool))).all()
