"""What an audit signs: OUT/audit.json, and the same on the console.

| field | what it says |
| --- | --- |
| `verdict`, `passed` | one sentence; whether every check found nothing |
| `version`, `created`, `seconds` | of mfmc-ray; when (UTC); how long it took |
| `checks` | of each check `name`, `count` found, `wanted`, `ok`, `basis` (rows, pictures, or a sample of them), `detail`, `examples` |
| `sample` | how many published `images` were looked at `of` how many, drawn by which `seed`; how many are `violating`; with which \
`confidence` `at_most` how many of all are (`at_most_share`), and the same at 99 % (`at_most_99`, `at_most_share_99`) |
| `totals` | rows of images and faces by verdict; pictures published; detections; sources that were compared, or were not there any more |
| `worst` | guard → the highest cosine of a published face to a known face and to its own original, and the threshold |
| `closest` | the ten published faces with the least margin: its id, the known face's, recognizer, cosines, threshold |
| `held_out` | recognizer that did not guard → replaced faces `compared` with their originals, those taken for the `same_person` at the \
`threshold`, and which share of true pairs it `recognizes` there |
| `leak`, `leak_reason` | how often a recognizer names the original's person, against chance (see `pipeline/leak.py`); null, and why |
| `index` | the known faces: how many, generation, digest |
| `models` | name, role and sha-256 of each that the audit used |
| `files` | name in OUT → sha-256, of what was read |

It is published: ids and paths that OUT has anyway, and nothing else of the private side; no embedding, no private path.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import resources
from typing import Any

from rich.console import Console
from rich.table import Table

from mfmc_ray import __version__
from mfmc_ray.discreet import names_allowed
from mfmc_ray.faces.pack import EMBEDDERS, HELD_OUT, files_of
from mfmc_ray.faces.store import load_lock
from mfmc_ray.pipeline import findings as checks
from mfmc_ray.pipeline import leak, sampling
from mfmc_ray.pipeline.audit import nearest_first
from mfmc_ray.pipeline.audited import Audited
from mfmc_ray.pipeline.recheck import TOLERANCE

MODELS = ("centerface", "yunet", "mesh", *EMBEDDERS, *HELD_OUT)
"""The parts of the pack that an audit uses."""
_BY_LOOKING = {checks.LEFT, checks.MATCHES, checks.CERTIFICATES, checks.PIXELS, checks.COVERS, checks.SEEN, checks.METADATA}

Summary = dict[str, Any]


def result(audited: Audited, drawn: sampling.Drawn, summaries: list[Summary], seconds: float) -> dict[str, Any]:
    """What OUT/audit.json holds.

    Args:
        audited: with everything that was found.
        drawn: the images that were to be looked at.
        summaries: of `AuditStage`, for every part.
        seconds: that it took.
    """
    findings, totals = audited.findings, summed(summaries, "totals")
    models = set(files_of(MODELS))
    compared, skipped = totals.get("sources compared", 0), totals.get("sources not readable", 0)
    sample = sampling.bound(drawn, sum(s["looked"] for s in summaries), sum(s["violating"] for s in summaries))
    seen = "all pictures" if sample["images"] == sample["of"] else "a sample of the pictures; what their rows say of all"
    forgotten = totals.get("originals forgotten", 0)
    details = {
        checks.LEFT: f"{totals.get('detections', 0)} detections by another detector, at another scale, on the mirrored picture",
        checks.MATCHES: "; ".join(f"{name} < {threshold:.4f}" for name, threshold in audited.thresholds.items())
        + (f"; {forgotten} originals are forgotten, and not compared with" if forgotten else ""),
        checks.CERTIFICATES: f"recomputed against {len(audited.known)} known faces, float64, tolerance {TOLERANCE}",
        checks.PIXELS: f"{compared} compared with their source, {skipped} not: it is gone or changed",
    }
    rows = [
        {
            "name": name,
            "count": findings.counts[name],
            "wanted": 0,
            "ok": findings.counts[name] == 0,
            "basis": seen if name in _BY_LOOKING else "all rows",
            "detail": details.get(name, ""),
            "examples": findings.examples.get(name, []),
        }
        for name in checks.CHECKS
    ]
    highest = {
        name: {
            key: max((s["highest"].get(name, {}).get(key, -1.0) for s in summaries), default=-1.0) for key in ("to_known", "to_original")
        }
        for name in audited.thresholds
    }
    strict = audited.calibration.strict_threshold
    others = [name for name in (*EMBEDDERS, *HELD_OUT) if name not in audited.thresholds]
    held_out = {
        name: {
            **{key: sum(s["held_out"][name][key] for s in summaries) for key in ("compared", "same_person")},
            "threshold": strict(name),
            "recognizes": _recognizes(name),
            "note": "not guarded by this run; for information",
        }
        for name in others
    }
    leaks, reason = audited.leak(others)
    plain: dict[str, Any] = {
        "verdict": "",
        "passed": all(row["ok"] for row in rows),
        "version": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "checks": rows,
        "sample": sample,
        "totals": {
            "images": verdicts(summaries, "images"),
            "faces": verdicts(summaries, "faces"),
            **{
                name: totals.get(name, 0)
                for name in ("published", "detections", "sources compared", "sources not readable", "originals forgotten")
            },
        },
        "worst": {name: {**cosines, "threshold": audited.thresholds[name]} for name, cosines in highest.items()},
        "closest": nearest_first(pair for s in summaries for pair in s["closest"]),
        "held_out": held_out,
        "leak": leaks,
        "leak_reason": reason,
        "index": {"known_faces": len(audited.known), "generation": audited.known.generation, "digest": audited.known.digest},
        "models": [{"name": m.name, "role": m.role, "sha256": m.sha256} for m in load_lock() if m.name in models],
        "files": {
            "manifest.json": audited.manifest_sha256,
            **{name: digest for s in summaries for name, digest in s["files"].items()},
        },
    }
    plain["verdict"] = _verdict(plain)
    return plain


def _recognizes(name: str) -> float | None:
    """The share of pairs of photos of one person that a recognizer's strict threshold accepts, as calibrated."""
    text = resources.files("mfmc_ray.known").joinpath("data", f"{name}.json").read_text(encoding="utf-8")
    share = json.loads(text).get("genuine", {}).get("rate_at_strict_threshold")
    return None if share is None else float(share)


def _verdict(plain: Mapping[str, Any]) -> str:
    images, faces = sum(plain["totals"]["images"].values()), sum(plain["totals"]["faces"].values())
    failed, sample = sum(not row["ok"] for row in plain["checks"]), plain["sample"]
    told = f"{images:,} images and {faces:,} faces audited. {sampling.in_words(sample)}"
    if forgotten := plain["totals"]["originals forgotten"]:
        told += f" {forgotten:,} originals are forgotten: that their fakes do not resemble them is what was certified before."
    if not plain["passed"]:
        return f"The promise is REFUTED by {failed} checks: {told}"
    return f"The promise holds{'' if sample['images'] == sample['of'] else ' as far as a sample shows'}: {told}"


def show(plain: Mapping[str, Any], out: str) -> None:
    """The checks as a table, the verdict in one line, and, where names may be printed, what was found."""
    console = Console(highlight=False, soft_wrap=True)
    table = Table(title="Audit", title_justify="left")
    for heading, justify in (("check", "left"), ("found", "right"), ("wanted", "right"), ("", "left")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for row in plain["checks"]:
        table.add_row(row["name"], str(row["count"]), str(row["wanted"]), "[green]holds[/green]" if row["ok"] else "[red]REFUTED[/red]")
    console.print(table)
    for row in plain["checks"] if names_allowed() else ():
        for example in row["examples"][:3]:
            console.print(f"  {row['name']}: {example}", markup=False)
    for text in information(plain):
        console.print(text, markup=False)
    colour = "green" if plain["passed"] else "red"
    console.print(f"[{colour}]{plain['verdict']}[/{colour}] {plain['seconds']:.0f} s. Details: {out}/audit.json")


def information(plain: Mapping[str, Any]) -> list[str]:
    """What is no check: the held-out recognizers' opinion, and the leak rate; sentences."""
    said = []
    for name, figures in plain["held_out"].items():
        if figures["compared"]:
            worth = "" if figures["recognizes"] is None else f"; of true pairs it recognizes {figures['recognizes']:.0%} there"
            said.append(
                f"For information: {name}, which did not guard, takes {figures['same_person']} of {figures['compared']} replaced faces for "
                f"their original (cosine ≥ {figures['threshold']:.3f}{worth})."
            )
    if plain["leak"] is None:
        said.append(f"Leak rate: not measured: {plain['leak_reason']}.")
    else:
        said += [f"Leak rate, {text}." for text in leak.in_words(plain["leak"])]
    return said


def verdicts(summaries: list[Summary], what: str) -> dict[str, int]:
    """How many rows of images or faces have which verdict, most first."""
    total: Counter[str] = Counter()
    for summary in summaries:
        total.update(summary["verdicts"][what])
    return dict(sorted(total.items(), key=lambda item: -item[1]))


def summed(summaries: list[Summary], name: str) -> dict[str, int]:
    """A counter of the summaries, over all parts."""
    total: Counter[str] = Counter()
    for summary in summaries:
        total.update(summary[name])
    return dict(total)
