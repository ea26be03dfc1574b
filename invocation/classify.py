"""What an invocation came to: the one place that turns an answer, or the lack of one, into an outcome. Pure.

The rows are contract section 3 and spec section 4.1. Three rules cover what they leave open:

- once the whole event was sent the function may have run, so anything but a clear answer is a function error;
- as long as it was not, nothing ran, and the batch was not reached;
- a function error that the target declares (`X-Amz-Function-Error`) counts whatever the status.

A batch that was not reached says something about the target (missing, denied, down), which other batches need not find
out by themselves, or about itself only: `NotReached.batch_refused`.

Whether a body means partial failure depends on the mapping and is not decided here: `PartlyFailed` is never returned.
Texts are for operators: short, one line, made from error documents and our own words, never from configured values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

from model.outcome import Delivered, FunctionFailed, NotReached, Throttled

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_TEXT = 300
"""Characters of an error text."""

MAX_RETRY_AFTER_S = 3600.0
"""A target may not stop a mapping for longer than this with one Retry-After."""

_MAX_DOCUMENT_BYTES = 1024 * 1024  # larger bodies are not searched for error documents
_UNHANDLED = "Unhandled"
_BUSY_URL = frozenset({408, 425, 502, 503, 504})  # `url` statuses that say: not now
# The Invoke API's statuses for a request that it would take from nobody (spec section 6.2). The emulator's 400 is none
# of them: it says that its container is busy.
_REFUSED_BATCH = frozenset({400, 413, 415})
_TIMED_OUT = re.compile(rb'\s*"?[^"{\n]{0,120}Task timed out after [0-9.]+ seconds"?\s*')
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9._]{0,99}")
_DOCUMENT_KEYS = frozenset({"errorMessage", "errorType", "requestId", "stackTrace", "trace", "cause"})


class TargetKind(StrEnum):
    """How a target speaks. An ARN is a Lambda-compatible endpoint that wants signatures."""

    LAMBDA = "lambda"
    URL = "url"
    RIE = "rie"
    LOCAL = "local"  # a `handler`: our own front end, in this process, answers as the Invoke API does


class FailureKind(StrEnum):
    """Why there is no answer. The value is the text for operators."""

    REFUSED = "connection refused"
    UNRESOLVED = "host name not found"
    TLS = "TLS failed"
    CONNECT_TIMEOUT = "no connection in time"
    UNPREPARED = "request could not be made"
    TIMEOUT_BEFORE_SENT = "time-out before the event was sent"
    LOST_BEFORE_SENT = "connection lost before the event was sent"
    TIMEOUT_AFTER_SENT = "no answer in time after the event was sent"
    LOST_AFTER_SENT = "connection lost after the event was sent"
    CUT_SHORT = "answer cut short"
    GARBAGE = "answer is not HTTP"
    TOO_LARGE = "Function.ResponseSizeTooLarge: answer exceeds 6291556 bytes"


_MAY_HAVE_RUN = frozenset(
    {
        FailureKind.TIMEOUT_AFTER_SENT,
        FailureKind.LOST_AFTER_SENT,
        FailureKind.CUT_SHORT,
        FailureKind.GARBAGE,
        FailureKind.TOO_LARGE,
    }
)


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response. `headers` looks names up whatever their case; a large body is a bytearray of its own."""

    status: int
    headers: Mapping[str, str]
    body: bytes | bytearray = b""


@dataclass(frozen=True, slots=True)
class Failure:
    """No usable response. `detail` is fit for operators and holds no secret."""

    kind: FailureKind
    detail: str = ""


def head_decides(status: int, headers: Mapping[str, str]) -> bool:
    """Tell whether status and headers alone say that the invocation failed, so that the body is mere explanation."""
    return not 200 <= status < 300 or "X-Amz-Function-Error" in headers  # noqa: PLR2004 the range of success


def classify(
    kind: TargetKind, came: Answer | Failure, *, now: float = 0.0
) -> Delivered | FunctionFailed | Throttled | NotReached:
    """Say what an invocation came to. `now` is epoch seconds, for a Retry-After that is a date."""
    if isinstance(came, Failure):
        return _without_answer(came)
    if head_decides(came.status, came.headers):
        return _failed(kind, came, now)
    version = None if kind is TargetKind.URL else came.headers.get("X-Amz-Executed-Version")
    if kind is TargetKind.RIE and (error := _emulator_error(came.body)):
        return FunctionFailed(error, _UNHANDLED, came.status, version)
    return Delivered(bytes(came.body), came.status, version)


def _failed(kind: TargetKind, answer: Answer, now: float) -> FunctionFailed | Throttled | NotReached:
    """Tell a function error from a target that has no room or was not reached."""
    version = None if kind is TargetKind.URL else answer.headers.get("X-Amz-Executed-Version")
    declared = answer.headers.get("X-Amz-Function-Error")
    if declared is not None:
        function_error = declared if declared == "Handled" else _UNHANDLED
        return FunctionFailed(_explain(kind, answer), function_error, answer.status, version)
    if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
        return Throttled(_explain(kind, answer), _retry_after_s(answer.headers, now), answer.status)
    if kind is TargetKind.RIE and (error := _emulator_error(answer.body)):
        return FunctionFailed(error, _UNHANDLED, answer.status, version)  # a crash: 502 with an error document
    if kind is TargetKind.URL and _is_function_error(answer.status):
        return FunctionFailed(_explain(kind, answer), _UNHANDLED, answer.status)
    busy = kind is TargetKind.RIE and answer.status == HTTPStatus.BAD_REQUEST
    batch_refused = answer.status in _REFUSED_BATCH and not busy
    return NotReached(_explain(kind, answer), _retry_after_s(answer.headers, now), answer.status, batch_refused)


def _without_answer(failure: Failure) -> FunctionFailed | NotReached:
    text = _one_line(f"{failure.kind.value}: {failure.detail}" if failure.detail else failure.kind.value)
    if failure.kind in _MAY_HAVE_RUN:
        return FunctionFailed(text, _UNHANDLED)
    return NotReached(text)


def _is_function_error(status: int) -> bool:
    """Tell for a `url` target. Redirects are not followed and other 5xx come from what stands before the function."""
    if status in _BUSY_URL:
        return False
    return status == HTTPStatus.INTERNAL_SERVER_ERROR or 400 <= status < 500  # noqa: PLR2004 the range of 4xx


def _retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """Read seconds or an HTTP date; a date is taken relative to the answer's own Date if it has one."""
    text = headers.get("Retry-After", "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), MAX_RETRY_AFTER_S)
    at = _epoch(text)
    if at is None:
        return None
    sent_at = _epoch(headers.get("Date", ""))
    return min(max(at - (now if sent_at is None else sent_at), 0.0), MAX_RETRY_AFTER_S)


def _epoch(text: str) -> float | None:
    try:
        parts = parsedate_tz(text)
        return None if parts is None else float(mktime_tz(parts))
    except (ValueError, OverflowError, TypeError, IndexError):
        return None  # looks like a date and is none


def _document(body: bytes | bytearray) -> dict[str, Any] | None:
    """Read a JSON object, if the body is one of reasonable size."""
    if len(body) > _MAX_DOCUMENT_BYTES or not body[:64].lstrip().startswith(b"{"):
        return None
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _emulator_error(body: bytes | bytearray) -> str | None:
    """Find the error that the Runtime Interface Emulator hides in a body, whatever the status (spec section 6.2)."""
    if len(body) < MAX_TEXT and _TIMED_OUT.fullmatch(body):
        return _one_line("Sandbox.Timedout: " + body.decode(errors="replace").strip().strip('"'))
    if b"errorMessage" not in body:
        return None
    document = _document(body)
    if document is None or "errorMessage" not in document:
        return None
    if not isinstance(document.get("errorType"), str) and not document.keys() <= _DOCUMENT_KEYS:
        return None  # the function's own answer, which happens to have such a field
    return _error_of(document) or _UNHANDLED


def _error_of(document: dict[str, Any]) -> str | None:
    """Return `errorType: errorMessage` of an error document, or what it has of them."""
    found = [document.get("errorType"), document.get("errorMessage")]
    return _one_line(": ".join(part for part in found if isinstance(part, str) and part)) or None


def _explain(kind: TargetKind, answer: Answer) -> str:
    """Describe a failed invocation from its error document, or by its status."""
    document = _document(answer.body) or {}
    if error := _error_of(document):
        return error if "X-Amz-Function-Error" in answer.headers else _one_line(f"HTTP {answer.status}: {error}")
    parts = [_status_text(answer.status)]
    if kind is not TargetKind.URL:
        # The Invoke API's errors (spec section 6.2): the type is in a header, the rest in the body.
        code = answer.headers.get("x-amzn-ErrorType", "").partition(":")[0]
        message = document.get("message", document.get("Message"))
        parts += [part for part in (code, document.get("Reason")) if isinstance(part, str) and _CODE.fullmatch(part)]
        parts += [message] if isinstance(message, str) else []
    return _one_line(": ".join(parts))


def _status_text(status: int) -> str:
    try:
        return f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP {status}"


def _one_line(text: str) -> str:
    """Make one printable line of at most `MAX_TEXT` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * MAX_TEXT]).split())
    return line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 1] + "…"
