"""`mfmc review`: a page on which the riskiest published faces are looked at and decided about."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Annotated

import pyarrow as pa
import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.markup import escape

from mfmc_ray.config import ConfigError, RunConfig
from mfmc_ray.folders import finished_run
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.ledger import Ledger
from mfmc_ray.review.queue import Seen

MOST = 2000


def review(
    out: Annotated[str, typer.Argument(help="The published folder or prefix of a finished run.")],
    work: Annotated[str | None, typer.Option(help="The run's private folder. Default: OUT-work beside a local OUT.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of 127.0.0.1 to serve at (default: any that is free).")] = 0,
    most: Annotated[int, typer.Option(min=1, help="Faces that are queued, the riskiest ones.")] = MOST,
    originals: Annotated[bool, typer.Option("--originals/--no-originals", help="Show original faces beside the published ones.")] = True,
    storage_options: Annotated[str | None, typer.Option(help="JSON passed to fsspec, for a remote input or OUT.")] = None,
) -> None:
    """Look at the riskiest faces of a finished run in a browser, and decide: approve, redact, or swap again.

    The page is served to this machine only, and to whoever has its address, which holds a secret: do not send it on. Nothing that is
    published changes; decisions are kept in WORK/reviews, and honoured by the next `mfmc anonymize` (the same command again) or
    `mfmc nightly`. Ctrl-C ends it.

    Example: mfmc review published/
    """
    from mfmc_ray.pipeline.curves import used
    from mfmc_ray.pipeline.publish import originals_of
    from mfmc_ray.pipeline.state import State
    from mfmc_ray.review.decisions import Reviews
    from mfmc_ray.review.pictures import Pictures
    from mfmc_ray.review.queue import queue_of
    from mfmc_ray.review.server import ReviewServer
    from mfmc_ray.review.session import Session

    places = finished_run(out, work, storage_options, None, None)
    ledger = Ledger(places.out, places.work, places.storage_options)
    settings = State(ledger.work).finished_settings(ledger)
    console = Console(highlight=False, soft_wrap=True)
    made = _fingerprint(ledger)
    calibration = used(ledger.work, settings)
    usual = {name: calibration.threshold_for(name, 0.5) for name in settings.guard.recognizers}
    seen = _seen(ledger, settings, calibration, console)
    queue = queue_of(_parts(ledger), Reviews.load(ledger.work), usual, most=most, seen=seen)
    waiting = _waiting(sum(queue.waiting.values()))
    if not queue.items:
        console.print(f"All {queue.faces:,} published faces were decided about.{waiting}")
        return
    images = {item.face["image_id"] for item in queue.items}
    read = originals_of(ledger, places, images) if originals else None
    pictures = Pictures(ledger, places.storage_options, read, settings.find.max_pixels)
    session = Session(ledger.work, queue, pictures, lambda: _fingerprint(ledger) == made, shows_originals=originals)
    try:
        server = ReviewServer(session, port)
    except OSError as error:
        raise ConfigError(f"port {port} cannot be used ({error.strerror}): give another --port, or none") from error
    with server:
        console.print(f"The {len(queue.items):,} riskiest of {queue.faces:,} published faces.{waiting} Open this, and tell nobody:")
        typer.echo(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            console.print()
    counts = session.counts
    words = {"approve": "approved", "redact": "to be covered", "reswap": "to be swapped again"}
    said = ", ".join(f"{counts[name]:,} {word}" for name, word in words.items() if counts[name])
    console.print(f"Decided: {said or 'nothing'}.{_waiting(session.state()['waiting'])}")


def _seen(ledger: Ledger, settings: RunConfig, calibration: Calibration, console: Console) -> Seen | None:
    """Who was recognised; None if nobody is enrolled."""
    from mfmc_ray.people.registry import PeopleError
    from mfmc_ray.pipeline.recognise import people_of, recognise

    try:
        registry = people_of(settings, ledger)
    except PeopleError as error:
        console.print(f"[yellow]Who is ambiguous is not known:[/yellow] {escape(str(error))}")
        return None
    return None if registry is None else recognise(ledger, registry, calibration, settings.guard.recognizers, settings.swap.min_face)


def _fingerprint(ledger: Ledger) -> str:
    """What another result would not have; "" while a run is at it."""
    try:
        return hashlib.sha256(ledger.read_bytes("manifest.json")).hexdigest()
    except FileNotFoundError:
        return ""


def _parts(ledger: Ledger) -> Iterator[tuple[int, pa.Table]]:
    """Number and faces of each published part."""
    for name in ledger.files("faces"):
        number = int(name.rpartition("-")[2].partition(".")[0])
        yield number, pq.read_table(pa.BufferReader(ledger.read_bytes(name)))


def _waiting(count: int) -> str:
    """A sentence about decisions that no run has honoured yet."""
    if not count:
        return ""
    what = "1 decision waits" if count == 1 else f"{count:,} decisions wait"
    return f" {what} for the next run: the same mfmc anonymize command again, or mfmc nightly."
