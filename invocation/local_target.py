"""The target of functions that run in this node's sandboxes (contract section 3, `handler`)."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Protocol

import msgspec

from invocation.classify import TargetKind, classify
from invocation.front_answers import local_answer
from invocation.headers import invocation_headers
from invocation.invoking import Request
from invocation.trace_context import xray_header

if TYPE_CHECKING:
    from invocation.invoking import InvocationResult, NotInvoked
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

    def change(self, settings: HandlerFunction) -> None:
        """Call the function as it is now, from the next call on."""
        self._settings = settings

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Call the function once and classify what came back.

        What other targets get as headers a function finds in `context.client_context.custom`.
        """
        headers = invocation_headers(invocation)
        trace = xray_header(headers.pop("traceparent"))
        context = msgspec.json.encode({"custom": headers}).decode()
        request = Request(invocation.event, str(uuid.uuid4()), context, trace)
        return classify(TargetKind.LOCAL, local_answer(await self.run(request)))

    async def run(self, request: Request) -> InvocationResult | NotInvoked:
        """Call the function once. Raises nothing but CancelledError."""
        return await self._runner.invoke(self._settings, request)
