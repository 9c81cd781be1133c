"""The plan is a pure function of settings and nodes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfmc_ray.config import ConfigError, RayConfig, ServiceConfig, load
from mfmc_ray.pipeline.profiles import LOOK, SWAP, Node, ProfileError, plan, without_services

CUDA = ("CUDAExecutionProvider", "CPUExecutionProvider")
CPU = ("CPUExecutionProvider",)
LAPTOP = [Node("a", 8)]
CPUS = [Node("head", 0), Node("a", 16), Node("b", 16)]
GPUS = [Node("head", 4), *(Node(name, 8, 1, CUDA) for name in "ab")]


@pytest.mark.parametrize(
    ("nodes", "chosen"),
    [
        (LAPTOP, "local"),
        (CPUS, "cpu-cluster"),
        ([Node("head", 0), Node("a", 16)], "local"),
        (GPUS, "gpu"),
        ([Node("a", 8, 1, CUDA)], "gpu"),
        ([Node("a", 8, 1, CPU)], "local"),  # a GPU that nothing here can use
        ([Node("a", 8, 1, CPU), Node("b", 8)], "cpu-cluster"),
    ],
)
def test_auto(nodes: list[Node], chosen: str) -> None:
    made = plan(RayConfig(), nodes)
    assert made.profile == chosen
    wasted = any(node.gpus for node in nodes) and chosen != "gpu"
    assert [("onnxruntime" in note) for note in made.notes] == [True] * wasted


def test_local_has_a_worker_on_each_cpu_and_leaves_one_free_for_ray() -> None:
    made = plan(RayConfig(profile="local"), LAPTOP)
    assert (made.actors, made.cpus, made.threads, made.in_flight, made.roles) == (8, 0.875, 1, 1, ())
    assert made.share(3) == 1.0
    assert made.told() == []


def test_one_cpu() -> None:
    assert plan(RayConfig(), [Node("a", 1)]).cpus == 0.5


def test_gpu_has_two_services_a_gpu_and_twice_as_many_workers_as_cpus() -> None:
    made = plan(RayConfig(profile="gpu"), GPUS)
    assert [(role.name, role.actors, role.gpus, role.cpus, role.batch) for role in made.roles] == [
        (LOOK, 2, 0.5, 1.0, 16),
        (SWAP, 2, 0.5, 1.0, 16),
    ]
    assert made.free == (4, 6, 6)
    assert made.actors == 32
    assert made.providers == "cpu"
    assert made.service_providers == "auto"
    assert made.told() == ["Profile gpu: 32 workers; services: 2 that look on 0.5 GPU each, 2 that swap on 0.5 GPU each"]
    assert made.published()["services"][LOOK] == {"actors": 2, "gpus": 0.5, "lanes": 4, "batch": 16}


def test_services_take_no_more_than_half_of_the_cpus_beside_their_gpus() -> None:
    made = plan(RayConfig(profile="gpu"), [Node("head", 2), Node("a", 1, 1, CUDA), Node("b", 1, 1, CUDA)])
    assert [role.cpus for role in made.roles] == [0.25, 0.25]
    assert made.free == (2, 0.5, 0.5)


def test_every_knob() -> None:
    look = ServiceConfig(actors=4, gpus=0.125, cpus=0.5, lanes=2, batch=32, wait_ms=5.0)
    config = RayConfig(
        profile="gpu",
        actors=5,
        cpus=0.3,
        threads=2,
        in_flight=3,
        providers="tensorrt",
        store_gib=0.5,
        look=look,
        swap=ServiceConfig(actors=-1),
    )
    made = plan(config, GPUS)
    assert (made.actors, made.cpus, made.share(2), made.threads, made.in_flight) == (5, 0.3, 0.3, 2, 3)
    assert made.store_bytes == 2**29
    assert made.service_providers == "tensorrt"
    (role,) = made.roles
    assert (role.actors, role.gpus, role.cpus, role.lanes, role.batch, role.wait_ms) == (4, 0.125, 0.5, 2, 32, 5.0)
    assert made.role(SWAP) is None


def test_knobs_in_yaml(tmp_path: object) -> None:
    file = tmp_path / "run.yaml"  # type: ignore[operator]
    file.write_text("ray:\n  profile: gpu\n  look: {actors: 3, batch: 32}\n  swap: {gpus: 0.25}\n")
    config = load(file).ray
    assert (config.profile, config.look.actors, config.look.batch, config.swap.gpus) == ("gpu", 3, 32, 0.25)
    with pytest.raises(ConfigError, match=r"ray\.profile \(--profile\) wants auto, local, cpu-cluster or gpu, not 'cuda'"):
        load(None, ray__profile="cuda")


def test_no_profile_decides_the_result() -> None:
    assert load(None, ray__profile="gpu").digest() == load(None).digest()


def test_gpu_without_a_gpu() -> None:
    with pytest.raises(ProfileError, match="needs a node with a GPU, and this cluster has none: add one"):
        plan(RayConfig(profile="gpu"), CPUS)


def test_more_than_there_is() -> None:
    with pytest.raises(ProfileError, match="would reserve 4 GPUs, and the cluster has 2"):
        plan(RayConfig(profile="gpu", look=ServiceConfig(gpus=1.5)), GPUS)
    with pytest.raises(ProfileError, match="nothing would run on a GPU"):
        plan(RayConfig(profile="gpu", look=ServiceConfig(actors=-1), swap=ServiceConfig(actors=-1)), GPUS)


def test_a_cluster_that_grows_is_planned_for_by_numbers() -> None:
    config = RayConfig(profile="gpu", actors=64, cpus=0.5, look=ServiceConfig(actors=4), swap=ServiceConfig(actors=4))
    for nodes in ([Node("head", 0)], GPUS):
        made = plan(config, nodes)
        assert (made.actors, made.cpus, [role.actors for role in made.roles]) == (64, 0.5, [4, 4])
        assert any("they wait until nodes have come" in note for note in made.notes)
    assert plan(RayConfig(), [Node("head", 0)]).actors == 1


def test_gpu_said_where_onnxruntime_has_none() -> None:
    made = plan(RayConfig(profile="gpu"), [replace(node, providers=CPU) for node in GPUS])
    assert "services run on CPUs" in made.notes[0]


def test_a_pass_without_services_does_not_oversubscribe() -> None:
    config = RayConfig(profile="gpu")
    alone = without_services(plan(config, GPUS), config)
    assert (alone.actors, alone.roles) == (16, ())
    local = plan(RayConfig(), LAPTOP)
    assert without_services(local, RayConfig()) is local


@given(st.lists(st.integers(0, 64), min_size=1, max_size=6).filter(any), st.integers(1, 200))
def test_all_workers_fit_on_the_nodes(cpus: list[int], workers: int) -> None:
    made = plan(RayConfig(actors=workers), [Node(str(i), n) for i, n in enumerate(cpus)])
    for actors in (workers, max(1, workers // 2)):
        share = made.share(actors)
        assert 0 < share <= 1
        assert sum(math.floor(n / share + 1e-9) for n in cpus) >= actors
        assert share * actors <= max(sum(cpus) - 1, 0.5) + 1e-9
