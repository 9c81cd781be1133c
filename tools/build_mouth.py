"""Build `mfmc_ray/swap/mouth.npz`: what tells whether something lies before a face's mouth.

    python tools/build_mouth.py ../shared/data

Masks, scarves, hands, microphones and food are drawn on the textures of portraits of people who do not exist, and of news photos and
others (`people`, `attributes`); crowds of which people have said who wears a mask (`masks_with_boxes`) are added. All are blurred, lit,
tinted, turned, shifted, compressed and made noisy. Small networks on `mouth.features` are fitted to them, whose mean is kept as one.
Prints how often each kind of picture is told right by networks that were fitted to the other half of people and pictures; what is kept is
fitted to all. Only weights are kept, no picture. It takes some ten minutes.
"""

from __future__ import annotations

import sys
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mouth_drawings import F32, Rng, Texture, photographed, recoloured, turned, with_beard, with_object, with_open_mouth
from numpy.typing import NDArray
from rich.progress import track
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from mfmc_ray.codec import MAX_PIXELS, CodecError, decode
from mfmc_ray.config import FindConfig
from mfmc_ray.faces.pack import load_pack
from mfmc_ray.identities.model import load_model
from mfmc_ray.swap.cover import CoverFinder
from mfmc_ray.swap.mouth import features, weights_of

OUT = Path(__file__).parents[1] / "mfmc_ray/swap/mouth.npz"
LEAST_SIZE, LEAST_MESH = 20.0, 0.3
SAME_BOX = 0.3
"""Overlap over union from which a face found is the one a person has drawn a box around."""
VARIANTS = {"portraits": 20, "people": 9, "attributes": 11, "masks": 24}
NETWORKS, HIDDEN, DECAY = 4, 24, 2.0
SEED = 20261129


@dataclass(frozen=True)
class Face:
    """A face whose texture, uint8 (PAGE, PAGE, 3) RGB, is at hand.

    Attributes:
        source: folder it is from.
        owner: person or picture; all of one are in the same half.
        texture: uint8 (PAGE, PAGE, 3) RGB.
        seen: bool (PAGE, PAGE).
        covered: whether its mouth is.
    """

    source: str
    owner: str
    texture: Texture
    seen: NDArray[np.bool_]
    covered: bool


@dataclass(frozen=True)
class Examples:
    """n halves of faces: features (n, d), whether the mouth is covered (n,), how much they count (n,)."""

    rows: F32
    covered: NDArray[np.bool_]
    weights: F32


def variants(face: Face, rng: Rng, finder: CoverFinder) -> list[tuple[Texture, bool, F32]]:
    """A face as it is and in other photos, half of them with something before its mouth: texture, whether so, how its halves count (2,)."""
    lips, made = finder.lips, [(face.texture, face.covered, weights_of(face.seen))]
    for k in range(VARIANTS[face.source]):
        page = face.texture
        over = face.covered or k % 2 == 0
        if face.covered:
            page = recoloured(page, rng) if k % 2 else page
        else:
            if (kind := rng.random()) < 0.15:
                page = with_beard(page, rng, lips)
            elif kind < 0.3:
                page = with_open_mouth(page, rng)
            if over or rng.random() < 0.3:
                page = with_object(page, rng, lips, over)
        weights = weights_of(face.seen)
        if rng.random() < 0.2:
            page, weights = turned(page if weights[0] > 0.3 else np.ascontiguousarray(page[:, ::-1]), rng), np.array([1, 0], np.float32)
        made.append((finder.whole(photographed(page, rng)), over, weights))
    return made


def examples(faces: Sequence[Face], rng: Rng, finder: CoverFinder) -> Examples:
    rows, covered, weights = [], [], []
    for face in track(faces, "Drawing"):
        for page, over, counts in variants(face, rng, finder):
            rows.append(features(page))
            covered += [over, over]
            weights.append(counts)
    return Examples(np.concatenate(rows), np.array(covered), np.concatenate(weights))


@dataclass(frozen=True)
class Network:
    """Weights of `mouth.MouthReader`: (d, h), (h,), (h,), scalar."""

    hidden: F32
    hidden_offset: F32
    out: F32
    offset: float

    def says(self, face: Face) -> float:
        inner = np.maximum(features(face.texture) @ self.hidden + self.hidden_offset, 0)
        return float(weights_of(face.seen) @ (inner @ self.out + self.offset))


def fitted(seen: Examples, rng: Rng) -> Network:
    """The mean of some networks, as one."""
    keep = seen.weights > 0.3
    rows, covered = seen.rows[keep], seen.covered[keep]
    mean, spread = rows.mean(0), rows.std(0) + 1e-3
    hidden, offsets, out, offset = [], [], [], 0.0
    for seed in track(rng.integers(0, 2**31, NETWORKS), "Fitting"):
        net = MLPClassifier((HIDDEN,), alpha=DECAY, batch_size=256, max_iter=25, learning_rate_init=1e-3, random_state=int(seed))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # as many rounds as are enough
            net.fit((rows - mean) / spread, covered)
        first, last = net.coefs_
        hidden.append(first / spread[:, None])
        offsets.append(net.intercepts_[0] - (mean / spread) @ first)
        out.append(last[:, 0] / NETWORKS)
        offset += float(net.intercepts_[1][0]) / NETWORKS
    return Network(np.hstack(hidden).astype(np.float32), np.hstack(offsets).astype(np.float32), np.hstack(out).astype(np.float32), offset)


# ---- reading


def faces_of(shared: Path, finder: CoverFinder) -> list[Face]:
    pack = load_pack(FindConfig(), ["sface"])
    found = []
    for source, folder in (("portraits", "portraits"), ("people", "people"), ("attributes", "attributes"), ("masks", "masks_with_boxes")):
        for path in track(sorted((shared / folder).rglob("*.*g")), f"Reading {folder}"):
            try:
                image = decode(path.read_bytes(), MAX_PIXELS).pixels
            except CodecError:
                continue
            faces = pack.analyse(image)
            usable = np.flatnonzero((faces.sizes >= LEAST_SIZE) & (faces.need("mesh_scores") >= LEAST_MESH))
            if source != "masks" and len(usable):
                usable = usable[[int(np.argmax(faces.sizes[usable]))]]
            owner = path.parent.name if source == "people" else path.name
            for i in usable:
                covered = said(path.with_suffix(".xml"), faces.boxes[i]) if source == "masks" else False
                if covered is None:
                    continue
                mesh = faces.need("meshes")[i]
                found.append(Face(source, owner, finder.whole(finder.unwrap(image, mesh)), finder.seen(mesh, image.shape), covered))
    return found


def said(boxes: Path, box: F32) -> bool | None:
    """Whether people say that the face with this box, x0 y0 x1 y1 px, wears a mask; None if they do not say or it is worn wrong."""
    best, name = SAME_BOX, None
    for one in ET.parse(boxes).iter("object"):  # noqa: S314
        other = np.array([float(one.findtext(f"bndbox/{side}") or 0) for side in ("xmin", "ymin", "xmax", "ymax")])
        both = np.prod(np.maximum(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0))
        share = float(both / (np.prod(box[2:] - box[:2]) + np.prod(other[2:] - other[:2]) - both))
        if share > best:
            best, name = share, one.findtext("name")
    return {"con_mascarilla": True, "sin_mascarilla": False}.get(name or "")


def halves(faces: Sequence[Face]) -> list[int]:
    """0 or 1 for each face: every second person or picture."""
    order = {owner: k % 2 for k, owner in enumerate(sorted({(face.source, face.owner) for face in faces}))}
    return [order[face.source, face.owner] for face in faces]


def main(shared: Path) -> None:
    rng, finder = np.random.default_rng(SEED), CoverFinder(load_model(), None, None)
    faces = faces_of(shared, finder)
    half = halves(faces)
    parts = [examples([face for face, h in zip(faces, half, strict=True) if h == k], rng, finder) for k in (0, 1)]
    told: dict[tuple[str, bool], list[bool]] = {}
    for k in (0, 1):
        network = fitted(parts[1 - k], rng)
        for face in (face for face, h in zip(faces, half, strict=True) if h == k):
            told.setdefault((face.source, face.covered), []).append(network.says(face) > 0)
        drawn = parts[k]
        inner = np.maximum(drawn.rows @ network.hidden + network.hidden_offset, 0) @ network.out + network.offset > 0
        print(f"drawn, half {k}: {inner[drawn.covered].mean():.1%} found, {inner[~drawn.covered].mean():.1%} false (of halves of faces)")
    for (source, covered), answers in sorted(told.items()):
        print(f"{source}, {'covered' if covered else 'bare'}: {sum(answers)} of {len(answers)} said to be covered")
    every = Examples(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("rows", "covered", "weights")))
    best = fitted(every, rng)
    np.savez(
        OUT,
        hidden=best.hidden.astype(np.float16),
        hidden_offset=best.hidden_offset,
        out=best.out.astype(np.float16),
        offset=np.float32(best.offset),
    )
    print(f"{OUT.name}: {OUT.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
