"""The gpu profile on a cluster with logical GPUs: who runs where, the same rows as `local`, and actors that are killed in the middle."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from PIL import Image
from ray.cluster_utils import Cluster
from skimage import data

from mfmc_ray.config import RayConfig, RunConfig, load
from mfmc_ray.pipeline.profiles import ProfileError
from mfmc_ray.pipeline.run import Run
from mfmc_ray.pipeline.session import plan_of

pytestmark = [pytest.mark.ray, pytest.mark.models]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head of two CPUs without a GPU, and two nodes of one CPU and one logical GPU."""
    before = dict(os.environ)
    os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 150_000_000, "include_dashboard": False})
    try:
        for _ in range(2):
            made.add_node(num_cpus=1, num_gpus=1, object_store_memory=150_000_000)
        ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
        yield made
    finally:
        ray.shutdown()
        made.shutdown()
        os.environ.clear()
        os.environ |= before


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    face = data.astronaut()
    Image.fromarray(face).save(root / "face.jpg", quality=92)
    Image.fromarray(np.hstack([face, face[:, ::-1]])).save(root / "two.png")
    Image.fromarray(data.chelsea()).save(root / "cat.png")
    (root / "empty.jpg").write_bytes(b"")
    return root


def settings(photos: Path, root: Path, profile: str) -> RunConfig:
    places = {"input": str(photos), "out": str(root / profile), "work": str(root / f"{profile}-work")}
    knobs = {"ray__profile": profile, "ray__actors": 2, "ray__look__actors": 1, "ray__swap__actors": 1}
    # parts of two images only where there are workers for them: rows do not depend on it
    return load(None, **places, **knobs, swap__identities=8, swap__attempts=4, output__rows_per_part=2 if profile == "gpu" else 128)


@pytest.fixture(scope="module")
def local(cluster: Cluster, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A finished run with the profile `local`."""
    config = settings(photos, tmp_path_factory.mktemp("runs"), "local")
    run = Run(config)
    with run.session():
        assert run.all()["resources"]["profile"] == "local"
        assert run._services.ask() is None
    return config


@contextlib.contextmanager
def killed_at_work(run: Run, role: str) -> Iterator[list[int]]:
    """Kills a service of this role as soon as it works on a request; the value gets its process id."""
    pids: list[int] = []
    over = threading.Event()

    def kill() -> None:
        while not over.is_set():
            for one in run._services.about().get(role, []):
                if one["busy"]:
                    os.kill(one["pid"], signal.SIGKILL)
                    pids.append(one["pid"])
                    return
            time.sleep(0.02)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield pids
    finally:
        over.set()
        thread.join()


def tables(config: RunConfig) -> dict[str, pa.Table]:
    """What a run has found and published, without the time at which a file was listed."""
    places = {"scan": Path(config.work) / "scan", "faces": Path(config.out) / "faces", "images": Path(config.out) / "images"}
    read = {name: pa.concat_tables([pq.read_table(file) for file in sorted(place.glob("*.parquet"))]) for name, place in places.items()}
    return read | {"scan": read["scan"].drop_columns(["unit_listed"])}


def test_the_graph_is_scheduled_as_meant_and_killed_services_change_no_row(cluster: Cluster, photos: Path, local: RunConfig) -> None:
    config = settings(photos, Path(local.out).parent, "gpu")
    Path(config.work).mkdir(mode=0o700)
    shutil.copy2(Path(local.work) / "pseudonym.key", config.work)  # the same random choices
    run = Run(config)
    with run.session():
        run._looking()
        with killed_at_work(run, "look") as looked:
            run.scan()
        run._certifying(run.index())
        about = run._services.about()
        with killed_at_work(run, "swap") as swapped:
            run.anonymize()
        after = run._services.about()
        resources = run.read_manifest()["resources"]
    assert len(looked) == len(swapped) == 1
    assert [after[role][0]["pid"] not in (looked + swapped) for role in ("look", "swap")] == [True, True]

    gpu_nodes = {node["NodeID"] for node in ray.nodes() if node["Resources"].get("GPU")}
    head = ray.get_runtime_context().get_node_id()
    assert head not in gpu_nodes
    for role in ("look", "swap"):
        assert [(one["node"] in gpu_nodes, one["gpus"], one["cpus"]) for one in about[role]] == [(True, 0.5, 0.5)]
        assert after[role][0]["node"] in gpu_nodes
        assert resources["services"][role]["providers"] == ["CPUExecutionProvider"]
    workers = [actor for actor in ray._private.state.actors().values() if "_Worker" in actor["ActorClassName"]]
    assert head in {actor["Address"]["NodeID"] for actor in workers}
    assert any("CUDA" in note for note in resources["notes"])
    assert tables(local).keys() == tables(config).keys()
    for name, table in tables(local).items():
        assert table.num_rows > 0
        assert table.equals(tables(config)[name]), name
    assert "replaced" in tables(config)["faces"]["verdict"].to_pylist()


def test_no_gpu_at_all(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    from mfmc_ray.pipeline import session

    there = session.nodes()
    monkeypatch.setattr(session, "nodes", lambda: [node for node in there if not node.gpus])
    with pytest.raises(ProfileError, match="needs a node with a GPU, and this cluster has none"):
        plan_of(RayConfig(profile="gpu"))
