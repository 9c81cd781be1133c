"""Where images come from: what a collection consists of. `sources` reads the images in it.

A *unit* is what is listed: an image file, a Parquet shard or a WebDataset tar. A *source* is one image in a unit.

Links: a link to a file is read like the file (dataset caches consist of such links); a link to a folder is not followed (loops, doubled
images) but counted in `Collection.skipped`.
"""

from __future__ import annotations

import contextlib
import glob
import os
import posixpath
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from fsspec.utils import glob_translate

from mfmc_ray.discreet import hushed, kind_and_words
from mfmc_ray.retry import StoreError
from mfmc_ray.sources import COMPRESSED_TAR, Unit, escape, judge, looks_like_image
from mfmc_ray.stores import PROBE_SECONDS, Store, is_remote

_MANY = 65_536


class CollectionError(ValueError):
    """The input cannot be used; the message says why and what would do."""


class Collection:
    """What an input names; made by `Collection.open`.

    Attributes:
        root: escaped local folder or URL to which paths are relative.
        skipped: how many files (and folders) `units` passed over, by reason; complete once `units` is exhausted.
    """

    def __init__(self, root: str, starts: Sequence[_Entry], store: _Local | _Remote) -> None:
        self.root = root
        self.skipped: Counter[str] = Counter()
        self._starts = starts
        self._store = store
        names = {start.name for start in starts}
        folders = {start.name for start in starts if start.folder} if len(starts) > 1 else set()
        self.may_repeat = len(names) < len(starts) or any(above in folders for name in names for above in _above(name, folders))
        """Whether `units` may name a unit twice, because patterns do."""

    @classmethod
    def open(cls, input: str, storage_options: Mapping[str, Any] | None = None) -> Collection:  # noqa: A002 (the setting's name)
        """The collection of a folder, file, glob, URL or `{000..010}` pattern.

        A folder is walked: files with an image's extension, or without a telling extension but with an image's first bytes, become `file`
        units, `.parquet` and `.tar` files units of their kind. Hidden files, sidecars and whatever is no image are counted in `skipped`.

        Raises:
            CollectionError: nothing is there, it is empty or may not be read, or a package for the URL is missing.
        """
        if input.endswith(COMPRESSED_TAR):
            raise CollectionError(f"{input}: compressed tars cannot be read at random; decompress them to .tar first")
        with _explained(input):
            store = _Remote(input, storage_options or {}) if is_remote(input) else _Local()
            patterns = braces(input)
            starts = [s for p in patterns for s in store.expand(store.clean(p))]
            if not starts:
                raise FileNotFoundError("nothing matches")
            if len(starts) == 1 and starts[0].folder and starts[0].name == store.clean(input):
                root = starts[0].name
            else:  # the last folder before anything that varies
                root = posixpath.dirname(re.split(r"[*?\[]", store.clean(os.path.commonprefix(patterns) + "*"))[0])  # noqa: RUF071
            collection = cls(escape(store.url(root)), starts, store)
            if next(collection.units(), None) is None:
                seen = ", ".join(f"{n} × {reason}" for reason, n in sorted(collection.skipped.items()))
                raise CollectionError(f"{input}: no images in it" + (f" (skipped: {seen})" if seen else ""))
        return collection

    def units(self) -> Iterator[Unit]:
        """All units, as they are found, in an order that depends on nothing but the names.

        Raises:
            CollectionError: a file named by the input is not there any more, or the store refuses.
        """
        self.skipped.clear()
        with _explained(self.root):
            for start in self._starts:
                for entry in self._walk(start):
                    kind = self._kind(entry)
                    if kind in ("file", "parquet", "tar"):
                        unit = escape(self._store.url(entry.name))
                        yield Unit(unit, kind, entry.size, entry.version, self.path_of(unit))
                    else:
                        self.skipped[kind] += 1

    def path_of(self, unit: str) -> str:
        """A unit's escaped path relative to the root."""
        return unit.removeprefix(self.root.rstrip("/") + "/")

    def _walk(self, start: _Entry) -> Iterator[_Entry]:
        if not start.folder:
            yield start
            return
        folders = [start.name]
        while folders:
            folder, below = folders.pop(), list[str]()
            try:
                for entry in self._store.list(folder):
                    if not entry.folder:
                        yield entry
                    elif posixpath.basename(entry.name).startswith((".", "__MACOSX")):
                        self.skipped["hidden folder"] += 1
                    else:
                        below.append(entry.name)
            except (PermissionError, FileNotFoundError) as error:
                if folder == start.name:
                    raise
                self.skipped["folder without permission" if isinstance(error, PermissionError) else "folder that vanished"] += 1
                continue
            folders.extend(sorted(below, key=os.fsencode, reverse=True))

    def _kind(self, entry: _Entry) -> str:
        """file, parquet or tar; otherwise why it is skipped."""
        if entry.refused:
            return entry.refused
        name = posixpath.basename(entry.name).lower()
        if not name.startswith("."):
            if name.endswith((".parquet", ".pq")):
                return "parquet"
            if name.endswith((".tar", *COMPRESSED_TAR)):
                return "tar"
        judged = judge(name)
        if judged != "unknown":
            return judged
        try:
            return "file" if looks_like_image(self._store.head(entry)) else "not an image"
        except OSError:
            return "file"  # reading it will say what is wrong


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    folder: bool
    size: int
    version: str
    refused: str = ""  # why it cannot be a unit


class _Local:
    def clean(self, path: str) -> str:
        return os.path.abspath(os.path.expanduser(path.removeprefix("file://")))  # noqa: PTH100, PTH111

    def url(self, name: str) -> str:
        return name

    def expand(self, pattern: str) -> list[_Entry]:
        if os.path.lexists(pattern):
            return [self.entry(pattern)]
        found = [self.entry(name) for name in sorted(glob.glob(pattern, recursive=True), key=os.fsencode)]  # noqa: PTH207
        # `**` finds what is in a folder as well as the folder
        return [e for e in found if not (e.folder and "**" in pattern)]

    def entry(self, name: str) -> _Entry:
        try:
            info = os.stat(name)  # noqa: PTH116
        except OSError:
            return _Entry(name, False, -1, "")  # vanished, a link to nothing, …: reading it will say so
        if stat.S_ISDIR(info.st_mode):
            return _Entry(name, True, 0, "")
        refused = "" if stat.S_ISREG(info.st_mode) else "not a regular file"
        return _Entry(name, False, info.st_size, str(info.st_mtime_ns), refused)

    def list(self, folder: str) -> Iterator[_Entry]:
        """What is right in a folder, in the order of the names."""
        return _in_order(self._found(folder))

    def _found(self, folder: str) -> Iterator[_Entry]:
        with os.scandir(folder) as found:
            for item in found:
                entry = self.entry(item.path)
                if entry.folder and item.is_symlink():
                    entry = _Entry(item.path, False, 0, "", "link to a folder")
                yield entry

    def head(self, entry: _Entry) -> bytes:
        with open(entry.name, "rb") as file:  # noqa: PTH123
            return file.read(32)


class _Remote:
    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.store = Store(url, options)

    def clean(self, path: str) -> str:
        return str(self.store.fs._strip_protocol(path)).rstrip("/")

    def url(self, name: str) -> str:
        return str(self.store.fs.unstrip_protocol(name))

    def expand(self, pattern: str) -> list[_Entry]:
        if not glob.has_magic(pattern):
            return [self.entry(self.store.info(pattern, min(PROBE_SECONDS, self.store.patience)))]
        return [e for e in self._matching(pattern) if not (e.folder and "**" in pattern)]

    def _matching(self, pattern: str) -> list[_Entry]:
        """As fsspec's glob, which leaves out a folder that cannot be listed."""
        parts = pattern.split("/")
        first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
        deep = next((i for i, part in enumerate(parts) if "**" in part), None)
        found: list[_Entry] = []
        matches = re.compile(glob_translate(pattern)).match
        folders = ["/".join(parts[:first])]
        while folders:
            folder = folders.pop()
            try:
                entries = list(self.list(folder))
            except FileNotFoundError:
                continue
            found += [entry for entry in entries if matches(entry.name)]
            for entry in entries:
                level = entry.name.count("/") + 1
                above = level > (len(parts) if deep is None else deep) or bool(
                    re.match(glob_translate("/".join(parts[:level])), entry.name)
                )
                if entry.folder and above and (deep is not None or level < len(parts)):
                    folders.append(entry.name)
        return sorted(found, key=lambda entry: entry.name)

    def entry(self, info: Mapping[str, Any]) -> _Entry:
        keys = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "created")
        version = next((str(info[key]) for key in keys if info.get(key) is not None), "")
        return _Entry(info["name"].rstrip("/"), info["type"] == "directory", int(info.get("size") or 0), version.strip('"'))

    def list(self, folder: str) -> Iterator[_Entry]:
        """What is right in a folder; the files in the order of the names."""
        for page in self.store.pages(folder):
            for info in page:
                # some tools make keys that end in "/" for folders
                if info["name"].rstrip("/") != folder and (info["type"] == "directory" or not info["name"].endswith("/")):
                    yield self.entry(info)

    def head(self, entry: _Entry) -> bytes:
        return self.store.range(entry.name, 0, min(32, entry.size)) if entry.size > 0 else b""


def _in_order(entries: Iterator[_Entry]) -> Iterator[_Entry]:
    """Sorted by name. Of a folder of millions only their columns are held, some 100 bytes a file."""
    some = list(islice(entries, _MANY))
    if len(some) < _MANY:
        yield from sorted(some, key=lambda e: os.fsencode(e.name))
        return
    pieces = []
    while some:
        rows = [(os.fsencode(e.name), e.folder, e.size, e.version, e.refused) for e in some]
        pieces.append(pa.table(list(zip(*rows, strict=True)), names=["name", "folder", "size", "version", "refused"]))
        some = list(islice(entries, _MANY))
    table = pa.concat_tables(pieces)
    order = pc.sort_indices(table["name"])
    for start in range(0, len(order), _MANY):
        for row in table.take(order.slice(start, _MANY)).to_pylist():
            yield _Entry(**{**row, "name": os.fsdecode(row["name"])})


def _above(name: str, folders: Set[str]) -> Iterator[str]:
    """The folders that a name is in, if any are asked for."""
    while folders and (name := posixpath.dirname(name)) not in ("", "/"):
        yield name


def braces(pattern: str) -> list[str]:
    """`a{000..010}b` and `a{x,y}b` written out, as WebDataset does."""
    found = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", pattern)
    if found is None or os.path.lexists(pattern):
        return [pattern]
    first, last, names = found.groups()
    middles = names.split(",") if names else [str(i).zfill(len(first)) for i in range(int(first), int(last) + 1)]
    return [p for m in middles for p in braces(pattern[: found.start()] + m + pattern[found.end() :])]


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turns what a store raises into a sentence."""
    try:
        yield
    except CollectionError:
        raise
    except StoreError as error:
        raise CollectionError(str(error)) from error
    except FileNotFoundError as error:
        raise CollectionError(f"{what}: not found ({error}); give a folder, a glob, an s3:// prefix, or Parquet or tar files") from error
    except PermissionError as error:
        raise CollectionError(f"{what}: no permission to read it ({error})") from error
    except ImportError as error:
        package = "mfmc-ray[s3]" if what.startswith(("s3://", "s3a://")) else f"the package that fsspec needs for it ({error})"
        raise CollectionError(f"{what}: a package for this kind of URL is missing: pip install {package}") from error
    except Exception as error:
        words = f"{what}: cannot be listed: "
        raise hushed(CollectionError(f"{words}{type(error).__name__}: {error}"), words + kind_and_words(error)) from error


# ---- readers
