"""Meshes drawn in batches against `Surface.rasterise`, which OpenCV draws."""

# ruff: noqa: E402

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="what draws on a GPU wants torch")

from mfmc_ray.identities.model import load_model
from mfmc_ray.swap.device.raster import Rasteriser

SURFACE = load_model().surface
RASTERISER = Rasteriser(SURFACE, torch.device("cpu"))


def posed(yaw: float, roll: float, width: float) -> np.ndarray:
    """The mean face turned by so many radians, float32 (468, 3), px, 3 px from the window's border."""
    head = load_model().head_mesh
    c, s = np.cos(yaw), np.sin(yaw)
    d, t = np.cos(roll), np.sin(roll)
    turned = (head - head.mean(0)) @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T @ np.array([[d, -t, 0], [t, d, 0], [0, 0, 1]]).T
    turned *= width / np.ptp(turned[:, 0])
    turned[:, :2] -= turned[:, :2].min(0) - 3
    return turned.astype(np.float32)


MESHES = [posed(yaw, roll, width) for yaw, roll, width in ((0, 0, 25), (0.9, 0.3, 60), (-1.4, 2.0, 90), (0.2, -1.2, 233))]


def test_every_pixel_shows_what_opencv_draws_there() -> None:
    sizes = np.array([np.ceil(np.ptp(mesh[:, :2], axis=0)).astype(int)[::-1] + 6 for mesh in MESHES])
    drawn = RASTERISER(np.stack(MESHES), sizes[:, 0], sizes[:, 1], sizes.max() + 7, sizes.max() + 7)
    values = np.stack([np.column_stack([SURFACE.uv, SURFACE.facing(mesh)]) for mesh in MESHES]).astype(np.float32)
    found = drawn.interpolate(torch.from_numpy(values)).permute(0, 2, 3, 1).numpy()
    for i, (height, width) in enumerate(sizes):
        raster = SURFACE.rasterise(MESHES[i][:, :2], MESHES[i][:, 2], (height, width))
        wanted = raster.interpolate(values[i], SURFACE.corners, (height, width))
        np.testing.assert_allclose(found[i, :height, :width], wanted, atol=2e-3)
        assert (found[i, height:] == -1).all()
        assert (found[i, :, width:] == -1).all()


@pytest.mark.parametrize("off", [(70, 50), (-20, 90), (130, -40), (233, 20)])
def test_faces_cut_by_the_window(off: tuple[int, int]) -> None:
    mesh = MESHES[3] - np.array([*off, 0], np.float32)
    shape = (150, 120)
    found = RASTERISER(mesh[None], np.array([150]), np.array([120]), 160, 160)
    depth = torch.from_numpy(mesh[None, :, 2:])
    raster = SURFACE.rasterise(mesh[:, :2], mesh[:, 2], shape)
    wanted = raster.interpolate(mesh[:, 2:], SURFACE.corners, shape, 1e6)
    np.testing.assert_allclose(found.interpolate(depth, 1e6)[0, 0, :150, :120], wanted[:, :, 0], atol=2e-2)


def test_facing() -> None:
    meshes = np.stack(MESHES)
    wanted = np.stack([SURFACE.facing(mesh) for mesh in MESHES])
    np.testing.assert_allclose(RASTERISER.facing(torch.from_numpy(meshes)), wanted, atol=1e-5)
