"""Changes to the known faces of a finished run: what a killed, repeated or half-done one leaves; without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_work import GUARDS, directions
from rich.console import Console

from mfmc_ray.access.decide import ReplaceAll
from mfmc_ray.collection import Collection
from mfmc_ray.config import RunConfig
from mfmc_ray.identities.pool import SEEDS_PER_PART
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.known.certificate import Guard
from mfmc_ray.known.index import KnownFaces, KnownIndex
from mfmc_ray.ledger import Ledger, LedgerError, Stage
from mfmc_ray.pipeline.change import look_for
from mfmc_ray.pipeline.known import (
    added_galleries,
    begin_gallery,
    build_index,
    carry_forgotten,
    discard_gallery,
    end_gallery,
    files_of_stage,
    forget_in_scans,
    gallery_stages,
)
from mfmc_ray.pipeline.listing import Digest, Listing
from mfmc_ray.pipeline.pool import fill_pool
from mfmc_ray.pipeline.update import UpdateWorker
from mfmc_ray.pipeline.workers import ANONYMIZE, POOL, SCAN
from mfmc_ray.tables import FACES, IMAGES, PLACED, embedding_column, pool_schema, published_schema, scan_schema

THRESHOLDS = {"sface": 0.5, "dlib": 0.9}
Vectors = dict[str, np.ndarray[Any, np.dtype[np.float32]]]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(str(tmp_path / "out"), str(tmp_path / "work"))
    ledger.begin("c", "i")
    return ledger


def people(seed: int, n: int) -> Vectors:
    rng = np.random.default_rng(seed)
    return {name: directions(rng, n) for name in GUARDS}


def scanned(ledger: Ledger, stage: Stage, part: int, names: list[str], vectors: Vectors) -> None:
    """A part of a scan: an image with one face for each name."""
    rows = []
    for i, name in enumerate(names):
        face = {"box": [0.0, 0.0, 50.0, 50.0], "points": [1.0] * 10, "score": 1.0, "detectors": "a+b", "mesh": [1.0] * (468 * 3)}
        face |= {"mesh_score": 1.0, "age": 30.0, "sex": 0.5, "pose": [0.0] * 3, "tone": 0.0}
        face |= {embedding_column(recognizer): array[i] for recognizer, array in vectors.items()}
        gone = {"unit": str(ledger.work / f"{name}.jpg"), "locator": {"kind": "file"}}  # whose folder is there
        rows.append({"image_id": name, "path": f"{name}.jpg", "faces": [face], **gone})
    ledger.commit_part(stage, part, {stage.tables[0]: pa.Table.from_pylist(rows, schema=scan_schema(GUARDS))}, {"images": len(rows)})


def held(ledger: Ledger, stage: Stage) -> list[bool]:
    """Of each face of a scan, whether anything of it is left."""
    faces = [face for file in files_of_stage(ledger, stage) for row in pq.read_table(file).to_pylist() for face in row["faces"]]
    return [any(np.any(face[embedding_column(name)]) for name in GUARDS) for face in faces]


def indexed(ledger: Ledger, configured: int = 0) -> KnownFaces:
    return build_index(ledger, gallery_stages(ledger, configured), GUARDS, 20.0).faces


def test_a_gallery_counts_only_when_it_is_scanned_to_its_end(ledger: Ledger) -> None:
    """One that was killed is no gallery of the run, whatever is done to the run next; another one takes its place."""
    scanned(ledger, SCAN, 0, ["a"], people(1, 1))
    everyone = len(indexed(ledger))
    stage = begin_gallery(ledger, 0, "first")
    assert stage is not None
    scanned(ledger, stage, 0, ["b"], people(2, 1))  # the first of several parts
    assert gallery_stages(ledger, 0) == []
    assert len(indexed(ledger)) == everyone
    assert begin_gallery(ledger, 0, "first") == stage  # the same again goes on
    assert len(files_of_stage(ledger, stage)) == 1
    assert begin_gallery(ledger, 0, "second") == stage
    assert files_of_stage(ledger, stage) == []
    assert not (ledger.work / stage.name).exists()
    scanned(ledger, stage, 0, ["c", "d"], people(3, 2))
    end_gallery(ledger)
    assert added_galleries(ledger) == ["second"]
    assert len(indexed(ledger)) == everyone + 2
    assert begin_gallery(ledger, 0, "second") is None
    begun = begin_gallery(ledger, 0, "third")
    assert begun is not None
    assert begun.name == "gallery-1"
    scanned(ledger, begun, 0, ["e"], people(4, 1))
    discard_gallery(ledger, 0)
    assert not (ledger.work / "gallery-1").exists()
    assert len(files_of_stage(ledger, stage)) == 1
    assert added_galleries(ledger) == ["second"]


def test_nobody_is_forgotten_because_a_file_of_an_added_gallery_is_gone(ledger: Ledger) -> None:
    """It is not in the settings, so no night scans it again; and whom no scan has leaves the index."""
    scanned(ledger, SCAN, 0, ["a"], people(1, 1))
    stage = begin_gallery(ledger, 0, "added")
    assert stage is not None
    scanned(ledger, stage, 0, ["b"], people(2, 1))
    scanned(ledger, stage, 1, ["c"], people(3, 1))
    end_gallery(ledger)
    everyone = indexed(ledger)
    (file, _) = files_of_stage(ledger, stage)
    file.unlink()
    with pytest.raises(LedgerError, match="added gallery"):
        indexed(ledger)
    assert KnownIndex.open(ledger.work / "known", GUARDS).digest == everyone.digest


def test_the_references_of_another_identity_model_become_known(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """No fake may resemble the people that it was made of."""
    scanned(ledger, SCAN, 0, ["a"], people(1, 1))
    before = indexed(ledger)
    assert indexed(ledger).digest == before.digest

    class Other:
        references = people(5, 3)

    monkeypatch.setattr("mfmc_ray.pipeline.references.load_model", Other)
    after = indexed(ledger)
    assert len(after) == len(before) + 3
    assert np.array_equal(after.vectors["sface"][-3:], Other.references["sface"])


def test_a_gallery_that_is_listed_again_is_the_same(tmp_path: Path) -> None:
    """`mfmc known add` is repeated after a crash: what it has scanned is found again."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"a")
    digests = [Digest(several=False) for _ in range(2)]
    first, again = (Listing.write(tmp_path / "x.parquet", Collection.open(str(tmp_path / "in")), digest)[0] for digest in digests)
    assert first != again
    assert digests[0].value() == digests[1].value()


def test_a_removed_face_that_is_scanned_again_stays_forgotten(ledger: Ledger) -> None:
    """By a gallery that changed, or a scan that is repeated: neither index nor scan holds it, and no audit misses it."""
    faces = people(1, 3)
    stage = begin_gallery(ledger, 0, "first")
    assert stage is not None
    scanned(ledger, stage, 0, ["a", "b"], {name: v[:2] for name, v in faces.items()})
    end_gallery(ledger)
    indexed(ledger)
    KnownIndex.open(ledger.work / "known", GUARDS).remove(["gallery:a:0"])  # killed before the scan was seen to
    assert held(ledger, stage) == [True, True]
    known = indexed(ledger)
    assert held(ledger, stage) == [False, True]
    again = begin_gallery(ledger, 0, "with one more")
    assert again is not None
    scanned(ledger, again, 0, ["a", "b", "c"], faces)
    end_gallery(ledger)
    assert len(indexed(ledger)) == len(known) + 1
    assert held(ledger, again) == [False, True, True]
    gone = {name: v[:1] for name, v in faces.items()}
    assert look_for(ledger.work, gone).found == ()


def test_a_removal_killed_before_the_files_were_written_anew_is_completed(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    faces = people(1, 2)
    scanned(ledger, SCAN, 0, ["a", "b"], faces)
    known = indexed(ledger)
    index = KnownIndex.open(ledger.work / "known", GUARDS)
    with monkeypatch.context() as patch:
        patch.setattr(KnownIndex, "purge", lambda self: None)
        index.remove(["a:0"])
    gone = {name: v[:1] for name, v in faces.items()}
    assert len(look_for(ledger.work, gone).found) == 2
    assert len(indexed(ledger)) == len(known) - 1
    assert look_for(ledger.work, gone).found == ()
    assert look_for(ledger.work, {name: v[1:] for name, v in faces.items()}).found == (
        "known/generation-00001.r00002.parquet",
        "scan/part-00000.parquet",
    )


def test_a_face_too_small_to_be_known_is_forgotten_in_the_scan(ledger: Ledger) -> None:
    scanned(ledger, SCAN, 0, ["a", "b"], people(1, 2))
    indexed(ledger)
    forget_in_scans(ledger, [SCAN], GUARDS, {"b:0"})
    assert held(ledger, SCAN) == [True, False]


def test_only_embeddings_that_were_looked_for_are_counted(tmp_path: Path) -> None:
    """A removal that was killed after it had taken all away, and is repeated, has nothing to look for and proves nothing."""
    (tmp_path / "file").write_bytes(people(1, 3)["sface"].tobytes())
    nothing = look_for(tmp_path, {"sface": np.zeros((2, 128), np.float32)})
    assert (nothing.embeddings, nothing.files, nothing.found) == (0, 1, ())
    same = people(1, 3)["sface"][[1, 1]]
    traces = look_for(tmp_path, {"sface": same})
    assert (traces.embeddings, traces.found) == (1, ("file",))


def test_a_part_of_the_pool_that_a_killed_run_left_out_is_made(ledger: Ledger) -> None:
    """Parts are done in any order; one that is not there is not taken for done because later ones are."""
    made: list[dict[str, Any]] = []

    def certify(parts: list[dict[str, Any]]) -> None:
        for part in parts:
            made.append(part)
            admit(part["part"], part["seeds"])

    def admit(part: int, seeds: list[int]) -> None:
        vectors = people(100 + part, len(seeds))
        rows = [
            {"identity_id": str(seed), "seed": seed, **{embedding_column(name): v[i] for name, v in vectors.items()}}
            for i, seed in enumerate(seeds)
        ]
        ledger.commit_part(POOL, part, {"pool": pa.Table.from_pylist(rows, schema=pool_schema(GUARDS))}, {"faces": len(rows)})

    def fill() -> list[int]:
        wanted = 3 * SEEDS_PER_PART
        pool = fill_pool(ledger, GUARDS, wanted=wanted, asked=True, seed=0, certify=certify, console=Console(quiet=True))
        return list(pool["seed"].to_pylist())

    whole = fill()
    first = {part["part"]: part for part in made}
    (ledger.work / "ledger/pool/part-00000.json").unlink()
    made.clear()
    assert fill() == whole
    assert made == [first[0]]


def test_who_is_forgotten_without_being_in_the_index_is_not_taken_in_later(ledger: Ledger) -> None:
    """The image was deleted before, and is put back."""
    faces = people(1, 2)
    scanned(ledger, SCAN, 0, ["b"], {name: v[1:] for name, v in faces.items()})
    known = indexed(ledger)
    carry_forgotten(ledger, {"a:0"})
    scanned(ledger, SCAN, 0, ["a", "b"], faces)
    assert indexed(ledger).ids.tolist() == known.ids.tolist()
    assert held(ledger, SCAN) == [False, True]
    assert look_for(ledger.work, {name: v[:1] for name, v in faces.items()}).found == ()


class Finished:
    """A run with an image whose face wears an identity; its original is gone."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.fake, self.known = ledger, people(2, 1), KnownIndex.open(ledger.work / "known", GUARDS)
        self.known.append(["a:0"], ["collection"], people(1, 1))
        scanned(ledger, SCAN, 0, ["a"], people(1, 1))
        guard = Guard(self.known.faces, THRESHOLDS, Calibration())
        certificates = [certificate.row() for certificate in guard.certify(self.fake)[0].certificates]
        image = {"image_id": "a", "path": "a.jpg", "verdict": "anonymized", "image": {"bytes": b"picture", "path": "a.jpg"}, "faces": 1}
        self.face = {"image_id": "a", "path": "a.jpg", "face_no": 0, "verdict": "replaced", "identity_id": "x", "attempts": 1}
        self.face |= {"certificates": certificates}
        self.worn = {"image_id": "a", "path": "a.jpg", "face_no": 0, "identity_id": "x"}
        self.worn |= {embedding_column(name): v[0] for name, v in self.fake.items()}
        self.tables = {
            "images": pa.Table.from_pylist([image], schema=IMAGES),
            "faces": pa.Table.from_pylist([self.face], schema=FACES),
            "published": pa.Table.from_pylist([self.worn], schema=published_schema(GUARDS)),
            "placed": pa.Table.from_pylist([image | {"access": ""}], schema=PLACED),
        }

    def commit(self, **tables: pa.Table) -> None:
        self.ledger.commit_part(ANONYMIZE, 0, self.tables | tables, {"images": 1, "faces": 1})

    def renew(self) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
        """The summary, and the rows of images and faces, after somebody else became known."""
        self.known.append(["b:0"], ["gallery"], people(3, 1))
        arguments = {
            "config": RunConfig(),
            "ledger": self.ledger,
            "known": self.known.faces,
            "thresholds": THRESHOLDS,
            "calibration": Calibration(),
            "pool": pa.Table.from_pylist([self.worn | {"seed": 1}], schema=pool_schema(GUARDS)),
            "key": b"0" * 32,
            "access": ReplaceAll(),
        }
        part = {"part": 0, "rows": [[0, 0, 1]], "reasons": {}, "redo": [], "moved": {}, "fresh": 0, "summary": {"images": 1}}
        summary = UpdateWorker(arguments, GUARDS, {"x"})(part)
        return summary, *(self.ledger.read_table(ANONYMIZE, name, 0).to_pylist() for name in ("images", "faces"))


def test_a_part_that_holds_gets_new_certificates_and_keeps_its_pictures(ledger: Ledger) -> None:
    run = Finished(ledger)
    run.commit()
    summary, images, faces = run.renew()
    assert summary["index_digest"] == run.known.digest
    assert images[0]["image"]["bytes"] == b"picture"
    assert [c["index_digest"] for c in faces[0]["certificates"]] == [run.known.digest] * 2


@pytest.mark.models
@pytest.mark.parametrize("how", ["no embedding", "another face", "a changed file", "no marker"])
def test_a_part_that_does_not_fit_is_anonymized_anew(ledger: Ledger, how: str) -> None:
    """A published face that could not be compared with the new known faces must not keep its certificate, nor its picture."""
    run = Finished(ledger)
    other = {"no embedding": [], "another face": [run.worn | {"face_no": 1}]}.get(how, [run.worn])
    run.commit(published=pa.Table.from_pylist(other, schema=published_schema(GUARDS)))
    if how == "a changed file":
        ledger.commit("faces", 0, pa.Table.from_pylist([run.face | {"attempts": 2}], schema=FACES))
    if how == "no marker":  # the worker died while it wrote the part, and another one is given it
        (ledger.work / "ledger/anonymize/part-00000.json").unlink()
    summary, images, faces = run.renew()
    assert summary["image_verdicts"] == {"failed": 1}
    assert images[0]["image"] is None
    assert faces == []
    assert ledger.read_table(ANONYMIZE, "published", 0).num_rows == 0
