"""The lease that lets one process at a time work on a run."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from mfmc_ray.places import LedgerError

LEASE_SECONDS = 120.0
_POLL_SECONDS = 5.0


class BusyError(LedgerError):
    """Another process is working on the run."""


class RunLock:
    """A lease on a run: a file that names its holder and that a thread keeps fresh.

    A holder on this machine is gone when its process is; any other when the file was not refreshed for `LEASE_SECONDS` by the file server's
    clock. Then the lock is taken over.

    Args:
        path: the file.
        wait: seconds to wait for another holder to end.

    Attributes:
        token: what no other holder has.
    """

    def __init__(self, path: Path, wait: float = 0) -> None:
        self.path = path
        self.token = uuid.uuid4().hex
        self._wait = wait
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._refresh, name="run lock", daemon=True)

    def __enter__(self) -> RunLock:
        holder = {
            "token": self.token,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "process": _process(os.getpid()),
            "since": time.ctime(),
        }
        until = time.monotonic() + self._wait
        while not self._taken(holder):
            if time.monotonic() >= until:
                raise BusyError(f"{self._who()} is working on {self.path.parent}; wait for it, or stop it")
            time.sleep(min(_POLL_SECONDS, self._wait))
        self._thread.start()
        return self

    def _taken(self, holder: dict[str, Any]) -> bool:
        """Whether the lock could be taken."""
        guard = self.path.with_suffix(".guard")
        with guard.open("w") as file:
            alone = False
            with contextlib.suppress(OSError):  # some shared mounts have no flock; still only one can make the file below
                fcntl.flock(file, fcntl.LOCK_EX)
                alone = True
            os.utime(guard)
            self._remove_stale(guard.stat().st_mtime, alone)
            try:
                descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                return False
            with os.fdopen(descriptor, "w") as lock:
                json.dump(holder, lock)
        return True

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._thread.join()
        if self.held():
            self.path.unlink(missing_ok=True)

    def held(self) -> bool:
        """Whether the lock is still this process's; not so after a pause longer than the lease (a suspended machine)."""
        return self.holder() == self.token

    def holder(self) -> str | None:
        """The token of whoever holds the lock."""
        return self._read().get("token")

    def _refresh(self) -> None:
        while not self._released.wait(LEASE_SECONDS / 6):
            with contextlib.suppress(OSError):
                if self.held():
                    os.utime(self.path)

    def _remove_stale(self, now: float, alone: bool) -> None:
        """Remove the lock of a holder that is gone.

        Args:
            now: the file server's time.
            alone: whether nobody else can be at this point; then a lock that names nobody was left by one who was killed while writing it.
        """
        try:
            age = now - self.path.stat().st_mtime
        except FileNotFoundError:
            return
        holder = self._read()
        if alone and not holder:
            self.path.unlink(missing_ok=True)
            return
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
