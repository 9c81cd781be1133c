"""Approvals as a user gives them: who is named stays, nobody else does, and what is withdrawn does not pass the audit any more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from bad_images import save
from PIL import Image
from skimage.data import astronaut

from mfmc_ray.codec import decode
from mfmc_ray.known.index import KnownIndex
from mfmc_ray.review.decisions import REDACT, RESWAP, append
from mfmc_ray.scrub import scrub

SETTINGS = ("--identities", "12", "--attempts", "4", "--actors", "1")
LEFT, RIGHT = (56, 61, 148, 177), (167, 57, 256, 175)  # about where the faces are
HEAD = "image,x0,y0,x1,y1,allow,person\n"
CONSENTS = "row,image,person,allow\n70,solo.jpg,ada-example,yes\n71,solo.jpg,bea-example,no\n"


def rows(folder: Path) -> list[dict[str, Any]]:
    return [row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def approvals(*given: tuple[str, tuple[int, ...], str]) -> str:
    return HEAD + "".join(f"{image},{','.join(map(str, box))},{allow},Ada Example\n" for image, box, allow in given)


def access(folder: Path) -> tuple[Any, ...]:
    people = ("--people", folder / "people", "--access", "explicit", "--consents", folder / "consents.csv")
    return ("--approvals", folder / "approvals.csv", *people)


@pytest.fixture(scope="module")
def run(mfmc: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with `photos`, enrolled `people`, `approvals.csv`, `consents.csv`, `out` and `work`, and what the run said."""
    folder = tmp_path_factory.mktemp("approved")
    (folder / "photos").mkdir()
    face = np.ascontiguousarray(astronaut()[:260, 120:278])
    pair = Image.fromarray(np.hstack([face, face[:, ::-1]]))
    (folder / "photos" / "one.png").write_bytes(save(pair, "PNG"))
    (folder / "photos" / "both.jpg").write_bytes(save(pair, "JPEG", quality=92, comment=b"Ada Example"))
    Image.fromarray(astronaut()[:300, 80:330]).save(folder / "photos" / "solo.jpg", quality=90)
    (folder / "portraits" / "ada-example").mkdir(parents=True)
    Image.fromarray(astronaut()).save(folder / "portraits" / "ada-example" / "1.png")
    enrolled = mfmc("people", "enroll", folder / "people", folder / "portraits")
    assert enrolled.returncode == 0, enrolled.stdout + enrolled.stderr
    (folder / "consents.csv").write_text(CONSENTS)
    table = folder / "approvals.csv"
    given = (("one.png", RIGHT, "true"), ("both.jpg", LEFT, "yes"), ("both.jpg", RIGHT, "1"), ("gone.jpg", LEFT, "true"))
    table.write_text(approvals(*given))
    result = mfmc("anonymize", folder / "photos", folder / "out", "--work", folder / "work", *access(folder), *SETTINGS)
    assert result.returncode == 0, result.stderr
    return folder, result.stderr


def test_who_is_approved_stays_and_nobody_else(run: tuple[Path, str]) -> None:
    folder, said = run
    assert "Approvals: row 4 is for images that are not in the collection." in said
    assert "Consents: row 71 is about people who are not enrolled" in said
    assert "example" not in said
    images = {row["path"]: row for row in rows(folder / "out" / "images")}
    found = {(row["path"], row["box"][0] > 155): row for row in rows(folder / "out" / "faces")}
    assert {key: (row["verdict"], row["access_reason"]) for key, row in found.items() if row["verdict"] == "kept"} == {
        ("one.png", True): ("kept", "approvals:1"),
        ("both.jpg", False): ("kept", "approvals:2"),
        ("both.jpg", True): ("kept", "approvals:3"),
        ("solo.jpg", False): ("kept", "explicit:70"),
    }
    other = found["one.png", False]
    assert other["verdict"] in ("replaced", "redacted")
    assert {path: row["verdict"] for path, row in images.items()} == {
        "one.png": "anonymized",
        "both.jpg": "unchanged",
        "solo.jpg": "unchanged",
    }
    source = (folder / "photos" / "both.jpg").read_bytes()
    assert images["both.jpg"]["image"]["bytes"] == scrub(source) != source
    before, after = (decode(data).pixels for data in ((folder / "photos" / "one.png").read_bytes(), images["one.png"]["image"]["bytes"]))
    x0, y0, x1, y1 = (int(v) for v in found["one.png", True]["box"])
    np.testing.assert_array_equal(after[y0:y1, x0:x1], before[y0:y1, x0:x1])
    x0, y0, x1, y1 = (int(v) for v in other["box"])
    assert np.abs(after.astype(int) - before)[y0:y1, x0:x1].mean() > 8
    # kept people are known ones, too
    ids = {name.decode() for name in KnownIndex.open(folder / "work" / "known", {"sface": 128, "dlib": 128}).faces.ids}
    assert {f"{row['image_id']}:{row['face_no']}" for row in found.values()} <= ids


def test_nothing_published_names_the_person_or_a_folder(run: tuple[Path, str]) -> None:
    folder, _ = run
    stated = {"approvals": "approvals.csv", "people": "people", "model": "explicit", "consents": "consents.csv"}
    assert json.loads((folder / "out" / "manifest.json").read_text())["config"]["access"] == stated
    for file in (file for file in (folder / "out").rglob("*") if file.is_file()):
        text = str(pq.read_table(file).to_pylist()).encode() if file.suffix == ".parquet" else file.read_bytes()
        assert b"Ada Example" not in text
        assert b"ada-example" not in text
        assert str(folder).encode() not in text


def test_the_audit_asks_the_table_as_it_is_now(mfmc: Any, run: tuple[Path, str]) -> None:
    folder, _ = run
    out, work, table = folder / "out", folder / "work", folder / "approvals.csv"
    passed = mfmc("audit", out, "--work", work)
    assert passed.returncode == 0, passed.stdout
    before, consents = table.read_text(), folder / "consents.csv"
    table.write_text(approvals(("one.png", RIGHT, "true"), ("both.jpg", RIGHT, "true"), ("both.jpg", LEFT, "false")))
    consents.write_text(CONSENTS.replace("yes", "no"))
    try:
        refuted = mfmc("audit", out, "--work", work, "--sample", "1")
        assert refuted.returncode == 1
        (check,) = [row for row in json.loads((out / "audit.json").read_text())["checks"] if not row["ok"]]
        assert check["name"] == "kept faces that the access table does not allow"
        assert check["count"] == 2
        assert {example.partition(":")[0] for example in check["examples"]} == {"both.jpg", "solo.jpg"}
        resumed = mfmc("anonymize", folder / "photos", out, "--work", work, *access(folder), *SETTINGS)
        assert resumed.returncode == 1
        assert "access tables were others" in resumed.stderr
        assert "--restart" in resumed.stderr
    finally:
        table.write_text(before)
        consents.write_text(CONSENTS)


def test_what_a_reviewer_decided_is_honoured_by_the_same_command(mfmc: Any, run: tuple[Path, str]) -> None:
    folder, _ = run
    out, work = folder / "out", folder / "work"
    before = {(row["path"], row["box"][0] > 155): row for row in rows(out / "faces")}
    append(work, REDACT, before["both.jpg", True])  # whom a table allows
    append(work, RESWAP, before["one.png", False])
    again = mfmc("anonymize", folder / "photos", out, "--work", work, *access(folder), *SETTINGS)
    assert again.returncode == 0, again.stderr
    after = {(row["path"], row["box"][0] > 155): row for row in rows(out / "faces")}
    assert (after["both.jpg", True]["verdict"], after["both.jpg", True]["reason"]) == ("redacted", "review")
    assert (after["both.jpg", False]["verdict"], after["both.jpg", False]["access_reason"]) == ("kept", "approvals:2")
    assert after["one.png", True]["verdict"] == "kept"
    assert before["one.png", False]["verdict"] == "replaced"
    assert after["one.png", False]["identity_id"] not in (None, before["one.png", False]["identity_id"])
    images = {row["path"]: row for row in rows(out / "images")}
    assert images["both.jpg"]["verdict"] == "anonymized"
    passed = mfmc("audit", out, "--work", work)
    assert passed.returncode == 0, passed.stdout


def test_each_audience_gets_what_it_may_see(mfmc: Any, run: tuple[Path, str]) -> None:
    folder, _ = run
    (folder / "rules.csv").write_text("person,audience,allow\nada-example,group:friends,yes\n")
    (folder / "groups.csv").write_text("group,member\nfriends,bob\n")
    access = {"people": folder / "people", "model": "rules", "rules": folder / "rules.csv", "groups": folder / "groups.csv"}
    settings = {"input": folder / "photos", "out": folder / "releases", "swap": {"pseudonyms": "none"}, "access": access}
    (folder / "release.yaml").write_text(json.dumps(settings, default=str))
    command = ("release", "--config", folder / "release.yaml", "--actors", "1", "--audience", "everyone", "--audience", "group:friends")
    made = mfmc(*command)
    assert made.returncode == 0, made.stderr
    kept = {
        name: {row["path"] for row in rows(folder / "releases" / name / "faces") if row["verdict"] == "kept"}
        for name in ("everyone", "group-friends")
    }
    assert kept == {"everyone": set(), "group-friends": {"solo.jpg"}}
    audited = mfmc("audit", folder / "releases" / "group-friends", "--work", folder / "releases-work" / "group-friends")
    assert audited.returncode == 0, audited.stdout
    # withdrawn: the next release shows nobody, and nothing is left of what it showed
    (folder / "rules.csv").write_text("person,audience,allow\nada-example,group:friends,no\n")
    again = mfmc(*command)
    assert again.returncode == 0, again.stderr
    assert [row["verdict"] for row in rows(folder / "releases" / "group-friends" / "faces") if row["path"] == "solo.jpg"] != ["kept"]
    first, other = (folder / "releases" / name / "images" / "part-00000.parquet" for name in ("everyone", "group-friends"))
    assert len(rows(first.parent)) == len(rows(other.parent)) == 3


def test_who_is_removed_is_forgotten_and_shown_no_more(mfmc: Any, run: tuple[Path, str]) -> None:
    folder, _ = run
    out, work = folder / "out", folder / "work"
    before = {(row["path"], row["face_no"]): row for row in rows(out / "faces")}
    removed = mfmc("people", "remove", folder / "people", "ada-example", "--yes", "--out", out, "--work", work)
    assert removed.returncode == 0, removed.stderr
    assert "1 people (1 photos) removed; 0 are enrolled." in removed.stdout
    after = {(row["path"], row["face_no"]): row for row in rows(out / "faces")}
    kept = {key for key, row in before.items() if row["verdict"] == "kept"}
    assert {key for key, row in after.items() if row["verdict"] == "kept"} == {key for key in kept if key[0] != "solo.jpg"} != kept
    assert {row["path"]: row["verdict"] for row in rows(out / "images")}["solo.jpg"] == "anonymized"
    ids = KnownIndex.open(work / "known", {"sface": 128, "dlib": 128}).ids
    assert ids
    assert not any(name.startswith("person:") for name in ids)
    for file in (file for place in (folder / "people", work) for file in place.rglob("*") if file.is_file()):
        assert b"ada-example" not in file.read_bytes()
