"""What a local Ray leaves: nothing, however it ends. (A command that is killed: tests/e2e/test_survival.py.)"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import ray

from mfmc_ray.config import RayConfig
from mfmc_ray.discreet import told
from mfmc_ray.pipeline import session
from mfmc_ray.pipeline.session import connect
from mfmc_ray.private import short_link

pytestmark = pytest.mark.ray


def test_leftovers_are_gone_before_a_command_works_and_its_own_when_it_fails(tmp_path: Path) -> None:
    work = tmp_path / ("deep" * 25)
    old = work / "ray" / "s" / "session_2026-01-31_00-00-00_000000_1" / "logs"
    old.mkdir(parents=True)
    links = [short_link(work, work / "ray" / "s").parent]

    def failing() -> None:
        with connect(RayConfig(actors=1), work):
            assert not old.parent.exists()
            assert not os.path.lexists(links[0])
            assert (work / "ray").stat().st_mode & 0o077 == 0
            (new,) = (work / "ray" / "s").glob("session_2*")
            assert Path(ray._private.worker._global_node.get_session_dir_path()).resolve() == new.resolve()
            links.append(Path((work / "elsewhere").read_text()))
            assert [path.name for path in links[1].iterdir()] == ["s"]  # nothing but the way to WORK
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert list(work.iterdir()) == []
    assert len(links) == 2
    assert not any(os.path.lexists(link) for link in links)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "[::1]:1"])
def test_a_cluster_that_is_not_there_is_said_soon(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "PATIENCE", 0.1)
    monkeypatch.delattr(ray, "init")  # which would wait for many minutes
    with pytest.raises(ConnectionError, match="no Ray cluster answers at") as caught, connect(RayConfig(address=address), tmp_path):
        pass
    assert told(caught.value) == str(caught.value)  # without --verbose, too
    assert not ray.is_initialized()
