"""`mfmc key show|rotate|destroy`: the pseudonym key of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from mfmc_ray.folders import work_of

if TYPE_CHECKING:
    from mfmc_ray.ledger import Ledger

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
def rotate(out: Out, work: Work = None, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Make a new key; the old one is destroyed, and with it what was noted of who wears which fake.

    With `pseudonyms: person` the next run or night gives everybody another fake and makes all images with faces anew, which takes as long
    as the first time (`mfmc nightly --plan` says it). Otherwise what is published stays, and later images get their fakes by the new key.
    """
    from mfmc_ray.key import rotate as rotate_key

    ledger = _of_run(out, work)
    if not yes and not typer.confirm("Destroy the key for ever, and make another?"):
        raise typer.Exit(1)
    with ledger.lock():
        rotate_key(ledger.work)
    Console(highlight=False, soft_wrap=True).print("There is a new key; the old one is destroyed.")


@app.command()
def destroy(out: Out, work: Work = None, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Overwrite and remove the key: from then on nobody can repeat the run's random choices.

    What is published stays as it is and can be audited. A picture that is anonymized later (a resumed run, new known faces) gets its fakes
    by a new key; with `pseudonyms: person` everybody gets another fake then, in all images. Copies of WORK and of the disk's blocks are not
    reached.
    """
    from mfmc_ray.key import destroy as destroy_key

    ledger = _of_run(out, work)
    if not yes and not typer.confirm("Destroy the key for ever?"):
        raise typer.Exit(1)
    with ledger.lock():
        gone = destroy_key(ledger.work)
    Console(highlight=False, soft_wrap=True).print("The key is destroyed." if gone else "There was no key.")


def _of_run(out: str, work: str | None) -> Ledger:
    from mfmc_ray.ledger import Ledger, LedgerError

    ledger = Ledger(out, work or work_of(out))
    if not (ledger.work / "run.json").is_file():
        raise LedgerError(f"WORK ({ledger.work}) holds no run; give the private folder of the run that made {ledger.out} with --work")
    return ledger
