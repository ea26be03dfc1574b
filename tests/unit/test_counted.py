"""Targets whose invocations count: what pollers and callers see of a function at its limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from invocation.classify import Answer, TargetKind
from invocation.counted import CountedRunner, CountedTarget
from invocation.frontend import FrontEnd
from invocation.invoke_request import InvokeHead, read_head
from invocation.invoking import InvocationResult, NotInvoked, Request, throttled
from invocation.settings import HandlerFunction, UrlFunction
from model.ids import MappingId, ShardId, ShardKey
from model.invocation import Invocation
from model.outcome import Delivered, Throttled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from model.outcome import Outcome

T = TypeVar("T")
INVOCATION = Invocation(b"{}", "orders", ShardKey(MappingId("m"), ShardId("t-0")), 7, "batch", 2)
FUNCTION = HandlerFunction("f", "app.handler", "code")


class Counter:
    """Lets everybody in, or refuses with a reason."""

    def __init__(self, refusal: NotInvoked | None = None) -> None:
        self.refusal = refusal
        self.functions: list[str] = []

    async def counted(self, function: str, call: Callable[[], Awaitable[T]]) -> T | NotInvoked:
        """See `Counting`."""
        self.functions.append(function)
        return self.refusal or await call()


class Target:
    """A function elsewhere."""

    kind = TargetKind.URL
    full = False
    calls = 0

    async def call(self, event: bytes, headers: Mapping[str, str]) -> Answer:
        """Answer what was asked."""
        self.calls += 1
        assert event == b"{}"
        return Answer(200, {}, b"[1]" if headers else b"")

    async def invoke(self, invocation: Invocation) -> Outcome:
        """See `RemoteTarget`."""
        raise AssertionError(f"{invocation} does not count")


class Runner:
    """Runs everything."""

    async def invoke(self, function: HandlerFunction, request: Request) -> InvocationResult | NotInvoked:
        """Answer with the event."""
        assert function is FUNCTION
        return InvocationResult(request.event, None, b"", 0.1)


def head() -> InvokeHead:
    """Return the head of a plain request."""
    found = read_head("f", None, {})
    assert isinstance(found, InvokeHead)
    return found


async def test_below_the_limit_the_function_is_called() -> None:
    """Invocations count under the function's name, and go where they would go."""
    counter, target = Counter(), Target()
    assert await CountedTarget(target, "f", counter).invoke(INVOCATION) == Delivered(b"[1]", 200)
    request = Request(b"{}", "id")
    assert await CountedRunner(Runner(), counter).invoke(FUNCTION, request) == InvocationResult(b"{}", None, b"", 0.1)
    assert counter.functions == ["f", "f"]


async def test_at_the_limit_pollers_are_throttled_and_nothing_is_called() -> None:
    """They see the throttle with its reason, for whatever kind of function."""
    for own, reason in (
        (True, "ReservedFunctionConcurrentInvocationLimitExceeded"),
        (False, "ConcurrentInvocationLimitExceeded"),
    ):
        refusal, target = throttled(own_limit=own), Target()
        outcome = await CountedTarget(target, "f", Counter(refusal)).invoke(INVOCATION)
        text = f"HTTP 429 Too Many Requests: TooManyRequestsException: {reason}: Rate Exceeded."
        assert (outcome, target.calls) == (Throttled(text), 0)
        assert await CountedRunner(Runner(), Counter(refusal)).invoke(FUNCTION, Request(b"{}", "id")) == refusal


async def test_at_the_limit_callers_are_told_which_one() -> None:
    """The front end answers with the reason of the limit, also for a function behind a URL."""
    function = UrlFunction("f", "http://h")
    refusal = throttled(own_limit=False)

    class Functions:
        def listed_function(self, _name: str) -> UrlFunction:
            return function

        def function_arn(self, name: str) -> str:
            return name

    front = FrontEnd(Functions, lambda _: CountedTarget(Target(), "f", Counter(refusal)))
    answer = await front.invoke(function, head(), b"{}", "id")
    assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (429, "TooManyRequestsException")
    assert msgspec.json.decode(answer.body)["Reason"] == "ConcurrentInvocationLimitExceeded"
