"""cluster/kubernetes: what an API server would take, what belongs together, and that nothing in it is open."""

from __future__ import annotations

import copy
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from schemas import documents, faults, ray_schemas

import mfmc_ray
from mfmc_ray.config import load

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "cluster" / "kubernetes"
WAYS = ("standing", "once", "alpha", "example")
FILES = [path for path in sorted(MANIFESTS.rglob("*.yaml")) if path.name not in ("kustomization.yaml", "nightly.yaml")]
ALL = {(one["kind"], one["metadata"]["name"]): one for path in FILES for one in documents(path)}
CLUSTER = ALL["RayCluster", "mfmc"]
JOB = ALL["RayJob", "mfmc-once"]
RAY_CRON = ALL["RayCronJob", "mfmc-nightly"]
CRON = ALL["CronJob", "mfmc-nightly"]
SUBMIT = CRON["spec"]["jobTemplate"]["spec"]
RAY_PODS = [CLUSTER["spec"]["headGroupSpec"]["template"], *(group["template"] for group in CLUSTER["spec"]["workerGroupSpecs"])]
SPOT = {
    "cloud.google.com/gke-spot",
    "eks.amazonaws.com/capacityType",
    "karpenter.sh/capacity-type",
    "kubernetes.azure.com/scalesetpriority",
}


@pytest.fixture(scope="session")
def schemas(shared_data: Path) -> dict[str, dict[str, Any]]:
    folder = shared_data / "kuberay_crds"
    if not folder.is_dir():
        pytest.skip("KubeRay's resource definitions are not among the test data")
    return ray_schemas(folder)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(MANIFESTS)))
def test_the_api_server_would_take_it(path: Path, schemas: dict[str, dict[str, Any]]) -> None:
    for document in documents(path):
        assert faults(document, schemas) == []


def _at(document: dict[str, Any], *way: str | int) -> Any:
    value: Any = document
    for step in way:
        value = value[step]
    return value


HEAD_POD = ("spec", "headGroupSpec", "template", "spec")
MISTAKES: list[tuple[dict[str, Any], Callable[[dict[str, Any]], object]]] = [
    (CLUSTER, lambda one: one["spec"].update(workerGroups=[])),
    (CLUSTER, lambda one: one["spec"].pop("headGroupSpec")),
    (CLUSTER, lambda one: one["spec"]["workerGroupSpecs"][0].update(maxReplicas="8")),
    (CLUSTER, lambda one: one["spec"]["authOptions"].update(mode="secret")),
    (CLUSTER, lambda one: _at(one, *HEAD_POD, "containers", 0).update(imagePullPolicyy="Always")),
    (CLUSTER, lambda one: _at(one, *HEAD_POD, "containers", 0, "securityContext").update(runAsRoot=False)),
    (CLUSTER, lambda one: _at(one, *HEAD_POD, "containers", 0, "resources", "limits").update(cpu="two")),
    (CLUSTER, lambda one: _at(one, *HEAD_POD, "containers", 0, "env").append({"name": "HOME", "value": "/"})),
    (JOB, lambda one: one["spec"].update(concurrencyPolicy="Forbid")),
    (JOB, lambda one: one["spec"].update(backoffLimit="3")),
    (RAY_CRON, lambda one: one["spec"].pop("schedule")),
    (RAY_CRON, lambda one: one["spec"].update(concurrencyPolicy="Forbid")),
    (CRON, lambda one: one["spec"].update(concurrency="Forbid")),
    (CRON, lambda one: _at(one, "spec", "jobTemplate", "spec", "template", "spec").update(restart="Never")),
    (ALL["NetworkPolicy", "dashboard"], lambda one: one["spec"].update(types=["Ingress"])),
    (ALL["PersistentVolumeClaim", "mfmc-work"], lambda one: one["spec"].update(accessModes="ReadWriteMany")),
]


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_a_mistake_is_seen(number: int, schemas: dict[str, dict[str, Any]]) -> None:
    document, mistake = MISTAKES[number]
    wrong = copy.deepcopy(document)
    mistake(wrong)
    assert faults(wrong, schemas)


def test_one_cluster_in_three_places() -> None:
    assert JOB["spec"]["rayClusterSpec"] == CLUSTER["spec"]
    assert RAY_CRON["spec"]["jobTemplate"] | {"activeDeadlineSeconds": 0} == JOB["spec"] | {"activeDeadlineSeconds": 0}
    assert RAY_CRON["spec"]["schedule"] == CRON["spec"]["schedule"]


def test_versions_are_those_of_the_lock_and_of_the_package() -> None:
    lock = (ROOT / "cluster" / "requirements-cpu.lock").read_text()
    assert f"\nray=={CLUSTER['spec']['rayVersion']} \\\n" in lock
    images = {container["image"] for _, pod in pods() for container in pod["containers"]}
    assert images == {f"mfmc-ray:{mfmc_ray.__version__}", f"mfmc-ray-cuda:{mfmc_ray.__version__}"}
    example = yaml.safe_load((MANIFESTS / "example" / "kustomization.yaml").read_text())
    assert {one["name"]: one["newTag"] for one in example["images"]} == dict.fromkeys(("mfmc-ray", "mfmc-ray-cuda"), mfmc_ray.__version__)


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod's spec in all manifests, with a name."""

    def walk(value: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
        if isinstance(value, dict):
            if "containers" in value:
                yield where, value
            for name, one in value.items():
                yield from walk(one, f"{where}.{name}")
        elif isinstance(value, list):
            for number, one in enumerate(value):
                yield from walk(one, f"{where}[{number}]")

    for (kind, name), document in ALL.items():
        yield from walk(document, f"{kind}/{name}")


def test_no_container_has_more_rights_than_it_needs() -> None:
    """As the namespace's pod security level `restricted` demands, and more."""
    found = list(pods())
    assert len(found) == 1 + 3 + 2 * (3 + 1)
    assert ALL["Namespace", "mfmc"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    allowed = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    for where, pod in found:
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True, where
        assert context["runAsUser"] == context["runAsGroup"] == 1000, where
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, where
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(), where
        assert all("hostPath" not in volume for volume in pod["volumes"]), where
        for container in pod["containers"]:
            assert container["securityContext"] == allowed, where
            assert container["resources"]["requests"].keys() <= container["resources"]["limits"].keys(), where
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), where
            mounts = {one["mountPath"]: one for one in container["volumeMounts"]}
            assert "/tmp" in mounts, where
            assert all(one["readOnly"] for path, one in mounts.items() if path == "/etc/mfmc"), where
        if "headGroupSpec" not in where:  # the autoscaler beside the head asks the API server for pods
            assert pod["automountServiceAccountToken"] is False, where
    assert CLUSTER["spec"]["autoscalerOptions"]["securityContext"] == allowed


def test_credentials_come_from_secrets_only() -> None:
    assert not any(kind == "Secret" for kind, _ in ALL)
    told = (ROOT / "docs" / "cluster.md").read_text()
    for where, pod in pods():
        for container in pod["containers"]:
            for one in container["env"]:
                secret = any(word in one["name"] for word in ("KEY", "SECRET", "TOKEN", "PASSWORD"))
                assert secret == ("valueFrom" in one), f"{where}: {one['name']}"
            ray = "spec.headGroupSpec" in where or "workerGroupSpecs" in where or "rayClusterSpec" in where
            given = [one["secretRef"]["name"] for one in container.get("envFrom", [])]
            assert given == (["mfmc-s3"] if ray else []), where
            assert all(f"secret generic {name}" in told for name in given)


def test_ray_asks_for_a_token() -> None:
    assert CLUSTER["spec"]["authOptions"] == {"mode": "token"}
    (container,) = SUBMIT["template"]["spec"]["containers"]
    environment = {one["name"]: one for one in container["env"]}
    assert environment["RAY_AUTH_MODE"]["value"] == "token"
    assert environment["RAY_AUTH_TOKEN"]["valueFrom"] == {"secretKeyRef": {"name": CLUSTER["metadata"]["name"], "key": "auth_token"}}
    assert container["command"][-1] == f"http://{CLUSTER['metadata']['name']}-head-svc:8265"


def test_the_network_is_closed_but_for_what_is_named() -> None:
    policies = {name: one["spec"] for (kind, name), one in ALL.items() if kind == "NetworkPolicy"}
    assert policies["closed"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    ports = {}
    for name, policy in policies.items():
        for rule in policy.get("ingress", []):
            assert rule["from"], name  # an empty one would let everybody in
            assert all(one != {} and (one.get("podSelector") or {}).get("matchLabels") for one in rule["from"]), name
            ports[name] = [one["port"] for one in rule.get("ports", [])]
    assert ports == {"ray-nodes": [], "dashboard": [8265]}
    (nodes,) = policies["ray-nodes"]["ingress"]
    assert nodes["from"] == [{"podSelector": policies["ray-nodes"]["podSelector"]}]
    label = policies["submit"]["podSelector"]["matchLabels"].items()
    for template in (SUBMIT["template"], JOB["spec"]["submitterPodTemplate"]):
        assert label <= template["metadata"]["labels"].items()
    assert not any(label <= template["metadata"]["labels"].items() for template in RAY_PODS)
    assert CLUSTER["spec"]["headGroupSpec"]["serviceType"] == "ClusterIP"


def test_the_head_stays_and_workers_may_go() -> None:
    head, *workers = (template["spec"] for template in RAY_PODS)
    (term,) = head["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert {one["key"] for one in term["matchExpressions"]} == SPOT
    assert {one["operator"] for one in term["matchExpressions"]} == {"NotIn"}
    assert "tolerations" not in head
    for pod in workers:
        wanted = pod["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
        values = {one["preference"]["matchExpressions"][0]["key"]: one["preference"]["matchExpressions"][0]["values"] for one in wanted}
        assert values == {one["key"]: one["values"] for one in term["matchExpressions"]}
        assert {one["key"] for one in pod["tolerations"]} >= {"cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority"}
        assert pod["restartPolicy"] == "Never"  # as the autoscaler's second version demands
    assert CLUSTER["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_workers_come_when_they_are_wanted() -> None:
    spec = CLUSTER["spec"]
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["autoscalerOptions"]["version"] == "v2"
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    assert all(0 <= one["minReplicas"] <= one["replicas"] <= one["maxReplicas"] for one in groups.values())
    limits = {name: one["template"]["spec"]["containers"][0]["resources"]["limits"] for name, one in groups.items()}
    assert {name: one.get("nvidia.com/gpu") for name, one in limits.items()} == {"cpu": None, "gpu": "1"}
    assert "nvidia.com/gpu" in {one["key"] for one in groups["gpu"]["template"]["spec"]["tolerations"]}


def test_all_pods_that_run_the_work_see_it_and_the_settings() -> None:
    claims, settings = ALL["PersistentVolumeClaim", "mfmc-work"], load(MANIFESTS / "base" / "nightly.yaml")
    assert claims["spec"]["accessModes"] == ["ReadWriteMany"]
    generated = yaml.safe_load((MANIFESTS / "base" / "kustomization.yaml").read_text())["configMapGenerator"]
    for template in RAY_PODS:
        volumes = {one["name"]: one for one in template["spec"]["volumes"]}
        mounts = {one["name"]: one["mountPath"] for one in template["spec"]["containers"][0]["volumeMounts"]}
        assert volumes["work"]["persistentVolumeClaim"]["claimName"] == claims["metadata"]["name"]
        assert volumes["settings"]["configMap"]["name"] == generated[0]["name"]
        assert Path(settings.work).parent == Path(mounts["work"])  # below it: a folder that is made with mode 700
    config = f"{mounts['settings']}/{generated[0]['files'][0]}"
    assert JOB["spec"]["entrypoint"] == f"mfmc nightly --config {config}"
    submit = SUBMIT["template"]["spec"]["containers"][0]["command"]
    assert submit[:3] == ["mfmc", "submit", "nightly"]
    assert submit[submit.index("--config") + 1] == config


@pytest.mark.parametrize("folder", ["base", "example"])
def test_the_settings_can_be_read(folder: str) -> None:
    settings = load(MANIFESTS / folder / "nightly.yaml")
    hours = settings.nightly.max_hours
    assert hours is not None
    assert hours * 3600 + settings.nightly.wait_minutes * 60 < SUBMIT["activeDeadlineSeconds"]
    assert hours * 3600 < RAY_CRON["spec"]["jobTemplate"]["activeDeadlineSeconds"]
    assert settings.input.startswith("s3://")
    assert settings.out.startswith("s3://")


def test_a_night_is_tried_again_where_that_may_help() -> None:
    """Exit codes 2 and 3 (docs/nightly.md) are final; all others are counted; a drained submitter is not."""
    from mfmc_ray.nightly_cli import BUSY, NOT_STARTED

    codes, disruption = SUBMIT["podFailurePolicy"]["rules"]
    assert codes["action"] == "FailJob"
    assert codes["onExitCodes"] == {"containerName": "submit", "operator": "In", "values": [2, NOT_STARTED]}
    assert BUSY not in codes["onExitCodes"]["values"]
    assert disruption["action"] == "Ignore"
    assert SUBMIT["template"]["spec"]["restartPolicy"] == "Never"  # a failure policy wants it
    assert CRON["spec"]["concurrencyPolicy"] == "Forbid"
    assert SUBMIT["backoffLimit"] > 0
    assert JOB["spec"]["backoffLimit"] > 0
    assert JOB["spec"]["shutdownAfterJobFinishes"] is True


def test_every_folder_names_what_is_there() -> None:
    for path in MANIFESTS.rglob("kustomization.yaml"):
        plain = yaml.safe_load(path.read_text())
        named = [*plain["resources"], *(file for one in plain.get("configMapGenerator", []) for file in one["files"])]
        assert named
        assert all((path.parent / name).exists() for name in named), path
        assert plain["namespace"] == "mfmc"
    assert {path.parent.name for path in MANIFESTS.rglob("kustomization.yaml")} == {"base", *WAYS}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("way", WAYS)
def test_kustomize_builds_what_the_api_server_would_take(way: str, schemas: dict[str, dict[str, Any]]) -> None:
    done = subprocess.run(["kubectl", "kustomize", str(MANIFESTS / way)], capture_output=True, text=True, check=True)
    built = {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(done.stdout)}
    for (kind, _), document in built.items():
        assert faults(document, schemas) == []
        assert kind == "Namespace" or document["metadata"]["namespace"] == "mfmc"
    assert "nightly.yaml" in built["ConfigMap", "mfmc-settings"]["data"]
    if way == "example":
        assert built["PersistentVolumeClaim", "mfmc-work"]["spec"]["storageClassName"] == "shared"
        assert built["RayCluster", "mfmc"]["spec"]["workerGroupSpecs"][1]["maxReplicas"] == 16
        assert "image: mfmc-ray" not in done.stdout  # each is replaced by where it was pushed, in the custom resource, too
