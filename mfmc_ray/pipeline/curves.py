"""The false-match curves of a run: taken from its settings, kept in WORK, and read from there by the audit.

WORK/calibration-used/<recognizer>.json is what the run's thresholds were chosen by. A resumed run must have the same.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from mfmc_ray.config import RunConfig
from mfmc_ray.faces.pack import EMBEDDERS, FURTHER, digests_of
from mfmc_ray.known.calibration import Calibration, CalibrationError
from mfmc_ray.places import LedgerError, replace_file, text_of

USED = "calibration-used"
"""Folder in WORK."""


def calibration_of(config: RunConfig) -> Calibration:
    """The curves that these settings name.

    Raises:
        CalibrationError: they cannot be read, or are of other weights than the pinned ones.
    """
    return Calibration.load(config.guard.calibration, _weights(config))


def _weights(config: RunConfig) -> dict[str, str]:
    return digests_of([*EMBEDDERS, *(name for name in config.guard.recognizers if name in FURTHER)])


def keep(work: Path, calibration: Calibration, recognizers: Sequence[str], *, restart: bool) -> None:
    """Puts the curves of a run into WORK, or compares them with those that are there.

    Raises:
        LedgerError: the run in WORK was begun with other curves.
        CalibrationError: what is there cannot be read, or there is no curve for a recognizer.
    """
    folder = work / USED
    if restart:
        shutil.rmtree(folder, ignore_errors=True)
    for name in recognizers:
        calibration.strict_threshold(name)  # or there is none
        file = folder / f"{name}.json"
        if file.exists():
            if Calibration.load(folder).curves[name].digest != calibration.curves[name].digest:
                raise LedgerError(
                    f"WORK ({work}) holds a run whose thresholds come from another calibration of {name}: undo the change to resume it, "
                    "give another WORK and OUT, or start anew with --restart"
                )
            continue
        text = json.dumps(calibration.curves[name].to_json(), indent=1) + "\n"
        replace_file(file, text_of(text))


def other_curves(work: Path, calibration: Calibration, recognizers: Sequence[str]) -> list[str]:
    """The recognizers, as `calibration sface`, whose curves are not those that the run in WORK was made with."""
    try:
        held = Calibration.load(work / USED).curves if (work / USED).is_dir() else {}
    except CalibrationError:
        held = {}
    now = {name: calibration.curves[name].digest for name in recognizers if name in calibration.curves}
    return [f"calibration {name}" for name, digest in now.items() if name not in held or held[name].digest != digest]


def used(work: Path, config: RunConfig) -> Calibration:
    """The curves that the run in WORK was made with.

    Raises:
        LedgerError: its settings name a calibration, and WORK does not have it.
        CalibrationError: what is there cannot be read, or is of other weights than the pinned ones.
    """
    if (work / USED).is_dir():
        return Calibration.load(work / USED, _weights(config))
    if config.guard.calibration is not None:
        raise LedgerError(f"{work / USED} is missing, which holds the curves that the run's thresholds come from; restore it from a copy")
    return Calibration()
