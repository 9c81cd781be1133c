"""Methods in one picture: privacy to the right, utility upwards, the larger a mark the slower; the Pareto front is drawn."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mfmc_ray.config import ConfigError

KINDS = {"baseline": "#7a7d84", "outside": "#b07d2b", "swapper": "#1f6fb2", "fake": "#4a9a6b"}
"""Colours."""


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The points (privacy, utility) that no other one beats in one without being beaten in the other; by rising privacy."""
    best = []
    for i, (x, y) in enumerate(points):
        if not any((a >= x and b > y) or (a > x and b >= y) for a, b in points):
            best.append(i)
    return sorted(best, key=lambda i: points[i])


def placeable(methods: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those with both figures; of two that are the same the first."""
    known = [m for m in methods if m["privacy"]["value"] is not None and m["utility"]["score"]["value"] is not None]
    return [m for m in known if not m.get("same_as")]


def require() -> Any:
    """matplotlib's Figure.

    Raises:
        ConfigError: it is not there.
    """
    try:
        return importlib.import_module("matplotlib.figure").Figure
    except ImportError as error:
        raise ConfigError("the plot wants matplotlib: pip install 'mfmc-ray[eval]', or leave it out with --no-plot") from error


def draw(methods: Sequence[Mapping[str, Any]], files: Sequence[Path]) -> None:
    """Writes the plot.

    Args:
        methods: as of comparison.json; those without both figures are left out.
        files: .png, .svg or .pdf.

    Raises:
        ConfigError: as `require`.
    """
    figure = require()(figsize=(11, 6.2), layout="constrained")
    axes = figure.add_subplot()
    shown = placeable(methods)
    points = [(m["privacy"]["value"], m["utility"]["score"]["value"]) for m in shown]
    line = front(points)
    axes.plot([points[i][0] for i in line], [points[i][1] for i in line], color="#c03a3a", lw=1.2, ls="--", zorder=1, label="Pareto front")
    times = np.array([max(0.01, m["speed"]["cpu_ms_per_face"]) for m in shown])
    sizes = 40 + 90 * np.log10(1 + times)
    for kind, colour in KINDS.items():
        mine = [i for i, m in enumerate(shown) if m["kind"] == kind]
        if mine:
            xs, ys = ([points[i][k] for i in mine] for k in (0, 1))
            axes.scatter(xs, ys, sizes[mine], c=colour, alpha=0.75, edgecolors="white", zorder=3, label=kind)
    for i, m in enumerate(shown):
        for low, high, place in ((m["privacy"]["low"], m["privacy"]["high"], "x"), (_of(m, "low"), _of(m, "high"), "y")):
            x, y = points[i]
            ends = ([low, high], [y, y]) if place == "x" else ([x, x], [low, high])
            axes.plot(*ends, color=KINDS[m["kind"]], lw=0.8, alpha=0.6, zorder=2)
    places: dict[tuple[float, float], list[int]] = {}
    for i, (x, y) in enumerate(points):
        places.setdefault((round(x, 2), round(y, 2)), []).append(i)
    for some in places.values():
        numbers = ", ".join(str(i + 1) for i in some)
        axes.annotate(numbers, points[some[0]], xytext=(9, 9), textcoords="offset points", fontsize=10, fontweight="bold", zorder=4)
    for i, m in enumerate(shown):
        said = f"{i + 1}  {m['title']}: {points[i][0]:.2f}, {points[i][1]:.2f}"
        axes.text(1.02, 0.98 - 0.045 * i, said, transform=axes.transAxes, fontsize=8.5, color=KINDS[m["kind"]], va="top")
    axes.set(xlim=(-0.06, 1.08), ylim=(-0.06, 1.08))
    axes.set_xlabel("privacy: what was recognized beyond chance and no longer is, by the worst of the independent recognizers")
    axes.set_ylabel("utility: face still seen; landmarks, expression, age, sex kept")
    axes.set_title("The larger the mark, the more CPU time a face takes. Bars: 95 % intervals", fontsize=9)
    axes.grid(alpha=0.25)
    axes.legend(loc="lower left", fontsize=8, markerscale=0.6)
    for file in files:
        figure.savefig(file, dpi=150)


def _of(method: Mapping[str, Any], end: str) -> float:
    return float(method["utility"]["score"][end])
