"""Bad files at scale, end to end: `python benchmarks/fuzz.py [--files 3000] [--seed 0] [--poison]`.

Mutates small files of every format (`tests/mutants.py`), runs `mfmc anonymize` over the folder, and counts: rows against files, verdicts,
reasons, deaths of workers, the longest time that a decode took, and published pictures that are not what their source showed. With
`--poison` some files more kill or stall the decoder for real (`tests/poison.py`), in the scan and in the anonymize pass; then the run is
resumed after its scan was lost, and must not try them again.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import ray
from PIL import Image
from skimage.data import astronaut

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import mutants
import poison

from mfmc_ray.codec import CodecError, decode
from mfmc_ray.config import load
from mfmc_ray.pipeline import anonymize, run, scan
from mfmc_ray.pipeline.run import Run
from mfmc_ray.pipeline.workers import AnonymizeWorker, ScanWorker
from mfmc_ray.scrub import scrub

for module in (poison, sys.modules[__name__]):
    ray.cloudpickle.register_pickle_by_value(module)


class PoisonedScan(ScanWorker):
    """With a decoder that dies over poison."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        poison.plant(scan, "decode", "scan", arguments["ledger"].work)


class PoisonedAnonymize(AnonymizeWorker):
    """With a decoder that dies over poison."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        for name in ("scrub", "decode"):
            poison.plant(anonymize, name, "anonymize", arguments["ledger"].work)


def jpeg(pixels: np.ndarray[Any, Any]) -> bytes:
    """A file of it."""
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, "JPEG")
    return out.getvalue()


def poisoned() -> dict[str, bytes]:
    """Files that kill the scan, three of them next to each other, stall it, or kill the pass after it."""
    face, plain = jpeg(astronaut()[:256, 96:352]), jpeg(np.full((40, 60, 3), 99, np.uint8))
    return {
        **{f"000000-poison {i}.jpg": plain + b"poison crash scan %d" % i for i in range(3)},
        "000000-poison 3.jpg": plain + b"poison hang scan 3",
        "000000-poison face.jpg": face + b"poison crash anonymize 4",
        "000000-poison plain.jpg": plain + b"poison crash anonymize 5",
    }


def alone(files: dict[str, bytes]) -> None:
    """How long decoding and scrubbing takes, file by file, in this process."""
    slowest, started = (0.0, ""), time.monotonic()
    for name, data in files.items():
        at = time.monotonic()
        for work in (decode, scrub):
            with contextlib.suppress(CodecError):
                work(data)
        slowest = max(slowest, (time.monotonic() - at, name))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"decode and scrub: {time.monotonic() - started:.1f} s, the slowest {slowest[0]:.2f} s ({slowest[1]}), peak {peak} MiB")


def wrong(rows: list[dict[str, Any]], files: dict[str, bytes]) -> list[str]:
    """Published faceless pictures that are not what their source shows, or that have something left to cut."""
    found = []
    for row in rows:
        data = (row["image"] or {}).get("bytes")
        if (row["verdict"] in ("unchanged", "anonymized")) != (data is not None):
            found.append(f"{row['path']}: {row['verdict']}, but {'no' if data is None else 'a'} picture")
        elif row["verdict"] == "unchanged":
            same = np.array_equal(decode(data).pixels, decode(files[row["path"]]).pixels)
            if not same or scrub(data) != data:
                found.append(f"{row['path']}: not what its source shows")
    return found


def main() -> None:
    """Prints the counts; exits with 1 if a row is missing or a picture wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--poison", action="store_true")
    parser.add_argument("--keep", type=Path, help="a folder for input, OUT and WORK")
    arguments = parser.parse_args()
    root = arguments.keep or Path(tempfile.mkdtemp(prefix="mfmc-fuzz-"))
    files = dict(mutants.mutants(arguments.files, arguments.seed))
    alone(files)
    killers = poisoned() if arguments.poison else {}
    files |= killers
    (root / "in").mkdir(parents=True)
    for name, data in files.items():
        (root / "in" / name).write_bytes(data)
    settings: dict[str, Any] = {"input": str(root / "in"), "out": str(root / "out"), "work": str(root / "work"), "swap__identities": 8}
    if killers:
        run.ScanWorker, run.AnonymizeWorker = PoisonedScan, PoisonedAnonymize  # type: ignore[misc]
        settings["find__max_seconds"] = 10.0

    def once() -> list[dict[str, Any]]:
        started = time.monotonic()
        this = Run(load(None, **settings))
        with this.session():
            counts = this.all()["counts"]
        rows: list[dict[str, Any]] = pq.read_table(root / "out" / "images").to_pylist()
        print(f"{len(rows)} rows of {len(files)} files in {time.monotonic() - started:.0f} s; {counts['images']}; {counts['failed']}")
        return rows

    rows = once()
    faults = wrong(rows, files)
    if {row["path"] for row in rows} != set(files) or len(rows) != len(files):
        faults.append("there is not one row for each file")
    print(f"in quarantine: {len(list((root / 'work' / 'quarantine').glob('*')))}")
    if killers:
        tried = Counter(poison.tried(root / "work"))
        print(f"poison was taken {sorted(tried.values())} times")
        if sorted(digest for _, digest in tried) != sorted(hashlib.sha256(data).hexdigest() for data in killers.values()):
            faults.append("not every poison was taken")
        for marker in (root / "work" / "ledger" / "scan").iterdir():
            marker.unlink()
        again = once()
        if Counter(poison.tried(root / "work")) != tried or [row["reason"] for row in again] != [row["reason"] for row in rows]:
            faults.append("the resumed run differs")
    print("\n".join(faults) or "nothing is wrong")
    if arguments.keep is None:
        shutil.rmtree(root)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
