"""Whether a photo shows one face, and shows it well enough to know its owner by."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from skimage.measure import blur_effect

from mfmc_ray.codec import MAX_PIXELS, CodecError, decode
from mfmc_ray.config import FindConfig
from mfmc_ray.faces.align import chips
from mfmc_ray.faces.faces import F32, Faces, Image
from mfmc_ray.faces.pack import EMBEDDERS, load_pack
from mfmc_ray.identities.model import load_model
from mfmc_ray.known.search import usable
from mfmc_ray.people.match import LEAST_MESH
from mfmc_ray.swap.cover import CoverFinder
from mfmc_ray.swap.glasses import GlassesReader
from mfmc_ray.swap.mouth import MouthReader

LEAST_SIZE = 40.0
"""px, √area of the face's box. Smaller ones are missed more often, see `match.SMALL`, and what is enrolled is compared with all others."""
LEAST_SHARPNESS = 0.3
"""See `sharpness`. Of 60 photos with a blur of σ = 2 px of the chip (median 0.35), a quarter gives less evidence than 10.2 (12.3 before),
with σ = 3 (0.26) than 7.4, which is not enough; shaken by 9 px (0.31) than 8.3. Of 520 news photos the least is 0.40, of 60 official ones
0.45."""
LARGEST_YAW, LARGEST_PITCH = 45.0, 40.0
"""degrees; all of the 520 are within."""
SECOND_FACE = 0.7
"""A second face of at least this share of the largest one's √area (half of its area) makes it unclear whose photo it is, unless the
border cuts off all of them but one. Of the 520, which are cut out of larger photos, 47 have one; in 28 of these one face alone is whole,
always the right one. The wrong face was the largest in 4, in which the right one was at least 0.9 as large."""
COVERED = 0.5
"""Share of lips or of an eye behind something (`swap.cover.Covered`) from which they are hidden. Of the 520, the lips of none (of 3, by
a network that was fitted to others) and the eyes of 4 (dark glasses, which are also the hardest to recognise); of 50 masked faces in crowds
that are large enough the lips of all, which are among what the network was fitted to."""
_INNER = np.s_[20:104, 20:92]
"""Rows and columns of the chip (112 px) that are face rather than hair and background."""


class RefusedError(ValueError):
    """A photo cannot be enrolled.

    Attributes:
        reason: a short code: unreadable | no_face | two_faces | too_small | turned | hidden | blurry, and those of `enrol`.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[1])


@dataclass(frozen=True)
class Look:
    """The face of a photo.

    Attributes:
        vectors: recognizer → float32 (d,), unit length.
        size: √area of its box, px.
        sharpness: 0–1.
        yaw: degrees.
    """

    vectors: dict[str, F32]
    size: float
    sharpness: float
    yaw: float


class Examiner:
    """Looks at photos that shall be enrolled. The models take a second to load.

    Raises:
        ModelError: when a model file cannot be had.
    """

    def __init__(self) -> None:
        self.pack = load_pack(FindConfig(), list(EMBEDDERS))
        self._covers = CoverFinder(load_model(), GlassesReader(), MouthReader())

    def __call__(self, data: bytes) -> Look:
        """The face of an image file.

        Raises:
            RefusedError: it shows none, not one, or not well enough.
        """
        try:
            pixels = decode(data, MAX_PIXELS).pixels
        except CodecError as error:
            raise RefusedError("unreadable", f"cannot be read as a picture ({error.reason})") from error
        return self.judge(pixels, self.pack.analyse(pixels))

    def judge(self, pixels: Image, faces: Faces) -> Look:
        """The same of a picture whose faces have been found.

        Args:
            pixels: upright.
            faces: all of them, with everything that `Faces` can hold.
        """
        i = subject(faces, pixels.shape)
        size = float(faces.sizes[i])
        if size < LEAST_SIZE:
            raise RefusedError("too_small", f"the face is too small: {size:.0f} px, wanted {LEAST_SIZE:.0f}")
        yaw, pitch, _ = (float(angle) for angle in faces.need("poses")[i])
        score = float(faces.need("mesh_scores")[i])
        if score >= LEAST_MESH and (abs(yaw) > LARGEST_YAW or abs(pitch) > LARGEST_PITCH):
            raise RefusedError("turned", f"the face is turned away: {abs(yaw):.0f}° to the side, {abs(pitch):.0f}° up or down")
        if score < LEAST_MESH:
            raise RefusedError("hidden", "the face is hidden or in profile")
        covered = self._covers.find(pixels, faces.need("meshes")[i])
        if covered.mouth > COVERED:
            raise RefusedError("hidden", "the mouth seems to be covered")
        if covered.eyes > COVERED:
            raise RefusedError("hidden", "an eye seems to be covered (dark glasses?)")
        clear = sharpness(chips(pixels, faces.points[i : i + 1])[0])
        if clear < LEAST_SHARPNESS:
            raise RefusedError("blurry", f"the face is blurry: sharpness {clear:.2f}, wanted {LEAST_SHARPNESS:.2f}")
        vectors = {name: array[i] for name, array in faces.embeddings.items()}
        if not all(usable(vector[None]).all() for vector in vectors.values()):
            raise RefusedError("hidden", "no recognizer can make anything of the face")
        return Look(vectors, size, clear, yaw)


def subject(faces: Faces, shape: tuple[int, ...]) -> int:
    """The face that a photo is of: the largest one. Small ones in the background do not matter, nor what one detector alone takes for one.

    Args:
        faces: of a picture, with meshes.
        shape: its height and width, px.

    Raises:
        RefusedError: there is none, or another one that is nearly as large.
    """
    is_face = faces.need("mesh_scores") >= LEAST_MESH if len(faces) else np.zeros(0, bool)
    confirmed = np.array(["+" in name for name in faces.detectors], bool)
    sizes = np.where(is_face | confirmed, faces.sizes, 0)
    if not len(sizes) or sizes.max() == 0:
        raise RefusedError("no_face", "no face was found")
    large = np.flatnonzero(sizes >= SECOND_FACE * sizes.max())
    if len(large) > 1:
        height, width = shape[:2]
        whole = large[(faces.boxes[large] >= 0).all(1) & (faces.boxes[large, 2:] <= [width - 1, height - 1]).all(1)]
        if len(whole) != 1:
            raise RefusedError("two_faces", f"{len(large)} faces of about the same size: cut the photo to one person")
        large = whole
    return int(large[0])


def sharpness(chip: Image) -> float:
    """How sharp an aligned face is, 0–1, whatever its contrast: 1 − the blur of Crété et al., "The blur effect: perception and estimation
    with a new no-reference perceptual blur metric", 2007. It is about what a recognizer sees, not about the photo.

    Args:
        chip: uint8 (112, 112, 3) RGB, of `align.chips`.
    """
    return 1 - float(blur_effect(cv2.cvtColor(chip, cv2.COLOR_RGB2GRAY)[_INNER]))  # type: ignore[no-untyped-call]
