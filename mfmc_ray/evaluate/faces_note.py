"""What is noted of every pair for all sections: its images and its faces, with what groups they are in."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from mfmc_ray.evaluate.pair import Pair
from mfmc_ray.evaluate.sections import FACE_KEY, Note, Row
from mfmc_ray.faces.attributes import AttributeHead, tone_band
from mfmc_ray.faces.mesh import FaceMesh

FACES = pa.schema(
    [
        *FACE_KEY,
        ("image_id", pa.string()),
        ("verdict", pa.string()),  # as of `PairedFaces`
        ("reason", pa.string()),
        ("identity", pa.string()),
        ("box", pa.list_(pa.float32(), 4)),  # px of the original
        ("size", pa.float32()),  # √area, px
        ("seen", pa.bool_()),
        ("output_seen", pa.bool_()),
        ("age", pa.float32()),  # of the original: years
        ("sex", pa.float32()),  # probability of "man"
        ("tone", pa.float32()),  # ITA, degrees
    ]
)
IMAGES = pa.schema(
    [
        ("path", pa.string()),
        ("image_id", pa.string()),
        ("verdict", pa.string()),  # as of `Pair`
        ("width", pa.int32()),  # px
        ("height", pa.int32()),
        ("faces", pa.int32()),
        ("bytes", pa.int64()),
        ("output_bytes", pa.int64()),
    ]
)
NOTES = (
    Note("faces", "mfmc_ray.evaluate.faces_note:FacesNote", 1, models=("facemesh", "iris", "attribute_net", "yunet", "centerface")),
    Note("images", "mfmc_ray.evaluate.faces_note:ImagesNote", 1),
)
"""Of every evaluation; `faces` also stands for what finds the faces."""

AGE_BANDS = ((0, 13, "0–12"), (13, 18, "13–17"), (18, 30, "18–29"), (30, 45, "30–44"), (45, 60, "45–59"), (60, 200, "60+"))
TONE_BANDS = ("very light", "light", "intermediate", "tan", "brown", "dark")


class FacesNote:
    """A row for each face, with what its original looks like."""

    schema = FACES

    def __init__(self) -> None:
        self._mesh, self._head = FaceMesh(), AttributeHead()

    def collect(self, pair: Pair) -> list[Row]:
        """Of one pair."""
        faces = pair.faces
        if len(faces) == 0:
            return []
        meshes, _ = self._mesh.fit(pair.original, faces.boxes, faces.points)
        looks, sizes = self._head.estimate(pair.original, meshes), faces.sizes
        return [
            pair.key(i)
            | {
                "image_id": pair.image_id,
                "verdict": faces.verdicts[i],
                "reason": faces.reasons[i],
                "identity": faces.identities[i],
                "box": faces.boxes[i].tolist(),
                "size": float(sizes[i]),
                "seen": bool(faces.seen[i]),
                "output_seen": bool(faces.output_seen[i]),
                "age": float(looks.ages[i]),
                "sex": float(looks.sexes[i]),
                "tone": float(looks.tones[i]),
            }
            for i in range(len(faces))
        ]


class ImagesNote:
    """A row for each image."""

    schema = IMAGES

    def collect(self, pair: Pair) -> list[Row]:
        """Of one pair."""
        height, width = pair.original.shape[:2]
        about = {"image_id": pair.image_id, "verdict": pair.verdict, "width": width, "height": height, "faces": len(pair.faces)}
        return [pair.key() | about | {"bytes": pair.sizes[0], "output_bytes": pair.sizes[1]}]


def groups_of(faces: pa.Table) -> dict[str, list[str]]:
    """ "sex", "age", "tone" → a label for each row of `FACES`, as they are estimated; "" for what is no number."""

    def labels(name: str, label: object) -> list[str]:
        values = np.asarray(faces[name].to_numpy(), np.float64)
        return [str(label(v)) if np.isfinite(v) else "" for v in values]  # type: ignore[operator]

    return {
        "sex": labels("sex", lambda v: "man" if v > 0.5 else "woman"),
        "age": labels("age", age_band),
        "tone": labels("tone", lambda v: TONE_BANDS[tone_band(float(v))]),
    }


def age_band(years: float) -> str:
    """The name of the band."""
    return next((name for low, high, name in AGE_BANDS if low <= years < high), "")
