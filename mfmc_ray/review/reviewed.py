"""An access model with what reviewers decided on top of it: what they take away is taken away, whatever a table allows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from mfmc_ray.access.decide import AccessModel, Decision, Effects
from mfmc_ray.faces.faces import Faces
from mfmc_ray.people.sightings import Sightings
from mfmc_ray.review.decisions import Order, Reviews


@dataclass(frozen=True)
class Reviewed:
    """An access model that reviewers have looked after.

    Attributes:
        model: decides which faces stay.
        reviews: which of them do not, and how others are dealt with.
    """

    model: AccessModel
    reviews: Reviews

    @property
    def digest(self) -> str:
        """The model's: decisions of reviewers are honoured by a run that goes on, too."""
        return self.model.digest

    def decide(self, image_id: str, path: str, faces: Faces) -> Sequence[Decision]:
        """One decision a face, in order.

        Raises:
            LostFaceError: a face that a reviewer has redacted is not among them.
        """
        orders = self.reviews.orders(image_id, faces.boxes)
        decided = self.model.decide(image_id, path, faces)
        if len(decided) != len(orders):
            return decided  # which is found out by whoever asked
        return [_ordered(one, order) for one, order in zip(decided, orders, strict=True)]

    def version(self, image_id: str | None, path: str) -> str:
        """The model's, and what reviewers have to say of the image's faces."""
        version, reviewed = self.model.version(image_id, path), self.reviews.version(image_id or "")
        return hashlib.sha256(f"reviewed 1 {version} {reviewed}".encode()).hexdigest() if reviewed else version

    def effects(self) -> Sequence[Effects]:
        """Those of the model's tables."""
        return self.model.effects()

    def bound(self, sightings: Sightings) -> AccessModel:
        """The same with these people recognised."""
        return Reviewed(self.model.bound(sightings), self.reviews)


def _ordered(decided: Decision, order: Order) -> Decision:
    keep = decided.keep and not order.redact and not order.replace
    return Decision(
        keep, decided.reason if keep else None, decided.denied, redact=order.redact, rejected=order.rejected, rounds=order.rounds
    )
