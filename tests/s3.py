"""An S3 server for tests: import the fixture `s3` where it is needed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class S3:
    """An empty bucket of a moto server on this machine."""

    bucket: str
    endpoint: str

    @property
    def options(self) -> dict[str, Any]:
        """Storage options for fsspec."""
        return {"key": "test", "secret": "test", "endpoint_url": self.endpoint}

    def filesystem(self) -> Any:
        """What fsspec opens the bucket with; it keeps no listings."""
        import s3fs

        return s3fs.S3FileSystem(**self.options, use_listings_cache=False)

    def url(self, name: str) -> str:
        return f"s3://{self.bucket}/{name}"


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The server's address."""
    pytest.importorskip("s3fs", reason="needs the s3 extra")
    server = pytest.importorskip("moto.server", reason="needs moto[server]").ThreadedMotoServer(
        ip_address="127.0.0.1", port=0, verbose=False
    )
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_endpoint: str) -> S3:
    """A new, empty bucket."""
    bucket = S3(f"test-{uuid.uuid4().hex}", s3_endpoint)
    bucket.filesystem().mkdir(bucket.bucket)
    return bucket
