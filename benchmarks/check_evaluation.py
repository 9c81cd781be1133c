"""Reckons the figures of an evaluation again from the raw embeddings, by loops, sharing no code with what made them.

    python benchmarks/check_evaluation.py published-work/evaluation

Reads the notes and `people.parquet`; prints, for each recognizer, what evaluation.json says beside what comes out here, and ends with exit
code 1 if any figure differs by more than rounding.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

ROUNDING = 6e-4  # evaluation.json has four digits


def check(folder: Path) -> list[tuple[str, str, float | None, float | None]]:
    """(recognizer, figure, as it is stated, as it comes out here) of all that can be reckoned."""
    stated = json.loads((folder / "evaluation.json").read_text())["recognition"]
    people = {(row["path"], row["face_no"]): row for row in pq.read_table(folder / "people.parquet").to_pylist()}
    found: list[tuple[str, str, float | None, float | None]] = []
    for row in stated["recognizers"]:
        name = row["recognizer"]
        parts = sorted((folder / f"embeddings-{name.replace('_', '-')}").glob("part-*.parquet"))
        faces = [face | people[face["path"], face["face_no"]] for part in parts for face in pq.read_table(part).to_pylist()]
        for face in faces:
            face["before"], face["after"] = (None if face[k] is None else np.array(face[k]) for k in ("original", "output"))
            if face["verdict"] not in ("replaced", "changed"):
                face["after"] = None
        named = [face for face in faces if face["person"] >= 0]
        mine = {f"quality {key}": value for key, value in ranks(named, "before", same_photo=False).items()}
        mine |= {f"other_photos {key}": value for key, value in ranks(named, "after", same_photo=False).items()}
        mine |= {f"same_photo {key}": value for key, value in ranks(named, "after", same_photo=True).items()}
        mine |= accepted(named)
        for key, value in mine.items():
            kind, _, figure = key.partition(" ")
            place: dict[str, Any] = (
                row["quality"] if kind == "quality" else row["verification"] if kind == "after" else row["identification"][kind]
            )
            found.append((name, key, (place.get(figure) or {}).get("value"), value))
    return found


def ranks(faces: list[dict[str, Any]], side: str, *, same_photo: bool) -> dict[str, float | None]:
    """Rank 1 and 5: each face of one side is held against the originals, one after the other."""
    hits: dict[int, list[bool]] = {1: [], 5: []}
    for probe in faces:
        if probe[side] is None:
            continue
        best: dict[int, float] = {}
        for other in faces:
            if same_photo or other["path"] != probe["path"]:
                cosine = float(probe[side] @ other["before"])
                best[other["person"]] = max(cosine, best.get(other["person"], -2.0))
        if probe["person"] in best:
            rank = 1 + sum(value > best[probe["person"]] for value in best.values())
            for k, some in hits.items():
                some.append(rank <= k)
    return {f"rank{k}": float(np.mean(some)) if some else None for k, some in hits.items()}


def accepted(faces: list[dict[str, Any]]) -> dict[str, float | None]:
    """TAR of originals and of outputs, at thresholds of pairs of originals; and the equal error rates."""
    same: list[float] = []
    strangers: list[float] = []
    for i, a in enumerate(faces):
        for b in faces[:i]:
            if a["path"] != b["path"]:
                (same if a["person"] == b["person"] else strangers).append(float(a["before"] @ b["before"]))
    after: list[float] = []
    apart: list[float] = []
    for a in faces:
        for b in faces:
            if a["after"] is not None and a["path"] != b["path"]:
                (after if a["person"] == b["person"] else apart).append(float(a["after"] @ b["before"]))
    found: dict[str, float | None] = {}
    for name, rate in (("1e-2", 1e-2), ("1e-3", 1e-3)):
        if len(strangers) * rate < 10:
            continue
        threshold = float(np.quantile(strangers, 1 - rate))
        found[f"quality tar_{name}"] = float(np.mean(np.array(same) > threshold)) if same else None
        found[f"after tar_{name}"] = float(np.mean(np.array(after) > threshold)) if after else None
    for kind, ours, theirs in (("quality", same, strangers), ("after", after, apart)):
        if min(len(ours), len(theirs)) >= 10:
            found[f"{kind} eer"], found[f"{kind} auc"] = equal(np.sort(ours), np.sort(theirs))
    return found


def equal(same: Any, strangers: Any) -> tuple[float, float]:
    """The equal error rate, at the cosine where both errors are most alike, and the area under the curve."""
    best, eer = 2.0, 0.0
    for cosine in np.concatenate([same, strangers]):
        missed = np.searchsorted(same, cosine, side="right") / len(same)
        false = 1 - np.searchsorted(strangers, cosine, side="right") / len(strangers)
        if abs(missed - false) < best:
            best, eer = abs(missed - false), (missed + false) / 2
    wins = sum(np.searchsorted(strangers, c, side="left") + np.searchsorted(strangers, c, side="right") for c in same) / 2
    return float(eer), float(wins / len(same) / len(strangers))


def differs(stated: float | None, here: float | None) -> bool:
    """Whether two figures are not the same."""
    return (stated is None) != (here is None) or (stated is not None and here is not None and abs(stated - here) > ROUNDING)


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    found = check(Path(sys.argv[1]))
    for name, figure, stated, here in found:
        print(
            f"{name:14}{figure:24}{stated!s:>10}{'–' if here is None else f'{here:.4f}':>10}{'  DIFFERS' if differs(stated, here) else ''}"
        )
    raise SystemExit(1 if any(differs(stated, here) for _, _, stated, here in found) else 0)


if __name__ == "__main__":
    main()
