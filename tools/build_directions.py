"""Build `mfmc_ray/evaluate/synth/directions.npz`: which way styles make a face older, turned, smiling and so on.

    python tools/build_directions.py

700 generated portraits are described by the pack's own networks. Two linear fits follow: of the descriptions on the styles (what a style
will look like), and of the styles on all descriptions together (how the style changes with one of them while the others stay; Haufe et al.
2014, "On the interpretation of weight vectors of linear models in multivariate neuroimaging", say why it is not the former's weights).

The portraits are made with NON-COMMERCIAL weights; the directions are of use with these weights only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mfmc_ray.evaluate.people import PersonGenerator
from mfmc_ray.faces.attributes import AttributeHead
from mfmc_ray.faces.detect import YuNet
from mfmc_ray.faces.faces import F32, Image
from mfmc_ray.faces.mesh import FaceMesh, eye_opening, mouth_opening, pose, smile
from mfmc_ray.identities.model import load_model
from mfmc_ray.identities.traits import beard_of
from mfmc_ray.swap.cover import CoverFinder
from mfmc_ray.swap.glasses import GlassesReader

OUT = Path(__file__).parents[1] / "mfmc_ray/evaluate/synth/directions.npz"
SEEDS = (*range(350), *range(5000, 5350))
SIDE, THUMB = 512, 96  # px
STIFF = 30.0  # of the ridge regression: the best of 3, 10, 30, 100 and 300 in cross-validation for most
NAMES = ("man", "age", "tone", "yaw", "pitch", "smile", "mouth", "eyes", "glasses", "beard", "bright", "side", "hair")


def truncation(seed: int) -> float:
    return float(np.random.default_rng([seed, 7]).uniform(0.6, 1.0))


def values(thumb: Image, mesh: F32, man: float, age: float, tone: float, beard: float, glasses: float) -> list[float]:
    """The values of `NAMES`: sex as the logit of its probability, years, ITA, degrees, openings, brightness 0–255 of the background, of the
    cheek on the image's left less the other's, and of the hair above the forehead."""
    light = thumb.astype(np.float32).mean(2)
    sure = float(np.clip(man, 0.01, 0.99))
    yaw, pitch, _ = pose(mesh[None])[0]
    background = np.concatenate([light[:30, :12], light[:30, -12:]]).mean()
    one_sided = light[45:65, 30:44].mean() - light[45:65, 52:66].mean()
    opened = (np.mean(measure(mesh[None])) for measure in (smile, mouth_opening, eye_opening))
    numbers = (np.log(sure / (1 - sure)), age, np.clip(tone, -30, 75), yaw, pitch, *opened, glasses, np.clip(beard, 0, 2))
    return [float(v) for v in (*numbers, background, one_sided, light[10:22, 36:60].mean())]


def look(generator: PersonGenerator, seeds: tuple[int, ...]) -> tuple[F32, F32]:
    """Styles (n, 512) and what `values` says of them (n, len(NAMES))."""
    detector, mesher, attributes = YuNet(min_score=0.6), FaceMesh(), AttributeHead()
    model, reader = load_model(), GlassesReader()
    covers = CoverFinder(model, reader, None)
    styles, rows = [], []
    for seed in seeds:
        style = generator.style(seed, truncation(seed))
        image: Any = cv2.resize(generator.render(style), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        faces = detector.detect(image)
        if len(faces) == 0:
            continue
        i = int(np.argmax(faces.boxes[:, 2] - faces.boxes[:, 0]))
        meshes, _ = mesher.fit(image, faces.boxes[[i]], faces.points[[i]])
        found, covered = attributes.estimate(image, meshes), covers.find(image, meshes[0])
        thumb: Any = cv2.resize(image, (THUMB, THUMB), interpolation=cv2.INTER_AREA)
        told = float(found.sexes[0]), float(found.ages[0]), float(found.tones[0])
        rows.append(values(thumb, meshes[0], *told, beard_of(model.surface, image, meshes[0]), covered.glasses))
        styles.append(style[0])
    return np.array(styles, np.float32), np.array(rows, np.float32)


def fit(styles: F32, rows: F32) -> dict[str, Any]:
    """What `latent.Latent` reads."""
    mean, spread = rows.mean(0, dtype=np.float64), rows.std(0, dtype=np.float64)
    z = (rows - mean) / spread
    middle = styles.mean(0, dtype=np.float64)
    x = styles - middle
    reading = np.linalg.solve(x.T @ x + STIFF * np.eye(x.shape[1]), x.T @ z)
    ways = np.linalg.lstsq(z, x, rcond=None)[0]
    arrays = {"mean": mean, "spread": spread, "middle": middle, "reading": reading, "ways": ways}
    return {"names": np.array(NAMES)} | {name: array.astype(np.float32) for name, array in arrays.items()}


if __name__ == "__main__":
    np.savez(OUT, **fit(*look(PersonGenerator(threads=2), SEEDS)))
