"""Which device draws: decided without importing torch unless it is asked for."""

from __future__ import annotations

import importlib.util

DEVICES = ("auto", "cpu", "cuda")
"""What may be asked for. auto: CUDA where torch has it, else NumPy and OpenCV. cpu: torch on the CPU, which is slower than those."""


class DeviceError(RuntimeError):
    """A device was asked for that is not here; the message says what to do."""


def device_of(asked: str) -> str | None:
    """The torch device, or None for NumPy and OpenCV.

    Args:
        asked: one of `DEVICES`.

    Raises:
        DeviceError: it is none of them, or cannot be had.
    """
    if asked not in DEVICES:
        raise DeviceError(f"swap.device (--device) wants {', '.join(DEVICES[:-1])} or {DEVICES[-1]}, not {asked!r}")
    if importlib.util.find_spec("torch") is None:
        if asked == "auto":
            return None
        raise DeviceError(f"swap.device {asked} wants torch: pip install 'mfmc-ray[gpu]'")
    if asked == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if asked == "auto":
        return None
    raise DeviceError("swap.device cuda: torch sees no GPU here; see that the driver is there and torch is not its CPU build, or use auto")
