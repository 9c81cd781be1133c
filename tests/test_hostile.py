"""Collections made to do harm: names that climb, links, and Parquet files that carry pickles."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bad_images import save
from PIL import Image

from mfmc_ray.collection import Collection
from mfmc_ray.sources import Source, SourceReader, read_unit

PICTURE = save(Image.new("RGB", (8, 8), (200, 30, 30)), "PNG")
NAMES = ["../../x.png", "/etc/x.png", "a/../../../x.png", "//x.png", "./..//../x.png", "a/./b/../x.png", "x\n/../../y.png", "..", "", "/"]
LONG = "../" * 90 + "n" * 120 + "é.png"  # needs a PAX header


def sources_of(path: Path) -> list[Source]:
    return [source for unit in Collection.open(str(path)).units() for source in read_unit(unit)]


def assert_stays(sources: list[Source], shard: str) -> None:
    """Every path is below its shard, and the only one of its name."""
    assert len({source.path for source in sources}) == len(sources)
    for source in sources:
        parts = PurePosixPath(source.path).parts
        assert parts[0] == shard
        assert ".." not in parts
        assert not source.path.startswith("/")
        assert os.path.normpath("/" + source.path).startswith(f"/{shard}")


def test_members_of_a_tar_cannot_escape(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.png").write_bytes(PICTURE)
    with tarfile.open(tmp_path / "in" / "s.tar", "w", format=tarfile.PAX_FORMAT) as tar:

        def add(name: str, data: bytes = PICTURE, **fields: Any) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in fields.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data))

        for name in NAMES:
            add(name)
        add(LONG)
        add("named.png", pax_headers={"path": "../../paxed.png"})
        target = str(tmp_path / "secret.png")
        for kind, name in ((tarfile.SYMTYPE, "sym.png"), (tarfile.LNKTYPE, "hard.png")):
            add(name, b"", type=kind, linkname=target)
            add("under-" + name, b"", type=kind, linkname="../secret.png")
        for kind, name in ((tarfile.CHRTYPE, "zero.png"), (tarfile.BLKTYPE, "disk.png"), (tarfile.FIFOTYPE, "pipe.png")):
            add(name, b"", type=kind, devmajor=1, devminor=5)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    sources = sources_of(tmp_path / "in")
    assert_stays(sources, "s.tar")
    read = {source.path for source in sources if source.data == PICTURE}
    assert {"s.tar/x.png", "s.tar/paxed.png", "s.tar/" + "n" * 120 + "é.png"} <= read
    refused = {source.path: source.error for source in sources if source.data is None}
    assert set(refused) == {f"s.tar/{n}.png" for n in ("sym", "hard", "under-sym", "under-hard", "zero", "disk", "pipe")}
    assert all((error or "").startswith("not_a_file") for error in refused.values())
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before  # nothing was unpacked
    reader = SourceReader()
    assert all(reader.read(source.unit, source.locator) == PICTURE for source in sources if source.data)


def test_names_in_a_parquet_file_cannot_escape(tmp_path: Path) -> None:
    rows = [{"bytes": PICTURE, "path": name} for name in [*NAMES, LONG, None]]
    pq.write_table(pa.table({"image": pa.array(rows)}), tmp_path / "s.parquet")
    sources = sources_of(tmp_path)
    assert len(sources) == len(rows)
    assert_stays(sources, "s.parquet")
    assert all(source.data == PICTURE for source in sources)


class Bomb:
    """Unpickled it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("name", ["arrow.py_extension_type", "mfmc.unknown", "arrow.json"])
def test_an_extension_type_in_a_parquet_file_is_not_unpickled(tmp_path: Path, name: str) -> None:
    mark = tmp_path / "it-ran"
    pickle.loads(pickle.dumps(Bomb(mark)))  # it does what it should
    assert mark.exists()
    mark.rmdir()
    (tmp_path / "in").mkdir()
    metadata = {"ARROW:extension:name": name, "ARROW:extension:metadata": pickle.dumps(Bomb(mark))}
    schema = pa.schema(
        [pa.field("label", pa.string(), metadata=metadata), pa.field("image", pa.binary(), metadata=metadata)],
        metadata={"pandas": pickle.dumps(Bomb(mark)), "huggingface": pickle.dumps(Bomb(mark))},
    )
    pq.write_table(pa.table({"label": ["{}"], "image": [PICTURE]}, schema=schema), tmp_path / "in" / "s.parquet")
    sources = sources_of(tmp_path / "in")
    assert not mark.exists()
    assert [source.data or source.error for source in sources] in ([PICTURE], ["damaged_parquet"])
