"""The Dockerfiles and the cluster of `ray up`: what can be said of them without building or starting anything."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

import mfmc_ray
from mfmc_ray.faces.store import load_lock

CLUSTER = Path(__file__).parents[2] / "cluster"
ROOT = CLUSTER.parent
DOCKERFILES = {"cpu": CLUSTER / "Dockerfile", "gpu": CLUSTER / "Dockerfile.cuda"}
TAGGED = re.compile(r"[a-z0-9/]+:\d+\.\d+\.\d+[a-z0-9.-]*")


def instructions(path: Path) -> list[tuple[str, str]]:
    """Those of a Dockerfile with their text, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


@pytest.fixture(params=["cpu", "gpu"])
def image(request: pytest.FixtureRequest) -> tuple[str, list[tuple[str, str]]]:
    return request.param, instructions(DOCKERFILES[request.param])


def test_it_is_built_from_a_pinned_tag_for_the_locks_python(image: tuple[str, list[tuple[str, str]]]) -> None:
    name, lines = image
    (base,) = (text for word, text in lines if word == "FROM")
    assert TAGGED.fullmatch(base), "a tag with all three numbers, of the default registry"
    assert base.startswith("python:3.11.")
    assert (CLUSTER / f"requirements-{name}.lock").read_text().startswith("# CPython 3.11, Linux, glibc 2.35 or later")
    assert base.endswith("-bookworm")  # glibc 2.36


def test_packages_come_by_hash(image: tuple[str, list[tuple[str, str]]]) -> None:
    name, lines = image
    runs = [text for word, text in lines if word == "RUN"]
    pips = [text for text in runs if "pip install" in text]
    assert len(pips) == 2
    assert f"pip install --require-hashes --no-deps --only-binary :all: -r requirements-{name}.lock" in pips[0]
    assert pips[1].startswith("pip install --no-deps --no-build-isolation .")
    assert not any(word in text for text in runs for word in ("curl ", "http", "git clone", "index-url", "trusted-host"))


def test_what_it_copies_is_there_and_goes_into_the_build(image: tuple[str, list[tuple[str, str]]]) -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line[1:].rstrip("/") for line in ignore if line.startswith("!")}
    assert "*" in ignore
    for word, text in image[1]:
        assert word != "ADD"
        if word == "COPY":
            *sources, _ = text.split()
            for source in sources:
                assert (ROOT / source).exists(), source
                assert source in kept or f"{Path(source).parent}/*{Path(source).suffix}" in kept, f"{source} is ignored"
    copied = {source for word, text in image[1] if word == "COPY" for source in text.split()[:-1]}
    assert copied == {f"cluster/requirements-{image[0]}.lock", "pyproject.toml", "README.md", "LICENSE", "mfmc_ray"}


def test_it_runs_as_nobody_who_could_change_it(image: tuple[str, list[tuple[str, str]]]) -> None:
    words = [word for word, _ in image[1]]
    assert dict(image[1])["USER"] == "1000:1000"
    assert not {"COPY", "RUN"} & set(words[words.index("USER") :])
    assert "chown" not in " ".join(text for _, text in image[1])


def test_it_has_the_models_of_a_run_and_no_other(image: tuple[str, list[tuple[str, str]]]) -> None:
    """What is not for commercial use is in no image; what ships with the package need not be pulled; evaluation pulls its own."""
    (pulled,) = (text for word, text in image[1] if word == "RUN" and "models pull" in text)
    evaluation = re.compile("evaluation only|^graph of ")
    wanted = [one.name for one in load_lock() if one.commercial and not one.shipped and not evaluation.search(one.role)]
    assert pulled.partition("models pull ")[2].split() == wanted
    assert "MFMC_MODELS_DIR=/opt/mfmc/models" in " ".join(text for word, text in image[1] if word == "ENV")


def test_it_says_what_it_is(image: tuple[str, list[tuple[str, str]]]) -> None:
    assert f"VERSION={mfmc_ray.__version__}" in [text for word, text in image[1] if word == "ARG"]
    labels = dict(re.findall(r'org\.opencontainers\.image\.([a-z.]+)="([^"]*)"', dict(image[1])["LABEL"]))
    assert labels["licenses"] == "Apache-2.0"
    assert labels["base.name"] == f"docker.io/library/{dict(image[1])['FROM']}"
    assert {"title", "description", "version", "revision"} <= labels.keys()


def test_both_images_differ_in_nothing_but_their_packages() -> None:
    def plain(path: Path) -> list[tuple[str, str]]:
        names = (("requirements-gpu", "requirements-cpu"), ("CUDA image", "CPU image"), ("mfmc-ray-cuda", "mfmc-ray"))
        found = []
        for word, text in instructions(path):
            for before, after in names:
                text = text.replace(before, after)
            found.append((word, re.sub(r"NVIDIA_\w+=\S+\s+", "", text)))
        return found

    assert plain(DOCKERFILES["cpu"]) == plain(DOCKERFILES["gpu"])


def aws() -> dict[str, Any]:
    plain: dict[str, Any] = yaml.safe_load((CLUSTER / "aws.yaml").read_text())
    return plain


def test_ray_up_would_take_it() -> None:
    """Ray's own check: its schema, the defaults it fills in, and what it wants of node types."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(aws()))


def test_ray_up_refuses_a_mistake() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    wrong = aws() | {"idle_timeout": 10}
    with pytest.raises(Exception, match="idle_timeout"):
        validate_config(prepare_config(wrong))


def test_commands_of_ray_up_are_commands_of_this_ray() -> None:
    from ray.scripts.scripts import start

    commands = [shlex.split(line) for name in ("head", "worker") for line in aws()[f"{name}_start_ray_commands"]]
    starts = [words for words in commands if words[:2] == ["ray", "start"]]
    assert len(starts) == 2
    for words in starts:
        with start.make_context("start", words[2:]) as context:
            assert isinstance(context, click.Context)
    assert starts[0][2] == "--head"
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert [words for words in commands if words not in starts] == [["ray", "stop"]] * 2


def test_aws_holds_no_credential_and_opens_nothing() -> None:
    config = aws()
    assert not re.search(r"AKIA|aws_secret|AWS_SECRET|BEGIN .*PRIVATE", (CLUSTER / "aws.yaml").read_text())
    assert config["provider"]["use_internal_ips"] is True
    assert "--env=RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert config["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    head, *workers = (one["node_config"] for one in config["available_node_types"].values())
    assert "InstanceMarketOptions" not in head
    assert all(one["InstanceMarketOptions"]["MarketType"] == "spot" for one in workers)
    for node in (head, *workers):
        assert node["MetadataOptions"]["HttpTokens"] == "required"
        assert all(disk["Ebs"]["Encrypted"] for disk in node["BlockDeviceMappings"])
        assert "Name" in node["IamInstanceProfile"]


def test_aws_runs_the_images_of_this_version() -> None:
    config = aws()
    images = [config["docker"]["image"], config["available_node_types"]["gpu"]["docker"]["worker_image"]]
    assert [image.rpartition("/")[2] for image in images] == [f"{name}:{mfmc_ray.__version__}" for name in ("mfmc-ray", "mfmc-ray-cuda")]
    assert config["max_workers"] == sum(one.get("max_workers", 0) for one in config["available_node_types"].values())
    assert "boto3==" in (CLUSTER / "requirements-cpu.lock").read_text()  # the head starts workers with it
