"""What the Lambda API learns from the node it runs on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest

from config.settings import AwsSettings, InvokeSettings, Settings
from controlplane.lambda_errors import ApiError
from invocation.settings import UrlFunction
from model.errors import SourceRefusedError, SourceUnavailableError
from model.ids import MappingId
from model.mapping_rules import parse_mapping
from node.lambda_surroundings import NodeSurroundings
from pollers.queue_ports import QueueFacts
from pollers.sources.kinesis_api import NotInStreamError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from model.mapping import EventSourceMapping
    from node.parts import Parts

pytestmark = pytest.mark.looptime

STREAM = "arn:aws:kinesis:us-east-1:000000000000:stream/clicks"
QUEUE = "arn:aws:sqs:us-east-1:000000000000:orders"
SETTINGS = Settings(
    aws=AwsSettings(region="eu-central-1", account_id="123456789012"),
    functions={
        "f": UrlFunction("f", "http://127.0.0.1:9"),
        "slow": UrlFunction("slow", "http://127.0.0.1:9", timeout_s=900),
    },
)


class FakeParts:
    """Answers for the source as the test says."""

    def __init__(self, answer: Callable[[], Awaitable[QueueFacts | None]]) -> None:
        self._answer = answer

    async def look(self, _mapping: EventSourceMapping) -> QueueFacts | None:
        """See `Parts.look`."""
        return await self._answer()


async def nothing() -> QueueFacts | None:
    """Find the source there, and nothing to say of it."""
    return None


def around(
    answer: Callable[[], Awaitable[QueueFacts | None]] = nothing, settings: Settings = SETTINGS
) -> NodeSurroundings:
    """Make it."""
    return NodeSurroundings(lambda: settings, cast("Parts", FakeParts(answer)), trusted=False)


def queue(function: str = "f", **more: Any) -> EventSourceMapping:
    """Make a mapping of a queue."""
    return parse_mapping({"Name": "m", "EventSourceArn": QUEUE, "FunctionName": function, **more})


def stream() -> EventSourceMapping:
    """Make a mapping of a stream."""
    return parse_mapping({"Name": "m", "EventSourceArn": STREAM, "FunctionName": "f", "StartingPosition": "LATEST"})


def test_mappings_have_arns_of_the_configured_account() -> None:
    """Region and account are those of `aws`."""
    arn = around().mapping_arn(MappingId("11111111-1111-4111-8111-111111111111"))
    assert arn == ("arn:aws:lambda:eu-central-1:123456789012:event-source-mapping:11111111-1111-4111-8111-111111111111")
    assert around().function_arn("f:live") == "arn:aws:lambda:eu-central-1:123456789012:function:f:live"


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        ("f", None),
        ("f:live", None),
        ("123456789012:function:f", None),
        ("arn:aws:lambda:eu-central-1:123456789012:function:f", None),
        ("arn:aws:lambda:us-east-1:999999999999:function:elsewhere", None),
        ("h", "Function does not exist"),
        ("999999999999:function:f", "Function does not exist"),
    ],
)
def test_functions_are_found_as_in_a_file(function: str, problem: str | None) -> None:
    """By name, partial ARN and ARN, with a qualifier or without; others in AWS."""
    assert around().function_problem(queue(function)) == problem


def test_an_invoke_endpoint_knows_every_function() -> None:
    """What is not listed is called there."""
    settings = Settings(invoke=InvokeSettings("http://127.0.0.1:9"))
    assert around(settings=settings).function_problem(queue("anything")) is None


def test_a_function_may_be_too_slow_for_kafka() -> None:
    """Rule 4 of spec section 1.3."""
    document: dict[str, Any] = {
        "Name": "m",
        "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["h:1"]}},
        "Topics": ["t"],
        "FunctionName": "slow",
    }
    assert "840 seconds" in (around().function_problem(parse_mapping(document)) or "")
    assert around().function_problem(queue("slow")) is None


@pytest.mark.parametrize(
    ("mapping", "error", "message"),
    [
        (stream(), NotInStreamError("ListShards: ResourceNotFoundException"), f"Stream not found: {STREAM}"),
        (queue(), SourceRefusedError("it", result="Error occurred while ReceiveMessage."), "Error occurred while Rece"),
        (queue(), SourceRefusedError("GetQueueUrl: AccessDenied"), "GetQueueUrl: AccessDenied"),
    ],
)
async def test_a_source_that_refuses_is_an_error(
    mapping: EventSourceMapping, error: SourceRefusedError, message: str
) -> None:
    """In AWS's words where the specification has them (section 7.5)."""

    async def refuse() -> QueueFacts | None:
        raise error

    with pytest.raises(ApiError) as caught:
        await around(refuse).check_source(mapping)
    assert (caught.value.status, caught.value.type) == (400, "InvalidParameterValueException")
    assert str(caught.value).startswith(message)


async def test_a_source_that_does_not_answer_is_no_error() -> None:
    """Nobody can tell now; the mapping's tracker goes on asking."""

    async def away() -> QueueFacts | None:
        raise SourceUnavailableError("connection refused")

    async def hanging() -> QueueFacts | None:
        await asyncio.Event().wait()
        return None

    await around(away).check_source(stream())
    began = asyncio.get_running_loop().time()
    await around(hanging).check_source(stream())
    assert asyncio.get_running_loop().time() - began == 5


async def test_a_queue_that_hides_messages_too_shortly_is_refused_where_nobody_extends_it() -> None:
    """Rule 3 of spec section 1.3; with the heartbeat on, which is the default, esmd extends their visibility."""

    async def short() -> QueueFacts | None:
        return QueueFacts(10, 0, 0, 0)

    await around(short).check_source(queue())
    with pytest.raises(ApiError, match="Queue visibility timeout: 10 seconds is less than Function timeout: 30 second"):
        await around(short).check_source(queue(extensions={"visibility_heartbeat": False}))
