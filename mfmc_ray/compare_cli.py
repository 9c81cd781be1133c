"""`mfmc evaluate compare`: methods of hiding faces against each other."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table


def compare(
    originals: Annotated[str, typer.Argument(help="A collection, as `mfmc anonymize` takes it.")],
    work: Annotated[str, typer.Option(help="Private folder; all goes into its folder `comparison`.")],
    labels: Annotated[
        str | None, typer.Option(help="Who is in the pictures, as for `mfmc evaluate`: `folders`, or a table. Default: clusters.")
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(help="Comma-separated: noop, blur, pixelate, box, deface, morph, or baselines, swappers, fakes. Default: all."),
    ] = None,
    swapper: Annotated[list[str] | None, typer.Option(help="YAML file of a swap network (docs/swappers.md), too. Repeatable.")] = None,
    recognizers: Annotated[str | None, typer.Option(help="Comma-separated names. Default: all that can be had.")] = None,
    sections: Annotated[
        str | None, typer.Option(help="Sections of an evaluation to ask of each method: utility, structure, or none. Default: both.")
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Most pictures that are taken.")] = 200,
    identities: Annotated[int, typer.Option(min=10, help="Fake identities to choose from, for each swapper.")] = 200,
    rounds: Annotated[int, typer.Option(min=20, help="Of the bootstrap, for intervals.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of which pictures are taken, and of the bootstrap.")] = 0,
    plot: Annotated[bool, typer.Option("--plot/--no-plot", help="Draw the frontier (needs matplotlib: the extra `eval`).")] = True,
    storage_options: Annotated[str | None, typer.Option(help="JSON passed to fsspec.")] = None,
) -> None:
    """Compare ways to hide faces, privacy × utility × speed: nothing, blur, mosaic, black box, swappers, and ways to choose the fake.

    Every method changes the same faces of the same pictures, and the same recognizers judge it. Killed, the same command goes on. All is in
    WORK/comparison, which is private: it shows originals.

    Example: mfmc evaluate compare photos/ --work work --labels folders --images 100
    """
    from mfmc_ray.config import load
    from mfmc_ray.evaluate.compared import HEADINGS, cells
    from mfmc_ray.evaluate.sections import Options
    from mfmc_ray.folders import names_of, storage_options_of
    from mfmc_ray.pipeline.comparison import Asked
    from mfmc_ray.pipeline.comparison import compare as run

    config = load(None, work=work, storage_options=storage_options_of(storage_options))
    options = Options(recognizers=names_of(recognizers), sections=names_of(sections), seed=seed, rounds=rounds)
    result = run(Asked(originals, config, labels, options, names_of(methods), tuple(swapper or ()), images, identities, plot))
    console = Console(highlight=False)
    table = Table(
        title=f"{result['faces']} faces of {result['people']} people in {result['images']['looked_at']} pictures",
        caption="privacy: what was recognized beyond chance and no longer is, by the worst of the independent ones; utility: mean of "
        "detected, landmarks, expression, age and sex kept; 95 % intervals; reference: a blurred megapixel",
    )
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "method" else "right")
    for row in result["methods"]:
        if not row.get("same_as"):
            table.add_row(*cells(row))
    console.print(table)
    if result["front"]:
        console.print(f"Pareto front: {', '.join(result['front'])}.")
    else:
        console.print(f"There is no privacy figure: {result['methods'][0]['privacy']['why']}.")
    console.print(f"All figures, plot and contact sheet: {work}/comparison (private; docs/evaluate.md)", soft_wrap=True)
