"""What a run needs of a swapper, whatever makes its pictures: the embedded renderer, or a network.

Identities are the identity model's: a seed is a person, whoever draws them. A swapper only puts an identity on a face, and shows what the
identity's certificate is about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mfmc_ray.faces.faces import F32, Image
from mfmc_ray.identities.sample import Identity
from mfmc_ray.swap.cover import Covered

OPAQUE = 1 - 1 / 256
"""Weight of what is drawn from which on nothing else shows: of a difference of 128 levels less than one is left, which is rounded."""


class SwapError(RuntimeError):
    """A swapper made nothing of a face that could be shown; the face is covered."""


@dataclass(frozen=True)
class Licence:
    """What may be done with a swapper's weights.

    Attributes:
        what: which weights.
        name: of the licence, SPDX if it has such a name.
        commercial: whether it allows commercial use.
        sha256: of the weights, hex.
    """

    what: str
    name: str
    commercial: bool
    sha256: str


@dataclass(frozen=True)
class Patch:
    """A changed window of a picture.

    Attributes:
        x, y: px, its upper left corner.
        pixels: uint8 (height, width, 3) RGB.
        mesh: float32 (468, 3), where the swapped face's mesh is now, px of the picture.
        cover: fraction in 0–1 of the face's area that shows the fake identity.
        front: bool (height, width), where what was drawn anew, and nothing of the picture, shows (`OPAQUE`); None: nowhere for certain.
    """

    x: int
    y: int
    pixels: Image
    mesh: F32
    cover: float
    front: NDArray[np.bool_] | None = None

    def paste(self, image: Image) -> None:
        """Puts the window into the picture it was cut from, in place."""
        height, width = self.pixels.shape[:2]
        image[self.y : self.y + height, self.x : self.x + width] = self.pixels


@dataclass(frozen=True)
class Portrait:
    """An identity on the average head of its sex, looking straight ahead in even light: what its certificate is about.

    Attributes:
        pixels: uint8 (h, h, 3) RGB.
        mesh: float32 (468, 3), px, of the face in it.
    """

    pixels: Image
    mesh: F32


@dataclass(frozen=True, eq=False)
class Order:
    """A face that is to show an identity.

    Attributes:
        image: uint8 (h, w, 3) RGB, the picture, or what of it is around the face; it is not changed.
        mesh: float32 (468, 3), px of it, the face.
        identity: that it is to show.
        age: years, how old it is to look; None: the identity's. A swapper may take no account of it.
        strength: of the exchange: below 1 less, above 1 more of the identity than it has. A swapper may take no account of it.
        keep_rims: whether the rims of glasses stay. Other things before the face always do.
        covered: what lies before the face; None: what is found.
    """

    image: Image
    mesh: F32
    identity: Identity
    age: float | None = None
    strength: float = 1.0
    keep_rims: bool = True
    covered: Covered | None = None


class Swapper(Protocol):
    """Puts identities on faces.

    Attributes:
        name: what it is called in the manifest.
        digest: sha-256, hex, over all that decides its results beside the identity model; "" if nothing does.
        licences: of its weights, beside those in `models.lock`.
        at_once: how many orders it is worth to give it together.
    """

    name: str
    digest: str
    licences: tuple[Licence, ...]
    at_once: int

    def covered(self, image: Image, mesh: F32) -> Covered:
        """What lies before the face with `mesh` (468, 3) px of `image` (uint8 h×w×3 RGB)."""
        ...

    def swap(
        self,
        image: Image,
        mesh: F32,
        identity: Identity,
        *,
        age: float | None = None,
        strength: float = 1.0,
        keep_rims: bool = True,
        covered: Covered | None = None,
    ) -> Patch:
        """The window around one face that shows the identity now. The arguments are those of an `Order`.

        Raises:
            SwapError: nothing came of it.
        """
        ...

    def swap_many(self, orders: Sequence[Order]) -> list[Patch | None]:
        """As many windows, of any pictures, in order; None where nothing came of it. One order's result does not depend on the others."""
        return [self._tried(order) for order in orders]

    def portrait(self, identity: Identity) -> Portrait:
        """The identity as this swapper shows it.

        Raises:
            SwapError: nothing came of it.
        """
        ...

    def _tried(self, order: Order) -> Patch | None:
        try:
            return self.swap(
                order.image,
                order.mesh,
                order.identity,
                age=order.age,
                strength=order.strength,
                keep_rims=order.keep_rims,
                covered=order.covered,
            )
        except SwapError:
            return None


class BatchSwapper(Swapper):
    """One that makes many at once, and one as the only one of many."""

    def swap(
        self,
        image: Image,
        mesh: F32,
        identity: Identity,
        *,
        age: float | None = None,
        strength: float = 1.0,
        keep_rims: bool = True,
        covered: Covered | None = None,
    ) -> Patch:
        """See `Swapper.swap`."""
        (patch,) = self.swap_many([Order(image, mesh, identity, age, strength, keep_rims, covered)])
        if patch is None:
            raise SwapError("nothing came of a face that could be shown")
        return patch
