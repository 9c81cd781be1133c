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
without one. A committed part that changes is first written to WORK/next whole; its marker then names what it becomes, and from that moment
a crash is completed by `recover`: the part is never lost, and what it was is gone when it has become what it becomes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mfmc_ray.parquet import write_parquet
from mfmc_ray.places import LEAST_WORK, LedgerError, LocalPlace, RemotePlace, copy_of, full, inside, is_remote, is_temporary, text_of
from mfmc_ray.runlock import RunLock
from mfmc_ray.stage import NEXT, Stage, part_file
from mfmc_ray.versions import purge_versions

__all__ = ["Ledger", "LedgerError", "Stage"]

_PART = re.compile(r"part-(\d+)\.(parquet|json)")
_PRIVATE = (
    *("scan", "gallery-*", "galleries.json", "people.json", "known", "pool", "fitting", "published", "placed", NEXT),
    *("report", "audit", "calibration-used", "times.json", "watch", "quarantine", "explain", "evaluation", "comparison"),
)
"""What a run makes in WORK, and a restart removes: an index that stayed would be taken for the new run's."""
_PUBLISHED = ("manifest.json", "audit.json", "README.md", "images", "faces", "identities", "report")
"""What a run makes in OUT; a restart removes these and nothing else. The manifest goes first: without it OUT is no finished dataset."""


class Ledger:
    """The folders of one run. Plain data and thus picklable: workers commit, the driver begins, recovers and locks.

    Args:
        out: local folder or URL.
        work: local folder.
        storage_options: for fsspec, of `out`.

    Attributes:
        public: OUT.

    Raises:
        LedgerError: WORK is remote, or is in OUT.
    """

    def __init__(self, out: str, work: str, storage_options: Mapping[str, Any] | None = None) -> None:
        if is_remote(work):
            raise LedgerError(f"WORK must be a local folder (on a cluster: one that all nodes mount), not {work}")
        self.out, self.work = full(out), Path(full(work))
        if inside(str(self.work), self.out):
            raise LedgerError(f"WORK ({work}) is in OUT ({out}), so real people's embeddings would be published; put it elsewhere")
        self._holder: str | None = None
        self._private = LocalPlace(self.work)
        options = dict(storage_options or {})
        self.public = RemotePlace(self.out, self.work / "staging", options) if is_remote(out) else LocalPlace(Path(self.out))

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

    def begin(self, config_digest: str, input_digest: str, *, restart: bool = False, update: bool = False) -> bool:
        """Take up the run in WORK, or start one. Hold the lock.

        Args:
            config_digest: of the settings that decide the result.
            input_digest: of the listed units.
            restart: remove what this WORK's run has made in OUT and WORK, and start anew. Killed meanwhile, it can only be restarted again.
            update: go on although settings or input are other ones; the caller brings up to date what was made.

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
            changed = {key: word for key, word in words.items() if old.get(key) != identity[key]}
            if changed and (not update or "out" in changed or "config" not in old):
                raise LedgerError(
                    f"WORK ({self.work}) holds a run with other {' and '.join(changed.values())}: undo the change to resume it, "
                    "bring the result up to date with `mfmc nightly`, give another WORK and OUT, or start anew with --restart"
                )
            if changed:
                self._private.replace("run.json", text_of(json.dumps({**old, **identity}, indent=2)))
            return True
        mine = old is not None and old.get("out") == self.out
        if not mine and (strangers := self.public.names()):
            raise LedgerError(
                f"OUT ({self.out}) is not empty (it holds {strangers[0]}) and was not made with this WORK ({self.work}): "
                "give an empty OUT, or the WORK that belongs to it"
            )
        if old is not None:
            self._private.replace("run.json", text_of(json.dumps({"out": self.out})))  # until all is gone nobody resumes what is left
            shutil.rmtree(self.work / "ledger", ignore_errors=True)  # before the files: a file without a marker is what `recover` removes
            for name in _PUBLISHED if mine else ():
                self.public.remove(name)
            for path in [path for pattern in _PRIVATE for path in self.work.glob(pattern)]:
                self._private.remove(path.name)
        shutil.rmtree(self.work / "ledger", ignore_errors=True)
        self._private.replace("run.json", text_of(json.dumps({**identity, "begun": time.ctime()}, indent=2)))
        return False

    def probe(self) -> None:
        """See, before the work, whether WORK and OUT can be written to.

        Raises:
            LedgerError, StoreError: one of them cannot; the message says why.
        """
        self._make_work()
        self._private.probe(LEAST_WORK)
        self.public.probe()

    @contextlib.contextmanager
    def lock(self, wait: float = 0) -> Iterator[RunLock]:
        """This process alone works on WORK while the block runs; a ledger that is pickled in it writes only as long as that is so.

        Args:
            wait: seconds to wait for another process to end.

        Raises:
            LedgerError: (on entering) another process holds it; the message names it.
        """
        self._make_work()
        with RunLock(self.work / "run.lock", wait) as lock:
            self._holder = lock.token
            try:
                yield lock
            finally:
                self._holder = None

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
        self._fenced()
        name = part_file(table_name, part_id)
        size, digest = self._place(private).replace(name, partial(write_parquet, table), table.nbytes)
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
        marker = self._markers(stage, part_id).get(part_id)
        if marker is not None:
            self._renew(stage, part_id, marker, tables, summary)
            return
        self._fenced()
        entries: dict[str, Any] = {"kept": [], "files": []}
        for key, names in (("kept", stage.kept), ("files", stage.tables)):
            for name in names:
                entries[key].append(self.commit(name, part_id, tables[name], metadata, private=stage.private or key == "kept"))
        self._private.replace(stage.marker(part_id), text_of(json.dumps({**entries, "summary": dict(summary)})))

    def renew_part(self, stage: Stage, part_id: int, tables: Mapping[str, pa.Table], summary: Mapping[str, Any]) -> None:
        """Write some tables of a committed part anew, and its marker; the others stay as they are.

        The part is committed at every moment, as it was or as it becomes: what it was made from may be gone by now.

        Raises:
            ValueError: the part is not committed, or has no such table.
        """
        marker = self._markers(stage, part_id).get(part_id)
        if marker is None or not set(tables) <= {*stage.tables, *stage.kept}:
            raise ValueError(f"part {part_id} of stage {stage.name} is not committed, or has no table {', '.join(tables)}")
        self._renew(stage, part_id, marker, tables, summary)

    def remove_part(self, stage: Stage, part_id: int) -> None:
        """Take a committed part away, what is published first."""
        self._fenced()
        for names, private in ((reversed(stage.tables), stage.private), (stage.kept, True)):
            for name in names:
                self._place(private).remove(part_file(name, part_id))
        self._private.remove(stage.marker(part_id))

    def _renew(
        self, stage: Stage, part_id: int, marker: Mapping[str, Any], tables: Mapping[str, pa.Table], summary: Mapping[str, Any]
    ) -> None:
        self._fenced()
        if marker[NEXT] is not None:  # of a worker that died: what is staged may be all that fits the files that took their places
            self._arrive(stage, part_id, marker[NEXT])
            marker = marker[NEXT]
        self._private.remove(stage.staged(part_id))
        coming: dict[str, Any] = {"summary": dict(summary)}
        for key in ("kept", "files"):
            coming[key] = []
            for entry in marker[key]:
                name = entry["file"].partition("/")[0]
                if name in tables:
                    size, digest = self._private.replace(f"{stage.staged(part_id)}/{name}.parquet", partial(write_parquet, tables[name]))
                    entry = {"file": entry["file"], "rows": tables[name].num_rows, "bytes": size, "sha256": digest}
                coming[key].append(entry)
        plain = {name: marker[name] for name in ("kept", "files", "summary")} | {NEXT: coming}
        self._private.replace(stage.marker(part_id), text_of(json.dumps(plain)))
        self._arrive(stage, part_id, coming)

    def _arrive(self, stage: Stage, part_id: int, coming: Mapping[str, Any]) -> None:
        """Puts what a part becomes into its place. May be repeated after a crash."""
        folder = stage.staged(part_id)
        staged = self._private.sizes(folder)
        for key, private in (("kept", True), ("files", stage.private)):
            for entry in coming[key]:
                name = entry["file"].partition("/")[0] + ".parquet"
                if name in staged:
                    self._place(private).replace(entry["file"], copy_of(self.work / folder / name))
        self._private.replace(stage.marker(part_id), text_of(json.dumps({name: coming[name] for name in ("kept", "files", "summary")})))
        self._private.remove(folder)

    def _fenced(self) -> None:
        """Refuses to write what another process may be writing.

        Raises:
            LedgerError: the lock that was held when this ledger was given away is another's, or nobody's.
        """
        if self._holder is not None and RunLock(self.work / "run.lock").holder() != self._holder:
            raise LedgerError(f"another process has taken over {self.work}, or the run that this worker belonged to has ended")

    def done(self, stage: Stage) -> dict[int, dict[str, Any]]:
        """The summaries of the committed parts, by part."""
        return {part: marker["summary"] for part, marker in self._markers(stage).items()}

    def summary_of(self, stage: Stage, part_id: int) -> dict[str, Any] | None:
        """The summary of a part, None if it is not committed."""
        marker = self._markers(stage, part_id).get(part_id)
        return None if marker is None else marker["summary"]

    def recover(self, stage: Stage) -> dict[int, dict[str, Any]]:
        """Put right what a crash left; call it with the lock held, before work goes on.

        Files without a marker and unfinished ones are removed, and markers whose files are not all there as they were committed.

        Returns:
            As `done`.

        Raises:
            LedgerError: WORK belongs to another OUT, in which nothing is this run's to be removed.
        """
        with contextlib.suppress(FileNotFoundError, ValueError):
            if (out := json.loads(self._private.read("run.json")).get("out", self.out)) != self.out:
                raise LedgerError(f"WORK ({self.work}) belongs to another OUT ({out}); give that one, or another WORK")
        for part, marker in self._markers(stage).items():
            if marker[NEXT] is not None:
                self._arrive(stage, part, marker[NEXT])
        self._private.remove(f"{NEXT}/{stage.name}")  # what was written and not committed
        markers = self._markers(stage)
        # what is published last: a part whose private files are gone is taken out of OUT
        for key, tables, place in (("kept", stage.kept, self._private), ("files", stage.tables, self._place(stage.private))):
            sizes = {f"{table}/{name}": size for table in tables for name, size in place.sizes(table).items()}
            for part, marker in list(markers.items()):
                listed = {file["file"].partition("/")[0] for file in marker[key]}  # of older versions a part may lack a table
                if listed != set(tables) or any(sizes.get(file["file"]) != file["bytes"] for file in marker[key]):
                    self._private.remove(stage.marker(part))
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
        name, marker = part_file(table_name, part_id), self._markers(stage, part_id).get(part_id)
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
        self._fenced()
        self.public.replace(name, text_of(text))

    def write_json(self, name: str, plain: Any) -> None:
        """Put plain data into OUT as JSON, such as `manifest.json`."""
        self.write_text(name, json.dumps(plain, indent=2, ensure_ascii=False) + "\n")

    def remove(self, name: str) -> None:
        """Take a file out of OUT; nothing happens if it is not there."""
        self._fenced()
        self.public.remove(name)

    def purge_versions(self) -> int:
        """Remove what an object store keeps of replaced and deleted files of OUT; how many there were.

        Raises:
            VersionsError: it does not let them be removed.
        """
        return purge_versions(self.public.store.fs, self.public.root) if isinstance(self.public, RemotePlace) else 0

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
        return self.public.read(name)

    def files(self, table_name: str) -> list[str]:
        """The committed files of a published table, in order, as names for `read_bytes`."""
        return [f"{table_name}/{name}" for name in sorted(self.public.sizes(table_name)) if _PART.fullmatch(name)]

    def strangers(self, table_name: str) -> list[str]:
        """What is in a published table's folder and is no part of it; a reader of the folder would read it all the same."""
        return [f"{table_name}/{name}" for name in self.public.names(table_name) if not _PART.fullmatch(name)]

    def _make_work(self) -> None:
        try:
            self.work.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise LedgerError(f"WORK ({self.work}) cannot be made: {error}") from error

    def _place(self, private: bool) -> LocalPlace | RemotePlace:
        return self._private if private else self.public

    def _markers(self, stage: Stage, part_id: int | None = None) -> dict[int, dict[str, Any]]:
        """The markers of a stage, or of one part."""
        found = {}
        for name in sorted(self._private.sizes(f"ledger/{stage.name}")):
            if (match := _PART.fullmatch(name)) and part_id in (None, int(match[1])):
                with contextlib.suppress(ValueError, KeyError):  # a damaged marker marks nothing
                    marker = json.loads(self._private.read(f"ledger/{stage.name}/{name}"))
                    entries = {"files": marker["files"], "kept": marker.get("kept", []), "summary": marker["summary"]}
                    found[int(match[1])] = entries | {NEXT: marker.get(NEXT)}
        return found
