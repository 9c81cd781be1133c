"""The swapper that the settings name."""

from __future__ import annotations

from mfmc_ray.config import MORPH, SwapConfig
from mfmc_ray.identities.model import load_model
from mfmc_ray.swap.device.devices import renderer
from mfmc_ray.swap.onnx import OnnxSwapper
from mfmc_ray.swap.protocol import Licence, Swapper
from mfmc_ray.swap.spec import SwapperSpec, load_spec


def swapper_of(swap: SwapConfig, *, device: bool = True) -> Swapper:
    """The swapper itself, with its networks loaded.

    Args:
        swap: settings.
        device: whether the embedded renderer may take the device that they name; else it draws with NumPy and OpenCV.

    Raises:
        ConfigError, ModelError: the YAML file or a file that it names cannot be used.
        DeviceError: the device cannot be had.
    """
    spec = spec_of(swap)
    if spec is not None:
        return OnnxSwapper(spec)
    return renderer(load_model(), swap.device if device else "numpy")


def spec_of(swap: SwapConfig) -> SwapperSpec | None:
    """What the YAML file says; None for the embedded renderer.

    Raises:
        ConfigError: it cannot be read, or what it says cannot be.
    """
    return None if swap.swapper == MORPH else load_spec(swap.swapper)


def digest_of(swap: SwapConfig) -> str:
    """`Swapper.digest`, with no network loaded.

    Raises:
        ConfigError: as `spec_of`.
    """
    spec = spec_of(swap)
    return "" if spec is None else spec.digest


def fetch(swap: SwapConfig) -> None:
    """Has all files at hand, and checks them.

    Raises:
        ConfigError, ModelError: as `swapper_of`.
    """
    spec = spec_of(swap)
    for _, weights in spec.files if spec else ():
        weights.fetched()


def licences_of(swap: SwapConfig) -> tuple[Licence, ...]:
    """`Swapper.licences`, with no network loaded.

    Raises:
        ConfigError: as `spec_of`.
    """
    spec = spec_of(swap)
    return () if spec is None else spec.licences
