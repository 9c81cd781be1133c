"""What an audit computes anew: where an image's scan is, and the certificates, by a search of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mfmc_ray.faces.faces import F32
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.known.index import KnownFaces
from mfmc_ray.tables import embedding_column

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Row = dict[str, Any]

TOLERANCE = 1e-3
"""Cosines recomputed on another machine may differ by this much from those recorded."""
_TIE = 1e-5
_CHUNK = 1 << 22  # numbers held in float64 at a time


class ScanIndex:
    """Where in WORK/scan an image's row is. Plain arrays, so that workers share it.

    Attributes:
        files: the scan's files.
        keys: uint64 (n,), ascending: 64 bits of a hash of image_id and path.
        file, row: int64 (n,): which file and which row of it.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = list(files)
        keys, file, row = [], [], []
        for number, path in enumerate(self.files):
            table = pq.read_table(path, columns=["image_id", "path"])
            keys.append(hashed(table["image_id"].to_pylist(), table["path"].to_pylist()))
            file.append(np.full(table.num_rows, number))
            row.append(np.arange(table.num_rows))
        every = np.concatenate([np.zeros(0, np.uint64), *keys])
        order = np.argsort(every, kind="stable")
        self.keys = every[order]
        self.file = np.concatenate([np.zeros(0, np.int64), *file])[order]
        self.row = np.concatenate([np.zeros(0, np.int64), *row])[order]

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, ids: Sequence[str | None], paths: Sequence[str | None]) -> I64:
        """int64: the place of each image among the sorted keys; −1 if the scan does not have it."""
        wanted = hashed(ids, paths)
        at = np.searchsorted(self.keys, wanted)
        present = (at < len(self.keys)) & (self.keys[np.minimum(at, len(self.keys) - 1)] == wanted) if len(self) else at < 0
        return np.asarray(np.where(present, at, -1), np.int64)

    def read(self, places: Iterable[int], recognizers: Sequence[str]) -> dict[int, Row]:
        """place → the scan's row; its `faces` without mesh and attributes."""
        rows: dict[int, Row] = {}
        wanted = sorted(set(places), key=lambda p: (self.file[p], self.row[p]))
        faces = [f"faces.list.element.{name}" for name in ("box", "points", *(embedding_column(r) for r in recognizers))]
        columns = ["image_id", "path", "unit", "locator", "reason", *faces]
        for number in dict.fromkeys(int(self.file[p]) for p in wanted):
            mine = [p for p in wanted if self.file[p] == number]
            file, start = pq.ParquetFile(self.files[number]), 0
            for group in range(file.num_row_groups):
                stop = start + file.metadata.row_group(group).num_rows
                inside = [p for p in mine if start <= self.row[p] < stop]
                if inside:
                    table = file.read_row_group(group, columns=columns).take([int(self.row[p]) - start for p in inside])
                    rows |= dict(zip(inside, table.to_pylist(), strict=True))
                start = stop
        return rows


def hashed(ids: Sequence[str | None], paths: Sequence[str | None]) -> NDArray[np.uint64]:
    """uint64 (n,): 64 bits of a hash of each image_id and path."""
    pairs = (f"{image_id or ''}\0{path or ''}".encode("utf-8", "surrogatepass") for image_id, path in zip(ids, paths, strict=True))
    return np.frombuffer(b"".join(hashlib.blake2b(pair, digest_size=8).digest() for pair in pairs), np.uint64)


class PlainSearch:
    """Certificates computed again: numpy, float64, every known face. Shares no code with what issued them.

    Args:
        known: the known faces.
        thresholds: recognizer → the cosine that a face must stay below; its keys are the guard recognizers.
        calibration: the run's; None: the shipped one.
    """

    def __init__(self, known: KnownFaces, thresholds: Mapping[str, float], calibration: Calibration | None = None) -> None:
        calibration = calibration or Calibration()
        self.known = known
        self.thresholds = dict(thresholds)
        # a raised threshold never lets a face nearer to its own original
        self.original_thresholds = {name: min(t, calibration.strict_threshold(name)) for name, t in self.thresholds.items()}
        self.rates = {name: calibration.fmr(name, t) for name, t in self.thresholds.items()}

    def highest(self, recognizer: str, vectors: F32) -> tuple[F64, I64]:
        """The highest cosine of each vector (n, d) to a known face, and its row; −1 and −1 if nobody is known, NaN for a bad vector."""
        queries = unit(vectors)
        best, rows = np.full(len(queries), -1.0), np.full(len(queries), -1, np.int64)
        known = self.known.vectors[recognizer]
        step = max(1, _CHUNK // known.shape[1])
        for start in range(0, len(known), step):
            cosines = queries @ unit(known[start : start + step]).T
            top = cosines.argmax(1)
            value = cosines[np.arange(len(queries)), top]
            better = value > best
            best[better], rows[better] = value[better], top[better] + start
        best[~np.isfinite(queries).all(1)] = np.nan
        return best, rows

    def faults(self, certificates: Any, vectors: Mapping[str, F32], found: Mapping[str, tuple[float, int]]) -> list[str]:
        """What is wrong with a row's certificates.

        Args:
            certificates: rows of `tables.CERTIFICATE`.
            vectors: recognizer → (d,), computed again.
            found: recognizer → highest cosine and row, as of `highest`.
        """
        names = [c.get("recognizer") for c in certificates or ()]
        if sorted(map(str, names)) != sorted(self.thresholds):
            return [f"certificates of {', '.join(map(str, names)) or 'nobody'}, wanted {', '.join(self.thresholds)}"]
        faults = []
        for c in certificates:
            name = c["recognizer"]
            cosine, row = found[name]
            if not abs(number(c["max_similarity"]) - cosine) <= TOLERANCE:
                faults.append(f"{name}: max_similarity is {cosine:.4f}, not {number(c['max_similarity']):.4f}")
            if c["nearest_known"] != self.known.known_id(row) and not self._ties(name, c["nearest_known"], vectors[name], cosine):
                faults.append(f"{name}: the nearest known face is {self.known.known_id(row)}, not {c['nearest_known']}")
            if not abs(number(c["threshold"]) - self.thresholds[name]) <= 1e-6:
                faults.append(f"{name}: the threshold is {self.thresholds[name]:.4f}, not {number(c['threshold']):.4f}")
            if not abs(number(c["false_match_rate"]) - self.rates[name]) <= 1e-3 * self.rates[name]:
                faults.append(f"{name}: the false-match rate is {self.rates[name]:.2e}, not {number(c['false_match_rate']):.2e}")
            if (c["generation"], c["index_digest"]) != (self.known.generation, self.known.digest):
                faults.append(f"{name}: of another known-face index")
            if c["search"] != "exact":
                faults.append(f"{name}: the search was {c['search']!r}, not 'exact'")
        return faults

    def _ties(self, recognizer: str, known_id: Any, vector: F32, cosine: float) -> bool:
        """Whether that known face is as near as the nearest: of duplicates either may be named."""
        rows = np.flatnonzero(self.known.ids == str(known_id).encode())
        return len(rows) > 0 and bool((unit(self.known.vectors[recognizer][rows]) @ unit(vector[None])[0]).max() >= cosine - _TIE)


def number(value: Any) -> float:
    """A number of a published row; NaN if there is none."""
    return float(value) if isinstance(value, (int, float)) else float("nan")


def unit(vectors: F32) -> F64:
    wide = vectors.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(wide / np.sqrt((wide * wide).sum(1, keepdims=True)))
