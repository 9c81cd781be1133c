"""Which device draws: decided without importing torch where there cannot be a GPU."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from mfmc_ray.config import DEVICES
from mfmc_ray.identities.model import IdentityModel
from mfmc_ray.swap.render import MorphSwapper

_DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""What there is where a driver of NVIDIA's is: on Linux, in its subsystem on Windows."""


class DeviceError(RuntimeError):
    """A device was asked for that is not here; the message says what to do."""


def renderer(model: IdentityModel, asked: str) -> MorphSwapper:
    """The embedded renderer, on the device that is asked for.

    Raises:
        DeviceError: see `device_of`.
    """
    device = device_of(asked)
    if device is None:
        return MorphSwapper(model)
    from mfmc_ray.swap.device.morph import DeviceSwapper

    return DeviceSwapper(model, device)


def device_of(asked: str) -> str | None:
    """The torch device, or None for NumPy and OpenCV.

    Args:
        asked: one of `config.DEVICES`.

    Raises:
        DeviceError: it cannot be had.
    """
    assert asked in DEVICES
    if asked == "numpy":
        return None
    if asked == "auto" and not any(driver.exists() for driver in _DRIVERS):
        return None  # importing torch takes seconds, and 300 MB of each worker
    if importlib.util.find_spec("torch") is None:
        if asked == "auto":
            return None
        raise DeviceError(f"swap.device {asked} wants torch, which is not installed here: pip install 'mfmc-ray[gpu]'")
    if asked == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if asked == "auto":
        return None
    raise DeviceError("swap.device cuda: torch sees no GPU here (no driver, or torch's CPU build); use auto, or mend that")
