"""`mfmc synth`: a synthetic collection, its parts made by all workers, resumed after a kill."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mfmc_ray.config import RayConfig
from mfmc_ray.evaluate.people import NOTICE
from mfmc_ray.evaluate.synth.collection import Maker, cast_part, complete, photo_parts, with_identities
from mfmc_ray.evaluate.synth.groups import planned
from mfmc_ray.evaluate.synth.settings import Making, Settings, too_alike, worn_by
from mfmc_ray.evaluate.synth.studio import Person
from mfmc_ray.faces import runtime
from mfmc_ray.faces.pack import files_of
from mfmc_ray.faces.store import pull
from mfmc_ray.identities.model import load_model
from mfmc_ray.pipeline.parts import run_parts
from mfmc_ray.pipeline.session import actors, connect

ROUNDS = 6
"""Times that people who are too much alike are cast anew."""


class SynthWorker(Maker):
    """`Maker` in a worker."""

    def __init__(self, making: Making, settings: Settings) -> None:
        runtime.use()
        super().__init__(making, settings)


class Synthesis:
    """Makes one collection.

    Args:
        folder: a new one, or one that a killed command has left.
        settings: what to make.
        ray: where it runs.
    """

    def __init__(self, folder: Path, settings: Settings, ray: RayConfig) -> None:
        self.making, self.settings, self._ray = Making(folder.absolute()), settings, ray
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)

    def make(self) -> dict[str, Any]:
        """Makes it, or what is left to make; what `collection.json` says.

        Raises:
            ConfigError: the folder holds something else.
            PartError: somebody could not be generated, or a worker failed.
        """
        if not self.making.begin(self.settings):
            return self.making.about()
        self._console.print(f"[yellow]{NOTICE}[/yellow]")
        pull(files_of(["yunet", "sface", "mesh", "attributes", "people"]))
        with connect(self._ray, self.making.parts):
            people = self._people()
            if self.settings.wear:
                people = with_identities(people, worn_by(load_model(), people))
            groups = planned(self.settings.groups, len(people), self.settings.seed)
            images = len(people) * self.settings.photos + len(groups)
            self._run(photo_parts(people, groups), "taking photos", images)
        return complete(self.making, self.settings, people, groups)

    def _people(self) -> list[Person]:
        """Everybody, none of them too much like another."""
        wishes = self.settings.wishes()
        attempts = [0] * len(wishes)
        for left in reversed(range(ROUNDS)):
            parts = [cast_part(number, wish, attempts[number]) for number, wish in enumerate(wishes)]
            self._run(parts, "casting people", None)
            people = [Person(**self.making.rows(part["name"])) for part in parts]
            alike = too_alike(people)
            if not alike:
                break
            if not left:
                self._console.print(f"{len(alike)} of {len(people)} people look a little like another one.")
                break
            for number in alike:
                attempts[number] += 1
        return people

    def _run(self, parts: Sequence[dict[str, Any]], label: str, images: int | None) -> None:
        left = [{"part": i, **part} for i, part in enumerate(parts) if not self.making.has(part["name"])]
        kwargs = {"making": self.making, "settings": self.settings}
        if images is not None:
            images -= sum(len(self.making.rows(part["name"])) for part in parts if self.making.has(part["name"]))
        run_parts(SynthWorker, kwargs, left, actors=actors(self._ray), label=label, total=images, on_result=lambda part, summary: None)
