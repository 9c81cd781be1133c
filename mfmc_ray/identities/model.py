"""The morphable identity model: what `tools/build_identity_model.py` learned from portraits of people who do not exist.

A texture is kept as *detail*: the logarithm of skin over its own low-pass, so that skin tone and broad light are out of it and come from
the picture it is put into; its own shading and shine stay. All are *registered*: brows, nose and folds of each lie where the mean of all
has them, and a flow says where they were, so that several can be averaged without ghosts. A shape is the mean plus an expression part
(kept from the target) plus an identity part (replaced).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mfmc_ray.identities.childhood import Childhood
from mfmc_ray.identities.surface import F32, IMAGE_LEFT_EYE, IMAGE_RIGHT_EYE, Surface, shrunk

DETAIL_GREY = 96.0
"""The stored 8-bit value of detail 0; value = DETAIL_GREY · exp(detail)."""

_LOGARITHM = np.log(np.maximum(np.arange(256), 1) / DETAIL_GREY).astype(np.float32)

FLOW_STEP = 1 / 2048
"""What 1 of a stored flow stands for, in sides of the texture square."""
GRID = 96
"""Side in texels of the coarse band."""
SOFT = 1.5
"""σ of the blur that takes the coarse band, in its texels."""

REGIONS = ("eyes", "brows", "nose", "mouth", "forehead", "cheeks")

STATISTICS = Path(str(resources.files("mfmc_ray.identities").joinpath("data/statistics.npz")))
"""What `tools/build_statistics.py` found of real people in the mean, and of how they differ."""
RECIPE = 4
"""How seeds are read. Raise it whenever code, not the model's file, makes a seed another person: runs then admit their fakes anew."""


class ModelDataError(RuntimeError):
    """The shipped identity model cannot be read."""


@dataclass(frozen=True)
class IdentityModel:
    """Attributes:
    surface: the shared mesh and texture square.
    expression: float32 (e, 468, 3), orthonormal directions of expression, in units of the shape frame.
    identity: float32 (k, 468, 3), orthonormal directions of identity.
    spread: float32 (k,), their standard deviations.
    regions: float32 (6, size, size), soft masks that sum to 1, in the order of `REGIONS`.
    mask: float32 (size, size), 0–1: where a texture replaces the target.
    man: bool (n,), whether each source texture is a man's.
    age, tone, beard: float32 (n,), its age in years, ITA in degrees, and beard strength (`traits.beard`).
    shaven: bool (n,), no beard and no moustache is seen, whatever `beard` says of a shaded jaw.
    skin: float32 (n, 3), the median RGB of its cheeks, 0–255.
    usable: bool (n, 6), whether a source's region is free of hair, glasses, hands and hats.
    blob, offsets: the encoded detail pictures, registered, one after another.
    flow: int8 (n, f, f, 2), by how much a source's own features lie right and down of the mean's, in `FLOW_STEP` sides of the square.
    usual, spreads: float16 (2, `GRID`, `GRID`, 3), mean and standard deviation of the coarse detail of women and of men.
    heads: uint8 (2, h, h, 3) RGB, the average woman's and man's head, nobody's, on which identities are rendered to be certified.
    head_mesh: float32 (468, 3), the mean mesh in them, px.
    references: recognizer name → float32 (m, d), embeddings of every portrait the model was made from.
    ageing: float32 (g, g, 4), by how much a year of age changes coarse detail (3 channels, added) and fine detail (factor exp(·)).
    toning: float32 (g, g, 4), the same of a degree of ITA: dark skin shines, pale skin is flat.
    adults: float32 (2, k), the mean identity coefficients of real women and men: the sources are all a little alike.
    people: float32 (k,), by how much those of one sex differ, standard deviations.
    childhood: what children have otherwise.
    """

    surface: Surface
    expression: F32
    identity: F32
    spread: F32
    regions: F32
    mask: F32
    man: NDArray[np.bool_]
    age: F32
    tone: F32
    beard: F32
    shaven: NDArray[np.bool_]
    skin: F32
    usable: NDArray[np.bool_]
    blob: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    flow: NDArray[np.int8]
    usual: NDArray[np.float16]
    spreads: NDArray[np.float16]
    heads: NDArray[np.uint8]
    head_mesh: F32
    references: dict[str, F32]
    ageing: F32
    toning: F32
    adults: F32
    people: F32
    childhood: Childhood

    def detail(self, source: int, size: int | None = None) -> F32:
        """A source's detail: float32 (size, size, 3), natural logarithm, about −2…1; `size` defaults to the surface's."""
        size = size or self.surface.size
        kept = self._small if size <= self.surface.size // 2 else self._large
        return np.asarray(cv2.LUT(kept(source, size), _LOGARITHM), np.float32)

    @cached_property
    def _small(self) -> Callable[[int, int], NDArray[np.uint8]]:
        return lru_cache(maxsize=256)(self._stored)

    @cached_property
    def _large(self) -> Callable[[int, int], NDArray[np.uint8]]:
        return lru_cache(maxsize=32)(self._stored)

    def _stored(self, source: int, size: int) -> NDArray[np.uint8]:
        page = _picture(self.blob[self.offsets[source] : self.offsets[source + 1]])
        return page if page.shape[0] == size else np.asarray(cv2.resize(page, (size, size), interpolation=cv2.INTER_AREA), np.uint8)

    def coarse(self, source: int, grid: int) -> F32:
        """The coarse band of a source's detail: float32 (grid, grid, 3), `grid` at most `GRID`."""
        return self._coarse(source, grid)

    @cached_property
    def _coarse(self) -> Callable[[int, int], F32]:
        def coarse(source: int, grid: int) -> F32:
            page = self.detail(source, max(grid, self.surface.size // 2))
            return np.asarray(cv2.GaussianBlur(shrunk(page, grid), (0, 0), SOFT * grid / GRID), np.float32)

        return lru_cache(maxsize=256)(coarse)

    def typical(self, man: bool, grid: int) -> tuple[F32, F32]:
        """Mean and standard deviation of the coarse detail of a sex's sources: float32 (grid, grid, 3) each."""
        mean, spread = (shrunk(pages[int(man)].astype(np.float32), grid) for pages in (self.usual, self.spreads))
        return mean, spread

    def everybody(self, grid: int) -> F32:
        """The mean coarse detail of both sexes: float32 (grid, grid, 3)."""
        return shrunk(self.usual.astype(np.float32).mean(0), grid)

    def displacement(self, source: int) -> F32:
        """By how much a source's own features lie right and down of where its detail has them: float32 (f, f, 2), sides of the square."""
        return np.asarray(self.flow[source].astype(np.float32) * FLOW_STEP, np.float32)

    def sharp(self, size: int) -> F32:
        """How the regions count in fine detail: float32 (6, size, size), sums to 1."""
        return self._sharp(size)

    @cached_property
    def _sharp(self) -> Callable[[int], F32]:
        def sharp(size: int) -> F32:
            pages = np.stack([shrunk(region, size) for region in self.regions])
            return np.asarray(pages / pages.sum(0), np.float32)

        return lru_cache(maxsize=8)(sharp)

    def openings(self, grid: int) -> F32:
        """Where eyes lie between their lids: float32 (grid, grid), 0–1, soft."""
        return self._openings(grid)

    @cached_property
    def _openings(self) -> Callable[[int], F32]:
        def openings(grid: int) -> F32:
            page = np.zeros((GRID, GRID), np.uint8)
            for ring in (IMAGE_LEFT_EYE, IMAGE_RIGHT_EYE):
                corners = (self.surface.uv[list(ring)] + 0.5) * (GRID / self.surface.size) - 0.5
                cv2.fillPoly(page, [np.round(corners).astype(np.int32)], 1)
            return shrunk(np.asarray(cv2.GaussianBlur(cv2.dilate(page, np.ones((5, 5))).astype(np.float32), (0, 0), 1.8)), grid)

        return lru_cache(maxsize=8)(openings)

    def soft(self, grid: int) -> F32:
        """How the regions count in coarse shading: float32 (6, grid, grid), sums to 1."""
        return self._soft(grid)

    @cached_property
    def _soft(self) -> Callable[[int], F32]:
        def soft(grid: int) -> F32:
            pages = np.stack(
                [cv2.GaussianBlur(shrunk(r, grid), (0, 0), 3.5 * grid / GRID, borderType=cv2.BORDER_REFLECT) for r in self.regions]
            )
            return np.asarray(pages / pages.sum(0), np.float32)

        return lru_cache(maxsize=8)(soft)

    def split(self, shape: F32) -> F32:
        """The identity coefficients float32 (k,) of a shape (468, 3) in the shared frame, expression taken out.

        Ridge regression on both bases together, so that an open mouth is not read as a long jaw.
        """
        return np.asarray(self._solver @ (shape - self.surface.mean).reshape(-1), np.float32)

    def offset(self, coefficients: F32) -> F32:
        """The displacement (468, 3) that identity coefficients (k,) stand for.

        What would turn or shift the upper face as a whole is left out: it would be read as another pose.
        """
        moved = np.tensordot(coefficients, self.identity, 1)
        turn = self._turn
        part = np.linalg.lstsq(turn[_upper(self.surface)].reshape(-1, 6), moved[_upper(self.surface)].reshape(-1), rcond=None)[0]
        return np.asarray(moved - turn @ part, np.float32)

    @cached_property
    def _turn(self) -> F32:
        """float32 (468, 3, 6): how points move when the mean shape is turned a little about x, y, z and shifted along them."""
        x, y, z = self.surface.mean.T
        o = np.zeros_like(x)
        turns = [np.stack(c, 1) for c in ((o, -z, y), (z, o, -x), (-y, x, o))]
        shifts = [np.tile(row, (len(x), 1)) for row in np.eye(3, dtype=np.float32)]
        return np.stack([*turns, *shifts], -1).astype(np.float32)

    @cached_property
    def _solver(self) -> F32:
        e, i = (basis.reshape(-1, 468 * 3) for basis in (self.expression, self.identity))
        basis = np.concatenate([e, i]).astype(np.float64)
        prior = np.concatenate([np.full(len(e), 0.6), self.spread])
        noise = 0.01  # what the two bases leave unexplained, a coordinate
        normal = basis @ basis.T + np.diag((noise / prior) ** 2)
        return np.asarray(np.linalg.solve(normal, basis)[len(e) :], np.float32)


def _upper(surface: Surface) -> NDArray[np.bool_]:
    """The points above the base of the nose: what a head's pose is told from."""
    return np.asarray(surface.mean[:, 1] < surface.mean[2, 1])


@lru_cache(maxsize=1)
def model_digest() -> str:
    """sha-256 of the identity model's files and `RECIPE`, hex: the same seed is the same identity only where this is the same."""
    file = resources.files("mfmc_ray.identities").joinpath("data/identity_model.npz").read_bytes()
    return hashlib.sha256(file + STATISTICS.read_bytes() + RECIPE.to_bytes(4)).hexdigest()


@lru_cache(maxsize=1)
def load_model() -> IdentityModel:
    """The identity model that ships with the package.

    Raises:
        ModelDataError: when the file is missing or damaged.
    """
    try:
        with resources.files("mfmc_ray.identities").joinpath("data/identity_model.npz").open("rb") as file:
            data = dict(np.load(file, allow_pickle=False))
        means = dict(np.load(STATISTICS, allow_pickle=False))
        surface = Surface(data["mean"], data["uv"], data["corners"].astype(np.intp), int(data["size"]))
        names = [key.removeprefix("reference_") for key in data if key.startswith("reference_")]
        return IdentityModel(
            surface=surface,
            expression=data["expression"],
            identity=data["identity"],
            spread=data["spread"],
            regions=np.stack([_page(data[f"regions_{k}"]) for k in range(len(REGIONS))]),
            mask=_page(data["mask"]),
            man=data["man"],
            age=data["age"],
            tone=data["tone"],
            beard=data["beard"],
            shaven=data["shaven"],
            skin=data["skin"],
            usable=data["usable"],
            blob=data["blob"],
            offsets=data["offsets"],
            flow=data["flow"],
            usual=data["usual"],
            spreads=data["spreads"],
            heads=np.stack([_picture(data[f"head_{k}"]) for k in range(2)]),
            head_mesh=data["head_mesh"],
            references={name: data[f"reference_{name}"] for name in names},
            ageing=data["ageing"].astype(np.float32),
            toning=data["toning"].astype(np.float32),
            adults=means["adults"],
            people=means["people"],
            childhood=Childhood(*(means[name].astype(np.float32) for name in ("shape", "coarse", "fine"))),
        )
    except (OSError, KeyError, ValueError, cv2.error) as error:
        raise ModelDataError(f"the identity model that ships with mfmc-ray cannot be read ({error}); reinstall the package") from error


def _picture(encoded: NDArray[np.uint8]) -> NDArray[np.uint8]:
    picture = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB)
    if picture is None:
        raise ValueError("a picture in it is damaged")
    return np.asarray(picture, np.uint8)


def _page(encoded: NDArray[np.uint8]) -> F32:
    return np.asarray(_picture(encoded)[:, :, 0] / np.float32(255), np.float32)
