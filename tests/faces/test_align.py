from __future__ import annotations

import cv2
import numpy as np
import pytest
from skimage.data import astronaut
from skimage.transform import rescale

from mfmc_ray.faces.align import ARCFACE_TEMPLATE, chips, scaled, similarity, warp
from mfmc_ray.faces.faces import F32, Image

# the astronaut's five points, as YuNet finds them
ASTRONAUT = np.array([[200.1, 101.8], [247.2, 102.6], [220.3, 124.7], [198.9, 143.2], [239.8, 143.9]], np.float32)


def moved(points: F32, angle: float, scale: float, shift: tuple[float, float]) -> F32:
    c, s = np.cos(np.radians(angle)) * scale, np.sin(np.radians(angle)) * scale
    return (points @ np.array([[c, s], [-s, c]]) + shift).astype(np.float32)


def applied(matrices: F32, points: F32) -> F32:
    return np.einsum("nij,npj->npi", matrices[:, :, :2], points) + matrices[:, None, :, 2]


@pytest.mark.parametrize("angle", [0, 30, 90, 179, -120])
@pytest.mark.parametrize("scale", [0.1, 1, 30])
def test_similarity_undoes_a_similarity(angle: float, scale: float) -> None:
    points = moved(ARCFACE_TEMPLATE, angle, scale, (400, -70))
    back = applied(similarity(points[None], ARCFACE_TEMPLATE), points[None])[0]
    np.testing.assert_allclose(back, ARCFACE_TEMPLATE, atol=2e-3)


def test_similarity_is_the_least_squares_solution() -> None:
    rng = np.random.default_rng(0)
    points = (ARCFACE_TEMPLATE * 3 + rng.normal(0, 12, (40, 5, 2))).astype(np.float32)
    matrices = similarity(points, ARCFACE_TEMPLATE)
    for p, matrix in zip(points.astype(float), matrices, strict=True):
        # x' = a x − b y + c, y' = b x + a y + d, solved without any of the algebra of `similarity`
        x, y, one, nil = p[:, 0], p[:, 1], np.ones(5), np.zeros(5)
        system = np.concatenate([np.stack([x, -y, one, nil], 1), np.stack([y, x, nil, one], 1)])
        a, b, c, d = np.linalg.lstsq(system, ARCFACE_TEMPLATE.T.ravel(), rcond=None)[0]
        np.testing.assert_allclose(matrix, [[a, -b, c], [b, a, d]], rtol=1e-3, atol=1e-3)


def test_similarity_never_mirrors() -> None:
    mirrored = ARCFACE_TEMPLATE * np.float32([-1, 1])
    assert np.linalg.det(similarity(mirrored[None], ARCFACE_TEMPLATE)[0, :, :2]) > 0


def test_similarity_of_coinciding_points_is_a_shift() -> None:
    matrix = similarity(np.full((1, 5, 2), 7, np.float32), ARCFACE_TEMPLATE)[0]
    np.testing.assert_allclose(matrix, np.column_stack([np.eye(2), ARCFACE_TEMPLATE.mean(0) - 7]), atol=1e-4)


def test_chip_of_an_aligned_image_is_the_image() -> None:
    image = np.ascontiguousarray(astronaut()[50:162, 150:262])
    np.testing.assert_array_equal(chips(image, ARCFACE_TEMPLATE[None])[0], image)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_chip_does_not_depend_on_rotation(turns: int) -> None:
    image, points = astronaut(), ASTRONAUT
    turned = points
    for _ in range(turns):
        turned = np.stack([turned[:, 1], image.shape[1] - 1 - turned[:, 0]], 1)
    upright = chips(image, points[None])[0]
    rotated = chips(np.ascontiguousarray(np.rot90(image, turns)), turned[None])[0]
    assert np.abs(upright.astype(int) - rotated).max() <= 2


@pytest.mark.parametrize("factor", [2, 3, 5.5])
def test_chip_does_not_depend_on_the_size_of_the_image(factor: float) -> None:
    large = (rescale(astronaut(), factor, order=1, channel_axis=2) * 255).round().astype(np.uint8)
    small = chips(astronaut(), ASTRONAUT[None], 48)[0].astype(int)
    assert np.abs(small - chips(large, scaled(ASTRONAUT, factor)[None], 48)[0]).mean() < 3


@pytest.mark.parametrize("shrink", [0.5, 1.0, 1.2, 1.3, 2.7, 8.0])
@pytest.mark.parametrize("angle", [0, 25, 90])
def test_warp_reads_the_right_place(shrink: float, angle: float) -> None:
    """On linear ramps each pixel of the crop says where it was read."""
    side = round(112 * shrink * 1.6)
    slope = 250 / side
    ramp = np.arange(side) * slope
    image = np.stack([*np.meshgrid(ramp, ramp), np.zeros((side, side))], -1).round().astype(np.uint8)
    points = moved(ARCFACE_TEMPLATE - 55.5, angle, shrink, (side / 2, side / 2))
    matrix = similarity(points[None], ARCFACE_TEMPLATE)
    inverse = cv2.invertAffineTransform(matrix[0])
    read_at = np.stack(np.meshgrid(np.arange(112), np.arange(112)), -1) @ inverse[:, :2].T + inverse[:, 2]
    error = warp(image, matrix, 112)[0, ..., :2] - read_at * slope
    # 1.4 levels are one pixel of the crop; half a pixel of the image lost at shrink 2.7 would be 0.44, rounding to whole levels is 0.16
    assert np.abs(error.mean((0, 1))).max() < 0.2
    assert np.abs(error).max() < 1.3


def test_large_faces_are_averaged_not_sampled() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), np.uint8)
    crop = chips(noise, (ARCFACE_TEMPLATE * 8 + 50)[None])[0]
    # the mean of 64 pixels varies an eighth as much as one; bilinear sampling would leave half
    assert crop.std() < noise.std() / 6
    assert abs(crop.mean() - noise.mean()) < 0.5


@pytest.mark.parametrize("size", [56, 112])
def test_outside_the_image_is_black(size: int) -> None:
    white = np.full((120, 120, 3), 255, np.uint8)
    inside, right, far = chips(
        white, np.stack([ARCFACE_TEMPLATE + 4, ARCFACE_TEMPLATE + np.float32([64, 4]), ARCFACE_TEMPLATE + 5000]), size
    )
    edge = size // 2
    assert (inside == 255).all()
    assert (right[:, : edge - 1] == 255).all()
    assert not right[:, edge + 1 :].any()
    assert not far.any()


@pytest.mark.parametrize("image", [astronaut(), np.zeros((1, 1, 3), np.uint8)])
def test_no_faces(image: Image) -> None:
    assert chips(image, np.zeros((0, 5, 2), np.float32)).shape == (0, 112, 112, 3)


def test_template_grows_about_pixel_edges() -> None:
    corners = np.array([[-0.5, -0.5], [111.5, 111.5]], np.float32)
    np.testing.assert_allclose(scaled(corners, 2), [[-0.5, -0.5], [223.5, 223.5]])
