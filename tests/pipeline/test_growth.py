"""A cluster that grows: what its autoscaler is asked for, how long, and that the request does not outlive the waiting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import ray

from mfmc_ray.config import NodesConfig
from mfmc_ray.discreet import told
from mfmc_ray.errors import USER_ERRORS
from mfmc_ray.pipeline import growth
from mfmc_ray.pipeline.growth import GrowthError, wait_for


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[dict[str, float]]]:
    requests: list[list[dict[str, float]]] = []
    monkeypatch.setattr(growth, "request_resources", lambda bundles: requests.append(bundles))
    monkeypatch.setattr(growth, "POLL_SECONDS", 0.001)
    return requests


def becomes(monkeypatch: pytest.MonkeyPatch, *sizes: dict[str, Any]) -> None:
    """The cluster's resources, one after the other, then the last."""
    coming: Iterator[dict[str, Any]] = iter(sizes)
    last = dict(sizes[-1])
    monkeypatch.setattr(ray, "cluster_resources", lambda: next(coming, last))


def test_nothing_is_asked_for_where_nothing_is_wanted_or_all_is_there(asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    becomes(monkeypatch, {"memory": 1.0})
    wait_for(NodesConfig())
    becomes(monkeypatch, {"CPU": 16.0, "GPU": 2.0})
    wait_for(NodesConfig(cpus=16, gpus=2))
    assert asked == []


def test_it_waits_until_all_is_there_and_takes_the_request_back(asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    becomes(monkeypatch, {}, {"CPU": 2.0}, {"CPU": 2.0, "GPU": 1.0}, {"CPU": 4.0, "GPU": 1.0})
    wait_for(NodesConfig(cpus=2.5, gpus=1))
    assert asked == [[{"CPU": 1}, {"CPU": 1}, {"CPU": 1}, {"GPU": 1}], []]


def test_a_cluster_that_stays_small_is_an_error(asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    becomes(monkeypatch, {"CPU": 2.0})
    with pytest.raises(GrowthError, match="has 2 CPUs and 0 GPUs after 0 minutes") as caught:
        wait_for(NodesConfig(gpus=1, minutes=0))
    assert isinstance(caught.value, USER_ERRORS)
    assert "maxReplicas" in told(caught.value)
    assert asked[-1] == []
