"""What there is to worry about in a published face: kinds of concern, each with a weight from 0 (none) to 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

F64 = NDArray[np.float64]
AGAIN, AMBIGUOUS, KEPT, CLOSE, ODD, COVERED = "again", "ambiguous", "kept", "close", "odd", "covered"
KINDS = (CLOSE, ODD, COVERED, KEPT, AMBIGUOUS, AGAIN)
"""In the order in which they are offered."""
NOTED = 0.25
"""From which weight a concern is worth words."""
ROOM = 0.12
"""A face whose cosines are all at least so far below their thresholds is close to nobody."""
GAPS = {"age": 25.0, "tone": 45.0, "yaw": 30.0, "pitch": 25.0, "roll": 25.0, "eye_opening": 0.25, "mouth_opening": 0.3, "smile": 0.35}
"""How much of each may differ, before and after, until the look is as odd as can be: years; ITA in degrees; degrees; of the mesh."""
OTHER_SEX, GROWN = 0.7, 15.0
"""Weight of another sex than before, from this age (years) on, from which a face shows its sex."""
COVERED_WEIGHT, COVERED_LARGE, LARGE = 0.3, 0.3, 200.0
"""Of a covered face, and what is added up to this size (√area of the box, px): large ones spoil a picture."""
KEPT_WEIGHT, AMBIGUOUS_WEIGHT, AGAIN_WEIGHT = 0.6, 0.7, 0.95
COLUMNS = (
    *("image_id", "path", "face_no", "box", "verdict", "reason", "access_reason", "identity_id", "attempts"),
    *("similarity_to_original", "max_similarity_to_known", "threshold", "certificates", "sex_before", "sex_after"),
    *(f"{name}_{when}" for name in GAPS for when in ("before", "after")),
)
"""Of `tables.FACES`, that are needed here."""
_NAMES = {"age": "age", "tone": "skin tone", "eye_opening": "eyes open", "mouth_opening": "mouth open", "smile": "smile"}


def weights(faces: pa.Table, ambiguous: NDArray[np.bool_] | None = None) -> dict[str, F64]:
    """kind → float64 (n,), the weight of each concern about n published faces.

    Args:
        faces: rows with `COLUMNS` of `tables.FACES`.
        ambiguous: which of them are like an enrolled person and like somebody else, too.
    """
    n = faces.num_rows
    verdicts = faces["verdict"]
    replaced, covered, kept = (np.asarray(pc.equal(verdicts, name), bool) for name in ("replaced", "redacted", "kept"))
    close = np.where(replaced, np.clip(1 - np.nan_to_num(room(faces), nan=0.0) / ROOM, 0, 1), 0)
    gaps = [np.nan_to_num(np.abs(_column(faces, f"{name}_after") - _column(faces, f"{name}_before")) / most) for name, most in GAPS.items()]
    odd = np.where(replaced, np.clip(np.sqrt(np.square(gaps).sum(0)), 0, 1), 0)
    odd = np.maximum(odd, OTHER_SEX * (replaced & _other_sex(faces)))
    boxes = np.asarray(faces["box"].combine_chunks().flatten(), np.float64).reshape(n, 4)
    sizes = np.sqrt(np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), 1))
    return {
        CLOSE: close,
        ODD: odd,
        COVERED: covered * (COVERED_WEIGHT + COVERED_LARGE * np.clip(sizes / LARGE, 0, 1)),
        KEPT: kept * KEPT_WEIGHT,
        AMBIGUOUS: np.zeros(n) if ambiguous is None else ambiguous * AMBIGUOUS_WEIGHT,
        AGAIN: np.zeros(n),
    }


def risk(found: Mapping[str, F64]) -> F64:
    """float64 (n,), from 0: the greatest weight of each face, and a little of the others."""
    table = np.stack(list(found.values()))
    most = table.max(0)
    return np.asarray(most + 0.1 * (table.sum(0) - most), np.float64)


def room(faces: pa.Table) -> F64:
    """float64 (n,): by how much the closest cosine of each face, of any guard, to a known face or to its original, is below its threshold;
    NaN if nothing is recorded."""
    found = _column(faces, "threshold") - _column(faces, "max_similarity_to_known")
    found = np.fmin(found, _column(faces, "threshold") - _column(faces, "similarity_to_original"))
    certificates = pc.list_flatten(faces["certificates"])
    gaps = pc.subtract(pc.struct_field(certificates, "threshold"), pc.struct_field(certificates, "max_similarity"))
    np.fmin.at(found, pc.list_parent_indices(faces["certificates"]).to_numpy(), gaps.to_numpy().astype(np.float64))
    return found


def words(face: Mapping[str, Any], found: Mapping[str, float]) -> list[tuple[str, str]]:
    """What to say of a face's concerns, the heaviest first: (kind, text).

    Args:
        face: row of `tables.FACES`.
        found: kind → weight.
    """
    say = {CLOSE: _close, ODD: _odd, COVERED: _covered, KEPT: _kept, AMBIGUOUS: _ambiguous, AGAIN: _again}
    heavy = sorted((kind for kind in found if found[kind] >= NOTED), key=lambda kind: -found[kind])
    return [(kind, say[kind](face)) for kind in heavy]


def swappable(face: Mapping[str, Any]) -> bool:
    """Whether another fake could be tried: not of a face that a rule keeps from being swapped at all, for which none was tried."""
    return bool(face["verdict"] != "redacted" or face["attempts"] or face["reason"] == "review")


def _column(faces: pa.Table, name: str) -> F64:
    return np.asarray(faces[name].to_numpy(), np.float64)


def _other_sex(faces: pa.Table) -> NDArray[np.bool_]:
    before, after = faces["sex_before"], faces["sex_after"]
    other = np.asarray(pc.fill_null(pc.not_equal(before, after), False), bool)
    return np.asarray(other & (_column(faces, "age_before") >= GROWN), bool)


def _close(face: Mapping[str, Any]) -> str:
    pairs = [(c["threshold"] - c["max_similarity"], f"a known face ({c['recognizer']})") for c in face["certificates"] or ()]
    if face["threshold"] is not None and face["similarity_to_original"] is not None:
        pairs.append((face["threshold"] - face["similarity_to_original"], "its original"))
    if not pairs:
        return "no certificate is recorded"
    gap, whose = min(pairs)
    return f"only {gap:.3f} below the threshold to {whose}"


def _odd(face: Mapping[str, Any]) -> str:
    said = []
    if face["sex_before"] != face["sex_after"] and (face["age_before"] or 0) >= GROWN:
        said.append(f"{face['sex_before']} → {face['sex_after']}")
    apart = {name: abs((face[f"{name}_after"] or 0) - (face[f"{name}_before"] or 0)) / most for name, most in GAPS.items()}
    for name in sorted(apart, key=lambda name: -apart[name])[:3]:
        if apart[name] >= NOTED:
            before, after = face[f"{name}_before"], face[f"{name}_after"]
            digits = 2 if GAPS[name] < 1 else 0
            said.append(f"{_NAMES.get(name, name)} {_number(before, digits)} → {_number(after, digits)}")
    return "looks different: " + ", ".join(said)


def _covered(face: Mapping[str, Any]) -> str:
    tried = f" after {face['attempts']} fakes" if face["attempts"] else ""
    return f"covered{tried}: {str(face['reason']).replace('_', ' ')}"


def _kept(face: Mapping[str, Any]) -> str:
    return f"shown as it is, allowed by {face['access_reason']}"


def _ambiguous(face: Mapping[str, Any]) -> str:
    return "like an enrolled person, and like somebody else, too"


def _again(face: Mapping[str, Any]) -> str:
    return "another fake was asked for: this is it"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def largest(values: F64, most: int) -> Sequence[int]:
    """The places of the greatest values, the greatest first, of equal ones the first."""
    return [int(i) for i in np.argsort(-values, kind="stable")[:most]]
