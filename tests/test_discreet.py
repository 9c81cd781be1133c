"""What is printed of errors."""

from __future__ import annotations

import sys

import pytest
from typer.testing import CliRunner

from mfmc_ray import cli, discreet
from mfmc_ray.collection import CollectionError
from mfmc_ray.discreet import hushed, kind_and_words, told
from mfmc_ray.ledger import LedgerError

NAME = "/photos/Ada_Lovelace/1843.jpg"


@pytest.fixture(autouse=True)
def default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discreet, "_named", False)


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(2, "No such file or directory", NAME), "FileNotFoundError: No such file or directory, at test_discreet.py:"),
        (OSError(28, "No space left on device", NAME), "OSError: No space left on device, at test_discreet.py:"),
        (ValueError(f"cannot read {NAME}"), "ValueError: at test_discreet.py:"),
        (KeyError(NAME), "KeyError: at test_discreet.py:"),
        (hushed(CollectionError(f"{NAME} is odd"), "a file is odd"), "CollectionError: a file is odd"),
        (LedgerError("WORK (/w) is in OUT (/o)"), "LedgerError: WORK (/w) is in OUT (/o)"),  # our own names folders of the command line
    ],
)
def test_only_our_own_words_are_repeated(error: Exception, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    caught = raised(error)
    assert kind_and_words(caught).startswith(said)
    assert NAME not in told(caught)
    monkeypatch.setattr(discreet, "_named", True)
    assert told(caught) == str(error)
    assert kind_and_words(caught).startswith(said)  # what is kept in a file names nothing all the same


@pytest.mark.parametrize("flags", [["-v", "key", "show", "o"], ["key", "show", "o", "--verbose"], ["key", "show", "-v", "o"]])
def test_the_flag_may_stand_anywhere(flags: list[str], tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(str(tmp_path))
    assert CliRunner().invoke(cli.app, flags).exit_code == 0
    assert discreet.names_allowed()
    assert CliRunner().invoke(cli.app, ["key", "show", "o"]).exit_code == 0
    assert not discreet.names_allowed()
    assert "--verbose" in CliRunner().invoke(cli.app, ["--help"]).output


@pytest.mark.parametrize("verbose", [False, True])
@pytest.mark.parametrize("error", [ValueError(f"cannot read {NAME}"), OSError(5, "Input/output error", NAME)])
def test_an_error_of_the_programs_own_is_told_without_names(
    error: Exception, verbose: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        discreet.speak_freely(verbose)
        raise error

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr(sys, "argv", ["mfmc"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr().err
    assert ended.value.code == 1
    assert (NAME in printed) == verbose
    assert type(error).__name__ in printed
    assert "in fail" in printed  # where it happened


def test_what_a_worker_raised_is_told_without_names(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from mfmc_ray.pipeline.parts import PartError

    error = hushed(PartError(f"part 3: ValueError: cannot read {NAME}"), "part 3: ValueError: at scan.py:7 (--verbose says more)")
    error.add_note(f"Traceback … {NAME}")

    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit):
        cli.main()
    printed = capsys.readouterr().err
    assert printed == "mfmc: part 3: ValueError: at scan.py:7 (--verbose says more)\n"
    monkeypatch.setattr(discreet, "_named", True)
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err.count(NAME) == 2
