"""Kills runs at random moments and sees what becomes of them: `python benchmarks/kills.py [--kills 24] [--cluster]`.

Keeps a small collection up to date with `mfmc nightly`: each round adds, changes, deletes and renames some images, starts a night, and at a
random moment kills (SIGKILL) its driver, one of its workers, its raylet, or everything. Then the same command runs again until it succeeds.
Checked all the while, as a plain reader sees OUT: each visible Parquet file is whole, no path is there twice, no picture is an original.
Checked at the end of a round: each file of the collection has one row, each row its faces, and nothing of what was deleted is left in any
file; at the very end, the audit. Prints for each kill what was killed and when, and how long the resumed night took against what was left
to do: fixed start + images left × time per image, both measured in this run without kills.

With --cluster: on a Ray of two nodes started with `ray start`, the second of which is killed (and replaced) instead of the only raylet.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
from PIL import Image
from skimage.data import astronaut, coffee

from mfmc_ray.codec import decode
from mfmc_ray.scrub import scrub

SETTINGS = "swap: {identities: 20, attempts: 2}\nray: {actors: 2}\n"
KINDS = ("driver", "worker", "raylet", "everything")
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}


class Bench:
    """The collection, its result, and what is known of how long things take."""

    def __init__(self, folder: Path, images: int, seed: int) -> None:
        self.photos, self.out, self.work = folder / "in", folder / "out", folder / "work"
        self.rng = np.random.default_rng(seed)
        self.photos.mkdir(parents=True)
        for i in range(images):
            self.save(f"{i:03}.jpg", i)
        self.config = folder / "nightly.yaml"
        self.config.write_text(f"input: {self.photos}\nout: {self.out}\nwork: {self.work}\n{SETTINGS}")
        self.deleted: list[bytes] = []
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"OMP_NUM_THREADS": "1"}

    def save(self, name: str, i: int) -> None:
        """A face, or else a cup."""
        x, y = self.rng.integers(-12, 12, 2)
        source = astronaut()[40 + y : 168 + y, 160 + x : 288 + x] if i % 2 else coffee()[100 + y : 228 + y, 200 + x : 328 + x]
        Image.fromarray(np.clip(source * self.rng.uniform(0.8, 1.1), 0, 255).astype(np.uint8)).save(self.photos / name, quality=92)

    def change(self, number: int) -> None:
        """Eight new images, two of them with other content, two deleted, one renamed."""
        names = sorted(path.name for path in self.photos.iterdir())
        chosen = [names[i] for i in self.rng.choice(len(names), 5, replace=False)]
        for name in chosen[:2]:
            self.deleted.append(scrub((self.photos / name).read_bytes()))
            (self.photos / name).unlink()
        for i, name in enumerate(chosen[2:4]):
            self.save(name, i)
        (self.photos / chosen[4]).rename(self.photos / f"{number:03}-renamed.jpg")
        for i in range(6):
            self.save(f"{number:03}-{i}.jpg", i)
        time.sleep(2.2)  # or their time stamps prove nothing

    def start(self) -> psutil.Popen:
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115 (as long as the process)
        command = [sys.executable, "-m", "mfmc_ray.cli", "nightly", "--config", str(self.config)]
        return psutil.Popen(command, stdout=self.said, stderr=self.said, env=self.environment)

    def finish(self, process: psutil.Popen) -> int:
        code = process.wait(600)
        self.said.seek(0)
        self.told = self.said.read()
        return int(code)

    def rows(self, table: str, *columns: str) -> list[dict[str, object]]:
        """All rows that are visible; a file may be replaced between the listing and the look."""
        found = []
        for file in sorted((self.out / table).glob("*.parquet")):
            with contextlib.suppress(FileNotFoundError):
                found += pq.read_table(file, columns=list(columns)).to_pylist()
        return found

    def look(self) -> int:
        """What a reader sees now; how many images are there."""
        images = self.rows("images", "path", "image_id", "verdict", "image", "faces")
        paths = Counter(str(row["path"]) for row in images)
        assert max(paths.values(), default=1) == 1, f"doubled: {paths.most_common(3)}"
        for row in images:
            original = self.photos / str(row["path"])
            if row["verdict"] == "anonymized" and original.exists():
                data = row["image"]["bytes"]  # type: ignore[index]
                assert data not in (original.read_bytes(), scrub(original.read_bytes())), f"{row['path']}: the original is out"
                assert decode(data).pixels.shape
        return len(images)

    def check(self) -> None:
        """What must hold after a night."""
        self.look()
        images = self.rows("images", "path", "image_id", "faces")
        wanted = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in self.photos.iterdir()}
        assert {str(row["path"]): row["image_id"] for row in images} == wanted, "rows and files differ"
        faces = Counter((row["path"], row["image_id"]) for row in self.rows("faces", "path", "image_id"))
        assert faces == {(row["path"], row["image_id"]): row["faces"] for row in images if row["faces"]}, "faces and images differ"
        everything = b"".join(path.read_bytes() for path in self.out.rglob("*") if path.is_file())
        assert not any(gone in everything for gone in self.deleted), "something deleted is left"

    def left(self) -> int:
        """Images that are not yet as they are in the collection."""
        wanted = {(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in self.photos.iterdir()}
        return len(wanted - {(row["path"], row["image_id"]) for row in self.rows("images", "path", "image_id")})


class Nodes:
    """A Ray of two nodes on this machine."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.folder = tempfile.mkdtemp(prefix="r", dir="/tmp")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.environment = environment | LOOPBACK
        self.before = {process.pid for process in psutil.process_iter()}
        self._ray("--head", f"--port={self.port}", f"--temp-dir={self.folder}", "--include-dashboard=false", "--num-cpus=1")
        self.head = self.raylets()
        self.add()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def add(self) -> None:
        self._ray(f"--address={self.address}", "--num-cpus=2")

    def raylets(self) -> list[psutil.Process]:
        return [p for p in psutil.process_iter(["name"]) if p.info["name"] == "raylet" and p.pid not in self.before]

    def stop(self) -> None:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if self.folder in " ".join(process.cmdline()):
                    process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _ray(self, *options: str) -> None:
        command = [str(Path(sys.executable).with_name("ray")), "start", "--node-ip-address=127.0.0.1", *options]
        subprocess.run(command, env=self.environment, check=True, capture_output=True)


def kill(kind: str, process: psutil.Popen, nodes: Nodes | None) -> list[psutil.Process]:
    """Kills; what it was."""
    below = process.children(recursive=True) if process.is_running() else []
    if nodes is not None:
        workers = [p for p in psutil.process_iter(["name"]) if "MapWorker" in (p.info["name"] or "") and p.pid not in nodes.before]
        raylets = [p for p in nodes.raylets() if p not in nodes.head]
    else:
        workers = [p for p in below if "MapWorker" in p.name()]
        raylets = [p for p in below if p.name() == "raylet"]
    victims = {"driver": [process], "worker": workers[:1], "raylet": raylets[:1], "everything": [*below, process]}[kind]
    for victim in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.send_signal(signal.SIGKILL)
    if kind == "driver":  # its Ray ends by itself, but for agents that look for it a minute long
        _, alive = psutil.wait_procs([p for p in below if "Agent" not in p.name()], timeout=60)
        assert not alive, f"they outlive the driver: {alive}"
        for agent in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                agent.kill()
    return victims


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=24)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cluster", action="store_true", help="on two nodes started with `ray start`")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    bench = Bench(folder, asked.images, asked.seed)
    nodes = None
    if asked.cluster:
        nodes = Nodes(bench.environment)
        bench.environment |= {**LOOPBACK, "RAY_ADDRESS": nodes.address}
    try:
        times = []
        for number in (900, 901):
            if number > 900:
                bench.change(number)
            started, todo = time.monotonic(), bench.left()
            assert bench.finish(bench.start()) == 0, bench.told
            times.append((todo, time.monotonic() - started))
            bench.check()
        (many, long), (few, short) = times
        each = max(0.0, (long - short) / (many - few))
        fixed = short - few * each
        print(
            f"without kills: {many} images {long:.1f} s, {few} images {short:.1f} s; fixed {fixed:.1f} s, {each:.2f} s an image", flush=True
        )
        ratios = []
        for number in range(asked.kills):
            kind = KINDS[number % len(KINDS)]
            bench.change(number)
            process = bench.start()
            moment = float(bench.rng.uniform(1.0, 1.05 * short))
            time.sleep(moment)
            victims: list[psutil.Process] = []
            while not victims and process.poll() is None:  # there may be no worker yet
                victims = kill(kind, process, nodes)
                time.sleep(0 if victims else 0.2)
            seen = bench.look()
            if nodes is not None and kind == "raylet" and victims:
                nodes.add()
            code = bench.finish(process)
            outcome = "went on" if code == 0 else f"ended with {code}"
            again, left = 0, bench.left()
            if code != 0:
                started, again = time.monotonic(), 1
                while (code := bench.finish(bench.start())) != 0:
                    again += 1
                    assert again < 4, bench.told
                took, expected = time.monotonic() - started, fixed + left * each
                ratios.append(took / expected)
                outcome += f"; {left} left, {again} more, {took:.1f} s of {expected:.1f} s expected ({took / expected:.2f})"
            bench.check()
            what = ", ".join(f"{victim.pid}" for victim in victims) or "nothing, it had ended"
            print(f"{number:3} {kind:10} at {moment:5.1f} s ({what}), {seen} images visible: {outcome}", flush=True)
        audit = subprocess.run(
            [sys.executable, "-m", "mfmc_ray.cli", "audit", str(bench.out), "--work", str(bench.work)], env=bench.environment, check=False
        )
        print(f"audit: {'passed' if audit.returncode == 0 else 'FAILED'}; resumed / expected: median {np.median(ratios or [0]):.2f}")
    finally:
        if nodes is not None:
            nodes.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
