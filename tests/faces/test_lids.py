"""Lids: drawn shut they are seen shut; and on photos, where they are to be had, shut eyes are told from open ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as Pictures
from skimage.data import astronaut

from mfmc_ray.faces.detect import YuNet
from mfmc_ray.faces.faces import F32, Faces, Image
from mfmc_ray.faces.lids import EYES, EyeLook, as_before, opened, opened_by, opening, with_lids
from mfmc_ray.faces.mesh import CANONICAL, MIRROR, FaceMesh, eye_opening
from mfmc_ray.faces.store import ModelError
from mfmc_ray.identities.model import load_model
from mfmc_ray.identities.sample import sample
from mfmc_ray.swap.render import MorphSwapper

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def photo() -> Image:
    return np.ascontiguousarray(astronaut())


@pytest.fixture(scope="module")
def face(photo: Image) -> Faces:
    return YuNet().detect(photo).take([0])


@pytest.fixture(scope="module")
def mesh(photo: Image, face: Faces) -> F32:
    return FaceMesh().fit(photo, face.boxes, face.points)[0][0]


def openings(mesh: F32) -> list[float]:
    return [opening(mesh, eye) for eye in EYES]


def test_the_two_eyes_are_mirror_images() -> None:
    left, right = EYES
    for name in ("outer", "inner", "upper", "lower"):
        assert np.all(MIRROR[np.atleast_1d(getattr(left, name))] == np.atleast_1d(getattr(right, name)))
    for (points, share), (others, same) in zip(left.folds, right.folds, strict=True):
        assert share == same
        assert tuple(MIRROR[list(points)]) == others
    assert opening(CANONICAL, left) == pytest.approx(opening(CANONICAL, right), abs=1e-5)


@pytest.mark.parametrize("degrees", [0, 40, -120])
def test_eyes_are_opened_by_shares(degrees: float) -> None:
    a = np.radians(degrees)
    turn = np.array([[np.cos(a), np.sin(a), 0], [-np.sin(a), np.cos(a), 0], [0, 0, 1]])
    turned = (CANONICAL @ turn * 80 + [300, 200, 5]).astype(np.float32)
    half = opened_by(turned, (0.5, 1.0), folds=False)
    assert openings(half) == pytest.approx([0.5 * openings(turned)[0], openings(turned)[1]], rel=1e-3)
    changed = np.flatnonzero((half != turned).any(1))
    assert set(changed) <= {*EYES[0].upper, *EYES[0].lower}
    shut = opened_by(turned, (0.0, 0.0))
    assert openings(shut) == pytest.approx([0, 0], abs=1e-5)
    assert eye_opening(shut[None])[0] == pytest.approx([0, 0], abs=0.08)  # in depth, too; along the eye they stay apart
    np.testing.assert_array_equal(shut[[eye.outer for eye in EYES]], turned[[eye.outer for eye in EYES]])


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.9, 1.0, 1.2])
def test_what_was_opened_is_as_before_again(share: float) -> None:
    shape = opened_by(CANONICAL, (share, 1.0), folds=False)
    wide, lids = opened(shape, CANONICAL)
    assert openings(wide) == pytest.approx(openings(CANONICAL), abs=1e-5)
    assert openings(as_before(wide, lids)) == pytest.approx(openings(shape), abs=1e-5)


def test_another_ones_eyes_are_narrowed_as_far() -> None:
    narrow = opened_by(CANONICAL, (0.5, 0.5), folds=False)
    _, lids = opened(narrow, CANONICAL)
    for own in (0.8, 1.2):
        other = opened_by(CANONICAL, (own, own), folds=False)
        assert openings(as_before(other, lids)) == pytest.approx(openings(narrow), abs=1e-3)
    _, lids = opened(CANONICAL, CANONICAL)  # eyes as usual are not expression
    other = opened_by(CANONICAL, (0.8, 1.2), folds=False)
    np.testing.assert_allclose(as_before(other, lids), other, atol=1e-5)


def test_as_the_average_face_has_them_lids_are_the_identitys() -> None:
    model = load_model()
    shape, lids = opened(model.surface.mean, model.surface.mean)
    np.testing.assert_array_equal(shape, model.surface.mean)
    assert [share for _, _, share in lids] == [0, 0]


@pytest.mark.parametrize(("share", "most"), [(0.0, 0.6), (0.5, 0.85)])
def test_drawn_shut_they_are_seen_shut(photo: Image, face: Faces, mesh: F32, share: float, most: float) -> None:
    swapper, fitter = MorphSwapper(load_model()), FaceMesh()
    for seed in (443, 1635, 994):
        seen = []
        for drawn in (mesh, opened_by(mesh, (share, share), folds=False)):
            result = photo.copy()
            swapper.swap(result, drawn, sample(swapper.model, seed), age=36.0).paste(result)
            seen.append(float(eye_opening(fitter.fit(result, face.boxes, face.points)[0]).mean()))
        assert seen[0] > 0.2
        assert seen[1] < most * seen[0]  # painted lashes are seen as an opening


def test_a_mirrored_face_has_mirrored_lids(photo: Image, mesh: F32) -> None:
    look = EyeLook()
    mirrored = (mesh * [-1, 1, 1] + [photo.shape[1] - 1, 0, 0])[MIRROR].astype(np.float32)
    here = openings(with_lids(look, photo, mesh))
    there = openings(with_lids(look, np.ascontiguousarray(photo[:, ::-1]), mirrored))
    np.testing.assert_allclose(there[::-1], here, atol=0.01)


@pytest.mark.parametrize("factor", [0.4, 0.6, 6.0])
def test_size_does_not_matter(photo: Image, mesh: F32, factor: float) -> None:
    look = EyeLook()
    image = cv2.resize(photo, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    np.testing.assert_allclose(
        openings(with_lids(look, np.asarray(image, np.uint8), mesh * np.float32(factor))), openings(with_lids(look, photo, mesh)), atol=0.05
    )


@pytest.mark.parametrize("scale", [0.0, 0.02])
def test_eyes_too_small_to_be_seen_are_left_as_they_are(photo: Image, mesh: F32, scale: float) -> None:
    small = (mesh * np.float32(scale)).astype(np.float32)
    np.testing.assert_array_equal(with_lids(EyeLook(), photo, small), small)


def test_what_is_no_number_raises(photo: Image, mesh: F32, monkeypatch: pytest.MonkeyPatch) -> None:
    look = EyeLook()
    net = look._network.interpreter()

    class Net:
        def __getattr__(self, name: str) -> Any:
            return getattr(net, name)

        def get_tensor(self, index: int) -> np.ndarray:
            found: np.ndarray = net.get_tensor(index)
            return found * np.nan

    monkeypatch.setattr(look._network._nets, "net", Net())
    with pytest.raises(ModelError, match="no number"):
        with_lids(look, photo, mesh)


SHUT = ("1430154945", "1463732807", "1317292658", "1211015912", "1316247213")
"""Scenes in which somebody's eyes are shut or all but: the least open eyes of each are meant."""


def test_shut_eyes_are_told_from_open_ones(shared_data: Path) -> None:
    detector, fitter = YuNet(min_score=0.7), FaceMesh()

    def seen(path: Path) -> list[float]:
        image = np.asarray(Pictures.open(path).convert("RGB"))
        faces = detector.detect(image)
        meshes, scores = fitter.fit(image, faces.boxes, faces.points)
        return eye_opening(meshes[scores > 0.5]).mean(1).tolist()

    shut = [min(seen(next(iter((shared_data / "scenes").glob(f"{name}*"))))) for name in SHUT]
    awake = [max(seen(path)) for path in sorted((shared_data / "portraits").glob("*.jpg"))[::10]]
    assert max(shut) < 0.16
    assert np.quantile(awake, 0.1) > 0.2
