"""Approved faces in a run's stages: they stay as they are, their neighbours do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from made_stages import known_faces, make_stage
from PIL import Image
from skimage import data

from mfmc_ray.access.approvals import Approvals, Row
from mfmc_ray.access.combined import Combined
from mfmc_ray.access.decide import AccessError, ReplaceAll
from mfmc_ray.access.explicit import Consent, Explicit
from mfmc_ray.access.groups import Party
from mfmc_ray.access.lists import PeopleList
from mfmc_ray.access.rules import Rule, Rules
from mfmc_ray.codec import decode
from mfmc_ray.config import load
from mfmc_ray.faces.faces import Faces
from mfmc_ray.faces.pack import ModelPack
from mfmc_ray.ledger import Ledger, LedgerError
from mfmc_ray.people.sightings import Sighting, Sightings
from mfmc_ray.pipeline import approved
from mfmc_ray.pipeline.anonymize import AnonymizeStage
from mfmc_ray.pipeline.contradictions import contradictions
from mfmc_ray.pipeline.settle import Result
from mfmc_ray.pipeline.state import State
from mfmc_ray.pipeline.workers import SCAN
from mfmc_ray.scrub import scrub
from mfmc_ray.swap.render import MorphSwapper

pytestmark = pytest.mark.models
FACE = np.ascontiguousarray(data.astronaut()[:260, 120:278])  # mirrored beside itself, the swap of one moves pixels of the other


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two faces side by side, lossless and as JPEG with metadata."""
    root = tmp_path_factory.mktemp("photos")
    pair = Image.fromarray(np.hstack([FACE, FACE[:, ::-1]]))
    pair.save(root / "pair.png")
    pair.save(root / "pair.jpg", quality=90, comment=b"Ada, at home")
    return root


@pytest.fixture(scope="module")
def stage(scan: pa.Table, pack: ModelPack, swapper: MorphSwapper) -> AnonymizeStage:
    return make_stage(scan, pack, swapper, attempts=4)


Scanned = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def scanned(scan: pa.Table) -> Scanned:
    return {row["path"]: row for row in scan.to_pylist()}


def sightings(seen: dict[str, tuple[str | None, ...]]) -> Sightings:
    """image_id → whom each face is recognised as."""
    some = {
        image: tuple(Sighting(person, 0.8, 0.4, "recognised" if person else "unknown") for person in people)
        for image, people in seen.items()
    }
    return Sightings(some, "digest")


def row_for(number: int, face: dict[str, Any], *, allow: bool = True) -> Row:
    x0, y0, x1, y1 = (float(v) for v in face["box"])
    return Row(number, allow, (x0, y0, x1, y1))


def run(stage: AnonymizeStage, scan: pa.Table, access: Any) -> dict[str, dict[str, Any]]:
    stage.access = access
    try:
        return {row["path"]: row for row in stage(scan).to_pylist()}
    finally:
        stage.access = ReplaceAll()


def whole(box: list[float], shape: tuple[int, ...]) -> tuple[slice, slice]:
    x0, y0, x1, y1 = box
    return slice(max(0, int(y0)), min(shape[0], int(np.ceil(y1)) + 1)), slice(max(0, int(x0)), min(shape[1], int(np.ceil(x1)) + 1))


def test_one_of_two_is_kept_and_the_other_is_not(stage: AnonymizeStage, scan: pa.Table, scanned: Scanned, folder: Path) -> None:
    images = {}
    for path, image in scanned.items():
        assert len(image["faces"]) == 2
        images[path] = (row_for(11 if path == "pair.png" else 12, image["faces"][1]),)
    done = run(stage, scan, Approvals(images))
    for path, row in done.items():
        assert row["verdict"] == "anonymized"
        other, mine = row["face_rows"]
        assert (mine["verdict"], mine["access_reason"]) == ("kept", f"approvals:{11 if path == 'pair.png' else 12}")
        assert other["verdict"] in ("replaced", "redacted")
        assert other["access_reason"] is None
        assert mine["identity_id"] is None
        assert mine["certificates"] == []
        assert mine["redacted_area"] is None
        assert [one["face_no"] for one in row["published"]] == ([0] if other["verdict"] == "replaced" else [])
        before, after = decode((folder / path).read_bytes()).pixels, decode(row["image"]["bytes"]).pixels
        inside = whole(mine["box"], after.shape)
        if path == "pair.png":
            np.testing.assert_array_equal(after[inside], before[inside])
        else:  # coded again with the same tables
            assert np.abs(after[inside].astype(int) - before[inside]).mean() < 1
        assert np.abs(after.astype(int) - before)[whole(other["box"], after.shape)].mean() > 8
        assert b"Ada" not in row["image"]["bytes"]


def test_an_image_whose_faces_are_all_approved_is_only_scrubbed(
    stage: AnonymizeStage, scan: pa.Table, scanned: Scanned, folder: Path
) -> None:
    source = (folder / "pair.jpg").read_bytes()
    image = scanned["pair.jpg"]
    done = run(stage, scan, Approvals({image["image_id"]: tuple(row_for(n, face) for n, face in enumerate(image["faces"], 3))}))
    row = done["pair.jpg"]
    assert row["verdict"] == "unchanged"
    assert row["image"]["bytes"] == scrub(source) != source
    assert [face["access_reason"] for face in row["face_rows"]] == ["approvals:3", "approvals:4"]
    np.testing.assert_array_equal(decode(row["image"]["bytes"]).pixels, decode(source).pixels)
    assert {face["verdict"] for face in done["pair.png"]["face_rows"]} <= {"replaced", "redacted"}  # another image


def test_a_withdrawn_or_denied_approval_keeps_nobody(stage: AnonymizeStage, scan: pa.Table, scanned: Scanned) -> None:
    first = scanned["pair.png"]["faces"][0]
    denied = Approvals({"pair.png": (row_for(1, first), row_for(2, first, allow=False))})
    for access in (denied, Approvals({})):
        assert not any(face["verdict"] == "kept" for row in run(stage, scan, access).values() for face in row["face_rows"])


def test_a_model_that_does_not_decide_withholds(stage: AnonymizeStage, scan: pa.Table) -> None:
    """With fewer decisions than faces nothing is known; above all not that all faces are approved."""

    class Silent(ReplaceAll):
        def decide(self, image_id: str, path: str, faces: Faces) -> list[Any]:
            return []

    for row in run(stage, scan, Silent()).values():
        assert (row["verdict"], row["reason"]) == ("withheld", "internal_error: AccessError")
        assert row["image"] is None
        assert row["face_rows"] == []


def test_an_overlapped_face_stays_as_far_as_it_is_nobody_else_s(stage: AnonymizeStage, folder: Path) -> None:
    """Two boxes that share pixels: what is the other's, too, is not given back."""
    original = decode((folder / "pair.png").read_bytes()).pixels
    canvas = np.zeros_like(original)
    boxes = np.array([[60, 60, 160, 190], [140, 60, 260, 190]], np.float32)
    mesh = np.zeros((2, 468, 3), np.float32)
    mesh[:, :, :2] = boxes[:, None, :2] + np.random.default_rng(0).uniform(0, 1, (2, 468, 2)) * (boxes[:, None, 2:] - boxes[:, None, :2])
    faces = Faces(boxes, np.zeros((2, 5, 2), np.float32), np.ones(2, np.float32), ("a", "b"), mesh)
    stage._restore(original, canvas, faces, [Result("kept", access_reason="approvals:1"), Result("replaced", moved=mesh[1] - 30)])
    assert not canvas[:, 111:].any()  # the moved mesh begins there
    np.testing.assert_array_equal(canvas[60:190, 60:109], original[60:190, 60:109])


def test_kept_people_are_known_people(scan: pa.Table, scanned: Scanned, pack: ModelPack) -> None:
    """The index is made from the scan, which knows nothing of approvals: no fake may resemble whoever is shown."""
    ids = {name.decode() for name in known_faces(scan, pack).ids}
    assert ids == {f"{row['image_id']}:{k}" for row in scanned.values() for k in range(2)}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"access_reason": None}, "no access row is named"),
        ({"access_reason": ""}, "no access row is named"),
        ({"identity_id": "mfmc-7"}, "wears an identity"),
        ({"certificates": [{}]}, "wears an identity"),
        ({"verdict": "redacted", "reason": "profile", "redacted_area": [0, 0, 9, 9]}, "not kept, but an access row"),
        ({"verdict": "replaced", "identity_id": "mfmc-7", "points": [0.0] * 10}, "not kept, but an access row"),
    ],
)
def test_a_kept_face_has_an_access_row_and_nothing_else(change: dict[str, Any], says: str) -> None:
    plain = dict.fromkeys(("access_reason", "identity_id", "certificates", "reason", "redacted_area", "points"))
    row = plain | {"face_no": 0, "verdict": "kept", "access_reason": "approvals:1", "box": [0, 0, 9, 9]}
    image = {"verdict": "unchanged", "image": {"bytes": b"x"}, "faces": 1, "width": 9, "height": 9}
    assert contradictions(image, [row]) == []
    assert [fault for fault in contradictions(image, [row | change]) if says in fault]


def test_kept_faces_are_held_against_the_table(scanned: Scanned) -> None:
    image = scanned["pair.png"]
    good, other = (row_for(n, face) for n, face in enumerate(image["faces"], 1))
    kept = [{"face_no": n, "verdict": "kept"} for n in range(2)]
    both = Approvals({"pair.png": (good,), image["image_id"]: (other,)})
    assert approved.not_allowed(both, image, kept, image) == []
    for wrong in (
        {},
        {"pair.png": (other,)},
        {"pair.jpg": (good, other)},
        {image["image_id"]: (good, other, other._replace(allow=False), good._replace(allow=False))},
    ):
        faults = approved.not_allowed(Approvals(wrong), image, kept, image)
        assert any(fault.startswith("face 0:") for fault in faults)
    assert len(approved.not_allowed(ReplaceAll(), image, kept, image)) == 2
    assert approved.not_allowed(ReplaceAll(), image, [{"face_no": 0, "verdict": "replaced"}], image) == []
    for row in ({"face_no": 2}, {"face_no": -1}, {"face_no": None}):  # nobody whom the scan has seen
        assert len(approved.not_allowed(both, image, [row | {"verdict": "kept"}], image)) == 1
    assert len(approved.not_allowed(both, image, kept, None)) == 2


# the run


@pytest.fixture
def ledger(tmp_path: Path, scan: pa.Table) -> Ledger:
    ledger = Ledger(str(tmp_path / "out"), str(tmp_path / "work"))
    ledger.begin("config", "input")
    ledger.commit_part(SCAN, 0, {"scan": scan}, {"images": scan.num_rows, "faces": 4})
    return ledger


def test_rows_without_effect_are_said(ledger: Ledger, scanned: Scanned) -> None:
    image = scanned["pair.png"]
    good, far = row_for(1, image["faces"][0]), Row(2, True, (0.0, 0.0, 5.0, 5.0))
    assert approved.notes(ReplaceAll(), ledger) == []
    assert approved.notes(Approvals({image["image_id"]: (good,)}), ledger) == []
    elsewhere = {f"gone-{n}.jpg": (good._replace(number=10 + n),) for n in range(12)}
    denied = (Row(40, False, far.box),)
    said = approved.notes(Approvals({"pair.png": (good, far), "nobody.jpg": denied, **elsewhere}), ledger)
    assert len(said) == 2
    assert "12 rows (10, 11, 12, 13, 14, 15, 16, 17, 18, 19 and 2 more) are for images that are not in the collection" in said[0]
    assert "row 2 is for no face" in said[1]


def test_rows_about_people_who_are_not_there_are_said(ledger: Ledger, scanned: Scanned) -> None:
    """By number, and whoever it is."""
    pair, other = (scanned[path]["image_id"] for path in ("pair.png", "pair.jpg"))
    consents = [
        *(Consent(1, pair, "ada", True), Consent(2, "pair.jpg", "ada", True), Consent(3, "gone.jpg", "ada", False)),
        *(Consent(4, pair, "zoe", True), Consent(5, "pair.png", "bea", True)),
    ]
    rules = [Rule(n, "ada", Party("everyone"), image, True) for n, image in enumerate((None, "*.png", "pair.???", "no/*", other), 1)]
    access = Combined((Explicit.of(consents), Rules.of(rules), PeopleList("never", {"zoe": 1})), Approvals({}))
    bound = access.bound(sightings({pair: ("ada", None), other: (None, None)}))
    assert approved.notes(bound, ledger, {"ada", "bea"}) == [
        "Consents: row 4 is about people who are not enrolled: nobody is recognised as them.",
        "Consents: row 3 is for images that are not in the collection.",
        "Consents: 2 rows (2, 5) are about people who were not recognised in the image that they name.",
        "Rules: row 4 is for images that are not in the collection.",
        "Rules: row 5 is about people who were not recognised in the image that they name.",
        "The never list: row 1 is about people who are not enrolled: nobody is recognised as them.",
    ]
    assert not any("enrolled" in line for line in approved.notes(bound, ledger))


def test_tables_are_read_from_where_the_run_had_them(tmp_path: Path) -> None:
    """The manifest has their last names only, and no viewer's name; what the audit is given goes before."""
    tables = {f"access__{name}": str(tmp_path / "private" / f"{name}.csv") for name in ("rules", "never", "approvals")}
    run = load(None, **tables, access__model="rules", access__people=str(tmp_path / "people"), access__audience="viewer:dan")
    (tmp_path / "work").mkdir()
    State(tmp_path / "work").begin(run, {})
    published = {name: value for name, value in run.to_dict().items() if name != "storage_options"}
    settings, audit = load(None, **published), load(None, work=str(tmp_path / "work"))
    assert settings.access.audience == "viewer:"
    assert approved.as_now(audit, settings).access == run.access
    given = load(None, work=str(tmp_path / "work"), access__never="/elsewhere.csv", access__audience="viewer:eve")
    assert approved.as_now(given, settings).access == replace(run.access, never="/elsewhere.csv", audience="viewer:eve")
    (tmp_path / "work" / "settings.json").unlink()
    with pytest.raises(AccessError, match="does not have the run's --approvals and --people and --rules and --audience"):
        approved.as_now(load(None, work=str(tmp_path / "work"), access__never="/elsewhere.csv"), settings)


def test_kept_faces_are_held_against_who_was_recognised(scanned: Scanned) -> None:
    image = scanned["pair.png"]
    access = Combined((Explicit.of([Consent(1, "pair.png", "ada", True)]),))
    kept = [{"face_no": n, "verdict": "kept"} for n in range(2)]
    bound = access.bound(sightings({image["image_id"]: ("ada", "bea")}))
    assert approved.not_allowed(bound, image, kept, image) == ["face 1: no row of the access table allows it"]
    assert len(approved.not_allowed(access, image, kept, image)) == 2  # nobody is recognised
    unfit = access.bound(sightings({image["image_id"]: ("ada",)}))
    assert all("recognised among 1 faces" in fault for fault in approved.not_allowed(unfit, image, kept, image))


def test_a_resumed_run_wants_the_same_table(ledger: Ledger) -> None:
    first, second = (Approvals({"a.jpg": (Row(n, True, (0.0, 0.0, 5.0, 5.0)),)}) for n in (1, 2))
    approved.begin(ledger.work, first, resumed=False)
    approved.begin(ledger.work, first, resumed=True)
    with pytest.raises(LedgerError, match="access tables were others"):
        approved.begin(ledger.work, second, resumed=True)
    approved.begin(ledger.work, first, resumed=True)  # which the refusal has not changed
    approved.begin(ledger.work, second, resumed=False)
    approved.begin(ledger.work, second, resumed=True)
