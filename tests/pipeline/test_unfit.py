import dataclasses
from typing import Any

import numpy as np
import pytest

from mfmc_ray.faces.faces import Faces
from mfmc_ray.faces.mesh import CANONICAL, five_points
from mfmc_ray.pipeline.unfit import unfit
from mfmc_ray.swap.cover import NOTHING


def one(**changed: Any) -> Faces:
    """A face of 100 px or so that can be swapped well, but for what is changed."""
    mesh = (CANONICAL * [10, -10, 10] + [100, 100, 0]).astype(np.float32)
    box = np.concatenate([mesh[:, :2].min(0), mesh[:, :2].max(0)]).astype(np.float32)[None]
    faces = Faces(box, five_points(mesh)[None].astype(np.float32), np.ones(1, np.float32), ("a",))
    usual = {"meshes": mesh[None], "mesh_scores": np.ones(1), "ages": np.full(1, 40), "poses": np.zeros((1, 3))}
    return faces.with_(**{name: np.asarray(value, np.float32) for name, value in (usual | changed).items()})


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({}, None),
        ({"mesh_scores": [0.2]}, "no_mesh"),
        ({"ages": [1]}, None),
        ({"poses": [[-65, 0, 0]]}, "profile"),
        ({"poses": [[0, 50, 0]]}, "steep_pitch"),
        ({"points": np.zeros((1, 5, 2))}, "unsure_mesh"),
    ],
)
def test_faces_that_cannot_be_swapped_well(changed: dict[str, Any], rule: str | None) -> None:
    assert unfit(20, one(**changed), 0, NOTHING) == rule


def test_a_hidden_half() -> None:
    for share, rule in ((0.45, None), (0.9, "half_hidden")):
        assert unfit(20, one(), 0, dataclasses.replace(NOTHING, half=share)) == rule


def test_small_faces_and_covered_mouths() -> None:
    assert unfit(500, one(), 0, NOTHING) == "too_small"
    for share, rule in ((0.2, None), (0.6, "mouth_covered"), (1.0, "mouth_covered")):
        assert unfit(20, one(), 0, dataclasses.replace(NOTHING, mouth=share)) == rule
