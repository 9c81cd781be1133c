"""`mfmc known`: what the known faces of a run are worth as a guard."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mfmc_ray.config import ConfigError
from mfmc_ray.discreet import names_allowed

if TYPE_CHECKING:
    from mfmc_ray.known.capacity import Capacity, Span

app = typer.Typer(
    no_args_is_help=True, help="The known faces that no fake may resemble: how well they are told apart, and how many can be."
)

Json = Annotated[bool, typer.Option("--json", help="Print plain data instead of tables.")]


@app.command()
def calibrate(
    work: Annotated[Path, typer.Argument(metavar="WORK_OR_OUT", help="A run's private folder, or a local OUT whose WORK is beside it.")],
    people: Annotated[
        str | None,
        typer.Option(
            metavar="folder|FILE.csv",
            help='Who is who: "folder" if each person\'s photos have a folder, or a CSV file with columns path and person.',
        ),
    ] = None,
    fakes: Annotated[int, typer.Option(min=0, help="Render so many fakes and measure them too; 200 take about half a minute.")] = 0,
    as_json: Json = False,
) -> None:
    """Measure on a run's own faces how often each guard recognizer takes strangers for the same person.

    The rates stand beside the shipped ones. If the people are labelled and many enough, curves are written to WORK/calibration; a run takes
    them with --calibration. Nothing leaves WORK. The closest pairs are named with --verbose.
    """
    from mfmc_ray.pipeline.calibrate import calibrate_run

    folder = _work_of(work)
    with Console(stderr=True).status("Measuring impostor pairs"):
        result = calibrate_run(folder, people, fakes)
    if not names_allowed():
        for about in result["recognizers"].values():
            about["closest"] = [{"cosine": pair["cosine"], "paths": []} for pair in about["closest"]]
    if as_json:
        typer.echo(json.dumps(result, indent=1, ensure_ascii=False))
        return
    console = Console(highlight=False, soft_wrap=True)
    for name, about in result["recognizers"].items():
        table = Table(title=f"{name}: strangers taken for the same person", title_justify="left")
        for heading in ("pairs of", "pairs", "from", "highest", f"rate at {about['strict_threshold']:.3f} (95 %)", *_RATE_HEADINGS):
            table.add_column(heading, justify="left" if heading in ("pairs of", "from") else "right", overflow="fold")
        for row in [about["shipped"], *about["rows"]]:
            table.add_row(*_cells(row))
        console.print(table)
        console.print(about["verdict"], markup=False)
        for pair in about["closest"][:3] if names_allowed() else ():
            console.print(f"  {pair['cosine']:.3f}  {'  '.join(pair['paths'])}", markup=False)
    console.print("* extrapolated: beyond what 30 pairs support, by an exponential tail")
    for name, note in result["notes"].items():
        console.print(f"{name}: {note}", markup=False)
    if result["written"]:
        console.print(f"To use them: mfmc anonymize … --calibration {folder / 'calibration'} (a run that has begun: with --restart)")


@app.command()
def capacity(
    faces: Annotated[int | None, typer.Option(min=0, help="Known faces. Default: those of --work.")] = None,
    work: Annotated[
        Path | None, typer.Option(metavar="WORK_OR_OUT", help="A run to compare with: what it has offered and admitted.")
    ] = None,
    recognizers: Annotated[str | None, typer.Option(help="Guard recognizers, with commas between (default: the run's, or all).")] = None,
    images: Annotated[
        int | None, typer.Option(min=0, help="Faces to be replaced, which decide the size of the pool. Default: as many as are known.")
    ] = None,
    calibration: Annotated[str | None, typer.Option(help="Folder with false-match curves (default: those that ship).")] = None,
    trial: Annotated[
        int,
        typer.Option(min=0, help="Fakes to make for the cost of one; 0: no costs. With --work and 50 or more, their own match rate too."),
    ] = 4,
    as_json: Json = False,
) -> None:
    """Foretell what a number of known faces takes: the chance that a random fake passes, the pool, the cost, when thresholds move.

    Example: mfmc known capacity --faces 100000
    """
    from mfmc_ray.known.calibration import CalibrationError
    from mfmc_ray.known.capacity import attempts
    from mfmc_ray.pipeline.forecast import forecast

    if faces is None and work is None:
        raise ConfigError("give a number of known faces with --faces, or a run with --work")
    names = None if recognizers is None else [name.strip() for name in recognizers.split(",")]
    folder = None if work is None else _work_of(work)
    try:
        result = forecast(faces, names, work=folder, images=images, calibration=calibration, trial=trial)
    except CalibrationError as error:
        if names is None and calibration is None:
            raise
        raise ConfigError(str(error)) from error
    if as_json:
        typer.echo(json.dumps(result.plain(), indent=1))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(_outlook(result.capacity))
    for line in result.lines():
        console.print(line, markup=False)
    table = Table(title="For orientation", title_justify="left")
    names = [one.recognizer for one in result.capacity.each]
    for heading in ("known faces", *names, "a fake passes all", "fakes for one that passes", "offered for a pool", "admitted"):
        table.add_column(heading, justify="right", overflow="fold", no_wrap=heading == "known faces")
    for one, supplies in result.table:
        thresholds = [f"{each.threshold.value:.3f}{'†' if each.threshold.capacity_exceeded else ''}" for each in one.each]
        chances = [one.dependent.value, one.independent.value]
        numbers: list[list[float]] = [[attempts(p) for p in chances], [s.offered for s in supplies], [s.admitted for s in supplies]]
        table.add_row(
            f"{one.faces:,}", *thresholds, _both(_chance(v) for v in chances), *(_both(_count(v) for v in pair) for pair in numbers)
        )
    console.print(table)
    console.print("Where there are two: the recognizers' errors depend fully on each other – are independent. * extrapolated")
    console.print("† capacity exceeded: the threshold may not rise any further")


_RATE_HEADINGS = ("cosine at 1e-3", "at 1e-4", "at 1e-5")


def _cells(row: Mapping[str, Any]) -> list[str]:
    """A row of the rates' table."""
    if "rate" in row:
        rate = row["rate"]
        shown = f"{rate['rate']:.1e}{'*' if rate['extrapolated'] else ''} ({rate['low']:.1e}–{rate['high']:.1e})"
        cosines = [f"{one['cosine']:.3f}{'*' if one['extrapolated'] else ''}" for one in row["cosines"]]
    else:
        shown, cosines = f"{row['matches']} pairs", ["–"] * len(_RATE_HEADINGS)
    highest = "" if row["highest"] is None else f"{row['highest']:.3f}"
    return [row["source"], f"{row['pairs']:,}", f"{row['drawn']:,} {row['from']}", highest, shown, *cosines]


def _outlook(found: Capacity) -> Table:
    """The recognizers, each and all together, against a number of known faces."""
    table = Table(title=f"Against {found.faces:,} known faces", title_justify="left")
    for heading in ("guard", "threshold", "false-match rate (95 %)", "a random fake passes (95 %)", "moves at", "exceeded at"):
        table.add_column(heading, justify="left" if heading == "guard" else "right", overflow="fold")
    for one in found.each:
        rate = one.threshold.rate
        shown = f"{rate.rate:.1e}{'*' if rate.extrapolated else ''} ({rate.low:.1e}–{rate.high:.1e})"
        moves = f"{_count(one.moves_at.value)} ({_count(one.moves_at.low)}–{_count(one.moves_at.high)})"
        table.add_row(one.recognizer, f"{one.threshold.value:.3f}", shown, _span(one.chance), moves, _count(one.exceeded_at))
    table.add_row("all, if independent", "", "", _span(found.independent), "", "")
    table.add_row("all, if fully dependent", "", "", _span(found.dependent), "", "")
    return table


def _span(span: Span) -> str:
    return f"{_chance(span.value)} ({_chance(span.low)}–{_chance(span.high)})"


def _chance(value: float) -> str:
    return f"{value:.3f}" if value >= 0.01 else f"{value:.0e}" if value >= 1e-12 else "never"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value < 1e6 else f"{value:.0e}" if value < 1e12 else "never"


def _both(texts: Iterable[str]) -> str:
    return " – ".join(dict.fromkeys(texts))


def _work_of(place: Path) -> Path:
    """The private folder of a run, given itself or its OUT."""
    candidates: Sequence[Path] = (place, place.absolute().with_name(place.absolute().name + "-work"))
    for folder in candidates:
        if (folder / "run.json").is_file() or (folder / "known").is_dir():
            return folder
    raise ConfigError(f"{place} is no private folder of a run (WORK), and there is none beside it; give the folder of --work")
