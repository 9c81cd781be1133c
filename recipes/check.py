"""Holds a result against a recipe's expectation: `python recipes/check.py lfw published/ --input lfw/`.

What is checked is in RECIPE/expected.yaml:

    columns   table → columns that must be there
    paths     a regular expression that each published path matches
    verdicts  verdicts that images may have
    not_failed_for  reasons that no image may have failed for (the word before ":"): then labels were taken for images
    boxes     whether each box that the recipe's config.yaml finds in the input is covered by a face of the result

and always: each image that the input has is one row and there are no others; bytes are there if and only if the image is published; each
row has as many faces as the faces table; no face is kept; each replaced face is below its threshold. Prints what does not hold; exit
code 1.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml

from mfmc_ray.boxes import Boxes
from mfmc_ray.collection import Collection
from mfmc_ray.config import load
from mfmc_ray.sources import TABLE, read_unit

FOLDER = Path(__file__).parent
COVERED = 0.5
"""A labelled box is covered if a face shares this much of it, or of the face."""
Row = dict[str, Any]


def faults(recipe: str, images: list[Row], faces: list[Row], input: str | None = None) -> list[str]:  # noqa: A002 (the setting's name)
    """What of an expectation does not hold; at most some of each kind.

    Args:
        recipe: a folder beside this file.
        images: rows of OUT/images, `image` as a dictionary.
        faces: rows of OUT/faces.
        input: the collection; None: it is not looked at.
    """
    expected = yaml.safe_load((FOLDER / recipe / "expected.yaml").read_text())
    found = [
        f"{name} has no column {column}"
        for name, rows in (("images", images), ("faces", faces))
        for column in expected["columns"][name]
        if rows and column not in rows[0]
    ]
    if found:
        return found
    counted = Counter(face["path"] for face in faces)
    said = {
        "a path that is not of this layout": [row for row in images if not re.fullmatch(expected["paths"], row["path"])],
        "more than one row": [{"path": path} for path, n in Counter(row["path"] for row in images).items() if n > 1],
        "an unexpected verdict": [row for row in images if row["verdict"] not in expected["verdicts"]],
        "an unexpected reason": [
            row for row in images if row["verdict"] == "failed" and row["reason"].split(":")[0] in expected["not_failed_for"]
        ],
        "bytes and verdict do not fit": [
            row for row in images if bool((row["image"] or {}).get("bytes")) != (row["verdict"] in ("unchanged", "anonymized"))
        ],
        "other faces than in the faces table": [row for row in images if (row["faces"] or 0) != counted[row["path"]]],
        "a kept face": [face for face in faces if face["verdict"] not in ("replaced", "redacted")],
        "a face above its threshold": [
            face for face in faces if face["verdict"] == "replaced" and not face["max_similarity_to_known"] < face["threshold"]
        ],
    }
    if input is not None:
        there = sources(input)
        said["not in the result"] = [{"path": path} for path in sorted(there - {row["path"] for row in images})]
        said["not in the input"] = [row for row in images if row["path"] not in there]
        if expected.get("boxes"):
            said["a labelled box that no face covers"] = [row for row in images if not _boxes_used(recipe, row, faces, input)]
    return [f"{what}: {', '.join(row['path'] for row in rows[:5])}" for what, rows in said.items() if rows]


def sources(input: str) -> set[str]:  # noqa: A002
    """The paths of all images of a collection."""
    return {source.path for unit in Collection.open(input).units() for source in read_unit(unit) if source.error != TABLE}


def _boxes_used(recipe: str, row: Row, faces: list[Row], input: str) -> bool:  # noqa: A002
    place = load(FOLDER / recipe / "config.yaml", input=input).find.boxes
    if place is None or row["width"] is None:
        return True
    wanted = Boxes.load(place).of(row["image_id"], row["path"], row["width"], row["height"])
    mine = [np.array(face["box"], np.float64) for face in faces if face["path"] == row["path"]]
    return wanted is None or all(any(_shared(box, face) >= COVERED for face in mine) for box in wanted)


def _shared(a: Any, b: Any) -> float:
    """How much of the smaller of two boxes the other one covers."""
    sides = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    return float(np.prod(sides) / max(1e-9, min(np.prod(a[2:] - a[:2]), np.prod(b[2:] - b[:2]))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=sorted(path.parent.name for path in FOLDER.glob("*/expected.yaml")))
    parser.add_argument("out", type=Path)
    parser.add_argument("--input", help="the collection, to see that nothing is missing")
    args = parser.parse_args()
    images, faces = (pq.read_table(args.out / name).to_pylist() for name in ("images", "faces"))
    found = faults(args.recipe, images, faces, args.input)
    print("\n".join(found) or f"as expected: {len(images)} images, {len(faces)} faces")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
