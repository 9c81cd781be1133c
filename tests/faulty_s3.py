"""A proxy before an S3 server that fails at a share of the requests, in the ways that stores and networks do, and counts how often."""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from s3 import S3

KINDS = ("500", "503", "429", "reset", "late", "slow", "stall", "short", "cut", "half")
"""late: done, but not answered; short: the body ends before its length; cut: a whole answer with part of the body; half: of what is put."""
_ANSWERS = {"500": "InternalError", "503": "SlowDown"}


class FaultyS3:
    """Forwards to an S3 server.

    Attributes:
        rate: share of the requests that fail, 0–1.
        kinds: what may happen to them.
        always: an S3 error code that answers everything, or "down": 503 to all; None: nothing.
        only: the part of a path to which faults and `always` are confined.
        down_after: after so many requests it is "down".
        page: names in one page of a listing, at most.
        requests: how many there were.
        injected: kind → how many were failed in that way.
    """

    def __init__(self, upstream: str, *, rate: float = 0.05, seed: int = 0, kinds: tuple[str, ...] = KINDS, stall: float = 3.0) -> None:
        self.upstream = upstream.removeprefix("http://")
        self.rate, self.kinds, self.stall = rate, kinds, stall
        self.always: str | None = None
        self.only = ""
        self.down_after: int | None = None
        self.page: int | None = None
        self.requests, self.injected = 0, Counter[str]()
        self._random, self._lock = random.Random(seed), threading.Lock()
        faulty = self

        class Handler(_Handler):
            proxy = faulty

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def over(self, bucket: S3) -> S3:
        """The bucket, through this proxy."""
        return S3(bucket.bucket, self.endpoint)

    def choose(self, method: str, path: str) -> str | None:
        """What happens to a request."""
        with self._lock:
            self.requests += 1
            if self.only not in path:
                return None
            if self.down_after is not None:
                self.down_after -= 1
                if self.down_after < 0:
                    self.always = "down"
            if self.always:
                return self.always
            if self._random.random() >= self.rate:
                return None
            fitting = [kind for kind in self.kinds if method == {"half": "PUT", "cut": "GET", "short": "GET"}.get(kind, method)]
            kind = self._random.choice(fitting) if fitting else None
            if kind:
                self.injected[kind] += 1
            return kind

    def share(self) -> float:
        with self._lock:
            return self._random.random()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultyS3

    def log_message(self, *_: Any) -> None:
        pass

    def do(self) -> None:
        body = self._body()
        kind = self.proxy.choose(self.command, self.path)
        if kind in ("500", "503"):
            self._refuse(int(kind), _ANSWERS[kind])
        elif kind == "down":
            self._refuse(503, "ServiceUnavailable")
        elif kind == "429":
            self._answer(429, {"Content-Type": "text/plain"}, b"Too many requests")
        elif kind == "reset":
            self._reset()
        elif kind is not None and kind not in KINDS:
            self._refuse(500 if kind == "InternalError" else 403, kind)
        else:
            self._forward(kind, body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _forward(self, kind: str | None, body: bytes) -> None:
        if kind == "slow":
            time.sleep(0.3)
        if kind == "stall":
            time.sleep(self.proxy.stall)
            self._reset()
            return
        if kind == "half" and "aws-chunked" not in self.headers.get("Content-Encoding", ""):
            body = body[: len(body) // 2]
        left_out = ("transfer-encoding", "content-length", "expect", "connection")
        headers = {name: value for name, value in self.headers.items() if name.lower() not in left_out}
        with contextlib.closing(http.client.HTTPConnection(self.proxy.upstream, timeout=60)) as upstream:
            path = self.path
            if self.proxy.page and "list-type=2" in path and "max-keys" not in path:
                path += f"&max-keys={self.proxy.page}"
            upstream.request(self.command, path, body, headers | {"Content-Length": str(len(body))})
            answer = upstream.getresponse()
            data = answer.read()
            got = {n: v for n, v in answer.getheaders() if n.lower() not in ("transfer-encoding", "connection", "date", "server")}
        if kind == "late":
            self._reset()
            return
        if kind in ("cut", "short") and self.command == "GET" and data:
            kept = data[: int(len(data) * self.proxy.share())]
            length = len(kept) if kind == "cut" else len(data)
            got = {n: v for n, v in got.items() if n.lower() != "content-length"} | {"Content-Length": str(length)}
            self._answer(answer.status, got, kept)
            if kind == "short":
                self._reset()
            return
        if self.command != "HEAD":
            got = {n: v for n, v in got.items() if n.lower() != "content-length"} | {"Content-Length": str(len(data))}
        self._answer(answer.status, got, data)

    def _refuse(self, status: int, code: str) -> None:
        text = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>as the test wants</Message></Error>'
        self._answer(status, {"Content-Type": "application/xml"}, text.encode())

    def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
        with contextlib.suppress(OSError):  # a client that waited too long is gone
            self.send_response_only(status)
            for name, value in ({"Content-Length": str(len(data))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

    def _reset(self) -> None:
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        self.close_connection = True


@contextlib.contextmanager
def faulty(upstream: str, **kwargs: Any) -> Iterator[FaultyS3]:
    """A proxy for a block."""
    proxy = FaultyS3(upstream, **kwargs)
    try:
        yield proxy
    finally:
        proxy.close()
