"""Charts of an evaluation, drawn by matplotlib as SVG in data: URIs.

On light paper, with letters as outlines, in colours that the colour-blind tell apart.
matplotlib is of the extra `eval` and imported when something is drawn.
"""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

BEFORE, AFTER, LINE, INK = "#0072B2", "#C04A00", "#6b6f75", "#1d2126"
"""Okabe and Ito's blue and a darker vermilion (jfly.uni-koeln.de/color), a grey, and the ink."""
WIDTH = 5.2
"""Inches; on a phone a chart is not scaled by much."""
_ROW = 0.42  # inches
_STYLE: Mapping[str, Any] = {
    "svg.fonttype": "path",
    "svg.hashsalt": "mfmc",
    "font.family": "DejaVu Sans",  # matplotlib brings it along
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#8b9096",
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}

Figure = Mapping[str, Any]
"""`{"value", "low", "high", "n"}`."""
Row = tuple[str, Figure | None, Figure | None, float | None]
"""A name, before, after, and what guessing gives."""


class NoPlotsError(RuntimeError):
    """matplotlib is not installed."""


def shares(rows: Sequence[Row], label: str) -> str:
    """A line for each row: before and after with their intervals, and guessing; shares 0–1 as per cent."""

    def draw(axes: Any) -> None:
        for y, (_, before, after, chance) in enumerate(rows):
            for figure, shift, colour, mark in ((before, -0.13, BEFORE, "o"), (after, 0.13, AFTER, "s")):
                _interval(axes, figure, y + shift, colour, mark, 100)
            if chance is not None:
                axes.plot([100 * chance] * 2, [y - 0.36, y + 0.36], color=LINE, lw=1.6, ls=(0, (2, 1.2)))
        names = [("before", BEFORE, "o"), ("after", AFTER, "s")]
        handles = [axes.plot([], [], color=colour, marker=mark, ls="", label=name)[0] for name, colour, mark in names]
        if any(row[3] is not None for row in rows):
            handles += axes.plot([], [], color=LINE, lw=1.6, ls=(0, (2, 1.2)), label="guessing")
        axes.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.4, 1), ncols=3, fontsize=8.5)
        _named(axes, [row[0] for row in rows])
        axes.set(xlim=(-2, 102), xlabel=f"{label} (%)\nbars: 95 % interval")

    return _svg(draw, 0.95 + _ROW * len(rows))


def groups(rows: Sequence[tuple[str, Figure | None, bool]], overall: float | None, label: str) -> str:
    """A line for each group: a share with its interval, hollow if few faces stand behind it; and all faces."""

    def draw(axes: Any) -> None:
        if overall is not None:
            axes.axvline(100 * overall, color=LINE, lw=1.2, ls=(0, (2, 1.2)), label="all faces")
        axes.plot([], [], color=AFTER, marker="s", ls="", mfc="white", label="few faces")
        axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1), ncols=2, fontsize=8.5)
        for y, (_, figure, few) in enumerate(rows):
            _interval(axes, figure, y, AFTER, "s", 100, hollow=few)
        _named(axes, [row[0] for row in rows])
        highest = max((100 * f["high"] for _, f, _ in rows if f and f.get("high") is not None), default=100)
        axes.set(xlim=(-1, min(102, max(10, highest * 1.08))), xlabel=f"{label} (%)\nbars: 95 % interval")

    return _svg(draw, 0.95 + 0.3 * len(rows))


def curves(rows: Sequence[tuple[str, Mapping[str, Any] | None, Mapping[str, Any] | None]]) -> str:
    """ROC curves, small ones beside each other: `{"far": […], "tar": […]}` before and after."""

    def draw(figure: Any) -> None:
        columns = min(3, len(rows))
        grid = figure.subplots(-(-len(rows) // columns), columns, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat[len(rows) :]:
            axes.set_axis_off()
        for axes, (name, before, after) in zip(grid.flat, rows, strict=False):
            for curve, colour, style in ((before, BEFORE, "--"), (after, AFTER, "-")):
                if curve:
                    axes.plot(curve["far"], 100 * np.asarray(curve["tar"], float), color=colour, ls=style, lw=1.6)
            far = np.geomspace(1e-4, 1)
            axes.plot(far, 100 * far, color=LINE, lw=1, ls=":")
            axes.set(xscale="log", ylim=(-3, 103), xlim=(1e-4, 1), title=textwrap.fill(name, 20, max_lines=2, placeholder="…"))
            axes.set_xticks([1e-4, 1e-2, 1], ["0.01", "1", "100"])
            axes.minorticks_off()
            axes.title.set_fontsize(8)
            axes.tick_params(labelsize=7.5)
            axes.grid(color="#e3e3de", lw=0.6)
        figure.supxlabel("strangers accepted (% of pairs)", fontsize=8.5)
        figure.supylabel("same person accepted (%)", fontsize=8.5)
        lines = [grid.flat[0].plot([], [], color=c, ls=s)[0] for c, s in ((BEFORE, "--"), (AFTER, "-"), (LINE, ":"))]
        figure.legend(lines, ["before", "after", "guessing"], loc="outside upper center", ncols=3, fontsize=8.5)

    return _svg(draw, 0.7 + 1.5 * -(-len(rows) // min(3, len(rows))), whole=True)


def histograms(
    rows: Sequence[tuple[str, float, float, Sequence[float], float | None]], label: str, line: str, *, alike: bool = True
) -> str:
    """Bars, on one scale if they are `alike`.

    Args:
        rows: name, where the first bin begins, how wide each is, counts, and where a line is drawn.
        label: of the scale.
        line: the line's label, as a format of its place.
        alike: whether the rows have one scale.
    """

    def draw(figure: Any) -> None:
        columns = min(2, len(rows))
        grid = figure.subplots(-(-len(rows) // columns), columns, sharex=alike, squeeze=False)
        for axes in grid.flat[len(rows) :]:
            axes.set_axis_off()
        for axes, (name, start, width, counts, at) in zip(grid.flat, rows, strict=False):
            axes.bar(start + width * np.arange(len(counts)), counts, width, align="edge", color=AFTER, edgecolor="white", lw=0.4)
            if at is not None:
                axes.axvline(at, color=INK, lw=1.4, ls=(0, (4, 2)))
                axes.set_ylim(0, 1.2 * max(1, *counts))
                axes.text(at, 1.0, f" {line.format(at)}", transform=axes.get_xaxis_transform(), va="top", fontsize=8)
            axes.set_title(name, fontsize=9, loc="left")
            axes.yaxis.get_major_locator().set_params(integer=True, nbins=4)
            axes.tick_params(labelsize=8, labelbottom=True)
            axes.xaxis.get_major_locator().set_params(nbins=6)
        figure.supxlabel(label, fontsize=8.5)
        figure.supylabel("faces", fontsize=8.5)

    return _svg(draw, 0.4 + 1.4 * -(-len(rows) // min(2, len(rows))), whole=True)


def _interval(axes: Any, figure: Figure | None, y: float, colour: str, mark: str, scale: float, hollow: bool = False) -> None:
    if not figure or figure.get("value") is None:
        return
    value = scale * figure["value"]
    if figure.get("low") is not None and figure.get("high") is not None:
        axes.plot([scale * figure["low"], scale * figure["high"]], [y, y], color=colour, lw=2, solid_capstyle="butt")
    axes.plot([value], [y], color=colour, marker=mark, ms=6, mfc="white" if hollow else colour, mew=1.4)


def _named(axes: Any, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [textwrap.fill(name, 24, max_lines=2, placeholder="…") for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e3e3de", lw=0.7)


def _svg(draw: Callable[[Any], None], height: float, *, whole: bool = False) -> str:
    """The data: URI of what `draw` puts on axes, or on the whole figure. $ is no formula, but a letter.

    Raises:
        NoPlotsError: matplotlib is not there.
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure as Paper
    except ImportError as error:
        raise NoPlotsError("charts want matplotlib: pip install 'mfmc-ray[eval]'") from error
    with matplotlib.rc_context({**_STYLE, "text.parse_math": False}):
        paper = Paper(figsize=(WIDTH, height))
        FigureCanvasSVG(paper)
        draw(paper if whole else paper.subplots())
        file = io.BytesIO()
        paper.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()
