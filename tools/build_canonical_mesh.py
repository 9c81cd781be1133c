"""Build `mfmc_ray/faces/canonical_mesh.npy`, the mean frontal face, from portraits of people who do not exist.

    python tools/build_canonical_mesh.py ../shared/data/portraits

Each portrait's mesh is aligned to the mean (generalised Procrustes analysis); the mean is then made symmetric: its points are paired with
those of its mirror image, and both are averaged. "Straight ahead" is the mean direction of the portraits that look straight by symmetry.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import linear_sum_assignment

from mfmc_ray.faces.detect import YuNet
from mfmc_ray.faces.mesh import FaceMesh

Points = NDArray[np.float64]
FLIP = np.array([-1.0, 1.0, 1.0])
OUT = Path(__file__).parents[1] / "mfmc_ray/faces/canonical_mesh.npy"


def unit(points: Points) -> Points:
    """Centred, with a root mean square distance of 1 from the centre."""
    points = points - points.mean(0)
    return points / np.sqrt((points**2).sum(1).mean())


def rotation(source: Points, target: Points) -> Points:
    """The rotation r with source @ r ≈ target (Kabsch 1976)."""
    u, _, vt = np.linalg.svd(source.T @ target)
    return u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt


def procrustes(meshes: list[Points], rounds: int = 10) -> Points:
    """The mean of the aligned meshes, facing the way they do on average."""
    mean = unit(np.mean(meshes, axis=0))
    for _ in range(rounds):
        mean = unit(np.mean([mesh @ rotation(mesh, mean) for mesh in meshes], axis=0))
    # nearest rotation to the mean of the rotations that take the mean face to each mesh
    u, _, vt = np.linalg.svd(np.mean([rotation(mean, mesh) for mesh in meshes], axis=0))
    return mean @ u @ vt


def symmetric(mean: Points) -> Points:
    """The mean of a face and its mirror image, turned so that the plane of symmetry is x = 0 (the pitch stays)."""
    _, pair = linear_sum_assignment(((mean[:, None] - mean * FLIP) ** 2).sum(-1))
    if not np.array_equal(pair[pair], np.arange(len(pair))):
        raise SystemExit("the points do not pair up with their mirror image: are the portraits frontal?")
    mirrored = (mean * FLIP)[pair]
    mean = (mean + mirrored @ rotation(mirrored, mean)) / 2
    across = mean - mean[pair]
    across[across[:, 0] < 0] *= -1
    x = across.sum(0) / np.linalg.norm(across.sum(0))
    down = np.array([0.0, 1.0, 0.0])
    y = down - down @ x * x
    y /= np.linalg.norm(y)
    mean = unit(mean @ np.stack([x, y, np.cross(x, y)], axis=1))
    return (mean + (mean * FLIP)[pair]) / 2


def main(portraits: Path) -> None:
    detector, fitter = YuNet(min_score=0.7), FaceMesh()
    meshes = []
    for path in sorted(portraits.glob("*.jpg")):
        image = np.asarray(Image.open(path).convert("RGB"))
        faces = detector.detect(image)
        if len(faces) == 0:
            continue
        one = [int(np.argmax(faces.sizes))]
        mesh, score = fitter.fit(image, faces.boxes[one], faces.points[one])
        if score[0] > 0.9:
            meshes.append(unit(mesh[0].astype(np.float64)))
    model = symmetric(procrustes(meshes))
    # portraits turned to a side say little about where "straight" is
    turns = [rotation(model, mesh) for mesh in meshes]
    frontal = [mesh for mesh, turn in zip(meshes, turns, strict=True) if abs(turn[0, 2]) < 0.1 and abs(turn[0, 1]) < 0.1]
    model = symmetric(procrustes(frontal))
    np.save(OUT, model.astype(np.float32))
    print(f"{OUT.name}: from {len(frontal)} frontal of {len(meshes)} portraits")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
