"""Several collections in one table: this evaluation beside others that were made before."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mfmc_ray.config import ConfigError
from mfmc_ray.evaluate.bootstrap import nothing
from mfmc_ray.evaluate.sections import SCHEMA

OWN = "this collection"
NOTE = (
    "Figures of evaluations that were made one by one. average accuracy: rank 1, the mean of all recognizers; most found: rank 1 after, of "
    "the recognizer that did not guard and finds the most. A gallery of more people is harder: compare with chance."
)
Json = Mapping[str, Any]


def read(given: Sequence[str]) -> dict[str, Json]:
    """Name → what evaluation.json holds.

    Args:
        given: each NAME=WORK, or NAME= and the file.

    Raises:
        ConfigError: there is no such evaluation, or it cannot be read.
    """
    found: dict[str, Json] = {}
    for text in given:
        name, _, place = text.partition("=")
        if not name.strip() or not place or name in (OWN, *found):
            raise ConfigError(f"--beside takes NAME=WORK, each name once, not {text!r}")
        file = Path(place) if place.endswith(".json") else Path(place) / "evaluation" / "evaluation.json"
        try:
            result = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{file} is no evaluation: make it with `mfmc evaluate … --work {place}` first") from error
        if not isinstance(result, dict) or result.get("schema") != SCHEMA or "recognition" not in result:
            raise ConfigError(f"{file} is of another version, or of other sections: make it with this version, with `recognition`")
        found[name.strip()] = result
    return found


def collections(own: Json, others: Mapping[str, Json]) -> dict[str, Any]:
    """The key `collections` of evaluation.json: a row a collection, and recognizers × collections. It holds no face and no path."""
    every = {OWN: own, **others}
    found: dict[str, Any] = {"note": NOTE, "figures": {name: _figures(one) for name, one in every.items()}}
    for figure in ("rank1", "tar_1e-3"):
        rows: dict[str, dict[str, Any]] = {}
        for name, one in every.items():
            for row in one["recognition"]["recognizers"]:
                asked = row["verification"] if figure != "rank1" else row["identification"][row["identification"]["protocol"]]
                cells = rows.setdefault(row["title"], {f"{n}, {when}": nothing("not asked") for n in every for when in ("before", "after")})
                cells |= {f"{name}, before": row["quality"][figure], f"{name}, after": asked.get(figure) or nothing("not asked")}
        found[figure] = rows
    return found


def _figures(one: Json) -> dict[str, Any]:
    recognition = one["recognition"]
    average, verdict = recognition["average_accuracy"]["all"], recognition["verdict"]
    return {
        "people": recognition["people"]["people"],
        "pictures": one["images"]["pairs"],
        "average_accuracy_before": average["before"],
        "average_accuracy_after": average["after"],
        "most_found": verdict.get("rank1") or nothing("nobody could be asked about"),
        "chance": verdict.get("chance1"),
        "still_detected": _at(one, "utility", "detected", "yunet", "kept"),
        "ssim_outside": _at(one, "structure", "outside", "ssim"),
    }


def _at(one: Any, *path: str) -> Any:
    for name in path:
        one = one.get(name) if isinstance(one, Mapping) else None
    return one or nothing("not asked")
