"""What WORK says of its run: which settings and models made it, and whether it came to its end."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mfmc_ray.config import RunConfig, load
from mfmc_ray.ledger import Ledger, LedgerError
from mfmc_ray.places import replace_file


class State:
    """The small files of a run in WORK.

    Args:
        work: the private folder.
    """

    def __init__(self, work: Path) -> None:
        self._settings, self._models = work / "settings.json", work / "models.json"
        self._identity, self._finished = work / "run.json", work / "ledger" / "finished.json"

    def begin(self, config: RunConfig, models: Mapping[str, str]) -> None:
        """Notes the settings (without storage options, which may hold secrets) and the models' digests of the run that begins."""
        settings = dataclasses.asdict(replace(config, storage_options={}))
        replace_file(self._settings, lambda path: path.write_text(json.dumps(settings, indent=1)))
        replace_file(self._models, lambda path: path.write_text(json.dumps(dict(models), indent=1)))

    def made_with(self) -> tuple[RunConfig, dict[str, str]] | None:
        """Settings and models' digests of the run; None before one was begun."""
        if not self._settings.is_file() or not self._models.is_file():
            return None
        return _loaded(self._settings), json.loads(self._models.read_text())

    @property
    def models(self) -> dict[str, str]:
        """Digests of the models that the run was begun with."""
        return dict(self._read(self._models))

    @property
    def is_begun(self) -> bool:
        """Whether there is a run that can be gone on with."""
        return "config" in self._read(self._identity)

    @property
    def is_restarting(self) -> bool:
        """Whether a run was being started anew and killed."""
        return bool(self._read(self._identity)) and not self.is_begun

    @property
    def is_finished(self) -> bool:
        """Whether it came to its end, and nothing was begun since."""
        return self._finished.is_file()

    @property
    def parts(self) -> dict[str, int]:
        """How many parts each scan had when it came to its end; none if it did not."""
        return dict(self._read(self._finished).get("parts", {}))

    @property
    def notices(self) -> list[str]:
        """Those of the finished run."""
        return list(self._read(self._finished)["notices"])

    def finish(self, notices: Sequence[str], parts: Mapping[str, int]) -> None:
        """Notes that the run has come to its end."""
        plain = {"notices": list(notices), "parts": dict(parts)}
        replace_file(self._finished, lambda path: path.write_text(json.dumps(plain)))

    def reopen(self) -> None:
        """Notes that it is being brought up to date, and is not finished until it is."""
        self._finished.unlink(missing_ok=True)

    def finished_settings(self, ledger: Ledger) -> RunConfig:
        """The settings of the finished run whose result is in OUT.

        Raises:
            LedgerError: WORK holds no run, none of this OUT, or an unfinished one.
        """
        try:
            begun = json.loads(self._identity.read_text())
            settings = _loaded(self._settings)
        except (OSError, ValueError) as error:
            raise LedgerError(f"WORK ({ledger.work}) holds no run; give the private folder of the run that made {ledger.out}") from error
        if "config" not in begun:
            raise LedgerError(f"the run in {ledger.work} was being started anew; run `mfmc anonymize --restart` again first")
        if begun.get("out") != ledger.out:
            raise LedgerError(f"WORK ({ledger.work}) belongs to another OUT ({begun.get('out')})")
        if not self.is_finished:
            raise LedgerError(
                f"the run in {ledger.work} is not finished; run `mfmc anonymize` (or `mfmc nightly`) again to finish it first"
            )
        return settings

    def _read(self, path: Path) -> dict[str, Any]:
        return dict(json.loads(path.read_text())) if path.is_file() else {}


def _loaded(path: Path) -> RunConfig:
    plain = json.loads(path.read_text())
    return load(None, **{name: value for name, value in plain.items() if name not in ("storage_options", "ray", "nightly")})
