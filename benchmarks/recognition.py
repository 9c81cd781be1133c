"""Measures who is recognised, on labelled photos: what `people/match.py` and `people/quality.py` say of their thresholds.

    python benchmarks/recognition.py PEOPLE [--splits 10] [--not-labelled FILE] [--verbose]

PEOPLE has a folder of photos for each person, the person in the middle. First the photos by themselves: which would be refused. Then, for
one, two and three enrolled photos, random halves of the people are enrolled, as `mfmc people enroll` does it, and all other photos are
looked at: a person is *missed* in a photo of theirs where their face is not recognised as them; a face that is taken for somebody else is
*wrong*. Last, how much evidence strangers reach, by an exponential tail fitted to the most similar 0.02, 0.05, 0.1 and 0.2 %.

NOT-LABELLED is a CSV file with the columns `photo` and `person`: people who are in the background of somebody else's photo. What is found
to be wrong must be looked at (--verbose names the photos, which are private): photos of the same person may carry two names.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mfmc_ray.codec import decode
from mfmc_ray.faces.faces import Faces
from mfmc_ray.faces.pack import DIMENSIONS
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.people.enrol import alikeness, enrol
from mfmc_ray.people.match import MORE, RATE, SMALL, THRESHOLDS, Matcher, evidence, fit
from mfmc_ray.people.photos import PhotoFile
from mfmc_ray.people.quality import Examiner, RefusedError
from mfmc_ray.people.registry import Registry
from mfmc_ray.people.sightings import RECOGNISED
from mfmc_ray.sources import Unit

NAMES = list(DIMENSIONS)
CALIBRATION = Calibration()
TAILS = (2e-4, 5e-4, 1e-3, 2e-3)
SMALLER = (56, 40, 28, 20)


class Given(PhotoFile):
    """A photo that has been looked at."""

    def read(self) -> bytes:
        return self.name.encode()


class Seen:
    """What was found in the photos.

    Attributes:
        owner: photo → person.
        faces: photo → vectors, sizes, mesh scores and the place of the face in the middle.
        looks: photo → what enrolment takes of it, or why it refuses it.
        small: photo → √area in px → the vectors of the face in the middle, in the photo shrunk to that.
    """

    def __init__(self, folder: Path) -> None:
        self.owner: dict[str, str] = {}
        self.faces: dict[str, Any] = {}
        self.looks: dict[bytes, Any] = {}
        self.small: dict[str, dict[int, dict[str, Any]]] = {}
        examiner = Examiner()
        for path in sorted(folder.glob("*/*")):
            name = f"{path.parent.name}/{path.name}"
            pixels = decode(path.read_bytes()).pixels
            found = examiner.pack.analyse(pixels)
            try:
                self.looks[name.encode()] = examiner.judge(pixels, found)
            except RefusedError as error:
                self.looks[name.encode()] = error
            away = np.linalg.norm((found.boxes[:, :2] + found.boxes[:, 2:]) / 2 - np.array(pixels.shape[1::-1]) / 2, axis=1)
            middle = int(np.argmin(away)) if len(found) else -1
            self.owner[name] = path.parent.name
            self.small[name] = {size: shrunk(examiner, pixels, found, middle, size) for size in SMALLER} if middle >= 0 else {}
            self.faces[name] = (dict(found.embeddings), found.sizes, found.need("mesh_scores") if len(found) else found.scores, middle)

    def examine(self, data: bytes) -> Any:
        if isinstance(self.looks[data], RefusedError):
            raise self.looks[data]
        return self.looks[data]

    def person(self, name: str) -> dict[str, Any] | None:
        """The vectors of the face in the middle."""
        vectors, _, _, middle = self.faces[name]
        return None if middle < 0 else {key: array[middle] for key, array in vectors.items()}


def shrunk(examiner: Examiner, pixels: Any, found: Faces, i: int, size: int) -> dict[str, Any]:
    """A face's vectors in the picture shrunk so that it has this √area in px."""
    factor = size / float(found.sizes[i])
    image = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    factors = np.array(image.shape[1::-1]) / pixels.shape[1::-1]
    points = ((found.points[i : i + 1] + 0.5) * factors - 0.5).astype(np.float32)
    return {name: vectors[0] for name, vectors in examiner.pack.embed(image, points).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("people", type=Path)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--not-labelled", type=Path)
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args()
    seen = Seen(given.people)
    besides = set()
    if given.not_labelled:
        besides = {(row["photo"], row["person"]) for row in csv.DictReader(given.not_labelled.open())}
    reasons = Counter(look.reason if isinstance(look, RefusedError) else "fit" for look in seen.looks.values())
    print(f"{len(seen.owner)} photos of {len(set(seen.owner.values()))} people: {dict(reasons)}")
    for photos in (1, 2, 3):
        halves(seen, photos, given.splits, besides, given.verbose)
    for photos in (1, 2, 3):
        tail(seen, photos, 3 * given.splits)
    pairs(seen)


def halves(seen: Seen, photos: int, splits: int, besides: set[tuple[str, str]], verbose: bool) -> None:
    """Enrols random halves, and looks at all other photos."""
    people = sorted(set(seen.owner.values()))
    counts: Counter[str] = Counter()
    why: Counter[str] = Counter()
    wrong: Counter[tuple[str, str]] = Counter()
    missed: Counter[str] = Counter()
    for split in range(splits):
        rng = np.random.default_rng([split, photos])
        half = set(rng.permutation(people)[: len(people) // 2].tolist())
        files = [
            Given(person, name, Unit("", "file", 0, "", name))
            for person in sorted(half)
            for name in rng.permutation([name for name, owner in seen.owner.items() if owner == person])[:photos].tolist()
        ]
        done = enrol(Registry(Path("/nowhere")), files, seen.examine, CALIBRATION)
        why.update(f"not enrolled: {refusal.reason}" for refusal in done.refused)
        counts["photos to enrol"] += len(files)
        matcher = Matcher(done.registry, CALIBRATION, NAMES)
        used = {file.name for file in files}
        for name, owner in seen.owner.items():
            vectors, sizes, meshes, middle = seen.faces[name]
            if name in used:
                continue
            is_fit = fit(vectors, sizes, meshes, 20.0)
            sightings = matcher(vectors, sizes, is_fit)
            likely = matcher.likely(vectors)
            counts["strangers' faces"] += len(sightings) - (owner in half)
            for i, one in enumerate(sightings):
                assert likely[i] or one.reason != RECOGNISED
                if one.person is not None and not (i == middle and one.person == owner) and (name, one.person) not in besides:
                    wrong[name, one.person] += 1
            if owner not in half:
                continue
            counts["probes"] += 1
            one = sightings[middle]
            if one.person == owner:
                continue
            counts["missed"] += 1
            missed[name] += 1
            if owner not in done.registry.people():
                why["missed: no photo of the person could be enrolled"] += 1
            elif one.reason != "unknown":
                why[f"missed: {one.reason}"] += 1
            else:
                cosines = matcher.cosines({key: array[middle : middle + 1] for key, array in vectors.items()})
                k = matcher.people.index(owner)
                weak = min(NAMES, key=lambda key: float(evidence(CALIBRATION.curve(key), cosines[key][0, k : k + 1])[0]) / _usual(key))
                why[f"missed: below the threshold, {weak} the weaker one"] += 1
    print(f"\n{photos} photos of half of the people, {splits} times: {dict(counts)}")
    share = counts["missed"] / counts["probes"]
    print(f"wrong: {sum(wrong.values())}; missed: {share:.1%}; {dict(why)}")
    if verbose:
        print("wrong:", wrong.most_common(20))
        print("missed most often:", missed.most_common(12))


def _usual(name: str) -> float:
    """The median evidence of two photos of one person."""
    return {"sface": 8.9, "dlib": 5.4}.get(name, 7.0)


def tail(seen: Seen, photos: int, splits: int) -> None:
    """Enrols everybody, without checks, and compares all other photos with all people."""
    names = [name for name in seen.owner if seen.person(name)]
    people = sorted(set(seen.owner.values()))
    every = {key: np.array([seen.person(name)[key] for name in names]) for key in NAMES}  # type: ignore[index]
    owner = np.array([people.index(seen.owner[name]) for name in names])
    mine, others, alone, rivals = [], [], {key: [] for key in NAMES}, []
    small: dict[int, list[tuple[Any, Any]]] = {size: [] for size in SMALLER}
    for split in range(splits):
        rng = np.random.default_rng([split, photos, 1])
        chosen = np.concatenate([rng.permutation(np.flatnonzero(owner == p))[:photos] for p in range(len(people))])
        probes = np.setdiff1d(np.arange(len(names)), chosen)
        means = {key: np.array([every[key][chosen[owner[chosen] == p]].mean(0) for p in range(len(people))], np.float64) for key in NAMES}
        each = {key: evidence(CALIBRATION.curve(key), every[key][probes] @ means[key].T) for key in NAMES}
        found = np.sum(list(each.values()), axis=0)
        own = owner[probes][:, None] == np.arange(len(people))
        mine.append(found[own])
        others.append(found[~own])
        rivals.append(found[own] - np.where(own, -np.inf, found).max(1))
        for key in NAMES:
            alone[key].append(each[key][~own])
        for size in SMALLER:
            total = sum(
                evidence(CALIBRATION.curve(key), np.array([seen.small[names[i]][size][key] for i in probes], np.float64) @ means[key].T)
                for key in NAMES
            )
            small[size].append((total[own], total[~own]))
    own_, other = np.concatenate(mine), np.concatenate(others)
    print(f"\n{photos} photos of everybody, {splits} times: {len(other)} comparisons with others, highest evidence {other.max():.2f}")
    for rate in (1e-5, RATE, 1e-7):
        at = np.array([_at(other, rate, share) for share in TAILS])
        print(f"  rate {rate:.0e}: evidence {at.round(1).tolist()}, missed {[round(float((own_ < x).mean()), 4) for x in at]}")
    least = THRESHOLDS[2][min(photos, 3) - 1]
    ahead = np.concatenate(rivals)
    unclear = {m: f"{((own_ >= least) & (ahead < m)).mean():.2%}" for m in (1, 2, 3, 4)}
    print(
        f"  at the threshold of {least}: missed {(own_ < least).mean():.2%}, of the others so far ahead of anybody else not even {unclear}"
    )
    for size, found_ in small.items():
        own_small, other_small = (np.concatenate(values) for values in zip(*found_, strict=True))
        need = least + (MORE if size < SMALL else 0.0)
        at = [round(_at(other_small, RATE, share), 1) for share in TAILS]
        print(f"  {size} px: rate {RATE:.0e} at {at}, highest {other_small.max():.2f}; at {need} missed {(own_small < need).mean():.1%}")
    for key in NAMES:
        print(f"  {key} alone, rate {RATE:.0e}: evidence {_at(np.concatenate(alone[key]), RATE, TAILS[1]):.1f}")


def _at(values: Any, rate: float, share: float) -> float:
    """Where the tail of these, the highest share of them, has this rate."""
    values = np.sort(values)[::-1]
    n = int(len(values) * share)
    return float(values[n] + (values[:n] - values[n]).mean() * np.log(n / len(values) / rate))


def pairs(seen: Seen) -> None:
    """Single photos against each other."""
    names = [name for name in seen.owner if seen.person(name)]
    vectors = [seen.person(name) for name in names]
    owner = np.array([seen.owner[name] for name in names])
    found = alikeness(CALIBRATION, NAMES, vectors, {key: np.array([v[key] for v in vectors]) for key in NAMES})  # type: ignore[arg-type,index]
    above = np.triu(np.ones(found.shape, bool), 1)
    same = owner[:, None] == owner
    a, b = found[same & above], found[~same & above]
    for t in (4, 5, 6):
        print(f"pairs of photos, evidence {t}: {(a < t).mean():.2%} of the same person below, {(b >= t).mean():.1e} of strangers above")


if __name__ == "__main__":
    main()
