"""What of a command line becomes a job on a cluster: its name, its command, and the files that it brings along.

A job's command, name and metadata are shown to everybody who sees the cluster, so they hold no place and no name of the collection: those
are in a configuration file, which travels beside the command.
"""

from __future__ import annotations

import copy
import datetime
import hashlib
import json
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import mfmc_ray
from mfmc_ray.config import ACCESS_PLACES, MORPH, ConfigError
from mfmc_ray.discreet import names_allowed
from mfmc_ray.folders import run_settings
from mfmc_ray.places import full, inside, is_remote

VERBS = {"scan": 2, "index": 2, "identities": 2, "anonymize": 2, "audit": 1, "nightly": 0, "evaluate": 2}
"""What can be submitted, and how many places its command line may name: INPUT and OUT, or OUT."""
FOLDERS = "folders"
"""Labels that are no place."""
CONFIG = "mfmc-job.yaml"
PLACES = (
    *(("input",), ("out",), ("work",), ("find", "boxes"), ("guard", "galleries"), ("guard", "calibration")),
    *(("access", name) for name in ACCESS_PLACES),
    *(("output", "c2pa_certificate"), ("output", "c2pa_key"), ("swap", "swapper"), ("evaluate", "labels")),
)
"""Settings that name a file or folder."""
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_PRIVATE = ("--config", "-c", "--storage-options", "--audience", "--known", "--beside", "--work", "--calibration")
_FILED = tuple(f"--{at[-1].replace('_', '-')}" for at in PLACES if len(at) > 1)
_MADE = ("pseudonym.key", "run.json")
"""Files that show that a folder is a run's WORK."""
_NOT_SENT = (".git", ".venv", "node_modules", "__pycache__")
_SHOWN = "what a job's command line says is shown to everybody who sees the cluster"


class SubmissionError(RuntimeError):
    """A job cannot be submitted or followed; the message says what would do."""


@dataclass(frozen=True)
class Job:
    """A job that can be submitted.

    Attributes:
        id: its submission id, the same for the same verb, settings and day.
        entrypoint: its command.
        runtime_env: Ray's runtime environment, with local folders that are uploaded.
        metadata: what is shown beside it.
        resources: entrypoint_* of Ray's: what its driver needs.
        local: the settings that name places of this machine, which every node must see by the same names.
    """

    id: str
    entrypoint: str
    runtime_env: dict[str, Any]
    metadata: dict[str, str]
    resources: dict[str, Any] = field(default_factory=dict)
    local: tuple[str, ...] = ()

    def shown(self) -> dict[str, Any]:
        """Plain data about it: of environment variables only the names."""
        environment = copy.deepcopy(self.runtime_env)
        if "env_vars" in environment:
            environment["env_vars"] = sorted(environment["env_vars"])
        plain = {"submission_id": self.id, "entrypoint": self.entrypoint, "runtime_env": environment, "metadata": self.metadata}
        return {**plain, **self.resources, "places every node must see": list(self.local)}


def job_of(
    verb: str,
    arguments: Sequence[str],
    stage: Path,
    *,
    config_file: Path | None = None,
    work: str | None = None,
    name: str | None = None,
    working_dir: Path | None = None,
    installed: bool = False,
    pip: Sequence[str] = (),
    environment: Sequence[str] = (),
    resources: dict[str, Any] | None = None,
    today: datetime.date | None = None,
) -> Job:
    """The job that does what `mfmc VERB ARGUMENTS --config FILE` does here.

    Args:
        verb: of `VERBS`.
        arguments: places first, then options.
        stage: an empty folder, in which the files are put that are uploaded; it must stay until the job is submitted.
        config_file: the YAML file.
        work: WORK, instead of the file's.
        name: the submission id; None: made of verb, settings and day.
        working_dir: a folder that is uploaded and that the job works in; the configuration file is in it, and `jobs/` and `mfmc_ray/` are
            used if they are there. None: only the configuration is uploaded.
        installed: use the mfmc-ray that the nodes have, rather than upload this one.
        pip: requirements that are installed for the job.
        environment: variables of the job, as NAME=VALUE, or NAME for the value that it has here.
        resources: entrypoint_num_cpus, entrypoint_memory, entrypoint_resources.
        today: UTC.

    Raises:
        ConfigError: it cannot be a job as it is; says what to change.
    """
    if verb not in VERBS:
        raise ConfigError(f"{verb!r} is no job; these are: {', '.join(VERBS)}")
    if name is not None and not _ID.fullmatch(name):
        raise ConfigError("--id wants up to 100 letters, digits, dots, dashes and underscores")
    places, options = _split(verb, arguments)
    if working_dir is not None and (places or work):
        raise ConfigError("with --working-dir, name the folders in the configuration file: it is used as it is")
    plain = _settings(verb, places, config_file, work, sent=working_dir)
    folder = stage if working_dir is None else working_dir
    if working_dir is None:
        (stage / CONFIG).write_text(yaml.safe_dump(plain, sort_keys=False))
        config = ["--config", CONFIG]
    else:
        config = ["--config", _within(config_file, working_dir)]
    if names_allowed():
        options = [*options, "--verbose"]
    environment_of: dict[str, Any] = {"working_dir": str(folder), "excludes": ["__pycache__", "*.pyc"]}
    ships = working_dir is not None and (working_dir / "mfmc_ray" / "cli.py").is_file()
    if not installed and not ships:
        environment_of["py_modules"] = [str(Path(mfmc_ray.__file__).parent)]
    if pip:
        environment_of["pip"] = list(pip)
    if environment:
        environment_of["env_vars"] = dict(_variable(text) for text in environment)
    script = f"jobs/{verb}.py"
    command = [script] if working_dir is not None and (working_dir / script).is_file() else ["-m", "mfmc_ray.cli", verb]
    told = json.dumps([verb, options, plain], sort_keys=True, default=str)
    day = today or datetime.datetime.now(datetime.UTC).date()
    return Job(
        name or f"mfmc-{verb}-{day.isoformat()}-{hashlib.sha256(told.encode()).hexdigest()[:10]}",
        shlex.join(["python", *command, *config, *options]),
        environment_of,
        {"mfmc-ray": mfmc_ray.__version__, "verb": verb},
        resources or {},
        tuple(".".join(at) for at in PLACES if any(not is_remote(place) for place in _named(plain, at))),
    )


def _split(verb: str, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Places and options of a command line.

    Raises:
        ConfigError: an option may name a place, or there are too many places.
    """
    if verb == "evaluate" and arguments and arguments[0] in ("compare", "social"):
        raise ConfigError(f"`mfmc evaluate {arguments[0]}` is the work of one process: run it on a machine, it is no job")
    first = next((i for i, text in enumerate(arguments) if text.startswith("-")), len(arguments))
    places, options = list(arguments[:first]), list(arguments[first:])
    if len(places) > VERBS[verb] or (VERBS[verb] == 2 and len(places) == 1):
        wanted = {0: "no places: they are in the configuration file", 1: "OUT, or none", 2: "INPUT and OUT, or neither"}[VERBS[verb]]
        raise ConfigError(f"mfmc submit {verb} wants {wanted}")
    if any("/" in text or _names_something(text) for text in _without_labels(options)):
        raise ConfigError(f"name places, storage options and audiences in the configuration file: {_SHOWN}")
    return places, options


def _names_something(option: str) -> bool:
    name = option.partition("=")[0]
    return name in _FILED or name.startswith(_PRIVATE)


def _without_labels(options: Sequence[str]) -> list[str]:
    """But for `--labels folders`."""
    text = [option for option in options if option != f"--labels={FOLDERS}"]
    at = next((i for i in range(len(text) - 1) if text[i : i + 2] == ["--labels", FOLDERS]), None)
    return text if at is None else text[:at] + text[at + 2 :]


def _settings(verb: str, places: Sequence[str], config_file: Path | None, work: str | None, *, sent: Path | None) -> dict[str, Any]:
    """The settings as they are uploaded: plain data, checked; local places in full, but as they are in a folder that is `sent`."""
    if sent is not None:
        _refuse_private(sent)
    given = dict(zip(("out",) if verb == "audit" else ("input", "out"), places, strict=False))
    own = ("out", "work") if verb == "audit" else ("input", "out", "work")
    settings = run_settings(config_file, **{"input": "-" if verb == "audit" else None, "out": None, **given}, work=work)
    plain: dict[str, Any] = {} if config_file is None else yaml.safe_load(config_file.read_text()) or {}
    plain |= {name: getattr(settings, name) for name in own}
    plain.get("ray", {}).pop("address", None)  # a job's cluster is the one it is on
    for at in PLACES:
        named = _named(plain, at)
        if sent is not None:
            if at in (("out",), ("work",)) and any(_relative(place) for place in named):
                raise ConfigError(
                    f"`{at[-1]}:` is in the job's own folder, which goes when the job ends: give a full path that all nodes see"
                )
            if len(at) == 1 and any(not is_remote(place) and inside(full(place), full(str(sent))) for place in named):
                raise ConfigError(
                    f"`{at[-1]}:` is in --working-dir, all of which is uploaded: put it elsewhere, or leave --working-dir out"
                )
            continue
        whole = [place if is_remote(place) else str(Path(place.removeprefix("file://")).expanduser().absolute()) for place in named]
        if whole and whole != named:
            section = plain if len(at) == 1 else plain[at[0]]
            section[at[-1]] = whole if isinstance(section[at[-1]], (list, tuple)) else whole[0]
    return plain


def _named(plain: dict[str, Any], at: tuple[str, ...]) -> list[str]:
    """The places that a setting names."""
    value: Any = plain
    for name in at:
        value = value.get(name) if isinstance(value, dict) else None
    if (at, value) in ((("swap", "swapper"), MORPH), (("evaluate", "labels"), FOLDERS)):
        return []
    return [value] if isinstance(value, str) else [str(place) for place in value or ()]


def _refuse_private(folder: Path) -> None:
    """Nothing private is uploaded, whatever the configuration names.

    Raises:
        ConfigError: there is a run's WORK in the folder.
    """
    for at, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(_NOT_SENT)]
        if any(name in files for name in _MADE):
            raise ConfigError(f"{at} is a run's private folder, and --working-dir would upload it: move it out of {folder}")


def _relative(place: str) -> bool:
    return not is_remote(place) and not Path(place.removeprefix("file://")).expanduser().is_absolute()


def _within(config_file: Path | None, working_dir: Path) -> str:
    """The configuration file's name from within the folder."""
    try:
        if config_file is None:
            raise ValueError
        return str(config_file.resolve().relative_to(working_dir.resolve()))
    except ValueError:
        raise ConfigError("with --working-dir, --config names a file in that folder") from None


def _variable(text: str) -> tuple[str, str]:
    name, is_given, value = text.partition("=")
    if not is_given and name not in os.environ:
        raise ConfigError(f"--env {name}: it is not set here; give {name}=VALUE")
    return name, value if is_given else os.environ[name]
