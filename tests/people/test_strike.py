"""People leave tables that are the user's: their rows go, all else stays as it is."""

from __future__ import annotations

import stat
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mfmc_ray.people.registry import PeopleError
from mfmc_ray.people.strike import strike

CSV = (
    b'\xef\xbb\xbfrow,image,person,note\r\n1,a.jpg,ada,"two\r\nlines, \xe2\x80\xa8 ada"\r\n2,b.jpg, bob ,\r\n'
    b'\r\n3,"c ""x"".jpg",ada lovelace,ada\r\n4,d.jpg,"ada",'
)


def test_rows_leave_a_csv_and_the_rest_is_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "consents.csv"
    path.write_bytes(CSV)
    path.chmod(0o640)
    struck = strike(path, {"ada", "zoë"})
    assert struck.rows == 2
    assert dict(struck.elsewhere) == {"note": 1}
    assert path.read_bytes() == b'\xef\xbb\xbfrow,image,person,note\r\n2,b.jpg, bob ,\r\n\r\n3,"c ""x"".jpg",ada lovelace,ada\r\n'
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_ids_are_compared_as_everywhere(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("person,by\nZoe\u0308,x\nbob, viewer:Zoe\u0308\n")
    struck = strike(path, {"Zoë"})
    assert struck.rows == 1
    assert dict(struck.elsewhere) == {"by": 1}


def test_rows_leave_a_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table = pa.table({"person": pa.array([7, 8, None]), "n": pa.array([1.0, 7.0, 3.0]), "who": ["7", "7", "8"]})
    pq.write_table(table.replace_schema_metadata({"k": "v"}), path)
    struck = strike(path, {"7"})
    assert (struck.rows, dict(struck.elsewhere)) == (1, {"who": 1})
    left = pq.read_table(path)
    assert left.to_pydict() == {"person": [8, None], "n": [7.0, 3.0], "who": ["7", "8"]}
    assert left.schema.metadata[b"k"] == b"v"


def test_a_table_without_them_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("person\nbob\n")
    before = path.stat().st_mtime_ns, path.stat().st_ino
    assert strike(path, {"ada"}).rows == 0
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before


@pytest.mark.parametrize("data", [b"image,allow\na,1\n", b"", b"\xff\xfe", b"PAR1 broken"])
def test_what_is_no_such_table_is_left_alone(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(data)
    with pytest.raises(PeopleError):
        strike(path, {"ada"})
    assert path.read_bytes() == data
