"""Whether detectors find the same in the output: what each finds in the original is taken for the truth, as if the output trained or
tested a detector with the original's boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mfmc_ray.evaluate.bootstrap import Bootstrap, nothing
from mfmc_ray.evaluate.looks import DETECTORS
from mfmc_ray.evaluate.networks import ObjectNet, distances
from mfmc_ray.evaluate.pair import Pair
from mfmc_ray.evaluate.pairing import MIN_SCORE
from mfmc_ray.evaluate.sections import Row
from mfmc_ray.evaluate.surroundings import hidden, same_size
from mfmc_ray.faces.detect import overlap
from mfmc_ray.faces.faces import F32

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
Rows = NDArray[np.bool_]

SAME_PLACE = 0.5
"""IoU from which two boxes are of the same thing, as PASCAL VOC has it."""
OBJECTS_FROM = 0.3
"""Score from which a thing is in a picture."""
_FAINTEST = 0.1  # the end of the precision-recall curve

_FOUND = [("truth", pa.int32()), ("scores", pa.list_(pa.float32())), ("hits", pa.list_(pa.bool_()))]


class FaceDetections:
    """A row for each detector and published image: how many faces it sees in the original, and the scores of what it finds in the output,
    with whether that is one of those."""

    schema = pa.schema([("path", pa.string()), ("detector", pa.string()), *_FOUND])

    def collect(self, pair: Pair) -> list[Row]:
        """Of one pair."""
        if pair.output is None:
            return []
        scale = np.tile(np.array(pair.original.shape[1::-1], np.float32) / np.array(pair.output.shape[1::-1], np.float32), 2)
        rows = []
        for name in DETECTORS:
            if name in pair.detections:
                before, after = pair.detections[name]
                truth = before.take(before.scores >= MIN_SCORE)
                hits = matched(truth.boxes, np.asarray(after.boxes * scale, np.float32), after.scores)
                found = {"truth": len(truth), "scores": after.scores.tolist(), "hits": hits.tolist()}
                rows.append(pair.key() | {"detector": name} | found)
        return rows


class ObjectsNote:
    """A row for each published image: the things in it, as for `FaceDetections`, and the picture without its faces as a vector and how
    different that looks.

    What is within a quarter of a face's box around it is grey in both pictures there.
    """

    schema = pa.schema(
        [
            ("path", pa.string()),
            *_FOUND,
            ("kinds", pa.list_(pa.int16())),  # of the original, those from `OBJECTS_FROM`, each once
            ("output_kinds", pa.list_(pa.int16())),
            ("original", pa.list_(pa.float32())),
            ("output", pa.list_(pa.float32())),
            ("distance", pa.float32()),  # as `networks.distances`
        ]
    )

    def __init__(self) -> None:
        self._net = ObjectNet()

    def collect(self, pair: Pair) -> list[Row]:
        """Of one pair."""
        if pair.output is None:
            return []
        output = same_size(pair.output, pair.original)
        before, after = self._net.objects(pair.original, OBJECTS_FROM), self._net.objects(output, _FAINTEST)
        hits = matched(before.boxes, after.boxes, after.scores, before.kinds, after.kinds)
        surroundings = [self._net.see(hidden(image, pair.faces.boxes)[None]) for image in (pair.original, output)]
        sure = after.kinds[after.scores >= OBJECTS_FROM]
        return [
            pair.key()
            | {"truth": len(before.boxes), "scores": after.scores.tolist(), "hits": hits.tolist()}
            | {"kinds": np.unique(before.kinds).tolist(), "output_kinds": np.unique(sure).tolist()}
            | {name: seen.vectors[0].tolist() for name, seen in zip(("original", "output"), surroundings, strict=True)}
            | {"distance": float(distances(*surroundings)[0])}
        ]


def matched(truth: F32, boxes: F32, scores: F32, truth_kinds: I64 | None = None, kinds: I64 | None = None) -> Rows:
    """Which of the boxes are of a true one that no better one is of.

    Args:
        truth: float32 (t, 4).
        boxes: float32 (n, 4).
        scores: float32 (n,): the best one chooses first.
        truth_kinds, kinds: (t,) and (n,): what it is; None: all the same.

    Returns:
        bool (n,).
    """
    hits = np.zeros(len(boxes), bool)
    if not len(truth) or not len(boxes):
        return hits
    iou = np.array(overlap(np.asarray(boxes, np.float32), np.asarray(truth, np.float32))[0])
    if truth_kinds is not None and kinds is not None:
        iou[kinds[:, None] != truth_kinds[None]] = -1
    for i in np.argsort(-scores, kind="stable"):
        best = int(iou[i].argmax())
        if iou[i, best] >= SAME_PLACE:
            hits[i], iou[:, best] = True, -1
    return hits


def average_precision(scores: F64, hits: Rows, truth: float, weights: F64 | None = None) -> float:
    """The area below precision over recall, precision being made to fall (PASCAL VOC from 2010 on); NaN without truth.

    Args:
        scores: (n,), of all images.
        hits: bool (n,).
        truth: how many there are to find.
        weights: (n,), how often each counts.
    """
    if not truth:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    weights = np.ones(len(scores)) if weights is None else weights[order]
    right = np.cumsum(weights * hits[order])
    precision = right / np.maximum(np.cumsum(weights), 1e-9)
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(right / truth, prepend=0) * falling).sum())


def found_again(table: pa.Table, at: I64, boot: Bootstrap, sure: float) -> dict[str, Any]:
    """`precision` and `recall` of what has at least the score `sure`, and `ap50`.

    Args:
        table: with `_FOUND`'s columns.
        at: int64 (rows,): the image of each row.
        boot: of images.
        sure: score.
    """
    truth = np.asarray(table["truth"].to_numpy(), np.float64)
    lengths = [len(one) for one in table["scores"].to_pylist()]
    scores, hits = (_flat(table[name].to_pylist()) for name in ("scores", "hits"))
    of = np.repeat(at, lengths).astype(np.int64)
    if not truth.sum():
        why = nothing("nothing is found in the originals")
        return {"truth": 0, "precision": why, "recall": why, "ap50": why}
    certain, right = scores >= sure, hits > 0
    person = boot.person
    weights = boot.times.astype(np.float64)
    there = np.bincount(person[at], truth, boot.people).astype(np.float64)
    said, good = (np.bincount(person[of[some]], minlength=boot.people).astype(np.float64) for some in (certain, certain & right))
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = weights @ good / (weights @ said), weights @ good / (weights @ there)
    drawn = [average_precision(scores, right, float(weights[i] @ there), weights[i, person[of]]) for i in range(min(boot.rounds, 200))]
    n, total, claimed = int(truth.sum()), float(good.sum()), int(said.sum())
    return {
        "truth": n,
        "precision": boot.figure(total / claimed, precision, claimed) if claimed else nothing("nothing is found in the output"),
        "recall": boot.figure(total / n, recall, n),
        "ap50": boot.figure(average_precision(scores, right, n), np.array(drawn), n),
    }


def _flat(lists: Sequence[Sequence[float]]) -> F64:
    return np.array([value for one in lists for value in one], np.float64)
