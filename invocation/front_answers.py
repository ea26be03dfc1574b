"""The answers of the front end: the Invoke API's, whatever kind of function was called (spec section 6). Pure."""

from __future__ import annotations

import math
from base64 import b64encode
from http import HTTPStatus
from typing import TYPE_CHECKING, assert_never

import msgspec

from invocation.classify import Answer, Failure, FailureKind, TargetKind, classify
from invocation.function_errors import RESPONSE_TOO_LARGE, TimedOut, explain, failure_document
from invocation.invoking import NotInvoked, throttled
from model.outcome import Delivered, FunctionFailed, NotReached, Throttled

if TYPE_CHECKING:
    from invocation.invoking import InvocationResult

FUNCTION_ERROR = "X-Amz-Function-Error"
EXECUTED_VERSION = "X-Amz-Executed-Version"
_LOG = "X-Amz-Log-Result"
_ERROR_TYPE = "x-amzn-ErrorType"
_RETRY_AFTER = "Retry-After"
REQUEST_ID = "x-amzn-RequestId"
_HANDED_ON = (FUNCTION_ERROR, EXECUTED_VERSION, _LOG, _ERROR_TYPE, _RETRY_AFTER, REQUEST_ID)
_UNHANDLED = "Unhandled"
_LATEST = "$LATEST"
_FIRST_ERROR = 400
_FIRST_OF_SERVICE = 500
_TIMED_OUT = "Sandbox.Timedout: "  # so `classify` begins the emulator's text


class _ErrorDocument(msgspec.Struct):
    errorMessage: object = None  # noqa: N815 - AWS's names
    errorType: object = None  # noqa: N815 - same


_read_error = msgspec.json.Decoder(_ErrorDocument)


def error_answer(error: NotInvoked) -> Answer:
    """Return an error of the Invoke API. Some types have their text under a name of its own (spec section 6.2)."""
    service = error.status >= _FIRST_OF_SERVICE
    capital = service or error.error_type == "ResourceNotFoundException"
    body = {"Type": "Service" if service else "User", "Message" if capital else "message": error.message}
    if error.reason is not None:
        body["Reason"] = error.reason
    return Answer(error.status, {_ERROR_TYPE: error.error_type}, msgspec.json.encode(body))


def local_answer(came: InvocationResult | NotInvoked, *, tail: bool = False) -> Answer:
    """Return what came of a function in a sandbox; with `tail` also the end of its log."""
    if isinstance(came, NotInvoked):
        return error_answer(came)
    headers = {EXECUTED_VERSION: came.executed_version}
    if came.function_error is not None:
        headers[FUNCTION_ERROR] = came.function_error
    if tail:
        headers[_LOG] = b64encode(came.log_tail).decode()
    return Answer(200, headers, came.payload)


def remote_answer(
    kind: TargetKind, came: Answer | Failure, *, timeout_s: float, request_id: str, now: float = 0.0
) -> Answer:
    """Return what came of a function elsewhere. The Invoke API's own answers are handed on as they are.

    `now` is epoch seconds, `timeout_s` how long the function was waited for.
    """
    said = isinstance(came, Answer) and (came.status == HTTPStatus.OK or came.status >= _FIRST_ERROR)
    if kind is TargetKind.LAMBDA and isinstance(came, Answer) and said:
        return _handed_on(came)
    outcome = classify(kind, came, now=now)
    match outcome:
        case Delivered(body):
            return Answer(200, {EXECUTED_VERSION: _LATEST}, body or b"null")  # as AWS does for no result
        case FunctionFailed():
            document = _error_document(came, outcome, timeout_s=timeout_s, request_id=request_id)
            return Answer(
                200, {EXECUTED_VERSION: _LATEST, FUNCTION_ERROR: outcome.function_error or _UNHANDLED}, document
            )
        case Throttled(_, retry_after_s):
            return _with_retry_after(error_answer(throttled(own_limit=True)), retry_after_s)
        case NotReached(error, retry_after_s):
            away = NotInvoked(502, "ResourceNotReadyException", f"the function could not be reached: {error}")
            return _with_retry_after(error_answer(away), retry_after_s)
        case _:
            assert_never(outcome)


def _handed_on(answer: Answer) -> Answer:
    headers = {name: value for name in _HANDED_ON if (value := answer.headers.get(name)) is not None}
    sendable = {name: value for name, value in headers.items() if value.isascii() and value.isprintable()}
    if FUNCTION_ERROR in headers:
        sendable.setdefault(FUNCTION_ERROR, _UNHANDLED)
    return Answer(answer.status, sendable, answer.body)


def _with_retry_after(answer: Answer, retry_after_s: float | None) -> Answer:
    if retry_after_s is None:
        return answer
    return Answer(answer.status, {**answer.headers, _RETRY_AFTER: str(math.ceil(retry_after_s))}, answer.body)


def _error_document(came: Answer | Failure, failed: FunctionFailed, *, timeout_s: float, request_id: str) -> bytes:
    """Return the function's own error document, or one in AWS's words."""
    if isinstance(came, Answer) and _is_error_document(came.body, declared=FUNCTION_ERROR in came.headers):
        return bytes(came.body)
    if isinstance(came, Failure) and came.kind is FailureKind.TIMEOUT_AFTER_SENT:
        ended = explain(TimedOut(timeout_s), request_id)
        return failure_document(ended.error_type, ended.message, None)
    if isinstance(came, Failure) and came.kind is FailureKind.TOO_LARGE:
        return failure_document(*RESPONSE_TOO_LARGE, None)
    if failed.error.startswith(_TIMED_OUT):
        return failure_document(_TIMED_OUT[:-2], failed.error.removeprefix(_TIMED_OUT), request_id)
    return failure_document("Function.Unknown", failed.error, request_id)


def _is_error_document(body: bytes | bytearray, *, declared: bool) -> bool:
    """Tell whether a body explains the failure: JSON of any kind where the function says so itself."""
    try:
        found = _read_error.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return declared and _is_json(body)
    return declared or found.errorMessage is not None or found.errorType is not None


def _is_json(body: bytes | bytearray) -> bool:
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
