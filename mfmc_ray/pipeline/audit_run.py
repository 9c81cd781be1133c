"""The audit, driven from one process: each published part, then what only the whole can tell. The verdict goes into OUT/audit.json."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from mfmc_ray.config import RunConfig
from mfmc_ray.discreet import told
from mfmc_ray.faces.pack import ALL_DIMENSIONS, files_of
from mfmc_ray.faces.store import load_lock, pull
from mfmc_ray.ledger import Ledger, LedgerError
from mfmc_ray.pipeline import findings as checks
from mfmc_ray.pipeline import leak
from mfmc_ray.pipeline.audit import AuditStage
from mfmc_ray.pipeline.audited import Audited, markers, read_manifest
from mfmc_ray.pipeline.inspection import strange_columns
from mfmc_ray.pipeline.manifest import given_digests
from mfmc_ray.pipeline.parts import run_parts
from mfmc_ray.pipeline.publish import write_reports
from mfmc_ray.pipeline.recheck import PlainSearch, number
from mfmc_ray.pipeline.rows import matrix
from mfmc_ray.pipeline.sampling import Drawn, Sample, draw
from mfmc_ray.pipeline.session import connect, plan_of
from mfmc_ray.pipeline.signoff import MODELS, result, show, summed, verdicts
from mfmc_ray.pipeline.state import State
from mfmc_ray.pipeline.workers import ANONYMIZE
from mfmc_ray.tables import IDENTITIES, embedding_column


def audit(config: RunConfig, sample: Sample | None = None) -> bool:
    """Whether what OUT holds keeps the promise; the details are in OUT/audit.json, OUT/report and on the console.

    Args:
        config: `out`, `work`, `storage_options` and `ray` are used; the run's other settings are read from its manifest.
        sample: how many of the published pictures are looked at; None: all. Rows, certificates' claims and digests are checked in full.

    Raises:
        LedgerError: OUT is unfinished, or the private tables are missing or damaged: nothing was proved then, nor refuted.
    """
    ledger = Ledger(config.out, config.work, config.storage_options)
    read_manifest(ledger)
    if not (ledger.work / "run.json").is_file():
        raise LedgerError(f"WORK ({ledger.work}) holds no run; give the private folder of the run that made {ledger.out} with --work")
    with ledger.lock():
        audited = Audited.open(config)
        pull(files_of(MODELS))
        with connect(config.ray, ledger.work):
            return _run(audited, config, sample or Sample())


def audit_in_session(config: RunConfig) -> bool:
    """`audit` by a process that holds the run's lock and is connected to Ray."""
    audited = Audited.open(config)
    pull(files_of(MODELS))
    return _run(audited, config, Sample())


def parts_of(ledger: Ledger) -> list[dict[str, Any]]:
    """The parts for `AuditStage`: OUT's files, images and faces of the same number together."""
    images, faces = ({name.rpartition("/")[2]: name for name in ledger.files(table)} for table in ("images", "faces"))
    written = {entry["file"]: entry["sha256"] for marker in markers(ledger, ANONYMIZE) for entry in marker["files"]}
    parts: list[dict[str, Any]] = []
    for name in sorted(images.keys() | faces.keys()):
        pair = {"images": images.get(name), "faces": faces.get(name)}
        parts.append({"part": len(parts), **pair, "written": {f: written[f] for f in pair.values() if f in written}})
    return parts


def _run(audited: Audited, config: RunConfig, sample: Sample) -> bool:
    started = time.monotonic()
    parts = parts_of(audited.ledger)
    drawn = limit(parts, sample, audited.ledger)
    summaries: dict[int, dict[str, Any]] = {}
    leak.forget(audited.ledger.work / "audit")  # of an audit that was killed
    try:
        run_parts(
            AuditStage,
            audited.for_stage(),
            parts,
            plan=plan_of(config.ray, services=False),
            label="Auditing",
            total=len(audited.scan),
            on_result=summaries.__setitem__,
        )
        signed = conclude(audited, parts, [summaries[part["part"]] for part in parts], started, drawn)
    finally:
        leak.forget(audited.ledger.work / "audit")
    show(signed, audited.ledger.out)
    return bool(signed["passed"])


def limit(parts: list[dict[str, Any]], sample: Sample, ledger: Ledger) -> Drawn:
    """Draws the sample and tells each part which of its images are in it."""
    drawn = draw(sample, ledger, [part["images"] for part in parts])
    for part, rows in zip(parts, drawn.rows or [], strict=drawn.rows is not None):
        part["look"] = rows
    return drawn


def conclude(
    audited: Audited, parts: list[dict[str, Any]], summaries: list[dict[str, Any]], started: float, drawn: Drawn
) -> dict[str, Any]:
    """Adds what only the whole can tell, and writes OUT/audit.json and the reports.

    Args:
        audited: with what was found on opening it.
        parts: of `parts_of`.
        summaries: what the stage returned for each.
        started: `time.monotonic()` at the start.
        drawn: of `limit`.

    Returns:
        What OUT/audit.json holds.
    """
    findings, listed = audited.findings, {name for part in parts for name in (part["images"], part["faces"])}
    for marker in markers(audited.ledger, ANONYMIZE):
        for entry in marker["files"]:
            if entry["file"] not in listed:
                findings.add(checks.CHANGED, f"{entry['file']}: it is gone")
    for name in (name for table in ("images", "faces", "identities") for name in audited.ledger.strangers(table)):
        findings.add(checks.CHANGED, f"{name}: the run did not write it")
    for summary in summaries:
        findings.merge(summary["counts"], summary["examples"])
    _check_images(audited, summaries)
    identities = _check_identities(audited, summaries)
    _check_manifest(audited, summaries)
    signed = result(audited, drawn, summaries, time.monotonic() - started)
    audited.ledger.write_json("audit.json", signed)
    try:
        write_reports(audited.ledger, audited.settings, audited.manifest, identities, audit=signed)
    except Exception as error:  # the tables may be anything by now; the verdict stands
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print(f"The report could not be written anew from what OUT holds: {type(error).__name__}: {told(error)}", markup=False)
    return signed


def _check_images(audited: Audited, summaries: list[dict[str, Any]]) -> None:
    """Each image of the scan has one row."""
    places = np.concatenate([np.zeros(0, np.int64), *(np.array(s["places"], np.int64) for s in summaries)])
    keys, wanted = np.unique(audited.scan.keys, return_counts=True)
    at = np.searchsorted(keys, audited.scan.keys[places[places >= 0]])
    found = np.bincount(at, minlength=len(keys))
    for i in np.flatnonzero(found != wanted):
        place = int(np.searchsorted(audited.scan.keys, keys[i]))
        (row,) = audited.scan.read([place], list(audited.thresholds)).values()
        for _ in range(abs(int(found[i] - wanted[i]))):
            audited.findings.add(checks.IMAGE_ROWS, f"{row['path']}: {found[i]} rows, wanted {wanted[i]}")


def _check_identities(audited: Audited, summaries: list[dict[str, Any]]) -> pa.Table:
    """OUT/identities against the pool and the known faces; the table, empty if it cannot be read."""
    findings, uses = audited.findings, summed(summaries, "uses")
    tables = []
    for name in audited.ledger.files("identities"):
        try:
            table = pq.read_table(pa.BufferReader(audited.ledger.read_bytes(name)))
            for column in strange_columns(table.schema, IDENTITIES, table):
                findings.add(checks.COLUMNS, f"{name}: {column}")
            tables.append(table.select(IDENTITIES.names).cast(IDENTITIES))
        except Exception as error:  # a damaged Parquet file raises nearly anything
            findings.add(checks.UNREADABLE, f"{name}: {type(error).__name__}: {error}")
    identities = pa.concat_tables(tables) if tables else IDENTITIES.empty_table()
    rows = identities.to_pylist()
    for name, times in Counter(row["identity_id"] for row in rows).items():
        if times > 1:
            findings.add(checks.IDENTITY_USE, f"{name} is listed {times} times")
    listed = {row["identity_id"]: row["uses"] for row in rows}
    for name, n in uses.items():
        if name not in listed:
            findings.add(checks.IDENTITY_USE, f"{name} is worn by {n} faces and not listed")
    for name, n in listed.items():
        if n != uses.get(name, 0):
            findings.add(checks.IDENTITY_USE, f"{name} is said to be worn by {n} faces, and is by {uses.get(name, 0)}")
    pool = {name: i for i, name in enumerate(audited.pool["identity_id"].to_pylist())}
    known = [row for row in rows if row["identity_id"] in pool]
    for row in rows:
        if row["identity_id"] not in pool:
            findings.add(checks.IDENTITY_CERTIFICATES, f"{row['identity_id']} is not in the pool")
    if known:
        search = PlainSearch(audited.known, audited.thresholds, audited.calibration)
        taken = audited.pool.take([pool[row["identity_id"]] for row in known])
        vectors = {name: matrix(taken[embedding_column(name)], ALL_DIMENSIONS[name]) for name in audited.thresholds}
        found = {name: search.highest(name, v) for name, v in vectors.items()}
        for i, row in enumerate(known):
            mine = {name: (float(cosines[i]), int(nearest[i])) for name, (cosines, nearest) in found.items()}
            faults = search.faults(row["certificates"], {name: v[i] for name, v in vectors.items()}, mine)
            faults += [f"{n}: {c:.4f} is not below the threshold" for n, (c, _) in mine.items() if not c < audited.thresholds[n]]
            if row["seed"] != taken["seed"][i].as_py():
                faults.append("its seed is not the pool's")
            for fault in faults:
                findings.add(checks.IDENTITY_CERTIFICATES, f"{row['identity_id']}: {fault}")
    return identities


def _check_manifest(audited: Audited, summaries: list[dict[str, Any]]) -> None:
    """What the manifest says of guard, models and counts."""
    findings, manifest = audited.findings, audited.manifest
    guard = {str(entry.get("recognizer")): entry for entry in manifest.get("guard") or [] if isinstance(entry, dict)}
    if set(guard) != set(audited.thresholds):
        findings.add(checks.MANIFEST, f"guard recognizers: wanted {', '.join(audited.thresholds)}")
    for name in audited.thresholds.keys() & guard.keys():
        wanted = {"known_faces": len(audited.known), "generation": audited.known.generation, "index_digest": audited.known.digest}
        for key, value in wanted.items():
            if guard[name].get(key) != value:
                findings.add(checks.MANIFEST, f"{name}: {key} is {value}")
        curve = audited.calibration.curves[name].digest
        if guard[name].get("calibration", curve) != curve:  # runs of version 0.1 do not name it
            findings.add(checks.MANIFEST, f"{name}: calibration is {curve}")
        strict, rate = audited.calibration.strict_threshold(name), audited.calibration.fmr(name, audited.thresholds[name])
        if not abs(number(guard[name].get("threshold")) - audited.thresholds[name]) <= 1e-6:
            findings.add(checks.MANIFEST, f"{name}: threshold is {audited.thresholds[name]:.4f}")
        if not abs(number(guard[name].get("strict_threshold", strict)) - strict) <= 1e-6:
            findings.add(checks.MANIFEST, f"{name}: strict_threshold is {strict:.4f}")
        if not abs(number(guard[name].get("false_match_rate", rate)) - rate) <= 1e-3 * rate:
            findings.add(checks.MANIFEST, f"{name}: false_match_rate is {rate:.2e}")
    given = given_digests(State(audited.ledger.work).models)
    pinned = {model.name: model.sha256 for model in load_lock()} | given
    listed = [model for model in manifest.get("models") or [] if isinstance(model, dict)]
    if silent := given.keys() - {model.get("name") for model in listed}:
        findings.add(checks.MANIFEST, f"models: {', '.join(sorted(silent))} made it, too")
    for model in manifest.get("models") or []:
        if not isinstance(model, dict) or pinned.get(str(model.get("name"))) != model.get("sha256"):
            findings.add(checks.MANIFEST, f"models: not the pinned one: {model}")
    counts = manifest.get("counts") if isinstance(manifest.get("counts"), dict) else {}
    for what in ("images", "faces"):
        counted = verdicts(summaries, what)
        if (counts or {}).get(what) != counted:
            findings.add(checks.MANIFEST, f"{what}: {counted} are there")
