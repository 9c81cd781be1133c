"""What `pseudonyms: person` does to a labelled collection, and what it gives away.

    mfmc anonymize ../shared/data/people person/ --work person-work/ --pseudonyms person
    mfmc anonymize ../shared/data/people image/ --work image-work/
    OMP_NUM_THREADS=1 python benchmarks/pseudonyms.py person/ person-work/ [--image image/ image-work/] [--keys 200] [--json FILE]

A folder of the collection is a person; in each of its images the face nearest to the middle is theirs, and of the others nothing is known.

- *strangers*: who is taken for one person without a word from anybody, at several rates (`known/strangers.RATE`). `share`: of a person's
  photos in the largest group, mean over people; `merged`: groups with two people in them.
- *consistency*: of a person's replaced photos, and of all, the share that shows the commonest fake, mean over people; identities that two
  people wear; what was covered.
- *without the key*: everybody draws anew by many random keys, from the run's own pool, each time without two people sharing one. How often
  does a second release show the same fake (a new key), and how often does somebody guess it who has everything but the key: by the identity
  that looks most right, or the one least like the person? Chance is one over the number of identities that come into question.
- *likeness*: the guard recognizers are asked who a published face was, among all people of the collection, by photos of them other than
  the one that was replaced; once by each published face alone, once by the mean of all that wear one fake, which is what `person` adds:
  without it nobody knows which belong together. The guards chose the fakes, so this is no independent result.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from mfmc_ray.faces.pack import DIMENSIONS
from mfmc_ray.identities.casting import Casting
from mfmc_ray.identities.model import load_model
from mfmc_ray.identities.pool import Pool
from mfmc_ray.known import strangers
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.ledger import Ledger
from mfmc_ray.pipeline.leak import wilson
from mfmc_ray.pipeline.persons import Scanned, scanned_faces
from mfmc_ray.pipeline.pool import read_pool
from mfmc_ray.pipeline.rows import matrix
from mfmc_ray.tables import embedding_column

GUARDS = {name: DIMENSIONS[name] for name in ("sface", "dlib")}
RATES = (0.1, 0.03, 0.01, 0.003, 0.001)
Face = tuple[str, int]


@dataclass
class Collection:
    """A run's collection: its faces, and whose they are; −1 for nobody known."""

    faces: Scanned
    owner: NDArray[np.int64]
    names: list[str]

    @classmethod
    def of(cls, ledger: Ledger) -> Collection:
        """Reads the scan of a run."""
        labels: dict[Face, str] = {}
        for file in sorted((ledger.work / "scan").glob("part-*.parquet")):
            table = pq.ParquetFile(file).read(columns=["image_id", "path", "width", "height", "faces.list.element.box"])
            for row in table.to_pylist():
                boxes = np.array([face["box"] for face in row["faces"] or ()]).reshape(-1, 4)
                if len(boxes) and "/" in row["path"]:
                    middle = (boxes[:, :2] + boxes[:, 2:] - [row["width"], row["height"]]) / 2
                    labels[row["image_id"], int(np.argmin((middle**2).sum(1)))] = row["path"].partition("/")[0]
        faces = scanned_faces(ledger, GUARDS, 20.0)
        names = sorted(set(labels.values()))
        owner = np.array([names.index(labels[face]) if face in labels else -1 for face in faces.faces])
        return cls(faces, owner, names)


def gathered(collection: Collection) -> list[dict[str, Any]]:
    """How strangers are put together at several rates."""
    faces, usual, rows = collection.faces, strangers.RATE, []
    _, pictures = np.unique([image for image, _ in faces.faces], return_inverse=True)
    for rate in RATES:
        strangers.RATE = rate
        groups = strangers.gather(faces.vectors, pictures.astype(np.int64), Calibration())
        labelled = collection.owner >= 0
        merged = sum(len(set(collection.owner[labelled & (groups == group)])) > 1 for group in np.unique(groups[labelled]))
        shares = []
        for person in np.unique(collection.owner[labelled]):
            mine = groups[collection.owner == person]
            shares.append(np.bincount(mine).max() / len(mine))
        rows.append({"rate": rate, "usual": rate == usual, "faces": len(faces), "merged": int(merged), "share": float(np.mean(shares))})
        rows[-1]["whole"] = float(np.mean(np.array(shares) == 1))
    strangers.RATE = usual
    return rows


def result_of(out: Path) -> list[dict[str, Any]]:
    """The faces' rows of a result."""
    columns = ["image_id", "face_no", "verdict", "reason", "identity_id", "attempts"]
    return [row for file in sorted(out.glob("faces/*.parquet")) for row in pq.read_table(file, columns=columns).to_pylist()]


def consistency(rows: Sequence[Mapping[str, Any]], collection: Collection) -> dict[str, Any]:
    """Who wears what in a result."""
    whose = {face: int(k) for face, k in zip(collection.faces.faces, collection.owner, strict=True) if k >= 0}
    worn: defaultdict[int, list[str | None]] = defaultdict(list)
    wearers: defaultdict[str, set[int]] = defaultdict(set)
    twice: Counter[tuple[str, str]] = Counter()
    reasons: Counter[str] = Counter()
    for row in rows:
        name, person = row["identity_id"], whose.get((row["image_id"], row["face_no"]))
        if name is not None:
            twice[row["image_id"], name] += 1
        if person is not None:
            worn[person].append(name)
            reasons[row["reason"] or row["verdict"]] += 1
            if name is not None:
                wearers[name].add(person)
    of_replaced, of_all, whole = [], [], []
    for some in worn.values():
        shown = Counter(name for name in some if name is not None)
        most = max(shown.values(), default=0)
        of_all.append(most / len(some))
        if shown:
            of_replaced.append(most / sum(shown.values()))
            whole.append(most == sum(shown.values()))
    return {
        "people": len(worn),
        "faces": sum(map(len, worn.values())),
        "share_of_replaced": float(np.mean(of_replaced)),
        "share_of_all": float(np.mean(of_all)),
        "whole": float(np.mean(whole)),
        "two_people_share": sum(len(some) > 1 for some in wearers.values()),
        "twice_in_an_image": sum(n > 1 for n in twice.values()),
        "became": dict(reasons.most_common()),
        "attempts": float(np.mean([row["attempts"] for row in rows if (row["image_id"], row["face_no"]) in whose])),
    }


def without_the_key(collection: Collection, pool: Pool, keys: int) -> dict[str, Any]:
    """How often a second release by another key shows the same, and how often it is guessed, beside chance."""
    rng = np.random.default_rng(0)
    people = [np.flatnonzero(collection.owner == k) for k in np.unique(collection.owner[collection.owner >= 0])]
    faces = collection.faces
    hits: dict[str, list[float]] = {"again": [], "most fitting": [], "least alike": [], "chance": []}

    def release() -> list[tuple[str, list[str]]]:
        casting, found = Casting(pool, rng.bytes(32)), {}
        for k in rng.permutation(len(people)):
            rows = people[k]
            choice = casting.choice(faces.wanted(rows), {name: v[rows] for name, v in faces.vectors.items()})
            drawn = casting.drawn(f"{k:032x}", choice)[:1]
            casting.take(drawn)
            found[int(k)] = (drawn[0] if drawn else "", choice)
        return [found[k] for k in range(len(people))]

    by_name = {one.identity_id: i for i, one in enumerate(pool.identities)}
    for _ in range(keys // 2):
        one, other = release(), release()
        for (name, choice), (again, _), rows in zip(one, other, people, strict=True):
            if not name:
                continue
            at = np.array([by_name[c] for c in choice])
            misfit = pool.misfit(faces.wanted(rows))[at]
            alike = pool.alike(at, {n: v[rows].mean(0) for n, v in faces.vectors.items()})
            hits["again"].append(name == again)
            hits["most fitting"].append(name == choice[int(np.argmin(misfit))])
            hits["least alike"].append(name == choice[int(np.argmin(alike))])
            hits["chance"].append(1 / len(choice))
    n = len(hits["chance"])
    return {what: {"rate": float(np.mean(some)), "n": n, "interval": wilson(float(np.mean(some)), n)} for what, some in hits.items()}


def likeness(work: Path, collection: Collection) -> dict[str, Any]:
    """Rank-1 rates of the guards, by one published face and by all that wear a fake."""
    files = sorted((work / "published").glob("part-*.parquet"))
    table = pa.concat_tables([pq.read_table(file) for file in files])
    row_of = {face: row for row, face in enumerate(collection.faces.faces)}
    rows = np.array([row_of.get(face, -1) for face in zip(table["image_id"].to_pylist(), table["face_no"].to_pylist(), strict=True)])
    fakes = np.array(table["identity_id"].to_pylist())
    mine = (rows >= 0) & (collection.owner[rows] >= 0)
    people = np.unique(collection.owner[collection.owner >= 0])
    found: dict[str, Any] = {"people": len(people), "chance": 1 / len(people)}
    for name, dim in GUARDS.items():
        probes, gallery = matrix(table[embedding_column(name)], dim)[mine], collection.faces.vectors[name]
        alone, together = [], []
        for fake in np.unique(fakes[mine]):
            some = np.flatnonzero(fakes[mine] == fake)
            owners = collection.owner[rows[mine][some]]
            for i in some:
                alone.append(_first(probes[i], rows[mine][[i]], collection, gallery) == collection.owner[rows[mine][i]])
            if len(some) > 1:
                mean = probes[some].mean(0)
                together.append(_first(mean, rows[mine][some], collection, gallery) == Counter(owners.tolist()).most_common(1)[0][0])
        found[name] = {"alone": _rate(alone), "together": _rate(together)}
    return found


def _first(probe: NDArray[np.float32], but: NDArray[np.int64], collection: Collection, gallery: NDArray[np.float32]) -> int:
    """The person whose photos, without those of the probe, have the highest mean cosine to it."""
    cosines = gallery @ probe
    known = collection.owner >= 0
    # of everybody as many photos as of who is asked for: all but those in the probe, and at least one
    use = known.copy()
    use[but] = False
    best, who = -2.0, -1
    for person in np.unique(collection.owner[known]):
        mine = np.flatnonzero(use & (collection.owner == person))
        mine = mine if len(mine) else np.flatnonzero(collection.owner == person)
        value = float(cosines[mine].max())
        if value > best:
            best, who = value, int(person)
    return who


def _rate(hits: Sequence[bool]) -> dict[str, Any]:
    share = float(np.mean(hits)) if hits else 0.0
    return {"rate": share, "n": len(hits), "interval": wilson(share, max(1, len(hits)))}


def show(found: Mapping[str, Any], console: Console) -> None:
    """Prints all of it."""
    table = Table(
        "rate", "share of a person's photos in the largest group", "people in one group", "groups with two people", title="Strangers"
    )
    for row in found["strangers"]:
        mark = " (used)" if row["usual"] else ""
        table.add_row(f"{row['rate']}{mark}", f"{row['share']:.1%}", f"{row['whole']:.1%}", str(row["merged"]))
    console.print(table)
    for name, one in found["consistency"].items():
        console.print(f"{name}: {json.dumps(one)}", markup=False)
    for what, one in found["without_the_key"].items():
        low, high = one["interval"]
        console.print(f"without the key, {what}: {one['rate']:.2%} ({low:.2%}–{high:.2%}) of {one['n']}")
    for run, ranks in found["likeness"].items():
        for name in GUARDS:
            for how, one in ranks[name].items():
                low, high = one["interval"]
                console.print(f"{run}, {name}, {how}: {one['rate']:.1%} ({low:.1%}–{high:.1%}) of {one['n']}, chance {ranks['chance']:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="result of a run with `pseudonyms: person`")
    parser.add_argument("work", type=Path, help="its private folder")
    parser.add_argument("--image", type=Path, nargs=2, metavar=("OUT", "WORK"), help="of a run with `pseudonyms: image`, to compare")
    parser.add_argument("--keys", type=int, default=200, help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args()
    ledger = Ledger(str(options.out), str(options.work))
    collection = Collection.of(ledger)
    runs = {"person": (options.out, options.work)} | ({"image": tuple(options.image)} if options.image else {})
    found = {
        "strangers": gathered(collection),
        "consistency": {name: consistency(result_of(out), collection) for name, (out, _) in runs.items()},
        "without_the_key": without_the_key(collection, Pool.from_table(load_model(), read_pool(ledger, GUARDS)), options.keys),
        "likeness": {name: likeness(work, collection) for name, (_, work) in runs.items()},
    }
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    show(found, Console(width=150))


if __name__ == "__main__":
    main()
