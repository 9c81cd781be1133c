"""Pasting crops back in batches, and what is fitted before."""

# ruff: noqa: E402

import cv2
import numpy as np
import pytest
from skimage import data

torch = pytest.importorskip("torch", reason="what draws on a GPU wants torch")
if int(cv2.__version__.split(".")[0]) < 5:
    pytest.skip("OpenCV 4 rounds coordinates to 1/32 px", allow_module_level=True)

from mfmc_ray.swap import match
from mfmc_ray.swap.device import blend
from mfmc_ray.swap.device.filters import Span

PHOTO = np.ascontiguousarray(data.astronaut())
WINDOW = np.ascontiguousarray(PHOTO[40:240, 120:340])


def batch(*pictures: np.ndarray) -> "torch.Tensor":
    values = np.stack([np.atleast_3d(one) for one in pictures]).astype(np.float32)
    return torch.from_numpy(values).permute(0, 3, 1, 2)


def plain(page: "torch.Tensor") -> np.ndarray:
    return page.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("scale", [0.45, 1.0, 2.3])  # px of the crop for one of the window: grown, about the same, shrunk
def test_a_crop_comes_back_to_where_it_was_cut(scale: float) -> None:
    side = 128
    turn = cv2.getRotationMatrix2D((110, 90), 25, scale)
    turn[:, 2] += (side - 1) / 2 - np.array([110, 90])
    crop = cv2.warpAffine(WINDOW, turn, (side, side), flags=cv2.INTER_AREA)
    mask = np.pad(np.ones((side - 32, side - 32), np.float32), 16)
    masks = torch.from_numpy(np.stack([mask, mask]))
    result = blend.paste_back(batch(WINDOW, WINDOW), batch(crop, 0 * crop), np.stack([turn, turn]), masks)
    there, black = plain(result[0]), plain(result[1])
    placed = cv2.warpAffine(mask, turn, WINDOW.shape[1::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    beyond = cv2.dilate((placed > 0).astype(np.uint8), np.ones((7, 7))) == 0
    np.testing.assert_array_equal(there[beyond], WINDOW[beyond])
    assert np.abs(there.astype(int) - WINDOW)[placed > 0].mean() < 8 / min(scale, 1)
    assert not black[cv2.erode(placed, np.ones((7, 7))) > 0.999].any()


def test_placing_is_opencv_s() -> None:
    crop = np.ascontiguousarray(PHOTO[60:188, 160:288])
    for scale in (0.5, 0.9, 2.0):
        matrix = cv2.getRotationMatrix2D((100, 100), -40, scale)
        matrix[:, 2] -= 40
        page, ratio, flags = crop, 1.0, cv2.INTER_LINEAR
        if scale > 1.25:
            page = np.asarray(cv2.resize(crop, (64, 64), interpolation=cv2.INTER_AREA))
            ratio = 0.5
        elif scale < 0.8:
            flags = cv2.INTER_CUBIC
        shrunk = np.column_stack([matrix[:, :2] * ratio, (matrix[:, 2] + 0.5) * ratio - 0.5])
        wanted = cv2.warpAffine(page, shrunk, (220, 200), flags=flags | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE)
        found = plain(blend.placed(batch(crop), matrix[None], 200, 220)[0]).clip(0, 255)
        assert np.abs(found - wanted).max() < 1.1  # OpenCV rounds


def test_fitting_is_that_of_match() -> None:
    rng = np.random.default_rng(0)
    light = np.log(WINDOW.astype(np.float32) + 16)
    soft = cv2.GaussianBlur(light, (0, 0), 3)
    detail = (light - soft) * 1.7 + rng.normal(0, 0.02, light.shape).astype(np.float32)
    blurry = cv2.GaussianBlur(light, (0, 0), 1.5)
    mask = cv2.GaussianBlur(np.pad(np.ones((120, 100), np.float32), ((40, 40), (60, 60))), (0, 0), 6)
    pages, weights = batch(detail, detail), torch.from_numpy(np.stack([mask, 0 * mask]))
    span = Span.of(torch.tensor([200, 200]), torch.tensor([220, 220]))

    found = blend.as_colourful_as(pages, batch(light - soft, light - soft), weights)
    np.testing.assert_allclose(plain(found[0]), match.as_colourful_as(detail, light - soft, mask), atol=1e-4)
    np.testing.assert_array_equal(plain(found[1]), detail)  # nothing to go by
    gains = blend.contrast_gain(pages, batch(light - soft, light - soft), weights).tolist()
    assert gains == pytest.approx([match.contrast_gain(detail, light - soft, mask), 1.0], abs=1e-4)
    gains = blend.brow_gain(pages, batch(light - soft, light - soft), weights).tolist()
    assert gains == pytest.approx([match.brow_gain(detail, light - soft, mask), 1.0], abs=1e-4)
    found = blend.as_sharp_as(pages, batch(blurry, blurry), weights, span, [120.0, 120.0])
    np.testing.assert_allclose(plain(found[0]), match.as_sharp_as(detail, blurry, mask, 120.0), atol=1e-5)
    np.testing.assert_array_equal(plain(found[1]), detail)
    change = blend.shade_change(batch(detail[:, :, :1]), batch(detail[:, :, :1] / 3), weights[:, None])
    assert float(change[0].abs().max()) > 0.1
    assert not change[1].any()
    has, had, weight = (page[None] for page in torch.from_numpy(np.stack([detail[:, :, 0], light[:, :, 0] - soft[:, :, 0], mask])))
    for photo, most in ((had, 0.6), (0 * had, 0.3)):
        wanted = match.even_gain(*(page[0].numpy() for page in (has, photo, weight)))
        assert 0 < wanted < most
        assert blend.even_gain(has, photo, weight).item() == pytest.approx(wanted, abs=1e-5)
    assert blend.even_gain(has, had, 0 * weight).item() == 1
    grainy = light + rng.normal(0, 0.05, (*light.shape[:2], 1)).astype(np.float32)

    def noise(number: int) -> "torch.Tensor":
        return torch.from_numpy(np.random.default_rng(5).standard_normal(number, dtype=np.float32)).expand(2, -1)

    found = blend.grain(batch(soft, soft), batch(grainy, grainy), weights, [120.0, 120.0], noise)
    wanted = match.grain(soft, grainy, mask, 120.0, 5)
    assert np.abs(wanted - soft).max() > 0.01
    np.testing.assert_allclose(plain(found[0]), wanted, atol=1e-4)
    np.testing.assert_array_equal(plain(found[1]), soft)


def test_tone_is_the_photo_s() -> None:
    light = np.log(WINDOW.astype(np.float32) + 16)
    pale = light * 0.9 + np.array([0.5, 0.3, 0.1], np.float32)
    weight = torch.ones(2, *light.shape[:2])
    weight[1] = 0
    found = blend.toned(batch(pale, pale), batch(light, light), weight, (0.8, 1.25))
    assert np.abs(plain(found[0]).mean((0, 1)) - light.mean((0, 1))).max() < 1e-3
    assert plain(found[0]).mean(2).std() == pytest.approx(light.mean(2).std(), rel=1e-3)
    np.testing.assert_array_equal(plain(found[1]), pale)
