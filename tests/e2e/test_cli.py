"""What the command says when it cannot do what it is asked to, and that it starts anew when told to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

OWN_RAY = True

SMALL = ("--identities", "6", "--attempts", "2", "--actors", "1")


def make_photos(folder: Path, pictures: dict[str, bytes]) -> Path:
    (folder / "photos").mkdir(parents=True)
    (folder / "photos" / "cup.jpg").write_bytes(pictures["cup.jpg"])
    return folder / "photos"


def tree(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def said(result: Any) -> str:
    """The one sentence of a refusal."""
    assert result.returncode not in (0, None), result.stdout
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("mfmc: ")
    return str(line)


def out_in_input(t: Path) -> list[object]:
    return ["anonymize", t / "photos", t / "photos" / "out"]


def input_in_out(t: Path) -> list[object]:
    return ["anonymize", t / "photos", t, "--work", t.with_name(t.name + "-elsewhere")]


def work_in_out(t: Path) -> list[object]:
    return ["anonymize", t / "photos", t / "out", "--work", t / "out" / "work"]


def missing_input(t: Path) -> list[object]:
    return ["anonymize", t / "fotos", t / "out"]


def empty_input(t: Path) -> list[object]:
    (t / "nothing").mkdir()
    (t / "nothing" / "notes.txt").write_text("no picture")
    return ["anonymize", t / "nothing", t / "out"]


def foreign_out(t: Path) -> list[object]:
    (t / "out").mkdir()
    (t / "out" / "thesis.tex").write_text("mine")
    return ["anonymize", t / "photos", t / "out"]


def restart_on_foreign_out(t: Path) -> list[object]:
    return [*foreign_out(t), "--restart"]


def bad_key(t: Path) -> list[object]:
    (t / "settings.yaml").write_text("swap:\n  atempts: 3\n")
    return ["anonymize", t / "photos", t / "out", "--config", t / "settings.yaml"]


def bad_value(t: Path) -> list[object]:
    (t / "settings.yaml").write_text("swap:\n  attempts: three\n")
    return ["anonymize", t / "photos", t / "out", "--config", t / "settings.yaml"]


def bad_yaml(t: Path) -> list[object]:
    (t / "settings.yaml").write_text("swap: [\n")
    return ["anonymize", t / "photos", t / "out", "--config", t / "settings.yaml"]


def section_of_wrong_type(t: Path) -> list[object]:
    (t / "settings.yaml").write_text("swap: 3\n")
    return ["anonymize", t / "photos", t / "out", "--config", t / "settings.yaml", "--attempts", "2"]


def no_settings(t: Path) -> list[object]:
    return ["anonymize", t / "photos", t / "out", "--config", t / "settings.yaml"]


def not_json(t: Path) -> list[object]:
    return ["anonymize", t / "photos", t / "out", "--storage-options", "{endpoint_url: x}"]


def remote_out_without_work(t: Path) -> list[object]:
    return ["anonymize", t / "photos", "s3://bucket/out"]


def missing_gallery(t: Path) -> list[object]:
    return ["anonymize", t / "photos", t / "out", "--known", t / "people"]


def missing_table(t: Path) -> list[object]:
    return ["anonymize", t / "photos", t / "out", "--approvals", t / "approvals.csv"]


def bad_table(t: Path) -> list[object]:
    (t / "approvals.csv").write_text("image,x0,y0,x1,y1\nface.jpg,1,2,30,40\nface.jpg,1,2,30,none\n")
    return missing_table(t)


def audit_of_nothing(t: Path) -> list[object]:
    return ["audit", t / "out"]


def brackets(t: Path) -> list[object]:
    return ["anonymize", t / "no[such]folder", t / "out"]


def unknown_option(t: Path) -> list[object]:
    return ["anonymize", t / "photos", t / "out", "--atempts", "3"]


REFUSED: dict[Callable[[Path], list[object]], list[str]] = {
    out_in_input: ["OUT", "is in the input", "put it elsewhere"],
    input_in_out: ["the input", "is in OUT", "originals would be published"],
    work_in_out: ["WORK", "is in OUT", "put it elsewhere"],
    missing_input: ["fotos: not found", "give a folder"],
    brackets: ["no[such]folder: not found"],
    empty_input: ["no images", "1 × sidecar"],
    foreign_out: ["OUT", "not empty", "thesis.tex"],
    restart_on_foreign_out: ["OUT", "not empty", "thesis.tex"],
    bad_key: ["swap.atempts", "attempts"],
    bad_value: ["swap.attempts", "int", "'three'"],
    bad_yaml: ["settings.yaml", "YAML"],
    section_of_wrong_type: ["swap"],
    no_settings: ["settings.yaml", "No such file"],
    not_json: ["--storage-options", "JSON"],
    remote_out_without_work: ["OUT", "--work"],
    missing_gallery: ["people: not found"],
    missing_table: ["approvals.csv: not found", "CSV or Parquet"],
    bad_table: ["approvals.csv", "row 2", "wanted four numbers"],
    audit_of_nothing: ["manifest"],
    unknown_option: ["No such option: --atempts"],
}


@dataclass
class Refused:
    folder: Path
    before: list[Path]
    process: Any


@pytest.fixture(scope="module")
def refused(mfmc: Any, tmp_path_factory: pytest.TempPathFactory, pictures: dict[str, bytes]) -> dict[str, Refused]:
    """Every command of REFUSED, begun at once: most of their time they wait for imports."""
    begun = {}
    for arguments in REFUSED:
        folder = tmp_path_factory.mktemp(arguments.__name__)
        make_photos(folder, pictures)
        given = arguments(folder)
        before = tree(folder)
        begun[arguments.__name__] = Refused(folder, before, mfmc.start(*given))
    return begun


@pytest.mark.parametrize(
    "arguments",
    [pytest.param(a, id=a.__name__) for a in REFUSED],
)
def test_a_refusal_is_one_sentence(mfmc: Any, refused: dict[str, Refused], arguments: Callable[[Path], list[object]]) -> None:
    case = refused[arguments.__name__]
    result = mfmc.finish(case.process)
    if arguments is unknown_option:  # typer's own, with a frame around it
        assert result.returncode == 2
        assert "Traceback" not in result.stderr
        sentence = result.stderr
    else:
        sentence = said(result)
    for word in REFUSED[arguments]:
        assert word in sentence
    # nothing is made but a private WORK
    work = case.folder / "out-work"
    assert [path for path in tree(case.folder) if path not in case.before and not path.is_relative_to(work)] == []


def test_other_settings_are_refused_until_restart(mfmc: Any, tmp_path: Path, pictures: dict[str, bytes]) -> None:
    photos = make_photos(tmp_path, pictures)
    out, work = tmp_path / "out", tmp_path / "out-work"
    begun = mfmc("scan", photos, out, *SMALL)
    assert begun.returncode == 0, begun.stderr
    assert tree(out) == []
    (scanned,) = (work / "scan").iterdir()
    assert pq.read_table(scanned)["path"].to_pylist() == ["cup.jpg"]
    assert work.stat().st_mode & 0o077 == 0

    sentence = said(mfmc("anonymize", photos, out, *SMALL, "--quality", "80"))
    assert "other settings" in sentence
    assert "--restart" in sentence
    (photos / "face.jpg").write_bytes(pictures["face.jpg"])
    sentence = said(mfmc("anonymize", photos, out, *SMALL))
    assert "other input files" in sentence
    assert "--restart" in sentence
    assert tree(out) == []
    sentence = said(mfmc("anonymize", photos, tmp_path / "out2", "--work", work, *SMALL))
    assert "other input files and OUT" in sentence

    # what a user put there stays, what the run made goes
    (out / "images").mkdir(parents=True)
    shutil.copy(scanned, out / "images" / "part-00007.parquet")
    (out / "LICENSE").write_text("mine")
    done = mfmc("anonymize", photos, out, *SMALL, "--quality", "80", "--restart")
    assert done.returncode == 0, done.stderr
    assert "2 files" in done.stderr
    assert f"mfmc audit {out}" in done.stdout
    rows = pq.read_table(out / "images").select(["path", "verdict"]).to_pylist()
    assert rows == [{"path": "cup.jpg", "verdict": "unchanged"}, {"path": "face.jpg", "verdict": "anonymized"}]
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["config"]["output"]["jpeg_quality"] == 80
    assert manifest["counts"]["images"] == {"unchanged": 1, "anonymized": 1}
    assert (out / "LICENSE").read_text() == "mine"

    sentence = said(mfmc("anonymize", photos, out, "--work", tmp_path / "other-work"))
    assert "not made with this WORK" in sentence
