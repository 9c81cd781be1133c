from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image as PillowImage
from skimage.data import astronaut

from mfmc_ray.faces.attributes import AGES, AttributeHead, Attributes, corrected, ita, skin_colour, tone_band
from mfmc_ray.faces.detect import YuNet
from mfmc_ray.faces.faces import F32, Image
from mfmc_ray.faces.mesh import CANONICAL, FaceMesh

SKIN, OTHER = (224, 172, 136), (40, 60, 160)


@pytest.fixture(scope="module")
def head() -> AttributeHead:
    return AttributeHead()


class Models:
    def __init__(self) -> None:
        self.detector, self.fitter = YuNet(), FaceMesh()

    def __call__(self, image: Image) -> F32:
        """Mesh of the best face."""
        face = self.detector.detect(image).take([0])
        meshes, _ = self.fitter.fit(image, face.boxes, face.points)
        return meshes


@pytest.fixture(scope="module")
def models() -> Models:
    return Models()


@pytest.fixture(scope="module")
def collins(models: Models) -> tuple[Image, F32]:
    """Eileen Collins at about 36, and the image."""
    image = np.ascontiguousarray(astronaut())
    return image, models(image)


def drawn(yaw: float = 0.0, radius: float = 60.0, centre: tuple[float, float] = (100, 100)) -> F32:
    """The mean face in a 200-px image, its nose turned to the image's right by `yaw` degrees."""
    cos, sin = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    turn = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    # the nose is at negative z
    return np.asarray(CANONICAL @ turn * radius + [*centre, 0], np.float32)[None]


def plain(colour: tuple[int, int, int]) -> Image:
    return np.full((200, 200, 3), colour, np.uint8)


def lab(colour: tuple[int, int, int]) -> F32:
    return np.asarray(cv2.cvtColor(np.float32([[colour]]) / 255, cv2.COLOR_RGB2LAB)[0, 0])


@pytest.mark.parametrize(
    ("angle", "band"),
    [(90, 0), (55.1, 0), (55, 1), (41.1, 1), (41, 2), (28.1, 2), (28, 3), (10.1, 3), (10, 4), (-29.9, 4), (-30, 5), (-90, 5)],
)
def test_tone_bands_are_the_conventional_ones(angle: float, band: int) -> None:
    assert tone_band(angle) == band


@pytest.mark.parametrize(
    ("colour", "angle"),
    [
        ((70, 10, 20), 45),
        ((50, 10, 20), 0),
        ((30, 10, 20), -45),
        # grey: the usual b* of such skin, 10 + 0.1 L*
        ((67, 0.5, 0.5), 45),
        # bluish light: half the usual
        ((60, 10, -30), np.degrees(np.arctan2(10, 8))),
        ((np.nan, np.nan, np.nan), 20),
    ],
)
def test_ita_is_the_angle_of_lightness_over_yellowness(colour: tuple[float, float, float], angle: float) -> None:
    assert ita(np.float32([colour]), np.float32([10, 0.1]))[0] == pytest.approx(angle, abs=0.1 if colour[1] == 10 else 1.5)


def test_skin_colour_is_that_of_the_skin() -> None:
    np.testing.assert_allclose(skin_colour(plain(SKIN), drawn())[0], lab(SKIN), atol=0.5)


@pytest.mark.parametrize("stain", [(255, 255, 255), (0, 0, 0)])
def test_highlights_and_shadows_do_not_count(stain: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    image = np.clip(plain(SKIN) + rng.normal(0, 3, (200, 200, 3)), 0, 255).astype(np.uint8)
    image[rng.random((200, 200)) < 0.3] = stain
    np.testing.assert_allclose(skin_colour(image, drawn())[0], lab(SKIN), atol=1.5)


@pytest.mark.parametrize("yaw", [-55, 55])
def test_the_far_cheek_of_a_turned_face_does_not_count(yaw: float) -> None:
    image = plain(SKIN)
    mesh = drawn(yaw)
    nose, eyes = mesh[0, 4, 0], mesh[0, [33, 263], 0].mean()
    bridge = round(float(mesh[0, 197, 0]))
    # what is behind the nose
    if nose > eyes:
        image[100:, bridge:] = OTHER
    else:
        image[100:, :bridge] = OTHER
    np.testing.assert_allclose(skin_colour(image, mesh)[0], lab(SKIN), atol=1)


def test_unseen_skin_has_no_colour_and_a_middle_tone(head: AttributeHead) -> None:
    meshes = np.concatenate([drawn(centre=(-500, -500)), drawn(), np.zeros_like(drawn())])
    colours = skin_colour(plain(SKIN), meshes)
    assert np.isnan(colours[0]).all()
    assert np.isfinite(colours[1]).all()
    found = head.estimate(plain(SKIN), meshes)
    assert found.tones[0] == 20
    assert all(np.isfinite(values).all() for values in (found.ages, found.sexes, found.tones))


def test_a_face_cut_by_the_border_is_measured_where_it_is_seen() -> None:
    np.testing.assert_allclose(skin_colour(plain(SKIN), drawn(centre=(0, 100)))[0], lab(SKIN), atol=0.5)


def test_corrections_leave_children_alone_and_meet_where_they_begin() -> None:
    older, female = np.float32([40, 0.5]), np.float32([1, 20, 30])
    said = np.float32([[5, 2], [20, 2], [25, 2], [40, 0], [60, -1]])
    ages, logits = corrected(said, older, female)
    np.testing.assert_allclose(ages, [5, 20, 25, 40, 70])
    np.testing.assert_allclose(logits, [2, 2, 1.5, -1, -2])


def test_no_faces_no_attributes(head: AttributeHead) -> None:
    found = head.estimate(plain(SKIN), np.zeros((0, 468, 3), np.float32))
    assert [values.shape for values in (found.ages, found.sexes, found.tones)] == [(0,)] * 3


@pytest.mark.models
def test_a_known_woman(head: AttributeHead, collins: tuple[Image, F32]) -> None:
    found = head.estimate(*collins)
    assert found.sexes[0] < 0.3
    assert 25 < found.ages[0] < 50
    # light skin in bright light
    assert 28 < found.tones[0] < 75
    assert all(values.dtype == np.float32 for values in (found.ages, found.sexes, found.tones))


@pytest.mark.models
def test_many_faces_at_once_say_the_same(head: AttributeHead, collins: tuple[Image, F32]) -> None:
    image, mesh = collins
    meshes = np.concatenate([mesh, np.zeros_like(mesh), mesh + 40, mesh + 5000, mesh, mesh]).astype(np.float32)
    found, one = head.estimate(image, meshes), head.estimate(image, mesh)
    for values, value in ((found.ages, one.ages), (found.sexes, one.sexes), (found.tones, one.tones)):
        np.testing.assert_allclose(values[[0, 4, 5]], value[0], rtol=1e-4)
        assert np.isfinite(values).all()
    assert ((found.ages >= AGES[0]) & (found.ages <= AGES[1])).all()


@pytest.mark.models
@pytest.mark.parametrize("degrees", [-130, 45, 90])
def test_turned_faces_say_the_same(head: AttributeHead, collins: tuple[Image, F32], degrees: float) -> None:
    image, mesh = collins
    turn = cv2.getRotationMatrix2D((217, 130), degrees, 1)
    turned = mesh.copy()
    turned[..., :2] = mesh[..., :2] @ turn[:, :2].T + turn[:, 2]
    found = head.estimate(np.asarray(cv2.warpAffine(image, turn, (512, 512)), np.uint8), turned)
    upright = head.estimate(image, mesh)
    assert found.ages[0] == pytest.approx(upright.ages[0], abs=4)
    assert found.sexes[0] == pytest.approx(upright.sexes[0], abs=0.1)


@pytest.mark.models
def test_grey_and_mirrored_photos_say_the_same(head: AttributeHead, models: Models, collins: tuple[Image, F32]) -> None:
    image, mesh = collins
    colour = head.estimate(image, mesh)
    grey = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
    for other in (grey, np.ascontiguousarray(image[:, ::-1])):
        found = head.estimate(other, models(other))
        assert found.sexes[0] < 0.5
        assert found.ages[0] == pytest.approx(colour.ages[0], abs=10)
        assert found.tones[0] == pytest.approx(colour.tones[0], abs=15)


@pytest.mark.models
def test_photos_of_known_age_and_sex(head: AttributeHead, models: Models, shared_data) -> None:  # type: ignore[no-untyped-def]
    labels, found = [], []
    for path in sorted((shared_data / "attributes").glob("*.jpg"))[::4]:
        age, sex, race = (int(part) for part in path.name.split("_")[:3])
        image = np.asarray(PillowImage.open(path).convert("RGB"))
        said: Attributes = head.estimate(image, models(image))
        labels.append((age, sex == 0, race))
        found.append((said.ages[0], said.sexes[0], said.tones[0]))
    (age, man, race), (ages, men, tones) = np.array(labels).T, np.array(found).T
    adult = age >= 18
    assert ((men > 0.5) == man)[adult].mean() >= 0.9
    assert np.corrcoef(age[adult], ages[adult])[0, 1] > 0.75
    assert np.abs(age - ages)[adult].mean() < 10.5
    assert np.abs(age - ages)[age < 13].mean() < 5
    # children are told from adults, and hardly an adult is taken for a child
    assert (ages[age < 13] < 18).mean() > 0.9
    assert (ages[adult] < 18).mean() < 0.05
    assert tones[race == 1].mean() < tones[race == 3].mean() < tones[race == 0].mean()
