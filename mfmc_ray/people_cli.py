"""`mfmc people enroll|list|remove`: the people who are recognised in a collection."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

if TYPE_CHECKING:
    from mfmc_ray.people.registry import Registry

app = typer.Typer(
    no_args_is_help=True,
    help="Enrolled people, who are recognised in the images of a run (--people FOLDER), and whom no fake may resemble. docs/people.md",
)
Folder = Annotated[Path, typer.Argument(metavar="PEOPLE", help="Private folder of the enrolled people; no picture is kept in it.")]


@app.command()
def enroll(
    people: Folder,
    photos: Annotated[
        str,
        typer.Argument(help="A folder with a folder of photos for each person, PHOTOS/PERSON/*; or a CSV or Parquet table: path,person."),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look at the photos and say what would be refused; enrol nobody.")] = False,
) -> None:
    """Enrol people from their photos: two or three of each, sharp, of one face, are recognised best.

    Every photo that is refused is named, with the reason; all others are enrolled. Exit code 0 if none was refused, else 1. Repeat it with
    further photos whenever you like: photos that are enrolled already are passed over.

    Example: mfmc people enroll people/ portraits/
    """
    from mfmc_ray.config import RunConfig
    from mfmc_ray.faces.store import pull
    from mfmc_ray.known.calibration import Calibration
    from mfmc_ray.people.enrol import enrol
    from mfmc_ray.people.photos import listed
    from mfmc_ray.people.quality import Examiner
    from mfmc_ray.people.registry import FILE, Registry, changing
    from mfmc_ray.pipeline.manifest import models_of

    files = listed(photos)
    if not dry_run:
        Registry.open(people, new=True)  # can be made, or says why not before anything is looked at
    pull(models_of(RunConfig()))
    progress = Console(stderr=True)
    with contextlib.nullcontext() if dry_run else changing(people):
        registry = Registry(people) if dry_run and not (people / FILE).exists() else Registry.open(people, new=True)
        done = enrol(registry, files, Examiner(), Calibration(), lambda some: track(list(some), "Looking at photos", console=progress))
        if done.accepted and not dry_run:
            done.registry.write()
    console = Console(highlight=False, soft_wrap=True)
    verb = "would be enrolled" if dry_run else "enrolled"
    persons = len({photo.person for photo in done.accepted})
    before = f"; {done.unchanged} were enrolled before" if done.unchanged else ""
    console.print(f"{len(done.accepted)} photos of {persons} people {verb}{before}. {len(done.refused)} refused.")
    for one in done.refused:
        console.print(f"  {one.name}: {one.text}", markup=False)
    few = [person for person in done.registry.people() if sum(photo.person == person for photo in done.registry.photos) == 1]
    if few:
        console.print(f"{len(few)} people have one photo only: give two or three, or they are missed twice as often.")
    if not dry_run:
        console.print(f"{len(done.registry.people())} people are enrolled in {people}. To use them: mfmc anonymize … --people {people}")
    raise typer.Exit(1 if done.refused else 0)


@app.command("list")
def list_(people: Folder, as_json: Annotated[bool, typer.Option("--json", help="Print plain data instead of a table.")] = False) -> None:
    """Show who is enrolled: how many photos, since when, and how good they are."""
    from mfmc_ray.people.registry import Registry

    rows = _rows(Registry.open(people))
    if as_json:
        typer.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    table = Table()
    for heading in ("person", "photos", "enrolled", "smallest face", "least sharp", "most turned"):
        table.add_column(heading, justify="left" if heading == "person" else "right", overflow="fold")
    for row in rows:
        about = (f"{row['smallest_px']:.0f} px", f"{row['least_sharpness']:.2f}", f"{row['largest_yaw']:.0f}°")
        table.add_row(str(row["person"]), str(row["photos"]), str(row["enrolled"])[:10], *about)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(table)
    console.print(f"{len(rows)} people. Photos should have 40 px and a sharpness of 0.3 at least; two or three are recognised best")


@app.command()
def remove(
    people: Folder,
    person: Annotated[list[str], typer.Argument(help="Ids, as `mfmc people list` shows them.")],
    out: Annotated[str | None, typer.Option(help="Bring this finished run up to date at once, without them.")] = None,
    work: Annotated[str | None, typer.Option(help="That run's private folder. Default: OUT-work beside a local OUT.")] = None,
    tables: Annotated[
        list[Path] | None,
        typer.Option(help="CSV or Parquet file whose rows with these people in the column `person` are taken out, too. Repeatable."),
    ] = None,
    storage_options: Annotated[str | None, typer.Option(help="JSON passed to fsspec, for a remote input or OUT.")] = None,
    actors: Annotated[int | None, typer.Option(min=1, help="Worker processes (default: one for each CPU).")] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to use (default: RAY_ADDRESS, else a local one).")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Forget people: their photos' embeddings and their secret are gone from PEOPLE, and nobody is recognised as them any more.

    With --out they also leave that run's known faces, its private folder is searched for their embeddings, and the images that showed them
    are anonymized anew before the command ends. Without it `mfmc nightly` does the same. Killed in the middle, repeat it.

    Example: mfmc people remove people/ ada --out published/ --tables consents.csv
    """
    from mfmc_ray.folders import finished_run
    from mfmc_ray.people.registry import PeopleError, Registry, changing, person_id
    from mfmc_ray.people.strike import strike
    from mfmc_ray.pipeline.run import Run

    names = {person_id(name) for name in person}
    registry = Registry.open(people)
    absent = sorted(names - set(registry.people()))
    if absent and not (out or tables):
        raise PeopleError(f"nobody of the id {absent[0]!r} is enrolled in {people}: `mfmc people list {people}` shows who is")
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if not yes and not typer.confirm(f"Forget {', '.join(sorted(names))} for ever?"):
        console.print("Nobody was removed.")
        raise typer.Exit(1)
    settings = finished_run(out, work, storage_options, actors, address) if out else None
    if settings:
        run = Run.finished(settings)
        if run.people is None or run.people.folder != registry.folder:
            raise PeopleError(f"the run in {run.ledger.work} has other enrolled people: leave out --out, or give its own PEOPLE")
    with changing(people):
        registry = Registry.open(people)
        kept = registry.without(names)
        if kept.photos != registry.photos:
            kept.write()
    gone = len(registry.people()) - len(kept.people())
    console.print(f"{gone} people ({len(registry.photos) - len(kept.photos)} photos) removed; {len(kept.people())} are enrolled.")
    for path in tables or ():
        struck = strike(path, names)
        others = "".join(f"; {n} cells of the column {column!r} still name them" for column, n in struck.elsewhere.items())
        console.print(f"{path}: {struck.rows} rows taken out{others}.")
    if settings is None:
        console.print("Published images change with the next `mfmc nightly`, or with --out here.")
        return
    from mfmc_ray.pipeline.change import enrolment

    change, traces = enrolment(Run.finished(settings))
    console.print(f"{change.changed} known faces removed: {change.known:,} are known, generation {change.generation}.")
    if traces.found:
        console.print(f"Their embeddings are still in {', '.join(traces.found)}: the same photos are in the collection or a gallery.")
        console.print("Take them out there, or let `mfmc known remove` forget them.")
    elif traces.embeddings:
        console.print(f"{traces.files} files of the private folder were searched for {traces.embeddings} embeddings: none is left.")
    console.print(f"Details: {change.report}")


def _rows(registry: Registry) -> list[dict[str, str | int | float]]:
    """What `list` says of each person."""
    rows: list[dict[str, str | int | float]] = []
    for person in registry.people():
        photos = [photo for photo in registry.photos if photo.person == person]
        rows.append(
            {
                "person": person,
                "photos": len(photos),
                "enrolled": min(photo.enrolled for photo in photos),
                "smallest_px": round(min(photo.size for photo in photos), 1),
                "least_sharpness": round(min(photo.sharpness for photo in photos), 3),
                "largest_yaw": round(max(abs(photo.yaw) for photo in photos), 1),
            }
        )
    return rows
