"""Which seeds to try first: those that `tools/build_catalogue.py` found to resemble none of the model's own references."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources

import numpy as np


def seeds(first: int = 0) -> Iterator[int]:
    """An endless sequence of seeds, each once: the catalogue's (turned by `first`, so that runs differ), then all others from 2·10⁹ on.

    The catalogue saves work and decides nothing: every identity is certified anew in each run.
    """
    catalogue = _catalogue()
    if len(catalogue):
        start = first % len(catalogue)
        yield from (int(seed) for seed in np.roll(catalogue, -start))
    seed = 2_000_000_000 + first
    while True:
        yield seed
        seed += 1


def catalogued() -> int:
    """How many seeds the catalogue holds."""
    return len(_catalogue())


def _catalogue() -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    file = resources.files("mfmc_ray.identities").joinpath("data/catalogue.npy")
    if not file.is_file():
        return np.zeros(0, np.int64)
    with file.open("rb") as opened:
        return np.asarray(np.load(opened, allow_pickle=False), np.int64)
