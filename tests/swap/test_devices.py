"""Which device draws."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from mfmc_ray.config import ConfigError, load
from mfmc_ray.identities.model import load_model
from mfmc_ray.swap.device import devices
from mfmc_ray.swap.device.devices import DeviceError, device_of, renderer
from mfmc_ray.swap.render import MorphSwapper

HAS_TORCH = importlib.util.find_spec("torch") is not None


def test_without_a_driver_auto_is_numpy_and_imports_no_torch() -> None:
    code = (
        "import sys, pathlib; from mfmc_ray.swap.device import devices; devices._DRIVERS = (pathlib.Path('/none'),); "
        "import mfmc_ray.pipeline.workers; assert devices.device_of('auto') is None; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: None)
    assert type(renderer(load_model(), "auto")) is MorphSwapper
    for asked in ("cpu", "cuda"):
        with pytest.raises(DeviceError, match=r"mfmc-ray\[gpu\]"):
            device_of(asked)


@pytest.mark.skipif(not HAS_TORCH, reason="wants torch")
def test_a_gpu_that_is_not_there_is_an_error_only_if_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "_DRIVERS", (tmp_path,))
    assert device_of("auto") is None
    assert device_of("cpu") == "cpu"
    with pytest.raises(DeviceError, match="no GPU"):
        device_of("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of("auto") == device_of("cuda") == "cuda"
    assert renderer(load_model(), "cpu").at_once > 1


def test_the_setting_does_not_decide_what_a_run_is() -> None:
    plain, other = load(None), load(None, swap__device="cuda")
    assert plain.digest() == other.digest()
    assert plain.made() == other.made()
    with pytest.raises(ConfigError, match=r"swap\.device"):
        load(None, swap__device="gpu")


def test_builds_for_cpus_and_gpus_in_one_folder_are_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from mfmc_ray.swap.device import __main__ as program

    monkeypatch.setattr(program, "installed", {"onnxruntime": "1.32.0"}.get)
    assert program.main() == 0
    assert "swap.device auto: " in capsys.readouterr().out
    monkeypatch.setattr(program, "installed", {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1", "faiss-gpu": "1.15.1"}.get)
    assert program.main() == 1
    assert "pip install --no-deps --force-reinstall onnxruntime-gpu==1.31.1" in capsys.readouterr().out
