"""Measures how often a recognizer takes strangers for the same person, and writes `mfmc_ray/known/data/<recognizer>.json`.

    python tools/calibrate_thresholds.py --people PEOPLE [--scenes SCENES] [--recognizers sface dlib openface] [--sheet SHEET.png]

PEOPLE has a folder of photos for each person, the person in the middle of the photo. All pairs of photos of different people are the
impostor pairs. SCENES are photos of other people; they check the curve. SHEET shows the 20 most similar impostor pairs: look at it
before you believe the tail, for a wrongly labelled photo makes a false "impostor".

The rate is the share of pairs at or above a cosine, down to the rate that 30 pairs support. From there on it falls as exp(−cosine/scale),
with the scale fitted by maximum likelihood (the mean excess) to the most similar 0.5 % of the pairs. Fitted to one half of the
people, it foretells more similar pairs in the other half than are found (means of 200 halvings: at rate 1e-4 SFace 5.5 for 3.6 and dlib 6.6
for 3.2; at 3e-5 2.2 for 1.3 and 1.4 for 1.2). A generalised Pareto tail is nearer at 1e-4 (3.6 and 4.0) but foretells too few at 3e-5 (1.0
and 0.45), and goes on to rates of nothing. The exponential one was taken because it errs on the side of stating too high a rate.
Intervals: 95 %, percentiles of a bootstrap over people with weights for their pairs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage
from PIL import ImageOps

from mfmc_ray.faces.detect import YuNet
from mfmc_ray.faces.embed import DlibEmbedder, SFaceEmbedder
from mfmc_ray.faces.faces import F32, Image
from mfmc_ray.faces.openface import OpenFaceEmbedder
from mfmc_ray.faces.protocols import Embedder
from mfmc_ray.faces.store import load_lock

F64 = NDArray[np.float64]

EMBEDDERS: Mapping[str, tuple[Callable[[], Embedder], str]] = {
    "sface": (SFaceEmbedder, "sface"),
    "dlib": (DlibEmbedder, "dlib_resnet"),
    "openface": (OpenFaceEmbedder, "openface"),
}
"""Name → how to make it, and its weights in models.lock."""
# the vendor's verification threshold; for others the cosine of a false-match rate of 1e-3 is taken
VENDOR_THRESHOLDS = {"sface": (0.363, "OpenCV Zoo's verification threshold of SFace, cosine")}
STRICT_RATE = 1e-3
LEAST_PAIRS = 30  # that support an empirical rate
TAIL_SHARE = 0.005  # of the pairs, to fit the tail
TAIL_RATES = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
ROUNDS = 1000
SHARES = np.unique(np.concatenate([1 - np.arange(0, 0.9, 0.1), np.geomspace(0.1, 1e-6, 61)]))[::-1]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--people", type=Path, required=True, help="a folder of photos for each person")
    parser.add_argument("--scenes", type=Path, help="photos of people who are not among them")
    parser.add_argument("--recognizers", nargs="+", choices=sorted(EMBEDDERS), default=sorted(EMBEDDERS))
    parser.add_argument("--source", default="LFW news photos, research use", help="what the photos are, for the record")
    parser.add_argument("--sheet", type=Path, help="picture of the most similar impostor pairs; keep it private")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "mfmc_ray/known/data")
    arguments = parser.parse_args()

    detector = YuNet(min_score=0.6)
    photos = sorted(p for folder in sorted(arguments.people.iterdir()) if folder.is_dir() for p in folder.iterdir())
    faces = [(p, image, points) for p in photos for image, points in [middle_face(detector, p)] if points is not None]
    print(f"{len(faces)} of {len(photos)} photos have a face")
    scenes = [] if arguments.scenes is None else [all_faces(detector, p) for p in sorted(arguments.scenes.glob("*.jpg"))]
    names = np.array([p.parent.name for p, _, _ in faces])
    model_sha = {model.name: model.sha256 for model in load_lock()}
    for name in arguments.recognizers:
        make, weights = EMBEDDERS[name]
        embedder = make()
        vectors = np.concatenate([embedder.embed(image, points) for _, image, points in faces])
        calibration = calibrate(vectors, names)
        strict, strict_source = VENDOR_THRESHOLDS.get(
            name, (None, f"the cosine of a false-match rate of {STRICT_RATE:g} here, rounded down")
        )
        if strict is None:
            strict = np.floor(rate_inverse(calibration["points"], STRICT_RATE) * 1000) / 1000
        source = f"all pairs of photos of different people among {calibration['people']} people × about 4 photos ({arguments.source})"
        plain: dict[str, Any] = {
            "recognizer": name,
            "model_sha256": model_sha[weights],
            "source": source,
            "created": datetime.now(UTC).date().isoformat(),
            "strict_threshold": float(strict),
            "strict_source": strict_source,
            **calibration,
            "genuine": genuine(vectors, names, float(strict)),
        }
        others = np.concatenate([embedder.embed(image, points) for image, points in scenes]) if scenes else None
        if others is not None:
            cosines = (others.astype(np.float64) @ vectors.T.astype(np.float64)).ravel()
            plain["check"] = {
                "source": "faces of 24 px and more in everyday photos of other people, against all of the people",
                "faces": len(others),
                "pairs": len(cosines),
                "rate_at_strict_threshold": float((cosines >= strict).mean()),
                "highest": round(float(cosines.max()), 4),
            }
        path = arguments.out / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(plain, indent=1) + "\n")
        summary = {k: v for k, v in plain.items() if k not in ("points", "source")}
        print(json.dumps(summary, indent=1))
        if arguments.sheet is not None:
            draw(arguments.sheet.with_stem(f"{arguments.sheet.stem}_{name}"), faces, vectors, names)
    return 0


def calibrate(vectors: F32, names: NDArray[np.str_]) -> dict[str, Any]:
    """The curve: points of (cosine, rate, low, high, pairs at or above it), with the tail's scale."""
    people, person = np.unique(names, return_inverse=True)
    a, b = np.triu_indices(len(vectors), 1)
    different = person[a] != person[b]
    a, b = a[different], b[different]
    cosines = (vectors.astype(np.float64) @ vectors.T.astype(np.float64))[a, b]
    order = np.argsort(-cosines, kind="stable")
    cosines, pa, pb = cosines[order], person[a][order], person[b][order]

    counts = np.unique(np.maximum(np.round(SHARES * len(cosines)).astype(int), LEAST_PAIRS))[::-1]
    at = np.unique(cosines[counts - 1])  # the count-th highest
    at = at[np.append(True, np.diff(np.searchsorted(-cosines, -at, side="right")) < 0)]
    last = float(at[-1])
    tail_from = len(at)
    start_rate = float((cosines >= last).mean())
    scale = tail_scale(cosines, np.ones(len(cosines)))
    at = np.concatenate([at, [last + scale * np.log(start_rate / rate) for rate in TAIL_RATES if rate < start_rate]])

    rounds = np.empty((ROUNDS, len(at)))
    rng = np.random.default_rng(0)
    for i in range(ROUNDS):
        times = np.bincount(rng.integers(len(people), size=len(people)), minlength=len(people))
        rounds[i] = rates(cosines, (times[pa] * times[pb]).astype(np.float64), at, tail_from)
    low, high = np.percentile(rounds, [2.5, 97.5], axis=0)
    estimate = rates(cosines, np.ones(len(cosines)), at, tail_from)
    above = np.searchsorted(-cosines, -at, side="right")
    columns = zip(at, estimate, low, high, above, strict=True)
    return {
        "people": len(people),
        "pairs": len(cosines),
        "tail": {"method": f"exponential, fitted to the most similar {TAIL_SHARE:.1%}", "start": round(last, 5), "scale": round(scale, 6)},
        "points": [[round(float(t), 5), *(float(f"{max(r, 1e-12):.4g}") for r in (e, lo, hi)), int(n)] for t, e, lo, hi, n in columns],
    }


def rates(cosines: F64, weights: F64, at: F64, tail_from: int) -> F64:
    """The false-match rate at each cosine of `at`: the weighted share of pairs, and from `tail_from` on the tail."""
    share = np.append(0, np.cumsum(weights)) / weights.sum()
    result = share[np.searchsorted(-cosines, -at, side="right")]
    result[tail_from:] = result[tail_from - 1] * np.exp(-(at[tail_from:] - at[tail_from - 1]) / tail_scale(cosines, weights))
    return np.asarray(result)


def tail_scale(cosines: F64, weights: F64) -> float:
    """The mean excess over the cosine that `TAIL_SHARE` of the pairs exceed; `cosines` fall."""
    k = int(np.searchsorted(np.cumsum(weights), TAIL_SHARE * weights.sum()))
    return float(np.average(cosines[:k] - cosines[k], weights=weights[:k]))


def rate_inverse(points: list[list[float]], rate: float) -> float:
    return float(np.interp(-np.log(rate), [-np.log(p[1]) for p in points], [p[0] for p in points]))


def genuine(vectors: F32, names: NDArray[np.str_], strict: float) -> dict[str, Any]:
    """Pairs of photos of the same person: how many a threshold recognizes."""
    a, b = np.triu_indices(len(vectors), 1)
    same = names[a] == names[b]
    cosines = (vectors.astype(np.float64) @ vectors.T.astype(np.float64))[a[same], b[same]]
    quantiles = {f"{q:g}": round(float(np.quantile(cosines, q)), 4) for q in (0.01, 0.05, 0.25, 0.5)}
    return {"pairs": len(cosines), "rate_at_strict_threshold": round(float((cosines >= strict).mean()), 4), "quantiles": quantiles}


def read(path: Path) -> Image:
    with PilImage.open(path) as image:
        return np.ascontiguousarray(ImageOps.exif_transpose(image).convert("RGB"))


def middle_face(detector: YuNet, path: Path) -> tuple[Image, F32 | None]:
    """The photo and the points (1, 5, 2) of its surest face that covers the middle, or else of the one nearest to it."""
    image = read(path)
    faces = detector.detect(image)
    if not len(faces):
        return image, None
    middle = np.array(image.shape[1::-1]) / 2
    covers = np.flatnonzero((faces.boxes[:, :2] <= middle).all(axis=1) & (middle <= faces.boxes[:, 2:]).all(axis=1))
    distances = np.linalg.norm((faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2 - middle, axis=1)
    chosen = int(covers[0]) if len(covers) else int(distances.argmin())  # best first
    return image, faces.points[chosen : chosen + 1]


def all_faces(detector: YuNet, path: Path) -> tuple[Image, F32]:
    """The photo and the points (n, 5, 2) of its clear faces of at least 24 px."""
    image = read(path)
    faces = detector.detect(image)
    return image, faces.take((faces.sizes >= 24) & (faces.scores >= 0.8)).points


def draw(path: Path, faces: list[tuple[Path, Image, F32]], vectors: F32, names: NDArray[np.str_]) -> None:
    """The 20 most similar impostor pairs, from left to right, each with its cosine."""
    similarity = np.triu(vectors @ vectors.T, 1)
    similarity[names[:, None] == names] = 0
    cells = []
    for flat in np.argsort(-similarity, axis=None)[:20]:
        pair = np.unravel_index(flat, similarity.shape)
        cell = np.full((180, 310, 3), 255, np.uint8)
        for k, i in enumerate(pair):
            cell[30:, 150 * k : 150 * k + 150] = cv2.resize(faces[i][1], (150, 150))
        cv2.putText(cell, f"{similarity[pair]:.3f}", (4, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0))
        cells.append(cell)
    PilImage.fromarray(np.vstack([np.hstack(cells[k : k + 4]) for k in range(0, 20, 4)])).save(path)


if __name__ == "__main__":
    sys.exit(main())
