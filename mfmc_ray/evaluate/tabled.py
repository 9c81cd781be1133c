"""Figures of evaluation.json as tables and paragraphs for a page: any JSON, so that a section that is new needs no code here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mfmc_ray.evaluate.report import clean

FEW = 30
"""Faces, below which a figure is marked: its interval is wide, and one person may decide it."""
MOST_COLUMNS = 8
"""Of a table; entries with more figures have a table of their own each."""
_MOST_ITEMS, _MOST_DEPTH = 12, 8
_PROSE = ("warning", "note", "method", "text", "why", "verdict")
_NAMES = ("title", "name", "recognizer", "method", "metric", "generator", "group", "label")
_HEAD = ("", "value (95 % interval)", "of")
_NUMBERS_ONLY = frozenset({"value", "low", "high", "n", "why", "unit"})

Json = Any


@dataclass(frozen=True)
class Cell:
    """A place of a table.

    Attributes:
        text: the value.
        interval: "1.6–12.5", or "".
        note: why there is no value, or "".
        few: whether few faces stand behind it.
    """

    text: str
    interval: str = ""
    note: str = ""
    few: bool = False


@dataclass(frozen=True)
class Table:
    """Rows with a heading each; `head` names the first column and those of the cells."""

    caption: str
    head: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]

    @property
    def few(self) -> bool:
        """Whether anything is marked."""
        return any("†" in name or any(cell.few for cell in cells) for name, cells in self.rows)


@dataclass(frozen=True)
class Picture:
    """An image of a data: URI, with what it shows."""

    source: str
    alt: str


@dataclass(frozen=True)
class Chart:
    """A picture that is drawn when it is wanted: `draw()` gives its data: URI, or raises NoPlotsError."""

    draw: Callable[[], str]
    alt: str


@dataclass(frozen=True)
class Group:
    """A heading with what is below it."""

    title: str
    blocks: Sequence[Block]


Block = Table | Picture | Chart | Group | str
"""A paragraph is a string."""


def is_figure(value: Json) -> bool:
    """Whether it is `{"value": …, "low": …, "high": …, "n": …}`."""
    return isinstance(value, Mapping) and "value" in value and ("n" in value or "low" in value or value.keys() <= _NUMBERS_ONLY)


def percent(value: Json, digits: int = 1) -> str:
    """0.0454 → "4.5 %"; what is no number → "–"."""
    return f"{_rounded(100 * value, digits)}\N{NO-BREAK SPACE}%" if is_number(value) else "–"


def plain(value: Json) -> str:
    """A number with a few digits, as people write it; "–" for none; other things as text."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace("-", "\N{MINUS SIGN}")
    if isinstance(value, float):
        if not math.isfinite(value):
            return "–"
        size = abs(value) if abs(value) > 1e-9 else 0.0  # what a difference left over
        text = (
            f"{value:,.0f}"
            if size >= 1000
            else f"{value:.1f}"
            if size >= 10
            else f"{value:.3f}"
            if size >= 0.0095
            else f"{value:.4f}"
            if size >= 5e-5
            else f"{value:.1e}"
        )
        text = text if size else "0"
        return text.replace("-", "\N{MINUS SIGN}")
    return clean(value)


def _rounded(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def is_number(value: Json) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def cell(value: Json, *, share: bool = False) -> Cell:
    """Of a figure, or of anything else that is no container; `share`: numbers are 0–1 and shown as per cent."""
    show = percent if share else plain
    if not is_figure(value):
        return Cell(show(value) if share and is_number(value) else plain(value))
    share = share or value.get("unit") == "share"
    show = percent if share else plain
    low, high, n = value.get("low"), value.get("high"), value.get("n")
    if not is_number(value["value"]):
        return Cell("–" if value["value"] is None else plain(value["value"]), note=clean(value.get("why") or ""))
    interval = ""
    if is_number(low) and is_number(high):
        ends = [_rounded(100 * v, 1) if share else plain(v) for v in (low, high)]
        interval = ("–" if share and ends[0][0] != "\N{MINUS SIGN}" else " to ").join(ends)
    unit = value.get("unit")
    text = show(value["value"]) + (f"\N{NO-BREAK SPACE}{clean(unit)}" if unit and unit != "share" else "")
    return Cell(text, interval, few=is_number(n) and n < FEW)


def blocks(data: Json, depth: int = 0) -> list[Block]:
    """What to show of a section: figures in tables, entries of the same kind as the rows of one, the rest below headings."""
    if isinstance(data, list | tuple):
        data = {str(i): entry for i, entry in enumerate(data, 1)} if not _entries(data) else {"entries": data}
    if not isinstance(data, Mapping):
        return [plain(data)]
    prose: list[Block] = []
    rows: list[tuple[str, Sequence[Cell]]] = []
    small: dict[tuple[str, ...], dict[str, Mapping[str, Json]]] = {}  # keys → name → figures under these keys
    rest: list[Block] = []
    for key, value in data.items():
        name = words(key)
        if isinstance(value, str):
            said = clean(value) if key in _PROSE else f"{name}: {clean(value)}"
            rest.append(Picture(value, name)) if value.startswith("data:image/") else prose.append(_titled(said))
        elif is_figure(value) or not isinstance(value, Mapping | list | tuple):
            rows.append(_row(name, value))
        elif not value:
            continue
        elif isinstance(value, list | tuple) and not _entries(value):
            rows.append((name, [Cell(_listed(value)), Cell("")]))
        elif isinstance(value, Mapping) and all(is_figure(leaf) or _is_number(leaf) for leaf in value.values()):
            small.setdefault(tuple(value), {})[name] = value
        elif matrix := _matrix(name, value):
            rest += matrix
        elif depth < _MOST_DEPTH:
            rest.append(Group(_titled(name), blocks(value, depth + 1)))
    tables: list[Block] = []
    for some in small.values():
        if len(some) > 1:
            tables += _matrix(", ".join(some), some) or []
        else:
            rows += [_row(f"{name} · {words(key)}", leaf) for name, value in some.items() for key, leaf in value.items()]
    return [*prose, *([Table("Figures", _HEAD, rows)] if rows else []), *tables, *rest]


def words(key: object) -> str:
    """ "rank1_before" → "rank1 before"."""
    return clean(key).replace("_", " ")


def _titled(name: str) -> str:
    return name[:1].upper() + name[1:]


def _row(name: str, value: Json) -> tuple[str, Sequence[Cell]]:
    n = value.get("n") if is_figure(value) else None
    return name, [cell(value), Cell(plain(n) if n is not None else "")]


def _listed(values: Sequence[Json]) -> str:
    shown = ", ".join(plain(value) if not isinstance(value, Mapping | list | tuple) else "…" for value in values[:_MOST_ITEMS])
    return shown if len(values) <= _MOST_ITEMS else f"{shown}, … ({len(values):,} in all)"


def _entries(values: Sequence[Json]) -> bool:
    return bool(values) and all(isinstance(value, Mapping) and not is_figure(value) for value in values)


def _matrix(name: str, value: Json) -> list[Block] | None:
    """Entries that hold figures and nothing deeper, as one table, or as one each if they are wide; None if they hold more."""
    if isinstance(value, Mapping):
        entries = {words(key): entry for key, entry in value.items()}
    else:
        entries = {_name_of(entry, i): entry for i, entry in enumerate(value, 1)}
    if not entries or not all(isinstance(entry, Mapping) and not is_figure(entry) for entry in entries.values()):
        return None
    if isinstance(value, Mapping) and all(map(_of_its_own, entries.values())):
        return None
    if any(_is_deep(inner) for entry in entries.values() for inner in entry.values()):
        return None
    flat = {key: dict(_leaves(entry)) for key, entry in entries.items()}
    if any(isinstance(leaf, list | tuple) and _entries(leaf) for leaves in flat.values() for leaf in leaves.values()):
        return None
    columns = list(dict.fromkeys(column for leaves in flat.values() for column in leaves))
    if not columns:
        return []
    if len(columns) > MOST_COLUMNS:
        return [
            Group(
                _titled(name),
                [
                    Table(_titled(key), _HEAD, [_row(column, _flat(leaf)) for column, leaf in leaves.items()])
                    for key, leaves in flat.items()
                ],
            )
        ]
    rows = []
    for key, leaves in flat.items():
        cells = [cell(_flat(leaves[column])) if column in leaves else Cell("") for column in columns]
        few = all(one.few or not one.interval for one in cells) and any(one.few for one in cells)  # marked once
        rows.append((f"{key}\N{NO-BREAK SPACE}†" if few else key, [replace(one, few=False) for one in cells] if few else cells))
    return [Table(_titled(name), ["", *columns], rows)]


def _is_deep(value: Json) -> bool:
    """Whether it holds mappings that hold something, or lists of them."""
    inner = value.values() if isinstance(value, Mapping) and not is_figure(value) else ()
    return any(isinstance(leaf, Mapping) and not is_figure(leaf) for leaf in inner)


def _is_number(value: Json) -> bool:
    return value is None or isinstance(value, int | float)


def _of_its_own(entry: Mapping[str, Json]) -> bool:
    """Whether it holds entries that are alike, as a kind of groups does, so that it is a table of its own."""
    inner = [set(value) if isinstance(value, Mapping) and not is_figure(value) else set() for value in entry.values()]
    return bool(inner) and bool(set.intersection(*inner))


def _flat(leaf: Json) -> Json:
    return _listed(leaf) if isinstance(leaf, list | tuple) else leaf


def _name_of(entry: Json, number: int) -> str:
    said = [str(entry[name]) for name in _NAMES if isinstance(entry, Mapping) and isinstance(entry.get(name), str)]
    return f"{number}. {clean(said[0])}" if said else str(number)


def _leaves(entry: Mapping[str, Json], before: str = "", depth: int = 0) -> Iterator[tuple[str, Json]]:
    for key, value in entry.items():
        name = f"{before} · {words(key)}" if before else words(key)
        if isinstance(value, Mapping) and not is_figure(value):
            if depth < _MOST_DEPTH:
                yield from _leaves(value, name, depth + 1)
        else:
            yield name, value
