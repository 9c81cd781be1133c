"""Pictures and what became of them, without a run: faces blurred, covered, or as they were; and all that sections note and say of them."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import cv2
import numpy as np
import pyarrow as pa
from PIL import Image as PillowImage

from mfmc_ray.evaluate import faces_note
from mfmc_ray.evaluate.pair import Pair
from mfmc_ray.evaluate.pairing import Pairer
from mfmc_ray.evaluate.sections import About, Collector, Options, Section, named

Change = Callable[[np.ndarray], np.ndarray]


def blur(face: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.GaussianBlur(face, (0, 0), max(face.shape[:2]) / 10))


def black(face: np.ndarray) -> np.ndarray:
    return np.zeros_like(face)


def paired(pairer: Pairer, originals: Mapping[str, np.ndarray], change: Change | None) -> list[Pair]:
    """The pairs of a plain folder of pictures whose every face is changed; None: none is."""
    pairs = []
    for path, original in originals.items():
        output = original.copy()
        if change is not None:
            for face in pairer.pair(path, "changed", _png(original), None, None).faces.boxes:
                x0, y0, x1, y1 = np.clip(np.round(face), 0, [*original.shape[1::-1]] * 2).astype(int)
                output[y0:y1, x0:x1] = change(original[y0:y1, x0:x1])
        pairs.append(pairer.pair(path, "changed", _png(original), _png(output), None))
    return pairs


@functools.cache
def _maker(place: str, settings: str) -> Collector:
    return cast("Collector", named(place)(**json.loads(settings)))


def evaluated(pairs: Sequence[Pair], sections: Mapping[str, Section], options: Options) -> tuple[dict[str, Any], About]:
    """What the sections say, by name, and about what. Each path's folder is its person."""
    notes = {note.name: note for section in sections.values() for note in (*faces_note.NOTES, *section.notes(options))}
    tables = {}
    for name, note in notes.items():
        collector = _maker(note.maker, json.dumps(dict(note.settings)))  # they take long to make
        tables[name] = pa.Table.from_pylist([row for pair in pairs for row in collector.collect(pair)], collector.schema)
    people = [path.partition("/")[0] for path in tables["faces"]["path"].to_pylist()]
    person = np.unique(np.array(people, np.str_), return_inverse=True)[1].astype(np.int64)
    about = About(tables["faces"], tables["images"], person, "folders", faces_note.groups_of(tables["faces"]), options)
    return {name: section.figures(tables, about) for name, section in sections.items()}, about


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    PillowImage.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()
