"""The 468-point 3D face mesh, and what follows from its geometry: head pose, mirrored points, how far eyes and mouth are open,
how much the face smiles."""

from __future__ import annotations

import importlib.resources

import cv2
import numpy as np
from numpy.typing import NDArray

from mfmc_ray.faces.faces import F32, MESH_POINTS, Image, Pixels
from mfmc_ray.faces.lids import EyeLook, with_lids
from mfmc_ray.faces.lite import LiteNetwork

_SIDE = 192
"""Side of the network's input in px."""
_MARGIN = 1.5
"""Side of the looked-at square, in units of the face's longer side (what the network was trained with)."""
_DRIFTED = 0.15
"""Disagreement from which a mesh is taken to lie on something beside the face; of faces in news a tenth are above 0.09."""
_CLOSER, _BELIEVED = (0.8, 0.65), 0.9
"""How much less of the picture is then shown, so that a face that touches this one is cut off; the score that a mesh must have then."""
_EYE_CORNERS = (33, 263)
"""Outer corners: the eye on the image's left, the other."""
_SMILE_WIDTH, _SMILE_NEUTRAL, _SMILE_RANGE = 0.35, 0.198, 0.105
"""How much the distance of the mouth's corners counts beside their height; that sum on neutral faces; what a broad smile adds."""


def _load_canonical() -> F32:
    with importlib.resources.files("mfmc_ray.faces").joinpath("canonical_mesh.npy").open("rb") as file:
        return np.asarray(np.load(file, allow_pickle=False), np.float32)


CANONICAL: F32 = _load_canonical()
"""float32 (468, 3): the mean face looking straight at the viewer, exactly symmetric about x = 0. Centred; the root mean square distance
of a point from the centre is 1; x to the image's right, y down, z away from the viewer. Built by `tools/build_canonical_mesh.py`."""

MIRROR: NDArray[np.intp] = np.argmin(((CANONICAL[:, None] * [-1, 1, 1] - CANONICAL) ** 2).sum(-1), axis=1)
"""intp (468,): the number of each point's counterpart on the other half of the face; a point of the midline is its own. For a mesh in an
image of width w, that of the flipped image is `(mesh * [-1, 1, 1] + [w - 1, 0, 0])[MIRROR]`."""

_RIGID = np.flatnonzero(CANONICAL[:, 1] < CANONICAL[2, 1])
"""Points above the base of the nose (point 2): mouth and jaw move with the expression and would tilt the pose."""


class FaceMesh:
    """MediaPipe's FaceMesh (Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs", 2019), with eyelids
    as its network for eyes sees them: FaceMesh itself sees shut eyes nearly as open as others."""

    def __init__(self, *, threads: int | None = None) -> None:
        """Load the network.

        Args:
            threads: CPU threads for one face; None: as `runtime.use` has settled.

        Raises:
            ModelError: when the weights cannot be had.
        """
        self._network, self._eyes = LiteNetwork("facemesh", threads), EyeLook(threads=threads)

    def fit(self, image: Pixels, boxes: F32, points: F32) -> tuple[F32, F32]:
        """Fit the mesh to faces of an image.

        The network looks twice: at the box turned upright by the five points, then at what the first mesh covers, which takes out most
        of the difference between detectors and of a slanted or shifted box. Where the mesh is far from the points, as beside a face that
        touches this one, it looks closer.

        Args:
            image: upright RGB.
            boxes: float32 (n, 4), px; may reach beyond the border.
            points: float32 (n, 5, 2), px.

        Returns:
            Meshes float32 (n, 468, 3) in image px (z in the same unit, smaller is nearer to the viewer, 0 near the head's middle) and the
            network's belief that it saw a face, float32 (n,), 0–1. A box without area gives zeros and score 0.

        Raises:
            ModelError: the network gives what is no number, which would pass for no face.
        """
        meshes, scores = np.zeros((len(boxes), MESH_POINTS, 3), np.float32), np.zeros(len(boxes), np.float32)
        for i, (box, five) in enumerate(zip(boxes, points, strict=True)):
            side = float(np.max(box[2:] - box[:2]))
            if not (np.isfinite(box).all() and np.isfinite(five).all() and side >= 1):
                continue
            (meshes[i], scores[i]), (again, score) = self._twice(image, box, five, 1.0)
            # the second is steadier, but where the first went astray it may leave the face
            if score >= min(scores[i], 0.5):
                meshes[i], scores[i] = again, score
            off = disagreement(meshes[i], five, box)
            if off > _DRIFTED:
                looks = [look for closer in _CLOSER for look in self._twice(image, box, five, closer)]
                offs = [disagreement(mesh, five, box) if score >= _BELIEVED else np.inf for mesh, score in looks]
                if min(offs) < off:
                    meshes[i], scores[i] = looks[int(np.argmin(offs))]
            meshes[i] = with_lids(self._eyes, image, meshes[i])
        return meshes, scores

    def _twice(self, image: Pixels, box: F32, five: F32, closer: float) -> list[tuple[F32, float]]:
        """Mesh and score of the box (4,) times `closer`, turned upright by its points (5, 2), and of what that mesh covers."""
        side = closer * float(np.max(box[2:] - box[:2]))
        first = self._look(image, np.asarray((box[:2] + box[2:]) / 2, np.float32), side, _upright(five))
        return [first, self._look(image, *_covered(first[0]))]

    def _look(self, image: Pixels, centre: F32, side: float, angle: float) -> tuple[F32, float]:
        """Mesh in image px and score from the square of `side` × `_MARGIN` px around `centre`, turned by `angle` (radians)."""
        turn, shift = _placed(centre, side * _MARGIN, angle, _SIDE)
        k = float(np.hypot(*turn[0]))
        outputs = {output.size: output for output in self._network(_warp(image, turn, shift, _SIDE)[None])}
        mesh, logit = outputs[MESH_POINTS * 3].reshape(MESH_POINTS, 3), float(outputs[1].reshape(()))
        # the rows of `turn` are orthogonal and of length k: its inverse is its transpose / k²
        flat = (mesh[:, :2] - 0.5 - shift) @ turn / k**2
        return np.concatenate([flat, mesh[:, 2:] / k], axis=1).astype(np.float32), float(1 / (1 + np.exp(-logit)))


def pose(meshes: F32) -> F32:
    """Head pose: the rotation that turns `CANONICAL` onto each mesh (Kabsch 1976), as Euler angles.

    The rotation is roll (in the image plane) after yaw after pitch, so turning the image changes only the roll.

    Args:
        meshes: float32 (n, 468, 3), px.

    Returns:
        float32 (n, 3), degrees: yaw in −90…90 (> 0 looks to the image's right, of the image turned upright by the roll), pitch in
        −180…180 (> 0 up), roll in −180…180 (> 0 clockwise).
    """
    model = CANONICAL[_RIGID] - CANONICAL[_RIGID].mean(0)
    found = np.asarray(meshes, np.float64)[:, _RIGID]
    found = found - found.mean(1, keepdims=True)
    u, _, vt = np.linalg.svd(np.swapaxes(found, 1, 2) @ model)
    u[:, :, 2] *= np.where(np.linalg.det(u @ vt) < 0, -1.0, 1.0)[:, None]
    r = u @ vt
    yaw = np.arcsin(np.clip(r[:, 2, 0], -1, 1))
    pitch = -np.arctan2(r[:, 2, 1], r[:, 2, 2])
    roll = np.arctan2(r[:, 1, 0], r[:, 0, 0])
    return np.asarray(np.degrees(np.stack([yaw, pitch, roll], axis=1)), np.float32)


def turned(before: F32, after: F32) -> F32:
    """float32, degrees in −180…180: from one of `pose`'s angles to another."""
    return np.asarray((after - before + 180) % 360 - 180, np.float32)


def eye_opening(meshes: F32) -> F32:
    """How far the eyes are open: the eye aspect ratio (Soukupová & Čech, 2016), in three dimensions.

    Landmarks (corner, corner; upper and lower lid three times): image's left 33, 133; 160–144, 159–145, 158–153. Other: 263, 362;
    387–373, 386–374, 385–380.

    Args:
        meshes: float32 (n, 468, 3), px.

    Returns:
        float32 (n, 2): lid distance / eye width of the eye on the image's left and of the other; about 0.1 is closed, 0.3 open.
    """
    left = _ratio(meshes, [160, 159, 158], [144, 145, 153], 33, 133)
    right = _ratio(meshes, [387, 386, 385], [373, 374, 380], 263, 362)
    return np.stack([left, right], axis=1)


def mouth_opening(meshes: F32) -> F32:
    """How far the mouth is open: distance of the inner lips / distance of the inner corners, in three dimensions.

    Landmarks (corner, corner; upper and lower lip three times): 78, 308; 82–87, 13–14, 312–317.

    Args:
        meshes: float32 (n, 468, 3), px.

    Returns:
        float32 (n,): 0 is closed, above 0.3 wide open.
    """
    return _ratio(meshes, [82, 13, 312], [87, 14, 317], 78, 308)


def smile(meshes: F32) -> F32:
    """How much the faces smile: the corners of the mouth raised and drawn apart, relative to the face and in three dimensions.

    Raised: how far the corners (61, 291) lie above the middle of the outer lips (0, 17), along the line from the chin (152) to the root of
    the nose (168) made square to the line of the eyes. Apart: the distance between the corners. Both in units of the distance between the
    outer corners of the eyes (33, 263). Weights, zero and one were chosen by eye on 700 portraits and news photos.

    Args:
        meshes: float32 (n, 468, 3), px.

    Returns:
        float32 (n,): about 0 for a neutral mouth (below for pursed lips and hanging corners, −0.5 at the least), 1 for a broad smile, 1.5
        for the broadest; not clipped. 0 for a mesh without extent.
    """
    across = meshes[:, 263] - meshes[:, 33]
    eyes = np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-6)
    across = across / eyes
    up = meshes[:, 168] - meshes[:, 152]
    up = up - (up * across).sum(1, keepdims=True) * across
    up = up / np.maximum(np.linalg.norm(up, axis=1, keepdims=True), 1e-6)
    raised = ((meshes[:, [61, 291]].mean(1) - meshes[:, [0, 17]].mean(1)) * up).sum(1) / eyes[:, 0]
    apart = np.linalg.norm(meshes[:, 61] - meshes[:, 291], axis=1) / eyes[:, 0]
    smiles = (raised + _SMILE_WIDTH * apart - _SMILE_NEUTRAL) / _SMILE_RANGE
    return np.where(apart > 0, smiles, 0).astype(np.float32)


def five_points(mesh: F32) -> F32:
    """The five points (5, 2) px that a detector would give for a mesh (468, 3): the eyes' middles, nose tip, mouth corners."""
    eyes = (mesh[[33, 133, 159, 145]].mean(0), mesh[[263, 362, 386, 374]].mean(0))
    return np.stack([*eyes, mesh[4], mesh[61], mesh[291]])[:, :2].astype(np.float32)


def disagreement(mesh: F32, points: F32, box: F32) -> float:
    """How far a mesh (468, 3) and the detector's five points (5, 2), px, are apart on the average, in √areas of the box (4,)."""
    width, height = np.maximum(box[2:] - box[:2], 0)
    return float(np.linalg.norm(five_points(mesh) - points, axis=1).mean() / max(float(np.sqrt(width * height)), 1e-6))


def upright_squares(image: Pixels, meshes: F32, margin: float, size: int) -> Image:
    """Square pictures of faces turned upright.

    Args:
        image: upright RGB; beyond its border the border's pixels are repeated.
        meshes: float32 (n, 468, 3), px.
        margin: side of the square, in units of the mesh's longer side.
        size: side of the pictures, px.

    Returns:
        uint8 (n, size, size, 3).
    """
    squares = np.empty((len(meshes), size, size, 3), np.uint8)
    for square, mesh in zip(squares, meshes, strict=True):
        centre, side, angle = _covered(mesh)
        square[:] = _warp(image, *_placed(centre, max(side, 1.0) * margin, angle, size), size)
    return squares


def _ratio(meshes: F32, upper: list[int], lower: list[int], start: int, end: int) -> F32:
    height = np.linalg.norm(meshes[:, upper] - meshes[:, lower], axis=2).mean(1)
    width = np.linalg.norm(meshes[:, start] - meshes[:, end], axis=1)
    return np.asarray(height / np.maximum(width, 1e-6), np.float32)


def _upright(five: F32) -> float:
    """The angle in radians (> 0 clockwise) by which a face with these five points is turned in the image."""
    across = five[1] - five[0]
    # the line from eyes to mouth, turned by a quarter, keeps its length in profile, where the eyes fall together
    down = five[3:].mean(0) - five[:2].mean(0)
    x, y = across[0] + down[1], across[1] - down[0]
    return float(np.arctan2(y, x))


def _covered(mesh: F32) -> tuple[F32, float, float]:
    """Centre, longer side and angle of the upright rectangle around a mesh."""
    x, y = (mesh[_EYE_CORNERS[1]] - mesh[_EYE_CORNERS[0]])[:2]
    angle = float(np.arctan2(y, x))
    axes = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    turned = mesh[:, :2] @ axes.T
    low, high = turned.min(0), turned.max(0)
    return np.asarray((low + high) / 2 @ axes, np.float32), float((high - low).max()), angle


def _placed(centre: F32, side: float, angle: float, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The turn and shift from image px to the px of a square of `size` px that shows `side` px around `centre`, turned by `angle`."""
    k = size / side
    cos, sin = np.cos(angle) * k, np.sin(angle) * k
    turn = np.array([[cos, sin], [-sin, cos]], np.float64)
    return turn, (size - 1) / 2 - turn @ centre


def _warp(image: Pixels, turn: NDArray[np.float64], shift: NDArray[np.float64], size: int) -> Image:
    """A network's input square of `size` px; `turn` and `shift` take image px to its px."""
    k = float(np.hypot(*turn[0]))
    corners = (np.array([[0, 0], [size, 0], [0, size], [size, size]]) - 0.5 - shift) @ turn / k**2
    height, width = image.shape[:2]
    x0, y0 = np.clip(np.floor(corners.min(0)).astype(int) - 2, 0, [width - 1, height - 1])
    x1, y1 = np.clip(np.ceil(corners.max(0)).astype(int) + 3, [x0 + 1, y0 + 1], [max(width, x0 + 1), max(height, y0 + 1)])
    part = image[y0:y1, x0:x1]
    origin, scale = np.array([x0, y0], float), np.ones(2)
    if k < 0.5:
        # linear interpolation skips pixels: shrink by area to at most twice the wanted size first
        small = np.maximum(np.round(np.array([x1 - x0, y1 - y0]) * 2 * k), 1).astype(int)
        scale = small / [x1 - x0, y1 - y0]
        part = np.asarray(cv2.resize(part, (int(small[0]), int(small[1])), interpolation=cv2.INTER_AREA), np.uint8)
    # px of `part` → image: (p + .5) / scale − .5 + origin
    matrix = np.column_stack([turn / scale, turn @ (0.5 / scale - 0.5 + origin) + shift])
    return np.asarray(cv2.warpAffine(part, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8)
