"""One identity on a real face, varied until it holds; and faces that wear what their person wears."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from made_stages import known_faces, make_check
from PIL import Image
from skimage import data

from mfmc_ray.access.decide import ReplaceAll
from mfmc_ray.codec import decode
from mfmc_ray.config import FindConfig, OutputConfig, RunConfig, SwapConfig
from mfmc_ray.faces.faces import Faces
from mfmc_ray.faces.pack import ModelPack
from mfmc_ray.identities.pool import Wanted
from mfmc_ray.identities.sample import sample
from mfmc_ray.ledger import Ledger
from mfmc_ray.pipeline.anonymize import AnonymizeStage, split
from mfmc_ray.pipeline.check import OutputCheck
from mfmc_ray.pipeline.choice import ENOUGH, Sitter
from mfmc_ray.pipeline.fitting import FittingWorker, read_fitted
from mfmc_ray.pipeline.pseudonyms import Assigned, Book, Pseudonym
from mfmc_ray.pipeline.rows import faces_of
from mfmc_ray.pipeline.wearing import FIRST, Wearer
from mfmc_ray.pipeline.workers import SCAN
from mfmc_ray.swap.render import MorphSwapper

pytestmark = pytest.mark.models

NAMES = tuple(f"mfmc-{seed:012d}" for seed in (3, 4, 8, 11))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    face = np.ascontiguousarray(data.astronaut()[:260, 100:300])
    Image.fromarray(face).save(root / "face.png")
    Image.fromarray(np.hstack([face, face[:, ::-1]])).save(root / "two.png")
    return root


@pytest.fixture(scope="module")
def check(scan: pa.Table, pack: ModelPack) -> OutputCheck:
    return make_check(known_faces(scan, pack), pack)


@pytest.fixture(scope="module")
def face(scan: pa.Table, folder: Path, pack: ModelPack) -> tuple[Any, Faces]:
    at = scan["path"].to_pylist().index("face.png")
    return decode((folder / "face.png").read_bytes()).pixels, faces_of(scan["faces"][at], pack.dimensions)


def wear(wearer: Wearer, face: tuple[Any, Faces], seed: int, attempts: int = FIRST, steps: tuple[int, ...] = ()) -> Any:
    pixels, faces = face
    mesh = faces.need("meshes")[0]
    wanted = Wanted(0.0, float(faces.need("ages")[0]), float(faces.need("tones")[0]), 0.0)
    originals = {name: v[:1] for name, v in faces.embeddings.items()}
    canvas = pixels.copy()
    sitter = Sitter(mesh, wanted, wearer.swapper.covered(pixels, mesh), originals)
    found = wearer(canvas, sitter, sample(wearer.swapper.model, seed), attempts, steps)
    np.testing.assert_array_equal(canvas, pixels)
    return found


def test_it_is_varied_until_it_holds_and_the_same_steps_hold_again(
    swapper: MorphSwapper, check: OutputCheck, face: tuple[Any, Faces]
) -> None:
    wearer = Wearer(swapper, check)
    found = [wear(wearer, face, seed) for seed in range(4)]
    assert any(one.best is not None for one in found)
    for seed, one in enumerate(found):
        assert 1 <= one.attempts <= FIRST
        if one.best is None:
            assert one.reason
            assert one.room <= 0
            continue
        assert one.best.identity.seed == seed
        assert one.best.checked.verdict.passed
        again = wear(wearer, face, seed, steps=one.steps)
        assert again.room >= one.room - 1e-4
        assert again.attempts == 1 or not one.steps or one.room <= ENOUGH


def pseudonyms(scan: pa.Table, who: dict[tuple[str, int], tuple[str, ...]]) -> Assigned:
    ids = dict(zip(scan["path"].to_pylist(), scan["image_id"].to_pylist(), strict=True))
    people = [Pseudonym(str(k), False, worn, ((ids[path], number),), ((),)) for k, ((path, number), worn) in enumerate(who.items())]
    return Book(tuple(people)).assigned()


def stage(check: OutputCheck, swapper: MorphSwapper, assigned: Assigned) -> AnonymizeStage:
    return AnonymizeStage(
        swap=SwapConfig(pseudonyms="person"),
        output=OutputConfig(),
        max_pixels=FindConfig().max_pixels,
        check=check,
        pool=None,
        swapper=swapper,
        access=ReplaceAll(),
        key=b"0" * 32,
        assigned=assigned,
    )


def test_faces_wear_their_person_s_or_the_reserve_or_are_covered(scan: pa.Table, check: OutputCheck, swapper: MorphSwapper) -> None:
    who = {("face.png", 0): NAMES[:2], ("two.png", 0): NAMES[:2]}  # of the other face in two.png nothing is known
    images, faces = split(stage(check, swapper, pseudonyms(scan, who))(scan))
    rows = {(row["path"], row["face_no"]): row for row in faces.to_pylist()}
    assert {row["verdict"] for row in images.to_pylist()} == {"anonymized"}
    for face in who:
        row = rows[face]
        if row["verdict"] == "replaced":
            assert row["identity_id"] in NAMES[:2]
        else:
            assert row["reason"] in ("similar_to_original", "similar_to_known")
    assert any(rows[face]["verdict"] == "replaced" for face in who)
    other = rows["two.png", 1]
    assert (other["verdict"], other["reason"], other["identity_id"]) == ("redacted", "no_pseudonym", None)


def test_candidates_are_tried_until_one_holds_on_all_photos(scan: pa.Table, folder: Path, pack: ModelPack, tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "out"), str(tmp_path / "out-work"))
    ledger.commit_part(SCAN, 0, {"scan": scan}, {"images": scan.num_rows, "faces": 3})
    known = known_faces(scan, pack)
    check = make_check(known, pack)
    config = RunConfig(input=str(folder), out=str(tmp_path / "out"), work=str(tmp_path / "out-work"))
    thresholds = {name: check.guard.threshold(name) for name in known.vectors}
    worker = FittingWorker(config, ledger, known, thresholds, check.guard.calibration)
    ids = dict(zip(scan["path"].to_pylist(), scan["image_id"].to_pylist(), strict=True))
    rows = {path: row for row, path in enumerate(scan["path"].to_pylist())}
    faces = [[ids["face.png"], 0, 0, rows["face.png"]], [ids["two.png"], 0, 0, rows["two.png"]], [ids["two.png"], 0, 0, rows["face.png"]]]
    worker({"part": 0, "people": [{"name": "ada", "candidates": list(NAMES), "faces": faces}]})
    tried = read_fitted(ledger)["ada"]
    assert [one.identity_id for one in tried] == list(NAMES[: len(tried)])
    assert all(set(one.rooms) <= {(ids["face.png"], 0), (ids["two.png"], 0)} for one in tried)  # the third is not where it should be
    assert tried[-1].holds == 2 or len(tried) == len(NAMES)
    assert max(one.holds for one in tried) >= 1
