from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from made_up_run import Run

from mfmc_ray.evaluate.card import dataset_card
from mfmc_ray.tables import FACES, IDENTITIES, IMAGES

COUNTS = {
    "images": {"unchanged": 3, "anonymized": 8, "withheld": 1, "failed": 2},
    "faces": {"replaced": 15, "redacted": 2, "kept": 1},
    "redacted": {"too_small": 2},
    "failed": {"empty file": 2},
}


def front_matter(card: str) -> dict[str, Any]:
    _, front, _ = card.split("---\n", 2)
    loaded: dict[str, Any] = yaml.safe_load(front)
    return loaded


def test_front_matter_names_the_tables(run: Run) -> None:
    front = front_matter(dataset_card(run.manifest | {"counts": COUNTS}, name="Städte: 2026 # best"))
    assert front["pretty_name"] == "Städte: 2026 # best"
    assert [config["config_name"] for config in front["configs"]] == ["images", "faces", "identities"]
    assert [config.get("default", False) for config in front["configs"]] == [True, False, False]
    assert front["license"] == "other"


@pytest.mark.parametrize(
    ("images", "size"), [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (250_000, "100K<n<1M"), (20_000_000, "n>10M")]
)
def test_size_category(images: int, size: str) -> None:
    assert front_matter(dataset_card({"counts": {"images": {"unchanged": images}}}))["size_categories"] == [size]


def test_every_column_is_explained(run: Run) -> None:
    card = dataset_card(run.manifest)
    for schema in (IMAGES, FACES, IDENTITIES):
        for name in schema.names:
            assert re.search(rf"^\| `{name}` \| \S.* \| \S.* \|$", card, re.MULTILINE), name


def test_figures_models_and_limits_are_in_it(run: Run) -> None:
    card = dataset_card(run.manifest | {"counts": COUNTS})
    for part in ("| anonymized | 8 |", "| **published** | **11** |", "| sface | 0.360 | 1 in 100,000 | 73 | 1 |", "| yunet | MIT | yes |"):
        assert part in card
    for word in ("Synthetic content", "Hair", "polars", "duckdb", "ray.data"):
        assert word.lower() in card.lower()
    assert "/somewhere/private" not in card


def test_non_commercial_models_are_told(run: Run) -> None:
    assert "NON-COMMERCIAL" not in dataset_card(run.manifest)
    run.manifest["models"].append({"name": "stylegan", "license": "x", "commercial": False})
    assert "> **NON-COMMERCIAL" in dataset_card(run.manifest)


def test_untrusted_text_stays_in_its_cell(run: Run) -> None:
    card = dataset_card(run.manifest | {"counts": {**COUNTS, "redacted": {"a|b\n# head <img src=x> [l](u)": 1}}})
    (row,) = [line for line in card.splitlines() if "img src" in line]
    assert row.count("|") == 3
    assert "<img" not in row
    assert "](" not in row


def test_an_empty_manifest_makes_a_card() -> None:
    assert front_matter(dataset_card({}))["size_categories"] == ["n<1K"]


def test_the_hub_library_loads_what_the_card_declares(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    out = tmp_path / "out"
    for name, table in run.tables().items():
        (out / name).mkdir(parents=True)
        pq.write_table(table, out / name / "part-0.parquet")
    (out / "manifest.json").write_text("{}")
    (out / "report").mkdir()
    (out / "report" / "index.html").write_text("<p>")
    (out / "README.md").write_text(dataset_card(run.manifest))
    images = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(images) == len(run.images)
    assert images[1]["image"].size == (320, 240)
    faces = datasets.load_dataset(str(out), "faces", split="train", cache_dir=str(tmp_path / "cache"))
    assert faces["verdict"] == [face["verdict"] for face in run.faces]
