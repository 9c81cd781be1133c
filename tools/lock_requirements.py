"""Writes `cluster/requirements-cpu.lock`: every package of the container, pinned by SHA-256.

    pip install uv && python tools/lock_requirements.py

For CPython 3.11 on Linux with glibc 2.35 (Debian 12, Ubuntu 22.04) or later, x86_64 and aarch64: both are resolved and must agree, as one
file serves both (of each version the hashes of all files are listed). Only wheels are taken: no code of a package runs at its installation.
What builds mfmc-ray itself is locked, too:

    pip install --require-hashes --no-deps --only-binary :all: -r cluster/requirements-cpu.lock
    pip install --no-deps --no-build-isolation .

Where packages come from is the installer's business: the file names no index.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "cluster" / "requirements-cpu.lock"
PLATFORMS = ("x86_64-manylinux_2_35", "aarch64-manylinux_2_35")
CONSTRAINTS = ("backports-strenum<1.3",)
"""What uv would not heed: upper bounds of `requires-python`."""
HEADER = """\
# CPython 3.11, Linux, glibc 2.35 or later, x86_64 and aarch64: pyproject.toml with its extra s3, and what builds it.
# Written by tools/lock_requirements.py, which says how to install it.
"""


def resolve(platform: str, build: Path, constraints: Path) -> str:
    """The pins for a platform, as pip reads them.

    Raises:
        subprocess.CalledProcessError: they cannot all be had there as wheels.
    """
    command = ["uv", "pip", "compile", str(ROOT / "pyproject.toml"), str(build), "--extra", "s3", "--python-version", "3.11", "--quiet"]
    shape = ["--generate-hashes", "--only-binary", ":all:", "--no-header", "--no-annotate", "--no-emit-index-url", "--upgrade"]
    done = subprocess.run(
        [*command, *shape, "--constraint", str(constraints), "--python-platform", platform], capture_output=True, text=True, check=True
    )
    # where a mirror is used its address has no business here, nor have links to its folders
    return "".join(line for line in done.stdout.splitlines(keepends=True) if re.match(r"[A-Za-z0-9]|    --hash=sha256:", line))


def main() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    with tempfile.TemporaryDirectory() as folder:
        build, constraints = Path(folder) / "build.in", Path(folder) / "constraints.in"
        build.write_text("\n".join(wanted) + "\n")
        constraints.write_text("\n".join(CONSTRAINTS) + "\n")
        try:
            pins = {resolve(platform, build, constraints) for platform in PLATFORMS}
        except subprocess.CalledProcessError as error:
            sys.exit(error.stderr)
    if len(pins) != 1:
        sys.exit("the platforms need different versions; narrow them in pyproject.toml")
    LOCK.write_text(HEADER + pins.pop())


if __name__ == "__main__":
    main()
