from __future__ import annotations

import errno
import ssl
from collections.abc import Callable
from typing import Any

import pytest

from mfmc_ray import retry
from mfmc_ray.retry import SHORT_TRIES, NoAnswerError, ShortError, StoreError, persist, transient


class ClientError(Exception):
    """As botocore's."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"{code} happened")
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


def translated(kind: Callable[..., OSError], status: int, code: str) -> OSError:
    """As s3fs does it."""
    error = kind("what the store said")
    error.__cause__ = ClientError(status, code)
    return error


def made(package: str, *names: str) -> Exception:
    """An exception of a client's package, whose last class has the last name."""
    kind: Any = Exception
    for name in names:
        kind = type(name, (kind,), {"__module__": f"{package}.exceptions"})
    error: Exception = kind("no")
    return error


class Failing:
    """Raises these one after the other, then gives 7."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.calls = list(errors), 0

    def __call__(self) -> int:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return 7


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that moves by what is slept."""
    slept: list[float] = []
    monkeypatch.setattr(retry.time, "sleep", slept.append)
    monkeypatch.setattr(retry.time, "monotonic", lambda: sum(slept))
    return slept


TRANSIENT = [
    translated(OSError, 500, "InternalError"),
    translated(OSError, 503, "SlowDown"),
    translated(OSError, 429, "429"),
    translated(OSError, 400, "RequestTimeout"),
    translated(OSError, 400, "XAmzContentSHA256Mismatch"),
    made("botocore", "BotoCoreError", "HTTPClientError", "ReadTimeoutError"),
    made("botocore", "BotoCoreError", "ConnectionError", "EndpointConnectionError"),
    made("botocore", "FlexibleChecksumError"),
    made("aiohttp", "ClientError", "ClientPayloadError"),
    ConnectionResetError(errno.ECONNRESET, "reset"),
    TimeoutError("slow"),
    ShortError("3 of 4 bytes came"),
    OSError(errno.ESTALE, "stale file handle"),
]
OF_ONE_OBJECT = [
    translated(FileNotFoundError, 404, "NoSuchKey"),
    translated(PermissionError, 403, "AccessDenied"),
    translated(OSError, 416, "InvalidRange"),
    translated(OSError, 501, "NotImplemented"),
    FileNotFoundError("gone"),
    OSError(errno.ENOSPC, "full"),
    ValueError("ours"),
]
OF_THE_STORE = [
    (translated(PermissionError, 403, "ExpiredToken"), "have expired"),
    (translated(PermissionError, 403, "SignatureDoesNotMatch"), "credentials for s3://b are wrong"),
    (made("botocore", "NoCredentialsError"), "AWS_ACCESS_KEY_ID.*--storage-options"),
    (translated(FileNotFoundError, 404, "NoSuchBucket"), "bucket was not found"),
    (translated(OSError, 301, "PermanentRedirect"), "AWS_DEFAULT_REGION"),
    (made("botocore", "ConnectionError", "SSLError"), "certificate"),
]


@pytest.mark.parametrize("error", TRANSIENT, ids=repr)
def test_what_is_tried_again(error: Exception) -> None:
    assert transient(error)
    call = Failing(error, error, error)
    assert persist(call, "s3://b") == 7
    assert call.calls == 4


@pytest.mark.parametrize("error", OF_ONE_OBJECT, ids=repr)
def test_what_is_not(error: Exception) -> None:
    call = Failing(error)
    with pytest.raises(type(error)) as raised:
        persist(call, "s3://b")
    assert raised.value is error
    assert call.calls == 1


@pytest.mark.parametrize(("error", "words"), OF_THE_STORE, ids=repr)
def test_what_no_object_is_to_blame_for(error: Exception, words: str) -> None:
    call = Failing(error)
    with pytest.raises(StoreError, match=words) as raised:
        persist(call, "s3://b")
    assert not isinstance(raised.value, NoAnswerError)
    assert call.calls == 1


def test_waits_grow_and_end(quick: list[float]) -> None:
    call = Failing(*(translated(OSError, 500, "InternalError") for _ in range(100)))
    with pytest.raises(NoAnswerError, match=r"store at s3://b does not answer \(InternalError 500\); run the same command again"):
        persist(call, "s3://b", 60)
    assert 59 < sum(quick) < 61
    assert all(0.25 * 2**i <= wait <= 0.5 * 2**i for i, wait in enumerate(quick[:5]))
    assert max(quick) <= retry.LONGEST_WAIT
    assert call.calls == len(quick) + 1


def test_an_overloaded_store_is_no_objects_fault() -> None:
    with pytest.raises(StoreError) as raised:
        persist(Failing(*(translated(OSError, 503, "SlowDown") for _ in range(100))), "s3://b", 5)
    assert not isinstance(raised.value, NoAnswerError)


def test_an_object_that_stays_short_is_damaged() -> None:
    call = Failing(*(ShortError("3 of 4 bytes came") for _ in range(100)))
    with pytest.raises(ShortError):
        persist(call, "s3://b", 1000)
    assert call.calls == SHORT_TRIES


def test_a_certificate_is_not_waited_for() -> None:
    error = OSError("cannot connect")
    error.__cause__ = made("aiohttp", "ClientConnectionError", "ClientSSLError")
    assert not transient(error)
    assert not transient(ssl.SSLCertVerificationError("self-signed"))
