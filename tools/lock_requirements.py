"""Writes `cluster/requirements-cpu.lock` and `-gpu.lock`: every package of the two images, pinned by SHA-256.

    pip install uv && python tools/lock_requirements.py            # what is locked stays, as far as pyproject.toml allows
    pip install uv && python tools/lock_requirements.py --upgrade  # the newest of everything

For CPython 3.11 on Linux with glibc 2.35 (Debian 12, Ubuntu 22.04) or later; the CPU image for x86_64 and aarch64: both are resolved and
must agree, as one file serves both (of each version the hashes of all files are listed). Only wheels are taken: no code of a package runs
at its installation. What both images have the GPU image has in the CPU image's versions, for its nodes talk to a head of that one. Where a
package has a build for GPUs under another name, that one takes its place: both would write the same folder. What builds mfmc-ray itself is
locked, too:

    pip install --require-hashes --no-deps --only-binary :all: -r cluster/requirements-cpu.lock
    pip install --no-deps --no-build-isolation .

Where packages come from is the installer's business: the files name no index.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ("backports-strenum<1.3",)
"""What uv would not heed: upper bounds of `requires-python`."""


@dataclass(frozen=True)
class Lock:
    """A lock file.

    Attributes:
        name: of the image.
        extras: of pyproject.toml.
        platforms: as uv names them; all must resolve to the same.
        without: packages that others replace.
    """

    name: str
    extras: tuple[str, ...]
    platforms: tuple[str, ...]
    without: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        return ROOT / "cluster" / f"requirements-{self.name}.lock"

    @property
    def header(self) -> str:
        shapes = " and ".join(platform.partition("-")[0] for platform in self.platforms)
        less = f", without {' and '.join(self.without)}" if self.without else ""
        return (
            f"# CPython 3.11, Linux, glibc 2.35 or later, {shapes}: pyproject.toml with its extras {', '.join(self.extras)}{less}, "
            "and what builds it.\n# Written by tools/lock_requirements.py, which says how to install it.\n"
        )


CPU = Lock("cpu", ("s3", "aws"), ("x86_64-manylinux_2_35", "aarch64-manylinux_2_35"))
GPU = Lock("gpu", ("s3", "gpu"), ("x86_64-manylinux_2_35",), without=("faiss-cpu", "onnxruntime"))


def resolve(lock: Lock, platform: str, folder: Path, upgrade: bool) -> str:
    """The pins for a platform, as pip reads them.

    Args:
        lock: which.
        platform: one of its platforms.
        folder: with `build.in`, what builds mfmc-ray, and `constraints.in`.
        upgrade: whether pins that there are may change without need.

    Raises:
        subprocess.CalledProcessError: they cannot all be had there as wheels.
    """
    command = ["uv", "pip", "compile", str(ROOT / "pyproject.toml"), str(folder / "build.in"), "--python-version", "3.11", "--quiet"]
    for extra in lock.extras:
        command += ["--extra", extra]
    for package in lock.without:
        command += ["--no-emit-package", package]
    before = folder / f"{lock.name}-{platform}.lock"
    before.write_text(lock.path.read_text() if lock.path.exists() and not upgrade else "")
    shape = ["--generate-hashes", "--only-binary", ":all:", "--no-header", "--no-annotate", "--no-emit-index-url"]
    subprocess.run(
        [*command, *shape, "--constraint", str(folder / "constraints.in"), "--python-platform", platform, "--output-file", str(before)],
        capture_output=True,
        text=True,
        check=True,
    )
    # where a mirror is used its address has no business here, nor have links to its folders
    return "".join(line for line in before.read_text().splitlines(keepends=True) if re.match(r"[A-Za-z0-9]|    --hash=sha256:", line))


def pins(text: str) -> list[str]:
    """The `name==version` of a lock file."""
    return re.findall(r"^[A-Za-z0-9][^ ;]*==[^ ;\\]+", text, re.MULTILINE)


def main() -> None:
    upgrade = "--upgrade" in sys.argv[1:]
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    common: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "build.in").write_text("\n".join(wanted) + "\n")
        for lock in (CPU, GPU):
            (folder / "constraints.in").write_text("\n".join([*CONSTRAINTS, *common]) + "\n")
            try:
                found = {resolve(lock, platform, folder, upgrade) for platform in lock.platforms}
            except subprocess.CalledProcessError as error:
                sys.exit(error.stderr)
            if len(found) != 1:
                sys.exit(f"{lock.name}: the platforms need different versions; narrow them in pyproject.toml")
            text = found.pop()
            lock.path.write_text(lock.header + text)
            common = [pin for pin in pins(text) if pin.partition("==")[0] not in GPU.without]


if __name__ == "__main__":
    main()
