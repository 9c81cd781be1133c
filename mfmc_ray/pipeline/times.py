"""How long the stages of a run have taken: WORK/times.json. What a night will cost is reckoned from it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mfmc_ray.places import replace_file


@dataclass
class Timed:
    """What a stage has done since it began."""

    images: int = 0
    faces: int = 0

    def add(self, images: int, faces: int) -> None:
        """So much more was done."""
        self.images += images
        self.faces += faces


class Times:
    """The time that each stage has taken so far, over all runs and nights.

    Args:
        folder: WORK.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "times.json"

    @contextlib.contextmanager
    def of(self, stage: str) -> Iterator[Timed]:
        """Measures a stage; the value takes what is done."""
        started, timed = time.monotonic(), Timed()
        yield timed
        times = self._read()
        before = times.get(stage, {"seconds": 0.0, "images": 0, "faces": 0})
        times[stage] = {
            "name": stage,
            "seconds": round(before["seconds"] + time.monotonic() - started, 2),
            "images": before["images"] + timed.images,
            "faces": before["faces"] + timed.faces,
        }
        replace_file(self._path, lambda path: path.write_text(json.dumps(times)))

    def all(self) -> list[dict[str, Any]]:
        """`name`, `seconds`, `images` and `faces` of each stage."""
        return list(self._read().values())

    def seconds_per_image(self, stage: str) -> float | None:
        """None if it was never measured."""
        times = self._read().get(stage)
        return times["seconds"] / times["images"] if times and times["images"] else None

    def _read(self) -> dict[str, Any]:
        return dict(json.loads(self._path.read_text())) if self._path.is_file() else {}
