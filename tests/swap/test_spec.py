"""The YAML files of swap networks, and the files that they name."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from mfmc_ray.config import ConfigError, load
from mfmc_ray.faces import weights
from mfmc_ray.faces.store import ModelError
from mfmc_ray.models_cli import app
from mfmc_ray.swap.spec import load_spec

SHA = "ab" * 32
PLAIN: dict[str, Any] = {
    "name": "some swapper",
    "model": {"place": "some.onnx", "sha256": SHA, "licence": "CC-BY-NC-4.0"},
    "identity": {"encoder": {"place": "https://example.org/e.onnx", "sha256": SHA, "licence": "MIT", "commercial": True}},
}
DOCS = Path(__file__).parents[2] / "docs" / "swappers.md"


def written(folder: Path, **more: Any) -> Path:
    path = folder / "some.yaml"
    path.write_text(yaml.safe_dump(PLAIN | more))
    return path


def test_files_are_beside_it_and_licences_are_all(tmp_path: Path) -> None:
    spec = load_spec(written(tmp_path))
    assert spec.model.place == str(tmp_path / "some.onnx")
    assert spec.identity.encoder is not None
    assert spec.identity.encoder.place == "https://example.org/e.onnx"
    assert [(one.what, one.name, one.commercial) for one in spec.licences] == [
        ("some swapper", "CC-BY-NC-4.0", False),
        ("some swapper: encoder", "MIT", True),
    ]
    (tmp_path / "elsewhere").mkdir()
    assert load_spec(written(tmp_path / "elsewhere")).digest == spec.digest
    assert load_spec(written(tmp_path, batch=2)).digest == spec.digest
    assert load_spec(written(tmp_path, paste={"mask": "box"})).digest != spec.digest


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"modell": 1}, "unknown setting modell"),
        ({"name": ""}, "name wants"),
        ({"model": {"place": "a.onnx", "sha256": "12"}}, "64 hexadecimal digits"),
        ({"model": PLAIN["model"] | {"licence": ""}}, "licence"),
        ({"crop": {"template": "lfw"}}, "crop.template wants arcface112, "),
        ({"crop": {"template": "points", "points": [1, 2]}}, "ten numbers"),
        ({"crop": {"size": "big"}}, "crop.size wants int"),
        ({"crop": {"std": [0]}}, "none of them 0"),
        ({"output": {"low": 1, "high": 1}}, "want to differ"),
        ({"output": {"order": "hsv"}}, "output.order wants rgb or bgr"),
        ({"paste": {"mask": "network"}}, "output.mask"),
        ({"identity": {}}, "an encoder or latents"),
        ({"identity": {"kind": "image", "mix": 2}}, "goes without"),
        ({"identity": PLAIN["identity"] | {"projection": "file"}}, "projection_file"),
        ({"batch": 0}, "at least 1"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path: Path, wrong: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match) as caught:
        load_spec(written(tmp_path, **wrong))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    for text in (None, "a: [", "- 1\n"):
        path = tmp_path / "some.yaml"
        path.write_text(text) if text else None
        with pytest.raises(ConfigError, match=re.escape("some.yaml")):
            load_spec(path)


def test_a_run_keeps_the_whole_path_and_publishes_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load(None, swap__swapper="some.yaml")
    assert config.swap.swapper == str(tmp_path / "some.yaml")
    assert config.to_dict()["swap"]["swapper"] == "some.yaml"
    assert load(None, swap__swapper="morph").digest() == load(None).digest()


def test_weights_from_elsewhere_are_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MFMC_MODELS_DIR", str(tmp_path / "models"))
    source = tmp_path / "net.onnx"
    source.write_bytes(b"weights")
    sha = hashlib.sha256(b"weights").hexdigest()
    address = f"file://{source}"
    path = weights.fetched(address, sha)
    assert path.read_bytes() == b"weights"
    source.unlink()
    assert weights.fetched(address, sha) == path
    source.write_bytes(b"others")
    with pytest.raises(ModelError, match="not those named: their SHA-256 is"):
        weights.fetched(address, "0" * 64)
    with pytest.raises(ModelError, match="cannot be fetched"):
        weights.fetched(f"file://{tmp_path}/none.onnx", "1" * 64)
    assert [p.name for p in (tmp_path / "models" / "given").iterdir() if p.name != ".lock"] == [f"{sha}.onnx"]


def test_models_list_shows_them(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["list", "--swapper", str(written(tmp_path))], env={"COLUMNS": "400"})
    assert shown.exit_code == 0, shown.output
    (row,) = [line for line in shown.output.splitlines() if "CC-BY-NC-4.0" in line]
    assert "some swapper" in row
    assert "NON-COMMERCIAL" in row


def test_the_documented_files_are_right(tmp_path: Path) -> None:
    found = re.findall(r"```yaml\n# (\w+)\.yaml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert {name for name, _ in found} >= {"inswapper"}
    for name, text in found:
        path = tmp_path / f"{name}.yaml"
        path.write_text(text.replace("…", SHA))
        assert load_spec(path).licences
