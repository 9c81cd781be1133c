"""How well age, sex and skin tone are read: from photos of known age, sex and race group that nothing was trained on.

    python benchmarks/attributes.py ../shared/data

Needs the folder's `attributes/`, whose file names are `age_sex_race_….jpg` (UTKFace: sex 0 man, 1 woman; race 0 White, 1 Black, 2 Asian,
3 Indian, 4 other). Some of the ages are estimates themselves. The figures on the portraits that the corrections are fitted to are what
`tools/build_attribute_net.py` prints.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mfmc_ray.faces.attributes import AttributeHead, tone_band
from mfmc_ray.faces.detect import YuNet
from mfmc_ray.faces.mesh import FaceMesh

Mask = NDArray[np.bool_]
ADULT, CHILD = 18, 13
AGE_BANDS = ((0, 6), (6, 13), (13, 18), (18, 30), (30, 45), (45, 60), (60, 75), (75, 120))
RACES = ("White", "Black", "Asian", "Indian", "other")
TONE_BANDS = ("very light", "light", "intermediate", "tan", "brown", "dark")


def main(folder: Path) -> None:
    detector, fitter, head = YuNet(), FaceMesh(), AttributeHead()
    labels, said, seconds, missed = [], [], [], 0
    paths = sorted((folder / "attributes").glob("*.jpg"))
    if not paths:
        raise SystemExit(f"{folder / 'attributes'} has no pictures: give the folder that holds `attributes/`")
    for path in paths:
        image = np.asarray(Image.open(path).convert("RGB"))
        faces = detector.detect(image)
        faces = faces.take([0]) if len(faces) else faces
        if len(faces) == 0:
            missed += 1
            continue
        meshes, _ = fitter.fit(image, faces.boxes, faces.points)
        labels.append([int(part) for part in path.name.split("_")[:3]])
        start = time.perf_counter()
        found = head.estimate(image, meshes)
        seconds.append(time.perf_counter() - start)
        said.append((found.ages[0], found.sexes[0], found.tones[0]))
    age, sex, race = np.array(labels).T
    ages, men, tones = np.array(said).T
    print(f"{len(age)} faces, {missed} missed; {1000 * np.median(seconds):.2f} ms a face (median), mesh not counted")
    rows: list[tuple[str, Mask]] = [
        ("all", age >= 0),
        (f"adults (≥ {ADULT})", age >= ADULT),
        *((f"age {a}–{b - 1}", (age >= a) & (age < b)) for a, b in AGE_BANDS),
        *((f"adult {name}", (age >= ADULT) & (sex == number)) for number, name in enumerate(("men", "women"))),
        *((f"adult {name}", (age >= ADULT) & (race == number)) for number, name in enumerate(RACES)),
    ]
    print("\nrows                      faces  sex right  age MAE  age bias  log loss of sex")
    for title, mask in rows:
        right = ((men > 0.5) == (sex == 0))[mask].mean()
        loss = -np.log(np.clip(np.where(sex == 0, men, 1 - men), 1e-6, 1))[mask].mean()
        error = (ages - age)[mask]
        print(f"{title:22s} {mask.sum():8d} {right:9.1%} {np.abs(error).mean():8.1f} {error.mean():+9.1f} {loss:9.2f}")
    young = ages < ADULT
    found_children, false_children = young[age < CHILD].mean(), young[age >= ADULT].mean()
    print(f"said to be under {ADULT}: {found_children:.1%} of those under {CHILD}, {false_children:.1%} of adults")
    print(f"correlation of age, adults: {np.corrcoef(age[age >= ADULT], ages[age >= ADULT])[0, 1]:.2f}")
    print("\nITA by race group (the light of the photo is in it)")
    for number, title in enumerate(RACES):
        group = tones[race == number]
        bands = np.bincount([tone_band(tone) for tone in group], minlength=len(TONE_BANDS))
        shares = ", ".join(f"{band} {count}" for band, count in zip(TONE_BANDS, bands, strict=True) if count)
        print(f"{title:8s} mean {group.mean():5.1f}°  median {np.median(group):5.1f}°  sd {group.std():4.1f}°  {shares}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
