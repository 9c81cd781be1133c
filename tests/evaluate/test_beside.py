"""Other collections' evaluations in one table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mfmc_ray.config import ConfigError
from mfmc_ray.evaluate.beside import OWN, collections, read
from mfmc_ray.evaluate.sections import SCHEMA


def figure(value: float) -> dict[str, Any]:
    return {"value": value, "low": value, "high": value, "n": 9}


def evaluation(after: float, titles: tuple[str, ...] = ("A", "B")) -> dict[str, Any]:
    """As far as the table looks into it."""
    rows = [
        {
            "title": title,
            "quality": {"rank1": figure(0.9), "tar_1e-3": figure(0.8)},
            "identification": {"protocol": "same_photo", "same_photo": {"rank1": figure(after)}, "other_photos": {}},
            "verification": {"tar_1e-3": figure(after / 2)},
        }
        for title in titles
    ]
    average = {"all": {"before": figure(0.9), "after": figure(after)}}
    recognition = {"people": {"people": 7}, "recognizers": rows, "average_accuracy": average, "verdict": {"text": "No verdict"}}
    return {"schema": SCHEMA, "images": {"pairs": 14}, "recognition": recognition}


def test_a_row_for_each_collection(tmp_path: Path) -> None:
    (tmp_path / "evaluation").mkdir()
    file = tmp_path / "evaluation" / "evaluation.json"
    file.write_text(json.dumps(evaluation(0.2, ("B",))))
    others = read([f"equal={tmp_path}", f"random={file}"])
    found = collections(evaluation(0.1), others)
    assert list(found["figures"]) == [OWN, "equal", "random"]
    assert found["figures"]["equal"]["average_accuracy_after"]["value"] == 0.2
    assert found["figures"][OWN]["most_found"]["value"] is None
    assert found["rank1"]["B"][f"{OWN}, after"]["value"] == 0.1
    assert found["tar_1e-3"]["B"]["equal, after"]["value"] == 0.1
    assert found["rank1"]["A"]["equal, after"]["why"] == "not asked"
    assert list(found["rank1"]["A"]) == list(found["rank1"]["B"])  # one table


@pytest.mark.parametrize("given", ["nothing", "=x", "a=", f"{OWN}=x", "gone=/nowhere"])
def test_what_is_no_evaluation_is_said(given: str) -> None:
    with pytest.raises(ConfigError):
        read([given])


def test_of_another_version(tmp_path: Path) -> None:
    file = tmp_path / "old.json"
    file.write_text(json.dumps(evaluation(0.1) | {"schema": SCHEMA + 1}))
    with pytest.raises(ConfigError, match="another version"):
        read([f"old={file}"])
