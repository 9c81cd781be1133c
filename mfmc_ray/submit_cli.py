"""`mfmc submit`: a verb as a job on a Ray cluster."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from mfmc_ray.config import ConfigError, load
from mfmc_ray.job import VERBS, Job, job_of

if TYPE_CHECKING:
    from mfmc_ray.pipeline.submission import Jobs

INTERRUPTED = 130
_DRIVER = "What its driver needs"


def submit(
    verb: Annotated[str | None, typer.Argument(help=f"{', '.join(VERBS)}.", metavar="VERB", show_default=False)] = None,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[INPUT OUT] [-- OPTIONS]", help="Of the verb; its options after `--`.")
    ] = None,
    config_file: Annotated[Path | None, typer.Option("--config", "-c", help="YAML file with settings, as the verb takes it.")] = None,
    work: Annotated[str | None, typer.Option(help="Private folder, which every node sees. Default: the file's.")] = None,
    address: Annotated[
        str | None, typer.Option(help="Of the cluster's dashboard, http://HEAD:8265 (default: the file's, else RAY_ADDRESS).")
    ] = None,
    name: Annotated[str | None, typer.Option("--id", help="Submission id (default: made of verb, settings and day).")] = None,
    again: Annotated[bool, typer.Option("--again", help="Once more, although the same job has succeeded.")] = False,
    follow: Annotated[str | None, typer.Option(metavar="ID", help="Follow a job that was submitted.")] = None,
    stop: Annotated[str | None, typer.Option(metavar="ID", help="Stop a job.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the job until it ends, or leave once it is accepted.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be submitted.")] = False,
    working_dir: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="Folder that is uploaded, and that the job works in: a checkout, with the file in it."
        ),
    ] = None,
    installed: Annotated[bool, typer.Option("--installed", help="Use the nodes' own mfmc-ray, rather than upload this one.")] = False,
    pip: Annotated[list[str] | None, typer.Option(help="Requirement that is installed for the job. Repeatable.")] = None,
    env: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, or NAME: a variable of the job. Repeatable.")] = None,
    num_cpus: Annotated[float | None, typer.Option(min=0, help="CPUs that are set aside for it.", rich_help_panel=_DRIVER)] = None,
    memory: Annotated[int | None, typer.Option(min=0, help="Bytes of memory, likewise.", rich_help_panel=_DRIVER)] = None,
    resources: Annotated[str | None, typer.Option(help="JSON, as '{\"head\": 0.1}'.", rich_help_panel=_DRIVER)] = None,
) -> None:
    """Run a verb as a job on a Ray cluster, follow it, and exit with its exit code.

    The same settings on the same day are the same job: submitted twice, it is followed, not run twice; one that failed is submitted anew.
    Ctrl-C leaves the job running. Places are in the configuration file (or INPUT and OUT here), which is uploaded with this mfmc-ray;
    what is local must be seen by every node at the same path. docs/jobs.md has more.

    Example: mfmc submit nightly --config nightly.yaml --address http://head:8265
    """
    if sum(given is not None for given in (verb, follow, stop)) != 1:
        raise ConfigError("give a VERB to submit, or --follow ID, or --stop ID")
    if follow is not None or stop is not None:
        jobs = _jobs(address, config_file)
        if stop is not None:
            _say(f"{stop}: stopping" if jobs.stop(stop) else f"{stop} was not running")
        if follow is not None:
            raise typer.Exit(_followed(jobs, follow, address))
        return
    assert verb is not None
    with tempfile.TemporaryDirectory(prefix="mfmc-job-") as stage:
        job = job_of(
            verb,
            arguments or (),
            Path(stage),
            config_file=config_file,
            work=work,
            name=name,
            working_dir=working_dir,
            installed=installed,
            pip=pip or (),
            environment=env or (),
            resources=_resources(num_cpus, memory, resources),
        )
        if dry_run:
            typer.echo(json.dumps(job.shown(), indent=2))
            return
        jobs = _jobs(address, config_file)
        submitted = _submitted(jobs, job, again)
    if submitted is None:
        return
    if not wait:
        typer.echo(submitted)
        return
    raise typer.Exit(_followed(jobs, submitted, address))


def _jobs(address: str | None, config_file: Path | None) -> Jobs:
    from mfmc_ray.pipeline.submission import Jobs

    return Jobs(address or (load(config_file).ray.address if config_file else None))


def _submitted(jobs: Jobs, job: Job, again: bool) -> str | None:
    """The id under which the job runs now; None if it has succeeded before."""
    name, status = jobs.place(job.id, again=again)
    if status == "SUCCEEDED":
        _say(f"{name} has succeeded already; --again submits it once more")
        return None
    if status is None and jobs.submit(job, name):
        if job.local:
            _say(f"Every node must see these at the same paths: {', '.join(job.local)}")
        _say(f"Submitted {name}")
    else:
        _say(f"{name} is running already")
    return name


def _followed(jobs: Jobs, name: str, address: str | None) -> int:
    """The job's exit code; what it prints is printed."""

    def tell(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    try:
        code = jobs.follow(name, tell)
    except KeyboardInterrupt:
        where = f" --address {address}" if address else ""
        _say(f"\nThe job goes on. Follow it: mfmc submit --follow {name}{where}. Stop it: mfmc submit --stop {name}{where}")
        return INTERRUPTED
    _say(f"{name} ended with exit code {code}")
    return code


def _resources(num_cpus: float | None, memory: int | None, resources: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {"entrypoint_num_cpus": num_cpus, "entrypoint_memory": memory}
    if resources is not None:
        try:
            found["entrypoint_resources"] = json.loads(resources)
        except ValueError as error:
            raise ConfigError(f"--resources wants JSON: {error}") from error
        if not isinstance(found["entrypoint_resources"], dict):
            raise ConfigError("--resources wants a JSON object")
    return {key: value for key, value in found.items() if value is not None}


def _say(text: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)
