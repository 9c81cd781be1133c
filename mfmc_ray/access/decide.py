"""Who may see a face: a decision per face. The default is always: not approved → replaced."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from mfmc_ray.faces.faces import F32, Faces
from mfmc_ray.people.sightings import Sightings


class AccessError(ValueError):
    """An access table cannot be used, or a model did not decide; the message says where and what would do."""


@dataclass(frozen=True)
class Decision:
    """What is to happen to a face.

    Attributes:
        keep: it was approved and stays as it is.
        reason: the rows of the access tables that allowed it, which is published; None unless kept.
        denied: a row that denies it, whatever others allow; None if none does. Private.
        redact: a reviewer wants it covered.
        rejected: identity_ids that a reviewer did not want on it.
        rounds: how often a reviewer wanted another one.
    """

    keep: bool
    reason: str | None = None
    denied: str | None = None
    redact: bool = False
    rejected: frozenset[str] = frozenset()
    rounds: int = 0


NOTHING = Decision(keep=False)
"""No row is about it."""


class Effects(Protocol):
    """Finds out which rows of a table have no effect."""

    def see(self, image_id: str | None, path: str, boxes: Callable[[], F32]) -> None:
        """Takes note of an image that is there.

        Args:
            image_id, path: of the image.
            boxes: gives float32 (n, 4), x0 y0 x1 y1 px, of its faces, if they are needed.
        """
        ...

    def lines(self, enrolled: Collection[str] | None) -> list[str]:
        """Sentences about them, once it has seen all images. They name rows, no person.

        Args:
            enrolled: the ids of the people who are enrolled; None: it is not known who is.
        """
        ...


class AccessModel(Protocol):
    """Decides for every face of an image."""

    @property
    def digest(self) -> str:
        """sha-256, hex, over all tables that its decisions depend on; "" if there are none. Private: it may be over persons."""
        ...

    def decide(self, image_id: str, path: str, faces: Faces) -> Sequence[Decision]:
        """One decision a face, in order."""
        ...

    def version(self, image_id: str | None, path: str) -> str:
        """What stands for everything that it has to say of an image: while it is the same, so are the decisions. Private."""
        ...

    def bound(self, sightings: Sightings) -> AccessModel:
        """The same with these people recognised. Unbound, a model that goes by people keeps nobody."""
        ...

    def effects(self) -> Sequence[Effects]:
        """Its tables, each to be shown all images and to tell then which of its rows had no effect."""
        ...


class PersonModel(Protocol):
    """Decides for an enrolled person in an image, wherever in it they were recognised."""

    @property
    def digest(self) -> str:
        """As of `AccessModel`."""
        ...

    def says(self, person: str, image_id: str, path: str) -> Decision:
        """The decision; no other person's rows have a part in it."""
        ...

    def effects(self, seen: Callable[[str | None], Collection[str]]) -> Sequence[Effects]:
        """As of `AccessModel`.

        Args:
            seen: image_id → the people recognised in it.
        """
        ...


class ReplaceAll:
    """Nobody approved anything: every face is replaced."""

    digest = ""

    def decide(self, image_id: str, path: str, faces: Faces) -> Sequence[Decision]:
        """One decision a face: replace it."""
        return [NOTHING] * len(faces)

    def version(self, image_id: str | None, path: str) -> str:
        """Always the same."""
        return ""

    def bound(self, sightings: Sightings) -> ReplaceAll:
        """Itself: whoever it is, the face is replaced."""
        return self

    def effects(self) -> Sequence[Effects]:
        """It has no tables."""
        return ()


def merged(some: Iterable[Decision]) -> Decision:
    """What several tables say of one face: kept if one allows it and none denies it. The first that allows it is named."""
    reason = denied = None
    for one in some:
        denied = denied or one.denied
        reason = reason or (one.reason if one.keep else None)
    return Decision(keep=False, denied=denied) if denied or not reason else Decision(keep=True, reason=reason)


def decisions(model: AccessModel, image_id: str, path: str, faces: Faces) -> list[Decision]:
    """What a model decides, as far as it can be acted on: a face that is kept without a reason, or though it is denied, is not kept. It is
    asked of an image without faces, too: it may know of one that should be there.

    Raises:
        AccessError: it did not decide for each face, so that for none it is known what was meant.
    """
    decided = list(model.decide(image_id, path, faces))
    if len(decided) != len(faces):
        raise AccessError(f"{len(decided)} decisions about {len(faces)} faces")
    return [_sound(one) for one in decided]


def _sound(one: Decision) -> Decision:
    keep = bool(one.keep and one.reason and one.denied is None and not one.redact)
    return replace(one, keep=keep, reason=one.reason if keep else None)
