"""Fitting: identities are tried on the photos of a person, until one holds on all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mfmc_ray.codec import CodecError, decode
from mfmc_ray.config import RunConfig
from mfmc_ray.faces import runtime
from mfmc_ray.faces.faces import F32, Image
from mfmc_ray.faces.pack import ALL_DIMENSIONS
from mfmc_ray.identities.casting import identity_of
from mfmc_ray.identities.model import load_model
from mfmc_ray.identities.sample import Identity
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.known.certificate import Guard
from mfmc_ray.known.index import KnownFaces
from mfmc_ray.known.search import Search
from mfmc_ray.ledger import Ledger, Stage
from mfmc_ray.pipeline.choice import Sitter
from mfmc_ray.pipeline.profiles import SWAP
from mfmc_ray.pipeline.pseudonyms import Face
from mfmc_ray.pipeline.remote import Ask, Asker, wearer_of
from mfmc_ray.pipeline.rows import faces_of
from mfmc_ray.pipeline.unfit import unfit
from mfmc_ray.pipeline.watch import Watch
from mfmc_ray.pipeline.wearing import FIRST
from mfmc_ray.pipeline.workers import ANONYMIZE, check_of, scan_rows
from mfmc_ray.retry import StoreError
from mfmc_ray.sources import SourceError, SourceReader
from mfmc_ray.swap.swappers import swapper_of
from mfmc_ray.tables import FITTING as ROWS
from mfmc_ray.tables import scan_schema

FITTING = Stage("fitting", ("fitting",), private=True)
MOST_FACES = 12
"""Photos of a person that identities are tried on; of more, so many are drawn."""
AROUND = 1.5
"""How far around a face its picture is kept, in sides of its box."""


@dataclass(frozen=True)
class Fitted:
    """What became of an identity on a person's faces.

    Attributes:
        identity_id: of the identity.
        rooms: of each face that it was tried on, see `Checked.room`; it holds where that is above 0.
        steps: of each, `variation.varied`.
    """

    identity_id: str
    rooms: Mapping[Face, float]
    steps: Mapping[Face, tuple[int, ...]]

    @property
    def holds(self) -> int:
        """On how many faces."""
        return sum(room > 0 for room in self.rooms.values())


@dataclass(frozen=True)
class _Seat:
    """Where a face that identities are tried on is: what is around it, and itself in there."""

    face: Face
    image: Image
    sitter: Sitter


class FittingWorker:
    """Tries identities on people's faces into WORK/fitting."""

    def __init__(
        self,
        config: RunConfig,
        ledger: Ledger,
        known: KnownFaces,
        thresholds: dict[str, float],
        calibration: Calibration,
        searches: Mapping[str, Search] | None = None,
        services: Ask | None = None,
    ) -> None:
        runtime.use()
        self.config, self.ledger = config, ledger
        self.recognizers = {name: ALL_DIMENSIONS[name] for name in config.guard.recognizers}
        self.columns = scan_schema(self.recognizers).names
        self.model = load_model()
        self.watch = self.watch_of(config=config, ledger=ledger)
        check = check_of(config, Guard(known, thresholds, calibration, searches), services, self.watch)
        asker = Asker.of(services, SWAP, self.watch)
        self.swapper = swapper_of(config.swap, device=asker is None)
        self.wearer = wearer_of(self.swapper, check, asker)
        self._reader = SourceReader(config.storage_options)

    @staticmethod
    def watch_of(**arguments: Any) -> Watch:
        """The watch of a worker made with these."""
        return Watch(arguments["ledger"].work, FITTING.name, arguments["config"].find.max_seconds, ANONYMIZE.name)

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        """Does one part: `part`, its number, and `people`, each with `name`, `candidates`, identity_ids in the order in which to try them,
        and `faces`, [image_id, face_no, part of the scan, row] of each."""
        rows: list[dict[str, Any]] = []
        with self.watch.part(part["part"]):
            for person in part["people"]:
                rows += self.tried(person)
        summary = {"images": sum(len(person["faces"]) for person in part["people"]), "faces": len(rows)}
        self.ledger.commit_part(FITTING, part["part"], {"fitting": pa.Table.from_pylist(rows, schema=ROWS)}, summary)
        return summary

    def tried(self, person: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Tries a person's candidates until one holds on all faces: rows of `tables.FITTING`."""
        seats = [seat for face in person["faces"] if (seat := self._seated(*face)) is not None]
        best = 0
        for name in person["candidates"] if seats else ():
            fitted = self._fitted(name, seats, best)
            best = max(best, fitted.holds)
            faces = [
                {"image_id": face[0], "face_no": face[1], "room": room, "steps": list(fitted.steps[face])}
                for face, room in fitted.rooms.items()
            ]
            yield {"name": person["name"], "identity_id": name, "faces": faces}
            if fitted.holds == len(seats):
                return

    def _fitted(self, name: str, seats: Sequence[_Seat], best: int) -> Fitted:
        """An identity on some faces; on fewer of them once it cannot hold on more than `best`."""
        identity = identity_of(self.model, name)
        rooms: dict[Face, float] = {}
        steps: dict[Face, tuple[int, ...]] = {}
        for seat in seats:
            with self.watch.at(seat.face[0], self.watch.allowed(seat.image.size // 3, 1)):
                rooms[seat.face], steps[seat.face] = self._worn(identity, seat)
            if sum(room <= 0 for room in rooms.values()) >= len(seats) - best:
                break
        return Fitted(name, rooms, steps)

    def _worn(self, identity: Identity, seat: _Seat) -> tuple[float, tuple[int, ...]]:
        """How much room an identity leaves on a face, above 0 if it holds, and its steps."""
        try:
            worn = self.wearer(seat.image, seat.sitter, identity, FIRST)
        except Exception:  # one odd picture must not end the run; when it is made, what is wrong is said
            return -1.0, ()
        return max(-1.0, worn.room if worn.best is not None else min(worn.room, 0.0)), worn.steps

    def _seated(self, *face: Any) -> _Seat | None:
        """As `_seat`, which may meet an odd picture."""
        try:
            return self._seat(*face)
        except StoreError:
            raise
        except Exception:  # the same
            return None

    def _seat(self, image_id: str, number: int, part: int, row: int) -> _Seat | None:
        """A face as it is in its picture; None if it cannot be replaced, or there is no such picture."""
        (table,) = scan_rows(self.ledger, [[part, row, row + 1]], self.columns)
        (about,) = table.drop_columns(["faces"]).to_pylist()
        if about["image_id"] != image_id or about["reason"] is not None or self.watch.reason(image_id):
            return None
        with self.watch.at(image_id, path=about["path"], unit=about["unit"]):
            try:
                data = self._reader.read(about["unit"], about["locator"], size=about["source_bytes"])
            except SourceError:  # a finished run's originals may be gone
                return None
        if hashlib.sha256(data).hexdigest() != image_id:
            return None
        faces = faces_of(table["faces"][0], self.recognizers)
        with self.watch.at(image_id, self.watch.allowed(about["width"] * about["height"], 1), path=about["path"], unit=about["unit"]):
            try:
                pixels = decode(data, self.config.find.max_pixels).pixels
            except CodecError:
                return None
            x0, y0, x1, y1 = _around(faces.boxes[number], faces.need("meshes")[number], pixels.shape)
            image, origin = pixels[y0:y1, x0:x1].copy(), np.array([x0, y0, 0], np.float32)
            faces = faces.with_(
                boxes=faces.boxes - np.tile(origin[:2], 2), points=faces.points - origin[:2], meshes=faces.need("meshes") - origin
            )
            covered = self.swapper.covered(image, faces.need("meshes")[number])
            if unfit(self.config.swap.min_face, faces, number, covered) is not None:
                return None
        return _Seat((image_id, number), image, Sitter.of(faces, number, covered))


def read_fitted(ledger: Ledger) -> dict[str, list[Fitted]]:
    """What was tried so far: name → identities in the order in which they were."""
    found: dict[str, list[Fitted]] = {}
    for part in sorted(ledger.done(FITTING)):
        for row in ledger.read_table(FITTING, "fitting", part).to_pylist():
            faces = {(face["image_id"], face["face_no"]): face for face in row["faces"]}
            rooms = {face: float(about["room"]) for face, about in faces.items()}
            steps = {face: tuple(about["steps"]) for face, about in faces.items()}
            found.setdefault(row["name"], []).append(Fitted(row["identity_id"], rooms, steps))
    return found


def _around(box: F32, mesh: F32, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The window x0 y0 x1 y1 (px, end exclusive) of a picture of this shape that holds a face and what is around it."""
    low, high = np.minimum(box[:2], mesh[:, :2].min(0)), np.maximum(box[2:], mesh[:, :2].max(0))
    pad = AROUND * float((high - low).max())
    x0, y0 = (max(0, int(v)) for v in low - pad)
    return x0, y0, max(x0 + 1, min(shape[1], int(high[0] + pad) + 1)), max(y0 + 1, min(shape[0], int(high[1] + pad) + 1))
