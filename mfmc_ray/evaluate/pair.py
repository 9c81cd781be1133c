"""An image of the collection beside what became of it: what every section of an evaluation looks at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfmc_ray.faces.faces import F32, Faces, Image

I64 = NDArray[np.int64]

SIDES = ("original", "output")
REPLACED, REDACTED, KEPT, WITHHELD, CHANGED = "replaced", "redacted", "kept", "withheld", "changed"
"""What became of a face. `changed`: OUT is a plain folder of pictures, which do not say what was done to whom; such a face counts as
replaced. `withheld`: its image is not published."""
SHOWN = (REPLACED, CHANGED, KEPT)
"""Faces that the output shows, in whatever form."""


@dataclass(frozen=True)
class PairedFaces:
    """n faces of the original, and where they are in the output. Coordinates are px of the upright picture that they are about.

    Attributes:
        numbers: int64 (n,): `face_no` of OUT's faces table; of a plain folder a running number.
        verdicts: n of the words above.
        reasons: n: the rule that redacted it, "" otherwise.
        identities: n: the fake identity that it wears, "" if none is stated.
        boxes: float32 (n, 4), x0 y0 x1 y1, in the original.
        points: float32 (n, 5, 2), in the original, the order of `Faces.points`.
        output_boxes, output_points: the same in the output: where a detector sees the face there, else where the faces table says it is,
            else where it was. NaN if there is no output.
        seen, output_seen: bool (n,): whether a detector sees it.
    """

    numbers: I64
    verdicts: tuple[str, ...]
    reasons: tuple[str, ...]
    identities: tuple[str, ...]
    boxes: F32
    points: F32
    output_boxes: F32
    output_points: F32
    seen: NDArray[np.bool_]
    output_seen: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def sizes(self) -> F32:
        """float32 (n,): √area of the boxes in the original, px."""
        return np.asarray(np.sqrt(np.prod(np.maximum(self.boxes[:, 2:] - self.boxes[:, :2], 0), axis=1)), np.float32)

    def which(self, verdicts: tuple[str, ...] = SHOWN) -> I64:
        """int64: the rows with one of these verdicts."""
        return np.flatnonzero(np.isin(np.array(self.verdicts, np.str_), verdicts))


@dataclass(frozen=True)
class Pair:
    """One image before and after.

    Attributes:
        image_id: sha-256 of the original's bytes, hex.
        path: relative to the collection's root; with a face's number the key of all rows.
        verdict: OUT's: unchanged, anonymized, withheld or failed; of a plain folder "changed", or "missing" if it has no such picture.
        original: uint8 (height, width, 3), RGB, upright.
        output: the same of what is published; None if nothing is. A plain folder's may have another size.
        faces: of the original.
        detections: detector ("yunet", "centerface") → all it finds in the original and in the output.
        sizes: bytes of the two files.
    """

    image_id: str
    path: str
    verdict: str
    original: Image
    output: Image | None
    faces: PairedFaces
    detections: Mapping[str, tuple[Faces, Faces]] = field(default_factory=dict)
    sizes: tuple[int, int] = (0, 0)

    def key(self, i: int | None = None) -> dict[str, Any]:
        """The first columns of a row about the image, or about its face in row i of `faces`."""
        return {"path": self.path} if i is None else {"path": self.path, "face_no": int(self.faces.numbers[i])}
