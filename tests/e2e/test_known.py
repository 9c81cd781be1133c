"""Known faces of a finished run: people who become known, and people who are forgotten."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from bad_images import save
from PIL import Image
from skimage.data import astronaut, coffee

from mfmc_ray.codec import decode
from mfmc_ray.faces.embed import DlibEmbedder, SFaceEmbedder
from mfmc_ray.known.index import KnownIndex

DIMENSIONS = {"sface": 128, "dlib": 128}
THRESHOLDS = {"sface": 0.363, "dlib": 0.923}
SETTINGS = ("--identities", "12", "--actors", "1")


def rows(folder: Path) -> list[dict[str, Any]]:
    return [row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def replaced(out: Path) -> dict[str, dict[str, Any]]:
    """Rows of replaced faces by path; here an image has one face."""
    return {row["path"]: row for row in rows(out / "faces") if row["verdict"] == "replaced"}


def published(out: Path) -> dict[str, bytes]:
    return {row["path"]: row["image"]["bytes"] for row in rows(out / "images")}


def originals_shown(work: Path) -> int:
    return (work / "report" / "index.html").read_text().count('alt="original"')


def assert_holds(out: Path, work: Path) -> None:
    """A search of our own: every replaced face, as published, against every known face."""
    known = KnownIndex.open(work / "known", DIMENSIONS).faces
    files, found = published(out), replaced(out)
    for name, embedder in (("sface", SFaceEmbedder()), ("dlib", DlibEmbedder())):
        for path, row in found.items():
            points = np.array(row["points"], np.float32).reshape(1, 5, 2)
            vector = embedder.embed(decode(files[path]).pixels, points)[0].astype(np.float64)
            highest = (known.vectors[name].astype(np.float64) @ vector).max()
            (certificate,) = [c for c in row["certificates"] if c["recognizer"] == name]
            assert highest < certificate["threshold"]
            assert certificate["max_similarity"] == pytest.approx(highest, abs=1e-4)
            assert (certificate["generation"], certificate["index_digest"]) == (known.generation, known.digest)


@pytest.fixture(scope="module")
def finished(mfmc: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run: `photos`, `out`, `work`."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "photos").mkdir()
    for i, (y, x) in enumerate(((0, 130), (10, 120), (5, 140))):
        face = np.ascontiguousarray(astronaut()[y : y + 260, x : x + 260])
        (folder / "photos" / f"face{i}.jpg").write_bytes(save(Image.fromarray(face), "JPEG", quality=92))
    (folder / "photos" / "cup.jpg").write_bytes(save(Image.fromarray(coffee()), "JPEG", quality=92))
    result = mfmc("anonymize", folder / "photos", folder / "out", "--work", folder / "work", *SETTINGS)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of it where it was: WORK names its OUT."""
    kept = tmp_path / "kept"
    shutil.copytree(finished, kept)
    yield finished
    for name in ("out", "work"):
        shutil.rmtree(finished / name)
        shutil.copytree(kept / name, finished / name)


def test_a_published_face_that_becomes_known_is_found_and_replaced_anew(mfmc: Any, run: Path, tmp_path: Path) -> None:
    out, work = run / "out", run / "work"
    before, faces = published(out), replaced(out)
    assert len(faces) >= 1, [row["reason"] for row in rows(out / "faces")]
    path = min(faces)
    (tmp_path / "gallery").mkdir()
    (tmp_path / "gallery" / "seen.jpg").write_bytes(before[path])
    (tmp_path / "gallery" / "broken.jpg").write_bytes(before[path][:500])

    # killed as soon as the newcomer is in the index: OUT is then no finished dataset
    process = mfmc.start("known", "add", tmp_path / "gallery", out, "--work", work)
    end = time.monotonic() + 120
    while not (work / "known" / "generation-00002.json").exists():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for child in children:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()
    assert not (out / "manifest.json").exists()
    assert mfmc("audit", out, "--work", work).returncode == 1

    added = mfmc("known", "add", tmp_path / "gallery", out, "--work", work, "--verbose")
    assert added.returncode == 0, added.stderr
    assert f"{path}#0" in added.stdout
    assert "1 pictures of the gallery could not be read" in added.stdout
    report = json.loads((work / "changes" / "generation-00002.json").read_text())
    assert path in {row["path"] for row in report["faces"]}
    after = published(out)
    assert after[path] != before[path]
    assert after["cup.jpg"] == before["cup.jpg"]
    now = replaced(out)
    assert path not in now or now[path]["identity_id"] != faces[path]["identity_id"]
    assert_holds(out, work)
    audit = mfmc("audit", out, "--work", work)
    assert audit.returncode == 0, audit.stdout
    same = published(out)
    assert mfmc("known", "add", tmp_path / "gallery", out, "--work", work).returncode == 0  # again: nothing to do
    assert published(out) == same
    assert json.loads((work / "changes" / "generation-00002.json").read_text()) == report  # which is not overwritten
    listed = mfmc("known", "list", out, "--work", work)
    assert "3 known faces" not in listed.stdout
    assert f"{len(KnownIndex.open(work / 'known', DIMENSIONS))} known faces" in listed.stdout


def test_who_is_forgotten_is_nowhere_in_work(mfmc: Any, run: Path) -> None:
    out, work = run / "out", run / "work"
    index = KnownIndex.open(work / "known", DIMENSIONS).faces
    (image,) = [row["image_id"] for row in rows(out / "images") if row["path"] == "face1.jpg"]
    mine = [i for i, name in enumerate(index.ids.tolist()) if name.decode().startswith(image)]
    needles = [vectors[i].tobytes() for vectors in index.vectors.values() for i in mine]
    assert needles
    everywhere = b"".join(path.read_bytes() for path in work.rglob("*") if path.is_file())
    assert all(needle in everywhere for needle in needles)

    refused = mfmc("known", "remove", out, "--work", work, "--path", "nobody*", "--yes")
    assert refused.returncode == 2
    assert "--path" in refused.stderr
    asked = mfmc("known", "remove", out, "--work", work, "--path", "face1*")
    assert asked.returncode == 1  # nobody said yes
    assert len(KnownIndex.open(work / "known", DIMENSIONS)) == len(index)

    before, shown = published(out), originals_shown(work)
    (work / "audit").mkdir()
    (work / "audit" / "part-00000.npz").write_bytes(b"embeddings that a killed audit has left")
    removed = mfmc("known", "remove", out, "--work", work, "--path", "face1*", "--yes")
    assert removed.returncode == 0, removed.stdout + removed.stderr
    everywhere = b"".join(path.read_bytes() for path in work.rglob("*") if path.is_file())
    assert not any(needle in everywhere for needle in needles)
    for file in work.rglob("*.parquet"):
        for row in pq.read_table(file).to_pylist():
            for face in [row, *(row.get("faces") or [])]:
                for name in DIMENSIONS:
                    vector = face.get(f"embedding_{name}")
                    if vector is not None:
                        assert max(float(index.vectors[name][i] @ np.array(vector, np.float32)) for i in mine) < 0.9999
    assert not (work / "audit").exists()
    assert published(out) == before  # whoever was replaced stays replaced
    assert originals_shown(work) < shown  # nor does the private report show them
    proofs = sorted((work / "changes").iterdir())
    proof = proofs[-1].read_bytes()
    again = mfmc("known", "remove", out, "--work", work, "--path", "face1*", "--yes")
    assert "None of their embeddings" in again.stdout, again.stdout + again.stderr
    assert proofs[-1].read_bytes() == proof
    assert_holds(out, work)
    audit = mfmc("audit", out, "--work", work)
    assert audit.returncode == 0, audit.stdout
    assert json.loads((out / "audit.json").read_text())["totals"]["originals forgotten"] == ("face1.jpg" in replaced(out))


def test_an_unfinished_run_is_not_changed(mfmc: Any, tmp_path: Path) -> None:
    (tmp_path / "gallery").mkdir()
    result = mfmc("known", "add", tmp_path / "gallery", tmp_path / "out", "--work", tmp_path / "work")
    assert result.returncode == 1
    assert "holds no run" in result.stderr
    assert "Traceback" not in result.stderr
