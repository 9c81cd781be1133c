"""Workers whose models are elsewhere make the same rows, bit for bit. Here "elsewhere" is this process, by way of pickles."""

from __future__ import annotations

import json
import pickle
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from made_stages import make_stage
from PIL import Image
from sick_networks import Sick, blind
from skimage import data

from mfmc_ray.config import FindConfig
from mfmc_ray.faces.gather import Gathering
from mfmc_ray.faces.pack import ModelPack
from mfmc_ray.faces.store import ModelError
from mfmc_ray.pipeline.anonymize import AnonymizeStage, split
from mfmc_ray.pipeline.check import OutputCheck
from mfmc_ray.pipeline.choice import Chooser, Sitter
from mfmc_ray.pipeline.profiles import LOOK, SWAP
from mfmc_ray.pipeline.remote import Asker, RemoteChooser, RemotePack, RemoteWearer, ServiceLostError, alone
from mfmc_ray.pipeline.roles import GatheredSwapper, Look, Swap
from mfmc_ray.pipeline.scan import ScanStage
from mfmc_ray.pipeline.watch import Watch
from mfmc_ray.pipeline.wearing import Wearer
from mfmc_ray.pipeline.window import Window
from mfmc_ray.swap.protocol import Order, Patch, SwapError, Swapper
from mfmc_ray.swap.render import MorphSwapper

pytestmark = pytest.mark.models
SEEDS = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    face = data.astronaut()
    Image.fromarray(face).save(root / "face.jpg", quality=92)
    wide = np.full((700, 900, 3), 90, np.uint8)
    wide[150:662, 30:542] = face
    wide[:180, 700:880] = np.rot90(face[20:200, 130:310])  # lies, and is cut by the border
    Image.fromarray(wide).save(root / "two.png")
    Image.fromarray(data.chelsea()).save(root / "cat.png")
    return root


class Elsewhere:
    """An `Ask` that hands everything over as Ray does: copied, arrays read-only."""

    def __init__(self, doers: dict[str, Any]) -> None:
        self.doers, self.calls, self.lost = doers, Counter[str](), set[str]()
        self.largest: Counter[str] = Counter()

    def has(self, role: str) -> bool:
        return role in self.doers

    def __call__(self, role: str, method: str, *arguments: Any, seconds: float = 0.0) -> Any:
        if role in self.lost:
            raise ServiceLostError("gone")
        self.calls[method] += 1
        sent, size = _handed_over(arguments)
        self.largest[method] = max(self.largest[method], size)
        return _handed_over(getattr(self.doers[role], method)(*sent))[0]


def _handed_over(value: Any) -> tuple[Any, int]:
    buffers: list[pickle.PickleBuffer] = []
    text = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    parts = [bytes(buffer.raw()) for buffer in buffers]
    return pickle.loads(text, buffers=parts), len(text) + sum(map(len, parts))


@pytest.fixture
def elsewhere(pack: ModelPack, swapper: MorphSwapper, scan: pa.Table) -> Elsewhere:
    look, swap = object.__new__(Look), object.__new__(Swap)
    look.pack = swap.pack = pack
    stage = make_stage(scan, pack, swapper, SEEDS)
    swap._choose, swap._wear = Chooser(swapper, stage.check, stage.swap.attempts), Wearer(swapper, stage.check)
    return Elsewhere({LOOK: look, SWAP: swap})


def remote_stage(elsewhere: Elsewhere, swapper: MorphSwapper, local: AnonymizeStage) -> AnonymizeStage:
    """The stage `local` with everything elsewhere."""
    asker = Asker(elsewhere)
    check = OutputCheck(RemotePack(asker, FindConfig(), list(local.recognizers)), local.check.guard)
    return AnonymizeStage(
        swap=local.swap,
        output=local.output,
        max_pixels=local.max_pixels,
        check=check,
        pool=local.pool,
        swapper=swapper,
        access=local.access,
        key=local.key,
        chooser=RemoteChooser(asker, Chooser(swapper, check, local.swap.attempts)),
    )


def test_the_scan_is_the_same(elsewhere: Elsewhere, pack: ModelPack, scan: pa.Table, folder: Path) -> None:
    from made_stages import units

    remote = RemotePack(Asker(elsewhere), FindConfig(), list(pack.dimensions))
    assert remote.dimensions == pack.dimensions
    again = ScanStage(remote, 178_956_970)(units(folder))
    assert again.equals(scan)
    assert elsewhere.calls == {"analyse": 3}


def noisy(window: Window) -> Any:
    """As `Window.canvas`, with noise all around."""
    canvas = np.random.default_rng(0).integers(0, 256, (window.height, window.width, 3), np.uint8)
    canvas[window.y : window.y + window.pixels.shape[0], window.x : window.x + window.pixels.shape[1]] = window.pixels
    return canvas


def test_what_is_published_is_the_same_and_what_is_outside_of_the_windows_that_travel_does_not_matter(
    elsewhere: Elsewhere, pack: ModelPack, swapper: MorphSwapper, scan: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Window, "canvas", noisy)
    local = make_stage(scan, pack, swapper, SEEDS)
    expected = local(scan)
    assert Counter(row["verdict"] for row in expected["face_rows"].combine_chunks().flatten().to_pylist())["replaced"] >= 2
    remote = remote_stage(elsewhere, swapper, local)
    assert remote(scan).equals(expected)
    assert elsewhere.calls["choose"] >= 2
    assert elsewhere.calls["read"] >= 2
    assert "analyse" not in elsewhere.calls
    assert elsewhere.largest["choose"] < 900 * 700 * 3


def test_a_canvas_has_the_window_in_its_place() -> None:
    picture = np.random.default_rng(0).integers(1, 256, (300, 200, 3), np.uint8)
    mesh = np.column_stack([np.linspace(100, 130, 468), np.linspace(250, 290, 468), np.zeros(468)]).astype(np.float32)
    window = Window.around(picture, mesh)
    assert (window.x, window.y, window.pixels.shape) == (24, 174, (126, 176, 3))
    canvas = window.canvas()
    assert canvas.shape == picture.shape
    np.testing.assert_array_equal(canvas[174:300, 24:200], picture[174:300, 24:200])
    assert not canvas[:174].any()


def test_wearing_is_the_same(elsewhere: Elsewhere, pack: ModelPack, swapper: MorphSwapper, scan: pa.Table) -> None:
    from mfmc_ray.identities.sample import sample
    from mfmc_ray.pipeline.rows import faces_of

    stage = make_stage(scan, pack, swapper, SEEDS)
    faces = faces_of(scan["faces"][scan["path"].to_pylist().index("face.jpg")], pack.dimensions)
    picture = data.astronaut()
    sitter = Sitter.of(faces, 0, swapper.covered(picture, faces.need("meshes")[0]))
    own = Wearer(swapper, stage.check)
    arguments = (sitter, sample(swapper.model, 3), 2)
    here, there = own(picture.copy(), *arguments), RemoteWearer(Asker(elsewhere), own)(picture.copy(), *arguments)
    assert (here.attempts, here.reason, here.steps, here.room) == (there.attempts, there.reason, there.steps, there.room)
    assert elsewhere.calls["wear"] == 1


def test_threads_share_a_role(elsewhere: Elsewhere, pack: ModelPack) -> None:
    pictures = [np.ascontiguousarray(np.roll(data.astronaut(), 8 * i, axis=1)) for i in range(2)]
    alone = [pack.analyse(picture) for picture in pictures]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda picture: elsewhere(LOOK, "analyse", picture, None, False), pictures))
    for a, b in zip(alone, together, strict=True):
        for name in ("boxes", "points", "scores", "meshes", "ages", "tones"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert all(np.array_equal(a.embeddings[name], b.embeddings[name]) for name in a.embeddings)


def test_without_an_answer_the_worker_does_it_itself(elsewhere: Elsewhere, pack: ModelPack) -> None:
    elsewhere.lost.add(LOOK)
    before = alone()
    remote = RemotePack(Asker(elsewhere), FindConfig(), list(pack.dimensions))
    remote._own = pack  # type: ignore[misc]
    assert len(remote.analyse(data.astronaut())) == 1
    assert alone() == before + 1


def test_what_a_method_raises_comes_back(elsewhere: Elsewhere) -> None:
    with pytest.raises(KeyError):
        Asker(elsewhere)(LOOK, "embed_crops", "nobody", np.zeros((1, 112, 112, 3), np.uint8), otherwise=lambda: None)


def test_a_worker_that_waits_is_not_late(tmp_path: Path) -> None:
    watch = Watch(tmp_path, "scan", 1.0)
    with watch.part(0), watch.at("a", 1.0):
        with watch.away() as left:
            assert 0.5 < left <= 1.0
            time.sleep(1.5)  # this process would have ended
        with watch.away() as left:
            assert left > 0.5
        assert json.loads((tmp_path / "watch" / "scan-00000.at").read_bytes())["key"] == "a"
    with watch.away() as left:
        assert left == 0.0


class Recorded(Swapper):
    """Gives each order its identity back, and notes who asked for how many together."""

    name, digest, licences, at_once = "recorded", "", (), 8

    def __init__(self) -> None:
        self.threads, self.sizes = set[int](), list[int]()

    def swap_many(self, orders: Sequence[Order]) -> list[Patch | None]:
        self.threads.add(threading.get_ident())
        self.sizes.append(len(orders))
        return [None if order.identity is None else order.identity for order in orders]  # type: ignore[misc]


def test_orders_of_several_threads_are_made_together_by_one() -> None:
    recorded, how = Recorded(), Gathering(size=8, wait=0.5)
    swapper = GatheredSwapper(recorded, how)
    gate = threading.Barrier(4)

    def order(who: Any) -> Any:
        return Order(np.zeros((1, 1, 3), np.uint8), np.zeros((468, 3), np.float32), who)

    def many(i: int) -> Any:
        with how.lanes.request():
            gate.wait()
            return swapper.swap_many([order(f"{i}"), order(f"{i}+")])

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(many, range(4))) == [[f"{i}", f"{i}+"] for i in range(4)]
    assert len(recorded.threads) == 1
    assert len(recorded.sizes) < 4
    assert swapper.swap_many([]) == []
    with pytest.raises(SwapError):
        swapper.swap(np.zeros((1, 1, 3), np.uint8), np.zeros((468, 3), np.float32), None)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["finder", "second_look", "audit_look", "given"])
def test_services_with_a_blind_detector_do_not_start(
    elsewhere: Elsewhere, pack: ModelPack, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    look: Look = elsewhere.doers[LOOK]
    look.warm_up()
    part: Any = getattr(pack, kind)
    detector = part.detector if kind == "audit_look" else part.detectors[1]
    monkeypatch.setattr(detector, "_net", Sick(detector._net, blind))
    with pytest.raises(ModelError, match="centerface does not find a face that is plain to see"):
        look.warm_up()


def test_a_result_of_a_service_that_is_on_another_face_is_covered(
    elsewhere: Elsewhere, pack: ModelPack, swapper: MorphSwapper, scan: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = make_stage(scan, pack, swapper, SEEDS)
    choose = stage._choose

    def mixed_up(canvas: Any, sitter: Sitter, identities: Sequence[Any]) -> Any:
        best, count, reason = choose(canvas, sitter, identities)
        return best and replace(best, patch=replace(best.patch, mesh=best.patch.mesh + np.float32([200, 0, 0]))), count, reason

    monkeypatch.setattr(stage, "_choose", mixed_up)
    _, faces = split(stage(scan))
    assert faces.num_rows > 0
    assert set(zip(faces["verdict"].to_pylist(), faces["reason"].to_pylist(), strict=True)) == {("redacted", "swap_failed")}
