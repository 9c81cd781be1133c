"""What the verbs have in common about a run's folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mfmc_ray.config import ConfigError, RunConfig, load


def work_of(out: str) -> str:
    """The private folder of a local OUT, if none is named.

    Raises:
        ConfigError: OUT is remote.
    """
    if "://" in out:
        raise ConfigError("a remote OUT needs --work, a private local folder")
    return str(Path(out).absolute()) + "-work"


def storage_options_of(text: str | None) -> dict[str, Any] | None:
    """The value of --storage-options.

    Raises:
        ConfigError: it is no JSON object.
    """
    if text is None:
        return None
    try:
        options = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"--storage-options wants JSON: {error}") from error
    if not isinstance(options, dict):
        raise ConfigError("--storage-options wants a JSON object")
    return options


def finished_run(
    out: str, work: str | None, options: str | None, actors: int | None, address: str | None, access: Mapping[str, str | None] | None = None
) -> RunConfig:
    """The places of a finished run, and access settings to hold it against; all else that decided its result is in its own settings.

    Raises:
        ConfigError: OUT is remote and WORK is not named, or the options are no JSON object.
    """
    storage = storage_options_of(options)
    places = {"input": "-", "out": out, "work": work or work_of(out), "storage_options": storage}
    return load(None, **places, **(access or {}), ray__actors=actors, ray__address=address)
