"""Collections of every kind through the whole command, and what readers and the audit make of the result."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bad_images import SECRET, bad_images, huge_jpeg, save, telling_exif, told_images
from PIL import Image
from s3 import S3, s3, s3_endpoint  # noqa: F401 (fixtures)
from skimage.data import astronaut, coffee

from mfmc_ray.codec import decode
from mfmc_ray.config import FindConfig
from mfmc_ray.faces.pack import ModelPack, load_pack
from mfmc_ray.parquet import write_parquet
from mfmc_ray.tables import FACES, IDENTITIES, IMAGES

SMALL = ("--identities", "12", "--attempts", "4")

EXPECTED: dict[str, tuple[str, int, str | None]] = {
    "caf%E9.png": ("unchanged", 0, None),
    "copy.jpg": ("anonymized", 1, None),
    "cup.jpg": ("unchanged", 0, None),
    "face.jpg": ("anonymized", 1, "duplicate of copy.jpg"),
    "pair.jpg": ("anonymized", 2, None),
    "told.jpg": ("unchanged", 0, None),
    "told.png": ("unchanged", 0, None),
    "turned.jpg": ("anonymized", 1, None),
    "bad/animated.gif": ("withheld", 0, "animated"),
    "bad/animated.webp": ("withheld", 0, "animated"),
    "bad/bomb.png": ("withheld", 0, "too_large"),
    "bad/cmyk.jpg": ("anonymized", 1, None),
    "bad/corrupt.jpg": ("failed", 0, "corrupt"),
    "bad/empty.jpg": ("failed", 0, "empty"),
    "bad/grey.jpg": ("anonymized", 1, None),
    "bad/huge.jpg": ("withheld", 0, "too_large"),
    "bad/one_pixel.png": ("unchanged", 0, None),
    "bad/really_a_png.jpg": ("anonymized", 1, None),
    "bad/sideways.jpg": ("anonymized", 1, None),
    "bad/sixteen_bit.png": ("anonymized", 1, None),
    "bad/text.jpg": ("failed", 0, "not_an_image"),
    "bad/transparent.png": ("anonymized", 1, None),
    "bad/truncated.jpg": ("failed", 0, "truncated"),
    "bad/truncated.png": ("failed", 0, "truncated"),
}
"""path → verdict, faces, reason."""


@dataclass
class Published:
    """A finished run."""

    folder: Path
    originals: dict[str, bytes]

    @property
    def photos(self) -> Path:
        return self.folder / "photos"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def work(self) -> Path:
        return self.folder / "out-work"

    def rows(self, table: str) -> list[dict[str, Any]]:
        return pq.read_table(self.out / table).to_pylist()  # type: ignore[no-any-return]

    def images(self) -> dict[str, dict[str, Any]]:
        return {row["path"]: row for row in self.rows("images")}

    def files(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.out)): path.read_bytes() for path in self.out.rglob("*") if path.is_file()}


def somebody() -> Image.Image:
    """A person who does not exist."""
    from mfmc_ray.evaluate.people import PersonGenerator

    return Image.fromarray(PersonGenerator().portrait(3)).resize((512, 512))


def messy(cup: bytes) -> dict[str, bytes]:
    """Escaped path → file."""
    face = Image.fromarray(astronaut())
    pair = Image.new("RGB", (1024, 512))
    pair.paste(face, (0, 0))
    pair.paste(somebody(), (512, 0))
    tall = face.crop((32, 0, 432, 512))
    told = told_images(Image.fromarray(coffee()))
    good = save(face, "JPEG", quality=92)
    return {
        "caf%E9.png": save(Image.fromarray(np.ascontiguousarray(coffee()[::2, ::2])), "PNG"),
        "copy.jpg": good,
        "cup.jpg": cup,
        "face.jpg": good,
        "pair.jpg": save(pair, "JPEG", quality=92),
        "told.jpg": told["told.jpg"],
        "told.png": told["told.png"],
        "turned.jpg": save(tall.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=92, exif=telling_exif(6)),
        **{f"bad/{name}": data for name, data in bad_images().items()},
        "bad/huge.jpg": huge_jpeg(),
    }


@pytest.fixture(scope="module")
def published(mfmc: Any, tmp_path_factory: pytest.TempPathFactory, pictures: dict[str, bytes]) -> Published:
    """The messy folder, anonymized."""
    run = Published(tmp_path_factory.mktemp("messy"), messy(pictures["cup.jpg"]))
    (run.photos / "bad").mkdir(parents=True)
    for path, data in run.originals.items():
        (run.photos / os.fsdecode(path.replace("%E9", "\xe9").encode("latin-1"))).write_bytes(data)
    (run.photos / "notes.txt").write_text("no picture")
    # or the huge one's 440 faces would take two minutes
    (run.folder / "settings.yaml").write_text("find:\n  max_pixels: 100_000_000\nswap:\n  identities: 12\n")
    done = mfmc("anonymize", run.photos, run.out, "--config", run.folder / "settings.yaml")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert f"Found: {len(EXPECTED)} files" in done.stderr
    assert "1 × sidecar skipped" in done.stderr
    assert f"mfmc audit {run.out} --work {run.work}" in done.stdout
    return run


@pytest.fixture(scope="module")
def pack() -> ModelPack:
    return load_pack(FindConfig(), ("sface", "dlib"))


def test_every_file_has_one_row(published: Published) -> None:
    rows = published.rows("images")
    assert {row["path"]: (row["verdict"], row["faces"], row["reason"]) for row in rows} == EXPECTED
    assert len(rows) == len(EXPECTED)
    for row in rows:
        source = published.originals[row["path"]]
        assert row["image_id"] == hashlib.sha256(source).hexdigest()
        assert (row["image"] is None or row["image"]["bytes"] is None) == (row["verdict"] in ("failed", "withheld")), row["path"]
        if row["verdict"] in ("unchanged", "anonymized"):
            picture = decode(row["image"]["bytes"])
            assert (picture.width, picture.height, picture.format) == (row["width"], row["height"], row["format"])
    assert (published.images()["turned.jpg"]["width"], published.images()["turned.jpg"]["height"]) == (400, 512)


def test_pictures_without_faces_keep_their_pixels_and_lose_their_metadata(published: Published) -> None:
    images = published.images()
    for path in ("cup.jpg", "caf%E9.png", "bad/one_pixel.png"):
        assert images[path]["image"]["bytes"] == published.originals[path]
    for path in ("told.jpg", "told.png"):
        data = images[path]["image"]["bytes"]
        assert SECRET in published.originals[path]
        assert SECRET not in data
        assert np.array_equal(decode(data).pixels, decode(published.originals[path]).pixels)
        assert decode(data).icc == decode(published.originals[path]).icc


def test_pictures_with_faces_are_changed_at_the_faces_and_labelled(published: Published) -> None:
    images = published.images()
    faces: dict[str, list[Any]] = {}
    for row in published.rows("faces"):
        faces.setdefault(row["path"], []).append(row)
    for path, (verdict, _, _) in EXPECTED.items():
        if verdict != "anonymized":
            continue
        data = images[path]["image"]["bytes"]
        assert b"compositeWithTrainedAlgorithmicMedia" in data
        after, before = decode(data), decode(published.originals[path])
        assert after.pixels.shape == before.pixels.shape
        assert after.orientation == 1
        apart = np.abs(after.pixels.astype(int) - before.pixels).max(axis=2)
        far = np.ones(apart.shape, bool)
        for face in faces[path]:
            x0, y0, x1, y1 = (round(v) for v in face["box"])
            assert apart[y0:y1, x0:x1].mean() > 8
            w, h = x1 - x0, y1 - y0
            far[max(0, y0 - h) : y1 + h, max(0, x0 - w) : x1 + w] = False
        assert far.any()
        # a PNG is written without loss; 16 bits become 8
        assert apart[far].max() == 0 if after.format == "PNG" else np.percentile(apart[far], 99) <= 12, path


def test_faces_agree_with_images(published: Published) -> None:
    images, faces = published.images(), published.rows("faces")
    assert Counter(row["path"] for row in faces) == {path: row["faces"] for path, row in images.items() if row["faces"]}
    for path in images:
        own = [row for row in faces if row["path"] == path]
        assert [row["face_no"] for row in own] == list(range(len(own)))
        worn = [row["identity_id"] for row in own if row["identity_id"]]
        assert len(set(worn)) == len(worn)
    for row in faces:
        image = images[row["path"]]
        assert row["image_id"] == image["image_id"]
        assert image["verdict"] == "anonymized"
        size = np.array([image["width"], image["height"]] * 2)
        assert np.allclose(row["face_bboxes"], np.clip(row["box"] / size, 0, 1), atol=1e-6)
        assert row["verdict"] in ("replaced", "redacted")
        assert row["access_reason"] is None
        assert (row["verdict"] == "redacted") == (row["reason"] is not None) == (row["redacted_area"] is not None)
        if row["verdict"] == "replaced":
            assert {one["recognizer"] for one in row["certificates"]} == {"sface", "dlib"}
            assert all(one["max_similarity"] < one["threshold"] for one in row["certificates"])
            assert row["similarity_to_original"] < row["threshold"]
    identities = {row["identity_id"]: row["uses"] for row in published.rows("identities")}
    assert identities == Counter(row["identity_id"] for row in faces if row["identity_id"])
    # most faces here are good ones: covering them all would be no result
    assert sum(row["verdict"] == "replaced" for row in faces) >= len(faces) * 2 / 3


def test_the_manifest_counts_what_the_tables_hold(published: Published) -> None:
    manifest = json.loads((published.out / "manifest.json").read_text())
    images, faces = published.rows("images"), published.rows("faces")
    counts = manifest["counts"]
    assert counts["images"] == Counter(row["verdict"] for row in images)
    assert counts["faces"] == Counter(row["verdict"] for row in faces)
    assert counts["redacted"] == Counter(row["reason"] for row in faces if row["verdict"] == "redacted")
    assert counts["failed"] == Counter(row["reason"] for row in images if row["verdict"] in ("failed", "withheld"))
    assert counts["attempts"] == sum(row["attempts"] for row in faces)
    assert counts["identities"] == {"pool": 12, "used": len(published.rows("identities"))}
    assert manifest["config"]["find"]["max_pixels"] == 100_000_000
    for guard in manifest["guard"]:
        certificates = [c for row in faces for c in row["certificates"] if c["recognizer"] == guard["recognizer"]]
        assert {(c["index_digest"], c["generation"]) for c in certificates} == {(guard["index_digest"], guard["generation"])}
        assert {c["threshold"] for c in certificates} == {np.float32(guard["threshold"])}


def test_nothing_private_is_in_out(published: Published, pack: ModelPack) -> None:
    files = published.files()
    tables = {"images": IMAGES, "faces": FACES, "identities": IDENTITIES}
    parts = {name for name in files if re.fullmatch(r"(images|faces|identities)/part-\d{5}\.parquet", name)}
    assert files.keys() - parts <= {"manifest.json", "README.md", "report/index.html", "audit.json"}
    for name in parts:
        assert pq.read_schema(published.out / name).equals(tables[name.partition("/")[0]])
    # the pictures in the report are those of the tables, smaller
    shown = [base64.b64decode(text) for text in re.findall(rb"data:image/[a-z]+;base64,([A-Za-z0-9+/=]+)", files["report/index.html"])]
    assert shown
    key = (published.work / "pseudonym.key").read_bytes()
    secrets = [key, key.hex().encode(), SECRET]
    secrets += [data for path, data in published.originals.items() if EXPECTED[path][0] != "unchanged" and data]
    for name, data in [*files.items(), *(("a picture of the report", data) for data in shown)]:
        for secret in secrets:
            assert secret not in data, (name, secret[:40])
    real = [pack.analyse(decode(published.originals[path]).pixels).embeddings["sface"] for path in ("face.jpg", "pair.jpg")]
    for data in shown:
        faces = pack.analyse(decode(data).pixels).embeddings["sface"]
        # an original's thumbnail reaches 0.9, small pictures of the published ones stay near the threshold (0.363)
        assert (faces @ np.concatenate(real).T).max(initial=-1) < 0.55


def test_it_opens_as_its_readme_says(published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    duckdb, polars = pytest.importorskip("duckdb"), pytest.importorskip("polars")
    blocks = re.findall(r"```(\w+)\n(.*?)```", (published.out / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(published.out)
    (query,) = (text for language, text in blocks if language == "sql")
    assert {row[0]: row[1] for row in duckdb.sql(query).fetchall()} == Counter(row["verdict"] for row in published.rows("faces"))
    ((data,),) = duckdb.sql("SELECT image.bytes FROM 'images/*.parquet' WHERE path = 'pair.jpg'").fetchall()
    assert Image.open(io.BytesIO(data)).size == (1024, 512)

    space: dict[str, Any] = {}
    exec(next(text for language, text in blocks if "polars" in text), space)
    assert len(space["faces"]) == sum(row["verdict"] == "replaced" for row in published.rows("faces"))
    seen = polars.read_parquet("images/*.parquet")
    assert seen.height == len(EXPECTED)
    (struct,) = seen.filter(polars.col("path") == "turned.jpg")["image"].to_list()
    assert Image.open(io.BytesIO(struct["bytes"])).size == (400, 512)


def test_datasets_opens_it_as_its_readme_says(published: Published, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    blocks = re.findall(r"```python\n(.*?)```", (published.out / "README.md").read_text(), re.DOTALL)
    code = next(text for text in blocks if "load_dataset" in text)
    assert code.count('load_dataset("path/to/this/folder", ') == 2
    code = code.replace("path/to/this/folder", published.out.name) + (
        "by_path = {row['path']: row for row in images}\n"
        "print(len(images), len(faces), images.features['image'], by_path['turned.jpg']['image'].size, by_path['bad/empty.jpg']['image'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=published.out.parent,
        env=os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    faces = len(published.rows("faces"))
    assert re.fullmatch(rf"{len(EXPECTED)} {faces} Image\(.*\) \(400, 512\) None", done.stdout.strip()), done.stdout


@pytest.fixture(scope="module")
def audits(mfmc: Any, published: Published) -> dict[str, Any]:
    """The audit of what was published, and of a copy in which one picture is as it was; both at once."""
    forged = published.folder / "forged"
    shutil.copytree(published.out, forged)
    for file in (forged / "images").iterdir():
        rows = pq.read_table(file).to_pylist()
        for row in rows:
            if row["path"] == "face.jpg":
                row["image"] = {"bytes": published.originals["face.jpg"], "path": "face.jpg"}
        write_parquet(pa.Table.from_pylist(rows, schema=IMAGES), file)
    begun = mfmc.start("audit", published.out, "--actors", "1")
    # an audit holds WORK's lock
    shutil.copytree(published.work, published.folder / "forged-work", ignore=shutil.ignore_patterns("run.lock", "ray*"))
    run = json.loads((published.folder / "forged-work" / "run.json").read_text())
    (published.folder / "forged-work" / "run.json").write_text(json.dumps(run | {"out": str(forged)}))
    other = mfmc.start("audit", forged, "--work", published.folder / "forged-work", "--actors", "1")
    return {"true": mfmc.finish(begun), "forged": mfmc.finish(other)}


def test_the_audit_passes(audits: dict[str, Any], published: Published) -> None:
    assert audits["true"].returncode == 0, audits["true"].stdout + audits["true"].stderr
    assert "The promise holds" in audits["true"].stdout
    audit = json.loads((published.out / "audit.json").read_text())
    assert audit["passed"] is True
    assert all(check["ok"] for check in audit["checks"])
    assert sum(audit["totals"]["images"].values()) == len(EXPECTED)
    assert sum(audit["totals"]["faces"].values()) == len(published.rows("faces"))
    assert audit["totals"]["sources compared"] == sum(verdict in ("unchanged", "anonymized") for verdict, _, _ in EXPECTED.values())


def test_the_audit_finds_an_original(audits: dict[str, Any], published: Published) -> None:
    assert audits["forged"].returncode == 1, audits["forged"].stdout + audits["forged"].stderr
    assert "REFUTED" in audits["forged"].stdout
    audit = json.loads((published.folder / "forged" / "audit.json").read_text())
    assert audit["passed"] is False
    found = {check["name"]: check["examples"] for check in audit["checks"] if not check["ok"]}
    assert any("face.jpg#0: sface" in example and "to its original" in example for example in found["same-person matches"])
    assert found["pictures that are not what their verdict says"] == ["face.jpg: anonymized, but it shows the original"]
    assert len(found["published files changed since the run"]) == 1
    examples = [example for some in found.values() for example in some if not example.startswith("images/part-")]
    assert all(example.startswith("face.jpg") for example in examples), examples


def as_parquet(folder: Path, pictures: dict[str, bytes]) -> tuple[str, dict[str, str]]:
    """As `datasets` writes it: the name of a row's picture may be missing."""
    rows = [
        {"label": 1, "image": {"bytes": pictures["face.jpg"], "path": "face.jpg"}},
        {"label": 0, "image": {"bytes": pictures["cup.jpg"], "path": None}},
    ]
    schema = pa.schema(
        [("label", pa.int64()), ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))],
        metadata={"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}}}})},
    )
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "train.parquet")
    return str(folder / "train.parquet"), {"train.parquet/face.jpg": "anonymized", "train.parquet/00000001": "unchanged"}


def as_tar(folder: Path, pictures: dict[str, bytes]) -> tuple[str, dict[str, str]]:
    with tarfile.open(folder / "000.tar", "w") as tar:
        for name, data in {**pictures, "face.txt": b"a face", "broken.png": b"\x89PNG\r\n\x1a\n"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(folder), {"000.tar/face.jpg": "anonymized", "000.tar/cup.jpg": "unchanged", "000.tar/broken.png": "failed"}


def as_glob(folder: Path, pictures: dict[str, bytes]) -> tuple[str, dict[str, str]]:
    for name, data in pictures.items():
        (folder / "2026" / name[0]).mkdir(parents=True)
        (folder / "2026" / name[0] / name).write_bytes(data)
    (folder / "2026" / "f" / "face.png").write_bytes(save(Image.fromarray(astronaut()), "PNG"))
    return f"{folder}/*/[cf]/*.jpg", {"2026/f/face.jpg": "anonymized", "2026/c/cup.jpg": "unchanged"}


FORMS = (as_parquet, as_tar, as_glob)


@pytest.fixture(scope="module")
def forms(mfmc: Any, tmp_path_factory: pytest.TempPathFactory, pictures: dict[str, bytes]) -> dict[str, tuple[Path, dict[str, str], Any]]:
    """The same pictures in each form, anonymized at once, and without fakes: what is read does not depend on them."""
    begun = {}
    for form in FORMS:
        folder = tmp_path_factory.mktemp(form.__name__)
        (folder / "in").mkdir()
        given, wanted = form(folder / "in", pictures)
        begun[form.__name__] = folder, wanted, mfmc.start("anonymize", given, folder / "out", "--pseudonyms", "none", "--actors", "1")
    return {name: (folder, wanted, mfmc.finish(process)) for name, (folder, wanted, process) in begun.items()}


@pytest.mark.parametrize("form", [form.__name__ for form in FORMS])
def test_other_forms_of_a_collection(forms: dict[str, Any], pictures: dict[str, bytes], form: str) -> None:
    folder, wanted, done = forms[form]
    assert done.returncode == 0, done.stderr
    check_small(pq.read_table(folder / "out" / "images"), pq.read_table(folder / "out" / "faces"), wanted, pictures)


def check_small(images: pa.Table, faces: pa.Table, wanted: dict[str, str], pictures: dict[str, bytes]) -> None:
    rows = {row["path"]: row for row in images.to_pylist()}
    assert images.num_rows == len(wanted)
    assert {path: row["verdict"] for path, row in rows.items()} == wanted
    ids = {hashlib.sha256(data).hexdigest(): data for data in pictures.values()}
    for path, verdict in wanted.items():
        if verdict != "failed":
            original = ids[rows[path]["image_id"]]
            assert (rows[path]["image"]["bytes"] == original) == (verdict == "unchanged")
    (face,) = faces.to_pylist()
    assert wanted[face["path"]] == "anonymized"
    assert face["verdict"] in ("replaced", "redacted")


def test_from_s3_to_s3(mfmc: Any, tmp_path: Path, s3: S3, pictures: dict[str, bytes]) -> None:  # noqa: F811
    store = s3.filesystem()
    for name, data in pictures.items():
        store.pipe_file(f"{s3.bucket}/in/{name}", data)
    options = json.dumps({"key": "keyofmytest", "secret": "secretofmytest", "endpoint_url": s3.endpoint})
    place = ("--work", tmp_path / "work", "--storage-options", options, "--actors", "1")
    done = mfmc("anonymize", s3.url("in"), s3.url("out"), *place, *SMALL)
    assert done.returncode == 0, done.stderr
    files = {name.partition("/out/")[2]: store.cat_file(name) for name in store.find(f"{s3.bucket}/out")}
    tables = {
        name: pa.concat_tables([pq.read_table(pa.BufferReader(data)) for file, data in files.items() if file.startswith(name + "/")])
        for name in ("images", "faces")
    }
    check_small(tables["images"], tables["faces"], {"face.jpg": "anonymized", "cup.jpg": "unchanged"}, pictures)
    assert {"manifest.json", "README.md", "report/index.html", "identities/part-00000.parquet"} <= files.keys()
    assert not any(b"secretofmytest" in data for data in files.values())
    private = [path for path in (tmp_path / "work").rglob("*") if path.is_file()]
    assert not any(b"secretofmytest" in path.read_bytes() for path in private)
    assert sorted(store.find(f"{s3.bucket}/in")) == [f"{s3.bucket}/in/{name}" for name in sorted(pictures)]
    audit = mfmc("audit", s3.url("out"), *place)
    assert audit.returncode == 0, audit.stdout + audit.stderr
    assert json.loads(store.cat_file(f"{s3.bucket}/out/audit.json"))["passed"] is True
