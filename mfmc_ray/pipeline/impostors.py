"""Impostor pairs in a run's private folder: which of its faces are certainly of different people, and what rates they show."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mfmc_ray.config import ConfigError
from mfmc_ray.faces.detect import overlap
from mfmc_ray.faces.faces import F32
from mfmc_ray.faces.pack import ALL_DIMENSIONS, digests_of
from mfmc_ray.known.calibration import Curve
from mfmc_ray.known.index import KnownIndex
from mfmc_ray.known.measure import LEAST_PAIRS, MOST_FACES, STRICT_RATE, Impostors, MeasureError, calibrate, genuine, strict_threshold
from mfmc_ray.ledger import LedgerError
from mfmc_ray.pipeline.rows import matrix
from mfmc_ray.tables import embedding_column

LEAST_CURVE = (30, int(LEAST_PAIRS / STRICT_RATE))
"""People and pairs that a curve to choose thresholds by takes: the strict threshold's rate must be measured, not extrapolated."""
RATES = (1e-3, 1e-4, 1e-5)
"""The false-match rates whose cosines are shown."""
CURVES = "calibration"
"""Folder in WORK."""
_ROUNDS, _FACES = 200, 1000  # of what is shown and sets no threshold


@dataclass(frozen=True)
class Source:
    """Pairs of one kind, for every recognizer.

    Attributes:
        name: what is compared.
        pairs: recognizer → the pairs.
        drawn: what `Impostors.people` counts.
        note: what a reader of its rates must know; may be empty.
        selected: the faces were chosen by the very cosines that are measured, so that rates mean nothing.
    """

    name: str
    pairs: Mapping[str, Impostors]
    drawn: str
    note: str = ""
    selected: bool = False


class KnownPeople:
    """The known faces of a run, with where they are from. References and faces that are there twice are left out.

    Args:
        work: the run's private folder.

    Attributes:
        vectors: recognizer → float32 (n, d).
        references: recognizer → float32 (r, d): the identity model's portraits.
        images: str (n,), whose photo each is on.
        paths: the photo's path in its collection, "" if the scan does not name it.
        boxes: float32 (n, 4), px; NaN likewise.
        everyone: how many known faces there are, all counted.
        digest: of the index.

    Raises:
        LedgerError: there is no known-face index.
        KnownIndexError: it is damaged, or of other recognizers or weights.
    """

    def __init__(self, work: Path) -> None:
        first = work / "known" / "generation-00000.json"
        if not first.is_file():
            raise LedgerError(f"there is no known-face index in {work}; run `mfmc index` first, or give the private folder of a run")
        names = [str(name) for name in json.loads(first.read_text())["recognizers"]]
        if unknown := set(names) - set(ALL_DIMENSIONS):
            raise LedgerError(f"the index was made with {unknown.pop()!r}, which this version does not have; install the one that made it")
        dimensions = {name: ALL_DIMENSIONS[name] for name in names}
        index = KnownIndex.open(work / "known", dimensions, digests_of(names))
        self.everyone, self.digest, self.work = len(index), index.digest, work
        ids = index.ids
        kinds = np.array([known_id.partition(":")[0] == "reference" for known_id in ids], bool)
        latest = {known_id.removeprefix("gallery:"): i for i, known_id in enumerate(ids) if not kinds[i]}  # a photo may be in both
        rows = np.fromiter(latest.values(), np.int64, len(latest))
        self.vectors = {name: index.vectors(name)[rows] for name in names}
        self.references = {name: index.vectors(name)[kinds] for name in names}
        places = [known_id.rpartition(":") for known_id in latest]
        self.images = np.array([image for image, _, _ in places], str)
        scanned = _scanned(work, set(self.images.tolist()))
        nowhere = ("", np.full((0, 4), np.nan, np.float32))
        found = [(*scanned.get(image, nowhere), int(number)) for image, _, number in places]
        self.paths = [path for path, _, _ in found]
        self.boxes = np.array([boxes[k] if k < len(boxes) else [np.nan] * 4 for _, boxes, k in found], np.float32).reshape(-1, 4)

    def labelled(self, people: str | None) -> NDArray[np.str_]:
        """Whose each face is: str (n,), "" for nobody that is known.

        Args:
            people: "folder": the first folder of a photo's path is the person; the name of a CSV file with columns `path` and `person`;
                None: nobody is labelled. Only photos count that show one known face: of several, nobody says whose is whose.

        Raises:
            ConfigError: for a file that is something else, or labels that fit no photo.
        """
        if people is None:
            return np.full(len(self.paths), "", "U1")
        named = None if people == "folder" else _named(people)
        owners = [p.partition("/")[0] if "/" in p else "" for p in self.paths] if named is None else [named.get(p, "") for p in self.paths]
        if not any(owners):
            wanted = "no photo is in a folder" if named is None else f"{people} names no photo of the run, by its path in the collection"
            raise ConfigError(f"--people {people}: {wanted}")
        _, image, count = np.unique(self.images, return_inverse=True, return_counts=True)
        return np.where(count[image] == 1, np.array(owners, str), "")

    def pool(self) -> dict[str, F32]:
        """recognizer → float32 (m, d): the admitted identities; none if the run has not come so far."""
        tables = [pq.read_table(file) for file in sorted((self.work / "pool").glob("part-*.parquet"))]
        if not tables:
            return {name: np.zeros((0, ALL_DIMENSIONS[name]), np.float32) for name in self.vectors}
        table = pa.concat_tables(tables)
        return {name: matrix(table[embedding_column(name)], ALL_DIMENSIONS[name]) for name in self.vectors}

    def same_image(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pairs of faces of one photo whose boxes do not touch (one face may have been found twice): two arrays of rows."""
        order = np.argsort(self.images, kind="stable")
        starts = np.flatnonzero(np.append(True, self.images[order][1:] != self.images[order][:-1])) if len(order) else order
        first, second, held = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
        for k in np.random.default_rng(0).permutation(len(starts)):
            stop = starts[k + 1] if k + 1 < len(starts) else len(order)
            faces = order[starts[k] : stop]
            if len(faces) > 1 and held < MOST_FACES**2 // 2:
                a, b = np.triu_indices(len(faces), 1)
                apart = overlap(self.boxes[faces], self.boxes[faces])[0][a, b] == 0  # False for NaN
                first.append(faces[a[apart]])
                second.append(faces[b[apart]])
                held += int(apart.sum())
        return np.concatenate(first), np.concatenate(second)


def sources_of(known: KnownPeople, owners: NDArray[np.str_], fakes: Mapping[str, F32] | None) -> list[Source]:
    """Everything in a run that is an impostor pair for certain, the labelled people first if there are any.

    Args:
        known: the known faces.
        owners: of `KnownPeople.labelled`.
        fakes: recognizer → float32 (m, d): fakes that were not selected; None if none were made.
    """
    mine, found = np.flatnonzero(owners != ""), []
    if len(mine):
        pairs = {name: Impostors.among(v[mine], owners[mine]) for name, v in known.vectors.items()}
        found.append(Source("known faces of different people", pairs, "people", "by --people, photos with one known face"))
    a, b = known.same_image()
    if len(a):
        pairs = {name: Impostors.within(_cosines(v[a], v[b]), known.images[a]) for name, v in known.vectors.items()}
        note = "unlabelled: two faces of one photo are taken for two people; a mirror or a picture on the wall makes a false impostor"
        found.append(Source("two faces of one photo", pairs, "photos", note))
    who = np.where(owners != "", owners, known.images)
    pool = known.pool()
    people = "fakes and photos" if len(mine) < len(who) else "fakes and people"
    if fakes is not None:
        pairs = {name: Impostors.between(fakes[name], v, who, most=_FACES) for name, v in known.vectors.items()}
        note = "fakes as they are offered, made for this: people who do not exist match nobody. What capacity is about"
        found.append(Source("offered fakes × known faces", pairs, people, note))
    if len(next(iter(pool.values()))):
        pairs = {name: Impostors.between(pool[name], v, who, most=_FACES) for name, v in known.vectors.items()}
        note = (
            "censored: the pool is what stayed below the thresholds, so it has no match by selection and can set no threshold; "
            "--fakes measures fakes before that selection"
        )
        found.append(Source("pool × known faces", pairs, people, note, selected=True))
        pairs = {name: Impostors.among(v, np.arange(len(v)), most=_FACES) for name, v in pool.items()}
        note = "identities are made of the same portraits, so two of them are more alike than two strangers"
        found.append(Source("pool × pool", pairs, "fakes", note))
    if len(next(iter(known.references.values()))):
        pairs = {name: Impostors.between(known.references[name], v, who, most=_FACES) for name, v in known.vectors.items()}
        note = "the portraits that identities are made of: of people who do not exist, and not selected"
        found.append(Source("reference portraits × known faces", pairs, people.replace("fakes", "portraits"), note))
    return [source for source in found if all(len(pairs) for pairs in source.pairs.values())]


def measured(source: Source, recognizer: str, strict: float) -> dict[str, Any]:
    """One row: a source's rates for a recognizer, plain data.

    Args:
        source: the pairs.
        recognizer: which of them.
        strict: the cosine whose rate is wanted.

    Returns:
        `source`, `note`, `pairs`, `drawn` and `from` (how many of what), `highest` cosine, `matches` (pairs at or above `strict`),
        `sampled` and, unless the source is selected or too small, `rate` and `cosines` of `of_curve`, and `curve` of `calibrate`.
    """
    pairs = source.pairs[recognizer]
    row: dict[str, Any] = {
        "source": source.name,
        "note": source.note,
        "pairs": len(pairs),
        "drawn": pairs.people,
        "from": source.drawn,
        "highest": float(pairs.cosines[0]),
        "matches": int((pairs.cosines >= strict).sum()),
        "sampled": pairs.sampled,
    }
    if source.selected:
        return row
    try:
        plain = calibrate(pairs) if source.drawn == "people" else calibrate(pairs, rounds=_ROUNDS)
    except MeasureError as error:
        return row | {"note": f"{row['note']}; {error}"}
    about = {"recognizer": recognizer, "model_sha256": "", "source": source.name, "created": "", "strict_threshold": strict}
    return row | of_curve(Curve.from_json({**plain, **about}), strict) | {"curve": plain}


def of_curve(curve: Curve, strict: float) -> dict[str, Any]:
    """What a row shows of a curve: `rate` with `low`, `high` and `extrapolated` at `strict`, and `cosines`: one for each of `RATES`."""
    at = curve.at(strict)
    cosines = [(rate, curve.cosine(rate)) for rate in RATES]
    return {
        "rate": {"rate": at.rate, "low": at.low, "high": at.high, "extrapolated": at.extrapolated},
        "cosines": [{"rate": rate, "cosine": cosine, "extrapolated": cosine > curve.tail_start} for rate, cosine in cosines],
    }


def refused(row: Mapping[str, Any]) -> str | None:
    """Why a curve of labelled people is not good enough to choose thresholds by; None if it is."""
    people, pairs = LEAST_CURVE
    if row["drawn"] < people or row["pairs"] < pairs or "curve" not in row:
        return (
            f"{row['drawn']} people with {row['pairs']:,} pairs are too few: {people} people and {pairs:,} pairs are the least, "
            f"for the rate of {STRICT_RATE:g} to be measured and not extrapolated"
        )
    return None


def write_curve(known: KnownPeople, owners: NDArray[np.str_], recognizer: str, row: Mapping[str, Any], people: str) -> Path:
    """Writes WORK/calibration/<recognizer>.json: the format of the shipped curves, from labelled people; its path."""
    mine = np.flatnonzero(owners != "")
    strict, strict_source = strict_threshold(recognizer, row["curve"]["points"])
    by = "the first folder of the path" if people == "folder" else "a table of paths"
    sampled = f"; {row['sampled']}" if row["sampled"] else ""
    plain = {
        "recognizer": recognizer,
        "model_sha256": digests_of([recognizer])[recognizer],
        "source": f"pairs of photos of different people among {row['drawn']} people known to the run, by {by}{sampled}",
        "created": datetime.now(UTC).date().isoformat(),
        "index_digest": known.digest,
        "strict_threshold": strict,
        "strict_source": strict_source,
        **row["curve"],
        "genuine": genuine(known.vectors[recognizer][mine], owners[mine], strict),
    }
    file = known.work / CURVES / f"{recognizer}.json"
    file.parent.mkdir(exist_ok=True)
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(plain, indent=1) + "\n")
    temporary.replace(file)
    return file


def closest_pairs(known: KnownPeople, owners: NDArray[np.str_], source: Source, recognizer: str) -> list[dict[str, Any]]:
    """The most similar pairs of the labelled people, by path: look at them, a wrong label is among the first."""
    mine, pairs = np.flatnonzero(owners != ""), source.pairs[recognizer]
    rows: Sequence[Sequence[int]] = [] if pairs.closest is None else mine[pairs.closest].tolist()
    return [{"cosine": float(c), "paths": [known.paths[i] for i in two]} for c, two in zip(pairs.cosines, rows, strict=False)]


def _scanned(work: Path, wanted: set[str]) -> dict[str, tuple[str, F32]]:
    """image_id → its first path and its faces' boxes (n, 4), of the scan and the galleries."""
    found: dict[str, tuple[str, F32]] = {}
    for file in sorted(file for folder in ("scan", "gallery-*") for file in work.glob(f"{folder}/part-*.parquet")):
        table = pq.ParquetFile(file).read(columns=["image_id", "path", "faces.list.element.box"])
        faces = table["faces"].combine_chunks()
        counts = np.asarray(faces.value_lengths().fill_null(0).to_numpy(zero_copy_only=False), np.int64)
        boxes = matrix(faces.flatten().field("box"), 4)
        stops = np.cumsum(counts)
        for image, path, n, stop in zip(table["image_id"].to_pylist(), table["path"].to_pylist(), counts, stops, strict=True):
            if image in wanted:
                found.setdefault(image, (path, boxes[stop - n : stop]))
    return found


def _named(file: str) -> dict[str, str]:
    """path → person."""
    try:
        with Path(file).open(newline="", encoding="utf-8-sig") as opened:
            rows = list(csv.DictReader(opened))
        return {row["path"]: row["person"] for row in rows}
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise ConfigError(f'--people wants "folder" or a CSV file with the columns path and person; {file}: {error!r}') from error


def _cosines(a: F32, b: F32) -> NDArray[np.float64]:
    return np.asarray(np.einsum("ij,ij->i", a.astype(np.float64), b.astype(np.float64)))
