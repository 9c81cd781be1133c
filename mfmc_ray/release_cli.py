"""`mfmc release`: one published result for each audience."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from mfmc_ray.config import ConfigError
from mfmc_ray.folders import run_settings

if TYPE_CHECKING:
    from mfmc_ray.pipeline.releases import Release


def release(
    audiences: Annotated[
        list[str],
        typer.Option(
            "--audience", help="everyone, group:NAME (or NAME) or viewer:NAME. Repeatable; the first one's run does what they share."
        ),
    ],
    config_file: Annotated[Path, typer.Option("--config", "-c", help="YAML file with all settings: input, out, work, access.")],
    address: Annotated[str | None, typer.Option(help="Ray cluster to use (default: the file's, RAY_ADDRESS, else a local one).")] = None,
    actors: Annotated[int | None, typer.Option(min=1, help="Worker processes (default: one for each CPU).")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Start all of them anew.")] = False,
) -> None:
    """Make a release for each audience, or bring it up to date: OUT/everyone, OUT/group-friends, OUT/viewer-bob.

    Each is a whole result that can be audited and handed over by itself. Faces are found, and fakes made, once; only images that another
    audience may see otherwise are made anew for it, and files without any are the same in both (hard links on a local disk).

    Example: mfmc release --config release.yaml --audience everyone --audience group:friends
    """
    from mfmc_ray.pipeline.releases import release as make

    settings = run_settings(config_file, input=None, out=None, work=None, ray__address=address, ray__actors=actors)
    if settings.access.model != "rules":
        raise ConfigError(f"{config_file}: audiences are of `access: {{model: rules}}`; other models have one release (docs/access.md)")
    make(settings, audiences, restart=restart, tell=_told)


def _told(done: Release) -> None:
    counts = done.manifest["counts"]
    faces = ", ".join(f"{n:,} {verdict}" for verdict, n in counts["faces"].items()) or "none"
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{done.audience}: faces {faces}. {done.shared} files are the first release's. Published in {done.out}", markup=False)
    console.print(f"  Check it: mfmc audit {done.out} --work {done.work}", markup=False)
