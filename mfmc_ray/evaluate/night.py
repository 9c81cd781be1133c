"""The summary of a night on one page, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jinja2

_NIGHTS_SHOWN = 30
_WORDS = {
    "new": "new images",
    "changed": "images with other content",
    "moved": "images under another name",
    "deleted": "images deleted",
    "access": "images in which access or reviews changed",
    "settings": "images made with other settings",
    "retried": "images tried again",
}


def write_night(path: Path, summary: Mapping[str, Any], nights: Sequence[Mapping[str, Any]]) -> Path:
    """Writes a page: one file, no script, no request to anywhere. It holds counts, no picture and no name; it is private all the same.

    Args:
        path: of the page.
        summary: of the night, as `pipeline/nightly.py` makes it.
        nights: of the last nights, oldest first, this one included.

    Returns:
        the path.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mfmc_ray.evaluate"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["duration"] = duration
    environment.filters["day"] = lambda text: datetime.fromisoformat(text).strftime("%a %d %b %Y, %H:%M UTC")
    shown = list(nights[-_NIGHTS_SHOWN:])
    longest = max((night["seconds"] for night in shown), default=1.0) or 1.0
    done = [(_WORDS.get(name, name), count) for name, count in summary["images"].items() if count]
    page = environment.get_template("night.html.j2").render(night=summary, done=done, nights=shown, longest=longest)
    path.write_text(page, encoding="utf-8")
    return path


def duration(seconds: float) -> str:
    """As 1:02:03."""
    return str(timedelta(seconds=round(seconds)))
