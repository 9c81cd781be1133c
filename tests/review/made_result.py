"""A made-up published result in OUT and WORK: pictures of one colour, faces in them, certificates."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa

from mfmc_ray.ledger import Ledger
from mfmc_ray.pipeline.workers import ANONYMIZE
from mfmc_ray.review.server import ReviewServer
from mfmc_ray.review.session import Session
from mfmc_ray.tables import FACES, IMAGES, PLACED, published_schema

USUAL = {"sface": 0.1, "dlib": 0.84}
LIMITS = {"sface": 0.363, "dlib": 0.923}
BOX = [20.0, 20.0, 60.0, 70.0]
LOOK = {"age": 40.0, "tone": 30.0, "yaw": 0.0, "pitch": 0.0, "roll": 0.0, "eye_opening": 0.25, "mouth_opening": 0.1, "smile": 0.2}


@dataclass
class Served:
    """A page that is being served.

    Attributes:
        fresh: whether OUT is still what it was; may be changed.
    """

    server: ReviewServer
    session: Session
    work: Path
    fresh: bool = True


def picture(i: int, side: int = 96) -> bytes:
    """A JPEG of one colour, another one for each number."""
    file = io.BytesIO()
    colour = np.array([(37 * i) % 256, (91 * i + 60) % 256, (151 * i + 120) % 256], np.uint8)
    PIL.Image.fromarray(np.broadcast_to(colour, (side, side, 3)).copy()).save(file, "JPEG", quality=92)
    return file.getvalue()


def image_id(i: int) -> str:
    return hashlib.sha256(picture(i)).hexdigest()


def face(i: int, number: int = 0, *, room: float = 0.5, **more: Any) -> dict[str, Any]:
    """A replaced face of image i, so far (of 1) below every threshold; `more`: other columns."""
    reached = {name: limit - room * (limit - USUAL[name]) for name, limit in LIMITS.items()}
    certificates = [{"recognizer": name, "max_similarity": reached[name], "threshold": limit} for name, limit in LIMITS.items()]
    plain = {"image_id": image_id(i), "path": f"{i:03}.jpg", "face_no": number, "box": BOX, "verdict": "replaced", "attempts": 3}
    plain |= {"reason": None, "access_reason": None}
    plain |= {"identity_id": f"fake-{i}", "similarity_to_original": 0.1, "max_similarity_to_known": reached["sface"]}
    plain |= {"threshold": LIMITS["sface"], "certificates": certificates, "sex_before": "woman", "sex_after": "woman"}
    return plain | {f"{name}_{when}": value for name, value in LOOK.items() for when in ("before", "after")} | more


def covered(i: int, number: int = 0, *, reason: str = "too_small", attempts: int = 0, **more: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(("identity_id", "similarity_to_original", "max_similarity_to_known", "threshold"))
    nothing |= {f"{name}_after": None for name in (*LOOK, "sex")}
    return face(i, number, verdict="redacted", reason=reason, attempts=attempts, certificates=[], **nothing) | more


def kept(i: int, number: int = 0) -> dict[str, Any]:
    return covered(i, number, verdict="kept", reason=None, access_reason="approvals:7")


def faces_table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=FACES)


def make_result(folder: Path, parts: list[list[dict[str, Any]]], out: str = "", options: dict[str, Any] | None = None) -> Ledger:
    """OUT (in the folder, or elsewhere) and WORK with these faces, part by part; an image for each image_id."""
    ledger = Ledger(out or str(folder / "out"), str(folder / "work"), options)
    for part, rows in enumerate(parts):
        images = {row["image_id"]: {"image_id": row["image_id"], "path": row["path"], "verdict": "anonymized", "faces": 1} for row in rows}
        for row in images.values():
            row |= {"image": {"bytes": picture(int(row["path"][:3])), "path": row["path"]}, "width": 96, "height": 96, "format": "JPEG"}
        tables = {"images": pa.Table.from_pylist(list(images.values()), schema=IMAGES), "faces": faces_table(*rows)}
        tables |= {"published": published_schema({}).empty_table(), "placed": PLACED.empty_table()}
        ledger.commit_part(ANONYMIZE, part, tables, {})
    return ledger
