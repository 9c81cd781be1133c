import cv2
import numpy as np
import pytest

from mfmc_ray.faces.mesh import CANONICAL
from mfmc_ray.identities.model import load_model
from mfmc_ray.identities.surface import INNER_LIPS, place, rigid


def turned(yaw: float, scale: float, shift: tuple[float, float, float]) -> np.ndarray:
    cos, sin = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    rotation = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    return (CANONICAL @ rotation.T * scale + shift).astype(np.float32)


@pytest.mark.parametrize("yaw", [-50, 0, 20, 70])
def test_a_placed_mesh_is_put_back_where_it_was(yaw: float) -> None:
    mesh = turned(yaw, 80, (300, 200, 5))
    placed = place(mesh, CANONICAL)
    np.testing.assert_allclose(placed.shape, CANONICAL, atol=1e-3)
    np.testing.assert_allclose(placed.mesh(placed.shape), mesh, atol=0.05)


def test_rigid_never_mirrors() -> None:
    rng = np.random.default_rng(0)
    points = rng.standard_normal((30, 3)).astype(np.float32)
    rotation = rigid(points, points * [-1, 1, 1])
    assert np.linalg.det(rotation) == pytest.approx(1, abs=1e-4)


def test_texels_interpolate_their_own_place() -> None:
    surface = load_model().surface
    raster = surface.texels
    np.testing.assert_allclose(raster.weights.sum(1), 1, atol=1e-5)
    at = raster.interpolate(surface.uv, surface.corners, (surface.size, surface.size))
    rows, columns = raster.rows, raster.columns
    off = np.abs(at[rows, columns] - np.stack([columns, rows], 1)).max(1)
    assert np.percentile(off, 99) < 1.0  # pixels at a triangle's rim are clipped


def test_the_open_mouth_is_no_part_of_the_surface() -> None:
    surface = load_model().surface
    lips = set(INNER_LIPS)
    assert not any(set(corner) <= lips for corner in surface.corners.tolist())


def test_a_texture_drawn_on_a_mesh_is_unwrapped_again() -> None:
    surface = load_model().surface
    mesh = turned(0, 90, (256, 256, 0))
    picture = np.zeros((512, 512, 3), np.uint8)
    cv2.randu(picture, 0, 255)
    picture = cv2.GaussianBlur(picture, (0, 0), 6)
    texture = surface.unwrap(picture, mesh)
    nose = np.round(surface.uv[4]).astype(int)
    there = np.round(mesh[4, :2]).astype(int)
    assert np.abs(texture[nose[1], nose[0]].astype(int) - picture[there[1], there[0]]).max() < 12


@pytest.mark.parametrize(("yaw", "hidden"), [(60, "left"), (-60, "right")])
def test_the_far_cheek_faces_away(yaw: float, hidden: str) -> None:
    surface = load_model().surface
    mesh = turned(yaw, 80, (200, 200, 0))
    facing = surface.facing(mesh)
    left, right = facing[234], facing[454]  # the outline beside the ears
    assert facing[4] > 0.3
    assert (left < right) == (mesh[234, 2] > mesh[454, 2])
    assert min(left, right) < 0


@pytest.mark.parametrize("yaw", [-45, -25, 0, 25, 45])
def test_what_is_seen_from_behind_covers_nothing(yaw: float) -> None:
    surface = load_model().surface
    mesh = turned(yaw, 60, (120, 120, 0))
    raster = surface.rasterise(mesh[:, :2], mesh[:, 2], (240, 240))
    towards = surface.towards(mesh)
    shown = np.zeros((240, 240), np.uint8)
    for three in surface.corners[towards]:
        cv2.fillConvexPoly(shown, np.round(mesh[three, :2] * 16).astype(np.int32), 1, lineType=cv2.LINE_8, shift=4)
    assert towards[raster.triangles[shown[raster.rows, raster.columns] > 0]].all()
    assert 0.5 < towards.mean() <= 1


def test_a_turned_nose_is_drawn_as_long_as_a_cheek_is_behind_it() -> None:
    surface = load_model().surface
    front, facing = (getattr(surface, name)(turned(35, 90, (256, 256, 0))) for name in ("front", "facing"))
    nose = np.flatnonzero((surface.inner == 1) & (facing < 0.05))
    assert len(nose) > 3
    assert front[nose].min() > 0.8
    outer = surface.inner == 0
    np.testing.assert_allclose(front[outer], np.clip((facing[outer] - 0.05) / 0.3, 0, 1), atol=1e-6)
    profile = turned(85, 90, (256, 256, 0))  # behind it is the background
    away = surface.facing(profile) < 0.05
    assert surface.front(profile)[away].max() < 0.2
