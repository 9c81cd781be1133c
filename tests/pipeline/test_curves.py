"""A run's own curves: taken from a folder, kept in WORK, and refused when they change."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mfmc_ray.config import GuardConfig, RunConfig, load
from mfmc_ray.known.calibration import Calibration, CalibrationError, Curve
from mfmc_ray.ledger import LedgerError
from mfmc_ray.pipeline.curves import USED, calibration_of, keep, used
from mfmc_ray.pipeline.run import Run

SHIPPED = Calibration()


def put(folder: Path, name: str = "dlib", **changes: Any) -> Curve:
    """A curve in a folder: the shipped one with changes."""
    folder.mkdir(parents=True, exist_ok=True)
    curve = replace(SHIPPED.curves[name], **changes)
    (folder / f"{name}.json").write_text(json.dumps(curve.to_json()))
    return curve


def settings(tmp_path: Path, folder: Path | None) -> RunConfig:
    guard = GuardConfig(calibration=None if folder is None else str(folder))
    return RunConfig(input="photos", out=str(tmp_path / "out"), work=str(tmp_path / "work"), guard=guard)


def test_a_curve_is_the_same_after_writing_and_reading(tmp_path: Path) -> None:
    for name, curve in SHIPPED.curves.items():
        put(tmp_path, name)
        read = Calibration.load(tmp_path).curves[name]
        assert read.digest == curve.digest
        assert read.at(0.37) == curve.at(0.37)
    assert replace(curve, strict_threshold=0.3).digest != curve.digest
    assert replace(curve, rates=curve.rates * 0.999).digest != curve.digest
    assert replace(curve, source="other words").digest == curve.digest


def test_a_run_takes_the_curves_of_its_folder_and_else_the_shipped(tmp_path: Path) -> None:
    put(tmp_path / "curves", strict_threshold=0.9)
    run = Run(settings(tmp_path, tmp_path / "curves"))
    assert run.thresholds(10) == {"sface": SHIPPED.strict_threshold("sface"), "dlib": 0.9}
    assert Run(settings(tmp_path, None)).thresholds(10)["dlib"] == SHIPPED.strict_threshold("dlib")
    warned = Run(settings(tmp_path, tmp_path / "curves")).warnings(10**5)
    assert any("dlib" in text and "from 0.900" in text for text in warned)


def test_what_cannot_be_used_says_what_to_do(tmp_path: Path) -> None:
    put(tmp_path / "other", model_sha256="ab" * 32)
    with pytest.raises(CalibrationError, match=r"other weights of dlib.*mfmc known calibrate"):
        Run(settings(tmp_path, tmp_path / "other"))
    (tmp_path / "none").mkdir()
    with pytest.raises(CalibrationError, match=r"no curve .* make one with `mfmc known calibrate`"):
        calibration_of(settings(tmp_path, tmp_path / "none"))
    put(tmp_path / "misnamed")
    (tmp_path / "misnamed" / "dlib.json").rename(tmp_path / "misnamed" / "sface.json")
    with pytest.raises(CalibrationError, match=r"name it dlib\.json"):
        calibration_of(settings(tmp_path, tmp_path / "misnamed"))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "dlib.json").write_text("{")
    with pytest.raises(CalibrationError, match=r"broken/dlib\.json cannot be used"):
        calibration_of(settings(tmp_path, tmp_path / "broken"))


def test_changed_curves_are_refused_until_restart(tmp_path: Path) -> None:
    work, names = tmp_path / "work", ["sface", "dlib"]
    keep(work, SHIPPED, names, restart=False)
    keep(work, SHIPPED, names, restart=False)
    assert {file.name for file in (work / USED).iterdir()} == {"sface.json", "dlib.json"}
    put(tmp_path / "curves", strict_threshold=0.9)
    changed = calibration_of(settings(tmp_path, tmp_path / "curves"))
    with pytest.raises(LedgerError, match=r"another calibration of dlib.*--restart"):
        keep(work, changed, names, restart=False)
    keep(work, changed, names, restart=True)
    assert used(work, settings(tmp_path, None)).strict_threshold("dlib") == 0.9


def test_an_audit_needs_the_curves_of_the_run(tmp_path: Path) -> None:
    work = tmp_path / "work"
    assert used(work, settings(tmp_path, None)).curves["dlib"].digest == SHIPPED.curves["dlib"].digest
    with pytest.raises(LedgerError, match="calibration-used is missing"):
        used(work, settings(tmp_path, tmp_path / "curves"))
    put(work / USED, model_sha256="ab" * 32)
    with pytest.raises(CalibrationError, match="other weights"):
        used(work, settings(tmp_path, None))


def test_the_setting_is_a_name_in_the_manifest_and_part_of_the_digest(tmp_path: Path) -> None:
    given, none = settings(tmp_path, tmp_path / "private" / "curves"), settings(tmp_path, None)
    assert given.to_dict()["guard"]["calibration"] == "curves"
    assert none.to_dict()["guard"]["calibration"] is None
    assert given.digest() != none.digest()
    new = ("calibration", "shards", "max_seconds", "c2pa_certificate", "boxes", "boxes_mode", "pseudonyms", "swapper", "device", "det_size")
    before = {s: {k: v for k, v in none.to_dict()[s].items() if k not in new} for s in ("find", "guard", "swap", "output")}
    text = json.dumps({"input": "photos", **before}, sort_keys=True)
    assert none.digest() == hashlib.sha256(text.encode()).hexdigest()  # a run begun before there were these settings goes on
    stated = load(None, **{k: v for k, v in given.to_dict().items() if k in ("input", "find", "guard", "swap", "output")})
    assert stated.digest() == given.digest()
