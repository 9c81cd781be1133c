"""The shape of the tree: where Ray is, and which way imports go."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "mfmc_ray"
MODULES = sorted(ROOT.rglob("*.py"))
LAYERS = [
    {"tables", "config", "folders", "job", "places", "runlock", "parquet", "versions", "bombs", "discreet", "key", "private"}
    | {"retry", "stores", "stage", "__init__"},
    {
        "orientation",
        "jpeg",
        "deep",
        "tiff",
        "codec",
        "credentials",
        "label",
        "published",
        "scrub",
        "collection",
        "reading",
        "sources",
        "ledger",
    }
    | {"boxes", "box_files", "boxes_export", "faces", "known", "identities", "swap", "people", "access", "evaluate", "review"},
    {"pipeline"},
    {
        "errors",
        "access_options",
        "boxes_cli",
        "models_cli",
        "identities_cli",
        "known_cli",
        "change_cli",
        "nightly_cli",
        "key_cli",
        "people_cli",
        "profiles_cli",
        "release_cli",
        "review_cli",
        "compare_cli",
        "evaluate_cli",
        "submit_cli",
        "access_cli",
        "synth_cli",
    },
    {"cli"},
]


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{name.name}" for name in node.names}
    return found


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def layer(name: str) -> int:
    return next(i for i, names in enumerate(LAYERS) if name in names)


RAY = {f"pipeline/{name}.py" for name in ("attempts", "away", "growth", "parts", "services", "session", "shards", "submission")}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_ray_is_in_a_few_modules_only(path: Path) -> None:
    uses = any(name == "ray" or name.startswith("ray.") for name in imports(path))
    assert uses == (str(path.relative_to(ROOT)) in RAY)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    here = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for name in imports(path):
        if name.startswith("mfmc_ray.") and room(name) != here and any(room(name) in names for names in LAYERS):
            assert layer(room(name)) <= layer(here), f"{here} imports {name}"


@pytest.mark.parametrize("low", ["faces", "known", "identities", "swap"])
def test_learned_parts_know_no_collection(low: str) -> None:
    for path in (ROOT / low).rglob("*.py"):
        assert not any(
            room(name) in {"ledger", "collection", "evaluate", "pipeline"} for name in imports(path) if name.startswith("mfmc_ray.")
        )
