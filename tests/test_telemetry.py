"""No library tells its maker anything, or makes an id of the user to do so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mfmc_ray.faces.store import cache_dir

USED = """
import mfmc_ray
from mfmc_ray.faces.detect import YuNet
from mfmc_ray.evaluate import people
import numpy, openvino
YuNet().detect(numpy.zeros((64, 64, 3), numpy.uint8))
openvino.Core()
"""


@pytest.mark.models
def test_the_home_folder_stays_empty(tmp_path: Path) -> None:
    for name in ("home", "tmp"):
        (tmp_path / name).mkdir()
    kept = {name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "CI", "TF_BUILD")}
    places = {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp"), "MFMC_MODELS_DIR": str(cache_dir())}
    done = subprocess.run([sys.executable, "-c", USED], env=kept | places, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["home", "tmp"]


@pytest.mark.parametrize(("set_to", "becomes"), [(None, "1"), ("", "1"), ("1", "1"), ("0", "0")])
def test_onnxruntime_is_told_before_it_is_loaded(set_to: str | None, becomes: str) -> None:
    """Who sets it has decided."""
    kept = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    code = "import mfmc_ray, os, sys; assert 'onnxruntime' not in sys.modules; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = kept | ({} if set_to is None else {"ORT_DISABLE_TELEMETRY": set_to})
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == becomes
