"""Swap networks that the user brings: a face's crop and an identity in, a crop with the new face out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mfmc_ray.faces.align import similarity, warp
from mfmc_ray.faces.detect import View, YuNet, overlap
from mfmc_ray.faces.faces import F32, Image
from mfmc_ray.faces.mesh import FaceMesh, five_points
from mfmc_ray.faces.store import ModelError
from mfmc_ray.identities.model import IdentityModel, load_model
from mfmc_ray.identities.sample import Identity, sample
from mfmc_ray.swap.cover import NOTHING, Covered
from mfmc_ray.swap.latent import Latents, planes
from mfmc_ray.swap.network import BatchNetwork, Port
from mfmc_ray.swap.paste import Made, Place, look, paste
from mfmc_ray.swap.protocol import BatchSwapper, Order, Patch, Portrait, SwapError
from mfmc_ray.swap.render import MorphSwapper, neutral_head
from mfmc_ray.swap.spec import SwapperSpec

AT_ONCE = 4
"""Identities that are tried on a face together: of more, those that nobody asks for any more would be too many."""
LEAST_FACE, LEAST_SEEN = 0.5, 0.4
"""The mesh network's belief in 0–1 that there is a face, and the detector's, from which something is one: noise on a head has one of them,
and so has a blank face, but not both."""
LARGEST_SHIFT = 0.15
"""How far, in √areas of the face's box, a new face's mesh may be from the old one's on the average."""
MARGIN = 0.5
"""How far around the face both are shown the picture, in longer sides of its box."""
_SAME_PLACE = 0.3


class OnnxSwapper(BatchSwapper):
    """A network behind the protocol: INSwapper, and what works like it. Pose and expression are the network's affair; age and strength are
    not its to choose.

    Args:
        spec: what it wants.
        model: the identity model, whose renderings tell it identities; None: the one that ships.

    Raises:
        ModelError: a file cannot be had, or the network is not what the spec says.
    """

    def __init__(self, spec: SwapperSpec, model: IdentityModel | None = None) -> None:
        self.spec, self.model = spec, model or load_model()
        self.name, self.digest, self.licences = spec.name, spec.digest, spec.licences
        self.at_once = min(spec.batch, AT_ONCE)
        self.renderer = MorphSwapper(self.model)
        self.network = BatchNetwork(spec.model.fetched(), spec.batch)
        self._image, self._identity = self._inputs()
        self._wanted = [spec.output.image or self.network.outputs[0].name, *([spec.output.mask] if spec.output.mask else [])]
        if unknown := set(self._wanted) - {port.name for port in self.network.outputs}:
            raise ModelError(f"{spec.name} has no output {unknown.pop()!r}: name one of {_names(self.network.outputs)}")
        self._mesh, self._detector = FaceMesh(), YuNet(min_score=LEAST_SEEN)
        self._detector.views = (View(160, border=32, enlarge=8),)
        self.latents = Latents(spec.identity, self.model, self.renderer, self.network.last)
        # the first face would fail as late as after the scan
        self.run(np.zeros((1, spec.crop.size, spec.crop.size, 3), np.uint8), self.latents([sample(self.model, 0)]))

    def covered(self, image: Image, mesh: F32) -> Covered:
        """What lies before the face with `mesh` (468, 3) px of `image` (uint8 h×w×3 RGB)."""
        return self.renderer.covered(image, mesh)

    def swap_many(self, orders: Sequence[Order]) -> list[Patch | None]:
        """As many windows, of any pictures, in order; None where nothing came of it."""
        return self._swapped(orders, natural=True)

    def portrait(self, identity: Identity) -> Portrait:
        """The network's face for the identity on the average head of its sex.

        Raises:
            SwapError: nothing came of it.
        """
        head, mesh = neutral_head(self.model, identity), self.model.head_mesh
        (patch,) = self._swapped([Order(head, mesh, identity, covered=NOTHING)], natural=False)
        if patch is None:
            raise SwapError("the network gave no finite picture")
        patch.paste(head)
        return Portrait(head, mesh)

    def aligned(self, image: Image, points: F32) -> tuple[Image, F32]:
        """Crops of n faces of a picture.

        Args:
            image: uint8 (h, w, 3) RGB.
            points: float32 (n, 5, 2), px.

        Returns:
            uint8 (n, s, s, 3), and float32 (n, 2, 3), px of the picture → px of the crop.
        """
        matrices = similarity(points, self.spec.crop.five)
        return warp(image, matrices, self.spec.crop.size), matrices

    def run(self, crops: Image, latents: F32) -> tuple[F32, F32 | None]:
        """The network itself.

        Args:
            crops: uint8 (n, s, s, 3) RGB.
            latents: float32 (n, d) or (n, 3, t, t), of `Latents`.

        Returns:
            Faces float32 (n, k, k, 3) RGB, 0 black, 1 white, neither clipped nor checked; masks (n, k, k) or None.

        Raises:
            ModelError: the network fails, or gives something else.
        """
        found = self.network.run({self._image.name: planes(crops, self.spec.crop), self._identity.name: latents}, self._wanted)
        pictures, out = found[0], self.spec.output
        if pictures.ndim != 4 or pictures.shape[1] != 3 or pictures.shape[2] != pictures.shape[3]:
            raise ModelError(f"{self.name} gives {pictures.shape[1:]} for a face, not a square picture of 3 colours: see output.image")
        side = pictures.shape[2]
        values = (pictures.transpose(0, 2, 3, 1) - np.float32(out.low)) / np.float32(out.high - out.low)
        values = values if out.order == "rgb" else values[..., ::-1]
        if len(found) == 1:
            return values, None
        if found[1].size != len(pictures) * side * side:
            raise ModelError(f"{self.name} gives {found[1].shape[1:]} as the mask of a face of {side} px: see output.mask")
        return values, found[1].reshape(-1, side, side)

    def _swapped(self, orders: Sequence[Order], *, natural: bool) -> list[Patch | None]:
        """As `swap_many`; `natural`: with the sharpness and grain of the picture."""
        found: list[Patch | None] = [None] * len(orders)
        able = [i for i, order in enumerate(orders) if np.isfinite(order.mesh).all()]
        if not able:
            return found
        latents = self.latents([orders[i].identity for i in able])
        told = np.flatnonzero(np.isfinite(latents.reshape(len(able), -1)).all(axis=1))
        able, latents = [able[k] for k in told], latents[told]
        if not able:
            return found
        faces = [self.aligned(orders[i].image, five_points(orders[i].mesh)[None]) for i in able]
        values, masks = self.run(np.concatenate([crop for crop, _ in faces]), latents)
        places: dict[tuple[int, bytes, bool, int], Place] = {}
        for k, i in enumerate(able):
            mask = None if masks is None else masks[k]
            if not np.isfinite(values[k]).all() or not (mask is None or np.isfinite(mask).all()):
                continue
            order, matrix = orders[i], faces[k][1][0]
            matrix = matrix * np.float32(len(values[k]) / self.spec.crop.size)
            made = Made(np.asarray(np.clip(values[k] * 255 + 0.5, 0, 255), np.uint8), matrix, mask)
            same = id(order.image), order.mesh.tobytes(), order.keep_rims, id(order.covered)
            if same not in places:  # several identities on one face
                places[same] = self._place(order, made)
            seed = order.identity.seed if natural else None
            found[i] = self._faced(order, paste(places[same], made, self.spec.paste.mask, seed, self.spec.paste.match))
        return found

    def _faced(self, order: Order, patch: Patch) -> Patch | None:
        """The patch with the mesh of the face in it; None if no face is seen, or it is not where it should be."""
        low, high = order.mesh[:, :2].min(0), order.mesh[:, :2].max(0)
        pad = MARGIN * float((high - low).max())
        height, width = order.image.shape[:2]
        x0, y0 = (max(0, int(v)) for v in low - pad)
        x1, y1 = min(width, int(high[0] + pad) + 1), min(height, int(high[1] + pad) + 1)
        x0, y0 = min(x0, patch.x), min(y0, patch.y)
        x1, y1 = max(x1, patch.x + patch.pixels.shape[1]), max(y1, patch.y + patch.pixels.shape[0])
        around = order.image[y0:y1, x0:x1].copy()
        replace(patch, x=patch.x - x0, y=patch.y - y0).paste(around)
        origin = np.array([x0, y0, 0], np.float32)
        box = (np.concatenate([low, high]) - np.tile(origin[:2], 2)).astype(np.float32)
        seen = self._detector.detect(around)
        if not len(seen) or float(overlap(seen.boxes, box[None])[0].max()) < _SAME_PLACE:
            return None
        meshes, scores = self._mesh.fit(around, box[None], five_points(order.mesh - origin)[None])
        mesh = np.asarray(meshes[0] + origin, np.float32)
        off = float(np.linalg.norm(mesh[:, :2] - order.mesh[:, :2], axis=1).mean()) / max(float(np.sqrt(np.prod(high - low))), 1.0)
        return replace(patch, mesh=mesh) if scores[0] >= LEAST_FACE and off < LARGEST_SHIFT else None

    def _place(self, order: Order, made: Made) -> Place:
        covered = self.covered(order.image, order.mesh) if order.covered is None else order.covered
        hidden = None if covered is NOTHING else covered.page if order.keep_rims else covered.objects
        how = "face" if self.spec.paste.mask == "face" else "crop"
        if self.spec.paste.mask == "box" and hidden is None and not self.spec.paste.match:
            how = "plain"
        return look(self.renderer, order.image, order.mesh, made.matrix, len(made.pixels), hidden, covered.mouth, how)

    def _inputs(self) -> tuple[Port, Port]:
        """Picture and identity.

        Raises:
            ModelError: there are no such two.
        """
        ports, named = {port.name: port for port in self.network.inputs}, self.spec.inputs
        rank = 3 if self.spec.identity.kind == "image" else 1
        size = self.spec.crop.size
        image = [p for p in ports.values() if p.name == named.image or (not named.image and _fits(p, (3, size, size)))][:1]
        others = [p for p in ports.values() if p not in image]
        identity = [p for p in others if p.name == named.identity or (not named.identity and len(p.shape) == rank)]
        if len(ports) != 2 or len(image) != 1 or len(identity) != 1 or not _fits(image[0], (3, size, size)):
            raise ModelError(
                f"{self.name} takes {_names(self.network.inputs)}: wanted are a picture of {size} px and "
                f"{'another picture' if rank == 3 else 'a vector'} (see crop.size, inputs.image and inputs.identity)"
            )
        return image[0], identity[0]


def _fits(port: Port, shape: tuple[int, ...]) -> bool:
    return len(port.shape) == len(shape) and all(have in (None, want) for have, want in zip(port.shape, shape, strict=True))


def _names(ports: Sequence[Port]) -> str:
    return ", ".join(f"{port.name} {tuple('?' if side is None else side for side in port.shape)}" for port in ports) or "nothing"
