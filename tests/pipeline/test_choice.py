"""Choosing among identities: the same one, however many are drawn at a time."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from made_stages import known_faces, make_check
from PIL import Image
from skimage import data

from mfmc_ray.codec import decode
from mfmc_ray.faces.pack import ModelPack
from mfmc_ray.identities.model import load_model
from mfmc_ray.identities.pool import Wanted
from mfmc_ray.identities.sample import sample
from mfmc_ray.pipeline.check import OutputCheck
from mfmc_ray.pipeline.choice import Chooser, Try
from mfmc_ray.pipeline.rows import faces_of
from mfmc_ray.swap.device.devices import renderer
from mfmc_ray.swap.protocol import Order, Patch
from mfmc_ray.swap.render import MorphSwapper

pytestmark = pytest.mark.models

ATTEMPTS = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    face = Image.fromarray(np.ascontiguousarray(data.astronaut()[:260, 100:300]))
    face.resize((120, 156), Image.Resampling.LANCZOS).save(root / "face.png")
    return root


@pytest.fixture(scope="module")
def check(scan: pa.Table, pack: ModelPack) -> OutputCheck:
    return make_check(known_faces(scan, pack), pack)


class Counting(MorphSwapper):
    """Several at a time, and how many were drawn each time."""

    def __init__(self, at_once: int) -> None:
        super().__init__(load_model())
        self.at_once, self.drawn = at_once, list[int]()

    def swap_many(self, orders: Sequence[Order]) -> list[Patch | None]:
        self.drawn.append(len(orders))
        return super().swap_many(orders)


def chosen(swapper: MorphSwapper, check: OutputCheck, folder: Path, scan: pa.Table) -> tuple[Try, int]:
    pixels = decode((folder / "face.png").read_bytes()).pixels
    faces = faces_of(scan["faces"][0], check.pack.dimensions)
    mesh, wanted = faces.need("meshes")[0], Wanted(0.0, float(faces.need("ages")[0]), float(faces.need("tones")[0]), 0.0)
    identities = [sample(swapper.model, seed) for seed in range(3, 3 + ATTEMPTS)]
    originals = {name: v[:1] for name, v in faces.embeddings.items()}
    canvas = pixels.copy()
    best, count, reason = Chooser(swapper, check, ATTEMPTS)(canvas, mesh, identities, wanted, swapper.covered(pixels, mesh), originals)
    np.testing.assert_array_equal(canvas, pixels)
    assert best is not None, reason
    return best, count


def same(one: tuple[Try, int], other: tuple[Try, int]) -> None:
    (a, count), (b, also) = one, other
    assert count == also
    assert a.identity.seed == b.identity.seed
    assert a.cost == b.cost
    np.testing.assert_array_equal(a.patch.pixels, b.patch.pixels)


def test_the_same_is_chosen_however_many_are_drawn_at_a_time(check: OutputCheck, folder: Path, scan: pa.Table) -> None:
    singly, five = Counting(1), Counting(5)
    first = chosen(singly, check, folder, scan)
    same(first, chosen(five, check, folder, scan))
    assert sum(singly.drawn) == first[1]
    assert first[1] <= sum(five.drawn) < first[1] + 5
    assert max(five.drawn) == 5


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="what draws on a GPU wants torch")
def test_a_device_chooses_as_numpy_does(check: OutputCheck, folder: Path, scan: pa.Table) -> None:
    device = renderer(load_model(), "cpu")
    together = chosen(device, check, folder, scan)
    plain = chosen(MorphSwapper(load_model()), check, folder, scan)
    assert (together[0].identity.seed, together[1]) == (plain[0].identity.seed, plain[1])
    assert np.abs(together[0].patch.pixels.astype(int) - plain[0].patch.pixels).max() <= 1
    device.at_once = 1
    same(together, chosen(device, check, folder, scan))
