"""Taking people out of tables that users keep: access tables, whatever else they hold."""

from __future__ import annotations

import csv
import io
import stat
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mfmc_ray.people.registry import PeopleError
from mfmc_ray.places import replace_file

COLUMN = "person"


@dataclass(frozen=True)
class Struck:
    """What was taken out of a table.

    Attributes:
        rows: how many.
        elsewhere: column → cells that name one of the people still; these are the user's to decide on.
    """

    rows: int
    elsewhere: Counter[str] = field(default_factory=Counter)


def strike(path: Path, people: Collection[str]) -> Struck:
    """Takes all rows out of a table whose column `person` names one of some people.

    The file is replaced whole, if at all; what is left of it is as it was, in a CSV to the byte.

    Args:
        path: a CSV (UTF-8) or Parquet file.
        people: ids, as `registry.person_id` gives them.

    Raises:
        PeopleError: it cannot be read, or has no such column.
    """
    try:
        data = path.read_bytes()
        mode = stat.S_IMODE(path.stat().st_mode)
        if data.startswith(b"PAR1"):
            return _parquet(path, set(people), mode)
        return _csv(path, data, set(people), mode)
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        what = f"{path} cannot be read as CSV in UTF-8 or as Parquet ({type(error).__name__})"
        raise PeopleError(f"{what}: take the rows out yourself") from error


def _parquet(path: Path, people: set[str], mode: int) -> Struck:
    table = pq.read_table(path)
    _check(table.column_names, path)
    named = {name: [_named(cell, people) for cell in table[name].to_pylist()] for name in table.column_names}
    gone = np.array(named[COLUMN], bool)
    if gone.any():
        left = table.filter(pa.array(~gone))

        def write(temporary: Path) -> None:
            pq.write_table(left, temporary)
            temporary.chmod(mode)

        replace_file(path, write)
    return Struck(int(gone.sum()), _elsewhere((name, [v for v, g in zip(named[name], gone, strict=True) if not g]) for name in named))


def _csv(path: Path, data: bytes, people: set[str], mode: int) -> Struck:
    start = b"\xef\xbb\xbf" if data.startswith(b"\xef\xbb\xbf") else b""
    records = _records(data[len(start) :].decode())
    heading, first = next(records, ([], ""))
    columns = [column.strip() for column in heading]
    _check(columns, path)
    at = columns.index(COLUMN)
    kept, gone, left = [first], 0, []
    for cells, text in records:
        if len(cells) > at and _named(cells[at], people):
            gone += 1
        else:
            kept.append(text)
            left.append(cells)
    if gone:

        def write(temporary: Path) -> None:
            temporary.write_bytes(start + "".join(kept).encode())
            temporary.chmod(mode)

        replace_file(path, write)
    named = ((name, [len(cells) > i and _named(cells[i], people) for cells in left]) for i, name in enumerate(columns))
    return Struck(gone, _elsewhere(named))


def _records(text: str) -> Iterator[tuple[list[str], str]]:
    """The rows of a CSV, each with the text that it was read from."""
    taken: list[str] = []

    def given() -> Iterator[str]:
        for line in io.StringIO(text, newline=""):
            taken.append(line)
            yield line

    for cells in csv.reader(given(), strict=True):
        yield cells, "".join(taken)
        taken.clear()


def _named(cell: Any, people: set[str]) -> bool:
    """Whether a cell is one of the ids, or a party such as `viewer:ID`."""
    if cell is None or isinstance(cell, (bytes, float, list, dict)):
        return False
    text = unicodedata.normalize("NFC", str(cell).strip())
    return text in people or text.removeprefix("viewer:").strip() in people


def _elsewhere(named: Iterable[tuple[str, list[bool]]]) -> Counter[str]:
    return Counter({name: sum(cells) for name, cells in named if any(cells) and name != COLUMN})


def _check(columns: list[str], path: Path) -> None:
    if COLUMN not in columns:
        raise PeopleError(f"{path} has no column {COLUMN!r}, so nobody can be taken out of it")
