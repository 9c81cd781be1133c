"""Who of the enrolled people was recognised in which image: plain data that the access models decide by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

RECOGNISED, UNKNOWN, AMBIGUOUS, UNUSABLE = "recognised", "unknown", "ambiguous", "unusable"


@dataclass(frozen=True)
class Sighting:
    """What is known of one face of an image.

    Attributes:
        person: the enrolled person it is; None: nobody.
        similarity: cosine of the first recognizer to the best person's photos; −1 if nobody is enrolled or it has no embedding.
        margin: by how much that is above the second-best person's.
        reason: `RECOGNISED`; `UNKNOWN`: nobody enrolled is like it; `AMBIGUOUS`: somebody is, but so is another person or another face of
            the image, so it is nobody; `UNUSABLE`: it has no embedding.
    """

    person: str | None
    similarity: float
    margin: float
    reason: str


@dataclass(frozen=True)
class Sightings:
    """The sightings of a collection.

    Attributes:
        images: image_id → one sighting a face, in the scan's order. Images in which nobody is recognised or ambiguous may be left out.
        digest: sha-256, hex, over all of them.
    """

    images: Mapping[str, tuple[Sighting, ...]]
    digest: str

    def of(self, image_id: str | None) -> tuple[Sighting, ...]:
        """The sightings of an image; () if nothing is known of it."""
        return () if image_id is None else self.images.get(image_id, ())
