from __future__ import annotations

import io
import os
import random
import string
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from s3 import S3, s3, s3_endpoint  # noqa: F401 (fixtures)

from mfmc_ray import sources as module
from mfmc_ray.collection import Collection, CollectionError
from mfmc_ray.sources import Source, SourceError, SourceReader, Unit, escape, image_column, read_unit, unescape
from mfmc_ray.tables import LOCATOR


def picture(seed: int, kind: str = "JPEG", size: int = 24) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def read_all(collection: Collection, options: dict[str, Any] | None = None) -> list[Source]:
    return [source for unit in collection.units() for source in read_unit(unit, options)]


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@contextmanager
def no_superuser() -> Iterator[None]:
    """Permissions mean nothing to root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@given(
    st.binary(max_size=30).filter(lambda b: b"/" not in b and b"\0" not in b)
    | st.text("%28E9e5\udc85\udce9é.", max_size=12).map(os.fsencode)
)
def test_escape_is_reversible_and_utf8(raw: bytes) -> None:
    name = os.fsdecode(raw)
    escaped = escape(name)
    escaped.encode("utf-8")
    assert os.fsencode(unescape(escaped)) == raw


@pytest.mark.parametrize("name", ["photo.jpg", "100%.jpg", "a%20b.jpg", "日本.jpg", "x%e9.png"])
def test_escape_leaves_usual_names(name: str) -> None:
    assert escape(name) == name


@pytest.mark.parametrize(
    ("kind", "known"),
    [
        ("JPEG", True),
        ("PNG", True),
        ("GIF", True),
        ("BMP", True),
        ("WEBP", True),
        ("TIFF", True),
        ("PPM", True),
        ("JPEG2000", True),
        ("AVIF", True),
        ("PDF", False),
    ],
)
def test_first_bytes_tell_images(kind: str, known: bool) -> None:
    assert module.looks_like_image(picture(0, kind)[:32]) is known


@pytest.mark.parametrize(
    "head",
    [b"", b"BMW is a car maker and so on, much text", b"P1 is not", b"\0\0\0\x20ftypisom\0\0\2\0", b"RIFF\0\0\0\0WAVEfmt ", b"%PDF-1.4"],
)
def test_first_bytes_tell_other_files(head: bytes) -> None:
    assert not module.looks_like_image(head)


def test_folder(tmp_path: Path) -> None:
    root = tmp_path / "in"
    (root / "b" / "deep").mkdir(parents=True)
    (root / ".git").mkdir()
    images = {
        "a.jpg": picture(1),
        "b/deep/c.PNG": picture(2, "PNG"),
        "b/noextension": picture(3),
        "b/photo.orig": picture(4),
        "z.webp": picture(5, "WEBP"),
    }
    for name, data in images.items():
        (root / name).write_bytes(data)
    (root / "empty.jpg").touch()
    for name in ("a.json", "notes.txt", ".hidden.jpg", ".git/d.jpg", "b/words", "b/movie.mp4", "LICENSE"):
        (root / name).write_text("BM words")
    os.mkfifo(root / "pipe.jpg")
    collection = Collection.open(str(root))
    found = list(collection.units())
    assert [u.path for u in found] == ["a.jpg", "empty.jpg", "z.webp", "b/noextension", "b/photo.orig", "b/deep/c.PNG"]
    assert {u.kind for u in found} == {"file"}
    assert collection.skipped == {"sidecar": 3, "hidden": 1, "hidden folder": 1, "not an image": 2, "not a regular file": 1}
    read = {s.path: s.data for s in read_all(collection)}
    assert read == {**images, "empty.jpg": b""}
    info = (root / "a.jpg").stat()
    assert (found[0].size, found[0].version) == (info.st_size, str(info.st_mtime_ns))
    assert list(collection.units()) == found  # again, the same
    assert collection.skipped.total() == 8


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    names = [b"\xff\xfe.jpg", b"%E9.jpg", b"\xe9.jpg", "é.jpg".encode()]
    for seed, name in enumerate(names):
        (folder / os.fsdecode(name)).write_bytes(picture(seed))
    with tarfile.open(folder / "t.tar", "w", errors="surrogateescape") as tar:
        info = tarfile.TarInfo(os.fsdecode(b"m\xe9.jpg"))
        info.size = len(picture(9))
        tar.addfile(info, io.BytesIO(picture(9)))
    collection = Collection.open(str(folder))
    sources = read_all(collection)
    pa.array([s.path for s in sources] + [s.unit for s in sources], pa.string()).validate(full=True)
    paths = {s.path: s.data for s in sources}
    assert paths == {**{escape(os.fsdecode(n)): picture(i) for i, n in enumerate(names)}, "t.tar/m%E9.jpg": picture(9)}
    assert len(paths) == 5
    reader = SourceReader()
    assert all(reader.read(s.unit, s.locator) == s.data for s in sources)


def test_links(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "in"
    outside.mkdir()
    root.mkdir()
    (outside / "o.jpg").write_bytes(picture(1))
    (root / "link.jpg").symlink_to(outside / "o.jpg")
    (root / "dangling.jpg").symlink_to(root / "nothing")
    (root / "self.jpg").symlink_to(root / "self.jpg")
    (root / "loop").symlink_to(root)
    (root / "away").symlink_to(outside)
    collection = Collection.open(str(root))
    read = {s.path: (s.data, s.error) for s in read_all(collection)}
    assert read == {"link.jpg": (picture(1), None), "dangling.jpg": (None, "vanished"), "self.jpg": (None, "unreadable: OSError")}
    assert collection.skipped == {"link to a folder": 2}


def test_tar(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as tar:

        def add(name: str, data: bytes = b"", **fields: Any) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in fields.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data))

        add("./000.jpg", picture(0))
        add("000.json", b"{}")
        add("../../etc/001.png", picture(1, "PNG"))
        add("l" * 180 + ".jpg", picture(2))
        add("002.cls", b"3")
        add("003", picture(3))
        add("004", b"text")
        add("dir.jpg", type=tarfile.DIRTYPE)
        add("sym.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add("dev.jpg", type=tarfile.CHRTYPE)
        add("000.jpg", picture(4))
        add("empty.jpg")
        add("._000.jpg", b"mac")
    sources = read_all(Collection.open(str(path)))
    assert {s.path: s.data for s in sources if s.error is None} == {
        "s.tar/000.jpg": picture(0),
        "s.tar/etc/001.png": picture(1, "PNG"),
        "s.tar/" + "l" * 180 + ".jpg": picture(2),
        "s.tar/003": picture(3),
        "s.tar/000.jpg#2": picture(4),
        "s.tar/empty.jpg": b"",
    }
    assert {s.path: (s.error or "").split(":")[0] for s in sources if s.error} == {
        "s.tar/sym.jpg": "not_a_file",
        "s.tar/dev.jpg": "not_a_file",
    }
    raw, reader = path.read_bytes(), SourceReader()
    pa.array([s.locator for s in sources], LOCATOR).validate(full=True)
    for s in sources:
        if s.error is None:
            assert raw[s.locator["offset"] :][: s.locator["length"]] == s.data == reader.read(s.unit, s.locator)


def test_no_two_members_of_a_shard_have_the_same_path(tmp_path: Path) -> None:
    """Not even if one is called as a doubled name would be: a path is what a row of OUT is kept, changed and removed by."""
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for i, name in enumerate(("a.jpg", "a.jpg", "a.jpg#2", "b.jpg#2", "b.jpg", "b.jpg")):
            info = tarfile.TarInfo(name)
            info.size = len(picture(i))
            tar.addfile(info, io.BytesIO(picture(i)))
    paths = [source.path for source in read_all(Collection.open(str(tmp_path / "s.tar")))]
    assert paths == [f"s.tar/{name}" for name in ("a.jpg", "a.jpg#2", "a.jpg#2#2", "b.jpg#2", "b.jpg", "b.jpg#3")]


@pytest.mark.parametrize("damage", ["cut data", "cut header", "bad header", "not a tar", "gzip", "nothing"])
def test_damaged_tar_keeps_what_came_before(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "s.tar"
    write_tar(path, {f"{i}.jpg": picture(i) for i in range(4)})
    raw = bytearray(path.read_bytes())
    second = raw.index(b"2.jpg\0")
    before = 2
    if damage == "cut data":
        raw = raw[: second + 600]
    elif damage == "cut header":
        raw = raw[: second + 100]
    elif damage == "bad header":
        raw[second : second + 512] = b"x" * 512
    elif damage == "not a tar":
        raw, before = bytearray(b"words " * 500), 0
    elif damage == "gzip":
        raw, before = bytearray(b"\x1f\x8b\x08" + bytes(2000)), 0
    else:
        raw, before = bytearray(), 0
    path.write_bytes(raw)
    sources = list(read_unit(next(Collection.open(str(path)).units())))
    assert [s.data for s in sources if s.error is None] == [picture(i) for i in range(before)]
    errors = [s for s in sources if s.error]
    assert len(errors) == 1
    assert errors[0].error is not None
    assert errors[0].error.startswith("damaged_tar")


def test_compressed_tars_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))
    with pytest.raises(CollectionError, match="decompress"):
        Collection.open(str(tmp_path / "s.tar.gz"))
    (source,) = read_all(Collection.open(str(tmp_path)))
    assert source.error is not None
    assert source.error.startswith("compressed_tar")


@pytest.mark.parametrize(
    "kind", [pa.binary(), pa.large_binary(), pa.binary_view(), pa.struct([("bytes", pa.binary()), ("path", pa.string())])]
)
def test_parquet(tmp_path: Path, kind: pa.DataType) -> None:
    images = [picture(i) if i != 7 else None for i in range(25)]
    names = [f"p{i % 20}.jpg" if i != 3 else None for i in range(25)]
    struct = pa.types.is_struct(kind)
    values = [{"bytes": b, "path": n} for b, n in zip(images, names, strict=True)] if struct else images
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"key": range(25), "picture": pa.array(values, kind)}), path, row_group_size=10)
    sources = read_all(Collection.open(str(path)))
    assert [s.data for s in sources] == images
    assert [(s.locator["group"], s.locator["index"]) for s in sources] == [(i // 10, i % 10) for i in range(25)]
    assert sources[7].error == "no_bytes"
    assert len({s.path for s in sources}) == 25
    assert sources[4].path == ("x.parquet/p4.jpg" if struct else "x.parquet/00000004")
    assert sources[3].path == "x.parquet/00000003"
    reader = SourceReader()
    order = [i for i in [*range(25), *random.Random(0).sample(range(25), 25)] if i != 7]
    assert [reader.read(sources[i].unit, sources[i].locator) for i in order] == [images[i] for i in order]
    with pytest.raises(SourceError, match="no_bytes"):
        reader.read(sources[7].unit, sources[7].locator)


def test_parquet_of_datasets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    for i in range(5):
        (tmp_path / f"{i}.png").write_bytes(picture(i, "PNG"))
    features = datasets.Features({"image": datasets.Value("binary"), "photograph": datasets.Image()})
    rows = {"image": [b"x"] * 5, "photograph": [str(tmp_path / f"{i}.png") for i in range(5)]}
    made = datasets.Dataset.from_dict(rows, features=features)
    made.to_parquet(tmp_path / "linked.parquet")
    made.with_format("arrow").map(datasets.table.embed_table_storage, batched=True).to_parquet(tmp_path / "hf.parquet")
    sources = read_all(Collection.open(str(tmp_path / "hf.parquet")))
    assert [(s.path, s.data) for s in sources] == [(f"hf.parquet/{i}.png", picture(i, "PNG")) for i in range(5)]
    linked = read_all(Collection.open(str(tmp_path / "linked.parquet")))
    assert [(s.path, s.error) for s in linked] == [(f"linked.parquet/{i}.png", "no_bytes") for i in range(5)]


def test_parquet_rows_are_decoded_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_BYTES", 1_000_000)
    blobs = [random.Random(i).randbytes(10_000) for i in range(4000)]
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"image": blobs}), path, row_group_size=4000, compression="none", use_dictionary=False)
    units = list(Collection.open(str(path)).units())
    before = pa.total_allocated_bytes()
    high = 0
    for i, source in enumerate(read_unit(units[0])):
        assert source.data == blobs[i]
        high = max(high, pa.total_allocated_bytes() - before)
    assert 0 < high < 20_000_000  # of 40 MB: a page (10 MB) and a few batches


def test_damaged_parquet(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    blobs = [random.Random(i).randbytes(5000) for i in range(30)]
    pq.write_table(pa.table({"image": blobs}), path, row_group_size=10, compression="zstd", use_dictionary=False)
    unit = next(Collection.open(str(path)).units())
    raw = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    raw[start : start + 400] = bytes(400)
    path.write_bytes(raw)
    sources = list(read_unit(unit))
    assert [s.data for s in sources if s.error is None] == blobs[:10] + blobs[20:]
    (error,) = [s.error for s in sources if s.error]
    assert error.endswith("10 rows of row group 1")
    path.write_bytes(raw[: len(raw) // 2])
    assert [s.error for s in read_unit(unit)] == ["damaged_parquet"]


@pytest.mark.parametrize(
    ("columns", "wanted"),
    [
        ({"a": pa.string(), "blob": pa.binary()}, "blob"),
        ({"mask": pa.binary(), "image": pa.binary()}, "image"),
        ({"meta": pa.struct([("x", pa.int32())]), "photo": pa.struct([("bytes", pa.binary()), ("path", pa.string())])}, "photo"),
        ({"x": pa.binary(), "y": pa.binary()}, "name one of x, y"),
        ({"a": pa.string()}, "no binary column"),
    ],
)
def test_image_column(columns: dict[str, pa.DataType], wanted: str) -> None:
    schema = pa.schema(list(columns.items()))
    if wanted in columns:
        assert image_column(schema) == wanted
    else:
        with pytest.raises(SourceError, match=wanted):
            image_column(schema)


def test_given_column_and_ambiguous_columns(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"x": [b"1"], "y": [b"2"]}), path)
    unit = next(Collection.open(str(path)).units())
    assert [s.data for s in read_unit(unit, column="y")] == [b"2"]
    assert [s.error for s in read_unit(unit)] == ["no_image_column: name one of x, y"]
    assert [s.error for s in read_unit(unit, column="z")] == ["no_image_column: there is no z"]


def test_mixed_folder_globs_and_braces(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.jpg").write_bytes(picture(0))
    pq.write_table(pa.table({"image": [picture(1)]}), tmp_path / "sub" / "b.parquet")
    for i in range(12):
        write_tar(tmp_path / f"t-{i:03d}.tar", {"x.jpg": picture(10 + i)})
    assert [(u.path, u.kind) for u in Collection.open(str(tmp_path)).units()][-3:] == [
        ("t-011.tar", "tar"),
        ("sub/a.jpg", "file"),
        ("sub/b.parquet", "parquet"),
    ]

    def paths(pattern: str) -> list[str]:
        return [s.path for s in read_all(Collection.open(f"{tmp_path}/{pattern}"))]

    assert paths("t-{009..011}.tar") == [f"t-{i:03d}.tar/x.jpg" for i in (9, 10, 11)]
    assert paths("t-00[12].tar") == ["t-001.tar/x.jpg", "t-002.tar/x.jpg"]
    assert paths("{t-000,sub/b}.*") == ["t-000.tar/x.jpg", "sub/b.parquet/00000000"]
    assert paths("s*") == ["sub/a.jpg", "sub/b.parquet/00000000"]
    assert paths("**/*.jpg") == ["sub/a.jpg"]
    assert len(paths("**")) == 14
    with pytest.raises(CollectionError, match="not found"):
        paths("t-{012..013}.tar")


def test_a_literal_name_wins_over_a_pattern(tmp_path: Path) -> None:
    folder = tmp_path / "a[1]{x,y}*"
    folder.mkdir()
    (folder / "p.jpg").write_bytes(picture(0))
    assert [u.path for u in Collection.open(str(folder)).units()] == ["p.jpg"]


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match="not found"):
        Collection.open(str(tmp_path / "nowhere"))
    with pytest.raises(CollectionError, match="not found"):
        Collection.open(str(tmp_path / "*.jpg"))
    with pytest.raises(CollectionError, match="no images in it"):
        Collection.open(str(tmp_path))
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(CollectionError, match="1 × sidecar"):
        Collection.open(str(tmp_path))


def test_permissions(tmp_path_factory: pytest.TempPathFactory) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        (root / "ok.jpg").write_bytes(picture(0))
        for file in ("secret.jpg", "secret"):
            (root / file).write_bytes(picture(1))
            (root / file).chmod(0)
        (root / "shut").mkdir(mode=0)
        with no_superuser():
            collection = Collection.open(name)
            assert [(s.path, s.error) for s in read_all(collection)] == [
                ("ok.jpg", None),
                ("secret", "no_permission"),
                ("secret.jpg", "no_permission"),
            ]
            assert collection.skipped == {"folder without permission": 1}
            with pytest.raises(CollectionError, match="no permission"):
                Collection.open(f"{name}/shut")


def test_vanished_and_too_large(tmp_path: Path) -> None:
    write_tar(tmp_path / "t.tar", {"big.jpg": bytes(5000), "small.jpg": picture(1)})
    (tmp_path / "big.jpg").write_bytes(bytes(5000))
    pq.write_table(pa.table({"image": [bytes(5000), picture(2)]}), tmp_path / "p.parquet")
    (tmp_path / "gone.jpg").write_bytes(picture(0))
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(2 << 30)  # sparse
    units = list(Collection.open(str(tmp_path)).units())
    (tmp_path / "gone.jpg").unlink()
    found = {s.path: s.error for u in units for s in read_unit(u, max_bytes=4000)}
    assert found == {
        "big.jpg": "too_large",
        "gone.jpg": "vanished",
        "huge.jpg": "too_large",
        "p.parquet/00000000": "too_large",
        "p.parquet/00000001": None,
        "t.tar/big.jpg": "too_large",
        "t.tar/small.jpg": None,
    }
    assert [s.error for u in units if u.path == "huge.jpg" for s in read_unit(u)] == ["too_large"]
    reader = SourceReader(max_bytes=4000)
    for name, word in (("gone.jpg", "vanished"), ("big.jpg", "too_large"), ("huge.jpg", "too_large")):
        with pytest.raises(SourceError, match=word):
            reader.read(str(tmp_path / name), {"kind": "file"})


def test_missing_s3fs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    for name in ("s3", "s3a"):
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, name, raising=False)
    with pytest.raises(CollectionError, match=r"pip install mfmc-ray\[s3\]"):
        Collection.open("s3://bucket/prefix")


def test_s3(s3: S3, tmp_path: Path) -> None:  # noqa: F811
    fs = s3.filesystem()
    images = {f"in/{c}/{i}.jpg": picture(i) for i, c in enumerate(string.ascii_lowercase[:3])} | {
        "in/é%E9.jpg": picture(7),
        "in/plain": picture(8),
    }
    for name, data in images.items():
        fs.pipe_file(f"{s3.bucket}/{name}", data)
    fs.pipe_file(f"{s3.bucket}/in/", b"")  # what consoles make for a folder
    fs.pipe_file(f"{s3.bucket}/in/notes.txt", b"x")
    fs.pipe_file(f"{s3.bucket}/in/zero.jpg", b"")
    fs.pipe_file(f"{s3.bucket}/other.jpg", picture(9))
    write_tar(tmp_path / "t.tar", {"m.jpg": picture(20), "n.jpg": picture(21)})
    fs.put_file(tmp_path / "t.tar", f"{s3.bucket}/in/t.tar")
    pq.write_table(pa.table({"image": [picture(30), picture(31)]}), tmp_path / "p.parquet")
    fs.put_file(tmp_path / "p.parquet", f"{s3.bucket}/in/p.parquet")
    collection = Collection.open(s3.url("in"), s3.options)
    sources = read_all(collection, s3.options)
    wanted = {escape(n.removeprefix("in/")): d for n, d in images.items()} | {"zero.jpg": b""}
    wanted |= {"t.tar/m.jpg": picture(20), "t.tar/n.jpg": picture(21), "p.parquet/00000000": picture(30), "p.parquet/00000001": picture(31)}
    assert {s.path: s.data for s in sources} == wanted
    assert collection.skipped == {"sidecar": 1}
    units = list(collection.units())
    assert units == list(Collection.open(s3.url("in/"), s3.options).units())
    assert all(len(u.version) == 32 for u in units)  # md5 etags
    reader = SourceReader(s3.options)
    assert all(reader.read(s.unit, s.locator) == s.data for s in sources)
    assert [u.path for u in Collection.open(s3.url("in/*.jpg"), s3.options).units()] == [escape("zero.jpg"), escape("é%E9.jpg")]
    assert [u.path for u in Collection.open(s3.url("in/{a,c}/*"), s3.options).units()] == ["a/0.jpg", "c/2.jpg"]
    fs.rm(f"{s3.bucket}/in/a/0.jpg")
    gone = next(u for u in units if u.path == "a/0.jpg")
    assert [s.error for s in read_unit(gone, s3.options)] == ["vanished"]
    for nowhere in (s3.url("nothing"), "s3://no-such-bucket/in"):
        with pytest.raises(CollectionError, match="not found"):
            Collection.open(nowhere, s3.options)


def test_unit_is_enough_to_read(tmp_path: Path) -> None:
    """A unit that came back from a table, without the collection."""
    (tmp_path / "a.jpg").write_bytes(picture(0))
    unit = Unit(str(tmp_path / "a.jpg"), "file", -1, "", "a.jpg")
    assert [s.data for s in read_unit(unit)] == [picture(0)]
