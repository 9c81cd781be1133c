"""`mfmc evaluate compare`: many methods on the same faces of the same pictures, judged by the same eyes.

WORK/comparison/scan.parquet, faces/, METHOD/    what was found and noted; private, embeddings of real people among them
WORK/comparison/comparison.json                  the figures; also `comparisons` of an evaluation's evaluation.json
WORK/comparison/comparison.md, frontier.*, methods.jpg

One process does one picture after the other, so that times can be held against each other. What is done of a method stays done.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mfmc_ray import __version__
from mfmc_ray.collection import Collection, CollectionError
from mfmc_ray.config import MORPH, ConfigError, RunConfig
from mfmc_ray.evaluate import faces_note, frontier, kept, labels, recognition
from mfmc_ray.evaluate.baselines import BASELINES
from mfmc_ray.evaluate.compared import TITLE, brief_of, figures_of, markdown, sheet
from mfmc_ray.evaluate.recognizers import Available, available
from mfmc_ray.evaluate.sections import About, Options, chosen
from mfmc_ray.faces.pack import files_of
from mfmc_ray.faces.store import pull
from mfmc_ray.identities.model import load_model
from mfmc_ray.ledger import LedgerError
from mfmc_ray.pipeline.evaluation import clustered
from mfmc_ray.pipeline.judging import Judge, Pictures
from mfmc_ray.pipeline.known import COMPARISON, EVALUATION
from mfmc_ray.pipeline.methods import METRICS, RULES, Method, Plain, Swapping, fakes, pool_of, with_swapper
from mfmc_ray.pipeline.paired import Place, places_of
from mfmc_ray.places import replace_file, text_of
from mfmc_ray.private import private_folder
from mfmc_ray.runlock import RunLock
from mfmc_ray.swap.render import MorphSwapper
from mfmc_ray.swap.swappers import fetch, swapper_of

PHOTOS = 2
"""Most photos of a person, as long as there are other people."""
GROUPS = ("baselines", "swappers", "fakes")
"""Names for several methods."""
ALSO = ("utility", "structure")
"""Sections of an evaluation that are asked of every method, too."""


@dataclass(frozen=True)
class Asked:
    """What is compared.

    Attributes:
        originals: the collection.
        config: `work`, `storage_options` and what decides a run are used.
        labels: as of an evaluation.
        options: recognizers, sections (of `ALSO`), seed and rounds are used.
        methods: names of methods or of `GROUPS`; None: all.
        swappers: YAML files of further ones.
        images: most pictures.
        identities: in the pool.
        plot: whether there is one.
    """

    originals: str
    config: RunConfig
    labels: str | None
    options: Options
    methods: tuple[str, ...] | None = None
    swappers: tuple[str, ...] = ()
    images: int = 200
    identities: int = 200
    plot: bool = True


def compare(asked: Asked, console: Console | None = None) -> dict[str, Any]:
    """Compares, and writes WORK/comparison/; what comparison.json holds.

    Raises:
        CollectionError, LedgerError, ConfigError, ModelError, AccessError, SourceError: as said there.
    """
    console = console or Console(stderr=True, highlight=False, soft_wrap=True)
    started, config = time.monotonic(), asked.config
    if asked.plot:
        frontier.require()
    names = _wanted(asked.methods, config.guard.recognizers)
    root = Collection.open(asked.originals, config.storage_options).root
    folder = private_folder(config.work, COMPARISON, root)
    with contextlib.ExitStack() as held:
        if (folder.parent / "run.json").is_file():  # whose pictures must go, goes with nobody writing
            held.enter_context(RunLock(folder.parent / "run.lock"))
        held.enter_context(RunLock(folder / "run.lock"))
        return _compared(asked, names, folder, console, started)


def _compared(asked: Asked, names: set[str], folder: Path, console: Console, started: float) -> dict[str, Any]:
    config = asked.config
    given = labels.read(asked.labels, config.storage_options) if asked.labels not in (None, labels.FOLDERS) else None
    found = available(asked.options.recognizers)
    options = _options(asked, found)
    also = ALSO if options.sections is None else options.sections
    if unknown := [name for name in also if name not in ALSO and name != "none"]:
        raise ConfigError(f"a comparison has no section {unknown[0]!r}; it has: {', '.join(ALSO)}, none")
    sections = chosen(replace(options, sections=tuple(name for name in also if name in ALSO)))
    notes = [kept.NOTE, *recognition.notes(options), *(note for section in sections.values() for note in section.notes(options))]
    pull(sorted({file for note in (*faces_note.NOTES, *notes) for file in note.models}))
    pull(files_of([*config.find.detectors, *config.guard.recognizers, "mesh", "attributes", "hands"]))
    cv2.setNumThreads(1)
    with _progress(console) as bar:
        pictures = Pictures(folder, config, _chosen(asked, given), bar)
        methods, left_out = _methods(asked, names, pictures)
        for name, why in {**found.skipped, **left_out}.items():
            console.print(f"[yellow]{name} is left out:[/yellow] {why}")
        judge = Judge(folder, pictures, notes, bar)
        summaries = judge(methods)
    about = _about(judge.base("faces"), judge.base("images"), judge, methods, given, asked, options)
    reference = _reference()
    rows = []
    for method in methods:
        tables = {note.name: judge.table(method.name, note, summaries[method.name]) for note in notes}
        tables |= {note.name: judge.base(note.name) for note in faces_note.NOTES}
        rows.append(figures_of(method.name, method.title, method.kind, tables, about, summaries[method.name], reference, sections))
    rows = _with_twins(rows, summaries)
    result = {
        "schema": 1,
        "mfmc_ray": __version__,
        "title": TITLE,
        "made": {
            "seconds": round(time.monotonic() - started, 1),
            "seed": asked.options.seed,
            "labels": about.labels,
            "recognizers": dict(found.digests),
            "guards": list(config.guard.recognizers),
            "reference_ms": reference,
            "identities": asked.identities,
        },
        "images": pictures.images,
        "faces": len(about),
        "people": len(set(about.person.tolist()) - {-1}),
        "left_out": left_out,
        "methods": rows,
        "front": _front(rows),
    }
    _write(folder, result, judge, methods, asked)
    return result


def _write(folder: Path, result: dict[str, Any], judge: Judge, methods: Sequence[Method], asked: Asked) -> None:
    if asked.plot:
        frontier.draw(result["methods"], [folder / "frontier.png", folder / "frontier.svg"])
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    replace_file(folder / "comparison.json", text_of(text))
    replace_file(folder / "comparison.md", text_of(markdown(result)))
    picture = sheet([(method.title, judge.tiles(method.name)) for method in methods])
    cv2.imwrite(str(folder / "methods.jpg"), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    evaluation = Path(asked.config.work) / EVALUATION / "evaluation.json"
    if evaluation.is_file():
        whole = json.loads(evaluation.read_text(encoding="utf-8")) | {"comparisons": brief_of(folder)}
        replace_file(evaluation, text_of(json.dumps(whole, indent=1, ensure_ascii=False) + "\n"))


def _wanted(asked: Sequence[str] | None, guards: Sequence[str]) -> set[str]:
    """Names of methods, those of groups among them.

    Raises:
        ConfigError: there is no such method.
    """
    groups = {
        "baselines": set(BASELINES),
        "swappers": {MORPH},
        "fakes": {f"fake-{metric}-{guard}-{rule}" for metric in METRICS for guard in guards for rule in RULES},
    }
    every = set().union(*groups.values())
    if unknown := [name for name in asked or () if name not in every and name not in groups]:
        hint = ", ".join([*GROUPS, *sorted(groups["fakes"] if unknown[0].startswith("fake") else every - groups["fakes"])])
        raise ConfigError(f"there is no method {unknown[0]!r}; there are: {hint}")
    found = {one for name in asked or GROUPS for one in groups.get(name, {name})}
    # the two choose the same, and cosine's row has l2's beside it
    return {name.replace("-l2-", "-cosine-") if name in groups["fakes"] else name for name in found}


def _methods(asked: Asked, names: set[str], pictures: Pictures) -> tuple[list[Method], dict[str, str]]:
    """What is compared, and what cannot be had."""
    config, left_out, found = asked.config, dict[str, str](), list[Method]()
    for name in BASELINES:
        if name in names:
            try:
                found.append(Plain(name, config.output.jpeg_quality))
            except ConfigError as error:
                if asked.methods is not None and name in asked.methods:
                    raise
                left_out[name] = str(error)
    pool = pool_of(pictures.pack, pictures.scan, config, asked.identities)
    morph = MorphSwapper(load_model())
    own = with_swapper(config, MORPH)
    if MORPH in names:
        found.append(Swapping(MORPH, "mfmc-ray, embedded swapper", morph, own, pool))
    for file in asked.swappers:
        other = with_swapper(config, file)
        fetch(other.swap)
        swapper = swapper_of(other.swap)
        name = "swapper-" + "".join(c if c.isalnum() else "-" for c in swapper.name.lower())
        found.append(Swapping(name, swapper.name, swapper, other, pool))
    found += fakes(morph, own, pool, sorted(names))
    if not found:
        raise ConfigError("nothing is left to compare: name other --methods")
    return found, left_out


def _options(asked: Asked, found: Available) -> Options:
    extra = {"digests": dict(found.digests), "skipped": dict(found.skipped), "guards": list(asked.config.guard.recognizers)}
    return replace(asked.options, recognizers=found.names, extra={**asked.options.extra, **extra})


def _chosen(asked: Asked, given: Sequence[labels.Label] | None) -> list[tuple[str, Place]]:
    """Some pictures, the same ones each time: several of a person where that is known, of as many people as there is room for."""
    places = sorted(places_of(asked.originals, asked.config.storage_options))
    if not places:
        raise CollectionError(f"{asked.originals} has no pictures")
    rng = np.random.default_rng(asked.options.seed)
    places = [places[i] for i in rng.permutation(len(places))]
    if asked.labels is None:
        return places[: asked.images]
    who = {label.path: label.person for label in given} if given else {p: p.rpartition("/")[0].partition("/")[0] for p, _ in places}
    photos: dict[str, list[tuple[str, Place]]] = {}
    for path, place in places:
        photos.setdefault(who.get(path, ""), []).append((path, place))
    nobody = photos.pop("", [])
    several = sorted(photos, key=lambda name: len(photos[name]) < 2)  # stable: chance decides among equals
    some = [one for name in several for one in photos[name][:PHOTOS]]
    return (some + [one for name in several for one in photos[name][PHOTOS:]] + nobody)[: asked.images]


def _about(
    faces: pa.Table,
    images: pa.Table,
    judge: Judge,
    methods: Sequence[Method],
    given: list[labels.Label] | None,
    asked: Asked,
    options: Options,
) -> About:
    """As of an evaluation."""
    groups = faces_note.groups_of(faces)
    if asked.labels is None:
        notes = {note.name: note for note in judge.notes}
        by = [name for name in ("sface", "dlib") if f"embeddings-{name}" in notes]
        tables = {f"embeddings-{n}": judge.table(methods[0].name, notes[f"embeddings-{n}"], judge.pictures.parts()) for n in by}
        return About(faces, images, clustered(tables, faces.num_rows, by), "clusters", groups, options)
    person, said = labels.assign(labels.of_folders(images) if given is None else given, faces, images)
    if not (person >= 0).any():
        raise LedgerError("no label is about a face that was found: paths must be those of the collection")
    for name, values in said.items():
        groups[name] = [told or guessed for told, guessed in zip(values, groups[name], strict=True)]
    return About(faces, images, person, labels.FOLDERS if given is None else "table", groups, options)


def _with_twins(rows: list[dict[str, Any]], summaries: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The rows, and after each choice by cosine that by l2, which is the same one; how often it was, is counted."""
    found = []
    for row in rows:
        found.append(row)
        if row["kind"] == "fake":
            same, of = (sum(part[name] for part in summaries[row["method"]]) for name in ("agreed", "chosen"))
            twin = {"method": row["method"].replace("-cosine-", "-l2-"), "title": row["title"].replace("cosine", "l2")}
            found.append(row | twin | {"same_as": row["method"], "agreement": {"same": same, "of": of}})
    return found


def _front(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    some = frontier.placeable(rows)
    return [some[i]["method"] for i in frontier.front([(m["privacy"]["value"], m["utility"]["score"]["value"]) for m in some])]


def _reference(rounds: int = 9) -> float:
    """CPU ms of blurring a picture of a megapixel (σ 5 px), here and now: what times are held against."""
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), np.uint8)
    times = []
    for _ in range(rounds):
        start = time.process_time()
        cv2.GaussianBlur(noise, (0, 0), 5)
        times.append(1000 * (time.process_time() - start))
    return round(float(np.median(times)), 3)


def _progress(console: Console) -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    return Progress(*columns, console=console, transient=True)
