"""Measures how often a recognizer takes strangers for the same person, and writes `mfmc_ray/known/data/<recognizer>.json`.

    python tools/calibrate_thresholds.py --people PEOPLE [--scenes SCENES] [--recognizers sface dlib openface] [--sheet SHEET.png]

PEOPLE has a folder of photos for each person, the person in the middle of the photo. All pairs of photos of different people are the
impostor pairs. SCENES are photos of other people; they check the curve. SHEET shows the 20 most similar impostor pairs: look at it
before you believe the tail, for a wrongly labelled photo makes a false "impostor".

The method is that of `mfmc_ray/known/measure.py`. Its tail, an exponential excess, when fitted to one half of the people foretells more
similar pairs in the other half than are found (means of 200 halvings: at rate 1e-4 SFace 5.5 for 3.6 and dlib 6.6 for 3.2; at 3e-5 2.2 for
1.3 and 1.4 for 1.2). A generalised Pareto tail whose shape is fitted is nearer at 1e-4 (3.6 and 4.0) but foretells too few at 3e-5 (1.0 and
0.45), and goes on to rates of nothing. The exponential one was taken because it errs on the side of stating too high a rate.
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
from mfmc_ray.faces.insight import ArcFaceEmbedder, digest_of
from mfmc_ray.faces.openface import OpenFaceEmbedder
from mfmc_ray.faces.protocols import Embedder
from mfmc_ray.faces.store import load_lock
from mfmc_ray.known.measure import Impostors, calibrate, genuine, strict_threshold

EMBEDDERS: Mapping[str, tuple[Callable[[], Embedder], str]] = {
    "sface": (SFaceEmbedder, "sface"),
    "dlib": (DlibEmbedder, "dlib_resnet"),
    "openface": (OpenFaceEmbedder, "openface"),
    "arcface": (ArcFaceEmbedder, ""),
}
"""Name → how to make it, and its weights in models.lock; "" where the user has them."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--people", type=Path, required=True, help="a folder of photos for each person")
    parser.add_argument("--scenes", type=Path, help="photos of people who are not among them")
    parser.add_argument("--recognizers", nargs="+", choices=sorted(EMBEDDERS), default=["dlib", "openface", "sface"])
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
        calibration = calibrate(Impostors.among(vectors, names, most=len(vectors)))
        strict, strict_source = strict_threshold(name, calibration["points"])
        source = f"all pairs of photos of different people among {calibration['people']} people × about 4 photos ({arguments.source})"
        plain: dict[str, Any] = {
            "recognizer": name,
            "model_sha256": model_sha[weights] if weights else digest_of(name),
            "source": source,
            "created": datetime.now(UTC).date().isoformat(),
            "strict_threshold": strict,
            "strict_source": strict_source,
            **calibration,
            "genuine": genuine(vectors, names, strict),
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
