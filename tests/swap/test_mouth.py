import xml.etree.ElementTree as ET
from pathlib import Path

import cv2
import numpy as np
import pytest

from mfmc_ray.codec import decode
from mfmc_ray.faces.detect import YuNet
from mfmc_ray.faces.mesh import FaceMesh
from mfmc_ray.identities.model import load_model
from mfmc_ray.swap.cover import MOUTH, CoverFinder
from mfmc_ray.swap.mouth import MouthReader, features, weights_of

EVERYTHING = np.ones((128, 128), bool)


def page(seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (128, 128, 3)).astype(np.float32)
    return np.clip(cv2.GaussianBlur(noise, (0, 0), 2) * 2 - 60, 60, 255).astype(np.uint8)


def test_both_halves_are_seen_from_the_left() -> None:
    texture = page()
    found, mirrored = features(texture), features(np.ascontiguousarray(texture[:, ::-1]))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, mirrored[::-1], atol=3e-3)  # how grey it is is read off every fourth texel
    assert np.abs(found[0] - found[1]).max() > 0.1


def test_a_photo_s_exposure_counts_little() -> None:
    light = page()
    dark = (light.astype(np.float32) * 0.5 - 8).clip(0).astype(np.uint8)  # log(x + 16) less a constant
    found = [features(one)[0] for one in (light, dark, page(1))]
    assert np.linalg.norm(found[0] - found[1]) < 0.4 * np.linalg.norm(found[0] - found[2])  # but for rounding


def test_what_is_turned_away_counts_little() -> None:
    left = EVERYTHING.copy()
    left[:, 64:] = False
    np.testing.assert_allclose(weights_of(EVERYTHING), [0.5, 0.5])
    for seen, most in ((left, 0), (left[:, ::-1], 1)):
        weights = weights_of(seen)
        assert weights.argmax() == most
        assert weights.max() > 0.95
        assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(weights_of(~EVERYTHING), [0.5, 0.5])
    one, other = page(), page(1)
    other[:, :64] = one[:, :64]
    reader = MouthReader()
    half, whole = (abs(reader(one, seen) - reader(other, seen)) for seen in (left, EVERYTHING))
    assert half < whole or whole < 0.05


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_blank_page_has_odds(level: int) -> None:
    assert np.isfinite(MouthReader()(np.full((128, 128, 3), level, np.uint8), EVERYTHING))


@pytest.fixture(scope="module")
def finder() -> CoverFinder:
    return CoverFinder(load_model(), None, None)


def test_what_is_no_skin_is_like_the_nearest_that_is(finder: CoverFinder) -> None:
    texture = page()
    whole = finder.whole(texture)
    assert (whole[20:90, 20:108] == texture[20:90, 20:108]).all()
    corner, rows, columns = whole[0, 0], *np.nonzero((whole == texture).all(2))
    assert (rows**2 + columns**2).min() > 0
    assert any((texture[y, x] == corner).all() for y, x in zip(rows, columns, strict=True))


@pytest.mark.models
def test_masks_are_told_from_bare_mouths(finder: CoverFinder, shared_data: Path) -> None:
    detector, fitter, reader = YuNet(min_score=0.6), FaceMesh(), MouthReader()

    def odds(image: np.ndarray) -> list[float]:
        faces = detector.detect(image)
        meshes, scores = fitter.fit(image, faces.boxes, faces.points)
        good = np.flatnonzero((scores >= 0.3) & (faces.sizes >= 24))
        return [reader(finder.whole(finder.unwrap(image, meshes[i])), finder.seen(meshes[i], image.shape)) for i in good]

    masked = [
        value
        for path in sorted((shared_data / "masks_with_boxes").glob("*.xml"))[:20]
        if {one.findtext("name") for one in ET.parse(path).iter("object")} == {"con_mascarilla"}
        for value in odds(decode(next(path.parent.glob(f"{path.stem}.[jp]*")).read_bytes(), 10**8).pixels)
    ]
    bare = [
        value
        for path in sorted((shared_data / "official_portraits").glob("*.jp*"))[:20]
        for value in odds(decode(path.read_bytes(), 10**8).pixels)
    ]
    assert min(len(masked), len(bare)) >= 10
    assert np.mean(np.array(masked) > MOUTH) > 0.9
    assert np.mean(np.array(bare) > MOUTH) < 0.1
