"""Identities' textures made on a device: `identities.texture`, batched."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from mfmc_ray.identities import features
from mfmc_ray.identities.childhood import youth
from mfmc_ray.identities.model import DETAIL_GREY, GRID, IdentityModel
from mfmc_ray.identities.sample import Identity
from mfmc_ray.identities.surface import F32
from mfmc_ray.identities.texture import ADULT, EAGER, FARTHEST, line_gain, places, shading, years
from mfmc_ray.swap.device.warp import apply, area_rows, linear_rows, sample

AT_ONCE = 8
"""Identities whose textures are made together."""
KEPT_BYTES = 1 << 28
"""Of textures that stay on the device."""


@dataclass(frozen=True)
class _Level:
    """What does not depend on the identity, for textures of one size.

    Attributes:
        up: float32 (1, size, g), from the coarse band's size to the texture's.
        flow: float32 (1, size, 96) and, for `coarse`, (1, g, 96).
        sharp: float32 (6, size, size), how the regions count.
        ageing: float32 (1, 4, g, g).
    """

    up: Tensor
    flow: tuple[Tensor, Tensor]
    sharp: Tensor
    ageing: Tensor


class Skins:
    """Textures of identities, made when they are first asked for, as `texture` and `at_age` make them.

    Args:
        model: the identity model.
        device: of torch.
    """

    def __init__(self, model: IdentityModel, device: torch.device) -> None:
        self._model, self._device = model, device
        self._value = torch.log(torch.arange(256, dtype=torch.float32).clamp(min=1) / DETAIL_GREY).to(device)
        self._level: Callable[[int], _Level] = lru_cache(maxsize=8)(self._leveled)
        self._sources: dict[tuple[int, int], Tensor] = {}
        self._made: OrderedDict[tuple[Identity, int], tuple[Tensor, Tensor, float]] = OrderedDict()
        self._bytes = 0

    def __call__(self, identities: Sequence[Identity], ages: Sequence[float], size: int) -> Tensor:
        """Textures as of people of these ages, float32 (b, 3, size, size)."""
        missing = list(dict.fromkeys(one for one in identities if (one, size) not in self._made))
        fresh: dict[Identity, tuple[Tensor, Tensor, float]] = {}
        for start in range(0, len(missing), AT_ONCE):
            fresh |= self._make(missing[start : start + AT_ONCE], size)
        pages = [fresh[one] if one in fresh else self._made[one, size] for one in identities]
        for one in identities:
            if (one, size) in self._made:
                self._made.move_to_end((one, size))
        for one, page in fresh.items():
            self._keep((one, size), page)
        return self._at_age(pages, ages, size)

    def _keep(self, key: tuple[Identity, int], page: tuple[Tensor, Tensor, float]) -> None:
        self._made[key] = page
        self._bytes += _bytes(page)
        while self._bytes > KEPT_BYTES and len(self._made) > 1:
            self._bytes -= _bytes(self._made.popitem(last=False)[1])

    def _make(self, identities: Sequence[Identity], size: int) -> dict[Identity, tuple[Tensor, Tensor, float]]:
        """`identities.texture.texture`: coarse (3, g, g), fine (3, size, size), the sources' age."""
        level, grid, model = self._level(size), min(GRID, size), self._model
        fine = torch.zeros(len(identities), 3, size, size, device=self._device)
        mirrored = torch.tensor(np.array([one.mirrored for one in identities]), device=self._device)
        lines = torch.tensor(np.array([one.lines for one in identities]), device=self._device)
        for k in torch.unique(lines).tolist():
            pages = torch.stack([self._source(int(one.sources[k]), size) for one in identities])
            low = self._uploaded(np.stack([model.coarse(int(one.sources[k]), grid) for one in identities]))
            detail = self._value[pages.long()] - apply(level.up, low, level.up)
            gain = torch.from_numpy(np.stack([line_gain(model, one, k) for one in identities])).to(self._device)
            detail = detail * apply(level.flow[0], gain[:, None], level.flow[0])
            detail = torch.where(mirrored[:, k, None, None, None], detail.flip(3), detail)
            fine += detail * torch.einsum("br,rhw->bhw", (lines == k).float(), level.sharp)[:, None]
        coarse = self._uploaded(np.stack([shading(model, one, grid) for one in identities]))
        moved = self._uploaded(np.stack([places(model, one) for one in identities]))
        fine, coarse = (_moved(page, moved, rows) for page, rows in zip((fine, coarse), level.flow, strict=True))
        ages = [years(model, one) for one in identities]
        return dict(zip(identities, zip(coarse.unbind(0), fine.unbind(0), ages, strict=True), strict=True))

    def _uploaded(self, pages: F32) -> Tensor:
        """Pages float32 (b, h, w, c) as (b, c, h, w)."""
        return torch.from_numpy(np.ascontiguousarray(pages.transpose(0, 3, 1, 2))).to(self._device)

    def _at_age(self, pages: Sequence[tuple[Tensor, Tensor, float]], ages: Sequence[float], size: int) -> Tensor:
        """`identities.texture.at_age`."""
        level = self._level(size)
        later = [float(np.clip(EAGER * (max(age, ADULT) - page[2]), -FARTHEST, FARTHEST)) for page, age in zip(pages, ages, strict=True)]
        older = torch.tensor(later, dtype=torch.float32, device=self._device)[:, None, None, None]
        coarse = torch.stack([page[0] for page in pages]) + older * level.ageing[:, :3]
        gain = torch.exp(older * level.ageing[:, 3:])
        for i in (i for i, age in enumerate(ages) if youth(age) > 0):
            own, added = self._model.childhood.shading(self._model.everybody(min(GRID, size)), ages[i])
            coarse[i] = own * coarse[i] + self._uploaded(added[None])[0]
            gain[i] *= self._uploaded(self._model.childhood.lined(ages[i], min(GRID, size))[None, ..., None])[0]
        fine = torch.stack([page[1] for page in pages])
        return fine * apply(level.up, gain, level.up) + apply(level.up, coarse, level.up)

    def _source(self, source: int, size: int) -> Tensor:
        """A source's stored picture, uint8 (3, size, size); all of them together are 40 MB."""
        if (source, size) not in self._sources:
            stored = np.round(np.exp(self._model.detail(source, size)) * DETAIL_GREY).astype(np.uint8)
            self._sources[source, size] = torch.from_numpy(np.ascontiguousarray(stored.transpose(2, 0, 1))).to(self._device)
        return self._sources[source, size]

    def _leveled(self, size: int) -> _Level:
        grid, device = min(GRID, size), self._device

        def resized(old: int, new: int) -> Tensor:
            make = linear_rows if old < new else area_rows
            return make(torch.tensor([old], device=device), torch.tensor([new], device=device), old, new)

        sharp = torch.from_numpy(self._model.sharp(size)).to(device)
        ageing = torch.from_numpy(np.ascontiguousarray(self._model.ageing.transpose(2, 0, 1)))[None].to(device)
        age = resized(ageing.shape[3], grid)
        moved = resized(features.GRID, size), resized(features.GRID, grid)
        return _Level(resized(grid, size), moved, sharp, apply(age, ageing, age))


def _moved(pages: Tensor, field: Tensor, rows: Tensor) -> Tensor:
    """`features.moved`."""
    size = pages.shape[3]
    right, down = (apply(rows, field, rows) * size).unbind(1)
    at = torch.arange(size, dtype=torch.float32, device=pages.device)
    return sample(pages, at - right, at[:, None] - down)


def _bytes(page: tuple[Tensor, Tensor, float]) -> int:
    return int(4 * (page[0].numel() + page[1].numel()))
