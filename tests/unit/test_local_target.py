"""What pollers see of a function in a sandbox: `invocation.local_target`, contract section 3."""

from __future__ import annotations

import json

import msgspec
import pytest

from invocation.invoking import InvocationResult, NotInvoked, Request, out_of_service, throttled
from invocation.local_target import LocalTarget
from invocation.settings import HandlerFunction
from invocation.trace_context import xray_header
from model.ids import MappingId, ShardId, ShardKey
from model.invocation import Invocation
from model.outcome import Delivered, FunctionFailed, NotReached, Outcome, Throttled

FUNCTION = HandlerFunction("f", "app.handler", "code")
INVOCATION = Invocation(b"{}", "orders", ShardKey(MappingId("m"), ShardId("t-0")), 7, "batch", 2)


class Runner:
    """Answers every request alike, and keeps the last."""

    def __init__(self, answer: InvocationResult | NotInvoked) -> None:
        self.answer = answer
        self.request: Request | None = None

    async def invoke(self, function: HandlerFunction, request: Request) -> InvocationResult | NotInvoked:
        """Answer."""
        assert function is FUNCTION
        self.request = request
        return self.answer


TIMED_OUT = b'{"errorType":"Sandbox.Timedout","errorMessage":"Task timed out after 3.00 seconds"}'

OUTCOMES: list[tuple[InvocationResult | NotInvoked, Outcome]] = [
    (InvocationResult(b"[1]", None, b"", 0.1), Delivered(b"[1]", 200, "$LATEST")),
    (
        InvocationResult(TIMED_OUT, "Unhandled", b"", 3.0),
        FunctionFailed("Sandbox.Timedout: Task timed out after 3.00 seconds", "Unhandled", 200, "$LATEST"),
    ),
    (
        throttled(own_limit=True),
        Throttled(
            "HTTP 429 Too Many Requests: TooManyRequestsException: ReservedFunctionConcurrentInvocationLimitExceeded: "
            "Rate Exceeded."
        ),
    ),
    (
        throttled(own_limit=False),
        Throttled(
            "HTTP 429 Too Many Requests: TooManyRequestsException: ConcurrentInvocationLimitExceeded: Rate Exceeded."
        ),
    ),
    (
        out_of_service("the node is stopping"),
        NotReached("HTTP 500 Internal Server Error: ServiceException: the node is stopping", None, 500),
    ),
]


@pytest.mark.parametrize(("answer", "outcome"), OUTCOMES)
async def test_outcomes(answer: InvocationResult | NotInvoked, outcome: Outcome) -> None:
    """A function error counts; no room and no sandbox do not."""
    assert await LocalTarget(FUNCTION, Runner(answer)).invoke(INVOCATION) == outcome


async def test_a_function_is_told_what_other_targets_get_as_headers() -> None:
    """In the client context; the trace is the batch's, the request id a new one each time."""
    runner = Runner(OUTCOMES[0][0])
    target = LocalTarget(FUNCTION, runner)
    requests = []
    for _ in range(2):
        await target.invoke(INVOCATION)
        assert runner.request is not None
        requests.append(runner.request)
    one, other = requests
    assert json.loads(one.client_context or "") == {
        "custom": {
            "X-Esmd-Mapping": "orders",
            "X-Esmd-Shard": str(INVOCATION.shard),
            "X-Esmd-Fencing-Token": "7",
            "X-Esmd-Batch-Id": "batch",
            "X-Esmd-Attempt": "2",
        }
    }
    assert one.request_id != other.request_id
    assert one.trace is not None
    assert other.trace is not None
    assert one.trace[:35] == other.trace[:35]
    assert one.event == b"{}"


def test_a_trace_context_becomes_an_x_ray_header() -> None:
    """Trace, span and whether it is sampled."""
    context = "00-0123456789abcdef0123456789abcdef-fedcba9876543210-01"
    expected = "Root=1-01234567-89abcdef0123456789abcdef;Parent=fedcba9876543210;Sampled=1"
    assert xray_header(context) == expected


async def test_a_function_gets_the_span_of_its_attempt() -> None:
    """Where attempts are traced, the runtime's trace id names the attempt's own span."""
    runner = Runner(OUTCOMES[0][0])
    context = "00-0123456789abcdef0123456789abcdef-fedcba9876543210-00"
    await LocalTarget(FUNCTION, runner).invoke(msgspec.structs.replace(INVOCATION, traceparent=context))
    assert runner.request is not None
    assert runner.request.trace == xray_header(context)
