"""What a comparison leaves: a table as JSON and CSV, and a plot as SVG."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import jinja2

from mfmc_ray.evaluate.report import share
from mfmc_ray.evaluate.social.figures import Figures

COLUMNS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("disclosed", "faces somebody sees", share),
    ("met", "wanted exposures made", share),
    ("unwanted", "unwanted exposures made", share),
    ("of_friends", "… to friends", share),
    ("of_their_friends", "… to their friends", share),
    ("of_others", "… to others", share),
    ("asked", "asked per photo", lambda value: f"{value:.2f}"),
    ("acts", "acts per photo", lambda value: f"{value:.2f}"),
    ("shown", "originals shown per 100 photos", lambda value: f"{value:.0f}"),
    ("pictures", "pictures per photo", lambda value: f"{value:.2f}"),
    ("milliseconds", "ms per photo", lambda value: f"{value:.2f}"),
)
"""Of the printed table: figure, heading, how it is put."""
PLOTTED = ("met", "unwanted", "asked", "acts", "shown", "pictures")


def write(
    folder: Path,
    figures: Sequence[Figures],
    runs: Sequence[Sequence[Figures]],
    settings: Mapping[str, Any],
    published: Sequence[Mapping[str, Any]] = (),
) -> list[Path]:
    """Writes social.json, social.csv and social.svg.

    Args:
        folder: made if absent.
        figures: the mean of all runs, model by model.
        runs: each run's own.
        settings: what was assumed.
        published: what came out of runs with pictures, model by model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data, table, plot = folder / "social.json", folder / "social.csv", folder / "social.svg"
    plain = {"settings": dict(settings), "models": [asdict(one) for one in figures], "runs": [[asdict(one) for one in run] for run in runs]}
    plain |= {"published": list(published)} if published else {}
    data.write_text(json.dumps(plain, indent=1) + "\n")
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Figures)])
        writer.writeheader()
        writer.writerows(asdict(one) for one in figures)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mfmc_ray.evaluate"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    plot.write_text(environment.get_template("social.svg.j2").render(panels=[_panel(name, figures, runs) for name in PLOTTED]))
    return [data, table, plot]


def _panel(name: str, figures: Sequence[Figures], runs: Sequence[Sequence[Figures]]) -> dict[str, Any]:
    """Bars of one figure: label, value and its width, and the ends of the range over all runs, as shares of the panel."""
    _, title, put = next(column for column in COLUMNS if column[0] == name)
    every = [getattr(one, name) or 0.0 for run in runs for one in run]
    top = 1.0 if put is share else max(every) or 1.0
    bars = []
    for i, one in enumerate(figures):
        value = getattr(one, name)
        spread = [getattr(run[i], name) or 0.0 for run in runs]
        ends = (min(spread) / top, max(spread) / top)
        bars.append({"model": one.model, "width": (value or 0.0) / top, "low": ends[0], "high": ends[1], "text": put(value)})
    return {"title": title, "bars": bars}
