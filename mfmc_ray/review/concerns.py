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
NOTED = 0.3
"""From which weight a concern is worth words."""
ROOM = 0.15
"""A face with at least so much `room` is close to nobody (measured: the median of 57 faces of the demo is 0.14, the least 0.05)."""
GAPS = {"age": 30.0, "tone": 40.0, "yaw": 20.0, "pitch": 20.0, "roll": 15.0, "eye_opening": 0.12, "mouth_opening": 0.25, "smile": 1.0}
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


def weights(faces: pa.Table, usual: Mapping[str, float], ambiguous: NDArray[np.bool_] | None = None) -> dict[str, F64]:
    """kind → float64 (n,), the weight of each concern about n published faces.

    Args:
        faces: rows with `COLUMNS` of `tables.FACES`.
        usual: guard recognizer → the median cosine of two strangers.
        ambiguous: which of them are like an enrolled person and like somebody else, too.
    """
    n = faces.num_rows
    verdicts = faces["verdict"]
    replaced, covered, kept = (np.asarray(pc.equal(verdicts, name), bool) for name in ("replaced", "redacted", "kept"))
    close = np.where(replaced, np.clip(1 - np.nan_to_num(room(faces, usual), nan=0.0) / ROOM, 0, 1), 0)
    gaps = [np.nan_to_num(np.abs(_column(faces, f"{name}_after") - _column(faces, f"{name}_before")) / most) for name, most in GAPS.items()]
    odd = np.where(replaced, np.clip(np.power(np.power(gaps, 4).sum(0), 0.25), 0, 1), 0)  # about the widest gap
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


def room(faces: pa.Table, usual: Mapping[str, float]) -> F64:
    """float64 (n,): how far each replaced face stays below every threshold, to any known face or to its original, of any guard.

    1 is as far as a stranger usually is (by `usual`), 0 fails; NaN if nothing is recorded.
    """
    certificates = pc.list_flatten(faces["certificates"])
    names, closest, limits = (pc.struct_field(certificates, name) for name in ("recognizer", "max_similarity", "threshold"))
    strangers = np.array([usual.get(name, 0.0) for name in names.to_pylist()], np.float64)
    owners = pc.list_parent_indices(faces["certificates"]).to_numpy()
    limit, reached = limits.to_numpy().astype(np.float64), closest.to_numpy().astype(np.float64)
    found = np.full(faces.num_rows, np.nan)
    np.fmin.at(found, owners, (limit - reached) / np.maximum(limit - strangers, 1e-3))
    # the original's cosine is the first guard's, as the first certificate is
    first = np.full(faces.num_rows, np.nan)
    first[owners[::-1]] = strangers[::-1]
    limit, original = _column(faces, "threshold"), _column(faces, "similarity_to_original")
    return np.asarray(np.fmin(found, (limit - original) / np.maximum(limit - first, 1e-3)), np.float64)


def words(face: Mapping[str, Any], found: Mapping[str, float], usual: Mapping[str, float]) -> list[tuple[str, str]]:
    """What to say of a face's concerns, the heaviest first: (kind, text).

    Args:
        face: row of `tables.FACES`.
        found: kind → weight.
        usual: as for `weights`.
    """
    say = {ODD: _odd, COVERED: _covered, KEPT: _kept, AMBIGUOUS: _ambiguous, AGAIN: _again}
    heavy = sorted((kind for kind in found if found[kind] >= NOTED), key=lambda kind: -found[kind])
    return [(kind, _close(face, usual) if kind == CLOSE else say[kind](face)) for kind in heavy]


def swappable(face: Mapping[str, Any]) -> bool:
    """Whether another fake could be tried: not of a face that a rule keeps from being swapped at all, for which none was tried."""
    return bool(face["verdict"] != "redacted" or face["attempts"] or face["reason"] == "review")


def _column(faces: pa.Table, name: str) -> F64:
    return np.asarray(faces[name].to_numpy(), np.float64)


def _other_sex(faces: pa.Table) -> NDArray[np.bool_]:
    before, after = faces["sex_before"], faces["sex_after"]
    other = np.asarray(pc.fill_null(pc.not_equal(before, after), False), bool)
    return np.asarray(other & (_column(faces, "age_before") >= GROWN), bool)


def _close(face: Mapping[str, Any], usual: Mapping[str, float]) -> str:
    pairs = [(c["recognizer"], c["max_similarity"], c["threshold"], "a known face") for c in face["certificates"] or ()]
    if pairs and face["similarity_to_original"] is not None:
        pairs.append((pairs[0][0], face["similarity_to_original"], face["threshold"], "its original"))
    if not pairs:
        return "no certificate is recorded"
    name, cosine, limit, whose = min(pairs, key=lambda pair: (pair[2] - pair[1]) / max(pair[2] - usual.get(pair[0], 0.0), 1e-3))
    return f"close to {whose}: {name} {cosine:.3f}, the limit is {limit:.3f}"


def _odd(face: Mapping[str, Any]) -> str:
    said = []
    if face["sex_before"] != face["sex_after"] and (face["age_before"] or 0) >= GROWN:
        said.append(f"{face['sex_before']} → {face['sex_after']}")
    apart = {name: abs((face[f"{name}_after"] or 0) - (face[f"{name}_before"] or 0)) / most for name, most in GAPS.items()}
    for name in sorted(apart, key=lambda name: -apart[name])[:3]:
        if apart[name] >= NOTED:
            before, after = face[f"{name}_before"], face[f"{name}_after"]
            digits = 2 if GAPS[name] <= 1 else 0
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
