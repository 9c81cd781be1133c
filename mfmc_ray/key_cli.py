"""`mfmc key show|destroy`: the pseudonym key of a run."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from mfmc_ray.folders import work_of

app = typer.Typer(
    no_args_is_help=True,
    help="The run's secret: who holds it can repeat which fakes a face could get. A run makes it; nothing that is published needs it.",
)
Out = Annotated[str, typer.Argument(help="The published folder or prefix of a run.")]
Work = Annotated[str | None, typer.Option(help="The run's private folder. Default: OUT-work beside a local OUT.")]


@app.command()
def show(out: Out, work: Work = None) -> None:
    """Say whether there is a key, who may read it, and when it was made or destroyed; never the key."""
    from mfmc_ray.key import state
    from mfmc_ray.ledger import Ledger

    folder = Ledger(out, work or work_of(out)).work
    found = state(folder)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{folder}: {f'a key, mode {found.mode:o}' if found.there else 'no key'}", markup=False)
    for note in found.notes:
        console.print(f"  {note}", markup=False)


@app.command()
def destroy(out: Out, work: Work = None, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Overwrite and remove the key: from then on nobody can repeat the run's random choices.

    What is published stays as it is and can be audited. A picture that is anonymized later (a resumed run, new known faces) gets its fakes
    by a new key. Copies of WORK and of the disk's blocks are not reached.
    """
    from mfmc_ray.key import destroy as destroy_key
    from mfmc_ray.ledger import Ledger, LedgerError

    ledger = Ledger(out, work or work_of(out))
    if not (ledger.work / "run.json").is_file():
        raise LedgerError(f"WORK ({ledger.work}) holds no run; give the private folder of the run that made {ledger.out} with --work")
    if not yes and not typer.confirm("Destroy the key for ever?"):
        raise typer.Exit(1)
    with ledger.lock():
        gone = destroy_key(ledger.work)
    Console(highlight=False, soft_wrap=True).print("The key is destroyed." if gone else "There was no key.")
