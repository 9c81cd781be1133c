"""Measures what listing a collection takes in the process that leads a run: `python benchmarks/listing.py --units 2000000`.

The collection is a made-up file system (folders of 1000 objects with sizes and etags; nothing is on a disk). Two ways, each in a process of
its own:

    objects  every unit is a dictionary, what was scanned of it another object, as up to version 0.1
    file     units go to a Parquet file as they come, what was scanned is in columns

and three steps: list (with the run's digest), plan (the parts of a first run), night (the same listing again, all of it scanned). Prints
seconds, and the highest memory over that of the start, in MB and in bytes per unit; then the ratio of the two ways.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
from fsspec.spec import AbstractFileSystem

from mfmc_ray.collection import Collection
from mfmc_ray.pipeline.before import Before, Scanned, _packed
from mfmc_ray.pipeline.difference import difference, part_size, scan_parts
from mfmc_ray.pipeline.listing import Digest, Listing, once

IN_FOLDER = 1000


class Made(AbstractFileSystem):
    """`made://N`: N objects."""

    protocol = "made"
    cachable = False

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[dict[str, Any]]:
        root, _, folder = self._strip_protocol(path).partition("/")
        if not folder:
            return [{"name": f"{root}/{i:06d}", "size": 0, "type": "directory"} for i in range(int(root) // IN_FOLDER)]
        found = {"size": 100_000, "type": "file"}
        return [
            {
                **found,
                "name": f"{root}/{folder}/{i:09d}.jpg",
                "ETag": hashlib.md5(f"{folder}{i}".encode(), usedforsecurity=False).hexdigest(),
            }
            for i in range(IN_FOLDER)
        ]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": self._strip_protocol(path), "size": 0, "type": "directory"}


def old(unit: dict[str, Any], number: int) -> Scanned:
    """A unit as it was scanned."""
    image = hashlib.sha256(unit["unit"].encode()).hexdigest()
    return Scanned(number // 128, unit["size"], unit["version"], unit["listed"], (image,), False, unit["path"])


def objects(collection: Collection, step: Callable[[str], None], folder: Path) -> None:
    units = list(once(collection))
    undated = [{name: value for name, value in unit.items() if name != "listed"} for unit in units]
    hashlib.sha256(json.dumps([undated], sort_keys=True).encode()).hexdigest()
    del undated
    step("list")
    size = part_size(len(units))
    parts = [{"part": i, "units": units[i * size : (i + 1) * size]} for i in range(len(units) // size)]
    step("plan")
    del parts
    before = {unit["unit"]: old(unit, i) for i, unit in enumerate(units)}
    assert all((before[unit["unit"]].size, before[unit["unit"]].version) == (unit["size"], unit["version"]) for unit in units)
    step("night")


def file(collection: Collection, step: Callable[[str], None], folder: Path) -> None:
    digest = Digest()
    units = Listing.write(folder / "scan.parquet", collection, digest)
    digest.value()
    step("list")
    parts = scan_parts(difference(units, {}), {}, (), len(units))
    step("plan")
    del parts
    tables, some = [], list[tuple[str, Scanned]]()
    for i, unit in enumerate(units):
        some.append((unit["unit"], old(unit, i)))
        if len(some) == 16_384 or i + 1 == len(units):
            tables.append(_packed(some))
            some = []
    del some
    assert not difference(units, Before(tables), again=True)
    step("night")


def measured(way: Callable[..., None], units: int, results: Any) -> None:
    """Runs one way; (step, seconds, MB) go to `results`."""
    fsspec.register_implementation("made", Made, clobber=True)

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    base, at = peak(), time.monotonic()

    def step(name: str) -> None:
        nonlocal at
        results.put((name, time.monotonic() - at, peak() - base))
        at = time.monotonic()

    with tempfile.TemporaryDirectory() as folder:
        way(Collection.open(f"made://{units}"), step, Path(folder))


def run(way: Callable[..., None], units: int) -> Iterator[tuple[str, float, float]]:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=measured, args=(way, units, results))
    process.start()
    process.join()
    assert process.exitcode == 0
    while not results.empty():
        yield results.get()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=200_000, help="a multiple of 1000")
    units = parser.parse_args().units
    found = {way.__name__: list(run(way, units)) for way in (objects, file)}
    print(f"{units} units            seconds    peak MB  bytes/unit")
    for way, rows in found.items():
        for name, seconds, mb in rows:
            print(f"{way:8} {name:8} {seconds:15.1f} {mb:10.0f} {mb * 2**20 / units:11.0f}")
    for (name, a, b), (_, c, d) in zip(found["objects"], found["file"], strict=True):
        print(f"objects / file, {name}: {a / c:.2f} × the time, {b / max(d, 0.1):.1f} × the memory")


if __name__ == "__main__":
    main()
