"""What reviewers decided, done by the anonymize stage on a real picture."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from made_stages import make_stage
from PIL import Image
from skimage import data

from mfmc_ray.access.approvals import Approvals, Row
from mfmc_ray.access.decide import Decision, ReplaceAll
from mfmc_ray.codec import decode
from mfmc_ray.faces.pack import ModelPack
from mfmc_ray.pipeline.anonymize import AnonymizeStage, split
from mfmc_ray.pipeline.approved import not_allowed, reviewed
from mfmc_ray.review.decisions import APPROVE, REDACT, RESWAP, Reviews, append
from mfmc_ray.review.reviewed import Reviewed
from mfmc_ray.swap.render import MorphSwapper

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    face = np.ascontiguousarray(data.astronaut()[:260, 120:320])
    Image.fromarray(np.hstack([face, face[:, ::-1]])).save(root / "two.png")
    return root


@pytest.fixture(scope="module")
def stage(scan: pa.Table, pack: ModelPack, swapper: MorphSwapper) -> AnonymizeStage:
    return make_stage(scan, pack, swapper, seeds=10, attempts=4)


def done(stage: AnonymizeStage, scan: pa.Table, work: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    reviewed = copy.copy(stage)
    reviewed.access = Reviewed(ReplaceAll(), Reviews.load(work))
    images, faces = split(reviewed(scan))
    return images.to_pylist()[0], faces.to_pylist()


def test_decisions_are_honoured(stage: AnonymizeStage, scan: pa.Table, tmp_path: Path) -> None:
    _, before = done(stage, scan, tmp_path)
    assert [row["verdict"] for row in before] == ["replaced", "replaced"]
    append(tmp_path, REDACT, before[0])
    append(tmp_path, RESWAP, before[1])
    image, after = done(stage, scan, tmp_path)
    assert (image["verdict"], after[0]["verdict"], after[0]["reason"]) == ("anonymized", "redacted", "review")
    x0, y0, x1, y1 = map(int, after[0]["redacted_area"])
    assert np.ptp(decode(image["image"]["bytes"]).pixels[y0:y1, x0:x1].reshape(-1, 3), 0).max() <= 2
    assert after[1]["verdict"] == "replaced"
    assert after[1]["identity_id"] != before[1]["identity_id"]
    append(tmp_path, APPROVE, after[1])
    _, again = done(stage, scan, tmp_path)
    assert again == after
    append(tmp_path, RESWAP, after[1])
    _, third = done(stage, scan, tmp_path)
    assert third[1]["identity_id"] not in (before[1]["identity_id"], after[1]["identity_id"])


def test_who_is_to_be_covered_is_covered_even_if_approved(stage: AnonymizeStage, scan: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """No access model says both; should one, nothing of the face may get out."""
    both = [Decision(keep=True, reason="approved", redact=True)] * len(scan["faces"][0])
    monkeypatch.setattr("mfmc_ray.pipeline.anonymize.decisions", lambda *_: both)
    images, faces = split(stage(scan.slice(0, 1)))
    assert images["verdict"].to_pylist() == ["anonymized"]
    assert set(faces["verdict"].to_pylist()) == {"redacted"}
    assert set(faces["access_reason"].to_pylist()) == {None}


def test_an_image_in_which_a_redacted_face_is_not_found_is_withheld(stage: AnonymizeStage, scan: pa.Table, tmp_path: Path) -> None:
    image = scan["image_id"][0].as_py()
    append(tmp_path, REDACT, {"image_id": image, "face_no": 5, "box": [1, 200, 9, 209], "verdict": "replaced", "identity_id": "x"} | _LOOK)
    for some in (scan, _without_faces(scan)):
        row, faces = done(stage, some, tmp_path)
        assert (row["verdict"], row["reason"], row["image"], faces) == ("withheld", "reviewed_face_lost", None, [])


def test_the_audit_holds_kept_faces_against_reviewers_too(scan: pa.Table, tmp_path: Path) -> None:
    source = scan.to_pylist()[0]
    boxes = [tuple(map(float, face["box"])) for face in source["faces"]]
    rows = [
        {"image_id": source["image_id"], "face_no": n, "box": box, "verdict": "kept", "identity_id": None} for n, box in enumerate(boxes)
    ]
    table = Approvals({source["image_id"]: tuple(Row(n + 1, True, box) for n, box in enumerate(boxes))})  # type: ignore[arg-type]
    assert not_allowed(reviewed(table, tmp_path), source, rows, source) == []
    append(tmp_path, REDACT, rows[1] | _LOOK)
    assert not_allowed(reviewed(table, tmp_path), source, rows, source) == ["face 1: no row of the access table allows it"]


_LOOK = dict.fromkeys(("reason", "similarity_to_original", "age_after", "yaw_after", "pitch_after", "roll_after"))


def _without_faces(scan: pa.Table) -> pa.Table:
    place = scan.schema.get_field_index("faces")
    empty = pa.array([[]] * scan.num_rows, scan.schema.field(place).type)
    assert pc.sum(pc.list_value_length(empty)).as_py() == 0
    return scan.set_column(place, scan.schema.field(place), empty)
