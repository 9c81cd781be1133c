"""`mfmc evaluate`: what recognizers make of a result; and `mfmc evaluate social`, comparisons on made-up worlds."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from mfmc_ray.config import ConfigError, load
from mfmc_ray.folders import finished_run, names_of

if TYPE_CHECKING:
    from mfmc_ray.evaluate.social.behaviour import Behaviour
    from mfmc_ray.evaluate.social.figures import Figures
    from mfmc_ray.evaluate.social.network import Habits
    from mfmc_ray.pipeline.social import Pictured, Published

PICTURED_USERS, PICTURED_FRIENDS = 12, 4
"""At most, of a network with pictures: more generated people resemble each other."""


def evaluate(
    originals: Annotated[
        str | None, typer.Argument(help="The collection that OUT was made from, as it was given to `mfmc anonymize`.", show_default=False)
    ] = None,
    out: Annotated[
        str | None,
        typer.Argument(
            help="A run's result, or a plain folder of pictures with the same names (of another tool, a baseline).", show_default=False
        ),
    ] = None,
    config_file: Annotated[
        Path | None, typer.Option("--config", "-c", help="YAML file of the run: its input, out and work, and `evaluate: {labels: …}`.")
    ] = None,
    work: Annotated[
        str | None, typer.Option(help="Private folder; all goes into its folder `evaluation`. Default: OUT-work beside a local OUT.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Who is in the pictures: `folders` (each person's photos have one), or a CSV or Parquet table with path and person "
            "(docs/evaluate.md). Default: recognizers guess (clusters)."
        ),
    ] = None,
    recognizers: Annotated[str | None, typer.Option(help="Comma-separated names. Default: all that can be had.")] = None,
    sections: Annotated[str | None, typer.Option(help="Comma-separated names of docs/evaluate.md. Default: all.")] = None,
    beside: Annotated[
        list[str] | None, typer.Option(help="NAME=WORK of another collection's evaluation: one table of them all. Repeatable.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=20, help="Of the bootstrap, for intervals.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    storage_options: Annotated[str | None, typer.Option(help="JSON passed to fsspec.")] = None,
    actors: Annotated[int | None, typer.Option(min=1, help="Worker processes (default: one for each CPU).")] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to use (default: RAY_ADDRESS, else a local one).")] = None,
) -> None:
    """Measure a result: what recognizers that took no part in it make of the faces, before and after.

    Every picture of both is looked at once; killed, the same command goes on. Figures with 95 % intervals are in
    WORK/evaluation/evaluation.json, which is private. The originals themselves as OUT show what each recognizer is worth.

    Example: mfmc evaluate photos/ published/ --labels folders
    """
    from mfmc_ray.evaluate.sections import SECTIONS, Options
    from mfmc_ray.pipeline.evaluation import PAGE, Asked
    from mfmc_ray.pipeline.evaluation import evaluate as run
    from mfmc_ray.pipeline.known import EVALUATION

    wanted = names_of(sections)
    if unknown := [name for name in wanted or () if name not in SECTIONS]:
        raise ConfigError(f"there is no section {unknown[0]!r}; there are: {', '.join(SECTIONS)}")
    if beside and wanted is not None and "recognition" not in wanted:
        raise ConfigError("--beside shows who is recognised: add `recognition` to --sections")
    told = load(config_file)
    originals, labels = originals or told.input, labels or told.evaluate.labels
    if not originals:
        raise ConfigError("give ORIGINALS and OUT, or --config with a YAML file that has `input:` and `out:`")
    config = finished_run(out, work, storage_options, actors, address, config_file=config_file)
    options = Options(recognizers=names_of(recognizers), sections=wanted, seed=seed, rounds=rounds)
    result = run(Asked(originals, config, labels, options, tuple(beside or ())))
    console = Console(highlight=False, soft_wrap=True)
    if "recognition" in result:
        _show_recognition(result["recognition"], console)
    if "collections" in result:
        _show_collections(result["collections"], console)
    console.print(f"All figures: {config.work}/{EVALUATION}/evaluation.json (private; docs/evaluate.md says what they mean)")
    console.print(f"As a page: {config.work}/{EVALUATION}/{PAGE}")


def _show_recognition(found: dict[str, Any], console: Console) -> None:
    people, faces = found["people"], found["faces"]
    counted = ", ".join(f"{n} {verdict}" for verdict, n in faces.items() if n) or "none"
    who = {
        "folders": "by folder",
        "table": "by table",
        "clusters": "who is who was guessed by recognizers (no --labels)",
    }[people["labels"]]
    console.print(f"Faces: {counted}. People: {people['people']} ({who}), {people['with_other_photos']} with several photos.")
    table = Table(
        caption="rank 1 in a gallery of other originals; TAR: taken for the same person at a false-accept rate of 1e-3; 95 % intervals"
    )
    for heading in ("recognizer", "its own rank 1", "TAR", "EER", "rank 1 after", "chance", "TAR after", "EER after", "same photo, rank 1"):
        table.add_column(heading, justify="left" if heading == "recognizer" else "right")
    for row in found["recognizers"]:
        quality, checked = row["quality"], row["verification"]
        asked, same = row["identification"]["other_photos"], row["identification"]["same_photo"]
        note = "guard" if row["guard"] else "weak" if quality["weak"] else ""
        name = f"{quality['strength']}. {row['title']}" + (f" ({note})" if note else "")
        own = (_share(quality["rank1"]), _share(quality["tar_1e-3"]), _share(quality["eer"]))
        after = (_share(asked.get("rank1"), True), _plain(asked.get("chance1")), _share(checked["tar_1e-3"], True), _share(checked["eer"]))
        table.add_row(name, *own, *after, _share(same.get("rank1")))
    console.print(table)
    average = found["average_accuracy"]["all"]
    if average["recognizers"] and average["before"]["value"] is not None:
        drop = "" if average["relative_drop"] is None else f", a drop of {average['relative_drop']:.0%}"
        said = f"{_share(average['before'])} before, {_share(average['after'], True)} after{drop}"
        console.print(f"Average accuracy (rank 1) of {average['recognizers']} recognizers: {said}.")
    console.print(f"[bold]{found['verdict']['text']}[/bold]")
    if found["verdict"]["weak"]:
        console.print(f"Weak on these originals, so that their silence says little: {', '.join(found['verdict']['weak'])}.")


def _show_collections(found: dict[str, Any], console: Console) -> None:
    table = Table(caption="most found: rank 1, by the recognizer that did not guard and finds the most")
    for heading in ("collection", "people", "pictures", "average accuracy before", "after", "most found", "chance"):
        table.add_column(heading, justify="left" if heading == "collection" else "right")
    for name, row in found["figures"].items():
        figures = (_share(row["average_accuracy_before"]), _share(row["average_accuracy_after"], True), _share(row["most_found"], True))
        table.add_row(name, f"{row['people']:,}", f"{row['pictures']:,}", *figures, _plain(row["chance"]))
    console.print(table)


def _share(figure: dict[str, Any] | None, interval: bool = False) -> str:
    if figure is None or figure["value"] is None:
        return "–"
    text = f"{figure['value']:.1%}"
    return text + (f" [{figure['low']:.1%}, {figure['high']:.1%}]" if interval else "")


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


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
