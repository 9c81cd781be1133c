"""Build `mfmc_ray/identities/data/statistics.npz`: what real people's faces are like in the mean, and how children's differ.

    python tools/build_statistics.py ../shared/data

The identity model is made of portraits of people who do not exist; they are all a little alike, and none is a child's. Means over many real
people tell how far off they are:

- Shapes of adults: the mean of women and of men over several sets of photos, and by how much those of a sex differ.
- Childhood, from faces of known age (UTKFace's names: age_sex_race_date): coefficients of shape, coarse shading and the log energy of fine
  lines are regressed on youth and its square, with sex and skin tone beside them. Both halves of a face are averaged.

Build it anew after the identity model, whose shapes it is about. Of such means no face can be made again. The photos are for research; none
of them, and nothing of a single one, is in the file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track

from mfmc_ray.codec import decode
from mfmc_ray.config import RunConfig
from mfmc_ray.faces.faces import Faces, Image
from mfmc_ray.faces.pack import load_pack
from mfmc_ray.identities.childhood import GROWN_UP, NEWBORN
from mfmc_ray.identities.model import GRID, SOFT, STATISTICS, IdentityModel, load_model
from mfmc_ray.identities.surface import F32, place
from mfmc_ray.identities.traits import bare_skin

ADULTS = ("people", "official_portraits", "scenes", "attributes")
LEAST_ADULTS = 8  # of a sex in a set, or its mean is not counted
KNOWN_AGES = "attributes"
LIGHT_SIGMA = 100.0  # texels, as in tools/build_identity_model.py
FLOOR = 16.0
OLDEST = 45  # years, of the adults that children are held against
STRAIGHT, TURNED = 20.0, 30.0  # degrees of yaw and pitch up to which a face's shape, and its skin, is looked at
LEAST_SIZE, LEAST_SCORE = 60, 0.6
RIDGE = np.array([1e-3, 1, 1, 3, 3])
LEAST_FACES = 15  # that show a texel, or nothing is said of it


@dataclass(frozen=True)
class Face:
    path: Path
    image: Image
    mesh: F32
    turn: float
    age: float
    man: bool
    tone: float

    @property
    def label(self) -> list[int]:
        """Age and sex of a file of UTKFace."""
        return [int(part) for part in self.path.name.split("_")[:2]]


@dataclass(frozen=True)
class Skin:
    coarse: F32
    energy: F32
    seen: F32


def read(folder: Path) -> Iterator[Face]:
    """The largest faces of the pictures of a set, one of each."""
    config = RunConfig()
    pack = load_pack(config.find, config.guard.recognizers[:1])
    for path in track(sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".png")), f"Reading {folder.name}"):
        image = decode(path.read_bytes()).pixels
        faces: Faces = pack.analyse(image)
        if len(faces) == 0:
            continue
        i = int(np.argmax(faces.sizes))
        if faces.sizes[i] < LEAST_SIZE or faces.need("mesh_scores")[i] < LEAST_SCORE:
            continue
        yaw, pitch, _ = np.abs(faces.need("poses")[i])
        age, sex, tone = (float(faces.need(name)[i]) for name in ("ages", "sexes", "tones"))
        yield Face(path, image, faces.need("meshes")[i], max(yaw, pitch), age, sex > 0.5, tone)


def coefficients(model: IdentityModel, faces: Sequence[Face]) -> F32:
    return np.stack([model.split(place(face.mesh, model.surface.mean).shape) for face in faces])


def adults(model: IdentityModel, sets: dict[str, list[Face]]) -> F32:
    """float32 (2, k): the mean coefficients of women's and men's shapes, each set the same weight."""
    means = []
    for man in (False, True):
        some = [[f for f in faces if f.man == man and f.age >= 20 and f.turn < STRAIGHT] for faces in sets.values()]
        means.append(np.mean([coefficients(model, faces).mean(0) for faces in some if len(faces) >= LEAST_ADULTS], 0))
    return np.stack(means).astype(np.float32)


def spread(model: IdentityModel, sets: dict[str, list[Face]]) -> F32:
    """float32 (k,): standard deviations of the coefficients of adults of one sex, by the middle two thirds of all sets.

    Small coefficients are read off a mesh with caution, see `IdentityModel.split`; by how much is taken out.
    """
    rest = []
    for faces in sets.values():
        for man in (False, True):
            some = [f for f in faces if f.man == man and f.age >= 20 and f.turn < STRAIGHT]
            if len(some) >= LEAST_ADULTS:
                found = coefficients(model, some)
                rest.append(found - found.mean(0))
    low, high = np.quantile(np.concatenate(rest), (0.16, 0.84), axis=0)
    directions = model.surface.mean + model.identity
    kept = np.array([model.split(one)[k] for k, one in enumerate(directions)])
    return np.asarray((high - low) / 2 / kept, np.float32)


def skin_of(model: IdentityModel, face: Face, bare: F32) -> Skin:
    """What a face's texture shows without its light."""
    surface, (height, width) = model.surface, face.image.shape[:2]
    values = np.column_stack([surface.facing(face.mesh), face.mesh[:, :2]]).astype(np.float32)
    facing, x, y = cv2.split(surface.texels.interpolate(values, surface.corners, (surface.size,) * 2, -1.0))
    seen = ((facing > 0.25) & (x > 0) & (y > 0) & (x < width - 1) & (y < height - 1)).astype(np.float32)
    light = np.log(surface.unwrap(face.image, face.mesh).astype(np.float32) + FLOOR)
    skin = seen * bare
    total = cv2.GaussianBlur(skin, (0, 0), LIGHT_SIGMA)[..., None] + 1e-3
    detail = light - cv2.GaussianBlur(light * skin[..., None], (0, 0), LIGHT_SIGMA) / total
    energy = small(np.abs((detail - cv2.GaussianBlur(detail, (0, 0), 5)).mean(2)))
    coarse = np.clip(cv2.GaussianBlur(small(detail), (0, 0), SOFT), -1.2, 0.7)
    pages = [np.asarray(page, np.float32) for page in (coarse, np.log(cv2.GaussianBlur(energy, (0, 0), 4) + 0.004), small(seen))]
    return Skin(*((page + page[:, ::-1]) / 2 for page in pages))


def childhood(model: IdentityModel, faces: list[Face]) -> tuple[F32, F32, F32]:
    """Of shape (2, k), coarse detail (2, g, g, 3) and log fine energy (2, g, g): what is added times youth and times its square."""
    faces = [face for face in faces if face.turn < TURNED and face.label[0] <= OLDEST]
    young = np.clip((GROWN_UP - np.array([face.label[0] for face in faces])) / (GROWN_UP - NEWBORN), 0, 1)
    man = np.array([face.label[1] == 0 for face in faces]) * (1 - young)
    tone = np.array([face.tone for face in faces])
    cues = np.stack([np.ones(len(faces)), man, (tone - tone.mean()) / 40, young, young**2], 1)
    print(f"childhood: {len(faces)} faces, {int((young > 0).sum())} of children")
    shapes = np.linalg.solve(cues.T @ cues + np.diag(RIDGE), cues.T @ coefficients(model, faces))[3:]

    bare = bare_skin(model.surface, model.surface.size)
    skins = [skin_of(model, face, bare) for face in track(faces, "Unwrapping")]
    pages, seen = np.stack([np.dstack([one.coarse, one.energy]) for one in skins]), np.stack([one.seen for one in skins])
    normal = np.einsum("na,nhw,nb->hwab", cues, seen, cues) + np.diag(RIDGE)
    slopes = np.linalg.solve(normal, np.einsum("na,nhw,nhwc->hwac", cues, seen, pages))
    slopes[seen.sum(0) < LEAST_FACES] = 0
    slopes = np.stack([cv2.GaussianBlur(slopes[:, :, k].astype(np.float32), (0, 0), 1.0) for k in (3, 4)])
    return shapes, slopes[..., :3] * inner()[..., None], slopes[..., 3]


def inner() -> F32:
    """float32 (GRID, GRID), 0–1: 0 towards the ears and the hairline, where photos show hair, which the model's sources do not have."""
    y, x = np.mgrid[:GRID, :GRID].astype(np.float32) / GRID
    aside, above = np.clip((np.abs(x - 0.5) - 0.27) / 0.13, 0, 1), np.clip((0.24 - y) / 0.12, 0, 1)
    return np.asarray((1 - aside) * (1 - above), np.float32)


def small(page: F32) -> F32:
    return np.asarray(cv2.resize(page, (GRID, GRID), interpolation=cv2.INTER_AREA), np.float32)


def main(folder: Path) -> None:
    model = load_model()
    sets = {name: list(read(folder / name)) for name in ADULTS}
    shapes = adults(model, sets)
    for who, shape in zip(("women", "men"), shapes / model.spread, strict=True):
        print(f"mean shape of {who}: {np.linalg.norm(shape):.1f} standard deviations from the portraits', first {np.round(shape[:6], 1)}")
    people = spread(model, sets)
    print(f"real people's standard deviations, in the portraits': {np.round(people / model.spread, 1)}")
    shape, coarse, fine = childhood(model, sets[KNOWN_AGES])
    np.savez_compressed(
        STATISTICS,
        adults=shapes,
        people=people,
        shape=shape.astype(np.float32),
        coarse=coarse.astype(np.float16),
        fine=fine.astype(np.float16),
    )
    print(f"{STATISTICS}: {STATISTICS.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
