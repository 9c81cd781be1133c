"""How long a pass takes on other machines than this one, by discrete events: `python benchmarks/simulate_cluster.py check|plan`.

`check` holds the simulation against real runs here: a run of one worker gives what a worker costs to start and each part to do; from these
alone runs of 1 to 4 workers on this machine's cores are foretold, and then made. Prints foretold, real, and their ratio.

`plan` simulates the plan of docs/scale.md: nodes that are lost and replaced, parts that are done again, a head that is restarted. What the
costs are is in `COSTS`, each with where it is from; change them on the command line (`--set gpu_image_ms=20`).

A worker is what it is in `mfmc_ray.pipeline.parts`: it takes a part as soon as it is free, does its images one after the other, and commits
it. Workers of a node share its cores: a core is held for a slice at a time, so more workers than cores all go slower.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simpy
from PIL import Image
from rich.console import Console
from rich.table import Table
from skimage.data import astronaut

SLICE = 0.05
"""Seconds for which a worker holds a core at a time."""
PASSES = ("scan", "anonymize")
Wait = Generator[Any, Any, Any]


@dataclass(frozen=True)
class Node:
    """A machine.

    Attributes:
        cores: that work.
        workers: on it.
        start: CPU seconds of a worker until it takes its first part: its process, imports, models.
        slowdown: how much longer work takes when all cores are busy than when one is (they share caches, or are threads of one core).
    """

    cores: int
    workers: int
    start: float
    slowdown: float = 1.0


@dataclass
class Outcome:
    """What a simulated pass came to.

    Attributes:
        seconds: from its first event to its last.
        busy: seconds that workers worked, work that was lost included.
        lost: of these, on parts that were begun again.
        losses: nodes that were lost.
    """

    seconds: float = 0.0
    busy: float = 0.0
    lost: float = 0.0
    losses: int = 0


def on_cores(node: Node, parts: Sequence[float], fixed: float = 0.0) -> float:
    """Wall seconds of a pass on one machine whose workers share its cores.

    Args:
        node: the machine.
        parts: CPU seconds of each part.
        fixed: seconds before the first worker is started, and after the last is done.
    """
    env = simpy.Environment()
    cores = simpy.Resource(env, node.cores)
    queue = list(reversed(parts))
    working = 0

    def work(seconds: float) -> Wait:
        nonlocal working
        while seconds > 1e-9:
            with cores.request() as core:
                yield core
                working += 1
                speed = 1 + (node.slowdown - 1) * (working - 1) / max(1, node.cores - 1)
                done = min(SLICE, seconds)
                yield env.timeout(done * speed)
                working -= 1
                seconds -= done

    def worker() -> Wait:
        yield from work(node.start)
        while queue:
            yield from work(queue.pop())

    for _ in range(min(node.workers, len(parts))):
        env.process(worker())
    env.run()
    return fixed + float(env.now)


def on_cluster(
    parts: int,
    seconds: float,
    spread: float,
    workers_of: Sequence[int],
    start: float,
    *,
    lost_after: float,
    back_after: float,
    seed: int = 0,
) -> Outcome:
    """A pass on a cluster whose nodes are lost and come back; every worker has a core, or its share of a GPU, of its own.

    Args:
        parts: how many there are.
        seconds: that one takes, on average; log-normally distributed.
        spread: standard deviation of its logarithm.
        workers_of: workers of each node.
        start: seconds until a worker takes its first part.
        lost_after: mean seconds until a node is lost (exponentially distributed); 0: never.
        back_after: seconds until another takes its place.
        seed: of the random numbers.
    """
    rng, env, found = np.random.default_rng(seed), simpy.Environment(), Outcome()
    todo = parts
    left = parts
    again = 0
    done = env.event()

    def worker(alive: list[bool], gone: Any) -> Wait:
        nonlocal todo, left, again
        yield env.timeout(start) | gone
        while alive[0] and (todo or again):
            if again:
                again -= 1
            else:
                todo -= 1
            begun, takes = env.now, seconds * float(np.exp(spread * rng.standard_normal() - spread**2 / 2))
            yield env.timeout(takes) | gone
            found.busy += env.now - begun
            if not alive[0] and env.now - begun < takes - 1e-9:  # its part is done anew by whoever is free
                found.lost += env.now - begun
                again += 1
                return
            left -= 1
            if not left:
                done.succeed()

    def node(workers: int) -> Wait:
        while left:
            alive, gone = [True], env.event()
            some = [env.process(worker(alive, gone)) for _ in range(workers)]
            until = env.timeout(float(rng.exponential(lost_after))) if lost_after else env.event()
            yield until | done | env.all_of(some)
            if done.triggered:
                return
            if until.processed:
                found.losses += 1
                alive[0] = False
                gone.succeed()
                yield env.timeout(back_after)
            else:  # nothing to do just now; a part may come back
                yield env.timeout(max(1.0, seconds / 4)) | done

    for workers in workers_of:
        env.process(node(workers))
    env.run(until=done)
    found.seconds = float(env.now)
    return found


# check -------------------------------------------------------------------------------------------------------------------------------


def pictures(folder: Path, count: int, seed: int) -> None:
    """Pictures of different sizes, each with a face or two of a public photo, or none."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    face = Image.fromarray(astronaut()).crop((100, 0, 380, 300))
    for i in range(count):
        side = int(rng.integers(200, 700))
        canvas = Image.fromarray(rng.integers(0, 255, (side // 8, side // 8, 3), np.uint8)).resize(
            (2 * side, side), Image.Resampling.BICUBIC
        )
        for k in range(int(rng.integers(0, 3))):
            size = int(rng.integers(90, min(side, 300)))
            lit = np.clip(np.asarray(face.resize((size, size))) * rng.uniform(0.8, 1.1), 0, 255).astype(np.uint8)
            canvas.paste(Image.fromarray(lit), (k * side + int(rng.integers(0, side - size + 1)), int(rng.integers(0, side - size + 1))))
        canvas.save(folder / f"{i:04}.jpg", quality=90)


def real(photos: Path, folder: Path, workers: int, rows: int) -> tuple[dict[str, float], dict[str, list[float]]]:
    """A real run: seconds of each pass, and of each part of it, as its one worker committed them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = {"input": str(photos), "out": str(folder / "out"), "work": str(folder / "work"), "output": {"rows_per_part": rows}}
    config |= {"swap": {"identities": 40, "attempts": 4}, "ray": {"actors": workers}}
    (folder / "run.yaml").write_text(json.dumps(config))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "mfmc_ray.cli", "anonymize", "--config", str(folder / "run.yaml")]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    times = json.loads((folder / "work" / "times.json").read_text())
    stamps = {name: sorted(f.stat().st_mtime for f in (folder / "work" / "ledger" / name).glob("part-*.json")) for name in PASSES}
    return {name: float(times[name]["seconds"]) for name in PASSES}, {name: [float(d) for d in np.diff(stamps[name])] for name in PASSES}


def slowdown(cores: int, seconds: float = 3.0) -> float:
    """How much slower a process computes when all cores do."""
    code = (
        "import time,numpy as np\nfrom skimage.data import astronaut\nimport cv2\ncv2.setNumThreads(1)\na=astronaut().astype(np.float32)\n"
        f"n=0\nt=time.monotonic()\nwhile time.monotonic()-t<{seconds}:\n"
        " cv2.GaussianBlur(a,(0,0),3); np.linalg.norm(a@a[0].T); n+=1\nprint(n)"
    )

    def rate(processes: int) -> float:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        some = [
            subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) for _ in range(processes)
        ]
        return float(np.mean([float(one.communicate()[0]) for one in some]))

    return max(1.0, rate(1) / rate(cores))


def check(images: int, rows: int, most: int, console: Console) -> None:
    """Prints foretold and real seconds of runs with 1 to `most` workers."""
    folder = Path(tempfile.mkdtemp(prefix="simulated-"))
    try:
        pictures(folder / "photos", images, 0)
        cores = os.cpu_count() or 1
        shared = slowdown(cores)
        console.print(f"{cores} cores; with all of them busy work takes {shared:.2f} times as long")
        known = [real(folder / "photos", folder / "run", 1, rows) for _ in range(2)]
        table = Table("pass", "workers", "foretold s", "real s", "real / foretold")
        ratios = []
        costs = {}
        for name in PASSES:
            parts = [float(v) for v in np.mean([one[1][name] for one in known], axis=0)]
            parts.append(float(np.mean(parts)))  # the first one's beginning is not known
            costs[name] = parts, max(0.0, float(np.mean([one[0][name] for one in known])) - sum(parts))
        for workers in range(1, most + 1):
            took, _ = real(folder / "photos", folder / "run", workers, rows)
            for name, (parts, start) in costs.items():
                foretold = on_cores(Node(cores, workers, start, shared), parts)
                ratios.append(took[name] / foretold)
                table.add_row(name, str(workers), f"{foretold:.1f}", f"{took[name]:.1f}", f"{ratios[-1]:.2f}")
        console.print(table)
        console.print(f"real / foretold: mean {np.mean(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# plan --------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Costs:
    """What the plan reckons with. M: measured on two cores here; A: assumed, and to be measured where the run is made.

    Attributes:
        images, faces_per_image, image_mb, known: the task.
        scan_core_ms, face_scan_core_ms: M, of an image of half a megapixel, and of each face in it (two recognizers).
        swap_core_ms: M, of a face: up to 24 fakes tried, each looked at.
        read_core_ms: M, decoding, encoding, writing an image.
        gpu_speedup: A, of the learned work on one GPU against one core.
        search_tflops: A, of one GPU, float32, sustained in the exact search.
        dimensions: of both guards together.
        searches: queries a published face needs: three results that were in the last round, and the check of the file.
        search_core_gflops: M, of one core in the exact search. slowdown: M, of work when all cores are busy.
        node_cores, node_gpus: of a GPU node; cpu_cores: of a CPU node.
        gpu_nodes, cpu_nodes: how many.
        lost_hours: A, mean time until a spot node is taken away. back_minutes: until another is there.
        gpu_node_usd, cpu_node_usd: A, an hour of a spot node. usd_gb_month, usd_per_1000_put, usd_per_1000_get: A, of the object store.
        part_images: of one part. slice_images: of one run.
    """

    images: float = 1e9
    faces_per_image: float = 0.6
    image_mb: float = 0.2
    known: float = 1e8
    scan_core_ms: float = 153.0
    face_scan_core_ms: float = 28.0
    swap_core_ms: float = 489.0
    read_core_ms: float = 35.0
    gpu_speedup: float = 40.0
    search_tflops: float = 12.0
    dimensions: int = 256
    searches: float = 4.0
    search_core_gflops: float = 88.0
    slowdown: float = 1.15
    node_cores: int = 48
    node_gpus: int = 4
    cpu_cores: int = 64
    gpu_nodes: int = 32
    cpu_nodes: int = 200
    lost_hours: float = 24.0
    back_minutes: float = 6.0
    gpu_node_usd: float = 2.3
    cpu_node_usd: float = 0.9
    usd_gb_month: float = 0.023
    usd_per_1000_put: float = 0.005
    usd_per_1000_get: float = 0.0004
    part_images: int = 1024
    slice_images: float = 1e6

    @property
    def look_core_s(self) -> float:
        """Core seconds of the learned work on an image, both passes."""
        return (self.scan_core_ms + self.faces_per_image * (self.face_scan_core_ms + self.swap_core_ms)) / 1000

    @property
    def search_core_s(self) -> float:
        """Core seconds of an image's exact searches."""
        return self.search_flop / self.images / self.search_core_gflops / 1e9

    @property
    def image_gpu_s(self) -> float:
        """GPU seconds of an image: learned work and exact searches."""
        return self.look_core_s / self.gpu_speedup + self.search_flop / self.images / self.search_tflops / 1e12

    @property
    def search_flop(self) -> float:
        """Of all exact searches."""
        return 2.0 * self.images * self.faces_per_image * self.searches * self.known * self.dimensions


def rows_of(costs: Costs) -> Iterator[tuple[str, str]]:
    """The plan's figures, by arithmetic and by simulation."""
    faces = costs.images * costs.faces_per_image
    parts = int(costs.images / costs.part_images)
    yield "images, faces", f"{costs.images:.3g}, {faces:.3g}"
    yield (
        "originals, result",
        f"{costs.images * costs.image_mb / 1e9:.0f} PB each"
        if costs.images * costs.image_mb > 1e9
        else (f"{costs.images * costs.image_mb / 1e6:.0f} TB each"),
    )
    yield "scan tables (embeddings, meshes)", f"{faces * (4 * costs.dimensions + 3 * 4 * 468) / 1e12:.1f} TB"
    index = costs.known * 4 * costs.dimensions
    yield "known-face index, float32 / int8", f"{index / 1e9:.0f} GB / {index / 4e9:.0f} GB"
    yield "index shards of 40 GB (one a GPU)", f"{int(np.ceil(index / 4e10))}"
    gpu, core = costs.search_flop / costs.search_tflops / 1e12 / 3600, costs.search_core_s * costs.images / 3600
    yield "exact search", f"{costs.search_flop:.2g} FLOP = {gpu:,.0f} GPU hours or {core:,.0f} core hours"
    looked = costs.look_core_s * costs.images / 3600
    yield "finding and swapping", f"{looked:,.0f} core hours or {looked / costs.gpu_speedup:,.0f} GPU hours"
    yield "decoding, encoding, writing", f"{costs.read_core_ms * costs.images / 3.6e6:,.0f} core hours"
    yield "runs of one slice each", f"{costs.images / costs.slice_images:.0f}"
    yield "parts (commits)", f"{parts:.3g}"
    for kind, nodes, workers, seconds, usd in (
        (
            "CPU nodes",
            costs.cpu_nodes,
            costs.cpu_cores,
            costs.slowdown * costs.part_images * (costs.look_core_s + costs.read_core_ms / 1000 + costs.search_core_s),
            costs.cpu_node_usd,
        ),
        (
            "GPU nodes",
            costs.gpu_nodes,
            2 * costs.node_cores,
            costs.part_images
            * 2
            * costs.node_cores
            * max(costs.image_gpu_s / costs.node_gpus, costs.slowdown * costs.read_core_ms / 1000 / costs.node_cores),
            costs.gpu_node_usd,
        ),
    ):
        scale = max(1, round(parts / 60_000))  # as many parts and nodes fewer: each node does the same
        some = max(1, nodes // scale)
        outcome = on_cluster(
            max(1, round(parts * some / nodes)),
            seconds,
            0.3,
            [workers] * some,
            60.0,
            lost_after=3600 * costs.lost_hours,
            back_after=60 * costs.back_minutes,
        )
        hours = outcome.seconds / 3600
        yield (
            f"{nodes} {kind}, {workers} workers each",
            f"{hours:.0f} h; {nodes * hours:.0f} node hours = {nodes * hours * usd:,.0f} USD; "
            f"{outcome.losses * nodes / some:.0f} nodes lost, "
            f"{100 * outcome.lost / outcome.busy:.1f} % of the work done again",
        )
    puts, gets = 4.0 * parts + 2 * parts, 2 * costs.images
    yield (
        "object store",
        f"{costs.images * costs.image_mb / 1e3 * costs.usd_gb_month:,.0f} USD a month for the result; {gets:.2g} GET = "
        f"{gets / 1000 * costs.usd_per_1000_get:,.0f} USD (files) or {gets / 1000 / 1000 * costs.usd_per_1000_get:,.2f} (shards of 1000), "
        f"{puts:.2g} PUT = {puts / 1000 * costs.usd_per_1000_put:,.0f} USD",
    )
    yield (
        "listing 1000 objects a request, 0.1 s each",
        f"{costs.images / 1000 * 0.1 / 3600:.0f} h one after the other (files); {costs.images / 1e6 * 0.1 / 60:.0f} min (shards of 1000)",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("check", "plan"))
    parser.add_argument("--images", type=int, default=120, help="of the runs of `check` (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=4, help="images in a part of `check` (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=4, help="at most, of `check` (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="another cost for `plan`")
    asked = parser.parse_args()
    console = Console(width=140)
    if asked.what == "check":
        return check(asked.images, asked.rows, asked.workers, console)
    given = dict(one.split("=", 1) for one in asked.set)
    unknown = set(given) - {field.name for field in dataclasses.fields(Costs)}
    if unknown:
        raise SystemExit(f"there is no cost {', '.join(sorted(unknown))}")
    costs = dataclasses.replace(Costs(), **{name: type(getattr(Costs, name))(float(value)) for name, value in given.items()})
    table = Table("", "")
    started = time.monotonic()
    for row in rows_of(costs):
        table.add_row(*row)
    console.print(table)
    console.print(f"simulated in {time.monotonic() - started:.0f} s")
    return None


if __name__ == "__main__":
    main()
