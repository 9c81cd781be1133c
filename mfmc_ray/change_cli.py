"""`mfmc known list|add|remove`: the known faces of a finished run, and changes to them."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from mfmc_ray.config import ConfigError
from mfmc_ray.discreet import names_allowed
from mfmc_ray.folders import finished_run

Out = Annotated[str, typer.Argument(help="The published folder or prefix of a finished run.")]
Work = Annotated[str | None, typer.Option(help="The run's private folder. Default: OUT-work beside a local OUT.")]
Storage = Annotated[str | None, typer.Option(help="JSON passed to fsspec, for a remote gallery, input or OUT.")]
Actors = Annotated[int | None, typer.Option(min=1, help="Worker processes (default: one for each CPU).")]
Address = Annotated[str | None, typer.Option(help="Ray cluster to use (default: RAY_ADDRESS, else a local one).")]
SHOWN = 20


def list_(out: Out, work: Work = None, storage_options: Storage = None) -> None:
    """Show the generations of the known-face index: when, how many faces, what was removed since."""
    from mfmc_ray.ledger import Ledger
    from mfmc_ray.pipeline.change import generations

    settings = finished_run(out, work, storage_options, None, None)
    table = Table()
    for heading in ("generation", "created", "faces", "removed since", "digest"):
        table.add_column(heading, justify="left" if heading in ("created", "digest") else "right", overflow="fold")
    rows = generations(Ledger(settings.out, settings.work, settings.storage_options))
    for row in rows:
        faces = f"removes {row['removes']}" if row["removes"] else f"{row['rows']:,}"
        table.add_row(str(row["generation"]), row["created"][:19], faces, f"{row['removed'] or ''}", row["digest"][:12] + "…")
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    console.print(f"{sum(row['rows'] - row['removed'] for row in rows):,} known faces. Generation 0: portraits fakes are made of")


def add(
    gallery: Annotated[str, typer.Argument(help="Photos of further people: a folder, glob, URL, Parquet or .tar files.")],
    out: Out,
    work: Work = None,
    storage_options: Storage = None,
    actors: Actors = None,
    address: Address = None,
) -> None:
    """Make more people known to a finished run, and everything it has published hold against them.

    Fake identities and published faces are compared with the new faces only. What resembles one of them is given another fake, or covered,
    before the command ends; until then OUT has no manifest.

    Example: mfmc known add newcomers/ published/
    """
    from mfmc_ray.pipeline.change import add as add_gallery
    from mfmc_ray.pipeline.run import Run

    change, unread = add_gallery(Run.finished(finished_run(out, work, storage_options, actors, address)), gallery)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{change.changed} faces added: {change.known:,} are known, generation {change.generation}.")
    if unread:
        console.print(f"[yellow]{unread} pictures of the gallery could not be read:[/yellow] nobody in them is known.")
    console.print(f"Left the pool: {len(change.identities)} fake identities that no longer held.")
    console.print(f"Anonymized anew: the images of {len(change.faces)} published faces that no longer held.")
    if names_allowed():
        for path, face in change.faces[:SHOWN]:
            console.print(f"  {path}#{face}", markup=False)
        if len(change.faces) > SHOWN:
            console.print(f"  … and {len(change.faces) - SHOWN} more")
    console.print(f"Details: {change.report}")


def remove(
    out: Out,
    path: Annotated[list[str] | None, typer.Option(help="Forget all faces in images with this path; * and ? are wild. Repeatable.")] = None,
    image: Annotated[list[str] | None, typer.Option(help="Forget all faces of this image_id (sha-256). Repeatable.")] = None,
    face: Annotated[list[str] | None, typer.Option("--id", help="Forget this known face, such as IMAGE_ID:0. Repeatable.")] = None,
    work: Work = None,
    storage_options: Storage = None,
    actors: Actors = None,
    address: Address = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Forget people: no embedding of theirs stays in the private folder, which is then searched for them.

    Published faces stay replaced. Take the photos out of the collection and its galleries, too: a run that starts anew would find them.

    Example: mfmc known remove published/ --path 'galleries/ada/*'
    """
    from mfmc_ray.pipeline.change import find, forget
    from mfmc_ray.pipeline.run import Run

    run = Run.finished(finished_run(out, work, storage_options, actors, address))
    found = find(run, paths=path or (), images=image or (), ids=face or ())
    console = Console(highlight=False, soft_wrap=True)
    if not found:
        raise ConfigError("no scanned face has such a path, image_id or id; give --path, --image or --id")
    for name, where in found[:SHOWN]:  # who is asked must know about whom
        console.print(f"  {where}  {name}" if names_allowed() or not yes else f"  {name}", markup=False)
    if len(found) > SHOWN:
        console.print(f"  … and {len(found) - SHOWN} more")
    what = "this face" if len(found) == 1 else f"these {len(found)} faces"
    if not yes and not typer.confirm(f"Forget {what} for ever?"):
        console.print("Nothing was removed.")
        raise typer.Exit(1)
    change, traces = forget(run, [name for name, _ in found])
    console.print(f"{change.changed} known faces removed: {change.known:,} are known, generation {change.generation}.")
    searched = f"{traces.files} files of the private folder ({traces.size / 1e6:.1f} MB)"
    if traces.found:
        console.print(
            f"[red]Embeddings were still found[/red] in {', '.join(traces.found)}: the same picture is known by another name, too."
        )
        sys.exit(1)
    if not traces.embeddings:
        console.print(f"None of their embeddings was there any more, so none could be looked for. Details: {change.report}")
        return
    console.print(f"{searched} were searched for {traces.embeddings} embeddings: none is left. Proof: {change.report}")
