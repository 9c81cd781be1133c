"""What is drawn together: orders by the sizes that their faces have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mfmc_ray.faces.faces import F32
from mfmc_ray.swap.match import COARSE
from mfmc_ray.swap.protocol import Order


class Sides(NamedTuple):
    """Attributes:
    level: of the texture, texels.
    outer, inner: of the pages that hold the two windows, px.
    coarse_outer, coarse_inner: of the grids of their smooth fields.
    """

    level: int
    outer: int
    inner: int
    coarse_outer: int
    coarse_inner: int


@dataclass(frozen=True, eq=False)
class Task:
    """An order, measured.

    Attributes:
        number: of the order.
        order: itself.
        age: years.
        width: of the face, px.
        level: side of its texture, texels.
        outer: x0 y0 x1 y1, px of the picture, end exclusive: the window that changes.
        inner: the same in px of the outer window: the face's own.
        old, new: float32 (468, 3), px of the outer window: the mesh as it is, and with the identity's shape.
        hidden: float32 (PAGE, PAGE): what lies before the face; None: nothing.
    """

    number: int
    order: Order
    age: float
    width: float
    level: int
    outer: tuple[int, int, int, int]
    inner: tuple[int, int, int, int]
    old: F32
    new: F32
    hidden: F32 | None

    @property
    def step(self) -> float:
        """Px of the picture a pixel of smooth fields."""
        return max(1.0, self.width / COARSE)

    @property
    def sides(self) -> Sides:
        """Of the squares that hold it. What is drawn together has the same: so a result does not depend on what else is drawn."""
        outer, inner = max(_size(self.outer)), max(_size(self.inner))
        return Sides(self.level, padded(outer), padded(inner), padded(outer / self.step), padded(inner / self.step))

    @property
    def height(self) -> int:
        """Of the outer window, px."""
        return self.outer[3] - self.outer[1]

    @property
    def breadth(self) -> int:
        """Of the outer window, px."""
        return self.outer[2] - self.outer[0]


def batches(tasks: Sequence[Task], pixels: int) -> Iterator[list[Task]]:
    """Tasks of the same sides together, with about `pixels` px in their outer windows at most."""
    groups: dict[Sides, list[Task]] = {}
    for task in tasks:
        groups.setdefault(task.sides, []).append(task)
    for sides, some in groups.items():
        most = max(1, pixels // sides.outer**2)
        for start in range(0, len(some), most):
            yield some[start : start + most]


def padded(length: float) -> int:
    """The next of a geometric row of sides (four to an octave, multiples of 8) that holds a length, px, however it is rounded."""
    step = np.ceil(4 * np.log2(max(32.0, length + 0.5) / 32) - 1e-9)
    return int(-(-32 * 2 ** (step / 4) // 8) * 8)


def _size(window: tuple[int, int, int, int]) -> tuple[int, int]:
    return window[2] - window[0], window[3] - window[1]
