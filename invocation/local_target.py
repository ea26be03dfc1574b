"""The target of functions that run in this node's sandboxes (contract section 3, `handler`)."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Protocol

import msgspec

from invocation.classify import Answer, TargetKind, classify
from invocation.headers import invocation_headers
from invocation.invoking import InvocationResult, NotInvoked, Request

if TYPE_CHECKING:
    from invocation.settings import HandlerFunction
    from model.invocation import Invocation
    from model.outcome import Outcome


class FunctionRunner(Protocol):
    """What `invocation.worker_manager.WorkerManager` is to its callers."""

    async def invoke(self, function: HandlerFunction, request: Request) -> InvocationResult | NotInvoked:
        """Invoke a function once. Raises nothing but CancelledError."""


class LocalTarget:
    """A function that the node runs itself."""

    def __init__(self, settings: HandlerFunction, runner: FunctionRunner) -> None:
        self._settings = settings
        self._runner = runner

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Call the function once and classify what came back.

        What other targets get as headers a function finds in `context.client_context.custom`.
        """
        headers = invocation_headers(invocation)
        trace = xray_header(headers.pop("traceparent"))
        context = msgspec.json.encode({"custom": headers}).decode()
        request = Request(invocation.event, str(uuid.uuid4()), context, trace)
        return classify(TargetKind.LOCAL, as_answer(await self._runner.invoke(self._settings, request)))


def as_answer(came: InvocationResult | NotInvoked) -> Answer:
    """Return what the Invoke API would have answered (spec section 6)."""
    if isinstance(came, NotInvoked):
        body = {"Type": "User", "message": came.message}
        if came.reason is not None:
            body["Reason"] = came.reason
        return Answer(came.status, {"x-amzn-ErrorType": came.error_type}, msgspec.json.encode(body))
    headers = {"X-Amz-Executed-Version": came.executed_version}
    if came.function_error is not None:
        headers["X-Amz-Function-Error"] = came.function_error
    return Answer(200, headers, came.payload)


def xray_header(traceparent: str) -> str:
    """Return a W3C trace context in the form that functions know from AWS."""
    _, trace, span, flags = traceparent.split("-")
    return f"Root=1-{trace[:8]}-{trace[8:]};Parent={span};Sampled={int(flags, 16) & 1}"
