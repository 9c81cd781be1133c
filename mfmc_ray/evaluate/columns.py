"""Notes' columns as arrays about all faces or images, and the figures that sections make of them alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mfmc_ray.evaluate.bootstrap import Bootstrap, by_group
from mfmc_ray.evaluate.pair import CHANGED, REPLACED
from mfmc_ray.evaluate.sections import About

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Rows = NDArray[np.bool_]

LEAST_SIDE = 32.0
"""px: smaller faces have too few pixels for what is measured here."""


def values(table: pa.Table, name: str, at: I64, n: int) -> F64:
    """float64 (n,): a column of numbers or bools whose rows are about `at`; NaN where there is none."""
    found = np.full(n, np.nan)
    column = table[name].combine_chunks()
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    found[at] = np.asarray(column.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False))
    return found


def vectors(table: pa.Table, name: str) -> NDArray[np.float32]:
    """float32 (rows, d) of a column of lists that are equally long."""
    column = table[name].combine_chunks()
    flat = np.asarray(column.flatten().to_numpy(zero_copy_only=False), np.float32)
    return flat.reshape(len(column), -1) if len(column) else np.zeros((0, 1), np.float32)


def replaced(about: About) -> Rows:
    """bool (n,): the faces that wear another one and are large enough to be measured."""
    verdicts = np.array(about.faces["verdict"].to_pylist(), np.str_)
    sizes = np.asarray(about.faces["size"].to_numpy(), np.float64)
    return np.asarray(np.isin(verdicts, (REPLACED, CHANGED)) & (sizes >= LEAST_SIDE))


def of_faces(about: About) -> Bootstrap:
    """Draws of the people that the faces are of."""
    return Bootstrap(about.person, about.options.rounds, about.options.seed)


def of_images(about: About) -> Bootstrap:
    """Draws of the people that images are of (`whose`)."""
    of = whose(about)
    return Bootstrap([of.get(path, -1) for path in about.images["path"].to_pylist()], about.options.rounds, about.options.seed)


def whose(about: About) -> dict[str, int]:
    """Path → the person of its largest face whom somebody knows; images without one are left out."""
    sizes = np.asarray(about.faces["size"].to_numpy(), np.float64)
    known = np.flatnonzero(about.person >= 0)
    paths = about.faces["path"].to_pylist()
    return {paths[i]: int(about.person[i]) for i in known[np.argsort(sizes[known], kind="stable")]}


def image_rows(table: pa.Table, about: About) -> I64:
    """int64: the row of `about.images` that each row of a note about images is about."""
    place = {path: i for i, path in enumerate(about.images["path"].to_pylist())}
    return np.array([place[path] for path in table["path"].to_pylist()], np.int64)


def means(boot: Bootstrap, numbers: Mapping[str, F64], rows: Rows | None = None) -> dict[str, Any]:
    """The mean of each measure."""
    return {name: boot.mean(every, rows, share=False) for name, every in numbers.items()}


def means_by_group(about: About, boot: Bootstrap, numbers: Mapping[str, F64], rows: Rows) -> dict[str, dict[str, Any]]:
    """The same for each sex, age band and skin tone."""
    return by_group(about.groups, lambda some: means(boot, numbers, some), rows)
