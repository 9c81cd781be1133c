"""A made-up run: the tables and the manifest that a report and a card are written from."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa

from mfmc_ray.faces.faces import Image
from mfmc_ray.tables import FACES, IDENTITIES, IMAGES

THRESHOLD = 0.36


@dataclass
class Run:
    manifest: dict[str, Any]
    images: list[dict[str, Any]] = field(default_factory=list)
    faces: list[dict[str, Any]] = field(default_factory=list)
    identities: list[dict[str, Any]] = field(default_factory=list)
    originals: dict[str, Image] = field(default_factory=dict)

    def tables(self) -> dict[str, pa.Table]:
        return {
            "images": pa.Table.from_pylist(self.images, IMAGES),
            "faces": pa.Table.from_pylist(self.faces, FACES),
            "identities": pa.Table.from_pylist(self.identities, IDENTITIES),
        }

    def add(self, path: str, before: Image, after: Image | None, boxes: Sequence[Sequence[float]], rng: np.random.Generator) -> None:
        """An image with its faces: replaced ones, every ninth redacted, every eleventh kept."""
        data = jpeg(before)
        image_id = hashlib.sha256(data + path.encode()).hexdigest()
        self.originals[image_id] = before
        height, width = before.shape[:2]
        verdict = "withheld" if after is None else "anonymized" if len(boxes) else "unchanged"
        self.images.append(
            {
                "image_id": image_id,
                "path": path,
                "image": {"bytes": None if after is None else jpeg(after), "path": path},
                "width": width,
                "height": height,
                "format": "JPEG",
                "verdict": verdict,
                "faces": len(boxes),
                "reason": "an unapproved face could not be covered" if after is None else None,
            }
        )
        for face_no, box in enumerate(boxes):
            n = len(self.faces) + 1
            verdict = "redacted" if n % 9 == 0 else "kept" if n % 11 == 0 else "replaced"
            replaced = verdict == "replaced"
            similarity = float(np.clip(rng.normal(0.27, 0.04), 0.1, THRESHOLD - 0.002))
            certificate = {
                "recognizer": "sface",
                "max_similarity": similarity,
                "nearest_known": f"{hashlib.sha256(str(n).encode()).hexdigest()}:0",
                "threshold": THRESHOLD,
                "false_match_rate": 1e-5,
                "generation": 1,
                "index_digest": "ab" * 32,
                "search": "exact",
            }
            age, sex = float(rng.uniform(15, 70)), str(rng.choice(["man", "woman"]))
            self.faces.append(
                {
                    "image_id": image_id,
                    "path": path,
                    "face_no": face_no,
                    "box": list(map(float, box)),
                    "face_bboxes": [box[0] / width, box[1] / height, box[2] / width, box[3] / height],
                    "verdict": verdict,
                    "reason": str(rng.choice(["too_small", "no_identity_passed", "turned_away"])) if verdict == "redacted" else None,
                    "access_reason": "approvals.csv row 3" if verdict == "kept" else None,
                    "identity_id": f"id-{n:05d}" if replaced else None,
                    "attempts": int(rng.geometric(0.7)) if replaced else 0,
                    "similarity_to_original": similarity - float(rng.uniform(0, 0.2)) if replaced else None,
                    "max_similarity_to_known": similarity if replaced else None,
                    "threshold": THRESHOLD if replaced else None,
                    "certificates": [certificate] if replaced else None,
                    "sex_before": sex,
                    "age_before": age,
                    "tone_before": 30.0,
                    "sex_after": sex if rng.random() < 0.93 else "woman",
                    "age_after": age + float(rng.normal(0, 5)),
                    "tone_after": 30.0 + float(rng.normal(0, 4)),
                    **{f"{a}_{w}": float(rng.normal(0, 3)) for a in ("yaw", "pitch", "roll") for w in ("before", "after")},
                    **{f"{a}_{w}": 0.2 for a in ("eye_opening", "mouth_opening", "smile") for w in ("before", "after")},
                }
            )
            if replaced:
                self.identities.append(
                    {
                        "identity_id": f"id-{n:05d}",
                        "seed": n,
                        "sex": sex,
                        "age": age,
                        "tone": 30.0,
                        "certificates": [certificate],
                        "uses": 1,
                    }
                )

    def fail(self, path: str, reason: str) -> None:
        self.images.append({"image_id": None, "path": path, "verdict": "failed", "faces": 0, "reason": reason})


def jpeg(image: Image) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, "JPEG", quality=92)
    return file.getvalue()


def manifest() -> dict[str, Any]:
    return {
        "version": "0.1.0",
        "created": "2026-11-22T21:00:00+00:00",
        "config": {"input": "/somewhere/private", "swap": {"attempts": 8}},
        "stages": [
            {"name": "scan", "seconds": 9.4, "images": 40, "faces": 61},
            {"name": "identities", "seconds": 6.1, "images": None, "faces": 61},
            {"name": "anonymize", "seconds": 14.8, "images": 40, "faces": 61},
        ],
        "guard": [
            {
                "recognizer": "sface",
                "threshold": THRESHOLD,
                "false_match_rate": 1e-5,
                "known_faces": 73,
                "generation": 1,
                "index_digest": "ab" * 32,
                "strict_threshold": 0.45,
            }
        ],
        "models": [
            {"name": "yunet", "sha256": "49f000ec" * 8, "license": "MIT", "commercial": True},
            {"name": "sface", "sha256": "fb143eea" * 8, "license": "Apache-2.0", "commercial": True},
        ],
        "notices": [],
    }
