"""What services do, each kind of them: plain objects whose methods several threads may call at once. No Ray in here.

A network that several threads ask at once gets their faces together (`faces/gather.py`); all else is the code that a worker runs when it
does everything itself, so the answers are the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfmc_ray.config import FindConfig, RunConfig
from mfmc_ray.faces import runtime
from mfmc_ray.faces.attributes import SIDE
from mfmc_ray.faces.detect import prove
from mfmc_ray.faces.faces import F32, Faces, Image
from mfmc_ray.faces.gather import Gatherer, Gathering
from mfmc_ray.faces.pack import ModelPack, load_pack
from mfmc_ray.identities.model import load_model
from mfmc_ray.identities.sample import Identity, sample
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.known.certificate import Guard
from mfmc_ray.known.index import KnownFaces
from mfmc_ray.known.search import Search
from mfmc_ray.pipeline.check import OutputCheck
from mfmc_ray.pipeline.choice import Chooser, Sitter, Try
from mfmc_ray.pipeline.wearing import Wearer, Worn
from mfmc_ray.pipeline.window import Window
from mfmc_ray.swap.cover import Covered
from mfmc_ray.swap.protocol import BatchSwapper, Order, Patch, Portrait, SwapError, Swapper
from mfmc_ray.swap.swappers import swapper_of


class Look:
    """Finds and describes faces.

    Args:
        find, recognizers: as of `load_pack`.
    """

    def __init__(self, find: FindConfig, recognizers: Sequence[str]) -> None:
        self.pack: ModelPack = load_pack(find, recognizers)

    def warm_up(self) -> None:
        """Runs everything once, so that the first request does not wait for it, and has each detector find a face.

        Raises:
            ModelError: one finds none.
        """
        self.pack.analyse(np.full((320, 320, 3), 127, np.uint8))
        _warm_up(self.pack)

    def analyse(self, image: Image, boxes: F32 | None, instead: bool) -> Faces:
        """As `ModelPack.analyse`."""
        return self.pack.analyse(image, boxes, instead=instead)

    def embed_crops(self, recognizer: str, crops: Image) -> F32:
        """As `Embedder.embed_crops` of that recognizer."""
        return self.pack.embedders[recognizer].embed_crops(crops)

    def read(self, squares: Image) -> F32:
        """As `AttributeHead.read`."""
        return self.pack.attributes.read(squares)


class Swap:
    """Puts identities on faces and looks at the results.

    Args:
        config: of the run.
        known, thresholds, calibration, searches: as of `Guard`.
        more: what else workers that certify are given; not used.
    """

    def __init__(
        self,
        config: RunConfig,
        known: KnownFaces,
        thresholds: Mapping[str, float],
        calibration: Calibration,
        searches: Mapping[str, Search] | None = None,
        **more: Any,
    ) -> None:
        self.pack = load_pack(config.find, config.guard.recognizers)
        self.model, how = load_model(), runtime.gathering()
        self.swapper = swapper_of(config.swap)
        if how is not None and self.swapper.at_once > 1:
            self.swapper = GatheredSwapper(self.swapper, how)
        check = OutputCheck(self.pack, Guard(known, thresholds, calibration, searches))
        self._choose, self._wear = Chooser(self.swapper, check, config.swap.attempts), Wearer(self.swapper, check)

    def warm_up(self) -> None:
        """As `Look.warm_up`."""
        someone = sample(self.model, 0)
        with contextlib.suppress(SwapError):  # a network may make no face of it
            self.swapper.portrait(someone)
            self.swapper.swap(self.model.heads[0], self.model.head_mesh, someone)
        prove(self._choose.check.closeup)
        _warm_up(self.pack)

    def choose(
        self,
        window: Window,
        sitter: Sitter,
        identities: Sequence[Identity],
    ) -> tuple[Try | None, int, str]:
        """As `Chooser`, on a window of the picture."""
        return self._choose(window.canvas(), sitter, identities)

    def wear(
        self,
        window: Window,
        sitter: Sitter,
        identity: Identity,
        attempts: int,
        steps: Sequence[int],
    ) -> Worn:
        """As `Wearer`, on a window of the picture."""
        return self._wear(window.canvas(), sitter, identity, attempts, steps)


class GatheredSwapper(BatchSwapper):
    """A swap network that several threads use: what they order is made together, and by one thread.

    Args:
        swapper: makes it.
        how: sizes and times.
    """

    def __init__(self, swapper: Swapper, how: Gathering) -> None:
        self._swapper = swapper
        self.name, self.digest, self.licences, self.at_once = swapper.name, swapper.digest, swapper.licences, swapper.at_once
        self._gatherer = Gatherer(lambda feed: [_objects(swapper.swap_many(list(feed["orders"])))], how)

    def covered(self, image: Image, mesh: F32) -> Covered:
        """See `Swapper.covered`."""
        return self._swapper.covered(image, mesh)

    def swap_many(self, orders: Sequence[Order]) -> list[Patch | None]:
        """See `Swapper.swap_many`."""
        return list(self._gatherer({"orders": _objects(orders)})[0]) if orders else []

    def portrait(self, identity: Identity) -> Portrait:
        """See `Swapper.portrait`; before several threads do anything."""
        return self._swapper.portrait(identity)


def _objects(some: Sequence[Any]) -> NDArray[np.object_]:
    array = np.empty(len(some), object)
    array[:] = some
    return array


def _warm_up(pack: ModelPack) -> None:
    pack.prove()
    image, points = (
        np.full((320, 320, 3), 127, np.uint8),
        np.array([[[120, 140], [200, 140], [160, 180], [130, 220], [190, 220]]], np.float32),
    )
    for embedder in pack.embedders.values():
        embedder.embed(image, points)
    pack.attributes.read(np.zeros((1, SIDE, SIDE, 3), np.uint8))
