"""Build `mfmc_ray/swap/glasses.npz`: what tells whether a face wears glasses.

    python tools/build_glasses.py ../shared/data/portraits

Glasses of many shapes, colours and thicknesses, clear and dark, with reflections and shadows, are drawn on the textures of portraits of
people who do not exist; both the bare and the bespectacled are blurred, shifted and made noisy. A ridge-penalised logistic regression on
oriented gradients is fitted to them. Prints the accuracy on portraits that were left out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from build_identity_model import read
from numpy.typing import NDArray
from rich.progress import track
from sklearn.linear_model import LogisticRegression

from mfmc_ray.identities.model import load_model
from mfmc_ray.swap.cover import PAGE, CoverFinder
from mfmc_ray.swap.glasses import gradients

OUT = Path(__file__).parents[1] / "mfmc_ray/swap/glasses.npz"
REAL = "female_48 female_63 female_66 female_98 male_53 male_66 male_95"  # wear some, or cannot be judged
VARIANTS = 40
PENALTY = 0.004
ZOOM = 4
SEED = 20261124

Texture = NDArray[np.uint8]


def with_glasses(texture: Texture, rng: np.random.Generator) -> Texture:
    """A texture uint8 (PAGE, PAGE, 3) RGB with random glasses drawn on it."""
    out = cv2.resize(texture, (PAGE * ZOOM, PAGE * ZOOM), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    half = rng.uniform(10.5, 15.5)
    tall = half * rng.uniform(0.55, 0.95)
    centres = np.array([43.5, 83.5]) + rng.uniform(-1.5, 1.5) + np.array([-1, 1]) * rng.uniform(-1.5, 1.5)
    level, tilt, roundness = 43.5 + rng.uniform(-1.5, 5), rng.uniform(-0.06, 0.06), 2 / rng.uniform(2, 5)
    colour = np.array([20, 20, 25.0]) * rng.uniform(0.3, 3) if rng.random() < 0.75 else np.array([200, 190, 170.0]) * rng.uniform(0.8, 1.2)
    if rng.random() < 0.2:
        colour = np.array([120, 60, 30.0]) * rng.uniform(0.4, 1.2)
    thick, rimless = int(rng.choice([1, 1, 2, 2, 3, 4, 6])), rng.random() < 0.25
    rims, lenses = np.zeros(out.shape[:2], np.uint8), np.zeros(out.shape[:2], np.uint8)
    turn = np.linspace(0, 2 * np.pi, 80)
    c, s = np.cos(turn), np.sin(turn)

    def line(points: NDArray[np.float64], closed: bool = False) -> None:
        cv2.polylines(rims, [np.round(points * ZOOM).astype(np.int32)], closed, 255, thick)

    for centre in centres:
        x = centre + half * np.sign(c) * np.abs(c) ** roundness
        ring = np.stack([x, level + tall * np.sign(s) * np.abs(s) ** roundness + (x - 63.5) * tilt], 1)
        line(ring[40:] if rimless else ring, not rimless)
        cv2.fillPoly(lenses, [np.round(ring * ZOOM).astype(np.int32)], 255)
    top = level - tall * rng.uniform(0.1, 0.5)
    bridge = np.linspace(centres[0] + half, centres[1] - half, 12)
    line(np.stack([bridge, top - np.sin(np.linspace(0, np.pi, 12)) * rng.uniform(0, 3)], 1))
    for side, centre in ((-1, centres[0]), (1, centres[1])):
        line(np.array([[centre + side * half, top], [centre + side * 60, top + rng.uniform(-2, 5)]]))
    drawn = cv2.GaussianBlur(rims / np.float32(255), (0, 0), rng.uniform(0.5, 1.5))[..., None] * rng.uniform(0.55, 1)
    lens = cv2.GaussianBlur(lenses / np.float32(255), (0, 0), 1)[..., None]
    if rng.random() < 0.25:
        dark = lens * rng.uniform(0.4, 0.95)
        out = out * (1 - dark) + dark * np.array([15, 15, 18.0]) * rng.uniform(0.3, 2)
    elif rng.random() < 0.5:
        clouds = cv2.GaussianBlur(rng.standard_normal(lenses.shape).astype(np.float32), (0, 0), 20)[..., None]
        shine = lens * np.clip(clouds * 25, 0, 1) * rng.uniform(0, 0.5)
        out = out * (1 - shine) + shine * 235
    out = out * (1 - 0.6 * rng.uniform(0, 0.35) * np.roll(drawn, int(rng.uniform(3, 10)), 0))
    out = out * (1 - drawn) + drawn * colour
    return np.asarray(np.clip(cv2.resize(out, (PAGE, PAGE), interpolation=cv2.INTER_AREA), 0, 255), np.uint8)


def worn_by_camera(texture: Texture, rng: np.random.Generator) -> Texture:
    """The texture as a worse photo and a mesh that is a little off would give it."""
    sigma = rng.choice([0, 0, 0.6, 1, 1.6, 2.2])
    page = (cv2.GaussianBlur(texture, (0, 0), float(sigma)) if sigma else texture).astype(np.float32) * rng.uniform(0.6, 1.2)
    page += rng.normal(0, rng.uniform(0, 5), page.shape).astype(np.float32)
    shift = np.array([[1, 0, rng.uniform(-1.5, 1.5)], [0, 1, rng.uniform(-1.5, 1.5)]], np.float32)
    return np.asarray(np.clip(cv2.warpAffine(page, shift, (PAGE, PAGE), borderMode=cv2.BORDER_REPLICATE), 0, 255), np.uint8)


def examples(textures: list[Texture], rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    rows, labels = [], []
    for texture in track(textures, "Drawing glasses"):
        for k in range(VARIANTS):
            page = np.ascontiguousarray(texture[:, ::-1]) if rng.random() < 0.5 else texture
            rows.append(gradients(worn_by_camera(with_glasses(page, rng) if k % 2 else page, rng)))
            labels.append(bool(k % 2))
    return np.array(rows), np.array(labels)


def main(folder: Path) -> None:
    rng, finder = np.random.default_rng(SEED), CoverFinder(load_model(), None, None)
    textures = [finder.unwrap(p.image, p.mesh) for p in read(folder) if p.name not in REAL.split()]
    apart = np.arange(len(textures)) % 5 == 0
    seen, labels = examples([t for t, out in zip(textures, apart, strict=True) if not out], rng)
    unseen, truth = examples([t for t, out in zip(textures, apart, strict=True) if out], rng)
    fitted = LogisticRegression(C=PENALTY, max_iter=500).fit(seen, labels)
    said = fitted.decision_function(unseen) > 0
    print(f"fitted {fitted.score(seen, labels):.1%}; left out: glasses {said[truth].mean():.1%} found, {said[~truth].mean():.1%} false")
    np.savez(OUT, weights=fitted.coef_[0].astype(np.float16), offset=np.float32(fitted.intercept_[0]))
    print(f"{OUT}: {OUT.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
