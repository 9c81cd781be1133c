"""Who may see a face: a decision per face. The default is always: not approved → replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mfmc_ray.faces.faces import Faces


@dataclass(frozen=True)
class Decision:
    """What is to happen to a face.

    Attributes:
        keep: it was approved and stays as it is.
        reason: the row of the access table that allowed it; None unless kept.
    """

    keep: bool
    reason: str | None = None


class AccessModel(Protocol):
    """Decides for every face of an image."""

    def decide(self, image_id: str, path: str, faces: Faces) -> Sequence[Decision]:
        """One decision a face, in order."""
        ...

    def version(self, image_id: str | None, path: str) -> str:
        """What stands for everything that it has to say of an image: while it is the same, so are the decisions."""
        ...


class ReplaceAll:
    """Nobody approved anything: every face is replaced."""

    def decide(self, image_id: str, path: str, faces: Faces) -> Sequence[Decision]:
        """One decision a face: replace it."""
        return [Decision(keep=False)] * len(faces)

    def version(self, image_id: str | None, path: str) -> str:
        """Always the same."""
        return ""
