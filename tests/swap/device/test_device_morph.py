"""The renderer on a device (torch on the CPU) against the one of NumPy and OpenCV, on real faces."""

# ruff: noqa: E402

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

torch = pytest.importorskip("torch", reason="what draws on a GPU wants torch")
if int(cv2.__version__.split(".")[0]) < 5:
    pytest.skip("OpenCV 4 rounds coordinates to 1/32 px", allow_module_level=True)

from mfmc_ray.codec import decode
from mfmc_ray.faces.detect import YuNet
from mfmc_ray.faces.embed import SFaceEmbedder
from mfmc_ray.faces.mesh import FaceMesh, five_points
from mfmc_ray.identities.model import load_model
from mfmc_ray.identities.sample import sample
from mfmc_ray.swap.cover import NOTHING
from mfmc_ray.swap.device import morph
from mfmc_ray.swap.device.morph import DeviceSwapper
from mfmc_ray.swap.protocol import Order, Patch
from mfmc_ray.swap.render import MorphSwapper, neutral_portrait

pytestmark = pytest.mark.models

MODEL = load_model()
NUMPY, DEVICE = MorphSwapper(MODEL), DeviceSwapper(MODEL, "cpu")
MEAN, MOST = 0.02, 2
"""Levels of 255 that results may differ by, inside of what a swap changes. Measured: 0.003, 1 (docs/gpu.md)."""


def fitted(image: np.ndarray) -> np.ndarray:
    faces = YuNet(min_score=0.5).detect(image)
    one = [int(np.argmax(faces.sizes))]
    return FaceMesh().fit(image, faces.boxes[one], faces.points[one])[0][0]


def at_width(image: np.ndarray, mesh: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """The picture scaled so that the face is so many px wide."""
    factor = width / float(np.ptp(mesh[:, 0]))
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=way)), (mesh * factor).astype(np.float32)


def by_numpy(order: Order) -> Patch:
    plain = {name: getattr(order, name) for name in ("age", "strength", "keep_rims", "covered")}
    return NUMPY.swap(order.image, order.mesh, order.identity, **plain)


def same(order: Order, found: Patch) -> None:
    wanted = by_numpy(order)
    assert (found.x, found.y, found.pixels.shape) == (wanted.x, wanted.y, wanted.pixels.shape)
    np.testing.assert_allclose(found.mesh, wanted.mesh, atol=1e-3)
    assert found.cover == pytest.approx(wanted.cover, abs=1e-3)
    assert found.front is not None
    assert wanted.front is not None
    assert (found.front != wanted.front).sum() <= 0.005 * wanted.front.sum() + 2
    height, width = wanted.pixels.shape[:2]
    before = order.image[found.y : found.y + height, found.x : found.x + width]
    off = np.abs(found.pixels.astype(int) - wanted.pixels)[(wanted.pixels != before).any(2)]
    assert off.mean() < MEAN
    assert np.percentile(off, 99.9) <= MOST


@pytest.fixture(scope="module")
def portrait() -> tuple[np.ndarray, np.ndarray]:
    """NASA's of Eileen Collins, public domain."""
    image = np.ascontiguousarray(data.astronaut())
    return image, fitted(image)


@pytest.fixture(scope="module")
def orders(portrait: tuple[np.ndarray, np.ndarray]) -> list[Order]:
    """Small and large, upright and turned, child and old, cut by the border; everything that an order can ask for."""

    def some() -> Iterator[Order]:
        image, mesh = portrait
        for width, seeds in ((14, (1, 2)), (30, (3, 4)), (75, (5, 6, 7)), (210, (8, 9))):
            scaled, at = at_width(image, mesh, width)
            covered = NUMPY.covered(scaled, at)
            for seed in seeds:
                yield Order(scaled, at, sample(MODEL, seed), [None, 8.0, 36.0, 80.0][seed % 4], 1 + 0.1 * (seed % 3), seed % 2 > 0, covered)
        turned = np.ascontiguousarray(np.rot90(image))
        at = np.column_stack([mesh[:, 1], image.shape[1] - 1 - mesh[:, 0], mesh[:, 2]])
        yield Order(turned, at, sample(MODEL, 10), covered=NOTHING)
        yield Order(turned, at, sample(MODEL, 11))  # finds what covers it itself
        cut = np.ascontiguousarray(image[: int(mesh[:, 1].max()) - 25, int(mesh[:, 0].min()) + 30 :])
        yield Order(cut, mesh - np.array([int(mesh[:, 0].min()) + 30, 0, 0], np.float32), sample(MODEL, 12))
        dark = (image * 0.12).astype(np.uint8)
        yield Order(dark, mesh, sample(MODEL, 13), 40.0)
        grey = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[:, :, None], 3, 2)
        yield Order(cv2.GaussianBlur(grey, (0, 0), 2.5), mesh, sample(MODEL, 14), 40.0)
        noisy = image + np.random.default_rng(0).normal(0, 14, image.shape)
        yield Order(np.clip(noisy, 0, 255).astype(np.uint8), mesh, sample(MODEL, 15), 40.0)

    return list(some())


@pytest.fixture(scope="module")
def drawn(orders: list[Order]) -> list[Patch | None]:
    return DEVICE.swap_many(orders)


def test_results_are_those_of_numpy(orders: list[Order], drawn: list[Patch | None]) -> None:
    assert len(orders) == len(drawn)
    for order, patch in zip(orders, drawn, strict=True):
        assert patch is not None
        same(order, patch)


def test_a_result_depends_on_nothing_that_is_drawn_with_it(orders: list[Order], drawn: list[Patch | None]) -> None:
    for order, patch in list(zip(orders, drawn, strict=True))[::3]:
        assert patch is not None
        plain = {name: getattr(order, name) for name in ("age", "strength", "keep_rims", "covered")}
        alone = DEVICE.swap(order.image, order.mesh, order.identity, **plain)
        np.testing.assert_array_equal(alone.pixels, patch.pixels)


def test_again_and_in_threads_the_same(orders: list[Order], drawn: list[Patch | None]) -> None:
    small = [number for number, order in enumerate(orders) if np.ptp(order.mesh[:, 0]) < 100]
    with ThreadPoolExecutor(3) as threads:
        for number, patches in zip(small, threads.map(lambda n: DeviceSwapper.swap_many(DEVICE, [orders[n]]), small), strict=True):
            assert patches[0] is not None
            assert drawn[number] is not None
            np.testing.assert_array_equal(patches[0].pixels, drawn[number].pixels)


def test_pictures_stay_and_certified_portraits_are_the_same(orders: list[Order]) -> None:
    order = orders[2]
    before = order.image.copy()
    DEVICE.swap_many([order])
    np.testing.assert_array_equal(order.image, before)
    assert DEVICE.swap_many([]) == []
    np.testing.assert_array_equal(DEVICE.portrait(order.identity).pixels, neutral_portrait(NUMPY, order.identity))


def test_what_is_too_large_for_a_gpu_is_drawn_by_numpy(orders: list[Order], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(morph, "LARGEST", 100)
    small, large = orders[3], orders[8]
    patches = DEVICE.swap_many([large, small])
    assert patches[0] is not None
    assert patches[1] is not None
    np.testing.assert_array_equal(patches[0].pixels, by_numpy(large).pixels)
    same(small, patches[1])


def test_real_faces(shared_data: Path) -> None:
    """Portraits of both sexes and all skins, a profile, glasses; a recognizer cannot tell the results apart."""
    embedder, detector, fitter = SFaceEmbedder(), YuNet(min_score=0.5), FaceMesh()
    photos = [*sorted((shared_data / "portraits").glob("*.jpg"))[5:200:65], *sorted((shared_data / "people").rglob("*.jpg"))[3:400:80]]
    assert len(photos) >= 6
    orders = []
    for number, photo in enumerate(photos):
        image = decode(photo.read_bytes(), 10**8).pixels
        faces = detector.detect(image)
        if not len(faces):
            continue
        one = [int(np.argmax(faces.sizes))]
        mesh = fitter.fit(image, faces.boxes[one], faces.points[one])[0][0]
        image, mesh = at_width(image, mesh, (40, 65, 90, 130)[number % 4])
        orders.append(Order(image, mesh, sample(MODEL, 40 + number), 30.0))
    for order, patch in zip(orders, DEVICE.swap_many(orders), strict=True):
        assert patch is not None
        same(order, patch)
        results = [order.image.copy(), order.image.copy()]
        patch.paste(results[0])
        by_numpy(order).paste(results[1])
        a, b = (embedder.embed(result, five_points(patch.mesh)[None])[0] for result in results)
        assert float(a @ b) > 0.999
