"""Who may see a face: a decision per face. The default is always: not approved → replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from mfmc_ray.faces.faces import Faces
from mfmc_ray.people.sightings import Sightings


class AccessError(ValueError):
    """An access table cannot be used, or a model did not decide; the message says where and what would do."""


@dataclass(frozen=True)
class Decision:
    """What is to happen to a face.

    Attributes:
        keep: it was approved and stays as it is.
        reason: the row of the access table that allowed it, which is published; None unless kept.
        redact: a reviewer wants it covered.
        rejected: identity_ids that a reviewer did not want on it.
        rounds: how often a reviewer wanted another one.
    """

    keep: bool
    reason: str | None = None
    redact: bool = False
    rejected: frozenset[str] = frozenset()
    rounds: int = 0


class AccessModel(Protocol):
    """Decides for every face of an image."""

    @property
    def digest(self) -> str:
        """sha-256, hex, over all that its decisions depend on besides the faces; "" if there is nothing."""
        ...

    def decide(self, image_id: str, path: str, faces: Faces) -> Sequence[Decision]:
        """One decision a face, in order."""
        ...

    def version(self, image_id: str | None, path: str) -> str:
        """What stands for everything that it has to say of an image: while it is the same, so are the decisions."""
        ...

    def bound(self, sightings: Sightings) -> AccessModel:
        """The same with these people recognised; unbound, nobody is."""
        ...


class ReplaceAll:
    """Nobody approved anything: every face is replaced."""

    digest = ""

    def decide(self, image_id: str, path: str, faces: Faces) -> Sequence[Decision]:
        """One decision a face: replace it."""
        return [Decision(keep=False)] * len(faces)

    def version(self, image_id: str | None, path: str) -> str:
        """Always the same."""
        return ""

    def bound(self, sightings: Sightings) -> ReplaceAll:
        """Itself: whoever it is, the face is replaced."""
        return self


def decisions(model: AccessModel, image_id: str, path: str, faces: Faces) -> list[Decision]:
    """What a model decides, as far as it can be acted on: a face that is kept without a reason is not kept. It is asked of an image without
    faces, too: it may know of one that should be there.

    Raises:
        AccessError: it did not decide for each face, so that for none it is known what was meant.
    """
    decided = list(model.decide(image_id, path, faces))
    if len(decided) != len(faces):
        raise AccessError(f"{len(decided)} decisions about {len(faces)} faces")
    return [one if one.keep and one.reason and not one.redact else replace(one, keep=False, reason=None) for one in decided]
