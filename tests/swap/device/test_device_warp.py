"""Warps and resizes in batches against OpenCV's, on random pictures of different sizes."""

# ruff: noqa: E402

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="what draws on a GPU wants torch")
if int(cv2.__version__.split(".")[0]) < 5:
    pytest.skip("OpenCV 4 rounds coordinates to 1/32 px", allow_module_level=True)

from mfmc_ray.swap.device import warp

sides = st.integers(2, 70)
quick = settings(max_examples=40, deadline=None, derandomize=True)


def picture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return (rng.random((height, width, 3), dtype=np.float32) * 255).astype(np.float32)


def pages(*pictures: np.ndarray) -> "torch.Tensor":
    """Pictures in the corners of pages, with random numbers beyond them."""
    side = max(max(one.shape[:2]) for one in pictures) + 5
    held = np.random.default_rng(9).random((len(pictures), side, side, 3), dtype=np.float32) * 255
    for page, one in zip(held, pictures, strict=True):
        page[: one.shape[0], : one.shape[1]] = one
    return torch.from_numpy(held).permute(0, 3, 1, 2)


def shown(batch: "torch.Tensor") -> np.ndarray:
    return batch.permute(0, 2, 3, 1).numpy()


@quick
@given(height=sides, width=sides, cubic=st.booleans(), seed=st.integers(0, 999))
def test_sampling_is_remap(height: int, width: int, cubic: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = picture(rng, height, width)
    x, y = (rng.random((9, 11), dtype=np.float32) * (side + 6) - 3 for side in (width, height))
    flags = cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR
    batch, across, down = torch.from_numpy(image).permute(2, 0, 1)[None], torch.from_numpy(x)[None], torch.from_numpy(y)[None]
    wanted = cv2.remap(image, x, y, flags, borderMode=cv2.BORDER_REPLICATE)
    assert np.abs(shown(warp.sample(batch, across, down, cubic=cubic))[0] - wanted).max() < 0.01
    wanted = cv2.remap(image, x, y, flags, borderMode=cv2.BORDER_CONSTANT)
    assert np.abs(shown(warp.sample(batch, across, down, cubic=cubic, replicate=False))[0] - wanted).max() < 0.01


@quick
@given(angle=st.floats(-180, 180), scale=st.floats(0.5, 2), seed=st.integers(0, 999))
def test_affine_is_warp_affine(angle: float, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = picture(rng, 40, 33)
    matrix = cv2.getRotationMatrix2D((16, 20), angle, scale)
    wanted = cv2.warpAffine(image, matrix, (30, 26), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    found = warp.affine(torch.from_numpy(image).permute(2, 0, 1)[None], torch.from_numpy(matrix)[None], 26, 30)
    assert np.abs(shown(found)[0] - wanted).max() < 0.05  # OpenCV's coordinates are float32


@quick
@given(old=st.lists(st.tuples(sides, sides), min_size=2, max_size=2), factors=st.lists(st.floats(0.1, 3), min_size=2, max_size=2))
def test_matrices_are_resize(old: list[tuple[int, int]], factors: list[float]) -> None:
    rng = np.random.default_rng(0)
    images = [picture(rng, *size) for size in old]
    for make, flags in ((warp.linear_rows, cv2.INTER_LINEAR), (warp.area_rows, cv2.INTER_AREA)):
        limited = [min(factor, 1.0) if flags == cv2.INTER_AREA else factor for factor in factors]
        new = [tuple(max(1, round(side * factor)) for side in size) for size, factor in zip(old, limited, strict=True)]
        batch = pages(*images)
        most = max(side for size in new for side in size) + 3
        rows, columns = (
            make(torch.tensor([size[k] for size in old]), torch.tensor([size[k] for size in new]), batch.shape[2], most) for k in range(2)
        )
        found = shown(warp.apply(rows, batch, columns))
        for one, image, (height, width) in zip(found, images, new, strict=True):
            wanted = cv2.resize(image, (width, height), interpolation=flags)
            assert np.abs(one[:height, :width] - wanted).max() < 0.2  # OpenCV leaves shares of less than 1/1000 of a pixel out
            assert not one[height:].any()
            assert not one[:, width:].any()


def test_a_window_repeats_its_border() -> None:
    image = picture(np.random.default_rng(0), 20, 30)
    two = torch.from_numpy(image).permute(2, 0, 1).expand(2, -1, -1, -1)
    y, x, height, width = (torch.tensor(v) for v in ([3, 0], [4, 9], [5, 20], [6, 2]))
    for one, (r, c, h, w) in zip(shown(warp.window(two, y, x, height, width, 24, 24)), ((3, 4, 5, 6), (0, 9, 20, 2)), strict=True):
        cut = image[r : r + h, c : c + w]
        np.testing.assert_array_equal(one, cv2.copyMakeBorder(cut, 0, 24 - h, 0, 24 - w, cv2.BORDER_REPLICATE))
