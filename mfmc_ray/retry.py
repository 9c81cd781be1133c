"""Trying again what a store failed at, and saying what is wrong when that does not help.

Three kinds of failure: of the store for now (5xx, throttling, timeouts, resets, fewer bytes than there are), which is tried again; of the
store for good (credentials, bucket, region), which ends the run at once; of one object (not there, access denied), which is the caller's.

Own code and not a library (tenacity would do the loop): the loop is ten lines, and what matters is telling the three apart.
"""

from __future__ import annotations

import errno
import logging
import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

PATIENCE = 180.0
"""Seconds from the first failure of an operation after which it is not begun again."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 20.0
"""Seconds between two tries: twice as long each time, less a random half, so that many workers do not come back at once."""
SHORT_TRIES = 6
"""How often fewer bytes than there are is tried again: an object that stays so is damaged, not the store."""

T = TypeVar("T")
_log = logging.getLogger(__name__)

_TRANSIENT_CLASSES = {
    # by name: object stores are an extra. HTTPClientError: read timeout, closed connection, broken stream
    *("botocore.HTTPClientError", "botocore.ConnectionError", "botocore.IncompleteReadError", "botocore.ResponseParserError"),
    *("botocore.FlexibleChecksumError", "botocore.ChecksumError", "aiobotocore.AioReadTimeoutError"),
    *(
        "aiohttp.ClientPayloadError",
        "aiohttp.ClientConnectionError",
        "http.IncompleteRead",
        "urllib3.HTTPError",
        "requests.ConnectionError",
    ),
}
_PERMANENT_CLASSES = {"botocore.SSLError", "aiohttp.ClientSSLError", "botocore.InvalidProxiesConfigError"}
_TRANSIENT_CODES = {
    *("InternalError", "ServiceUnavailable", "RequestTimeout", "OperationAborted", "BandwidthLimitExceeded"),
    *("BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch"),  # what we sent was damaged on its way
}
_THROTTLED_CODES = {"SlowDown", "Throttling", "ThrottlingException", "TooManyRequests", "TooManyRequestsException", "RequestLimitExceeded"}
_THROTTLED_STATUS = {429, 503}
_TRANSIENT_STATUS = {408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529}
_TRANSIENT_ERRNO = {errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EIO}
_TRANSIENT_REMOTE = {errno.EREMOTEIO, errno.EBUSY}  # what s3fs makes of 500 and 503

_CREDENTIAL_CLASSES = {
    *("botocore.NoCredentialsError", "botocore.PartialCredentialsError", "botocore.CredentialRetrievalError"),
    *("botocore.TokenRetrievalError", "botocore.NoAuthTokenError", "botocore.ProfileNotFound", "botocore.UnauthorizedSSOTokenError"),
}
_CREDENTIAL_CODES = {
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"),
    *(
        "InvalidClientTokenId",
        "UnrecognizedClientException",
        "RequestTimeTooSkewed",
        "AccountProblem",
        "AllAccessDisabled",
        "NotSignedUp",
        "InvalidSecurity",
    ),
}
_REGION_CODES = {"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException", "301", "TemporaryRedirect"}
_BUCKET_CODES = {"NoSuchBucket", "InvalidBucketName"}

AGAIN = "run the same command again to resume"


class StoreError(RuntimeError):
    """A store cannot be used now, whatever the object; the message says what to do. Nothing is known of the objects: no row is due."""


class NoAnswerError(StoreError):
    """No answer to one request for a long time. It may be the object's fault: see whether the store answers others."""


class GoneError(StoreError):
    """There is no such bucket (any more), or a collection is not where it was."""


class ShortError(OSError):
    """Fewer bytes came than there are."""


def persist(call: Callable[[], T], place: str, seconds: float = PATIENCE) -> T:
    """What `call` returns, tried again while the store fails for now.

    Args:
        call: one operation, which may be repeated.
        place: folder or URL, for messages.
        seconds: of patience; two tries at least.

    Raises:
        NoAnswerError: it was not answered for that long.
        GoneError: there is no such bucket.
        StoreError: the store had too much to do for that long, or cannot be used at all.
        ShortError: it gave fewer bytes than there are, each time.
        Exception: what `call` raised about this one object.
    """
    started, wait, tries, short = time.monotonic(), FIRST_WAIT, 0, 0
    while True:
        try:
            return call()
        except StoreError:
            raise
        except Exception as error:
            tries += 1
            fatal = refusal(place, error)
            if fatal is not None:
                raise (GoneError if _codes(error) & _BUCKET_CODES else StoreError)(fatal) from error
            if not transient(error):
                raise
            short += isinstance(error, ShortError)
            if short >= SHORT_TRIES:
                raise
            left = started + seconds - time.monotonic()
            if left <= 0 and tries > 1:
                if isinstance(error, ShortError):
                    raise
                kind = StoreError if _throttled(error) else NoAnswerError
                raise kind(f"the store at {place} does not answer ({told(error)}); {AGAIN}") from error
            _log.info("%s: %s; try %d", place, told(error), tries)
        time.sleep(min(max(left, 0.0), wait * random.uniform(0.5, 1)))
        wait = min(2 * wait, LONGEST_WAIT)


def transient(error: BaseException) -> bool:
    """Whether the same request may well be answered in a while."""
    for one in _chain(error):
        if _names(one) & _PERMANENT_CLASSES:
            return False
        status, code = _answer(one)
        if status or code:
            return status in _TRANSIENT_STATUS or code in _TRANSIENT_CODES | _THROTTLED_CODES
        if isinstance(one, (FileNotFoundError, PermissionError)):
            return False
        if isinstance(one, (ShortError, TimeoutError, ConnectionError, EOFError)) or _names(one) & _TRANSIENT_CLASSES:
            return True
        if isinstance(one, OSError) and (one.errno in _TRANSIENT_REMOTE or (one.errno in _TRANSIENT_ERRNO and one.__cause__ is None)):
            return True
    return False


def _codes(error: BaseException) -> set[str | None]:
    return {_answer(one)[1] for one in _chain(error)}


def _throttled(error: BaseException) -> bool:
    answers = [_answer(one) for one in _chain(error)]
    return any(status in _THROTTLED_STATUS or code in _THROTTLED_CODES for status, code in answers)


def refusal(place: str, error: BaseException) -> str | None:
    """What is to be done, if the store cannot be used whatever the object; else None."""
    for one in _chain(error):
        _, code = _answer(one)
        if _names(one) & {"botocore.NoCredentialsError", "botocore.PartialCredentialsError", "botocore.ProfileNotFound"}:
            return (
                f"no credentials for {place} ({told(one)}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give "
                """--storage-options '{"key": "…", "secret": "…"}' ('{"anon": true}' for a public bucket)"""
            )
        if code in _CREDENTIAL_CODES or _names(one) & _CREDENTIAL_CLASSES:
            return f"the credentials for {place} are wrong or have expired ({told(one)}): renew them, then {AGAIN}"
        if code in _REGION_CODES:
            return (
                f"{place} is in another region ({told(one)}): set AWS_DEFAULT_REGION, or give "
                """--storage-options '{"client_kwargs": {"region_name": "…"}}'"""
            )
        if code in _BUCKET_CODES:
            return (
                f"{place}: the bucket was not found ({told(one)}): make it, or check its name and the endpoint "
                "(--storage-options, AWS_ENDPOINT_URL)"
            )
        if _names(one) & _PERMANENT_CLASSES:
            return f"no safe connection to {place} ({told(one)}): check the endpoint's address and certificate (AWS_CA_BUNDLE)"
    return None


def told(error: BaseException) -> str:
    """What a store said, in a line."""
    for one in _chain(error):
        status, code = _answer(one)
        if code or status:
            text = f"{code or ''} {status or ''}".strip()
            return f"HTTP {text}" if text.isdigit() else text
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:200] if text else type(error).__name__


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and what it was raised from; s3fs keeps the client's own there."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__


def _names(error: BaseException) -> set[str]:
    """Package and name of each of its classes."""
    return {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}


def _answer(error: BaseException) -> tuple[int | None, str | None]:
    """HTTP status and the store's own code, if the exception has them."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return status, response.get("Error", {}).get("Code")
    status = getattr(error, "status", None) or getattr(error, "code", None)  # aiohttp, gcsfs
    return (int(status), None) if status is not None and str(status).isdigit() else (None, None)
