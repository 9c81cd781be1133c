"""What a worker is at, noted where the next worker finds it: an image that kills its worker costs only itself.

Native code that reads pictures can crash, or never come back; neither is an exception. So a worker notes each image before it touches it
(`Watch.at`), and whoever does the part of a dead worker again asks first which image that one was at (`Watch.blame`). An image whose
worker died `TRIES` times, over it, is put into quarantine and never touched again.

    WORK/watch/<pass>-<part>.at       the image that the worker is at; not synced, as it need only outlive the process
    WORK/watch/<pass>-<part>.late     where the threads were when the time for an image was over
    WORK/watch/<pass>-<part>.json     how often each image was blamed; all three go with the end of the part
    WORK/quarantine/<pass>-<key>.json an image that is not touched again; remove the file to have it tried anew
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from mfmc_ray.places import replace_file, text_of

TRIES = 2
"""How often a worker may die over an image before it is put into quarantine."""
KILLS_DECODER, TOO_SLOW = "kills_decoder", "too_slow"
PIXELS, FACES = 20_000_000, 20
"""An image gets the time once more for each so many pixels, and for each so many faces."""


class Watch:
    """A worker's notes, and the quarantine. Plain data between parts.

    Args:
        work: the private folder, which all workers see. None: nothing is noted, nothing is in quarantine.
        name: of the pass.
        seconds: that an image may take, see `allowed`; 0: any time.
        group: passes of one group share a quarantine. None: `name`.
    """

    def __init__(self, work: Path | None = None, name: str = "", seconds: float = 0.0, group: str | None = None) -> None:
        self._work, self._name, self._seconds, self._group = work, name, seconds, group or name
        self._notes: int | None = None
        self._late: BinaryIO | None = None
        self._ends = 0.0  # when the time is over; 0: there is none

    def allowed(self, pixels: int = 0, faces: int = 0) -> float:
        """Seconds that such an image may take."""
        return self._seconds * (1 + pixels / PIXELS + faces / FACES)

    @contextlib.contextmanager
    def part(self, number: int) -> Iterator[None]:
        """While the block runs, `at` makes notes. A block that ends well acquits all images of the part."""
        if self._work is None:
            yield
            return
        at, late, blamed = self._files(number)
        at.parent.mkdir(parents=True, exist_ok=True)
        self._notes = os.open(at, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with late.open("wb") as self._late:
                self._note(None)  # whoever was stopped before is not to blame
                yield
        finally:
            os.close(self._notes)
            self._notes = self._late = None
        for path in (at, late, blamed):
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def at(self, key: str, seconds: float = 0.0, **where: Any) -> Iterator[None]:
        """While the block runs, the worker is at this image. When its time is over the process ends, whatever it is doing.

        Args:
            key: tells the image from any other, and from itself with other bytes.
            seconds: at most; 0: any time.
            where: plain data that lets a human find it.
        """
        if self._notes is None or self._late is None:
            yield
            return
        self._note({"key": key, **where})
        if seconds:
            # Not a thread of Python's: it would wait for ever for native code that does not let go of the interpreter.
            faulthandler.dump_traceback_later(seconds, exit=True, file=self._late)
            self._ends = time.monotonic() + seconds
        try:
            yield
        finally:
            if seconds:
                faulthandler.cancel_dump_traceback_later()
                self._ends = 0.0
            self._note(None)

    @contextlib.contextmanager
    def away(self) -> Iterator[float]:
        """While the block runs, the worker waits for a service that works on its image, in a time of its own. The value is how many seconds
        that may take; 0: any time."""
        if not self._ends or self._late is None:
            yield 0.0
            return
        faulthandler.cancel_dump_traceback_later()
        left = max(0.1, self._ends - time.monotonic())
        try:
            yield left
        finally:  # who has come back has the time that was left
            faulthandler.dump_traceback_later(left, exit=True, file=self._late)
            self._ends = time.monotonic() + left

    def blame(self, number: int) -> bool:
        """Looks what a worker was at that died over this part; call it before the part is done again.

        Returns:
            whether that was an image that could still be blamed: then doing the part again gets further.
        """
        if self._work is None:
            return False
        at, late, blamed = self._files(number)
        try:
            note = json.loads(at.read_bytes().partition(b"\n")[0] or b"null")
            counts = json.loads(blamed.read_bytes()) if blamed.exists() else {}
        except (OSError, ValueError):
            return False
        if note is None:
            return False
        key = note["key"]
        counts[key] = counts.get(key, 0) + 1
        if counts[key] >= TRIES:
            trace = late.read_text(errors="replace") if late.exists() else ""
            record = {**note, "reason": TOO_SLOW if trace else KILLS_DECODER, "pass": self._name, "time": time.ctime(), "trace": trace}
            replace_file(self._record(key), text_of(json.dumps(record, indent=1)))
        replace_file(blamed, text_of(json.dumps(counts)))
        at.write_bytes(b"\n")  # a worker that dies before its first image is not this one's fault
        return bool(counts[key] <= TRIES)

    def reason(self, key: str) -> str | None:
        """Why an image is in quarantine, `kills_decoder` or `too_slow`; None if it is not."""
        if self._work is None:
            return None
        try:
            return str(json.loads(self._record(key).read_bytes())["reason"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError):  # damaged, but there
            return KILLS_DECODER

    def _note(self, note: dict[str, Any] | None) -> None:
        assert self._notes is not None
        # In one piece over the old one, whose end may remain: only the first line counts.
        os.pwrite(self._notes, b"\n" if note is None else json.dumps(note).encode() + b"\n", 0)

    def _files(self, number: int) -> tuple[Path, Path, Path]:
        assert self._work is not None
        stem = f"{self._name}-{number:05d}"
        return tuple(self._work / "watch" / f"{stem}.{end}" for end in ("at", "late", "json"))  # type: ignore[return-value]

    def _record(self, key: str) -> Path:
        assert self._work is not None
        name = key if key.isalnum() and len(key) == 64 else hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        return self._work / "quarantine" / f"{self._group}-{name}.json"
