"""The check of a face on the output: found again, embedded again, certified."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from mfmc_ray.faces.detect import View, YuNet, overlap
from mfmc_ray.faces.faces import F32, Image, Pixels
from mfmc_ray.faces.mesh import five_points
from mfmc_ray.faces.pack import Pack
from mfmc_ray.known.certificate import Guard, Verdict


@dataclass(frozen=True)
class Checked:
    """A face on the output.

    Attributes:
        points: float32 (5, 2), px of the picture: what the embeddings are aligned by.
        embeddings: recognizer → float32 (d,).
        verdict: of the guard.
        likeness: to the original: the highest of (cosine − the usual cosine of strangers) / (threshold − that) over the guard recognizers;
            0 is a stranger, 1 fails.
        room: how far it stays below every threshold, to any known face or the original, on the same scale; 0 fails.
    """

    points: F32
    embeddings: Mapping[str, F32]
    verdict: Verdict
    likeness: float
    room: float


class OutputCheck:
    """Looks at a face in a changed picture with the guard's eyes."""

    def __init__(self, pack: Pack, guard: Guard) -> None:
        self.pack = pack
        self.guard = guard
        self._usual = {name: guard.calibration.threshold_for(name, 0.5) for name in guard.recognizers}
        self.closeup = YuNet(min_score=0.3)
        self.closeup.views = (View(160, border=32, enlarge=8),)

    def points(self, image: Image, mesh: F32) -> F32:
        """Five points (5, 2) of the face that a detector sees where the mesh (468, 3) is; from the mesh itself if it sees none."""
        low, high = mesh[:, :2].min(0), mesh[:, :2].max(0)
        pad = 0.5 * float((high - low).max())
        x0, y0 = (max(0, int(v)) for v in low - pad)
        x1, y1 = (max(int(v) + 1, start + 1) for v, start in zip(high + pad, (x0, y0), strict=True))
        found = self.closeup.detect(np.ascontiguousarray(image[y0:y1, x0:x1]))
        if len(found):
            origin = np.array([x0, y0], np.float32)
            box = np.concatenate([low - origin, high - origin])[None].astype(np.float32)
            iou, _ = overlap(found.boxes, box)
            best = int(np.argmax(iou[:, 0]))
            if iou[best, 0] > 0.3:
                return np.asarray(found.points[best] + origin, np.float32)
        return five_points(mesh)

    def glance(self, image: Image, points: F32, originals: Mapping[str, F32]) -> tuple[dict[str, F32], float]:
        """A look at one face (points (1, 5, 2) px) by the first recognizer alone: its embedding, and its share in `Checked.likeness`."""
        name = self.guard.recognizers[0]
        vectors = self.pack.embedders[name].embed(image, points)
        return {name: vectors}, self._scaled(name, float(vectors[0] @ originals[name][0]), self.guard.threshold(name))

    def crops(self, image: Pixels, points: F32, but: Collection[str] = ()) -> dict[str, Image]:
        """recognizer → uint8 (n, side, side, 3): what each, but for some, sees of n faces of a picture (points (n, 5, 2) px)."""
        return {name: embedder.crops(image, points) for name, embedder in self.pack.embedders.items() if name not in but}

    def certify(
        self, points: F32, crops: Mapping[str, Image], originals: Mapping[str, F32], seen: Mapping[str, F32] | None = None
    ) -> list[Checked]:
        """Embeds and certifies n faces, of one picture or of many, with one search per recognizer.

        Args:
            points: float32 (n, 5, 2), px of each face's picture.
            crops: recognizer → uint8 (n, side, side, 3), as `crops` gives them.
            originals: recognizer → float32 (n, d), the faces they replace.
            seen: embeddings of these faces that a `glance` has found already; `crops` then need not have that recognizer.
        """
        seen = seen or {}
        embeddings = {name: seen[name] if name in seen else one.embed_crops(crops[name]) for name, one in self.pack.embedders.items()}
        verdicts = self.guard.certify(embeddings, originals)
        return [
            Checked(points[i], {name: v[i] for name, v in embeddings.items()}, verdict, *self._margins(verdict))
            for i, verdict in enumerate(verdicts)
        ]

    def _margins(self, verdict: Verdict) -> tuple[float, float]:
        """`Checked.likeness` and `Checked.room`."""
        known = {c.recognizer: self._scaled(c.recognizer, c.max_similarity, c.threshold) for c in verdict.certificates}
        original = {
            c.recognizer: self._scaled(c.recognizer, verdict.similarity_to_original[c.recognizer], c.threshold)
            for c in verdict.certificates
            if c.recognizer in verdict.similarity_to_original
        }
        every = [*known.values(), *original.values()]
        return max(original.values(), default=0.0), 1 - max(every) if np.isfinite(every).all() else -np.inf

    def _scaled(self, recognizer: str, cosine: float, threshold: float) -> float:
        usual = self._usual[recognizer]
        return (cosine - usual) / max(threshold - usual, 1e-3)
