"""A pass that commits parts, and what its files are called."""

from __future__ import annotations

from dataclasses import dataclass

NEXT = "next"
"""Folder in WORK: committed parts as they become, until they take the places of what they were."""


@dataclass(frozen=True)
class Stage:
    """A pass that commits parts.

    Attributes:
        name: of its markers' folder.
        tables: its tables in the order in which a part's files appear; last the one that refers to the others.
        private: whether they are in WORK rather than in OUT.
        kept: further tables, which are in WORK in any case.
    """

    name: str
    tables: tuple[str, ...]
    private: bool = False
    kept: tuple[str, ...] = ()

    def marker(self, part_id: int) -> str:
        """The file in WORK that says a part is committed."""
        return f"ledger/{self.name}/part-{part_id:05d}.json"

    def staged(self, part_id: int) -> str:
        """The folder in WORK with a committed part as it becomes."""
        return f"{NEXT}/{self.name}/part-{part_id:05d}"


def part_file(table_name: str, part_id: int) -> str:
    """The file of one part of a table, in OUT or WORK."""
    return f"{table_name}/part-{part_id:05d}.parquet"
