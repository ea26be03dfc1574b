"""An invocation that another node of the fleet runs: how it is asked for, and what its answer means.

The other node has counted nothing and hands nothing on. As long as it cannot have run the function (not connected, or
it refuses) others may be asked; from the moment the event was sent anything but its answer is a function error, as it
is with every target. So an event never runs twice without the caller's knowing.

No deadline goes with it: both nodes know the function's time-out, and a connection that is closed ends the function.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec
from yarl import URL

from invocation.classify import Answer, Failure, TargetKind, classify
from invocation.function_errors import failure_document
from invocation.invoking import InvocationResult, NotInvoked, Request
from model.outcome import NotReached

if TYPE_CHECKING:
    from invocation.settings import HandlerFunction
    from invocation.transport import Transport
    from model.placement import Offer

PATH = "/esmd/v1/environments/"
"""Before a function's name; behind it comes `/invocations`."""

MAX_BYTES = 7 * 1024 * 1024
"""Of a request or an answer: 6 MB of event or result, a client context, the end of a log."""

_CONTENT_TYPE = "application/x-msgpack"
_MORE_S = 30.0
"""Longer than the function's time-out: an environment ends to make room, another is initialised, the way."""

_NOT_RUN = frozenset({401, 403, 404, 408, 409, 413, 429, 503})
_AWAY = frozenset({401, 403, 404, 503})
_STRANGER = frozenset({401, 403})


class Asked(msgspec.Struct, array_like=True):
    """What is sent. `mark` says which definition and code of the function is meant, `node` who asks."""

    node: str
    mark: str
    event: bytes
    request_id: str
    client_context: str | None
    trace: str | None

    def request(self) -> Request:
        """Return the invocation."""
        return Request(self.event, self.request_id, self.client_context, self.trace)


class Came(msgspec.Struct, array_like=True):
    """What is answered: the function was invoked, or no environment could be made for it."""

    result: InvocationResult | None = None
    error: NotInvoked | None = None


read_asked = msgspec.msgpack.Decoder(Asked).decode
_read_came = msgspec.msgpack.Decoder(Came).decode


@dataclass(frozen=True, slots=True)
class Refused:
    """The other node has not run the function. `away`: not for want of room; `stranger`: it does not know who asks."""

    why: str
    away: bool
    stranger: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """The event was sent and nothing usable came back; `result` says so as a function error."""

    why: str
    result: InvocationResult


def encode_came(came: InvocationResult | NotInvoked) -> bytes:
    """Return the body of an answer."""
    return msgspec.msgpack.encode(Came(error=came) if isinstance(came, NotInvoked) else Came(result=came))


@dataclass(frozen=True, slots=True)
class Destination:
    """Where to: another node's offer, who this node is to it, and the fleet's secret where it wants that."""

    offer: Offer
    me: str
    secret: str | None = None

    def url(self, function: str) -> URL:
        """Return where a function is invoked."""
        scheme = "https" if self.offer.tls else "http"
        return URL(f"{scheme}://{self.offer.address}{PATH}{quote(function, safe='')}/invocations", encoded=True)


async def forward(
    transport: Transport, to: Destination, function: HandlerFunction, mark: str, request: Request
) -> InvocationResult | NotInvoked | Refused | Lost:
    """Have another node invoke a function once. Raises nothing but CancelledError, which ends the function there."""
    headers = {"Content-Type": _CONTENT_TYPE}
    if to.secret is not None:
        headers["Authorization"] = f"Bearer {to.secret}"
    asked = Asked(to.me, mark, request.event, request.request_id, request.client_context, request.trace)
    body, timeout_s = msgspec.msgpack.encode(asked), function.timeout_s + _MORE_S
    url = to.url(function.name)
    came = await transport.post(url, body, headers, timeout_s=timeout_s, max_answer_bytes=MAX_BYTES)
    if isinstance(came, Failure):
        return read_failure(came, request.request_id)
    return read_answer(came, request.request_id)


def read_failure(came: Failure, request_id: str) -> Refused | Lost:
    """Say what the lack of an answer means."""
    outcome = classify(TargetKind.LOCAL, came)
    if isinstance(outcome, NotReached):
        return Refused(outcome.error, away=True)
    return _unknown(came.kind, request_id)


def read_answer(came: Answer, request_id: str) -> InvocationResult | NotInvoked | Refused | Lost:
    """Say what an answer means."""
    if came.status in _NOT_RUN:
        return Refused(f"HTTP {came.status}", away=came.status in _AWAY, stranger=came.status in _STRANGER)
    if came.status != HTTPStatus.OK:
        return _unknown(f"HTTP {came.status}", request_id)
    try:
        answer = _read_came(came.body)
    except msgspec.DecodeError:
        return _unknown("its answer is none", request_id)
    return answer.result or answer.error or _unknown("its answer is empty", request_id)


def _unknown(why: str, request_id: str) -> Lost:
    document = failure_document("Function.Unknown", f"the node that ran the function was lost: {why}", request_id)
    return Lost(why, InvocationResult(document, "Unhandled", b"", 0.0))
