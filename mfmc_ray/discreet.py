"""What may be printed: ids, kinds and folders that the user named; names out of the collection only with `--verbose`.

A path can hold a person's name, and what is printed ends in logs that others read.
"""

from __future__ import annotations

import traceback
from typing import TypeVar

E = TypeVar("E", bound=BaseException)

_named = False


def speak_freely(named: bool) -> None:
    """Whether names out of the collection may be printed by this process; not, until this is called."""
    global _named
    _named = named


def names_allowed() -> bool:
    """Whether `speak_freely` has allowed them."""
    return _named


def hushed(error: E, text: str) -> E:
    """The exception, with what may be said of it instead of its own words."""
    error.discreet = text  # type: ignore[attr-defined]
    return error


def told(error: BaseException) -> str:
    """What may be printed of an exception.

    What mfmc-ray itself raises names ids and folders of the command line, unless it is `hushed`. The words of other exceptions may hold
    anything: of those only the kind is told, the system's own words for an error number, and where it happened.
    """
    if _named:
        return str(error)
    return _told(error)


def kind_and_words(error: BaseException) -> str:
    """As `told` without names, with the exception's kind in front; for a report that is kept."""
    return f"{type(error).__name__}: {_told(error)}"


def frames(error: BaseException) -> str:
    """Where it happened: files of the program and their lines, no values."""
    return "".join(traceback.format_tb(error.__traceback__))


def _told(error: BaseException) -> str:
    said = getattr(error, "discreet", None)
    if said is not None:
        return str(said)
    if type(error).__module__.partition(".")[0] == __name__.partition(".")[0]:
        return str(error)
    words = error.strerror if isinstance(error, OSError) and error.strerror else ""
    steps = traceback.extract_tb(error.__traceback__)
    at = f"at {steps[-1].filename.rpartition('/')[2]}:{steps[-1].lineno} (--verbose says more)" if steps else ""
    return ", ".join(part for part in (words, at) if part)
