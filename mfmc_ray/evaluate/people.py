"""People who do not exist: portraits from MobileStyleGAN and people cut out of them, for the demo and for synthetic collections."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import openvino
from openvino import opset13

from mfmc_ray.faces.faces import F32, Image
from mfmc_ray.faces.store import model_path

NOTICE = (
    "The portraits of people who do not exist were made with MobileStyleGAN (package random-face 2021.7.21.1), whose weights derive from "
    "StyleGAN2-FFHQ: NON-COMMERCIAL use only."
)
CUT_SIDE = 512
"""px: the portrait's side in what `cut_out` returns."""
_STYLE = 512
_MEAN_SAMPLES = 1024
_TALL = 2.7  # height of a cut-out person, in portrait sides
_SHOULDERS = 0.17  # what it is wider than the portrait, on each side


class PersonGenerator:
    """Portraits of people who do not exist, by MobileStyleGAN (Belousov 2021, arXiv:2104.04767) run with OpenVINO on the CPU.

    The weights derive from StyleGAN2-FFHQ and are for NON-COMMERCIAL use only; whoever publishes the pictures has to say so (`NOTICE`).
    The framing is FFHQ's: upright, the eyes about half-way down, the face about 0.4 of the width.

    Args:
        threads: CPU threads of one inference (about 0.4 s a portrait on one core). The pixels do not depend on it.
    """

    def __init__(self, threads: int = 1) -> None:
        core = openvino.Core()
        # full precision everywhere: CPUs with bfloat16 would otherwise make other pixels than those without
        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        mapping = core.read_model(model_path("stylegan_mapping_xml"), model_path("stylegan_mapping_bin"))
        self._mapping = core.compile_model(mapping, "CPU", settings)
        synthesis = core.read_model(model_path("stylegan_synthesis_xml"), model_path("stylegan_synthesis_bin"))
        self._synthesis = core.compile_model(_split_styles(synthesis), "CPU", settings)
        normal = np.random.default_rng(0).standard_normal((_MEAN_SAMPLES, 1, _STYLE), dtype=np.float32)
        self._mean = np.mean([self._mapping(n)[0] for n in normal], axis=0, dtype=np.float32)

    def portrait(self, seed: int, truncation: float = 0.7) -> Image:
        """uint8 (1024, 1024, 3) RGB; the same seed gives the same picture.

        Args:
            seed: at least 0; each is another person, though some look alike.
            truncation: 0–1, how far from the average face; higher is more varied and less clean.
        """
        return self.render(self.style(seed, truncation))

    def variation(self, seed: int, style_seed: int, truncation: float = 0.7) -> Image:
        """The person of `portrait(seed)` in another picture: pose, hair, light and colours lean towards those of `style_seed`.

        The layers at 16–32 px, which carry most of the features, stay; the coarser and the finer ones move 40 % of the way. On eight people
        the SFace cosine to the portrait was 0.69–0.86.
        """
        style, other = self.style(seed, truncation), self.style(style_seed, truncation)
        mixed = (0.6 * style + 0.4 * other).astype(np.float32)
        return self.render(style, mixed, mixed)

    def style(self, seed: int, truncation: float = 0.7) -> F32:
        """The style of `portrait(seed)`, float32 (1, 512)."""
        normal = np.random.default_rng(seed).standard_normal((1, _STYLE), dtype=np.float32)
        return np.asarray(self._mean + truncation * (self._mapping(normal)[0] - self._mean), np.float32)

    def render(self, style: F32, coarse: F32 | None = None, fine: F32 | None = None) -> Image:
        """The portrait of a style, uint8 (1024, 1024, 3) RGB.

        Args:
            style: float32 (1, 512), of the layers at 16–32 px, which carry most of the features.
            coarse: of those up to 8 px: pose, hair, shape. None: the same.
            fine: of those from 64 px on: light and colours. None: the same.
        """
        inputs = {"style": style, "coarse": style if coarse is None else coarse, "fine": style if fine is None else fine}
        out = self._synthesis(inputs)[0][0]
        pixels = np.rint((np.clip(out, -1, 1) + 1) * 127.5).astype(np.uint8)
        return np.ascontiguousarray(pixels.transpose(1, 2, 0))


def _split_styles(model: Any) -> Any:
    """Gives the synthesis network further inputs for its coarse (≤ 8 px) and fine (≥ 64 px) layers; it feeds one style to all 23."""
    coarse = opset13.parameter([1, _STYLE], np.float32, name="coarse")
    fine = opset13.parameter([1, _STYLE], np.float32, name="fine")
    for use in model.inputs[0].get_target_inputs():
        node = use.get_node()
        if node.get_type_name() != "MatMul":
            continue
        weight = node.input(1).get_source_output().get_node().friendly_name  # m.conv1.… at 4 px, m.layers.<n>.… at 8·2ⁿ px
        layer = int(weight.split(".")[2]) if weight.startswith("m.layers.") else -1
        if layer <= 0:
            use.replace_source_output(coarse.output(0))
        elif layer >= 3:
            use.replace_source_output(fine.output(0))
    model.add_parameters([coarse, fine])
    model.validate_nodes_and_infer_types()
    return model


def cut_out(portrait: Image, garment: tuple[int, int, int]) -> F32:
    """The person of a generated portrait without the background, with a torso.

    GrabCut (Rother et al. 2004) from the fixed framing of the generator: the face is in the middle, the background in the upper corners.
    The torso goes on in the clothes' colour where the portrait shows clothes; else the person wears a plain top.

    Args:
        portrait: uint8 (1024, 1024, 3) RGB in the generator's framing.
        garment: RGB of that top.

    Returns:
        float32 (1382, 686, 4), RGB 0–255 and opacity 0–1; the portrait is the 512 px square in the middle of the upper edge.
    """
    small = np.asarray(cv2.resize(portrait, (CUT_SIDE, CUT_SIDE), interpolation=cv2.INTER_AREA), np.uint8)
    alpha = _person_mask(small)
    pad = round(CUT_SIDE * _SHOULDERS)
    height, width = round(CUT_SIDE * _TALL), CUT_SIDE + 2 * pad
    rgb = cv2.copyMakeBorder(small, 0, height - CUT_SIDE, pad, pad, cv2.BORDER_REPLICATE).astype(np.float32)
    opacity = np.zeros((height, width), np.float32)
    opacity[:CUT_SIDE, pad : pad + CUT_SIDE] = alpha
    opacity[CUT_SIDE:] = opacity[CUT_SIDE - 1]

    y, x = (np.mgrid[0:height, 0:width].astype(np.float32) + 0.5) / CUT_SIDE
    x = np.abs(x - width / CUT_SIDE / 2)
    colour, dressed = _clothes(small, alpha, garment)
    # a shoulder falls from the neck to the arm; the arms hang
    slope = 0.87 + 0.2 * np.clip((x - 0.15) / 0.42, 0, 1) ** 1.6
    arm = np.clip((0.6 + 0.03 * np.sin((y - 1) * 4) - x) * 40, 0, 1)
    cover = np.clip((y - slope) * 60, 0, 1)
    if dressed:
        cover *= np.clip((y - 0.9) * 10 + np.clip(x - 0.42, 0, 1) * 12, 0, 1)  # the portrait's own clothes stay
    else:
        cover *= np.clip((np.hypot(x / 0.19, (y - 0.86) / 0.16) - 1) * 15, 0, 1)  # round neckline
    folds = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 1, (8, width)).astype(np.float32), (0, 0), 14)[:1] * 0.8
    shade = (1.06 - 0.55 * np.maximum(x - 0.25, 0) - 0.22 * np.clip(y - 0.95, 0, 1)) * (1 + folds * np.clip(y - 0.95, 0, 0.5))
    rgb = rgb * (1 - cover[..., None]) + (colour * shade[..., None]) * cover[..., None]
    below_chin = np.where(y < 1, opacity, opacity * (x < 0.3))
    return np.dstack([rgb, np.maximum(below_chin, cover * arm)]).astype(np.float32)


def _person_mask(small: Image) -> F32:
    n = 3 * CUT_SIDE // 8  # GrabCut at a smaller size: the edge is softened anyway

    def polygon(points: list[tuple[float, float]], value: int) -> None:
        cv2.fillPoly(mask, [np.array([[x * n, y * n] for x, y in points], np.int32)], value)

    def ellipse(y: float, half_width: float, half_height: float, value: int) -> None:
        cv2.ellipse(mask, (n // 2, int(y * n)), (int(half_width * n), int(half_height * n)), 0, 0, 360, value, -1)

    mask = np.full((n, n), cv2.GC_PR_BGD, np.uint8)
    ellipse(0.48, 0.37, 0.5, cv2.GC_PR_FGD)
    polygon([(0.28, 0.74), (0.72, 0.74), (1, 0.9), (1, 1), (0, 1), (0, 0.9)], cv2.GC_PR_FGD)
    for side in (0, 1):
        polygon([(side, 0), (side, 0.78), (abs(side - 0.02), 0.72), (abs(side - 0.04), 0.2), (abs(side - 0.14), 0)], cv2.GC_BGD)
    ellipse(0.43, 0.25, 0.35, cv2.GC_FGD)
    polygon([(0.4, 0.7), (0.6, 0.7), (0.64, 1), (0.36, 1)], cv2.GC_FGD)
    cv2.setRNGSeed(0)  # its clusters start at random
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(cv2.resize(small, (n, n), interpolation=cv2.INTER_AREA), mask, (0, 0, 1, 1), *models, 3, cv2.GC_INIT_WITH_MASK)
    solid: Any = np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    solid = cv2.copyMakeBorder(solid, n, 0, 0, 0, cv2.BORDER_CONSTANT)  # or the gap between hair and border would be filled too
    for step, width in ((cv2.MORPH_CLOSE, 11), (cv2.MORPH_OPEN, 25)):  # fills gaps in the hair, then takes off strands and corners
        solid = cv2.morphologyEx(solid, step, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width)))
    outline = max(cv2.findContours(solid, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], key=cv2.contourArea)
    solid = cv2.drawContours(np.zeros_like(solid), [outline], -1, 1, -1)[n:]  # one piece without holes
    alpha = cv2.GaussianBlur(cv2.resize(solid.astype(np.float32), (CUT_SIDE, CUT_SIDE), interpolation=cv2.INTER_LINEAR), (0, 0), 3)
    y, x = (np.mgrid[0:CUT_SIDE, 0:CUT_SIDE].astype(np.float32) + 0.5) / CUT_SIDE
    # what the picture's border cuts off ends round, not straight
    dome = 1 - (np.abs(x - 0.5) / 0.495) ** 2.5 - (np.minimum(y - 0.6, 0) / 0.6) ** 2
    return np.asarray(np.clip((alpha - 0.35) / 0.45, 0, 1) * np.clip(dome * 10, 0, 1), np.float32)


def _clothes(small: Image, alpha: F32, garment: tuple[int, int, int]) -> tuple[F32, bool]:
    """The colour of the clothes at the lower border, and whether there are any: on both sides, unlike skin and not in two colours."""
    skin = np.median(small[int(0.55 * CUT_SIDE) : int(0.65 * CUT_SIDE), int(0.4 * CUT_SIDE) : int(0.6 * CUT_SIDE)].reshape(-1, 3), axis=0)
    strip = slice(int(0.94 * CUT_SIDE), CUT_SIDE)
    sides = [np.r_[int(0.08 * CUT_SIDE) : int(0.3 * CUT_SIDE)], np.r_[int(0.7 * CUT_SIDE) : int(0.92 * CUT_SIDE)]]
    if min(float(alpha[strip][:, columns].mean()) for columns in sides) > 0.8:
        left, right = (np.median(small[strip][:, columns].reshape(-1, 3), axis=0) for columns in sides)
        if np.abs(left - right).max() < 60 and min(np.abs(left - skin).max(), np.abs(right - skin).max()) > 45:
            return np.asarray((left + right) / 2, np.float32), True
    return np.array(garment, np.float32), False
