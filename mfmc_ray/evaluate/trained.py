"""A small face detector that is trained on the output and tested on originals of people it has not seen, beside the same one trained on
originals: what the output is worth to whoever trains with it.

The detector says of square windows whether a face fills them: histograms of oriented gradients and a linear classifier (Dalal & Triggs,
"Histograms of Oriented Gradients for Human Detection", CVPR 2005; scikit-image, scikit-learn). The windows are drawn beforehand, so that
nothing has to be slid over pictures: the faces, places all over the picture, and near misses, which a detector has to leave, too.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from skimage.feature import hog
from threadpoolctl import threadpool_limits

from mfmc_ray.evaluate.bootstrap import Bootstrap, nothing, short
from mfmc_ray.evaluate.columns import LEAST_SIDE, whose
from mfmc_ray.evaluate.detections import average_precision
from mfmc_ray.evaluate.pair import SHOWN, Pair
from mfmc_ray.evaluate.sections import About, Note, Row
from mfmc_ray.evaluate.sheets import face_crop
from mfmc_ray.evaluate.surroundings import same_size
from mfmc_ray.faces.detect import overlap
from mfmc_ray.faces.faces import F32, Image

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Rows = NDArray[np.bool_]

TABLE = "windows"
VERSION = 1
SIDE, CELL, BLOCK, TURNS = 48, 8, 2, 9
"""Of a window's histograms: px, px, cells, orientations."""
NUMBERS = (SIDE // CELL - BLOCK + 1) ** 2 * BLOCK**2 * TURNS
MARGIN = 0.15
"""Around a face, of its box's longer side."""
MOST_FACES, NEAR, ANYWHERE = 8, 2, 6
"""Of a picture: faces, the largest first; windows beside each of them; windows wherever there is no face."""
NO_FACE = 0.3
"""IoU with every face, below which a window shows none."""
PARTS, LEAST, LEAST_PEOPLE, MOST_WINDOWS = 5, 40, 10, 20_000
"""Of the people, each tested by what learnt from the others; the fewest faces and people; the most windows, of pictures drawn at random."""
WEIGHT = 0.01
"""Of the data against the classifier's own size (scikit-learn's C). Trained on originals, 0.003 to 0.1 do as well (260 LFW photos); with
more, what is peculiar to the output (how smooth a blur is) is learnt by heart, and faces are told even less well by it."""
FALSE = 0.01
"""The share of windows without a face that may be taken for one, at which recall is stated."""
SIDES, MEASURES = ("outputs", "originals"), ("average_precision", "recall_at_fpr_1e-2")
_STEP = 510  # a histogram's 0–0.5 as a byte
_TRIES = 20
_DRAWS = 200
METHOD = (
    "a linear classifier of gradient histograms (HOG, 48 px) learns from windows of the output and is asked about windows of originals of "
    f"other people ({PARTS} parts, each tested once); “trained on originals”: the same with the originals' windows. Faces of "
    f"{LEAST_SIDE:.0f} px or more in published pictures. Of the output, only faces that it shows are learnt from: OUT's table tells which "
    "are covered (of a plain folder, nothing does). All are tested. Intervals draw the people tested, not those learnt from. It is a weak "
    "detector: hold the two against each other, and against guessing (the share of windows that show a face)"
)


def note() -> Note:
    """Windows of every pair."""
    return Note(TABLE, "mfmc_ray.evaluate.trained:WindowsNote", VERSION)


class WindowsNote:
    """A row for each window, of the same place in both pictures; a plain folder's are drawn as large as the original first.

    `face`: whether a face of the original fills it; `face_no`: which, or beside which it is, null for places anywhere; `original` and
    `output`: `NUMBERS` bytes of histograms, 255 for 0.5 and more, `output` null where the pixels are the same.
    """

    schema = pa.schema(
        [
            ("path", pa.string()),
            ("face_no", pa.int64()),
            ("face", pa.bool_()),
            ("original", pa.binary(NUMBERS)),
            ("output", pa.binary(NUMBERS)),
        ]
    )

    def collect(self, pair: Pair) -> list[Row]:
        """Of one pair."""
        if pair.output is None:
            return []
        output, rows = same_size(pair.output, pair.original), []
        for i, box, face in windows(pair):
            one, other = (_tile(image, box) for image in (pair.original, output))
            same = np.array_equal(one, other)
            seen = {"original": described(one), "output": None if same else described(other)}
            rows.append({"path": pair.path, "face_no": None if i is None else int(pair.faces.numbers[i]), "face": face, **seen})
        return rows


def windows(pair: Pair) -> Iterator[tuple[int | None, F32, bool]]:
    """The face in question, a square box (x0 y0 x1 y1, px of the original), and whether a face fills it. The same for each image, whatever
    became of it."""
    rng = np.random.default_rng(int(pair.image_id[:16], 16))
    height, width = pair.original.shape[:2]
    faces = squares(pair.faces.boxes)
    large = np.flatnonzero(pair.faces.sizes >= LEAST_SIDE)
    large = large[np.argsort(-pair.faces.sizes[large], kind="stable")][:MOST_FACES]
    for i in large.tolist():
        yield i, faces[i], True
    beside: list[int | None] = [None] * ANYWHERE + np.repeat(large, NEAR).tolist()
    for one in beside:
        for _ in range(_TRIES):
            box = _anywhere(height, width, rng) if one is None else _near(faces[one], rng)
            if not LEAST_SIDE / 2 <= box[2] - box[0] <= min(height, width):
                continue
            box -= np.tile(np.maximum(box[2:] - (width, height), 0) + np.minimum(box[:2], 0), 2)  # into the picture
            if not len(faces) or float(overlap(box[None], faces)[0].max()) < NO_FACE:
                yield one, box, False
                break


def squares(boxes: F32) -> F32:
    """float32 (n, 4): boxes with both sides as long as the longer one."""
    centres, halves = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).max(1, initial=0)[:, None] / 2
    return np.asarray(np.concatenate([centres - halves, centres + halves], axis=1), np.float32)


def _near(face: F32, rng: np.random.Generator) -> F32:
    """A box around a place within a side of a face's middle, half to twice as large."""
    side = float(face[2] - face[0])
    middle, half = (face[:2] + face[2:]) / 2 + side * rng.uniform(-1, 1, 2), side * 2 ** rng.uniform(-1, 1) / 2
    return np.concatenate([middle - half, middle + half]).astype(np.float32)


def _anywhere(height: int, width: int, rng: np.random.Generator) -> F32:
    """A box of 32 px up to half of the picture's shorter side."""
    side = LEAST_SIDE * max(min(height, width) / 2 / LEAST_SIDE, 1) ** rng.uniform()
    corner = rng.uniform(0, 1, 2) * np.maximum(np.array([width, height]) - side, 0)
    return np.concatenate([corner, corner + side]).astype(np.float32)


def _tile(image: Image, box: F32) -> Image:
    return np.asarray(cv2.cvtColor(face_crop(image, box, margin=MARGIN, side=SIDE), cv2.COLOR_RGB2GRAY), np.uint8)


def described(tile: Image) -> bytes:
    """`NUMBERS` bytes of a grey tile, uint8 (48, 48)."""
    histograms = hog(tile, TURNS, (CELL, CELL), (BLOCK, BLOCK), block_norm="L2-Hys")
    return bytes(np.clip(np.rint(histograms * _STEP), 0, 255).astype(np.uint8))


def figures(table: pa.Table, about: About) -> dict[str, Any]:
    """See docs/evaluate.md.

    Args:
        table: of `WindowsNote`.
        about: the faces and images.
    """
    table = _some(table, about.options.seed)
    faces, shown = np.asarray(table["face"].to_numpy(), bool), _shown(table, about)
    boot = Bootstrap(_people(table, about), about.options.rounds, about.options.seed)
    counts = {"faces": int(faces.sum()), "faces_shown": int((faces & shown).sum()), "windows_without_face": int((~faces).sum())}
    found = {"method": METHOD, **counts}
    why = missing()
    if why is None and (counts["faces"] < LEAST or boot.people < LEAST_PEOPLE):
        why = f"fewer than {LEAST} faces of {LEAST_SIDE:.0f} px, or all in pictures of fewer than {LEAST_PEOPLE} people"
    if why is not None:
        return {**found, **{name: {f"trained_on_{side}": nothing(why) for side in SIDES} for name in MEASURES}}
    before, after = _histograms(table)
    parts = np.random.default_rng(about.options.seed).permutation(boot.people)[boot.person] % PARTS
    with threadpool_limits(1):  # the same sums on any machine
        scores = dict(zip(SIDES, (_asked(after, before, faces, parts, shown), _asked(before, before, faces, parts)), strict=True))
    return {**found, "guessing": short(float(faces.mean())), **_measured(scores, faces, boot)}


def missing() -> str | None:
    """Why nothing can be trained; None if it can."""
    return None if importlib.util.find_spec("sklearn") else "training wants scikit-learn: pip install 'mfmc-ray[eval]'"


def _some(table: pa.Table, seed: int) -> pa.Table:
    """The windows of so many pictures, drawn at random, that they are no more than `MOST_WINDOWS`; in the order of paths."""
    table = table.sort_by("path")
    if table.num_rows <= MOST_WINDOWS:
        return table
    of = np.asarray(table["path"].combine_chunks().dictionary_encode().indices.to_numpy())
    order = np.random.default_rng(seed).permutation(int(of.max()) + 1)
    fitting = order[np.cumsum(np.bincount(of)[order]) <= MOST_WINDOWS]
    return table.filter(pa.array(np.isin(of, fitting)))


def _shown(table: pa.Table, about: About) -> Rows:
    """bool (rows,): false for faces that the output covers, and for windows beside these."""
    keys = zip(about.faces["path"].to_pylist(), about.faces["face_no"].to_pylist(), strict=True)
    there = dict(zip(keys, np.isin(np.array(about.faces["verdict"].to_pylist(), np.str_), SHOWN).tolist(), strict=True))
    return np.array([there.get(key, True) for key in _keys(table)], bool)


def _people(table: pa.Table, about: About) -> I64:
    """int64 (rows,): the person of each window's face; of others, and of unknown faces, that of the picture; a number of its own for each
    picture of nobody who is known."""
    keys = zip(about.faces["path"].to_pylist(), about.faces["face_no"].to_pylist(), strict=True)
    known = {key: person for key, person in zip(keys, about.person.tolist(), strict=True) if person >= 0}
    of = whose(about)
    nobody = {path: i for i, path in enumerate(about.images["path"].to_pylist(), int(about.person.max(initial=-1)) + 1)}
    return np.array([known.get(key, of.get(key[0], nobody[key[0]])) for key in _keys(table)], np.int64)


def _keys(table: pa.Table) -> list[tuple[str, int | None]]:
    return list(zip(table["path"].to_pylist(), table["face_no"].to_pylist(), strict=True))


def _histograms(table: pa.Table) -> tuple[F32, F32]:
    """float32 (rows, `NUMBERS`) of the originals and of the outputs."""
    before = table["original"].to_pylist()
    after = [other or one for one, other in zip(before, table["output"].to_pylist(), strict=True)]
    return _numbers(before), _numbers(after)


def _numbers(rows: Sequence[bytes]) -> F32:
    return np.asarray(np.frombuffer(b"".join(rows), np.uint8).reshape(-1, NUMBERS) / np.float32(_STEP), np.float32)


def _asked(learnt: F32, asked: F32, faces: Rows, parts: I64, some: Rows | None = None) -> F64 | None:
    """float64 (rows,): how much a window looks like a face to a classifier that learnt from the other parts; None if there are too few
    faces to learn from.

    Args:
        learnt: float32 (rows, d), what is learnt from.
        asked: the same windows as they are shown in the test.
        faces: bool (rows,): the truth.
        parts: int64 (rows,): below `PARTS`.
        some: bool (rows,): to learn from these only.
    """
    from sklearn.linear_model import LogisticRegression

    scores = np.zeros(len(faces))
    if some is not None and (faces & some).sum() < LEAST:
        return None
    for part in range(PARTS):
        tested = parts == part
        rows = ~tested if some is None else ~tested & some
        if faces[rows].sum() < LEAST // 2 or faces[rows].all():
            return None
        fitted = LogisticRegression(C=WEIGHT, class_weight="balanced", max_iter=1000).fit(learnt[rows], faces[rows])
        scores[tested] = fitted.decision_function(asked[tested])
    return scores


def _measured(scores: Mapping[str, F64 | None], faces: Rows, boot: Bootstrap) -> dict[str, Any]:
    """Both figures of both classifiers, and what is lost between them, by the same draws."""
    weights = boot.times[: min(boot.rounds, _DRAWS), boot.person].astype(np.float64)
    result: dict[str, Any] = {}
    for name, measure in zip(MEASURES, (_precision, recall_at), strict=True):
        result[name], drawn = {}, {}
        for side, values in scores.items():
            if values is None:
                result[name][f"trained_on_{side}"] = nothing(f"the output shows fewer than {LEAST} faces, or those of few people")
                continue
            order = np.lexsort((faces, -values))  # of equal ones the faces come last
            ranked, hits = values[order], faces[order]
            value = measure(ranked, hits, np.ones(len(hits)))
            drawn[side] = np.array([value, *(measure(ranked, hits, one[order]) for one in weights)])
            result[name][f"trained_on_{side}"] = boot.figure(value, drawn[side][1:], int(faces.sum()))
        if len(drawn) == 2:
            lost = drawn["originals"] - drawn["outputs"]
            result[name]["lost"] = boot.figure(float(lost[0]), lost[1:], int(faces.sum()))
    return result


def _precision(scores: F64, faces: Rows, weights: F64) -> float:
    return average_precision(scores, faces, float(weights @ faces), weights)


def recall_at(scores: F64, faces: Rows, weights: F64) -> float:
    """The share of faces that are told before more than `FALSE` of the other windows are taken for one; NaN without either.

    Args:
        scores: float64 (n,), falling.
        faces: bool (n,).
        weights: float64 (n,): how often each counts.
    """
    right, wrong = np.cumsum(weights * faces), np.cumsum(weights * ~faces)
    if not len(scores) or not right[-1] or not wrong[-1]:
        return float("nan")
    told = int(np.searchsorted(wrong, FALSE * wrong[-1], side="right"))
    return float(right[told - 1] / right[-1]) if told else 0.0
