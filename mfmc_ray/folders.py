"""What the verbs have in common about a run's folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
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


def run_settings(config_file: Path | None, *, input: str | None, out: str | None, work: str | None, **given: Any) -> RunConfig:  # noqa: A002
    """The settings of a run whose folders are named by a command line, by a YAML file, or by both.

    Args:
        config_file: the YAML file.
        input, out, work: of the command line, which go before the file's. The file's WORK is of the file's OUT; WORK is beside OUT if
            nobody names it.
        given: as the overrides of `config.load`.

    Raises:
        ConfigError: nobody names INPUT or OUT, OUT is remote and nobody names WORK, or as `config.load`.
    """
    told = load(config_file, **given)
    places = {"input": input or told.input, "out": out or told.out}
    if missing := [name for name, place in places.items() if not place]:
        where = f"{config_file} has no" if config_file else "give INPUT and OUT, or --config with a YAML file that has"
        raise ConfigError(f"{where} {' and '.join(f'`{name}:`' for name in missing)}")
    if work is None:
        work = told.work if told.work and out in (None, told.out) else work_of(places["out"])
    return load(config_file, **places, work=work, **given)


def names_of(text: str | None) -> tuple[str, ...] | None:
    """The names of an option that takes several, separated by commas; None if it is not given."""
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


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
    out: str | None,
    work: str | None,
    options: str | None,
    actors: int | None,
    address: str | None,
    access: Mapping[str, str | None] | None = None,
    config_file: Path | None = None,
) -> RunConfig:
    """The places of a finished run, and access settings to hold it against; all else that decided its result is in its own settings.

    Args:
        out, work, options, actors, address, access: of the command line.
        config_file: the run's YAML file, of which folders, storage options and cluster are taken where the command line names none.

    Raises:
        ConfigError: nobody names OUT, OUT is remote and WORK is not named, or the options are no JSON object.
    """
    storage, here = storage_options_of(options), {"ray__actors": actors, "ray__address": address}
    if config_file is not None:
        told = run_settings(config_file, input="-", out=out, work=work, storage_options=storage, **here)
        return replace(
            load(None, **(access or {})), input="-", out=told.out, work=told.work, storage_options=told.storage_options, ray=told.ray
        )
    if out is None:
        raise ConfigError("give OUT, or --config with a YAML file that has `out:`")
    places = {"input": "-", "out": out, "work": work or work_of(out), "storage_options": storage}
    return load(None, **places, **(access or {}), **here)
