"""What a bucket with versioning would give back after a night."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from s3 import S3, s3, s3_endpoint  # noqa: F401 (fixtures)

from mfmc_ray.ledger import Ledger, Stage
from mfmc_ray.versions import VersionsError, purge_versions

STAGE = Stage("anonymize", ("faces", "images"))


def part(text: str) -> dict[str, pa.Table]:
    return {"faces": pa.table({"x": [text]}), "images": pa.table({"x": [text * 100]})}


def versions(s3: S3) -> list[tuple[str, str]]:  # noqa: F811
    page = s3.filesystem().call_s3("list_object_versions", Bucket=s3.bucket)
    return [(one["Key"], one["VersionId"]) for kind in ("Versions", "DeleteMarkers") for one in page.get(kind, ())]


def test_no_version_of_what_was_replaced_or_removed_is_left(s3: S3, tmp_path: Any) -> None:  # noqa: F811
    fs = s3.filesystem()
    fs.call_s3("put_bucket_versioning", Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    fs.pipe_file(f"{s3.bucket}/output/theirs", b"beside OUT")
    fs.pipe_file(f"{s3.bucket}/output/theirs", b"and again")
    ledger = Ledger(s3.url("out"), str(tmp_path / "work"), s3.options)
    ledger.begin("c", "i")
    for text in ("leaked", "replaced"):
        for number in (0, 1):
            ledger.commit_part(STAGE, number, part(text), {})
    ledger.remove_part(STAGE, 1)
    assert len([key for key, _ in versions(s3) if key.startswith("out/")]) == 10  # two tables: two, two, and a mark each
    assert ledger.purge_versions() == 8
    assert [key for key, _ in versions(s3) if key.startswith("out/")] == ["out/faces/part-00000.parquet", "out/images/part-00000.parquet"]
    assert len([key for key, _ in versions(s3) if key.startswith("output/")]) == 2
    assert ledger.read_table(STAGE, "faces", 0)["x"].to_pylist() == ["replaced"]
    assert ledger.purge_versions() == 0


def test_out_may_be_a_whole_bucket(s3: S3) -> None:  # noqa: F811
    fs = s3.filesystem()
    fs.call_s3("put_bucket_versioning", Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    for text in (b"leaked", b"replaced"):
        fs.pipe_file(f"{s3.bucket}/images/part-00000.parquet", text)
    assert purge_versions(fs, s3.bucket) == 1
    assert len(versions(s3)) == 1


def test_other_stores_keep_none(s3: S3, tmp_path: Any) -> None:  # noqa: F811
    assert purge_versions(s3.filesystem(), f"{s3.bucket}/out") == 0
    assert Ledger(str(tmp_path / "out"), str(tmp_path / "work")).purge_versions() == 0


def test_a_store_that_refuses_is_an_error() -> None:
    class Refuses:
        def call_s3(self, method: str, **arguments: Any) -> Any:
            raise PermissionError(f"AccessDenied: {method}")

    with pytest.raises(VersionsError, match="s3:DeleteObjectVersion"):
        purge_versions(Refuses(), "bucket/out")
