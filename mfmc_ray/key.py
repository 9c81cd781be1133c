"""The run's pseudonym key: 32 random bytes in WORK that decide which fake each face, or each person, may get.

Who holds it can repeat these choices, and so tell which fakes were never offered to a face. It is made when it is needed first, used by the
workers, in no file but its own, and can be destroyed at any time: nothing that was published needs it. What is anonymized later (a resumed
run, a changed gallery) then makes a new one, and chooses other fakes than the old one would have. Whatever was noted of who wears which
fake goes with it.
"""

from __future__ import annotations

import os
import secrets
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from mfmc_ray.places import LedgerError

BYTES = 32
_NAME, _NOTES = "pseudonym.key", "pseudonym.notes"
ASSIGNED = "pseudonyms.parquet"
"""File beside the key: which fakes each person wears (`pipeline/pseudonyms.py`); it goes when the key goes."""
TRIED = ("fitting", "ledger/fitting")
"""Folders beside it with what was tried for that; likewise."""


@dataclass(frozen=True)
class KeyState:
    """What can be said of a key without telling it.

    Attributes:
        there: whether there is one.
        mode: permission bits of its file; 0 if there is none.
        notes: when one was made or destroyed, oldest first: "2026-01-31T12:00:00+00:00 made".
    """

    there: bool
    mode: int
    notes: tuple[str, ...]


def obtain(work: Path) -> bytes:
    """The key, made if there is none. Hold the run's lock.

    The file is readable by its owner only whatever the umask; one that others may read is closed to them, and that is noted.

    Raises:
        LedgerError: it is damaged, or is no regular file.
    """
    path = work / _NAME
    if not os.path.lexists(path):
        temporary = work / f".{_NAME}.tmp"  # it appears whole: a key that is cut short would look like a damaged one
        temporary.unlink(missing_ok=True)
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
            file.write(secrets.token_bytes(BYTES))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _note(work, "made")
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise LedgerError(f"{path} is no file; start anew with --restart after removing it")
            if about.st_mode & 0o077:
                os.fchmod(file.fileno(), 0o600)
                _note(work, f"was open to others (mode {stat.S_IMODE(about.st_mode):o}), closed")
            key = file.read(BYTES + 1)
    except OSError as error:
        raise LedgerError(f"{path} cannot be read: {error.strerror}") from error
    if len(key) != BYTES:
        raise LedgerError(f"{path} is damaged; start anew with --restart after removing it")
    return key


def destroy(work: Path) -> bool:
    """Overwrites the bytes of the key and of what was noted with it, and removes the files; whether there was a key. Hold the run's lock.

    A journal, a snapshot or a worn-out flash cell can still hold the bytes: nothing in user space reaches these.
    """
    (work / f".{_NAME}.tmp").unlink(missing_ok=True)
    for path in work.glob(f".{ASSIGNED}.*"):
        path.unlink()
    for folder in TRIED:
        for path in (work / folder).glob("*"):
            _remove(path)
    _remove(work / ASSIGNED)
    gone = _remove(work / _NAME)
    if gone:
        _note(work, "destroyed")
    return gone


def rotate(work: Path) -> bytes:
    """Destroys the key, if there is one, and makes another. Hold the run's lock."""
    destroy(work)
    return obtain(work)


def erase(file: IO[bytes]) -> None:
    """Overwrites what is in an open file."""
    file.seek(0)
    file.write(bytes(os.fstat(file.fileno()).st_size))
    file.flush()
    os.fsync(file.fileno())


def _remove(path: Path) -> bool:
    """Overwrites and removes a file; whether it was there."""
    if not os.path.lexists(path):
        return False
    if not path.is_symlink() and path.is_file():
        path.chmod(0o600)
        with path.open("rb+") as file:
            erase(file)
    path.unlink()
    return True


def state(work: Path) -> KeyState:
    """What can be said of it."""
    path, notes = work / _NAME, work / _NOTES
    there = path.is_file()
    mode = stat.S_IMODE(path.stat().st_mode) if there else 0
    return KeyState(there, mode, tuple(notes.read_text().splitlines()) if notes.is_file() else ())


def _note(work: Path, what: str) -> None:
    with open(os.open(work / _NOTES, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a") as file:  # noqa: PTH123
        file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {what}\n")
        file.flush()
        os.fsync(file.fileno())
