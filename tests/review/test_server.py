"""The page's server: who gets what, and who gets nothing."""

from __future__ import annotations

import http.client
import json
import re
from typing import Any

import pytest
from made_result import Served

from mfmc_ray.codec import decode
from mfmc_ray.review import session as sessions
from mfmc_ray.review.decisions import APPROVE, REDACT, Reviews
from mfmc_ray.review.server import ReviewServer

Answer = tuple[int, dict[str, str], bytes]


def ask(served: Served, path: str, plain: Any = None, method: str = "", **headers: str) -> Answer:
    """What is answered to a request behind the token (of a path after "!": without it); `headers` with "_" for "-", "" for none."""
    server = served.server
    given = {"Host": f"127.0.0.1:{server.server_port}"}
    if plain is not None:
        given |= {"Content-Type": "application/json", "Origin": f"http://127.0.0.1:{server.server_port}"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    try:
        connection.putrequest(
            method or ("GET" if plain is None else "POST"), path[1:] if path[:1] == "!" else f"/{server.token}/{path}", True
        )
        body = b"" if plain is None else json.dumps(plain).encode()
        for name, value in {**given, **({"Content-Length": str(len(body))} if plain is not None else {})}.items():
            if value:
                connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def test_the_page_and_its_pictures(served: Served) -> None:
    status, headers, page = ask(served, "")
    assert status == 200
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert not [name for name in headers if name.lower().startswith("access-control")]
    (nonce,) = set(re.findall(rb'nonce="([^"]+)"', page))
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert policy.count(f"'nonce-{nonce.decode()}'") == 2
    assert b"http://" not in page.replace(b"http://www.w3.org/", b"")
    _, _, data = ask(served, "queue?kind=all&from=5&count=3")
    answer = json.loads(data)
    assert (len(answer["items"]), answer["total"]) == (3, 80)
    assert answer["items"][0]["number"] == 5
    kept = json.loads(ask(served, "queue?kind=kept&from=0&count=50")[2])
    assert kept["total"] == len(kept["items"]) == 9
    number = next(n for n, item in enumerate(served.session.queue.items) if item.face["path"] == "005.jpg")
    for view, status in (("after", 200), ("whole", 200), ("before", 404)):  # whose original is gone
        assert ask(served, f"picture/{number}/{view}")[0] == status
    other = ask(served, f"picture/{number + 1}/before")
    assert other[1]["Cross-Origin-Resource-Policy"] == "same-origin"
    assert decode(other[2]).pixels.mean() == pytest.approx(200, abs=2)


def test_nobody_else_gets_anything(served: Served) -> None:
    port = served.server.server_port
    refused = [
        (404, "", {"path": "!/"}),
        (404, "", {"path": f"!/{served.server.token[:-1]}x/"}),
        (421, "", {"Host": f"evil.example:{port}"}),
        (421, "", {"Host": "127.0.0.1"}),
        (421, "", {"Host": ""}),
        (403, "", {"Sec_Fetch_Site": "cross-site"}),
        (403, "picture/0/before", {"Sec_Fetch_Site": "same-site"}),
        (404, "../etc/passwd", {}),
        (404, "picture/0/secret", {}),
        (400, "picture/999/after", {}),
        (400, "picture/-1/after", {}),
        (400, "queue?from=x&count=1", {}),
        (400, "queue?kind=other&from=0&count=1", {}),
        (501, "", {"method": "OPTIONS"}),
        (501, "", {"method": "PUT"}),
    ]
    for status, path, more in refused:
        more = dict(more)
        assert ask(served, more.pop("path", path), **more)[0] == status, (path, more)
    decide = {"number": 0, "decision": REDACT}
    for status, plain, more in (
        (403, decide, {"Origin": "http://evil.example"}),
        (403, decide, {"Origin": "null"}),
        (403, decide, {"Origin": ""}),
        (415, decide, {"Content_Type": "text/plain"}),
        (413, decide | {"more": "x" * 20_000}, {}),
        (400, {"number": 1000, "decision": REDACT}, {}),
        (400, {"number": 0, "decision": "publish"}, {}),
        (404, {"number": "0", "decision": REDACT}, {}),
        (404, [0], {}),
    ):
        assert ask(served, "decide", plain, **more)[0] == status, (plain, more)
    assert ask(served, "undo", {})[0] == 400
    assert len(Reviews.load(served.work)) == 0


def test_two_servers_have_two_secrets(served: Served) -> None:
    with ReviewServer(served.session) as other:
        assert other.token != served.server.token
        assert len(other.token) >= 40
        assert other.url == f"http://127.0.0.1:{other.server_port}/{other.token}/"


def test_decisions_are_written_at_once_and_undone(served: Served) -> None:
    first = served.session.queue.items[0].face
    answer = json.loads(ask(served, "decide", {"number": 0, "decision": REDACT})[2])
    assert (answer["left"], answer["waiting"], answer["decision"], answer["beyond"]) == (79, 1, REDACT, 10)
    assert Reviews.load(served.work).last(first["image_id"], 0, first["box"]).decision == REDACT  # type: ignore[union-attr]
    assert json.loads(ask(served, "decide", {"number": 0, "decision": APPROVE})[2])["left"] == 79
    assert json.loads(ask(served, "undo", {})[2])["decision"] == REDACT
    answer = json.loads(ask(served, "undo", {})[2])
    assert (answer["left"], answer["decision"], answer["undo"]) == (80, None, False)
    assert len(Reviews.load(served.work)) == 0
    covered = next(n for n, item in enumerate(served.session.queue.items) if item.face["verdict"] == "redacted")
    assert ask(served, "decide", {"number": covered, "decision": "reswap"})[0] == 400  # a rule keeps it from being swapped


def test_nothing_is_decided_about_a_result_that_has_changed(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "FRESH_SECONDS", 0.0)
    served.fresh = False
    assert ask(served, "decide", {"number": 0, "decision": APPROVE})[0] == 409
    assert ask(served, "picture/0/after")[0] == 409
    assert len(Reviews.load(served.work)) == 0


def test_a_decision_that_cannot_be_written_is_not_made(served: Served) -> None:
    (served.work / "reviews").write_text("in the way")
    assert ask(served, "decide", {"number": 0, "decision": APPROVE})[0] == 507
    assert served.session.state()["left"] == 80
