"""What in the published rows cannot be true: of an image and its faces, and of its faces and those that the scan found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from mfmc_ray.pipeline.recheck import Row, number

_FAR_POINTS = 0.4
"""A swap changes the shape of a face: its points may move by this much of the box's √area, on average, and not more."""


def contradictions(image: Row, rows: Sequence[Row], wrongly_worn: Callable[[Row], str | None] = lambda _: None) -> list[str]:
    """What in an image's row and its faces' rows cannot be true together, nor with what they may wear (`pseudonyms.fault_of`)."""
    verdict, published = image["verdict"], (image["image"] or {}).get("bytes") is not None
    verdicts = {row["verdict"] for row in rows}
    faults = []
    if verdict in ("unchanged", "anonymized"):
        rules = [
            (published, "no picture is there"),
            ((verdicts <= {"kept"}) == (verdict == "unchanged"), f"{verdict}, but its faces are {', '.join(map(str, verdicts)) or 'none'}"),
            (image["faces"] == len(rows), f"{image['faces']} faces, but {len(rows)} rows"),
        ]
    elif verdict in ("withheld", "failed"):
        rules = [(not published, f"{verdict}, but a picture is there"), (bool(image["reason"]), f"{verdict} without a reason")]
    else:
        rules = [(False, f"unknown verdict {verdict!r}")]
    for row in rows:
        where = f"face {row['face_no']}"
        if row["verdict"] == "replaced":
            rules.append((row["identity_id"] is not None and row["points"] is not None, f"{where}: replaced without identity or points"))
            fault = wrongly_worn(row)
            rules.append((fault is None, f"{where}: {fault}"))
        elif row["verdict"] == "redacted":
            rules.append(
                (row["redacted_area"] is not None and _covers(row, image), f"{where}: redacted, but its area does not cover its box")
            )
            rules.append((bool(row["reason"]), f"{where}: redacted without a reason"))
        elif row["verdict"] == "kept":
            rules.append((bool(row["access_reason"]), f"{where}: kept, but no access row is named"))
            rules.append((row["identity_id"] is None and not row["certificates"], f"{where}: kept, but it wears an identity"))
        else:
            rules.append((False, f"{where}: unknown verdict {row['verdict']!r}"))
        if row["verdict"] != "kept":
            rules.append((not row["access_reason"], f"{where}: not kept, but an access row is named"))
    faults += [text for holds, text in rules if not holds]
    return faults


def _covers(row: Row, image: Row) -> bool:
    """Whether a redacted face's area holds the middle half of its box (in width and height), as far as that is in the picture."""
    x0, y0, x1, y1 = row["redacted_area"]
    a0, b0, a1, b1 = row["box"]
    x, y, right, bottom = (a1 - a0) / 4, (b1 - b0) / 4, number(image["width"]), number(image["height"])
    return bool(x0 <= max(a0 + x, 0) + 1 and y0 <= max(b0 + y, 0) + 1 and x1 >= min(a1 - x, right) - 1 and y1 >= min(b1 - y, bottom) - 1)


def face_faults(rows: Sequence[Row], scanned: Sequence[Row]) -> list[str]:
    """How an image's face rows differ from the faces that the scan found."""
    numbers = Counter(row["face_no"] for row in rows)
    faults = [f"face {n} is missing" for n in range(len(scanned)) if n not in numbers]
    faults += [f"face {n} is there {times} times" for n, times in numbers.items() if times > 1]
    for row in rows:
        n = row["face_no"]
        if n is None or not 0 <= n < len(scanned):
            faults.append(f"face {n} was not scanned")
            continue
        box = np.array(scanned[n]["box"], np.float32)
        if row["box"] is None or not np.abs(np.array(row["box"]) - box).max() <= 0.5:
            faults.append(f"face {n} is not where the scan found it")
        elif row["points"] is not None:
            apart = np.array(row["points"]).reshape(5, 2) - np.array(scanned[n]["points"]).reshape(5, 2)
            if not np.linalg.norm(apart, axis=1).mean() <= _FAR_POINTS * np.sqrt(np.prod(np.maximum(box[2:] - box[:2], 1))):
                faults.append(f"the points of face {n} are not on it")
    return faults
