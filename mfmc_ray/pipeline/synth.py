"""`mfmc synth`: a synthetic collection, its parts made by all workers, resumed after a kill."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mfmc_ray.config import RayConfig
from mfmc_ray.evaluate.people import NOTICE
from mfmc_ray.evaluate.synth.collection import Maker, Row, make
from mfmc_ray.evaluate.synth.settings import Making, Settings
from mfmc_ray.faces import runtime
from mfmc_ray.faces.pack import files_of
from mfmc_ray.faces.store import pull
from mfmc_ray.pipeline.parts import run_parts
from mfmc_ray.pipeline.session import connect, plan_of, prepare
from mfmc_ray.runlock import RunLock


class SynthWorker:
    """Makes parts in a worker, on one thread."""

    def __init__(self, making: Making, settings: Settings) -> None:
        runtime.use()
        self._make = Maker(making, settings)

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        """Does a part of `collection.make`."""
        return self._make(part)


def synthesize(folder: Path, settings: Settings, ray: RayConfig) -> Row:
    """Makes a collection, or what a killed command has left of it to make; what its `collection.json` says.

    Args:
        folder: a new one, or one in which the same was begun.
        settings: what to make.
        ray: where it runs; workers write into the folder.

    Raises:
        ConfigError: the folder holds something else.
        PartError: somebody could not be generated, or a worker failed.
    """
    making = Making(folder.absolute())
    if not making.begin(settings):
        making.tidy()
        return making.about()
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"[yellow]{NOTICE}[/yellow]")
    models = files_of(["yunet", "sface", "mesh", "attributes", "people"])
    pull(models)

    def run(parts: Sequence[Row], label: str, images: int | None) -> None:
        numbered = [{"part": i, **part} for i, part in enumerate(parts)]
        kwargs = {"making": making, "settings": settings}
        run_parts(SynthWorker, kwargs, numbered, plan=plan, label=label, total=images, on_result=lambda part, summary: None)

    with RunLock(making.parts / "lock"), connect(ray, making.parts):
        prepare(models)
        plan = plan_of(ray, services=False)
        about, alike = make(making, settings, run)
    making.tidy()
    if alike:
        console.print(f"{alike} of {about['counts']['people']} people look a little like another one.")
    return about
