"""`mfmc identities preview`: what the fake identities look like, without a collection or a run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import track

from mfmc_ray.config import ConfigError

if TYPE_CHECKING:
    from mfmc_ray.identities.model import IdentityModel
    from mfmc_ray.identities.sample import Identity

TONE_BANDS = ("very light", "light", "intermediate", "tan", "brown", "dark")
"""Names of the bands of `faces.attributes.tone_band`."""
MOST_SEEDS = 20_000
"""Seeds looked at before a filter is taken to fit nobody: half a minute."""
COLUMNS, TILE_PX = 10, 192


def preview(
    out: Annotated[Path, typer.Option(help="The picture to write (.png).")] = Path("identities.png"),
    count: Annotated[int, typer.Option(min=1, max=2000, help="How many identities.")] = 60,
    first: Annotated[
        int | None, typer.Option(min=0, metavar="SEED", help="Show the seeds from here on (default: those that runs try first).")
    ] = None,
    work: Annotated[
        Path | None, typer.Option("--from", metavar="WORK", help="Show what the run with this private folder has admitted instead.")
    ] = None,
    sex: Annotated[Literal["man", "woman"] | None, typer.Option(help="Only these.")] = None,
    age: Annotated[
        str | None, typer.Option(metavar="LOW-HIGH", help="Only these ages in years, such as 30-44; both ends included.")
    ] = None,
) -> None:
    """Write a contact sheet of fake identities; needs no collection and no run.

    Sorted by sex, skin tone and age; captioned with these and with the identity's name, as it is in the published tables.
    """
    from mfmc_ray.identities.model import load_model

    if out.suffix.lower() != ".png":
        raise ConfigError(f"--out wants a .png file, not {out}")
    if work is not None and first is not None:
        raise ConfigError("--from shows the identities of a run, --first those of given seeds: give one of the two")
    low, high = _ages(age)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    model = load_model()
    offered = _sampled(model, first) if work is None else _admitted(model, work)
    fitting = (i for i in offered if (sex is None or i.sex == sex) and (age is None or low <= round(i.age) <= high))
    with console.status("Sampling identities"):
        chosen = list(itertools.islice(fitting, count))
    if not chosen:
        raise ConfigError("no identity is of that sex and age; ask for a wider --age")
    write_sheet(model, chosen, out, console)
    if len(chosen) < count:
        there = f"the run in {work} has no more" if work else f"there are no more among {MOST_SEEDS} seeds"
        console.print(f"[yellow]{len(chosen)} identities instead of {count}: {there} that fit")
    console.print(
        f"{len(chosen)} fake identities are in {out}. Nobody in it exists.",
        "These were certified against the known faces of that run."
        if work
        else "Before one is used, a run still has to certify that it resembles none of its known faces.",
    )


def write_sheet(model: IdentityModel, identities: list[Identity], out: Path, console: Console) -> None:
    """Writes a PNG with the neutral renderings of these identities, sorted by sex, skin tone and age.

    Raises:
        ConfigError: if the file cannot be written.
    """
    import PIL.Image

    from mfmc_ray.evaluate.sheets import contact_sheet
    from mfmc_ray.faces.attributes import tone_band
    from mfmc_ray.swap.render import MorphSwapper, neutral_portrait

    ordered = sorted(identities, key=lambda i: (i.sex, tone_band(i.tone), i.age))
    swapper = MorphSwapper(model)
    tiles = [neutral_portrait(swapper, identity) for identity in track(ordered, "Rendering identities", console=console)]
    labels = [(i.identity_id, f"{i.sex}, {round(i.age)}, {TONE_BANDS[tone_band(i.tone)]}") for i in ordered]
    sheet = PIL.Image.fromarray(contact_sheet(tiles, COLUMNS, TILE_PX, labels))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(out, "PNG")
    except OSError as error:
        raise ConfigError(f"{out} cannot be written ({error.strerror or error}); give another --out") from error


def _sampled(model: IdentityModel, first: int | None) -> Iterator[Identity]:
    from mfmc_ray.identities.catalogue import seeds
    from mfmc_ray.identities.sample import sample

    offer = seeds() if first is None else itertools.count(first)
    return (sample(model, seed) for seed in itertools.islice(offer, MOST_SEEDS))


def _admitted(model: IdentityModel, work: Path) -> Iterator[Identity]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from mfmc_ray.identities.sample import sample

    files = sorted((work / "pool").glob("part-*.parquet"))
    try:
        rows = [row for file in files for row in pq.read_table(file, columns=["seed", "age", "tone"]).to_pylist()]
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"the pool of identities in {work} cannot be read: {error}") from error
    if not rows:
        raise ConfigError(f"{work} holds no pool of identities; give the private folder (WORK) of a run that has certified some")
    for row in rows:
        identity = sample(model, row["seed"])
        if abs(identity.age - row["age"]) + abs(identity.tone - row["tone"]) > 0.1:
            raise ConfigError(f"the identities in {work} were sampled from another identity model than the one of this version")
        yield identity


def _ages(text: str | None) -> tuple[int, int]:
    if text is None:
        return 0, 0
    try:
        low, high = (int(part) for part in text.split("-"))
    except ValueError as error:
        raise ConfigError(f"--age wants LOW-HIGH in years, such as 30-44, not {text}") from error
    if low > high:
        raise ConfigError(f"--age wants the lower age first, not {text}")
    return low, high
