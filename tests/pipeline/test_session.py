"""What a local Ray leaves: nothing, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from mfmc_ray.config import RayConfig
from mfmc_ray.pipeline.session import connect

pytestmark = pytest.mark.ray
KILLED = """
import os, signal, sys, psutil
from mfmc_ray.config import RayConfig
from mfmc_ray.pipeline.session import connect
with connect(RayConfig(actors=1), sys.argv[1]):
    for child in psutil.Process().children(recursive=True):  # or they would tidy up for a while
        child.kill()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_command_left_is_gone_before_the_next_one_works(tmp_path: Path) -> None:
    work = tmp_path / ("deep" * 25)
    work.mkdir(mode=0o700)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(work)], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (old,) = (work / "ray" / "s").glob("session_2*")
    link = Path((work / "elsewhere").read_text())
    assert [path.name for path in link.iterdir()] == ["s"]  # nothing but the way to WORK
    assert (link / "s").resolve() == (work / "ray" / "s").resolve()
    links = [link]

    def failing() -> None:
        with connect(RayConfig(actors=1), work):
            assert not old.exists()
            assert not os.path.lexists(link)
            assert (work / "ray").stat().st_mode & 0o077 == 0
            (new,) = (work / "ray" / "s").glob("session_2*")
            assert Path(ray._private.worker._global_node.get_session_dir_path()).resolve() == new.resolve()
            links.append(Path((work / "elsewhere").read_text()))
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert list(work.iterdir()) == []
    assert len(links) == 2
    assert not any(os.path.lexists(one) for one in links)
