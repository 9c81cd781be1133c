"""How `swap_quality.py` looks at faces before and after: recognizers that took no part in the swap, the mesh, two detectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mfmc_ray.evaluate import looks
from mfmc_ray.evaluate.recognizers import HseEmbedder, available
from mfmc_ray.evaluate.sheets import face_crop
from mfmc_ray.faces import mesh
from mfmc_ray.faces.attributes import tone_band
from mfmc_ray.faces.detect import CenterFace, YuNet, overlap
from mfmc_ray.faces.faces import F32, Faces, Image
from mfmc_ray.faces.pack import ModelPack
from mfmc_ray.faces.protocols import Detector

Record = dict[str, Any]
TILE = 150  # px
MEASURED = 32  # px: smaller faces have too few pixels for the judges
SAME_PLACE = 0.3  # IoU
RACES = ("White", "Black", "Asian", "Indian", "other")
AGE_BANDS = ((0, 13), (13, 18), (18, 30), (30, 45), (45, 60), (60, 120))
EXPRESSIONS: dict[str, Callable[[F32], F32]] = {name.replace("_", " "): measure for name, measure in looks.EXPRESSIONS.items()}

FALSE_ACCEPTS = 1e-3
"""Share of strangers' pairs above the verification threshold."""


JUDGES = ("faceres", "faceres_deep")
"""Recognizers of `mfmc evaluate` that took no part, and that also tell age and sex."""


def load_judges(names: Sequence[str] = JUDGES) -> list[HseEmbedder]:
    """Those of the judges that can be had."""
    return [HseEmbedder(name) for name in available(progress=False).names if name in names]


class Observer:
    """Describes faces before and after the swap, each where YuNet sees it, so that both are framed alike.

    Args:
        pack: its mesh fitter and recognizers, the guards, are used.
        judges: held-out recognizers; the first that tells age and sex is asked for them.
    """

    def __init__(self, pack: ModelPack, judges: Sequence[HseEmbedder]) -> None:
        self.pack, self.judges = pack, judges
        self.detectors: dict[str, Detector] = {"yunet": YuNet(min_score=0.5), "centerface": CenterFace(min_score=0.5)}

    def look(self, image: Image, points: F32) -> Record:
        """`embeddings` by recognizer; `age` and `man` if a judge tells."""
        seen = {judge.name: judge.look(judge.crops(image, points[None])) for judge in self.judges}
        first = next(iter(seen.values()), None)
        told: Record = {} if first is None else {"age": float(first[1][0]), "man": float(first[2][0])}
        guards = {name: vectors[0] for name, vectors in self.pack.embed(image, points[None]).items()}
        return told | {"embeddings": {name: vectors[0] for name, (vectors, _, _) in seen.items()} | guards}

    def main(self, image: Image) -> Record | None:
        """The look at the face in the photo's middle; None if no face is seen."""
        faces = self.detectors["yunet"].detect(image)
        if len(faces) == 0:
            return None
        i = _middle(faces.boxes, image)
        return self.look(image, faces.points[i])

    def compare(self, old: Image, new: Image, faces: Faces, records: list[Record]) -> None:
        """Adds to the records of an image's faces what is seen of the replaced ones in both pictures, pairs of before and after.

        `looks`, `pose`, the `EXPRESSIONS` and `detected` by detector; `tiles`, TILE px; `main` for the face in the middle.
        """
        replaced = [i for i, record in enumerate(records) if record["verdict"] == "replaced" and record["size"] >= MEASURED]
        found = [{name: detector.detect(image) for name, detector in self.detectors.items()} for image in (old, new)] if replaced else []
        for i in replaced:
            record, box = records[i], faces.boxes[i]
            known = faces.points[i], np.array(record["points"], np.float32).reshape(5, 2)
            places = [_place(seen["yunet"], box) or (box, points) for seen, points in zip(found, known, strict=True)]
            looked = list(zip((old, new), places, strict=True))
            meshes = [self.pack.mesh.fit(image, where[None], points[None])[0] for image, (where, points) in looked]
            record["main"] = i == _middle(faces.boxes, old)
            record["detected"] = [{name: _place(one, box) is not None for name, one in seen.items()} for seen in found]
            record["looks"] = [self.look(image, points) for image, (_, points) in looked]
            record["pose"] = [mesh.pose(fitted)[0] for fitted in meshes]
            record |= {name: [float(np.mean(measure(fitted))) for fitted in meshes] for name, measure in EXPRESSIONS.items()}
            record["tiles"] = [face_crop(image, box, margin=0.25, side=TILE) for image in (old, new)]


def _middle(boxes: F32, image: Image) -> int:
    return int(np.argmin(np.linalg.norm((boxes[:, :2] + boxes[:, 2:] - [image.shape[1], image.shape[0]]) / 2, axis=1)))


def _place(faces: Faces, box: F32) -> tuple[F32, F32] | None:
    """Box and points of the detection that is where the box is."""
    if len(faces) == 0:
        return None
    iou = overlap(faces.boxes, box[None])[0][:, 0]
    best = int(np.argmax(iou))
    return (faces.boxes[best], faces.points[best]) if iou[best] > SAME_PLACE else None


def recognition(gallery: F32, people: Sequence[str], before: F32, after: F32, who: Sequence[str]) -> dict[str, float | int]:
    """What one recognizer makes of swapped faces.

    Args:
        gallery: float32 (p, d), an original photo of each of the people.
        people: their p names.
        before, after: float32 (n, d), other photos of people in the gallery, as they were and swapped.
        who: the n names.
    """
    right = np.array([list(people).index(name) for name in who])
    rows = np.arange(len(right))
    old, new = before @ gallery.T, after @ gallery.T
    strangers = np.ones(old.shape, bool)
    strangers[rows, right] = False
    pairs = np.concatenate([old[strangers], (gallery @ gallery.T)[np.triu_indices(len(gallery), 1)]])
    threshold = float(np.quantile(pairs, 1 - FALSE_ACCEPTS))
    return {
        "probes": len(right),
        "gallery": len(gallery),
        "rank-1 share, originals": float((old.argmax(1) == right).mean()),
        "rank-1 share, swapped": float((new.argmax(1) == right).mean()),
        "rank-5 share, swapped": float(((new > new[rows, right][:, None]).sum(1) < 5).mean()),
        "chance share, rank-1": 1 / len(gallery),
        "strangers' pairs": len(pairs),
        "cosine at FAR 1e-3": threshold,
        "verified share, original with gallery": float((old[rows, right] > threshold).mean()),
        "verified share, swapped with gallery": float((new[rows, right] > threshold).mean()),
        "verified share, swapped with its original": float(((before * after).sum(1) > threshold).mean()),
        "cosine, strangers": float(pairs.mean()),
        "cosine, original with gallery": float(old[rows, right].mean()),
        "cosine, swapped with gallery": float(new[rows, right].mean()),
        "cosine, swapped with its original": float((before * after).sum(1).mean()),
    }


def recognised(records: list[Record], gallery: Mapping[str, Record]) -> dict[str, Record]:
    """`recognition` by each recognizer: of the faces in the middle of photos, the gallery being looks at another photo of each person."""
    probes = [r for r in records if r.get("main") and person(r["path"]) in gallery]
    names = probes[0]["looks"][0]["embeddings"] if probes else []
    found = {}
    for name in names:
        before, after = (np.stack([r["looks"][k]["embeddings"][name] for r in probes]) for k in (0, 1))
        enrolled = np.stack([one["embeddings"][name] for one in gallery.values()])
        found[name] = recognition(enrolled, list(gallery), before, after, [person(r["path"]) for r in probes])
    return found


def kept(records: list[Record], limits: Mapping[str, float], others: Sequence[tuple[Record, Record]] = ()) -> Record:
    """What of the faces is kept, over replaced faces ≥ 32 px.

    Args:
        limits: recognizer → cosine at `FALSE_ACCEPTS`, as found on the people.
        others: looks at two original photos of a person each: how much a judge's age and sex vary by themselves.
    """
    worn = [r for r in records if "looks" in r]
    found: Record = {"faces measured": len(worn)}
    if not worn:
        return found
    if "age" in worn[0]["looks"][0]:
        for title, looks in (("judge", [r["looks"] for r in worn]), ("judge, two original photos", others)):
            if looks:
                ages, men = (np.array([[look[name] for look in pair] for pair in looks]) for name in ("age", "man"))
                found[f"sex kept share, {title}"] = share((men[:, 0] > 0.5) == (men[:, 1] > 0.5))
                found[f"age MAE, {title}"] = float(np.abs(ages[:, 1] - ages[:, 0]).mean())
                found[f"age bias, {title}"] = float((ages[:, 1] - ages[:, 0]).mean())
    found["sex kept share, own"] = share(r["sex_before"] == r["sex_after"] for r in worn)
    change = np.array([r["age_after"] - r["age_before"] for r in worn])
    found |= {"age MAE, own": float(np.abs(change).mean()), "age bias, own": float(change.mean())}
    bands = np.array([[tone_band(r["tone_before"]), tone_band(r["tone_after"])] for r in worn])
    found["tone band kept share"] = share(bands[:, 0] == bands[:, 1])
    found["tone within one band share"] = share(np.abs(bands[:, 0] - bands[:, 1]) <= 1)
    turn = np.abs(mesh.turned(*(np.array([r["pose"][k] for r in worn]) for k in (0, 1))))
    for k, angle in enumerate(("yaw", "pitch", "roll")):
        found |= {f"{angle} error °, mean": float(turn[:, k].mean()), f"{angle} error °, p90": float(np.quantile(turn[:, k], 0.9))}
    for name in EXPRESSIONS:
        values = np.array([r[name] for r in worn])
        if len(worn) > 2:
            found[f"{name}, correlation"] = float(np.corrcoef(values.T)[0, 1])
        found[f"{name}, error mean"] = float(np.abs(values[:, 1] - values[:, 0]).mean())
    for detector in ("yunet", "centerface"):
        for k, when in enumerate(("before", "after")):
            found[f"detected share by {detector}, {when}"] = share(r["detected"][k][detector] for r in worn)
    for name in worn[0]["looks"][0]["embeddings"]:
        old, new = (np.stack([r["looks"][k]["embeddings"][name] for r in worn]) for k in (0, 1))
        cosines = (old * new).sum(1)
        found[f"cosine to original, {name}, mean"] = float(cosines.mean())
        if name in limits:
            found[f"verified share with original, {name}"] = share(cosines > limits[name])
    return found


def by_group(records: list[Record]) -> dict[str, Record]:
    """UTKFace's labels: age_sex_race."""
    main = [r for r in records if r["size"] >= MEASURED]
    labels = np.array([[int(part) for part in r["path"].split("_")[:3]] for r in main]).reshape(-1, 3)
    masks = {f"age {a}–{b - 1}": (labels[:, 0] >= a) & (labels[:, 0] < b) for a, b in AGE_BANDS}
    masks |= {name: labels[:, 1] == k for k, name in enumerate(("men", "women"))}
    masks |= {name: labels[:, 2] == k for k, name in enumerate(RACES)}
    found: dict[str, Record] = {}
    for name, mask in masks.items():
        group = [main[i] for i in np.flatnonzero(mask)]
        if not group:
            continue
        summary = {"faces": len(group), "replaced share": share(r["verdict"] == "replaced" for r in group)}
        found[name] = summary | {key: value for key, value in kept(group, {}).items() if key.startswith(("age", "sex", "tone band"))}
    return found


def person(path: str) -> str:
    """The folder of a photo is the person's name."""
    return path.rpartition("/")[0]


def share(flags: Iterable[Any]) -> float:
    return mean(list(flags))


def mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
