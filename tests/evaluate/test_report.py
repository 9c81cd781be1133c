from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pytest
from made_up_run import THRESHOLD, Run

from mfmc_ray.evaluate.report import FACES_SHOWN, IMAGES_SHOWN, odds, write_report
from mfmc_ray.tables import FACES, IDENTITIES, IMAGES


class Page(HTMLParser):
    """Tags, their attributes and the text of a page; a tag that is closed wrongly is an error."""

    VOID = frozenset({"meta", "img"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        assert not self.open
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def pictures(self, alt: str | None = None) -> list[np.ndarray]:
        found = [a["src"] for tag, a in self.tags if tag == "img" and alt in (None, a["alt"])]
        return [np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode((s or "").partition("base64,")[2])))) for s in found]


def page(run: Run, folder: Path, **options: Any) -> Page:
    return Page(write_report(folder, manifest=run.manifest, **run.tables(), **options).read_text())


def has_red(picture: np.ndarray) -> bool:
    return bool(((picture[..., 0] > 170) & (picture[..., 1] < 70) & (picture[..., 2] < 70)).any())


def test_the_page_loads_nothing(run: Run, tmp_path: Path) -> None:
    shown = page(run, tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == ["index.html"]
    assert not {"script", "link", "iframe", "object", "form"} & {tag for tag, _ in shown.tags}
    for tag, attributes in shown.tags:
        for name in ("src", "href", "action", "srcset"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
    assert "url(" not in (tmp_path / "index.html").read_text()


def test_the_public_page_shows_no_original(run: Run, tmp_path: Path) -> None:
    shown = page(run, tmp_path)
    assert shown.pictures()
    # originals have red faces, results blue ones
    assert not any(has_red(picture) for picture in shown.pictures())
    assert not shown.pictures("original")
    assert not shown.pictures("original face")
    assert "PRIVATE" not in shown.text


def test_the_private_page_shows_originals_and_says_so(run: Run, tmp_path: Path) -> None:
    shown = page(run, tmp_path, originals=run.originals.__getitem__)
    changed = [row for row in run.images if row["verdict"] in ("anonymized", "withheld")]
    assert len(shown.pictures("original")) == len(changed)
    assert len(shown.pictures("original face")) == len(run.faces)
    assert all(has_red(picture) for picture in shown.pictures("original face"))
    assert "PRIVATE" in shown.text


def test_an_original_that_cannot_be_had_is_left_out(run: Run, tmp_path: Path) -> None:
    def gone(image_id: str) -> np.ndarray:
        raise FileNotFoundError(image_id)

    shown = page(run, tmp_path, originals=gone)
    assert not shown.pictures("original")
    assert shown.pictures("published")


def test_figures_come_from_the_tables_or_the_manifest(run: Run, tmp_path: Path) -> None:
    replaced = sum(face["verdict"] == "replaced" for face in run.faces)
    assert f"Each of the {replaced} replaced faces" in page(run, tmp_path).text
    assert "all 73 known faces" in page(run, tmp_path).text
    assert "1 in 100,000" in page(run, tmp_path).text
    assert "11 images published of 14" in page(run, tmp_path).text
    run.manifest["counts"] = {"images": {"anonymized": 7000, "failed": 5}}
    assert "7,000 images published of 7,005" in page(run, tmp_path).text


@pytest.mark.parametrize(
    "fault",
    [
        {"max_similarity_to_known": THRESHOLD},
        {"similarity_to_original": 0.5},
        {"similarity_to_original": None},
        {"threshold": None},
        {"certificates": []},
        {"certificates": None},
    ],
    ids=str,
)
def test_a_face_that_breaks_the_promise_is_called_out(run: Run, tmp_path: Path, fault: dict[str, Any]) -> None:
    assert "guarantee does not hold" not in page(run, tmp_path).text
    next(face for face in run.faces if face["verdict"] == "replaced").update(fault)
    assert "guarantee does not hold for 1 of" in page(run, tmp_path).text


def test_every_guard_has_to_hold(run: Run, tmp_path: Path) -> None:
    run.manifest["guard"].append({"recognizer": "dlib", "threshold": 0.9})
    replaced = [face for face in run.faces if face["verdict"] == "replaced"]
    for face in replaced:
        face["certificates"] = [
            *face["certificates"],
            {**face["certificates"][0], "recognizer": "dlib", "threshold": 0.9, "max_similarity": 0.8},
        ]
    assert "guarantee does not hold" not in page(run, tmp_path).text
    replaced[2]["certificates"][1]["max_similarity"] = 0.95
    shown = page(run, tmp_path)
    assert "guarantee does not hold for 1 of" in shown.text
    assert "-0.050" in shown.text


def test_an_audit_that_fails_is_at_the_top(run: Run, tmp_path: Path) -> None:
    checks = [
        {"name": "faces without a row", "count": 0, "wanted": 0, "ok": True},
        {"name": "too similar", "count": 2, "wanted": 0, "ok": False},
    ]
    text = page(run, tmp_path, audit={"checks": checks}).text
    assert text.index("audit refutes") < text.index("The guarantee")
    assert "1 of 2 checks do not hold" in text
    assert "audit refutes" not in page(run, tmp_path, audit={"checks": checks[:1]}).text


def test_untrusted_text_is_text(run: Run, tmp_path: Path) -> None:
    nasty = "<script>alert(1)</script>\u202egpj.\udcff\x00'\"&"
    for row in run.images:
        row["path"] = nasty.encode("utf-8", "surrogateescape").decode("utf-8", "replace") + (row["path"] or "")
    run.manifest["notices"] = [nasty]
    run.manifest["models"][0]["name"] = nasty
    run.manifest["counts"] = {"redacted": {nasty: 2}, "images": {f'x"><b onclick=1>{nasty}': 1}}
    shown = page(run, tmp_path)
    assert "script" not in {tag for tag, _ in shown.tags}
    assert not any(name.startswith("on") for _, attributes in shown.tags for name in attributes)
    assert "<script>alert(1)</script>\ufffdgpj." in shown.text
    assert "\u202e" not in shown.text


def test_non_commercial_models_are_told(run: Run, tmp_path: Path) -> None:
    assert "NON-COMMERCIAL" not in page(run, tmp_path).text
    run.manifest["models"].append({"name": "stylegan", "license": "x", "commercial": False})
    assert "NON-COMMERCIAL" in page(run, tmp_path).text


def test_nothing_at_all_still_makes_a_page(tmp_path: Path) -> None:
    tables = {"images": IMAGES, "faces": FACES, "identities": IDENTITIES}
    text = Page(write_report(tmp_path, manifest={}, **{name: schema.empty_table() for name, schema in tables.items()}).read_text()).text
    assert "No face was replaced" in text


def test_failures_are_listed_with_their_reasons(run: Run, tmp_path: Path) -> None:
    text = page(run, tmp_path).text
    assert "broken/empty.jpg empty file" in text
    assert "album/07.jpg" in text


def test_histogram_counts_every_replaced_face(run: Run, tmp_path: Path) -> None:
    html = write_report(tmp_path, manifest=run.manifest, **run.tables()).read_text()
    first = html.split("<figure")[1]
    counted = sum(int(n) for n in re.findall(r"<title>[^<]*: (\d+) faces</title>", first))
    assert counted == sum(face["verdict"] == "replaced" for face in run.faces)
    assert f"threshold {THRESHOLD:.3f}" in first


def test_a_large_run_shows_a_sample_with_the_closest_first(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    small = np.full((64, 96, 3), 90, np.uint8)
    for n in range(150):
        run.add(f"more/{n:03d}.jpg", small, small, [(10, 10, 40, 40)], rng)
    shown = page(run, tmp_path)
    assert len(shown.pictures("published")) == IMAGES_SHOWN
    assert len(shown.pictures("published face")) == FACES_SHOWN
    captions = [float(value) for value in re.findall(r"replaced (0\.\d{3})", shown.text)]
    similarities = sorted((round(face["max_similarity_to_known"], 3) for face in run.faces if face["verdict"] == "replaced"), reverse=True)
    assert captions[:20] == similarities[:20]
    assert (tmp_path / "index.html").read_text() == write_report(tmp_path, manifest=run.manifest, **run.tables()).read_text()


def test_a_published_picture_that_does_not_decode_is_left_out(run: Run, tmp_path: Path) -> None:
    before = len(page(run, tmp_path).pictures("published"))
    run.images[1]["image"]["bytes"] = b"\xff\xd8\xff not a JPEG"
    assert len(page(run, tmp_path).pictures("published")) == before - 1


def test_tables_in_chunks_are_read_like_whole_ones(run: Run, tmp_path: Path) -> None:
    tables = run.tables()
    chunked = {name: pa.concat_tables([table.slice(0, 3), table.slice(3)]) for name, table in tables.items()}
    whole = write_report(tmp_path / "a", manifest=run.manifest, **tables).read_text()
    assert write_report(tmp_path / "b", manifest=run.manifest, **chunked).read_text() == whole


@pytest.mark.parametrize(
    ("rate", "said"), [(1e-6, "1 in 1,000,000"), (0.0, "less than could be measured"), (None, "–"), (float("nan"), "–")]
)
def test_odds(rate: float | None, said: str) -> None:
    assert odds(rate) == said


def test_an_audits_sample_held_out_recognizer_and_leak_rate_are_told(run: Run, tmp_path: Path) -> None:
    rate = {"rate": 0.0455, "low": 0.016, "high": 0.125, "chance": 0.0103, "chance_same_sex": 0.02, "chance_in_interval": False}
    rows = [
        {"recognizer": "openface", "independent": True, "people": 97, "probes": 118, "rank1": rate, "rank5": rate, "other_photo": None}
        | {"quality": {"rank1": rate | {"rate": 0.633}}},
        {"recognizer": "sface", "independent": False, "people": 3, "probes": 0, "rank1": None, "rank5": None, "other_photo": None}
        | {"quality": None},
    ]
    audit = {
        "checks": [],
        "verdict": "The promise holds as far as a sample shows",
        "held_out": {"openface": {"compared": 118, "same_person": 2, "threshold": 0.773, "recognizes": 0.285}},
        "leak": {"people": 97, "who": "clusters, not labels", "recognizers": rows},
        "leak_reason": "",
    }
    text = page(run, tmp_path, audit=audit).text
    assert "as far as a sample shows" in text
    assert "takes 2 of 118 replaced faces" in text
    assert "recognizes 28.5 % of true pairs" in text
    assert "4.5 %" in text or "4.6 %" in text
    assert "63.3 %" in text
    assert "clusters, not labels" in text
    assert "Leak rate: not measured" in page(run, tmp_path, audit={"checks": [], "leak": None, "leak_reason": "12 are there"}).text


def test_the_narrowest_margin_may_be_any_guards(run: Run, tmp_path: Path) -> None:
    # by the first guard the face is the farthest of all
    face = next(face for face in run.faces if face["verdict"] == "replaced")
    face["max_similarity_to_known"] = face["certificates"][0]["max_similarity"] = 0.05
    face["certificates"].append({**face["certificates"][0], "recognizer": "dlib", "max_similarity": 0.922, "threshold": 0.923})
    shown = page(run, tmp_path)
    assert "The narrowest margin of all was 0.001" in shown.text
    closest = shown.text.partition("The closest pairs")[2]
    assert closest.partition(f"{face['image_id'][:16]}:{face['face_no']}")[2].split()[2:5] == ["dlib", "0.922", "0.923"]
