"""The simulated social network with pictures: generated people in real files, through the whole pipeline, once for each access model."""

from __future__ import annotations

import csv
import hashlib
import io
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq

from mfmc_ray.access.combined import Combined
from mfmc_ray.access.decide import AccessModel, PersonModel, ReplaceAll
from mfmc_ray.access.explicit import Explicit
from mfmc_ray.access.groups import Groups, Party
from mfmc_ray.access.proxy import Proxy
from mfmc_ray.access.rules import Rules
from mfmc_ray.config import EVERYONE, AccessConfig, RunConfig, SwapConfig
from mfmc_ray.evaluate.people import NOTICE, PersonGenerator, cut_out
from mfmc_ray.evaluate.scenes import LOOKS, compose_group, portrait_seed
from mfmc_ray.evaluate.social.behaviour import Behaviour, Said, said
from mfmc_ray.evaluate.social.figures import EXPLICIT, NONE, PROXY, RULES, Figures, figures_of, kept_in
from mfmc_ray.evaluate.social.network import Habits, Network, Photo, make_network, name_of
from mfmc_ray.faces.pack import files_of
from mfmc_ray.faces.store import pull
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.ledger import Ledger
from mfmc_ray.people.enrol import enrol
from mfmc_ray.people.photos import listed
from mfmc_ray.people.quality import Examiner
from mfmc_ray.people.registry import Registry, changing
from mfmc_ray.people.sightings import RECOGNISED, UNKNOWN, Sighting, Sightings
from mfmc_ray.pipeline.known import files_of_stage
from mfmc_ray.pipeline.run import Run
from mfmc_ray.pipeline.workers import SCAN

MOST_PEOPLE = 3
"""In a picture, so that they stand in one row and can be told by their order."""
ENROLLED_PHOTOS = 3
IDENTITIES, ATTEMPTS = 80, 8
"""Fake identities of the pool, and tried on a face: few, for a small collection."""
_FACE_PX, _QUALITY = 120, 92
_GARMENTS = ((58, 74, 104), (122, 52, 56), (62, 92, 78), (176, 140, 92), (96, 112, 138))  # RGB


@dataclass(frozen=True)
class Published:
    """What came out of one model's run.

    Attributes:
        model: one of `figures.MODELS`.
        kept, replaced, redacted: faces.
        wrong: kept, though the tables do not say so of who it really is.
        missed: not kept, though the tables say so of who it really is.
        seconds: of bringing OUT from the model before to this one.
        bytes: of the published pictures.
    """

    model: str
    kept: int
    replaced: int
    redacted: int
    wrong: int
    missed: int
    seconds: float
    bytes: int


@dataclass(frozen=True)
class Pictured:
    """A network whose photos are files.

    Attributes:
        network: with the image_ids of the files, and people in the order of the faces that were found.
        figures: as without pictures, but with who was really recognised.
        published: what each model's run has published.
        lost: photos in which other faces were found than there are people; they are in no figure.
        original_bytes: of all files.
    """

    network: Network
    figures: list[Figures]
    published: list[Published]
    lost: int
    original_bytes: int


def pictured(
    folder: Path, network: Network, behaviour: Behaviour, rng: np.random.Generator, progress: Callable[[str], None] = lambda _: None
) -> Pictured:
    """Draws a network's photos, and anonymizes them under each access model in turn.

    Args:
        folder: made; photos, enrolled people, tables, OUT and WORK are put there.
        network: a small one; photos of at most `MOST_PEOPLE` faces.
        behaviour: what users do.
        rng: decides what they do, and how photos look.
        progress: is told what is being done.
    """
    pull(files_of(["yunet", "centerface", "sface", "dlib", "mesh", "people"]))
    progress(f"drawing {len(network.photos)} photos of people who do not exist")
    network = _draw(folder / "photos", folder / "portraits", network, rng)
    progress("enrolling")
    _enrol(folder / "people", folder / "portraits")
    config = RunConfig(
        input=str(folder / "photos"),
        out=str(folder / "out"),
        work=str(folder / "out-work"),
        access=AccessConfig(people=str(folder / "people")),
        swap=SwapConfig(identities=IDENTITIES, attempts=ATTEMPTS),
    )
    run = Run(config, restart=True, notices=(NOTICE,))
    published = []
    with run.session():
        run.scan()
        known = run.index()
        network, lost = _in_order(network, run.ledger)
        names = {photo.image_id for photo in network.photos}
        sightings = _complete(network, run.sightings)
        rows = said(network, sightings, behaviour, rng)
        tables = _write(folder / "tables", rows)
        for model, (access, right) in _models(config.access, tables, rows, _truth(network)).items():
            progress(f"publishing: {model}")
            started = time.perf_counter()
            run.config = replace(config, access=access)
            run.take_access()
            run.recognise()
            run.publish(known)
            seconds = time.perf_counter() - started
            published.append(_published(model, run, network, names, right, seconds))
    size = sum(file.stat().st_size for file in (folder / "photos").rglob("*.jpg"))
    return Pictured(network, figures_of(network, rows, sightings), published, lost, size)


def _models(access: AccessConfig, tables: Mapping[str, str], rows: Said, truth: Sightings) -> dict[str, tuple[AccessConfig, AccessModel]]:
    """Model → the settings of its run, and what it should decide of who is really in the photos."""

    def settings(model: str, *names: str) -> AccessConfig:
        given: dict[str, Any] = {name: tables[name] for name in names}
        return replace(access, model=model, **given)

    def right(model: PersonModel) -> AccessModel:
        return Combined((model,)).bound(truth)

    groups = Groups.of(rows.groups)
    return {
        NONE: (access, ReplaceAll()),
        PROXY: (settings("proxy", "tags", "trust"), right(Proxy.of(rows.tags, rows.trust))),
        EXPLICIT: (settings("explicit", "consents"), right(Explicit.of(rows.consents))),
        RULES: (settings("rules", "rules", "groups"), right(Rules.of(rows.rules, Party(EVERYONE), groups))),
    }


def small_network(pictures: int, users: int, friends: int, habits: Habits, rng: np.random.Generator) -> Network:
    """A network with so many photos, of at most `MOST_PEOPLE` faces each."""
    network = make_network(users, friends, 2 * pictures / users + 1, habits, rng)
    photos = [photo for photo in network.photos if len(photo.people) <= MOST_PEOPLE]
    chosen = sorted(rng.choice(len(photos), min(pictures, len(photos)), replace=False).tolist())
    return replace(network, photos=tuple(photos[i] for i in chosen))


def _draw(photos: Path, portraits: Path, network: Network, rng: np.random.Generator) -> Network:
    """Writes the photos and the portraits of who is enrolled; the network with the files' image_ids."""
    generator, looks = PersonGenerator(), iter(range(LOOKS // 10, LOOKS))
    strangers = iter(range(len(network), LOOKS))
    for user in np.flatnonzero(network.enrolled).tolist():
        for number in range(ENROLLED_PHOTOS):
            _save(portraits / name_of(user) / f"{number}.jpg", generator.variation(portrait_seed(user), next(looks))[::2, ::2])
    drawn = []
    for photo in network.photos:
        people = [next(strangers) if person is None else person for person in photo.people]
        cut = [cut_out(generator.variation(portrait_seed(p), next(looks)), _GARMENTS[p % len(_GARMENTS)]) for p in people]
        data = _save(photos / photo.path, compose_group(cut, _FACE_PX, rng))
        drawn.append(replace(photo, image_id=hashlib.sha256(data).hexdigest()))
    return replace(network, photos=tuple(drawn))


def _save(path: Path, image: Any) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(np.ascontiguousarray(image)).save(file, "JPEG", quality=_QUALITY)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.getvalue())
    return file.getvalue()


def _enrol(people: Path, portraits: Path) -> None:
    registry = Registry.open(people, new=True)
    done = enrol(registry, listed(str(portraits)), Examiner(), Calibration())
    with changing(people):
        done.registry.write()


def _in_order(network: Network, ledger: Ledger) -> tuple[Network, int]:
    """The network without photos in which not as many faces were found as there are people; the people of the others in the order of the
    faces that were found, of which the leftmost is the first who was drawn. And how many were left out."""
    boxes: dict[str, list[Any]] = {}
    for file in files_of_stage(ledger, SCAN):
        table = pq.ParquetFile(file).read(columns=["image_id", "faces.list.element.box"])
        for row in table.to_pylist():
            boxes[row["image_id"]] = [face["box"] for face in row["faces"] or ()]
    photos: list[Photo] = []
    for photo in network.photos:
        found = boxes.get(photo.image_id, [])
        if len(found) == len(photo.people):
            order = np.argsort(np.argsort([box[0] + box[2] for box in found]))
            photos.append(replace(photo, people=tuple(photo.people[k] for k in order)))
    return replace(network, photos=tuple(photos)), len(network.photos) - len(photos)


def _complete(network: Network, sightings: Sightings) -> Sightings:
    """With the images in which nobody was recognised."""
    nobody = Sighting(None, -1.0, 0.0, UNKNOWN)
    return Sightings({p.image_id: sightings.of(p.image_id) or (nobody,) * len(p.people) for p in network.photos}, "")


def _truth(network: Network) -> Sightings:
    """Who is who: what recognition without errors would see."""

    def seen(person: int | None) -> Sighting:
        known = person is not None and bool(network.enrolled[person])
        return Sighting(name_of(person), 1.0, 1.0, RECOGNISED) if known and person is not None else Sighting(None, -1.0, 0.0, UNKNOWN)

    return Sightings({photo.image_id: tuple(map(seen, photo.people)) for photo in network.photos}, "")


def _write(folder: Path, rows: Said) -> dict[str, str]:
    """The tables as files that a run reads: setting → path."""
    folder.mkdir(parents=True, exist_ok=True)
    plain: dict[str, tuple[str, Iterable[Sequence[Any]]]] = {
        "tags": ("row,image,person,by,allow", rows.tags),
        "trust": ("row,person,trusts,allow", rows.trust),
        "consents": ("row,image,person,allow", rows.consents),
        "rules": ("row,person,audience,image,allow", rows.rules),
        "groups": ("row,group,member", rows.groups),
    }
    for name, (heading, some) in plain.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(heading.split(","))
            writer.writerows([_cell(value) for value in row] for row in some)
    return {name: str(folder / f"{name}.csv") for name in plain}


def _cell(value: Any) -> str:
    return "" if value is None else ("no", "yes")[value] if isinstance(value, bool) else str(value)


def _published(model: str, run: Run, network: Network, names: set[str], right: AccessModel, seconds: float) -> Published:
    """What is in OUT now, held against what should be of who is really in the photos."""
    faces = _table(run, "faces", ["image_id", "face_no", "verdict"]).to_pylist()
    images = _table(run, "images", ["image"]).to_pylist()
    verdicts = {(row["image_id"], row["face_no"]): row["verdict"] for row in faces if row["image_id"] in names}
    wanted = {(photo.image_id, i): bool(keep) for photo in network.photos for i, keep in enumerate(kept_in(right, photo))}
    kept = {face for face, verdict in verdicts.items() if verdict == "kept"}
    count = list(verdicts.values()).count
    should = {face for face, keep in wanted.items() if keep}
    size = sum(len(row["image"]["bytes"] or b"") for row in images if row["image"])
    return Published(
        model, len(kept), count("replaced"), count("redacted"), len(kept - should), len(should - kept), round(seconds, 1), size
    )


def _table(run: Run, name: str, columns: list[str]) -> pa.Table:
    return pa.concat_tables(
        [pq.read_table(pa.BufferReader(run.ledger.read_bytes(file)), columns=columns) for file in run.ledger.files(name)]
    )
