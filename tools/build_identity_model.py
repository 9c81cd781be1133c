"""Build `mfmc_ray/identities/data/identity_model.npz` from portraits of people who do not exist.

    python tools/build_identity_model.py ../shared/data/portraits

Each portrait is unwrapped to the texture square. Texels that are turned away, hair, hats or background are masked and completed from the
mirrored half; light is taken out (logarithm over low-pass, the sides calmed). Then all are registered: a smooth dense flow brings brows,
nose and folds of each to where the mean of all has them, so that mixtures have no ghosts. Shapes are split into an expression part
(regressed on mouth opening, smile and mouth width) and an identity part (principal components of what is left).
The portraits are CC0 (faker-js/assets-person-portrait, Stable Diffusion 3).
"""

from __future__ import annotations

import csv
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from portraits_seen import HALF_SPOILT, SHAVEN, SPOILT, UNUSABLE
from rich.progress import track

from mfmc_ray.faces.align import similarity
from mfmc_ray.faces.detect import YuNet
from mfmc_ray.faces.embed import DlibEmbedder, SFaceEmbedder
from mfmc_ray.faces.mesh import CANONICAL, MIRROR, FaceMesh
from mfmc_ray.identities.model import DETAIL_GREY, FLOW_STEP, GRID, REGIONS, SOFT
from mfmc_ray.identities.surface import F32, IMAGE_LEFT_EYE, IMAGE_RIGHT_EYE, INNER_LIPS, Surface, place, unroll
from mfmc_ray.identities.traits import CHEEKS, TRAIT_SIZE, bare_skin, beard, polygon

OUT = Path(__file__).parents[1] / "mfmc_ray/identities/data/identity_model.npz"
SIZE = 384
COMPONENTS = 30
LIGHT_SIGMA = 100.0  # texels; 0.26 face widths, about the renderer's low-pass: a finer one would leave faces flat
CALM = 0.2  # how far the face's own shading is calmed; towards the ears it is wholly
ROUNDS = (18.0, 14.0, 12.0, 12.0)  # σ of the flow in each round of registration, texels
FARTHEST = 16.0  # texels that a round moves anything
FLOW_SIDE = 48
FLAT_EYES = 0.24
STRIP = 18  # texels from the middle line that a spoilt half keeps, or there would be a seam
AGE_RIDGE = 300.0  # years², against slopes read out of few sources
TONE_RIDGE = 600.0  # degrees², likewise
FLOOR = 16.0
FLIP = np.array([-1, 1, 1], np.float32)

EYES = (33, 133, 145, 159, 70, 63, 105, 66, 107, 263, 362, 374, 386, 300, 293, 334, 296, 336, 168, 6, 119, 348, 111, 340)
NOSE = (168, 98, 327, 2, 48, 278, 64, 294, 197, 195, 5, 4, 1, 49, 279, 126, 355)
MOUTH = (61, 291, 0, 17, 37, 267, 84, 314, 164, 18, 57, 287, 43, 273, 92, 322, 106, 335)
MIDDLE = (70, 63, 105, 66, 107, 300, 293, 334, 296, 336, 33, 263, 61, 291, 18, 57, 287, 43, 273)
BRIDGE = (168, 6, 197, 195, 5, 122, 351)
LIDS = ((33, 133, 159, 145, 160, 158, 153, 144), (263, 362, 386, 374, 387, 385, 380, 373))
LIPS = (61, 39, 0, 269, 291, 405, 17, 181)
BROWS = ((70, 63, 105, 66, 107, 55, 65, 52, 53, 46), (300, 293, 334, 296, 336, 285, 295, 282, 283, 276))


@dataclass(frozen=True)
class Portrait:
    name: str
    man: bool
    age: float
    image: NDArray[np.uint8]
    mesh: F32
    points: F32


def read(folder: Path) -> list[Portrait]:
    detector, fitter = YuNet(min_score=0.6), FaceMesh()
    found = []
    for row in track(list(csv.DictReader((folder / "portraits.csv").open())), "Reading portraits"):
        image = np.asarray(Image.open(folder / row["file"]).convert("RGB"))
        faces = detector.detect(image)
        if len(faces) == 0:
            print(f"{row['file']}: no face found, left out")
            continue
        one = [int(np.argmax(faces.sizes))]
        meshes, _ = fitter.fit(image, faces.boxes[one], faces.points[one])
        found.append(Portrait(Path(row["file"]).stem, row["sex"] == "man", float(row["age"]), image, meshes[0], faces.points[one][0]))
    return found


def area(surface: Surface, landmarks: tuple[int, ...], grow: int = 0) -> F32:
    page = polygon(surface, landmarks, SIZE).astype(np.uint8)
    if grow:
        page = cv2.dilate(page, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * grow + 1, 2 * grow + 1)))
    return page.astype(np.float32)


def make_mask(surface: Surface, half: tuple[int, int] = (165, 182), inset: int = 6, soft: int = 20) -> tuple[F32, NDArray[np.bool_]]:
    """Where a texture replaces the target, soft towards the hairline, ears and chin, with the open mouth cut out; and the whole face."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    whole = cv2.morphologyEx(surface.inside.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((61, 61)))
    oval = (np.abs(x - (SIZE - 1) / 2) / half[0]) ** 2.4 + (np.abs(y - 203) / half[1]) ** 2.4 < 1
    inner = oval & (cv2.erode(whole, np.ones((3, 3)), iterations=inset, borderValue=0) > 0)
    ramp = np.clip(cv2.distanceTransform(inner.astype(np.uint8), cv2.DIST_L2, 5) / soft, 0, 1)
    mouth = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillPoly(mouth, [np.round(surface.uv[list(INNER_LIPS)]).astype(np.int32)], 1)
    closed = 1 - cv2.erode(mouth, np.ones((3, 3))).astype(np.float32)
    mask = ramp * ramp * (3 - 2 * ramp) * cv2.GaussianBlur(closed, (0, 0), 1.5)
    return np.asarray(mask, np.float32), whole > 0


def make_regions(surface: Surface) -> F32:
    """float32 (6, SIZE, SIZE): soft masks that sum to 1, in the order of `REGIONS`."""
    mouth = area(surface, MOUTH, 8)
    nose = area(surface, NOSE, 8) * (1 - mouth)
    around_eyes = area(surface, EYES, 6) * (1 - nose) * (1 - mouth)
    brows = (
        np.maximum(area(surface, BROWS[0], 6), area(surface, BROWS[1], 6))
        * around_eyes
        * (1 - np.maximum(area(surface, LIDS[0], 5), area(surface, LIDS[1], 5)))
    )
    eyes = around_eyes - brows
    rest = 1 - around_eyes - nose - mouth
    upper = (np.arange(SIZE) < 140)[:, None].astype(np.float32)
    hard = {"eyes": eyes, "brows": brows, "nose": nose, "mouth": mouth, "forehead": rest * upper, "cheeks": rest * (1 - upper)}
    soft = np.stack([cv2.GaussianBlur(hard[name], (0, 0), 5 if name in ("eyes", "brows") else 9) for name in REGIONS])
    return np.asarray(soft / soft.sum(0), np.float32)


def skin_texels(surface: Surface, texture: NDArray[np.uint8], facing: F32, whole: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Texels that were seen well and are skin; what lies between brows and chin counts as skin whatever its colour.

    There a dark texel is the shadow of a socket, a nostril or a moustache.
    """
    protect = np.maximum.reduce([*(area(surface, brow, 4) for brow in BROWS), area(surface, MIDDLE, 6)])
    reference = np.maximum.reduce([area(surface, part) for part in (*CHEEKS, BRIDGE)]) > 0.5
    lab = cv2.cvtColor(texture, cv2.COLOR_RGB2LAB).astype(np.float32)
    seen = lab[reference & (facing > 0.5)]
    usual = np.median(seen, 0)
    spread = np.median(np.abs(seen - usual), 0) * 1.4826 + [6, 2, 2]
    off = cv2.GaussianBlur((lab - usual) / spread, (0, 0), 2)
    odd = np.sqrt(np.clip(np.abs(off[..., 0]) - 1.5, 0, None) ** 2 + (off[..., 1:] ** 2).sum(-1) / 2) > 3.2
    other = (odd & (protect < 0.5) & whole).astype(np.uint8)
    other = cv2.dilate(cv2.morphologyEx(other, cv2.MORPH_OPEN, np.ones((5, 5))), np.ones((13, 13)))
    return np.asarray(whole & (facing > 0.25) & ~((other > 0) & (protect < 0.5)))


def detail_of(texture: NDArray[np.uint8], skin: NDArray[np.bool_], bare: F32, regions: F32, man: bool) -> F32:
    """A texture without its light: the logarithm over the low-pass of its skin, completed by the mirrored half.

    Brows, eyes and lips (where `bare` is 0) have no part in the low-pass: on both sides of a swap it is the skin that is compared.
    """
    log = np.log(texture.astype(np.float32) + FLOOR)
    seen = skin.astype(np.float32) * bare
    low = cv2.GaussianBlur(log * seen[..., None], (0, 0), LIGHT_SIGMA) / (cv2.GaussianBlur(seen, (0, 0), LIGHT_SIGMA)[..., None] + 1e-3)
    own = log - low
    sure = cv2.distanceTransform(cv2.erode(skin.astype(np.uint8), np.ones((5, 5))), cv2.DIST_L2, 5) / 8
    sure = np.clip(sure, 0, 1)[..., None].astype(np.float32)
    detail = sure * own + (1 - sure) * sure[:, ::-1] * own[:, ::-1]

    _, _, nose, mouth, forehead, cheeks = (region[..., None] for region in regions)
    luma = detail.mean(-1, keepdims=True)
    colour = detail - luma
    coarse = cv2.GaussianBlur(luma, (0, 0), 5)[..., None]
    fine = luma - coarse
    # light falls from a side, albedo does not: shading of the skin is made symmetric
    plain = np.clip(nose + forehead + cheeks, 0, 1)
    coarse = (1 - plain) * coarse + plain * (coarse + coarse[:, ::-1]) / 2
    colour = (1 - plain) * colour + plain * (colour + colour[:, ::-1]) / 2
    # highlights of a moist skin or of lips are light, too; towards the ears what is left is hair and shadow, above the jaw even on a man.
    # All else stays as it is: what is calmed no longer makes a person
    aside = np.clip((np.abs(np.arange(SIZE, dtype=np.float32) - (SIZE - 1) / 2) - 75) / 40, 0, 1)[None, :, None]
    above = np.clip((265 - np.arange(SIZE, dtype=np.float32)) / 30, 0, 1)[:, None, None]
    cap = 0.32 - 0.22 * aside * (above if man else 1)
    calm = np.where(coarse > 0, 0.18 * np.tanh(coarse / 0.18), 0.4 * np.tanh(coarse / 0.4)) * (1 - 0.8 * aside)
    # around the eyes a bright or coloured patch is light, make-up or another skin than its neighbours'
    about = regions[0][..., None] + regions[1][..., None]
    coarse = (1 - plain) * coarse + plain * calm
    coarse = np.where(coarse > 0, (1 - about) * coarse + about * 0.1 * np.tanh(coarse / 0.1), coarse)
    fine = (1 - plain) * fine + plain * cap * np.tanh(fine / cap)
    luma = coarse + fine
    luma = np.where(luma > 0, mouth * 0.2 * np.tanh(luma / 0.2) + (1 - mouth) * luma, luma)
    colour = cv2.GaussianBlur(colour, (0, 0), 1.2)
    most = 0.2 - 0.08 * about
    calmed = luma + 0.9 * most * np.tanh(colour / most)
    # mixing calms shading enough: a face whose cheeks and lids do not shine is a mask
    share = np.maximum(CALM, np.clip((np.abs(np.arange(SIZE, dtype=np.float32) - (SIZE - 1) / 2) - 85) / 40, 0, 1))[None, :, None]
    mixed = share * calmed + (1 - share) * detail
    low = cv2.GaussianBlur(mixed, (0, 0), 5)
    return np.asarray(np.clip(low + lined(man) * (mixed - low), -2, 0.9), np.float32)


def lined(man: bool) -> F32:
    """float32 (SIZE, SIZE, 1), 0–1: how much of its fine lines a texture keeps.

    Towards its border they are strands of hair, the jaw's edge and folds of the neck: scratches on another head. A beard stays more of one.
    """
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    out = (np.abs(x - (SIZE - 1) / 2) / 165) ** 2.4 + (np.abs(y - 203) / 182) ** 2.4
    least = np.where(y > 265, 0.5, 0.2) if man else 0.2
    return np.asarray(1 - (1 - least) * np.clip((out - 0.4) / 0.4, 0, 1), np.float32)[..., None]


def register(surface: Surface, details: NDArray[np.float32], weights: F32, usable: NDArray[np.bool_]) -> F32:
    """float32 (n, SIZE, SIZE, 2), texels: how far from each texel of their mean the same lies in each of the details (n, SIZE, SIZE, 3).

    Dense inverse search (Kroeger et al., "Fast optical flow using dense inverse search", 2016) against the mean, which is made anew in each
    round, smoothed where little is to be seen. Lids and lips stay: the mesh has them already.
    """
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(1)
    search.setVariationalRefinementAlpha(30.0)
    held = np.maximum.reduce([*(area(surface, lid, 2) for lid in LIDS), area(surface, LIPS, 2)])
    luma = details.mean(-1)
    flows = np.zeros((*luma.shape, 2), np.float32)
    some = np.flatnonzero(usable.any(1))
    for sigma in track(ROUNDS, "Registering"):
        moved, seen = (np.stack([pulled(page, flow) for page, flow in zip(pages, flows, strict=True)]) for pages in (luma, weights))
        mean = _grey((moved * seen).sum(0) / (seen.sum(0) + 1e-3))
        edges = sum(np.abs(cv2.Sobel(mean.astype(np.float32), -1, *axes)) for axes in ((1, 0), (0, 1)))
        edges = cv2.GaussianBlur(edges, (0, 0), 3)
        for i in some:
            flow = np.clip(search.calc(mean, _grey(luma[i]), None), -FARTHEST, FARTHEST) * (held == 0)[..., None]
            sure = (edges / (edges + 15) * weights[i] + 0.02 + 3 * held)[..., None]
            flow = cv2.GaussianBlur(flow * sure, (0, 0), sigma) / cv2.GaussianBlur(sure, (0, 0), sigma)[..., None]
            flows[i] = 0.65 * flow + 0.35 * flow[:, ::-1] * (-1, 1)
        flows -= flows[some].mean(0)
    return flows


def pulled(page: NDArray[np.float32], flow: F32) -> NDArray[np.float32]:
    """What is at each texel of a page (SIZE, SIZE, …) that a flow (SIZE, SIZE, 2) points to."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    return np.asarray(cv2.remap(page, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)


def _grey(page: F32) -> NDArray[np.uint8]:
    return np.clip(150 + 85 * cv2.GaussianBlur(page, (0, 0), 1.2), 0, 255).astype(np.uint8)


def typical(details: list[F32], men: NDArray[np.bool_], weights: F32) -> tuple[F32, F32]:
    """float32 (2, GRID, GRID, 3) each: the mean coarse detail of women and of men, symmetric, and its standard deviation."""
    small = [cv2.resize(page, (GRID, GRID), interpolation=cv2.INTER_AREA) for page in details]
    coarse = np.stack([cv2.GaussianBlur(page, (0, 0), SOFT) for page in small])
    share = np.stack([cv2.resize(page, (GRID, GRID), interpolation=cv2.INTER_AREA) for page in weights])[..., None]
    means, spreads = [], []
    for man in (False, True):
        some = men == man
        count = share[some].sum(0)
        mean = (coarse[some] * share[some]).sum(0) / (count + 1e-3)
        mean = (mean + mean[:, ::-1]) / 2
        spread = np.sqrt(((coarse[some] - mean) ** 2 * share[some]).sum(0) / (count + 1))
        means.append(mean)
        spreads.append(cv2.GaussianBlur((spread + spread[:, ::-1]) / 2, (0, 0), 2) + 0.02)
    return np.stack(means), np.stack(spreads)


def split_shapes(meshes: list[F32], surface: Surface) -> tuple[F32, F32, F32]:
    """Orthonormal expression (3, 468·3) and identity (COMPONENTS, 468·3) directions, and the standard deviations of the latter."""
    placed = [place(mesh, surface.mean) for mesh in meshes]
    shape = np.array([p.shape for p in placed])
    shape = (shape + (shape * FLIP)[:, MIRROR]) / 2
    yaw = np.degrees([np.arctan2(p.rotation[2, 0], p.rotation[2, 2]) for p in placed])
    shape = shape[np.abs(yaw) < 30]
    lips = np.linalg.norm(shape[:, 13] - shape[:, 14], axis=1)
    wide = np.linalg.norm(shape[:, 61] - shape[:, 291], axis=1)
    smile = shape[:, [61, 291], 1].mean(1) - shape[:, 13, 1]
    cues = np.stack([lips, wide, smile], 1)
    cues = (cues - cues.mean(0)) / cues.std(0)
    flat = shape.reshape(len(shape), -1).astype(np.float64)
    flat = flat - flat.mean(0)
    weights, *_ = np.linalg.lstsq(cues, flat, rcond=None)
    expression = np.linalg.qr(weights.T)[0].T
    _, strength, directions = np.linalg.svd(flat - cues @ weights, full_matrices=False)
    identity = directions[:COMPONENTS]
    identity = identity - identity @ expression.T @ expression
    identity /= np.linalg.norm(identity, axis=1, keepdims=True)
    spread = strength[:COMPONENTS] / np.sqrt(len(shape) - 1)
    return expression.astype(np.float32), identity.astype(np.float32), spread.astype(np.float32)


def mean_head(portraits: list[Portrait], surface: Surface, man: bool, side: int = 320) -> tuple[NDArray[np.uint8], F32]:
    """The average of the frontal portraits of one sex, with the mean mesh in it: a head that is nobody's."""
    mesh = surface.mean * (side / 6.6) + np.array([side / 2, side * 0.52, 0], np.float32)
    total, count = np.zeros((side, side, 3)), 0
    for portrait in portraits:
        if portrait.man != man or abs(place(portrait.mesh, surface.mean).rotation[2, 0]) > 0.2:
            continue
        matrix = similarity(portrait.mesh[None, :, :2], mesh[:, :2].astype(np.float32))[0]
        total += cv2.warpAffine(portrait.image, matrix, (side, side), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
        count += 1
    return (total / count).round().astype(np.uint8), mesh.astype(np.float32)


def slopes_of(
    details: list[F32], portraits: list[Portrait], tones: list[float], beards: list[float], usable: NDArray[np.bool_], regions: F32
) -> tuple[F32, F32]:
    """What a year of age, and what a degree of ITA changes, float32 (GRID, GRID, 4) each: the coarse detail of a texel (3 channels) and its
    log fine energy, regressed on sex, beard, age and tone.

    Only sources whose region is usable count; both halves of the face are averaged.
    """
    rows = []
    for detail in details:
        low = cv2.GaussianBlur(detail, (0, 0), 5)
        energy = cv2.resize(np.abs((detail - low).mean(2)), (GRID, GRID), interpolation=cv2.INTER_AREA)
        coarse = cv2.resize(low, (GRID, GRID), interpolation=cv2.INTER_AREA)
        rows.append(np.dstack([coarse, np.log(cv2.GaussianBlur(energy, (0, 0), 4) + 0.004)]))
    seen = np.stack(rows)
    seen = (seen + seen[:, :, ::-1]) / 2
    share = cv2.resize(np.moveaxis(regions, 0, -1), (GRID, GRID), interpolation=cv2.INTER_AREA)
    count = np.einsum("nr,hwr->hwn", usable.astype(np.float32), share)
    man, age = np.array([p.man for p in portraits], float), np.array([p.age for p in portraits])
    cues = np.stack([np.ones(len(man)), man, np.array(beards), age - 40, np.array(tones) - np.mean(tones)], 1)
    normal = np.einsum("na,hwn,nb->hwab", cues, count, cues) + np.diag([1e-3, 1e-3, 1e-3, AGE_RIDGE, TONE_RIDGE])
    slopes = np.linalg.solve(normal, np.einsum("na,hwn,nhwc->hwac", cues, count, seen)).astype(np.float32)
    slopes[count.sum(2) < 20] = 0
    age_slope, tone_slope = (
        np.dstack([cv2.GaussianBlur(slopes[:, :, k, :3], (0, 0), 0.7), cv2.GaussianBlur(slopes[:, :, k, 3], (0, 0), 2)]) for k in (3, 4)
    )
    return age_slope, tone_slope


def main(folder: Path) -> None:
    portraits = read(folder)
    surface = unroll(CANONICAL, SIZE)
    mask, whole = make_mask(surface)
    middle, _ = make_mask(surface, (141, 176), 8, 17)  # by which a source is judged: at its border there is often hair
    regions = make_regions(surface)
    bare = bare_skin(surface, SIZE)
    cheeks = np.maximum(area(surface, CHEEKS[0]), area(surface, CHEEKS[1])) > 0.5
    details, tone, skins, beards, covered = [], [], [], [], []
    for portrait in track(portraits, "Unwrapping"):
        texture = surface.unwrap(portrait.image, portrait.mesh)
        facing = surface.texels.interpolate(surface.facing(portrait.mesh)[:, None], surface.corners, (SIZE, SIZE), 0.0)[:, :, 0]
        skin = skin_texels(surface, texture, facing, whole)
        for side, spoilt in (("left", slice(None, SIZE // 2 - STRIP)), ("right", slice(SIZE // 2 + STRIP, None))):
            if portrait.name in HALF_SPOILT[side].split():
                skin[:, spoilt] = False
        detail = detail_of(texture, skin, bare, regions, portrait.man)
        details.append(detail)
        seen = cheeks & skin & (facing > 0.5)
        skins.append(np.median(texture[seen], 0))
        lab = cv2.cvtColor(texture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[seen]
        tone.append(np.degrees(np.arctan2(np.median(lab[:, 0]) - 50, np.median(lab[:, 2]))))
        visible = cv2.resize((skin & (facing > 0.4)).astype(np.uint8), (TRAIT_SIZE, TRAIT_SIZE), interpolation=cv2.INTER_NEAREST) > 0
        beards.append(beard(surface, surface.unwrap(portrait.image, portrait.mesh, TRAIT_SIZE), visible))
        covered.append([float(((skin | skin[:, ::-1]) * region * middle).sum() / (region * middle).sum()) for region in regions])

    names = [portrait.name for portrait in portraits]
    usable = np.array(covered) > [0.93, 0.95, 0.95, 0.90, 0.88, 0.85]
    open_mouth = [np.linalg.norm(p.mesh[13] - p.mesh[14]) / np.linalg.norm(p.mesh[78] - p.mesh[308]) > 0.13 for p in portraits]
    usable[open_mouth, REGIONS.index("mouth")] = False
    # an iris, its white and lashes differ; a blurred or shaded eye is a grey patch
    eyes = np.maximum(area(surface, IMAGE_LEFT_EYE), area(surface, IMAGE_RIGHT_EYE)) > 0.5
    usable[[float(d.mean(2)[eyes].std()) < FLAT_EYES for d in details], REGIONS.index("eyes")] = False
    for listed, columns in ((UNUSABLE, slice(None)), *((listed, REGIONS.index(name)) for name, listed in SPOILT.items())):
        usable[[names.index(name) for name in listed.split() if name in names], columns] = False
    print("usable textures", dict(zip(REGIONS, usable.sum(0).tolist(), strict=True)))

    weights = np.einsum("nr,rhw->nhw", usable.astype(np.float32), regions)
    flows = register(surface, np.stack(details), weights, usable)
    details = [pulled(detail, flow) for detail, flow in zip(details, flows, strict=True)]
    blobs = []
    for detail in details:
        stored = np.clip(DETAIL_GREY * np.exp(detail), 0, 255).astype(np.uint8)
        blobs.append(cv2.imencode(".webp", cv2.cvtColor(stored, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, 92])[1].ravel())
    small = np.stack([cv2.resize(flow, (FLOW_SIDE, FLOW_SIDE), interpolation=cv2.INTER_AREA) for flow in flows]) / (SIZE * FLOW_STEP)
    ageing, toning = slopes_of(details, portraits, tone, beards, usable, regions)
    usual, spreads = typical(details, np.array([p.man for p in portraits]), weights)

    expression, identity, spread = split_shapes([p.mesh for p in portraits], surface)
    heads = [mean_head(portraits, surface, man) for man in (False, True)]
    references = {
        embedder.name: np.concatenate([embedder.embed(p.image, p.points[None]) for p in portraits])
        for embedder in (SFaceEmbedder(), DlibEmbedder())
    }
    OUT.parent.mkdir(exist_ok=True)
    fresh = OUT.with_suffix(".new.npz")
    np.savez_compressed(
        fresh,
        size=np.int32(SIZE),
        mean=surface.mean,
        uv=surface.uv,
        corners=surface.corners.astype(np.int16),
        expression=expression.reshape(-1, 468, 3),
        identity=identity.reshape(-1, 468, 3),
        spread=spread,
        mask=cv2.imencode(".png", np.round(mask * 255).astype(np.uint8))[1].ravel(),
        man=np.array([p.man for p in portraits]),
        age=np.array([p.age for p in portraits], np.float32),
        tone=np.array(tone, np.float32),
        skin=np.array(skins, np.float32),
        beard=np.array(beards, np.float32),
        shaven=np.array([not p.man or p.name in SHAVEN.split() for p in portraits]),
        usable=usable,
        ageing=ageing.astype(np.float16),
        toning=toning.astype(np.float16),
        blob=np.concatenate(blobs),
        flow=np.clip(np.round(small), -127, 127).astype(np.int8),
        usual=usual.astype(np.float16),
        spreads=spreads.astype(np.float16),
        offsets=np.cumsum([0, *map(len, blobs)]),
        head_mesh=heads[0][1],
        **{f"regions_{k}": cv2.imencode(".png", np.round(r * 255).astype(np.uint8))[1].ravel() for k, r in enumerate(regions)},
        **{f"head_{k}": cv2.imencode(".png", cv2.cvtColor(head, cv2.COLOR_RGB2BGR))[1].ravel() for k, (head, _) in enumerate(heads)},
        **{f"reference_{name}": vectors for name, vectors in references.items()},
    )
    fresh.replace(OUT)
    print(f"{OUT}: {OUT.stat().st_size / 1e6:.1f} MB, {len(portraits)} portraits, {len(surface.corners)} triangles")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
