"""The Lambda Runtime API for one sandbox (spec section 8): what its runtime may say when. No I/O.

`RuntimeApi` is the state machine; `invocation.runtime_server` puts it behind HTTP, `invocation.worker` gives it events
and is told through callbacks when the runtime is idle. Names of headers are in lower case. A sandbox has one of its
own: an id of another sandbox's invocation means nothing here.

Streamed responses are refused: an error that comes after their beginning would have to be read from HTTP trailers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum, auto
from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec

from invocation.function_errors import RESPONSE_TOO_LARGE, TRUNCATED_RESPONSE, failure_document

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_RESPONSE_BYTES = 6291556
"""The largest response (spec section 6.1)."""

_KNOWN_TYPE = re.compile(r"(Runtime|Function|Extension)\.[A-Z][A-Za-z]*")
_OK = msgspec.json.encode({"status": "OK"})


class _State(Enum):
    INITIALISING = auto()
    IDLE = auto()  # a call of `next` waits
    RUNNING = auto()  # an invocation is with the runtime
    ANSWERED = auto()  # and it has answered; the call of `next` that completes it is still to come
    ENDING = auto()  # it could not be initialised, or is being ended


@dataclass(frozen=True, slots=True)
class Event:
    """One invocation, as `next` hands it out."""

    body: bytes
    headers: Mapping[str, str]
    request_id: str
    invocation_id: str


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of this API to the runtime."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FunctionAnswer:
    """What the runtime answered. `error_type` is that of its header, in one of the known forms; None for a result."""

    payload: bytes
    error_type: str | None = None


class RuntimeApi:
    """What one runtime process has asked for and answered.

    `on_idle` is called whenever the runtime has asked for the next event, `on_failed` when it reports that it could
    not be initialised.
    """

    def __init__(self, *, on_idle: Callable[[], None], on_failed: Callable[[], None]) -> None:
        self._on_idle = on_idle
        self._on_failed = on_failed
        self._state = _State.INITIALISING
        self._asker: Callable[[Reply], None] | None = None
        self._event: Event | None = None
        self.answer: FunctionAnswer | None = None
        """The answer to the present invocation, or the report of a failed initialisation."""

    @property
    def idle(self) -> bool:
        """Whether the runtime waits for an event."""
        return self._state is _State.IDLE

    def begin(self, event: Event) -> None:
        """Hand an event to the idle runtime."""
        asker, self._asker = self._asker, None
        if asker is None:
            raise AssertionError("only an idle runtime is given an event")
        self._state, self._event, self.answer = _State.RUNNING, event, None
        asker(Reply(HTTPStatus.OK, event.body, event.headers))

    def close(self) -> None:
        """Answer nobody any longer, and give nothing to a runtime that asks once more before it is gone."""
        self._state, self._asker = _State.ENDING, None

    def ask(self, reply: Callable[[Reply], None]) -> None:
        """Complete the last invocation, if any; `reply` is called with the next one, or with why there is none."""
        if self._state is _State.ENDING:
            reply(_refused(HTTPStatus.FORBIDDEN, "InvalidStateTransition", "the runtime is to end"))
            return
        if self._state is _State.RUNNING:
            # The runtime has forgotten an invocation. Nothing will be answered any more.
            reply(_refused(HTTPStatus.FORBIDDEN, "InvalidStateTransition", "the last invocation is not answered"))
            return
        before, self._asker = self._asker, reply
        if before is not None:  # its caller has given up: there is one runtime
            before(_refused(HTTPStatus.FORBIDDEN, "InvalidStateTransition", "asked again meanwhile"))
        self._state = _State.IDLE
        self._on_idle()

    def gone(self, reply: Callable[[Reply], None]) -> None:
        """Take note that who has asked is not there any more. Until somebody asks again the runtime is not idle."""
        if self._asker == reply:
            self._asker, self._state = None, _State.ANSWERED

    def refuses(self, request_id: str, headers: Mapping[str, str]) -> Reply | None:
        """Return why an answer to this invocation is not taken, if it is not."""
        if self._event is None or self._state is not _State.RUNNING or request_id != self._event.request_id:
            return _refused(HTTPStatus.BAD_REQUEST, "InvalidRequestID", "Invalid request ID")
        given = headers.get("lambda-runtime-invocation-id")
        if given is not None and given != self._event.invocation_id:
            return _refused(HTTPStatus.BAD_REQUEST, "InvalidInvocationId", "Invalid invocation ID")
        return None

    def responded(self, request_id: str, headers: Mapping[str, str], body: bytes | None) -> Reply:
        """Take the function's result; `body` is None when it is larger than may be."""
        if refusal := self.refuses(request_id, headers):
            return refusal
        if mode := headers.get("lambda-runtime-function-response-mode"):
            self._failed("Runtime.InvalidResponseModeHeader", f"Response mode {mode} is not supported", request_id)
            return _refused(HTTPStatus.BAD_REQUEST, "InvalidResponseMode", "responses are not streamed here")
        if body is None:
            self._failed(*RESPONSE_TOO_LARGE, None)
            return _refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "RequestEntityTooLarge", RESPONSE_TOO_LARGE[1])
        self._answered(FunctionAnswer(body))
        return Reply(HTTPStatus.ACCEPTED, _OK)

    def cut_short(self, request_id: str, headers: Mapping[str, str]) -> None:
        """Take note of a response whose end never came."""
        if self.refuses(request_id, headers) is None:
            self._failed(*TRUNCATED_RESPONSE, request_id)

    def erred(self, request_id: str, headers: Mapping[str, str], body: bytes | None) -> Reply:
        """Take the error of an invocation."""
        if refusal := self.refuses(request_id, headers):
            return refusal
        self._answered(_error_report(headers, body))
        return Reply(HTTPStatus.ACCEPTED, _OK)

    def not_initialised(self, headers: Mapping[str, str], body: bytes | None) -> Reply:
        """Take the error of an initialisation; the runtime exits after it."""
        if self._state is not _State.INITIALISING:
            return _refused(HTTPStatus.FORBIDDEN, "InvalidStateTransition", "the runtime is initialised")
        self._state = _State.ENDING
        self.answer = _error_report(headers, body)
        self._on_failed()
        return Reply(HTTPStatus.ACCEPTED, _OK)

    def _failed(self, error_type: str, message: str, request_id: str | None) -> None:
        self._answered(FunctionAnswer(failure_document(error_type, message, request_id), error_type))

    def _answered(self, answer: FunctionAnswer) -> None:
        self._state, self.answer = _State.ANSWERED, answer


def _error_report(headers: Mapping[str, str], body: bytes | None) -> FunctionAnswer:
    given = headers.get("lambda-runtime-function-error-type", "")
    if body is None:
        body = failure_document("Runtime.Unknown", "the error document is too large", None)
    if _KNOWN_TYPE.fullmatch(given):
        return FunctionAnswer(body, given)
    return FunctionAnswer(body, "Function.Unknown" if given.startswith("Function.") else "Runtime.Unknown")


def _refused(status: HTTPStatus, error_type: str, message: str) -> Reply:
    return Reply(status, msgspec.json.encode({"errorMessage": message, "errorType": error_type}))


def unknown_path() -> Reply:
    """Return the answer for everything that is no call of this API."""
    return _refused(HTTPStatus.NOT_FOUND, "NotFound", "there is no such call in the Runtime API 2018-06-01")
