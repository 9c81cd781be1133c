"""Old versions of objects: a bucket that keeps them would give back what was deleted or replaced."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

AT_ONCE = 1000
"""Versions that S3 deletes in one request."""
_NEVER = ("NoSuchBucket", "NotImplemented", "MethodNotAllowed")


class VersionsError(RuntimeError):
    """Old versions are there, or may be, and cannot be removed; the message says what to do."""


def purge_versions(fs: Any, root: str) -> int:
    """Removes every version but the newest of all objects under a prefix, and the marks of deleted ones.

    Args:
        fs: of fsspec. Only S3 is known to keep versions; nothing is done for others.
        root: bucket/prefix, as `fs` spells it.

    Returns:
        how many were removed.

    Raises:
        VersionsError: the store keeps versions and does not let them be listed or deleted.
    """
    if not hasattr(fs, "call_s3"):
        return 0
    bucket, _, prefix = root.partition("/")
    try:
        if "Status" not in fs.call_s3("get_bucket_versioning", Bucket=bucket):
            return 0  # never switched on
    except Exception as error:
        if _code(error) in _NEVER:
            return 0
        # who may not ask may be allowed to look
    try:
        old = list(_old(fs, bucket, prefix and prefix.rstrip("/") + "/"))
        for start in range(0, len(old), AT_ONCE):
            answer = fs.call_s3("delete_objects", Bucket=bucket, Delete={"Objects": old[start : start + AT_ONCE], "Quiet": True})
            if failed := answer.get("Errors"):
                raise VersionsError(f"the store refuses: {failed[0].get('Code')}")
    except Exception as error:
        if _code(error) in _NEVER:
            return 0
        raise VersionsError(
            f"the bucket {bucket} may keep old versions of what was replaced or deleted, and they cannot be removed ({error}): allow "
            "s3:ListBucketVersions and s3:DeleteObjectVersion, or give a bucket without versioning"
        ) from error
    return len(old)


def _old(fs: Any, bucket: str, prefix: str) -> Iterator[dict[str, str]]:
    where: dict[str, str] = {}
    while True:
        page = fs.call_s3("list_object_versions", Bucket=bucket, Prefix=prefix, **where)
        for version in page.get("Versions", ()):
            if not version["IsLatest"]:
                yield {"Key": version["Key"], "VersionId": version["VersionId"]}
        for mark in page.get("DeleteMarkers", ()):
            yield {"Key": mark["Key"], "VersionId": mark["VersionId"]}
        if not page.get("IsTruncated"):
            return
        where = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}


def _code(error: BaseException | None) -> str:
    """S3's word for an error, which s3fs hides behind an OSError."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return ""
