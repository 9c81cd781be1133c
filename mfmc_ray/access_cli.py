"""`mfmc access explain`: why a face of an image would stay, or not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mfmc_ray import config
from mfmc_ray.access_options import NO_ACCESS, Access, takes_access
from mfmc_ray.config import AccessConfig, RunConfig
from mfmc_ray.discreet import names_allowed
from mfmc_ray.folders import storage_options_of, work_of
from mfmc_ray.ledger import Ledger, LedgerError

app = typer.Typer(no_args_is_help=True, help="Who may stay as they are, and why.")


@app.callback()
def _group() -> None:
    """Who may stay as they are, and why."""  # with one verb only, typer would leave its name out


@app.command()
@takes_access("Who may stay as they are (default: what the run in WORK was told)")
def explain(
    image: Annotated[str, typer.Argument(help="An image_id, a path in the collection as OUT has it, or a file.")],
    out: Annotated[str, typer.Argument(help="The folder or prefix of the result; it need not be there yet.")],
    work: Annotated[str | None, typer.Option(help="The run's private folder. Default: OUT-work beside a local OUT.")] = None,
    config_file: Annotated[Path | None, typer.Option("--config", "-c", help="YAML file with settings, instead of the run's.")] = None,
    storage_options: Annotated[str | None, typer.Option(help="JSON passed to fsspec, for a remote input or tables.")] = None,
    access: Access = NO_ACCESS,
) -> None:
    """Say of each face of an image whether it would stay, be replaced or be covered, by which row or rule, and who it was recognised as.

    A dry run: nothing changes, and only `mfmc scan` must have been run. The picture with the faces marked is written to WORK/explain, which
    is private; what is printed names people with --verbose only. That a face is to be replaced says that a fake will be tried; if none
    holds, it is covered.

    Example: mfmc access explain holiday/beach.jpg published/
    """
    from mfmc_ray.pipeline.curves import calibration_of, used
    from mfmc_ray.pipeline.explain import explain as run_explain
    from mfmc_ray.pipeline.explain import who
    from mfmc_ray.pipeline.state import State

    storage = storage_options_of(storage_options)
    given = config.load(config_file, out=out, work=work or work_of(out), storage_options=storage, **access)
    ledger = Ledger(given.out, given.work, given.storage_options)
    begun = State(ledger.work).made_with()
    if begun is None:
        raise LedgerError(f"WORK ({ledger.work}) holds no run; run `mfmc scan` first, or give the private folder of the run")
    settings = given if config_file else replace(begun[0], access=_over(begun[0].access, given), storage_options=given.storage_options)
    calibration = used(ledger.work, settings) if settings.guard == begun[0].guard else calibration_of(settings)
    found = run_explain(settings, ledger, image, calibration)
    console = Console(highlight=False, soft_wrap=True)
    where = "" if found.scanned else " It is not in the collection; its faces were found now."
    console.print(
        f"Image {found.image_id[:16]}…{f' ({found.path})' if names_allowed() else ''}: {len(found.faces)} faces.{where}", markup=False
    )
    if found.kept_back is not None:
        console.print(f"Nothing of it would be published: {found.kept_back}", markup=False)
        return
    table = Table()
    for heading in ("face", "box", "decision", "why", "who", "in OUT"):
        table.add_column(heading)
    for number, face in enumerate(found.faces):
        box = " ".join(f"{v:.0f}" for v in face.box)
        seen = who(face.seen, named=names_allowed())
        table.add_row(str(number), box, face.verdict, face.reason or "", seen, face.published or "")
    console.print(table)
    shown = f"Private, with the faces marked: {escape(str(found.picture))}"
    console.print(shown if found.picture else "No picture: the original is not there any more, or somebody in it was forgotten.")


def _over(told: AccessConfig, given: RunConfig) -> AccessConfig:
    """What a run was told of access, with what is given now on top; another model does not take the tables of the run's."""
    changed = {name: getattr(given.access, name) for name in given.access.published()}
    if changed.get("model", told.model) != told.model:
        told = AccessConfig(approvals=told.approvals, people=told.people, never=told.never, always=told.always)
    return replace(told, **changed)
