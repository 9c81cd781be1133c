"""The bytes of a unit, and what it means that they cannot be read. Names here are escaped, as `sources` says."""

from __future__ import annotations

import os
import re
import stat
import tarfile
from collections.abc import Mapping
from typing import Any, BinaryIO

import pyarrow as pa

from mfmc_ray.retry import GoneError, NoAnswerError, ShortError, StoreError, persist
from mfmc_ray.stores import PROBE_SECONDS, Store, check_root, is_remote


class SourceError(OSError):
    """The bytes of one image cannot be read."""


def open_unit(unit: str, storage_options: Mapping[str, Any] | None) -> BinaryIO:
    """A unit for reading at random."""
    name = unescape(unit)
    if is_remote(name):
        store = Store(name, storage_options)
        return store.open(store.path)
    file = os.fdopen(os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")  # a pipe must not make us wait
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise SourceError("not_a_file")
    return file


def whole(unit: str, storage_options: Mapping[str, Any] | None, max_bytes: int, size: int | None = None) -> bytes:
    """A file's bytes; `size` as for `Store.read`."""
    name = unescape(unit)
    if is_remote(name):
        store = Store(name, storage_options)
        data = store.read(store.path, size)
        if len(data) > max_bytes:
            raise SourceError("too_large")
        return data
    return persist(lambda: _local(unit, max_bytes), name, PROBE_SECONDS)


def _local(unit: str, max_bytes: int) -> bytes:
    with open_unit(unit, None) as file:
        if os.fstat(file.fileno()).st_size > max_bytes:
            raise SourceError("too_large")
        return file.read()


_WORDS: dict[type[Exception], str] = {
    FileNotFoundError: "vanished",
    PermissionError: "no_permission",
    tarfile.TarError: "damaged_tar",
    pa.ArrowInvalid: "damaged_parquet",
    ShortError: "unreadable: fewer bytes came than there are",
    NoAnswerError: "unreadable: the store does not give it",
}


def judged(error: Exception, root: str | None, storage_options: Mapping[str, Any] | None) -> str:
    """The word for an image (or unit) that could not be read.

    Args:
        error: why.
        root: of its collection; None if what is gone need not come back (a finished run's originals).
        storage_options: for fsspec.

    Raises:
        StoreError: it is not to blame: the whole collection cannot be read.
    """
    if isinstance(error, GoneError) and root is None:
        return "vanished"
    if isinstance(error, StoreError) and not isinstance(error, NoAnswerError):
        raise error
    if root is not None and isinstance(error, (OSError, NoAnswerError)) and not isinstance(error, SourceError):
        check_root(unescape(root), storage_options)
    elif isinstance(error, NoAnswerError):
        raise error
    return reason(error)


def reason(error: Exception) -> str:
    """The word for an exception. Its text may hold private paths and is left out."""
    if isinstance(error, SourceError):
        return str(error)
    for kind, word in _WORDS.items():
        if isinstance(error, kind):
            return word
    return f"unreadable: {type(error).__name__}"


def escape(name: str) -> str:
    """A file name (as Python holds it, undecodable bytes as surrogates) in valid UTF-8; see `sources`."""
    kept = re.sub(r"%(?=[89A-F][0-9A-F]|25)", "%25", name)
    return re.sub("[\udc80-\udcff]", lambda m: f"%{ord(m[0]) - 0xDC00:02X}", kept)


def unescape(name: str) -> str:
    """The inverse of `escape`."""
    return re.sub(r"%([89A-F][0-9A-F]|25)", lambda m: "%" if m[1] == "25" else chr(0xDC00 + int(m[1], 16)), name)
