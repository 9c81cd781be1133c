"""OUT/manifest.json: what was done, with which settings, models and index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from mfmc_ray import __version__
from mfmc_ray.config import RunConfig
from mfmc_ray.faces import insight
from mfmc_ray.faces.pack import files_of
from mfmc_ray.faces.store import load_lock
from mfmc_ray.identities.model import model_digest
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.known.index import KnownFaces
from mfmc_ray.pipeline.workers import count
from mfmc_ray.swap.swappers import digest_of, licences_of

_PACKAGES = ("ray", "pyarrow", "numpy", "faiss-cpu", "onnxruntime", "opencv-python-headless")


SWAPPER = "swapper"
"""What stands for a swap network among digests of models; that and a space, for each of its files."""


def models_of(config: RunConfig) -> list[str]:
    """The model files that a run uses."""
    return files_of([*config.find.detectors, *config.guard.recognizers, "mesh", "attributes", "hands"])


def model_digests(config: RunConfig) -> dict[str, str]:
    """sha-256 of each model file that a run uses, and of the identity model."""
    used = models_of(config)
    network = digest_of(config.swap)
    found = {model.name: model.sha256 for model in load_lock() if model.name in used} | {"identities": model_digest()}
    found |= {name: insight.digest_of(name) for name in _insightface(config)}
    found |= {f"{SWAPPER} {one.what}": one.sha256 for one in licences_of(config.swap)}
    return found | ({SWAPPER: network} if network else {})


def given_digests(digests: Mapping[str, str]) -> dict[str, str]:
    """Of `model_digests`, those of weights that are not in models.lock, by their names in the manifest."""
    named = {name.removeprefix(f"{SWAPPER} "): sha256 for name, sha256 in digests.items() if name.startswith(f"{SWAPPER} ")}
    return named | {name: digests[name] for name in insight.NAMES if name in digests}


def name_weights(config: RunConfig) -> None:
    """Has this process name the weights that the user has, so that other processes of the run are pinned to them (`insight.named`).

    Raises:
        ModelError: they are not here.
    """
    for name in _insightface(config):
        insight.digest_of(name)


def _insightface(config: RunConfig) -> list[str]:
    """The parts of a run whose weights are InsightFace's."""
    return [name for name in (*config.find.detectors, *config.guard.recognizers) if name in insight.NAMES]


def _models(config: RunConfig) -> list[dict[str, Any]]:
    """Name, sha-256, licence and whether it allows commercial use, of each model file."""
    used = models_of(config)
    rows = [(model.name, model.sha256, model.license, model.commercial) for model in load_lock() if model.name in used]
    rows += [(name, insight.digest_of(name), insight.LICENCE, False) for name in _insightface(config)]
    rows += [(one.what, one.sha256, one.name, one.commercial) for one in licences_of(config.swap)]
    return [dict(zip(("name", "sha256", "license", "commercial"), row, strict=True)) for row in rows]


def manifest_of(
    config: RunConfig,
    known: KnownFaces,
    thresholds: Mapping[str, float],
    calibration: Calibration,
    summaries: Sequence[dict[str, Any]],
    *,
    pool: int,
    stages: Sequence[Mapping[str, Any]],
    resources: Mapping[str, Any],
    notices: Sequence[str],
) -> dict[str, Any]:
    """Plain data.

    Args:
        config: of the run.
        known: the known faces.
        thresholds: guard recognizer → the cosine that published faces stay below.
        calibration: where they come from.
        summaries: of the published parts.
        pool: identities in the pool.
        stages: of `Times.all`.
        resources: of `Services.published`.
        notices: what a reader must know besides.
    """
    done = list(summaries)
    return {
        "version": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": config.to_dict(),
        "counts": {
            "images": count(done, "image_verdicts"),
            "faces": count(done, "face_verdicts"),
            "redacted": count(done, "redacted"),
            "failed": count(done, "failed"),
            "attempts": sum(s["attempts"] for s in done),
            "identities": {"pool": pool, "used": len(count(done, "uses"))},
        },
        "stages": list(stages),
        "resources": dict(resources),
        "guard": [
            {
                "recognizer": name,
                "threshold": threshold,
                "false_match_rate": calibration.fmr(name, threshold),
                "strict_threshold": calibration.strict_threshold(name),
                "calibration": calibration.curves[name].digest,
                "known_faces": len(known),
                "generation": known.generation,
                "index_digest": known.digest,
            }
            for name, threshold in thresholds.items()
        ],
        "models": _models(config),
        "notices": list(notices),
        "versions": {name: version(name) for name in _PACKAGES},
    }
