"""What a function behind a URL is told of a request, and what its result means as a response. Pure.

Both are API Gateway's payload format 2.0, which Lambda's function URLs speak too (AWS's page "Invoking Lambda function
URLs").
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_DEFAULT = "$default"
_TEXT_TYPES = re.compile(r"text/.*|application/(.*[+/])?(json|xml|javascript|ecmascript)", re.DOTALL)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_NOT_OURS = frozenset({"content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "trailer", "te"})
"""Of a response: they say how it is sent, which is the node's business."""

_LEAST_STATUS, _LAST_STATUS = 200, 599
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlRequest:
    """A request as it came. `path` is what follows the function's URL, as it was written; `remote` the caller.

    `headers` are all of them, in order; those in `hidden` (lower case) are not for the function.
    """

    method: str
    path: str
    query: str
    headers: Sequence[tuple[str, str]]
    body: bytes
    remote: str
    scheme: str
    protocol: str = "HTTP/1.1"
    hidden: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class UrlResponse:
    """What is sent. `headers` may name one several times."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes


MALFORMED = UrlResponse(502, [("Content-Type", "text/plain")], b"Internal Server Error")
"""AWS's answer when a function fails, or returns what is no response."""


class _Structured(msgspec.Struct):
    """A result that is a response."""

    statusCode: Any  # noqa: N815 - AWS's names
    headers: dict[str, str | int | float | bool | None] | None = None
    body: str | None = None
    isBase64Encoded: bool | None = None  # noqa: N815 - same
    cookies: list[str] | None = None


_decode = msgspec.json.Decoder().decode
_structured = msgspec.json.Decoder(_Structured).decode


def event_of(request: UrlRequest, *, function: str, request_id: str, trace: str, at_s: float) -> bytes:
    """Return the event, a JSON object. `at_s` is epoch time."""
    given = [(name.lower(), value) for name, value in request.headers]
    lines = [value for name, value in given if name == "cookie"]
    cookies = [_unicode(cookie) for line in lines for cookie in map(str.strip, line.split(";")) if cookie]
    headers = _joined(pair for pair in given if pair[0] != "cookie")
    for name in request.hidden:
        headers.pop(name, None)
    forwarded = headers.get("x-forwarded-for")
    headers["x-forwarded-for"] = f"{forwarded}, {request.remote}" if forwarded else request.remote
    headers.setdefault("x-forwarded-proto", request.scheme)
    headers["x-amzn-trace-id"] = trace
    host = headers.get("host", "")
    path = request.path or "/"
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": _DEFAULT,
        "rawPath": path,
        "rawQueryString": request.query,
    }
    if cookies:
        event["cookies"] = cookies
    event["headers"] = headers
    if request.query:
        event["queryStringParameters"] = _joined(parse_qsl(request.query, keep_blank_values=True))
    event["requestContext"] = {
        "accountId": "anonymous",
        "apiId": function,
        "domainName": host,
        "domainPrefix": host.partition(".")[0].partition(":")[0],
        "http": {
            "method": request.method,
            "path": path,
            "protocol": request.protocol,
            "sourceIp": request.remote,
            "userAgent": headers.get("user-agent", ""),
        },
        "requestId": request_id,
        "routeKey": _DEFAULT,
        "stage": _DEFAULT,
        "time": _clf(at_s),
        "timeEpoch": int(at_s * 1000),
    }
    text = _text(request.body, headers.get("content-type", ""))
    if request.body:
        event["body"] = b64encode(request.body).decode() if text is None else text
    event["isBase64Encoded"] = text is None
    return msgspec.json.encode(event)


def response_of(result: bytes) -> UrlResponse | None:
    """Return the response that a function's result means; None: it is none.

    An object with a `statusCode` says all of it; any other JSON is the body of a 200, as it is.
    """
    try:
        document = _decode(result)
        if not isinstance(document, dict) or "statusCode" not in document:
            return UrlResponse(200, [("Content-Type", "application/json")], result)
        found = _structured(result)
        body = (found.body or "").encode()
        if found.isBase64Encoded:
            body = b64decode(body, validate=True)
    except (msgspec.MsgspecError, binascii.Error, UnicodeError, RecursionError):
        return None
    status, headers = _status(found.statusCode), _headers(found.headers or {}, found.cookies or ())
    if status is None or headers is None:
        return None
    return UrlResponse(status, headers, body)


def _status(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value) if len(value) <= 3 else None  # noqa: PLR2004 - the digits of a status
    fits = isinstance(value, int) and not isinstance(value, bool) and _LEAST_STATUS <= value <= _LAST_STATUS
    return value if isinstance(value, int) and fits else None


def _headers(given: Mapping[str, Any], cookies: Iterable[str]) -> list[tuple[str, str]] | None:
    """Return what can be sent; None if something cannot."""
    headers = [(name, _value(value)) for name, value in given.items() if name.lower() not in _NOT_OURS]
    headers += [("Set-Cookie", cookie) for cookie in cookies]
    if any(not _HEADER_NAME.fullmatch(name) or _UNSENDABLE.search(value) for name, value in headers):
        return None
    if not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("Content-Type", "application/json"))
    return headers


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return each name once, its values joined with commas."""
    found: dict[str, str] = {}
    for name, value in pairs:
        found[name] = f"{found[name]},{value}" if name in found else value
    return {_unicode(name): _unicode(value) for name, value in found.items()}


def _unicode(text: str) -> str:
    """Return text without what was no UTF-8 in a request."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _text(body: bytes, content_type: str) -> str | None:
    """Return a body that is text by its type and in fact; None: it travels in base64."""
    if not body:
        return ""
    if not _TEXT_TYPES.fullmatch(content_type.partition(";")[0].strip().lower()):
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _clf(at_s: float) -> str:
    """Return the time as in access logs, whatever the locale: 12/Mar/2026:19:03:58 +0000."""
    at = datetime.fromtimestamp(at_s, UTC)
    return f"{at.day:02}/{_MONTHS[at.month - 1]}/{at:%Y:%H:%M:%S} +0000"
