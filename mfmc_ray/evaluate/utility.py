"""The section `utility`: what of a face is still there once it wears another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from mfmc_ray.evaluate.bootstrap import Bootstrap, by_group, nothing
from mfmc_ray.evaluate.columns import F64, Rows, of_faces, replaced, values
from mfmc_ray.evaluate.looks import DETECTORS, EXPRESSIONS, JUDGE, JUDGE_MODELS, NUMBERS, SIDES
from mfmc_ray.evaluate.sections import About, Note, Options
from mfmc_ray.faces.attributes import tone_band
from mfmc_ray.faces.mesh import turned

VERSION = 2
MESH_FROM = 0.5
"""Belief of the mesh network from which a mesh is one."""
LEAST_CORRELATED = 8
"""Faces, below which nothing is correlated."""
METHOD = (
    "replaced faces of at least 32 px; errors are |after − before|, of all faces whose mesh is found in the original, whether or not it is "
    "found in the output; gaze is where the irises are in the eyes (MediaPipe Iris), in widths of the eye: a stand-in, no angle"
)


def notes(options: Options) -> Sequence[Note]:
    """One table."""
    judge = JUDGE in (options.recognizers or ())
    models = ("facemesh", "attribute_net", "iris", *(JUDGE_MODELS if judge else ()))
    return [Note("looks", "mfmc_ray.evaluate.looks:Looks", VERSION, {"judge": judge}, models)]


def figures(tables: Mapping[str, pa.Table], about: About) -> dict[str, Any]:
    """See docs/evaluate.md."""
    table, n = tables["looks"], len(about)
    at = about.at(table)
    found = {name: values(table, name, at, n) for name in ("landmarks", "points")}
    found |= {f"{name}_{side}": values(table, f"{name}_{side}", at, n) for name in NUMBERS for side in SIDES}
    rows, boot = replaced(about), of_faces(about)
    judged = bool(np.isfinite(found["judge_age_before"]).any())
    said = _Kept(found, boot)
    return {
        "faces": int((rows & np.isfinite(found["mesh_before"])).sum()),
        "method": METHOD,
        "age_and_sex_by": {
            "judge": "HSE faceres-deep, which took no part in choosing the fakes" if judged else None,
            "own": "the network that chose the fakes: it is no independent witness",
        },
        **said.figures(rows),
        "by_group": by_group(about.groups, said.short, rows),
    }


class _Kept:
    """The figures of some faces. `found`: column → (n,) numbers, NaN where there is none."""

    def __init__(self, found: Mapping[str, F64], boot: Bootstrap) -> None:
        self.found, self.boot = found, boot
        self.meshed = found["mesh_before"] >= MESH_FROM
        bands = [np.array([tone_band(v) if np.isfinite(v) else np.nan for v in found[f"tone_{side}"]]) for side in SIDES]
        self.bands = np.abs(bands[1] - bands[0])

    def figures(self, rows: Rows) -> dict[str, Any]:
        """All of them."""
        some = rows & self.meshed
        return {
            "detected": {
                name: {side: self.boot.mean(self.found[f"{name}_{side}"], rows) for side in SIDES} | {"kept": self._still(name, rows)}
                for name in DETECTORS
            },
            "mesh_found": {side: self.boot.mean(self._share(self.found[f"mesh_{side}"] >= MESH_FROM), rows) for side in SIDES},
            "landmarks": {"mesh": self._measure(self.found["landmarks"], some), "five_points": self._measure(self.found["points"], rows)},
            "pose": {
                angle: {"error": self._measure(error, some), "p90": self.boot.quantile(error, 0.9, some)}
                for angle, error in ((angle, self._turn(angle)) for angle in ("yaw", "pitch", "roll"))
            },
            "expression": {name: self._followed(name, some) for name in EXPRESSIONS},
            "gaze": {
                "error": self._measure(np.hypot(self._change("gaze_x"), self._change("gaze_y")), some),
                "sideways": self._followed("gaze_x", some),
            },
            "age": {who: self._age(prefix, rows) for who, prefix in (("judge", "judge_"), ("own", ""))},
            "sex_kept": {who: self.boot.mean(self._sex(prefix), rows) for who, prefix in (("judge", "judge_"), ("own", ""))},
            "tone": {
                "band_kept": self.boot.mean(self._share(self.bands == 0, self.bands), rows),
                "within_one_band": self.boot.mean(self._share(self.bands <= 1, self.bands), rows),
                "error": self._measure(np.abs(self._change("tone")), rows),
            },
        }

    def short(self, rows: Rows) -> dict[str, Any]:
        """Those that fairness asks for."""
        some, witness = rows & self.meshed, "judge_" if np.isfinite(self.found["judge_age_before"]).any() else ""
        numbers = {f"detected_{name}": (self.found[f"{name}_after"], rows) for name in DETECTORS}
        numbers |= {"landmarks": (self.found["landmarks"], some), "yaw": (self._turn("yaw"), some)}
        numbers |= {"smile": (np.abs(self._change("smile")), some), "age_error": (np.abs(self._change(f"{witness}age")), rows)}
        numbers |= {"sex_kept": (self._sex(witness), rows), "tone_band_kept": (self._share(self.bands == 0, self.bands), rows)}
        return {name: self.boot.mean(*every) for name, every in numbers.items()}

    def _share(self, hits: Rows, of: F64 | None = None) -> F64:
        return np.where(np.isfinite(self.found["mesh_before"] if of is None else of), hits, np.nan).astype(np.float64)

    def _measure(self, numbers: F64, rows: Rows) -> dict[str, Any]:
        return self.boot.mean(numbers, rows, share=False)

    def _change(self, name: str) -> F64:
        return self.found[f"{name}_after"] - self.found[f"{name}_before"]

    def _turn(self, angle: str) -> F64:
        before, after = (self.found[f"{angle}_{side}"].astype(np.float32) for side in SIDES)
        return np.abs(turned(before, after)).astype(np.float64)

    def _still(self, name: str, rows: Rows) -> dict[str, Any]:
        """Of those seen before, the share that is seen after."""
        return self.boot.mean(self.found[f"{name}_after"], rows & (self.found[f"{name}_before"] == 1))

    def _sex(self, prefix: str) -> F64:
        before, after = (self.found[f"{prefix}man_{side}"] for side in SIDES)
        return self._share((before > 0.5) == (after > 0.5), before)

    def _age(self, prefix: str, rows: Rows) -> dict[str, Any]:
        change = self._change(f"{prefix}age")
        return {"error": self._measure(np.abs(change), rows), "bias": self._measure(change, rows)}

    def _followed(self, name: str, rows: Rows) -> dict[str, Any]:
        """Mean error, and how well the value after follows the one before."""
        before, after = (self.found[f"{name}_{side}"] for side in SIDES)
        return {"error": self._measure(np.abs(after - before), rows), "correlation": correlation(self.boot, before, after, rows)}


def correlation(boot: Bootstrap, one: F64, other: F64, rows: Rows) -> dict[str, Any]:
    """Pearson's correlation over some faces, −1…1, with its interval; None where one of them does not vary."""
    some = np.flatnonzero(rows & np.isfinite(one) & np.isfinite(other))
    if len(some) < LEAST_CORRELATED:
        return nothing("too few faces")
    x, y = one[some] - one[some].mean(), other[some] - other[some].mean()
    moments = np.stack([np.ones(len(some)), x, y, x * x, y * y, x * y], axis=1)
    sums = np.stack([np.bincount(boot.person[some], m, boot.people) for m in moments.T], axis=1)

    def of(totals: F64) -> F64:
        n, sx, sy, sxx, syy, sxy = np.moveaxis(totals, -1, 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((n * sxy - sx * sy) / np.sqrt((n * sxx - sx**2) * (n * syy - sy**2)))

    value = float(of(sums.sum(0)))
    if not np.isfinite(value):
        return nothing("it does not vary")
    return boot.figure(value, of(boot.times.astype(np.float64) @ sums), len(some))
