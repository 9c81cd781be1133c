"""The calibration on a run's own faces: every source of impostor pairs beside the shipped curve, and curves where they are good enough."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mfmc_ray.known.calibration import Calibration, Curve
from mfmc_ray.pipeline.impostors import KnownPeople, closest_pairs, measured, of_curve, refused, sources_of, write_curve
from mfmc_ray.pipeline.trial import make_fakes


def calibrate_run(work: Path, people: str | None, fakes: int) -> dict[str, Any]:
    """Measures what the run in `work` has, and writes WORK/calibration.

    Args:
        work: a run's private folder.
        people: as of `KnownPeople.labelled`.
        fakes: how many to make and measure.

    Returns:
        plain data: `known_faces`, `notes` (source → what to know of it), `written` (files) and `recognizers`: name → `strict_threshold`,
        `shipped` and `rows` as of `measured`, `closest` pairs, and `verdict`: what was written, or why nothing was.

    Raises:
        LedgerError, KnownIndexError, ConfigError, CalibrationError: something cannot be read.
    """
    known = KnownPeople(work)
    owners = known.labelled(people)
    sources = sources_of(known, owners, make_fakes(list(known.vectors), fakes).vectors if fakes else None)
    labelled = sources[0] if sources and sources[0].drawn == "people" else None
    shipped, written, recognizers = Calibration(), [], {}
    notes = {source.name: source.note for source in sources if source.note}
    for name in known.vectors:
        strict, curve = shipped.strict_threshold(name), shipped.curves[name]
        rows = [measured(source, name, strict) for source in sources]
        verdict = f"{name}: no curve was written: --people does not say who is who, and what is unlabelled or made up can set no threshold"
        if people is not None:
            why = refused(rows[0]) if labelled else "no two photos with one known face are of different people"
            verdict = f"{name}: no curve was written: {why}"
            if not why:
                file = write_curve(known, owners, name, rows[0], people)
                written.append(str(file))
                verdict = f"{name}: {_compared(shipped, Curve.from_json(json.loads(file.read_text())), known.everyone)}; written to {file}"
        about = {"source": "as shipped", "pairs": curve.pairs, "drawn": curve.people, "from": "people", "highest": None}
        recognizers[name] = {
            "strict_threshold": strict,
            "shipped": {**about, **of_curve(curve, strict)},
            "rows": rows,
            "closest": closest_pairs(known, owners, labelled, name) if labelled else [],
            "verdict": verdict,
        }
    return {"known_faces": known.everyone, "notes": notes, "written": written, "recognizers": recognizers}


def _compared(shipped: Calibration, curve: Curve, n_known: int) -> str:
    """What a curve would change."""
    name = curve.recognizer
    before, after = (one.default_threshold(name, n_known) for one in (shipped, Calibration({name: curve})))
    return (
        f"strict threshold {curve.strict_threshold:.3f} (shipped {shipped.strict_threshold(name):.3f}); against the {n_known:,} known "
        f"faces {after.value:.3f} (shipped {before.value:.3f})"
    )
