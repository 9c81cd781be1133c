"""Access tables: CSV or Parquet, a row for each thing that somebody said. docs/access.md has the columns of each.

A table is used whole or not at all: every row that cannot be used is a fault, and is named by its place.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from mfmc_ray.access.decide import AccessError
from mfmc_ray.discreet import hushed
from mfmc_ray.places import is_remote
from mfmc_ray.retry import StoreError
from mfmc_ray.stores import Store

NAMED_ERRORS = 10
"""Rows that cannot be used are all counted, and so many of them named."""
IMAGE_ID = re.compile(r"[0-9a-fA-F]{64}")
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False, "": False}
Cells = Mapping[str, Any]
"""A row: column → text from a CSV, what it is from Parquet."""
R = TypeVar("R")


@dataclass(frozen=True)
class Layout:
    """What a table looks like.

    Attributes:
        option: of the command line, that names the table.
        needed: columns that must be there.
        others: columns that may be there. Every table may have `row`, too: a number for each row.
        unread: columns that may be there and are not looked at.
        wanted: what is said if the columns do not fit; None: the needed ones are named.
        fits: whether the columns are some that can be used, besides.
    """

    option: str
    needed: tuple[str, ...]
    others: tuple[str, ...] = ()
    unread: tuple[str, ...] = ("note",)
    wanted: str | None = None
    fits: Callable[[Sequence[str]], bool] = lambda columns: True

    @property
    def columns(self) -> tuple[str, ...]:
        """All that there may be."""
        return (*self.needed, *self.others, "row", *self.unread)


def load(path: str, storage_options: Mapping[str, Any] | None, layout: Layout, parse: Callable[[int, Cells], R]) -> list[R]:
    """The rows of a CSV or Parquet file.

    Args:
        path: a local path or a URL that fsspec opens.
        storage_options: for fsspec, of a URL.
        layout: of the table.
        parse: (number, cells) → a row; raises AccessError for one that cannot be used. The number is how the row is named where it keeps a
            face: what the column `row` says, or its place, from 1.

    Raises:
        AccessError: it cannot be read, or some row cannot be used; then none is.
        StoreError: its store does not answer.
    """
    name = last_name(path)
    found: list[R] = []
    faults: list[AccessError] = []
    numbers: set[int] = set()
    for place, cells in enumerate(_rows(_read(path, storage_options, layout.option), name, layout), 1):
        try:
            if isinstance(cells, AccessError):
                raise cells
            number = _number(cells, place)
            row = parse(number, cells)
            if number in numbers:
                raise AccessError(f"another row has the number {number}, too")
        except AccessError as error:
            faults.append(_at(place, error))
            continue
        numbers.add(number)
        found.append(row)
    refuse(name, faults)
    return found


def refuse(name: str, faults: Sequence[AccessError]) -> None:
    """Raises what is wrong with a table, if anything is.

    Args:
        name: the table's.
        faults: each names its row.

    Raises:
        AccessError: so many are named, all are counted; without `--verbose` no cell of the table is in it.
    """
    if faults:
        more = f"; and {len(faults) - NAMED_ERRORS} more rows" if len(faults) > NAMED_ERRORS else ""
        named = faults[:NAMED_ERRORS]
        said, bare = ("; ".join(words(error) for error in named) for words in (str, _bare))
        raise hushed(AccessError(f"{name}: {said}{more}"), f"{name}: {bare}{more}")


def last_name(path: str) -> str:
    """A file's name without its folder."""
    return path.rpartition("/")[2]


def wrong(what: str, value: Any, wanted: str) -> AccessError:
    """A cell that cannot be used. What it holds may name a person, and is told with `--verbose` only."""
    text = repr(value)
    return hushed(AccessError(f"{what} {text if len(text) <= 60 else text[:57] + '…'}: {wanted}"), f"{what}: {wanted}")


# cells


def image_of(cells: Cells) -> str:
    """The image that a row names: its id in lower case, or its path.

    Raises:
        AccessError: none is named, or a place outside the collection.
    """
    value = cells["image"]
    if not isinstance(value, str) or not value:
        raise AccessError("no image; wanted its image_id (sha-256, 64 hexadecimal digits) or its path in the collection")
    if IMAGE_ID.fullmatch(value):
        return value.lower()
    if value.startswith(("/", "./", "../")) or "://" in value:
        raise wrong("image", value, "wanted an image_id, or the path relative to the collection, as OUT's column path has it")
    return value


def names_of(image_id: str | None, path: str) -> set[str]:
    """What rows about an image may call it: its id and its path."""
    # 64 hexadecimal digits are an id whatever a file is called
    return {image_id or ""} if IMAGE_ID.fullmatch(path) else {image_id or "", path}


def allow_of(cells: Cells) -> bool:
    """Whether a row allows or denies; without the column it allows.

    Raises:
        AccessError: it says neither.
    """
    value = cells.get("allow", True)
    if value is None or isinstance(value, bool):
        return bool(value)
    word = str(value).strip().lower()
    if word not in _WORDS:
        raise wrong("allow", value, "wanted true or false")
    return _WORDS[word]


def name_of(value: Any, what: str) -> str:
    """A name as it is compared everywhere: in Unicode's composed form (NFC), without space around it; of a whole number its digits.

    Raises:
        AccessError: there is none.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise AccessError(f"no {what}")
    if not isinstance(value, str):
        raise wrong(what, value, "wanted a name")
    return unicodedata.normalize("NFC", value.strip())


def person_of(cells: Cells) -> str:
    """The enrolled person that a row is about.

    Raises:
        AccessError: none is named.
    """
    person = name_of(cells["person"], "person")
    if person.startswith(("group:", "viewer:")):
        raise wrong("person", person, "wanted the id of one person, as `mfmc people list` has it")
    return person


def _number(cells: Cells, place: int) -> int:
    if "row" not in cells:
        return place
    if not re.fullmatch(r"[0-9]{1,18}", str(cells["row"]).strip()):
        raise wrong("row", cells["row"], "wanted a whole number, one for each row")
    return int(str(cells["row"]).strip())


# files


def _read(path: str, storage_options: Mapping[str, Any] | None, option: str) -> bytes:
    try:
        if not is_remote(path):
            return Path(path.removeprefix("file://")).expanduser().read_bytes()
        store = Store(path, storage_options)
        return store.read(store.path)
    except StoreError:
        raise
    except FileNotFoundError as error:
        raise AccessError(f"{path}: not found; {option} wants a CSV or Parquet file") from error
    except ImportError as error:
        raise AccessError(f"{path}: a package for this kind of URL is missing; for s3:// pip install mfmc-ray[s3] ({error})") from error
    except Exception as error:  # stores raise what they like
        raise AccessError(f"{path}: cannot be read: {type(error).__name__}: {error}") from error


def _rows(data: bytes, name: str, layout: Layout) -> Iterator[dict[str, Any] | AccessError]:
    """The rows of a table, or what is wrong with one."""
    if data.startswith(b"PAR1"):
        try:
            table = pq.read_table(pa.BufferReader(data))
            _check_columns(table.column_names, name, layout)
            rows: list[dict[str, Any]] = table.drop_columns([n for n in table.column_names if n in layout.unread]).to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise AccessError(f"{name}: a damaged Parquet file ({error})") from error
        yield from rows
        return
    try:
        lines = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        columns = [column.strip() for column in next(lines, [])]
        _check_columns(columns, name, layout)
        for cells in lines:
            if len(cells) == len(columns):
                yield dict(zip(columns, cells, strict=True))
            elif cells:  # not an empty line
                yield AccessError(f"{len(cells)} cells, but {len(columns)} columns")
    except UnicodeDecodeError as error:
        raise AccessError(f"{name}: neither Parquet nor a CSV in UTF-8") from error
    except csv.Error as error:
        raise AccessError(f"{name}: line {lines.line_num} is no CSV: {error}") from error


def _check_columns(columns: Sequence[str], name: str, layout: Layout) -> None:
    if unknown := [column for column in columns if column not in layout.columns]:
        commas = " (with commas between them)" if any(other in unknown[0] for other in ";\t") else ""
        there_may_be = f"there may be: {', '.join(layout.columns)}{commas}"
        bare = f"{name}: column {columns.index(unknown[0]) + 1} has an unknown name; {there_may_be}"  # without a heading it is a cell
        raise hushed(AccessError(f"{name}: unknown column {unknown[0]!r}; {there_may_be}"), bare)
    if doubled := [column for column in columns if columns.count(column) > 1]:
        raise AccessError(f"{name}: the column {doubled[0]!r} is there twice")
    if not set(layout.needed) <= set(columns) or not layout.fits(columns):
        raise AccessError(f"{name}: wanted {layout.wanted or 'the columns ' + ' and '.join(layout.needed)}")


def _at(place: int, error: AccessError) -> AccessError:
    return hushed(AccessError(f"row {place}: {error}"), f"row {place}: {_bare(error)}")


def _bare(error: AccessError) -> str:
    return str(getattr(error, "discreet", error))
