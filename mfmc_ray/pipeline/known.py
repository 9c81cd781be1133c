"""The known faces of a run: the scans that they come from, and the index built from these."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mfmc_ray.faces.faces import F32
from mfmc_ray.faces.pack import digests_of
from mfmc_ray.known.generations import Generations
from mfmc_ray.known.index import KnownFaces, KnownIndex, face_digest
from mfmc_ray.known.search import usable
from mfmc_ray.ledger import Ledger, LedgerError, Stage
from mfmc_ray.people.registry import Registry
from mfmc_ray.pipeline.references import references_of
from mfmc_ray.pipeline.rows import matrix
from mfmc_ray.pipeline.unfit import LEAST_MESH_SCORE
from mfmc_ray.pipeline.workers import GALLERY, SCAN
from mfmc_ray.places import replace_file
from mfmc_ray.tables import embedding_column

EVALUATION, COMPARISON = "evaluation", "comparison"
"""Folder in WORK of what `mfmc evaluate` makes: embeddings of everybody's originals, so it goes when anybody does, and can be made anew."""
_ADDED, _FORGOTTEN, _ENROLLED = "galleries.json", "forgotten.json", "people.json"


def gallery_stages(ledger: Ledger, configured: int) -> list[Stage]:
    """The scans of the galleries: of those in the settings, then of those that were added to the finished run."""
    noted = _noted(ledger)
    first = configured if noted["first"] is None else noted["first"]
    named = [_gallery(number) if number < first else _gallery(f"later-{number}") for number in range(configured)]
    return [*named, *(_gallery(first + k) for k in range(len(noted["added"])))]


def fix_galleries(ledger: Ledger, configured: int) -> None:
    """Notes how many galleries the settings name when a run begins: the names of the scans depend on it, and the settings may change."""
    noted = _noted(ledger)
    if noted["first"] is None:
        _note(ledger, noted | {"first": configured})


def dropped_galleries(ledger: Ledger, configured: int) -> list[Stage]:
    """The scans of galleries that the settings named and name no more."""
    used = {stage.name for stage in gallery_stages(ledger, configured)}
    names = sorted(path.name for path in (ledger.work / "ledger").glob("gallery-*") if path.name not in used)
    begun = _noted(ledger)["begun"] is not None
    return [_gallery(name.removeprefix("gallery-")) for name in names if not (begun and name == _next(ledger, configured).name)]


def added_galleries(ledger: Ledger) -> list[str]:
    """The digest of each added gallery's listing, in the order in which they came; only of those that were scanned to their end."""
    return list(_noted(ledger)["added"])


def begin_gallery(ledger: Ledger, configured: int, digest: str) -> Stage | None:
    """The stage that scans a further gallery; None if it was scanned before. It counts once `end_gallery` has noted it.

    What a killed scan has left is taken up if it was of the same gallery, and else removed: nobody in it is known.

    Args:
        ledger: the folders.
        configured: galleries of the settings.
        digest: of its listing.
    """
    noted = _noted(ledger)
    if digest in noted["added"]:
        return None
    stage = _next(ledger, configured)
    if noted["begun"] != digest:
        discard_gallery(ledger, configured)
        _note(ledger, noted | {"begun": digest, "stage": stage.name})
    return stage


def end_gallery(ledger: Ledger) -> None:
    """Notes that the gallery that was begun has been scanned to its end."""
    noted = _noted(ledger)
    name = noted["stage"]
    parts = noted["parts"] | ({name: len(ledger.done(_gallery(name.removeprefix("gallery-"))))} if name else {})
    _note(ledger, noted | {"added": [*noted["added"], noted["begun"]], "begun": None, "stage": None, "parts": parts})


def discard_gallery(ledger: Ledger, configured: int) -> None:
    """Removes what a killed scan of a further gallery has left."""
    noted = _noted(ledger)
    name = _next(ledger, configured).name
    shutil.rmtree(ledger.work / "ledger" / name, ignore_errors=True)
    shutil.rmtree(ledger.work / name, ignore_errors=True)
    if noted["begun"] is not None:
        _note(ledger, noted | {"begun": None, "stage": None})


def _next(ledger: Ledger, configured: int) -> Stage:
    """The scan of the gallery that is added next."""
    noted = _noted(ledger)
    return _gallery((configured if noted["first"] is None else noted["first"]) + len(noted["added"]))


def _gallery(number: int | str) -> Stage:
    return replace(GALLERY, name=f"gallery-{number}", tables=(f"gallery-{number}",))


def _noted(ledger: Ledger) -> dict[str, Any]:
    path = ledger.work / _ADDED
    noted = json.loads(path.read_text()) if path.is_file() else []
    empty: dict[str, Any] = {"added": [], "begun": None, "first": None, "stage": None, "parts": {}}
    return empty | ({"added": noted} if isinstance(noted, list) else noted)


def _note(ledger: Ledger, noted: Mapping[str, Any]) -> None:
    replace_file(ledger.work / _ADDED, lambda path: path.write_text(json.dumps(noted)))


def files_of_stage(ledger: Ledger, stage: Stage) -> list[Path]:
    """The committed files of a private stage, in order."""
    return [ledger.work / stage.tables[0] / f"part-{part:05d}.parquet" for part in sorted(ledger.done(stage))]


def build_index(
    ledger: Ledger,
    galleries: Sequence[Stage],
    recognizers: Mapping[str, int],
    min_face: float,
    *,
    people: Registry | None = None,
    vectors: bool = True,
) -> KnownIndex:
    """The index with every known face of the scans in it, and the enrolled people: a generation for each source that brings new ones.

    A removal that was killed is completed, and who was removed is taken out of what was scanned since.

    Args:
        ledger: the folders.
        galleries: their stages.
        recognizers: guard recognizer → dimension.
        min_face: smaller faces are not known.
        people: who is enrolled.
        vectors: as of `KnownIndex.open`.

    Raises:
        LedgerError: parts of an added gallery are gone, which nobody could scan again: who is in them would be forgotten.
    """
    whole = _noted(ledger)["parts"]
    for stage in (*galleries, SCAN):
        if len(ledger.recover(stage)) < whole.get(stage.name, 0):
            raise LedgerError(
                f"parts of an added gallery ({ledger.work / stage.tables[0]}) are gone, and who is in them would be forgotten: "
                "restore WORK from a copy, or name the gallery in the settings and start anew with --restart"
            )
    forget_in_scans(ledger, [*galleries, SCAN], recognizers)
    index = KnownIndex.open(ledger.work / "known", recognizers, digests_of(list(recognizers)), vectors=vectors)
    index.purge()
    references = references_of(recognizers)  # of another identity model they are others, and come besides
    names = [f"reference:{i}" for i in range(len(references[next(iter(recognizers))]))]
    index.append(names, ["reference"] * len(names), references)
    stages = [*((stage, "gallery") for stage in galleries), (SCAN, "collection")]
    for stage, source in stages:
        ids, found = known_of(ledger, stage, source, recognizers, min_face)
        if ids:
            index.append(ids, [source] * len(ids), found)
    enrolled = people.known_ids() if people else []
    if people and enrolled:
        index.append(enrolled, ["enrolled"] * len(enrolled), {name: people.vectors(name) for name in recognizers})
    there = {name for stage, source in stages for name in scanned_ids(ledger, stage, source)} | set(enrolled)
    gone = [name for name in index.ids if name not in there and not name.startswith("reference:")]
    if gone:  # their images are not in the collection any more, or they are not enrolled any more
        index.remove(gone, returns=True)
        for name in (EVALUATION, COMPARISON):
            shutil.rmtree(ledger.work / name, ignore_errors=True)
    replace_file(ledger.work / _ENROLLED, lambda path: path.write_text(json.dumps(enrolled)))
    return index


def known_faces(
    ledger: Ledger,
    galleries: Sequence[Stage],
    recognizers: Mapping[str, int],
    min_face: float,
    *,
    people: Registry | None = None,
    vectors: bool = True,
) -> KnownFaces:
    """As `build_index`, what is in it."""
    return build_index(ledger, galleries, recognizers, min_face, people=people, vectors=vectors).faces


def enrolled_ids(ledger: Ledger) -> set[str]:
    """The known ids of the enrolled people who are in the index."""
    path = ledger.work / _ENROLLED
    return set(json.loads(path.read_text())) if path.is_file() else set()


def scanned_ids(ledger: Ledger, stage: Stage, source: str) -> Iterator[str]:
    """The known ids of all faces of a scan."""
    for file in files_of_stage(ledger, stage):
        table = pq.ParquetFile(file).read(columns=["image_id", "faces.list.element.score"])
        yield from named_faces(table, source)[0]


def known_of(
    ledger: Ledger, stage: Stage, source: str, recognizers: Mapping[str, int], min_face: float
) -> tuple[list[str], dict[str, F32]]:
    """The known faces of one scan: their ids and, for each recognizer, float32 (n, d)."""
    ids: list[str] = []
    vectors: dict[str, list[F32]] = {name: [] for name in recognizers}
    seen: set[str] = set()
    for file in files_of_stage(ledger, stage):
        table = pq.read_table(file, columns=["image_id", "faces"])
        names, flat = named_faces(table, source)
        arrays = {name: matrix(flat.field(embedding_column(name)), dim) for name, dim in recognizers.items()}
        good = np.all([usable(array) for array in arrays.values()], axis=0) & recognisable(flat, min_face)
        keep = []
        for i, name in enumerate(names):
            if good[i] and name not in seen:  # a duplicate's faces are known already
                seen.add(name)
                keep.append(i)
        ids += [names[i] for i in keep]
        for recognizer, array in arrays.items():
            vectors[recognizer].append(array[keep])
    return ids, {name: np.concatenate(parts) for name, parts in vectors.items() if parts}


def forgotten_faces(ledger: Ledger) -> set[str]:
    """What stands for everybody whom the index has forgotten for good (`index.face_digest`), or an index that was here before."""
    carried, first = ledger.work / _FORGOTTEN, ledger.work / "known" / "generation-00000.json"
    found = set(json.loads(carried.read_text())) if carried.is_file() else set()
    if first.is_file():
        headers = Generations(first.parent, json.loads(first.read_text())["recognizers"]).headers
        found |= {f.face for header in headers if not header.returns for f in header.forgets}
    return found


def carry_forgotten(ledger: Ledger, also: Set[str] = frozenset()) -> None:
    """Notes whom the index has forgotten, and these known ids: neither a restart nor an image that is put back must bring them back."""
    if found := forgotten_faces(ledger) | {face_digest(name) for name in also}:
        replace_file(ledger.work / _FORGOTTEN, lambda path: path.write_text(json.dumps(sorted(found))))


def forget_in_scans(ledger: Ledger, stages: Sequence[Stage], recognizers: Mapping[str, int], also: Set[str] = frozenset()) -> None:
    """Takes embedding, mesh and attributes of everybody whom the index has forgotten out of the scans.

    Box and points stay, so that the face is covered in an image that is anonymized again.

    Args:
        ledger: the folders.
        stages: the scans.
        recognizers: guard recognizer → dimension.
        also: further known ids; of faces that were not fit for the index, for it does not remember those.
    """
    gone = forgotten_faces(ledger) | {face_digest(name) for name in also}
    if not gone:
        return
    for stage in stages:
        for part, summary in ledger.done(stage).items():
            table = ledger.read_table(stage, stage.tables[0], part)
            names, flat = named_faces(table, "collection" if stage.name == SCAN.name else "gallery")
            there = np.any([matrix(flat.field(embedding_column(name)), dim).any(1) for name, dim in recognizers.items()], axis=0)
            wanted = {name for name, some in zip(names, there, strict=True) if some and face_digest(name) in gone}
            if wanted:
                ledger.renew_part(stage, part, {stage.tables[0]: blanked(table, names, wanted, recognizers)}, summary)


def blanked(table: pa.Table, names: Sequence[str], wanted: Set[str], recognizers: Mapping[str, int]) -> pa.Table:
    """Rows of a scan without embedding, mesh and attributes of these faces.

    Args:
        table: as `tables.scan_schema`.
        names: the known ids of all its faces.
        wanted: those of the faces.
        recognizers: guard recognizer → dimension.
    """
    rows, name = table.to_pylist(), iter(names)
    for row in rows:
        for face in row["faces"] or ():
            if next(name) not in wanted:
                continue
            face |= dict.fromkeys(("mesh_score", "age", "sex", "tone", "beard"), 0.0) | {
                "pose": [0.0] * 3,
                "mesh": [0.0] * len(face["mesh"]),
            }
            face |= {embedding_column(recognizer): [0.0] * dim for recognizer, dim in recognizers.items()}
    return pa.Table.from_pylist(rows, schema=table.schema)


def named_faces(table: pa.Table, source: str) -> tuple[list[str], pa.StructArray]:
    """The known ids of all faces in rows of a scan (its `image_id` and `faces`), and these faces, one after the other."""
    faces = table["faces"].combine_chunks()
    counts = faces.value_lengths().fill_null(0).to_pylist()
    prefix = "" if source == "collection" else f"{source}:"
    return [f"{prefix}{i}:{k}" for i, n in zip(table["image_id"].to_pylist(), counts, strict=True) for k in range(n)], faces.flatten()


def recognisable(faces: pa.StructArray, min_face: float) -> NDArray[np.bool_]:
    """Which detections (rows of the scan's `faces`) are known faces: bool (n,).

    Left out is what cannot be told from others by anyone, and would only be in every fake's way: detections smaller than `min_face`, and
    those that one detector alone saw and the face mesh denies (hands, patterns). They are redacted, never published.
    """
    box = matrix(faces.field("box"), 4)
    size = np.sqrt(np.clip(box[:, 2] - box[:, 0], 0, None) * np.clip(box[:, 3] - box[:, 1], 0, None))
    confirmed = np.array(["+" in name for name in faces.field("detectors").to_pylist()], bool)
    mesh = np.asarray(faces.field("mesh_score").to_numpy(zero_copy_only=False))
    return np.asarray((size >= min_face) & (confirmed | (mesh >= LEAST_MESH_SCORE)))
