"""The page on which a result is reviewed: served to this machine only, to whoever knows the token in its address.

What is on it is private. So another user of the machine, who can reach the port, gets nothing without the token; a page of another site,
which the reviewer's browser may show, cannot reach it by a name of its own (the Host header is looked at), cannot read answers (no CORS),
cannot embed them and cannot make the browser send decisions (they are JSON, which another origin may not send unasked).
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socketserver
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jinja2

from mfmc_ray.review.pictures import VIEWS
from mfmc_ray.review.session import ChangedError, Session, WrongError

ADDRESS = "127.0.0.1"
MOST_BYTES, MOST_ITEMS = 10_000, 200
_SECONDS = 30.0


class ReviewServer(ThreadingHTTPServer):
    """Serves a session.

    Args:
        session: what is reviewed.
        port: of 127.0.0.1; 0: any that is free.

    Raises:
        OSError: the port cannot be used.
    """

    daemon_threads = True

    def __init__(self, session: Session, port: int = 0) -> None:
        self.session, self.token = session, secrets.token_urlsafe(32)
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("mfmc_ray.review"), autoescape=True, trim_blocks=True, lstrip_blocks=True
        )
        self.template = environment.get_template("review.html.j2")
        super().__init__((ADDRESS, port), _Handler)

    def server_bind(self) -> None:
        """Without asking a name server what this machine is called."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = ADDRESS, self.server_address[1]

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{ADDRESS}:{self.server_port}/{self.token}/"

    @property
    def hosts(self) -> tuple[str, ...]:
        """What a browser may call this server."""
        return f"{ADDRESS}:{self.server_port}", f"localhost:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle is no news."""


class _Refused(Exception):  # noqa: N818 (an answer)
    """The argument is the status."""


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "mfmc", ""
    timeout = _SECONDS

    def do_GET(self) -> None:
        with self._answering():
            name, query = self._asked()
            self._get(name, query)

    def do_POST(self) -> None:
        with self._answering():
            name, _ = self._asked()
            self._post(name, self._body())

    def _get(self, name: str, query: Mapping[str, list[str]]) -> None:
        if name == "":
            nonce = secrets.token_urlsafe(16)
            session = self.server.session
            page = self.server.template.render(
                nonce=nonce, kinds=session.kinds, queue=session.queue, state=session.state(), private=session.shows_originals
            )
            self._send(page.encode(), "text/html; charset=utf-8", nonce)
        elif name == "queue":
            given = {key: values[-1] for key, values in query.items()}
            start, count = (_number(given.get(key, "0")) for key in ("from", "count"))
            self._send_json(self.server.session.some(given.get("kind", "all"), start, min(count, MOST_ITEMS)))
        elif name.count("/") == 2 and name.startswith("picture/") and name.rpartition("/")[2] in VIEWS:
            _, number, view = name.split("/")
            picture = self.server.session.picture(_number(number), view)
            if picture is None:
                raise _Refused(HTTPStatus.NOT_FOUND)
            self._send(picture, "image/jpeg")
        else:
            raise _Refused(HTTPStatus.NOT_FOUND)

    def _post(self, name: str, plain: Any) -> None:
        if name == "decide" and isinstance(plain, dict) and isinstance(plain.get("number"), int):
            self._send_json(self.server.session.decide(plain["number"], str(plain.get("decision"))))
        elif name == "undo":
            self._send_json(self.server.session.undo())
        else:
            raise _Refused(HTTPStatus.NOT_FOUND)

    def _asked(self) -> tuple[str, dict[str, list[str]]]:
        """What is asked for by one who may ask: the path behind the token, and the query.

        Raises:
            _Refused: by anybody else.
        """
        if self.headers.get_all("Host", []) not in [[host] for host in self.server.hosts]:
            raise _Refused(HTTPStatus.MISDIRECTED_REQUEST)
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            raise _Refused(HTTPStatus.FORBIDDEN)
        address = urlsplit(self.path)
        token, _, name = address.path.removeprefix("/").partition("/")
        if not secrets.compare_digest(token.encode(), self.server.token.encode()):
            raise _Refused(HTTPStatus.NOT_FOUND)
        return name, parse_qs(address.query)

    def _body(self) -> Any:
        """The JSON of a request of this page's own.

        Raises:
            _Refused: it is none.
        """
        if self.headers.get("Origin", "").removeprefix("http://") not in self.server.hosts:
            raise _Refused(HTTPStatus.FORBIDDEN)
        if self.headers.get_content_type() != "application/json":
            raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        length = _number(self.headers.get("Content-Length", ""))
        if length > MOST_BYTES:
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        try:
            return json.loads(self.rfile.read(length))
        except ValueError:
            raise _Refused(HTTPStatus.BAD_REQUEST) from None

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        """Says why there is no answer, in a word."""
        try:
            yield
        except _Refused as refused:
            self._fail(refused.args[0])
        except WrongError:
            self._fail(HTTPStatus.BAD_REQUEST)
        except ChangedError:
            self._fail(HTTPStatus.CONFLICT)
        except OSError:  # the decision could not be written, or the browser has gone
            self._fail(HTTPStatus.INSUFFICIENT_STORAGE)

    def _fail(self, status: HTTPStatus) -> None:
        self.close_connection = True  # what was sent may not have been read
        with contextlib.suppress(OSError):
            self._send(status.phrase.encode(), "text/plain; charset=utf-8", status=status)

    def _send_json(self, plain: Any) -> None:
        self._send(json.dumps(plain).encode(), "application/json")

    def _send(self, data: bytes, kind: str, nonce: str = "", status: HTTPStatus = HTTPStatus.OK) -> None:
        own = f"'nonce-{nonce}'" if nonce else "'none'"
        policy = f"default-src 'none'; img-src 'self' data:; connect-src 'self'; script-src {own}; style-src {own}"
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(data)),
            "Cache-Control": "no-store",
            "Content-Security-Policy": f"{policy}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",  # the address holds the token
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
        }
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the argument's name)
        """Nothing: addresses hold the token."""


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise _Refused(HTTPStatus.BAD_REQUEST)
    return int(text)
