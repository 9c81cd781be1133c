"""Each recipe on a small copy of its dataset's layout: what comes out is what the recipe says, and its queries work."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from layouts import LAYOUTS, img2dataset
from PIL import Image
from typer.testing import CliRunner

import mfmc_ray.pipeline.fakes
import mfmc_ray.pipeline.remote
import mfmc_ray.pipeline.run
import mfmc_ray.pipeline.scans
from mfmc_ray.cli import app
from mfmc_ray.config import load
from mfmc_ray.faces.pack import load_pack
from mfmc_ray.pipeline.profiles import Plan

RECIPES = Path(__file__).parents[2] / "recipes"
CASES: dict[str, tuple[str, Callable[[Path], None]]] = {name: (name, make) for name, make in LAYOUTS.items()}
CASES |= {f"img2dataset {kind}": ("laion-img2dataset", partial(img2dataset, kind=kind)) for kind in ("files", "parquet")}
DATASET = {"lfw": "lfw-numbered", "widerface": "wider", "coco": "coco", "hf-parquet": "dataset", "laion-img2dataset": "shards"}
"""What each README calls the collection."""


def checker() -> Any:
    spec = importlib.util.spec_from_file_location("recipes_check", RECIPES / "check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", autouse=True)
def _in_process() -> Iterator[None]:
    """The passes of a run one after the other in this process, with the same workers, and the models loaded once."""
    packs: dict[Any, Any] = {}

    def run_parts(stage_class: Any, kwargs: Mapping[str, Any], parts: Sequence[Any], *, on_result: Any, **_: Any) -> None:
        stage = stage_class(**kwargs) if parts else None
        for part in parts:
            on_result(part["part"], stage(part))

    def pack(find: Any, recognizers: Any) -> Any:
        key = (find.detectors, find.min_score, tuple(recognizers))
        if key not in packs:
            packs[key] = load_pack(find, recognizers)
        return packs[key]

    with pytest.MonkeyPatch.context() as patch:
        for module in (mfmc_ray.pipeline.run, mfmc_ray.pipeline.scans, mfmc_ray.pipeline.fakes):
            patch.setattr(module, "run_parts", run_parts)
            patch.setattr(module, "plan_of", lambda *_, **__: Plan("local", 1, 1.0))
        patch.setattr(mfmc_ray.pipeline.run, "connect", lambda *_: contextlib.nullcontext())
        patch.setattr(mfmc_ray.pipeline.run, "prepare", lambda *_: None)
        patch.setattr(mfmc_ray.pipeline.remote, "load_pack", pack)
        yield


def queries(readme: str) -> list[str]:
    return re.findall(r"```sql\n(.*?)```", readme, re.DOTALL)


@pytest.mark.parametrize("case", CASES)
def test_a_recipe_gives_what_it_says(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    duckdb = pytest.importorskip("duckdb", reason="needs the eval extra")
    recipe, make = CASES[case]
    source = tmp_path / DATASET[recipe]
    make(source)
    monkeypatch.chdir(tmp_path)
    config = ["--config", str(RECIPES / recipe / "config.yaml"), "--identities", "20", "--attempts", "6"]
    result = CliRunner().invoke(app, ["anonymize", *config, DATASET[recipe], "published"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    images, faces = (pq.read_table(tmp_path / "published" / name).to_pylist() for name in ("images", "faces"))
    check = checker()
    assert check.faults(recipe, images, faces, str(source)) == []
    wanted = yaml.safe_load((RECIPES / recipe / "expected.yaml").read_text())["small"]
    failed = {"failed": 2} if case == "img2dataset parquet" else {}
    assert Counter(row["verdict"] for row in images) == {**wanted["images"], **failed}
    assert Counter(face["verdict"] for face in faces) == wanted["faces"]
    assert Counter(face["reason"] for face in faces if face["reason"]) == wanted["reasons"]
    for row in images:
        if row["verdict"] == "anonymized":
            Image.open(io.BytesIO(row["image"]["bytes"])).verify()
    rows = [duckdb.sql(query).fetchall() for query in queries((RECIPES / recipe / "README.md").read_text())]
    assert rows
    assert all(len(some) >= (1 if recipe == "coco" else 2) for some in rows)

    assert check.faults(recipe, images[1:], faces, str(source)) != []  # the check does see something
    assert check.faults(recipe, images, [{**face, "verdict": "kept"} for face in faces]) != []


@pytest.mark.parametrize("recipe", LAYOUTS)
def test_settings_are_real_ones(recipe: str) -> None:
    config = load(RECIPES / recipe / "config.yaml", input="/data/in", out="/data/out", work="/data/work")
    if config.find.boxes is not None:
        assert config.find.boxes.startswith("/data/in/")
        assert load(RECIPES / recipe / "config.yaml", input="s3://b/in/{000..009}.tar").find.boxes.startswith("s3://b/in/{,")  # type: ignore[union-attr]
        assert load(RECIPES / recipe / "config.yaml", input="s3://b/in", find__boxes="/x.json").find.boxes == "/x.json"
    assert config.find.boxes_mode == "add"  # labels have gaps
    text = (RECIPES / recipe / "README.md").read_text()
    assert f"--config recipes/{recipe}/config.yaml {DATASET[recipe]}/" in text
