"""The command lines in the manifests, run as they stand, with paths and addresses of this machine: nights on two nodes of Ray."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from bad_images import save
from PIL import Image
from ray_nodes import RayNodes
from skimage.data import astronaut, coffee
from test_manifests import CLUSTER, CRON, JOB, MANIFESTS, SUBMIT

pytestmark = [pytest.mark.ray, pytest.mark.models]
SECONDS = 400.0


class Pod:
    """What a pod of the manifests sees, in a folder: /etc/mfmc with the settings, /srv/mfmc, /tmp; the cluster by its service's name."""

    def __init__(self, folder: Path, cluster: RayNodes) -> None:
        self.folder, self.cluster = folder, cluster
        for name in ("etc/mfmc", "srv/mfmc", "tmp", "photos"):
            (folder / name).mkdir(parents=True)
        self.photos, self.out = folder / "photos", folder / "out"
        self.settings: dict[str, Any] = yaml.safe_load((MANIFESTS / "base" / "nightly.yaml").read_text())
        self.settings |= {"input": str(self.photos), "out": str(self.out), "work": self.here(self.settings["work"])}
        # a small run: faces are covered, no audit
        self.settings |= {"guard": {"recognizers": ["sface"]}, "swap": {"pseudonyms": "none"}}
        self.settings["ray"]["wait_for"]["cpus"] = 3
        del self.settings["nightly"]["audit"]
        self.configure()

    def here(self, text: str) -> str:
        """A command line or a path of a pod's, as it is on this machine."""
        for place in ("/etc/mfmc/", "/srv/mfmc/"):
            text = text.replace(place, f"{self.folder}{place}")
        return text.replace(f"http://{CLUSTER['metadata']['name']}-head-svc:8265", self.cluster.jobs)

    def configure(self, **nightly: Any) -> None:
        self.settings["nightly"] |= nightly
        (self.folder / "etc/mfmc/nightly.yaml").write_text(yaml.safe_dump(self.settings))

    def run(self, command: list[str], variables: list[dict[str, Any]]) -> tuple[int, str]:
        """Exit code and what was printed. The token is not on this machine but where the cluster has it."""
        environment = {name: value for name, value in self.cluster.environment.items() if not name.startswith("RAY_AUTH")}
        for one in variables:
            secret = one.get("valueFrom", {}).get("secretKeyRef")
            environment[one["name"]] = self.cluster.environment["RAY_AUTH_TOKEN"] if secret else one["value"]
        environment |= {"HOME": str(self.folder / "tmp"), "MFMC_MODELS_DIR": str(models()), "COLUMNS": "200", "NO_COLOR": "1"}
        done = subprocess.run(
            [self.here(word) for word in command],
            env=environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        return done.returncode, done.stdout

    def shown(self) -> dict[str, str]:
        """Path → verdict."""
        rows = [row for part in (self.out / "images").glob("*.parquet") for row in pq.read_table(part).to_pylist()]
        assert all(row["image"] for row in rows)
        return {row["path"]: row["verdict"] for row in rows}


def models() -> Path:
    from mfmc_ray.faces.store import cache_dir

    return cache_dir()


@pytest.fixture(scope="module")
def pod(cluster: RayNodes, tmp_path_factory: pytest.TempPathFactory) -> Pod:
    pod = Pod(tmp_path_factory.mktemp("pod"), cluster)
    face, cup = astronaut()[40:168, 160:288], np.ascontiguousarray(coffee()[100:228, 200:328])
    for name, pixels in {"a.jpg": face, "b.jpg": cup, "c.jpg": cup[::-1], "d.jpg": cup[:, ::-1]}.items():
        (pod.photos / name).write_bytes(save(Image.fromarray(pixels), "JPEG", quality=92))
    return pod


def night(pod: Pod) -> tuple[int, str]:
    """The CronJob's container."""
    (container,) = SUBMIT["template"]["spec"]["containers"]
    return pod.run(container["command"], container["env"])


def test_the_cron_jobs_own_command_line_does_a_night(pod: Pod) -> None:
    code, said = night(pod)
    assert code == 0, said
    assert pod.shown() == {"a.jpg": "anonymized"} | dict.fromkeys(("b.jpg", "c.jpg", "d.jpg"), "unchanged")
    assert (pod.folder / "srv/mfmc/work").stat().st_mode & 0o777 == 0o700


def test_a_night_that_does_not_start_ends_its_pod_with_the_code_that_ends_the_tries(pod: Pod) -> None:
    for name in ("a.jpg", "b.jpg", "d.jpg"):
        (pod.photos / name).unlink()
    code, said = night(pod)
    assert code == 3, said
    assert code in CRON["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"]
    assert len(pod.shown()) == 4


def test_the_ray_jobs_entrypoint_does_a_night_as_kuberay_submits_it(pod: Pod) -> None:
    """KubeRay's submitter: `ray job submit --no-wait`, then `ray job logs --follow` (ray-operator's common/job.go)."""
    pod.configure(max_deleted=1.0)
    name, address = JOB["metadata"]["name"], pod.cluster.jobs
    submitted = f"ray job submit --address {address} --no-wait --submission-id {name} -- {JOB['spec']['entrypoint']}"
    token = SUBMIT["template"]["spec"]["containers"][0]["env"]  # as the operator hands it to a RayJob's submitter
    code, said = pod.run(["/bin/bash", "-ce", f"{submitted}; ray job logs --address {address} --follow {name}"], token)
    assert code == 0, said
    assert pod.shown() == {"c.jpg": "unchanged"}, said
    code, said = pod.run(["ray", "job", "status", "--address", address, name], token)
    assert f"'{name}' succeeded" in said, said
