"""Exact search against plain float32 matrix products on this machine: `python benchmarks/known_search.py [--known 200000]`.

Prints the ratio of `ExactSearch.top1` to `queries @ known.T` (in slices that stay in the cache, without looking at the result), both as
2·q·n·d / CPU time (so per core), alternating, the best of several rounds. 1.00 means that finding and re-checking the nearest face costs
nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from mfmc_ray.known.search import F32, ExactSearch

SLICE = 8192


def unit(rng: np.random.Generator, n: int, d: int) -> F32:
    vectors = rng.standard_normal((n, d), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def products(queries: F32, known: F32) -> None:
    for start in range(0, len(known), SLICE):
        queries @ known[start : start + SLICE].T


def seconds(work: Callable[[], object]) -> float:
    """CPU time of all threads, which other load on the machine disturbs less than wall time."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--known", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    print("    d  queries  sgemm GFLOP/s  top1 GFLOP/s  ratio")
    for d in (128, 512):
        known = unit(rng, arguments.known, d)
        search = ExactSearch(known)
        for batch in (1, 32, 256, 1024):
            queries = unit(rng, batch, d)
            rounds = [(seconds(lambda: products(queries, known)), seconds(lambda: search.top1(queries))) for _ in range(arguments.rounds)]  # noqa: B023
            plain, ours = (min(times) for times in zip(*rounds, strict=True))
            work = 2e-9 * batch * arguments.known * d
            print(f"{d:5d} {batch:8d} {work / plain:14.1f} {work / ours:13.1f} {plain / ours:6.2f}")


if __name__ == "__main__":
    main()
