"""Results of asynchronous invocations on their way to destinations."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from model.async_event import Condition, NewEvent, Response, Result
from model.errors import RefusedError
from pollers.destinations.results import OneMessage, ResultDestinations

if TYPE_CHECKING:
    from pollers.failure_document import TopicMessage

ARN = "arn:aws:lambda:us-east-1:123456789012:function:f"
EVENT = NewEvent("f", "f", "r-1", "Root=1-trace", b'{"a":1}')
RESULT = Result(Condition.RETRIES_EXHAUSTED, 0, 3, Response(200, "1", "Unhandled", b'{"errorMessage":"no"}'), "id")
OTHER = "arn:aws:lambda:us-east-1:123456789012:function:other"


@dataclass
class Services:
    """What was sent to whom."""

    calls: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    handed_on: list[tuple[str, bytes, str, str]] = field(default_factory=list)
    sent: list[tuple[str, str, TopicMessage]] = field(default_factory=list)
    opened: int = 0
    closed: int = 0
    configuration: object = None
    may_close: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_close.set()

    async def call(self, service: str, operation: str, what: str, *, region: str = "", **parameters: Any) -> Any:
        """Take a call of AWS."""
        self.calls.append((f"{service}.{operation}", region, {"what": what, **parameters}))

    async def endpoint(self, service: str, *, region: str) -> str:
        """Return where a service is."""
        return f"https://{service}.{region}"

    async def hand_on(self, function: str, event: bytes, *, request_id: str, trace: str) -> None:
        """Take an event for another function."""
        self.handed_on.append((function, event, request_id, trace))

    def topic(self, name: str, function: str) -> Topic:
        """Return a topic."""
        self.opened += 1
        return Topic(self, name, function)

    def destinations(self) -> ResultDestinations:
        """Return what is tested."""
        return ResultDestinations(
            self,  # type: ignore[arg-type]
            lambda _name: ARN,
            hand_on=self.hand_on,
            topic=self.topic,
            configuration=lambda: self.configuration,
        )


@dataclass
class Topic:
    """A topic of Kafka."""

    services: Services
    name: str
    function: str

    async def deliver(self, message: TopicMessage) -> None:
        """Take a message."""
        self.services.sent.append((self.name, self.function, message))

    async def close(self) -> None:
        """Count, when one may."""
        await self.services.may_close.wait()
        self.services.closed += 1


async def test_a_queue_and_a_topic_are_sent_the_document() -> None:
    """In the Region of their ARN."""
    services = Services()
    await services.destinations().tell("arn:aws:sqs:eu-west-1:123456789012:failed", EVENT, RESULT)
    await services.destinations().tell("arn:aws:sns:eu-west-2:123456789012:told", EVENT, RESULT)
    (queue, region, sent), (topic, other_region, published) = services.calls
    assert (queue, region, topic, other_region) == ("sqs.send_message", "eu-west-1", "sns.publish", "eu-west-2")
    assert sent["QueueUrl"] == "https://sqs.eu-west-1/123456789012/failed"
    assert sent["MessageBody"] == published["Message"]
    assert json.loads(sent["MessageBody"])["requestContext"]["functionArn"] == f"{ARN}:$LATEST"
    assert "MessageAttributes" not in sent


async def test_a_bucket_is_given_an_object() -> None:
    """Under the key that AWS uses."""
    services = Services()
    await services.destinations().tell("arn:aws:s3:::failures", EVENT, RESULT)
    ((operation, _, sent),) = services.calls
    assert (operation, sent["Bucket"]) == ("s3.put_object", "failures")
    assert sent["Key"] == "aws/lambda/async/f/1970/01/01/1970-01-01T00.00.00-id"


async def test_another_function_is_invoked_under_an_id_of_its_own() -> None:
    """The same each time that the same result is handed on, so that it can be told from another one."""
    services = Services()
    for _ in range(2):
        await services.destinations().tell(OTHER, EVENT, RESULT)
    (function, event, request_id, trace), again = services.handed_on
    assert (function, trace) == (OTHER, EVENT.trace)
    assert json.loads(event)["requestContext"]["requestId"] == "r-1"
    assert request_id == again[2] != EVENT.request_id


async def test_a_topic_of_kafka() -> None:
    """Each topic is opened once and closed in the end; a message too large for it goes without payloads."""
    services = Services()
    destinations = services.destinations()
    for _ in range(2):
        await destinations.tell("kafka://failed", EVENT, RESULT)
    (name, function, message), _ = services.sent
    assert (name, function, message.key) == ("kafka://failed", "f", b"r-1")
    assert json.loads(message.value)["requestPayload"] == {"a": 1}
    assert json.loads(message.without_payload)["requestPayload"] is None
    assert OneMessage().messages(message) == [message]
    await destinations.close()
    await destinations.close()
    assert services.closed == 1


async def test_a_topic_is_opened_anew_with_another_configuration() -> None:
    """By which it may be on another cluster; with the same one it stays open."""
    services = Services()
    destinations = services.destinations()
    await destinations.tell("kafka://failed", EVENT, RESULT)
    await destinations.tell("kafka://failed", EVENT, RESULT)
    assert (services.opened, services.closed) == (1, 0)
    services.configuration = object()
    await destinations.tell("kafka://failed", EVENT, RESULT)
    assert (services.opened, services.closed) == (2, 1)
    assert len(services.sent) == 3


async def test_topics_that_are_out_of_date_are_closed_though_who_closes_them_is_cancelled() -> None:
    """A lease that ends cancels deliveries at any moment; the next one goes on with what is left."""
    services = Services()
    destinations = services.destinations()
    for name in ("kafka://a", "kafka://b"):
        await destinations.tell(name, EVENT, RESULT)
    services.configuration = object()
    services.may_close.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await destinations.tell("kafka://a", EVENT, RESULT)
    services.may_close.set()
    await destinations.tell("kafka://a", EVENT, RESULT)
    assert services.closed == 1  # the other one's closing had begun
    assert (services.opened, len(services.sent)) == (3, 3)


async def test_dead_letters() -> None:
    """The event unchanged to a queue or a topic, with attributes."""
    services = Services()
    await services.destinations().bury("arn:aws:sqs:eu-west-1:123456789012:dead", EVENT, RESULT)
    await services.destinations().bury("arn:aws:sns:eu-west-1:123456789012:dead", EVENT, RESULT)
    (_, _, sent), (_, _, published) = services.calls
    assert sent["MessageBody"] == published["Message"] == '{"a":1}'
    assert sent["MessageAttributes"] == published["MessageAttributes"]
    assert sent["MessageAttributes"]["ErrorMessage"]["StringValue"] == "no"


@pytest.mark.parametrize(
    "name", ["arn:aws:events:us-east-1:123456789012:event-bus/default", "elsewhere", "arn:aws:sqs"]
)
async def test_what_is_no_destination_is_refused(name: str) -> None:
    """A stored name that this version does not know is refused, not dropped."""
    with pytest.raises(RefusedError):
        await Services().destinations().tell(name, EVENT, RESULT)
    with pytest.raises(RefusedError):
        await Services().destinations().bury(name.replace("sqs", "s3"), EVENT, RESULT)
