"""Exact search against plain float32 matrix products on this machine: `python benchmarks/known_search.py [--known 1000000]`.

The first table gives the ratio of each search to `queries @ known.T` (in slices that stay in the cache, without looking at the result),
both as 2·q·n·d / time, alternating, the best of several rounds. 1.00 means that finding and re-checking costs nothing. On one thread, as in
a worker, time is CPU time, which other load on the machine disturbs less; with `--threads 2` it is wall time.
Batches under about 100 wait for memory, the products as well as the search: `known` is read once for each of them.

`--certify 10000` adds what the pool of a nightly run costs: a pool of that many against all known faces, and against the 10,000 that came
since; the latter's share is to be about their share of the known faces.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable

import numpy as np

from mfmc_ray.known.compressed import CompressedSearch
from mfmc_ray.known.search import F32, ExactSearch

SLICE = 8192
THRESHOLDS = {128: 0.45, 512: 0.3}
NEW = 10_000


def unit(rng: np.random.Generator, n: int, d: int) -> F32:
    vectors = np.empty((n, d), np.float32)
    for start in range(0, n, SLICE):
        some = rng.standard_normal((min(SLICE, n - start), d), dtype=np.float32)
        vectors[start : start + SLICE] = some / np.linalg.norm(some, axis=1, keepdims=True)
    return vectors


def products(queries: F32, known: F32) -> None:
    for start in range(0, len(known), SLICE):
        queries @ known[start : start + SLICE].T


def seconds(work: Callable[[], object]) -> float:
    """CPU time of one thread; with several, wall time, as BLAS's threads spin while they wait."""
    clock = time.process_time if os.environ["OMP_NUM_THREADS"] == "1" else time.perf_counter
    start = clock()
    work()
    return clock() - start


def best(rounds: int, *works: Callable[[], object]) -> list[float]:
    """The least time of each, alternating."""
    return [min(times) for times in zip(*([seconds(work) for work in works] for _ in range(rounds)), strict=True)]


def speed(d: int, known: F32, batches: list[int], rounds: int, rng: np.random.Generator) -> None:
    started = time.process_time()
    exact = ExactSearch(known)
    made = time.process_time() - started
    halves, bytes_ = CompressedSearch(known, "fp16"), CompressedSearch(known, "int8")
    for batch in batches:
        queries = unit(rng, batch, d)
        plain, *ours = best(
            rounds,
            lambda: products(queries, known),  # noqa: B023
            lambda: exact.top1(queries),  # noqa: B023
            lambda: exact.above(queries, THRESHOLDS[d]),  # noqa: B023
            lambda: halves.top1(queries),  # noqa: B023
            lambda: bytes_.top1(queries),  # noqa: B023
        )
        work = 2e-9 * batch * len(known) * d
        print(f"{d:5d} {batch:8d} {work / plain:14.1f}" + "".join(f" {plain / t:10.2f}" for t in ours), flush=True)
    sizes = [known.nbytes, halves.nbytes, bytes_.nbytes]
    print(f"      bytes a vector: {' / '.join(f'{s / len(known):.0f}' for s in sizes)} (float32, fp16, int8); checked in {made:.2f} s")


def certify(d: int, known: F32, pool: int, rng: np.random.Generator) -> None:
    queries, new = unit(rng, pool, d), unit(rng, NEW, d)
    search = ExactSearch(known)
    full = seconds(lambda: search.top1(queries))
    (added,) = best(3, lambda: ExactSearch(new).top1(queries))
    print(f"{d:5d} a pool of {pool} against {len(known)} known: {full:.1f} s; against {NEW} new ones: {added:.2f} s, {added / full:.2%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--known", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32, 256, 1024])
    parser.add_argument("--certify", type=int, default=0, metavar="POOL")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    wanted = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(arguments.threads))
    if not wanted.items() <= os.environ.items():  # BLAS has read them by now
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **wanted})  # noqa: S606
    rng = np.random.default_rng(0)
    print("    d  queries  sgemm GFLOP/s       top1      above  fp16 top1  int8 top1")
    for d in THRESHOLDS:
        known = unit(rng, arguments.known, d)
        speed(d, known, arguments.batches, arguments.rounds, rng)
        if arguments.certify:
            certify(d, known, arguments.certify, rng)


if __name__ == "__main__":
    main()
