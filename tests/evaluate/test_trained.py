"""A detector learns from outputs and is asked about originals of others: as well as from originals where nothing was done, less well from
blurred faces, hardly at all from boxes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from made_pairs import Change, black, blur
from numpy.typing import ArrayLike
from PIL import Image as PillowImage

from mfmc_ray.codec import decode
from mfmc_ray.evaluate import page, trained
from mfmc_ray.evaluate.faces_note import FACES, IMAGES
from mfmc_ray.evaluate.pair import Pair, PairedFaces
from mfmc_ray.evaluate.sections import About, Options
from mfmc_ray.evaluate.trained import NUMBERS, WindowsNote, figures, recall_at, squares, windows
from mfmc_ray.faces.detect import YuNet, overlap

PEOPLE = 60


def made_up(boxes: ArrayLike, output: bool = True, *, image_id: str = "0123456789abcdef") -> Pair:
    pixels = np.random.default_rng(0).integers(0, 255, (200, 300, 3)).astype(np.uint8)
    found = np.array(boxes, np.float32).reshape(-1, 4)
    n = len(found)
    points = np.zeros((n, 5, 2), np.float32)
    faces = PairedFaces(np.arange(n) + 7, ("changed",) * n, ("",) * n, ("",) * n, found, points, found, points, *np.ones((2, n), bool))
    return Pair(image_id, "a/0.png", "changed", pixels, pixels.copy() if output else None, faces)


def changed(pair: Pair, change: Change) -> Pair:
    output = pair.original.copy()
    for face in pair.faces.boxes:
        x0, y0, x1, y1 = np.clip(np.round(face), 0, [*output.shape[1::-1]] * 2).astype(int)
        output[y0:y1, x0:x1] = change(pair.original[y0:y1, x0:x1])
    return dataclasses.replace(pair, output=output)


def covered(pairs: Sequence[Pair], some: int) -> list[Pair]:
    """The faces of the first pictures are covered, and said to be."""
    words = ["redacted" if i < some else "kept" for i in range(len(pairs))]
    return [
        dataclasses.replace(changed(pair, black) if word == "redacted" else pair, faces=_called(pair.faces, word))
        for pair, word in zip(pairs, words, strict=True)
    ]


def _called(faces: PairedFaces, word: str) -> PairedFaces:
    return dataclasses.replace(faces, verdicts=(word,) * len(faces))


def said(pairs: Sequence[Pair], *, known: bool = True) -> dict[str, Any]:
    table = pa.Table.from_pylist([row for pair in pairs for row in WindowsNote().collect(pair)], WindowsNote.schema)
    return figures(table, about(pairs, known=known))


def about(pairs: Sequence[Pair], *, known: bool = True) -> About:
    rows = [
        pair.key(i) | {"verdict": pair.faces.verdicts[i], "size": float(pair.faces.sizes[i])}
        for pair in pairs
        for i in range(len(pair.faces))
    ]
    names = [row["path"].partition("/")[0] for row in rows]
    person = np.unique(np.array(names, np.str_), return_inverse=True)[1] if known else np.full(len(rows), -1)
    images = pa.Table.from_pylist([{"path": pair.path} for pair in pairs], IMAGES)
    return About(pa.Table.from_pylist(rows, FACES), images, person.astype(np.int64), "folders", {}, Options(rounds=50))


@pytest.fixture(scope="module")
def pairs(shared_data: Path) -> list[Pair]:
    """A photo of each of some people, as it was."""
    detector, found = YuNet(), []
    for folder in sorted((shared_data / "people").iterdir())[:PEOPLE]:
        picture = decode(sorted(folder.iterdir())[0].read_bytes(), 10**7).pixels
        pair = made_up(detector.detect(picture).boxes, image_id=hashlib.sha256(folder.name.encode()).hexdigest())
        found.append(dataclasses.replace(pair, path=f"{folder.name}/0.jpg", original=picture, output=picture))
    return found


@pytest.mark.models
def test_less_is_learnt_from_a_blur_and_least_from_boxes(pairs: list[Pair]) -> None:
    nothing, blurred, boxes = said(pairs), said([changed(pair, blur) for pair in pairs]), said([changed(pair, black) for pair in pairs])
    for name in ("average_precision", "recall_at_fpr_1e-2"):
        assert nothing[name]["trained_on_outputs"] == nothing[name]["trained_on_originals"]
        assert nothing[name]["lost"] == {"value": 0, "low": 0, "high": 0, "n": nothing["faces"]}
        first, second, third = (some[name]["trained_on_outputs"]["value"] for some in (nothing, blurred, boxes))
        assert first > second > third, name
        assert boxes[name]["trained_on_originals"] == nothing[name]["trained_on_originals"]
        assert boxes[name]["lost"]["low"] > 0
    assert nothing["average_precision"]["trained_on_outputs"]["value"] > 0.6
    assert boxes["average_precision"]["trained_on_outputs"]["value"] < 2.5 * boxes["guessing"] < 0.5
    assert said(pairs) == nothing


@pytest.mark.models
def test_faces_that_are_said_to_be_covered_are_not_learnt_from(pairs: list[Pair]) -> None:
    some, every = said(covered(pairs, 15)), said(covered(pairs, len(pairs)))
    assert some["faces"] > some["faces_shown"] > 0
    figure = some["average_precision"]
    assert 0.5 < figure["trained_on_outputs"]["value"] < figure["trained_on_originals"]["value"]
    assert every["faces_shown"] == 0
    assert every["average_precision"]["trained_on_outputs"]["value"] is None
    assert "lost" not in every["average_precision"]
    assert every["average_precision"]["trained_on_originals"] == figure["trained_on_originals"]


@pytest.mark.models
def test_nobody_need_be_known_and_the_page_shows_it(pairs: list[Pair]) -> None:
    found = said(pairs, known=False)
    assert found["average_precision"]["trained_on_originals"]["value"] > 0.6
    html, _ = page.page({"downstream": {"trained": json.loads(json.dumps(found, allow_nan=False))}})
    for text in ("Trained", "average precision", "trained on outputs", "trained on originals", "guessing"):
        assert text in html


def test_windows_show_a_face_or_none() -> None:
    pair = made_up([(100, 60, 150, 130), (220, 20, 245, 40)])  # the second one is too small to be learnt from
    found = list(windows(pair))
    assert [(i, face) for i, _, face in found if face] == [(0, True)]
    assert sorted({-1 if i is None else i for i, _, _ in found}) == [-1, 0]
    boxes = np.array([box for _, box, _ in found])
    sides = boxes[:, 2:] - boxes[:, :2]
    assert sides[:, 0] == pytest.approx(sides[:, 1], abs=1e-3)
    others = boxes[[not face for _, _, face in found]]
    assert len(others) > 5
    assert (others[:, :2] > -1e-3).all()
    assert (others[:, 2:] < np.array([300, 200]) + 1e-3).all()
    assert overlap(others, squares(pair.faces.boxes))[0].max() < trained.NO_FACE
    again = list(windows(dataclasses.replace(pair, output=None)))
    assert all(np.array_equal(one[1], other[1]) for one, other in zip(found, again, strict=True))
    elsewhere = list(windows(dataclasses.replace(pair, image_id="fedcba9876543210")))
    assert not np.array_equal(found[-1][1], elsewhere[-1][1])


def test_rows_are_small_and_say_what_changed() -> None:
    pair = made_up([(100, 60, 150, 130)])
    rows = WindowsNote().collect(changed(pair, black))
    assert [row["face"] for row in rows].count(True) == 1
    assert rows[0]["face_no"] == 7
    assert rows[0]["output"] is not None
    assert any(row["output"] is None for row in rows)
    assert {len(row["original"]) for row in rows} == {NUMBERS} == {900}
    assert WindowsNote().collect(made_up([(100, 60, 150, 130)], output=False)) == []
    assert [row["face"] for row in WindowsNote().collect(made_up([]))] == [False] * trained.ANYWHERE
    smaller = dataclasses.replace(pair, output=np.asarray(PillowImage.fromarray(pair.original).resize((150, 100))))
    assert len(WindowsNote().collect(smaller)) == len(rows)
    for size in (1, 20):  # too small for any window
        tiny = dataclasses.replace(made_up([]), original=np.zeros((size, 9, 3), np.uint8), output=np.zeros((size, 9, 3), np.uint8))
        assert all(len(row["original"]) == NUMBERS for row in WindowsNote().collect(tiny))


def test_too_little_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    few = said([made_up([(100, 60, 150, 130)])])
    assert (few["faces"], few["faces_shown"]) == (1, 1)
    figure = few["average_precision"]["trained_on_outputs"]
    assert figure["value"] is None
    assert "fewer than 40 faces" in figure["why"]
    assert said([])["faces"] == 0
    monkeypatch.setattr(trained, "missing", lambda: "training wants scikit-learn")
    assert said([])["recall_at_fpr_1e-2"]["trained_on_originals"]["why"] == "training wants scikit-learn"


def test_windows_go_with_whom_they_show() -> None:
    """A known face with its person, wherever it is; an unknown one and places with the person whom the picture is of."""
    first, second = (dataclasses.replace(made_up([(20, 20, 90, 90), (150, 60, 220, 130)]), path=f"{n}/0.png") for n in "ab")
    nobody = dataclasses.replace(made_up([(20, 20, 90, 90)]), path="c/0.png")
    collected = [row for pair in (first, second, nobody) for row in WindowsNote().collect(pair)]
    table = pa.Table.from_pylist(collected, WindowsNote.schema)
    known = dataclasses.replace(about([first, second, nobody]), person=np.array([5, -1, 6, 5, -1]))
    people = trained._people(table, known)
    of = {(row["path"], row["face_no"]): int(who) for row, who in zip(collected, people, strict=True)}
    assert of["a/0.png", 7] == of["a/0.png", 8] == of["a/0.png", None] == 5
    assert (of["b/0.png", 7], of["b/0.png", 8]) == (6, 5)
    assert of["c/0.png", 7] == of["c/0.png", None] not in (5, 6)


def test_recall_is_that_of_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained, "FALSE", 0.1)
    rng = np.random.default_rng(0)
    faces, weights = rng.random(200) < 0.3, rng.integers(0, 3, 200).astype(float)
    scores = np.sort(rng.normal(size=200))[::-1]
    best = 0.0
    for threshold in scores:
        taken = scores >= threshold
        if weights[taken & ~faces].sum() <= 0.1 * weights[~faces].sum():
            best = max(best, weights[taken & faces].sum() / weights[faces].sum())
    assert recall_at(scores, faces, weights) == pytest.approx(best)
    assert np.isnan(recall_at(scores, np.ones(200, bool), weights))


def test_no_more_windows_than_can_be_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained, "MOST_WINDOWS", 20)
    pairs = [dataclasses.replace(made_up([(100, 60, 150, 130)]), path=f"{n}/0.png") for n in range(5)]
    rows = [row for pair in pairs for row in WindowsNote().collect(pair)]
    some = trained._some(pa.Table.from_pylist(rows, WindowsNote.schema), 0)
    assert 9 <= some.num_rows <= 20
    each = {path: sum(row["path"] == path for row in rows) for path in set(some["path"].to_pylist())}
    assert sum(each.values()) == some.num_rows  # whole pictures
