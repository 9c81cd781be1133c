"""The embedded renderer in batches on a device: the same recipe as `swap.render`, step by step, for many faces at once.

Finding what covers a face (once a face, at 128 × 128 texels) and fitting shapes (468 points) stay on the CPU.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mfmc_ray.faces import runtime
from mfmc_ray.faces.faces import F32, Image
from mfmc_ray.identities.model import IdentityModel
from mfmc_ray.identities.sample import Identity
from mfmc_ray.swap.cover import NOTHING, PAGE, Covered
from mfmc_ray.swap.device import blend, filters
from mfmc_ray.swap.device.filters import Span
from mfmc_ray.swap.device.plan import Task, batches
from mfmc_ray.swap.device.raster import Rasteriser
from mfmc_ray.swap.device.skin import Skins
from mfmc_ray.swap.device.warp import apply, area_rows, linear_rows, sample, window
from mfmc_ray.swap.match import SHADES
from mfmc_ray.swap.protocol import OPAQUE, Order, Patch
from mfmc_ray.swap.render import FOLLOW, LOW_PASS, SURROUNDINGS, MorphSwapper, mouth_of, window_of

AT_ONCE = 4
"""Identities that are tried on a face together: of more, those that nobody asks for any more would be too many."""
PIXELS = {"cuda": 1 << 22, "cpu": 1 << 19}
"""Of windows that are drawn together at most: about 1 GB of memory on a GPU; on a CPU what is worked on should stay in its cache."""
LARGEST = 3072
"""Px of a window's side from which NumPy draws it: it would need several GB of a GPU."""
NOISE_KEPT = 1 << 26
"""Values of grain, of all identities, that stay on the device."""


class DeviceSwapper(MorphSwapper):
    """`MorphSwapper` on a device, to a level of 255: see docs/gpu.md. Portraits, which certificates are about, are drawn by NumPy. Several
    threads may draw; they take turns.

    Args:
        model: the identity model.
        device: of torch: cpu, cuda, cuda:1 …
    """

    at_once = AT_ONCE

    def __init__(self, model: IdentityModel, device: str) -> None:
        super().__init__(model)
        self.device = torch.device(device)
        torch.set_num_threads(runtime.threads())
        torch.set_float32_matmul_precision("highest")  # TF32 would be off by levels
        self._lock = threading.Lock()  # caches, and a GPU does one thing after another anyway
        self._skins, self._raster = Skins(model, self.device), Rasteriser(model.surface, self.device)
        self._uv = torch.from_numpy(model.surface.uv).to(self.device)
        self._noise: OrderedDict[int, Tensor] = OrderedDict()
        self._pages: dict[int, Tensor] = {}

    def swap(
        self,
        image: Image,
        mesh: F32,
        identity: Identity,
        *,
        age: float | None = None,
        strength: float = 1.0,
        match_sharpness: bool = True,
        keep_rims: bool = True,
        covered: Covered | None = None,
    ) -> Patch:
        """As of `MorphSwapper`; without `match_sharpness` it is drawn by NumPy."""
        if not match_sharpness:
            return super().swap(
                image, mesh, identity, age=age, strength=strength, match_sharpness=False, keep_rims=keep_rims, covered=covered
            )
        return self._drawn([Order(image, mesh, identity, age, strength, keep_rims, covered)])[0]

    def swap_many(self, orders: Sequence[Order]) -> list[Patch | None]:
        """As many windows, of any pictures, in order. Faces of about the same size are drawn together."""
        return list(self._drawn(orders))

    def _drawn(self, orders: Sequence[Order]) -> list[Patch]:
        found: dict[int, Patch] = {}
        tasks = [self._task(number, order) for number, order in enumerate(orders)]
        with self._lock, torch.inference_mode():
            for some in batches([task for task in tasks if task.sides.outer <= LARGEST], PIXELS[self.device.type]):
                found |= zip((task.number for task in some), self._batch(some), strict=True)
        for number, order in enumerate(orders):
            if number not in found:
                plain = order.image, order.mesh, order.identity
                found[number] = super().swap(
                    *plain, age=order.age, strength=order.strength, keep_rims=order.keep_rims, covered=order.covered
                )
        return [found[number] for number in range(len(orders))]

    def _task(self, number: int, order: Order) -> Task:
        mesh, identity = order.mesh, order.identity
        age = identity.age if order.age is None else order.age
        moved = self._moved(mesh, identity, age, order.strength)
        width = max(float(np.ptp(mesh[:, 0])), 4.0)
        outer = window_of(np.concatenate([mesh, moved])[:, :2], SURROUNDINGS * width, order.image.shape)
        origin = np.array([*outer[:2], 0], np.float32)
        inner = window_of((moved - origin)[:, :2], 2.0, (outer[3] - outer[1], outer[2] - outer[0]))
        covered = self.covered(order.image, mesh, hands=False) if order.covered is None else order.covered
        hidden = None if covered is NOTHING else covered.page if order.keep_rims else covered.objects
        return Task(number, order, age, width, self._size(width), outer, inner, mesh - origin, moved - origin, hidden)

    def _batch(self, tasks: Sequence[Task]) -> list[Patch]:
        side, small = tasks[0].sides.outer, tasks[0].sides.inner
        pages = np.zeros((len(tasks), side, side, 3), np.uint8)
        for page, task in zip(pages, tasks, strict=True):
            x0, y0, x1, y1 = task.outer
            page[: task.height, : task.breadth] = task.order.image[y0:y1, x0:x1]
        followed = self._follow(torch.from_numpy(pages).to(self.device), tasks)
        left, top, right, bottom = torch.tensor([task.inner for task in tasks], device=self.device).unbind(1)
        inside = window(followed, top, left, bottom - top, right - left, small, small)
        shown, cover, alone = self._draw_many(inside, tasks)
        result = followed.to(torch.uint8)
        front = torch.zeros_like(result[:, 0], dtype=torch.bool)
        for i, task in enumerate(tasks):
            x0, y0, x1, y1 = task.inner
            result[i, :, y0:y1, x0:x1] = shown[i, :, : y1 - y0, : x1 - x0]
            front[i, y0:y1, x0:x1] = alone[i, : y1 - y0, : x1 - x0]
        pixels, fronts, covers = result.permute(0, 2, 3, 1).contiguous().cpu().numpy(), front.cpu().numpy(), cover.tolist()
        patches = []
        for i, task in enumerate(tasks):
            x, y = task.outer[:2]
            moved = task.new + np.array([x, y, 0], np.float32)
            shape = task.height, task.breadth
            patches.append(
                Patch(x, y, pixels[i, : shape[0], : shape[1]].copy(), moved, covers[i], fronts[i, : shape[0], : shape[1]].copy())
            )
        return patches

    def _follow(self, pages: Tensor, tasks: Sequence[Task]) -> Tensor:
        """`render._follow`: uint8 (b, side, side, 3) → float32 (b, 3, side, side), whole numbers 0–255."""
        side = pages.shape[1]
        steps = [task.step for task in tasks]
        heights, breadths = _coarse([(task.height, task.breadth) for task in tasks], steps)
        grid = tasks[0].sides.coarse_outer
        sigmas = [FOLLOW * task.width / step for task, step in zip(tasks, steps, strict=True)]
        at, moved = np.zeros((len(tasks), 468, 2), np.int64), np.zeros((len(tasks), 468, 3), np.float32)
        for i, (task, step) in enumerate(zip(tasks, steps, strict=True)):
            to = np.round(task.new[:, :2] / step).astype(int)
            kept = (to >= 0).all(1) & (to[:, 0] < breadths[i]) & (to[:, 1] < heights[i])
            at[i, kept] = to[kept]
            moved[i, kept] = np.column_stack([(task.old - task.new)[kept, :2], np.ones(kept.sum())])
        to, value = torch.from_numpy(at).to(self.device), torch.from_numpy(moved).to(self.device)
        # what `render` adds up pixel by pixel and then blurs is one product of matrices here
        down, across = (
            filters.gauss_rows(counts, sigmas, grid, self.device).gather(2, to[:, None, :, k].expand(-1, grid, -1))
            for counts, k in ((heights, 1), (breadths, 0))
        )
        spread = apply(down, torch.diag_embed(value.transpose(1, 2)), across)
        weight = spread[:, 2:]
        field = spread[:, :2] / (weight + weight.amax((2, 3), keepdim=True) * 0.02 + 1e-9)
        field = field * self._fade(heights, breadths, [0.2 * task.width / step for task, step in zip(tasks, steps, strict=True)], grid)
        height, breadth = (torch.tensor(v, device=self.device) for v in zip(*((t.height, t.breadth) for t in tasks), strict=True))
        rows = linear_rows(torch.tensor(heights, device=self.device), height, grid, side)
        columns = linear_rows(torch.tensor(breadths, device=self.device), breadth, grid, side)
        right, under = apply(rows, field, columns).unbind(1)
        at_x, at_y = (torch.arange(side, dtype=torch.float32, device=self.device) for _ in range(2))
        zero = torch.zeros_like(height)
        source = window(pages.permute(0, 3, 1, 2), zero, zero, height, breadth, side + _BORDER, side + _BORDER).float()
        x = torch.minimum(at_x + right, (breadth + 1)[:, None, None])
        y = torch.minimum(at_y[:, None] + under, (height + 1)[:, None, None])
        return sample(source, x, y, cubic=True).round().clamp(0, 255)

    def _fade(self, heights: Sequence[int], breadths: Sequence[int], reach: Sequence[float], size: int) -> Tensor:
        """0 at the border of each window, 1 `reach` px inside: float32 (b, 1, size, size). Distances as of `cv2.distanceTransform`."""
        at = torch.arange(size, device=self.device)
        off = []
        for counts in (heights, breadths):
            last = torch.tensor(counts, device=self.device)[:, None] - 1
            off.append(torch.minimum(at, last - at).clamp(min=0))
        near = torch.minimum(off[0][:, :, None], off[1][:, None]) * _STRAIGHT
        return (near / torch.tensor(reach, device=self.device)[:, None, None]).clamp(0, 1)[:, None]

    def _draw_many(self, pixels: Tensor, tasks: Sequence[Task]) -> tuple[Tensor, Tensor, Tensor]:
        """`MorphSwapper._draw`: windows (b, 3, side, side) 0–255 → uint8 with the faces, the fractions of them that show, and
        `Patch.front`, bool (b, side, side)."""
        size, side = tasks[0].level, pixels.shape[2]
        box = np.array([task.inner for task in tasks])
        high, wide = box[:, 3] - box[:, 1], box[:, 2] - box[:, 0]
        span = Span.of(torch.from_numpy(high).to(self.device), torch.from_numpy(wide).to(self.device))
        meshes = np.stack([task.new - np.array([*task.inner[:2], 0], np.float32) for task in tasks])
        drawing = self._raster(meshes, high, wide, side, side)
        front = self._raster.front(torch.from_numpy(meshes).to(self.device))
        values = torch.cat([self._uv.expand(len(tasks), -1, -1), front[:, :, None]], 2)
        u, v, front = drawing.interpolate(values).unbind(1)
        drawn = u >= 0
        scale = size / self.model.surface.size
        u, v = (u + 0.5) * scale - 0.5, (v + 0.5) * scale - 0.5
        skins = self._skins([task.order.identity for task in tasks], [task.age for task in tasks], size)
        fixed = self._fixed(size).expand(len(tasks), -1, -1, -1)
        mask, hair, edges, brows, skin, *detail = sample(torch.cat([fixed, skins], 1), u, v).unbind(1)
        mouths = np.zeros((len(tasks), side, side), np.float32)
        for page, mesh, h, w in zip(mouths, meshes, high, wide, strict=True):
            page[:h, :w] = mouth_of(mesh[:, :2], (h, w))
        mask = torch.where(drawn, mask * front.clamp(0, 1), 0) * (1 - torch.from_numpy(mouths).to(self.device))

        light = blend.light_of(pixels)
        mask = mask * self._uncovered(light, mask, hair, span, [task.width for task in tasks])
        if any(task.hidden is not None for task in tasks):
            pages = np.zeros((len(tasks), 1, PAGE, PAGE), np.float32)
            for page, task in zip(pages, tasks, strict=True):
                page[0] = 0 if task.hidden is None else task.hidden
            u, v = ((w + 0.5) * (PAGE / size) - 0.5 for w in (u, v))
            mask = mask * (1 - sample(torch.from_numpy(pages).to(self.device), u, v)[:, 0])
        low = self._low_pass(light, mask * skin, tasks, high, wide)
        zones = edges, brows, skin
        fake = self._fitted(torch.stack(detail, 1), light, low, mask, zones, span, tasks, high, wide)
        shown = blend.mixed(pixels, torch.exp(low + fake) - blend.TONE_FLOOR, mask)
        return shown, mask.sum((1, 2)) / drawn.sum((1, 2)).clamp(min=1), mask >= OPAQUE

    def _fitted(
        self,
        detail: Tensor,
        light: Tensor,
        low: Tensor,
        mask: Tensor,
        zones: tuple[Tensor, Tensor, Tensor],
        span: Span,
        tasks: Sequence[Task],
        high: F32,
        wide: F32,
    ) -> Tensor:
        """The detail, fitted to the photos'; zones are edges, brows and bare skin."""
        original, (edges, brows, skin) = light - low, zones
        detail = blend.as_colourful_as(detail, original, mask)
        detail = detail + skin[:, None] * (blend.as_colourful_as(detail, original, mask * skin) - detail)
        detail = detail * blend.contrast_gain(detail, original, mask)[:, None, None, None]
        detail = self._shaded(detail, original, mask * skin, tasks, high, wide)
        gain = blend.brow_gain(detail, original, mask * brows)
        detail = detail * (1 + (gain - 1)[:, None, None] * brows)[:, None]
        seeds, widths = [task.order.identity.seed for task in tasks], [task.width for task in tasks]
        detail = blend.as_sharp_as(detail, light, mask * edges, span, widths)
        return blend.grain(detail, light, mask * (1 - edges), widths, lambda number: self._grain(seeds, number))

    def _shaded(self, detail: Tensor, original: Tensor, skin: Tensor, tasks: Sequence[Task], high: F32, wide: F32) -> Tensor:
        """`match.as_shaded_as`."""
        shrink, soft, back = self._coarsely(tasks, high, wide, detail.shape[2], SHADES)
        small = apply(shrink[0], torch.cat([blend.luma(detail), blend.luma(original), skin[:, None]], 1), shrink[1])
        has, had = apply(soft[0], small[:, :2], soft[1]).split(1, 1)
        change = blend.shade_change(has, had, small[:, 2:])
        gain = blend.even_gain(small[:, 0] + change[:, 0], small[:, 1], small[:, 2])[:, None, None]
        return (detail + apply(back[0], change, back[1]) * skin[:, None]) * (1 + (gain - 1) * skin)[:, None]

    def _uncovered(self, light: Tensor, mask: Tensor, zone: Tensor, span: Span, widths: Sequence[float]) -> Tensor:
        """`render._uncovered`."""
        centre = (mask > 0.9) & (zone < 0.1)
        some = centre.flatten(1).repeat_interleave(3, 0)
        usual = filters.median(light.flatten(2).flatten(0, 1), some).reshape(-1, 3, 1, 1)
        away = (light - usual).abs().flatten(2).flatten(0, 1)
        spread = 1.4826 * filters.median(away, some).reshape(-1, 3).mean(1)[:, None, None] + 0.08
        off = filters.blur(light - usual, filters.kernels([max(0.5, 0.008 * width) for width in widths], self.device), span)
        brightness = blend.luma(off)
        odd = torch.maximum(-brightness[:, 0] / (3 * spread), (off - brightness).abs().amax(1) / 0.3)
        covered = (((odd - 1) / 0.35).clamp(0, 1) * zone)[:, None]
        covered = filters.blur(covered, filters.kernels([max(0.5, 0.006 * width) for width in widths], self.device), span)[:, 0]
        return torch.where(centre.sum((1, 2))[:, None, None] < 30, 1.0, 1 - covered)

    def _low_pass(self, light: Tensor, skin: Tensor, tasks: Sequence[Task], high: F32, wide: F32) -> Tensor:
        """`render._low_pass`."""
        shrink, soft, back = self._coarsely(tasks, high, wide, light.shape[2], LOW_PASS)
        weight = apply(shrink[0], torch.where(skin > 0.3, skin, 0)[:, None], shrink[1])
        blurred = apply(soft[0], torch.cat([apply(shrink[0], light, shrink[1]) * weight, weight], 1), soft[1])
        return apply(back[0], blurred[:, :3] / (blurred[:, 3:] + 1e-4), back[1])

    def _coarsely(self, tasks: Sequence[Task], high: F32, wide: F32, side: int, sigma: float) -> list[tuple[Tensor, Tensor]]:
        """Matrices, down and across, that shrink windows to where smooth fields are computed, blur there (σ in face widths), enlarge."""
        steps, grid = [task.step for task in tasks], tasks[0].sides.coarse_inner
        small = _coarse(list(zip(high.tolist(), wide.tolist(), strict=True)), steps)
        sigmas = [sigma * task.width / step for task, step in zip(tasks, steps, strict=True)]
        made = []
        for full, counts in zip((high, wide), small, strict=True):
            old, new = torch.from_numpy(full).to(self.device), torch.tensor(counts, device=self.device)
            soft = filters.gauss_rows(counts, sigmas, grid, self.device)
            made.append((area_rows(old, new, side, grid), soft, linear_rows(new, old, grid, side)))
        return list(zip(*made, strict=True))

    def _fixed(self, size: int) -> Tensor:
        """The mask and the four zones, float32 (1, 5, size, size)."""
        if size not in self._pages:
            page = np.concatenate([self._mask_level(size)[None], self._zones(size).transpose(2, 0, 1)])
            self._pages[size] = torch.from_numpy(page)[None].to(self.device)
        return self._pages[size]

    def _grain(self, seeds: Sequence[int], number: int) -> Tensor:
        """Normal random numbers of these identities, float32 (b, number)."""
        for seed in dict.fromkeys(seeds):
            if seed not in self._noise or len(self._noise[seed]) < number:
                values = np.random.default_rng(seed).standard_normal(number, dtype=np.float32)
                self._noise[seed] = torch.from_numpy(values).to(self.device)
            self._noise.move_to_end(seed)
        found = torch.stack([self._noise[seed][:number] for seed in seeds])
        while len(self._noise) > 1 and sum(len(values) for values in self._noise.values()) > NOISE_KEPT:
            self._noise.popitem(last=False)
        return found


def _coarse(sizes: Sequence[tuple[int, int]], steps: Sequence[float]) -> tuple[list[int], list[int]]:
    """Heights and widths of windows on a grid of so many px a step."""
    pairs = [(max(1, round(height / step)), max(1, round(width / step))) for (height, width), step in zip(sizes, steps, strict=True)]
    return [height for height, _ in pairs], [width for _, width in pairs]


_BORDER = 4
"""Px that a page repeats its border, for cubics."""
_STRAIGHT = 0.955
"""Of a step in `cv2.distanceTransform` with a mask of 3."""
