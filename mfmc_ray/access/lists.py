"""Lists of people who are never shown, or always, whatever else is said."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from mfmc_ray.access.decide import NOTHING, Decision, Effects
from mfmc_ray.access.effects import About, PersonEffects
from mfmc_ray.access.tables import Cells, Layout, load, person_of

NEVER, ALWAYS = "never", "always"


@dataclass(frozen=True)
class PeopleList:
    """One of the lists, a `PersonModel`.

    Attributes:
        kind: `NEVER` or `ALWAYS`.
        rows: person → the number of the first row that names them.
        digest: sha-256, hex, over both.
    """

    kind: str
    rows: Mapping[str, int]
    digest: str = field(default="")

    def __post_init__(self) -> None:
        plain = json.dumps(sorted(self.rows.items()))
        object.__setattr__(self, "digest", hashlib.sha256(f"{self.kind} 1 {plain}".encode()).hexdigest())

    @classmethod
    def load(cls, kind: str, path: str, storage_options: Mapping[str, Any] | None = None) -> PeopleList:
        """The list in a CSV or Parquet file with a column `person`; arguments and errors as of `tables.load`."""
        rows = load(path, storage_options, Layout(f"--{kind}", ("person",)), _row)
        return cls(kind, {person: number for number, person in sorted(rows, reverse=True)})

    def says(self, person: str, image_id: str, path: str) -> Decision:
        """Denied by "never:" or kept by "always:", and the number of the row."""
        number = self.rows.get(person)
        if number is None:
            return NOTHING
        row = f"{self.kind}:{number}"
        return Decision(False, denied=row) if self.kind == NEVER else Decision(True, row)

    def effects(self, seen: Callable[[str | None], Collection[str]]) -> list[Effects]:
        """The list's."""
        return [PersonEffects(f"The {self.kind} list", (About(number, person) for person, number in self.rows.items()), seen)]


def _row(number: int, cells: Cells) -> tuple[int, str]:
    return number, person_of(cells)
