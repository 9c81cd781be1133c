"""The anonymize stage: per image decide, assign, swap, check on the output, redact what does not hold, encode."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mfmc_ray.access.decide import AccessModel, Decision, decisions
from mfmc_ray.codec import WITHHELD, CodecError, Decoded, decode
from mfmc_ray.config import OutputConfig, SwapConfig
from mfmc_ray.credentials import Credential
from mfmc_ray.faces.attributes import Attributes
from mfmc_ray.faces.faces import Faces, Image
from mfmc_ray.identities.pool import Pool, keyed
from mfmc_ray.pipeline.check import OutputCheck
from mfmc_ray.pipeline.choice import Chooser, Sitter, misplaced
from mfmc_ray.pipeline.pseudonyms import Assigned, version_of
from mfmc_ray.pipeline.remote import Chooses
from mfmc_ray.pipeline.rows import faces_of
from mfmc_ray.pipeline.settle import Draft, Result, Settler, Withhold, attributes
from mfmc_ray.pipeline.unfit import unfit
from mfmc_ray.pipeline.watch import Watch
from mfmc_ray.pipeline.wearing import Wardrobe, Wearer
from mfmc_ray.retry import StoreError
from mfmc_ray.review.decisions import RULE, LostFaceError
from mfmc_ray.scrub import scrub
from mfmc_ray.sources import SourceError, SourceReader
from mfmc_ray.swap.keep import area_of, restore
from mfmc_ray.swap.protocol import Swapper
from mfmc_ray.swap.redact import Cover, Fronts, cover_of
from mfmc_ray.tables import FACES, IMAGES, anonymized_schema, embedding_column, published_schema, scan_schema

GROUP, GROUP_PIXELS = 16, 64_000_000
"""The most pictures and, unless one alone has more, pixels that are held at a time to be checked together: 3 bytes a pixel."""


class AnonymizeStage:
    """Turns rows of the scan table into publishable rows.

    Args:
        swap, output: settings.
        max_pixels: larger images are not decoded.
        check: looks at the output; holds the pack and the guard.
        pool: the fake identities that faces are given in each image; None if they are not (`SwapConfig.pseudonyms`).
        assigned: the fake identities that people wear in all images. Without this and a pool no face is replaced.
        swapper: puts them onto faces.
        access: decides which faces stay.
        key: of the run; who has it can repeat the random choices.
        storage_options: for fsspec, of remote units.
        watch: notes what it is at, and knows what not to touch.
        chooser, wearer: try identities on; None: with `swapper` and `check`, in this process.
    """

    def __init__(
        self,
        *,
        swap: SwapConfig,
        output: OutputConfig,
        max_pixels: int,
        check: OutputCheck,
        pool: Pool | None,
        swapper: Swapper,
        access: AccessModel,
        key: bytes,
        storage_options: Mapping[str, Any] | None = None,
        watch: Watch | None = None,
        assigned: Assigned | None = None,
        chooser: Chooses | None = None,
        wearer: Wearer | None = None,
    ) -> None:
        self.watch = watch or Watch()
        self.swap, self.output, self.max_pixels = swap, output, max_pixels
        self.check, self.pool, self.swapper, self.access, self.key = check, pool, swapper, access, key
        self.recognizers = check.pack.dimensions
        self.needs: pa.Schema = scan_schema(self.recognizers)
        self.adds: pa.Schema = anonymized_schema(self.recognizers)
        self._settler = Settler(check, output.jpeg_quality, Credential.of(output), self.watch)
        self._choose = chooser or Chooser(swapper, check, swap.attempts)
        self._wear = None if assigned is None else Wardrobe(wearer or Wearer(swapper, check), assigned, swap.attempts)
        self.version = version_of(access.version, assigned)
        """(image_id, path) → what stands for all that decides about its faces, besides settings."""
        self._reader = SourceReader(storage_options)
        self.input_stays = True
        """Whether the input must be there, or the run ends; a finished run's originals may be gone, and are withheld then."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Rows of `tables.scan_schema` → as many rows of `tables.anonymized_schema`, in order."""
        rows: list[dict[str, Any]] = []
        drafts: list[Draft] = []
        open_rows: list[dict[str, Any]] = []
        for i, row in enumerate(batch.drop_columns(["faces"]).to_pylist()):
            held = sum(draft.picture.pixels.size // 3 for draft in drafts) + (row["width"] or 0) * (row["height"] or 0)
            if len(drafts) == GROUP or held > GROUP_PIXELS:
                self._settle(drafts, open_rows)
            base = {name: row[name] for name in ("image_id", "path", "width", "height", "format")}
            base |= {"image": None, "faces": 0, "face_rows": [], "published": []}
            rows.append(base)
            try:
                draft = self._image(row, batch["faces"][i], base)
            except StoreError:  # nothing is known of the picture
                raise
            except Exception as error:  # one odd picture must not end the run, and nothing of it gets out
                base |= _kept_back(row, error)
                continue
            if draft is not None:
                drafts.append(draft)
                open_rows.append(base)
        self._settle(drafts, open_rows)
        return pa.Table.from_pylist(rows, schema=self.adds)

    def _settle(self, drafts: list[Draft], rows: list[dict[str, Any]]) -> None:
        """Completes the rows of these drafts; both lists are empty afterwards."""
        self._settler(drafts)
        for draft, row in zip(drafts, rows, strict=True):
            try:
                row |= self._finished(draft)
            except Exception as error:
                row |= _kept_back(draft.row, error)
        drafts.clear()
        rows.clear()

    def _image(self, row: Mapping[str, Any], faces_scalar: pa.ListScalar, done: dict[str, Any]) -> Draft | None:
        """Puts into `done` what is known of an image's row; if faces are replaced or redacted, the draft that completes it."""
        if row["reason"] is not None:
            raise Withhold(row["reason"])
        if reason := self.watch.reason(row["image_id"]):
            raise CodecError(reason, "in quarantine")
        with self.watch.at(row["image_id"], path=row["path"], unit=row["unit"]):  # in its own time: a store may be slow
            data = self._reader.read(row["unit"], row["locator"], path=row["path"] if self.input_stays else None, size=row["source_bytes"])
        if hashlib.sha256(data).hexdigest() != row["image_id"]:
            raise Withhold("changed_since_scan")
        if not faces_scalar.is_valid:  # nobody has looked for faces in it: it is not one without
            raise Withhold("not_scanned")
        faces = faces_of(faces_scalar, self.recognizers)
        done["faces"] = len(faces)
        with self.watch.at(
            row["image_id"], self.watch.allowed(row["width"] * row["height"], len(faces)), path=row["path"], unit=row["unit"]
        ):
            return self._made(row, data, faces, done)

    def _made(self, row: Mapping[str, Any], data: bytes, faces: Faces, done: dict[str, Any]) -> Draft | None:
        try:
            decided = decisions(self.access, row["image_id"], row["path"], faces)
        except LostFaceError as error:
            raise Withhold("reviewed_face_lost") from error
        results = _open(decided)
        if all(result.verdict == "kept" for result in results):
            image = _image(scrub(data, self.max_pixels), row["path"])
            done |= {"image": image, "verdict": "unchanged", "face_rows": self._rows(row, faces, results) if results else []}
            return None
        draft = self._draft(row, decode(data, self.max_pixels), faces, results, decided)
        if self._wear is None:  # who wears an identity in all pictures has no other

            def anew(but: Mapping[int, str]) -> Draft:
                again = [replace(d, rejected=d.rejected | {but[i]}) if i in but else d for i, d in enumerate(decided)]
                return self._draft(row, decode(data, self.max_pixels), faces, _open(again), again)

            draft.anew = anew
        return draft

    def _draft(self, row: Mapping[str, Any], picture: Decoded, faces: Faces, results: list[Result], decided: Sequence[Decision]) -> Draft:
        """Replaces and redacts the faces that are not kept."""
        canvas = picture.pixels.copy()
        used, fronts = set[str](), Fronts()
        # large faces first: a small one beside it is then drawn over its moved surroundings, not moved by them
        order = [int(i) for i in np.argsort(-faces.sizes, kind="stable") if results[i].verdict != "kept"]
        sitters = {i: self._seated(picture.pixels, faces, i, results[i], decided[i]) for i in order}
        covers = [Cover.of(canvas, cover_of(faces.boxes[i], canvas.shape)) for i in order if sitters[i] is None]
        for i in order:
            if (sitter := sitters[i]) is None:
                continue
            self._replace(row["image_id"], i, canvas, sitter.beside(covers), results[i], used, decided[i], fronts)
            if results[i].verdict == "redacted":
                covers.append(Cover.of(canvas, cover_of(faces.boxes[i], canvas.shape)))
        self._restore(picture.pixels, canvas, faces, results)
        draft = Draft(row, replace(picture, pixels=canvas), faces, results, fronts)
        draft.cover()
        return draft

    def _restore(self, original: Image, canvas: Image, faces: Faces, results: list[Result]) -> None:
        """Gives the kept faces their pixels back where a neighbour's swap has moved them. The check of the output comes afterwards."""
        kept = np.array([result.verdict == "kept" for result in results])
        if kept.any():
            others = [
                area_of(faces.boxes[i], [faces.need("meshes")[i], *([] if result.moved is None else [result.moved])], canvas.shape)
                for i, result in enumerate(results)
                if not kept[i]
            ]
            restore(canvas, original, faces.boxes[kept], others)

    def _finished(self, draft: Draft) -> dict[str, Any]:
        """What a settled draft adds to its row.

        Raises:
            Exception: whatever it is that holds it back.
        """
        if draft.error is not None or draft.file is None:
            raise draft.error or Withhold("not_settled")
        encoded, kind = draft.file
        return {
            "image": _image(encoded, draft.row["path"]),
            "format": kind,
            "verdict": "anonymized",
            "face_rows": self._rows(draft.row, draft.faces, draft.results),
            "published": _published(draft.results),
        }

    def _seated(self, original: Image, faces: Faces, i: int, result: Result, decided: Decision) -> Sitter | None:
        """A face as it is to be replaced; None, and its result a redaction with the rule's name, if it is not to be."""
        if decided.redact:
            result.redact(RULE)
            return None
        if self.pool is None and self._wear is None:
            result.redact("pseudonyms_none")
            return None
        covered = self.swapper.covered(original, faces.need("meshes")[i])
        rule = unfit(self.swap.min_face, faces, i, covered)
        if rule is not None:
            result.redact(rule)
            return None
        return Sitter.of(faces, i, covered)

    def _replace(
        self,
        image_id: str,
        i: int,
        canvas: Image,
        sitter: Sitter,
        result: Result,
        used: set[str],
        decided: Decision,
        fronts: Fronts,
    ) -> None:
        """Swaps one face in the canvas, or leaves its result a redaction with the rule's name."""
        best, reason = None, "no_identity"
        if self._wear is not None:
            best, result.attempts, reason = self._wear((image_id, i), canvas, sitter, used | decided.rejected)
        elif self.pool is not None:
            again = (RULE, decided.rounds) if decided.rounds else ()  # other random choices than those that were rejected
            chance = keyed(self.key, image_id, i, *again)
            identities = self.pool.candidates(
                sitter.wanted, {name: v[0] for name, v in sitter.originals.items()}, chance, used | decided.rejected
            )
            best, result.attempts, reason = self._choose(canvas, sitter, identities)
        if best is not None and misplaced(best.patch, sitter.mesh, canvas.shape):  # it may come from a service
            best, reason = None, "swap_failed"
        if best is None:
            result.redact(reason)
            return
        result.checked, result.identity, result.moved = best.checked, best.identity, best.patch.mesh
        fronts.add(i, canvas, best.patch)
        best.patch.paste(canvas)
        used.add(best.identity.identity_id)
        result.verdict = "replaced"

    def _rows(self, row: Mapping[str, Any], faces: Faces, results: list[Result]) -> list[dict[str, Any]]:
        size = np.array([row["width"], row["height"]] * 2, np.float32)
        seen = Attributes(faces.need("ages"), faces.need("sexes"), faces.need("tones"))
        before = [attributes("before", seen, faces.need("meshes"), i) for i in range(len(faces))]
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
                    "redacted_area": list(result.cover.area) if result.cover else None,
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

    def reasons(table: pa.Table, *verdicts: str) -> list[str]:
        pairs = zip(table["reason"].to_pylist(), table["verdict"].to_pylist(), strict=True)
        return [reason or "" for reason, verdict in pairs if verdict in verdicts]

    return {
        "images": images.num_rows,
        "faces": faces.num_rows,
        "image_verdicts": dict(Counter(images["verdict"].to_pylist())),
        "face_verdicts": dict(Counter(faces["verdict"].to_pylist())),
        "redacted": dict(Counter(reasons(faces, "redacted"))),
        "failed": dict(Counter(reason.split(":")[0] for reason in reasons(images, "failed", "withheld"))),
        "attempts": sum(faces["attempts"].to_pylist()),
        "uses": dict(Counter(name for name in faces["identity_id"].to_pylist() if name)),
    }


def _open(decided: Sequence[Decision]) -> list[Result]:
    """What has become of the faces before any is dealt with."""
    return [Result("kept", access_reason=d.reason) if d.keep and not d.redact else Result() for d in decided]


def _kept_back(row: Mapping[str, Any], error: Exception) -> dict[str, Any]:
    """What the row of an image becomes that is not published."""
    nothing: dict[str, Any] = {"image": None, "face_rows": [], "published": []}
    if not isinstance(error, (Withhold, CodecError, SourceError)):
        return nothing | {"verdict": "withheld", "reason": f"internal_error: {type(error).__name__}"}
    reason = error.reason if isinstance(error, CodecError) else str(error)
    held = isinstance(error, Withhold) and row["reason"] is None
    return nothing | {"verdict": "withheld" if held or reason.split(":")[0] in WITHHELD else "failed", "reason": reason}


def _image(data: bytes, path: str) -> dict[str, Any]:
    return {"bytes": data, "path": path}


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
