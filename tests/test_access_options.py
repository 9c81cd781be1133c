"""The command line's access options arrive as settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from mfmc_ray import access_options, cli
from mfmc_ray.access_options import NO_ACCESS, Access, takes_access
from mfmc_ray.config import AccessConfig, ConfigError, load


def test_a_verb_gets_what_was_given() -> None:
    app, found = typer.Typer(), []

    @app.command()
    @takes_access("Who may stay")
    def verb(place: str, other: int = 3, access: Access = NO_ACCESS) -> None:
        """Does something."""
        found.append((place, other, load(None, **access).access))

    given = ("here", "--access", "rules", "--rules", "s3://t/rules.csv", "--audience", "friends", "--people", "/p")
    assert CliRunner().invoke(app, given).exit_code == 0
    settings = AccessConfig(model="rules", rules="s3://t/rules.csv", audience="group:friends", people="/p")
    assert found == [("here", 3, settings)]
    said = CliRunner().invoke(app, ["--help"]).output
    assert "Who may stay" in said
    assert "Does something." in said


def test_there_is_an_option_for_every_setting() -> None:
    assert set(access_options._TEXTS) == set(AccessConfig.__dataclass_fields__)


@pytest.mark.parametrize("verb", [("anonymize", "photos", "out"), ("scan", "photos", "out")])
def test_settings_that_do_not_go_together_are_refused_before_anything_is_done(verb: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.app, [*verb, "--access", "explicit", "--consents", "consents.csv"])
    assert isinstance(result.exception, ConfigError)
    assert "wants --people FOLDER" in str(result.exception)
    assert not any(tmp_path.iterdir())
