"""`mfmc evaluate`: comparisons on made-up worlds."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from mfmc_ray.config import ConfigError

if TYPE_CHECKING:
    from mfmc_ray.evaluate.social.behaviour import Behaviour
    from mfmc_ray.evaluate.social.figures import Figures
    from mfmc_ray.evaluate.social.network import Habits
    from mfmc_ray.pipeline.social import Pictured, Published

PICTURED_USERS, PICTURED_FRIENDS = 12, 4
"""At most, of a network with pictures: more generated people resemble each other."""
app = typer.Typer(no_args_is_help=True, help="Comparisons on made-up worlds.")


@app.callback()
def _group() -> None:
    """Comparisons on made-up worlds."""  # with one verb only, typer would leave its name out


@app.command()
def social(
    folder: Annotated[Path, typer.Argument(help="Folder for the tables and the plot; made if absent.")] = Path("mfmc-social"),
    users: Annotated[int, typer.Option(min=3, help="Users of the network.")] = 200,
    friends: Annotated[int, typer.Option(min=2, help="Friends of each, on average.")] = 12,
    photos: Annotated[float, typer.Option(min=0.1, help="Photos that each uploads, on average.")] = 4.0,
    runs: Annotated[int, typer.Option(min=1, help="Networks that are made, each from another seed; the mean is shown.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of the first network.")] = 0,
    errors: Annotated[
        bool, typer.Option("--errors/--no-errors", help="Recognition errs as often as was measured. With --no-errors it never does.")
    ] = True,
    pictures: Annotated[
        int | None,
        typer.Option(min=1, help="Draw so many photos of generated people, and run the whole pipeline on them; minutes. Default: none."),
    ] = None,
    assume: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE: another share of what people are like or do (docs/social.md). Repeatable.")
    ] = None,
) -> None:
    """Compare the access models in a simulated social network: who sees whom, what it asks of people, which originals are shown.

    Users, friendships, uploads, tags, approvals and rules are made up by stated chances; what is shown to whom is decided by the access
    models themselves. Writes social.json, social.csv and social.svg.

    Example: mfmc evaluate social --users 500 --assume tag=0.9
    """
    from mfmc_ray.evaluate.social.behaviour import MEASURED, assumed, recognised, said
    from mfmc_ray.evaluate.social.figures import figures_of, mean
    from mfmc_ray.evaluate.social.network import make_network
    from mfmc_ray.evaluate.social.output import COLUMNS, write

    try:
        habits, behaviour = assumed(assume or ())
        if errors:
            given = {name for name, _, _ in (pair.partition("=") for pair in assume or ())}
            behaviour = replace(behaviour, **{name: rate for name, rate in MEASURED.items() if name not in given})
        results: list[list[Figures]] = []
        published: list[Published] = []
        if pictures:
            users, friends, runs = min(users, PICTURED_USERS), min(friends, PICTURED_FRIENDS), 1
            drawn = _with_pictures(folder, pictures, users, friends, habits, behaviour, seed)
            results, published = [drawn.figures], drawn.published
        for run in range(0 if pictures else runs):
            rng = np.random.default_rng(seed + run)
            network = make_network(users, friends, photos, habits, rng)
            sightings = recognised(network, behaviour, rng)
            results.append(figures_of(network, said(network, sightings, behaviour, rng), sightings))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    figures = mean(results)
    size = {"users": users, "friends": friends, "photos": photos, "runs": runs, "seed": seed}
    settings: dict[str, Any] = {"network": size, "habits": asdict(habits), "behaviour": asdict(behaviour)}
    if pictures:  # who is recognised is no assumption then
        del settings["behaviour"]["missed"], settings["behaviour"]["mistaken"]
        settings["pictures"] = {"asked": pictures, "lost": drawn.lost, "original_bytes": drawn.original_bytes}
    written = write(folder, figures, results, settings, [asdict(one) for one in published])
    table = Table()
    for heading in ("", *(one.model for one in figures)):
        table.add_column(heading, justify="right" if heading else "left")
    for name, heading, put in COLUMNS:
        table.add_row(heading, *(put(getattr(one, name)) for one in figures))
    console = Console(highlight=False, soft_wrap=True)
    first = figures[0]
    console.print(f"{runs} networks of {users} users: {first.photos:,} photos, {first.faces:,} faces, {first.exposures:,} exposures.")
    console.print(table)
    if published:
        console.print(f"With pictures ({drawn.lost} photos were left out, in which other faces were found than were drawn):")
        console.print(_published(published))
    console.print(f"Written: {', '.join(map(str, written))}")


def _with_pictures(folder: Path, pictures: int, users: int, friends: int, habits: Habits, behaviour: Behaviour, seed: int) -> Pictured:
    from mfmc_ray.pipeline.social import pictured, small_network

    console = Console(stderr=True, highlight=False)
    console.print("The people are generated with MobileStyleGAN, whose weights are [bold]for non-commercial use only[/bold].")
    rng = np.random.default_rng(seed)
    network = small_network(pictures, users, friends, habits, rng)
    return pictured(folder / "pictures", network, behaviour, rng, lambda text: console.print(text))


def _published(published: list[Published]) -> Table:
    table = Table()
    names = ("model", "kept", "replaced", "redacted", "wrong", "missed", "seconds", "MB")
    for name in names:
        table.add_column(name, justify="left" if name == "model" else "right")
    for one in published:
        figures = (one.kept, one.replaced, one.redacted, one.wrong, one.missed, f"{one.seconds:.0f}", f"{one.bytes / 1e6:.1f}")
        table.add_row(one.model, *map(str, figures))
    return table
