"""What a night says that there is to do, and when it does not start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bad_images import save
from made_work import GUARDS
from PIL import Image

from mfmc_ray.config import GuardConfig, RunConfig
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.ledger import Ledger, LedgerError
from mfmc_ray.pipeline.curves import keep
from mfmc_ray.pipeline.difference import Difference
from mfmc_ray.pipeline.known import begin_gallery, end_gallery
from mfmc_ray.pipeline.manifest import model_digests
from mfmc_ray.pipeline.nightly import nightly
from mfmc_ray.pipeline.outlook import Change, change_of, outlook
from mfmc_ray.pipeline.state import State
from mfmc_ray.pipeline.times import Times
from mfmc_ray.pipeline.workers import ANONYMIZE, SCAN, made_of
from mfmc_ray.tables import FACES, IMAGES, PLACED, published_schema, scan_schema


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """Of a collection of one picture."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(save(Image.new("RGB", (8, 8)), "PNG"))
    return RunConfig(input=str(tmp_path / "photos"), out=str(tmp_path / "out"), work=str(tmp_path / "work"))


def begun(config: RunConfig, calibration: Calibration) -> Ledger:
    """As `Run.begin` leaves it."""
    ledger = Ledger(config.out, config.work)
    ledger.begin(config.digest(), "input")
    State(ledger.work).begin(config, model_digests(config))
    keep(ledger.work, calibration, config.guard.recognizers, restart=False)
    return ledger


def other(calibration: Calibration, **fields: Any) -> Calibration:
    return Calibration(calibration.curves | {"sface": replace(calibration.curves["sface"], **fields)})


def test_curves_that_change_under_the_same_name_are_a_change(config: RunConfig) -> None:
    """In their folder, or with a new version of the package."""
    shipped = Calibration()
    ledger = begun(config, shipped)
    assert change_of(ledger, config, shipped) == Change()
    curve = shipped.curves["sface"]
    stricter = other(shipped, rates=curve.rates * 0.5)
    assert change_of(ledger, config, stricter) == Change(("calibration sface",))


def test_how_near_a_fake_may_come_to_its_original_is_part_of_what_it_was_made_with(config: RunConfig) -> None:
    """Renewed certificates are about known faces; an original that was forgotten is none, and a known one may have a higher threshold."""
    shipped = Calibration()
    made = made_of(config, shipped)
    assert made_of(config, other(shipped, strict_threshold=shipped.strict_threshold("sface") - 0.01)) != made
    assert made_of(replace(config, guard=GuardConfig(threshold=0.2)), shipped) != made
    assert made_of(replace(config, guard=GuardConfig(threshold=0.9)), shipped) == made


def test_what_was_scanned_with_settings_that_nobody_knows_is_scanned_anew(config: RunConfig) -> None:
    ledger = begun(config, Calibration())
    (ledger.work / "models.json").unlink()
    assert change_of(ledger, config, Calibration()).anew


def test_a_gallery_that_is_not_mounted_stops_a_night(tmp_path: Path) -> None:
    def deleted(**differences: Difference) -> float:
        found = {name.replace("_", "-"): difference for name, difference in differences.items()}
        return outlook(Change(), found, None, 9, 9, Times(tmp_path), first=False).deleted

    assert deleted(scan=Difference(same=9), gallery_0=Difference(gone=["a", "b", "c"], same=1)) == 0.75
    assert deleted(scan=Difference(same=9), gallery_0=Difference(gone=["a", "b", "c"])) == 0  # the settings do not name it any more
    assert deleted(scan=Difference(gone=["a"], same=9)) == 0.1
    anew = outlook(
        Change(("find.min_score",), anew=True), {"scan": Difference(gone=["a"], same=1)}, None, 1, 2, Times(tmp_path), first=False
    )
    assert anew.deleted == 0.5


def test_a_night_with_another_out_touches_nothing(config: RunConfig, tmp_path: Path) -> None:
    begun(config, Calibration())
    theirs = tmp_path / "theirs" / "images" / "part-00000.parquet"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"another dataset")
    with pytest.raises(LedgerError, match="another OUT"):
        nightly(replace(config, out=str(tmp_path / "theirs")), only_plan=True)
    assert theirs.read_bytes() == b"another dataset"


def test_a_night_that_would_forget_an_added_gallery_does_not_start(config: RunConfig) -> None:
    """It is not in the settings, so who is in it would be nobody after a restart."""
    ledger = begun(config, Calibration())
    begin_gallery(ledger, 0, "added")
    end_gallery(ledger)
    with pytest.raises(LedgerError, match="known add"):
        nightly(replace(config, find=replace(config.find, min_score=0.5)))
    assert State(ledger.work).is_begun


def test_a_plan_that_finds_a_part_gone_leaves_no_manifest(config: RunConfig) -> None:
    """Even if nothing else is done: what is left of the part is taken out of OUT."""
    ledger = begun(config, Calibration())
    scan = {"scan": scan_schema(GUARDS).empty_table()}
    ledger.commit_part(SCAN, 0, scan, {})
    tables = {"images": IMAGES, "faces": FACES, "published": published_schema(GUARDS), "placed": PLACED}
    ledger.commit_part(ANONYMIZE, 0, {name: schema.empty_table() for name, schema in tables.items()}, {"images": 0})
    ledger.write_json("manifest.json", {})
    nightly(config, only_plan=True)
    assert ledger.read_text("manifest.json")
    (Path(config.out) / "images" / "part-00000.parquet").unlink()
    nightly(config, only_plan=True)
    assert [path.name for path in Path(config.out).rglob("*") if path.is_file()] == []
