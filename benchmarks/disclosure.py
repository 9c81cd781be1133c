"""Measures whether faces are disclosed exactly as the access tables say: `python benchmarks/disclosure.py PEOPLE --folder /tmp/d`.

PEOPLE has a folder of photos for each person, the person in the middle. Half of the people are enrolled with some of their photos, as a
user does it (`mfmc people enroll`); the collection is everybody's other photos, scanned by `mfmc scan`. Then random tables are written for
each access model, and what a run would decide about each face is compared with what the tables say of the person who is labelled:

    wrong   a face is kept that no row allows: of another person, of a stranger, of somebody who denied it
    missed  the person in the middle may be shown, and is not; with the reason, as `mfmc access explain` gives it

Faces beside the one in the middle are nobody's, unless --not-labelled (a CSV file with the columns `photo` and `person`) says whose.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from mfmc_ray.access.combined import access_model
from mfmc_ray.access.decide import decisions
from mfmc_ray.config import AccessConfig, RunConfig, load
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.ledger import Ledger
from mfmc_ray.pipeline.known import files_of_stage
from mfmc_ray.pipeline.recognise import people_of, recognise
from mfmc_ray.pipeline.rows import faces_of
from mfmc_ray.pipeline.workers import SCAN

Says = Callable[[str, str], bool]
"""(person, image) → whether the tables let them be shown."""


def arrange(people: Path, folder: Path, enrolled: int, rng: np.random.Generator) -> tuple[list[str], dict[str, str]]:
    """Copies photos into `folder`/enrolled and `folder`/in; who is enrolled, and whose each image is."""
    names = sorted(path.name for path in people.iterdir() if path.is_dir())
    members = sorted(rng.choice(names, len(names) // 2, replace=False).tolist())
    owner = {}
    for name in names:
        photos = sorted((people / name).iterdir())
        taken = rng.permutation(len(photos))[:enrolled].tolist() if name in members else []
        for i, photo in enumerate(photos):
            if i in taken:
                target = folder / "enrolled" / name / photo.name
            else:
                target = folder / "in" / f"{rng.integers(1 << 60):015x}{photo.suffix}"
                owner[target.name] = name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(photo, target)
    return members, owner


def mfmc(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "mfmc_ray.cli", *map(str, arguments)], check=False, stdout=subprocess.DEVNULL)


def table(path: Path, heading: str, rows: list[tuple[Any, ...]]) -> str:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([tuple(heading.split(",")), *rows])
    return str(path)


def explicit(
    folder: Path, members: list[str], images: list[str], owner: dict[str, str], rng: np.random.Generator
) -> tuple[dict[str, str], Says]:
    """Everybody says yes or no to some images, also to some in which they are not."""
    rows, told = [], {}
    for image in images:
        for person in {owner[image], str(rng.choice(members))} & set(members):
            if (word := str(rng.choice(["yes", "no", ""]))) != "":
                rows.append((image, person, word))
                told[person, image] = word == "yes"
    return {"consents": table(folder / "consents.csv", "image,person,allow", rows)}, lambda person, image: told.get((person, image), False)


def proxy(
    folder: Path, members: list[str], images: list[str], owner: dict[str, str], rng: np.random.Generator
) -> tuple[dict[str, str], Says]:
    """Users tag people, rightly and wrongly; people trust some of them."""
    users = [f"user{i}" for i in range(12)]
    trust = {(person, user) for person in members for user in users if rng.random() < 0.5}
    tags = {
        (image, owner[image] if rng.random() < 0.8 else str(rng.choice(members)), str(rng.choice(users)))
        for image in images
        if rng.random() < 0.8
    }
    tables = {
        "tags": table(folder / "tags.csv", "image,person,by", sorted(tags)),
        "trust": table(folder / "trust.csv", "person,trusts", sorted(trust)),
    }
    shown = {(person, image) for image, person, user in tags if (person, user) in trust}
    return tables, lambda person, image: (person, image) in shown


def rules(
    folder: Path, members: list[str], images: list[str], owner: dict[str, str], rng: np.random.Generator
) -> tuple[dict[str, str], Says]:
    """People allow and deny viewers of a group, which this release is for, for all images or some."""
    viewers = ["v1", "v2", "v3"]
    rows: list[tuple[Any, ...]] = []
    allowed: set[tuple[str, str]] = set()
    mine: dict[str, list[str]] = {}
    for image in images:
        mine.setdefault(owner[image], []).append(image)
    for person in members:
        kind = rng.integers(4)
        images_of = mine.get(person, [])
        if kind == 0:
            rows.append((person, "group:club", "", "yes"))
            allowed |= {(person, image) for image in images_of}
        elif kind == 1:
            rows += [(person, f"viewer:{viewer}", "", "yes") for viewer in viewers]
            some = [image for image in images_of if rng.random() < 0.5]
            rows += [(person, "viewer:v2", image, "no") for image in some]
            allowed |= {(person, image) for image in images_of if image not in some}
        elif kind == 2:
            rows += [(person, "viewer:v1", "", "yes"), (person, "group:others", "", "yes")]
    groups = [("club", viewer) for viewer in viewers] + [("others", "v9")]
    tables = {
        "rules": table(folder / "rules.csv", "person,audience,image,allow", rows),
        "groups": table(folder / "groups.csv", "group,member", groups),
    }
    return tables | {"audience": "group:club"}, lambda person, image: (person, image) in allowed


def middle(boxes: np.ndarray[Any, Any], width: int, height: int) -> int:
    """Which face the photo is of: that of the box nearest to the middle, in units of its size."""
    apart = np.abs((boxes[:, :2] + boxes[:, 2:]) / 2 - np.array([width, height]) / 2).max(1)
    return int(np.argmin(apart / np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("people", type=Path)
    parser.add_argument("--folder", type=Path, required=True, help="where to work; is made")
    parser.add_argument("--enrolled", type=int, default=2, help="photos of a person")
    parser.add_argument("--not-labelled", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rng, folder = np.random.default_rng(asked.seed), asked.folder
    members, owner = arrange(asked.people, folder, asked.enrolled, rng)
    mfmc("people", "enroll", folder / "people", folder / "enrolled")
    mfmc("scan", folder / "in", folder / "out", "--work", folder / "work")
    others: dict[str, set[str]] = {}
    if asked.not_labelled:
        with asked.not_labelled.open() as file:
            for row in csv.DictReader(file):
                others.setdefault(Path(row["photo"]).name, set()).add(row["person"])
    base = load(None, input=str(folder / "in"), out=str(folder / "out"), work=str(folder / "work"), access__people=str(folder / "people"))
    ledger, names = Ledger(base.out, base.work), base.guard.recognizers
    sightings = recognise(ledger, people_of(base, ledger), Calibration(), names, base.swap.min_face)
    for name, tables_of in (("explicit", explicit), ("proxy", proxy), ("rules", rules)):
        tables, says = tables_of(folder, members, sorted(owner), owner, rng)
        config: RunConfig = replace(base, access=AccessConfig(people=base.access.people, model=name, **tables))
        model = access_model(config).bound(sightings)
        counts: Counter[str] = Counter()
        why: Counter[str] = Counter()
        for file in files_of_stage(ledger, SCAN):
            scan = pq.read_table(file)
            for i, row in enumerate(scan.drop_columns(["faces"]).to_pylist()):
                faces = faces_of(scan["faces"][i], dict.fromkeys(names, 128))
                person, seen = owner[row["path"]], sightings.of(row["image_id"])
                decided = decisions(model, row["image_id"], row["path"], faces)
                main_face = middle(faces.boxes, row["width"], row["height"]) if len(faces) else -1
                for k, one in enumerate(decided):
                    counts["faces"] += 1
                    mine = person if k == main_face else None
                    right = mine in members and says(str(mine), row["path"])
                    right = right or (
                        one.keep
                        and k != main_face
                        and seen[k].person in others.get(row["path"], ())
                        and says(str(seen[k].person), row["path"])
                    )
                    counts["kept"] += one.keep
                    counts["allowed"] += right
                    if one.keep and not right:
                        counts["wrong"] += 1
                        print(f"  wrong: {name} {row['path']} face {k}: {one.reason}, taken for {seen[k].person}, labelled {mine}")
                    if right and not one.keep:
                        counts["missed"] += 1
                        why[seen[k].reason if k < len(seen) else "nobody is like this face"] += 1
                if not len(faces) and person in members and says(person, row["path"]):
                    counts["allowed"] += 1
                    counts["missed"] += 1
                    why["no face was found"] += 1
        share = counts["missed"] / max(1, counts["allowed"])
        print(json.dumps({"model": name, **counts, "missed_share": round(share, 4), "missed_because": dict(why)}), flush=True)


if __name__ == "__main__":
    main()
