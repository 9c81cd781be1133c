"""Changes to the known faces of a finished run: a gallery is added, people are forgotten or not enrolled any more; OUT and pool follow."""

from __future__ import annotations

import contextlib
import itertools
import json
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from mfmc_ray.faces.faces import F32
from mfmc_ray.known.generations import Generations
from mfmc_ray.known.index import KnownIndex, known_rows
from mfmc_ray.known.search import usable
from mfmc_ray.ledger import Ledger, LedgerError, Stage
from mfmc_ray.pipeline import approved, leak
from mfmc_ray.pipeline.known import (
    COMPARISON,
    EVALUATION,
    carry_forgotten,
    discard_gallery,
    files_of_stage,
    forget_in_scans,
    gallery_stages,
    named_faces,
)
from mfmc_ray.pipeline.rows import matrix
from mfmc_ray.pipeline.run import Run
from mfmc_ray.pipeline.workers import SCAN
from mfmc_ray.private import files_below
from mfmc_ray.tables import embedding_column

_NEEDLE = 32
"""Bytes of an embedding that are looked for in files: 8 numbers; chance does not repeat them."""
_SAME = 1 - 1e-5
"""Cosine from which two embeddings are the same one."""


@dataclass(frozen=True)
class Change:
    """What a change has brought about.

    Attributes:
        generation: the newest of the index.
        known: known faces now.
        changed: how many were added or removed.
        identities: identity_ids that no longer held and have left the pool.
        faces: (path, face_no) of published faces that no longer held, by themselves or by their identity; their images were anonymized
            anew.
        report: where all of it is written.
    """

    generation: int
    known: int
    changed: int
    identities: tuple[str, ...]
    faces: tuple[tuple[str, int], ...]
    report: Path


@dataclass(frozen=True)
class Traces:
    """Where embeddings were looked for.

    Attributes:
        embeddings: how many were looked for; 0 if a removal that was killed had taken all of them away.
        files, size: how many files of the private folder, and their bytes.
        found: names of those with an embedding that should be gone.
    """

    embeddings: int
    files: int
    size: int
    found: tuple[str, ...]


def add(run: Run, gallery: str) -> tuple[Change, int]:
    """Makes everybody in a gallery known to a finished run, and everything published hold against them.

    Pool and published faces are compared with the new faces only. What no longer holds is replaced before this returns; until then OUT
    has no manifest. After a crash the same call goes on; whatever else is done to the run instead, a gallery that was not scanned to its
    end is as if it had never been given, and one that was is made known.

    Args:
        run: of `Run.finished`.
        gallery: as any input: a folder, a glob, a URL, Parquet or tar files.

    Returns:
        what changed, and how many pictures of the gallery could not be read, so that nobody in them is known.

    Raises:
        CollectionError, LedgerError: the gallery or the run cannot be used.
    """
    with run.reopened():
        before = _newest(run)
        unread = run.scan_gallery(gallery)
        run.withdraw()
        known = run.known()
        fallen = run.publish(known)
    return _change(run, known.generation, len(known), len(known.since(before)), fallen, {"unread": unread}), unread


def forget(run: Run, ids: Sequence[str]) -> tuple[Change, Traces]:
    """Removes known faces from the index and from the scans, shows that no embedding of theirs is left in WORK, and renews OUT.

    A face that was replaced stays replaced. A forgotten face in an image that is anonymized again is covered: without an embedding nothing
    can be shown about a fake.

    Args:
        run: of `Run.finished`.
        ids: known ids, as `find` gives them.

    Returns:
        what changed, and where the embeddings were looked for. They must not be found anywhere; where they are, the same picture is known
        by another name, too.
    """
    wanted, folder = set(ids), run.ledger.work / "known"
    with run.reopened():
        leak.forget(run.ledger.work / "audit")  # an audit that was killed has left embeddings of originals
        leak.forget(run.ledger.work / EVALUATION)
        leak.forget(run.ledger.work / COMPARISON)
        discard_gallery(run.ledger, len(run.config.guard.galleries))
        for stage in _stages(run):
            run.ledger.recover(stage)
        index = KnownIndex.open(folder, run.recognizers, vectors=False)
        held = np.flatnonzero(np.isin(index.faces.ids, np.array(sorted(name.encode() for name in wanted))))
        vectors = [_stored(run, wanted), *(known_rows(folder, run.recognizers, int(row), int(row) + 1).vectors for row in held)]
        run.withdraw()
        carry_forgotten(run.ledger, wanted)  # also who is not in the index now, and may be scanned again
        removed = index.remove(wanted)
        forget_in_scans(run.ledger, _stages(run), run.recognizers, wanted)
        traces = look_for(run.ledger.work, {name: np.concatenate([some[name] for some in vectors]) for name in run.recognizers})
        fallen = run.publish(run.known())
    proof = {"files": traces.files, "bytes": traces.size, "embeddings": traces.embeddings, "found": list(traces.found)}
    return _change(run, index.generation, len(index), removed, fallen, {"removed": sorted(wanted), "searched": proof}), traces


def enrolment(run: Run) -> tuple[Change, Traces]:
    """Brings a finished run up to date with who is enrolled now: whoever is not any more leaves the index and is recognised in no image.

    Args:
        run: of `Run.finished`.

    Returns:
        what changed, and where embeddings of photos that are not enrolled any more were looked for. They are still found if the same photo
        is in the collection or a gallery, too.
    """
    folder = run.ledger.work / "known"
    with run.reopened():
        index = KnownIndex.open(folder, run.recognizers, vectors=False)
        now = set(run.people.known_ids() if run.people else ())
        gone = [name for name in index.ids if name.startswith("person:") and name not in now]
        held = np.flatnonzero(np.isin(index.faces.ids, np.array(gone, np.bytes_)))
        none = {name: np.zeros((0, dim), np.float32) for name, dim in run.recognizers.items()}
        vectors = [none, *(known_rows(folder, run.recognizers, int(row), int(row) + 1).vectors for row in held)]
        run.withdraw()
        approved.begin(run.ledger.work, run.access, run.people, resumed=False)
        known = run.known()
        traces = look_for(run.ledger.work, {name: np.concatenate([some[name] for some in vectors]) for name in run.recognizers})
        fallen = run.publish(known)
    proof = {"files": traces.files, "bytes": traces.size, "embeddings": traces.embeddings, "found": list(traces.found)}
    return _change(run, known.generation, len(known), len(gone), fallen, {"removed": gone, "searched": proof}), traces


def find(run: Run, *, paths: Sequence[str] = (), images: Sequence[str] = (), ids: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Scanned faces that were asked for: (known id, path) of each, galleries first.

    Args:
        run: of `Run.finished`.
        paths: patterns of paths in the collection or a gallery, such as `ada/*`; all faces in these images.
        images: image_ids (sha-256 of the file).
        ids: known ids.
    """
    found = []
    for stage in _stages(run):
        for file in files_of_stage(run.ledger, stage):
            table = pq.read_table(file, columns=["image_id", "path", "faces"])
            names, _ = named_faces(table, "collection" if stage is SCAN else "gallery")
            counts = table["faces"].combine_chunks().value_lengths().fill_null(0).to_pylist()
            owners = [row for row, n in enumerate(counts) for _ in range(n)]
            rows = table.select(["image_id", "path"]).to_pylist()
            for name, owner in zip(names, owners, strict=True):
                path, image = rows[owner]["path"], rows[owner]["image_id"]
                if name in ids or image in images or any(fnmatch(path, pattern) for pattern in paths):
                    found.append((name, path))
    return found


def look_for(folder: Path, vectors: Mapping[str, F32]) -> Traces:
    """Looks for embeddings in every file of a folder: for their bytes, and in Parquet files for the same vectors.

    Args:
        folder: the private one.
        vectors: recognizer → float32 (n, d).
    """
    wanted = {name: np.unique(array[usable(array)], axis=0) for name, array in vectors.items()}
    needles = [row.tobytes()[:_NEEDLE] for array in wanted.values() for row in array]
    files, size, found = 0, 0, []
    for path in sorted(files_below(folder)):
        with contextlib.suppress(FileNotFoundError):  # Ray's own files come and go
            if not path.is_file() or not (length := path.stat().st_size):
                continue
            with path.open("rb") as file, mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ) as data:
                hit = any(data.find(needle) >= 0 for needle in needles)
            if hit or (path.suffix == ".parquet" and any(_holds(path, name, v) for name, v in wanted.items())):
                found.append(str(path.relative_to(folder)))
            files, size = files + 1, size + length
    return Traces(len(needles), files, size, tuple(found))


def _holds(path: Path, recognizer: str, vectors: F32) -> bool:
    """Whether a Parquet file has one of these embeddings, at the top or in its `faces`."""
    column, file = embedding_column(recognizer), pq.ParquetFile(path)
    for name in (column, f"faces.list.element.{column}"):
        if not len(vectors) or not any(leaf.startswith(name + ".") for leaf in (str(c.path) for c in file.schema)):
            continue
        for batch in file.iter_batches(batch_size=4096, columns=[name]):
            array = batch.column(0).flatten().field(column) if name != column else batch.column(0)
            if len(array) and float((matrix(array, vectors.shape[1]) @ vectors.T).max()) >= _SAME:
                return True
    return False


def _stages(run: Run) -> list[Stage]:
    return [*gallery_stages(run.ledger, len(run.config.guard.galleries)), SCAN]


def _stored(run: Run, wanted: set[str]) -> dict[str, F32]:
    """The embeddings of these faces in the scans."""
    vectors = {name: [np.zeros((0, dim), np.float32)] for name, dim in run.recognizers.items()}
    for stage in _stages(run):
        for file in files_of_stage(run.ledger, stage):
            names, flat = named_faces(pq.read_table(file, columns=["image_id", "faces"]), "collection" if stage is SCAN else "gallery")
            mine = np.array([name in wanted for name in names], bool)
            for name, dim in run.recognizers.items():
                vectors[name].append(matrix(flat.field(embedding_column(name)), dim)[mine])
    return {name: np.concatenate(parts) for name, parts in vectors.items()}


def _newest(run: Run) -> int:
    return len(Generations(run.ledger.work / "known", run.recognizers).headers) - 1


def _change(run: Run, generation: int, known: int, changed: int, fallen: list[dict[str, Any]], more: dict[str, Any]) -> Change:
    """Writes the report and sums it up."""
    identities = tuple(sorted({row["identity_id"] for row in fallen if "face_no" not in row}))
    faces = tuple(sorted({(row["path"], row["face_no"]) for row in fallen if "face_no" in row}))
    folder = run.ledger.work / "changes"
    folder.mkdir(mode=0o700, exist_ok=True)
    # a change that was killed and repeated has several; the proof of a removal is not to be lost to a command that had nothing to do
    names = (f"generation-{generation:05d}{f'-{n}' if n > 1 else ''}.json" for n in itertools.count(1))
    report = next(path for path in (folder / name for name in names) if not path.exists())
    plain = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "generation": generation,
        "known_faces": known,
        "changed": changed,
        "identities": [row for row in fallen if "face_no" not in row],
        "faces": [row for row in fallen if "face_no" in row],
        **more,
    }
    report.write_text(json.dumps(plain, indent=1) + "\n")
    return Change(generation, known, changed, identities, faces, report)


def generations(ledger: Ledger) -> list[dict[str, Any]]:
    """The generations of a run's index: `generation`, `created`, `rows`, `removed` since, `removes`, `digest`.

    Raises:
        LedgerError: there is no index.
    """
    first = ledger.work / "known" / "generation-00000.json"
    if not first.is_file():
        raise LedgerError(f"there is no known-face index in {ledger.work}; run `mfmc index` first")
    index = Generations(first.parent, json.loads(first.read_text())["recognizers"])
    return [
        {
            "generation": header.number,
            "created": header.created,
            "rows": header.rows,
            "removed": header.rows - index.live(header.number),
            "removes": len(header.forgets),
            "digest": header.digest,
        }
        for header in index.headers
    ]
