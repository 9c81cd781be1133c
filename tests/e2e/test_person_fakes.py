"""Pseudonyms as a user asks for them: a person keeps the fake in all photos, also in those of a later night; or nobody gets any."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from bad_images import save
from PIL import Image
from skimage.data import astronaut

FACE = np.ascontiguousarray(astronaut()[:260, 100:300])


def rows(out: Path, table: str) -> list[dict[str, Any]]:
    return [row for file in sorted((out / table).glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def worn(out: Path) -> dict[tuple[str, int], str | None]:
    return {(row["path"], row["face_no"]): row["identity_id"] for row in rows(out, "faces")}


@pytest.fixture(scope="module")
def nights(mfmc: Any, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[dict[Any, Any], Path, dict[str, Any]]]:
    """Of three nights what faces wear, OUT's folder and the audit: two with `person`, a photo added in between, then one with `none`."""
    folder = tmp_path_factory.mktemp("pseudonyms")
    (folder / "photos").mkdir()
    for k, shade in enumerate((1.0, 0.9)):
        picture = Image.fromarray((FACE * shade).astype(np.uint8))
        (folder / "photos" / f"{k}.jpg").write_bytes(save(picture, "JPEG", quality=92))
    found = []
    for k, mode in enumerate(("person", "person", "none")):
        if k == 1:
            both = np.hstack([np.ascontiguousarray(FACE[:, ::-1]), FACE])
            (folder / "photos" / "2.png").write_bytes(save(Image.fromarray(both), "PNG"))
        settings = {"input": str(folder / "photos"), "out": str(folder / "out"), "work": str(folder / "work"), "ray": {"actors": 1}}
        settings |= {"swap": {"pseudonyms": mode, "identities": 12}, "nightly": {"audit": None if k == 0 else "all"}}
        (folder / "nightly.yaml").write_text(json.dumps(settings))
        result = mfmc("nightly", "--config", folder / "nightly.yaml")
        assert result.returncode == 0, result.stderr
        out = folder / "out"
        audit = json.loads((out / "audit.json").read_text()) if k else {}
        found.append((worn(out), out, audit | {"notices": json.loads((out / "manifest.json").read_text())["notices"]}))
    return found


def test_a_person_wears_one_fake_and_another_face_of_the_image_another(nights: Any) -> None:
    first, second, _ = (wearing for wearing, _, _ in nights)
    (fake,) = {name for name in first.values() if name}
    assert first["0.jpg", 0] == first["1.jpg", 0] == fake
    assert {face: second[face] for face in first} == first  # what is there already stays
    pair = {second["2.png", 0], second["2.png", 1]} - {None}
    assert fake in pair
    assert len(pair) == 2
    assert any("can be linked" in notice for notice in nights[0][2]["notices"])


def test_who_wears_what_is_beside_the_key_for_its_owner_only(nights: Any) -> None:
    work = nights[0][1].parent / "work"
    for name in ("pseudonym.key", "pseudonyms.parquet"):
        assert stat.S_IMODE((work / name).stat().st_mode) == 0o600
    assert not list((work / "fitting").glob("*"))


def test_nobody_is_replaced_where_nobody_is_to_be(nights: Any) -> None:
    wearing, out, audit = nights[2]
    assert set(wearing.values()) == {None}
    assert {row["reason"] for row in rows(out, "faces")} == {"pseudonyms_none"}
    assert audit["passed"]
    assert nights[1][2]["passed"]
    assert rows(out, "identities") == []
