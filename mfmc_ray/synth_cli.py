"""`mfmc synth`: a collection of people who do not exist."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from mfmc_ray.config import ConfigError, RayConfig


def synth(
    out: Annotated[Path, typer.Argument(help="A new folder, or one that an interrupted command has left.")],
    classes: Annotated[
        Literal["random", "equal"], typer.Option(help="People as the generator makes them, or exactly as many of each class.")
    ] = "random",
    by: Annotated[str, typer.Option(help="What classes are made of: sex, age and tone, or some of them.")] = "sex,age,tone",
    people: Annotated[
        int, typer.Option(min=1, max=5000, help="How many; with --classes equal the next number that the classes divide.")
    ] = 200,
    photos: Annotated[int, typer.Option(min=1, max=200, help="Of each person.")] = 8,
    groups: Annotated[int | None, typer.Option(min=0, help="Photos of 2 to 6 people. Default: one for five people.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Other seeds, other people.")] = 0,
    size: Annotated[int, typer.Option(min=160, max=1024, help="Longer side of photos, px.")] = 512,
    wear: Annotated[
        bool, typer.Option("--wear/--no-wear", help="Each person wears a sampled identity, as fakes do, or the generator's own face.")
    ] = True,
    actors: Annotated[int | None, typer.Option(min=1, help="Worker processes, 1.5 GB each (default: one for each CPU).")] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to use (default: RAY_ADDRESS, else a local one).")] = None,
) -> None:
    """Make a collection of people who do not exist: several photos of each, group photos, and what is true of them in tables.

    The generator's weights are for NON-COMMERCIAL use only, and so are its pictures. The same options give the same files. Run an
    interrupted command again to go on.

    Example: mfmc synth faces/ --classes equal --people 216 --photos 8
    """
    from mfmc_ray.evaluate.synth.classes import PARTS
    from mfmc_ray.evaluate.synth.collection import class_table
    from mfmc_ray.evaluate.synth.settings import Settings
    from mfmc_ray.pipeline.synth import synthesize

    parts = tuple(part.strip() for part in by.split(","))
    if not set(parts) <= set(PARTS):
        raise ConfigError(f"--by wants some of {', '.join(PARTS)}, not {by!r}")
    ordered = tuple(part for part in PARTS if part in parts)
    settings = Settings(classes, ordered, people, photos, people // 5 if groups is None else groups, seed, size, wear)
    number = len(settings.wishes())
    if number != people:
        Console(stderr=True, highlight=False).print(f"{number} people, not {people}: exactly as many of each class.")
    about = synthesize(out, settings, RayConfig(address=address, actors=actors or 0))
    counts = about["counts"]
    console = Console(highlight=False, soft_wrap=True)
    heading, *rows = class_table(about)
    table = Table(*heading)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print(f"{counts['people']} people, {counts['photos']} photos, {counts['groups']} of them of groups, {counts['faces']} faces.")
    console.print(f"{about['notice']} Written: {out} (README.md)")
