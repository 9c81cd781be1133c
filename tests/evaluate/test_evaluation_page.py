"""The page of an evaluation: from full, minimal and odd figures."""

from __future__ import annotations

import base64
import builtins
import copy
import itertools
import json
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from made_up_run import Run
from test_report import Page

from mfmc_ray.evaluate.page import Guarded, Published, page
from mfmc_ray.evaluate.tabled import Group, Table, blocks, cell, percent, plain
from mfmc_ray.pipeline.shown import FACES_SHOWN, shown

NBSP = "\N{NO-BREAK SPACE}"


def figure(value: float | None, low: float | None = None, high: float | None = None, n: int = 118) -> dict[str, Any]:
    if value is None:
        return {"value": None, "low": None, "high": None, "n": 0, "why": "too few pairs of strangers"}
    return {"value": value, "low": value - 0.0123 if low is None else low, "high": value + 0.0123 if high is None else high, "n": n}


def recognizer(name: str, title: str, after: float, *, guard: bool = False, weak: bool = False) -> dict[str, Any]:
    asked = {
        "people": 57,
        "probes": 118,
        "people_probed": 57,
        "rank1_before": figure(0.981),
        "rank5_before": figure(0.99),
        "chance1": 0.0101,
    }
    asked |= {"rank1": figure(after, after - 0.029, after + 0.08), "rank5": figure(after + 0.1), "leak1": figure(after - 0.01)}
    asked |= {"drop1": figure(0.9), "chance5": 0.0508, "chance1_same_sex": 0.0203, "rank1_of_all_faces": figure(after * 0.9)}
    curve = {"far": [0.001, 0.01, 0.1, 1.0], "tar": [0.02, 0.1, 0.4, 1.0]}
    margin = {"mean": figure(0.2114), "median": figure(0.22), "p05": figure(-0.0321), "matches": figure(0.0341)}
    group = {"faces": 61, "rank1_before": figure(0.97), "rank1": figure(after, n=61), "margin_to_original": figure(0.2345, n=61)}
    return {
        "recognizer": name,
        "title": title,
        "guard": guard,
        "quality": {"rank1": figure(0.9811), "tar_1e-3": figure(0.8765), "eer": figure(0.0212), "weak": weak, "roc": curve},
        "identification": {"protocol": "other_photos", "other_photos": asked, "same_photo": {"rank1": figure(0.1777), "chance1": 0.0101}},
        "verification": {"tar_1e-3_before": figure(0.8765), "tar_1e-3": figure(0.0444), "auc": figure(0.6543), "roc": curve},
        "margin": {"to_original": {**margin, "histogram": {"start": -0.1, "width": 0.05, "counts": [3, 50, 65]}}},
        "margin_originals": {"to_others": margin},
        "unique": {"identities_worn": 83, "faces_that_wear_one": 118, "fakes": figure(0.9322), "originals": figure(None)},
        "by_group": {"sex": {"man": group, "woman": {**group, "faces": 12}}, "tone": {"very light": group}},
    }


def evaluation() -> dict[str, Any]:
    best = recognizer("faceres", "HSE faceres", 0.0454)
    rows = [recognizer("sface", "SFace", 0.01, guard=True), best, recognizer("memento", "Memento", 0.03, weak=True)]
    return {
        "schema": 1,
        "mfmc_ray": "9.8.7",
        "made": {"seconds": 61.5, "seed": 3, "rounds": 1000, "guards": ["sface"], "recognizers": {"faceres": "ab" * 32}},
        "images": {"pairs": 121, "verdicts": {"anonymized": 120, "withheld": 1}, "not_looked_at": {"another size": 2}, "without_output": 4},
        "recognition": {
            "people": {"labels": "folders", "people": 57, "with_other_photos": 50},
            "faces": {"replaced": 118, "redacted": 7},
            "method": "as it was done",
            "recognizers": rows,
            "skipped": {"arcface": "not here"},
            "average_accuracy": {"all": {"before": figure(0.9), "after": figure(0.1212), "drop": figure(0.7788), "recognizers": 3}},
            "verdict": {
                "recognizer": "faceres",
                "rank1": figure(0.0454, 0.016, 0.125),
                "chance1": 0.0101,
                "at_chance": False,
                "weak": ["memento"],
            },
        },
        "utility": {
            "method": "networks that took no part look at both",
            "detected": {"yunet": {"before": figure(0.9993), "after": figure(0.9767)}},
            "sex_kept": figure(0.9531),
            "by_group": {"sex": {"man": {"smile": figure(0.1717, n=9)}, "woman": {"smile": figure(0.2323)}}},
        },
        "comparisons": {
            "ways": [
                {"name": "black box", "privacy": {"rank1": figure(0.0111)}, "seconds": 0.5},
                {"name": "no-op", "privacy": {"rank1": figure(0.9812)}, "seconds": 0.1},
            ]
        },
    }


def published() -> Published:
    guards = [Guarded("sface", 0.363, 0.3511, 0.2, 0.02, [3, 40, 75]), Guarded("dlib", 0.923, None, 0, 0.02, [])]
    manifest = {"created": "2026-01-02T03:04:05+00:00", "notices": ["NON-COMMERCIAL use only"], "counts": {"failed": {"empty file": 2}}}
    tile = np.full((96, 96, 3), (20, 40, 200), np.uint8)
    return Published(manifest, guards, {"no_mesh": 6, "else": 1}, [tile, tile])


@pytest.fixture(scope="module")
def full() -> str:
    html, missing = page(evaluation(), published())
    assert missing is None
    return html


def test_the_verdict_is_a_sentence(full: str) -> None:
    text = Page(full).text
    assert f"Of 118 replaced faces, 4.5{NBSP}% (1.6–12.5) are still recognised by HSE faceres".replace(NBSP, " ") in text.replace(NBSP, " ")
    assert "guessing finds 1.0 %" in text.replace(NBSP, " ")
    assert "That is more than guessing" in text
    assert "the one that finds the most of 2 recognizers that took no part (1 of them strong)" in text
    assert "Weak on these very originals, so that it says little if they find nobody: Memento" in text


def test_a_weak_recognizer_that_finds_people_is_the_verdict() -> None:
    found = evaluation()
    found["recognition"]["verdict"] |= {"recognizer": "memento", "rank1": figure(0.3)}
    text = Page(page(found)[0]).text
    assert "are still recognised by Memento, the one that finds the most of 2 recognizers that took no part (1 of them strong)" in text


def leaves(data: Any) -> list[dict[str, Any]]:
    if isinstance(data, dict) and "value" in data:
        return [data]
    inner = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    return [leaf for value in inner for leaf in leaves(value)]


def test_every_figure_is_there_with_its_interval(full: str) -> None:
    text = Page(full).text.replace(NBSP, " ")
    for one in leaves(evaluation()):
        if one["value"] is not None:
            ways = [cell(one), cell(one, share=True)]
            assert any(
                f"{way.text.replace(NBSP, ' ')} ({way.interval})" in text.replace(" † (", " (").replace("† (", " (") for way in ways
            ), one
    assert "too few pairs of strangers" in text
    for words in (
        "black box",
        "no-op",
        "0.500",
        "SFace (guard)",
        "Memento (weak)",
        "arcface: not here",
        "no mesh",
        "another size",
        "9.8.7",
    ):
        assert words in text
    assert "woman †" in text.replace(NBSP, " ")  # few faces


def test_nothing_is_fetched_and_no_script_runs(full: str) -> None:
    made = Page(full)
    assert not {tag for tag, _ in made.tags} & {"script", "link", "iframe", "object", "embed", "form", "base"}
    for tag, attributes in made.tags:
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#")), tag
        assert not any(name.startswith("on") for name in attributes)
    assert "http" not in re.sub(r"data:[^\"]*", "", full).replace("http-equiv", "")
    assert "url(" not in full
    assert "@import" not in full
    for picture in re.findall(r'src="data:image/svg\+xml;base64,([^"]*)"', full):
        svg = base64.b64decode(picture).decode()
        assert not re.search(r'href="(?!#)', svg)
        assert "<script" not in svg


def test_it_is_a_page_for_everybody(full: str) -> None:
    made = Page(full)
    levels = [int(tag[1]) for tag, _ in made.tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    images = [attributes for tag, attributes in made.tags if tag == "img"]
    assert len(images) >= 7
    assert all(attributes.get("alt") for attributes in images)
    tables = [tag for tag, _ in made.tags if tag in ("table", "caption")]
    assert tables == ["table", "caption"] * (len(tables) // 2)
    ids = [attributes["id"] for _, attributes in made.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {(attributes["href"] or "")[1:] for tag, attributes in made.tags if tag == "a" and (attributes["href"] or "").startswith("#")}
    assert links == set(ids)


def test_the_figures_are_in_it_as_json(full: str) -> None:
    found = re.search(r'href="data:application/json;base64,([^"]*)" download', full)
    assert found
    assert json.loads(base64.b64decode(found[1])) == evaluation()


@pytest.mark.parametrize("odd", [{}, {"recognition": {}}, {"recognition": None}, {"schema": 2, "recognition": {"recognizers": []}}])
def test_little_is_enough(odd: dict[str, Any]) -> None:
    html, missing = page(odd)
    assert missing is None
    assert "There is no verdict" in Page(html).text


def test_missing_and_odd_figures_break_nothing() -> None:
    whole = evaluation()
    paths = ["recognition.people", "recognition.verdict", "recognition.average_accuracy", "made", "images", "utility", "comparisons"]
    for path in paths:
        for odd in (None, [], {}, "text", 3, float("nan"), [[1, 2], {"a": [{"b": {}}]}], {"value": "x"}):
            broken = copy.deepcopy({name: value for name, value in whole.items() if name != "recognition" or path.startswith("recog")})
            place, _, name = path.rpartition(".")
            (broken[place] if place else broken)[name] = odd
            for row in broken.get("recognition", {}).get("recognizers", []):
                row.pop("by_group")
                for key in ("identification", "verification", "margin", "quality"):
                    row[key] = odd  # and no charts, which take their time
            Page(page(broken)[0])


def test_what_is_written_is_no_markup() -> None:
    hostile = '<script>alert(1)</script>"><img src=x onerror=y>\N{RIGHT-TO-LEFT OVERRIDE}'
    whole: dict[str, Any] = {
        hostile: {hostile: {"a": hostile}, "b": [hostile, 1], "note": hostile},
        "recognition": {"verdict": {"text": hostile}},
    }
    html, _ = page(whole)
    assert not {tag for tag, _ in Page(html).tags} & {"script", "img"}
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in html


def test_without_matplotlib_there_are_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    html, why = page(evaluation(), published())
    assert why == "charts want matplotlib: pip install 'mfmc-ray[eval]'"
    assert "image/svg" not in html
    assert "pip install" in Page(html).text


def test_any_section_becomes_tables() -> None:
    found = blocks(evaluation()["utility"])
    assert found[0] == "Networks that took no part look at both"
    tables = [block for block in found if isinstance(block, Table)]
    assert [table.caption for table in tables] == ["Figures", "Detected"]
    assert tables[1].head == ["", "before", "after"]
    (group,) = (block for block in found if isinstance(block, Group))
    assert group.title == "By group"
    (by_sex,) = group.blocks
    assert isinstance(by_sex, Table)
    assert [name for name, _ in by_sex.rows] == [f"man{NBSP}†", "woman"]
    (alike,) = blocks({name: {"output": figure(0.5), "real": figure(0.6)} for name in ("precision", "recall")})
    assert isinstance(alike, Table)
    assert (alike.caption, alike.head, [name for name, _ in alike.rows]) == (
        "Precision, recall",
        ["", "output", "real"],
        ["precision", "recall"],
    )
    (ways,) = blocks(evaluation()["comparisons"])
    assert isinstance(ways, Table)
    assert ways.head == ["", "name", "privacy · rank1", "seconds"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (True, "yes"),
        (12345, "12,345"),
        (0.04567, "0.046"),
        (-0.5, "−0.500"),
        (float("inf"), "–"),
        (1e-15, "0"),
        (31.42, "31.4"),
    ],
)
def test_numbers(value: Any, text: str) -> None:
    assert plain(value) == text


def test_shares() -> None:
    assert percent(-1e-9) == f"0.0{NBSP}%"
    assert cell(figure(0.1, -0.05, 0.2), share=True).interval == "−5.0 to 20.0"
    assert cell({"value": None, "why": "nobody"}).note == "nobody"


def test_only_what_is_published_is_shown(run: Run) -> None:
    tables = run.tables()
    found = shown(run.manifest, tables["images"], tables["faces"])
    replaced = [face for face in run.faces if face["verdict"] == "replaced"]
    (guard,) = found.guarded
    assert (guard.recognizer, guard.faces, guard.broken) == ("sface", len(replaced), 0)
    assert guard.worst == pytest.approx(max(face["max_similarity_to_known"] for face in replaced))
    assert sum(found.redacted.values()) == sum(face["verdict"] == "redacted" for face in run.faces)
    kept = {face["path"] for face in run.faces if face["verdict"] == "kept"}
    gone = {image["path"] for image in run.images if not image.get("image") or image["image"]["bytes"] is None}
    assert 0 < len(found.tiles) == min(FACES_SHOWN, sum(face["path"] not in kept | gone for face in replaced))
    for tile in found.tiles:  # faces of originals are red in this run, published ones blue
        assert tile.shape == (96, 96, 3)
        assert not ((tile[..., 0] > 170) & (tile[..., 1] < 90) & (tile[..., 2] < 90)).any()
    html, _ = page({}, found)
    for image in run.images:
        assert image["path"] not in html
        assert (image.get("image_id") or "none of it") not in html


def test_a_certificate_that_is_not_recorded_does_not_hold(run: Run) -> None:
    replaced = next(face for face in run.faces if face["verdict"] == "replaced")
    replaced["certificates"][0] |= {"max_similarity": None}
    tables = run.tables()
    (guard,) = shown(run.manifest, tables["images"], tables["faces"]).guarded
    assert guard.broken == 1


def test_no_faces(run: Run) -> None:
    tables = run.tables()
    nothing = shown({}, tables["images"].slice(0, 0), tables["faces"].slice(0, 0))
    assert (list(nothing.guarded), list(nothing.tiles), dict(nothing.redacted)) == ([], [], {})
    assert isinstance(tables["faces"], pa.Table)
    assert "No face was covered" in Page(page({}, nothing)[0]).text
