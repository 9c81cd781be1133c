"""The page of a night."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mfmc_ray.evaluate.night import duration, write_night


def night(**changes: Any) -> dict[str, Any]:
    listed = {"new": 3, "changed": 2, "unsure": 0, "moved": 1, "gone": 4, "same": 1990}
    return {
        "started": "2026-11-25T02:00:00+00:00",
        "seconds": 3723.4,
        "expected_seconds": 3600.0,
        "settings_changed": ["swap.attempts"],
        "listed": {"scan": listed, "gallery-0": listed},
        "images": {"new": 3, "changed": 2, "deleted": 0},
        "parts": {"new": 0, "changed": 5, "kept": 58, "gone": 0},
        "known_faces": 2345,
        "generation": 7,
        "reopened": {"identities": 1, "faces": 6},
        "before": {"images": {"anonymized": 1500}},
        "counts": {
            "images": {"anonymized": 1501, "unchanged": 499},
            "faces": {"replaced": 2000},
            "failed": {"truncated": 1},
            "redacted": {"too_small": 12},
        },
        "notices": ["<script>alert(1)</script>"],
        **changes,
    }


@pytest.mark.parametrize(
    ("audit", "said"), [({}, None), ({"audit": True}, "Audit passed."), ({"audit": False}, "Refuted by the audit: do not publish.")]
)
def test_a_page_says_what_was_done(tmp_path: Path, audit: dict[str, bool], said: str | None) -> None:
    summary = night(**audit)
    text = write_night(tmp_path / "night.html", summary, [night(seconds=10.0), summary]).read_text()
    for part in ("Wed 25 Nov 2026, 02:00 UTC", "1:02:03", "swap.attempts", "2,345", "0 · 5 · 58 · 0", "truncated", "too_small", "1,990"):
        assert part.replace("1,990", "1990") in text
    assert "images with other content" in text
    assert "images deleted" not in text  # none was
    assert text.count("<tr><td>Wed 25 Nov 2026") == 2
    assert "<script" not in text
    assert [words for words in ("Audit passed.", "Refuted by the audit: do not publish.") if words in text] == ([said] if said else [])


def test_a_night_in_which_nothing_of_the_collection_changed(tmp_path: Path) -> None:
    summary = night(images={}, before={}, counts={"images": {}, "faces": {}, "failed": {}, "redacted": {}})
    text = write_night(tmp_path / "night.html", summary, [summary]).read_text()
    assert "No image of the collection changed." in text
    assert duration(59.6) == "0:01:00"
