"""How identities are told to swap networks: vectors of an encoder, or pictures, of what the identity model makes of a seed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from mfmc_ray.faces.align import similarity, warp
from mfmc_ray.faces.faces import F32, Image
from mfmc_ray.faces.mesh import five_points
from mfmc_ray.faces.store import ModelError
from mfmc_ray.identities.catalogue import seeds
from mfmc_ray.identities.model import IdentityModel
from mfmc_ray.identities.sample import Identity, sample
from mfmc_ray.swap.network import BatchNetwork
from mfmc_ray.swap.protocol import Swapper
from mfmc_ray.swap.spec import CropSpec, IdentitySpec

ANCHORS = 32
"""Of so many fakes embeddings are at hand that identities are mixed with."""
_REMEMBERED, _PICTURES = 4096, 128


def planes(crops: Image, crop: CropSpec) -> F32:
    """What a network sees of crops, uint8 (n, s, s, 3) RGB: float32 (n, 3, s, s)."""
    values = (crops if crop.order == "rgb" else crops[..., ::-1]).transpose(0, 3, 1, 2).astype(np.float32)
    mean, std = (np.array(v, np.float32).reshape(1, -1, 1, 1) for v in (crop.mean, crop.std))
    values -= mean
    values /= std
    return values


class Latents:
    """What stands for identities at a network's second input.

    Args:
        spec: how they are told.
        model: the identity model.
        renderer: shows an identity as the identity model has it.
        last: the last initializer of the swap network.

    Raises:
        ModelError: a file cannot be had, or does not fit the others.
    """

    def __init__(self, spec: IdentitySpec, model: IdentityModel, renderer: Swapper, last: NDArray[np.floating] | None) -> None:
        self._spec, self._model, self._renderer = spec, model, renderer
        self._encoder = self._rows = self._matrix = self._converter = None
        if spec.encoder is not None:
            self._encoder = BatchNetwork(spec.encoder.fetched(), exact=True)
        if spec.latents is not None:
            self._rows = _table(spec.latents.fetched(), "latents")
        if spec.projection == "last":
            if last is None or last.ndim != 2:
                raise ModelError("the swap network's last initializer is no matrix (was the file optimised?): give projection_file")
            self._matrix = last.astype(np.float32)
        if spec.projection_file is not None:
            path = spec.projection_file.fetched()
            if path.suffix == ".npy":
                self._matrix = _table(path, "projection_file")
            else:
                self._converter = BatchNetwork(path, exact=True)
        self._of = lru_cache(maxsize=_REMEMBERED if spec.kind == "latent" else _PICTURES)(self._made)

    def __call__(self, identities: Sequence[Identity]) -> F32:
        """float32 (n, d), or (n, 3, s, s) with `kind: image`.

        Raises:
            ModelError: the encoder gives no embeddings.
        """
        return np.stack([self._of(identity) for identity in identities])

    def _made(self, identity: Identity) -> F32:
        if self._spec.kind == "image":
            return np.asarray(planes(self._crop(identity), self._spec.crop)[0])
        if self._rows is not None:
            return np.asarray(self.projected(self._mixed(identity, None, self._rows)[None])[0])
        own = self.embedded(self._crop(identity))[0]
        if self._spec.mix > 1:
            own = self._mixed(identity, own, self._anchors[int(identity.man)])
        return np.asarray(self.projected(own[None])[0])

    def embedded(self, crops: Image) -> F32:
        """The encoder's embeddings float32 (n, d) of crops, uint8 (n, s, s, 3) RGB."""
        assert self._encoder is not None
        (vectors,) = self._encoder.run({self._encoder.inputs[0].name: planes(crops, self._spec.crop)}, [self._encoder.outputs[0].name])
        return self._unit(vectors.reshape(len(crops), -1))

    def projected(self, vectors: F32) -> F32:
        """Embeddings (n, d) as the swap network wants them (n, d').

        Raises:
            ModelError: they do not fit the projection.
        """
        if self._matrix is not None:
            if vectors.shape[1] != self._matrix.shape[0]:
                raise ModelError(f"embeddings of {vectors.shape[1]} numbers do not fit a projection of {self._matrix.shape}")
            vectors = vectors @ self._matrix
        elif self._converter is not None:
            (vectors,) = self._converter.run({self._converter.inputs[0].name: vectors}, [self._converter.outputs[0].name])
            vectors = vectors.reshape(len(vectors), -1)
        return _unit(vectors) if self._spec.normalise_latent else vectors

    def _mixed(self, identity: Identity, own: F32 | None, others: F32) -> F32:
        """A point of the sphere near those of faces: a random mixture, by the identity's seed alone, of embeddings of several."""
        rng = np.random.default_rng([0x6C617465, identity.seed])
        more = self._spec.mix - (own is not None)
        some = others[rng.choice(len(others), min(more, len(others)), replace=False)]
        some = some if own is None else np.concatenate([own[None], some])
        return np.asarray(self._unit((rng.dirichlet(np.ones(len(some))) @ some).astype(np.float32)[None])[0])

    @cached_property
    def _anchors(self) -> tuple[F32, F32]:
        """Embeddings of fakes that the run may know nothing of: women's and men's."""
        some = [sample(self._model, seed) for seed in itertools.islice(seeds(), ANCHORS)]
        found = self.embedded(np.concatenate([self._crop(one) for one in some]))
        man = np.array([one.man for one in some])
        return found[~man], found[man]

    def _crop(self, identity: Identity) -> Image:
        """uint8 (1, s, s, 3): the identity's rendering."""
        portrait, crop = self._renderer.portrait(identity), self._spec.crop
        return warp(portrait.pixels, similarity(five_points(portrait.mesh)[None], crop.five), crop.size)

    def _unit(self, vectors: F32) -> F32:
        return _unit(vectors) if self._spec.normalise else vectors


def _unit(vectors: F32) -> F32:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


def _table(path: object, what: str) -> F32:
    try:
        values = np.load(str(path), allow_pickle=False)
        if values.ndim != 2 or not len(values) or not np.isfinite(values).all():
            raise ValueError("it is no matrix of numbers")
        return np.asarray(values, np.float32)
    except (OSError, ValueError, EOFError) as error:
        raise ModelError(f"identity.{what} cannot be used as a .npy file: {error}") from error
