"""Reading the images of a collection's units.

Names: Arrow strings are UTF-8, file names need not be. `unit` and `path` hold *escaped* names: a byte that is not UTF-8 is written `%E9`,
and a `%` that would then be ambiguous `%25`; any other name is unchanged. `unescape` gives back the name that opens the file;
`SourceReader` and `read_unit` do so themselves.

Of a tar only regular members are read, and nothing is ever unpacked to disk.
"""

from __future__ import annotations

import contextlib
import json
import posixpath
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from mfmc_ray.reading import SourceError, escape, judged, open_unit, unescape, whole
from mfmc_ray.retry import NoAnswerError
from mfmc_ray.stores import root_of

__all__ = ["Source", "SourceError", "SourceReader", "Unit", "escape", "image_column", "judge", "looks_like_image", "read_unit", "unescape"]

MAX_BYTES = 1 << 30
"""An image of more bytes is reported as `too_large` and not read."""
BATCH_BYTES = 512 << 10
"""About how much of a Parquet row group is decoded at a time."""

TABLE = "no_image_column: no binary column"
"""The error of a Parquet file that holds no images at all, such as labels or a downloader's record beside them."""
IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo", "image_bytes", "img_bytes", "bytes", "content", "data")
COMPRESSED_TAR = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")

_IMAGE_EXTENSIONS = """
    jpg jpeg jpe jfif jif png apng gif bmp dib webp tif tiff avif heic heif jp2 j2k jpx jpf jxl ppm pgm pbm pnm tga qoi ico
"""
_SIDECAR_EXTENSIONS = """
    json jsonl txt csv tsv xml md rst html htm yaml yml toml ini cfg log cls id url caption srt vtt npy npz pt pth pkl pickle pyd onnx bin
    h5 hdf5 mat lmdb db sqlite arrow feather zip 7z rar gz bz2 xz zst py ipynb sh pdf doc docx xls xlsx svg mp3 wav flac ogg mp4 mov avi mkv
    webm lock tmp part crc md5 sha256 bib tex
"""
_JUDGEMENTS = {**dict.fromkeys(_SIDECAR_EXTENSIONS.split(), "sidecar"), **dict.fromkeys(_IMAGE_EXTENSIONS.split(), "file")}


@dataclass(frozen=True)
class Unit:
    """A file of the collection, or a shard that holds many images.

    Attributes:
        unit: its escaped local path or URL.
        kind: file | parquet | tar.
        size: bytes; −1 if that could not be found out.
        version: etag, or mtime in ns; "" if that could not be found out.
        path: escaped, relative to the collection's root.
    """

    unit: str
    kind: str
    size: int
    version: str
    path: str


@dataclass(frozen=True)
class Source:
    """One image, or why it could not be read.

    Attributes:
        path: escaped, relative to the collection's root; "shard.tar/member.jpg" and "shard.parquet/name-or-row" inside shards, with "#n"
            after a name that the shard already had.
        unit: the escaped path or URL of its unit.
        locator: the fields of `tables.LOCATOR`.
        data: the encoded image, or None with `error`.
        error: a word, with detail after ": " in some cases; without machine paths, so that it may be published:
            vanished | no_permission | not_a_file | unreadable | too_large | compressed_tar | damaged_tar | damaged_parquet |
            no_image_column | no_bytes, or what `pipeline.watch` says.
    """

    path: str
    unit: str
    locator: dict[str, Any]
    data: bytes | None
    error: str | None


def read_unit(
    unit: Unit, storage_options: Mapping[str, Any] | None = None, *, column: str | None = None, max_bytes: int = MAX_BYTES
) -> Iterator[Source]:
    """The images of a unit, one after the other; a shard is never whole in memory.

    What cannot be read is a `Source` with `error`.

    Args:
        unit: from `Collection.units`.
        storage_options: for fsspec.
        column: a Parquet unit's image column. None: the one that Hugging Face metadata, type and name tell.
        max_bytes: larger images are not read.

    Raises:
        StoreError: the collection is gone, or its store does not answer: nothing is known of the images.
    """
    root = root_of(unit.unit, unit.path)
    try:
        if unit.kind == "file":
            if unit.size > max_bytes:
                raise SourceError("too_large")
            yield Source(unit.path, unit.unit, _locator("file"), whole(unit.unit, storage_options, max_bytes, unit.size), None)
            return
        if unit.path.lower().endswith(COMPRESSED_TAR):
            raise SourceError("compressed_tar: decompress it to .tar")
        with open_unit(unit.unit, storage_options) as file:
            if unit.kind == "tar":
                yield from _read_tar(unit, file, max_bytes)
            else:
                yield from _read_parquet(unit, file, column, max_bytes, lambda error: judged(error, root, storage_options))
    except Exception as error:  # any store's client has its own
        yield failed(unit, judged(error, root, storage_options))


class SourceReader:
    """Reads images by locator. The last unit stays open, so that reading in order costs no more than one pass.

    Not for use by several threads at once.
    """

    def __init__(self, storage_options: Mapping[str, Any] | None = None, *, max_bytes: int = MAX_BYTES) -> None:
        self.storage_options = dict(storage_options or {})
        self.max_bytes = max_bytes
        self._name: str | None = None
        self._file: BinaryIO | None = None
        self._parquet: pq.ParquetFile | None = None
        self._rows: _Rows | None = None

    def read(self, unit: str, locator: Mapping[str, Any], *, path: str | None = None, size: int | None = None) -> bytes:
        """The encoded image.

        Args:
            unit: an escaped path or URL.
            locator: the fields of `tables.LOCATOR`.
            path: as `Source.path`, to see, when it cannot be read, whether the collection is still there. None: it need not be.
            size: bytes that it had, which spares a request for them.

        Raises:
            SourceError: it cannot be read; the message is as `Source.error`.
            StoreError: as `read_unit`.
        """
        try:
            return self._read(unit, locator, size)
        except SourceError:
            self.close()
            raise
        except Exception as error:
            with contextlib.suppress(Exception):  # it may not answer to this either
                self.close()
            raise SourceError(judged(error, root_of(unit, path) if path else None, self.storage_options)) from error

    def close(self) -> None:
        """Close the unit that is open."""
        if self._file is not None:
            self._file.close()
        self._name = self._file = self._parquet = self._rows = None

    def _read(self, unit: str, locator: Mapping[str, Any], size: int | None) -> bytes:
        if locator["kind"] == "file":
            return whole(unit, self.storage_options, self.max_bytes, size)
        if self._name != unit or self._file is None:
            self.close()
            self._file = open_unit(unit, self.storage_options)
            self._name = unit
        if locator["kind"] == "tar":
            if locator["length"] > self.max_bytes:
                raise SourceError("too_large")
            member = _range(self._file, locator["offset"], locator["length"])
            if len(member) != locator["length"]:
                raise SourceError("damaged_tar: it ends early")
            return member
        if locator["kind"] != "parquet":
            raise SourceError(f"unreadable: a locator of kind {locator['kind']!r}")
        if self._parquet is None:
            self._parquet = _parquet_file(self._file)
        column, group, index = locator["column"], locator["group"], locator["index"]
        rows = self._rows
        if rows is None or (rows.column, rows.group) != (column, group) or index < rows.start:
            rows = self._rows = _Rows(self._parquet, column, group)
        data, _ = rows.at(index)
        if data is None:
            raise SourceError("no_bytes")
        if len(data) > self.max_bytes:
            raise SourceError("too_large")
        return data


def judge(name: str) -> str:
    """By its name: `file` (an image), `unknown`, or why it is skipped."""
    name = posixpath.basename(name).lower()
    if name.startswith("."):
        return "hidden"
    return _JUDGEMENTS.get(name.rpartition(".")[2], "unknown") if "." in name else "unknown"


_MAGIC = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a"),
    *(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),  # TIFF, BigTIFF, most camera raw formats
    *(b"\0\0\0\x0cjP  \r\n\x87\n", b"\xffO\xffQ", b"\0\0\0\x0cJXL \r\n\x87\n", b"\xff\n"),  # JPEG 2000, JPEG XL
    *(b"qoif", b"8BPS"),
)


def looks_like_image(head: bytes) -> bool:
    """Whether these first bytes (32 are enough) are those of a raster image format."""
    if head.startswith(_MAGIC):
        return True
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    if head[:2] == b"BM":  # two letters also begin texts: ask for the size of its second header
        return int.from_bytes(head[14:18], "little") in (12, 40, 52, 56, 64, 108, 124)
    if head[4:8] == b"ftyp":
        return head[8:12] in (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
    return re.match(rb"P[1-6]\s[\s\d#]", head) is not None


def _locator(kind: str, **fields: Any) -> dict[str, Any]:
    return {"kind": kind, "column": None, "group": None, "index": None, "offset": None, "length": None, **fields}


def failed(unit: Unit, error: str, **fields: Any) -> Source:
    """What stands for a unit, or the rest of it, that is not read."""
    return Source(unit.path, unit.unit, _locator(unit.kind, **fields), None, error)


def _range(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)


def _read_tar(unit: Unit, file: BinaryIO, max_bytes: int) -> Iterator[Source]:
    seen: Counter[str] = Counter()
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # it would keep every header
            judged = judge(member.name)
            if judged not in ("file", "unknown") or member.isdir():
                continue
            locator = _locator("tar", offset=member.offset_data, length=member.size)
            if not member.isreg() or member.issparse():
                if judged == "file":
                    yield Source(_unique(unit, member.name, seen), unit.unit, locator, None, "not_a_file: a link or sparse member")
                continue
            if judged == "unknown" and not looks_like_image(_range(file, member.offset_data, min(32, member.size))):
                continue
            path, data, error = _unique(unit, member.name, seen), None, None
            if member.size > max_bytes:
                error = "too_large"
            elif len(data := _range(file, member.offset_data, member.size)) < member.size:
                yield Source(path, unit.unit, locator, None, "damaged_tar: it ends early")
                return
            yield Source(path, unit.unit, locator, data, error)
        # tarfile takes a damaged header for the end
        file.seek(tar.offset)
        if file.read(512).strip(b"\0"):
            yield failed(unit, "damaged_tar: what follows a damaged header cannot be read", offset=tar.offset)


def _read_parquet(unit: Unit, file: BinaryIO, column: str | None, max_bytes: int, judged: Callable[[Exception], str]) -> Iterator[Source]:
    parquet = _parquet_file(file)
    column = column or image_column(parquet.schema_arrow)
    if column not in parquet.schema_arrow.names:
        yield failed(unit, f"no_image_column: there is no {column}")
        return
    seen: Counter[str] = Counter()
    names = _name_column(parquet.schema_arrow, column)
    first = 0
    for group in range(parquet.num_row_groups):
        count = parquet.metadata.row_group(group).num_rows
        rows = _Rows(parquet, column, group, names)
        index = 0
        try:
            for index in range(count):
                data, name = rows.at(index)
                error = "no_bytes" if data is None else "too_large" if len(data) > max_bytes else None
                path = _unique(unit, name or f"{first + index:08d}", seen)
                yield Source(path, unit.unit, _locator("parquet", column=column, group=group, index=index), None if error else data, error)
        except (OSError, pa.ArrowException, NoAnswerError) as error:
            yield failed(unit, f"{judged(error)}: {count - index} rows of row group {group}", column=column, group=group, index=index)
        first += count


def image_column(schema: pa.Schema) -> str:
    """The column that holds encoded images.

    Hugging Face's `Image` columns come first, then binary and struct<bytes, path> ones; of several, one with a usual name.

    Raises:
        SourceError: there is none, or it is not clear which.
    """
    shaped = [f.name for f in schema if _is_binary(f.type) or (pa.types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0)]
    features = [name for name in _image_features(schema) if name in shaped]
    for candidates in (features, shaped):
        if len(candidates) == 1:
            return candidates[0]
        named = sorted((c for c in candidates if c.lower() in IMAGE_COLUMNS), key=lambda c: IMAGE_COLUMNS.index(c.lower()))
        if named:
            return named[0]
    if not shaped:
        nested = any(_is_binary(leaf) for field in schema for leaf in _leaves(field.type))
        raise SourceError("no_image_column: none with one image in each row" if nested else TABLE)
    raise SourceError(f"no_image_column: name one of {', '.join(shaped)}")


def _name_column(schema: pa.Schema, column: str) -> str | None:
    """The column that names the images of a column of mere bytes: img2dataset's and WebDataset's key."""
    if not _is_binary(schema.field(column).type):
        return None
    return next((name for name in ("key", "__key__") if name in schema.names and pa.types.is_string(schema.field(name).type)), None)


def _image_features(schema: pa.Schema) -> list[str]:
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return [name for name, feature in features.items() if isinstance(feature, dict) and feature.get("_type") == "Image"]
    except (KeyError, ValueError, TypeError):
        return []


def _leaves(kind: pa.DataType) -> Iterator[pa.DataType]:
    fields = [kind.field(i) for i in range(kind.num_fields)]
    yield from (leaf for field in fields for leaf in _leaves(field.type)) if fields else (kind,)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _parquet_file(file: BinaryIO) -> pq.ParquetFile:
    # buffered and not prefetched: a column chunk may be a whole shard
    return pq.ParquetFile(file, buffer_size=256 << 10, pre_buffer=False)


class _Rows:
    """A cursor over the images of one row group."""

    def __init__(self, parquet: pq.ParquetFile, column: str, group: int, names: str | None = None) -> None:
        self.column, self.group, self.names, self.start = column, group, names, 0
        meta = parquet.metadata.row_group(group)
        chunks = [meta.column(i) for i in range(meta.num_columns)]
        sizes = [c.total_uncompressed_size for c in chunks if c.path_in_schema.split(".")[0] == column]
        step = max(1, min(1024, BATCH_BYTES * meta.num_rows // max(1, sum(sizes))))
        self._batches = parquet.iter_batches(step, row_groups=[group], columns=[column, *([names] if names else [])], use_threads=False)
        self._batch = pa.record_batch([pa.array([], pa.binary())], [column])

    def at(self, index: int) -> tuple[bytes | None, str | None]:
        """Bytes and name of the row; `index` must not go back behind `start`."""
        while index >= self.start + self._batch.num_rows:
            self.start += self._batch.num_rows
            try:
                self._batch = next(self._batches)
            except StopIteration:
                raise SourceError(f"damaged_parquet: no row {index}") from None
        value = self._batch.column(self.column)[index - self.start].as_py()
        if isinstance(value, dict):
            return value.get("bytes"), value.get("path")
        return value, self._batch.column(self.names)[index - self.start].as_py() if self.names else None


def _unique(unit: Unit, name: str, seen: Counter[str]) -> str:
    """A member's escaped path, which cannot climb out of the collection and is the shard's only one."""
    name = posixpath.basename(name) if posixpath.isabs(name) else posixpath.normpath("/" + name).lstrip("/")  # not where its maker kept it
    name = escape(name)
    number = seen[name] + 1
    while number > 1 and f"{name}#{number}" in seen:  # another member's own name
        number += 1
    seen[name] = number
    if number > 1:
        name = f"{name}#{number}"
        seen[name] = 1
    return f"{unit.path}/{name}"
