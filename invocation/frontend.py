"""The front end: invokes the functions of a node's configuration for whoever asks over the Invoke API.

Functions with a `handler` run in this process's sandboxes; others are called by the target that pollers use, so that
a container of the emulator still gets one invocation at a time. Knows nothing of HTTP servers: `node.invoke_api` does.

Who asks may go away, and the invocation goes on: so it does in AWS, and half of a function's work is worse than all of
it. The function's timeout bounds it.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

from invocation.classify import Answer, TargetKind
from invocation.front_answers import REQUEST_ID, error_answer, local_answer, remote_answer
from invocation.invoke_request import not_found
from invocation.invoking import NotInvoked, Request, out_of_service, throttled
from invocation.local_target import LocalTarget
from invocation.trace_context import without_span
from model.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from invocation.client import RemoteTarget
    from invocation.invoke_request import InvokeHead
    from invocation.settings import FunctionSettings

MOST_CALLS = 1000
"""Invocations at once; AWS's limit for an account."""

MOST_BYTES = 256 * 1024 * 1024
"""Events at once."""

_ACCEPTED = Answer(202, {})


class Functions(Protocol):
    """What is configured."""

    def listed_function(self, function_name: str) -> FunctionSettings | None:
        """Return the function of the configuration that a FunctionName stands for."""

    def function_arn(self, function_name: str) -> str:
        """Return the ARN of a function."""


class Accepts(Protocol):
    """Where asynchronous invocations are kept until they are done."""

    async def accept(self, line: str, asked: str, event: bytes, *, request_id: str, trace: str) -> NotInvoked | None:
        """Keep an event; return why it is not kept."""


class Room:
    """How many invocations the front end has taken on, so that no number of callers uses up the node's memory."""

    def __init__(self, *, calls: int = MOST_CALLS, size: int = MOST_BYTES) -> None:
        self._calls, self._size = calls, size
        self._empty = asyncio.Event()
        self._empty.set()
        self.calls = self.size = 0
        self.closed = False

    def enter(self, size: int) -> bool:
        """Take on an invocation with an event of so many bytes, if there is room."""
        if self.calls >= self._calls or self.size + size > self._size:
            return False
        self.calls += 1
        self.size += size
        self._empty.clear()
        return True

    def leave(self, size: int) -> None:
        """Be done with an invocation that was taken on."""
        self.calls -= 1
        self.size -= size
        if not self.calls:
            self._empty.set()

    async def drain(self, timeout_s: float) -> None:
        """Take on nothing more, and wait until what was taken on is done, for so long at most."""
        self.closed = True
        try:
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()
        except TimeoutError:
            return


class FrontEnd:
    """Invokes functions. `functions` tells the present configuration, `target` what calls one of them.

    Without `acceptor` asynchronous invocations are refused.
    """

    def __init__(
        self,
        functions: Callable[[], Functions],
        target: Callable[[FunctionSettings], RemoteTarget | LocalTarget],
        acceptor: Accepts | None = None,
    ) -> None:
        self._functions = functions
        self._target = target
        self._acceptor = acceptor

    def find(self, head: InvokeHead) -> FunctionSettings | NotInvoked:
        """Return the function that is asked for.

        Only functions of the configuration: what else `invoke.endpoint` or AWS has would be called with the node's
        rights, for everybody.
        """
        functions = self._functions()
        found = functions.listed_function(head.function)
        if found is not None:
            return found
        arn = functions.function_arn(head.function)
        return not_found(arn if head.qualified else f"{arn}:$LATEST")

    async def invoke(self, function: FunctionSettings, head: InvokeHead, event: bytes, request_id: str) -> Answer:
        """Invoke a function once. Raises nothing but CancelledError."""
        try:
            target = self._target(function)
        except RefusedError as exc:
            return error_answer(NotInvoked(502, "ResourceNotReadyException", str(exc)))
        if isinstance(target, LocalTarget):
            request = Request(event, request_id, head.context_json, head.trace)
            return local_answer(await target.run(request), tail=head.tail)
        if target.full:
            return error_answer(throttled(own_limit=True))
        came = await target.call(event, _headers(target.kind, head, request_id))
        if isinstance(came, NotInvoked):
            return error_answer(came)
        return remote_answer(target.kind, came, timeout_s=function.timeout_s, request_id=request_id, now=time.time())

    async def accept(self, function: FunctionSettings, head: InvokeHead, event: bytes, request_id: str) -> Answer:
        """Have a function invoked later. Raises nothing but CancelledError."""
        if self._acceptor is None:
            return error_answer(out_of_service("asynchronous invocations are not kept here"))
        # Of a trace that begins here nobody has a span yet: each attempt will be one.
        trace = without_span(head.trace) if head.begun else head.trace
        refused = await self._acceptor.accept(function.name, head.function, event, request_id=request_id, trace=trace)
        return _ACCEPTED if refused is None else error_answer(refused)


def _headers(kind: TargetKind, head: InvokeHead, request_id: str) -> dict[str, str]:
    """Return what a function elsewhere is told besides its event."""
    headers = {"X-Amzn-Trace-Id": head.trace}
    if head.caller is not None:
        headers["traceparent"] = head.caller.traceparent
    if head.context is not None:
        headers["X-Amz-Client-Context"] = head.context
    if kind is not TargetKind.LAMBDA:
        headers[REQUEST_ID] = request_id
    elif head.tail:
        headers["X-Amz-Log-Type"] = "Tail"
    return headers
