"""Build `mfmc_ray/faces/attributes.npz`, which reads age, sex and a child's proportions, from portraits of people who do not exist.

    python tools/train_attributes.py ../shared/data/portraits

The folder has the portraits and `portraits.csv` (file, sex, age, …). Each portrait is seen in many ways (mirrored, small, turned, blurred,
dark, grey, compressed), and each view is embedded anew. Prints the cross-validated accuracy first (whole people are left out, look-alikes
together); the settings below were chosen by it, on these portraits alone. Takes 3 minutes on one core.
"""

from __future__ import annotations

import csv
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mfmc_ray.faces.attributes import AGES, RECOGNIZERS, KernelHead, kernel, proportion, skin_colour
from mfmc_ray.faces.detect import YuNet
from mfmc_ray.faces.embed import DlibEmbedder, SFaceEmbedder
from mfmc_ray.faces.mesh import FaceMesh

F64 = NDArray[np.float64]
OUT = Path(__file__).parents[1] / "mfmc_ray/faces/attributes.npz"

VIEWS = 24
"""Views of a portrait; the first is the portrait itself."""
CENTRES = 2
"""Views of a portrait that become centres: itself and its mirror image."""
GAMMA = 0.5
RIDGE = 3e-4
BALANCE = 0.5
"""How far rare ages count as much as frequent ones in the fit, 0–1."""
STRETCH = 0.5
"""How far the pull to the middle age is undone, 0–1: the most that costs no accuracy over all ages."""
TEMPER = 4.0
"""Logit of "man" for the regression's +1. Cross-validation asks for 8; photos are harder than portraits."""
CHILDLIKE = (0.005, 0.02)
"""Shares of adults with such proportions: from the first down a face is a child's, from the second up an adult's."""
FOLDS = 8
LOOK_ALIKE = 0.6
"""SFace cosine from which two portraits count as one person."""
BANDS = ((18, 30), (30, 45), (45, 60), (60, 99))


@dataclass(frozen=True)
class Portraits:
    """n portraits in `VIEWS` views."""

    ages: F64
    men: NDArray[np.bool_]
    embeddings: dict[str, F64]  # recognizer → (n, views, d)
    meshes: NDArray[np.float32]
    colours: NDArray[np.float32]


def views(image: NDArray[np.uint8], points: F64, rng: np.random.Generator) -> Iterator[tuple[NDArray[np.uint8], F64]]:
    """The face as other pictures would show it, with its five points; every second view is mirrored."""
    face = 2.6 * np.linalg.norm(points[1] - points[0])
    for number in range(VIEWS):
        plain = number < CENTRES
        size = 150.0 if plain else float(np.exp(rng.uniform(np.log(30), np.log(250))))
        turn = 0.0 if plain else rng.normal(0, 8)
        shrink = min(1.0, 1.5 * size / face)
        small = cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        matrix = cv2.getRotationMatrix2D((0, 0), turn, size / face)
        matrix[:, 2] = size - matrix[:, :2] @ points.mean(0)
        at = points @ matrix[:, :2].T + matrix[:, 2]
        matrix[:, :2] /= shrink
        side = round(2 * size)
        view = np.asarray(cv2.warpAffine(small, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE), np.uint8)
        if not plain:
            view = worse(view, size, rng)
            # what detectors disagree by
            at = at + rng.normal(0, 0.012 * size, at.shape)
        if number % 2:
            view = np.ascontiguousarray(view[:, ::-1])
            at = (at * [-1, 1] + [side - 1, 0])[[1, 0, 2, 4, 3]]
        yield view, at


def worse(view: NDArray[np.uint8], size: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Blurred, relit, tinted or grey, noisy and compressed."""
    if rng.random() < 0.5:
        view = np.asarray(cv2.GaussianBlur(view, (0, 0), rng.uniform(0.3, 1.6) * size / 112), np.uint8)
    light = (view / 255) ** np.exp(rng.normal(0, 0.35))
    light = (light - 0.5) * rng.uniform(0.6, 1.3) + 0.5 + rng.normal(0, 0.06)
    light = light * np.exp(rng.normal(0, 0.08, 3))
    if rng.random() < 0.2:
        light = light.mean(2, keepdims=True).repeat(3, 2)
    light = light + rng.normal(0, 1, light.shape) * rng.uniform(0, 0.05)
    _, data = cv2.imencode(".jpg", np.clip(light * 255, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 95))])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def read(folder: Path) -> Portraits:
    detector, fitter = YuNet(min_score=0.7), FaceMesh()
    embedders = {e.name: e for e in (DlibEmbedder(), SFaceEmbedder())}
    ages, men, meshes, colours = [], [], [], []
    embeddings: dict[str, list[F64]] = {name: [] for name in embedders}
    with (folder / "portraits.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        image = np.asarray(Image.open(folder / row["file"]).convert("RGB"))
        face = detector.detect(image).take([0])
        mesh, _ = fitter.fit(image, face.boxes, face.points)
        ages.append(float(row["age"]))
        men.append(row["sex"] == "man")
        meshes.append(mesh[0])
        colours.append(skin_colour(image, mesh)[0])
        rng = np.random.default_rng(zlib.crc32(row["file"].encode()))
        seen = list(views(image, face.points[0].astype(np.float64), rng))
        for name, embedder in embedders.items():
            vectors = [embedder.embed(view, at[None].astype(np.float32))[0] for view, at in seen]
            embeddings[name].append(np.asarray(vectors, np.float64))
        if number % 20 == 19:
            print(f"{number + 1} of {len(rows)} portraits", file=sys.stderr, flush=True)
    stacked = {name: np.stack(vectors) for name, vectors in embeddings.items()}
    return Portraits(np.array(ages), np.array(men), stacked, np.stack(meshes), np.stack(colours))


def people(vectors: F64) -> NDArray[np.intp]:
    """A number for each portrait, the same for look-alikes (single linkage)."""
    group = np.arange(len(vectors))
    for i, j in np.argwhere(np.triu(vectors @ vectors.T > LOOK_ALIKE, 1)):
        group[group == group[j]] = group[i]
    return group


def fit(vectors: F64, ages: F64, men: NDArray[np.bool_]) -> KernelHead:
    """A head for (n, views, d) embeddings: regularised least squares on the kernel, ages and sexes at once."""
    count, dim = vectors.shape[1:]
    flat = vectors.reshape(-1, dim)
    mean, scale = flat.mean(0), 1 / (flat.std(0) * np.sqrt(dim))
    # stored in half precision: use what will be stored
    centres = ((vectors[:, :CENTRES].reshape(-1, dim) - mean) * scale).astype(np.float16).astype(np.float32)
    h = kernel(((flat - mean) * scale).astype(np.float32), centres, GAMMA).astype(np.float64)
    penalty = RIDGE * h.shape[0] * kernel(centres, centres, GAMMA).astype(np.float64) + 1e-6 * np.eye(len(centres))

    weight = np.repeat((1 / near(ages)) ** BALANCE, count)
    weight /= weight.mean()
    target = np.repeat(ages, count)
    middle = float((weight * target).mean())
    to_age = np.linalg.solve(h.T @ (h * weight[:, None]) + penalty, h.T @ (weight * (target - middle)))
    to_sex = np.linalg.solve(h.T @ h + penalty, h.T @ np.repeat(np.where(men, 1.0, -1.0), count))
    arrays = (mean, scale, GAMMA, centres, np.stack([to_age, TEMPER * to_sex], 1), [middle, 0])
    return KernelHead(*(np.asarray(a, np.float32) for a in arrays))


def near(ages: F64) -> F64:
    """How many portraits are about as old as each."""
    return np.exp(-(((ages[:, None] - ages) / 6) ** 2) / 2).sum(1)


def stretched(head: KernelHead, slope: float, offset: float) -> KernelHead:
    """The head whose ages, which follow offset + slope · age, are spread around the age that is estimated right."""
    fixed, factor = offset / (1 - slope), 1 + STRETCH * (1 / slope - 1)
    bias = np.array([fixed + factor * (head.bias[0] - fixed), head.bias[1]], np.float32)
    return KernelHead(head.mean, head.scale, head.gamma, head.centres, head.weights * np.array([factor, 1], np.float32), bias)


def left_out(portraits: Portraits, name: str, folds: NDArray[np.intp]) -> F64:
    """(n, views, 2): what heads fitted without each portrait's fold say."""
    vectors = portraits.embeddings[name]
    said = np.zeros((*vectors.shape[:2], 2))
    for fold in range(FOLDS):
        test = folds == fold
        head = fit(vectors[~test], portraits.ages[~test], portraits.men[~test])
        said[test] = head(vectors[test].reshape(-1, vectors.shape[2]).astype(np.float32)).reshape(-1, vectors.shape[1], 2)
    return said


def report(name: str, portraits: Portraits, said: F64) -> None:
    error = np.abs(np.clip(said[..., 0], *AGES) - portraits.ages[:, None])
    right = (said[..., 1] > 0) == portraits.men[:, None]
    bands = ", ".join(f"{a}–{b - 1}: {error[(portraits.ages >= a) & (portraits.ages < b)].mean():.1f}" for a, b in BANDS)
    print(f"{name}, left-out people: sex {right[:, 0].mean():.1%} (all views {right.mean():.1%}), ", end="")
    print(f"age MAE {error[:, 0].mean():.1f} years (all views {error.mean():.1f}; by age {bands})")


def main(folder: Path) -> None:
    portraits = read(folder)
    group = people(portraits.embeddings["sface"][:, 0])
    shuffled = np.random.default_rng(1).permutation(np.unique(group))
    folds = np.argsort(shuffled)[np.searchsorted(np.unique(group), group)] % FOLDS
    arrays: dict[str, NDArray[np.floating]] = {}
    for name in RECOGNIZERS:
        said = left_out(portraits, name, folds)
        # how the estimate follows the age, all ages counting the same
        ages = np.repeat(portraits.ages, VIEWS)
        slope, offset = np.polyfit(ages, said[..., 0].ravel(), 1, w=np.repeat(near(portraits.ages) ** -0.5, VIEWS))
        report(name, portraits, said)
        head = stretched(fit(portraits.embeddings[name], portraits.ages, portraits.men), slope, offset)
        fixed = offset / (1 - slope)
        said[..., 0] = fixed + (said[..., 0] - fixed) * (1 + STRETCH * (1 / slope - 1))
        report(f"{name}, stretched", portraits, said)
        arrays |= {f"{name}_{key}": getattr(head, key) for key in KernelHead.__annotations__}
        arrays[f"{name}_centres"] = head.centres.astype(np.float16)
    light, _, b = portraits.colours.T.astype(np.float64)
    arrays["skin"] = np.polynomial.Polynomial.fit(light, b, 1).convert().coef.astype(np.float32)
    usual = proportion(portraits.meshes).astype(np.float64)
    arrays["proportions"] = np.asarray([NormalDist(usual.mean(), usual.std()).inv_cdf(share) for share in CHILDLIKE], np.float32)
    np.savez(OUT, **arrays)
    print(f"{OUT.name}: {OUT.stat().st_size / 1024:.0f} KiB; b* = {arrays['skin']} · (1, L*); proportions {arrays['proportions']}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
