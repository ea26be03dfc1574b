"""Targets whose invocations count against their function's concurrency, wherever the function runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from invocation.classify import TargetKind, classify
from invocation.front_answers import error_answer
from invocation.headers import invocation_headers
from invocation.invoking import NotInvoked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import Protocol, TypeVar

    from invocation.classify import Answer, Failure
    from invocation.client import RemoteTarget
    from invocation.invoking import InvocationResult, Request
    from invocation.local_target import FunctionRunner
    from invocation.settings import HandlerFunction
    from model.invocation import Invocation
    from model.outcome import Outcome

    T = TypeVar("T")

    class Counter(Protocol):
        """What `invocation.counting.Counting` is to targets."""

        async def counted(self, function: str, call: Callable[[], Awaitable[T]]) -> T | NotInvoked:
            """Invoke a function while its limit allows it."""


class CountedRunner:
    """Runs functions in sandboxes: `invocation.local_target.FunctionRunner`."""

    def __init__(self, runner: FunctionRunner, counter: Counter) -> None:
        self._runner = runner
        self._counter = counter

    async def invoke(self, function: HandlerFunction, request: Request) -> InvocationResult | NotInvoked:
        """Invoke a function once, if its limit allows it. Raises nothing but CancelledError."""
        return await self._counter.counted(function.name, lambda: self._runner.invoke(function, request))


class CountedTarget:
    """A function elsewhere: `invocation.client.RemoteTarget`."""

    def __init__(self, target: RemoteTarget, function: str, counter: Counter) -> None:
        self._target = target
        self._function = function
        self._counter = counter
        self.kind = target.kind

    @property
    def full(self) -> bool:
        """Whether a call would have to wait for others to end."""
        return self._target.full

    async def call(self, event: bytes, headers: Mapping[str, str]) -> Answer | Failure | NotInvoked:
        """Call the function once, if its limit allows it. Raises nothing but CancelledError."""
        return await self._counter.counted(self._function, lambda: self._target.call(event, headers))

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Call the function once and classify what came back: no room is the throttling it always is."""
        headers = invocation_headers(invocation, xray=self.kind is not TargetKind.URL)
        came = await self.call(invocation.event, headers)
        if isinstance(came, NotInvoked):
            return classify(TargetKind.LOCAL, error_answer(came))
        return classify(self.kind, came, now=time.time())
