"""`mfmc nightly`: bring a published result up to date, by a scheduler or by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mfmc_ray.folders import run_settings
from mfmc_ray.runlock import BusyError

NOT_STARTED, BUSY = 3, 75
"""Exit codes; the second one is EX_TEMPFAIL of sysexits.h: try again later."""


def nightly(
    config_file: Annotated[Path, typer.Option("--config", "-c", help="YAML file with all settings: input, out, work, nightly.")],
    plan: Annotated[bool, typer.Option("--plan", help="Say what there is to do and what it would cost, and do nothing.")] = False,
    address: Annotated[str | None, typer.Option(help="Ray cluster to use (default: the file's, RAY_ADDRESS, else a local one).")] = None,
    wait: Annotated[float | None, typer.Option(min=0, help="Minutes to wait for another process that works on the same run.")] = None,
    audit: Annotated[str | None, typer.Option(help='Audit the result at the end: "all", or a sample as 200 or 5%.')] = None,
) -> None:
    """Bring a published result up to date with its collection, and do only what changed.

    New, changed, moved and deleted images, new photos in the galleries, changed approvals, settings and models: the difference is
    found, shown with what it costs, and done. What a deleted image or a withdrawn approval showed is gone from OUT when the command
    ends. The first night does everything. A night that was killed goes on where it was.

    A summary is printed, and kept as a page and as JSON in WORK/nights.

    Exit codes: 0 up to date; 1 failed, or refuted by the audit; 2 wrong settings; 3 not started, because it would take longer than
    nightly.max_hours or more of the files are gone than nightly.max_deleted; 75 another process works on the run.

    Example: mfmc nightly --config nightly.yaml --plan
    """
    from mfmc_ray.pipeline import nightly as night

    settings = run_settings(
        config_file, input=None, out=None, work=None, ray__address=address, nightly__wait_minutes=wait, nightly__audit=audit
    )
    try:
        result = night.nightly(settings, only_plan=plan, show=_show)
    except BusyError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"mfmc: {error}", markup=False)
        raise typer.Exit(BUSY) from None
    if result is None:
        return
    console = Console(highlight=False, soft_wrap=True)
    if result.result == night.TOO_LONG:
        console.print(f"Not started: it would take about {night.duration(result.outlook.seconds)}, longer than nightly.max_hours allows.")
        raise typer.Exit(NOT_STARTED)
    if result.result == night.TOO_MANY_GONE:
        console.print(
            f"Not started: {result.outlook.deleted:.0%} of the files are gone from {settings.input} or a gallery, more than "
            "nightly.max_deleted allows. "
            "Is all of it mounted? If they were deleted on purpose, set nightly.max_deleted to 1 for this night."
        )
        raise typer.Exit(NOT_STARTED)
    if result.summary is not None:
        _summarize(console, result.summary)
        console.print(f"Published in {settings.out}. Summary: {result.page}")
    if result.result == night.REFUTED:
        raise typer.Exit(1)


def _show(outlook: Any) -> None:
    """The outlook as a table."""
    from mfmc_ray.pipeline.nightly import duration

    console = Console(highlight=False, soft_wrap=True)
    if not outlook.lines:
        console.print("Nothing has changed.")
        return
    table = Table()
    for name, justify in (("what", "left"), ("count", "right"), ("about", "right"), ("why", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for line in outlook.lines:
        table.add_row(line.what, f"{line.count:,}", duration(line.seconds) if line.seconds else "", line.note)
    console.print(table)
    console.print(f"About {duration(outlook.seconds)} in all, by what earlier runs took on this machine or cluster.")


def _summarize(console: Console, summary: dict[str, Any]) -> None:
    images = ", ".join(f"{count:,} {name}" for name, count in summary["images"].items() if count) or "none changed"
    counts = summary["counts"]
    now = ", ".join(f"{count:,} {verdict}" for verdict, count in counts["images"].items())
    console.print(f"Images: {images}. Now {now}. Faces that no longer held: {summary['reopened']['faces']}.")
    for notice in summary["notices"]:
        Console(stderr=True, highlight=False).print(f"[yellow]{notice}[/yellow]")
