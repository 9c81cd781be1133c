"""The anonymize stage: per image decide, assign, swap, check on the output, redact what does not hold, encode."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mfmc_ray.access import AccessModel
from mfmc_ray.codec import WITHHELD, CodecError, Decoded, decode, encode
from mfmc_ray.collection import SourceError, SourceReader
from mfmc_ray.config import OutputConfig, SwapConfig
from mfmc_ray.faces.attributes import Attributes
from mfmc_ray.faces.faces import F32, Faces, Image
from mfmc_ray.faces.mesh import eye_opening, mouth_opening, pose, smile
from mfmc_ray.identities.pool import Pool, Wanted, keyed
from mfmc_ray.identities.sample import Identity
from mfmc_ray.identities.traits import beard_of, mouth_covered
from mfmc_ray.pipeline.check import Checked, OutputCheck, five_points
from mfmc_ray.pipeline.choice import Chooser
from mfmc_ray.pipeline.rows import faces_of
from mfmc_ray.scrub import scrub
from mfmc_ray.swap.cover import Covered
from mfmc_ray.swap.redact import cover_of, redact
from mfmc_ray.swap.render import MorphSwapper, Patch
from mfmc_ray.tables import FACES, IMAGES, anonymized_schema, embedding_column, published_schema, scan_schema

LIPS_COVERED = 0.5
"""Share of the lips behind something (`cover.Covered.mouth`) from which no mouth is drawn."""
YOUNGEST = 3.0
"""Years; an identity has no infant's face, and an older one on an infant is grotesque."""
LEAST_MESH_SCORE = 0.3
LARGEST_YAW = 60.0
LARGEST_PITCH = 45.0
LARGEST_DISAGREEMENT = 0.22
_ROUNDS = 4


class Withhold(Exception):  # noqa: N818 (not an error: a decision)
    """The image is kept back; the reason is the argument."""


@dataclass
class Result:
    """What has become of one face so far."""

    verdict: str = "redacted"
    reason: str | None = None
    access_reason: str | None = None
    identity: Identity | None = None
    attempts: int = 0
    patch: Patch | None = None
    checked: Checked | None = None
    area: tuple[int, int, int, int] | None = None
    after: dict[str, Any] = field(default_factory=dict)

    def redact(self, reason: str) -> None:
        """Makes it a redaction by this rule."""
        self.verdict, self.reason, self.identity, self.patch, self.checked, self.after = "redacted", reason, None, None, None, {}


class AnonymizeStage:
    """Turns rows of the scan table into publishable rows.

    Args:
        swap, output: settings.
        max_pixels: larger images are not decoded.
        check: looks at the output; holds the pack and the guard.
        pool: the fake identities.
        swapper: puts them onto faces.
        access: decides which faces stay.
        key: of the run; who has it can repeat the random choices.
        storage_options: for fsspec, of remote units.
    """

    def __init__(
        self,
        *,
        swap: SwapConfig,
        output: OutputConfig,
        max_pixels: int,
        check: OutputCheck,
        pool: Pool,
        swapper: MorphSwapper,
        access: AccessModel,
        key: bytes,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.swap, self.output, self.max_pixels = swap, output, max_pixels
        self.check, self.pool, self.swapper, self.access, self.key = check, pool, swapper, access, key
        self.recognizers = check.pack.dimensions
        self.needs: pa.Schema = scan_schema(self.recognizers)
        self.adds: pa.Schema = anonymized_schema(self.recognizers)
        self._choose = Chooser(swapper, check, swap.attempts)
        self._reader = SourceReader(storage_options)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Rows of `tables.scan_schema` → as many rows of `tables.anonymized_schema`, in order."""
        plain = batch.drop_columns(["faces"]).to_pylist()
        return pa.Table.from_pylist(
            [self._image(row, batch["faces"][i]) for i, row in enumerate(plain)],
            schema=self.adds,
        )

    def _image(self, row: Mapping[str, Any], faces_scalar: pa.ListScalar) -> dict[str, Any]:
        base = {name: row[name] for name in ("image_id", "path", "width", "height", "format")} | {
            "faces": 0,
            "face_rows": [],
            "published": [],
        }
        try:
            if row["reason"] is not None:
                raise Withhold(row["reason"])
            data = self._reader.read(row["unit"], row["locator"])
            if hashlib.sha256(data).hexdigest() != row["image_id"]:
                raise Withhold("changed_since_scan")
            faces = faces_of(faces_scalar, self.recognizers)
            base["faces"] = len(faces)
            if len(faces) == 0:
                return base | {"image": _image(scrub(data, self.max_pixels), row["path"]), "verdict": "unchanged"}
            return base | self._faces(row, data, faces)
        except (Withhold, CodecError, SourceError) as error:
            reason = error.reason if isinstance(error, CodecError) else str(error)
            held = isinstance(error, Withhold) and row["reason"] is None
            verdict = "withheld" if held or reason.split(":")[0] in WITHHELD else "failed"
            return base | {"image": None, "verdict": verdict, "reason": reason, "face_rows": []}
        except Exception as error:  # one odd picture must not end the run, and nothing of it gets out
            return base | {"image": None, "verdict": "withheld", "reason": f"internal_error: {type(error).__name__}", "face_rows": []}

    def _faces(self, row: Mapping[str, Any], data: bytes, faces: Faces) -> dict[str, Any]:
        picture = decode(data, self.max_pixels)
        decisions = self.access.decide(row["image_id"], row["path"], faces)
        results = [Result("kept", access_reason=d.reason) if d.keep else Result() for d in decisions]
        if all(result.verdict == "kept" for result in results):
            image = _image(scrub(data, self.max_pixels), row["path"])
            return {"image": image, "verdict": "unchanged", "face_rows": self._rows(row, faces, results)}
        canvas = picture.pixels.copy()
        used: set[str] = set()
        # large faces first: a small one beside it is then drawn over its moved surroundings, not moved by them
        for i in np.argsort(-faces.sizes, kind="stable"):
            if results[i].verdict != "kept":
                self._replace(row["image_id"], int(i), picture.pixels, canvas, faces, results[i], used)
        for i, result in enumerate(results):
            if result.verdict == "redacted":
                self._cover(canvas, faces.boxes[i], result)
        encoded, kind = self._settle(canvas, picture, faces, results)
        rows = self._rows(row, faces, results)
        return {
            "image": _image(encoded, row["path"]),
            "format": kind,
            "verdict": "anonymized",
            "face_rows": rows,
            "published": _published(results),
        }

    def _replace(self, image_id: str, i: int, original: Image, canvas: Image, faces: Faces, result: Result, used: set[str]) -> None:
        """Swaps one face in the canvas, or leaves its result a redaction with the rule's name."""
        covered = self.swapper.covered(original, faces.need("meshes")[i])
        rule = self._rule(original, faces, i, covered)
        if rule is not None:
            result.redact(rule)
            return
        mesh = faces.need("meshes")[i]
        vectors = {name: v[i : i + 1] for name, v in faces.embeddings.items()}
        wanted = Wanted(
            man=float(faces.need("sexes")[i]),
            age=float(faces.need("ages")[i]),
            tone=float(faces.need("tones")[i]),
            beard=beard_of(self.swapper.model.surface, original, mesh),
        )
        identities = self.pool.candidates(wanted, {name: v[0] for name, v in vectors.items()}, keyed(self.key, image_id, i), used)
        best, result.attempts, reason = self._choose(canvas, mesh, identities, wanted, covered, vectors)
        if best is None:
            result.redact(reason)
            return
        result.checked, result.identity, result.patch = best.checked, best.identity, best.patch
        best.patch.paste(canvas)
        used.add(best.identity.identity_id)
        result.verdict = "replaced"

    def _rule(self, original: Image, faces: Faces, i: int, covered: Covered) -> str | None:
        """Why a face cannot be swapped well; None if it can."""
        if faces.sizes[i] < self.swap.min_face:
            return "too_small"
        if faces.need("mesh_scores")[i] < LEAST_MESH_SCORE:
            return "no_mesh"
        if faces.need("ages")[i] < YOUNGEST:
            return "infant"
        yaw, pitch, _ = np.abs(faces.need("poses")[i])
        if yaw > LARGEST_YAW:
            return "profile"
        if pitch > LARGEST_PITCH:
            return "steep_pitch"
        apart = np.linalg.norm(five_points(faces.need("meshes")[i]) - faces.points[i], axis=1).mean() / faces.sizes[i]
        if apart > LARGEST_DISAGREEMENT:
            return "unsure_mesh"
        mesh = faces.need("meshes")[i]
        hidden = mouth_covered(self.swapper.model.surface, original, mesh) or covered.mouth > LIPS_COVERED
        return "mouth_covered" if hidden else None

    def _cover(self, canvas: Image, box: F32, result: Result) -> None:
        result.area = cover_of(box, canvas.shape)
        redact(canvas, result.area)

    def _settle(self, canvas: Image, picture: Decoded, faces: Faces, results: list[Result]) -> tuple[bytes, str]:
        """Encodes, looks at the encoded picture, redacts what does not hold in it, until everything holds.

        Raises:
            Withhold: it does not come to rest.
        """
        for _ in range(_ROUNDS):
            encoded, kind = encode(canvas, picture, quality=self.output.jpeg_quality)
            published = decode(encoded, self.max_pixels).pixels
            if published.shape != canvas.shape:
                raise Withhold("encoder_changed_size")
            worn = [i for i, result in enumerate(results) if result.verdict == "replaced"]
            failed = []
            if worn:
                points = np.stack([_checked(results[i]).points for i in worn])
                checks = self.check(published, points, {name: v[worn] for name, v in faces.embeddings.items()})
                for i, checked in zip(worn, checks, strict=True):
                    results[i].checked = checked
                    if not checked.verdict.passed:
                        failed.append(i)
                    else:
                        results[i].after = self._after(published, _patch(results[i]).mesh, checked)
            for i in failed:
                results[i].redact(_checked(results[i]).verdict.reason or "unusable_embedding")
                self._cover(canvas, faces.boxes[i], results[i])
            if not failed:
                return encoded, kind
        raise Withhold("checks_do_not_settle")

    def _after(self, published: Image, moved: F32, checked: Checked) -> dict[str, Any]:
        box = np.concatenate([moved[:, :2].min(0), moved[:, :2].max(0)])[None].astype(np.float32)
        mesh, _ = self.check.pack.mesh.fit(published, box, checked.points[None])
        found = self.check.pack.estimate(published, mesh)
        return _attributes("after", found, mesh)

    def _rows(self, row: Mapping[str, Any], faces: Faces, results: list[Result]) -> list[dict[str, Any]]:
        size = np.array([row["width"], row["height"]] * 2, np.float32)
        seen = Attributes(faces.need("ages"), faces.need("sexes"), faces.need("tones"))
        before = [_attributes("before", seen, faces.need("meshes"), i) for i in range(len(faces))]
        rows = []
        for i, result in enumerate(results):
            certificates = result.checked.verdict.certificates if result.checked else ()
            first = certificates[0] if certificates else None
            rows.append(
                {
                    "image_id": row["image_id"],
                    "path": row["path"],
                    "face_no": i,
                    "box": faces.boxes[i].tolist(),
                    "face_bboxes": np.clip(faces.boxes[i] / size, 0, 1).tolist(),
                    "verdict": result.verdict,
                    "reason": result.reason,
                    "access_reason": result.access_reason,
                    "identity_id": result.identity.identity_id if result.identity else None,
                    "attempts": result.attempts,
                    "similarity_to_original": result.checked.verdict.similarity_to_original[first.recognizer]
                    if first and result.checked
                    else None,
                    "max_similarity_to_known": first.max_similarity if first else None,
                    "threshold": first.threshold if first else None,
                    "certificates": [certificate.row() for certificate in certificates],
                    "points": result.checked.points.reshape(-1).tolist() if result.checked else None,
                    "redacted_area": list(result.area) if result.area else None,
                    **before[i],
                    **result.after,
                }
            )
        return rows


def split(table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """What the stage returned as the two published tables: `tables.IMAGES` and `tables.FACES`."""
    nested = table["face_rows"].combine_chunks().flatten()
    faces = pa.Table.from_arrays([nested.field(name) for name in FACES.names], schema=FACES)
    return table.select(IMAGES.names).cast(IMAGES), faces


def published_of(table: pa.Table, recognizers: Mapping[str, int]) -> pa.Table:
    """The embeddings of the replaced faces in what the stage returned, as `tables.published_schema`; not to be published."""
    nested = table["published"].combine_chunks()
    rows, faces = pc.list_parent_indices(nested), nested.flatten()
    schema = published_schema(recognizers)
    of_image = [table[name].combine_chunks().take(rows) for name in ("image_id", "path")]
    return pa.Table.from_arrays([*of_image, *(faces.field(name) for name in schema.names[2:])], schema=schema)


def summary(images: pa.Table, faces: pa.Table) -> dict[str, Any]:
    """Counts of a part: images and faces by verdict, redactions and failures by reason, attempts, uses of identities."""
    redacted = [
        reason for reason, verdict in zip(faces["reason"].to_pylist(), faces["verdict"].to_pylist(), strict=True) if verdict == "redacted"
    ]
    return {
        "images": images.num_rows,
        "faces": faces.num_rows,
        "image_verdicts": dict(Counter(images["verdict"].to_pylist())),
        "face_verdicts": dict(Counter(faces["verdict"].to_pylist())),
        "redacted": dict(Counter(redacted)),
        "failed": dict(Counter(reason.split(":")[0] for reason in images["reason"].to_pylist() if reason)),
        "attempts": sum(faces["attempts"].to_pylist()),
        "uses": dict(Counter(name for name in faces["identity_id"].to_pylist() if name)),
    }


def _image(data: bytes, path: str) -> dict[str, Any]:
    return {"bytes": data, "path": path}


def _attributes(when: str, seen: Attributes, meshes: F32, i: int = 0) -> dict[str, Any]:
    """The published columns of the i-th face."""
    mesh = meshes[i : i + 1]
    values = dict(zip(("yaw", "pitch", "roll"), map(float, pose(mesh)[0]), strict=True)) | {
        "sex": "man" if seen.sexes[i] >= 0.5 else "woman",
        "age": float(seen.ages[i]),
        "tone": float(seen.tones[i]),
        "eye_opening": float(eye_opening(mesh).mean()),
        "mouth_opening": float(mouth_opening(mesh)[0]),
        "smile": float(smile(mesh)[0]),
    }
    return {f"{name}_{when}": value for name, value in values.items()}


def _published(results: list[Result]) -> list[dict[str, Any]]:
    """Rows of `tables.published_schema`."""
    return [
        {
            "face_no": i,
            "identity_id": result.identity.identity_id,
            **{embedding_column(name): vector for name, vector in result.checked.embeddings.items()},
        }
        for i, result in enumerate(results)
        if result.identity and result.checked
    ]


def _checked(result: Result) -> Checked:
    assert result.checked is not None
    return result.checked


def _patch(result: Result) -> Patch:
    assert result.patch is not None
    return result.patch
