"""The leak rate: how often a recognizer, asked who a published face was, names the right person first, or among the first five.

The attack is the strongest that a recognizer alone allows: the gallery has one original face of each person of the collection, and of the
person asked for the very original that was replaced, with the same pose and light. `other_photo` asks with another photo of the person
instead, which shares only the person. Nobody learns anything if the rate is that of guessing, k / people. `quality` is what the recognizer
makes of originals: what its silence is worth.
"""

from __future__ import annotations

import math
import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mfmc_ray.faces.faces import F32
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.known.index import KnownFaces

LEAST_PEOPLE = 50
"""Among fewer people a rate says nothing."""
MOST_FACES = 20_000
"""Of more known faces so many are drawn: all pairs are compared."""
RANKS = (1, 5)

_WHO = "clusters of the collection's known faces, not labels: joined where every guard takes two for one person"
_GUARD = "guarded this run: fakes too near to the originals were refused with it, so this is no independent result"
_HELD_OUT = "never asked while anonymizing; what its rate is worth shows `quality`: an original asked with another photo of the person"
_Z = 1.959964  # of a 95 % interval
_CHUNK = 1 << 24  # cosines held at a time

I64 = NDArray[np.int64]
Ids = NDArray[np.bytes_]


@dataclass(frozen=True)
class People:
    """The collection's known faces, and who is one person.

    Attributes:
        ids: bytes (m,), rising: known ids, each once.
        person: int64 (m,), 0 … people − 1.
        vectors: guard → float32 (m, d), unit length.
        of: known faces of the collection; more than m if they were drawn.
        seed: of the draw; None if all are here.
    """

    ids: Ids
    person: I64
    vectors: Mapping[str, F32]
    of: int
    seed: int | None = None

    def __len__(self) -> int:
        return int(self.person.max(initial=-1)) + 1

    @classmethod
    def of_collection(cls, known: KnownFaces, guards: Sequence[str], calibration: Calibration, most: int = MOST_FACES) -> People:
        """Clusters the known faces that are of the collection itself: all pairs, exactly.

        A pair is joined where the cosine reaches every guard's strict threshold, or among m > 1000 faces the cosine of a false-match rate
        of 1 / m: else strangers would form chains that hold everybody.

        Args:
            known: with galleries, enrolled people and references, which are left out.
            guards: recognizers of the index.
            calibration: of their thresholds.
            most: faces; of more a uniform sample is clustered. A person with many photos is then more likely to be in it.
        """
        ours = np.flatnonzero(~np.any([np.char.startswith(known.ids, kind) for kind in (b"gallery:", b"person:", b"reference:")], axis=0))
        ids, first = np.unique(known.ids[ours], return_index=True)
        rows, seed = ours[first], None
        if len(rows) > most:
            seed = secrets.randbelow(1 << 53)
            chosen = np.sort(np.random.default_rng(seed).choice(len(rows), most, replace=False))
            ids, rows = ids[chosen], rows[chosen]
        vectors = {name: np.ascontiguousarray(known.vectors[name][rows]) for name in guards}
        rate = 1 / max(1, len(rows))
        joined = {name: max(calibration.strict_threshold(name), calibration.threshold_for(name, rate)) for name in guards}
        return cls(ids, clusters(vectors, joined), vectors, len(first), seed)

    def find(self, ids: Sequence[bytes]) -> I64:
        """int64: the row of each id; −1 if it is not here."""
        wanted = np.array(ids, np.bytes_)
        if not len(self.ids) or not len(wanted):
            return np.full(len(wanted), -1, np.int64)
        at = np.minimum(np.searchsorted(self.ids, wanted), len(self.ids) - 1)
        return np.where(self.ids[at] == wanted, at, -1)


def clusters(vectors: Mapping[str, F32], joined: Mapping[str, float]) -> I64:
    """The connected components of n faces, an edge where the cosine reaches every threshold: int64 (n,), from 0."""
    n = len(next(iter(vectors.values())))
    label = np.arange(n)
    step = max(1, _CHUNK // max(n, 1))
    for start in range(0, n, step):
        stop = min(start + step, n)
        near = np.ones((stop - start, stop), bool)
        for name, v in vectors.items():
            near &= v[start:stop] @ v[:stop].T >= joined[name]
        for i in range(start, stop):
            linked = np.unique(label[np.append(np.flatnonzero(near[i - start, :i]), i)])
            if len(linked) > 1:
                label[: i + 1][np.isin(label[: i + 1], linked)] = linked[0]
    return np.asarray(np.unique(label, return_inverse=True)[1], np.int64)


def store(folder: Path, part: int, probes: Mapping[str, Any], originals: Mapping[str, Any]) -> None:
    """Keeps a part's embeddings until the measurement: `ids` and recognizer → vectors, of published faces and of originals. Private."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".part-{part:05d}-{secrets.token_hex(4)}.npz"
    named = {f"probe/{name}": value for name, value in probes.items()} | {f"original/{name}": value for name, value in originals.items()}
    with temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **{name: np.asarray(value) for name, value in named.items()})
    temporary.replace(folder / f"part-{part:05d}.npz")


def forget(folder: Path) -> None:
    """Removes what `store` kept."""
    shutil.rmtree(folder, ignore_errors=True)


def sexes_of(files: Iterable[Path], people: People) -> I64:
    """The estimated sex of each face of `people.ids`, from the scan's files: 0 a woman, 1 a man, −1 unknown."""
    found = np.full(len(people.ids), -1)
    for path in files:
        table = pq.ParquetFile(path).read(columns=["image_id", "faces.list.element.sex"])
        faces = table["faces"].combine_chunks()
        counts = faces.value_lengths().fill_null(0).to_pylist()
        names = [f"{i}:{k}".encode() for i, n in zip(table["image_id"].to_pylist(), counts, strict=True) for k in range(n)]
        at = people.find(names)
        man = faces.flatten().field("sex").to_numpy(zero_copy_only=False)
        sexes = np.where(np.isnan(man), -1, man > 0.5)
        found[at[at >= 0]] = sexes[at >= 0]
    return found


def measure(people: People, folder: Path, guards: Sequence[str], held_out: Sequence[str], sexes: I64) -> tuple[Any, str]:
    """What OUT/audit.json says as `leak`, and why it is null if it is.

    Args:
        people: of the collection.
        folder: where the parts' embeddings were stored.
        guards, held_out: recognizers.
        sexes: of `people.ids`.
    """
    if len(people) < LEAST_PEOPLE:
        return None, f"wanted {LEAST_PEOPLE} people or more, {len(people)} are there ({_WHO})"
    probes, originals = _load(folder, people, "probe"), _load(folder, people, "original")
    rows = []
    for name in (*guards, *held_out):
        independent = name not in guards
        gallery = (np.arange(len(people.ids)), people.vectors[name]) if not independent else originals.get(name, _nobody())
        rows.append({"recognizer": name, "independent": independent, **_rates(people, gallery, probes.get(name, _nobody()), sexes)})
        rows[-1]["note"] = _HELD_OUT if independent else _GUARD
    return {
        "people": len(people),
        "faces": len(people.ids),
        "of_faces": people.of,
        "seed": people.seed,
        "who": _WHO,
        "method": "the gallery has one original of each person, of the person asked for the one that was replaced; each person weighs the "
        "same; intervals: Wilson, 95 %, over people",
        "recognizers": rows,
    }, ""


Faces = tuple[I64, F32]
"""Rows of `People.ids`, and their vectors."""


def _nobody() -> Faces:
    return np.zeros(0, np.int64), np.zeros((0, 1), np.float32)


def _load(folder: Path, people: People, kind: str) -> dict[str, Faces]:
    """recognizer → what the parts stored of published faces or originals."""
    found: dict[str, list[Faces]] = {}
    for path in sorted(folder.glob("part-*.npz")):
        with np.load(path, allow_pickle=False) as file:
            at = people.find(list(file[f"{kind}/ids"]))
            for key in file.files:
                name = key.removeprefix(f"{kind}/")
                if name != key and name != "ids":
                    good = (at >= 0) & np.isfinite(file[key]).all(1)
                    found.setdefault(name, []).append((at[good], file[key][good]))
    return {name: (np.concatenate([a for a, _ in some]), np.concatenate([v for _, v in some])) for name, some in found.items() if some}


def _rates(people: People, gallery: Faces, probes: Faces, sexes: I64) -> dict[str, Any]:
    """One recognizer's rates. Probes without their original in the gallery are left out."""
    rows, vectors = gallery
    # a picture that is there twice was read twice
    rows, first = np.unique(rows, return_index=True)
    vectors, persons = vectors[first], people.person[rows]
    _, chosen = np.unique(persons, return_index=True)  # one face for each person
    at, queries = probes
    place = np.minimum(np.searchsorted(rows, at), max(len(rows) - 1, 0))
    have = rows[place] == at if len(rows) else np.zeros(len(at), bool)
    at, queries, place = at[have], queries[have], place[have]
    sex = sexes[rows[chosen]]
    plain: dict[str, Any] = {"people": len(chosen), "gallery": len(chosen), "probes": len(at)}
    if len(chosen) < LEAST_PEOPLE or not len(at):
        few = f"{len(chosen)} people with a readable original, {len(at)} replaced faces among those looked at: too few"
        return plain | {"people_probed": 0, "rank1": None, "rank5": None, "other_photo": None, "quality": None, "why": few}
    owners = people.person[at]
    ranks = _ranks(vectors[chosen], persons[chosen], queries, vectors[place], owners)
    plain["people_probed"] = len(np.unique(owners))
    same_sex = np.array([max(1, int((sex == s).sum())) for s in sexes[at]])
    for k in RANKS:
        plain[f"rank{k}"] = _rate(owners, ranks <= k, k, len(chosen)) | {"chance_same_sex": _short(np.minimum(1, k / same_sex).mean())}

    def by_another_photo(asked: F32, places: I64) -> dict[str, Any] | None:
        """The same question when of the person there is another photo in the gallery: for those who have one."""
        standing: dict[int, list[int]] = {}
        for i, person in enumerate(persons):
            standing.setdefault(int(person), []).append(i)
        others = [next((j for j in standing[int(persons[i])] if j != i), -1) for i in places]
        some = np.flatnonzero(np.array(others) >= 0)
        if not len(some):
            return None
        own, who = np.array(others)[some], persons[places[some]]
        found = _ranks(vectors[chosen], persons[chosen], asked[some], vectors[own], who)
        rates = {f"rank{k}": _rate(who, found <= k, k, len(chosen)) for k in RANKS}
        return {"people": len(np.unique(who)), "probes": len(some), **rates}

    everyone = np.arange(len(rows))
    return plain | {"other_photo": by_another_photo(queries, place), "quality": by_another_photo(vectors, everyone)}


def _ranks(gallery: F32, persons: I64, probes: F32, own: F32, owners: I64) -> I64:
    """Where the probe's own person comes, from 1: before it come the others whose face is nearer than the person's own one."""
    ranks = np.zeros(len(probes), np.int64)
    step = max(1, _CHUNK // max(len(gallery), 1))
    for start in range(0, len(probes), step):
        some = slice(start, start + step)
        nearer = probes[some] @ gallery.T > np.einsum("nd,nd->n", probes[some], own[some])[:, None]
        ranks[some] = 1 + (nearer & (persons[None] != owners[some, None])).sum(1)
    return ranks


def _rate(owners: I64, hits: NDArray[np.bool_], k: int, people: int) -> dict[str, Any]:
    """The mean over people of their probes' hits, its interval, and chance."""
    _, who = np.unique(owners, return_inverse=True)
    mean = float((np.bincount(who, hits) / np.bincount(who)).mean())
    low, high = wilson(mean, int(who.max()) + 1)
    chance = min(1.0, k / people)
    numbers = {"rate": mean, "low": low, "high": high, "chance": chance}
    return {name: _short(value) for name, value in numbers.items()} | {"chance_in_interval": low <= chance <= high}


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of n (Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927).

    For means of n numbers in 0–1, as here, it is wider than it need be: they vary less than hits and misses.
    """
    spread = _Z / (1 + _Z * _Z / n) * math.sqrt(share * (1 - share) / n + _Z * _Z / (4 * n * n))
    middle = (share + _Z * _Z / (2 * n)) / (1 + _Z * _Z / n)
    return max(0.0, middle - spread), min(1.0, middle + spread)


def _short(value: Any) -> float:
    return float(f"{float(value):.4g}")


def in_words(leak: Mapping[str, Any]) -> list[str]:
    """A sentence for each recognizer."""
    said = []
    for row in leak["recognizers"]:
        what = "held out" if row["independent"] else "guard, not independent"
        if row["rank1"] is None:
            said.append(f"{row['recognizer']} ({what}): {row['why']}")
            continue
        parts = [
            f"rank {k}: {row[f'rank{k}']['rate']:.1%} [{row[f'rank{k}']['low']:.1%}, {row[f'rank{k}']['high']:.1%}], chance "
            f"{row[f'rank{k}']['chance']:.1%} ({row[f'rank{k}']['chance_same_sex']:.1%} knowing the sex)"
            for k in RANKS
        ]
        for name, asked in (("other_photo", "asked with another photo of the person"), ("quality", "an original asked with another photo")):
            if row[name]:
                parts.append(f"{asked}, rank 1: {row[name]['rank1']['rate']:.1%} ({row[name]['people']} people)")
        said.append(f"{row['recognizer']} ({what}), {row['probes']} faces among {row['people']} people: {'; '.join(parts)}")
    return said
