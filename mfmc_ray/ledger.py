"""What a run's folders hold: committed parts, the run's identity, the lock.

OUT is published: a local folder or a URL such as `s3://bucket/prefix`. WORK is private (embeddings of real people): a local folder, on a
cluster one that all nodes mount.

    OUT/<table>/part-00000.parquet     complete files only, whenever one looks
    WORK/<table>/part-00000.parquet    the tables of private stages
    WORK/ledger/<stage>/part-00000.json  marker: this part is committed
    WORK/run.json                      which run this is
    WORK/run.lock                      who is at it

A file appears in one step: local ones are written under a hidden name that no reader's `*.parquet` matches, synced and renamed; remote
ones are written in WORK and put as one object. A part is committed once its marker is there; `recover` removes what a crashed run left
without one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mfmc_ray.places import LEAST_WORK, LedgerError, LocalPlace, RemotePlace, full, inside, is_remote, is_temporary
from mfmc_ray.runlock import RunLock

__all__ = ["Ledger", "LedgerError", "Stage", "write_parquet"]

ROWS_PER_GROUP = 128
GROUP_BYTES = 128 << 20
_PART = re.compile(r"part-(\d+)\.(parquet|json)")
_COMING = re.compile(r"next-(\d+)\.parquet")
"""A private part as it becomes, until it takes the place of what it was."""
_PRIVATE = ("scan", "gallery-*", "galleries.json", "known", "pool", "published", "report", "audit", "calibration-used", "times.json")
"""What a run makes in WORK, and a restart removes: an index that stayed would be taken for the new run's."""
_PUBLISHED = ("manifest.json", "audit.json", "README.md", "images", "faces", "identities", "report")
"""What a run makes in OUT; a restart removes these and nothing else. The manifest goes first: without it OUT is no finished dataset."""


@dataclass(frozen=True)
class Stage:
    """A pass that commits parts.

    Attributes:
        name: of its markers' folder.
        tables: its tables in the order in which a part's files appear; last the one that refers to the others.
        private: whether they are in WORK rather than in OUT.
        kept: further tables, which are in WORK in any case.
    """

    name: str
    tables: tuple[str, ...]
    private: bool = False
    kept: tuple[str, ...] = ()


class Ledger:
    """The folders of one run. Plain data and thus picklable: workers commit, the driver begins, recovers and locks.

    Args:
        out: local folder or URL.
        work: local folder.
        storage_options: for fsspec, of `out`.

    Raises:
        LedgerError: WORK is remote, or is in OUT.
    """

    def __init__(self, out: str, work: str, storage_options: Mapping[str, Any] | None = None) -> None:
        if is_remote(work):
            raise LedgerError(f"WORK must be a local folder (on a cluster: one that all nodes mount), not {work}")
        self.out, self.work = full(out), Path(full(work))
        if inside(str(self.work), self.out):
            raise LedgerError(f"WORK ({work}) is in OUT ({out}), so real people's embeddings would be published; put it elsewhere")
        self._private = LocalPlace(self.work)
        options = dict(storage_options or {})
        self._public = RemotePlace(self.out, self.work / "staging", options) if is_remote(out) else LocalPlace(Path(self.out))

    def check_input(self, root: str) -> None:
        """Refuse an input that the run would read its own output from, or write into.

        Args:
            root: the collection's root, as its store spells it.

        Raises:
            LedgerError: OUT or WORK is in the input, or the input in OUT.
        """
        root = full(root)
        for name, place in (("OUT", self.out), ("WORK", str(self.work))):
            if inside(place, root):
                raise LedgerError(f"{name} ({place}) is in the input ({root}), where it would be read as input; put it elsewhere")
        if inside(root, self.out):
            raise LedgerError(f"the input ({root}) is in OUT ({self.out}), so the originals would be published; put OUT elsewhere")

    def begin(self, config_digest: str, input_digest: str, *, restart: bool = False) -> bool:
        """Take up the run in WORK, or start one. Hold the lock.

        Args:
            config_digest: of the settings that decide the result.
            input_digest: of the listed units.
            restart: remove what this WORK's run has made in OUT and WORK, and start anew. Killed meanwhile, it can only be restarted again.

        Returns:
            Whether an earlier run goes on.

        Raises:
            LedgerError: WORK belongs to another run, or OUT holds what is not this WORK's.
        """
        identity = {"config": config_digest, "input": input_digest, "out": self.out}
        self._make_work()
        try:
            old = json.loads(self._private.read("run.json"))
        except FileNotFoundError:
            old = None
        except ValueError:
            raise LedgerError(f"{self.work}/run.json is damaged: give a new WORK and an empty OUT") from None
        if old is not None and not restart:
            words = {"config": "settings", "input": "input files", "out": f"OUT (it was {old.get('out')})"}
            changed = [word for key, word in words.items() if old.get(key) != identity[key]]
            if changed:
                raise LedgerError(
                    f"WORK ({self.work}) holds a run with other {' and '.join(changed)}: undo the change to resume it, "
                    "give another WORK and OUT, or start anew with --restart"
                )
            return True
        mine = old is not None and old.get("out") == self.out
        if not mine and (strangers := self._public.names()):
            raise LedgerError(
                f"OUT ({self.out}) is not empty (it holds {strangers[0]}) and was not made with this WORK ({self.work}): "
                "give an empty OUT, or the WORK that belongs to it"
            )
        if old is not None:
            self._private.replace("run.json", _text(json.dumps({"out": self.out})))  # until all is gone nobody resumes what is left
            shutil.rmtree(self.work / "ledger", ignore_errors=True)  # before the files: a file without a marker is what `recover` removes
            for name in _PUBLISHED if mine else ():
                self._public.remove(name)
            for path in [path for pattern in _PRIVATE for path in self.work.glob(pattern)]:
                self._private.remove(path.name)
        shutil.rmtree(self.work / "ledger", ignore_errors=True)
        self._private.replace("run.json", _text(json.dumps({**identity, "begun": time.ctime()}, indent=2)))
        return False

    def probe(self) -> None:
        """See, before the work, whether WORK and OUT can be written to.

        Raises:
            LedgerError, StoreError: one of them cannot; the message says why.
        """
        self._make_work()
        self._private.probe(LEAST_WORK)
        self._public.probe()

    def lock(self) -> RunLock:
        """A context manager in which this process alone works on WORK.

        Raises:
            LedgerError: (on entering) another process holds it; the message names it.
        """
        self._make_work()
        return RunLock(self.work / "run.lock")

    def commit(
        self, table_name: str, part_id: int, table: pa.Table, metadata: Mapping[str, str] | None = None, *, private: bool = False
    ) -> dict[str, Any]:
        """Write one part of a table; again with the same rows gives the same file.

        Args:
            table_name: its folder.
            part_id: its number.
            table: the rows.
            metadata: added to the schema's.
            private: in WORK rather than OUT.

        Returns:
            What a marker holds: `file`, `rows`, `bytes`, `sha256`.
        """
        if metadata:
            table = table.replace_schema_metadata({**(table.schema.metadata or {}), **metadata})
        name = f"{table_name}/part-{part_id:05d}.parquet"
        size, digest = self._place(private).replace(name, lambda path: write_parquet(table, path), table.nbytes)
        return {"file": name, "rows": table.num_rows, "bytes": size, "sha256": digest}

    def commit_part(
        self,
        stage: Stage,
        part_id: int,
        tables: Mapping[str, pa.Table],
        summary: Mapping[str, Any],
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Write a part's tables, then the marker that makes it done.

        Args:
            stage: whose part it is.
            part_id: its number.
            tables: each of the stage's tables.
            summary: plain data, given back by `done`.
            metadata: added to the tables' schema metadata.

        Raises:
            ValueError: `tables` are not those of the stage.
        """
        every = {*stage.tables, *stage.kept}
        if set(tables) != every:
            raise ValueError(f"stage {stage.name} commits {', '.join(sorted(every))}, not {', '.join(tables)}")
        self._commit_part(stage, part_id, tables, summary, {}, metadata)

    def renew_part(self, stage: Stage, part_id: int, tables: Mapping[str, pa.Table], summary: Mapping[str, Any]) -> None:
        """Write some tables of a committed part anew, and its marker; the others stay as they are.

        A part of a private stage is committed at every moment, as it was or as it becomes: what it was made from may be gone by now.

        Raises:
            ValueError: the part is not committed, or has no such table.
        """
        marker = self._markers(stage).get(part_id)
        if marker is None or not set(tables) <= {*stage.tables, *stage.kept}:
            raise ValueError(f"part {part_id} of stage {stage.name} is not committed, or has no table {', '.join(tables)}")
        if not stage.private:
            self._commit_part(stage, part_id, tables, summary, marker, None)
            return
        entries = {entry["file"]: entry for entry in marker["files"]}
        for name, table in tables.items():
            size, digest = self._private.replace(_coming(name, part_id), partial(write_parquet, table))
            file = f"{name}/part-{part_id:05d}.parquet"
            entries[file] = {"file": file, "rows": table.num_rows, "bytes": size, "sha256": digest}
        marker |= {"files": list(entries.values()), "summary": dict(summary)}
        self._private.replace(_marker(stage, part_id), _text(json.dumps(marker)))
        self._arrive(stage)

    def _arrive(self, stage: Stage) -> None:
        """Puts the parts that `renew_part` has committed into their places, and removes those that it had not."""
        for table in stage.tables if stage.private else ():
            for name in self._private.sizes(table):
                if match := _COMING.fullmatch(name):
                    coming, file = self.work / table / name, f"{table}/part-{int(match[1]):05d}.parquet"
                    marker = self._markers(stage, int(match[1])).get(int(match[1]), {"files": []})
                    digest = hashlib.sha256(coming.read_bytes()).hexdigest()
                    if any((entry["file"], entry["sha256"]) == (file, digest) for entry in marker["files"]):
                        coming.replace(self.work / file)
                    else:
                        coming.unlink()

    def _commit_part(
        self,
        stage: Stage,
        part_id: int,
        tables: Mapping[str, pa.Table],
        summary: Mapping[str, Any],
        before: Mapping[str, Any],
        metadata: Mapping[str, str] | None,
    ) -> None:
        name = _marker(stage, part_id)
        self._private.remove(name)  # while it is rewritten it is not done
        entries: dict[str, list[dict[str, Any]]] = {"kept": [], "files": []}
        for key, names, private in (("kept", stage.kept, True), ("files", stage.tables, stage.private)):
            old = {entry["file"].partition("/")[0]: entry for entry in before.get(key, ())}
            for table in names:
                written = table in tables
                entries[key].append(self.commit(table, part_id, tables[table], metadata, private=private) if written else old[table])
        self._private.replace(name, _text(json.dumps({**entries, "summary": dict(summary)})))

    def done(self, stage: Stage) -> dict[int, dict[str, Any]]:
        """The summaries of the committed parts, by part."""
        return {part: marker["summary"] for part, marker in self._markers(stage).items()}

    def recover(self, stage: Stage) -> dict[int, dict[str, Any]]:
        """Put right what a crash left; call it with the lock held, before work goes on.

        Files without a marker and unfinished ones are removed, and markers whose files are not all there as they were committed.

        Returns:
            As `done`.
        """
        self._arrive(stage)
        markers = self._markers(stage)
        # what is published last: a part whose private files are gone is taken out of OUT
        for key, tables, place in (("kept", stage.kept, self._private), ("files", stage.tables, self._place(stage.private))):
            sizes = {f"{table}/{name}": size for table in tables for name, size in place.sizes(table).items()}
            for part, marker in list(markers.items()):
                listed = {file["file"].partition("/")[0] for file in marker[key]}  # of older versions a part may lack a table
                if listed != set(tables) or any(sizes.get(file["file"]) != file["bytes"] for file in marker[key]):
                    self._private.remove(_marker(stage, part))
                    del markers[part]
            committed = {file["file"] for marker in markers.values() for file in marker[key]}
            for file in sizes.keys() - committed:
                name = file.rpartition("/")[2]
                if _PART.fullmatch(name) or is_temporary(name):
                    place.remove(file)
        shutil.rmtree(self.work / "staging", ignore_errors=True)
        self._place(stage.private).tidy()
        return {part: marker["summary"] for part, marker in markers.items()}

    def read_table(self, stage: Stage, table_name: str, part_id: int) -> pa.Table:
        """A table of a committed part, as it was committed.

        Raises:
            LedgerError: the part is not committed, its file is not there, or has been changed since.
        """
        name, marker = f"{table_name}/part-{part_id:05d}.parquet", self._markers(stage, part_id).get(part_id)
        entries = [entry for key in ("files", "kept") for entry in (marker or {}).get(key, ()) if entry["file"] == name]
        try:
            data = self._place(stage.private or table_name in stage.kept).read(name)
        except FileNotFoundError:
            data = b""
        if not entries or hashlib.sha256(data).hexdigest() != entries[0]["sha256"]:
            raise LedgerError(f"{name} is not what was committed; restore it, or start anew with --restart")
        return pq.read_table(pa.BufferReader(data))

    def write_text(self, name: str, text: str) -> None:
        """Put a small text file into OUT, such as `README.md`."""
        self._public.replace(name, _text(text))

    def write_json(self, name: str, plain: Any) -> None:
        """Put plain data into OUT as JSON, such as `manifest.json`."""
        self.write_text(name, json.dumps(plain, indent=2, ensure_ascii=False) + "\n")

    def remove(self, name: str) -> None:
        """Take a file out of OUT; nothing happens if it is not there."""
        self._public.remove(name)

    def read_text(self, name: str) -> str:
        """A small text file of OUT.

        Raises:
            FileNotFoundError: it is not there.
        """
        return self.read_bytes(name).decode()

    def read_bytes(self, name: str) -> bytes:
        """A file of OUT, whole.

        Raises:
            FileNotFoundError: it is not there.
        """
        return self._public.read(name)

    def files(self, table_name: str) -> list[str]:
        """The committed files of a published table, in order, as names for `read_bytes`."""
        return [f"{table_name}/{name}" for name in sorted(self._public.sizes(table_name)) if _PART.fullmatch(name)]

    def strangers(self, table_name: str) -> list[str]:
        """What is in a published table's folder and is no part of it; a reader of the folder would read it all the same."""
        return [f"{table_name}/{name}" for name in self._public.names(table_name) if not _PART.fullmatch(name)]

    def _make_work(self) -> None:
        try:
            self.work.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise LedgerError(f"WORK ({self.work}) cannot be made: {error}") from error

    def _place(self, private: bool) -> LocalPlace | RemotePlace:
        return self._private if private else self._public

    def _markers(self, stage: Stage, part_id: int | None = None) -> dict[int, dict[str, Any]]:
        """The markers of a stage, or of one part."""
        found = {}
        for name in sorted(self._private.sizes(f"ledger/{stage.name}")):
            if (match := _PART.fullmatch(name)) and part_id in (None, int(match[1])):
                with contextlib.suppress(ValueError, KeyError):  # a damaged marker marks nothing
                    marker = json.loads(self._private.read(f"ledger/{stage.name}/{name}"))
                    found[int(match[1])] = {"files": marker["files"], "kept": marker.get("kept", []), "summary": marker["summary"]}
        return found


def write_parquet(table: pa.Table, path: Path) -> None:
    """A Parquet file for images: their bytes neither compressed nor in dictionaries, row groups small enough to be read one by one."""
    leaves = list(_leaves(table.schema))
    texts = [name for name, kind in leaves if pa.types.is_string(kind)]
    blobs = [name for name, kind in leaves if _is_binary(kind)]
    rows = max(1, min(ROWS_PER_GROUP, GROUP_BYTES * table.num_rows // max(1, table.nbytes)))
    pq.write_table(
        table,
        path,
        row_group_size=rows,
        use_dictionary=texts,
        compression={name: "none" if name in blobs else "snappy" for name, _ in leaves},
        write_statistics=[name for name, _ in leaves if name not in blobs],
    )


def _leaves(fields: Any, prefix: str = "") -> Iterator[tuple[str, pa.DataType]]:
    """Parquet's name of each column, as `faces.list.element.box.list.element`."""
    for field in fields:
        name, kind = prefix + field.name, field.type
        while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind):
            name, kind = f"{name}.list.element", kind.value_type
        if pa.types.is_struct(kind):
            yield from _leaves(list(kind), name + ".")
        else:
            yield name, kind


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _text(text: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(text, encoding="utf-8")

    return write


def _coming(table_name: str, part_id: int) -> str:
    return f"{table_name}/next-{part_id:05d}.parquet"


def _marker(stage: Stage, part_id: int) -> str:
    return f"ledger/{stage.name}/part-{part_id:05d}.json"
