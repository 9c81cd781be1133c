"""Build `mfmc_ray/swap/glasses.npz`: what tells whether a face wears glasses.

    python tools/build_glasses.py ../shared/data

Faces of news photos, scenes and official portraits of which somebody has said by eye who wears glasses, and portraits of people who do not
exist. On bare ones glasses of many shapes, colours and thicknesses, clear and dark, with reflections and shadows, are drawn too; all are
blurred, shifted and made noisy. A ridge-penalised logistic regression on oriented gradients is fitted to each half of them. Prints how
many real faces are told right by what was fitted to other people. Only weights are kept, no picture.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from build_identity_model import read
from numpy.typing import NDArray
from rich.progress import track
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold

from mfmc_ray.codec import CodecError, decode
from mfmc_ray.config import FindConfig
from mfmc_ray.faces.detect import View, YuNet
from mfmc_ray.faces.mesh import FaceMesh
from mfmc_ray.identities.model import load_model
from mfmc_ray.swap.cover import GLASSES, PAGE, CoverFinder
from mfmc_ray.swap.glasses import gradients, weights_of

OUT = Path(__file__).parents[1] / "mfmc_ray/swap/glasses.npz"
REAL = "female_48 female_63 female_66 female_98 male_53 male_66 male_95"  # wear some, or cannot be judged
PHOTOS = ("people", "official_portraits", "scenes")
LONGEST, LEAST_SIZE, LEAST_SCORE, LEAST_MESH, MOST = 640, 40.0, 0.8, 0.6, 3
"""Photos are looked at with at most so many px; faces that are smaller or less sure, and further ones of a photo, are left out."""
WORN = """
01429bcb.0 08023379.0 09b04061.0 1201886d.0 127f3adf.0 146ed6ec.0 163a1a97.0 18967ba5.0 18b85513.0 1bc17721.0 1dfa1287.0 27151f46.0
28c970fb.0 2b43ef8d.0 2c324772.0 2c393f03.0 2e1f514f.0 2e7f8538.0 30dc7f71.0 3209523a.0 33355fd9.0 37d13e85.0 37f85d5f.0 394c864e.0
3a4b79bb.0 3aee8867.0 440dd352.0 481b5ec6.0 4a0a20b2.0 4b0a3cd1.0 4d61ece3.0 4de9e015.0 4fd0e6d7.0 509d4fe2.0 513d6e9c.0 52af9e1f.0
5323b371.0 536b3f23.0 547e5c53.1 547e5c53.2 558eeee2.0 570a0196.0 58fee64f.0 5a5c4f6d.0 5a970a86.0 5ad34ff5.0 5c332250.0 5cd491bf.0
5d07f182.0 60927a02.0 6edea70e.0 76430c5e.0 78c99844.0 7dd9f70a.1 806d2073.0 8111ef8a.0 8137588a.0 8154665e.0 81c40aeb.0 838b609c.0
84255865.0 846316d1.0 84855a30.0 880ccbd2.0 8e36d430.0 8f32b4ba.0 91920cb9.1 9725a91e.0 9d3fc5f4.1 a0aa277e.0 a963766b.0 a9efe8f4.0
a9efe8f4.1 ad089388.0 b2380c8a.0 b2eba753.0 b65df799.0 bb5735f0.0 bd76b684.0 c28a0157.0 c39c6232.0 c607da52.0 c79a56e5.0 c84edaee.0
c86a0fa7.0 c8ae4223.0 ca091254.0 cc4bff70.0 ccbc6823.0 d7ca14f3.0 dc88e038.0 e21bcc33.0 e23c9069.0 e3b5ab31.0 e696ab1a.0 e9846aa4.0
edde6e41.0 ee5fcfea.0 f38d8077.0 fb59c33e.0 fbad2352.0 fc8e5d88.0 fd5be1c9.0 fe09048d.0
"""
"""Who wears glasses: the first digits of the photo's SHA-256, and the number of the face in it, surest first."""
DOUBTFUL = """
01429bcb.1 01cc3acd.0 0259c220.0 087bea58.0 108a3d57.1 18ce891f.0 197db128.0 1d6d037e.1 1dcb698b.0 1e9084d3.0 23919dc8.0 26e135da.0
2b3c0a75.0 34c05176.0 3b71d5c3.0 44430f3d.0 46c40579.1 481b5ec6.1 4d4ac4e5.0 4d4ac4e5.1 4d679b40.0 513e16ab.0 547e5c53.0 6226b542.0
62a601cf.0 6341a037.0 63cb00d5.0 6490a912.0 69da1bea.0 6ce014ff.2 73719750.0 74bf9ec1.0 7caa1281.0 7f4137bd.0 7f4137bd.1 8154665e.1
82d3e1bc.0 8332a6e1.0 83cbfdf5.0 85dbf034.0 8958b4df.0 8cdd9350.0 8ec69aca.0 8f0031e9.0 929109a4.0 9c0cf585.0 a592d203.0 ac032059.0
b7595add.0 bba1ddbe.1 c0f34503.0 c1555ade.1 c323134f.1 c39c6232.1 c944420a.0 db8959c5.0 dd561314.1 e079e070.0 e58a73ee.1 e6694e20.0
e7523562.0 e9435de3.0 e989aa2d.0 e9a4ce80.0 eb879a16.0 efe507b6.1 f00f3b6f.0 f07bea5a.0 f31f4d7e.0 f6c1ff90.0 fcbee72c.1
"""
"""Of whom that cannot be said."""
VARIANTS = 10
REAL_VARIANTS = 5
WEIGHT = 3
LEAST_WEIGHT = 0.3
"""Of a half of a face that is learned from."""
PENALTY = 0.01
FOLDS = 4
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


@dataclass(frozen=True, eq=False)
class Face:
    """A face whose texture, uint8 (PAGE, PAGE, 3) RGB, is at hand.

    Attributes:
        owner: person or picture; all of one are left out together.
        texture: uint8 (PAGE, PAGE, 3) RGB.
        weights: float32 (2,), of its halves, see `weights_of`.
        worn: whether it wears glasses.
    """

    owner: str
    texture: Texture
    weights: NDArray[np.float32]
    worn: bool


def photographed(root: Path, finder: CoverFinder) -> Iterator[Face]:
    """The faces of photos of which it is known who wears glasses."""
    yunet, fitter = YuNet(min_score=LEAST_SCORE), FaceMesh()
    yunet.views = (View(LONGEST), View(320, border=32))
    files = [file for name in PHOTOS for file in sorted((root / name).rglob("*")) if file.is_file()]
    for file in track(files, "Reading photos"):
        data = file.read_bytes()
        try:
            image = decode(data, FindConfig().max_pixels).pixels
        except CodecError:
            continue
        if (scale := LONGEST / max(image.shape[:2])) < 1:
            image = np.ascontiguousarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
        faces = yunet.detect(image)
        faces = faces.take(np.flatnonzero(faces.sizes > LEAST_SIZE)[:MOST])
        meshes, scores = fitter.fit(image, faces.boxes, faces.points)
        for i in np.flatnonzero(scores >= LEAST_MESH):
            name = f"{hashlib.sha256(data).hexdigest()[:8]}.{i}"
            if name not in DOUBTFUL.split():
                owner = file.stem.rpartition("_")[0] or file.stem
                yield Face(owner, finder.unwrap(image, meshes[i]), weights_of(finder.seen(meshes[i], image.shape)), name in WORN.split())


def examples(faces: Sequence[Face], variants: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Halves as gradients (n, d), and whether they wear glasses: the faces themselves, and bare ones with glasses drawn on them."""
    rows, labels = [], []
    for face in faces:
        for k in range(variants):
            drawn = bool(k % 2) and not face.worn
            page = worn_by_camera(with_glasses(face.texture, rng) if drawn else face.texture, rng) if k else face.texture
            halves = gradients(page)[face.weights > LEAST_WEIGHT]
            # few wear any: theirs count more
            times = WEIGHT if face.worn else 1
            rows += [*halves] * times
            labels += [drawn or face.worn] * len(halves) * times
    return np.array(rows), np.array(labels)


def fitted(faces: Sequence[Face], drawn: tuple[NDArray[np.float32], NDArray[np.bool_]], rng: np.random.Generator) -> LogisticRegression:
    """What tells glasses by these faces and the portraits with drawn ones."""
    rows, labels = examples(faces, REAL_VARIANTS, rng)
    return LogisticRegression(C=PENALTY, max_iter=300).fit(np.concatenate([rows, drawn[0]]), np.concatenate([labels, drawn[1]]))


def odds(reader: LogisticRegression, face: Face) -> float:
    return float(face.weights @ reader.decision_function(gradients(face.texture)))


def main(root: Path) -> None:
    rng, finder = np.random.default_rng(SEED), CoverFinder(load_model(), None, None)
    both = np.full(2, 0.5, np.float32)
    nobodies = [Face(p.name, finder.unwrap(p.image, p.mesh), both, False) for p in read(root / "portraits") if p.name not in REAL.split()]
    drawn = examples(nobodies, VARIANTS, rng)
    faces = list(photographed(root, finder))
    truth = np.array([face.worn for face in faces])
    said = np.zeros(len(faces))
    for some, rest in GroupKFold(FOLDS).split(faces, groups=[face.owner for face in faces]):
        reader = fitted([faces[i] for i in some], drawn, rng)
        said[rest] = [odds(reader, faces[i]) for i in rest]
    print(f"{truth.sum()} of {len(truth)} faces wear glasses; left out: area under the curve {roc_auc_score(truth, said):.3f}")
    for limit in (GLASSES, *np.quantile(said[~truth], (0.9, 0.95, 0.97))):
        print(f"  odds from {limit:.2f}: {(said > limit)[truth].mean():.1%} found, {(said > limit)[~truth].mean():.1%} false")
    reader = fitted(faces, drawn, rng)
    np.savez(OUT, weights=reader.coef_[0].astype(np.float16), offset=np.float32(reader.intercept_[0]))
    print(f"{OUT}: {OUT.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
