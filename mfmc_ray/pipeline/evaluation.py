"""`mfmc evaluate`: every pair of pictures is looked at by workers, whose notes stay in WORK/evaluation; then the figures are reckoned.

WORK/evaluation/<note>/part-00000.parquet    notes (docs/evaluate.md); private, embeddings of real people among them
WORK/evaluation/evaluation.json              the figures
WORK/evaluation/index.html                   the same for people
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console

from mfmc_ray import __version__
from mfmc_ray.collection import Collection
from mfmc_ray.config import RunConfig
from mfmc_ray.evaluate import beside, faces_note, labels
from mfmc_ray.evaluate.compared import brief_of
from mfmc_ray.evaluate.page import page
from mfmc_ray.evaluate.pair import I64
from mfmc_ray.evaluate.pairing import Pairer, PairingError
from mfmc_ray.evaluate.recognizers import Available, available
from mfmc_ray.evaluate.sections import SCHEMA, About, Collector, Note, Options, chosen
from mfmc_ray.faces import runtime
from mfmc_ray.faces.store import load_lock, pull
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.ledger import Ledger, LedgerError, Stage
from mfmc_ray.parquet import write_parquet
from mfmc_ray.pipeline.known import COMPARISON, EVALUATION
from mfmc_ray.pipeline.leak import clusters
from mfmc_ray.pipeline.paired import Outputs, Plan, plan
from mfmc_ray.pipeline.parts import run_parts
from mfmc_ray.pipeline.session import connect, plan_of, prepare
from mfmc_ray.pipeline.shown import published_of
from mfmc_ray.places import replace_file, text_of
from mfmc_ray.private import private_folder
from mfmc_ray.sources import SourceError, SourceReader

PAGE = "index.html"
"""In the same folder: the figures for people."""
CLUSTERED_BY = ("sface", "dlib")
"""Recognizers that say who is who where no labels do."""


@dataclass(frozen=True)
class Asked:
    """What is evaluated.

    Attributes:
        originals: the collection.
        config: `out`, `work`, `storage_options`, `ray` and `find.max_pixels` are used.
        labels: "folders", a table, or None: faces are clustered.
        options: of the sections.
        beside: NAME=WORK of other evaluations, for one table.
    """

    originals: str
    config: RunConfig
    labels: str | None
    options: Options
    beside: tuple[str, ...] = ()


class EvaluateWorker:
    """Makes notes of the pairs of a part.

    Args:
        ledger: OUT, and WORK/evaluation.
        notes: what is noted.
        digests: of the notes.
        max_pixels: of pictures.
        storage_options: for fsspec.
    """

    def __init__(
        self, ledger: Ledger, notes: Sequence[Note], digests: Mapping[str, str], max_pixels: int, storage_options: Mapping[str, Any]
    ) -> None:
        runtime.use()
        self.ledger, self.notes, self.digests = ledger, notes, digests
        self.pairer, self.reader, self.outputs = Pairer(max_pixels), SourceReader(storage_options), Outputs(ledger)
        self._made: dict[str, Collector] = {}

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        """Does one part of `paired.plan`; only the notes that it lacks."""
        digest = f"{part['digest']}:"
        todo = [
            n
            for n in self.notes
            if (self.ledger.summary_of(stage_of(n), part["part"]) or {}).get("digest") != digest + self.digests[n.name]
        ]
        collectors = {note.name: self._collector(note) for note in todo}
        rows: dict[str, list[dict[str, Any]]] = {note.name: [] for note in todo}
        bad: Counter[str] = Counter()
        faces = 0
        for pair in part["pairs"] if todo else ():
            made = self._pair(pair, bad)
            if made is not None:
                faces += len(made.faces)
                for name, collector in collectors.items():
                    rows[name] += collector.collect(made)
        result = {"images": len(part["pairs"]), "faces": faces, "bad": dict(bad)}
        for note in todo:
            table = pa.Table.from_pylist(rows[note.name], collectors[note.name].schema)
            summary = {**result, "digest": digest + self.digests[note.name]}
            self.ledger.commit_part(stage_of(note), part["part"], {note.name: table}, summary)
        return result

    def _pair(self, pair: Mapping[str, Any], bad: Counter[str]) -> Any:
        place, output = pair["original"], pair["output"]
        try:
            original = self.reader.read(place["unit"], place["locator"], path=pair["path"])
            rows = None
            if output is None:
                published = None
            elif "file" in output:
                published, rows = self.outputs.image(output["file"], output["row"]), self.outputs.faces(pair["faces"], pair["path"])
            else:
                published = self.reader.read(output["unit"], output["locator"], path=pair["path"])
            return self.pairer.pair(pair["path"], pair["verdict"], original, published, rows, pair["image_id"])
        except PairingError as error:
            bad[str(error)] += 1
        except SourceError as error:
            bad[str(error).partition(":")[0]] += 1
        return None

    def _collector(self, note: Note) -> Collector:
        if note.name not in self._made:
            self._made[note.name] = note.make()
        return self._made[note.name]


def stage_of(note: Note) -> Stage:
    """What the ledger commits of it."""
    return Stage(note.name, (note.name,), private=True)


def evaluate(asked: Asked, console: Console | None = None) -> dict[str, Any]:
    """Looks at every pair, and writes WORK/evaluation/evaluation.json; what it holds.

    Raises:
        CollectionError, LedgerError, ConfigError, ModelError, AccessError, PartError: as said there.
    """
    console = console or Console(stderr=True, highlight=False, soft_wrap=True)
    started = time.monotonic()
    config = asked.config
    private_folder(config.work, EVALUATION, Collection.open(asked.originals, config.storage_options).root)
    ledger = Ledger(config.out, str(Path(config.work) / EVALUATION), config.storage_options)
    given = labels.read(asked.labels, config.storage_options) if asked.labels not in (None, labels.FOLDERS) else None
    others = beside.read(asked.beside)
    recognizers = available(asked.options.recognizers)
    for name, why in recognizers.skipped.items():
        console.print(f"[yellow]{name} is left out:[/yellow] {why}")
    planned = plan(asked.originals, ledger, config.storage_options)
    options = _options(asked.options, recognizers, planned)
    sections = chosen(options)
    notes = list({note.name: note for section in sections.values() for note in (*faces_note.NOTES, *section.notes(options))}.values())
    pull(sorted({file for note in notes for file in note.models}))
    run = Ledger(config.out, config.work, config.storage_options)
    with contextlib.ExitStack() as held:
        if (run.work / "run.json").is_file():  # nothing changes OUT meanwhile
            held.enter_context(run.lock())
        held.enter_context(ledger.lock())
        tables, summaries = _noted(ledger, planned, notes, config)
        about = _about(tables, given, asked, options, recognizers.names)
        replace_file(ledger.work / "people.parquet", partial(write_parquet, _people(about)))
        result = {
            "schema": SCHEMA,
            "mfmc_ray": __version__,
            "made": {
                "seconds": round(time.monotonic() - started, 1),
                "seed": options.seed,
                "rounds": options.rounds,
                "plain_folder": planned.plain,
                "guards": list(planned.guards),
                "recognizers": dict(recognizers.digests),
            },
            "images": _images(planned, summaries, tables["images"]),
        }
        with console.status("Reckoning") as status:  # half a minute for 1,000 pictures
            for name, section in sections.items():
                status.update(f"Reckoning: {name}")
                result[name] = section.figures(tables, about)
        if others:
            result["collections"] = beside.collections(result, others)
        if compared := brief_of(Path(config.work) / COMPARISON):
            result["comparisons"] = compared
        replace_file(ledger.work / "evaluation.json", text_of(json.dumps(result, indent=1, ensure_ascii=False) + "\n"))
        html, missing = page(result, None if planned.plain else published_of(ledger))
        replace_file(ledger.work / PAGE, text_of(html))
    if missing:
        console.print(f"[yellow]{PAGE} has tables only:[/yellow] {missing}")
    return result


def _options(options: Options, recognizers: Available, planned: Plan) -> Options:
    extra = {"digests": dict(recognizers.digests), "skipped": dict(recognizers.skipped), "guards": list(planned.guards)}
    return replace(options, recognizers=recognizers.names, extra={**options.extra, **extra})


def _noted(
    ledger: Ledger, planned: Plan, notes: Sequence[Note], config: RunConfig
) -> tuple[dict[str, pa.Table], dict[int, dict[str, Any]]]:
    """Each note's table, all parts; what is missing is made."""
    lock = {model.name: model.sha256 for model in load_lock()}
    digests = {note.name: note.digest(lock) for note in notes}
    wanted = {part["part"]: part["digest"] for part in planned.parts}
    todo: set[int] = set()
    for note in notes:
        done = ledger.recover(stage_of(note))
        for part in done.keys() - wanted.keys():
            ledger.remove_part(stage_of(note), part)
        todo |= {part for part, digest in wanted.items() if done.get(part, {}).get("digest") != f"{digest}:{digests[note.name]}"}
    if todo:
        parts = [part for part in planned.parts if part["part"] in todo]
        with connect(config.ray, ledger.work):
            prepare(sorted({file for note in notes for file in note.models}))
            run_parts(
                EvaluateWorker,
                {
                    "ledger": ledger,
                    "notes": list(notes),
                    "digests": digests,
                    "max_pixels": config.find.max_pixels,
                    "storage_options": dict(config.storage_options),
                },
                parts,
                plan=plan_of(config.ray, services=False),
                label="Evaluating",
                total=sum(len(part["pairs"]) for part in parts),
                on_result=lambda part, summary: None,
            )
    tables = {
        note.name: pa.concat_tables([ledger.read_table(stage_of(note), note.name, part) for part in sorted(wanted)]) for note in notes
    }
    return tables, ledger.done(stage_of(notes[0]))


def _people(about: About) -> pa.Table:
    columns = {"path": about.faces["path"], "face_no": about.faces["face_no"], "verdict": about.faces["verdict"]}
    said = {name: pa.array(list(values), pa.string()) for name, values in about.groups.items()}
    return pa.table({**columns, "person": pa.array(about.person, pa.int64()), **said})


def _about(
    tables: Mapping[str, pa.Table], given: list[labels.Label] | None, asked: Asked, options: Options, recognizers: Sequence[str]
) -> About:
    faces, images = tables["faces"], tables["images"]
    groups = faces_note.groups_of(faces)
    if given is None and asked.labels is None:
        person = clustered(tables, faces.num_rows, [name for name in CLUSTERED_BY if name in recognizers])
        return About(faces, images, person, "clusters", groups, options)
    person, said = labels.assign(labels.of_folders(images) if given is None else given, faces, images)
    if not (person >= 0).any():
        raise LedgerError("no label is about a face that was found: paths must be those of the collection, as OUT's column path has them")
    for name, values in said.items():
        groups[name] = [told or guessed for told, guessed in zip(values, groups[name], strict=True)]
    return About(faces, images, person, labels.FOLDERS if given is None else "table", groups, options)


def clustered(tables: Mapping[str, pa.Table], n: int, by: Sequence[str]) -> I64:
    """int64 (n,): who the faces are as far as recognizers tell, who join two faces only if all of them take them for one person."""
    calibration = Calibration()
    vectors: dict[str, Any] = {}
    for name in by:
        rows = tables[f"embeddings-{name}"]["original"].combine_chunks()
        vectors[name] = np.asarray(rows.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(n, -1)
    if not vectors or not n:
        return np.full(n, -1, np.int64)
    rate = 1 / max(1, n)
    return clusters(vectors, {name: max(calibration.strict_threshold(name), calibration.threshold_for(name, rate)) for name in vectors})


def _images(planned: Plan, summaries: Mapping[int, Mapping[str, Any]], images: pa.Table) -> dict[str, Any]:
    bad: Counter[str] = Counter()
    for summary in summaries.values():
        bad.update(summary.get("bad", {}))
    return {
        "pairs": images.num_rows,
        "verdicts": dict(Counter(images["verdict"].to_pylist())),
        "not_looked_at": dict(bad),
        "without_original": planned.missing,
        "without_output": planned.absent,
    }
