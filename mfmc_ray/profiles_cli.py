"""`mfmc profiles`: how the work of a run would be shared out on a cluster."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from mfmc_ray import config


def profiles(
    config_file: Annotated[Path | None, typer.Option("--config", "-c", help="YAML file with settings; those below `ray:` count.")] = None,
    profile: Annotated[str | None, typer.Option(metavar="auto|local|cpu-cluster|gpu", help="Profile to plan for (default auto).")] = None,
    actors: Annotated[int | None, typer.Option(min=1, help="Worker processes (default: as the profile has it).")] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to ask (default: RAY_ADDRESS, else this machine).")] = None,
) -> None:
    """Show the plan that a run would follow on this cluster as it is now: workers, services, and what each reserves.

    Nothing is started but, without a cluster, a local Ray for a moment. What each setting does is in docs/cluster.md.
    """
    from mfmc_ray.pipeline import session

    settings = config.load(config_file, ray__profile=profile, ray__actors=actors, ray__address=address).ray
    with tempfile.TemporaryDirectory(prefix="mfmc-") as work, session.connect(settings, work):
        nodes, made = session.nodes(), session.plan_of(settings)
    table = Table(title=f"profile {made.profile}", title_justify="left")
    for heading in ("what", "how many", "CPUs each", "GPUs each", "at a time", "runs networks on"):
        table.add_column(heading, justify="left" if heading in ("what", "runs networks on") else "right")
    threads = f"{made.providers}, {made.threads} thread{'s' * (made.threads > 1)}"
    parts = f"{made.in_flight} part{'s' * (made.in_flight > 1)}"
    table.add_row("workers", str(made.actors), f"{made.cpus:g}", "0", parts, "services" if len(made.roles) == 2 else threads)
    for role in made.roles:
        doing = f"{role.lanes} requests, {role.batch} faces"
        table.add_row(f"services: {role.name}", str(role.actors), f"{role.cpus:g}", f"{role.gpus:g}", doing, made.service_providers)
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    console.print(f"{len(nodes)} nodes, {sum(node.cpus for node in nodes):g} CPUs, {sum(node.gpus for node in nodes):g} GPUs")
    for note in made.notes:
        console.print(note, markup=False)
