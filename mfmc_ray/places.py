"""Where a run's files are: a local folder or a prefix of an object store. A file appears in one step in both."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec


class LedgerError(RuntimeError):
    """The folders cannot be used for this run; the message says why and what would do."""


class LocalPlace:
    """A local folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def replace(self, name: str, write: Callable[[Path], None]) -> tuple[int, str]:
        """Put what `write` makes in the place of `name`, in one step; its size in bytes and sha-256."""
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        try:
            write(temporary)
            size, digest = synced(temporary)
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        with contextlib.suppress(OSError):  # not every file system syncs folders
            folder = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        return size, digest

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def sizes(self, folder: str) -> dict[str, int]:
        """The files right in a folder, bytes by name."""
        with contextlib.suppress(FileNotFoundError):
            return {f.name: f.stat().st_size for f in (self.root / folder).iterdir() if f.is_file()}
        return {}

    def names(self, folder: str = "") -> list[str]:
        """What is right in a folder, files and folders, but for hidden ones."""
        path = self.root / folder
        return sorted(f.name for f in path.iterdir() if not f.name.startswith(".")) if path.is_dir() else []

    def remove(self, name: str) -> None:
        path = self.root / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


class RemotePlace:
    """A prefix of an object store."""

    def __init__(self, root: str, staging: Path, options: dict[str, Any]) -> None:
        try:
            self.fs, self.root = fsspec.core.url_to_fs(root, **options)
        except ImportError as error:
            raise LedgerError(f"{root}: a package for this kind of URL is missing; for s3:// pip install mfmc-ray[s3] ({error})") from error
        self.staging = staging

    def replace(self, name: str, write: Callable[[Path], None]) -> tuple[int, str]:
        self.staging.mkdir(parents=True, exist_ok=True)
        temporary = self.staging / f".{uuid.uuid4().hex}.tmp"
        try:
            write(temporary)
            size, digest = synced(temporary)
            # not `with fs.open(…, "wb")`: leaving that block by an exception publishes half a file
            self.fs.put_file(str(temporary), f"{self.root}/{name}")
        finally:
            temporary.unlink(missing_ok=True)
        return size, digest

    def read(self, name: str) -> bytes:
        return bytes(self.fs.cat_file(f"{self.root}/{name}"))

    def sizes(self, folder: str) -> dict[str, int]:
        return {i["name"].rpartition("/")[2]: i["size"] for i in self._list(f"{self.root}/{folder}") if i["type"] == "file"}

    def names(self, folder: str = "") -> list[str]:
        path = f"{self.root}/{folder}".rstrip("/")
        found = [i["name"].rstrip("/").rpartition("/")[2] for i in self._list(path) if i["name"].rstrip("/") != path]
        return sorted(n for n in found if not n.startswith("."))

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm(f"{self.root}/{name}", recursive=True)

    def _list(self, path: str) -> list[dict[str, Any]]:
        self.fs.invalidate_cache()
        with contextlib.suppress(FileNotFoundError):
            return list(self.fs.ls(path, detail=True))
        return []


def text_of(text: str) -> Callable[[Path], None]:
    """What `replace` takes to write this text."""

    def write(path: Path) -> None:
        path.write_text(text, encoding="utf-8")

    return write


def copy_of(source: Path) -> Callable[[Path], None]:
    """What `replace` takes to write a file as this one."""

    def write(path: Path) -> None:
        shutil.copyfile(source, path)

    return write


def synced(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), digest


def is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp")


def is_remote(place: str) -> bool:
    return "://" in place and not place.startswith("file://")


def full(place: str) -> str:
    return place.rstrip("/") if is_remote(place) else os.path.realpath(Path(place.removeprefix("file://")).expanduser())


def inside(place: str, folder: str) -> bool:
    """Whether it is the folder or in it; both as `_full` gives them."""
    return (place + "/").startswith(folder.rstrip("/") + "/")
