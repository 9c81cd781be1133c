"""Eyelids: how far eyes are shut, which FaceMesh hardly sees, and lids of a mesh moved accordingly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mfmc_ray.faces.align import warp
from mfmc_ray.faces.faces import F32, Pixels
from mfmc_ray.faces.lite import LiteNetwork

_SIDE, _MARGIN = 64, 2.3
"""px of the network's input, which is 2.3 times as wide as the eye."""
_CONTOUR, _IRIS = 71 * 3, 5 * 3
_UPPER, _LOWER = (11, 12, 13), (3, 4, 5)
"""Points of the network's contour in the middle of the lids."""
SHUT, OPENER = 0.14, 1.7
"""The opening that the network sees where eyes are as good as shut, for it follows the lashes, and how much of the mesh's opening there is
to one of it beyond that: so results are seen as far open as their photos are (measured on 215 faces)."""
_WIDEST = 1.25
"""How much further open than the mesh has it, or the identity, an eye becomes at most."""
_SMALL, _SURE = 3.0, 6.0
"""Widths of an eye, px, up to which the network is not believed, and from which it is: at 6 px what it sees correlates by 0.9 with what it
sees in three times as many."""
_TURNED = (0.5, 0.8)
"""Widths of the narrower eye, of the other's, up to which it is as open as that, and from which it is looked at as well."""
_ALONE = 0.3
"""What share of what is seen of an eye is its own, the rest the other's: they mostly move together, and differ by 0.05 by chance."""
_EXPRESSION = (0.18, 0.24, 0.25, 0.33)
"""Openings up to which eyes are narrowed rather than narrow, between which all is the person's, and from which they are widened."""
_SAME = 1e-3
"""What lids differ by, of their opening, that is nothing: portraits of identities are the same to the byte on the average head."""
_MEET = 0.25
"""Where shut lids meet, from the lower one, of the opening: it is the upper one that moves."""


@dataclass(frozen=True)
class Eye:
    """Mesh points of an eye.

    Attributes:
        outer, inner: its corners.
        upper, lower: the lids' edges, from the outside in, seven pairs.
        folds: points above and below that move along when it is shut, and by which share of the way: what is drawn of an eye reaches
            beyond the mesh's lids.
        mirrored: whether the network has to be shown its mirror image.
    """

    outer: int
    inner: int
    upper: tuple[int, ...]
    lower: tuple[int, ...]
    folds: tuple[tuple[tuple[int, ...], float], ...]
    mirrored: bool


EYES = (
    Eye(
        33,
        133,
        (246, 161, 160, 159, 158, 157, 173),
        (7, 163, 144, 145, 153, 154, 155),
        (
            ((247, 30, 29, 27, 28, 56, 190), 0.9),
            ((25, 110, 24, 23, 22, 26, 112), 0.75),
            ((113, 225, 224, 223, 222, 221, 189), 0.4),
        ),
        False,
    ),
    Eye(
        263,
        362,
        (466, 388, 387, 386, 385, 384, 398),
        (249, 390, 373, 374, 380, 381, 382),
        (
            ((467, 260, 259, 257, 258, 286, 414), 0.9),
            ((255, 339, 254, 253, 252, 256, 341), 0.75),
            ((342, 445, 444, 443, 442, 441, 413), 0.4),
        ),
        True,
    ),
)
"""The eye on the image's left, the other."""


Lids = tuple[tuple[float, float, float], ...]
"""Of each eye how far it was open, how far it was opened, and which share of the difference, 0–1, is expression."""


class EyeLook:
    """MediaPipe Iris (Ablavatski et al., "Real-time Pupil Tracking from Monocular Video for Digital Puppetry", 2020): the contour of an eye
    and its iris.

    Args:
        threads: CPU threads; None: as `runtime.use` has settled.

    Raises:
        ModelError: when the weights cannot be had.
    """

    def __init__(self, *, threads: int | None = None) -> None:
        self._network = LiteNetwork("iris", threads)

    def __call__(self, image: Pixels, mesh: F32, eye: Eye) -> tuple[F32, F32] | None:
        """What the network sees of an eye of a mesh (468, 3) px.

        Returns:
            Its contour, (16, 2), of which 0 is the outer corner, 1–7 the lower lid, 8 the inner corner, 9–15 the upper lid from the outside
            in, and the iris' middle, (2,), both from the middle between the mesh's corners, in widths of the eye, to the image's right and
            down of the face turned upright; None where an eye has no extent.

        Raises:
            ModelError: the network gives what is no number.
        """
        corners = mesh[[eye.inner, eye.outer] if eye.mirrored else [eye.outer, eye.inner], :2].astype(np.float64)
        across = corners[1] - corners[0]
        width = float(np.hypot(*across))
        if not width >= 1:
            return None
        scale = _SIDE / (_MARGIN * width)
        cos, sin = across / width * scale
        turn = np.array([[cos, sin], [-sin, cos]])
        if eye.mirrored:
            turn[0] *= -1
        matrix = np.column_stack([turn, (_SIDE - 1) / 2 - turn @ corners.mean(0)])
        outputs = {output.size: output for output in self._network(warp(image, matrix[None].astype(np.float32), _SIDE))}
        found = np.concatenate([outputs[_IRIS].reshape(5, 3)[:1, :2], outputs[_CONTOUR].reshape(71, 3)[:16, :2]])
        at = ((found - _SIDE / 2) * ((-1 if eye.mirrored else 1), 1) / (scale * width)).astype(np.float32)
        return at[1:], at[0]


def with_lids(look: EyeLook, image: Pixels, mesh: F32) -> F32:
    """A mesh (468, 3) px with lids as far open as the network for eyes sees them.

    FaceMesh's own say little: of 143 faces in the news its openings correlate by 0.3 with what that network sees, and shut eyes have 0.2 to
    0.27 where usual ones have 0.27.
    """
    looks = [look(image, mesh, eye) for eye in EYES]
    if any(one is None for one in looks):
        return mesh
    seen = [_opening(one[0]) for one in looks if one is not None]
    widths = [float(np.hypot(*(mesh[eye.outer] - mesh[eye.inner])[:2])) for eye in EYES]
    own = [float(np.interp(width / max(widths), _TURNED, (0, 1))) for width in widths]
    used = [other + share * _ALONE * (one - other) for share, one, other in zip(own, seen, reversed(seen), strict=True)]
    shares = []
    for eye, width, one in zip(EYES, widths, used, strict=True):
        wanted = max(one - SHUT, 0.0) * OPENER / max(opening(mesh, eye), 1e-6)
        sure = float(np.interp(width, (_SMALL, _SURE), (0, 1)))
        shares.append(1 - sure * (1 - min(_WIDEST, wanted)))
    return opened_by(mesh, shares, folds=False)


def opening(mesh: F32, eye: Eye) -> float:
    """How far an eye of a mesh (468, 3) is open as it is seen: the distance of the lids' middles / the distance of the corners."""
    axes, width = _frame(mesh, eye)
    apart = (mesh[list(eye.lower[2:5])] - mesh[list(eye.upper[2:5])]) @ axes[:, 0]
    return float(apart.mean()) / width


def opened_by(mesh: F32, shares: Sequence[float], *, folds: bool = True) -> F32:
    """A mesh or shape (468, 3) whose two eyes are so many times as far open; what lies around them follows if `folds` do."""
    result = mesh.copy()
    for eye, share in zip(EYES, shares, strict=True):
        if abs(share - 1) < _SAME:
            continue
        axes, _ = _frame(mesh, eye)
        upper, lower = (mesh[list(lid)] @ axes for lid in (eye.upper, eye.lower))
        meet = lower - _MEET * (lower - upper)
        for points, part in (*((lid, 1.0) for lid in (eye.upper, eye.lower)), *(eye.folds if folds else ())):
            result[list(points)] += (share - 1) * part * (mesh[list(points)] @ axes - meet) @ axes.T
    return result


def opened(shape: F32, usual: F32) -> tuple[F32, Lids]:
    """A shape (468, 3) with eyes as far open as those of a `usual` one, so that the identity it has can be told from it, and what
    `as_before` needs to undo it."""
    result, lids = shape.copy(), list[tuple[float, float, float]]()
    for eye in EYES:
        was, aim = max(opening(shape, eye), 0.0), opening(usual, eye)
        if abs(was - aim) < _SAME * aim:
            lids.append((aim, aim, 0.0))
            continue
        (axes, width), (its_axes, its_width) = _frame(shape, eye), _frame(usual, eye)
        upper, lower = list(eye.upper), list(eye.lower)
        missing = (usual[lower] - usual[upper]) @ its_axes * (width / its_width) - (shape[lower] - shape[upper]) @ axes
        result[upper] -= (1 - _MEET) * missing @ axes.T
        result[lower] += _MEET * missing @ axes.T
        lids.append((was, aim, float(np.interp(was, _EXPRESSION, (1, 0, 0, 1)))))
    return result, tuple(lids)


def as_before(shape: F32, lids: Lids) -> F32:
    """A shape (468, 3) with lids as those that were `opened`: another one's are as much narrower or wider than they usually are, and, by
    the share that is expression, just as far open."""
    shares = []
    for eye, (was, usual, share) in zip(EYES, lids, strict=True):
        own = max(opening(shape, eye), 1e-6)
        shares.append(float(np.clip(was / usual * (usual / own) ** share, 0, _WIDEST)))
    return opened_by(shape, shares)


def _opening(contour: F32) -> float:
    """The same as `opening` of the network's contour (16, 2)."""
    return float(
        np.linalg.norm(contour[list(_UPPER)] - contour[list(_LOWER)], axis=1).mean() / max(np.hypot(*(contour[0] - contour[8])), 1e-6)
    )


def _frame(mesh: F32, eye: Eye) -> tuple[F32, float]:
    """The directions in which lids are apart, down from an eye and away from the viewer, as the columns of (3, 2), and the eye's width."""
    across = (mesh[eye.inner] - mesh[eye.outer])[:2] * (-1 if eye.mirrored else 1)
    width = max(float(np.hypot(*across)), 1e-6)
    return np.array([[-across[1] / width, 0], [across[0] / width, 0], [0, 1]], np.float32), width
