"""Settling: the faces of several pictures are looked at as they will be published. What does not hold gets another identity, once, and is
redacted then, until all holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mfmc_ray.codec import Decoded
from mfmc_ray.credentials import Credential
from mfmc_ray.faces.attributes import Attributes
from mfmc_ray.faces.faces import F32, Faces, Image
from mfmc_ray.faces.mesh import eye_opening, mouth_opening, pose, smile
from mfmc_ray.identities.sample import Identity
from mfmc_ray.label import ALTERED, SYNTHETIC, label
from mfmc_ray.pipeline.check import Checked, OutputCheck
from mfmc_ray.pipeline.watch import Watch
from mfmc_ray.published import Published
from mfmc_ray.swap.redact import Cover, Fronts, cover_of

ROUNDS = 5


class Withhold(Exception):  # noqa: N818 (not an error: a decision)
    """The image is kept back; the reason is the argument."""


@dataclass
class Result:
    """What has become of one face so far: `reason`, `identity` and the like as in `tables.FACES`.

    Attributes:
        moved: float32 (468, 3) px, where its mesh was moved to.
        checked: of a replaced face, on the picture as it is or, once settled, as it is published.
        cover: what it is covered with.
        after: the columns about its look as published.
    """

    verdict: str = "redacted"
    reason: str | None = None
    access_reason: str | None = None
    identity: Identity | None = None
    attempts: int = 0
    moved: F32 | None = None
    checked: Checked | None = None
    cover: Cover | None = None
    after: dict[str, Any] = field(default_factory=dict)

    def redact(self, reason: str) -> None:
        """Makes it a redaction by this rule."""
        self.verdict, self.reason, self.identity, self.moved, self.checked, self.after = "redacted", reason, None, None, None, {}


@dataclass
class Draft:
    """A picture whose faces have been dealt with but not yet seen as they will be published.

    Attributes:
        row: of the scan, without its faces.
        picture: how it is to be written; its pixels are changed in place.
        faces: as the scan found them.
        results: one for each face.
        fronts: where the replaced ones show.
        file: once settled, the bytes to be published and their format.
        error: why it cannot be published; nothing of it may get out.
        anew: makes it once more, some faces (by number) without the identity (by id) that they had; None: it is not to be, or was already.
    """

    row: Mapping[str, Any]
    picture: Decoded
    faces: Faces
    results: list[Result]
    fronts: Fronts = field(default_factory=Fronts)
    file: tuple[bytes, str] | None = None
    error: Exception | None = None
    anew: Callable[[Mapping[int, str]], Draft] | None = None

    @property
    def worn(self) -> list[int]:
        """The faces that are replaced."""
        return [i for i, result in enumerate(self.results) if result.verdict == "replaced"]

    def start_over(self, failed: Sequence[int]) -> bool:
        """Makes it once more, because some faces failed: encoding has used up what room they had, and another identity's may do.

        Returns:
            whether that was done; nothing is, if it was before.
        """
        if self.anew is None:
            return False
        had = {i: self.results[i].identity for i in failed}
        other = self.anew({i: identity.identity_id for i, identity in had.items() if identity is not None})
        for result, before in zip(other.results, self.results, strict=True):
            result.attempts += before.attempts
        self.picture, self.results, self.fronts, self.anew = other.picture, other.results, other.fronts, None
        return True

    def cover(self) -> None:
        """Covers the faces that are redacted; those that were covered already may have given way to a face that is none any more."""
        canvas = self.picture.pixels
        for box, result in zip(self.faces.boxes, self.results, strict=True):
            if result.verdict == "redacted":
                result.cover = result.cover or Cover.of(canvas, cover_of(box, canvas.shape))
                result.cover.paste(canvas, self.fronts.within(result.cover.area))


@dataclass(frozen=True)
class _Look:
    """The replaced faces of a draft as they will be published: points (n, 5, 2) px and what each recognizer sees, uint8 (n, s, s, 3)."""

    draft: Draft
    published: Published
    worn: list[int]
    points: F32
    crops: Mapping[str, Image]


class Settler:
    """Looks at what will be published, all pictures of a group together: each recognizer embeds all faces, and one search certifies them.

    Args:
        check: holds the recognizers and the guard.
        quality: of lossy files whose source has no tables to repeat, 1–100.
        credential: signs what is published, if it is to be signed.
        watch: notes which picture it is at.
    """

    def __init__(self, check: OutputCheck, quality: int, credential: Credential | None = None, watch: Watch | None = None) -> None:
        self.check, self.quality, self.credential, self.watch = check, quality, credential, watch or Watch()

    def __call__(self, drafts: Sequence[Draft]) -> None:
        """Sets the `file` or else the `error` of each; the results' `checked` and `after` are then about the published pixels."""
        open_ones = list(drafts)
        for _ in range(ROUNDS):
            if not open_ones:
                return
            open_ones = self._round(open_ones)
        for draft in open_ones:
            draft.error = Withhold("checks_do_not_settle")

    def _round(self, drafts: Sequence[Draft]) -> list[Draft]:
        """Writes the drafts that hold; makes the others anew, or redacts in them what does not hold, and returns those."""
        looks = []
        for draft in drafts:
            with self._alone(draft):
                looks.append(self._look(draft))
        self._certify([look for look in looks if look.worn])
        again = []
        for look in looks:
            draft = look.draft
            if draft.error is not None:
                continue
            with self._alone(draft):
                failed = [i for i in look.worn if not _checked(draft.results[i]).verdict.passed]
                if not failed:
                    self._write(look)
                    continue
                if not draft.start_over(failed):
                    for i in failed:
                        draft.results[i].redact(_checked(draft.results[i]).verdict.reason or "unusable_embedding")
                        draft.fronts.drop(i)
                    draft.cover()
                again.append(draft)
        return again

    @contextmanager
    def _alone(self, draft: Draft) -> Iterator[None]:
        """Whatever goes wrong with a draft is kept as its `error` and stops no other."""
        allowed = self.watch.allowed(draft.picture.pixels.size // 3, len(draft.faces))
        try:
            with self.watch.at(draft.row["image_id"], allowed, path=draft.row["path"], unit=draft.row["unit"]):
                yield
        except Exception as error:
            draft.error = error

    def _look(self, draft: Draft) -> _Look:
        published = Published(draft.picture, self.quality, label(_source_type(draft)))
        points = np.array([_checked(draft.results[i]).points for i in draft.worn], np.float32).reshape(-1, 5, 2)
        return _Look(draft, published, draft.worn, points, self.check.crops(published, points))

    def _certify(self, looks: Sequence[_Look]) -> None:
        """Certifies all faces of these together. Should that be impossible, each draft alone, so that only the one at fault is withheld."""
        if not looks:
            return
        try:
            names = self.check.pack.embedders
            checks = self.check.certify(
                np.concatenate([look.points for look in looks]),
                {name: np.concatenate([look.crops[name] for look in looks]) for name in names},
                {name: np.concatenate([look.draft.faces.embeddings[name][look.worn] for look in looks]) for name in names},
            )
            results = [look.draft.results[i] for look in looks for i in look.worn]
            for result, checked in zip(results, checks, strict=True):
                result.checked = checked
        except Exception as error:
            if len(looks) == 1:
                looks[0].draft.error = error
                return
            for look in looks:
                self._certify([look])

    def _write(self, look: _Look) -> None:
        for i in look.worn:
            result = look.draft.results[i]
            result.after = self._after(look.published, result.moved, _checked(result))
        file, kind = look.published.file()
        if self.credential is not None:  # which adds to the file, and has made sure that it does nothing else
            file = self.credential.signed(file, kind, _source_type(look.draft))
        look.draft.file = file, kind

    def _after(self, published: Published, moved: F32 | None, checked: Checked) -> dict[str, Any]:
        assert moved is not None
        box = np.concatenate([moved[:, :2].min(0), moved[:, :2].max(0)])[None].astype(np.float32)
        mesh, _ = self.check.pack.mesh.fit(published, box, checked.points[None])
        found = self.check.pack.estimate(published, mesh)
        return attributes("after", found, mesh)


def attributes(when: str, seen: Attributes, meshes: F32, i: int = 0) -> dict[str, Any]:
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


def _source_type(draft: Draft) -> str:
    """The digital source type of a picture in which faces are replaced, or none but covered."""
    return SYNTHETIC if draft.worn else ALTERED


def _checked(result: Result) -> Checked:
    assert result.checked is not None
    return result.checked
