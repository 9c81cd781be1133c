"""The options of the command line that say who may stay. A verb that takes them gets them as one mapping of settings."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

_TEXTS = {
    "approvals": ("FILE", "CSV or Parquet file that names faces, by image and box, which may stay or must not; beside any model."),
    "people": ("FOLDER", "Enrolled people, who are recognised (`mfmc people enroll`)."),
    "model": (
        "none|proxy|explicit|rules",
        "Who decides about whoever is recognised: nobody (default), whom they trust, they, or their rules.",
    ),
    "tags": ("FILE", "proxy: who tagged whom in which image."),
    "trust": ("FILE", "proxy: whose tags a person lets count."),
    "consents": ("FILE", "explicit: which images a person approves."),
    "rules": ("FILE", "rules: which audience may see a person in which images."),
    "groups": ("FILE", "proxy, rules: who is in which group."),
    "audience": ("everyone|GROUP|viewer:NAME", "rules: whom this result is for (default: everyone)."),
    "never": ("FILE", "People who stay in no image, whatever else is said."),
    "always": ("FILE", "People who stay in every image, unless something denies it."),
}
Access = Mapping[str, str | None]
"""Settings, as `access__model`; None: not given."""
NO_ACCESS: Access = {}
_NAMES = {"model": "access"}
"""The option of a setting that has another name."""


def takes_access(panel: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a verb the options, under a heading of the help.

    The verb has a parameter `access`: a mapping for `config.load`, such as `access__model` → "explicit", with None for what was not given.
    """

    def with_options(verb: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(verb, eval_str=True)
        own = [parameter for parameter in signature.parameters.values() if parameter.name != "access"]
        options = []
        for setting, (metavar, text) in _TEXTS.items():
            name = _NAMES.get(setting, setting)
            option = typer.Option(f"--{name}", metavar=metavar, help=text, rich_help_panel=panel)
            options.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]))

        @functools.wraps(verb)
        def taking(**given: Any) -> None:
            access = {f"access__{setting}": given.pop(_NAMES.get(setting, setting)) for setting in _TEXTS}
            verb(**given, access=access)

        parameters = [*(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own), *options]
        taking.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        taking.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters} | {"return": None}
        return taking

    return with_options
