from __future__ import annotations

import copy
import hashlib
import io
import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import skimage.data

from mfmc_ray.access.decide import AccessError
from mfmc_ray.codec import decode, encode
from mfmc_ray.config import AccessConfig, FindConfig, RayConfig, RunConfig
from mfmc_ray.faces.audit_look import AuditLook
from mfmc_ray.faces.detect import CenterFace, YuNet
from mfmc_ray.faces.embed import SFaceEmbedder
from mfmc_ray.faces.faces import Faces, Image
from mfmc_ray.faces.finder import AGREEMENT, FaceFinder
from mfmc_ray.faces.mesh import FaceMesh
from mfmc_ray.faces.pack import ALL_EMBEDDERS, EMBEDDERS, HELD_OUT, digests_of
from mfmc_ray.identities.model import load_model
from mfmc_ray.identities.sample import sample
from mfmc_ray.known.calibration import Calibration
from mfmc_ray.known.certificate import Guard, Verdict
from mfmc_ray.known.index import KnownIndex
from mfmc_ray.ledger import Ledger, LedgerError
from mfmc_ray.parquet import write_parquet
from mfmc_ray.pipeline import findings as checks
from mfmc_ray.pipeline.audit import AuditStage
from mfmc_ray.pipeline.audit_run import audit, conclude, limit, parts_of
from mfmc_ray.pipeline.audited import Audited
from mfmc_ray.pipeline.contradictions import contradictions
from mfmc_ray.pipeline.curves import keep
from mfmc_ray.pipeline.inspection import MetadataCheck, see_through
from mfmc_ray.pipeline.known import forget_in_scans
from mfmc_ray.pipeline.pseudonyms import fault_of
from mfmc_ray.pipeline.recheck import PlainSearch
from mfmc_ray.pipeline.rows import faces_column
from mfmc_ray.pipeline.sampling import Sample
from mfmc_ray.pipeline.session import connect
from mfmc_ray.pipeline.signoff import show
from mfmc_ray.pipeline.workers import ANONYMIZE, POOL, SCAN
from mfmc_ray.scrub import scrub
from mfmc_ray.swap.redact import cover_of, redact
from mfmc_ray.swap.render import MorphSwapper
from mfmc_ray.tables import FACES, IDENTITIES, IMAGES, PLACED, pool_schema, published_schema, scan_schema

pytestmark = pytest.mark.models
RECOGNIZERS = {"sface": 128}


def jpeg(pixels: Image, **options: Any) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "JPEG", quality=92, **options)
    return file.getvalue()


@dataclass
class Made:
    """A finished run: `out` and `work` in a folder, and the originals."""

    folder: Path
    sources: dict[str, bytes]

    @property
    def config(self) -> RunConfig:
        access = AccessConfig(approvals=str(self.folder / "approvals.csv"))
        places = {"out": str(self.folder / "out"), "work": str(self.folder / "work")}
        return RunConfig(input="photos", **places, access=access, ray=RayConfig(actors=1))

    def approve(self, *rows: str) -> None:
        """The approvals table, but for its heading."""
        (self.folder / "approvals.csv").write_text("\n".join(["image,x0,y0,x1,y1,allow", *rows]) + "\n")

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.config.out, self.config.work)

    def copy(self, folder: Path) -> Made:
        shutil.copytree(self.folder / "out", folder / "out")
        shutil.copytree(self.folder / "work", folder / "work")
        shutil.copy(self.folder / "approvals.csv", folder)
        made = Made(folder, self.sources)
        made.rewrite_json("work/run.json", lambda run: run | {"out": made.config.out})
        return made

    def rewrite_json(self, name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        path = self.folder / name
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    def rewrite(self, name: str, change: Callable[[list[dict[str, Any]]], Any], schema: pa.Schema) -> None:
        """Tampers with a published table as one would who can also make the run's own notes fit."""
        path = self.folder / "out" / name
        rows = pq.read_table(path).to_pylist()
        rows = change(rows) or rows
        write_parquet(pa.Table.from_pylist(rows, schema=schema), path)
        self.sign("work/ledger/anonymize/part-00000.json")

    def sign(self, marker: str) -> None:
        def fit(plain: dict[str, Any]) -> dict[str, Any]:
            for entry in plain["files"]:
                path = self.folder / "out" / entry["file"]
                entry["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
            return plain

        self.rewrite_json(marker, fit)

    def audit(self, sample: Sample | None = None) -> dict[str, Any]:
        """The audit in this process, without Ray."""
        audited = Audited.open(self.config)
        parts = parts_of(audited.ledger)
        drawn = limit(parts, sample or Sample(), audited.ledger)
        stage = AuditStage(**audited.for_stage())
        return conclude(audited, parts, [stage(part) for part in parts], time.monotonic(), drawn)

    def found(self, sample: Sample | None = None) -> dict[str, int]:
        result = self.audit(sample)
        return {row["name"]: row["count"] for row in result["checks"] if not row["ok"]}


class Maker:
    """Makes the pictures and rows of a run: one face swapped, one redacted, one kept, a picture without a face, a broken file."""

    def __init__(self) -> None:
        self.mesh = FaceMesh()
        detectors = [YuNet(min_score=0.5 * AGREEMENT), CenterFace(min_score=0.5 * AGREEMENT)]
        self.finder = FaceFinder(detectors, self.mesh, min_score=FindConfig().min_score)
        self.sface = SFaceEmbedder()
        self.swapper = MorphSwapper(load_model())

    def describe(self, pixels: Image) -> Faces:
        faces = self.finder.find(pixels)
        n = np.full(len(faces), 30, np.float32)
        return faces.with_(embeddings={"sface": self.sface.embed(pixels, faces.points)}, ages=n, sexes=n / 60, tones=n, beards=n / 60)

    def swap(self, pixels: Image, faces: Faces, guard: Guard, source: bytes) -> tuple[bytes, Image, int, np.ndarray[Any, Any], Verdict]:
        """Until an identity passes: the file, its pixels, the seed, the points and the verdict."""
        for seed in range(40):
            canvas = pixels.copy()
            self.swapper.swap(canvas, faces.need("meshes")[0], sample(self.swapper.model, seed)).paste(canvas)
            data, _ = encode(canvas, decode(source))
            shown = decode(data).pixels
            points = self.finder.detect(shown).points[:1]
            (verdict,) = guard.certify({"sface": self.sface.embed(shown, points)}, faces.embeddings)
            if verdict.passed:
                return data, shown, seed, points, verdict
        raise AssertionError("no identity passes on the astronaut")


def image_row(source: bytes, path: str, data: bytes | None, verdict: str, faces: int, reason: str | None = None) -> dict[str, Any]:
    size = decode(source) if data else None
    return {
        "image_id": hashlib.sha256(source).hexdigest(),
        "path": path,
        "image": {"bytes": data, "path": path} if data else None,
        "width": size.width if size else None,
        "height": size.height if size else None,
        "format": "JPEG" if data else None,
        "verdict": verdict,
        "faces": faces,
        "reason": reason,
    }


def approval(image: str, box: Any, allow: str = "true") -> str:
    return ",".join([image, *(str(float(v)) for v in box), allow])


def face_row(image: dict[str, Any], faces: Faces, verdict: str, **more: Any) -> dict[str, Any]:
    size = np.array([image["width"], image["height"]] * 2, np.float32)
    box = faces.boxes[0]
    plain = {"image_id": image["image_id"], "path": image["path"], "face_no": 0, "box": box.tolist(), "verdict": verdict, "attempts": 1}
    return plain | {"face_bboxes": np.clip(box / size, 0, 1).tolist()} | more


class Look(AuditLook):
    """One that looks at a picture once."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[tuple[Any, ...], Faces] = {}

    def find(self, image: Image) -> Faces:
        key = image.shape, hashlib.sha256(np.ascontiguousarray(image).data).digest()
        if key not in self.found:
            self.found[key] = super().find(image)
        return self.found[key]


@pytest.fixture(scope="module", autouse=True)
def _networks_once() -> Iterator[None]:
    """A hundred audits in this process are of the same few pictures, but for one: all have the same networks."""
    with pytest.MonkeyPatch.context() as patch:
        for name, makers in (("ALL_EMBEDDERS", ALL_EMBEDDERS), ("EMBEDDERS", EMBEDDERS), ("HELD_OUT", HELD_OUT)):
            patch.setattr(f"mfmc_ray.pipeline.audit.{name}", {one: cache(make) for one, make in makers.items()})
        patch.setattr("mfmc_ray.pipeline.audit.AuditLook", cache(Look))
        yield


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("run")
    (folder / "photos").mkdir()
    astronaut, maker = skimage.data.astronaut(), Maker()
    portrait = np.ascontiguousarray(astronaut[:320, 60:400])
    pictures = {
        "kept.jpg": jpeg(np.ascontiguousarray(portrait[:, ::-1])),
        "redacted.jpg": jpeg(np.ascontiguousarray(portrait[:, ::-1][:280])),
        "swapped.jpg": jpeg(portrait, comment=b"taken by me"),
        "empty.jpg": jpeg(skimage.data.rocket()),
        "broken.jpg": b"\xff\xd8\xff\xe0 nothing",
    }
    made = Made(folder, pictures)
    config, ledger = made.config, made.ledger
    ledger.begin(config.digest(), "input")

    faces: dict[str, Faces | None] = {}
    scan_rows = []
    for path, source in pictures.items():
        (folder / "photos" / path).write_bytes(source)
        faces[path] = None if path == "broken.jpg" else maker.describe(decode(source).pixels)
        locator = {"kind": "file", "column": None, "group": None, "index": None, "offset": None, "length": None}
        reason = "corrupt" if path == "broken.jpg" else None
        plain = {"image_id": hashlib.sha256(source).hexdigest(), "path": path, "unit": str(folder / "photos" / path), "locator": locator}
        scan_rows.append(plain | {"reason": reason})
    schema = scan_schema(RECOGNIZERS)
    scan = pa.Table.from_pylist(scan_rows, schema=schema.remove(schema.get_field_index("faces")))
    scan = scan.append_column(schema.field("faces"), faces_column(list(faces.values()), RECOGNIZERS)).select(schema.names)
    ledger.commit_part(SCAN, 0, {"scan": scan.slice(0, 2)}, {"images": 2, "faces": 2})
    ledger.commit_part(SCAN, 1, {"scan": scan.slice(2)}, {"images": 3, "faces": 1})

    index = KnownIndex.open(ledger.work / "known", RECOGNIZERS, digests_of(["sface"]))
    ids = {path: hashlib.sha256(source).hexdigest() for path, source in pictures.items()}
    some = {path: found for path, found in faces.items() if found is not None and len(found)}
    vectors = np.concatenate([found.embeddings["sface"] for found in some.values()])
    strangers = np.random.default_rng(0).standard_normal((50, 128)).astype(np.float32)
    strangers /= np.linalg.norm(strangers, axis=1, keepdims=True)
    index.append([f"reference:{i}" for i in range(50)], ["reference"] * 50, {"sface": strangers})
    index.append([f"{ids[path]}:0" for path in some], ["collection"] * len(some), {"sface": vectors})
    guard = Guard(index.faces, {"sface": Calibration().default_threshold("sface", len(index)).value}, Calibration())

    source, found = pictures["swapped.jpg"], faces["swapped.jpg"]
    assert found is not None
    assert len(found) == 1
    data, _, seed, points, verdict = maker.swap(decode(source).pixels, found, guard, source)
    neutral = np.random.default_rng(1).standard_normal((1, 128)).astype(np.float32)
    neutral /= np.linalg.norm(neutral)
    (about,) = guard.certify({"sface": neutral})
    assert about.passed
    name = sample(load_model(), seed).identity_id
    identity = {"identity_id": name, "seed": seed, "sex": "woman", "age": 30.0, "tone": 30.0}
    identity["certificates"] = [certificate.row() for certificate in about.certificates]
    pool = pa.Table.from_pylist([identity | {"embedding_sface": neutral[0].tolist()}], schema=pool_schema(RECOGNIZERS))
    ledger.commit_part(POOL, 0, {"pool": pool}, {"images": 1, "faces": 1})

    swapped = image_row(source, "swapped.jpg", data, "anonymized", 1)
    (certificate,) = verdict.certificates
    worn = {
        "identity_id": name,
        "similarity_to_original": verdict.similarity_to_original["sface"],
        "max_similarity_to_known": certificate.max_similarity,
        "threshold": certificate.threshold,
        "certificates": [certificate.row()],
        "points": points.reshape(-1).tolist(),
    }
    canvas = decode(pictures["redacted.jpg"]).pixels
    covered, kept = faces["redacted.jpg"], faces["kept.jpg"]
    assert covered is not None
    assert kept is not None
    made.approve(approval("kept.jpg", kept.boxes[0]))
    area = cover_of(covered.boxes[0], canvas.shape)
    redact(canvas, area)
    data, _ = encode(canvas, decode(pictures["redacted.jpg"]))
    redacted = image_row(pictures["redacted.jpg"], "redacted.jpg", data, "anonymized", 1)
    unchanged = [image_row(pictures[path], path, scrub(pictures[path]), "unchanged", n) for path, n in (("empty.jpg", 0), ("kept.jpg", 1))]
    images = [swapped, redacted, *unchanged, image_row(pictures["broken.jpg"], "broken.jpg", None, "failed", 0, "corrupt")]
    face_rows = [
        face_row(swapped, found, "replaced", **worn),
        face_row(redacted, covered, "redacted", redacted_area=list(area), reason="profile", certificates=[]),
        face_row(unchanged[1], kept, "kept", access_reason="approvals:1", certificates=[]),
    ]
    tables = {"images": pa.Table.from_pylist(images, schema=IMAGES), "faces": pa.Table.from_pylist(face_rows, schema=FACES)}
    tables |= {"published": published_schema(RECOGNIZERS).empty_table(), "placed": PLACED.empty_table()}  # which no audit reads
    ledger.commit_part(ANONYMIZE, 0, tables, {"images": 5, "faces": 3})
    ledger.commit("identities", 0, pa.Table.from_pylist([identity | {"uses": 1}], schema=IDENTITIES))
    guards = {"recognizer": "sface", "threshold": certificate.threshold, "known_faces": len(index)}
    manifest = {
        "config": config.to_dict(),
        "guard": [guards | {"generation": index.generation, "index_digest": index.digest}],
        "counts": {
            "images": {"anonymized": 2, "unchanged": 2, "failed": 1},
            "faces": {"replaced": 1, "redacted": 1, "kept": 1},
        },
        "models": [],
    }
    ledger.write_json("manifest.json", manifest)
    return made


@pytest.fixture
def made(clean: Made, tmp_path: Path) -> Made:
    return clean.copy(tmp_path)


IMAGE_FILE, FACE_FILE = "images/part-00000.parquet", "faces/part-00000.parquet"


def test_a_clean_output_passes(made: Made) -> None:
    result = made.audit()
    assert [row for row in result["checks"] if not row["ok"]] == []
    assert result["passed"]
    assert result["totals"]["published"] == 4
    assert result["totals"]["sources compared"] == 4
    assert result["totals"]["detections"] >= 2
    assert result["held_out"]["dlib"]["compared"] == 1
    assert result["closest"][0]["cosine"] < result["closest"][0]["threshold"]
    for name, digest in result["files"].items():
        assert hashlib.sha256((made.folder / "out" / name).read_bytes()).hexdigest() == digest
    stored = json.loads((made.folder / "out" / "audit.json").read_text())
    assert stored == json.loads(json.dumps(result))
    assert checks.LEFT in (made.folder / "out" / "report" / "index.html").read_text()
    assert str(made.folder) not in json.dumps(result)  # it is published


def first(rows: list[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    return next(row for row in rows if all(row[key] == value for key, value in wanted.items()))


def original_instead(rows: list[dict[str, Any]], sources: dict[str, bytes]) -> None:
    """The original face in the picture, which is labelled and re-encoded as it should be."""
    source = decode(sources["swapped.jpg"])
    pixels = source.pixels.copy()
    pixels[0, 0] ^= 128
    first(rows, path="swapped.jpg")["image"]["bytes"] = encode(pixels, source)[0]


def test_the_original_face_is_found(made: Made) -> None:
    made.rewrite(IMAGE_FILE, lambda rows: original_instead(rows, made.sources), IMAGES)
    found = made.found()
    assert set(found) == {checks.MATCHES, checks.CERTIFICATES}
    assert found[checks.MATCHES] == 2  # to the known face that it is, and to its original


def test_the_original_file_is_found(made: Made) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        first(rows, path="swapped.jpg")["image"]["bytes"] = made.sources["swapped.jpg"]

    made.rewrite(IMAGE_FILE, change, IMAGES)
    assert set(made.found()) == {checks.MATCHES, checks.CERTIFICATES, checks.PIXELS, checks.METADATA}


def test_the_thresholds_are_those_of_the_run_s_own_curves(made: Made) -> None:
    """With the curves that WORK holds all is well; with stricter ones the certificates are not theirs."""
    shipped = Calibration()
    keep(made.folder / "work", shipped, ["sface"], restart=False)
    made.rewrite_json("out/manifest.json", lambda m: m | {"guard": [m["guard"][0] | {"calibration": shipped.curves["sface"].digest}]})
    assert made.found() == {}
    strict = Calibration({"sface": replace(shipped.curves["sface"], strict_threshold=0.2)})
    keep(made.folder / "work", strict, ["sface"], restart=True)
    found = made.found()
    assert {checks.CERTIFICATES, checks.IDENTITY_CERTIFICATES} <= set(found)
    assert found[checks.MANIFEST] == 2  # the threshold, and what it comes from


def test_the_original_face_is_found_with_honest_certificates(made: Made) -> None:
    """The threshold is exceeded, and the row says so."""
    made.rewrite(IMAGE_FILE, lambda rows: original_instead(rows, made.sources), IMAGES)
    audited = Audited.open(made.config)
    data = first(pq.read_table(made.folder / "out" / IMAGE_FILE).to_pylist(), path="swapped.jpg")["image"]["bytes"]

    def change(rows: list[dict[str, Any]]) -> None:
        row = first(rows, path="swapped.jpg")
        points = np.array(row["points"], np.float32).reshape(1, 5, 2)
        vector = SFaceEmbedder().embed(decode(data).pixels, points)
        cosine, at = PlainSearch(audited.known, audited.thresholds).highest("sface", vector)
        row["certificates"][0] |= {"max_similarity": float(cosine[0]), "nearest_known": audited.known.known_id(int(at[0]))}
        own = audited.known.vectors["sface"][list(audited.known.ids).index(f"{row['image_id']}:0".encode())]
        row |= {"max_similarity_to_known": float(cosine[0]), "similarity_to_original": float(vector[0] @ own)}

    made.rewrite(FACE_FILE, change, FACES)
    assert made.found() == {checks.MATCHES: 2}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("max_similarity", 0.11),
        ("nearest_known", "reference:8"),
        ("threshold", 0.9),
        ("false_match_rate", 1e-9),
        ("generation", 0),
        ("index_digest", "00" * 32),
        ("search", "approximate"),
        ("recognizer", "dlib"),
        ("max_similarity", None),
    ],
)
def test_a_changed_certificate_is_found(made: Made, column: str, value: Any) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        row = first(rows, path="swapped.jpg")
        row["certificates"][0][column] = value
        row["threshold"] = row["certificates"][0]["threshold"]

    made.rewrite(FACE_FILE, change, FACES)
    assert set(made.found()) == {checks.CERTIFICATES}


@pytest.mark.parametrize("column", ["similarity_to_original", "max_similarity_to_known", "threshold"])
def test_a_changed_summary_of_the_certificate_is_found(made: Made, column: str) -> None:
    made.rewrite(FACE_FILE, lambda rows: first(rows, path="swapped.jpg").update({column: 0.123}), FACES)
    assert set(made.found()) == {checks.CERTIFICATES}


@pytest.mark.parametrize("path", ["swapped.jpg", "empty.jpg"])
def test_one_changed_byte_of_a_picture_is_found(made: Made, path: str) -> None:
    file = made.folder / "out" / IMAGE_FILE
    picture = first(pq.read_table(file).to_pylist(), path=path)["image"]["bytes"]
    data = bytearray(file.read_bytes())
    data[data.index(picture) + len(picture) // 2] ^= 1
    file.write_bytes(data)
    assert checks.CHANGED in made.found()


def test_one_changed_byte_of_an_unchanged_picture_is_found_by_its_pixels(made: Made) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        image = first(rows, path="empty.jpg")["image"]
        data = bytearray(image["bytes"])
        data[len(data) // 2] ^= 1
        image["bytes"] = bytes(data)

    made.rewrite(IMAGE_FILE, change, IMAGES)
    assert set(made.found()) & {checks.PIXELS, checks.UNREADABLE}


def scanned_instead(made: Made, part: int, path: str) -> None:
    """Another embedding of a face in the scan's table, with the run's note of the file made to fit."""
    file = made.folder / f"work/scan/part-{part:05d}.parquet"
    table = pq.read_table(file)
    rows = table.to_pylist()
    face = first(rows, path=path)["faces"][0]
    face["embedding_sface"] = list(reversed(face["embedding_sface"]))
    write_parquet(pa.Table.from_pylist(rows, schema=table.schema), file)

    def fit(marker: dict[str, Any]) -> dict[str, Any]:
        marker["files"][0]["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
        return marker

    made.rewrite_json(f"work/ledger/scan/part-{part:05d}.json", fit)


@pytest.mark.parametrize(
    ("part", "path", "wanted"),
    [
        (0, "kept.jpg", {checks.UNKNOWN: 1}),
        (0, "redacted.jpg", {checks.UNKNOWN: 1}),
        (1, "swapped.jpg", {checks.UNKNOWN: 1, checks.CERTIFICATES: 1}),
    ],
)
def test_a_changed_embedding_of_the_scan_is_found(made: Made, part: int, path: str, wanted: dict[str, int]) -> None:
    """It is not what the index has, and if its face was replaced the cosine to the original is another."""
    scanned_instead(made, part, path)
    assert made.found() == wanted


SEED_WITHOUT_THE_SWAPPED = next(seed for seed in range(99) if random.Random(seed).sample(range(4), 1) != [0])


def test_a_sample_says_how_much_it_shows(made: Made) -> None:
    result = made.audit(Sample(images=2, seed=5))
    assert result["passed"]
    sample = result["sample"]
    assert (sample["images"], sample["of"], sample["seed"], sample["seed_given"], sample["violating"]) == (2, 4, 5, True, 0)
    assert (sample["at_most"], sample["at_most_share"]) == (2, 0.5)
    assert "2 of 4 published images, drawn at random (seed 5), were looked at" in result["verdict"]
    assert result["verdict"].startswith("The promise holds as far as a sample shows")
    assert result["totals"]["sources compared"] == 2
    page = (made.folder / "out" / "report" / "index.html").read_text()
    assert "drawn at random (seed 5)" in page


def test_a_sample_that_meets_the_violation_counts_it(made: Made) -> None:
    made.rewrite(IMAGE_FILE, lambda rows: original_instead(rows, made.sources), IMAGES)
    seed = next(seed for seed in range(99) if random.Random(seed).sample(range(4), 1) == [0])
    result = made.audit(Sample(images=1, seed=seed))
    assert not result["passed"]
    assert (result["sample"]["violating"], result["sample"]["at_most"]) == (1, 4)
    result = made.audit()
    assert (result["sample"]["violating"], result["sample"]["at_most"], result["sample"]["seed"]) == (1, 1, None)


def test_what_a_sample_leaves_out_is_not_looked_at_and_its_rows_are(made: Made) -> None:
    made.rewrite(IMAGE_FILE, lambda rows: original_instead(rows, made.sources), IMAGES)
    assert made.audit(Sample(images=1, seed=SEED_WITHOUT_THE_SWAPPED))["passed"]  # only a look can tell
    made.rewrite(FACE_FILE, lambda rows: first(rows, path="swapped.jpg").update(identity_id="mfmc-000000999999"), FACES)
    assert set(made.found(Sample(images=1, seed=SEED_WITHOUT_THE_SWAPPED))) == {checks.IDENTITY_USE}


@pytest.mark.parametrize(
    ("column", "value", "check"),
    [
        ("nearest_known", "nobody:0", checks.CERTIFICATES),
        ("threshold", 0.9, checks.CERTIFICATES),
        ("false_match_rate", 1e-9, checks.CERTIFICATES),
        ("index_digest", "00" * 32, checks.CERTIFICATES),
        ("search", "approximate", checks.CERTIFICATES),
        ("recognizer", "dlib", checks.CERTIFICATES),
        ("max_similarity", None, checks.CERTIFICATES),
        ("max_similarity", 0.7, checks.MATCHES),
    ],
)
def test_a_certificate_outside_the_sample_must_make_sense(made: Made, column: str, value: Any, check: str) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        row = first(rows, path="swapped.jpg")
        row["certificates"][0][column] = value
        row["threshold"] = row["certificates"][0]["threshold"]

    made.rewrite(FACE_FILE, change, FACES)
    assert check in made.found(Sample(images=1, seed=SEED_WITHOUT_THE_SWAPPED))


@pytest.mark.parametrize("value", [None, 0.9])
def test_a_stated_resemblance_to_the_original_is_found_without_a_look(made: Made, value: float | None) -> None:
    made.rewrite(FACE_FILE, lambda rows: first(rows, path="swapped.jpg").update(similarity_to_original=value), FACES)
    assert checks.MATCHES in made.found(Sample(images=1, seed=SEED_WITHOUT_THE_SWAPPED))


def test_metadata_outside_the_sample_is_found(made: Made) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        image = first(rows, path="swapped.jpg")["image"]
        image["bytes"] = image["bytes"][:2] + b"\xff\xfe\x00\x07hello" + image["bytes"][2:]

    made.rewrite(IMAGE_FILE, change, IMAGES)
    assert set(made.found(Sample(images=1, seed=SEED_WITHOUT_THE_SWAPPED))) == {checks.METADATA}


def test_a_picture_that_should_not_be_there_is_looked_at_in_any_case(made: Made) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        first(rows, path="broken.jpg")["image"] = {"bytes": made.sources["kept.jpg"], "path": "broken.jpg"}

    made.rewrite(IMAGE_FILE, change, IMAGES)
    found = made.found(Sample(images=1, seed=SEED_WITHOUT_THE_SWAPPED))
    assert found[checks.LEFT] == 1
    assert checks.VERDICTS in found


def test_what_is_signed_is_complete(made: Made) -> None:
    result = made.audit()
    assert {model["name"] for model in result["models"]} >= {"centerface", "sface", "openface"}
    assert all(len(model["sha256"]) == 64 and model["role"] for model in result["models"])
    assert {row["basis"] for row in result["checks"]} == {"all pictures", "all rows"}
    assert result["worst"]["sface"]["to_known"] < result["worst"]["sface"]["threshold"]
    assert result["held_out"].keys() == {"dlib", "openface"}
    assert all(0 < figures["recognizes"] < 1 for figures in result["held_out"].values())
    assert result["leak"] is None
    assert result["leak_reason"].startswith("wanted 50 people or more, 1 are there")
    assert result["verdict"].startswith("The promise holds: 5 images and 3 faces audited. All 4 published images were looked at")
    longest = max(len(value) for value in lists_of_numbers(result))
    assert longest == 0  # no embedding


def lists_of_numbers(plain: Any) -> list[list[Any]]:
    """Every list in it, as far as it holds numbers."""
    if isinstance(plain, dict):
        return [found for value in plain.values() for found in lists_of_numbers(value)]
    if isinstance(plain, list):
        return [[v for v in plain if isinstance(v, float | int)], *(found for value in plain for found in lists_of_numbers(value))]
    return [[]]


def test_a_forgotten_original_is_told_of(made: Made) -> None:
    """It is not compared with any more, and what was certified must be enough; a face that is only said to be forgotten is not."""
    ledger, work = made.ledger, made.folder / "work"
    rows = pq.read_table(made.folder / "out" / FACE_FILE).to_pylist()
    worn = first(rows, path="swapped.jpg")
    picture = decode(first(pq.read_table(made.folder / "out" / IMAGE_FILE).to_pylist(), path="swapped.jpg")["image"]["bytes"]).pixels
    vector = SFaceEmbedder().embed(picture, np.array(worn["points"], np.float32).reshape(1, 5, 2))
    neutral = np.array(pq.read_table(work / "pool/part-00000.parquet")["embedding_sface"].to_pylist(), np.float32)
    index = KnownIndex.open(work / "known", RECOGNIZERS)
    assert index.remove([f"{worn['image_id']}:0"]) == 1
    assert checks.UNKNOWN in made.found()  # the scan still holds it
    forget_in_scans(ledger, [SCAN], RECOGNIZERS)

    threshold = Calibration().default_threshold("sface", len(index)).value
    face, identity = Guard(index.faces, {"sface": threshold}, Calibration()).certify({"sface": np.concatenate([vector, neutral])})

    def renewed(rows: list[dict[str, Any]], verdict: Verdict, **more: Any) -> None:
        (certificate,) = verdict.certificates
        for row in rows:
            if row.get("certificates"):
                row |= {"certificates": [certificate.row()]} | more

    highest = face.certificates[0].max_similarity
    made.rewrite(FACE_FILE, lambda rows: renewed(rows, face, max_similarity_to_known=highest, threshold=threshold), FACES)
    made.rewrite("identities/part-00000.parquet", lambda rows: renewed(rows, identity), IDENTITIES)
    about = {"known_faces": len(index), "generation": index.generation, "index_digest": index.digest, "threshold": threshold}
    made.rewrite_json("out/manifest.json", lambda m: m | {"guard": [m["guard"][0] | about]})
    signed = made.audit()
    assert [row["name"] for row in signed["checks"] if not row["ok"]] == []
    assert signed["totals"]["originals forgotten"] == 1
    assert "1 originals are forgotten" in signed["verdict"]
    made.rewrite(FACE_FILE, lambda rows: first(rows, path="swapped.jpg").update(similarity_to_original=0.9), FACES)
    assert made.found() == {checks.MATCHES: 1}


def test_a_removed_face_row_is_found(made: Made) -> None:
    made.rewrite(FACE_FILE, lambda rows: [row for row in rows if row["path"] != "swapped.jpg"], FACES)
    found = made.found()
    assert found[checks.FACE_ROWS] == 1
    assert found[checks.LEFT] == 1  # a face is seen and no row says why
    assert checks.IDENTITY_USE in found


def test_a_doubled_face_row_is_found(made: Made) -> None:
    made.rewrite(FACE_FILE, lambda rows: [*rows, copy.deepcopy(first(rows, path="kept.jpg"))], FACES)
    assert made.found()[checks.FACE_ROWS] == 1


def test_points_beside_the_face_are_found(made: Made) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        row = first(rows, path="swapped.jpg")
        row["points"] = [v - 60 for v in row["points"]]

    made.rewrite(FACE_FILE, change, FACES)
    assert checks.FACE_ROWS in made.found()


def test_a_removed_image_row_is_found(made: Made) -> None:
    made.rewrite(IMAGE_FILE, lambda rows: [row for row in rows if row["path"] != "empty.jpg"], IMAGES)
    assert set(made.found()) == {checks.IMAGE_ROWS, checks.MANIFEST}


@pytest.mark.parametrize("path", ["empty.jpg", "broken.jpg"])
def test_a_doubled_image_row_is_found(made: Made, path: str) -> None:
    made.rewrite(IMAGE_FILE, lambda rows: [*rows, first(rows, path=path)], IMAGES)
    assert made.found()[checks.IMAGE_ROWS] == 1


def test_a_strange_image_is_found(made: Made) -> None:
    made.rewrite(IMAGE_FILE, lambda rows: [*rows, first(rows, path="empty.jpg") | {"path": "other.jpg"}], IMAGES)
    assert made.found()[checks.IMAGE_ROWS] == 1


def test_a_picture_that_is_not_its_source_is_found(made: Made) -> None:
    other = jpeg(np.ascontiguousarray(skimage.data.rocket()[::-1]))
    made.rewrite(IMAGE_FILE, lambda rows: first(rows, path="empty.jpg")["image"].update({"bytes": other}), IMAGES)
    assert set(made.found()) == {checks.PIXELS}


def test_a_face_that_nobody_scanned_is_found(made: Made) -> None:
    """A face in a picture said to have none."""
    rocket = skimage.data.rocket().copy()
    rocket[20:220, 100:300] = skimage.data.astronaut()[10:210, 120:320]
    data = jpeg(rocket)
    made.rewrite(IMAGE_FILE, lambda rows: first(rows, path="empty.jpg")["image"].update({"bytes": data}), IMAGES)
    assert made.found()[checks.LEFT] == 1


def test_an_uncovered_redaction_is_found(made: Made) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        source = decode(made.sources["redacted.jpg"])
        pixels = source.pixels.copy()
        pixels[0, 0] ^= 128
        first(rows, path="redacted.jpg")["image"]["bytes"] = encode(pixels, source)[0]

    made.rewrite(IMAGE_FILE, change, IMAGES)
    assert set(made.found()) == {checks.COVERS, checks.SEEN}


def test_a_kept_face_without_a_reason_is_found(made: Made) -> None:
    made.rewrite(FACE_FILE, lambda rows: first(rows, path="kept.jpg").update(access_reason=None), FACES)
    assert set(made.found()) == {checks.VERDICTS}


def test_a_withdrawn_approval_is_found(made: Made) -> None:
    box = first(pq.read_table(made.folder / "out" / FACE_FILE).to_pylist(), path="kept.jpg")["box"]
    made.approve(approval("kept.jpg", box), approval("kept.jpg", box, "false"))
    assert made.found(Sample(images=1, seed=1)) == {checks.KEPT: 1}  # rows are checked whatever is looked at


def test_a_face_that_claims_to_be_kept_is_found(made: Made) -> None:
    """The original is shown, whole and scrubbed, with a row that says somebody allowed it."""

    def show(rows: list[dict[str, Any]]) -> None:
        row = first(rows, path="redacted.jpg")
        row["verdict"], row["image"]["bytes"] = "unchanged", scrub(made.sources["redacted.jpg"])

    def claim(rows: list[dict[str, Any]]) -> None:
        first(rows, path="redacted.jpg").update(verdict="kept", access_reason="approvals:1", reason=None, redacted_area=None)

    made.rewrite(IMAGE_FILE, show, IMAGES)
    made.rewrite(FACE_FILE, claim, FACES)
    found = made.found()
    assert found.pop(checks.MANIFEST)  # its counts
    assert found == {checks.KEPT: 1}


def test_the_table_of_the_run_is_what_kept_faces_are_held_against(made: Made) -> None:
    settings = replace(made.config, access=AccessConfig())  # as without --approvals
    with pytest.raises(AccessError, match="--approvals"):
        Audited.open(settings)
    table = {"access": {"approvals": made.config.access.approvals}}
    (made.folder / "work" / "settings.json").write_text(json.dumps(table))
    assert Audited.open(settings).access.digest == Audited.open(made.config).access.digest
    (made.folder / "approvals.csv").unlink()
    with pytest.raises(AccessError, match=r"approvals.csv: not found"):
        Audited.open(settings)


def test_without_a_table_nobody_may_be_kept(made: Made) -> None:
    plain = replace(made.config, access=AccessConfig())
    made.rewrite_json("out/manifest.json", lambda m: m | {"config": plain.to_dict()})
    made.rewrite_json("work/run.json", lambda run: run | {"config": plain.digest()})
    audited = Audited.open(plain)
    parts = parts_of(audited.ledger)
    drawn = limit(parts, Sample(), audited.ledger)
    result = conclude(audited, parts, [AuditStage(**audited.for_stage())(part) for part in parts], time.monotonic(), drawn)
    assert {row["name"]: row["count"] for row in result["checks"] if not row["ok"]} == {checks.KEPT: 1}


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("swapped.jpg", {"verdict": "unchanged"}),
        ("empty.jpg", {"verdict": "withheld"}),
        ("empty.jpg", {"image": None}),
        ("broken.jpg", {"reason": None}),
        ("empty.jpg", {"faces": 1}),
        ("empty.jpg", {"width": 3}),
        ("empty.jpg", {"verdict": None}),
    ],
)
def test_a_contradiction_is_found(made: Made, path: str, change: dict[str, Any]) -> None:
    made.rewrite(IMAGE_FILE, lambda rows: first(rows, path=path).update(change), IMAGES)
    assert checks.VERDICTS in made.found()


def test_a_swap_is_found_where_nobody_is_to_be_swapped(tmp_path: Path) -> None:
    row = {"face_no": 0, "verdict": "replaced", "identity_id": "mfmc-000000000001", "points": [0.0] * 10, "access_reason": None}
    image = {"verdict": "anonymized", "image": {"bytes": b"picture"}, "faces": 1}
    assert contradictions(image, [row], fault_of("image", tmp_path)) == []
    assert contradictions(image, [row], fault_of("none", tmp_path)) == ["face 0: replaced, though the settings replace nobody"]


def test_an_identity_used_twice_is_found(made: Made) -> None:
    def change(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [*rows, copy.deepcopy(first(rows, path="swapped.jpg")) | {"face_no": 1}]

    made.rewrite(FACE_FILE, change, FACES)
    assert made.found()[checks.IDENTITY_USE] == 2  # doubled in an image, and miscounted


def test_an_unlisted_identity_is_found(made: Made) -> None:
    made.rewrite(FACE_FILE, lambda rows: first(rows, path="swapped.jpg").update(identity_id="mfmc-000000999999"), FACES)
    assert set(made.found()) == {checks.IDENTITY_USE}


def test_a_changed_identity_certificate_is_found(made: Made) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[0]["certificates"][0]["max_similarity"] -= 0.05

    made.rewrite("identities/part-00000.parquet", change, IDENTITIES)
    assert set(made.found()) == {checks.IDENTITY_CERTIFICATES}


@pytest.mark.parametrize("how", ["comment", "exif", "trailing", "no label", "png text"])
def test_metadata_is_found(made: Made, how: str) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        image = first(rows, path="swapped.jpg" if how == "no label" else "empty.jpg")["image"]
        picture = PIL.Image.open(io.BytesIO(image["bytes"]))
        if how == "comment":
            image["bytes"] = image["bytes"][:2] + b"\xff\xfe\x00\x07hello" + image["bytes"][2:]
        elif how == "exif":
            exif = PIL.Image.Exif()
            exif[0x010E] = "somebody"
            body = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
            image["bytes"] = image["bytes"][:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + image["bytes"][2:]
        elif how == "trailing":
            image["bytes"] += b"somebody"
        elif how == "no label":
            image["bytes"] = scrub(image["bytes"])
        else:
            text = PIL.PngImagePlugin.PngInfo()
            text.add_text("Author", "somebody")
            file = io.BytesIO()
            picture.save(file, "PNG", pnginfo=text)
            image["bytes"] = file.getvalue()

    made.rewrite(IMAGE_FILE, change, IMAGES)
    assert set(made.found()) == {checks.METADATA}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("profile", [False, True])
def test_labelled_pictures_have_no_other_metadata(kind: str, profile: bool) -> None:
    from PIL import ImageCms

    file = io.BytesIO()
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() if profile else None
    PIL.Image.fromarray(skimage.data.rocket()[:64, :64]).save(file, kind, icc_profile=icc)
    source = decode(file.getvalue())
    check = MetadataCheck()
    data = encode(source.pixels, source)[0]
    assert check.fault(data, 10**9, labelled=True) is None
    assert check.fault(data, 10**9, labelled=False) is not None
    plain = encode(source.pixels, source, xmp=None)[0]
    assert check.fault(plain, 10**9, labelled=False) is None
    assert check.fault(plain, 10**9, labelled=True) is not None


def test_an_embedding_column_is_found(made: Made) -> None:
    extra = FACES.append(pa.field("secret", pa.list_(pa.float32(), 128)))
    made.rewrite(FACE_FILE, lambda rows: [row | {"secret": [0.0] * 128} for row in rows], extra)
    assert set(made.found()) == {checks.COLUMNS}


def test_longer_points_are_found(made: Made) -> None:
    at = FACES.get_field_index("points")
    wide = FACES.set(at, pa.field("points", pa.list_(pa.float32())))
    made.rewrite(FACE_FILE, lambda rows: first(rows, path="kept.jpg").update(points=[0.0] * 128), wide)
    assert checks.COLUMNS in made.found()


@pytest.mark.parametrize("bad", [b"", b"not a picture", None])
def test_an_unreadable_picture_is_found(made: Made, bad: bytes | None) -> None:
    made.rewrite(IMAGE_FILE, lambda rows: first(rows, path="empty.jpg")["image"].update({"bytes": bad}), IMAGES)
    assert made.found().keys() & {checks.UNREADABLE, checks.VERDICTS}


@pytest.mark.parametrize("name", [IMAGE_FILE, FACE_FILE, "identities/part-00000.parquet"])
@pytest.mark.parametrize("content", [b"", b"PAR1 nonsense PAR1", None])
def test_a_damaged_table_is_found(made: Made, name: str, content: bytes | None) -> None:
    path = made.folder / "out" / name
    path.unlink() if content is None else path.write_bytes(content)
    found = made.found()
    assert checks.CHANGED in found or checks.IDENTITY_USE in found
    assert content is None or checks.UNREADABLE in found


def test_nulls_everywhere_are_findings(made: Made) -> None:
    made.rewrite(FACE_FILE, lambda rows: [{} for _ in rows], FACES)
    assert not made.audit()["passed"]
    made.rewrite(IMAGE_FILE, lambda rows: [{} for _ in rows], IMAGES)
    assert not made.audit()["passed"]


def test_bytes_changed_since_the_run_are_found(made: Made) -> None:
    path = made.folder / "out" / IMAGE_FILE
    pq.write_table(pq.read_table(path), path)
    assert made.found() == {checks.CHANGED: 1}


@pytest.mark.parametrize("name", ["images/more.parquet", "faces/more/part-00000.parquet", "identities/rows.csv"])
def test_what_the_run_did_not_write_is_found(made: Made, name: str) -> None:
    """Whoever reads the table's folder reads it, too."""
    path = made.folder / "out" / name
    path.parent.mkdir(exist_ok=True)
    shutil.copy(made.folder / "out" / IMAGE_FILE, path)
    assert made.found() == {checks.CHANGED: 1}


@pytest.mark.parametrize(("key", "value"), [("false_match_rate", 1e-9), ("strict_threshold", 0.9)])
def test_a_manifest_that_promises_more_is_found(made: Made, key: str, value: float) -> None:
    made.rewrite_json("out/manifest.json", lambda m: m | {"guard": [m["guard"][0] | {key: value}]})
    assert made.found() == {checks.MANIFEST: 1}


def test_a_wrong_manifest_is_found(made: Made) -> None:
    made.rewrite_json("out/manifest.json", lambda m: m | {"counts": m["counts"] | {"faces": {"replaced": 3}}})
    assert made.found() == {checks.MANIFEST: 1}
    # a threshold that was raised afterwards is not believed
    made.rewrite_json("out/manifest.json", lambda m: m | {"config": m["config"] | {"guard": m["config"]["guard"] | {"threshold": 0.99}}})
    assert made.found() == {checks.MANIFEST: 2}


def test_a_changed_known_vector_is_an_error(made: Made) -> None:
    path = made.folder / "work/known/generation-00001.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[0]["embedding_sface"] = list(reversed(rows[0]["embedding_sface"]))
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    with pytest.raises(LedgerError, match="damaged or was changed"):
        made.audit()


def test_another_index_is_found(made: Made) -> None:
    """A known vector is changed and the index's own digest made to fit."""
    known = Audited.open(made.config).known
    ids = [bytes(name).decode() for name in known.ids]
    vectors = known.vectors["sface"].copy()
    vectors[0] = vectors[0][::-1]
    shutil.rmtree(made.folder / "work/known")
    index = KnownIndex.open(made.folder / "work/known", RECOGNIZERS, digests_of(["sface"]))
    index.append(ids, ["reference"] * len(ids), {"sface": np.ascontiguousarray(vectors)})
    assert set(made.found()) == {checks.CERTIFICATES, checks.IDENTITY_CERTIFICATES, checks.MANIFEST}


def test_an_index_without_a_scanned_face_is_found(made: Made) -> None:
    shutil.rmtree(made.folder / "work/known")
    known = np.eye(128, dtype=np.float32)[:3]
    index = KnownIndex.open(made.folder / "work/known", RECOGNIZERS, digests_of(["sface"]))
    index.append(["reference:0", "reference:1", "reference:2"], ["reference"] * 3, {"sface": known})
    assert made.found()[checks.UNKNOWN] >= 3


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("out/manifest.json", "no finished result"),
        ("work/known", "known-face index"),
        ("work/scan/part-00000.parquet", "part-00000.parquet"),
        ("work/ledger/scan", "no table of scan"),
        ("work/pool/part-00000.parquet", "part-00000.parquet"),
        ("work/run.json", "run.json|holds no run"),
    ],
)
def test_what_is_missing_is_an_error(made: Made, missing: str, message: str) -> None:
    path = made.folder / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(LedgerError, match=message):
        audit(made.config)


@pytest.mark.parametrize("damaged", ["work/scan/part-00001.parquet", "work/pool/part-00000.parquet", "out/manifest.json", "work/run.json"])
def test_what_is_damaged_is_an_error(made: Made, damaged: str) -> None:
    (made.folder / damaged).write_bytes(b"{")
    with pytest.raises(LedgerError):
        audit(made.config)


def test_a_wrong_work_is_not_made(made: Made, tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="holds no run"):
        audit(RunConfig(out=made.config.out, work=str(tmp_path / "typo")))
    assert not (tmp_path / "typo").exists()


@pytest.mark.ray
def test_the_command(
    made: Made, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with connect(made.config.ray, tmp_path_factory.mktemp("ray")):  # one for both
        assert audit(made.config)
        assert "The promise holds: 5 images and 3 faces audited" in capsys.readouterr().out
        made.rewrite(IMAGE_FILE, lambda rows: original_instead(rows, made.sources), IMAGES)
        assert not audit(made.config)
    said = capsys.readouterr().out
    assert "The promise is REFUTED by 2 checks" in said
    assert "swapped.jpg" not in said  # a log names no file
    monkeypatch.setattr("mfmc_ray.discreet._named", True)
    show(json.loads(Path(made.config.out, "audit.json").read_text()), made.config.out)
    said = capsys.readouterr().out
    assert "swapped.jpg#0: sface" in said


def test_sources_that_are_gone_are_counted(clean: Made, made: Made) -> None:
    hidden = clean.folder / "photos-elsewhere"
    (clean.folder / "photos").rename(hidden)
    try:
        result = made.audit()
    finally:
        hidden.rename(clean.folder / "photos")
    assert result["passed"]
    assert (result["totals"]["sources compared"], result["totals"]["sources not readable"]) == (0, 4)


def test_plain_search_agrees_with_the_guard() -> None:
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((3000, 128)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    known = KnownIndex.open("nowhere", RECOGNIZERS)
    faces = type(known.faces)(np.array([f"k{i}".encode() for i in range(3000)]), {"sface": vectors}, 0, "d")
    queries = np.ascontiguousarray(vectors[::300] * 0.9 + rng.standard_normal((10, 128)).astype(np.float32) * 0.05)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    search = PlainSearch(faces, {"sface": 0.363})
    cosines, rows = search.highest("sface", queries)
    for verdict, cosine, row in zip(Guard(faces, {"sface": 0.363}, Calibration()).certify({"sface": queries}), cosines, rows, strict=True):
        (certificate,) = verdict.certificates
        assert certificate.max_similarity == pytest.approx(cosine, abs=1e-6)
        assert certificate.nearest_known == faces.known_id(int(row))
        assert search.faults([certificate.row()], {"sface": queries[0]}, {"sface": (float(cosine), int(row))}) == []
    cosines, rows = search.highest("sface", np.full((1, 128), np.nan, np.float32))
    assert np.isnan(cosines).all()


@pytest.mark.parametrize("quality", [30, 60, 95])
@pytest.mark.parametrize("side", [12, 20, 40, 120])
def test_covers_are_opaque_and_faces_are_not(quality: int, side: int) -> None:
    astronaut = skimage.data.astronaut()
    x0, y0 = 224 - side // 2, 110 - side // 2
    area = (x0, y0, x0 + side, y0 + side)
    scaled = np.asarray(PIL.Image.fromarray(astronaut).resize((512 * side // 100, 512 * side // 100)))
    tiny = (224 * side // 100 - side // 2, 110 * side // 100 - side // 2)
    small = (*tiny, tiny[0] + side, tiny[1] + side)
    for picture, where in ((astronaut, area), (scaled, small)):
        covered = picture.copy()
        redact(covered, where)
        for subsampling in (0, 2):
            file, plain = io.BytesIO(), io.BytesIO()
            PIL.Image.fromarray(covered).save(file, "JPEG", quality=quality, subsampling=subsampling)
            assert see_through(decode(file.getvalue()).pixels, [where]) == []
            PIL.Image.fromarray(scaled).save(plain, "JPEG", quality=quality, subsampling=subsampling)
            assert see_through(decode(plain.getvalue()).pixels, [small]) == [0]


def test_covers_over_each_other_are_opaque() -> None:
    picture = skimage.data.astronaut().copy()
    areas = [(180, 60, 260, 160), (230, 100, 320, 190), (240, 110, 250, 120)]
    for area in areas:
        redact(picture, area)
    assert see_through(picture, areas) == []
    assert see_through(picture, [*areas, (0, 0, 0, 0), (300, 300, 380, 400)]) == [3, 4]


def test_second_look_confirms_faces_and_nothing_else(shared_data: Path) -> None:
    look = AuditLook()
    seen = look.find(skimage.data.astronaut())
    assert look.confirmed(skimage.data.astronaut(), seen).tolist() == [True]
    x0, y0, x1, y1 = seen.boxes[0]
    assert 150 < x0 < 224 < x1 < 300
    assert 30 < y0 < 110 < y1 < 220
    left, right = seen.points[0, 0], seen.points[0, 1]
    assert left[0] < right[0]
    alarms = 0
    files = sorted((shared_data / "no_faces").iterdir())[:12]
    for file in files:
        pixels = decode(file.read_bytes()).pixels
        alarms += int(look.confirmed(pixels, look.find(pixels)).sum())
    assert alarms == 0
