"""Where a run's files are: a local folder or a prefix of an object store. A file appears in one step in both."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mfmc_ray.retry import AGAIN, StoreError
from mfmc_ray.stores import Store, is_remote

__all__ = [
    "LedgerError",
    "LocalPlace",
    "RemotePlace",
    "full",
    "inside",
    "is_remote",
    "is_temporary",
    "linked",
    "share",
    "synced",
    "writable",
]

PROBE = ".probe.tmp"
LEAST_WORK = 64 << 20
"""Bytes free in WORK without which no run is begun: the logs of a local Ray alone are some of them, and it dies without a word."""


class LedgerError(RuntimeError):
    """The folders cannot be used for this run; the message says why and what would do."""


class LocalPlace:
    """A local folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def probe(self, least: int = 0) -> None:
        """Write a small file and remove it: what forbids that, forbids it before the work.

        Args:
            least: bytes that must be free besides.

        Raises:
            StoreError: it cannot be written to.
        """
        self.replace(PROBE, _a_little)
        self.remove(PROBE)
        with writable(self.root, least):
            if shutil.disk_usage(self.root).free < least:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def replace(self, name: str, write: Callable[[Path], object], wanted: int = 0) -> tuple[int, str]:
        """Put what `write` makes in the place of `name`, in one step; its size in bytes and sha-256.

        Args:
            name: of the file.
            write: makes it.
            wanted: about how many bytes it has, for messages.

        Raises:
            StoreError: the folder is full or cannot be written to.
        """
        target = self.root / name
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        with writable(target.parent, wanted):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                write(temporary)
                size, digest = synced(temporary)
                temporary.replace(target)
            except BaseException:
                with contextlib.suppress(OSError):  # what was wrong before says more
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

    def tidy(self) -> None:
        """Nothing: unfinished files are hidden ones in the tables' folders."""


def linked(source: str, target: str) -> None:
    """Makes a file another name of `source` by a hard link, or a copy of it where there can be none; in one step, synced."""
    temporary = Path(target).with_name(f".{Path(target).name}.{uuid.uuid4().hex}.tmp")
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
        synced(temporary)
    temporary.replace(target)
    temporary.unlink(missing_ok=True)  # two names of one file: to rename one to the other does nothing


class RemotePlace:
    """A prefix of an object store. What any of it raises: `StoreError` if the store does not do it after all patience."""

    def __init__(self, root: str, staging: Path, options: dict[str, Any]) -> None:
        self.url, self.staging, self.options = root, staging, options
        try:
            self.root = self.store.path
        except ImportError as error:
            raise LedgerError(f"{root}: a package for this kind of URL is missing; for s3:// pip install mfmc-ray[s3] ({error})") from error

    @property
    def store(self) -> Store:
        """Opened by each process; fsspec keeps it."""
        return Store(self.url, self.options)

    def probe(self, least: int = 0) -> None:
        """As `LocalPlace.probe`; there is always room."""
        try:
            self.replace(PROBE, _a_little)
            self.remove(PROBE)
        except PermissionError as error:
            raise StoreError(
                f"{self.url} cannot be written to ({error}): allow it to list, read, put and delete, or give another OUT"
            ) from error

    def replace(self, name: str, write: Callable[[Path], object], wanted: int = 0) -> tuple[int, str]:
        temporary = self.staging / f".{uuid.uuid4().hex}.tmp"
        with writable(self.staging, wanted):
            self.staging.mkdir(parents=True, exist_ok=True)
            try:
                write(temporary)
                size, digest = synced(temporary)
            except BaseException:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)
                raise
        try:
            self.store.put(temporary, f"{self.root}/{name}")
        finally:
            temporary.unlink(missing_ok=True)
        return size, digest

    def read(self, name: str) -> bytes:
        return self.store.read(f"{self.root}/{name}")

    def sizes(self, folder: str) -> dict[str, int]:
        return {i["name"].rpartition("/")[2]: i["size"] for i in self._list(f"{self.root}/{folder}") if i["type"] == "file"}

    def names(self, folder: str = "") -> list[str]:
        path = f"{self.root}/{folder}".rstrip("/")
        found = [i["name"].rstrip("/").rpartition("/")[2] for i in self._list(path) if i["name"].rstrip("/") != path]
        return sorted(n for n in found if not n.startswith("."))

    def remove(self, name: str) -> None:
        self.store.remove(f"{self.root}/{name}")

    def tidy(self) -> None:
        """Give up what a killed process had begun to put."""
        self.store.abort_uploads(self.root)

    def _list(self, path: str) -> list[dict[str, Any]]:
        with contextlib.suppress(FileNotFoundError):  # of the folder; without its bucket, and where there is no answer, it is no empty one
            return self.store.list(path)
        return []


def share(source: LocalPlace | RemotePlace, target: LocalPlace | RemotePlace, name: str) -> None:
    """Puts a file of one place into another, too: by a hard link if both are local."""
    if isinstance(source, LocalPlace) and isinstance(target, LocalPlace):
        with writable(target.root):
            (target.root / name).parent.mkdir(parents=True, exist_ok=True)
            linked(str(source.root / name), str(target.root / name))
        return
    data = source.read(name)
    target.replace(name, lambda path: path.write_bytes(data), len(data))


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file that appears whole, and stays after a power cut.

    Raises:
        StoreError: the folder is full or cannot be written to.
    """
    LocalPlace(path.parent).replace(path.name, write)


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


@contextlib.contextmanager
def writable(folder: Path, wanted: int = 0) -> Iterator[None]:
    """Says in a sentence why a folder cannot be written to.

    Args:
        folder: where.
        wanted: bytes; 0 if not known.

    Raises:
        StoreError: it is full, read-only, forbidden, no folder, or does not answer.
    """
    try:
        yield
    except OSError as error:
        what = f"({error.strerror or error})"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            with contextlib.suppress(OSError):
                what = f"({_mega(wanted)} wanted, {_mega(shutil.disk_usage(folder).free)} free)" if wanted else what
            limit = " beyond the largest file that may be written" if error.errno == errno.EFBIG else ""
            raise StoreError(f"no space left in {folder}{limit} {what}: make room, then {AGAIN}") from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR):
            raise StoreError(f"{folder} cannot be written to {what}: make it writable or give another folder, then {AGAIN}") from error
        if error.errno in (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN, errno.ETIMEDOUT, errno.ENODEV):
            raise StoreError(f"{folder} does not answer {what}: bring it back, then {AGAIN}") from error
        raise


def _a_little(path: Path) -> None:
    path.write_bytes(bytes(4096))


def _mega(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def synced(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), digest


def is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp")


def full(place: str) -> str:
    return place.rstrip("/") if is_remote(place) else os.path.realpath(Path(place.removeprefix("file://")).expanduser())


def inside(place: str, folder: str) -> bool:
    """Whether it is the folder or in it; both as `_full` gives them."""
    return (place + "/").startswith(folder.rstrip("/") + "/")
