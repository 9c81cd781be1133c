"""What releases for several audiences share, and what a killed one leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from mfmc_ray.config import ConfigError, RunConfig
from mfmc_ray.ledger import Ledger, LedgerError
from mfmc_ray.pipeline import releases
from mfmc_ray.pipeline.releases import folder_of, release, seed
from mfmc_ray.pipeline.workers import ANONYMIZE, SCAN


def ALIKE(image: str | None, path: str) -> str:  # noqa: N802 (a constant)
    """What both audiences are told of the image whose face is kept."""
    return "told 1"


def made(folder: Path, text: str = "a") -> Ledger:
    """A finished run with two published parts and one of the scan."""
    ledger = Ledger(str(folder / "out"), str(folder / "work"))
    ledger.begin("config", "input")
    table = pa.table({"path": [text]})
    for part, verdict in enumerate(("replaced", "kept")):
        tables = dict.fromkeys((*ANONYMIZE.tables, *ANONYMIZE.kept), table)
        tables["faces"] = pa.table({"path": [text], "verdict": [verdict]})
        tables["placed"] = pa.table({"path": [text], "image_id": ["i"], "access": [f"told {part}"]})
        ledger.commit_part(ANONYMIZE, part, tables, {"images": 1})
    ledger.commit_part(SCAN, 0, {"scan": table}, {"images": 1})
    for name in ("known/generation-00000.json", "galleries.json", "settings.json", "pseudonym.key", "times.json"):
        (ledger.work / name).parent.mkdir(exist_ok=True)
        (ledger.work / name).write_text("{}")
    ledger.write_json("manifest.json", {})
    return ledger


@pytest.fixture
def source(tmp_path: Path) -> Ledger:
    return made(tmp_path / "first")


@pytest.fixture
def target(tmp_path: Path) -> Ledger:
    ledger = Ledger(str(tmp_path / "other" / "out"), str(tmp_path / "other" / "work"))
    ledger.work.mkdir(parents=True)
    return ledger


def same(one: Ledger, other: Ledger, name: str, public: bool = True) -> bool:
    a, b = (Path(ledger.out) / name if public else ledger.work / name for ledger in (one, other))
    return a.samefile(b)


def test_what_is_equal_is_one_file(source: Ledger, target: Ledger) -> None:
    seed(source, target, ALIKE)
    for part in range(2):
        assert all(same(source, target, f"{table}/part-0000{part}.parquet") for table in ANONYMIZE.tables)
        assert all(same(source, target, f"{table}/part-0000{part}.parquet", False) for table in ANONYMIZE.kept)
    assert same(source, target, "scan/part-00000.parquet", False)
    assert same(source, target, "known/generation-00000.json", False)
    assert not (Path(target.out) / "manifest.json").exists()  # it is not finished yet
    assert not (target.work / "pseudonym.key").exists()  # one key, at one place
    assert json.loads((target.work / "run.json").read_text())["out"] == target.out
    assert target.recover(ANONYMIZE).keys() == {0, 1}
    assert target.recover(SCAN).keys() == {0}


def test_a_part_that_changes_leaves_the_other_release_as_it_is(source: Ledger, target: Ledger) -> None:
    seed(source, target, ALIKE)
    changed = pa.table({"path": ["b"]})
    target.renew_part(ANONYMIZE, 0, {"images": changed}, {"images": 1})
    assert source.read_table(ANONYMIZE, "images", 0)["path"].to_pylist() == ["a"]
    assert len(releases._common(source, target)) == 3
    # the first one has gone on: what they share follows, what is the audience's own stays
    source.renew_part(SCAN, 0, {"scan": pa.table({"path": ["c"]})}, {"images": 1})
    seed(source, target, ALIKE)
    assert target.read_table(SCAN, "scan", 0)["path"].to_pylist() == ["c"]
    assert target.read_table(ANONYMIZE, "images", 0)["path"].to_pylist() == ["b"]
    seed(source, target, ALIKE, anew=True)
    assert target.read_table(ANONYMIZE, "images", 0)["path"].to_pylist() == ["a"]


def test_what_another_audience_may_not_see_is_never_copied(source: Ledger, target: Ledger) -> None:
    seed(source, target, lambda image, path: "told something else")
    assert target.recover(ANONYMIZE).keys() == {0}  # nobody is shown in that one
    assert sorted(path.name for path in Path(target.out).rglob("*.parquet")) == ["part-00000.parquet"] * len(ANONYMIZE.tables)
    assert sorted(path.name for name in ANONYMIZE.kept for path in (target.work / name).iterdir()) == ["part-00000.parquet"] * 2


@pytest.mark.parametrize("step", range(12))
def test_killed_anywhere_nobody_takes_it_for_a_run(step: int, source: Ledger, target: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0

    def dies(*arguments: object) -> None:
        nonlocal count
        count += 1
        if count > step:
            raise KeyboardInterrupt

    for name in ("_link", "share"):
        real = getattr(releases, name)
        monkeypatch.setattr(releases, name, lambda *arguments, real=real: (dies(), real(*arguments)))
    try:
        seed(source, target, ALIKE)
    except KeyboardInterrupt:
        assert "config" not in json.loads((target.work / "run.json").read_text())
    monkeypatch.undo()
    seed(source, target, ALIKE)
    assert target.recover(ANONYMIZE).keys() == {0, 1}
    assert not target.strangers("images")


def test_what_is_not_its_own_is_refused(source: Ledger, target: Ledger, tmp_path: Path) -> None:
    Path(target.out).mkdir()
    (Path(target.out) / "holiday.jpg").write_text("mine")
    with pytest.raises(LedgerError, match=r"not empty \(it holds holiday.jpg\)"):
        seed(source, target, ALIKE)
    stranger = Ledger(str(tmp_path / "third"), str(tmp_path / "other" / "work"))
    (target.work / "run.json").write_text(json.dumps({"out": target.out}))
    with pytest.raises(LedgerError, match="another OUT"):
        seed(source, stranger, ALIKE)


def test_names_of_folders() -> None:
    assert [folder_of(name) for name in ("everyone", "group:old friends", "viewer:bob")] == ["everyone", "group-old friends", "viewer-bob"]
    for name in ("group:../up", "group:a/b", "group:", "viewer:é:b", ".hidden"):
        with pytest.raises(ConfigError, match="rename"):
            folder_of(name if ":" not in name or name.partition(":")[2] else "-" + name)
    with pytest.raises(ConfigError, match="same folder"):
        release(RunConfig(out="out", work="work"), ["everyone", "group:A", "group:a"])
