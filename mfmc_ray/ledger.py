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
import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

ROWS_PER_GROUP = 128
GROUP_BYTES = 128 << 20
LEASE_SECONDS = 120.0
_PART = re.compile(r"part-(\d+)\.(parquet|json)")
_PUBLISHED = ("manifest.json", "audit.json", "README.md", "images", "faces", "identities", "report")
"""What a run makes in OUT; a restart removes these and nothing else. The manifest goes first: without it OUT is no finished dataset."""


class LedgerError(RuntimeError):
    """The folders cannot be used for this run; the message says why and what would do."""


@dataclass(frozen=True)
class Stage:
    """A pass that commits parts.

    Attributes:
        name: of its markers' folder.
        tables: its tables in the order in which a part's files appear; last the one that refers to the others.
        private: whether they are in WORK rather than in OUT.
    """

    name: str
    tables: tuple[str, ...]
    private: bool = False


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
        if _is_remote(work):
            raise LedgerError(f"WORK must be a local folder (on a cluster: one that all nodes mount), not {work}")
        self.out, self.work = _full(out), Path(_full(work))
        if _inside(str(self.work), self.out):
            raise LedgerError(f"WORK ({work}) is in OUT ({out}), so real people's embeddings would be published; put it elsewhere")
        self._private = _Local(self.work)
        self._public = _Remote(self.out, self.work / "staging", dict(storage_options or {})) if _is_remote(out) else _Local(Path(self.out))

    def check_input(self, root: str) -> None:
        """Refuse an input that the run would read its own output from, or write into.

        Args:
            root: the collection's root, as its store spells it.

        Raises:
            LedgerError: OUT or WORK is in the input, or the input in OUT.
        """
        root = _full(root)
        for name, place in (("OUT", self.out), ("WORK", str(self.work))):
            if _inside(place, root):
                raise LedgerError(f"{name} ({place}) is in the input ({root}), where it would be read as input; put it elsewhere")
        if _inside(root, self.out):
            raise LedgerError(f"the input ({root}) is in OUT ({self.out}), so the originals would be published; put OUT elsewhere")

    def begin(self, config_digest: str, input_digest: str, *, restart: bool = False) -> bool:
        """Take up the run in WORK, or start one. Hold the lock.

        Args:
            config_digest: of the settings that decide the result.
            input_digest: of the listed units.
            restart: remove what this WORK's run has made in OUT, and its ledger, and start anew.

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
        if old is not None and old.get("out") == self.out:
            shutil.rmtree(self.work / "ledger", ignore_errors=True)  # before the files: a file without a marker is what `recover` removes
            for name in _PUBLISHED:
                self._public.remove(name)
        elif strangers := self._public.names():
            raise LedgerError(
                f"OUT ({self.out}) is not empty (it holds {strangers[0]}) and was not made with this WORK ({self.work}): "
                "give an empty OUT, or the WORK that belongs to it"
            )
        shutil.rmtree(self.work / "ledger", ignore_errors=True)
        self._private.replace("run.json", _text(json.dumps({**identity, "begun": time.ctime()}, indent=2)))
        return False

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
        size, digest = self._place(private).replace(name, lambda path: write_parquet(table, path))
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
        if set(tables) != set(stage.tables):
            raise ValueError(f"stage {stage.name} commits {', '.join(stage.tables)}, not {', '.join(tables)}")
        marker = _marker(stage, part_id)
        self._private.remove(marker)  # while it is rewritten it is not done
        files = [self.commit(name, part_id, tables[name], metadata, private=stage.private) for name in stage.tables]
        self._private.replace(marker, _text(json.dumps({"files": files, "summary": dict(summary)})))

    def done(self, stage: Stage) -> dict[int, dict[str, Any]]:
        """The summaries of the committed parts, by part."""
        return {part: marker["summary"] for part, marker in self._markers(stage).items()}

    def recover(self, stage: Stage) -> dict[int, dict[str, Any]]:
        """Put right what a crash left; call it with the lock held, before work goes on.

        Files without a marker and unfinished ones are removed, and markers whose files are not there as they were committed.

        Returns:
            As `done`.
        """
        place = self._place(stage.private)
        sizes = {f"{table}/{name}": size for table in stage.tables for name, size in place.sizes(table).items()}
        markers = self._markers(stage)
        for part, marker in list(markers.items()):
            if any(sizes.get(file["file"]) != file["bytes"] for file in marker["files"]):
                self._private.remove(_marker(stage, part))
                del markers[part]
        committed = {file["file"] for marker in markers.values() for file in marker["files"]}
        for file in sizes.keys() - committed:
            name = file.rpartition("/")[2]
            if _PART.fullmatch(name) or _is_temporary(name):
                place.remove(file)
        shutil.rmtree(self.work / "staging", ignore_errors=True)
        return {part: marker["summary"] for part, marker in markers.items()}

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

    def _make_work(self) -> None:
        try:
            self.work.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise LedgerError(f"WORK ({self.work}) cannot be made: {error}") from error

    def _place(self, private: bool) -> _Local | _Remote:
        return self._private if private else self._public

    def _markers(self, stage: Stage) -> dict[int, dict[str, Any]]:
        found = {}
        for name in sorted(self._private.sizes(f"ledger/{stage.name}")):
            if match := _PART.fullmatch(name):
                with contextlib.suppress(ValueError, KeyError):  # a damaged marker marks nothing
                    marker = json.loads(self._private.read(f"ledger/{stage.name}/{name}"))
                    found[int(match[1])] = {"files": marker["files"], "summary": marker["summary"]}
        return found


class RunLock:
    """A lease on a run: a file that names its holder and that a thread keeps fresh.

    A holder on this machine is gone when its process is; any other when the file was not refreshed for `LEASE_SECONDS` by the file server's
    clock. Then the lock is taken over.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._token = uuid.uuid4().hex
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._refresh, name="run lock", daemon=True)

    def __enter__(self) -> RunLock:
        holder = {
            "token": self._token,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "process": _process(os.getpid()),
            "since": time.ctime(),
        }
        guard = self.path.with_suffix(".guard")
        with guard.open("w") as file:
            with contextlib.suppress(OSError):  # some shared mounts have no flock; still only one can make the file below
                fcntl.flock(file, fcntl.LOCK_EX)
            os.utime(guard)
            self._remove_stale(guard.stat().st_mtime)
            try:
                descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                raise LedgerError(f"{self._who()} is working on {self.path.parent}; wait for it, or stop it") from None
            with os.fdopen(descriptor, "w") as lock:
                json.dump(holder, lock)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._thread.join()
        if self.held():
            self.path.unlink(missing_ok=True)

    def held(self) -> bool:
        """Whether the lock is still this process's; not so after a pause longer than the lease (a suspended machine)."""
        return self._read().get("token") == self._token

    def _refresh(self) -> None:
        while not self._released.wait(LEASE_SECONDS / 6):
            with contextlib.suppress(OSError):
                if self.held():
                    os.utime(self.path)

    def _remove_stale(self, now: float) -> None:
        """Remove the lock of a holder that is gone; `now` is the file server's time."""
        try:
            age = now - self.path.stat().st_mtime
        except FileNotFoundError:
            return
        holder = self._read()
        process = holder.get("process") or ""
        here = process.rpartition(" ")[0]
        if here and here == _process(os.getpid()).rpartition(" ")[0]:
            stale = _process(int(holder["pid"])) != process
        else:
            stale = age > LEASE_SECONDS
        if stale:
            self.path.unlink(missing_ok=True)

    def _who(self) -> str:
        holder = self._read()
        return f"process {holder.get('pid', '?')} on {holder.get('host', '?')} (since {holder.get('since', '?')})"

    def _read(self) -> dict[str, Any]:
        try:
            plain = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            return {}
        return plain if isinstance(plain, dict) else {}


def _process(pid: int) -> str:
    """What no other process is or was: boot, process namespace and start time; "" if there is no such process or no /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    if started[0] == "Z":
        return ""  # it has ended and its parent has not looked
    return f"{boot} {Path('/proc/self/ns/pid').readlink()} {started[19]}"


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


class _Local:
    """A local folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def replace(self, name: str, write: Callable[[Path], None]) -> tuple[int, str]:
        """Put what `write` makes in the place of `name`, in one step; its size in bytes and sha-256."""
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        try:
            write(temporary)
            size, digest = _sync(temporary)
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        with contextlib.suppress(OSError):  # not every file system syncs folders
            folder = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        return size, digest

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def sizes(self, folder: str) -> dict[str, int]:
        """The files right in a folder, bytes by name."""
        with contextlib.suppress(FileNotFoundError):
            return {f.name: f.stat().st_size for f in (self.root / folder).iterdir() if f.is_file()}
        return {}

    def names(self) -> list[str]:
        """What the folder holds, but for hidden files."""
        return sorted(f.name for f in self.root.iterdir() if not f.name.startswith(".")) if self.root.is_dir() else []

    def remove(self, name: str) -> None:
        path = self.root / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


class _Remote:
    """A prefix of an object store."""

    def __init__(self, root: str, staging: Path, options: dict[str, Any]) -> None:
        try:
            self.fs, self.root = fsspec.core.url_to_fs(root, **options)
        except ImportError as error:
            raise LedgerError(f"{root}: a package for this kind of URL is missing; for s3:// pip install mfmc-ray[s3] ({error})") from error
        self.staging = staging

    def replace(self, name: str, write: Callable[[Path], None]) -> tuple[int, str]:
        self.staging.mkdir(parents=True, exist_ok=True)
        temporary = self.staging / f".{uuid.uuid4().hex}.tmp"
        try:
            write(temporary)
            size, digest = _sync(temporary)
            # not `with fs.open(…, "wb")`: leaving that block by an exception publishes half a file
            self.fs.put_file(str(temporary), f"{self.root}/{name}")
        finally:
            temporary.unlink(missing_ok=True)
        return size, digest

    def read(self, name: str) -> bytes:
        return bytes(self.fs.cat_file(f"{self.root}/{name}"))

    def sizes(self, folder: str) -> dict[str, int]:
        return {i["name"].rpartition("/")[2]: i["size"] for i in self._list(f"{self.root}/{folder}") if i["type"] == "file"}

    def names(self) -> list[str]:
        found = [i["name"].rstrip("/").rpartition("/")[2] for i in self._list(self.root) if i["name"].rstrip("/") != self.root.rstrip("/")]
        return sorted(n for n in found if not n.startswith("."))

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm(f"{self.root}/{name}", recursive=True)

    def _list(self, path: str) -> list[dict[str, Any]]:
        self.fs.invalidate_cache()
        with contextlib.suppress(FileNotFoundError):
            return list(self.fs.ls(path, detail=True))
        return []


def _sync(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), digest


def _text(text: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(text, encoding="utf-8")

    return write


def _marker(stage: Stage, part_id: int) -> str:
    return f"ledger/{stage.name}/part-{part_id:05d}.json"


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp")


def _is_remote(place: str) -> bool:
    return "://" in place and not place.startswith("file://")


def _full(place: str) -> str:
    return place.rstrip("/") if _is_remote(place) else os.path.realpath(Path(place.removeprefix("file://")).expanduser())


def _inside(place: str, folder: str) -> bool:
    """Whether it is the folder or in it; both as `_full` gives them."""
    return (place + "/").startswith(folder.rstrip("/") + "/")
