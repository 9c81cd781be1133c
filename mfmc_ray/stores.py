"""Object stores: opened with sensible time-outs, read whole and in full. Names here are as the store has them, not escaped."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import fsspec
from fsspec.caching import ReadAheadCache

from mfmc_ray.retry import AGAIN, PATIENCE, GoneError, ShortError, StoreError, persist, refusal, told, transient

BLOCK, LEAST = 8 << 20, 64 << 10
"""Bytes that are read ahead in a shard: while it is read in order, and where a read begins."""
CHUNK = 32 << 20
"""Bytes of one request for an object: s3fs would ask for the ranges of a large one at once, and fill what is missing with zeros."""
PROBE_SECONDS = 10.0
"""Patience where somebody waits for the first word, or only an answer is wanted."""
T = TypeVar("T")
_log = logging.getLogger(__name__)
_S3 = ("s3://", "s3a://")
_UNORDERED = "--x-s3"  # directory buckets list in no order
_TIMEOUTS = {"connect_timeout": 10, "read_timeout": 30}


def is_remote(name: str) -> bool:
    return "://" in name and not name.startswith("file://")


class Store:
    """An object store, of one URL's kind and options.

    Args:
        url: anything in it.
        options: for fsspec; and `patience`, the seconds for which a store that does not answer is tried again.

    Raises:
        ImportError: a package for this kind of URL is missing.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        given = dict(options or {})
        self.patience = float(given.pop("patience", PATIENCE))
        s3 = url.startswith(_S3)
        if s3:
            # botocore tries single requests again; s3fs on top would do so 5 times 5 times, with half an hour for one that stalls
            config = given.get("config_kwargs") or {}
            given["config_kwargs"] = {**_TIMEOUTS, "retries": {"mode": "standard", "total_max_attempts": 3}, **config}
            given.setdefault("use_listings_cache", False)
        self.fs, self.path = fsspec.core.url_to_fs(url, **given)
        self.url = url
        if s3:
            self.fs.retries = 1
            _watch_listings(self.fs)

    def read(self, path: str, size: int | None = None) -> bytes:
        """A whole object.

        Args:
            path: its name.
            size: bytes that it had when it was listed; asked for if None or if other than those that come.

        Raises:
            StoreError, NoAnswerError, ShortError: as `persist`.
            FileNotFoundError, PermissionError, OSError: of this object.
        """
        if size and size <= CHUNK:
            try:
                data = persist(lambda: bytes(self.fs.cat_file(path, start=0)), self.url, self.patience)
            except OSError as error:
                if "416" not in told(error):  # it is empty by now, and has no first byte
                    raise
                data = b""
            if len(data) == size:
                return data
        size = int(self.info(path)["size"])
        return b"".join(self.range(path, start, min(size, start + CHUNK)) for start in range(0, size, CHUNK))

    def range(self, path: str, start: int, end: int) -> bytes:
        """Bytes of an object that has them.

        Raises:
            As `read`.
        """
        return persist(lambda: whole(self.fs.cat_file(path, start=start, end=end), end - start), self.url, self.patience)

    def open(self, path: str) -> BinaryIO:
        """An object for reading at random; what its reads raise is as for `read`."""
        file = persist(lambda: self.fs.open(path, "rb", block_size=BLOCK), self.url, self.patience)
        cache: Any = getattr(file, "cache", None)
        if hasattr(cache, "fetcher"):  # all of fsspec's buffered files
            fetch, size = cache.fetcher, int(file.size)

            def patient(start: int, end: int) -> bytes:
                return persist(lambda: whole(fetch(start, end), min(end, size) - start), self.url, self.patience)

            cache = _ReadAhead(BLOCK, patient, size)
            file.cache = cache
        return file  # type: ignore[no-any-return]

    def list(self, path: str) -> list[dict[str, Any]]:
        """What is right in a folder, as fsspec describes it.

        Raises:
            FileNotFoundError: there is nothing in it.
            StoreError, PermissionError: as `read`.
        """

        def found() -> list[dict[str, Any]]:
            self.fs.invalidate_cache(path)
            return list(self.fs.ls(path, detail=True))

        return self._surely(found)

    def pages(self, path: str) -> Iterator[Sequence[dict[str, Any]]]:
        """As `list`, in the order of the files' names, and of S3 a thousand at a time: a folder may have millions.

        Raises:
            As `list`.
        """
        bucket, key = self.fs.split_path(path)[:2] if self.url.startswith(_S3) and not self.fs.version_aware else ("", "")
        if not bucket or bucket.endswith(_UNORDERED):
            yield sorted(self.list(path), key=lambda info: os.fsencode(info["name"]))
            return
        asked = {"Bucket": bucket, "Prefix": f"{key}/" if key else "", "Delimiter": "/", **self.fs.req_kw}
        there = False
        while True:
            page = self._surely(partial(self.fs.call_s3, "list_objects_v2", **asked))
            files = [{**one, "name": f"{bucket}/{one['Key']}", "type": "file", "size": one["Size"]} for one in page.get("Contents", ())]
            folders = [{"name": f"{bucket}/{one['Prefix'].rstrip('/')}", "type": "directory"} for one in page.get("CommonPrefixes", ())]
            there = there or bool(files or folders)
            yield files + folders
            if not page.get("IsTruncated"):
                break
            asked["ContinuationToken"] = page["NextContinuationToken"]
        if not there:
            raise FileNotFoundError(path)

    def info(self, path: str, seconds: float | None = None) -> dict[str, Any]:
        """What fsspec says of an object or folder.

        Raises:
            As `read`.
        """
        self.fs.invalidate_cache(path)
        try:
            return dict(persist(lambda: self.fs.info(path, **self._fresh()), self.url, self.patience if seconds is None else seconds))
        except PermissionError:
            self.list(path)  # the answer to this one has a body, which tells a wrong key from a forbidden object
            raise

    def put(self, file: Path, path: str) -> None:
        """Put a local file as an object, whole: it is not taken for done before the store tells its size.

        Raises:
            As `read`.
        """
        size = file.stat().st_size

        def put() -> None:
            # not `with fs.open(…, "wb")`: leaving that block by an exception publishes half a file
            self.fs.put_file(str(file), path)
            there = int(self.fs.info(path, **self._fresh())["size"])
            if there != size:
                raise ShortError(f"{there} of {size} bytes arrived")

        self._surely(put)

    def remove(self, path: str) -> None:
        """Remove an object, or all below a name; nothing happens if there is none.

        Raises:
            As `read`.
        """

        def remove() -> None:
            try:
                self.fs.rm(path, recursive=True)
            except FileNotFoundError as error:
                if refusal(self.url, error):
                    raise
                return
            self.fs.invalidate_cache()
            if self.fs.exists(path):  # s3fs passes over what a bulk delete did not delete
                raise ShortError("not all is removed")

        self._surely(remove)

    def abort_uploads(self, path: str) -> None:
        """Give up what a killed process had begun to put below a name: the parts are invisible, but kept and paid for."""
        if not hasattr(self.fs, "list_multipart_uploads"):
            return
        bucket, prefix, _ = self.fs.split_path(path)
        try:
            for upload in self.fs.list_multipart_uploads(bucket):
                if upload["Key"].startswith(prefix.rstrip("/") + "/"):
                    self.fs.abort_mpu(bucket, upload["Key"], upload["UploadId"])
        except Exception as error:  # not every account may list uploads, and nothing hangs on it
            _log.info("%s: %s", path, told(error))

    def _surely(self, call: Callable[[], T]) -> T:
        """As `persist` where half an answer is not an object's fault."""
        try:
            return persist(call, self.url, self.patience)
        except ShortError as error:
            raise StoreError(f"the store at {self.url} does half of what it is asked ({error}); {AGAIN}") from error

    def _fresh(self) -> dict[str, Any]:
        return {"refresh": True} if self.url.startswith(_S3) else {}


class _ReadAhead(ReadAheadCache):  # type: ignore[misc]
    """Reads further ahead the longer a file is read in order; a few members of a large shard cost little more than they have."""

    blocksize: int

    def _fetch(self, start: int | None, end: int | None) -> bytes:
        begin, stop = start or 0, self.size if end is None else min(end, self.size)
        if begin < self.start or stop > self.end:
            near = self.end > 0 and self.start <= begin <= self.end + LEAST
            self.blocksize = min(BLOCK, 2 * self.blocksize) if near else LEAST
        return bytes(super()._fetch(start, end))


def whole(data: Any, size: int) -> bytes:
    """The bytes, if they are all of them.

    Raises:
        ShortError: they are not.
    """
    if len(data) != size:
        raise ShortError(f"{len(data)} of {size} bytes came")
    return bytes(data)


def check_root(root: str, storage_options: Mapping[str, Any] | None = None) -> None:
    """Whether a collection is still there, of which something could not be read: if not, the something is not to blame.

    Args:
        root: of the collection, not escaped.
        storage_options: for fsspec.

    Raises:
        StoreError: it is gone, or does not answer.
    """
    try:
        if is_remote(root):
            store = Store(root, storage_options)
            store.info(store.path, min(PROBE_SECONDS, store.patience))
            return
        if os.path.isdir(root):  # noqa: PTH112 (bytes that are not UTF-8)
            with os.scandir(root) as found:
                next(found)
        else:
            os.stat(root)  # noqa: PTH116
    except StopIteration:  # what is left of a mount
        raise GoneError(f"the input {root} is empty now: is it mounted? Bring it back, then {AGAIN}") from None
    except (OSError, ValueError) as error:
        if root.startswith("http"):  # a web server need not have anything for a folder
            return
        raise GoneError(f"the input {root} is not there any more ({told(error)}): bring it back, then {AGAIN}") from error


def root_of(unit: str, path: str) -> str | None:
    """The root of a collection, from where an image is (`Source.unit`) and its path in the collection; None if they do not fit."""
    parts = path.split("/")
    for n in range(len(parts), 0, -1):
        tail = "/" + "/".join(parts[:n])
        if unit.endswith(tail):
            return unit.removesuffix(tail)
    return None


def _watch_listings(fs: Any) -> None:
    """An answer without a word of whether it is whole is none: botocore takes an empty body for an empty folder."""
    try:
        fs.s3.meta.events.register("after-call.s3.ListObjectsV2", _is_listing, unique_id="mfmc-listing")
    except Exception as error:
        if refusal(fs.protocol[0], error) is None and not transient(error):
            raise


def _is_listing(parsed: Mapping[str, Any], http_response: Any, **_: Any) -> None:
    if http_response.status_code == 200 and "IsTruncated" not in parsed:
        raise ShortError("half a listing came")
