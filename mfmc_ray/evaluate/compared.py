"""What a comparison says of a method: privacy × utility × speed, in figures, as a table and as a contact sheet."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mfmc_ray.evaluate import kept, recognition
from mfmc_ray.evaluate.bootstrap import nothing, short
from mfmc_ray.evaluate.sections import About, Section
from mfmc_ray.evaluate.sheets import contact_sheet
from mfmc_ray.faces.faces import Image

TITLE = "Methods: privacy × utility × speed"
Figures = dict[str, Any]


def figures_of(
    name: str,
    title: str,
    kind: str,
    tables: Mapping[str, pa.Table],
    about: About,
    summaries: Sequence[Mapping[str, Any]],
    reference: float,
    sections: Mapping[str, Section],
) -> Figures:
    """An entry of `methods` in comparison.json.

    Args:
        name, title, kind: of the method.
        tables: notes of its results.
        about: the faces.
        summaries: of its parts: `faces`, `covered`, `seconds`.
        reference: CPU ms of the reference operation.
        sections: of an evaluation, that are asked, too.
    """
    recognized = recognition.figures(tables, about)
    faces = sum(part["faces"] for part in summaries)
    ms = 1000 * sum(part["seconds"] for part in summaries) / max(1, faces)
    return {
        "method": name,
        "title": title,
        "kind": kind,
        "faces": faces,
        "covered": sum(part["covered"] for part in summaries),
        "privacy": privacy_of(recognized["recognizers"]),
        "utility": kept.figures(tables[kept.NOTE.name], about),
        "speed": {"cpu_ms_per_face": short(ms), "ratio_to_reference": short(ms / max(1e-6, reference))},
        "recognizers": [_short(row) for row in recognized["recognizers"]],
        "sections": {name: section.figures(tables, about) for name, section in sections.items()},
    }


def privacy_of(rows: Sequence[Mapping[str, Any]]) -> Figures:
    """1 − the share of what a recognizer recognized beyond chance that it still does; of those heard, the one that finds the most.

    Heard are strong ones that did not guard; where there are none, strong guards, else all: `heard` says which, for every method the same.
    """
    asked = {row["recognizer"]: row["identification"][row["identification"]["protocol"]] for row in rows}
    some = [row for row in rows if "rank1" in asked[row["recognizer"]]]
    if not some:
        return nothing("too few people to ask about")
    strong = [row for row in some if not row["quality"]["weak"]]
    heard = [row for row in strong if not row["guard"]] or strong or some
    found = []
    for row in heard:
        figures = asked[row["recognizer"]]
        before = figures["rank1_before"]["value"] if "rank1_before" in figures else 1.0
        chance = figures["chance1"]
        room = max(before - chance, 1e-6)
        left = {end: min(1.0, max(0.0, (figures["rank1"][end] - chance) / room)) for end in ("value", "low", "high")}
        found.append((left["value"], row, figures, left))
    _, row, figures, left = max(found, key=lambda one: one[0])
    return {
        "value": short(1 - left["value"]),
        "low": short(1 - left["high"]),
        "high": short(1 - left["low"]),
        "n": figures["rank1"]["n"],
        "recognizer": row["recognizer"],
        "rank1": figures["rank1"],
        "chance1": figures["chance1"],
        "heard": [one["recognizer"] for one in heard],
    }


def _short(row: Mapping[str, Any]) -> Figures:
    asked = row["identification"][row["identification"]["protocol"]]
    return {
        "recognizer": row["recognizer"],
        "title": row["title"],
        "guard": row["guard"],
        "weak": row["quality"]["weak"],
        "protocol": row["identification"]["protocol"],
        **{name: asked.get(name) for name in ("rank1", "rank5", "rank1_before", "chance1", "people")},
        "same_photo_rank1": row["identification"]["same_photo"].get("rank1"),
        **{name: row["verification"][name] for name in ("tar_1e-2", "tar_1e-3", "auc", "eer", "same_photo_1e-3")},
    }


HEADINGS = (
    "method",
    "privacy",
    "rank 1 after",
    "TAR at 1e-2",
    "same photo",
    "utility",
    "detected",
    "expression",
    "age",
    "sex",
    "SSIM inside",
    "covered",
    "ms a face",
    "× reference",
)


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A line of the table, as `HEADINGS`; recognition by the recognizer that finds the most."""
    privacy, utility, speed = row["privacy"], row["utility"], row["speed"]
    worst = next((one for one in row["recognizers"] if one["recognizer"] == privacy.get("recognizer")), None)
    return (
        row["title"],
        _number(privacy, interval=True),
        _share(privacy.get("rank1")) + (f" ({worst['title']})" if worst else ""),
        _share(worst and worst["tar_1e-2"]),
        _share(worst and worst["same_photo_rank1"]),
        _number(utility["score"], interval=True),
        *(_share(utility[name]) for name in ("detected", "expression", "age", "sex")),
        _number(utility["ssim"]),
        f"{row['covered'] / max(1, row['faces']):.0%}",
        f"{speed['cpu_ms_per_face']:.3g}",
        f"{speed['ratio_to_reference']:.3g}",
    )


def markdown(result: Mapping[str, Any]) -> str:
    """comparison.md."""
    said = f"{result['faces']} faces of {result['people']} people in {result['images']['looked_at']} pictures."
    lines = [f"# {result['title']}", "", said]
    lines += ["", "| " + " | ".join(HEADINGS) + " |", "|---" + "|---:" * (len(HEADINGS) - 1) + "|"]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in result["methods"] if not row.get("same_as")]
    lines += ["", f"Pareto front: {', '.join(result['front'])}.", ""]
    twins = [row for row in result["methods"] if row.get("same_as")]
    same, of = (sum(row["agreement"][name] for row in twins) for name in ("same", "of"))
    if of:
        lines += [f"Choosing by l2 took the same fake as by cosine for {same} of {of} faces.", ""]
    return "\n".join(lines)


def brief_of(folder: Path) -> Figures | None:
    """The key `comparisons` of evaluation.json, for its page: the table and the plot. None if there is no comparison.

    Args:
        folder: WORK/comparison.
    """
    file, plot = folder / "comparison.json", folder / "frontier.png"
    if not file.is_file():
        return None
    result = json.loads(file.read_text(encoding="utf-8"))
    found: Figures = {"note": NOTE, "faces": result["faces"], "people": result["people"], "pareto_front": ", ".join(result["front"])}
    if plot.is_file():
        found["plot"] = "data:image/png;base64," + base64.b64encode(plot.read_bytes()).decode()
    found["methods"] = {row["title"]: _brief(row) for row in result["methods"] if not row.get("same_as")}
    return found


NOTE = (
    "Every method changes the same faces of the same pictures. privacy: what was recognized beyond chance and no longer is, by the worst "
    "of the independent recognizers; utility: the mean of detected, landmarks, expression, age and sex kept, 0 where no detector sees a "
    "face any more."
)


def _brief(row: Mapping[str, Any]) -> Figures:
    worst = next((one for one in row["recognizers"] if one["recognizer"] == row["privacy"].get("recognizer")), None)
    names = "value", "low", "high", "n"
    return {
        "privacy": {name: row["privacy"][name] for name in names},
        "rank1": row["privacy"].get("rank1") or nothing("too few people"),
        "tar_1e-2": worst["tar_1e-2"] if worst else nothing("too few people"),
        "utility": row["utility"]["score"],
        "detected": row["utility"]["detected"],
        "ssim_inside": row["utility"]["ssim"],
        "covered": short(row["covered"] / max(1, row["faces"])),
        **row["speed"],
    }


def sheet(methods: Sequence[tuple[str, Mapping[int, Image]]]) -> Image:
    """A row of the same faces for each method (title, number → uint8 (h, w, 3)); grey where it published none. uint8 (h, w, 3)."""
    shown = sorted({image for _, some in methods for image in some})
    blank = np.full((150, 150, 3), 226, np.uint8)
    tiles = [some.get(image, blank) for _, some in methods for image in shown]
    names = [tuple(title.split(", ")) if image == shown[0] else () for title, _ in methods for image in shown]
    return contact_sheet(tiles, columns=max(1, len(shown)), tile_px=150, labels=names)


def _number(figure: Mapping[str, Any], *, interval: bool = False) -> str:
    if figure["value"] is None:
        return "–"
    return f"{figure['value']:.2f}" + (f" [{figure['low']:.2f}, {figure['high']:.2f}]" if interval else "")


def _share(figure: Mapping[str, Any] | None) -> str:
    return "–" if figure is None or figure["value"] is None else f"{figure['value']:.1%}"
