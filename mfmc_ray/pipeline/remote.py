"""What a worker has in place of models that are elsewhere: the same pack, chooser and wearer, which ask services. No Ray in here.

Whole pictures travel once, to be searched for faces; after that only what is around a face does, or what a network is given of it. Geometry
(cutting out, meshes, tones) stays with the worker. What a service cannot do, because it died over it again and again, the worker does
itself: then the watch finds out whether the picture is to blame.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

from mfmc_ray.config import FindConfig
from mfmc_ray.faces.attributes import AttributeHead, Attributes
from mfmc_ray.faces.faces import F32, Faces, Image, Pixels
from mfmc_ray.faces.mesh import FaceMesh
from mfmc_ray.faces.pack import ALL_EMBEDDERS, ModelPack, Pack, load_pack
from mfmc_ray.faces.protocols import Embedder, MeshFitter
from mfmc_ray.identities.pool import Wanted
from mfmc_ray.identities.sample import Identity
from mfmc_ray.pipeline.check import OutputCheck
from mfmc_ray.pipeline.choice import Chooser, Try
from mfmc_ray.pipeline.profiles import LOOK, SWAP
from mfmc_ray.pipeline.watch import Watch
from mfmc_ray.pipeline.wearing import Wearer, Worn
from mfmc_ray.pipeline.window import Window
from mfmc_ray.swap.cover import Covered
from mfmc_ray.swap.protocol import Swapper

_log = logging.getLogger(__name__)
_alone: list[str] = []


def alone() -> int:
    """How often this process had to do by itself what it asked services for."""
    return len(_alone)


class ServiceLostError(RuntimeError):
    """A service died time and again while it worked on a request, or there is none any more."""


class Ask(Protocol):
    """Asks services. Plain data that any worker can be given."""

    def has(self, role: str) -> bool:
        """Whether there are services of this role."""
        ...

    def __call__(self, role: str, method: str, *arguments: Any, seconds: float = 0.0) -> Any:
        """The answer of one of them.

        Args:
            role: which services.
            method: of `roles.Look` or `roles.Swap`.
            arguments: of that; arrays may come as read-only ones, and so may the answer's.
            seconds: that it may work on it; 0: any time.

        Raises:
            ServiceLostError: there is no answer.
            Exception: whatever the method raises.
        """
        ...


class Asker:
    """Asks in a worker's name, whose watch stops while it waits.

    Args:
        ask: asks.
        watch: of the worker.
    """

    def __init__(self, ask: Ask, watch: Watch | None = None) -> None:
        self._ask, self._watch = ask, watch or Watch()

    @classmethod
    def of(cls, ask: Ask | None, role: str, watch: Watch | None = None) -> Asker | None:
        """Asks services of this role; None if there are none."""
        return cls(ask, watch) if ask is not None and ask.has(role) else None

    def __call__(self, role: str, method: str, *arguments: Any, otherwise: Callable[[], Any]) -> Any:
        """The answer, or what `otherwise` gives if there is none."""
        try:
            with self._watch.away() as left:
                return self._ask(role, method, *arguments, seconds=left)
        except ServiceLostError as error:
            _alone.append(role)
            _log.warning("%s: the worker does it itself", error)
            return otherwise()


class RemotePack:
    """A pack whose networks are with the services of the role `look`.

    Args:
        asker: asks them.
        find, recognizers: as of `load_pack`.
    """

    def __init__(self, asker: Asker, find: FindConfig, recognizers: Sequence[str]) -> None:
        self._asker, self._named = asker, (find, tuple(recognizers))
        self._embedders = {name: RemoteEmbedder(asker, ALL_EMBEDDERS[name]()) for name in recognizers}
        self._mesh, self._attributes = FaceMesh(), RemoteAttributes(asker)

    @cached_property
    def _own(self) -> ModelPack:
        return load_pack(*self._named)

    @property
    def dimensions(self) -> dict[str, int]:
        """recognizer → dimension of its embeddings."""
        return {name: embedder.dim for name, embedder in self._embedders.items()}

    @property
    def embedders(self) -> Mapping[str, Embedder]:
        """By name."""
        return self._embedders

    @property
    def mesh(self) -> MeshFitter:
        """The worker's own: it runs on a CPU anywhere."""
        return self._mesh

    def analyse(self, image: Image, boxes: F32 | None = None, *, instead: bool = False) -> Faces:
        """As `ModelPack.analyse`."""
        faces: Faces = self._asker(
            LOOK, "analyse", image, boxes, instead, otherwise=lambda: self._own.analyse(image, boxes, instead=instead)
        )
        return faces

    def estimate(self, image: Pixels, meshes: F32) -> Attributes:
        """As `ModelPack.estimate`."""
        return self._attributes.estimate(image, meshes)


class RemoteEmbedder:
    """An embedder that cuts out here and embeds there.

    Args:
        asker: asks.
        own: that embedder, which has not loaded its network yet.
    """

    def __init__(self, asker: Asker, own: Embedder) -> None:
        self._asker, self._own = asker, own
        self.name, self.dim = own.name, own.dim

    def embed(self, image: Pixels, points: F32) -> F32:
        """float32 (n, dim), as `Embedder.embed`."""
        return self.embed_crops(self.crops(image, points))

    def crops(self, image: Pixels, points: F32) -> Image:
        """uint8 (n, side, side, 3), as `Embedder.crops`."""
        return self._own.crops(image, points)

    def embed_crops(self, crops: Image) -> F32:
        """float32 (n, dim), as `Embedder.embed_crops`."""
        if not len(crops):
            return self._own.embed_crops(crops)
        vectors: F32 = self._asker(LOOK, "embed_crops", self.name, crops, otherwise=lambda: self._own.embed_crops(crops))
        return vectors


class RemoteAttributes(AttributeHead):
    """An attribute head that cuts out here, has the network read there, and measures the tone here.

    Args:
        asker: asks.
    """

    def __init__(self, asker: Asker) -> None:
        super().__init__()
        self._asker = asker

    at_once = 16

    def read(self, squares: Image) -> F32:
        """float32 (n, 2), as `AttributeHead.read`."""
        said: F32 = self._asker(LOOK, "read", squares, otherwise=lambda: AttributeHead.read(self, squares))
        return said


class Chooses(Protocol):
    """`choice.Chooser`, wherever it is."""

    def __call__(
        self,
        canvas: Image,
        mesh: F32,
        identities: Sequence[Identity],
        wanted: Wanted,
        covered: Covered,
        originals: Mapping[str, F32],
    ) -> tuple[Try | None, int, str]:
        """See `Chooser`."""
        ...


class RemoteChooser:
    """A chooser at the services of the role `swap`.

    Args:
        asker: asks them.
        own: of the worker.
    """

    def __init__(self, asker: Asker, own: Chooser) -> None:
        self._asker, self._own = asker, own

    def __call__(
        self,
        canvas: Image,
        mesh: F32,
        identities: Sequence[Identity],
        wanted: Wanted,
        covered: Covered,
        originals: Mapping[str, F32],
    ) -> tuple[Try | None, int, str]:
        """As `Chooser`; only what is around the face travels, and no more identities than may be tried."""
        some = list(identities[: self._own.attempts])
        found: tuple[Try | None, int, str] = self._asker(
            SWAP,
            "choose",
            Window.around(canvas, mesh),
            mesh,
            some,
            wanted,
            covered,
            dict(originals),
            otherwise=lambda: self._own(canvas, mesh, some, wanted, covered, originals),
        )
        return found


class RemoteWearer(Wearer):
    """A wearer at the services of the role `swap`.

    Args:
        asker: asks them.
        own: of the worker.
    """

    def __init__(self, asker: Asker, own: Wearer) -> None:
        super().__init__(own.swapper, own.check)
        self._asker, self._own = asker, own

    def __call__(
        self,
        canvas: Image,
        mesh: F32,
        identity: Identity,
        wanted: Wanted,
        covered: Covered,
        originals: Mapping[str, F32],
        attempts: int,
        steps: Sequence[int] = (),
    ) -> Worn:
        """As `Wearer`; only what is around the face travels."""
        found: Worn = self._asker(
            SWAP,
            "wear",
            Window.around(canvas, mesh),
            mesh,
            identity,
            wanted,
            covered,
            dict(originals),
            attempts,
            tuple(steps),
            otherwise=lambda: self._own(canvas, mesh, identity, wanted, covered, originals, attempts, steps),
        )
        return found


def pack_of(find: FindConfig, recognizers: Sequence[str], asker: Asker | None) -> Pack:
    """The pack with these detectors and recognizers: at services, or loaded here."""
    return load_pack(find, recognizers) if asker is None else RemotePack(asker, find, recognizers)


def chooser_of(swapper: Swapper, check: OutputCheck, attempts: int, asker: Asker | None) -> Chooses:
    """A chooser: at services, or here."""
    own = Chooser(swapper, check, attempts)
    return own if asker is None else RemoteChooser(asker, own)


def wearer_of(swapper: Swapper, check: OutputCheck, asker: Asker | None) -> Wearer:
    """A wearer: at services, or here."""
    own = Wearer(swapper, check)
    return own if asker is None else RemoteWearer(asker, own)
