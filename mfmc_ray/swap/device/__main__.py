"""What of the extra `gpu` works on this machine: `python -m mfmc_ray.swap.device`. Exit code 1 if packages are in each other's way."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys

import onnxruntime

from mfmc_ray.known import gpu
from mfmc_ray.swap.device.devices import device_of

TWINS = (("onnxruntime", "onnxruntime-gpu"), ("faiss-cpu", "faiss-gpu"))
"""Builds for CPUs and for GPUs that write the same folder: of two, the one that was installed last is half there."""


def installed(name: str) -> str | None:
    """The version of a distribution."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def main() -> int:
    """Prints it."""
    if importlib.util.find_spec("torch") is None:
        print("torch: not installed")
    else:
        import torch

        print(f"torch {torch.__version__}: {f'{torch.cuda.device_count()} GPUs' if torch.cuda.is_available() else 'no GPU'}")
    print(f"onnxruntime {onnxruntime.__version__}: {', '.join(onnxruntime.get_available_providers())}")
    print(f"faiss {gpu.faiss.__version__ if gpu.faiss else 'not installed'}: {'GPUs' if gpu.available() else 'no GPU'}")
    print(f"swap.device auto: {device_of('auto') or 'numpy'}")
    clashes = [pair for pair in TWINS if all(installed(name) for name in pair)]
    for small, large in clashes:
        print(
            f"{small} and {large} are both installed, in the same folder: pip uninstall --yes {small} && "
            f"pip install --no-deps --force-reinstall {large}=={installed(large)}"
        )
    return 1 if clashes else 0


if __name__ == "__main__":
    sys.exit(main())
