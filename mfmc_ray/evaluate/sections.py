"""What an evaluation consists of: sections, each with what it notes of every pair of pictures, and the figures it makes of the notes.

docs/evaluate.md says how a section is added.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol, cast

import numpy as np
import pyarrow as pa

from mfmc_ray.evaluate.pair import I64, Pair

SCHEMA = 1
"""Of evaluation.json: raised when a figure changes its meaning or place, not when one is added."""
SECTIONS: Mapping[str, str] = MappingProxyType(
    {name: f"mfmc_ray.evaluate.{name}" for name in ("recognition", "utility", "downstream", "structure", "perceptual", "generative")}
)
"""Key in evaluation.json → its module, a `Section`. The order is that of the report."""
FACE_KEY = [("path", pa.string()), ("face_no", pa.int64())]
"""The first columns of rows about faces; rows about images have `path` alone."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """What is asked of an evaluation, as plain data.

    Attributes:
        recognizers: names; None: all that can be had.
        sections: names; None: all.
        seed: of the bootstrap and of samples.
        rounds: of the bootstrap.
        extra: for sections, by their name.
    """

    recognizers: tuple[str, ...] | None = None
    sections: tuple[str, ...] | None = None
    seed: int = 0
    rounds: int = 1000
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Note:
    """What is noted of every pair: a table in WORK/evaluation that is made once, resumed, and made anew when this changes.

    Attributes:
        name: of the table: small letters, digits and "-".
        maker: "package.module:Class" of the `Collector`, made with `settings` in each worker.
        version: of its code: rows of another one are made anew.
        settings: plain JSON data.
        models: names in models.lock that it needs; their digests count as its settings.
    """

    name: str
    maker: str
    version: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)
    models: tuple[str, ...] = ()

    def digest(self, models: Mapping[str, str]) -> str:
        """sha-256 over what decides its rows. `models`: name → digest."""
        plain = [self.name, self.maker, self.version, dict(self.settings), {name: models[name] for name in self.models}]
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()

    def make(self) -> Collector:
        """The collector."""
        return cast("Collector", named(self.maker)(**self.settings))


class Collector(Protocol):
    """Notes something of each pair; one lives in each worker, with its models."""

    schema: pa.Schema
    """Of its rows; begins with `FACE_KEY`, or with `path` alone."""

    def collect(self, pair: Pair) -> list[Row]:
        """The rows about this pair; any number of them. What it raises ends the evaluation, so it copes with odd pictures."""
        ...


@dataclass(frozen=True)
class About:
    """The faces of all pairs, which notes are about.

    Attributes:
        faces: rows of `faces_note.FACES`: key, `image_id`, `verdict`, `reason`, `identity`, `size`, `seen`, `output_seen`, …
        images: one row for each pair: `path`, `image_id`, `verdict`.
        person: int64 (n,): who each face is; −1: nobody knows.
        labels: where that is from: "folders", "table" or "clusters".
        groups: "sex", "age", "tone" (and what a table of labels adds) → n labels, "" for unknown.
        options: what was asked.
    """

    faces: pa.Table
    images: pa.Table
    person: I64
    labels: str
    groups: Mapping[str, Sequence[str]]
    options: Options

    def __len__(self) -> int:
        return len(self.person)

    def at(self, rows: pa.Table) -> I64:
        """int64: the row of `faces` that each row of a note is about."""
        keys = zip(self.faces["path"].to_pylist(), self.faces["face_no"].to_pylist(), strict=True)
        place = {key: i for i, key in enumerate(keys)}
        return np.array([place[key] for key in zip(rows["path"].to_pylist(), rows["face_no"].to_pylist(), strict=True)], np.int64)


class Section(Protocol):
    """A module with these two functions."""

    def notes(self, options: Options) -> Sequence[Note]:
        """What has to be noted of the pairs; other sections may ask for the same."""
        ...

    def figures(self, tables: Mapping[str, pa.Table], about: About) -> dict[str, Any]:
        """Plain JSON data for evaluation.json. Pure: nothing but the notes' tables, by name, and what they are about."""
        ...


def chosen(options: Options) -> dict[str, Section]:
    """The sections that are asked for.

    Raises:
        KeyError: there is none of that name.
    """
    names = list(SECTIONS) if options.sections is None else list(options.sections)
    return {name: cast(Section, importlib.import_module(SECTIONS[name])) for name in names}


def named(place: str) -> Callable[..., Any]:
    """What "package.module:name" names."""
    module, _, name = place.partition(":")
    return cast("Callable[..., Any]", getattr(importlib.import_module(module), name))
